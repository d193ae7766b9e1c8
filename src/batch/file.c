/*-------------------------------------------------------------------------
 *
 * file.c
 *		Files of batches: added, claimed, completed, failed, delivered anew.
 *
 * That a file is done, or has failed for good, goes through the buffer: the
 * table batchdedup.file is a target of our own, whose version column is the
 * file's version, so what is said of a delivery that has been replaced since is
 * stale. Everything else is written to the table at once. So whoever wants to
 * know whether a file is open looks at table and buffer.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/guc.h"
#include "base/loaded.h"
#include "base/uuid.h"
#include "batch/barrier_hint.h"
#include "batch/batch.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/wake.h"
#include "catalog/pg_type_d.h"
#include "event/emit.h"
#include "funcapi.h"
#include "ingest/push.h"
#include "miscadmin.h"
#include "read/read.h"
#include "sql/catalog.h"
#include "target/target.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_add_file);
PG_FUNCTION_INFO_V1(bdd_claim_files);
PG_FUNCTION_INFO_V1(bdd_renew_lease);
PG_FUNCTION_INFO_V1(bdd_complete_file);
PG_FUNCTION_INFO_V1(bdd_fail_file);
PG_FUNCTION_INFO_V1(bdd_retry_files);
PG_FUNCTION_INFO_V1(bdd_reconcile_files);
PG_FUNCTION_INFO_V1(bdd_file_is_closed);

/* Columns of batchdedup.file, in the order of its definition. */
enum
{
	FILE_ID = 1,
	FILE_BATCH_ID,
	FILE_FILENAME,
	FILE_SIZE,
	FILE_LOCATION,
	FILE_CHECKSUM,
	FILE_VERSION,
	FILE_STATUS,
	FILE_ATTEMPTS,
	FILE_CLAIMED_BY,
	FILE_LEASE_UNTIL,
	FILE_RESULT,
	FILE_ERROR,
	FILE_CREATED_AT,
	FILE_COMPLETED_AT
};

typedef enum BddFileStatus
{
	FILE_PENDING,
	FILE_PROCESSING,
	FILE_DONE,
	FILE_FAILED
} BddFileStatus;

static const char *const status_names[] = {"pending", "processing", "done", "failed"};

typedef struct BddFile
{
	pg_uuid_t id;
	pg_uuid_t batch;
	int version;
	int attempts;
	BddFileStatus status;
	char *claimed_by; /* or NULL */
} BddFile;

/* ---------- reading a file ---------- */

static BddFileStatus
parse_status(Datum value)
{
	char *name = TextDatumGetCString(value);

	for (int i = 0; i < lengthof(status_names); i++)
		if (strcmp(name, status_names[i]) == 0)
			return i;
	elog(ERROR, "unknown status of a file: %s", name);
	return FILE_PENDING;
}

static void
parse_file(HeapTuple tuple, TupleDesc desc, BddFile *file)
{
	Datum value;
	bool isnull;

#define VALUE(column) heap_getattr(tuple, column, desc, &isnull)
	file->id = *DatumGetUUIDP(VALUE(FILE_ID));
	file->batch = *DatumGetUUIDP(VALUE(FILE_BATCH_ID));
	file->version = DatumGetInt32(VALUE(FILE_VERSION));
	file->attempts = DatumGetInt32(VALUE(FILE_ATTEMPTS));
	file->status = parse_status(VALUE(FILE_STATUS));
	value = VALUE(FILE_CLAIMED_BY);
	file->claimed_by = isnull ? NULL : TextDatumGetCString(value);
#undef VALUE
}

/* The table's row of the file as the active snapshot shows it. */
static void
read_file(Oid relid, const pg_uuid_t *id, BddFile *file)
{
	Relation rel = table_open(relid, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, FILE_ID, BTEqualStrategyNumber, F_UUID_EQ, UUIDPGetDatum(id));
	if (!OidIsValid(rel->rd_pkindex))
		(void) RelationGetIndexList(rel);
	scan = systable_beginscan(rel, rel->rd_pkindex, true, GetActiveSnapshot(), 1, &key);
	tuple = systable_getnext(scan);
	if (!HeapTupleIsValid(tuple))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("file %s does not exist",
						bdd_uuid_text(id))));
	parse_file(tuple, RelationGetDescr(rel), file);
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
}

static BddTarget *
open_files(LOCKMODE lockmode)
{
	return bdd_target_open(bdd_catalog_relation("file"), lockmode);
}

/*
 * What was found in the journal after a crash cannot be read before it is in
 * the table.  Then takes the snapshot with which table and buffer are read.
 */
static void
begin_looking(void)
{
	bdd_read_wait_replayed(open_files(AccessShareLock));
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/*
 * What the buffer and this transaction say of the file's version, if anything:
 * the table's row is older.
 */
static bool
read_buffered_row(BddTarget *target, const pg_uuid_t *id, int version,
				  BddFileStatus *status, BddValues *row)
{
	BddRows rows = {0};
	BddValues given;
	StringInfoData key;
	uint32 hash;
	bool found = false;

	(void) bdd_target_find_slot(target);
	bdd_values_init(target, &given);
	given.values[FILE_ID - 1] = UUIDPGetDatum(id);
	given.isnull[FILE_ID - 1] = false;
	bdd_column_add(given.given, FILE_ID - 1);
	initStringInfo(&key);
	hash = bdd_values_key(target, &given, &key);
	bdd_read_key(target, hash, &key, GetActiveSnapshot(), &rows);
	for (uint64 i = 0; i < rows.count; i++)
	{
		bdd_image_deform(&target->shape, &rows.rows[i].image, given.values,
						 given.isnull);
		if (DatumGetInt32(given.values[FILE_VERSION - 1]) != version)
			continue;
		*status = parse_status(given.values[FILE_STATUS - 1]);
		*row = given;
		found = true;
	}
	return found;
}

static bool
read_buffered(BddTarget *target, const pg_uuid_t *id, int version,
			  BddFileStatus *status)
{
	BddValues ignored;

	return read_buffered_row(target, id, version, status, &ignored);
}

/*
 * file_is_closed_internal(file, version): whether the buffer says that the file
 * is done, or has failed
 */
Datum
bdd_file_is_closed(PG_FUNCTION_ARGS)
{
	BddFileStatus status = FILE_PENDING;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_BOOL(false);
	bdd_check_preloaded();
	PG_RETURN_BOOL(read_buffered(open_files(AccessShareLock), PG_GETARG_UUID_P(0),
								 PG_GETARG_INT32(1), &status) &&
				   status >= FILE_DONE);
}

/* ---------- add_file ---------- */

typedef struct BddDelivery
{
	Datum values[7]; /* id, batch, filename, size, location, checksum, version */
	char nulls[7];
} BddDelivery;

/* A text of the delivery, or NULL. */
static char *
delivered_text(const BddDelivery *delivery, int n)
{
	return delivery->nulls[n] == 'n' ? NULL : TextDatumGetCString(delivery->values[n]);
}

/* file_added or file_reopened */
static void
emit_delivery(BddEventKind kind, const BddDelivery *delivery)
{
	BddPayload payload;

	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "filename", delivered_text(delivery, 2));
	if (delivery->nulls[3] == 'n')
		bdd_payload_null(&payload, "size");
	else
		bdd_payload_int(&payload, "size", DatumGetInt64(delivery->values[3]));
	bdd_payload_text(&payload, "location", delivered_text(delivery, 4));
	bdd_payload_text(&payload, "checksum", delivered_text(delivery, 5));
	bdd_payload_int(&payload, "version", DatumGetInt32(delivery->values[6]));
	bdd_event_emit(kind, DatumGetUUIDP(delivery->values[1]), DatumGetUUIDP(delivery->values[0]),
				   &payload);
}

/* False: the batch has a file of that name. */
static bool
insert_file(BddDelivery *delivery)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.file (id, batch_id, filename, size, location, checksum) "
		"VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (batch_id, filename) DO NOTHING",
		6,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}};

	if (bdd_plan_run(&insert, delivery->values,
					 delivery->nulls) == 0)
		return false;
	emit_delivery(BDD_EVENT_FILE_ADDED, delivery);
	return true;
}

/*
 * The file of that name; "again": its checksum, or where one is not known its
 * size, says that it is another one now.
 */
static bool
find_file(BddDelivery *delivery, BddFile *file, bool *again)
{
	static BddKeptPlan select = {
		"SELECT f.*, CASE WHEN f.checksum IS NOT NULL AND $6 IS NOT NULL THEN f.checksum <> $6 "
		"ELSE coalesce(f.size <> $4, false) END AS again "
		"FROM batchdedup.file f WHERE f.batch_id = $2 AND f.filename = $3 AND $1 IS NOT NULL AND ($5 IS NULL OR true) FOR UPDATE",
		6,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}};
	bool isnull;

	if (bdd_plan_run(&select, delivery->values,
					 delivery->nulls) == 0)
		return false;
	parse_file(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, file);
	*again = DatumGetBool(bdd_spi_value(0, FILE_COMPLETED_AT + 1, &isnull));
	return true;
}

/* Keeps what there was of the file, and opens it for its new content. */
static void
deliver_again(BddDelivery *delivery, const BddFile *file)
{
	static BddKeptPlan keep = {
		"INSERT INTO batchdedup.file_version (file_id, version, size, location, checksum, status, attempts, claimed_by, result, error, completed_at) "
		"SELECT id, version, size, location, checksum, coalesce($2, status), attempts, claimed_by, "
		"CASE WHEN $2 IS NULL THEN result ELSE $3 END, CASE WHEN $2 IS NULL THEN error ELSE $4 END, "
		"CASE WHEN $2 IS NULL THEN completed_at ELSE $5 END "
		"FROM batchdedup.file WHERE id = $1",
		5,
		{UUIDOID, TEXTOID, JSONBOID, TEXTOID, TIMESTAMPTZOID}};
	static BddKeptPlan renew = {
		"WITH b AS (UPDATE batchdedup.batch_row SET reopened_files = reopened_files + 1, "
		"updated_at = pg_catalog.clock_timestamp() WHERE id = $2) "
		"UPDATE batchdedup.file SET size = $4, location = coalesce($5, location), checksum = $6, version = $7, status = 'pending', attempts = 0, "
		"claimed_by = NULL, lease_until = NULL, result = NULL, error = NULL, completed_at = NULL WHERE id = $1 AND filename = $3",
		7,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, INT4OID}};
	BddFileStatus status;
	BddValues row;
	Datum values[5] = {delivery->values[0]};
	char nulls[5] = {' ', 'n', 'n', 'n', 'n'};

	/* What was said of it may be in the buffer only, and will be stale there. */
	if (read_buffered_row(open_files(AccessShareLock), &file->id, file->version, &status, &row))
	{
		static const int columns[] = {FILE_RESULT, FILE_ERROR, FILE_COMPLETED_AT};

		values[1] = CStringGetTextDatum(status_names[status]);
		nulls[1] = ' ';
		for (int i = 0; i < lengthof(columns); i++)
		{
			values[i + 2] = row.values[columns[i] - 1];
			nulls[i + 2] = row.isnull[columns[i] - 1] ? 'n' : ' ';
		}
	}
	(void) bdd_plan_run(&keep, values, nulls);
	delivery->values[6] = Int32GetDatum(file->version + 1);
	(void) bdd_plan_run(&renew, delivery->values, delivery->nulls);
	emit_delivery(BDD_EVENT_FILE_REOPENED, delivery);
}

/* What is known of the same content now: its place may be another one. */
static void
complete_description(BddDelivery *delivery)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.file SET size = coalesce(size, $4), location = coalesce($5, location), checksum = coalesce(checksum, $6) "
		"WHERE id = $1 AND (size, location, checksum) IS DISTINCT FROM "
		"(coalesce(size, $4), coalesce($5, location), coalesce(checksum, $6)) AND batch_id = $2 AND filename = $3",
		6,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}};

	(void) bdd_plan_run(&update, delivery->values, delivery->nulls);
}

static void
check_takes_files(const BddBatch *batch, bool new_name)
{
	if (strcmp(batch->kind, "files") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is an import", batch->name),
				 errhint("Write to it with create_writer or write_chunk.")));
	if (bdd_batch_has_ended(batch) || strcmp(batch->status, "failed") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is %s", batch->name, batch->status),
				 errhint("Add the file to another batch.")));
	if (new_name && batch->uploaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the list of files of batch \"%s\" is final", batch->name),
				 errdetail("complete_upload has been called."),
				 errhint("Add the file to another batch.")));
}

/* Takes the file's id of the table. */
static void
add_known_file(BddDelivery *delivery, const BddBatch *batch, BddFile *file,
			   bool again)
{
	*DatumGetUUIDP(delivery->values[0]) = file->id;
	if (again)
	{
		check_takes_files(batch, false);
		deliver_again(delivery, file);
	}
	else
		complete_description(delivery);
}

static void
add_file(BddDelivery *delivery)
{
	BddBatch batch;
	BddFile file;
	bool again;

	bdd_batch_lock(DatumGetUUIDP(delivery->values[1]), true, &batch);
	for (;;)
	{
		if (find_file(delivery, &file, &again))
		{
			add_known_file(delivery, &batch, &file, again);
			return;
		}
		check_takes_files(&batch, true);
		if (insert_file(delivery))
			return;
		CHECK_FOR_INTERRUPTS();
	}
}

/* add_file(batch, filename, size, location, checksum): the file's id */
Datum
bdd_add_file(PG_FUNCTION_ARGS)
{
	BddSavedRole saved;
	BddDelivery delivery;
	pg_uuid_t *id = bdd_new_uuid();

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "filename");
	if (VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(1)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("filename must not be empty")));
	memset(delivery.nulls, ' ', sizeof(delivery.nulls));
	delivery.values[0] = UUIDPGetDatum(id);
	for (int i = 0; i < 5; i++)
	{
		delivery.values[i + 1] = PG_GETARG_DATUM(i);
		delivery.nulls[i + 1] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	delivery.values[6] = Int32GetDatum(1);
	bdd_batch_begin(&saved, "add_file()");
	bdd_read_wait_replayed(open_files(AccessShareLock));
	add_file(&delivery);
	bdd_own_end(&saved);
	PG_RETURN_UUID_P(id);
}

/* ---------- claim_files ---------- */

typedef struct BddClaim
{
	Datum worker;
	TimestampTz until;
	int max;
	Datum *ids; /* of files that are ours */
	int count;
	Datum *exhausted; /* files that were tried too often */
	int exhausted_count;
} BddClaim;

/* SQL: statuses in which files are handed out; behind the barrier those that were opened again. */
#define CLAIMABLE "'uploaded', 'scattering', 'scattered', 'gathering', 'gathered'"

/* Batches with open files, in an order that favours none. */
static Datum
find_batches(const pg_uuid_t *batch, int *count)
{
	static BddKeptPlan select = {
		"SELECT coalesce(pg_catalog.array_agg(b.id ORDER BY pg_catalog.random()), '{}'), pg_catalog.count(*)::int "
		"FROM batchdedup.batch_row b "
		"WHERE b.status IN (" CLAIMABLE ") AND b.kind = 'files' "
		"AND b.processed_files + b.failed_files < b.total_files AND ($1 IS NULL OR b.id = $1)",
		1,
		{UUIDOID}};
	Datum value = UUIDPGetDatum(batch);
	char null = batch == NULL ? 'n' : ' ';
	bool isnull;

	(void) bdd_plan_run(&select, &value, &null);
	*count = DatumGetInt32(bdd_spi_value(0, 2, &isnull));
	return bdd_spi_value(0, 1, &isnull);
}

static Datum
copy_uuid(Datum value)
{
	pg_uuid_t *copy = palloc(sizeof(pg_uuid_t));

	*copy = *DatumGetUUIDP(value);
	return UUIDPGetDatum(copy);
}

/*
 * Locks open files of the batches, "share" of each at most, that nobody holds.
 * Completed ones are left out before they are locked, so that their apply
 * is not held up, and once more after: then none can be applied behind our
 * back.
 */
static void
take_files(BddClaim *claim, Datum batches, int share)
{
	static BddKeptPlan select = {
		"SELECT f.id, f.version, f.attempts >= f.max_attempts FROM pg_catalog.unnest($1) WITH ORDINALITY AS o (id, place) "
		"CROSS JOIN LATERAL (SELECT f.id, f.version, f.attempts, b.max_attempts FROM batchdedup.file f JOIN batchdedup.batch_row b ON b.id = f.batch_id "
		"WHERE f.batch_id = o.id AND f.status IN ('pending', 'processing') AND b.status IN (" CLAIMABLE ") "
		"AND coalesce(f.lease_until, '-infinity') <= pg_catalog.clock_timestamp() "
		"AND f.id <> ALL ($4) AND NOT batchdedup.file_is_closed_internal(f.id, f.version) "
		"ORDER BY coalesce(f.lease_until, '-infinity') LIMIT $2 FOR NO KEY UPDATE OF f SKIP LOCKED) f LIMIT $3",
		4,
		{UUIDARRAYOID, INT4OID, INT4OID, UUIDARRAYOID}};
	Datum values[] = {batches, Int32GetDatum(share), Int32GetDatum(claim->max - claim->count),
					  bdd_uuid_array(claim->ids, claim->count)};
	uint64 found = bdd_plan_run(&select, values, NULL);
	BddTarget *target = open_files(AccessShareLock);
	bool isnull;

	claim->exhausted = palloc(Max(found, 1) * sizeof(Datum));
	claim->exhausted_count = 0;
	for (uint64 i = 0; i < found; i++)
	{
		Datum id = bdd_spi_value(i, 1, &isnull);
		BddFileStatus status = FILE_PENDING;

		if (read_buffered(target, DatumGetUUIDP(id),
						  DatumGetInt32(bdd_spi_value(i, 2, &isnull)), &status) &&
			status >= FILE_DONE)
			continue;
		if (DatumGetBool(bdd_spi_value(i, 3, &isnull)))
			claim->exhausted[claim->exhausted_count++] = copy_uuid(id);
		else
			claim->ids[claim->count++] = copy_uuid(id);
	}
}

/* Files whose last lease has expired, too: nobody will say what became of them. */
static void
fail_exhausted(BddClaim *claim)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.file SET status = 'failed', completed_at = pg_catalog.clock_timestamp(), "
		"error = pg_catalog.format('lease expired in attempt %s, of %s', attempts, claimed_by) WHERE id = ANY ($1)",
		1,
		{UUIDARRAYOID}};
	Datum ids = bdd_uuid_array(claim->exhausted, claim->exhausted_count);

	if (claim->exhausted_count > 0)
		(void) bdd_plan_run(&update, &ids, NULL);
}

/* A fair share of each batch first, then whatever there is. */
static void
find_files(BddClaim *claim, const pg_uuid_t *batch)
{
	int count;
	Datum batches = find_batches(batch, &count);

	if (count == 0)
		return;
	batches = PointerGetDatum(DatumGetArrayTypePCopy(batches));
	take_files(claim, batches, (claim->max + count - 1) / count);
	while (claim->exhausted_count > 0 ||
		   (claim->count > 0 && claim->count < claim->max && count > 1))
	{
		int before = claim->count;

		fail_exhausted(claim);
		take_files(claim, batches, claim->max);
		if (claim->count == before && claim->exhausted_count == 0)
			break;
	}
}

/*
 * Marks what was found, and hands it out.  Whoever has the batch's row locked
 * takes the batch to scattering himself, or the next claim does.
 */
static void
lease_files(BddClaim *claim, Tuplestorestate *result)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.file SET status = 'processing', attempts = attempts + 1, claimed_by = $2, lease_until = $3 "
		"WHERE id = ANY ($1) AND EXISTS (SELECT FROM batchdedup.batch_row b "
		"WHERE b.id = file.batch_id AND b.status IN (" CLAIMABLE ")) RETURNING *",
		3,
		{UUIDARRAYOID, TEXTOID, TIMESTAMPTZOID}};
	static BddKeptPlan begin = {
		"UPDATE batchdedup.batch_row SET status = 'scattering' WHERE id IN ("
		"SELECT b.id FROM batchdedup.batch_row b WHERE b.status = 'uploaded' "
		"AND b.id IN (SELECT f.batch_id FROM batchdedup.file f WHERE f.id = ANY ($1)) FOR NO KEY UPDATE SKIP LOCKED)",
		1,
		{UUIDARRAYOID}};
	Datum values[] = {bdd_uuid_array(claim->ids, claim->count), claim->worker,
					  TimestampTzGetDatum(claim->until)};

	if (claim->count == 0)
		return;
	(void) bdd_plan_run(&update, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result, SPI_tuptable->vals[i]);
	(void) bdd_plan_run(&begin, values, NULL);
}

static void
check_batch_exists(const pg_uuid_t *id)
{
	BddBatch batch;

	if (id != NULL)
		bdd_batch_read(id, &batch);
}

/*
 * claim_files(worker, max_files, lease, batch): open files that nobody works
 * on, or whose worker has not been heard of until the end of his lease
 */
Datum
bdd_claim_files(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	BddSavedRole saved;
	BddClaim claim = {0};

	bdd_check_argument(fcinfo, 0, "worker");
	bdd_check_argument(fcinfo, 1, "number of files");
	bdd_check_argument(fcinfo, 2, "lease");
	claim.worker = PG_GETARG_DATUM(0);
	claim.max = PG_GETARG_INT32(1);
	claim.until = bdd_lease_end(PG_GETARG_INTERVAL_P(2));
	if (claim.max < 1 || claim.max > 100000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of files must be between 1 and 100000")));
	InitMaterializedSRF(fcinfo, 0);
	bdd_batch_begin(&saved, "claim_files()");
	bdd_read_wait_replayed(open_files(AccessShareLock));
	check_batch_exists(PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3));
	claim.ids = palloc(claim.max * sizeof(Datum));
	find_files(&claim, PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3));
	lease_files(&claim, result->setResult);
	bdd_own_end(&saved);
	return (Datum) 0;
}

/*
 * renew_lease(file, worker, lease): the worker goes on; false: the file is not
 * his any more
 */
Datum
bdd_renew_lease(PG_FUNCTION_ARGS)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.file SET lease_until = $3 WHERE id = $1 AND claimed_by = $2 AND status = 'processing'",
		3,
		{UUIDOID, TEXTOID, TIMESTAMPTZOID}};
	BddSavedRole saved;
	Datum values[3];
	bool renewed;

	bdd_check_argument(fcinfo, 0, "file");
	bdd_check_argument(fcinfo, 1, "worker");
	bdd_check_argument(fcinfo, 2, "lease");
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	values[2] = TimestampTzGetDatum(bdd_lease_end(PG_GETARG_INTERVAL_P(2)));
	bdd_batch_begin(&saved, "renew_lease()");
	renewed = bdd_plan_run(&update, values, NULL) > 0;
	bdd_own_end(&saved);
	PG_RETURN_BOOL(renewed);
}

/* ---------- complete_file, fail_file ---------- */

/* A file that a caller speaks of, with its batch. */
typedef struct BddSpoken
{
	BddTarget *target;
	BddFile file;
	BddBatch batch;
	bool closed; /* it is done already, or was when we looked */
} BddSpoken;

static void
report_delivered_again(const BddFile *file)
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
find_spoken(FunctionCallInfo fcinfo, int version_argument, BddSpoken *spoken)
{
	Oid relid = bdd_catalog_relation("file");
	BddFileStatus buffered;

	spoken->target = bdd_target_open(relid, RowExclusiveLock);
	read_file(relid, PG_GETARG_UUID_P(1), &spoken->file);
	if (memcmp(&spoken->file.batch, PG_GETARG_UUID_P(0), UUID_LEN) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the file is of another batch"),
				 errdetail("It is of batch %s.",
						   bdd_uuid_text(&spoken->file.batch))));
	bdd_batch_read(&spoken->file.batch, &spoken->batch);
	if (read_buffered(spoken->target, &spoken->file.id, spoken->file.version, &buffered))
		spoken->file.status = buffered;
	if (!PG_ARGISNULL(version_argument))
		return PG_GETARG_INT32(version_argument) == spoken->file.version;
	if (spoken->file.version > 1 && spoken->file.status == FILE_PENDING)
		report_delivered_again(&spoken->file);
	return true;
}

static void
check_batch_goes_on(const BddBatch *batch)
{
	if (bdd_batch_has_ended(batch))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is %s", batch->name, batch->status)));
}

static void
give(BddValues *row, int column, Datum value, bool isnull)
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
push_status(BddSpoken *spoken, BddFileStatus status, Datum result,
			bool no_result, Datum error, bool no_error)
{
	BddValues row;
	Oid role;
	int security;

	bdd_values_init(spoken->target, &row);
	row.no_defaults = true;
	give(&row, FILE_ID, UUIDPGetDatum(&spoken->file.id), false);
	give(&row, FILE_VERSION, Int32GetDatum(spoken->file.version), false);
	give(&row, FILE_STATUS, CStringGetTextDatum(status_names[status]), false);
	give(&row, FILE_RESULT, result, no_result);
	give(&row, FILE_ERROR, error, no_error);
	give(&row, FILE_COMPLETED_AT, TimestampTzGetDatum(GetCurrentTimestamp()), false);
	GetUserIdAndSecContext(&role, &security);
	SetUserIdAndSecContext(spoken->target->owner, security | SECURITY_LOCAL_USERID_CHANGE);
	bdd_push_values(spoken->target, &row);
	SetUserIdAndSecContext(role, security);
	bdd_barrier_note(spoken->target->relid, &spoken->batch.id, 1, open_files_of(&spoken->batch));
}

/*
 * complete_file(batch, file, result, version): the file is done; true: it was
 * not before
 */
Datum
bdd_complete_file(PG_FUNCTION_ARGS)
{
	BddSpoken spoken;
	bool is_new;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "file");
	bdd_check_preloaded();
	PreventCommandDuringRecovery("complete_file()");
	PreventCommandIfReadOnly("complete_file()");
	begin_looking();
	is_new = find_spoken(fcinfo, 3, &spoken) && spoken.file.status != FILE_DONE;
	if (is_new)
	{
		check_batch_goes_on(&spoken.batch);
		push_status(&spoken, FILE_DONE, PG_GETARG_DATUM(2), PG_ARGISNULL(2), (Datum) 0, true);
	}
	PopActiveSnapshot();
	PG_RETURN_BOOL(is_new);
}

/*
 * The file goes back to those that wait, for a while that doubles with each
 * attempt.
 */
static bool
release_file(const BddFile *file, Datum error)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.file SET status = 'pending', error = $4, "
		"lease_until = pg_catalog.clock_timestamp() + $3 * interval '1 ms' "
		/* Somebody may be claiming it just now: then it is his. */
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
	BddSpoken spoken;
	bool is_new;

	for (int i = 0; i < 4; i++)
		bdd_check_argument(fcinfo, i, ((const char *[]){"batch", "file", "error", "retry"})[i]);
	bdd_check_preloaded();
	PreventCommandDuringRecovery("fail_file()");
	PreventCommandIfReadOnly("fail_file()");
	begin_looking();
	is_new = find_spoken(fcinfo, 4, &spoken) && spoken.file.status < FILE_DONE;
	if (is_new && !PG_ARGISNULL(5))
		is_new = spoken.file.claimed_by != NULL &&
				 strcmp(spoken.file.claimed_by, text_to_cstring(PG_GETARG_TEXT_PP(5))) == 0;
	if (is_new)
	{
		check_batch_goes_on(&spoken.batch);
		if (PG_GETARG_BOOL(3) && spoken.file.attempts < spoken.batch.max_attempts)
			is_new = release_file(&spoken.file, PG_GETARG_DATUM(2));
		else
			push_status(&spoken, FILE_FAILED, (Datum) 0, true, PG_GETARG_DATUM(2), false);
	}
	PopActiveSnapshot();
	PG_RETURN_BOOL(is_new);
}

/* ---------- retry_files ---------- */

/* What others have said of files before, so that it does not come after us. */
static void
flush_files(void)
{
	BddTarget *target = open_files(AccessShareLock);
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

/* ---------- reconcile_files ---------- */

/*
 * reconcile_files(batch, listing): what the object store has and the batch does
 * not know ("no row"), and the other way round ("not stored")
 */
Datum
bdd_reconcile_files(PG_FUNCTION_ARGS)
{
	static BddKeptPlan select = {
		"SELECT filename, problem FROM ("
		"SELECT l.name AS filename, 'no row' AS problem FROM pg_catalog.unnest($2) AS l (name) "
		"WHERE l.name IS NOT NULL EXCEPT SELECT filename, 'no row' FROM batchdedup.file WHERE batch_id = $1 "
		"UNION ALL (SELECT filename, 'not stored' FROM batchdedup.file WHERE batch_id = $1 "
		"EXCEPT SELECT l.name, 'not stored' FROM pg_catalog.unnest($2) AS l (name))) d ORDER BY 1",
		2,
		{UUIDOID, TEXTARRAYOID}};
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	BddSavedRole saved;
	BddBatch batch;
	Datum values[2];

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "listing");
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	InitMaterializedSRF(fcinfo, 0);
	bdd_check_preloaded();
	bdd_own_begin(&saved);
	bdd_batch_read(PG_GETARG_UUID_P(0), &batch);
	(void) bdd_plan_run(&select, values, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
		tuplestore_puttuple(result->setResult, SPI_tuptable->vals[i]);
	bdd_own_end(&saved);
	return (Datum) 0;
}
