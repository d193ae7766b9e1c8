/*-------------------------------------------------------------------------
 *
 * shard.c
 *		How far a consumer is: the row of one of its shards.
 *
 * Each shard of a consumer has a row that says how far it is: all events that
 * are visible in snapshot "done" are acknowledged.  While "until" is not null
 * there is a batch: the events that are visible in it and not in "done" (see
 * event.c), of these acknowledged up to id acked_id, and given to somebody up
 * to id given_id.  Where a batch ends the next one begins.
 *
 * An instance that is given events holds the shard until it has acknowledged
 * them or its lease is over.  Nobody holds a shard whose events are done with,
 * so instances need not agree on which takes which shard: each takes the one that
 * waits longest.
 *
 *-------------------------------------------------------------------------
 */
#include "event/shard.h"

#include "catalog/pg_type_d.h"
#include "sql/spi.h"
#include "utils/builtins.h"

#define SHARD_ROW                                                                           \
	"SELECT s.done, s.until, s.batch_events, s.acked_id, s.given_id, s.holder, s.restored " \
	"FROM batchdedup.consumer_shard s WHERE s.consumer = $1 AND s.shard = $2 "

/* Reads the one row that SPI has of SHARD_ROW.  The snapshots point to it. */
static void
read_shard(BddShard *shard)
{
	Datum holder;
	bool isnull;

	shard->done = bdd_spi_value(0, 1, &isnull);
	shard->until = bdd_spi_value(0, 2, &isnull);
	shard->in_batch = !isnull;
	shard->batch_events = DatumGetInt64(bdd_spi_value(0, 3, &isnull));
	shard->acked = DatumGetInt64(bdd_spi_value(0, 4, &isnull));
	shard->given = DatumGetInt64(bdd_spi_value(0, 5, &isnull));
	holder = bdd_spi_value(0, 6, &isnull);
	shard->holder = isnull ? NULL : TextDatumGetCString(holder);
	shard->restored = DatumGetBool(bdd_spi_value(0, 7, &isnull));
}

/* Locks and reads the shard without waiting; false: another instance has it. */
bool
bdd_shard_take(BddShard *shard, const char *instance)
{
	static BddKeptPlan take = {
		SHARD_ROW "AND " BDD_SHARD_MAY_HAVE "FOR NO KEY UPDATE SKIP LOCKED",
		3,
		{TEXTOID, INT4OID, TEXTOID}};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number),
					  CStringGetTextDatum(instance)};

	if (bdd_plan_run(&take, values, NULL) == 0)
		return false;
	read_shard(shard);
	return true;
}

/* Waits for the shard's row, and reads it. */
void
bdd_shard_lock(BddShard *shard)
{
	static BddKeptPlan lock = {
		SHARD_ROW "FOR NO KEY UPDATE", 2, {TEXTOID, INT4OID}};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number)};

	if (bdd_plan_run(&lock, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" does not exist",
						TextDatumGetCString(shard->consumer->name))));
	read_shard(shard);
}

/* Writes the shard; a holder of NULL: no instance has it. */
void
bdd_shard_store(const BddShard *shard, const char *holder, Datum lease)
{
	static BddKeptPlan store = {
		"UPDATE batchdedup.consumer_shard SET done = $3, until = $4, batch_events = $5, "
		"acked_id = $6, given_id = $7, holder = $8, lease = $9, "
		"lease_until = clock_timestamp() + $9, polled_at = clock_timestamp(), restored = false "
		"WHERE consumer = $1 AND shard = $2",
		9,
		{TEXTOID, INT4OID, PG_SNAPSHOTOID, PG_SNAPSHOTOID, INT8OID, INT8OID,
		 INT8OID, TEXTOID, INTERVALOID}};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number),
					  shard->done, shard->until,
					  Int64GetDatum(shard->batch_events),
					  Int64GetDatum(shard->acked), Int64GetDatum(shard->given),
					  holder == NULL ? (Datum) 0 : CStringGetTextDatum(holder),
					  lease};
	char nulls[] = "         ";

	nulls[3] = shard->in_batch ? ' ' : 'n';
	nulls[7] = nulls[8] = holder == NULL ? 'n' : ' ';
	(void) bdd_plan_run(&store, values, nulls);
}

/* A snapshot that a batch can end with, see BDD_SNAPSHOT_NOW. */
Datum
bdd_snapshot_now(void)
{
	static BddKeptPlan now = {"SELECT " BDD_SNAPSHOT_NOW, 0, {InvalidOid}};
	bool isnull;

	(void) bdd_plan_run(&now, NULL, NULL);
	return bdd_spi_value(0, 1, &isnull);
}

/*
 * The row comes from a dump: its snapshots, and the xids that events had
 * there, are of another server.  The batch is what was not acknowledged, and
 * all with a higher id.
 */
void
bdd_shard_begin_restored(BddShard *shard)
{
	static BddKeptPlan find = {
		"SELECT min(e.id), '1:1:'::pg_snapshot FROM batchdedup.event e "
		"WHERE e.dumped_xid IS NULL OR NOT (pg_visible_in_snapshot(e.dumped_xid, $1) "
		"OR (e.id <= $3 AND coalesce(pg_visible_in_snapshot(e.dumped_xid, $2), false)))",
		3,
		{PG_SNAPSHOTOID, PG_SNAPSHOTOID, INT8OID}};
	Datum values[] = {shard->done, shard->until, Int64GetDatum(shard->acked)};
	Datum now = bdd_snapshot_now();
	bool isnull;
	Datum first;

	(void) bdd_plan_run(&find, values, shard->in_batch ? NULL : " n ");
	first = bdd_spi_value(0, 1, &shard->in_batch);
	shard->in_batch = !shard->in_batch;
	if (!shard->in_batch)
	{
		shard->done = now;
		return;
	}
	shard->acked = shard->given = DatumGetInt64(first) - 1;
	shard->done = bdd_spi_value(0, 2, &isnull);
	shard->until = now;
	shard->batch_events = PG_INT64_MAX;
}
