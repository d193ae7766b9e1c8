/*-------------------------------------------------------------------------
 *
 * sync_lag.c
 *		How far a sync is behind its source: counted, or estimated for a run's progress.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_lag.h"

#include "base/list.h"
#include "base/loaded.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "sync/sync_check.h"
#include "sync/sync_slice.h"
#include "sync/sync_source_sql.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

PG_FUNCTION_INFO_V1(bdd_sync_lag);

typedef struct BddLag
{
	BddSync *sync;
	Datum up_to;
	int64 rows;
} BddLag;

/*
 * Counts what a run has still to read, up to lag->up_to rows: captured keys,
 * once the sync has read all else, or rows behind the watermark.  Called by
 * bdd_catch.
 */
static void
count_left(void *arg)
{
	BddLag *lag = arg;
	BddSync *sync = lag->sync;
	int count = list_length(sync->watermark);
	Oid types[INDEX_MAX_KEYS + 1];
	Datum values[INDEX_MAX_KEYS + 1];
	char *left;
	BddSavedRole saved;
	bool isnull;

	bdd_spi_connect();
	bdd_sync_check_still(sync);
	/* Captured keys are in a table of ours. */
	if (sync->kind == BDD_CURSOR_TRIGGER && sync->complete)
	{
		left = psprintf("SELECT FROM %s", bdd_qualified_name(sync->captured));
		count = 0;
		bdd_become_extension_owner(&saved);
	}
	else
	{
		left = bdd_sync_sql_left(sync, count, false);
		bdd_sync_become(sync, &saved);
		bdd_slice_parameters(sync, sync->position, sync->watermark, types, values);
	}
	types[count] = INT8OID;
	values[count] = lag->up_to;
	(void) bdd_spi_run(psprintf("SELECT pg_catalog.count(*) FROM (%s LIMIT $%d) x", left, count + 1),
					   count + 1, types, values, NULL);
	lag->rows = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	bdd_restore_role(&saved);
	bdd_spi_finish();
}

/* The owner's code may fail in any way: nobody's look at all syncs is to fail with it. */
static bool
can_count(BddLag *lag)
{
	ErrorData *error = bdd_catch(count_left, lag);

	if (error != NULL && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	return error == NULL;
}

/*
 * sync_lag_internal(sync_id, up_to): NULL if the caller may not read the source,
 * or it cannot be read.
 */
Datum
bdd_sync_lag(PG_FUNCTION_ARGS)
{
	static BddKeptPlan name = {
		"SELECT name FROM batchdedup.sync_row WHERE id = $1", 1, {INT4OID}};
	Datum id[1];
	BddSync sync;
	BddLag lag = {&sync};
	BddSavedRole saved;
	bool isnull;
	bool known;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	bdd_check_preloaded();
	id[0] = PG_GETARG_DATUM(0);
	lag.up_to = PG_GETARG_DATUM(1);
	bdd_own_begin(&saved);
	if (bdd_plan_run(&name, id, NULL) == 0)
	{
		bdd_own_end(&saved);
		PG_RETURN_NULL();
	}
	bdd_sync_read_existing(TextDatumGetCString(bdd_spi_value(0, 1, &isnull)), &sync);
	bdd_restore_role(&saved);
	known = sync.kind != BDD_CURSOR_FULL &&
			get_rel_name(sync.source) != NULL &&
			pg_class_aclcheck(sync.source, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
			check_enable_rls(sync.source, InvalidOid, true) != RLS_ENABLED &&
			can_count(&lag);
	bdd_spi_finish();
	if (!known)
		PG_RETURN_NULL();
	PG_RETURN_INT64(lag.rows);
}

/* How many rows a run still has to read, as the planner estimates it. */
int64
bdd_sync_estimate_left(BddSync *sync)
{
	Oid types[INDEX_MAX_KEYS + 1];
	Datum values[INDEX_MAX_KEYS + 1];
	int count;
	BddSavedRole saved;
	char *plan;
	char *rows;

	bdd_sync_become(sync, &saved);
	count = bdd_slice_bounded(sync, sync->position, sync->watermark, sync->bound, types, values);
	(void) bdd_spi_run(
		psprintf("EXPLAIN (FORMAT JSON) %s",
				 bdd_sync_sql_left(sync, list_length(sync->watermark), sync->bound != NULL)),
		count, types, values, NULL);
	plan = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
	bdd_restore_role(&saved);
	rows = strstr(plan, "\"Plan Rows\": ");
	return rows == NULL ? 0 : strtoll(rows + strlen("\"Plan Rows\": "), NULL, 10);
}
