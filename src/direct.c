/*-------------------------------------------------------------------------
 *
 * direct.c
 *		Writing to the table in the caller's transaction.
 *
 * A transaction too big for the buffer writes to the table itself, as the
 * caller and with the rules of an apply.  Once it has begun to do so for a
 * target, all its further rows of that target go the same way.
 *
 *-------------------------------------------------------------------------
 */
#include "direct.h"

#include "apply.h"
#include "flush_wait.h"
#include "keyorder.h"
#include "miscadmin.h"
#include "spi_util.h"
#include "utils/acl.h"

static void
write_rows(BddTarget *target, BddRows *rows)
{
	BddApplyCounts counts = {0};

	bdd_rows_fold_equal(target, rows);
	bdd_write_rows(target, rows->rows, rows->count, &counts);
}

static void
write_pending(BddTarget *target, BddPending *pending)
{
	BddRows		rows = {0};
	dlist_iter	iter;

	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingVersion *version =
			dlist_container(BddPendingRow, set_link, iter.cur)->newest;

		bdd_rows_add(&rows, version->ordinal, &version->image);
	}
	if (rows.count == 0)
		return;
	write_rows(target, &rows);
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
	uint64		number = bdd_request_flush(slot);
	bool		may_read = pg_class_aclcheck(target->relid, GetUserId(),
											 ACL_SELECT) == ACLCHECK_OK;

	bdd_wait_applied(slot, target->options.target_id, number, may_read);
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
	BddRows		rows = {0};

	bdd_rows_add(&rows, 1, image);
	write_rows(target, &rows);
	pfree(rows.rows);
}
