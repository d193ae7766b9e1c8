/*-------------------------------------------------------------------------
 *
 * flush_wait.c
 *		Waiting until a generation is applied, or until there is room.
 *
 * A waiter for an apply may hold row locks that the apply needs.  Hence the
 * wait is for the lock on the applying transaction's virtual xid: the server's
 * deadlock detector sees it, and its victim is the waiter.  Between applies
 * the wait is on the slot's condition variable.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/flush_wait.h"

#include "base/guc.h"
#include "buffer/generation.h"
#include "buffer/slot.h"
#include "buffer/wake.h"
#include "miscadmin.h"
#include "storage/lmgr.h"
#include "storage/proc.h"
#include "utils/lsyscache.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* A lost wake-up costs this long at most. */
#define WAIT_STEP_MS 100

/*
 * Asks for all that is published now to be applied; returns the number of the
 * generation to wait for.  "at_once": also if a failed apply is to wait.
 */
uint64
bdd_request_flush(BddSharedSlot *slot, bool at_once)
{
	uint64 number;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	number = slot->next_generation - 1;
	if (slot->active != NULL &&
		pg_atomic_read_u32(&slot->active->keys) == 0 &&
		pg_atomic_read_u32(&slot->active->publishers) == 0)
		number--; /* nothing in it yet */
	slot->wanted = Max(slot->wanted, number);
	if (at_once)
		slot->failure.retry_at = 0;
	LWLockRelease(&slot->lock);
	if (number > slot->applied)
		bdd_wake_worker(slot);
	return number;
}

/*
 * Waits for the end of the transaction.  The server looks for a deadlock only
 * once in a wait, and the applier may come to a row of ours long after that:
 * so we have it look again and again.
 */
static void
wait_for_transaction(VirtualTransactionId vxid)
{
	static TimeoutId check_again = MAX_TIMEOUTS;

	if (check_again == MAX_TIMEOUTS)
		check_again = RegisterTimeout(USER_TIMEOUT, CheckDeadLockAlert);
	enable_timeout_every(check_again,
						 TimestampTzPlusMilliseconds(GetCurrentTimestamp(),
													 2 * DeadlockTimeout),
						 2 * DeadlockTimeout);
	PG_TRY();
	{
		(void) VirtualXactLock(vxid, true);
	}
	PG_FINALLY();
	{
		disable_timeout(check_again, false);
	}
	PG_END_TRY();
}

/*
 * Waits for what the target's worker applies now, whatever it is; false: it
 * applies nothing.
 */
bool
bdd_wait_for_applier(BddSharedSlot *slot)
{
	VirtualTransactionId applier;

	LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
	applier = bdd_registry->workers[slot->worker].applier;
	LWLockRelease(&bdd_registry->worker_lock);

	CHECK_FOR_INTERRUPTS();
	if (VirtualTransactionIdIsValid(applier))
		wait_for_transaction(applier);
	return VirtualTransactionIdIsValid(applier);
}

/* One step of waiting; the caller has prepared to sleep on slot->changed. */
static void
wait_step(BddSharedSlot *slot)
{
	bool applied = bdd_wait_for_applier(slot);

	(void) ConditionVariableTimedSleep(&slot->changed,
									   applied ? 1 : WAIT_STEP_MS,
									   PG_WAIT_EXTENSION);
}

/* Raises the error of an apply that failed while we waited. */
static void
report_failure(BddSharedSlot *slot, const BddSharedFailure *failure,
			   bool may_read)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("rows of \"%s\" could not be applied",
					get_rel_name(slot->relid)),
			 may_read ? errdetail("SQLSTATE %s: %s",
								  unpack_sql_state(failure->sqlstate),
								  failure->message) :
						errdetail("SQLSTATE %s.", unpack_sql_state(failure->sqlstate)),
			 errhint("Nothing is lost: the rows stay in the buffer and are tried again. See batchdedup.stat_target.")));
}

/* A worker would wait for itself. */
void
bdd_check_may_wait(void)
{
	if (bdd_am_worker)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("a trigger that runs while rows are applied cannot wait for a flush")));
}

/* Nothing would apply the rows: an error rather than a wait without end. */
static void
report_no_worker(void)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
			 errmsg("no worker process could be started to apply buffered rows"),
			 errhint("Raise max_worker_processes. Until then rows are written in their callers' transactions.")));
}

/* The worker has found the target paused after the wait had begun. */
static void
report_paused(BddSharedSlot *slot)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("target \"%s\" is paused", get_rel_name(slot->relid)),
			 errdetail("It waits too if another target of its flush_group is paused."),
			 errhint("Resume it with batchdedup.resume, and commit that.")));
}

/*
 * Waits until generations up to "number" are applied.  An apply that fails
 * after "since" is an error, which has its message if the caller may read the
 * table.
 */
void
bdd_wait_applied(BddSharedSlot *slot, int32 target_id, uint64 number,
				 TimestampTz since, bool may_read)
{
	bdd_check_may_wait();
	ConditionVariablePrepareToSleep(&slot->changed);
	for (;;)
	{
		BddSharedFailure failure;
		TimestampTz paused_at;
		bool done;

		LWLockAcquire(&slot->lock, LW_SHARED);
		failure = slot->failure;
		paused_at = slot->found_paused_at;
		done = !bdd_slot_belongs_to(slot, target_id) ||
			   !bdd_slot_waits_for(slot, number);
		LWLockRelease(&slot->lock);

		if (done)
			break;
		if (failure.count > 0 && !failure.passing && failure.at >= since)
			report_failure(slot, &failure, may_read);
		if (paused_at >= since)
			report_paused(slot);
		if (bdd_worker_unavailable(slot))
			report_no_worker();
		wait_step(slot);
	}
	ConditionVariableCancelSleep();
}

/* Whether "percent" of the pool, or of what one target may hold, is in use. */
static bool
above(BddSharedSlot *slot, uint32 percent)
{
	uint64 usable = bdd_pool->total - bdd_pool->reserve;

	return pg_atomic_read_u32(&bdd_pool->used) * (uint64) 100 >=
			   usable * percent ||
		   pg_atomic_read_u32(&slot->budget.used) * (uint64) 100 >=
			   bdd_budget_limit() * (uint64) percent;
}

/* Here calls begin to wait. */
bool
bdd_above_high_water(BddSharedSlot *slot)
{
	return above(slot, 90);
}

/* Here the worker seals. */
bool
bdd_above_seal_mark(BddSharedSlot *slot)
{
	return above(slot, 50);
}

/* on_full => 'error', or nobody made room in time. */
static void
report_full(BddSharedSlot *slot, bool waited)
{
	ConditionVariableCancelSleep();
	ereport(ERROR,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("the buffer of \"%s\" is full",
					get_rel_name(slot->relid)),
			 waited ?
				 errdetail("No room came free within batchdedup.full_timeout (%d ms).",
						   bdd_full_timeout_ms) :
				 0,
			 errhint("See batchdedup.stat_target for a target that is paused or cannot be applied, or raise batchdedup.buffer_size.")));
}

/* on_full => 'error': the worker is woken, but not waited for. */
void
bdd_report_full(BddSharedSlot *slot)
{
	bdd_wake_worker(slot);
	report_full(slot, false);
}

/* Memory may be held by any target of the server. */
static void
ask_for_room(BddSharedSlot *slot)
{
	(void) bdd_request_flush(slot, false);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *other = &bdd_registry->slots[i];

		if (!other->in_use || pg_atomic_read_u32(&other->budget.used) == 0)
			continue;
		bdd_free_abandoned(other);
		bdd_free_applied(other, InvalidTransactionId);
		bdd_wake_worker(other);
	}
}

/*
 * Waits a while for memory to come free, until the target is below the
 * high-water mark.  "started" is when the caller began to wait.  The caller
 * has entered no generation.
 */
void
bdd_wait_for_room(BddSharedSlot *slot, TimestampTz started)
{
	if (bdd_am_worker)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("a trigger that runs while rows are applied found the buffer full")));

	ConditionVariablePrepareToSleep(&slot->changed);
	do
	{
		if (TimestampDifferenceExceeds(started, GetCurrentTimestamp(),
									   bdd_full_timeout_ms))
			report_full(slot, true);
		ask_for_room(slot);
		wait_step(slot);
	} while (bdd_above_high_water(slot));
	ConditionVariableCancelSleep();
}

/* ---------- waiting for publishers ---------- */

/* One step of waiting for publishers, which do not wake us. */
void
bdd_wait_quiet_step(void)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 1, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/*
 * Waits for the last publisher of a sealed generation: it is about to commit
 * or abort, and waits for nothing that the caller holds.  The generation may
 * go away meanwhile, hence it is looked up each time.
 */
void
bdd_wait_quiet(BddSharedSlot *slot, uint64 number)
{
	while (!bdd_is_quiet(slot, number))
		bdd_wait_quiet_step();
}
