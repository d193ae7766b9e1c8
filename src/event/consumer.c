/*-------------------------------------------------------------------------
 *
 * consumer.c
 *		Consumers of events: create_consumer, poll_events, ack_events,
 *		nack_event, and what they have given up.
 *
 * Each shard of a consumer has a row that says how far it is: all events that
 * are visible in snapshot "done" are acknowledged.  While "until" is not null
 * there is a batch: the events that are visible in it and not in "done" (see
 * event.c), of these acknowledged up to id acked_id, and given to somebody up
 * to id given_id.  Where a batch ends the next one begins.
 *
 * Whoever is given events holds the shard until he has acknowledged them or his
 * lease is over.  Nobody holds what he has done with, so instances need not
 * agree on who takes which shard: each takes what waits longest.
 *
 * An acknowledgement names an event, and counts by that event's place: an event
 * of an earlier batch says nothing of this one, whose ids may be lower.
 *
 * Dead letters are copies.  Those that are retried are given before anything
 * else, by themselves, and acknowledged like others.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/htup_details.h"
#include "catalog/pg_type_d.h"
#include "event/event.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_create_consumer);
PG_FUNCTION_INFO_V1(bdd_drop_consumer);
PG_FUNCTION_INFO_V1(bdd_poll_events);
PG_FUNCTION_INFO_V1(bdd_ack_events);
PG_FUNCTION_INFO_V1(bdd_nack_event);
PG_FUNCTION_INFO_V1(bdd_retry_event_dead_letters);
PG_FUNCTION_INFO_V1(bdd_discard_event_dead_letters);
PG_FUNCTION_INFO_V1(bdd_accept_lost_events);

#define MAX_SHARDS 1000

/* A poll does not return more, whatever it is asked for: they are in memory. */
#define MAX_POLLED 10000

/* A batch of no more events is found by xid, and sorted for each poll. */
#define SMALL_BATCH 1000

typedef struct BddConsumer
{
	Datum name;
	Datum kinds;
	bool all_kinds;
	int shards;
	int max_attempts;
} BddConsumer;

/* A row of consumer_shard that is locked. */
typedef struct BddShard
{
	const BddConsumer *consumer;
	int number;
	Datum done;
	Datum until;
	bool in_batch;
	int64 batch_events;
	int64 acked;
	int64 given;
	char *holder; /* or NULL */
	bool restored;
} BddShard;

/* Who asks. */
typedef struct BddInstance
{
	char *name; /* "": one that did not say */
	int shard;  /* -1: any */
} BddInstance;

/* ---------- arguments ---------- */

static void
check_not_empty(const char *value, const char *what)
{
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
}

static BddInstance
instance_argument(FunctionCallInfo fcinfo, int shard, int name)
{
	BddInstance instance = {"", -1};

	if (!PG_ARGISNULL(shard))
	{
		instance.shard = PG_GETARG_INT32(shard);
		if (instance.shard < 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("shard must not be negative")));
	}
	if (!PG_ARGISNULL(name))
		instance.name = text_to_cstring(PG_GETARG_TEXT_PP(name));
	return instance;
}

static BddConsumer
find_consumer(Datum name, int shard)
{
	static BddKeptPlan find = {
		"SELECT kinds, shards, max_attempts FROM batchdedup.consumer_row WHERE name = $1",
		1,
		{TEXTOID}};
	BddConsumer consumer = {.name = name};
	bool isnull;

	if (bdd_plan_run(&find, &name, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("consumer \"%s\" does not exist",
						TextDatumGetCString(name)),
				 errhint("Create it with batchdedup.create_consumer.")));
	consumer.kinds = bdd_spi_value(0, 1, &consumer.all_kinds);
	consumer.shards = DatumGetInt32(bdd_spi_value(0, 2, &isnull));
	consumer.max_attempts = DatumGetInt32(bdd_spi_value(0, 3, &isnull));
	if (shard >= consumer.shards)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("consumer \"%s\" has no shard %d",
						TextDatumGetCString(name), shard),
				 errdetail("Its shards are 0 to %d.", consumer.shards - 1)));
	return consumer;
}

/* ---------- create_consumer, drop_consumer ---------- */

enum
{
	ARG_NAME,
	ARG_START,
	ARG_KINDS,
	ARG_SHARDS,
	ARG_MAX_ATTEMPTS,
	CREATE_ARGS
};

static void
check_start(const char *start)
{
	if (strcmp(start, "oldest") != 0 && strcmp(start, "newest") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("start cannot be \"%s\"", start),
				 errhint("Its values are: oldest, newest.")));
}

static void
check_kinds(ArrayType *kinds)
{
	if (array_contains_nulls(kinds))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("kinds must not contain null")));
	if (ArrayGetNItems(ARR_NDIM(kinds), ARR_DIMS(kinds)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("kinds must not be empty"),
				 errhint("Use NULL for events of all kinds.")));
}

static void
check_number(int value, int most, const char *what)
{
	if (value < 1 || value > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 1 and %d", what, most)));
}

static void
check_consumer_arguments(FunctionCallInfo fcinfo)
{
	static const char *const names[] = {"name", "start", NULL, "shards",
										"max_attempts"};

	for (int i = 0; i < CREATE_ARGS; i++)
		if (names[i] != NULL)
			bdd_check_argument(fcinfo, i, names[i]);
	check_not_empty(text_to_cstring(PG_GETARG_TEXT_PP(ARG_NAME)), "name");
	check_start(text_to_cstring(PG_GETARG_TEXT_PP(ARG_START)));
	if (!PG_ARGISNULL(ARG_KINDS))
		check_kinds(PG_GETARG_ARRAYTYPE_P(ARG_KINDS));
	check_number(PG_GETARG_INT32(ARG_SHARDS), MAX_SHARDS, "shards");
	check_number(PG_GETARG_INT32(ARG_MAX_ATTEMPTS), PG_INT32_MAX,
				 "max_attempts");
}

/* SQL: the kinds $3, as they are stored. */
#define SORTED_KINDS                 \
	"CASE WHEN $3 IS NOT NULL THEN " \
	"ARRAY(SELECT DISTINCT k COLLATE \"C\" FROM unnest($3) AS k ORDER BY 1) END "

static bool
insert_consumer(Datum *values, const char *nulls)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.consumer_row (name, start, kinds, shards, max_attempts) "
		"VALUES ($1, $2, " SORTED_KINDS ", $4, $5) ON CONFLICT (name) DO NOTHING",
		5,
		{TEXTOID, TEXTOID, TEXTARRAYOID, INT4OID, INT4OID}};
	static BddKeptPlan shards = {
		"INSERT INTO batchdedup.consumer_shard (consumer, shard) "
		"SELECT $1, s FROM generate_series(0, $2 - 1) AS s",
		2,
		{TEXTOID, INT4OID}};
	static BddKeptPlan begin = {
		"UPDATE batchdedup.consumer_shard s SET restored = false, "
		"done = CASE WHEN $2 = 'newest' THEN n.now ELSE s.done END "
		"FROM (SELECT " BDD_SNAPSHOT_NOW " AS now) n WHERE s.consumer = $1",
		2,
		{TEXTOID, TEXTOID}};
	Datum rows[] = {values[ARG_NAME], values[ARG_SHARDS]};

	if (bdd_plan_run(&insert, values, nulls) == 0)
		return false;
	(void) bdd_plan_run(&shards, rows, NULL);
	(void) bdd_plan_run(&begin, values, NULL);
	return true;
}

/* Returns whether there is one of that name, which must be the same then. */
static bool
same_consumer(Datum *values, const char *nulls)
{
	static BddKeptPlan find = {
		"SELECT start = $2 AND kinds IS NOT DISTINCT FROM " SORTED_KINDS
		"AND shards = $4 AND max_attempts = $5 FROM batchdedup.consumer_row WHERE name = $1",
		5,
		{TEXTOID, TEXTOID, TEXTARRAYOID, INT4OID, INT4OID}};
	bool isnull;

	if (bdd_plan_run(&find, values, nulls) == 0)
		return false;
	if (!DatumGetBool(bdd_spi_value(0, 1, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("consumer \"%s\" already exists with other options",
						TextDatumGetCString(values[ARG_NAME])),
				 errhint("See batchdedup.consumer, and drop_consumer.")));
	return true;
}

/*
 * create_consumer(name, start, kinds, shards, max_attempts)
 */
Datum
bdd_create_consumer(PG_FUNCTION_ARGS)
{
	Datum values[CREATE_ARGS];
	char nulls[CREATE_ARGS];
	BddSavedRole saved;

	check_consumer_arguments(fcinfo);
	for (int i = 0; i < CREATE_ARGS; i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	bdd_own_begin(&saved);
	/* Between the two, the one that is there may be dropped. */
	while (!insert_consumer(values, nulls) && !same_consumer(values, nulls))
		CHECK_FOR_INTERRUPTS();
	bdd_own_end(&saved);
	PG_RETURN_VOID();
}

/* drop_consumer(name, if_exists) */
Datum
bdd_drop_consumer(PG_FUNCTION_ARGS)
{
	/* In the order of those who poll: they lock the shard, then the consumer. */
	static BddKeptPlan lock = {
		"SELECT FROM batchdedup.consumer_shard WHERE consumer = $1 ORDER BY shard FOR UPDATE",
		1,
		{TEXTOID}};
	static BddKeptPlan drop = {
		"DELETE FROM batchdedup.consumer_row WHERE name = $1", 1, {TEXTOID}};
	BddSavedRole saved;
	Datum name;

	bdd_check_argument(fcinfo, 0, "name");
	bdd_check_argument(fcinfo, 1, "if_exists");
	name = PG_GETARG_DATUM(0);
	bdd_own_begin(&saved);
	(void) bdd_plan_run(&lock, &name, NULL);
	if (bdd_plan_run(&drop, &name, NULL) == 0 && !PG_GETARG_BOOL(1))
		(void) find_consumer(name, -1);
	bdd_own_end(&saved);
	PG_RETURN_VOID();
}

/* ---------- where a shard is ---------- */

/* SQL: the shard may be had by instance $3. */
#define MAY_HAVE \
	"(s.holder IS NULL OR s.holder = $3 OR s.lease_until <= clock_timestamp()) "

#define SHARD_ROW                                                                           \
	"SELECT s.done, s.until, s.batch_events, s.acked_id, s.given_id, s.holder, s.restored " \
	"FROM batchdedup.consumer_shard s WHERE s.consumer = $1 AND s.shard = $2 "

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

/* Waits for nobody; false: another one has it now. */
static bool
take_shard(BddShard *shard, const char *instance)
{
	static BddKeptPlan take = {
		SHARD_ROW "AND " MAY_HAVE "FOR NO KEY UPDATE SKIP LOCKED",
		3,
		{TEXTOID, INT4OID, TEXTOID}};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number),
					  CStringGetTextDatum(instance)};

	if (bdd_plan_run(&take, values, NULL) == 0)
		return false;
	read_shard(shard);
	return true;
}

static void
wait_for_shard(BddShard *shard)
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

/* A lease of NULL: nobody has it. */
static void
store_shard(const BddShard *shard, const char *holder, Datum lease)
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

static Datum
snapshot_now(void)
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
static void
begin_restored(BddShard *shard)
{
	static BddKeptPlan find = {
		"SELECT min(e.id), '1:1:'::pg_snapshot FROM batchdedup.event e "
		"WHERE e.dumped_xid IS NULL OR NOT (pg_visible_in_snapshot(e.dumped_xid, $1) "
		"OR (e.id <= $3 AND coalesce(pg_visible_in_snapshot(e.dumped_xid, $2), false)))",
		3,
		{PG_SNAPSHOTOID, PG_SNAPSHOTOID, INT8OID}};
	Datum values[] = {shard->done, shard->until, Int64GetDatum(shard->acked)};
	Datum now = snapshot_now();
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

/* ---------- poll_events ---------- */

typedef struct BddPoll
{
	BddInstance instance;
	int64 max_events;
	Datum lease;
	ReturnSetInfo *result;
} BddPoll;

static BddPoll
poll_arguments(FunctionCallInfo fcinfo)
{
	Interval *nothing = palloc0(sizeof(Interval));
	BddPoll poll = {.instance = instance_argument(fcinfo, 2, 3),
					.result = (ReturnSetInfo *) fcinfo->resultinfo};

	bdd_check_argument(fcinfo, 0, "consumer");
	bdd_check_argument(fcinfo, 1, "max_events");
	bdd_check_argument(fcinfo, 4, "lease");
	check_number(PG_GETARG_INT32(1), PG_INT32_MAX, "max_events");
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
shards_with_news(const BddConsumer *consumer, const BddInstance *instance)
{
	static BddKeptPlan find = {
		"SELECT s.shard FROM batchdedup.consumer_shard s "
		"WHERE s.consumer = $1 AND ($2 < 0 OR s.shard = $2) AND " MAY_HAVE
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
	values[1] = shard->until = snapshot_now();
	(void) bdd_plan_run(&measure, values, NULL);
	shard->batch_events = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	shard->in_batch = shard->batch_events > 0;
	if (shard->in_batch)
		shard->acked = shard->given =
			DatumGetInt64(bdd_spi_value(0, 2, &isnull)) - 1;
}

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
	store_shard(shard, poll->instance.name, poll->lease);
	return true;
}

static bool
give_letters(const BddPoll *poll, BddShard *shard)
{
	uint64 count = next_letters(shard, poll->max_events);

	return_events(poll, count);
	if (count > 0)
		store_shard(shard, poll->instance.name, poll->lease);
	return count > 0;
}

/* Whether the shard had something for the instance. */
static bool
poll_shard(const BddPoll *poll, const BddConsumer *consumer, int number)
{
	BddShard shard = {.consumer = consumer, .number = number};
	bool was_in_batch;

	if (!take_shard(&shard, poll->instance.name))
		return false;
	if (shard.restored)
		begin_restored(&shard);
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
		store_shard(&shard, NULL, (Datum) 0);
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
	consumer = find_consumer(PG_GETARG_DATUM(0), poll.instance.shard);
	shards = shards_with_news(&consumer, &poll.instance);
	foreach(cell, shards)
		if (poll_shard(&poll, &consumer, lfirst_int(cell)))
			break;
	bdd_own_end(&saved);
	return (Datum) 0;
}

/* ---------- ack_events, nack_event ---------- */

typedef enum BddPlace
{
	BDD_NOT_GIVEN,
	BDD_GIVEN,
	BDD_PASSED,
	BDD_LETTER, /* one that was given again */
	BDD_DEAD    /* one that is not to be given */
} BddPlace;

/* Which shard the event belongs to. */
static int
shard_of(const BddConsumer *consumer, int64 id, int wanted)
{
	static BddKeptPlan find = {
		"SELECT " BDD_EVENT_SHARD("$2") "FROM batchdedup.event e WHERE e.id = $1 "
										"UNION ALL SELECT shard FROM batchdedup.event_dead_letter WHERE consumer = $3 AND event_id = $1",
		3,
		{INT8OID, INT4OID, TEXTOID}};
	Datum values[] = {Int64GetDatum(id), Int32GetDatum(consumer->shards),
					  consumer->name};
	bool isnull;
	int shard;

	if (bdd_plan_run(&find, values, NULL) == 0)
	{
		if (wanted < 0 && consumer->shards > 1)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("event %lld does not exist", (long long) id)));
		return Max(wanted, 0);
	}
	shard = DatumGetInt32(bdd_spi_value(0, 1, &isnull));
	if (wanted >= 0 && wanted != shard)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event %lld is not in shard %d but in shard %d",
						(long long) id, wanted, shard)));
	return shard;
}

/* BDD_PASSED: there is no letter of it. */
static BddPlace
letter_place(const BddShard *shard, int64 id)
{
	static BddKeptPlan find = {
		"SELECT given, attempts_left > 0 FROM batchdedup.event_dead_letter "
		"WHERE consumer = $1 AND event_id = $2",
		2,
		{TEXTOID, INT8OID}};
	Datum values[] = {shard->consumer->name, Int64GetDatum(id)};
	bool isnull;

	if (bdd_plan_run(&find, values, NULL) == 0)
		return BDD_PASSED;
	if (DatumGetBool(bdd_spi_value(0, 1, &isnull)))
		return BDD_LETTER;
	return DatumGetBool(bdd_spi_value(0, 2, &isnull)) ? BDD_NOT_GIVEN : BDD_DEAD;
}

/*
 * Where the event is in the shard.  One that is no longer there has expired,
 * or there was never one: then only the batch's ids can say it.
 */
static BddPlace
event_place(const BddShard *shard, int64 id)
{
	static BddKeptPlan find = {
		"SELECT pg_visible_in_snapshot(xid, $2), coalesce(pg_visible_in_snapshot(xid, $3), false) "
		"FROM batchdedup.event WHERE id = $1",
		3,
		{INT8OID, PG_SNAPSHOTOID, PG_SNAPSHOTOID}};
	Datum values[] = {Int64GetDatum(id), shard->done, shard->until};
	bool in_batch = shard->in_batch;
	bool isnull;

	if (shard->restored)
		return BDD_NOT_GIVEN;
	if (bdd_plan_run(&find, values, shard->in_batch ? NULL : "  n") > 0)
	{
		if (DatumGetBool(bdd_spi_value(0, 1, &isnull)))
			return BDD_PASSED;
		in_batch = DatumGetBool(bdd_spi_value(0, 2, &isnull));
	}
	else if (id <= shard->acked)
		return BDD_PASSED;
	if (!in_batch || id > shard->given)
		return BDD_NOT_GIVEN;
	return id <= shard->acked ? BDD_PASSED : BDD_GIVEN;
}

static void
check_holder(const BddShard *shard, const char *instance)
{
	if (shard->holder != NULL && strcmp(shard->holder, instance) == 0)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("instance \"%s\" does not hold shard %d of consumer \"%s\"",
					instance, shard->number,
					TextDatumGetCString(shard->consumer->name)),
			 shard->holder == NULL ? 0 : errdetail("Instance \"%s\" holds it.", shard->holder),
			 errhint("Name the instance that has polled. If it was that one, its lease was over: what was polled is given to others; poll again.")));
}

static void
check_given(const BddShard *shard, int64 id, const char *instance,
			BddPlace place)
{
	/* If nobody has the shard it may be that the caller had it for too long. */
	if (place == BDD_NOT_GIVEN &&
		(shard->holder == NULL || strcmp(shard->holder, instance) == 0))
		ereport(ERROR,
				(errcode(shard->holder == NULL ? ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE :
												 ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("event %lld has not been given to consumer \"%s\"",
						(long long) id,
						TextDatumGetCString(shard->consumer->name)),
				 errhint("Acknowledge events that poll_events has returned, in a transaction that is committed.")));
	check_holder(shard, instance);
}

/* Locks the shard; BDD_GIVEN and BDD_LETTER: the instance may say what it likes. */
static BddPlace
find_given(const BddConsumer *consumer, int64 id, const BddInstance *instance,
		   BddShard *shard)
{
	BddPlace place;

	shard->consumer = consumer;
	shard->number = shard_of(consumer, id, instance->shard);
	wait_for_shard(shard);
	place = letter_place(shard, id);
	if (place == BDD_PASSED || place == BDD_DEAD)
	{
		BddPlace batch = event_place(shard, id);

		if (batch != BDD_PASSED || place == BDD_PASSED)
			place = batch;
	}
	if (place != BDD_PASSED && place != BDD_DEAD)
		check_given(shard, id, instance->name, place);
	return place;
}

/* The shard is free when nothing is left of what was given. */
static void
store_acked(const BddShard *shard)
{
	static BddKeptPlan store = {
		"UPDATE batchdedup.consumer_shard s SET acked_id = $3, "
		"holder = CASE WHEN n.left THEN s.holder END, "
		"lease_until = CASE WHEN n.left THEN clock_timestamp() + s.lease END "
		"FROM (SELECT $3 < $4 OR EXISTS (SELECT FROM batchdedup.event_dead_letter "
		"WHERE consumer = $1 AND shard = $2 AND given) AS left) n "
		"WHERE s.consumer = $1 AND s.shard = $2",
		4,
		{TEXTOID, INT4OID, INT8OID, INT8OID}};
	static BddKeptPlan forget = {
		"DELETE FROM batchdedup.event_attempt WHERE consumer = $1 AND shard = $2 AND event_id <= $3",
		3,
		{TEXTOID, INT4OID, INT8OID}};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number),
					  Int64GetDatum(shard->acked), Int64GetDatum(shard->given)};

	(void) bdd_plan_run(&store, values, NULL);
	(void) bdd_plan_run(&forget, values, NULL);
}

static void
delete_letters(const BddShard *shard, int64 up_to)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.event_dead_letter "
		"WHERE consumer = $1 AND shard = $2 AND event_id <= $3 AND given",
		3,
		{TEXTOID, INT4OID, INT8OID}};
	Datum values[] = {shard->consumer->name, Int32GetDatum(shard->number),
					  Int64GetDatum(up_to)};

	(void) bdd_plan_run(&delete, values, NULL);
}

/* ack_events(consumer, up_to, shard, instance): false: it was already. */
Datum
bdd_ack_events(PG_FUNCTION_ARGS)
{
	BddInstance instance = instance_argument(fcinfo, 2, 3);
	BddShard shard = {0};
	BddConsumer consumer;
	BddSavedRole saved;
	BddPlace place;
	int64 id;

	bdd_check_argument(fcinfo, 0, "consumer");
	bdd_check_argument(fcinfo, 1, "up_to");
	id = PG_GETARG_INT64(1);
	bdd_own_begin(&saved);
	consumer = find_consumer(PG_GETARG_DATUM(0), instance.shard);
	place = find_given(&consumer, id, &instance, &shard);
	if (place == BDD_LETTER)
		delete_letters(&shard, id);
	else if (place == BDD_GIVEN)
		shard.acked = id;
	if (place == BDD_LETTER || place == BDD_GIVEN)
		store_acked(&shard);
	bdd_own_end(&saved);
	PG_RETURN_BOOL(place == BDD_LETTER || place == BDD_GIVEN);
}

/* Another attempt; returns whether it was the last. */
static bool
count_attempt(const BddShard *shard, int64 id, Datum error)
{
	static BddKeptPlan count = {
		"INSERT INTO batchdedup.event_attempt AS a (consumer, event_id, shard, attempts, error, dead) "
		"VALUES ($1, $2, $3, 1, $4, $5 <= 1) ON CONFLICT (consumer, event_id) DO UPDATE "
		"SET attempts = a.attempts + 1, error = $4, dead = a.attempts + 1 >= $5 "
		"WHERE NOT a.dead RETURNING dead",
		5,
		{TEXTOID, INT8OID, INT4OID, TEXTOID, INT4OID}};
	static BddKeptPlan copy = {
		"INSERT INTO batchdedup.event_dead_letter (consumer, event_id, shard, at, batch_id, file_id, "
		"kind, payload, idempotency_key, ordering_key, attempts, error) "
		"SELECT a.consumer, e.id, a.shard, e.at, e.batch_id, e.file_id, "
		"e.kind, e.payload, e.idempotency_key, e.ordering_key, a.attempts, a.error "
		"FROM batchdedup.event e JOIN batchdedup.event_attempt a ON a.consumer = $1 AND a.event_id = e.id "
		"WHERE e.id = $2 ON CONFLICT DO NOTHING",
		2,
		{TEXTOID, INT8OID}};
	Datum values[] = {shard->consumer->name, Int64GetDatum(id),
					  Int32GetDatum(shard->number), error,
					  Int32GetDatum(shard->consumer->max_attempts)};
	bool isnull;
	bool dead;

	if (bdd_plan_run(&count, values, NULL) == 0)
		return true; /* it was before */
	dead = DatumGetBool(bdd_spi_value(0, 1, &isnull));
	if (dead)
		(void) bdd_plan_run(&copy, values, NULL);
	return dead;
}

/* The same for a letter that was given again. */
static bool
count_letter_attempt(const BddShard *shard, int64 id, Datum error)
{
	static BddKeptPlan count = {
		"UPDATE batchdedup.event_dead_letter SET attempts = attempts + 1, "
		"attempts_left = attempts_left - 1, given = false, error = $3, failed_at = clock_timestamp() "
		"WHERE consumer = $1 AND event_id = $2 RETURNING attempts_left = 0",
		3,
		{TEXTOID, INT8OID, TEXTOID}};
	Datum values[] = {shard->consumer->name, Int64GetDatum(id), error};
	bool isnull;

	(void) bdd_plan_run(&count, values, NULL);
	return DatumGetBool(bdd_spi_value(0, 1, &isnull));
}

static bool
nack(const BddShard *shard, int64 id, Datum error, BddPlace place)
{
	switch (place)
	{
		case BDD_GIVEN:
			return count_attempt(shard, id, error);
		case BDD_LETTER:
			return count_letter_attempt(shard, id, error);
		case BDD_DEAD:
			return true;
		case BDD_PASSED:
		case BDD_NOT_GIVEN:
			break;
	}
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("event %lld has been acknowledged by consumer \"%s\"",
					(long long) id,
					TextDatumGetCString(shard->consumer->name))));
	return false; /* keep the compiler quiet */
}

/* nack_event(consumer, id, error, shard, instance): true: it is dead. */
Datum
bdd_nack_event(PG_FUNCTION_ARGS)
{
	BddInstance instance = instance_argument(fcinfo, 3, 4);
	BddShard shard = {0};
	BddConsumer consumer;
	BddSavedRole saved;
	BddPlace place;
	bool dead;

	bdd_check_argument(fcinfo, 0, "consumer");
	bdd_check_argument(fcinfo, 1, "id");
	bdd_check_argument(fcinfo, 2, "error");
	bdd_own_begin(&saved);
	consumer = find_consumer(PG_GETARG_DATUM(0), instance.shard);
	place = find_given(&consumer, PG_GETARG_INT64(1), &instance, &shard);
	dead = nack(&shard, PG_GETARG_INT64(1), PG_GETARG_DATUM(2), place);
	bdd_own_end(&saved);
	PG_RETURN_BOOL(dead);
}

/* ---------- what was given up, and lost ---------- */

/* Runs a statement on the letters of consumer $1 with id $2, or all. */
static uint64
run_on_letters(FunctionCallInfo fcinfo, BddKeptPlan *plan)
{
	BddSavedRole saved;
	Datum values[2];
	uint64 count;

	bdd_check_argument(fcinfo, 0, "consumer");
	values[0] = PG_GETARG_DATUM(0);
	values[1] = PG_GETARG_DATUM(1);
	bdd_own_begin(&saved);
	(void) find_consumer(values[0], -1);
	count = bdd_plan_run(plan, values, PG_ARGISNULL(1) ? " n" : NULL);
	bdd_own_end(&saved);
	return count;
}

/* retry_event_dead_letters(consumer, id) */
Datum
bdd_retry_event_dead_letters(PG_FUNCTION_ARGS)
{
	static BddKeptPlan retry = {
		"WITH again AS (UPDATE batchdedup.event_dead_letter l "
		"SET attempts_left = c.max_attempts, given = false FROM batchdedup.consumer_row c "
		"WHERE c.name = $1 AND l.consumer = $1 AND ($2 IS NULL OR l.event_id = $2) "
		"AND l.attempts_left = 0 RETURNING l.event_id) "
		"SELECT pg_notify('batchdedup_event', '') FROM again",
		2,
		{TEXTOID, INT8OID}};

	PG_RETURN_INT64(run_on_letters(fcinfo, &retry));
}

/* discard_event_dead_letters(consumer, id) */
Datum
bdd_discard_event_dead_letters(PG_FUNCTION_ARGS)
{
	static BddKeptPlan discard = {
		"DELETE FROM batchdedup.event_dead_letter "
		"WHERE consumer = $1 AND ($2 IS NULL OR event_id = $2)",
		2,
		{TEXTOID, INT8OID}};

	PG_RETURN_INT64(run_on_letters(fcinfo, &discard));
}

/* accept_lost_events(consumer): returns how many they were. */
Datum
bdd_accept_lost_events(PG_FUNCTION_ARGS)
{
	static BddKeptPlan lock = {
		"SELECT lost_events FROM batchdedup.consumer_shard WHERE consumer = $1 "
		"ORDER BY shard FOR NO KEY UPDATE",
		1,
		{TEXTOID}};
	static BddKeptPlan forget = {
		"UPDATE batchdedup.consumer_shard SET lost_events = 0 WHERE consumer = $1 AND lost_events > 0",
		1,
		{TEXTOID}};
	BddSavedRole saved;
	int64 lost = 0;
	uint64 count;
	bool isnull;
	Datum name;

	bdd_check_argument(fcinfo, 0, "consumer");
	name = PG_GETARG_DATUM(0);
	bdd_own_begin(&saved);
	(void) find_consumer(name, -1);
	count = bdd_plan_run(&lock, &name, NULL);
	for (uint64 i = 0; i < count; i++)
		lost += DatumGetInt64(bdd_spi_value(i, 1, &isnull));
	(void) bdd_plan_run(&forget, &name, NULL);
	bdd_own_end(&saved);
	PG_RETURN_INT64(lost);
}
