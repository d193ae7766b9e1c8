/*-------------------------------------------------------------------------
 *
 * testing.c
 *		Functions for tests and benchmarks.
 *
 * They are in the library only with make TESTING=1, and in no script: who
 * needs one declares it with CREATE FUNCTION ... AS 'batchdedup'.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/debug_point.h"
#include "base/loaded.h"
#include "fmgr.h"
#include "sync/moment_text.h"
#include "sync/sync_bound.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(bdd_debug_release);
PG_FUNCTION_INFO_V1(bdd_noop);
PG_FUNCTION_INFO_V1(bdd_moment_take_sql);
PG_FUNCTION_INFO_V1(bdd_moment_wait_sql);
PG_FUNCTION_INFO_V1(bdd_moment_bound_sql);

/* Lets every process go on that waits at a debug point. */
Datum
bdd_debug_release(PG_FUNCTION_ARGS)
{
	bdd_check_preloaded();
	bdd_shared_debug->releases++;
	PG_RETURN_VOID();
}

/* Does nothing with its argument: the ceiling for a benchmark of upsert(). */
Datum
bdd_noop(PG_FUNCTION_ARGS)
{
	PG_RETURN_VOID();
}

/* (regclass) RETURNS text: NULL is the clock. */
Datum
bdd_moment_take_sql(PG_FUNCTION_ARGS)
{
	int64 last_value;
	bool called;
	BddMoment *moment;

	if (PG_ARGISNULL(0))
		moment = bdd_moment_take();
	else
		moment = bdd_moment_take_sequence(PG_GETARG_OID(0), &last_value, &called);
	PG_RETURN_TEXT_P(cstring_to_text(bdd_moment_out(moment)));
}

/* (text, milliseconds integer) RETURNS text: the moment, at most so much later. */
Datum
bdd_moment_wait_sql(PG_FUNCTION_ARGS)
{
	BddMoment *moment = bdd_moment_in(text_to_cstring(PG_GETARG_TEXT_PP(0)));

	if (moment == NULL)
		PG_RETURN_NULL();
	(void) bdd_moment_wait(moment, PG_GETARG_INT32(1));
	PG_RETURN_TEXT_P(cstring_to_text(bdd_moment_out(moment)));
}

/* (text) RETURNS timestamptz: the bound of what was last seen of it. */
Datum
bdd_moment_bound_sql(PG_FUNCTION_ARGS)
{
	BddMoment *moment = bdd_moment_in(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	TimestampTz bound;

	if (moment == NULL || !bdd_moment_bound(moment, &bound))
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(bound);
}
