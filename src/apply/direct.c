/*-------------------------------------------------------------------------
 *
 * direct.c
 *		Writing to the table in the caller's transaction.
 *
 * This is what batchdedup.enabled = off and mode "direct" do for every row, and
 * what a transaction too big for the buffer does.  Once it has begun to do so
 * for a target, all its further rows of that target go the same way.
 *
 * Rows are written as the caller.  But our statements read the table, as
 * every INSERT ... ON CONFLICT does, and a caller who may use the buffer need
 * not be allowed to: then they run as an apply does, as the owner.
 *-------------------------------------------------------------------------
 */
#include "apply/direct.h"

#include "apply/apply.h"
#include "apply/dead_letter.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/wake.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/keyorder.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

/* Whether our statements work for the caller: they name other columns, too. */
static bool
may_do_all(const BddTarget *target)
{
	const AclMode needed = ACL_SELECT | ACL_INSERT | ACL_UPDATE;

	return pg_class_aclmask(target->relid, GetUserId(), needed,
							ACLMASK_ALL) == needed;
}

/* An error tells nothing of columns that the caller may not read. */
static void
write_discreetly(BddTarget *target, BddRows *rows)
{
	MemoryContext context = CurrentMemoryContext;
	BddApplyCounts counts = {0};

	PG_TRY();
	{
		bdd_write_rows(target, rows->rows, rows->count, false, &counts);
	}
	PG_CATCH();
	{
		ErrorData *error;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("a row was refused by table \"%s\"",
						get_rel_name(target->relid)),
				 errhint("The details are shown to who may read the table.")));
	}
	PG_END_TRY();
}

/*
 * Writes as the caller, or as the owner if the caller's rights are not enough
 * or others have given the rows.  Own rows of a caller whom row-level security
 * binds are written as the caller in any case.
 */
static void
write_rows(BddTarget *target, BddRows *rows, bool others_rows)
{
	BddApplyCounts counts = {0};
	BddSavedRole saved;
	bool discreet = !bdd_may_read(target->relid);
	bool as_owner = (others_rows || !may_do_all(target)) &&
					(others_rows ||
					 check_enable_rls(target->relid, InvalidOid,
									  true) != RLS_ENABLED);

	(void) bdd_rows_fold_equal(target, rows);
	if (as_owner)
	{
		bdd_become_owner_of(target->owner, &saved);
		bdd_constraints_immediate(target->relid);
	}
	if (as_owner && discreet)
		write_discreetly(target, rows);
	else
		bdd_write_rows(target, rows->rows, rows->count, false, &counts);
	if (as_owner)
		bdd_restore_role(&saved);
	bdd_supersede_dead_letters(target, rows, NIL);
}

/*
 * What is pending is ours to write from here on, and so is what triggers push
 * while we do: the rows, as they are now.
 */
static BddRows
take_pending(BddPending *pending)
{
	BddRows rows = {0};
	dlist_iter iter;

	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingVersion *version =
			dlist_container(BddPendingRow, set_link, iter.cur)->newest;

		bdd_rows_add(&rows, version->ordinal, &version->image);
	}
	bdd_pending_go_direct(pending);
	return rows;
}

/*
 * Rows that another role has pushed were checked for that role: they are
 * written as the owner.
 */
static void
write_taken(BddTarget *target, BddPending *pending, BddRows *rows)
{
	if (rows->count > 0)
		write_rows(target, rows, pending->several_roles || pending->role != GetUserId());
}

/* Waits for the flush of what others have published. */
static void
flush_published(BddTarget *target, BddSharedSlot *slot)
{
	TimestampTz since = GetCurrentTimestamp();
	uint64 number;
	BddOptions options;

	if (bdd_slot_is_buffering(slot) &&
		bdd_options_read(target->relid, &options) && options.paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("target \"%s\" is paused, and rows for it are buffered",
						get_rel_name(target->relid)),
				 errdetail("They come before rows that are written directly."),
				 errhint("Resume the target with batchdedup.resume.")));
	number = bdd_request_flush(slot, true);
	while (bdd_slot_is_buffering(slot) && bdd_worker_unavailable(slot))
	{
		/*
		 * No worker will apply what others have published.  Two transactions
		 * that want the stronger lock would wait for each other.
		 */
		if (ConditionalLockRelationOid(target->relid, ShareRowExclusiveLock))
		{
			bdd_apply_here(target);
			break;
		}
		bdd_wait_quiet_step();
	}
	/* Rows that this transaction has applied itself need no worker. */
	if (!bdd_worker_unavailable(slot) && bdd_slot_has_unapplied(slot))
		bdd_wait_applied(slot, target->options.target_id, number, since,
						 bdd_may_read(target->relid));
}

/*
 * Rows that others have published before must not end on top of ours: wait
 * once for their flush, then write what is pending.
 */
void
bdd_direct_begin(BddTarget *target, BddPending *pending)
{
	BddSharedSlot *slot = bdd_target_find_slot(target);
	BddRows rows;

	if (slot != NULL)
		flush_published(target, slot);
	rows = take_pending(pending);
	write_taken(target, pending, &rows);
}

/*
 * Before the table changes: brings all that is buffered, and what this
 * transaction has pending, into it.  The caller holds a lock that keeps
 * writers out.
 */
void
bdd_direct_settle(BddTarget *target)
{
	BddPending *pending = bdd_pending_get(target->relid,
										  target->options.target_id,
										  bdd_target_slot(target),
										  &target->shape);
	BddRows rows = take_pending(pending);

	bdd_apply_here(target);
	write_taken(target, pending, &rows);
}

/* One row, at once; bdd_direct_begin has written what was pending. */
void
bdd_direct_write(BddTarget *target, const BddImage *image)
{
	BddRows rows = {0};

	bdd_rows_add(&rows, 1, image);
	write_rows(target, &rows, false);
	pfree(rows.rows);
}
