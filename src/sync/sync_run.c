/*-------------------------------------------------------------------------
 *
 * sync_run.c
 *		run_sync: a sync, slice by slice.
 *
 * First short transactions find out up to where the cursor may be read
 * (sync_reach.c).  Then each slice is a transaction that writes its rows, their
 * log and the new watermark; so a run may end at any point, in any way, and
 * another one goes on from there.  When all is read up to the bound, rows
 * without a cursor are read, and rows that the source has no more are removed.
 *
 * A run reads what was committed before it began; what comes meanwhile is the
 * next one's.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/xact.h"
#include "base/debug_point.h"
#include "base/guc.h"
#include "base/list.h"
#include "base/loaded.h"
#include "buffer/progress.h"
#include "catalog/pg_type.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "storage/latch.h"
#include "sync/capture.h"
#include "sync/change_log.h"
#include "sync/sync.h"
#include "sync/sync_bound.h"
#include "sync/sync_check.h"
#include "sync/sync_lag.h"
#include "sync/sync_reach.h"
#include "sync/sync_slice.h"
#include "sync/sync_source_sql.h"
#include "target/options.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(bdd_run_sync);

typedef enum BddPhase
{
	PHASE_ROWS,     /* behind the watermark */
	PHASE_NULLS,    /* without a cursor */
	PHASE_CAPTURED, /* that the source's trigger has seen */
	PHASE_MISSING,  /* not in the source any more */
	PHASE_DONE
} BddPhase;

typedef struct BddRun
{
	char *name;
	bool dry_run;
	int64 max_slices; /* 0: no limit, as for the next two */
	int64 max_rows;
	double max_seconds;
	int slice_rows; /* 0: that of the sync */
	MemoryContext context;
	MemoryContext slice_context; /* of a transaction */
	MemoryContext step_context;  /* of what one slice leaves to the next */
	BddSync *sync;               /* as it was at the start, for the lock */
	TimestampTz started;
	BddPhase phase;
	bool begun;           /* the sync has been read */
	bool not_committed;   /* the last transaction failed at its very end */
	List *watermark;      /* dry run: how far it is */
	bool complete;        /* dry run: the same */
	BddBoundSearch reach; /* up to where this run reads */
	List *after;          /* key of the last row of this phase */
	int64 kept;           /* rows that could not be removed */
	bool paused;
	int64 run_id; /* 0: nothing found yet */
	int day;      /* for which the log has a partition */
	int failures;
	BddSyncCounts totals;
	List *sample;
	int64 left; /* rows, as estimated; -1: not yet */
} BddRun;

/* ---------- arguments ---------- */

static int64
limit_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	int64 value = PG_ARGISNULL(n) ? 0 : PG_GETARG_INT64(n);

	if (!PG_ARGISNULL(n) && value <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("%s must be positive", what)));
	return value;
}

static void
take_arguments(FunctionCallInfo fcinfo, BddRun *run)
{
	bdd_check_argument(fcinfo, 0, "name");
	bdd_check_argument(fcinfo, 1, "dry_run");
	run->name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	run->dry_run = PG_GETARG_BOOL(1);
	run->max_slices = limit_argument(fcinfo, 2, "max_slices");
	run->max_rows = limit_argument(fcinfo, 3, "max_rows");
	run->max_seconds = PG_ARGISNULL(4) ? 0 : PG_GETARG_FLOAT8(4);
	if (!PG_ARGISNULL(4) && !(run->max_seconds > 0))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("max_seconds must be positive")));
	run->slice_rows = PG_ARGISNULL(5) ? 0 : PG_GETARG_INT32(5);
	if (!PG_ARGISNULL(5) && run->slice_rows <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slice_rows must be positive")));
}

/* A procedure cannot commit if it was called in a transaction block, or by a function. */
static void
check_may_commit(FunctionCallInfo fcinfo)
{
	CallContext *context = (CallContext *) fcinfo->context;

	if (context == NULL || !IsA(context, CallContext) || context->atomic)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_TERMINATION),
				 errmsg("run_sync cannot be called inside a transaction block or a function"),
				 errdetail("It commits each slice."),
				 errhint("Call it on its own: CALL batchdedup.run_sync('name').")));
}

/* ---------- transactions ---------- */

/* Keeps id and name for bdd_sync_unlock, in the run's memory; lists are not copied. */
static void
copy_in(BddRun *run, BddSync *from)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->context);

	run->sync = palloc(sizeof(BddSync));
	*run->sync = *from;
	run->sync->name = pstrdup(from->name);
	MemoryContextSwitchTo(old_context);
}

typedef struct BddTransaction
{
	BddRun *run;
	void (*work)(BddRun *run);
} BddTransaction;

/* What bdd_catch calls for in_transaction. */
static void
do_work(void *arg)
{
	BddTransaction *transaction = arg;

	/* Here, and not between transactions: then it is known how the run has ended. */
	CHECK_FOR_INTERRUPTS();
	bdd_spi_connect();
	/* What SPI returns lives in its own memory; what the work makes, here. */
	MemoryContextSwitchTo(transaction->run->slice_context);
	transaction->work(transaction->run);
	bdd_spi_finish();
}

/* Returns the error that made the server roll back instead, or NULL. */
static ErrorData *
commit(BddRun *run)
{
	ErrorData *volatile error = NULL;

	PG_TRY();
	{
		SPI_commit();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(run->context);
		error = CopyErrorData();
		FlushErrorState();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(run->context);
	run->not_committed = error != NULL;
	return error;
}

/* Does the work in a transaction of its own; returns the error that undid it, or NULL. */
static ErrorData *
in_transaction(BddRun *run, void (*work)(BddRun *run), bool repeatable)
{
	BddTransaction transaction = {run, work};
	ErrorData *error;

	SPI_commit();
	MemoryContextReset(run->slice_context);
	if (repeatable)
		XactIsoLevel = XACT_REPEATABLE_READ;
	PushActiveSnapshot(GetTransactionSnapshot());
	MemoryContextSwitchTo(run->context);
	error = bdd_catch(do_work, &transaction);
	PopActiveSnapshot();
	/* What the mapping's functions have written is no part of a dry run. */
	if (error == NULL && !run->dry_run)
		return commit(run);
	SPI_rollback();
	return error;
}

/* ---------- a slice ---------- */

/* Inserts the run's row into the history, with what its earlier slices have counted. */
static int64
begin_run(const BddRun *run, const BddSync *sync, List *watermark)
{
	Oid types[] = {TEXTOID, OIDOID, TIMESTAMPTZOID, TEXTARRAYOID,
				   OIDOID, INT8OID, INT8OID, INT8OID};
	Datum values[] = {CStringGetTextDatum(sync->name), ObjectIdGetDatum(sync->target),
					  TimestampTzGetDatum(run->started), bdd_text_array(watermark),
					  ObjectIdGetDatum(sync->source), Int64GetDatum(run->totals.slices),
					  Int64GetDatum(run->totals.read), Int64GetDatum(run->totals.unchanged)};
	BddSavedRole saved;
	bool isnull;
	int64 id;

	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run("INSERT INTO batchdedup.sync_run_row "
					   "(sync, target, started_at, from_watermark, source, slices, rows_read, unchanged) "
					   "VALUES ($1, $2, $3, nullif($4, '{}'), $5, $6, $7, $8) RETURNING id",
					   lengthof(types), types, values, NULL);
	id = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	bdd_restore_role(&saved);
	return id;
}

/* With what the slice has written, in its transaction. */
static void
save_slice(const BddSlice *slice)
{
	static BddKeptPlan mark = {
		"UPDATE batchdedup.sync_row SET watermark = nullif($2, '{}'), complete = $3, truncated = $4 WHERE id = $1 "
		"AND (watermark, complete, truncated) IS DISTINCT FROM (nullif($2, '{}'), $3, $4)",
		4,
		{INT4OID, TEXTARRAYOID, BOOLOID, BOOLOID}};
	static BddKeptPlan count = {
		"UPDATE batchdedup.sync_run_row SET slices = slices + $2, rows_read = rows_read + $3, inserted = inserted + $4, "
		"updated = updated + $5, deleted = deleted + $6, unchanged = unchanged + $7, refused = refused + $8, "
		"watermark = nullif($9, '{}') WHERE id = $1",
		9,
		{INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, INT8OID, TEXTARRAYOID}};
	const BddSyncCounts *counts = &slice->counts;
	Datum watermark = bdd_text_array(slice->sync->watermark);
	Datum mark_values[] = {Int32GetDatum(slice->sync->id), watermark,
						   BoolGetDatum(slice->sync->complete),
						   BoolGetDatum(slice->sync->truncated)};
	Datum values[] = {Int64GetDatum(slice->run_id),
					  Int64GetDatum(counts->slices),
					  Int64GetDatum(counts->read),
					  Int64GetDatum(counts->inserted),
					  Int64GetDatum(counts->updated),
					  Int64GetDatum(counts->deleted),
					  Int64GetDatum(counts->unchanged),
					  Int64GetDatum(counts->refused),
					  watermark};

	(void) bdd_plan_run_own(&mark, mark_values, NULL);
	if (slice->run_id != 0)
		(void) bdd_plan_run_own(&count, values, NULL);
	bdd_debug_point("sync-marked");
}

static List *
copy_texts(const List *texts)
{
	List *copies = NIL;
	ListCell *cell;

	foreach(cell, texts)
		copies = lappend(copies, lfirst(cell) != NULL ? pstrdup(lfirst(cell)) : NULL);
	return copies;
}

static void
add_totals(BddRun *run, const BddSlice *slice)
{
	const BddSyncCounts *counts = &slice->counts;

	run->totals.slices += counts->slices;
	run->totals.read += counts->read;
	run->totals.inserted += counts->inserted;
	run->totals.updated += counts->updated;
	run->totals.deleted += counts->deleted;
	run->totals.unchanged += counts->unchanged;
	run->totals.refused += counts->refused;
	bdd_progress_add(counts->read);
}

/* How many rows the next slice is to have. */
static int
slice_limit(const BddRun *run, const BddSync *sync)
{
	int64 limit = run->slice_rows > 0 ? run->slice_rows : sync->slice_rows;

	if (run->max_rows > 0)
		limit = Min(limit, run->max_rows - (int64) run->totals.read);
	return (int) Max(limit, 1);
}

/* What a slice says of the run, once it is committed. */
typedef struct BddStep
{
	BddPhase next;
	List *after;
	int64 kept;
	bool found;
	List *from; /* the watermark before the slice */
} BddStep;

/* Rows that are read in every run are nothing to tell of if they are as they were. */
static bool
is_nothing_new(const BddRun *run, BddSlice *slice, const BddSyncRows *rows, bool removals)
{
	BddSlice look = *slice;
	BddSyncCounts *counts = &look.counts;

	if (slice->sync->kind != BDD_CURSOR_FULL && run->phase != PHASE_NULLS)
		return false;
	look.dry_run = true;
	bdd_slice_write(&look, rows, removals);
	if (counts->inserted + counts->updated + counts->deleted + counts->refused > 0)
		return false;
	slice->counts = *counts;
	return true;
}

/* Writes what was found; the first time, a run begins. */
static void
write_found(BddRun *run, BddSlice *slice, BddStep *step, const BddSyncRows *rows, bool removals)
{
	if (rows->count == 0)
		return;
	step->found = true;
	if (!run->dry_run && slice->run_id == 0)
	{
		if (is_nothing_new(run, slice, rows, removals))
			return;
		slice->run_id = begin_run(run, slice->sync, step->from);
	}
	bdd_slice_write(slice, rows, removals);
}

/* What comes when all rows up to the bound are read. */
static BddPhase
after_rows(const BddSync *sync)
{
	if (sync->kind == BDD_CURSOR_TRIGGER)
		return PHASE_CAPTURED;
	if (bdd_sync_nullable(sync) != NIL)
		return PHASE_NULLS;
	return sync->delete_missing ? PHASE_MISSING : PHASE_DONE;
}

/* The next rows behind the watermark, which moves to the last of them. */
static void
slice_of_rows(BddRun *run, BddSlice *slice, BddStep *step)
{
	BddSync *sync = slice->sync;
	BddSyncRows rows = {0};

	/* Without a bound nothing is known to be complete yet. */
	if (sync->bound != NULL || sync->kind == BDD_CURSOR_FULL || sync->kind == BDD_CURSOR_TRIGGER)
		rows = bdd_slice_rows(slice);
	bdd_debug_point("sync-read");
	if (rows.count > 0)
		sync->watermark = bdd_slice_position(slice, &rows, sync->position);
	write_found(run, slice, step, &rows, false);
	if (rows.count >= slice->limit)
		return;
	step->next = after_rows(sync);
	if (sync->kind == BDD_CURSOR_TRIGGER)
	{
		sync->complete = true;
		sync->watermark = NIL;
	}
}

/* Rows whose cursor is NULL, by key, and first those without a key; each run reads all. */
static void
slice_of_nulls(BddRun *run, BddSlice *slice, BddStep *step)
{
	List *key = bdd_sync_source_key(slice->sync);
	BddSyncRows rows = bdd_slice_nulls(slice, run->after);
	BddSyncRows without_key = {0};

	if (run->after == NIL)
		without_key = bdd_slice_null_keys(slice);
	write_found(run, slice, step, &without_key, false);
	write_found(run, slice, step, &rows, false);
	if (rows.count > 0 && key != NIL)
		step->after = bdd_slice_position(slice, &rows, key);
	if (rows.count < slice->limit || key == NIL)
		step->next = slice->sync->delete_missing ? PHASE_MISSING : PHASE_DONE;
}

/* Removes or writes the rows of the next captured keys, and deletes the keys. */
static void
slice_of_captured(BddRun *run, BddSlice *slice, BddStep *step)
{
	BddSyncRows keys = bdd_capture_read(slice, run->after);
	BddSyncRows rows;

	if (keys.count > 0)
	{
		/* Values of unique columns are given up before they are taken. */
		rows = bdd_capture_rows(slice, &keys, true);
		write_found(run, slice, step, &rows, true);
		rows = bdd_capture_rows(slice, &keys, false);
		write_found(run, slice, step, &rows, false);
		if (!run->dry_run)
			bdd_capture_forget(slice, &keys);
		step->after = bdd_slice_position(slice, &keys, bdd_sync_source_key(slice->sync));
	}
	if (keys.count < slice->limit)
		step->next = slice->sync->truncated ? PHASE_MISSING : PHASE_DONE;
}

/* Removes rows that the source has no more.  An error, if it is empty or they come back. */
static void
slice_of_missing(BddRun *run, BddSlice *slice, BddStep *step)
{
	BddSync *sync = slice->sync;
	BddSyncRows rows = bdd_slice_missing(slice, run->kept);
	uint64 refused = slice->counts.refused;

	if (rows.count > 0 && sync->kind != BDD_CURSOR_TRIGGER && bdd_slice_source_is_empty(slice))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the source of sync \"%s\" is empty, so all rows of the target would be removed", sync->name),
				 errhint("Load the source; or, if this is meant, remove the rows of \"%s\" yourself.",
						 get_rel_name(sync->target))));
	if (rows.count > 0)
		step->after = list_make1(SPI_getvalue(rows.tuples[0], rows.desc,
											  SPI_fnumber(rows.desc, "batchdedup key")));
	/* Once more, without an end. */
	if (rows.count > 0 && run->after != NIL &&
		strcmp(linitial(step->after), linitial(run->after)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("rows that sync \"%s\" removes come back", sync->name),
				 errdetail("The row of \"%s\" with the key %s, for instance.",
						   get_rel_name(sync->target), (char *) linitial(step->after)),
				 errhint("See the triggers of the table.")));
	write_found(run, slice, step, &rows, true);
	/* Those that stay come first the next time. */
	step->kept += run->dry_run ? (int64) rows.count : (int64) (slice->counts.refused - refused);
	if (rows.count < slice->limit)
	{
		step->next = PHASE_DONE;
		sync->truncated = false;
	}
}

/* Reads the sync as it is now; false: it is not to run. */
static bool
begin_slice(BddRun *run, BddSync *sync)
{
	bdd_sync_read_existing(run->name, sync);
	bdd_sync_check_owner(sync);
	bdd_sync_check_still(sync);
	if (sync->paused)
		return false;
	sync->bound = run->reach.bound;
	if (run->dry_run && run->begun)
	{
		sync->watermark = run->watermark;
		sync->complete = run->complete;
	}
	if (run->phase == PHASE_ROWS && sync->kind == BDD_CURSOR_TRIGGER && sync->complete)
		run->phase = PHASE_CAPTURED;
	if (run->left < 0)
	{
		run->left = bdd_sync_estimate_left(sync);
		bdd_progress_begin("sync", sync->target, NULL, (uint64) run->left);
		bdd_progress_keep();
	}
	return true;
}

/* From here on nothing fails but the commit, after which the run ends. */
static void
take_step(BddRun *run, const BddSlice *slice, const BddStep *step)
{
	MemoryContext before = run->step_context;
	MemoryContext old_context;

	run->step_context = AllocSetContextCreate(run->context, "batchdedup sync step", ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(run->step_context);
	run->watermark = copy_texts(slice->sync->watermark);
	run->after = step->next == run->phase ? copy_texts(step->after) : NIL;
	run->sample = copy_texts(slice->sample);
	MemoryContextSwitchTo(old_context);
	if (before != NULL)
		MemoryContextDelete(before);
	run->run_id = slice->run_id;
	run->begun = true;
	run->complete = slice->sync->complete;
	run->kept = step->kept;
	run->phase = step->next;
	add_totals(run, slice);
}

/* A transaction's work.  What it leaves to the next slice is taken by take_step. */
static void
do_slice(BddRun *run)
{
	BddSync sync;
	BddSlice slice = {.sync = &sync,
					  .dry_run = run->dry_run,
					  .run_id = run->run_id,
					  .sample = list_copy(run->sample)};
	BddStep step = {.after = run->after, .kept = run->kept};

	if (!begin_slice(run, &sync))
	{
		run->paused = true;
		run->phase = PHASE_DONE;
		return;
	}
	step.next = run->phase;
	step.from = sync.watermark;
	slice.limit = slice_limit(run, &sync);
	switch (run->phase)
	{
		case PHASE_ROWS:
			slice_of_rows(run, &slice, &step);
			break;
		case PHASE_NULLS:
			slice_of_nulls(run, &slice, &step);
			break;
		case PHASE_CAPTURED:
			slice_of_captured(run, &slice, &step);
			break;
		case PHASE_MISSING:
			slice_of_missing(run, &slice, &step);
			break;
		case PHASE_DONE:
			break;
	}
	/* The end of a cycle of a sync without a cursor: the next run begins anew. */
	if (sync.kind == BDD_CURSOR_FULL && step.next == PHASE_DONE)
		sync.watermark = NIL;
	slice.counts.slices = step.found ? 1 : 0;
	if (!run->dry_run)
		save_slice(&slice);
	take_step(run, &slice, &step);
}

/* ---------- the run ---------- */

static void
prepare_log(BddRun *run)
{
	bdd_change_log_prepare();
	run->day = bdd_change_log_day();
}

/* A transaction's work: the run has ended without an error. */
static void
save_end(BddRun *run)
{
	static BddKeptPlan sync = {
		"UPDATE batchdedup.sync_row SET last_run_at = pg_catalog.clock_timestamp(), last_error = NULL, "
		"last_error_sqlstate = NULL, last_error_at = NULL "
		"WHERE name = $1",
		1,
		{TEXTOID}};
	static BddKeptPlan history = {
		"UPDATE batchdedup.sync_run_row SET finished_at = pg_catalog.clock_timestamp() WHERE id = $1", 1, {INT8OID}};
	Datum sync_values[] = {CStringGetTextDatum(run->name)};
	Datum history_values[] = {Int64GetDatum(run->run_id)};

	(void) bdd_plan_run_own(&sync, sync_values, NULL);
	if (run->run_id != 0)
		(void) bdd_plan_run_own(&history, history_values, NULL);
}

/* For save_error: a transaction's work has no argument but the run. */
static ErrorData *failed_with = NULL;

/* A transaction's work: the run has ended by the error in failed_with. */
static void
save_error(BddRun *run)
{
	static BddKeptPlan sync = {
		"UPDATE batchdedup.sync_row SET last_error = $2, last_error_sqlstate = $3, last_error_at = pg_catalog.clock_timestamp() "
		"WHERE name = $1",
		3,
		{TEXTOID, TEXTOID, TEXTOID}};
	static BddKeptPlan history = {
		"UPDATE batchdedup.sync_run_row SET error = $2, finished_at = pg_catalog.clock_timestamp() WHERE id = $1",
		2,
		{INT8OID, TEXTOID}};
	const char *state = unpack_sql_state(failed_with->sqlerrcode);
	Datum sync_values[] = {CStringGetTextDatum(run->name),
						   CStringGetTextDatum(failed_with->message), CStringGetTextDatum(state)};
	Datum history_values[] = {Int64GetDatum(run->run_id),
							  CStringGetTextDatum(psprintf("%s: %s", state, failed_with->message))};

	(void) bdd_plan_run_own(&sync, sync_values, NULL);
	if (run->run_id != 0)
		(void) bdd_plan_run_own(&history, history_values, NULL);
}

/* Writes down the error, but not in a dry run, and raises it again. */
static void
fail(BddRun *run, ErrorData *error)
{
	MemoryContext old_context = MemoryContextSwitchTo(run->context);

	if (!run->dry_run)
	{
		failed_with = error;
		(void) in_transaction(run, save_error, false);
	}
	MemoryContextSwitchTo(old_context);
	ReThrowError(error);
}

/*
 * Errors that come of what others do at the same time.  After a commit that
 * failed we have noted down more than has happened.
 */
static bool
is_worth_another_try(const BddRun *run, const ErrorData *error)
{
	return !run->not_committed &&
		   (error->sqlerrcode == ERRCODE_T_R_SERIALIZATION_FAILURE ||
			error->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED) &&
		   run->failures < bdd_retry_limit;
}

static void
wait_before_next_try(BddRun *run)
{
	(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 Min(bdd_backoff_ms(run->failures), 1000), PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
}

/* Until it is done, or fails for good. */
static void
do_transaction(BddRun *run, void (*work)(BddRun *run), bool repeatable)
{
	ErrorData *error;

	while ((error = in_transaction(run, work, repeatable)) != NULL)
	{
		if (!is_worth_another_try(run, error))
			fail(run, error);
		run->failures++;
		wait_before_next_try(run);
	}
	run->failures = 0;
}

/* Whether no slice is to follow.  A limit ends no slice, so it may be exceeded by one. */
static bool
is_at_limit(const BddRun *run)
{
	int ms = (int) Min(run->max_seconds * 1000, PG_INT32_MAX);

	return run->phase == PHASE_DONE ||
		   (run->max_slices > 0 && run->totals.slices >= run->max_slices) ||
		   (run->max_rows > 0 && run->totals.read >= run->max_rows) ||
		   (run->max_seconds > 0 && TimestampDifferenceExceeds(run->started,
															   GetCurrentTimestamp(), ms));
}

static void
tell_dry_run(const BddRun *run)
{
	const BddSyncCounts *counts = &run->totals;
	StringInfoData sample;
	ListCell *cell;

	initStringInfo(&sample);
	foreach(cell, run->sample)
		appendStringInfo(&sample, "%s%s", sample.len > 0 ? "\n" : "", (char *) lfirst(cell));
	ereport(NOTICE,
			(errmsg("sync \"%s\" would read " UINT64_FORMAT " rows: " UINT64_FORMAT " to insert, " UINT64_FORMAT
					" to update, " UINT64_FORMAT " to delete, " UINT64_FORMAT " unchanged, " UINT64_FORMAT " refused",
					run->name, counts->read, counts->inserted, counts->updated, counts->deleted,
					counts->unchanged, counts->refused),
			 sample.len > 0 ? errdetail("%s", sample.data) : 0));
}

/* A transaction's work: see BddBoundSearch. */
static void
find_bound(BddRun *run)
{
	bdd_sync_find_bound(&run->reach);
}

/* The run from its first transaction to its last. */
static void
run_slices(BddRun *run)
{
	run->reach = (BddBoundSearch){.name = run->name,
								  .dry_run = run->dry_run,
								  .started = run->started,
								  .context = run->context};
	do
		do_transaction(run, find_bound, false);
	while (run->reach.waits);
	while (!is_at_limit(run))
	{
		if (!run->dry_run && run->day != bdd_change_log_day())
			do_transaction(run, prepare_log, false);
		do_transaction(run, do_slice, true);
		bdd_debug_point("sync-committed");
	}
	if (run->paused)
		ereport(NOTICE, (errmsg("sync \"%s\" is paused", run->name)));
	else if (run->dry_run)
		tell_dry_run(run);
	if (!run->dry_run && (!run->paused || run->run_id != 0))
		do_transaction(run, save_end, false);
}

/* For the session, since the lock outlives the run's transactions; by the sync's owner alone. */
static void
lock_sync(BddRun *run)
{
	BddSync sync;

	bdd_spi_connect();
	bdd_sync_read_existing(run->name, &sync);
	bdd_sync_check_owner(&sync);
	copy_in(run, &sync);
	bdd_sync_lock(&sync, true);
	bdd_spi_finish();
}

/* run_sync(name, dry_run, max_slices, max_rows, max_seconds, slice_rows) */
Datum
bdd_run_sync(PG_FUNCTION_ARGS)
{
	MemoryContext context = AllocSetContextCreate(PortalContext, "batchdedup sync", ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	BddRun *run = palloc0(sizeof(BddRun));

	run->context = context;
	run->slice_context = AllocSetContextCreate(context, "batchdedup slice", ALLOCSET_DEFAULT_SIZES);
	run->started = GetCurrentTimestamp();
	run->left = -1;
	run->day = -1;
	take_arguments(fcinfo, run);
	bdd_check_preloaded();
	check_may_commit(fcinfo);
	PreventCommandDuringRecovery("run_sync()");
	PreventCommandIfReadOnly("run_sync()");
	MemoryContextSwitchTo(old_context);

	if (SPI_connect_ext(SPI_OPT_NONATOMIC) != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed");
	MemoryContextSwitchTo(context);
	lock_sync(run);
	PG_TRY();
	{
		run_slices(run);
	}
	PG_FINALLY();
	{
		bdd_progress_end();
		bdd_sync_unlock(run->sync);
	}
	PG_END_TRY();
	bdd_spi_finish();
	MemoryContextDelete(context);
	return (Datum) 0;
}
