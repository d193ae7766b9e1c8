/*-------------------------------------------------------------------------
 *
 * batch_wait.c
 *		wait_batch: waiting until a batch is in a status.
 *
 * A call sleeps on a condition variable that a commit which changes a status
 * broadcasts (barrier_hint.c), and looks at the batch with a new snapshot each
 * time.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/xact.h"
#include "base/loaded.h"
#include "batch/barrier_hint.h"
#include "batch/batch.h"
#include "buffer/flush_wait.h"
#include "buffer/registry.h"
#include "buffer/slot.h"
#include "catalog/pg_type_d.h"
#include "commit/pending.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "target/target.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

PG_FUNCTION_INFO_V1(bdd_wait_batch);

typedef enum BddWait
{
	WAIT_ON,
	WAIT_REACHED,
	WAIT_NEVER /* the batch has ended without */
} BddWait;

/* Looks at what is committed now, whatever the transaction's snapshot. */
static BddWait
look_at_status(const pg_uuid_t *batch, text *status)
{
	static BddKeptPlan select = {
		"SELECT $2 = ANY (reached), status IN ('completed', 'failed', 'cancelled') FROM batchdedup.batch_row WHERE id = $1",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(batch), PointerGetDatum(status)};
	bool isnull;
	bool reached;
	bool ended;

	if (bdd_plan_run_now(&select, values, NULL) == 0)
		bdd_batch_report_missing(batch);
	reached = DatumGetBool(bdd_spi_value(0, 1, &isnull));
	ended = DatumGetBool(bdd_spi_value(0, 2, &isnull));
	SPI_freetuptable(SPI_tuptable);
	return reached ? WAIT_REACHED : ended ? WAIT_NEVER :
											WAIT_ON;
}

/*
 * A transaction with an xid may hold locks that the worker waits for: then the
 * wait is for the worker's transaction, so that the server sees a deadlock.
 */
static void
wait_a_while(long ms)
{
	BddSharedSlot *slot = NULL;

	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		slot = bdd_slot_find_by_table(bdd_catalog_relation("file"));
	if (slot != NULL)
		bdd_wait_for_applier(slot);
	(void) ConditionVariableTimedSleep(&bdd_barrier->changed,
									   slot != NULL ? Min(ms, 10) : ms,
									   PG_WAIT_EXTENSION);
}

/*
 * Milliseconds; of a very long interval no more than can be counted as
 * microseconds.
 */
static long
ms_of(Interval *timeout)
{
	double ms = 1000.0 * DatumGetFloat8(DirectFunctionCall2(interval_part,
															CStringGetTextDatum("epoch"),
															IntervalPGetDatum(timeout)));

	return ms <= 0 ? 0 : ms >= LONG_MAX / 2000 ? LONG_MAX / 2000 :
												 (long) ms;
}

/* A name that no batch will ever have is a mistake, not a long wait. */
static void
check_status_exists(text *status)
{
	static BddKeptPlan select = {
		"SELECT FROM batchdedup.batch_transition WHERE $1 IN (from_status, to_status) LIMIT 1",
		1,
		{TEXTOID}};
	Datum value = PointerGetDatum(status);

	if (bdd_plan_run(&select, &value, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("there is no status \"%s\"", text_to_cstring(status)),
				 errhint("See batchdedup.batch_transition.")));
}

/* Whether the batch has reached the status before the time is over. */
static bool
wait_for_status(const pg_uuid_t *batch, text *status, long ms)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), ms);
	BddWait state;

	ConditionVariablePrepareToSleep(&bdd_barrier->changed);
	while ((state = look_at_status(batch, status)) == WAIT_ON)
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		CHECK_FOR_INTERRUPTS();
		if (left <= 0)
			break;
		/* A lost wake-up costs a second at most. */
		wait_a_while(Min(left, 1000));
	}
	ConditionVariableCancelSleep();
	return state == WAIT_REACHED;
}

/*
 * wait_batch(batch, status, timeout): true once the batch is or has been in
 * that status; false: time is over, or the batch has ended without
 */
Datum
bdd_wait_batch(PG_FUNCTION_ARGS)
{
	BddSavedRole saved;
	pg_uuid_t *batch;
	bool reached;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "status");
	bdd_check_argument(fcinfo, 2, "timeout");
	bdd_check_preloaded();
	PreventCommandDuringRecovery("wait_batch()");
	bdd_check_may_wait();
	batch = PG_GETARG_UUID_P(0);
	if (bdd_barrier_noted(batch) && bdd_pending_has_rows())
		ereport(ERROR,
				(errcode(ERRCODE_ACTIVE_SQL_TRANSACTION),
				 errmsg("cannot wait for a batch whose files this transaction has completed"),
				 errhint("Commit first: nobody counts them before.")));
	bdd_own_begin(&saved);
	check_status_exists(PG_GETARG_TEXT_PP(1));
	reached = wait_for_status(batch, PG_GETARG_TEXT_PP(1), ms_of(PG_GETARG_INTERVAL_P(2)));
	bdd_own_end(&saved);
	PG_RETURN_BOOL(reached);
}
