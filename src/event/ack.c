/*-------------------------------------------------------------------------
 *
 * ack.c
 *		ack_events, nack_event: what a consumer has done with its events.
 *
 * An acknowledgement names an event, and counts by that event's place: an event
 * of an earlier batch says nothing of this one, whose ids may be lower.
 *
 * An event that has failed as often as the consumer allows is copied to the
 * dead letters.  Letters that are retried are acknowledged like other events.
 *
 *-------------------------------------------------------------------------
 */
#include "event/shard.h"

#include "catalog/pg_type_d.h"
#include "sql/spi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(bdd_ack_events);
PG_FUNCTION_INFO_V1(bdd_nack_event);

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

/* An error unless the instance holds the shard. */
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

/* An error unless the instance holds the shard and was given the event. */
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
find_given(const BddConsumer *consumer, int64 id, const BddPoller *instance,
		   BddShard *shard)
{
	BddPlace place;

	shard->consumer = consumer;
	shard->number = shard_of(consumer, id, instance->shard);
	bdd_shard_lock(shard);
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

/* Letters that were given again, up to this id, are done with. */
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
	BddPoller instance = bdd_poller_argument(fcinfo, 2, 3);
	BddShard shard = {0};
	BddConsumer consumer;
	BddSavedRole saved;
	BddPlace place;
	int64 id;

	bdd_check_argument(fcinfo, 0, "consumer");
	bdd_check_argument(fcinfo, 1, "up_to");
	id = PG_GETARG_INT64(1);
	bdd_own_begin(&saved);
	consumer = bdd_consumer_find(PG_GETARG_DATUM(0), instance.shard);
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

/*
 * Counts a failure of the event; returns whether it was the last one allowed.
 * An error if the event has been acknowledged.
 */
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
	BddPoller instance = bdd_poller_argument(fcinfo, 3, 4);
	BddShard shard = {0};
	BddConsumer consumer;
	BddSavedRole saved;
	BddPlace place;
	bool dead;

	bdd_check_argument(fcinfo, 0, "consumer");
	bdd_check_argument(fcinfo, 1, "id");
	bdd_check_argument(fcinfo, 2, "error");
	bdd_own_begin(&saved);
	consumer = bdd_consumer_find(PG_GETARG_DATUM(0), instance.shard);
	place = find_given(&consumer, PG_GETARG_INT64(1), &instance, &shard);
	dead = nack(&shard, PG_GETARG_INT64(1), PG_GETARG_DATUM(2), place);
	bdd_own_end(&saved);
	PG_RETURN_BOOL(dead);
}
