/*-------------------------------------------------------------------------
 *
 * batch.c
 *		Batches of files: how one begins, what it waits for, how it ends.
 *
 * What is known of a batch is in batchdedup.batch_row; triggers of it see to
 * it that only legal steps are taken, whoever writes, and write the events.
 * Files are in file.c, counts and the barrier in barrier.c.
 *
 * Locks: who adds files shares the batch's row (FOR KEY SHARE); who says that
 * the list is final takes it for himself, and so has waited for them.
 *
 *-------------------------------------------------------------------------
 */
#include "batch/batch.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/loaded.h"
#include "base/uuid.h"
#include "batch/barrier_hint.h"
#include "buffer/flush_wait.h"
#include "buffer/registry.h"
#include "buffer/slot.h"
#include "catalog/pg_type_d.h"
#include "commit/pending.h"
#include "event/emit.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "storage/lmgr.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(bdd_create_batch);
PG_FUNCTION_INFO_V1(bdd_complete_upload);
PG_FUNCTION_INFO_V1(bdd_advance_batch);
PG_FUNCTION_INFO_V1(bdd_claim_batch);
PG_FUNCTION_INFO_V1(bdd_expect_workers);
PG_FUNCTION_INFO_V1(bdd_complete_worker);
PG_FUNCTION_INFO_V1(bdd_wait_batch);
PG_FUNCTION_INFO_V1(bdd_reconcile_batches);
PG_FUNCTION_INFO_V1(bdd_expire_batches);
PG_FUNCTION_INFO_V1(bdd_batch_changed);

/* ---------- calls ---------- */

/*
 * Our tables are written as the extension's owner: who may call the functions
 * is a matter of EXECUTE.
 */
void
bdd_batch_begin(BddSavedRole *saved, const char *call)
{
	bdd_check_preloaded();
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	bdd_own_begin(saved);
}

/* When a lease that begins now is over. */
TimestampTz
bdd_lease_end(Interval *lease)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz until =
		DatumGetTimestampTz(DirectFunctionCall2(timestamptz_pl_interval,
												TimestampTzGetDatum(now),
												IntervalPGetDatum(lease)));

	if (until <= now)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be longer than zero")));
	return until;
}

/* ---------- ids ---------- */

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

static void
report_no_batch(const pg_uuid_t *id)
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
		report_no_batch(id);
	parse_batch(tuple, RelationGetDescr(rel), batch);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* Locks the batch's row: shared with those who add files, or for a change. */
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
		report_no_batch(id);
	parse_batch(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, batch);
}

/* Nothing changes any more in such a batch. */
bool
bdd_batch_has_ended(const BddBatch *batch)
{
	return strcmp(batch->status, "completed") == 0 ||
		   strcmp(batch->status, "cancelled") == 0;
}

static void
check_is_of_files(const BddBatch *batch)
{
	if (strcmp(batch->kind, "files") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is an import", batch->name),
				 errhint("Imports go on by finalize_instance, finalize_batch and abort_batch.")));
}

/* ---------- steps ---------- */

static void
settle(const pg_uuid_t *batch)
{
	Datum id = UUIDPGetDatum(batch);

	bdd_batch_settle(bdd_uuid_array(&id, 1));
}

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

/* AFTER UPDATE of a status: who waits for it is woken at commit. */
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

static void
check_positive(FunctionCallInfo fcinfo, int n, int least, const char *what)
{
	if (!PG_ARGISNULL(n) && PG_GETARG_INT32(n) < least)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be at least %d", what, least)));
}

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
	check_positive(fcinfo, 2, 0, "expected_files");
	check_on_file_failure(fcinfo, 4);
	check_positive(fcinfo, 5, 1, "max_attempts");
	for (int i = 0; i < 6; i++)
	{
		values[i + 1] = PG_GETARG_DATUM(i);
		nulls[i + 1] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	bdd_batch_begin(&saved, "create_batch()");
	/* First a look: an insert would wait for whoever changes that batch just now. */
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
	settle(&batch->id);
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
	check_is_of_files(&batch);
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
	check_is_of_files(&batch);
	if (strcmp(batch.status, status) != 0)
	{
		check_step(&batch, status);
		if (strcmp(batch.status, "scattering") != 0 || strcmp(status, "scattered") != 0)
			set_status(&batch.id, status);
		/* Nobody may come any more to find that all files are done. */
		if (strcmp(status, "scattering") == 0 || strcmp(status, "scattered") == 0)
			settle(&batch.id);
	}
	bdd_own_end(&saved);
	PG_RETURN_VOID();
}

/* ---------- claim_batch ---------- */

/* Steps that say something of files are not a worker's to take. */
static void
check_claimed_step(const char *from, const char *to)
{
	if (strcmp(from, to) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("from_status and to_status must not be the same")));
	if (strcmp(to, "uploaded") == 0 || strcmp(to, "scattered") == 0 ||
		(strcmp(from, "failed") == 0 && strcmp(to, "scattering") == 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a batch is not taken from %s to %s by a claim", from, to),
				 errhint("That is for complete_upload, for its last file, and for retry_files.")));
}

/*
 * claim_batch(worker, from_status, to_status, lease): takes the oldest batch
 * that is in from_status, or that was claimed for to_status by somebody whose
 * lease is over; null: there is none
 */
Datum
bdd_claim_batch(PG_FUNCTION_ARGS)
{
	static BddKeptPlan claim = {
		"WITH c AS MATERIALIZED (SELECT b.id FROM batchdedup.batch_row b WHERE b.kind = 'files' "
		"AND (b.status = $2 OR b.status = $3 AND b.lease_until < pg_catalog.clock_timestamp()) "
		"ORDER BY b.created_at LIMIT 1 FOR UPDATE SKIP LOCKED) "
		"UPDATE batchdedup.batch_row b SET status = $3, claimed_by = $1, attempts = b.attempts + 1, "
		"updated_at = pg_catalog.clock_timestamp(), "
		"lease_until = $4 FROM c WHERE b.id = c.id RETURNING b.id",
		4,
		{TEXTOID, TEXTOID, TEXTOID, TIMESTAMPTZOID}};
	static BddKeptPlan select = {
		"SELECT b FROM batchdedup.batch b WHERE b.id = $1", 1, {UUIDOID}};
	static const char *const names[] = {"worker", "from_status", "to_status", "lease"};
	BddSavedRole saved;
	Datum values[4];
	Datum row = (Datum) 0;
	bool found;
	bool isnull;

	for (int i = 0; i < lengthof(values); i++)
	{
		bdd_check_argument(fcinfo, i, names[i]);
		values[i] = PG_GETARG_DATUM(i);
	}
	values[3] = TimestampTzGetDatum(bdd_lease_end(PG_GETARG_INTERVAL_P(3)));
	check_claimed_step(TextDatumGetCString(values[1]), TextDatumGetCString(values[2]));
	bdd_batch_begin(&saved, "claim_batch()");
	found = bdd_plan_run(&claim, values, NULL) > 0;
	if (found)
	{
		values[0] = bdd_spi_value(0, 1, &isnull);
		(void) bdd_plan_run(&select, values, NULL);
		row = SPI_datumTransfer(bdd_spi_value(0, 1, &isnull), false, -1);
	}
	bdd_own_end(&saved);
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(row);
}

/* ---------- workers of a step ---------- */

/* $1: the batch, $2: its status, $3: the kind of workers. */
static void
emit_workers_done(Datum *values, int workers)
{
	BddPayload payload;

	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "status", TextDatumGetCString(values[1]));
	bdd_payload_text(&payload, "kind", TextDatumGetCString(values[2]));
	bdd_payload_int(&payload, "workers", workers);
	bdd_event_emit(BDD_EVENT_WORKERS_DONE, DatumGetUUIDP(values[0]), NULL, &payload);
}

/*
 * Emits workers_done if the statement that has just run says so: its row has the
 * number of workers that are done, and whether they are all.
 */
static void
emit_if_workers_done(Datum *values)
{
	bool isnull;
	int workers = DatumGetInt32(bdd_spi_value(0, 1, &isnull));

	if (DatumGetBool(bdd_spi_value(0, 2, &isnull)))
		emit_workers_done(values, workers);
}

/*
 * expect_workers(batch, kind, expected): so many workers of a kind have to be
 * done in the step that the batch is in
 */
Datum
bdd_expect_workers(PG_FUNCTION_ARGS)
{
	static BddKeptPlan upsert = {
		"WITH c AS (INSERT INTO batchdedup.batch_worker_count AS c (batch_id, status, kind, expected_workers) VALUES ($1, $2, $3, $4) "
		"ON CONFLICT (batch_id, status, kind) DO UPDATE SET expected_workers = EXCLUDED.expected_workers "
		/* Once all are done, and the event is written, more would come too late. */
		"WHERE c.completed_workers <= EXCLUDED.expected_workers "
		"AND (c.completed_workers < c.expected_workers OR c.completed_workers = 0 OR c.expected_workers = EXCLUDED.expected_workers) "
		"RETURNING *) "
		"SELECT c.completed_workers, c.completed_workers = c.expected_workers AND c.completed_workers > 0 "
		"AND EXISTS (SELECT FROM batchdedup.batch_worker_count o WHERE o.batch_id = $1 AND o.status = $2 "
		"AND o.kind = $3 AND o.expected_workers > c.expected_workers) FROM c",
		4,
		{UUIDOID, TEXTOID, TEXTOID, INT4OID}};
	BddSavedRole saved;
	BddBatch batch;
	Datum values[4];

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "kind");
	bdd_check_argument(fcinfo, 2, "number of workers");
	check_positive(fcinfo, 2, 0, "number of workers");
	bdd_batch_begin(&saved, "expect_workers()");
	bdd_batch_lock(PG_GETARG_UUID_P(0), false, &batch);
	values[0] = UUIDPGetDatum(&batch.id);
	values[1] = CStringGetTextDatum(batch.status);
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	if (bdd_plan_run(&upsert, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("more workers of kind \"%s\" are done already", TextDatumGetCString(values[2]))));
	emit_if_workers_done(values);
	bdd_own_end(&saved);
	PG_RETURN_VOID();
}

/*
 * complete_worker(batch, kind, worker): a worker is done with the step that the
 * batch is in; true: he was not before
 */
Datum
bdd_complete_worker(PG_FUNCTION_ARGS)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.batch_worker (batch_id, status, kind, worker) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		4,
		{UUIDOID, TEXTOID, TEXTOID, TEXTOID}};
	static BddKeptPlan update = {
		"UPDATE batchdedup.batch_worker_count SET completed_workers = completed_workers + 1 "
		"WHERE batch_id = $1 AND status = $2 AND kind = $3 AND completed_workers < expected_workers "
		"RETURNING completed_workers, completed_workers = expected_workers",
		3,
		{UUIDOID, TEXTOID, TEXTOID}};
	BddSavedRole saved;
	BddBatch batch;
	Datum values[4];
	bool is_new;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "kind");
	bdd_check_argument(fcinfo, 2, "worker");
	bdd_batch_begin(&saved, "complete_worker()");
	bdd_batch_lock(PG_GETARG_UUID_P(0), false, &batch);
	values[0] = UUIDPGetDatum(&batch.id);
	values[1] = CStringGetTextDatum(batch.status);
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	is_new = bdd_plan_run(&insert, values, NULL) > 0;
	if (is_new && bdd_plan_run(&update, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no more workers of kind \"%s\" are expected while batch \"%s\" is %s",
						TextDatumGetCString(values[2]), batch.name, batch.status),
				 errhint("Say how many with batchdedup.expect_workers.")));
	if (is_new)
		emit_if_workers_done(values);
	bdd_own_end(&saved);
	PG_RETURN_BOOL(is_new);
}

/* ---------- wait_batch ---------- */

typedef enum BddWait
{
	WAIT_ON,
	WAIT_REACHED,
	WAIT_NEVER /* the batch has ended without */
} BddWait;

static BddWait
look_at_status(const pg_uuid_t *batch, text *status)
{
	static BddKeptPlan select = {
		"SELECT $2 = ANY (reached), status IN ('completed', 'failed', 'cancelled') FROM batchdedup.batch_row WHERE id = $1",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(batch), PointerGetDatum(status)};
	bool isnull;
	bool reached;
	bool ended;

	if (bdd_plan_run_now(&select, values, NULL) == 0)
		report_no_batch(batch);
	reached = DatumGetBool(bdd_spi_value(0, 1, &isnull));
	ended = DatumGetBool(bdd_spi_value(0, 2, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return reached ? WAIT_REACHED : ended ? WAIT_NEVER :
											WAIT_ON;
}

/*
 * What holds locks may be what the worker waits for: then the wait is for the
 * worker's transaction, so that the server sees it.
 */
static void
wait_a_while(long ms)
{
	BddSharedSlot *slot = NULL;

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		slot = bdd_slot_find_by_table(bdd_catalog_relation("file"));
	if (slot != NULL)
		bdd_wait_for_applier(slot);
	(void) ConditionVariableTimedSleep(&bdd_barrier->changed,
									   slot != NULL ? Min(ms, 10) : ms,
									   PG_WAIT_EXTENSION);
}

static long
ms_of(Interval *timeout)
{
	double ms = 1000.0 * DatumGetFloat8(DirectFunctionCall2(interval_part,
															CStringGetTextDatum("epoch"),
															IntervalPGetDatum(timeout)));

	return ms <= 0 ? 0 : ms >= LONG_MAX / 2000 ? LONG_MAX / 2000 :
												 (long) ms;
}

/* A name that no batch will ever have is a mistake, not a long wait. */
static void
check_status_exists(text *status)
{
	static BddKeptPlan select = {
		"SELECT FROM batchdedup.batch_transition WHERE $1 IN (from_status, to_status) LIMIT 1",
		1,
		{TEXTOID}};
	Datum value = PointerGetDatum(status);

	if (bdd_plan_run(&select, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no status \"%s\"", text_to_cstring(status)),
				 errhint("See batchdedup.batch_transition.")));
}

static bool
wait_for_status(const pg_uuid_t *batch, text *status, long ms)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	BddWait state;

	ConditionVariablePrepareToSleep(&bdd_barrier->changed);
	while ((state = look_at_status(batch, status)) == WAIT_ON)
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		CHECK_FOR_INTERRUPTS();
		if (left <= 0)
			break;
		/* A lost wake-up costs a second at most. */
		wait_a_while(Min(left, 1000));
	}
	ConditionVariableCancelSleep();
	return state == WAIT_REACHED;
}

/*
 * wait_batch(batch, status, timeout): true once the batch is or has been in
 * that status; false: time is over, or the batch has ended without
 */
Datum
bdd_wait_batch(PG_FUNCTION_ARGS)
{
	BddSavedRole saved;
	pg_uuid_t *batch;
	bool reached;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "status");
	bdd_check_argument(fcinfo, 2, "timeout");
	bdd_check_preloaded();
	PreventCommandDuringRecovery("wait_batch()");
	bdd_check_may_wait();
	batch = PG_GETARG_UUID_P(0);
	if (bdd_barrier_noted(batch) && bdd_pending_has_rows())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for a batch whose files this transaction has completed"),
				 errhint("Commit first: nobody counts them before.")));
	bdd_own_begin(&saved);
	check_status_exists(PG_GETARG_TEXT_PP(1));
	reached = wait_for_status(batch, PG_GETARG_TEXT_PP(1), ms_of(PG_GETARG_INTERVAL_P(2)));
	bdd_own_end(&saved);
	PG_RETURN_BOOL(reached);
}

/* ---------- reconcile_batches, expire_batches ---------- */

/* The batch's counts, if they are not what its files say. */
static bool
repair_counts(const pg_uuid_t *batch)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.batch_row b SET processed_files = c.done, failed_files = c.failed, "
		"total_files = CASE WHEN b.upload_completed_at IS NULL THEN c.done + c.failed ELSE c.total END, "
		"updated_at = pg_catalog.clock_timestamp() "
		"FROM (SELECT pg_catalog.count(*) AS total, pg_catalog.count(*) FILTER (WHERE status = 'done') AS done, "
		"pg_catalog.count(*) FILTER (WHERE status = 'failed') AS failed FROM batchdedup.file WHERE batch_id = $1) c "
		"WHERE b.id = $1 AND (b.processed_files, b.failed_files) IS DISTINCT FROM (c.done, c.failed) "
		"OR b.id = $1 AND b.upload_completed_at IS NOT NULL AND b.total_files <> c.total",
		1,
		{UUIDOID}};
	Datum value = UUIDPGetDatum(batch);

	return bdd_plan_run(&update, &value, NULL) > 0;
}

/*
 * Takes up what a change by hand has left behind: counts, and a barrier that
 * nobody will come to.
 */
static bool
reconcile_batch(const pg_uuid_t *id)
{
	BddBatch before;
	BddBatch after;
	bool repaired;

	bdd_batch_lock(id, false, &before);
	repaired = repair_counts(id);
	settle(id);
	bdd_batch_lock(id, false, &after);
	return repaired || strcmp(before.status, after.status) != 0;
}

/* reconcile_batches(): compares batches with their files; the number repaired */
Datum
bdd_reconcile_batches(PG_FUNCTION_ARGS)
{
	static BddKeptPlan select = {
		"SELECT id FROM batchdedup.batch_row WHERE kind = 'files' AND status NOT IN ('completed', 'cancelled') ORDER BY id FOR UPDATE",
		0};
	BddSavedRole saved;
	int64 repaired = 0;
	pg_uuid_t *ids;
	uint64 count;
	bool isnull;

	if (IsolationUsesXactSnapshot())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("reconcile_batches() needs isolation level READ COMMITTED"),
				 errdetail("It has to see what others have committed meanwhile.")));
	bdd_batch_begin(&saved, "reconcile_batches()");
	count = bdd_plan_run(&select, NULL, NULL);
	ids = palloc(Max(count, 1) * sizeof(pg_uuid_t));
	for (uint64 i = 0; i < count; i++)
		ids[i] = *DatumGetUUIDP(bdd_spi_value(i, 1, &isnull));
	for (uint64 i = 0; i < count; i++)
	{
		CHECK_FOR_INTERRUPTS();
		repaired += reconcile_batch(&ids[i]);
	}
	bdd_own_end(&saved);
	PG_RETURN_INT64(repaired);
}

/*
 * expire_batches(keep): removes batches that have ended, with their files, if
 * nothing has happened to them for so long; returns their number
 */
Datum
bdd_expire_batches(PG_FUNCTION_ARGS)
{
	static BddKeptPlan delete = {
		"WITH old AS MATERIALIZED (SELECT id FROM batchdedup.batch_row WHERE status IN ('completed', 'failed', 'cancelled') "
		"AND updated_at < pg_catalog.now() - $1 FOR UPDATE SKIP LOCKED), "
		"letters AS (DELETE FROM batchdedup.dead_letter_row l USING batchdedup.file f, old "
		"WHERE l.target = 'batchdedup.file'::regclass AND l.generation = 0 AND f.batch_id = old.id AND l.key = pg_catalog.jsonb_build_object('id', f.id)) "
		"DELETE FROM batchdedup.batch_row b USING old WHERE b.id = old.id",
		1,
		{INTERVALOID}};
	BddSavedRole saved;
	Datum value;
	uint64 count;

	bdd_check_argument(fcinfo, 0, "interval");
	value = PG_GETARG_DATUM(0);
	bdd_batch_begin(&saved, "expire_batches()");
	count = bdd_plan_run(&delete, &value, NULL);
	bdd_own_end(&saved);
	PG_RETURN_INT64(count);
}
