/*-------------------------------------------------------------------------
 *
 * file.c
 *		Files of batches: looked at, completed, failed, opened once more.
 *
 * That a file is done, or has failed for good, goes through the buffer: the
 * table batchdedup.file is a target of our own, whose version column is the
 * file's version, so what is said of a delivery that has been replaced since is
 * stale. Everything else is written to the table at once (delivery.c, claim.c).
 * So table and buffer together tell whether a file is open.
 *
 *-------------------------------------------------------------------------
 */
#include "batch/file.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/guc.h"
#include "base/loaded.h"
#include "base/uuid.h"
#include "batch/barrier.h"
#include "batch/barrier_hint.h"
#include "batch/batch.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "buffer/wake.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "read/read.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(bdd_complete_file);
PG_FUNCTION_INFO_V1(bdd_fail_file);
PG_FUNCTION_INFO_V1(bdd_retry_files);
PG_FUNCTION_INFO_V1(bdd_file_is_closed);

const char *const bdd_file_status_names[] = {"pending", "processing", "done", "failed"};

/* ---------- reading a file ---------- */

/* A status as batchdedup.file has it. */
static BddFileStatus
parse_status(Datum value)
{
	char *name = TextDatumGetCString(value);

	for (int i = 0; i < lengthof(bdd_file_status_names); i++)
		if (strcmp(name, bdd_file_status_names[i]) == 0)
			return i;
	elog(ERROR, "unknown status of a file: %s", name);
	return BDD_FILE_PENDING;
}

/* Reads a row of batchdedup.file; the text is copied. */
void
bdd_file_parse(HeapTuple tuple, TupleDesc desc, BddBatchFile *file)
{
	Datum value;
	bool isnull;

#define VALUE(column) heap_getattr(tuple, column, desc, &isnull)
	file->id = *DatumGetUUIDP(VALUE(BDD_FILE_COLUMN_ID));
	file->batch = *DatumGetUUIDP(VALUE(BDD_FILE_COLUMN_BATCH_ID));
	file->version = DatumGetInt32(VALUE(BDD_FILE_COLUMN_VERSION));
	file->attempts = DatumGetInt32(VALUE(BDD_FILE_COLUMN_ATTEMPTS));
	file->status = parse_status(VALUE(BDD_FILE_COLUMN_STATUS));
	value = VALUE(BDD_FILE_COLUMN_CLAIMED_BY);
	file->claimed_by = isnull ? NULL : TextDatumGetCString(value);
#undef VALUE
}

/* The table's row of the file as the active snapshot shows it. */
static void
read_file(Oid relid, const pg_uuid_t *id, BddBatchFile *file)
{
	Relation rel = table_open(relid, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, BDD_FILE_COLUMN_ID, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	if (!OidIsValid(rel->rd_pkindex))
		(void) RelationGetIndexList(rel);
	scan = systable_beginscan(rel, rel->rd_pkindex, true, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("file %s does not exist",
						bdd_uuid_text(id))));
	bdd_file_parse(tuple, RelationGetDescr(rel), file);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

/* The table batchdedup.file as a target. */
BddTarget *
bdd_files_open(LOCKMODE lockmode)
{
	return bdd_target_open(bdd_catalog_relation("file"), lockmode);
}

/*
 * Rows found in the journal after a crash cannot be read before they are in the
 * table.  Waits for that; then takes the snapshot with which table and buffer are read.
 */
static void
begin_looking(void)
{
	bdd_read_wait_replayed(bdd_files_open(AccessShareLock));
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * What the buffer and this transaction say of the file's version, if anything:
 * the table's row is older.  The row is stored in *row, which may be NULL.
 */
bool
bdd_file_read_buffered(BddTarget *target, const pg_uuid_t *id, int version,
					   BddFileStatus *status, BddValues *row)
{
	BddRows rows = {0};
	BddValues given;
	StringInfoData key;
	uint32 hash;
	bool found = false;

	(void) bdd_target_find_slot(target);
	bdd_values_init(target, &given);
	given.values[BDD_FILE_COLUMN_ID - 1] = UUIDPGetDatum(id);
	given.isnull[BDD_FILE_COLUMN_ID - 1] = false;
	bdd_column_add(given.given, BDD_FILE_COLUMN_ID - 1);
	initStringInfo(&key);
	hash = bdd_values_key(target, &given, &key);
	bdd_read_key(target, hash, &key, GetActiveSnapshot(), &rows);
	for (uint64 i = 0; i < rows.count; i++)
	{
		bdd_image_deform(&target->shape, &rows.rows[i].image, given.values,
						 given.isnull);
		if (DatumGetInt32(given.values[BDD_FILE_COLUMN_VERSION - 1]) != version)
			continue;
		*status = parse_status(given.values[BDD_FILE_COLUMN_STATUS - 1]);
		if (row != NULL)
			*row = given;
		found = true;
	}
	return found;
}

/*
 * file_is_closed_internal(file, version): whether the buffer says that the file
 * is done, or has failed
 */
Datum
bdd_file_is_closed(PG_FUNCTION_ARGS)
{
	BddFileStatus status = BDD_FILE_PENDING;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	bdd_check_preloaded();
	PG_RETURN_BOOL(bdd_file_read_buffered(bdd_files_open(AccessShareLock), PG_GETARG_UUID_P(0),
										  PG_GETARG_INT32(1), &status, NULL) &&
				   status >= BDD_FILE_DONE);
}

/* ---------- complete_file, fail_file ---------- */

/* The file that a call names, with its batch. */
typedef struct BddFileCall
{
	BddTarget *target;
	BddBatchFile file;
	BddBatch batch;
	bool closed; /* it is done already, or was when we looked */
} BddFileCall;

/*
 * The call names no version, and can only speak of one that has been replaced.
 */
static void
report_delivered_again(const BddBatchFile *file)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the file has been delivered again, and nobody has claimed version %d", file->version),
			 errhint("Say which version is meant with version => %d.", file->version)));
}

/*
 * Reads file and batch; false: what the caller says is of a version that has
 * been replaced.
 */
static bool
find_named_file(FunctionCallInfo fcinfo, int version_argument, BddFileCall *call)
{
	Oid relid = bdd_catalog_relation("file");
	BddFileStatus buffered;

	call->target = bdd_target_open(relid, RowExclusiveLock);
	read_file(relid, PG_GETARG_UUID_P(1), &call->file);
	if (memcmp(&call->file.batch, PG_GETARG_UUID_P(0), UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the file is of another batch"),
				 errdetail("It is of batch %s.",
						   bdd_uuid_text(&call->file.batch))));
	bdd_batch_read(&call->file.batch, &call->batch);
	if (bdd_file_read_buffered(call->target, &call->file.id, call->file.version, &buffered, NULL))
		call->file.status = buffered;
	if (!PG_ARGISNULL(version_argument))
		return PG_GETARG_INT32(version_argument) == call->file.version;
	if (call->file.version > 1 && call->file.status == BDD_FILE_PENDING)
		report_delivered_again(&call->file);
	return true;
}

/* An error if the batch has ended: its files say nothing any more. */
static void
check_batch_goes_on(const BddBatch *batch)
{
	if (bdd_batch_has_ended(batch))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is %s", batch->name, batch->status)));
}

/* "column" counts from 1. */
static void
set_column(BddValues *row, int column, Datum value, bool isnull)
{
	row->values[column - 1] = value;
	row->isnull[column - 1] = isnull;
	bdd_column_add(row->given, column - 1);
}

/* Files that the table has open, as far as that is known; or 0. */
static uint32
open_files_of(const BddBatch *batch)
{
	return batch->uploaded ? Max(batch->total - batch->processed - batch->failed, 0) : 0;
}

/* The file's end, into the buffer; as the owner of our tables. */
static void
push_status(BddFileCall *call, BddFileStatus status, Datum result,
			bool no_result, Datum error, bool no_error)
{
	BddValues row;
	Oid role;
	int security;

	bdd_values_init(call->target, &row);
	row.no_defaults = true;
	set_column(&row, BDD_FILE_COLUMN_ID, UUIDPGetDatum(&call->file.id), false);
	set_column(&row, BDD_FILE_COLUMN_VERSION, Int32GetDatum(call->file.version), false);
	set_column(&row, BDD_FILE_COLUMN_STATUS,
			   CStringGetTextDatum(bdd_file_status_names[status]), false);
	set_column(&row, BDD_FILE_COLUMN_RESULT, result, no_result);
	set_column(&row, BDD_FILE_COLUMN_ERROR, error, no_error);
	set_column(&row, BDD_FILE_COLUMN_COMPLETED_AT,
			   TimestampTzGetDatum(GetCurrentTimestamp()), false);
	GetUserIdAndSecContext(&role, &security);
	SetUserIdAndSecContext(call->target->owner, security | SECURITY_LOCAL_USERID_CHANGE);
	bdd_push_values(call->target, &row);
	SetUserIdAndSecContext(role, security);
	bdd_barrier_note(call->target->relid, &call->batch.id, 1, open_files_of(&call->batch));
}

/*
 * complete_file(batch, file, result, version): the file is done; true: it was
 * not before
 */
Datum
bdd_complete_file(PG_FUNCTION_ARGS)
{
	BddFileCall call;
	bool is_new;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "file");
	bdd_check_preloaded();
	PreventCommandDuringRecovery("complete_file()");
	PreventCommandIfReadOnly("complete_file()");
	begin_looking();
	is_new = find_named_file(fcinfo, 3, &call) && call.file.status != BDD_FILE_DONE;
	if (is_new)
	{
		check_batch_goes_on(&call.batch);
		push_status(&call, BDD_FILE_DONE, PG_GETARG_DATUM(2), PG_ARGISNULL(2), (Datum) 0, true);
	}
	PopActiveSnapshot();
	PG_RETURN_BOOL(is_new);
}

/*
 * The file goes back to those that wait, for a while that doubles with each
 * attempt.
 */
static bool
release_file(const BddBatchFile *file, Datum error)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.file SET status = 'pending', error = $4, "
		"lease_until = pg_catalog.clock_timestamp() + $3 * interval '1 ms' "
		/* A claim may take it just now: then it belongs to that worker. */
		"WHERE id = $1 AND version = $2 AND status = 'processing' AND attempts = $5",
		5,
		{UUIDOID, INT4OID, INT4OID, TEXTOID, INT4OID}};
	BddSavedRole saved;
	Datum values[5];
	bool released;

	values[0] = UUIDPGetDatum(&file->id);
	values[1] = Int32GetDatum(file->version);
	values[2] = Int32GetDatum(bdd_backoff_ms(file->attempts));
	values[3] = error;
	values[4] = Int32GetDatum(file->attempts);
	bdd_batch_begin(&saved, "fail_file()");
	released = bdd_plan_run(&update, values, NULL) > 0;
	bdd_own_end(&saved);
	return released;
}

/*
 * fail_file(batch, file, error, retry, version, worker): the file could not be
 * processed; with retry it waits to be claimed again, unless it was tried as
 * often as the batch allows.  False: it was not open, or not the worker's.
 */
Datum
bdd_fail_file(PG_FUNCTION_ARGS)
{
	BddFileCall call;
	bool is_new;

	for (int i = 0; i < 4; i++)
		bdd_check_argument(fcinfo, i, ((const char *[]){"batch", "file", "error", "retry"})[i]);
	bdd_check_preloaded();
	PreventCommandDuringRecovery("fail_file()");
	PreventCommandIfReadOnly("fail_file()");
	begin_looking();
	is_new = find_named_file(fcinfo, 4, &call) && call.file.status < BDD_FILE_DONE;
	if (is_new && !PG_ARGISNULL(5))
		is_new = call.file.claimed_by != NULL &&
				 strcmp(call.file.claimed_by, text_to_cstring(PG_GETARG_TEXT_PP(5))) == 0;
	if (is_new)
	{
		check_batch_goes_on(&call.batch);
		if (PG_GETARG_BOOL(3) && call.file.attempts < call.batch.max_attempts)
			is_new = release_file(&call.file, PG_GETARG_DATUM(2));
		else
			push_status(&call, BDD_FILE_FAILED, (Datum) 0, true, PG_GETARG_DATUM(2), false);
	}
	PopActiveSnapshot();
	PG_RETURN_BOOL(is_new);
}

/* ---------- retry_files ---------- */

/* Waits until files that others have completed or failed are so in the table, too. */
static void
flush_files(void)
{
	BddTarget *target = bdd_files_open(AccessShareLock);
	BddSharedSlot *slot = bdd_target_find_slot(target);
	TimestampTz since = GetCurrentTimestamp();

	if (slot == NULL || !bdd_slot_has_unapplied(slot) || bdd_worker_unavailable(slot))
		return;
	bdd_wait_applied(slot, target->options.target_id, bdd_request_flush(slot, true), since, true);
}

/*
 * retry_files(batch): opens its failed files once more, and the batch if it has
 * failed because of them; returns their number
 */
Datum
bdd_retry_files(PG_FUNCTION_ARGS)
{
	static BddKeptPlan reopen = {
		"UPDATE batchdedup.file SET status = 'pending', attempts = 0, claimed_by = NULL, lease_until = NULL, "
		"error = NULL, completed_at = NULL WHERE batch_id = $1 AND status = 'failed'",
		1,
		{UUIDOID}};
	static BddKeptPlan go_on = {
		"UPDATE batchdedup.batch_row SET status = 'scattering', error = NULL WHERE id = $1 AND status = 'failed' AND upload_completed_at IS NOT NULL "
		"AND ($2 OR error IS NOT NULL)",
		2,
		{UUIDOID, BOOLOID}};
	BddSavedRole saved;
	BddBatch batch;
	Datum values[2];
	uint64 count;

	bdd_check_argument(fcinfo, 0, "batch");
	values[0] = PG_GETARG_DATUM(0);
	bdd_batch_begin(&saved, "retry_files()");
	flush_files();
	/* Files before their batch, as the worker does. */
	count = bdd_plan_run(&reopen, values, NULL);
	bdd_batch_lock(PG_GETARG_UUID_P(0), false, &batch);
	check_batch_goes_on(&batch);
	/* Also if what had failed was done after all. */
	values[1] = BoolGetDatum(count > 0);
	if (bdd_plan_run(&go_on, values, NULL) > 0)
		bdd_batch_settle(bdd_uuid_array(values, 1));
	bdd_own_end(&saved);
	PG_RETURN_INT64(count);
}
