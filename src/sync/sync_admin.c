/*-------------------------------------------------------------------------
 *
 * sync_admin.c
 *		What an owner does with a sync: pause, resume, reset the watermark, drop.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/list.h"
#include "base/loaded.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "sql/spi.h"
#include "sync/capture.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(bdd_pause_sync);
PG_FUNCTION_INFO_V1(bdd_resume_sync);
PG_FUNCTION_INFO_V1(bdd_drop_sync);
PG_FUNCTION_INFO_V1(bdd_reset_watermark);

static char *
name_argument(FunctionCallInfo fcinfo)
{
	bdd_check_argument(fcinfo, 0, "name");
	return text_to_cstring(PG_GETARG_TEXT_PP(0));
}

/*
 * Connects to SPI, reads the sync, whose owner the caller must be, and becomes
 * the extension's owner.
 */
static void
begin_change(FunctionCallInfo fcinfo, const char *call, BddSync *sync, BddSavedRole *saved)
{
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	bdd_check_version();
	bdd_spi_connect();
	bdd_sync_read_existing(name_argument(fcinfo), sync);
	bdd_sync_check_owner(sync);
	bdd_become_extension_owner(saved);
}

/* The end of begin_change. */
static void
end_change(const BddSavedRole *saved)
{
	bdd_restore_role(saved);
	bdd_spi_finish();
}

/* For pause_sync and resume_sync.  A run that goes on sees it at its next slice. */
static void
set_paused(FunctionCallInfo fcinfo, const char *call, bool paused)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.sync_row SET paused = $2 WHERE id = $1 AND paused <> $2",
		2,
		{INT4OID, BOOLOID}};
	BddSync sync;
	BddSavedRole saved;
	Datum values[2];

	begin_change(fcinfo, call, &sync, &saved);
	values[0] = Int32GetDatum(sync.id);
	values[1] = BoolGetDatum(paused);
	(void) bdd_plan_run(&update, values, NULL);
	end_change(&saved);
}

/* pause_sync(name) */
Datum
bdd_pause_sync(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, "pause_sync()", true);
	PG_RETURN_VOID();
}

/* resume_sync(name) */
Datum
bdd_resume_sync(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, "resume_sync()", false);
	PG_RETURN_VOID();
}

/* '{a, b}' or a value: as many columns of the position as are given. */
static List *
watermark_argument(const BddSync *sync, const char *to)
{
	List *values = list_make1(unconstify(char *, to));
	ListCell *value;
	ListCell *type;

	if (to[0] == '{' && list_length(sync->position) > 1)
	{
		Datum array = OidInputFunctionCall(F_ARRAY_IN, unconstify(char *, to), TEXTOID, -1);

		if (array_contains_nulls(DatumGetArrayTypeP(array)))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("a watermark must not contain null")));
		values = bdd_names_of(array);
	}
	if (values == NIL || list_length(values) > list_length(sync->position))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a watermark of sync \"%s\" has 1 to %d values, not %d",
						sync->name, list_length(sync->position), list_length(values))));
	/* As it is meant now: 'yesterday' will be another day tomorrow. */
	forboth(value, values, type, sync->position_types)
	{
		Oid function;
		Oid parameter;
		bool varlena;
		Datum datum;

		getTypeInputInfo(lfirst_oid(type), &function, &parameter);
		datum = OidInputFunctionCall(function, lfirst(value), parameter, -1);
		getTypeOutputInfo(lfirst_oid(type), &function, &varlena);
		lfirst(value) = OidOutputFunctionCall(function, datum);
	}
	return values;
}

/* reset_watermark(name, to) */
Datum
bdd_reset_watermark(PG_FUNCTION_ARGS)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.sync_row SET watermark = $2, complete = false, "
		"truncated = cursor_kind = 'trigger', last_error = NULL, last_error_sqlstate = NULL, last_error_at = NULL "
		"WHERE id = $1",
		2,
		{INT4OID, TEXTARRAYOID}};
	BddSync sync;
	BddSavedRole saved;
	Datum values[2];

	begin_change(fcinfo, "reset_watermark()", &sync, &saved);
	values[0] = Int32GetDatum(sync.id);
	if (!PG_ARGISNULL(1))
	{
		bdd_restore_role(&saved);
		bdd_sync_become(&sync, &saved);
		bdd_exact_output();
		values[1] =
			bdd_text_array(watermark_argument(&sync, text_to_cstring(PG_GETARG_TEXT_PP(1))));
		bdd_restore_role(&saved);
		bdd_become_extension_owner(&saved);
	}
	(void) bdd_plan_run(&update, values, PG_ARGISNULL(1) ? " n" : NULL);
	end_change(&saved);
	PG_RETURN_VOID();
}

/* drop_sync(name, if_exists) */
Datum
bdd_drop_sync(PG_FUNCTION_ARGS)
{
	static BddKeptPlan delete = {
		"WITH letters AS (DELETE FROM batchdedup.sync_letter_row WHERE sync_id = $1) "
		"DELETE FROM batchdedup.sync_row WHERE id = $1",
		1,
		{INT4OID}};
	char *name = name_argument(fcinfo);
	BddSync sync;
	BddSavedRole saved;
	Datum values[1];

	bdd_check_argument(fcinfo, 1, "if_exists");
	bdd_spi_connect();
	if (!bdd_sync_read(name, &sync) && PG_GETARG_BOOL(1))
	{
		ereport(NOTICE, (errmsg("sync \"%s\" does not exist, skipping", name)));
		bdd_spi_finish();
		PG_RETURN_VOID();
	}
	bdd_spi_finish();
	begin_change(fcinfo, "drop_sync()", &sync, &saved);
	/* A run that goes on would write what nobody knows any more. */
	bdd_sync_lock(&sync, false);
	if (sync.kind == BDD_CURSOR_TRIGGER)
		bdd_capture_drop(&sync);
	values[0] = Int32GetDatum(sync.id);
	(void) bdd_plan_run(&delete, values, NULL);
	end_change(&saved);
	PG_RETURN_VOID();
}
