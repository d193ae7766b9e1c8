/*-------------------------------------------------------------------------
 *
 * import_row.c
 *		The row of an import and those of its writers: rights, contents, locks.
 *
 * Locks, in this order: the row of batchdedup.import (shared by calls that load,
 * alone by one that publishes or aborts), that of the instance (the same), the
 * writer's table, that of the batch.  What is shared waits for no call that loads.
 *
 * The functions run SQL on our tables as the extension's owner, and ask first
 * whether the caller may upsert into the target.
 *
 *-------------------------------------------------------------------------
 */
#include "import/import_row.h"

#include "base/list.h"
#include "base/loaded.h"
#include "base/uuid.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "ingest/push.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "target/privilege.h"
#include "target/target_check.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"

/* ---------- arguments ---------- */

/* An argument that must be neither NULL nor empty; "what": its name. */
char *
bdd_import_text_argument(FunctionCallInfo fcinfo, int n, const char *what)
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

/* Names of instances, of which none may be NULL. */
List *
bdd_import_names(Datum array)
{
	if (array_contains_nulls(DatumGetArrayTypeP(array)))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("name of an instance must not be null")));
	return bdd_names_of(array);
}

/* ---------- the caller and we ---------- */

/* Connected to SPI, as the extension's owner. */
void
bdd_import_begin(BddImport *import, const char *call)
{
	memset(import, 0, sizeof(*import));
	bdd_check_preloaded();
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	bdd_spi_connect();
	bdd_become_extension_owner(&import->caller);
}

/* The end of bdd_import_begin and bdd_import_open. */
void
bdd_import_end(BddImport *import)
{
	bdd_restore_role(&import->caller);
	bdd_spi_finish();
}

/* INSERT and UPDATE, and all rows of the table. */
void
bdd_import_check_rights(BddTarget *target)
{
	if (bdd_row_security_binds(target))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security of \"%s\" applies to role \"%s\", who therefore cannot import into it",
						get_rel_name(target->relid),
						GetUserNameFromId(GetUserId(), false))));
	bdd_check_may_upsert_all(target);
}

/* An import without its target can only be aborted. */
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
 * Opens the target as the caller, with the caller's rights.  An import without a
 * target can be aborted by any role that may execute the function; all other
 * calls need the target, and as it was.
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
	bdd_import_check_rights(import->target);
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

/* In the order of the statement below; a batch of files is an error. */
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
	import->instances = isnull ? NIL : bdd_import_names(value);
}

/* Reads what does not change while the import is there, so no lock is needed yet. */
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
void
bdd_import_open(BddImport *import, const pg_uuid_t *id, const char *call,
				bool alone, bool may_be_gone)
{
	bdd_import_begin(import, call);
	import->id = *id;
	read_import(import);
	bdd_restore_role(&import->caller);
	check_target(import, may_be_gone);
	bdd_become_extension_owner(&import->caller);
	lock_import(import, alone);
}

/* The status is as of when the import was locked; see bdd_import_open. */
bool
bdd_import_has_status(const BddImport *import, const char *status)
{
	return strcmp(import->status, status) == 0;
}

/* Raises an error if the import takes no rows any more. */
void
bdd_import_check_open(const BddImport *import)
{
	if (bdd_import_has_status(import, "completed") || bdd_import_has_status(import, "cancelled") ||
		bdd_import_has_status(import, "failed"))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" is %s", import->name, import->status)));
}

/* ---------- instances ---------- */

/* False: it has not begun. */
bool
bdd_instance_read(const BddImport *import, char *name, BddInstance *instance,
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

/* Whether the instance's tables are there: their owner may have dropped them. */
bool
bdd_instance_has_tables(const BddInstance *instance)
{
	/* An owner can make a view of a table that is empty. */
	return get_rel_relkind(instance->writer) == RELKIND_RELATION &&
		   (!OidIsValid(instance->chunks) ||
			get_rel_relkind(instance->chunks) == RELKIND_RELATION);
}

/* Raises an error where bdd_instance_has_tables is false. */
void
bdd_instance_check_tables(const BddInstance *instance)
{
	if (!bdd_instance_has_tables(instance))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("the table of instance \"%s\" does not exist any more",
						instance->name),
				 errhint("batchdedup.create_writer with restart => true makes it anew, without rows.")));
}
