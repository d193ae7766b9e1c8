/*-------------------------------------------------------------------------
 *
 * close.c
 *		Closing a target: nothing of it is left in the buffer.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/close.h"

#include "apply/apply.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/wake.h"
#include "commit/pending.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

/*
 * Rows that are pending would be published at commit, when the target is
 * closed already.
 */
static void
refuse_pending(Oid relid)
{
	BddPending *pending = bdd_pending_find(relid);

	if (pending != NULL && pending->set->count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("this transaction has upserted rows into \"%s\"",
						get_rel_name(relid)),
				 errhint("Commit it first.")));
}

/*
 * Brings what is buffered to the table and keeps writers out until the end of
 * the transaction.  Most is flushed before the lock is taken; the rest is
 * applied in this transaction.
 */
BddTarget *
bdd_close_target(Oid relid)
{
	BddTarget *target = bdd_target_open_any(relid, AccessShareLock);
	BddSharedSlot *slot = bdd_target_find_slot(target);
	TimestampTz since = GetCurrentTimestamp();

	refuse_pending(relid);
	if (slot != NULL && !target->options.paused &&
		target->broken == BDD_USABLE && !bdd_worker_unavailable(slot))
		bdd_wait_applied(slot, target->options.target_id,
						 bdd_request_flush(slot, true), since, true);
	target = bdd_target_open_any(relid, ShareRowExclusiveLock);
	slot = bdd_target_find_slot(target);
	if (slot != NULL && bdd_slot_has_unapplied(slot))
		bdd_apply_here(bdd_target_open(relid, ShareRowExclusiveLock));
	return target;
}
