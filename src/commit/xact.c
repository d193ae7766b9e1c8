/*-------------------------------------------------------------------------
 *
 * xact.c
 *		The commit protocol.
 *
 * A call takes RowExclusiveLock on the table and keeps it, checks and encodes
 * the row, and adds it to the pending rows.
 *
 * PRE_COMMIT does all that may fail.  It publishes its floor, enters the active
 * generations of all targets of the transaction in one hold of the registry
 * lock, takes as many sequence numbers as there are rows, and reserves an entry
 * and a filled, unlinked version for each row.  A transaction that finds no
 * memory leaves every generation that it has entered before it waits: to wait
 * for the flush of a generation one is in would be to wait for oneself.
 *
 * COMMIT writes the journal message, links the versions and leaves the
 * generations.  Nothing in it allocates or raises.
 *
 * ABORT gives everything back.  An entry without a version is invisible, and
 * goes with its generation.
 *
 * Publishing is over before the transaction's locks are released.  So a process
 * with a lock on the table that conflicts with RowExclusiveLock meets neither
 * pending rows nor publishers of others: alter_target, drop_target and the
 * checks in ddl.c rely on it.
 *
 *-------------------------------------------------------------------------
 */
#include "commit/xact.h"

#include "access/xact.h"
#include "base/debug_point.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/slot.h"
#include "buffer/wake.h"
#include "commit/journal_write.h"
#include "commit/pending.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Where this backend's transaction is in the protocol. */
static enum
{
	COLLECTING, /* calls push rows */
	RESERVING,  /* in PRE_COMMIT */
	RESERVED    /* PRE_COMMIT is done: nothing may be pushed */
} phase = COLLECTING;

/* Other changes of shared memory that wait for the end of the transaction. */
typedef enum BddActionKind
{
	FREE_SLOT,
	FREE_DATABASE,
	MARK_APPLIED,
	WAKE_WORKER,
	CREATED_TARGET /* its slot goes if it is rolled back */
} BddActionKind;

typedef struct BddAction
{
	struct BddAction *next; /* older */
	BddActionKind kind;
	int nesting;
	BddSharedSlot *slot;
	int32 target_id;
	Oid database;
	uint64 number;
} BddAction;

static BddAction *actions = NULL;

/* ---------- actions at commit ---------- */

/*
 * Actions are forgotten if the subtransaction that adds them is rolled back;
 * they live in TopTransactionContext.
 */
static BddAction *
add_action(BddActionKind kind, BddSharedSlot *slot)
{
	BddAction *action = MemoryContextAllocZero(TopTransactionContext,
											   sizeof(BddAction));

	action->kind = kind;
	action->nesting = GetCurrentTransactionNestLevel();
	action->slot = slot;
	action->target_id = slot != NULL ? slot->target_id : 0;
	action->next = actions;
	actions = action;
	return action;
}

/* The target is dropped, with what is buffered for it. */
void
bdd_at_commit_free_slot(BddSharedSlot *slot)
{
	(void) add_action(FREE_SLOT, slot);
}

/* The database is dropped, with what is buffered for it. */
void
bdd_at_commit_free_database(Oid database)
{
	add_action(FREE_DATABASE, NULL)->database = database;
}

/* The transaction has applied generations up to "number". */
void
bdd_at_commit_mark_applied(BddSharedSlot *slot, uint64 number)
{
	add_action(MARK_APPLIED, slot)->number = number;
}

/* The transaction has changed something that the worker waits for. */
void
bdd_at_commit_wake_worker(BddSharedSlot *slot)
{
	(void) add_action(WAKE_WORKER, slot);
}

/*
 * The transaction registers the target: rolled back, the target gives up the
 * slot that it may have got meanwhile.
 */
void
bdd_at_abort_free_slot(int32 target_id)
{
	add_action(CREATED_TARGET, NULL)->target_id = target_id;
}

/* Nobody else can have used the slot. */
static void
undo_action(BddAction *action)
{
	if (action->kind != CREATED_TARGET)
		return;
	for (int i = 0; i < bdd_registry->slot_count; i++)
		bdd_slot_free(&bdd_registry->slots[i], MyDatabaseId,
					  action->target_id);
}

/* Gives up all slots of a database that is dropped. */
static void
free_slots_of(Oid database)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->database == database)
			bdd_slot_free(slot, database, slot->target_id);
	}
}

/* Does what was put off to COMMIT: slots and marks in shared memory. */
static void
run_actions(void)
{
	for (BddAction *action = actions; action != NULL; action = action->next)
		switch (action->kind)
		{
			case FREE_SLOT:
				bdd_slot_free(action->slot, MyDatabaseId,
							  action->target_id);
				break;
			case FREE_DATABASE:
				free_slots_of(action->database);
				break;
			case MARK_APPLIED:
				bdd_generation_applied(action->slot, action->target_id,
									   action->number);
				/* Nobody can read rows of a shape that the table had. */
				if (bdd_slot_belongs_to(action->slot, action->target_id))
					bdd_free_applied(action->slot, InvalidTransactionId);
				bdd_wake_worker(action->slot);
				break;
			case WAKE_WORKER:
				bdd_wake_worker(action->slot);
				break;
			case CREATED_TARGET:
				break;
		}
	actions = NULL;
}

/* ---------- PRE_COMMIT ---------- */

/*
 * The most bytes of one transaction that go through the buffer; more are
 * written to the table directly.  Half a target's share: it fits once what
 * is there has been flushed.
 */
Size
bdd_largest_transaction(void)
{
	Size chunks = bdd_budget_limit() / 2;

	/* Each partition may leave a chunk half empty. */
	return chunks <= 2 * BDD_PARTITIONS ? chunks * BDD_CHUNK_ROOM / 3 :
										  (chunks - BDD_PARTITIONS - 1) * BDD_CHUNK_ROOM;
}

/* Rows that came after PRE_COMMIT has looked would never be published. */
void
bdd_check_can_push(void)
{
	if (phase != COLLECTING)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("rows cannot be upserted while the transaction commits")));
}

/* Gives back what reserve_all has taken so far. */
static void
release_all(void)
{
	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
	{
		dlist_iter iter;

		if (pending->generation == NULL)
			continue;
		dlist_foreach(iter, &pending->set->rows)
		{
			BddPendingRow *row = dlist_container(BddPendingRow, set_link,
												 iter.cur);

			if (row->reservation.version != NULL)
				bdd_unreserve(pending->generation, &row->reservation);
			row->reservation.version = NULL;
		}
		bdd_leave(pending->slot, pending->generation);
		pending->generation = NULL;
	}
	bdd_floor_clear();
}

/*
 * Enters the active generations of all targets, and takes sequence numbers,
 * at one moment between two seals: so the order of generations and that of
 * numbers are one.  Returns the target that has no generation, or NULL.
 */
static BddPending *
enter_all(uint64 *first_number)
{
	BddPending *lacking = NULL;

	LWLockAcquire(&bdd_registry->lock, LW_SHARED);
	for (BddPending *pending = bdd_pending_targets;
		 pending != NULL && lacking == NULL; pending = pending->next)
	{
		if (pending->set->count == 0)
			continue;
		if (!bdd_slot_belongs_to(pending->slot, pending->target_id))
		{
			LWLockRelease(&bdd_registry->lock);
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("table \"%s\" is not a target of batchdedup any more",
							get_rel_name(pending->relid))));
		}
		pending->generation = bdd_enter(pending->slot,
										pending->shape->fingerprint,
										pending->logged);
		if (pending->generation == NULL)
			lacking = pending;
	}
	if (lacking == NULL)
		*first_number = bdd_sequence_take(bdd_pending_ordinal);
	LWLockRelease(&bdd_registry->lock);
	return lacking;
}

/* Reserves room for each row of a target; false: no memory. */
static bool
reserve_rows(BddPending *pending, uint64 first_number)
{
	dlist_iter iter;

	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingRow *row = dlist_container(BddPendingRow, set_link,
											 iter.cur);

		if (!bdd_reserve(pending->generation, pending->shape, row->hash,
						 row->key, row->key_size, &row->newest->image,
						 &row->reservation))
			return false;
		row->reservation.version->sequence =
			first_number + row->newest->ordinal;
	}
	return true;
}

/*
 * Enters and reserves for all targets.  Returns the target for which there
 * was no memory, with everything given back, or NULL.
 */
static BddPending *
try_reserve(void)
{
	BddPending *lacking;
	uint64 first_number = 0;

	bdd_floor_set();
	while ((lacking = enter_all(&first_number)) != NULL)
	{
		release_all();
		if (!bdd_prepare_to_enter(lacking->slot, lacking->shape,
								  lacking->logged))
			return lacking;
		bdd_floor_set();
	}
	bdd_debug_point("entered");
	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		if (pending->set->count > 0 && !reserve_rows(pending, first_number))
		{
			release_all();
			return pending;
		}
	return NULL;
}

/* All that PRE_COMMIT does; it may wait for room, and may fail. */
static void
reserve_all(void)
{
	TimestampTz waiting_since = 0;
	BddPending *lacking;

	Assert(phase == COLLECTING);
	phase = RESERVING;
	while ((lacking = try_reserve()) != NULL)
	{
		if (waiting_since == 0)
			waiting_since = GetCurrentTimestamp();
		bdd_wait_for_room(lacking->slot, waiting_since);
	}
	bdd_debug_point("reserved");
	bdd_journal_prepare();
	phase = RESERVED;
	bdd_debug_point("pre-commit");
}

/* ---------- COMMIT ---------- */

/* Wakes the worker where the new rows are a reason to seal or to set a timer. */
static void
note_new_keys(BddPending *pending, uint32 new_keys)
{
	uint32 before = pg_atomic_fetch_add_u32(&pending->generation->keys,
											new_keys);

	if (before == 0 ||
		(pending->flush_rows > 0 && before < pending->flush_rows &&
		 before + new_keys >= pending->flush_rows) ||
		bdd_above_seal_mark(pending->slot))
		bdd_wake_worker(pending->slot);
}

/*
 * Links the target's rows and leaves its generation.  In COMMIT: nothing here
 * may fail.
 */
static void
publish_target(BddPending *pending)
{
	BddSharedGeneration *generation = pending->generation;
	uint32 new_keys = 0;
	dlist_iter iter;

	Assert(generation != NULL);
	if (pg_atomic_read_u64(&generation->first_at) == 0)
	{
		uint64 unset = 0;

		pg_atomic_compare_exchange_u64(&generation->first_at, &unset,
									   GetCurrentTimestamp());
	}
	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingRow *row = dlist_container(BddPendingRow, set_link,
											 iter.cur);

		new_keys += bdd_publish(generation, pending->shape,
								&row->reservation, row->newest->calls,
								row->newest->stale);
	}
	if (new_keys > 0)
		note_new_keys(pending, new_keys);
	pending->published = generation->number;
	bdd_leave(pending->slot, generation);
	pending->generation = NULL;
}

/*
 * Links all rows, and leaves the generations.  In COMMIT: nothing here may
 * fail.
 */
static void
publish_all(void)
{
	Assert(phase == RESERVED);
	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		if (pending->set->count > 0)
			publish_target(pending);
	bdd_floor_clear();
}

/* ---------- callbacks ---------- */

#define MAX_LISTENERS 4

static const BddXactListener *listeners[MAX_LISTENERS];
static int listener_count = 0;

/* Called in _PG_init: each process inherits the table. */
void
bdd_xact_listen(const BddXactListener *listener)
{
	Assert(listener_count < MAX_LISTENERS);
	listeners[listener_count++] = listener;
}

/* Undoes actions of this nesting level and deeper ones, newest first. */
static void
forget_actions(int nesting)
{
	while (actions != NULL && actions->nesting >= nesting)
	{
		undo_action(actions);
		actions = actions->next;
	}
}

/* The next transaction begins with no rows and no actions. */
static void
forget_transaction(void)
{
	phase = COLLECTING;
	actions = NULL;
	bdd_pending_reset();
}

/*
 * Journal and publication belong together: what is in the journal is
 * committed, and an error between them would tell the client otherwise.
 */
static void
journal_and_publish(void)
{
	XLogRecPtr lsn;

	START_CRIT_SECTION();
	lsn = bdd_journal_commit();
	publish_all();
	END_CRIT_SECTION();
	/* After the publication, or a standby that is gone would stop flushes. */
	bdd_journal_wait_for_standby(lsn);
}

/* Cannot fail. */
static void
at_commit(void)
{
	if (phase == RESERVED)
		bdd_debug_point("publish");
	if (phase == RESERVED && bdd_journal_is_prepared())
		journal_and_publish();
	else if (phase == RESERVED)
		publish_all();
	run_actions();
	for (int i = 0; i < listener_count; i++)
		listeners[i]->commit();
	bdd_journal_forget();
	if (bdd_pending_targets != NULL || phase != COLLECTING)
		forget_transaction();
}

/*
 * Gives back what PRE_COMMIT may have reserved, and the slots of targets that
 * the transaction has created; rows and actions are forgotten.
 */
static void
at_abort(void)
{
	if (phase != COLLECTING)
		release_all();
	forget_actions(0);
	for (int i = 0; i < listener_count; i++)
		listeners[i]->abort();
	bdd_journal_forget();
	forget_transaction();
}

/* Pending rows are in the memory of this backend alone. */
static void
refuse_prepare(void)
{
	if (bdd_pending_has_rows() || actions != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot PREPARE a transaction that has upserted rows through batchdedup"),
				 errhint("Commit it, or write to the table directly.")));
}

/*
 * Transactions that are prepared have neither rows nor actions
 * (refuse_prepare), so their end is that of a commit.
 */
static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_PRE_COMMIT:
			if (bdd_pending_targets != NULL && bdd_pending_has_rows())
				reserve_all();
			break;
		case XACT_EVENT_PRE_PREPARE:
			refuse_prepare();
			break;
		case XACT_EVENT_COMMIT:
		case XACT_EVENT_PREPARE:
			at_commit();
			break;
		case XACT_EVENT_ABORT:
			at_abort();
			break;
		case XACT_EVENT_PARALLEL_PRE_COMMIT:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			break; /* parallel workers cannot push rows */
	}
}

/* A subtransaction has ended well: its actions are its parent's. */
static void
hand_actions_up(int nesting)
{
	for (BddAction *action = actions;
		 action != NULL && action->nesting >= nesting; action = action->next)
		action->nesting = nesting - 1;
}

/* Rows and actions of a subtransaction become its parent's, or go. */
static void
subxact_callback(SubXactEvent event, SubTransactionId self,
				 SubTransactionId parent, void *arg)
{
	int nesting = GetCurrentTransactionNestLevel();

	switch (event)
	{
		case SUBXACT_EVENT_COMMIT_SUB:
			hand_actions_up(nesting);
			bdd_pending_subcommit(nesting);
			break;
		case SUBXACT_EVENT_ABORT_SUB:
			forget_actions(nesting);
			bdd_pending_subabort(nesting);
			break;
		case SUBXACT_EVENT_START_SUB:
		case SUBXACT_EVENT_PRE_COMMIT_SUB:
			break;
	}
}

/* Called once, in the postmaster: its children inherit the callbacks. */
void
bdd_xact_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
