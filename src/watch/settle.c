/*-------------------------------------------------------------------------
 *
 * settle.c
 *		Bringing buffered rows into the table before a statement changes it.
 *
 * Rows in the buffer have the shape of the table as it was, and were checked
 * against what it accepted then.
 *
 *-------------------------------------------------------------------------
 */
#include "watch/settle.h"

#include "apply/direct.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "buffer/slot.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commit/pending.h"
#include "commit/xact.h"
#include "journal/state.h"
#include "target/target.h"
#include "utils/lsyscache.h"

/* Whether the relation is of a kind that targets are of. */
bool
bdd_can_be_target(Oid relid)
{
	char kind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';

	return kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE;
}

/* Whether the relation is registered as a target now. */
bool
bdd_is_target(Oid relid)
{
	BddOptions options;

	return bdd_can_be_target(relid) && bdd_options_read(relid, &options);
}

/* Whether there are rows that the table does not have yet. */
bool
bdd_has_unapplied(BddSharedSlot *slot, BddPending *pending)
{
	return (pending != NULL && pending->set->count > 0) ||
		   (slot != NULL && bdd_slot_has_unapplied(slot));
}

/* Rows of this transaction are not published; they come back on rollback. */
void
bdd_set_pending_aside(Oid relid)
{
	BddPending *pending = bdd_pending_find(relid);

	if (pending != NULL)
		bdd_pending_set_aside(pending);
}

/*
 * Locks the target and brings all its rows into the table.  A target that
 * cannot be used as it is does not matter while it has none (a dump is
 * restored before its indexes are made), or unless they "must" be there.
 */
static void
settle_if(Oid relid, LOCKMODE lockmode, bool must)
{
	BddSharedSlot *slot;
	BddPending *pending;

	if (bdd_target_open_any(relid, lockmode)->broken != BDD_USABLE && !must)
		return;
	bdd_journal_wait_replayed();
	slot = bdd_slot_find_by_table(relid);
	pending = bdd_pending_find(relid);
	if (bdd_has_unapplied(slot, pending))
		bdd_direct_settle(bdd_target_open(relid, lockmode));
	else if (slot != NULL)
		bdd_at_commit_mark_applied(slot, 0);
}

/* Locks the target and brings all its rows into the table, or fails. */
void
bdd_settle(Oid relid, LOCKMODE lockmode)
{
	settle_if(relid, lockmode, true);
}

/*
 * Rows of a partition are in the buffer of the table that it belongs to; but
 * nobody needs those of "emptied" tables.
 */
void
bdd_settle_ancestors(Oid relid, List *emptied)
{
	ListCell *cell;

	if (!OidIsValid(relid) || !get_rel_relispartition(relid))
		return;
	foreach(cell, get_partition_ancestors(relid))
		if (bdd_is_target(lfirst_oid(cell)) &&
			!list_member_oid(emptied, lfirst_oid(cell)))
			bdd_settle(lfirst_oid(cell), ShareRowExclusiveLock);
}

/* Brings the rows of the table into it, and those of tables below it. */
void
bdd_settle_tree(Oid relid, LOCKMODE lockmode, bool must)
{
	ListCell *cell;

	foreach(cell, find_all_inheritors(relid, lockmode, NULL))
		if (bdd_is_target(lfirst_oid(cell)))
			settle_if(lfirst_oid(cell), lockmode, must);
}
