/*-------------------------------------------------------------------------
 *
 * consumer.c
 *		Consumers of events: create_consumer, drop_consumer, and what was given
 *		up or lost.
 *
 * A consumer has a row, and one for each of its shards (shard.c).  Its events
 * are given by poll_events (poll.c) and acknowledged by ack_events (ack.c).
 * Dead letters are copies of events.
 *
 *-------------------------------------------------------------------------
 */
#include "event/consumer.h"

#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "sql/spi.h"
#include "utils/array.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(bdd_create_consumer);
PG_FUNCTION_INFO_V1(bdd_drop_consumer);
PG_FUNCTION_INFO_V1(bdd_retry_event_dead_letters);
PG_FUNCTION_INFO_V1(bdd_discard_event_dead_letters);
PG_FUNCTION_INFO_V1(bdd_accept_lost_events);

#define MAX_SHARDS 1000

/* ---------- arguments ---------- */

static void
check_not_empty(const char *value, const char *what)
{
	if (value[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must not be empty", what)));
}

/* The least that is allowed is 1. */
void
bdd_check_between(int value, int most, const char *what)
{
	if (value < 1 || value > most)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be between 1 and %d", what, most)));
}

/*
 * The caller's instance and shard, which are arguments of these numbers.  Both
 * may be null: then the name is empty, and the shard -1, which is any.
 */
BddPoller
bdd_poller_argument(FunctionCallInfo fcinfo, int shard, int name)
{
	BddPoller instance = {"", -1};

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

/*
 * Reads the consumer; an error if there is none, or none with this shard (-1:
 * any).  Expects to be connected to SPI, as the extension's owner.
 */
BddConsumer
bdd_consumer_find(Datum name, int shard)
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

/* An empty list would be a consumer that never gets an event. */
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

/* Of all arguments only kinds may be null. */
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
	bdd_check_between(PG_GETARG_INT32(ARG_SHARDS), MAX_SHARDS, "shards");
	bdd_check_between(PG_GETARG_INT32(ARG_MAX_ATTEMPTS), PG_INT32_MAX,
					  "max_attempts");
}

/* SQL: the kinds $3, as they are stored. */
#define SORTED_KINDS                 \
	"CASE WHEN $3 IS NOT NULL THEN " \
	"ARRAY(SELECT DISTINCT k COLLATE \"C\" FROM unnest($3) AS k ORDER BY 1) END "

/*
 * Adds the consumer and its shards; false: the name is taken.  The last
 * statement takes back that a trigger marks each new shard as one of a dump.
 */
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
	/* In the order of a poll: that locks the shard, then the consumer. */
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
		(void) bdd_consumer_find(name, -1);
	bdd_own_end(&saved);
	PG_RETURN_VOID();
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
	(void) bdd_consumer_find(values[0], -1);
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
	(void) bdd_consumer_find(name, -1);
	count = bdd_plan_run(&lock, &name, NULL);
	for (uint64 i = 0; i < count; i++)
		lost += DatumGetInt64(bdd_spi_value(i, 1, &isnull));
	(void) bdd_plan_run(&forget, &name, NULL);
	bdd_own_end(&saved);
	PG_RETURN_INT64(lost);
}
