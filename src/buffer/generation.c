/*-------------------------------------------------------------------------
 *
 * generation.c
 *		The generations of a target: their steps, and what is asked of them.
 *
 * A generation goes active -> sealed -> applied -> free; each step is one
 * function here.  A transaction enters under the registry lock (shared) and
 * a target is sealed under it (exclusive), so a transaction enters all its
 * targets at one moment between two seals.
 *
 * Lock order: registry, slot, partition; the spinlock of the pool last.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/generation.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "base/debug_point.h"
#include "buffer/slot.h"
#include "buffer/wake.h"
#include "utils/timestamp.h"

/* ---------- what is not applied ---------- */

/* Whether there are rows that are not applied; caller holds slot lock. */
static bool
is_unapplied(const BddSharedGeneration *generation)
{
	BddSharedGeneration *active = unconstify(BddSharedGeneration *, generation);

	/* Also an empty one has to be applied once it is sealed, to be freed. */
	if (generation->state != BDD_ACTIVE)
		return generation->state == BDD_SEALED;
	/* In this order: a publisher that leaves has counted its keys before. */
	if (pg_atomic_read_u32(&active->publishers) > 0)
		return true;
	pg_read_barrier();
	return pg_atomic_read_u32(&active->keys) > 0;
}

/* Whether rows of generations up to "number" are not applied; as above. */
bool
bdd_slot_waits_for(const BddSharedSlot *slot, uint64 number)
{
	for (BddSharedGeneration *generation = slot->oldest;
		 generation != NULL && generation->number <= number;
		 generation = generation->next)
		if (is_unapplied(generation))
			return true;
	return false;
}

/* Whether there are rows that are not applied. */
bool
bdd_slot_is_buffering(BddSharedSlot *slot)
{
	bool buffering = false;

	LWLockAcquire(&slot->lock, LW_SHARED);
	for (BddSharedGeneration *generation = slot->oldest;
		 generation != NULL && !buffering; generation = generation->next)
		buffering = is_unapplied(generation);
	LWLockRelease(&slot->lock);
	return buffering;
}

/* Whether there are rows that this transaction has not applied, either. */
bool
bdd_slot_has_unapplied(BddSharedSlot *slot)
{
	bool unapplied = false;

	LWLockAcquire(&slot->lock, LW_SHARED);
	for (BddSharedGeneration *generation = slot->oldest;
		 generation != NULL && !unapplied; generation = generation->next)
		unapplied = is_unapplied(generation) &&
					!(TransactionIdIsValid(generation->apply_xid) &&
					  TransactionIdIsCurrentTransactionId(generation->apply_xid));
	LWLockRelease(&slot->lock);
	return unapplied;
}

/* ---------- entering and leaving ---------- */

/*
 * Makes the target's active generation; false: no memory.  The caller holds the
 * registry lock exclusively.
 */
static bool
start_generation(BddSharedSlot *slot, const BddShape *shape, bool logged)
{
	BddSharedGeneration *generation;
	BddSharedGeneration **link = &slot->oldest;

	Assert(slot->active == NULL);
	generation = bdd_generation_create(slot->partitions, &slot->budget,
									   slot->next_generation);
	if (generation == NULL)
		return false;
	generation->fingerprint = shape->fingerprint;
	generation->set_bytes = shape->set_bytes;
	generation->logged = logged;
	generation->journal_from = GetXLogInsertRecPtr();
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	while (*link != NULL)
		link = &(*link)->next;
	*link = generation;
	slot->active = generation;
	slot->next_generation++;
	LWLockRelease(&slot->lock);
	return true;
}

/* Whether rows with this shape and durability may enter the generation. */
static bool
is_for(const BddSharedGeneration *generation, uint32 fingerprint, bool logged)
{
	return generation->fingerprint == fingerprint &&
		   generation->logged == logged;
}

/*
 * Enters the target's active generation, or returns NULL if there is none for
 * such rows: bdd_prepare_to_enter makes one.  The caller holds the registry
 * lock, shared, while it enters all its targets.
 */
BddSharedGeneration *
bdd_enter(BddSharedSlot *slot, uint32 fingerprint, bool logged)
{
	BddSharedGeneration *generation = slot->active;

	Assert(LWLockHeldByMe(&bdd_registry->lock));
	if (generation != NULL && !is_for(generation, fingerprint, logged))
		return NULL;
	if (generation != NULL)
	{
		Assert(generation->state == BDD_ACTIVE);
		pg_atomic_fetch_add_u32(&generation->publishers, 1);
	}
	return generation;
}

/* active -> sealed; the caller holds the registry lock exclusively. */
static void
seal_active(BddSharedSlot *slot)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	Assert(slot->active->state == BDD_ACTIVE);
	slot->active->state = BDD_SEALED;
	slot->active = NULL;
	LWLockRelease(&slot->lock);
}

/* Makes sure that there is a generation to enter; false: no memory. */
bool
bdd_prepare_to_enter(BddSharedSlot *slot, const BddShape *shape, bool logged)
{
	bool ready;

	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	if (slot->active != NULL && !is_for(slot->active, shape->fingerprint, logged))
		seal_active(slot);
	ready = slot->active != NULL ||
			start_generation(slot, shape, logged);
	LWLockRelease(&bdd_registry->lock);
	return ready;
}

/* Leaves the generation; of a sealed one the worker waits for the last to leave. */
void
bdd_leave(BddSharedSlot *slot, BddSharedGeneration *generation)
{
	bool active = generation == slot->active;

	/* Afterwards the generation may be gone. */
	if (pg_atomic_fetch_sub_u32(&generation->publishers, 1) == 1 && !active)
		bdd_wake_worker(slot);
}

/* ---------- from active to free ---------- */

/*
 * active -> free, if all transactions that had entered it were rolled back.
 */
void
bdd_free_abandoned(BddSharedSlot *slot)
{
	BddSharedGeneration **link = &slot->oldest;

	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (slot->active != NULL && !is_unapplied(slot->active))
	{
		while (*link != slot->active)
			link = &(*link)->next;
		*link = NULL;
		bdd_generation_free(slot->active);
		slot->active = NULL;
	}
	LWLockRelease(&slot->lock);
	LWLockRelease(&bdd_registry->lock);
}

/*
 * active -> sealed, of several targets at one moment: no transaction enters
 * between them.  Does nothing to a target whose active generation has no rows.
 */
void
bdd_seal_together(BddSharedSlot *const *slots, int count)
{
	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < count; i++)
		if (slots[i]->active != NULL && is_unapplied(slots[i]->active))
			seal_active(slots[i]);
	LWLockRelease(&bdd_registry->lock);
}

/* active -> sealed, of one target. */
void
bdd_seal(BddSharedSlot *slot)
{
	bdd_seal_together(&slot, 1);
}

/*
 * The oldest generation with a number above "after" that is to be applied, or
 * NULL.
 */
BddSharedGeneration *
bdd_next_sealed(BddSharedSlot *slot, uint64 after)
{
	BddSharedGeneration *generation;

	LWLockAcquire(&slot->lock, LW_SHARED);
	for (generation = slot->oldest; generation != NULL;
		 generation = generation->next)
		if (generation->state == BDD_SEALED && generation->number > after)
			break;
	LWLockRelease(&slot->lock);
	return generation;
}

/* Whether nobody can change the sealed generation any more; or it is gone. */
bool
bdd_is_quiet(BddSharedSlot *slot, uint64 number)
{
	bool quiet = true;

	LWLockAcquire(&slot->lock, LW_SHARED);
	for (BddSharedGeneration *generation = slot->oldest; generation != NULL;
		 generation = generation->next)
		if (generation->number == number)
			quiet = generation->state != BDD_ACTIVE &&
					pg_atomic_read_u32(&generation->publishers) == 0;
	LWLockRelease(&slot->lock);
	pg_memory_barrier();
	return quiet;
}

/*
 * The transaction that applies the generation; readers decide by it whether
 * the table or the buffer has the rows.
 */
void
bdd_generation_applying(BddSharedSlot *slot, BddSharedGeneration *generation,
						TransactionId xid)
{
	Assert(pg_atomic_read_u32(&generation->publishers) == 0);
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	Assert(generation->state == BDD_SEALED);
	generation->apply_xid = xid;
	LWLockRelease(&slot->lock);
}

/*
 * sealed -> applied, for all generations up to "number", after the commit of
 * the transaction that applied them.
 */
void
bdd_generation_applied(BddSharedSlot *slot, int32 target_id, uint64 number)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (!bdd_slot_belongs_to(slot, target_id))
	{
		LWLockRelease(&slot->lock);
		return;
	}
	for (BddSharedGeneration *generation = slot->oldest;
		 generation != NULL && generation->number <= number;
		 generation = generation->next)
	{
		Assert(generation->state != BDD_ACTIVE);
		generation->state = BDD_APPLIED;
	}
	slot->applied = Max(slot->applied, number);
	memset(&slot->failure, 0, sizeof(slot->failure));
	LWLockRelease(&slot->lock);
	ConditionVariableBroadcast(&slot->changed);
}

/*
 * applied -> free, oldest first, for generations that were applied by an xid
 * before "horizon": every snapshot sees their rows in the table.  With
 * InvalidTransactionId for all of them.
 */
void
bdd_free_applied(BddSharedSlot *slot, TransactionId horizon)
{
	bool freed = false;

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	while (slot->oldest != NULL && slot->oldest->state == BDD_APPLIED)
	{
		BddSharedGeneration *generation = slot->oldest;

		if (TransactionIdIsValid(horizon) &&
			TransactionIdIsValid(generation->apply_xid) &&
			!TransactionIdPrecedes(generation->apply_xid, horizon))
			break;
		slot->oldest = generation->next;
		bdd_generation_free(generation);
		freed = true;
	}
	LWLockRelease(&slot->lock);
	if (freed)
		ConditionVariableBroadcast(&slot->changed);
}

/*
 * The file of a shutdown may be older than the tables: it was copied, or the
 * server was started elsewhere meanwhile.  What the mark says is applied, is.
 */
void
bdd_slot_reconcile(BddSharedSlot *slot, uint64 mark)
{
	if (!slot->loaded)
		return;
	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	for (BddSharedGeneration *generation = slot->oldest;
		 generation != NULL && generation->number <= mark;
		 generation = generation->next)
		if (generation->state == BDD_SEALED)
			generation->state = BDD_APPLIED;
	slot->next_generation = Max(slot->next_generation, mark + 1);
	slot->applied = Max(slot->applied, mark);
	slot->loaded = false;
	LWLockRelease(&slot->lock);
	LWLockRelease(&bdd_registry->lock);
}

/* ---------- at start, when nobody else is there ---------- */

/*
 * An empty sealed generation of the target, after those loaded before.  NULL:
 * no memory or no slot.
 */
BddSharedGeneration *
bdd_load_generation(Oid database, Oid relid, int32 target_id, uint64 applied,
					uint64 number, uint32 fingerprint)
{
	BddSharedSlot *slot = bdd_slot_to_load(database, relid, target_id, applied);
	BddSharedGeneration *generation;
	BddSharedGeneration **link;

	if (slot == NULL)
		return NULL;
	generation = bdd_generation_create(slot->partitions, &slot->budget,
									   number);
	if (generation == NULL)
		return NULL;
	generation->state = BDD_SEALED;
	generation->fingerprint = fingerprint;
	slot->loaded = true;
	pg_atomic_write_u64(&generation->first_at, GetCurrentTimestamp());
	for (link = &slot->oldest; *link != NULL; link = &(*link)->next)
		;
	*link = generation;
	slot->next_generation = number + 1;
	return generation;
}

/* Takes back all that was loaded. */
void
bdd_unload_all(void)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		while (slot->in_use && slot->oldest != NULL)
		{
			BddSharedGeneration *generation = slot->oldest;

			slot->oldest = generation->next;
			bdd_generation_free(generation);
		}
		slot->in_use = false;
		bdd_registry->workers[i].database = InvalidOid;
	}
}

/* ---------- the journal ---------- */

/* Puts the generation at its place in the list; caller holds slot lock. */
static void
link_generation(BddSharedSlot *slot, BddSharedGeneration *generation)
{
	BddSharedGeneration **link = &slot->oldest;

	while (*link != NULL && (*link)->number < generation->number)
		link = &(*link)->next;
	generation->next = *link;
	*link = generation;
	slot->next_generation = Max(slot->next_generation,
								generation->number + 1);
}

/*
 * A sealed generation that stands for the rows of a target that the launcher
 * has found in the journal, up to generation "number"; false: no memory or no
 * slot.  Nobody else uses slots yet.
 */
bool
bdd_slot_add_spooled(Oid database, Oid relid, int32 target_id, uint64 number,
					 uint64 rows, XLogRecPtr journal_from)
{
	BddSharedSlot *slot;
	BddSharedGeneration *generation = NULL;

	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	slot = bdd_slot_to_load(database, relid, target_id, 0);
	if (slot != NULL && slot->spooled)
	{
		/* The launcher has failed on the way and begun again. */
		LWLockRelease(&bdd_registry->lock);
		return true;
	}
	if (slot != NULL)
		generation = bdd_generation_create(slot->partitions, &slot->budget,
										   number);
	if (generation != NULL)
	{
		generation->state = BDD_SEALED;
		generation->logged = true;
		generation->spooled = true;
		generation->journal_from = journal_from;
		pg_atomic_write_u32(&generation->keys, Min(rows, PG_UINT32_MAX));
		pg_atomic_write_u64(&generation->first_at, GetCurrentTimestamp());
		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		slot->loaded = true;
		slot->spooled = true;
		link_generation(slot, generation);
		LWLockRelease(&slot->lock);
	}
	LWLockRelease(&bdd_registry->lock);
	return generation != NULL;
}

/*
 * The number of the generation that stands for the target's file, as long as it
 * is not applied, or 0.  The caller holds the slot lock, or is alone.
 */
uint64
bdd_slot_spooled(const BddSharedSlot *slot)
{
	for (BddSharedGeneration *generation = slot->oldest; generation != NULL;
		 generation = generation->next)
		if (generation->spooled && generation->state != BDD_APPLIED)
			return generation->number;
	return 0;
}

/*
 * From where on the WAL has messages of generations that are not applied.
 * Nobody enters meanwhile, so messages of an empty generation will come after
 * what has been inserted before.
 */
XLogRecPtr
bdd_buffer_needed_from(void)
{
	XLogRecPtr now = GetXLogInsertRecPtr();
	XLogRecPtr needed = now;

	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (!slot->in_use)
			continue;
		LWLockAcquire(&slot->lock, LW_SHARED);
		for (BddSharedGeneration *generation = slot->oldest;
			 generation != NULL; generation = generation->next)
		{
			if (!generation->logged || generation->state == BDD_APPLIED)
				continue;
			if (is_unapplied(generation))
				needed = Min(needed, generation->journal_from);
			else
				generation->journal_from = now;
		}
		LWLockRelease(&slot->lock);
	}
	LWLockRelease(&bdd_registry->lock);
	bdd_debug_point("looked");
	return needed;
}

/* The same, of the target's generations with a number above "after". */
XLogRecPtr
bdd_slot_needed_from(BddSharedSlot *slot, uint64 after)
{
	XLogRecPtr needed = GetXLogInsertRecPtr();

	LWLockAcquire(&slot->lock, LW_SHARED);
	for (BddSharedGeneration *generation = slot->oldest; generation != NULL;
		 generation = generation->next)
		if (generation->logged && generation->number > after &&
			is_unapplied(generation))
			needed = Min(needed, generation->journal_from);
	LWLockRelease(&slot->lock);
	return needed;
}
