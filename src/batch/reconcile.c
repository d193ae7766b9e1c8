/*-------------------------------------------------------------------------
 *
 * reconcile.c
 *		What was changed by hand, or is over: reconcile_batches, reconcile_files,
 *		expire_batches.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/xact.h"
#include "base/loaded.h"
#include "batch/barrier.h"
#include "batch/batch.h"
#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "sql/spi.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_reconcile_batches);
PG_FUNCTION_INFO_V1(bdd_reconcile_files);
PG_FUNCTION_INFO_V1(bdd_expire_batches);

/* ---------- reconcile_batches ---------- */

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
	bdd_batch_settle_one(id);
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

/* ---------- expire_batches ---------- */

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
