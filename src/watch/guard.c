/*-------------------------------------------------------------------------
 *
 * guard.c
 *		Plain writers beside us.
 *
 * An INSERT, UPDATE, DELETE, MERGE or COPY of a target is not ordered against
 * rows that are in the buffer.  The target's option "guard" says what happens
 * when one starts while there are some.
 *
 *-------------------------------------------------------------------------
 */
#include "watch/guard.h"

#include "access/xact.h"
#include "apply/direct.h"
#include "base/compat.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "catalog/partition.h"
#include "commit/pending.h"
#include "executor/executor.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "nodes/plannodes.h"
#include "proxy/conflict.h"
#include "sql/catalog.h"
#include "sql/statement.h"
#include "storage/lmgr.h"
#include "target/target.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

static ExecutorStart_hook_type previous_start_hook = NULL;

/* Whether rows of the target are pending in this transaction or buffered. */
static bool
has_rows(BddTarget *target)
{
	BddPending *pending = bdd_pending_find(target->relid);

	/* A launcher that cannot read the journal does not stop plain writers. */
	if (bdd_journal_is_replayed() || target->options.guard == BDD_GUARD_FLUSH ||
		target->options.guard == BDD_GUARD_ERROR)
		(void) bdd_target_find_slot(target);
	/* What this transaction itself has discarded (TRUNCATE) is no row. */
	return (pending != NULL && pending->set->count > 0) ||
		   (target->slot != NULL && bdd_slot_has_unapplied(target->slot));
}

/*
 * Brings what is buffered into the table before the statement goes on. With
 * pending rows of its own the transaction writes directly from here on.
 */
static void
flush_first(BddTarget *target)
{
	TimestampTz since = GetCurrentTimestamp();
	BddPending *pending = bdd_pending_find(target->relid);

	if (pending != NULL && pending->set->count > 0)
	{
		bdd_direct_begin(target, pending);
		return;
	}
	if (target->slot != NULL && !target->options.paused)
		bdd_wait_applied(target->slot, target->options.target_id,
						 bdd_request_flush(target->slot, true), since,
						 bdd_may_read(target->relid));
}

/* The write counts in stat_target, whatever the guard does. */
static void
count_write(BddSharedSlot *slot)
{
	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->counts.foreign_writes++;
	LWLockRelease(&slot->lock);
}

/* Does what the target's option "guard" says. */
static void
act(BddTarget *target, bool *flushed)
{
	count_write(target->slot);
	switch (target->options.guard)
	{
		case BDD_GUARD_OFF:
			break;
		case BDD_GUARD_WARN:
			ereport(WARNING,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("table \"%s\" is written while rows for it are buffered",
							get_rel_name(target->relid)),
					 errdetail("Buffered rows are applied later, on top of this statement."),
					 errhint("Flush the target first, or set its option guard to flush, error or off.")));
			break;
		case BDD_GUARD_FLUSH:
			flush_first(target);
			*flushed = true;
			break;
		case BDD_GUARD_ERROR:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("table \"%s\" cannot be written while rows for it are buffered",
							get_rel_name(target->relid)),
					 errhint("Flush the target first with batchdedup.flush, or set its option guard to flush.")));
			break;
	}
}

/*
 * Whether a redirect of the target takes what the statement (NULL: COPY)
 * inserts into it, or into a partition of it.
 */
static bool
takes_rows(const BddTarget *target, Oid written, PlannedStmt *planned)
{
	return bdd_redirects(target) &&
		   bdd_conflict_of(planned, written, target).kind != BDD_CONFLICT_OTHER;
}

/* Rows of the target, if it is one, are written by way of table "written". */
static void
guard_target(Oid relid, Oid written, bool inserts, PlannedStmt *planned,
			 bool *flushed)
{
	BddTarget *target;

	if (bdd_is_known_not_target(relid))
		return;
	if (relid != written)
		LockRelationOid(relid, AccessShareLock);
	target = bdd_target_lookup(relid);
	if (target != NULL && target->options.guard != BDD_GUARD_OFF &&
		!(inserts && takes_rows(target, written, planned)) && has_rows(target))
		act(target, flushed);
}

/* Whether a target of this database has rows. */
static bool
anything_buffered(void)
{
	bool found = bdd_pending_has_rows();

	for (int i = 0; i < bdd_registry->slot_count && !found; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		found = slot->in_use && slot->database == MyDatabaseId &&
				bdd_slot_is_buffering(slot);
	}
	return found;
}

/*
 * A statement is about to write the table, which it has locked.  If it only
 * "inserts", a redirect may take the rows.  "flushed" is set if rows came into
 * the table that its snapshot does not see.
 */
void
bdd_guard_written(Oid relid, bool inserts, PlannedStmt *planned, bool *flushed)
{
	ListCell *cell;

	if (bdd_am_worker)
		return;
	guard_target(relid, relid, inserts, planned, flushed);
	/* Rows of a partition are in the buffer of the table that it belongs to. */
	if (get_rel_relispartition(relid) && anything_buffered())
		foreach(cell, get_partition_ancestors(relid))
			guard_target(lfirst_oid(cell), relid, inserts, planned, flushed);
}

/* In READ COMMITTED the statement shall see what was flushed for it. */
static void
renew_snapshot(QueryDesc *query)
{
	if (IsolationUsesXactSnapshot() || query->snapshot == InvalidSnapshot ||
		query->snapshot != GetActiveSnapshot())
		return;
	UnregisterSnapshot(query->snapshot);
	PopActiveSnapshot();
	PushActiveSnapshot(GetTransactionSnapshot());
	query->snapshot = RegisterSnapshot(GetActiveSnapshot());
}

/* The tables that a query writes, and their children, are looked at. */
static void
check_query(QueryDesc *query)
{
	PlannedStmt *planned = query->plannedstmt;
	List *inserts = NIL;
	List *tables = bdd_written_tables(planned, &inserts);
	bool flushed = false;
	ListCell *table;
	ListCell *insert;

	forboth(table, tables, insert, inserts)
		bdd_guard_written(lfirst_oid(table), lfirst_int(insert) != 0, planned,
						  &flushed);
	/* An UPDATE or DELETE goes down to children, which may be targets. */
	if (!bdd_am_worker && planned->commandType != CMD_INSERT && anything_buffered())
		foreach(table, bdd_written_children(planned, tables))
			guard_target(lfirst_oid(table), lfirst_oid(table), false, planned,
						 &flushed);
	if (flushed)
		renew_snapshot(query);
}

/*
 * Runs before each query; statements of the extension itself are let through.
 */
static void
executor_start(QueryDesc *query, int flags)
{
	PlannedStmt *planned = query->plannedstmt;

	if (!bdd_starts_own_statement() &&
		(planned->commandType != CMD_SELECT || planned->hasModifyingCTE) &&
		!(flags & EXEC_FLAG_EXPLAIN_ONLY))
		check_query(query);

	if (previous_start_hook != NULL)
		previous_start_hook(query, flags);
	else
		standard_ExecutorStart(query, flags);
}

/* Called once, in the postmaster. */
void
bdd_guard_init(void)
{
	previous_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}
