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
 * not be allowed to: for him they run as an apply does, as the owner.
 *-------------------------------------------------------------------------
 */
#include "direct.h"

#include "apply.h"
#include "dead_letter.h"
#include "flush_wait.h"
#include "keyorder.h"
#include "miscadmin.h"
#include "spi_util.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/timestamp.h"

static bool
may_read(const BddTarget *target)
{
	return pg_class_aclcheck(target->relid, GetUserId(),
							 ACL_SELECT) == ACLCHECK_OK;
}

/* Whether our statements work for the caller: they name other columns, too. */
static bool
may_do_all(const BddTarget *target)
{
	const AclMode needed = ACL_SELECT | ACL_INSERT | ACL_UPDATE;

	return pg_class_aclmask(target->relid, GetUserId(), needed,
							ACLMASK_ALL) == needed;
}

static void
write_rows(BddTarget *target, BddRows *rows, bool others_rows)
{
	BddApplyCounts counts = {0};
	BddIdentity saved;
	bool as_owner = (others_rows || !may_do_all(target)) &&
					(others_rows ||
					 check_enable_rls(target->relid, InvalidOid,
									  true) != RLS_ENABLED);

	bdd_rows_fold_equal(target, rows);
	if (as_owner)
	{
		bdd_become_owner_of(target->owner, &saved);
		bdd_constraints_immediate(target);
	}
	bdd_write_rows(target, rows->rows, rows->count, &counts);
	if (as_owner)
		bdd_become_again(&saved);
	bdd_supersede_dead_letters(target, rows, NIL);
}

static void
write_pending(BddTarget *target, BddPending *pending)
{
	BddRows rows = {0};
	dlist_iter iter;

	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingVersion *version =
			dlist_container(BddPendingRow, set_link, iter.cur)->newest;

		bdd_rows_add(&rows, version->ordinal, &version->image);
	}
	if (rows.count == 0)
		return;
	write_rows(target, &rows, pending->several_roles || pending->role != GetUserId());
	pfree(rows.rows);
}

/*
 * Rows that others have published before must not end on top of ours: wait
 * once for their flush, then write what is pending.
 */
void
bdd_direct_begin(BddTarget *target, BddPending *pending)
{
	BddSharedSlot *slot = bdd_target_slot(target);
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
	if (bdd_slot_is_buffering(slot) && bdd_worker_unavailable(slot))
	{
		/* Nobody else will apply what others have published. */
		LockRelationOid(target->relid, ShareRowExclusiveLock);
		bdd_apply_here(target);
	}
	else
		bdd_wait_applied(slot, target->options.target_id, number, since,
						 may_read(target));
	write_pending(target, pending);
	bdd_pending_go_direct(pending);
}

/*
 * Before the table changes: brings all that is buffered, and what this
 * transaction has pending, into it.  The caller holds a lock that keeps
 * writers out.
 */
void
bdd_direct_settle(BddTarget *target)
{
	BddPending *pending = bdd_pending_find(target->relid);

	bdd_apply_here(target);
	if (pending != NULL && pending->set->count > 0)
	{
		write_pending(target, pending);
		bdd_pending_go_direct(pending);
	}
}

void
bdd_direct_write(BddTarget *target, const BddImage *image)
{
	BddRows rows = {0};

	bdd_rows_add(&rows, 1, image);
	write_rows(target, &rows, false);
	pfree(rows.rows);
}
