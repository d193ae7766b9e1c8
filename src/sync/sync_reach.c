/*-------------------------------------------------------------------------
 *
 * sync_reach.c
 *		Up to where a run of a sync reads.
 *
 * What a cursor's kind needs is asked of sync_bound.c, in steps: each is a short
 * transaction, because a run that waits is a transaction itself, and two runs would
 * wait for each other.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_reach.h"

#include "catalog/pg_type_d.h"
#include "sql/spi.h"
#include "sync/moment_text.h"
#include "sync/sync_check.h"
#include "sync/sync_holder.h"
#include "sync/sync_source_sql.h"
#include "target/options.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/*
 * So long a run waits for transactions that are open when it begins; in steps,
 * for these are transactions themselves, and two runs would wait for each other.
 */
#define PATIENCE_MS 1000
#define STEP_MS 20

/* A copy, because timestamptz_to_str returns the same memory each time. */
static char *
timestamp_text(TimestampTz at)
{
	return pstrdup(timestamptz_to_str(at));
}

/* "at" less the lag, and less what the column's precision may round away. */
static TimestampTz
less_lag(const BddSync *sync, TimestampTz at)
{
	Datum value = DirectFunctionCall2(timestamptz_mi_interval, TimestampTzGetDatum(at),
									  IntervalPGetDatum(sync->lag));
	int64 rounding = 0;
	int32 typmod;
	Oid type;
	Oid collation;

	get_atttypetypmodcoll(sync->source, get_attnum(sync->source, linitial(sync->position)),
						  &type, &typmod, &collation);
	if (typmod >= 0 && typmod < 6)
		for (rounding = 500000; typmod > 0; typmod--)
			rounding /= 10;
	return DatumGetTimestampTz(value) - rounding;
}

/* The bound in the form of the cursor's type. */
static char *
as_cursor(const BddSync *sync, TimestampTz at)
{
	Oid type = getBaseType(linitial_oid(sync->position_types));
	Datum value = TimestampTzGetDatum(at);

	if (type == TIMESTAMPOID)
		return DatumGetCString(
			DirectFunctionCall1(timestamp_out, DirectFunctionCall1(timestamptz_timestamp, value)));
	if (type == DATEOID)
	{
		/* That day may not be over. */
		DateADT date = DatumGetDateADT(DirectFunctionCall1(timestamptz_date, value)) - 1;

		return DatumGetCString(DirectFunctionCall1(date_out, DateADTGetDatum(date)));
	}
	return DatumGetCString(DirectFunctionCall1(timestamptz_out, value));
}

/* Tells the caller what keeps the run from reading further. */
static void
tell_holders(BddBoundSearch *reach, const BddMoment *moment)
{
	char *holders = bdd_moment_holders(moment);

	if (holders != NULL)
		ereport(NOTICE,
				(errmsg("sync \"%s\" does not read what transactions that are still open may write", reach->name),
				 errdetail("It is held back by %s.", holders)));
}

/* False: not yet, and if the run has patience left, another step is to come. */
static bool
is_over_soon(BddBoundSearch *reach, BddMoment *moment)
{
	reach->waits = false;
	if (bdd_moment_wait(moment, STEP_MS))
		return true;
	if (!TimestampDifferenceExceeds(reach->started, GetCurrentTimestamp(), PATIENCE_MS))
	{
		reach->moment = MemoryContextStrdup(reach->context, bdd_moment_out(moment));
		reach->waits = true;
	}
	return false;
}

/*
 * A clock that is before the bound of an earlier run has been set back: what has
 * been written since may be behind the watermark, and how far is not known.  So
 * all is read again; to read a row twice does no harm.
 */
static void
check_clock(BddBoundSearch *reach, BddSync *sync)
{
	static BddKeptPlan reset = {
		"UPDATE batchdedup.sync_row SET watermark = NULL WHERE id = $1", 1, {INT4OID}};
	Datum values[] = {Int32GetDatum(sync->id)};
	TimestampTz now = less_lag(sync, GetCurrentTimestamp());

	if (sync->bound == NULL || DatumGetTimestampTz(DirectFunctionCall3(
								   timestamptz_in, CStringGetDatum(sync->bound),
								   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1))) <= now)
		return;
	ereport(WARNING,
			(errmsg("the clock has been set back since sync \"%s\" has read up to %s", reach->name, sync->bound),
			 errdetail("Everything is read again.")));
	sync->bound = NULL;
	sync->moment = NULL;
	(void) bdd_plan_run(&reset, values, NULL);
}

/*
 * The bound of a clock: a moment before which nobody can write any more.  One
 * that an earlier run has remembered may be over by now.
 */
static void
find_clock(BddBoundSearch *reach, BddSync *sync)
{
	BddMoment *before;
	BddMoment *moment = reach->moment != NULL ? bdd_moment_in(reach->moment) : bdd_moment_take();
	TimestampTz bound = DT_NOBEGIN;
	TimestampTz at;

	check_clock(reach, sync);
	before = bdd_moment_in(sync->moment);
	if (is_over_soon(reach, moment))
		sync->moment = NULL;
	else if (reach->waits)
		return;
	else
	{
		tell_holders(reach, moment);
		if (before != NULL && bdd_moment_is_over(before))
		{
			if (bdd_moment_bound(before, &at))
				bound = at;
			before = NULL;
		}
		sync->moment = bdd_moment_out(before != NULL ? before : moment);
	}
	if (bdd_moment_bound(moment, &at))
		bound = Max(bound, at);
	if (bound != DT_NOBEGIN)
		sync->bound = as_cursor(sync, less_lag(sync, bound));
}

/*
 * "last": the last value that the sequence has given.  A watermark above it is
 * an error: the sequence was set back, and values that it gives once more would
 * be missed.  A bound above it is forgotten.
 */
static void
check_set_back(BddSync *sync, int64 last)
{
	char *watermark = sync->watermark != NIL ? linitial(sync->watermark) : NULL;

	if (watermark != NULL && strtoll(watermark, NULL, 10) > last)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("sequence \"%s\" has been set back to " INT64_FORMAT ", and sync \"%s\" has read up to %s",
						get_rel_name(sync->sequence), last, sync->name, watermark),
				 errdetail("Rows that get numbers below that would be missed."),
				 errhint("SELECT batchdedup.reset_watermark(%s); reads all rows once more.",
						 quote_literal_cstr(sync->name))));
	if (sync->bound != NULL && strtoll(sync->bound, NULL, 10) > last)
	{
		sync->bound = NULL;
		sync->moment = NULL;
	}
}

/*
 * The bound of a sequence: the last value that it had given at a moment, once
 * all transactions that used it have ended.  A moment that an earlier run has
 * remembered may be over where that of this run is not.
 */
static void
find_sequence(BddBoundSearch *reach, BddSync *sync)
{
	BddMoment *before;
	BddMoment *moment;
	int64 last;
	bool called;

	bdd_sync_check_sequence(sync);
	moment = reach->moment != NULL ? bdd_moment_in(reach->moment) :
									 bdd_moment_take_sequence(sync->sequence, &last, &called);
	last = moment->last_value;
	called = moment->called;
	check_set_back(sync, called ? last : last - 1);
	before = bdd_moment_in(sync->moment);
	if (before != NULL && before->last_value > last)
		before = NULL;
	if (!called)
		return;
	if (is_over_soon(reach, moment))
	{
		sync->moment = NULL;
		sync->bound = psprintf(INT64_FORMAT, last);
		return;
	}
	if (reach->waits)
		return;
	tell_holders(reach, moment);
	if (before == NULL || bdd_moment_is_over(before))
	{
		if (before != NULL)
			sync->bound = psprintf(INT64_FORMAT, before->last_value);
		before = moment;
	}
	sync->moment = bdd_moment_out(before);
}

/* The highest value that is there, as text; NULL: there is none. */
static char *
highest_value(BddSync *sync)
{
	BddSavedRole saved;
	char *value = NULL;

	bdd_sync_become(sync, &saved);
	bdd_exact_output();
	if (bdd_spi_run(bdd_sync_sql_last(sync), 0, NULL, NULL, NULL) > 0)
		value = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	bdd_restore_role(&saved);
	return value;
}

/* Whether values of the type can be compared with the clock. */
static bool
is_time(Oid type)
{
	return type == TIMESTAMPTZOID || type == TIMESTAMPOID || type == DATEOID;
}

/*
 * The bound of a cursor of kind "other": what is older than the lag.  Where
 * values are no times, the highest one that was there so long ago.
 */
static void
find_other(BddBoundSearch *reach, BddSync *sync)
{
	TimestampTz now = GetCurrentTimestamp();
	TimestampTz limit = less_lag(sync, now);

	if (is_time(getBaseType(linitial_oid(sync->position_types))))
	{
		sync->bound = as_cursor(sync, limit);
		return;
	}
	if (sync->moment != NULL && sync->moment_value != NULL &&
		DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(sync->moment),
												ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1))) <=
			limit)
	{
		sync->bound = sync->moment_value;
		sync->moment = NULL;
	}
	if (sync->moment == NULL)
	{
		sync->moment = timestamp_text(now);
		sync->moment_value = highest_value(sync);
	}
}

/*
 * Rows that wait in the buffer are brought into the tables first.  False: they
 * stay there, because the target is paused.
 */
static bool
flush_if_target(Oid relid)
{
	static BddKeptPlan flush = {
		"SELECT batchdedup.flush($1)", 1, {REGCLASSOID}};
	Datum values[] = {ObjectIdGetDatum(relid)};
	BddOptions options;

	if (!bdd_options_read(relid, &options))
		return true;
	if (options.paused)
		return false;
	(void) bdd_plan_run_own(&flush, values, NULL);
	return true;
}

/*
 * Keeps the bound, and the moment that a later run goes on with.  The row is
 * not written if both are as before.
 */
static void
save_bound(const BddSync *sync)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.sync_row SET bound = $2, moment = $3, moment_value = $4 WHERE id = $1 "
		"AND (bound, moment, moment_value) IS DISTINCT FROM ($2, $3, $4)",
		4,
		{INT4OID, TEXTOID, TEXTOID, TEXTOID}};
	char nulls[] = "    ";
	Datum values[] = {Int32GetDatum(sync->id),
					  bdd_text_or_null(sync->bound, &nulls[1]),
					  bdd_text_or_null(sync->moment, &nulls[2]),
					  bdd_text_or_null(sync->moment_value, &nulls[3])};

	(void) bdd_plan_run_own(&update, values, nulls);
}

/*
 * Marks runs in the history that came neither to their end nor to an error: their
 * server or process was gone.  We have the lock, so no other run goes on.
 */
static void
close_runs(const BddSync *sync)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.sync_run_row SET finished_at = pg_catalog.clock_timestamp(), "
		"error = '57P01: the run was ended from outside' WHERE sync = $1 AND finished_at IS NULL",
		1,
		{TEXTOID}};
	Datum values[] = {CStringGetTextDatum(sync->name)};

	(void) bdd_plan_run_own(&update, values, NULL);
}

/*
 * Finds up to where the run reads, and stores it in the sync's row.  Where
 * reach->waits is set afterwards, another step is to follow, in a transaction
 * of its own.
 */
void
bdd_sync_find_bound(BddBoundSearch *reach)
{
	BddSync sync;
	BddSavedRole saved;
	char *bound;

	bdd_sync_read_existing(reach->name, &sync);
	bdd_sync_check_still(&sync);
	bound = sync.bound;
	bdd_become_extension_owner(&saved);
	bdd_exact_output();
	switch (sync.kind)
	{
		case BDD_CURSOR_CLOCK:
			find_clock(reach, &sync);
			break;
		case BDD_CURSOR_SEQUENCE:
			find_sequence(reach, &sync);
			break;
		case BDD_CURSOR_OTHER:
			find_other(reach, &sync);
			break;
		case BDD_CURSOR_FULL:
		case BDD_CURSOR_TRIGGER:
			break;
	}
	bdd_restore_role(&saved);
	if (reach->waits)
		return;
	if (!flush_if_target(sync.source) && sync.kind != BDD_CURSOR_OTHER)
	{
		ereport(NOTICE,
				(errmsg("sync \"%s\" does not read what waits in the buffer of its source, which is paused", reach->name)));
		sync.bound = bound;
	}
	if (OidIsValid(sync.captured))
		(void) flush_if_target(sync.captured);
	if (!reach->dry_run)
	{
		(void) flush_if_target(sync.target);
		save_bound(&sync);
		close_runs(&sync);
	}
	reach->bound = sync.bound == NULL ? NULL : MemoryContextStrdup(reach->context, sync.bound);
}
