/*-------------------------------------------------------------------------
 *
 * claim.c
 *		Claims: batches and files that are handed out to workers for a time.
 *
 * Claims of files look at table and buffer: once before a row is locked, so that
 * completed files are not locked and their apply is not held up, and once after,
 * since no apply can come behind a lock.  Batches are taken in random order, with
 * a share for each: a cursor that all claims move would be a hot row.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/uuid.h"
#include "batch/batch.h"
#include "batch/file.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "read/read.h"
#include "sql/spi.h"
#include "target/target.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_claim_batch);
PG_FUNCTION_INFO_V1(bdd_claim_files);
PG_FUNCTION_INFO_V1(bdd_renew_lease);

/* When a lease that begins now is over. */
static TimestampTz
lease_end(Interval *lease)
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
	values[3] = TimestampTzGetDatum(lease_end(PG_GETARG_INTERVAL_P(3)));
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

/* A copy in the current memory context. */
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
	BddTarget *target = bdd_files_open(AccessShareLock);
	bool isnull;

	claim->exhausted = palloc(Max(found, 1) * sizeof(Datum));
	claim->exhausted_count = 0;
	for (uint64 i = 0; i < found; i++)
	{
		Datum id = bdd_spi_value(i, 1, &isnull);
		BddFileStatus status = BDD_FILE_PENDING;

		if (bdd_file_read_buffered(target, DatumGetUUIDP(id),
								   DatumGetInt32(bdd_spi_value(i, 2, &isnull)),
								   &status, NULL) &&
			status >= BDD_FILE_DONE)
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
 * Marks what was found, and hands it out.  A transaction that has the batch's row
 * locked takes the batch to scattering itself, or the next claim does.
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

/* NULL: no batch was named. */
static void
check_batch_exists(const pg_uuid_t *id)
{
	BddBatch batch;

	if (id != NULL)
		bdd_batch_read(id, &batch);
}

/*
 * claim_files(worker, max_files, lease, batch): open files that nobody works
 * on, or whose worker has not been heard of until the end of its lease
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
	claim.until = lease_end(PG_GETARG_INTERVAL_P(2));
	if (claim.max < 1 || claim.max > 100000)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("number of files must be between 1 and 100000")));
	InitMaterializedSRF(fcinfo, 0);
	bdd_batch_begin(&saved, "claim_files()");
	bdd_read_wait_replayed(bdd_files_open(AccessShareLock));
	check_batch_exists(PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3));
	claim.ids = palloc(claim.max * sizeof(Datum));
	find_files(&claim, PG_ARGISNULL(3) ? NULL : PG_GETARG_UUID_P(3));
	lease_files(&claim, result->setResult);
	bdd_own_end(&saved);
	return (Datum) 0;
}

/*
 * renew_lease(file, worker, lease): the worker goes on; false: the file is not
 * the worker's any more
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
	values[2] = TimestampTzGetDatum(lease_end(PG_GETARG_INTERVAL_P(2)));
	bdd_batch_begin(&saved, "renew_lease()");
	renewed = bdd_plan_run(&update, values, NULL) > 0;
	bdd_own_end(&saved);
	PG_RETURN_BOOL(renewed);
}
