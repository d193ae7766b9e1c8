/*-------------------------------------------------------------------------
 *
 * poll.c
 *		poll_events: the next events of a consumer.
 *
 * A poll takes one shard that waits longest, and gives the next events of its
 * batch; where the batch is over it begins the next one.  Letters that are
 * retried are given before anything else, by themselves.
 *
 *-------------------------------------------------------------------------
 */
#include "event/shard.h"

#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "nodes/pg_list.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_poll_events);

/* A poll does not return more, whatever it is asked for: they are in memory. */
#define MAX_POLLED 10000

/* A batch of no more events is found by xid, and sorted for each poll. */
#define SMALL_BATCH 1000

typedef struct BddPoll
{
	BddPoller instance;
	int64 max_events;
	Datum lease;
	ReturnSetInfo *result;
} BddPoll;

/* More than MAX_POLLED events may be asked for, but are not given. */
static BddPoll
poll_arguments(FunctionCallInfo fcinfo)
{
	Interval *nothing = palloc0(sizeof(Interval));
	BddPoll poll = {.instance = bdd_poller_argument(fcinfo, 2, 3),
					.result = (ReturnSetInfo *) fcinfo->resultinfo};

	bdd_check_argument(fcinfo, 0, "consumer");
	bdd_check_argument(fcinfo, 1, "max_events");
	bdd_check_argument(fcinfo, 4, "lease");
	bdd_check_between(PG_GETARG_INT32(1), PG_INT32_MAX, "max_events");
	poll.max_events = Min(PG_GETARG_INT32(1), MAX_POLLED);
	poll.lease = PG_GETARG_DATUM(4);
	if (!DatumGetBool(DirectFunctionCall2(interval_gt, poll.lease,
										  IntervalPGetDatum(nothing))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lease must be positive")));
	return poll;
}

/*
 * The shards that the instance may have and that may have something for it:
 * its own first, then those that were looked at longest ago.  Nothing is locked
 * yet; and where nothing has happened nothing is written either.
 *
 * ORDER BY ... LIMIT 1 rather than EXISTS: the planner, which does not know that
 * there will be none, would read the table from its beginning.
 */
static List *
shards_with_news(const BddConsumer *consumer, const BddPoller *instance)
{
	static BddKeptPlan find = {
		"SELECT s.shard FROM batchdedup.consumer_shard s "
		"WHERE s.consumer = $1 AND ($2 < 0 OR s.shard = $2) AND " BDD_SHARD_MAY_HAVE
		"AND (s.restored OR s.until IS NOT NULL "
		"OR (SELECT e.xid FROM batchdedup.event e ORDER BY e.xid DESC LIMIT 1) >= pg_snapshot_xmax(s.done) "
		"OR EXISTS (SELECT FROM pg_snapshot_xip(s.done) x CROSS JOIN LATERAL "
		" (SELECT FROM batchdedup.event e WHERE e.xid = x ORDER BY e.xid, e.id LIMIT 1) e) "
		"OR EXISTS (SELECT FROM batchdedup.event_dead_letter l "
		" WHERE l.consumer = s.consumer AND l.shard = s.shard AND l.attempts_left > 0)) "
		"ORDER BY s.holder = $3 DESC NULLS LAST, s.polled_at NULLS FIRST, s.shard",
		3,
		{TEXTOID, INT4OID, TEXTOID}};
	Datum values[] = {consumer->name, Int32GetDatum(instance->shard),
					  CStringGetTextDatum(instance->name)};
	uint64 count = bdd_plan_run(&find, values, NULL);
	List *shards = NIL;
	bool isnull;

	for (uint64 i = 0; i < count; i++)
		shards = lappend_int(shards,
							 DatumGetInt32(bdd_spi_value(i, 1, &isnull)));
	return shards;
}

/* Events that are neither of another shard or kind nor given up. */
#define WANTED                                                                             \
	"AND ($4 IS NULL OR e.kind = ANY ($4)) AND ($3 = 1 OR " BDD_EVENT_SHARD("$3") "= $2) " \
																				  "AND a.dead IS NOT TRUE ORDER BY e.id LIMIT $8"

#define POLLED                                                      \
	"SELECT e.id, e.at, e.batch_id, e.file_id, e.kind, e.payload, " \
	"e.idempotency_key, e.ordering_key, $2, coalesce(a.attempts, 0) FROM "

#define ATTEMPTS \
	"LEFT JOIN batchdedup.event_attempt a ON a.consumer = $1 AND a.event_id = e.id "

#define BATCH_ARGUMENTS                                                   \
	{                                                                     \
		TEXTOID, INT4OID, INT4OID, TEXTARRAYOID, INT8OID, PG_SNAPSHOTOID, \
			PG_SNAPSHOTOID, INT8OID                                       \
	}

/*
 * Puts the batch's next events into SPI's result.  The events of a small batch
 * are found by xid: the index on id may have any number of others between them.
 * In a large one they lie side by side there, and are not sorted for each poll.
 */
static uint64
next_of_batch(const BddShard *shard, int64 limit)
{
	static BddKeptPlan small = {
		"WITH batch AS MATERIALIZED ("
		"SELECT e.* FROM batchdedup.event e WHERE e.xid = ANY (ARRAY(SELECT pg_snapshot_xip($6))) "
		"UNION ALL SELECT e.* FROM batchdedup.event e "
		"WHERE e.xid >= pg_snapshot_xmax($6) AND e.xid < pg_snapshot_xmax($7)) " POLLED "batch e " ATTEMPTS
		"WHERE e.id > $5 AND pg_visible_in_snapshot(e.xid, $7) " WANTED,
		8,
		BATCH_ARGUMENTS};
	static BddKeptPlan large = {
		POLLED "batchdedup.event e " ATTEMPTS
			   "WHERE e.id > $5 AND NOT pg_visible_in_snapshot(e.xid, $6) "
			   "AND pg_visible_in_snapshot(e.xid, $7) " WANTED,
		8,
		BATCH_ARGUMENTS};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number),
					  Int32GetDatum(shard->consumer->shards),
					  shard->consumer->kinds, Int64GetDatum(shard->acked),
					  shard->done, shard->until, Int64GetDatum(limit)};

	return bdd_plan_run(shard->batch_events <= SMALL_BATCH ? &small : &large,
						values,
						shard->consumer->all_kinds ? "   n    " : NULL);
}

/* Letters that are retried. */
static uint64
next_letters(const BddShard *shard, int64 limit)
{
	static BddKeptPlan find = {
		"WITH next AS (UPDATE batchdedup.event_dead_letter l SET given = true FROM ("
		"SELECT event_id FROM batchdedup.event_dead_letter "
		"WHERE consumer = $1 AND shard = $2 AND attempts_left > 0 ORDER BY event_id LIMIT $3) n "
		"WHERE l.consumer = $1 AND l.event_id = n.event_id RETURNING l.*) "
		"SELECT event_id, at, batch_id, file_id, kind, payload, "
		"idempotency_key, ordering_key, shard, attempts FROM next ORDER BY event_id",
		3,
		{TEXTOID, INT4OID, INT8OID}};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number),
					  Int64GetDatum(limit)};

	return bdd_plan_run(&find, values, NULL);
}

/* The next batch, if there are events of whatever kind and shard in it. */
static void
begin_batch(BddShard *shard)
{
	static BddKeptPlan measure = {
		"SELECT count(*), min(e.id) FROM ("
		"SELECT id, xid FROM batchdedup.event WHERE xid = ANY (ARRAY(SELECT pg_snapshot_xip($1))) "
		"UNION ALL SELECT id, xid FROM batchdedup.event "
		"WHERE xid >= pg_snapshot_xmax($1) AND xid < pg_snapshot_xmax($2)) e "
		"WHERE pg_visible_in_snapshot(e.xid, $2)",
		2,
		{PG_SNAPSHOTOID, PG_SNAPSHOTOID}};
	Datum values[2];
	bool isnull;

	if (shard->in_batch)
		shard->done = shard->until;
	values[0] = shard->done;
	values[1] = shard->until = bdd_snapshot_now();
	(void) bdd_plan_run(&measure, values, NULL);
	shard->batch_events = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	shard->in_batch = shard->batch_events > 0;
	if (shard->in_batch)
		shard->acked = shard->given =
			DatumGetInt64(bdd_spi_value(0, 2, &isnull)) - 1;
}

/* Adds SPI's rows to the function's result. */
static void
return_events(const BddPoll *poll, uint64 count)
{
	for (uint64 i = 0; i < count; i++)
		tuplestore_puttuple(poll->result->setResult, SPI_tuptable->vals[i]);
}

/* Whether it had events of the batch for the instance. */
static bool
give_batch(const BddPoll *poll, BddShard *shard)
{
	uint64 count = next_of_batch(shard, poll->max_events);
	bool same = shard->holder != NULL &&
				strcmp(shard->holder, poll->instance.name) == 0;
	bool isnull;
	int64 last;

	if (count == 0)
		return false;
	return_events(poll, count);
	shard->acked = DatumGetInt64(bdd_spi_value(0, 1, &isnull)) - 1;
	last = DatumGetInt64(bdd_spi_value(count - 1, 1, &isnull));
	shard->given = same ? Max(shard->given, last) : last;
	bdd_shard_store(shard, poll->instance.name, poll->lease);
	return true;
}

/*
 * Whether there were letters to be tried again; if so, the instance holds the
 * shard.
 */
static bool
give_letters(const BddPoll *poll, BddShard *shard)
{
	uint64 count = next_letters(shard, poll->max_events);

	return_events(poll, count);
	if (count > 0)
		bdd_shard_store(shard, poll->instance.name, poll->lease);
	return count > 0;
}

/* Whether the shard had something for the instance. */
static bool
poll_shard(const BddPoll *poll, const BddConsumer *consumer, int number)
{
	BddShard shard = {.consumer = consumer, .number = number};
	bool was_in_batch;

	if (!bdd_shard_take(&shard, poll->instance.name))
		return false;
	if (shard.restored)
		bdd_shard_begin_restored(&shard);
	if (give_letters(poll, &shard) ||
		(shard.in_batch && give_batch(poll, &shard)))
		return true;
	was_in_batch = shard.in_batch || shard.restored;
	begin_batch(&shard);
	if (shard.in_batch)
	{
		if (give_batch(poll, &shard))
			return true;
		/* Nothing in it was for this consumer: past it. */
		shard.done = shard.until;
		shard.in_batch = false;
		was_in_batch = true;
	}
	shard.acked = shard.given = Max(shard.acked, shard.given);
	if (was_in_batch)
		bdd_shard_store(&shard, NULL, (Datum) 0);
	return false;
}

/* poll_events(consumer, max_events, shard, instance, lease) */
Datum
bdd_poll_events(PG_FUNCTION_ARGS)
{
	BddPoll poll = poll_arguments(fcinfo);
	BddConsumer consumer;
	BddSavedRole saved;
	List *shards;
	ListCell *cell;

	InitMaterializedSRF(fcinfo, 0);
	bdd_own_begin(&saved);
	consumer = bdd_consumer_find(PG_GETARG_DATUM(0), poll.instance.shard);
	shards = shards_with_news(&consumer, &poll.instance);
	foreach(cell, shards)
		if (poll_shard(&poll, &consumer, lfirst_int(cell)))
			break;
	bdd_own_end(&saved);
	return (Datum) 0;
}
