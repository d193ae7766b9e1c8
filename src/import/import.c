/*-------------------------------------------------------------------------
 *
 * import.c
 *		Imports: rows of many writers that appear at once.
 *
 * An import is a batch of kind "import".  Each of its writers ("instances") has
 * a table of its own in our schema; publishing is one transaction that brings
 * all their rows into the target by its rules, or makes the tables partitions
 * of it, drops what is left, and records that it did.  So a crash or an error
 * at any point leaves either all of it or nothing, and every call may simply be
 * repeated.
 *
 * Rows count in the order in which their instances were finalized; those of an
 * instance first by COPY, in the order in which they came, then by chunk
 * number, whatever the order in which chunks came.
 *
 * Locks, in this order: the row of batchdedup.import (shared by who loads,
 * alone by who publishes or aborts), that of the instance (the same), the
 * writer's table, that of the batch.  What is shared waits for nobody who
 * loads.
 *
 * The functions run SQL on our tables as the extension's owner, and ask first
 * whether the caller may upsert into the target.
 *
 *-------------------------------------------------------------------------
 */
#include "import/import.h"

#include "access/xact.h"
#include "base/debug_point.h"
#include "base/list.h"
#include "base/loaded.h"
#include "base/uuid.h"
#include "batch/batch.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "event/emit.h"
#include "fmgr.h"
#include "ingest/push.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "storage/lmgr.h"
#include "target/privilege.h"
#include "target/target_check.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(bdd_prepare_import);
PG_FUNCTION_INFO_V1(bdd_create_writer);
PG_FUNCTION_INFO_V1(bdd_write_chunk_json);
PG_FUNCTION_INFO_V1(bdd_write_chunk_text);
PG_FUNCTION_INFO_V1(bdd_write_chunk_rows);
PG_FUNCTION_INFO_V1(bdd_finalize_instance);
PG_FUNCTION_INFO_V1(bdd_finalize_batch);
PG_FUNCTION_INFO_V1(bdd_abort_batch);
PG_FUNCTION_INFO_V1(bdd_expire_imports);

/* ---------- arguments ---------- */

static char *
text_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	char *value;

	bdd_check_argument(fcinfo, n, what);
	value = text_to_cstring(PG_GETARG_TEXT_PP(n));
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
	return value;
}

static List *
names_of(Datum array)
{
	if (array_contains_nulls(DatumGetArrayTypeP(array)))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of an instance must not be null")));
	return bdd_names_of(array);
}

/* ---------- the caller and we ---------- */

/* Connected to SPI, as the extension's owner. */
static void
begin_call(BddImport *import, const char *call)
{
	memset(import, 0, sizeof(*import));
	bdd_check_preloaded();
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	bdd_spi_connect();
	bdd_become_extension_owner(&import->caller);
}

static void
end_call(BddImport *import)
{
	bdd_restore_role(&import->caller);
	bdd_spi_finish();
}

/* INSERT and UPDATE, and all rows of the table. */
static void
check_rights(BddTarget *target)
{
	if (bdd_row_security_binds(target))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security of \"%s\" applies to role \"%s\", who therefore cannot import into it",
						get_rel_name(target->relid),
						GetUserNameFromId(GetUserId(), false))));
	bdd_check_may_upsert_all(target);
}

static void
report_gone(const BddImport *import)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_TABLE),
			 errmsg("the target of import \"%s\" does not exist any more",
					import->name),
			 errhint("End the import with batchdedup.abort_batch.")));
}

/*
 * As the caller.  Whoever may execute the function may abort what has no
 * target any more; for all else it is needed, as it was.
 */
static void
check_target(BddImport *import, bool may_be_gone)
{
	BddOptions options;

	LockRelationOid(import->relid, AccessShareLock);
	if (get_rel_name(import->relid) == NULL ||
		!bdd_options_read(import->relid, &options))
	{
		if (may_be_gone && get_rel_name(import->relid) == NULL)
			return;
		if (get_rel_name(import->relid) == NULL)
			report_gone(import);
		if (may_be_gone)
		{
			bdd_check_owner(import->relid);
			return;
		}
	}
	import->target = bdd_target_open_any(import->relid, AccessShareLock);
	check_rights(import->target);
	if (may_be_gone)
		return;
	bdd_check_usable(import->target);
	if (import->target->shape.fingerprint != import->shape)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" has been changed since import \"%s\" was prepared",
						get_rel_name(import->relid), import->name),
				 errhint("End the import with batchdedup.abort_batch, and begin another one.")));
}

/* ---------- reading ---------- */

static void
parse_import(BddImport *import)
{
	bool isnull;
	Datum value;

	import->name = TextDatumGetCString(bdd_spi_value(0, 1, &isnull));
	import->relid = DatumGetObjectId(bdd_spi_value(0, 3, &isnull));
	value = bdd_spi_value(0, 2, &isnull);
	if (strcmp(TextDatumGetCString(value), "import") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("batch \"%s\" is not an import", import->name)));
	import->attach = strcmp(TextDatumGetCString(bdd_spi_value(0, 4, &isnull)),
							"attach") == 0;
	import->expected = DatumGetInt32(bdd_spi_value(0, 5, &isnull));
	import->shape = (uint32) DatumGetInt64(bdd_spi_value(0, 6, &isnull));
	value = bdd_spi_value(0, 7, &isnull);
	import->instances = isnull ? NIL : names_of(value);
}

static void
read_import(BddImport *import)
{
	static BddKeptPlan select = {
		"SELECT b.name, CASE WHEN i.batch_id IS NULL THEN 'files' ELSE 'import' END, i.target, i.publish, "
		"i.expected_instances, i.shape, i.instances "
		"FROM batchdedup.batch_row b LEFT JOIN batchdedup.import i ON i.batch_id = b.id WHERE b.id = $1",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};

	if (bdd_plan_run(&select, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("import %s does not exist",
						bdd_uuid_text(&import->id))));
	parse_import(import);
}

/* Locks the import's row, and only then reads how far it is. */
static void
lock_import(BddImport *import, bool alone)
{
	static BddKeptPlan shared = {
		"SELECT 1 FROM batchdedup.import WHERE batch_id = $1 FOR SHARE",
		1,
		{UUIDOID}};
	static BddKeptPlan exclusive = {
		"SELECT 1 FROM batchdedup.import WHERE batch_id = $1 FOR UPDATE",
		1,
		{UUIDOID}};
	static BddKeptPlan status = {
		"SELECT status FROM batchdedup.batch_row WHERE id = $1",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};
	bool isnull;

	if (bdd_plan_run(alone ? &exclusive : &shared, values, NULL) == 0 ||
		bdd_plan_run(&status, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("import \"%s\" does not exist any more", import->name)));
	import->status = TextDatumGetCString(bdd_spi_value(0, 1, &isnull));
}

/* Finds the import, asks whether the caller may, and locks it. */
static void
open_import(BddImport *import, const pg_uuid_t *id, const char *call,
			bool alone, bool may_be_gone)
{
	begin_call(import, call);
	import->id = *id;
	read_import(import);
	bdd_restore_role(&import->caller);
	check_target(import, may_be_gone);
	bdd_become_extension_owner(&import->caller);
	lock_import(import, alone);
}

static bool
is_status(const BddImport *import, const char *status)
{
	return strcmp(import->status, status) == 0;
}

/* For who is to load rows. */
static void
check_open(const BddImport *import)
{
	if (is_status(import, "completed") || is_status(import, "cancelled") ||
		is_status(import, "failed"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" is %s", import->name, import->status)));
}

/* ---------- prepare_import ---------- */

static void
check_attachable(BddTarget *target)
{
	bdd_check_owner(target->relid);
	if (get_rel_relkind(target->relid) != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("table \"%s\" is not partitioned, so nothing can be attached to it",
						get_rel_name(target->relid)),
				 errhint("Use publish => 'upsert'.")));
}

static bool
is_attach(FunctionCallInfo fcinfo)
{
	char *publish;

	bdd_check_argument(fcinfo, 3, "publish");
	publish = text_to_cstring(PG_GETARG_TEXT_PP(3));
	if (strcmp(publish, "attach") == 0)
		return true;
	if (strcmp(publish, "upsert") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument publish cannot be \"%s\"", publish),
				 errhint("Its values are: upsert, attach.")));
	return false;
}

/* The number that is given, or that of the names. */
static int
expected_argument(FunctionCallInfo fcinfo)
{
	List *names = PG_ARGISNULL(4) ? NIL : names_of(PG_GETARG_DATUM(4));
	int expected = PG_ARGISNULL(2) ? list_length(names) : PG_GETARG_INT32(2);
	ListCell *cell;

	if (names == NIL)
		bdd_check_argument(fcinfo, 2, "expected_instances");
	if (expected < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("expected_instances must be positive")));
	if (names != NIL && expected != list_length(names))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%d instances are expected, but %d are named",
						expected, list_length(names))));
	foreach(cell, names)
	{
		const char *name = lfirst(cell);

		if (name[0] == '\0' ||
			bdd_is_named(list_copy_tail(names, foreach_current_index(cell) + 1), name))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("instance \"%s\" is named twice, or has no name", name)));
	}
	return expected;
}

/* False: there is a batch of that name. */
static bool
insert_import(FunctionCallInfo fcinfo, BddImport *import)
{
	static BddKeptPlan batch = {
		"INSERT INTO batchdedup.batch_row (id, name, kind, expected_files, total_files, metadata) "
		"VALUES ($1, $2, 'import', $3, $3, $4) ON CONFLICT (name) DO NOTHING",
		4,
		{UUIDOID, TEXTOID, INT4OID, JSONBOID}};
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.import VALUES ($1, $2, $3, $4, $5, $6)",
		6,
		{UUIDOID, REGCLASSOID, TEXTOID, INT4OID, TEXTARRAYOID, INT8OID}};
	Datum id = UUIDPGetDatum(&import->id);
	Datum batch_values[] = {id, PG_GETARG_DATUM(0), Int32GetDatum(import->expected),
							PG_GETARG_DATUM(5)};
	Datum values[] = {id, PG_GETARG_DATUM(1), PG_GETARG_DATUM(3),
					  Int32GetDatum(import->expected), PG_GETARG_DATUM(4),
					  Int64GetDatum(import->target->shape.fingerprint)};
	const char *nulls = PG_ARGISNULL(4) ? "    n " : NULL;
	BddPayload payload;

	if (bdd_plan_run(&batch, batch_values, NULL) == 0)
		return false;
	(void) bdd_plan_run(&insert, values, nulls);
	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "name", TextDatumGetCString(PG_GETARG_DATUM(0)));
	bdd_payload_text(&payload, "kind", "import");
	bdd_event_emit(BDD_EVENT_BATCH_CREATED, &import->id, NULL, &payload);
	return true;
}

/* The import of that name, which is to be the same; false: it is gone. */
static bool
find_same(FunctionCallInfo fcinfo, BddImport *import)
{
	static BddKeptPlan select = {
		"SELECT b.id, i.target IS NOT DISTINCT FROM $2 AND i.publish IS NOT DISTINCT FROM $3 "
		"AND i.expected_instances IS NOT DISTINCT FROM $4 AND i.instances IS NOT DISTINCT FROM $5 "
		"AND b.metadata = $6 "
		"FROM batchdedup.batch_row b LEFT JOIN batchdedup.import i ON i.batch_id = b.id WHERE b.name = $1",
		6,
		{TEXTOID, REGCLASSOID, TEXTOID, INT4OID, TEXTARRAYOID, JSONBOID}};
	Datum values[] = {PG_GETARG_DATUM(0), PG_GETARG_DATUM(1), PG_GETARG_DATUM(3),
					  Int32GetDatum(import->expected), PG_GETARG_DATUM(4),
					  PG_GETARG_DATUM(5)};
	bool isnull;

	if (bdd_plan_run(&select, values, PG_ARGISNULL(4) ? "    n " : NULL) == 0)
		return false;
	import->id = *DatumGetUUIDP(bdd_spi_value(0, 1, &isnull));
	if (!DatumGetBool(bdd_spi_value(0, 2, &isnull)) || isnull)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("there is another batch \"%s\"",
						TextDatumGetCString(PG_GETARG_DATUM(0))),
				 errdetail("It was made with other arguments.")));
	return true;
}

/*
 * prepare_import(name, target, expected_instances, publish, instances,
 * metadata)
 */
Datum
bdd_prepare_import(PG_FUNCTION_ARGS)
{
	pg_uuid_t *id = bdd_new_uuid();
	BddImport import;
	BddTarget *target;
	int expected;
	bool attach;

	(void) text_argument(fcinfo, 0, "name");
	bdd_check_argument(fcinfo, 1, "target");
	bdd_check_argument(fcinfo, 5, "metadata");
	attach = is_attach(fcinfo);
	expected = expected_argument(fcinfo);
	target = bdd_target_open(PG_GETARG_OID(1), AccessShareLock);
	check_rights(target);
	if (attach)
		check_attachable(target);

	begin_call(&import, "prepare_import()");
	import.id = *id;
	import.expected = expected;
	import.target = target;
	while (!find_same(fcinfo, &import) && !insert_import(fcinfo, &import))
	{
		/* Whoever has the name may be rolled back, or gone by now. */
		CHECK_FOR_INTERRUPTS();
		if (IsolationUsesXactSnapshot())
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update")));
	}
	*id = import.id;
	end_call(&import);
	bdd_debug_point("import-prepared");
	PG_RETURN_UUID_P(id);
}

/* ---------- instances ---------- */

/* False: it has not begun. */
static bool
read_instance(const BddImport *import, char *name, BddInstance *instance,
			  bool alone)
{
	static BddKeptPlan shared = {
		"SELECT status, writer, chunks, bound, rows FROM batchdedup.import_instance "
		"WHERE batch_id = $1 AND instance = $2 FOR SHARE",
		2,
		{UUIDOID, TEXTOID}};
	static BddKeptPlan exclusive = {
		"SELECT status, writer, chunks, bound, rows FROM batchdedup.import_instance "
		"WHERE batch_id = $1 AND instance = $2 FOR UPDATE",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(&import->id), CStringGetTextDatum(name)};
	Datum value;
	bool isnull;

	memset(instance, 0, sizeof(*instance));
	instance->name = name;
	if (bdd_plan_run(alone ? &exclusive : &shared, values, NULL) == 0)
		return false;
	value = bdd_spi_value(0, 1, &isnull);
	instance->finalized = strcmp(TextDatumGetCString(value), "finalized") == 0;
	instance->writer = DatumGetObjectId(bdd_spi_value(0, 2, &isnull));
	value = bdd_spi_value(0, 3, &isnull);
	instance->chunks = isnull ? InvalidOid : DatumGetObjectId(value);
	value = bdd_spi_value(0, 4, &isnull);
	instance->bound = isnull ? NULL : TextDatumGetCString(value);
	value = bdd_spi_value(0, 5, &isnull);
	instance->rows = isnull ? 0 : DatumGetInt64(value);
	return true;
}

static bool
tables_are_there(const BddInstance *instance)
{
	/* An owner can make a view of a table that is empty. */
	return get_rel_relkind(instance->writer) == RELKIND_RELATION &&
		   (!OidIsValid(instance->chunks) ||
			get_rel_relkind(instance->chunks) == RELKIND_RELATION);
}

static void
check_tables(const BddInstance *instance)
{
	if (!tables_are_there(instance))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of instance \"%s\" does not exist any more",
						instance->name),
				 errhint("batchdedup.create_writer with restart => true makes it anew, without rows.")));
}

static void
check_not_finalized(const BddInstance *instance)
{
	if (instance->finalized)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("instance \"%s\" is finalized", instance->name)));
}

/* Before another instance is made: whether it is one that is expected. */
static void
check_expected(const BddImport *import, const char *name)
{
	static BddKeptPlan select = {
		"SELECT pg_catalog.count(*), pg_catalog.string_agg(pg_catalog.quote_ident(instance), ', ' ORDER BY instance) "
		"FROM batchdedup.import_instance WHERE batch_id = $1",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};
	bool isnull;

	if (import->instances != NIL && !bdd_is_named(import->instances, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("instance \"%s\" is not one of import \"%s\"", name,
						import->name)));
	(void) bdd_plan_run(&select, values, NULL);
	if (DatumGetInt64(bdd_spi_value(0, 1, &isnull)) >= import->expected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" expects %d instances, and all have begun",
						import->name, import->expected),
				 errdetail("They are: %s.",
						   TextDatumGetCString(bdd_spi_value(0, 2, &isnull)))));
}

/* The first writer says so for all; if another one does, nobody waits. */
static void
note_loading(const BddImport *import)
{
	static BddKeptPlan pending = {
		"SELECT 1 FROM batchdedup.batch_row WHERE id = $1 AND status = 'pending' FOR UPDATE SKIP LOCKED",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};

	if (is_status(import, "pending") &&
		bdd_plan_run(&pending, values, NULL) > 0)
		bdd_batch_advance(&import->id, "scattering");
}

static void
store_instance(const BddImport *import, const BddInstance *instance)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.import_instance (batch_id, instance, writer, chunks, bound) "
		"VALUES ($1, $2, $3, $4, $5) ON CONFLICT (batch_id, instance) DO UPDATE "
		"SET writer = EXCLUDED.writer, chunks = EXCLUDED.chunks",
		5,
		{UUIDOID, TEXTOID, REGCLASSOID, REGCLASSOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name),
					  ObjectIdGetDatum(instance->writer),
					  ObjectIdGetDatum(instance->chunks), (Datum) 0};
	char nulls[] = {' ', ' ', ' ', OidIsValid(instance->chunks) ? ' ' : 'n',
					instance->bound != NULL ? ' ' : 'n'};

	if (instance->bound != NULL)
		values[4] = CStringGetTextDatum(instance->bound);
	(void) bdd_plan_run(&insert, values, nulls);
}

/*
 * Of other writers; of two that begin at once, finalize_batch finds out.  As
 * the caller, as a bound may have values of a domain.
 */
static void
check_overlaps(BddImport *import, const BddInstance *instance)
{
	static BddKeptPlan select = {
		"SELECT instance, bound FROM batchdedup.import_instance WHERE batch_id = $1 AND instance <> $2",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name)};
	uint64 count = bdd_plan_run(&select, values, NULL);
	SPITupleTable *table = SPI_tuptable;

	bdd_restore_role(&import->caller);
	for (uint64 i = 0; i < count; i++)
		if (bdd_bounds_overlap(import->relid, instance->bound,
							   SPI_getvalue(table->vals[i], table->tupdesc, 2)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("partition of instance \"%s\" would overlap that of instance \"%s\"",
							instance->name, SPI_getvalue(table->vals[i], table->tupdesc, 1))));
	bdd_become_extension_owner(&import->caller);
}

/* Also of an instance whose tables are gone. */
static void
make_instance(BddImport *import, BddInstance *instance, const char *condition)
{
	if (import->attach && instance->bound == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a writer of import \"%s\" needs the bound of its partition",
						import->name),
				 errhint("Call batchdedup.create_writer with bound => 'FOR VALUES ...'.")));
	if (import->attach)
		check_overlaps(import, instance);
	bdd_make_writer(import, instance, condition);
	store_instance(import, instance);
	note_loading(import);
}

/*
 * Two who make the same instance at once would make two tables; until the end
 * of the transaction.  That too many are made at once is seen when they are
 * finalized: nobody shall wait for another instance's transaction.
 */
static void
lock_instance_name(const BddImport *import, const char *name)
{
	Datum batch = DirectFunctionCall1(uuid_hash, UUIDPGetDatum(&import->id));
	uint32 hash = hash_combine(DatumGetUInt32(batch),
							   string_hash(name, strlen(name) + 1));
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, bdd_catalog_relation("import"), hash, 0);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

static bool
find_instance(const BddImport *import, char *name, BddInstance *instance)
{
	if (read_instance(import, name, instance, false))
		return true;
	lock_instance_name(import, name);
	return read_instance(import, name, instance, false);
}

/* Finds the instance, or makes it. */
static void
need_instance(BddImport *import, BddInstance *instance, char *name)
{
	if (find_instance(import, name, instance))
		return;
	check_expected(import, name);
	make_instance(import, instance, NULL);
}

/* ---------- create_writer ---------- */

static void
forget_chunks(const BddImport *import, const BddInstance *instance)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.import_chunk WHERE batch_id = $1 AND instance = $2",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name)};

	(void) bdd_plan_run(&delete, values, NULL);
}

static void
restart_instance(BddImport *import, BddInstance *instance,
				 const char *condition)
{
	/* Waits for chunks that are on their way. */
	(void) read_instance(import, instance->name, instance, true);
	check_not_finalized(instance);
	forget_chunks(import, instance);
	if (tables_are_there(instance))
	{
		bdd_empty_writer(import, instance);
		return;
	}
	if (get_rel_name(instance->writer) != NULL)
		bdd_drop_staging(instance->writer);
	if (OidIsValid(instance->chunks) && get_rel_name(instance->chunks) != NULL)
		bdd_drop_staging(instance->chunks);
	make_instance(import, instance, condition);
}

/* As the caller: expressions in it are his. */
static char *
check_bound(BddImport *import, char *name, const char *bound, char **condition)
{
	char *checked;

	bdd_restore_role(&import->caller);
	checked = bdd_bound_checked(import->relid, name, bound, condition);
	bdd_become_extension_owner(&import->caller);
	return checked;
}

/* create_writer(batch, instance, bound, restart) */
Datum
bdd_create_writer(PG_FUNCTION_ARGS)
{
	BddImport import;
	BddInstance instance;
	char *name;
	char *bound = NULL;
	char *condition = NULL;

	bdd_check_argument(fcinfo, 0, "batch");
	name = text_argument(fcinfo, 1, "instance");
	bdd_check_argument(fcinfo, 3, "restart");
	open_import(&import, PG_GETARG_UUID_P(0), "create_writer()", false, false);
	check_open(&import);
	if (!PG_ARGISNULL(2) && !import.attach)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("import \"%s\" attaches nothing, and its writers have no bound",
						import.name)));
	if (!PG_ARGISNULL(2))
		bound = check_bound(&import, name, text_to_cstring(PG_GETARG_TEXT_PP(2)),
							&condition);
	if (!find_instance(&import, name, &instance))
	{
		check_expected(&import, name);
		instance.bound = bound;
		make_instance(&import, &instance, condition);
	}
	else if (bound != NULL && strcmp(bound, instance.bound) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("instance \"%s\" has another bound", name),
				 errdetail("It is %s.", instance.bound)));
	else if (PG_GETARG_BOOL(3))
	{
		if (condition == NULL && instance.bound != NULL)
			(void) check_bound(&import, name, instance.bound, &condition);
		restart_instance(&import, &instance, condition);
	}
	else
	{
		if (!instance.finalized)
			check_tables(&instance);
		if (get_rel_name(instance.writer) != NULL)
			bdd_grant_writer(&import, instance.writer);
	}
	end_call(&import);
	bdd_debug_point("import-writer");
	PG_RETURN_OID(instance.writer);
}

/* ---------- write_chunk ---------- */

typedef enum BddChunkForm
{
	BDD_CHUNK_JSON,
	BDD_CHUNK_TEXT,
	BDD_CHUNK_ROWS
} BddChunkForm;

/* What tells whether a chunk is the same: bytes, not the meaning of them. */
typedef struct BddChunk
{
	int number;
	int64 rows;
	Datum content;
} BddChunk;

/* False: it is there already. */
static bool
claim_chunk(const BddImport *import, const BddInstance *instance,
			const BddChunk *chunk)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.import_chunk (batch_id, instance, chunk_no, content, rows) "
		"VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
		5,
		{UUIDOID, TEXTOID, INT4OID, BYTEAOID, INT8OID}};
	static BddKeptPlan compare = {
		"SELECT content = $4 FROM batchdedup.import_chunk "
		"WHERE batch_id = $1 AND instance = $2 AND chunk_no = $3",
		4,
		{UUIDOID, TEXTOID, INT4OID, BYTEAOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name),
					  Int32GetDatum(chunk->number), chunk->content,
					  Int64GetDatum(chunk->rows)};
	bool isnull;

	if (bdd_plan_run(&compare, values, NULL) == 0)
	{
		check_not_finalized(instance);
		check_tables(instance);
		if (bdd_plan_run(&insert, values, NULL) > 0)
			return true;
		if (bdd_plan_run(&compare, values, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update")));
	}
	if (!DatumGetBool(bdd_spi_value(0, 1, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("chunk %d of instance \"%s\" was written with other rows",
						chunk->number, instance->name)));
	return false;
}

static void
append_sha256(StringInfo bytes, Datum *content)
{
	bytea *value = palloc(VARHDRSZ + bytes->len);

	SET_VARSIZE(value, VARHDRSZ + bytes->len);
	memcpy(VARDATA(value), bytes->data, bytes->len);
	*content = DirectFunctionCall1(sha256_bytea, PointerGetDatum(value));
	pfree(value);
}

static List *
images_of_json(BddTarget *target, Jsonb *document)
{
	List *images = NIL;
	JsonbIterator *iterator = JsonbIteratorInit(&document->root);
	bool is_array = JB_ROOT_IS_ARRAY(document) && !JB_ROOT_IS_SCALAR(document);
	JsonbIteratorToken token;
	JsonbValue value;

	do
	{
		BddValues row;
		BddImage *image = palloc(sizeof(BddImage));

		token = is_array ? JsonbIteratorNext(&iterator, &value, true) : WJB_ELEM;
		if (token != WJB_ELEM)
			continue;
		bdd_values_init(target, &row);
		bdd_values_from_jsonb(target, is_array ? JsonbValueToJsonb(&value) : document,
							  &row);
		*image = bdd_values_image(target, &row);
		images = lappend(images, image);
	} while (is_array && token != WJB_DONE);
	return images;
}

static List *
images_of_rows(BddTarget *target, ArrayType *array, StringInfo content)
{
	List *images = NIL;
	Datum *rows;
	bool *nulls;
	int count;

	if (getBaseType(ARR_ELEMTYPE(array)) != target->row_type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("an array of %s is expected, not of %s",
						format_type_be(target->row_type),
						format_type_be(ARR_ELEMTYPE(array)))));
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_DOUBLE,
					  &rows, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		BddValues row;
		BddImage *image = palloc(sizeof(BddImage));

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("row must not be null"),
					 errdetail("Element %d of the array is null.", i + 1)));
		bdd_values_init(target, &row);
		bdd_values_from_row(target, DatumGetHeapTupleHeader(rows[i]), &row);
		appendStringInfoString(content,
							   OidOutputFunctionCall(F_RECORD_OUT, rows[i]));
		appendStringInfoChar(content, '\n');
		*image = bdd_values_image(target, &row);
		images = lappend(images, image);
	}
	return images;
}

static Jsonb *
parse_json(text *value)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(text_to_cstring(value))));
}

static bool
write_chunk(FunctionCallInfo fcinfo, BddChunkForm form)
{
	BddImport import;
	BddInstance instance;
	BddChunk chunk;
	StringInfoData content;
	BddSavedRole exact;
	List *images;
	char *name;
	bool claimed;

	bdd_check_argument(fcinfo, 0, "batch");
	name = text_argument(fcinfo, 1, "instance");
	bdd_check_argument(fcinfo, 2, "chunk_no");
	bdd_check_argument(fcinfo, 3, "rows");
	chunk.number = PG_GETARG_INT32(2);
	if (chunk.number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("chunk_no must not be negative")));
	open_import(&import, PG_GETARG_UUID_P(0), "write_chunk()", false, false);
	check_open(&import);
	need_instance(&import, &instance, name);

	/* As the caller: defaults, domains and types are his to evaluate. */
	bdd_restore_role(&import.caller);
	initStringInfo(&content);
	if (form != BDD_CHUNK_ROWS)
	{
		Jsonb *document = form == BDD_CHUNK_JSON ?
							  PG_GETARG_JSONB_P(3) :
							  parse_json(PG_GETARG_TEXT_PP(3));

		images = images_of_json(import.target, document);
		appendBinaryStringInfo(&content, VARDATA(document),
							   VARSIZE(document) - VARHDRSZ);
	}
	else
	{
		GetUserIdAndSecContext(&exact.role, &exact.security);
		exact.guc_nesting = NewGUCNestLevel();
		bdd_exact_output();
		images = images_of_rows(import.target, PG_GETARG_ARRAYTYPE_P(3), &content);
		bdd_restore_role(&exact);
	}
	bdd_become_extension_owner(&import.caller);
	append_sha256(&content, &chunk.content);
	chunk.rows = list_length(images);
	claimed = claim_chunk(&import, &instance, &chunk);
	if (claimed)
		bdd_store_chunk(&import, &instance, chunk.number, images);
	end_call(&import);
	bdd_debug_point("import-chunk");
	return claimed;
}

/* write_chunk(batch, instance, chunk_no, rows jsonb) */
Datum
bdd_write_chunk_json(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(write_chunk(fcinfo, BDD_CHUNK_JSON));
}

/* write_chunk(batch, instance, chunk_no, rows text) */
Datum
bdd_write_chunk_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(write_chunk(fcinfo, BDD_CHUNK_TEXT));
}

/* write_chunk(batch, instance, chunk_no, rows anyarray) */
Datum
bdd_write_chunk_rows(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(write_chunk(fcinfo, BDD_CHUNK_ROWS));
}

/* ---------- finalize_instance ---------- */

static void
emit_finalized(const BddImport *import, const BddInstance *instance, int64 bytes,
			   int position)
{
	BddPayload payload;

	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "instance", instance->name);
	bdd_payload_int(&payload, "rows", instance->rows);
	bdd_payload_int(&payload, "bytes", bytes);
	bdd_payload_int(&payload, "position", position);
	bdd_event_emit(BDD_EVENT_INSTANCE_FINALIZED, &import->id, NULL, &payload);
}

/* The instance is the next in order; the last one makes the import ready. */
static void
count_finalized(BddImport *import, const BddInstance *instance, int64 bytes)
{
	static BddKeptPlan count = {
		"UPDATE batchdedup.batch_row SET processed_files = processed_files + 1 WHERE id = $1 "
		"AND processed_files < total_files RETURNING processed_files",
		1,
		{UUIDOID}};
	static BddKeptPlan update = {
		"UPDATE batchdedup.import_instance SET status = 'finalized', position = $3, rows = $4, bytes = $5, "
		"finalized_at = pg_catalog.clock_timestamp() WHERE batch_id = $1 AND instance = $2",
		5,
		{UUIDOID, TEXTOID, INT4OID, INT8OID, INT8OID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name), (Datum) 0,
					  Int64GetDatum(instance->rows), Int64GetDatum(bytes)};
	bool isnull;

	if (bdd_plan_run(&count, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" expects %d instances, and all are finalized",
						import->name, import->expected)));
	values[2] = bdd_spi_value(0, 1, &isnull);
	(void) bdd_plan_run(&update, values, NULL);
	emit_finalized(import, instance, bytes, DatumGetInt32(values[2]));
	bdd_batch_advance(&import->id,
					  DatumGetInt32(values[2]) >= import->expected ? "scattered" :
																	 "scattering");
}

/* finalize_instance(batch, instance) */
Datum
bdd_finalize_instance(PG_FUNCTION_ARGS)
{
	BddImport import;
	BddInstance instance;
	char *name;
	int64 bytes;
	bool first;

	bdd_check_argument(fcinfo, 0, "batch");
	name = text_argument(fcinfo, 1, "instance");
	open_import(&import, PG_GETARG_UUID_P(0), "finalize_instance()", false, false);
	if (!is_status(&import, "completed"))
		check_open(&import);
	/* Waits for chunks that are on their way. */
	if (!read_instance(&import, name, &instance, true))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("instance \"%s\" of import \"%s\" has not begun",
						name, import.name),
				 errhint("One without rows begins with batchdedup.create_writer.")));
	first = !instance.finalized;
	if (first)
	{
		check_open(&import);
		check_tables(&instance);
		bdd_close_writer(&import, &instance, &bytes);
		bdd_debug_point("import-closed");
		count_finalized(&import, &instance, bytes);
	}
	end_call(&import);
	bdd_debug_point("import-finalized");
	PG_RETURN_BOOL(first);
}

/* ---------- finalize_batch ---------- */

/* What was published, if it was. */
static bool
was_published(const BddImport *import, int64 *rows)
{
	static BddKeptPlan select = {
		"SELECT rows FROM batchdedup.import_completed WHERE batch_id = $1",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};
	bool isnull;

	if (bdd_plan_run(&select, values, NULL) == 0)
		return false;
	*rows = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	return true;
}

/* Names those that have begun, or are known by name; of others the number. */
static void
report_missing(const BddImport *import, int finalized)
{
	static BddKeptPlan select = {
		"SELECT (SELECT pg_catalog.string_agg(pg_catalog.quote_ident(instance), ', ' ORDER BY instance) "
		"FROM batchdedup.import_instance WHERE batch_id = $1 AND status = 'open'), "
		"(SELECT pg_catalog.string_agg(pg_catalog.quote_ident(u.name), ', ' ORDER BY u.name) "
		"FROM batchdedup.import i, pg_catalog.unnest(i.instances) u (name) WHERE i.batch_id = $1 "
		"AND NOT EXISTS (SELECT FROM batchdedup.import_instance n WHERE n.batch_id = $1 AND n.instance = u.name)), "
		"(SELECT pg_catalog.count(*) FROM batchdedup.import_instance WHERE batch_id = $1)",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};
	StringInfoData detail;
	Datum value;
	bool isnull;
	int begun;

	initStringInfo(&detail);
	(void) bdd_plan_run(&select, values, NULL);
	begun = (int) DatumGetInt64(bdd_spi_value(0, 3, &isnull));
	value = bdd_spi_value(0, 1, &isnull);
	if (!isnull)
		appendStringInfo(&detail, "Not finalized: %s.", TextDatumGetCString(value));
	value = bdd_spi_value(0, 2, &isnull);
	if (!isnull)
		appendStringInfo(&detail, "%sNot begun: %s.", detail.len > 0 ? " " : "",
						 TextDatumGetCString(value));
	else if (begun < import->expected)
		appendStringInfo(&detail, "%sNot begun: %d of %d.", detail.len > 0 ? " " : "",
						 import->expected - begun, import->expected);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("import \"%s\" is not complete: %d of %d instances are finalized",
					import->name, finalized, import->expected),
			 errdetail("%s", detail.data)));
}

/* All instances, in the order in which they were finalized. */
static List *
finalized_instances(const BddImport *import)
{
	static BddKeptPlan select = {
		"SELECT instance, writer, chunks, bound, rows FROM batchdedup.import_instance "
		"WHERE batch_id = $1 AND status = 'finalized' ORDER BY position",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};
	uint64 count = bdd_plan_run(&select, values, NULL);
	List *instances = NIL;

	if (count < (uint64) import->expected)
		report_missing(import, (int) count);
	for (uint64 i = 0; i < count; i++)
	{
		BddInstance *instance = palloc0(sizeof(BddInstance));
		Datum value;
		bool isnull;

		instance->name = TextDatumGetCString(bdd_spi_value(i, 1, &isnull));
		instance->finalized = true;
		instance->writer = DatumGetObjectId(bdd_spi_value(i, 2, &isnull));
		value = bdd_spi_value(i, 3, &isnull);
		instance->chunks = isnull ? InvalidOid : DatumGetObjectId(value);
		value = bdd_spi_value(i, 4, &isnull);
		instance->bound = isnull ? NULL : TextDatumGetCString(value);
		instance->rows = DatumGetInt64(bdd_spi_value(i, 5, &isnull));
		instances = lappend(instances, instance);
	}
	return instances;
}

/* Its tables, and what is known of chunks, are not needed any more. */
static void
drop_instances(const BddImport *import)
{
	static BddKeptPlan select = {
		"SELECT t.relid FROM batchdedup.import_instance, "
		"LATERAL (VALUES (writer), (chunks)) t (relid) "
		"WHERE batch_id = $1 AND t.relid IS NOT NULL ORDER BY t.relid",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};
	uint64 count = bdd_plan_run(&select, values, NULL);
	List *relids = NIL;
	ListCell *cell;
	bool isnull;

	for (uint64 i = 0; i < count; i++)
		relids = lappend_oid(relids, DatumGetObjectId(bdd_spi_value(i, 1, &isnull)));
	foreach(cell, relids)
		bdd_drop_staging(lfirst_oid(cell));
}

/* What is known of the writers stays, but for their chunks and tables. */
static void
settle_instances(const BddImport *import)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.import_chunk WHERE batch_id = $1",
		1,
		{UUIDOID}};
	static BddKeptPlan update = {
		"UPDATE batchdedup.import_instance SET writer = NULL, chunks = NULL WHERE batch_id = $1",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};

	if (!import->attach)
	{
		drop_instances(import);
		(void) bdd_plan_run(&update, values, NULL);
	}
	(void) bdd_plan_run(&delete, values, NULL);
}

static void
emit_published(const BddImport *import, int64 rows)
{
	Datum table = DirectFunctionCall1(regclassout, ObjectIdGetDatum(import->relid));
	BddPayload payload;

	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "name", import->name);
	bdd_payload_text(&payload, "target", DatumGetCString(table));
	bdd_payload_text(&payload, "publish", import->attach ? "attach" : "upsert");
	bdd_payload_int(&payload, "instances", import->expected);
	bdd_payload_int(&payload, "rows", rows);
	bdd_event_emit(BDD_EVENT_IMPORT_PUBLISHED, &import->id, NULL, &payload);
}

static void
record_published(const BddImport *import, int64 rows, int64 inserted,
				 int64 updated)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.import_completed "
		"(batch_id, name, target, publish, instances, rows, inserted, updated, started_at) "
		"SELECT b.id, b.name, i.target, i.publish, i.expected_instances, $2, $3, $4, b.created_at "
		"FROM batchdedup.import i JOIN batchdedup.batch_row b ON b.id = i.batch_id WHERE b.id = $1",
		4,
		{UUIDOID, INT8OID, INT8OID, INT8OID}};
	Datum values[] = {UUIDPGetDatum(&import->id), Int64GetDatum(rows),
					  Int64GetDatum(inserted), Int64GetDatum(updated)};

	(void) bdd_plan_run(&insert, values, NULL);
	emit_published(import, rows);
	bdd_batch_advance(&import->id, "completed");
}

static int64
attach_all(BddImport *import, List *instances)
{
	int64 rows = 0;
	ListCell *cell;

	foreach(cell, instances)
	{
		BddInstance *instance = lfirst(cell);

		check_tables(instance);
		bdd_attach_writer(import, instance);
		rows += instance->rows;
	}
	return rows;
}

static int64
publish(BddImport *import)
{
	List *instances;
	int64 rows;
	int64 inserted = 0;
	int64 updated = 0;
	ListCell *cell;

	if (was_published(import, &rows))
		return rows;
	check_open(import);
	instances = finalized_instances(import);
	foreach(cell, instances)
		check_tables(lfirst(cell));
	bdd_batch_advance(&import->id, "gathering");
	rows = bdd_publish_rows(import, import->attach ? NIL : instances, &inserted, &updated);
	if (import->attach)
		rows = inserted = attach_all(import, instances);
	bdd_debug_point("import-written");
	settle_instances(import);
	record_published(import, rows, inserted, updated);
	return rows;
}

/* finalize_batch(batch) */
Datum
bdd_finalize_batch(PG_FUNCTION_ARGS)
{
	BddImport import;
	int64 rows;

	bdd_check_argument(fcinfo, 0, "batch");
	begin_call(&import, "finalize_batch()");
	import.id = *PG_GETARG_UUID_P(0);
	/* An answer that was lost can be asked for again, whatever came after. */
	if (was_published(&import, &rows))
	{
		end_call(&import);
		PG_RETURN_INT64(rows);
	}
	end_call(&import);
	open_import(&import, PG_GETARG_UUID_P(0), "finalize_batch()", true, false);
	rows = publish(&import);
	end_call(&import);
	bdd_debug_point("import-published");
	PG_RETURN_INT64(rows);
}

/* ---------- abort_batch and expire_imports ---------- */

static void
cancel(BddImport *import)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.batch_row SET status = 'cancelled' "
		"WHERE id = $1 AND status NOT IN ('failed', 'cancelled')",
		1,
		{UUIDOID}};
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.import_instance WHERE batch_id = $1",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};

	drop_instances(import);
	(void) bdd_plan_run(&delete, values, NULL);
	(void) bdd_plan_run(&update, values, NULL);
}

/* abort_batch(batch) */
Datum
bdd_abort_batch(PG_FUNCTION_ARGS)
{
	BddImport import;

	bdd_check_argument(fcinfo, 0, "batch");
	open_import(&import, PG_GETARG_UUID_P(0), "abort_batch()", true, true);
	if (is_status(&import, "completed"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" is completed", import.name)));
	cancel(&import);
	end_call(&import);
	bdd_debug_point("import-aborted");
	PG_RETURN_VOID();
}

/*
 * Imports without activity, which nobody has locked.  Rows that come by COPY
 * leave no trace but in the table's file.
 */
static List *
idle_imports(Datum older_than)
{
	static BddKeptPlan select = {
		"SELECT i.batch_id FROM batchdedup.import i "
		"JOIN batchdedup.batch_row b ON b.id = i.batch_id, "
		"LATERAL (SELECT pg_catalog.max(greatest(n.created_at, n.finalized_at, "
		"(SELECT pg_catalog.max(c.created_at) FROM batchdedup.import_chunk c "
		"WHERE c.batch_id = i.batch_id AND c.instance = n.instance), "
		"(SELECT (pg_catalog.pg_stat_file(pg_catalog.pg_relation_filepath(n.writer) || CASE WHEN s.size >= 1073741824 "
		"THEN '.' || s.size / 1073741824 ELSE '' END, true)).modification "
		"FROM pg_catalog.pg_relation_size(n.writer) s (size)))) AS at "
		"FROM batchdedup.import_instance n WHERE n.batch_id = i.batch_id) a "
		"WHERE b.status NOT IN ('completed', 'cancelled') AND (b.status <> 'failed' OR a.at IS NOT NULL) "
		"AND greatest(b.created_at, a.at) < pg_catalog.clock_timestamp() - $1 "
		"AND NOT EXISTS (SELECT FROM batchdedup.import_instance n JOIN pg_catalog.pg_locks l "
		"ON l.relation = n.writer::oid AND l.mode <> 'AccessShareLock' AND l.database = "
		"(SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()) "
		"WHERE n.batch_id = i.batch_id) "
		"FOR UPDATE OF i SKIP LOCKED",
		1,
		{INTERVALOID}};
	uint64 count = bdd_plan_run(&select, &older_than, NULL);
	List *ids = NIL;
	bool isnull;

	for (uint64 i = 0; i < count; i++)
	{
		pg_uuid_t *id = palloc(sizeof(pg_uuid_t));

		*id = *DatumGetUUIDP(bdd_spi_value(i, 1, &isnull));
		ids = lappend(ids, id);
	}
	return ids;
}

/* Tables like ours that no import knows. */
static void
drop_strays(void)
{
	static BddKeptPlan select = {
		"SELECT c.oid FROM pg_catalog.pg_class c WHERE c.relnamespace = 'batchdedup'::pg_catalog.regnamespace "
		"AND c.relkind = 'r' AND c.relname ~ '^import_[0-9a-f]{16}(_chunks)?$' "
		"AND NOT EXISTS (SELECT FROM batchdedup.import_instance n WHERE c.oid IN (n.writer, n.chunks))",
		0,
		{InvalidOid}};
	uint64 count = bdd_plan_run(&select, NULL, NULL);
	List *relids = NIL;
	ListCell *cell;
	bool isnull;

	for (uint64 i = 0; i < count; i++)
		relids = lappend_oid(relids, DatumGetObjectId(bdd_spi_value(i, 1, &isnull)));
	foreach(cell, relids)
		if (ConditionalLockRelationOid(lfirst_oid(cell), AccessExclusiveLock))
			bdd_drop_staging(lfirst_oid(cell));
}

/* expire_imports(older_than) */
Datum
bdd_expire_imports(PG_FUNCTION_ARGS)
{
	BddImport import;
	List *ids;
	int64 count;
	ListCell *cell;

	bdd_check_argument(fcinfo, 0, "older_than");
	begin_call(&import, "expire_imports()");
	ids = idle_imports(PG_GETARG_DATUM(0));
	foreach(cell, ids)
	{
		import.id = *(pg_uuid_t *) lfirst(cell);
		cancel(&import);
	}
	drop_strays();
	count = list_length(ids);
	end_call(&import);
	PG_RETURN_INT64(count);
}
