/*-------------------------------------------------------------------------
 *
 * event.c
 *		Publishing events, and deleting old ones.
 *
 * Consumers must get every event once it is committed, an effect after its
 * cause, and must find the next ones without reading all there are.  Neither
 * ids nor xids alone will do:
 *
 * - By id: a transaction draws an id and commits after another one that drew
 *	 a higher one.  A reader that got to the higher one never sees the lower.
 * - By xid, up to the oldest that runs: nothing is skipped, but a transaction
 *	 that has got its xid early, then waits for a row lock of another one, and
 *	 then publishes, would come before the one that it has waited for; and one
 *	 long transaction, whatever it does, holds up all events.
 *
 * This is PgQ's way (of Skype's SkyTools): what lies between two snapshots is a
 * batch, and a batch is read in order of ids.  Of an effect and its cause the
 * cause is committed first: so it is in an earlier batch, or in the same one
 * with the lower id, since the id of the effect was drawn later (from a
 * sequence without a cache).  What was not committed at the second snapshot is
 * not visible in it, and hence in a later batch.  An event has the xid of its
 * transaction for that, and a batch is found by an index on it: the xids that
 * the first snapshot saw running, and those from its end on.
 *
 * PgQ has a ticker, whose snapshots are those of all consumers.  Here a shard
 * of a consumer has two snapshots of its own (shard.c).  So there is no
 * table of ticks and no lock that consumers share, which one that polls in a
 * long transaction would keep from the others; a poll that finds nothing writes
 * nothing; and there is nothing to clean up.
 *
 * A snapshot outlives a crash, as the WAL of all transactions that it calls
 * ended comes before that of the transaction that has stored it.  It does not
 * outlive a dump: event_inserted_internal and shard_inserted_internal notice
 * rows that come from one.
 *
 *-------------------------------------------------------------------------
 */
#include "event/emit.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(bdd_publish_event);
PG_FUNCTION_INFO_V1(bdd_expire_events);

/* ---------- publish_event ---------- */

/* Consumers of a kind of the extension rely on the extension having written the event. */
static void
check_kind(const char *kind)
{
	if (kind[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("kind must not be empty")));
	if (bdd_event_kind_is_own(kind))
		ereport(ERROR,
				(errcode(ERRCODE_RESERVED_NAME),
				 errmsg("events of kind \"%s\" are published by batchdedup itself",
						kind),
				 errhint("Choose another kind, for instance \"app.%s\".", kind)));
}

/* Returns whether the event was added: no other one has its key. */
static bool
insert_event(Datum *values, const char *nulls, int64 *id)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.event (kind, payload, idempotency_key, ordering_key) "
		"VALUES ($1, $2, $3, $4) "
		"ON CONFLICT (idempotency_key) WHERE idempotency_key IS NOT NULL DO NOTHING "
		"RETURNING id",
		4,
		{TEXTOID, JSONBOID, TEXTOID, TEXTOID}};
	bool isnull;

	if (bdd_plan_run(&insert, values, nulls) == 0)
		return false;
	*id = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	return true;
}

/* Returns whether there is one with its key, which must be the same then. */
static bool
find_event(Datum *values, const char *nulls, int64 *id)
{
	static BddKeptPlan find = {
		"SELECT id, kind = $1 AND payload = $2 AND ordering_key IS NOT DISTINCT FROM $4 "
		"FROM batchdedup.event WHERE idempotency_key = $3",
		4,
		{TEXTOID, JSONBOID, TEXTOID, TEXTOID}};
	bool isnull;

	if (bdd_plan_run(&find, values, nulls) == 0)
		return false;
	*id = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	if (!DatumGetBool(bdd_spi_value(0, 2, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("another event was published with idempotency key \"%s\"",
						TextDatumGetCString(values[2])),
				 errdetail("Event %lld has another kind, payload or ordering key.",
						   (long long) *id)));
	return true;
}

/*
 * publish_event(kind, payload, idempotency_key, ordering_key): returns the
 * event's id.
 */
Datum
bdd_publish_event(PG_FUNCTION_ARGS)
{
	Datum values[4];
	char nulls[] = "    ";
	BddSavedRole saved;
	int64 id;

	bdd_check_argument(fcinfo, 0, "kind");
	bdd_check_argument(fcinfo, 1, "payload");
	check_kind(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	for (int i = 0; i < lengthof(values); i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	bdd_own_begin(&saved);
	/* Between the two, the one that is there may expire. */
	while (!insert_event(values, nulls, &id) && !find_event(values, nulls, &id))
		CHECK_FOR_INTERRUPTS();
	bdd_own_end(&saved);
	PG_RETURN_INT64(id);
}

/* ---------- expire_events ---------- */

/*
 * Neither may be negative; hard_limit may be null, and is not less than keep.
 */
static void
check_limits(FunctionCallInfo fcinfo)
{
	Interval *nothing = palloc0(sizeof(Interval));

	bdd_check_argument(fcinfo, 0, "keep");
	if (DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(0),
										 IntervalPGetDatum(nothing))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("keep must not be negative")));
	if (!PG_ARGISNULL(1) &&
		DatumGetBool(DirectFunctionCall2(interval_lt, PG_GETARG_DATUM(1),
										 PG_GETARG_DATUM(0))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("hard_limit must not be less than keep")));
}

/*
 * Reads the result of the statement that deleted: a row for each consumer that
 * has lost events.
 */
static void
warn_of_lost_events(uint64 rows)
{
	for (uint64 i = 0; i < rows; i++)
	{
		bool isnull;
		Datum consumer = bdd_spi_value(i, 2, &isnull);

		if (isnull)
			continue;
		ereport(WARNING,
				(errmsg("%lld events were deleted before consumer \"%s\" has acknowledged them",
						(long long) DatumGetInt64(bdd_spi_value(i, 3, &isnull)),
						TextDatumGetCString(consumer)),
				 errhint("See batchdedup.consumer; then batchdedup.accept_lost_events.")));
	}
}

/*
 * Lost events are counted and deleted with one snapshot, and with all consumers
 * locked: so nothing is deleted that was not looked at, nor counted that was
 * acknowledged.
 */
static int64
delete_events(Datum *limits, const char *nulls)
{
	static BddKeptPlan lock = {
		"SELECT FROM batchdedup.consumer_shard ORDER BY consumer, shard FOR NO KEY UPDATE",
		0,
		{InvalidOid}};
	static BddKeptPlan expire = {
		"WITH pending AS MATERIALIZED (SELECT consumer, shard, id FROM batchdedup.event_pending WHERE at < $1), "
		"doomed AS (DELETE FROM batchdedup.event e "
		" WHERE e.id < coalesce((SELECT n.id FROM batchdedup.event n WHERE n.at >= $1 ORDER BY n.id LIMIT 1), "
		"  9223372036854775807) "
		" AND e.at < $1 AND (e.at < $2 OR e.id NOT IN (SELECT id FROM pending)) RETURNING e.id), "
		"lost AS (SELECT consumer, shard, count(*) AS events FROM pending "
		" WHERE id IN (SELECT id FROM doomed) GROUP BY consumer, shard), "
		"counted AS (UPDATE batchdedup.consumer_shard s SET lost_events = s.lost_events + l.events "
		" FROM lost l WHERE s.consumer = l.consumer AND s.shard = l.shard) "
		"SELECT d.deleted, l.consumer, l.events FROM (SELECT count(*) AS deleted FROM doomed) d "
		"LEFT JOIN (SELECT consumer, sum(events)::bigint AS events FROM lost GROUP BY consumer) l ON true "
		"ORDER BY l.consumer",
		2,
		{TIMESTAMPTZOID, TIMESTAMPTZOID}};
	static BddKeptPlan forget = {
		"DELETE FROM batchdedup.event_attempt a "
		"WHERE NOT EXISTS (SELECT FROM batchdedup.event e WHERE e.id = a.event_id)",
		0,
		{InvalidOid}};
	int64 deleted;
	bool isnull;

	if (nulls[1] != 'n')
		(void) bdd_plan_run(&lock, NULL, NULL);
	warn_of_lost_events(bdd_plan_run(&expire, limits, nulls));
	deleted = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	(void) bdd_plan_run(&forget, NULL, NULL);
	return deleted;
}

/* expire_events(keep, hard_limit): returns how many were deleted. */
Datum
bdd_expire_events(PG_FUNCTION_ARGS)
{
	Datum now = TimestampTzGetDatum(GetCurrentTimestamp());
	Datum limits[2] = {0};
	char nulls[] = "  ";
	BddSavedRole saved;
	int64 deleted;

	check_limits(fcinfo);
	for (int i = 0; i < lengthof(limits); i++)
		if (PG_ARGISNULL(i))
			nulls[i] = 'n';
		else
			limits[i] = DirectFunctionCall2(timestamptz_mi_interval, now,
											PG_GETARG_DATUM(i));
	bdd_own_begin(&saved);
	deleted = delete_events(limits, nulls);
	bdd_own_end(&saved);
	PG_RETURN_INT64(deleted);
}
