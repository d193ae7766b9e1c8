/*-------------------------------------------------------------------------
 *
 * due.c
 *		When the rows of a target are to be applied.
 *
 * An active generation is due when its oldest row is old enough, when it has keys
 * enough, when memory runs low, or when flush() asks for it.
 *
 *-------------------------------------------------------------------------
 */
#include "worker/due.h"

#include "access/xact.h"
#include "base/guc.h"
#include "buffer/flush_wait.h"
#include "target/options.h"
#include "target/target.h"
#include "utils/timestamp.h"

/* Milliseconds until then; 0: it is over. */
long
bdd_ms_until(TimestampTz at)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at);
}

/* The smaller of two waits, of which -1 is the longest. */
long
bdd_sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a :
							   Min(a, b);
}

/* False: the target is gone, or its create_target has yet to commit. */
bool
bdd_due_read(int32 target_id, Oid relid, BddDue *due)
{
	BddOptions options;
	bool found;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	found = bdd_options_read(relid, &options) &&
			options.target_id == target_id;
	if (found)
	{
		due->paused = options.paused;
		due->flush_interval_ms = options.flush_interval_ms >= 0 ?
									 options.flush_interval_ms :
									 bdd_flush_interval_ms;
		due->flush_rows = options.flush_rows >= 0 ?
							  options.flush_rows :
							  bdd_flush_rows;
		strlcpy(due->group,
				options.flush_group != NULL ? options.flush_group : "",
				sizeof(due->group));
	}
	else
		bdd_free_orphans();
	CommitTransactionCommand();
	return found;
}

/*
 * Milliseconds until the active generation is due; 0: now, -1: it has no
 * rows or time does not count.
 */
long
bdd_due_in(BddSharedSlot *slot, const BddDue *due)
{
	long wait = -1;

	LWLockAcquire(&slot->lock, LW_SHARED);
	if (slot->active != NULL && pg_atomic_read_u32(&slot->active->keys) > 0)
	{
		uint32 keys = pg_atomic_read_u32(&slot->active->keys);
		TimestampTz first = pg_atomic_read_u64(&slot->active->first_at);

		if (slot->wanted >= slot->active->number ||
			(due->flush_rows > 0 && keys >= due->flush_rows) ||
			bdd_above_seal_mark(slot))
			wait = 0;
		else if (due->flush_interval_ms > 0)
			wait = bdd_ms_until(TimestampTzPlusMilliseconds(first, due->flush_interval_ms));
	}
	else if (slot->active != NULL && slot->wanted >= slot->active->number)
		wait = 1; /* a publisher is about to bring the first row */
	LWLockRelease(&slot->lock);
	return wait;
}
