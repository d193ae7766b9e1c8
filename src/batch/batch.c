/*-------------------------------------------------------------------------
 *
 * batch.c
 *		Batches of files: how one begins, what it waits for, how it ends.
 *
 * What is known of a batch is in batchdedup.batch_row; triggers of it see to
 * it that only legal steps are taken, in whatever way it is written, and write
 * the events.  Files are in delivery.c, claim.c and file.c, counts and the barrier
 * in barrier.c, waiting for a batch is in batch_wait.c.
 *
 * Locks: add_file shares the batch's row (FOR KEY SHARE); complete_upload takes it
 * for itself (FOR UPDATE), and so has waited for those that add files.
 *
 *-------------------------------------------------------------------------
 */
#include "batch/batch.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "base/loaded.h"
#include "base/uuid.h"
#include "batch/barrier.h"
#include "batch/barrier_hint.h"
#include "catalog/pg_type_d.h"
#include "event/emit.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(bdd_create_batch);
PG_FUNCTION_INFO_V1(bdd_complete_upload);
PG_FUNCTION_INFO_V1(bdd_advance_batch);
PG_FUNCTION_INFO_V1(bdd_batch_changed);

/* ---------- calls ---------- */

/*
 * Until bdd_own_end.  Our tables are written as the extension's owner: which
 * roles may call the functions is a matter of EXECUTE.
 */
void
bdd_batch_begin(BddSavedRole *saved, const char *call)
{
	bdd_check_preloaded();
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	bdd_own_begin(saved);
}

/* ---------- reading a batch ---------- */

/* Columns of batchdedup.batch_row, in the order of its definition. */
enum
{
	BATCH_ID = 1,
	BATCH_NAME,
	BATCH_SOURCE,
	BATCH_KIND,
	BATCH_STATUS,
	BATCH_EXPECTED_FILES,
	BATCH_TOTAL_FILES,
	BATCH_PROCESSED_FILES,
	BATCH_FAILED_FILES,
	BATCH_REOPENED_FILES,
	BATCH_METADATA,
	BATCH_ON_FILE_FAILURE,
	BATCH_MAX_ATTEMPTS,
	BATCH_UPLOAD_COMPLETED_AT
};

/* Reads a row of batchdedup.batch_row; texts are copied. */
static void
parse_batch(HeapTuple tuple, TupleDesc desc, BddBatch *batch)
{
	bool isnull;

#define VALUE(column) heap_getattr(tuple, column, desc, &isnull)
	batch->id = *DatumGetUUIDP(VALUE(BATCH_ID));
	batch->name = TextDatumGetCString(VALUE(BATCH_NAME));
	batch->kind = TextDatumGetCString(VALUE(BATCH_KIND));
	batch->status = TextDatumGetCString(VALUE(BATCH_STATUS));
	batch->total = DatumGetInt32(VALUE(BATCH_TOTAL_FILES));
	batch->processed = DatumGetInt32(VALUE(BATCH_PROCESSED_FILES));
	batch->failed = DatumGetInt32(VALUE(BATCH_FAILED_FILES));
	batch->max_attempts = DatumGetInt32(VALUE(BATCH_MAX_ATTEMPTS));
	(void) VALUE(BATCH_UPLOAD_COMPLETED_AT);
	batch->uploaded = !isnull;
#undef VALUE
}

void
bdd_batch_report_missing(const pg_uuid_t *id)
{
	ereport(ERROR,
			(errcode(ERRCODE_UNDEFINED_OBJECT),
			 errmsg("batch %s does not exist",
					bdd_uuid_text(id))));
}

/* The batch as the active snapshot shows it, without SQL: for every file. */
void
bdd_batch_read(const pg_uuid_t *id, BddBatch *batch)
{
	Relation rel = table_open(bdd_catalog_relation("batch_row"), AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, BATCH_ID, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	if (!OidIsValid(rel->rd_pkindex))
		(void) RelationGetIndexList(rel);
	scan = systable_beginscan(rel, rel->rd_pkindex, true, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		bdd_batch_report_missing(id);
	parse_batch(tuple, RelationGetDescr(rel), batch);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Locks the batch's row: shared, if it is to add files, or for a change. */
void
bdd_batch_lock(const pg_uuid_t *id, bool for_files, BddBatch *batch)
{
	static BddKeptPlan share = {
		"SELECT * FROM batchdedup.batch_row WHERE id = $1 FOR KEY SHARE",
		1,
		{UUIDOID}};
	static BddKeptPlan change = {
		"SELECT * FROM batchdedup.batch_row WHERE id = $1 FOR UPDATE",
		1,
		{UUIDOID}};
	Datum value = UUIDPGetDatum(id);

	if (bdd_plan_run(for_files ? &share : &change, &value, NULL) == 0)
		bdd_batch_report_missing(id);
	parse_batch(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, batch);
}

/* Nothing changes any more in such a batch. */
bool
bdd_batch_has_ended(const BddBatch *batch)
{
	return strcmp(batch->status, "completed") == 0 ||
		   strcmp(batch->status, "cancelled") == 0;
}

/* An error for an import, which has functions of its own. */
void
bdd_batch_check_of_files(const BddBatch *batch)
{
	if (strcmp(batch->kind, "files") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is an import", batch->name),
				 errhint("Imports go on by finalize_instance, finalize_batch and abort_batch.")));
}

/* ---------- steps ---------- */

/*
 * Triggers of the table check the step and write its event.  A claim ends with
 * it.
 */
static void
set_status(const pg_uuid_t *batch, const char *status)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.batch_row SET status = $2, claimed_by = NULL, lease_until = NULL WHERE id = $1",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(batch), CStringGetTextDatum(status)};

	(void) bdd_plan_run(&update, values, NULL);
}

/*
 * Moves the batch to "status", by as many legal steps of the way from pending
 * to completed as it takes.
 */
void
bdd_batch_advance(const pg_uuid_t *batch, const char *status)
{
	static BddKeptPlan step = {
		"WITH way AS (SELECT * FROM pg_catalog.unnest('{pending,uploaded,scattering,scattered,gathering,gathered,completed}'::text[]) "
		"WITH ORDINALITY AS w (status, place)) "
		"UPDATE batchdedup.batch_row b SET status = n.status FROM way o, way n, way l "
		"WHERE b.id = $1 AND o.status = b.status AND l.status = $2 "
		"AND n.place = o.place + 1 AND n.place <= l.place",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(batch), CStringGetTextDatum(status)};

	while (bdd_plan_run(&step, values, NULL) > 0)
		;
}

/* AFTER UPDATE of a status: waiters for it are woken at commit. */
Datum
bdd_batch_changed(PG_FUNCTION_ARGS)
{
	if (bdd_preloaded)
		bdd_barrier_status_changed();
	PG_RETURN_POINTER(NULL);
}

/* ---------- create_batch ---------- */

static void
check_name(text *name)
{
	if (VARSIZE_ANY_EXHDR(name) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name must not be empty")));
}

/* A null is let pass. */
void
bdd_check_at_least(FunctionCallInfo fcinfo, int n, int least, const char *what)
{
	if (!PG_ARGISNULL(n) && PG_GETARG_INT32(n) < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least %d", what, least)));
}

/* A null stands for 'fail'. */
static void
check_on_file_failure(FunctionCallInfo fcinfo, int n)
{
	const char *policy = PG_ARGISNULL(n) ? "fail" : text_to_cstring(PG_GETARG_TEXT_PP(n));

	if (strcmp(policy, "fail") != 0 && strcmp(policy, "continue") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("on_file_failure cannot be \"%s\"", policy),
				 errhint("It is fail or continue.")));
}

/* Adds the batch and emits batch_created; false: the name is taken. */
static bool
insert_batch(const Datum *values, const char *nulls)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.batch_row (id, name, source, expected_files, metadata, on_file_failure, max_attempts) "
		"VALUES ($1, $2, $3, $4, $5, coalesce($6, 'fail'), coalesce($7, 5)) ON CONFLICT (name) DO NOTHING",
		7,
		{UUIDOID, TEXTOID, TEXTOID, INT4OID, JSONBOID, TEXTOID, INT4OID}};
	BddPayload payload;

	if (bdd_plan_run(&insert, unconstify(Datum *, values), nulls) == 0)
		return false;
	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "name", TextDatumGetCString(values[1]));
	bdd_payload_text(&payload, "source", nulls[2] == 'n' ? NULL : TextDatumGetCString(values[2]));
	bdd_event_emit(BDD_EVENT_BATCH_CREATED, DatumGetUUIDP(values[0]), NULL, &payload);
	return true;
}

/* The batch of that name, which must be as it is described now. */
static bool
find_batch(const Datum *values, const char *nulls, pg_uuid_t *id)
{
	static BddKeptPlan select = {
		"SELECT id, kind = 'files' AND source IS NOT DISTINCT FROM coalesce($3, source) "
		"AND expected_files IS NOT DISTINCT FROM coalesce($4, expected_files) "
		"AND ($5 = '{}' OR metadata = $5) AND on_file_failure = coalesce($6, on_file_failure) "
		"AND max_attempts = coalesce($7, max_attempts) AND $1 IS NOT NULL "
		"FROM batchdedup.batch_row WHERE name = $2",
		7,
		{UUIDOID, TEXTOID, TEXTOID, INT4OID, JSONBOID, TEXTOID, INT4OID}};
	bool isnull;

	if (bdd_plan_run(&select, unconstify(Datum *, values), nulls) == 0)
		return false;
	if (!DatumGetBool(bdd_spi_value(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("batch \"%s\" exists, and is another one",
						TextDatumGetCString(values[1])),
				 errdetail("Its kind, source, expected_files, metadata, on_file_failure or max_attempts is not what is given now."),
				 errhint("Give the name alone to get its id.")));
	*id = *DatumGetUUIDP(bdd_spi_value(0, 1, &isnull));
	return true;
}

/*
 * create_batch(name, source, expected_files, metadata, on_file_failure,
 * max_attempts): the id; of the batch that has the name already, if it is the
 * same
 */
Datum
bdd_create_batch(PG_FUNCTION_ARGS)
{
	BddSavedRole saved;
	pg_uuid_t *id = bdd_new_uuid();
	Datum values[7] = {UUIDPGetDatum(id)};
	char nulls[7] = {' '};

	bdd_check_argument(fcinfo, 0, "name");
	bdd_check_argument(fcinfo, 3, "metadata");
	check_name(PG_GETARG_TEXT_PP(0));
	bdd_check_at_least(fcinfo, 2, 0, "expected_files");
	check_on_file_failure(fcinfo, 4);
	bdd_check_at_least(fcinfo, 5, 1, "max_attempts");
	for (int i = 0; i < 6; i++)
	{
		values[i + 1] = PG_GETARG_DATUM(i);
		nulls[i + 1] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	bdd_batch_begin(&saved, "create_batch()");
	/* First a look: an insert would wait for a transaction that changes that batch. */
	while (!find_batch(values, nulls, id) && !insert_batch(values, nulls))
		CHECK_FOR_INTERRUPTS();
	bdd_own_end(&saved);
	PG_RETURN_UUID_P(id);
}

/* ---------- complete_upload ---------- */

/*
 * All files that are committed, and those of this transaction: also where its
 * snapshot is older than some that others have added.
 */
static int
count_files(const pg_uuid_t *batch)
{
	static BddKeptPlan select = {
		"SELECT pg_catalog.count(*)::int FROM batchdedup.file WHERE batch_id = $1",
		1,
		{UUIDOID}};
	Datum value = UUIDPGetDatum(batch);
	bool isnull;

	(void) bdd_plan_run_now(&select, &value, NULL);
	return DatumGetInt32(bdd_spi_value(0, 1, &isnull));
}

/* An error if the batch was created for another number of files. */
static void
check_expected(const pg_uuid_t *batch, int files)
{
	static BddKeptPlan select = {
		"SELECT expected_files FROM batchdedup.batch_row WHERE id = $1",
		1,
		{UUIDOID}};
	Datum value = UUIDPGetDatum(batch);
	bool isnull;
	int expected;

	(void) bdd_plan_run(&select, &value, NULL);
	expected = DatumGetInt32(bdd_spi_value(0, 1, &isnull));
	if (!isnull && expected != files)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%d files are expected, and %d have been added", expected, files),
				 errhint("Add the files that are missing, or compare them with batchdedup.reconcile_files.")));
}

/*
 * Makes the list of files final, and takes the batch on: all of its files may
 * be done already.
 */
static void
close_upload(const BddBatch *batch)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.batch_row SET total_files = $2, "
		"upload_completed_at = pg_catalog.clock_timestamp(), status = 'uploaded' WHERE id = $1",
		2,
		{UUIDOID, INT4OID}};
	int files = count_files(&batch->id);
	Datum values[] = {UUIDPGetDatum(&batch->id), Int32GetDatum(files)};
	BddPayload payload;

	check_expected(&batch->id, files);
	bdd_payload_begin(&payload);
	bdd_payload_int(&payload, "total_files", files);
	bdd_event_emit(BDD_EVENT_UPLOAD_COMPLETED, &batch->id, NULL, &payload);
	(void) bdd_plan_run(&update, values, NULL);
	bdd_batch_settle_one(&batch->id);
	/* Files completed before may be all that there are. */
	bdd_barrier_want_flush(bdd_catalog_relation("file"));
}

/* complete_upload(batch): the list of files is final */
Datum
bdd_complete_upload(PG_FUNCTION_ARGS)
{
	BddSavedRole saved;
	BddBatch batch;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_batch_begin(&saved, "complete_upload()");
	bdd_batch_lock(PG_GETARG_UUID_P(0), false, &batch);
	bdd_batch_check_of_files(&batch);
	if (!batch.uploaded)
	{
		if (strcmp(batch.status, "pending") != 0)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("batch \"%s\" is %s", batch.name, batch.status)));
		close_upload(&batch);
	}
	bdd_own_end(&saved);
	PG_RETURN_VOID();
}

/* ---------- advance_batch ---------- */

/*
 * Steps that depend on files have errors of their own; the others are checked
 * by the table's triggers.
 */
static void
check_step(const BddBatch *batch, const char *status)
{
	int open = batch->total - batch->processed - batch->failed;

	if (strcmp(batch->status, "pending") == 0 && strcmp(status, "uploaded") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is uploaded when its list of files is final", batch->name),
				 errhint("Use batchdedup.complete_upload.")));
	if (!batch->uploaded && strcmp(status, "scattering") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the list of files of batch \"%s\" is not final", batch->name)));
	if (strcmp(batch->status, "scattering") == 0 && strcmp(status, "scattered") == 0 && open > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("%d files of batch \"%s\" are not done", open, batch->name),
				 errdetail("It becomes scattered by itself when the last one is.")));
}

/* advance_batch(batch, to_status); nothing happens if it is there already */
Datum
bdd_advance_batch(PG_FUNCTION_ARGS)
{
	BddSavedRole saved;
	BddBatch batch;
	char *status;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "status");
	status = text_to_cstring(PG_GETARG_TEXT_PP(1));
	bdd_batch_begin(&saved, "advance_batch()");
	bdd_batch_lock(PG_GETARG_UUID_P(0), false, &batch);
	bdd_batch_check_of_files(&batch);
	if (strcmp(batch.status, status) != 0)
	{
		check_step(&batch, status);
		if (strcmp(batch.status, "scattering") != 0 || strcmp(status, "scattered") != 0)
			set_status(&batch.id, status);
		/* Nobody may come any more to find that all files are done. */
		if (strcmp(status, "scattering") == 0 || strcmp(status, "scattered") == 0)
			bdd_batch_settle_one(&batch.id);
	}
	bdd_own_end(&saved);
	PG_RETURN_VOID();
}
