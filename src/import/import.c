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
 * Writers are in instance.c; the order of locks stands in import_row.c.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/xact.h"
#include "base/debug_point.h"
#include "base/list.h"
#include "base/uuid.h"
#include "batch/batch.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "event/emit.h"
#include "fmgr.h"
#include "import/import_row.h"
#include "import/import_rows.h"
#include "import/import_table.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/target.h"
#include "target/target_check.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(bdd_prepare_import);
PG_FUNCTION_INFO_V1(bdd_finalize_batch);
PG_FUNCTION_INFO_V1(bdd_abort_batch);
PG_FUNCTION_INFO_V1(bdd_expire_imports);

/* ---------- prepare_import ---------- */

/* Raises an error unless the caller owns the target, and it is partitioned. */
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

/* Which of its two values the argument "publish" has. */
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
	List *names = PG_ARGISNULL(4) ? NIL : bdd_import_names(PG_GETARG_DATUM(4));
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

	(void) bdd_import_text_argument(fcinfo, 0, "name");
	bdd_check_argument(fcinfo, 1, "target");
	bdd_check_argument(fcinfo, 5, "metadata");
	attach = is_attach(fcinfo);
	expected = expected_argument(fcinfo);
	target = bdd_target_open(PG_GETARG_OID(1), AccessShareLock);
	bdd_import_check_rights(target);
	if (attach)
		check_attachable(target);

	bdd_import_begin(&import, "prepare_import()");
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
	bdd_import_end(&import);
	bdd_debug_point("import-prepared");
	PG_RETURN_UUID_P(id);
}

/* ---------- finalize_batch ---------- */

/* Whether the import was published, and with how many rows. */
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

/* Drops the tables of all instances of the import. */
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

/* The rows of the writers stay, those of chunks do not; tables go unless attached. */
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

/* The event of the publication, in its transaction. */
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

/*
 * What stays of a publication: its record, its event, and a batch that is
 * completed.  All of it is in the transaction that publishes.
 */
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

/*
 * Attaches the tables of all instances; returns the rows that were counted
 * when these were finalized.  The tables are checked once more, since
 * bdd_publish_rows may have waited.
 */
static int64
attach_all(BddImport *import, List *instances)
{
	int64 rows = 0;
	ListCell *cell;

	foreach(cell, instances)
	{
		BddInstance *instance = lfirst(cell);

		bdd_instance_check_tables(instance);
		bdd_attach_writer(import, instance);
		rows += instance->rows;
	}
	return rows;
}

/*
 * Publishes an import that is locked alone, and returns the number of rows.
 * If another call has published it while this one waited, its number is
 * returned.
 */
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
	bdd_import_check_open(import);
	instances = finalized_instances(import);
	foreach(cell, instances)
		bdd_instance_check_tables(lfirst(cell));
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
	bdd_import_begin(&import, "finalize_batch()");
	import.id = *PG_GETARG_UUID_P(0);
	/* An answer that was lost can be asked for again, whatever came after. */
	if (was_published(&import, &rows))
	{
		bdd_import_end(&import);
		PG_RETURN_INT64(rows);
	}
	bdd_import_end(&import);
	bdd_import_open(&import, PG_GETARG_UUID_P(0), "finalize_batch()", true, false);
	rows = publish(&import);
	bdd_import_end(&import);
	bdd_debug_point("import-published");
	PG_RETURN_INT64(rows);
}

/* ---------- abort_batch and expire_imports ---------- */

/* Drops the tables of the instances, forgets these, and marks the batch as cancelled. */
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
	bdd_import_open(&import, PG_GETARG_UUID_P(0), "abort_batch()", true, true);
	if (bdd_import_has_status(&import, "completed"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" is completed", import.name)));
	cancel(&import);
	bdd_import_end(&import);
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
	bdd_import_begin(&import, "expire_imports()");
	ids = idle_imports(PG_GETARG_DATUM(0));
	foreach(cell, ids)
	{
		import.id = *(pg_uuid_t *) lfirst(cell);
		cancel(&import);
	}
	drop_strays();
	count = list_length(ids);
	bdd_import_end(&import);
	PG_RETURN_INT64(count);
}
