/*-------------------------------------------------------------------------
 *
 * wake.c
 *		Waking the launcher and the workers, and sending a worker away.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/wake.h"

#include "utils/timestamp.h"

/* The launcher may have ended: then the postmaster starts it anew. */
void
bdd_wake_launcher(void)
{
	Latch *latch = bdd_registry->launcher;

	if (latch != NULL)
		SetLatch(latch);
}

/*
 * Wakes the worker of the target's database, or the launcher to start one.
 * The caller has changed something before that the worker will find: a worker
 * that leaves clears its latch first and then looks once more.
 */
void
bdd_wake_worker(BddSharedSlot *slot)
{
	Latch *latch;

	pg_memory_barrier();
	latch = bdd_registry->workers[slot->worker].latch;
	if (latch != NULL)
		SetLatch(latch);
	else
		bdd_wake_launcher();
}

/*
 * No worker is there, and the last attempt to start one has failed: nobody
 * would apply what is published.
 */
bool
bdd_worker_unavailable(BddSharedSlot *slot)
{
	return bdd_registry->start_failed_at != 0 &&
		   bdd_registry->workers[slot->worker].state == BDD_WORKER_NONE;
}

/* As long as DROP DATABASE waits for others to leave, and a bit more. */
#define AWAY_MS 8000

/*
 * The database's worker leaves, and none comes for a while.  Returns until
 * when, for bdd_worker_may_return.
 */
TimestampTz
bdd_worker_leave(Oid database)
{
	TimestampTz until =
		TimestampTzPlusMilliseconds(GetCurrentTimestamp(), AWAY_MS);

	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedWorker *worker = &bdd_registry->workers[i];

		if (!OidIsValid(database) || worker->database != database)
			continue;
		worker->away_until = until;
		if (worker->latch != NULL)
			SetLatch(worker->latch);
	}
	LWLockRelease(&bdd_registry->worker_lock);
	return until;
}

/* Takes that back, unless somebody else has sent the worker away since. */
void
bdd_worker_may_return(Oid database, TimestampTz until)
{
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedWorker *worker = &bdd_registry->workers[i];

		if (worker->database == database && worker->away_until == until)
			worker->away_until = 0;
	}
	LWLockRelease(&bdd_registry->worker_lock);
	bdd_wake_launcher();
}
