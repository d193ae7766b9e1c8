/*-------------------------------------------------------------------------
 *
 * slot.c
 *		The slot of a target: found, made, given up.
 *
 * A target has a slot once rows have been buffered for it, until it is
 * dropped.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/slot.h"

#include "miscadmin.h"
#include "utils/timestamp.h"

/* The slot of this database's target; the caller holds the registry lock. */
static BddSharedSlot *
find_slot(int32 target_id)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->database == MyDatabaseId &&
			slot->target_id == target_id)
			return slot;
	}
	return NULL;
}

/* The slot of the target if it is still of this table, or NULL. */
BddSharedSlot *
bdd_slot_find(int32 target_id, Oid relid)
{
	BddSharedSlot *slot;

	LWLockAcquire(&bdd_registry->lock, LW_SHARED);
	slot = find_slot(target_id);
	LWLockRelease(&bdd_registry->lock);
	return slot != NULL && slot->relid == relid ? slot : NULL;
}

/* The slot of the target that the table is, or NULL. */
BddSharedSlot *
bdd_slot_find_by_table(Oid relid)
{
	BddSharedSlot *found = NULL;

	LWLockAcquire(&bdd_registry->lock, LW_SHARED);
	for (int i = 0; i < bdd_registry->slot_count && found == NULL; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->database == MyDatabaseId &&
			slot->relid == relid)
			found = slot;
	}
	LWLockRelease(&bdd_registry->lock);
	return found;
}

/* Makes an unused slot the target's; the caller holds the registry lock or is alone. */
static void
init_slot(BddSharedSlot *slot, Oid database, int32 target_id, Oid relid,
		  uint64 applied, int worker)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->database = database;
	slot->relid = relid;
	slot->target_id = target_id;
	slot->worker = worker;
	slot->oldest = NULL;
	slot->active = NULL;
	slot->next_generation = applied + 1;
	slot->applied = applied;
	slot->wanted = 0;
	slot->found_paused_at = 0;
	memset(&slot->failure, 0, sizeof(slot->failure));
	memset(&slot->counts, 0, sizeof(slot->counts));
	for (int i = 0; i < BDD_PARTITIONS; i++)
	{
		slot->partitions[i].received = 0;
		slot->partitions[i].coalesced = 0;
		slot->partitions[i].stale = 0;
	}
	slot->has_letters = false;
	slot->spooled = false;
	slot->loaded = false;
	slot->in_use = true;
	LWLockRelease(&slot->lock);
}

/*
 * The target's slot, made if there is none: its generations are numbered
 * from applied + 1.  NULL: batchdedup.max_targets are in use, or with "own"
 * all that we keep for ourselves.
 */
BddSharedSlot *
bdd_slot_create(int32 target_id, Oid relid, uint64 applied, bool own)
{
	int others = bdd_registry->slot_count - BDD_OWN_SLOTS;
	int last = own ? bdd_registry->slot_count : others;
	BddSharedSlot *slot;
	int worker;

	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	slot = find_slot(target_id);
	worker = slot == NULL ? bdd_worker_index(MyDatabaseId) : slot->worker;
	for (int i = own ? others : 0; i < last && slot == NULL && worker >= 0; i++)
		if (!bdd_registry->slots[i].in_use)
		{
			slot = &bdd_registry->slots[i];
			init_slot(slot, MyDatabaseId, target_id, relid, applied,
					  worker);
		}
	LWLockRelease(&bdd_registry->lock);
	if (slot != NULL && slot->relid != relid)
		elog(ERROR, "slot of target %d belongs to another table", target_id);
	return slot;
}

/*
 * Gives the slot up, with whatever is buffered.  The caller has an exclusive
 * lock on the table, or the database is gone.
 */
void
bdd_slot_free(BddSharedSlot *slot, Oid database, int32 target_id)
{
	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	if (!slot->in_use || slot->database != database ||
		slot->target_id != target_id)
	{
		LWLockRelease(&bdd_registry->lock);
		return;
	}
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	while (slot->oldest != NULL)
	{
		BddSharedGeneration *generation = slot->oldest;

		slot->oldest = generation->next;
		bdd_generation_free(generation);
	}
	slot->active = NULL;
	slot->in_use = false;
	LWLockRelease(&slot->lock);
	bdd_release_worker_index(slot->worker);
	LWLockRelease(&bdd_registry->lock);
	ConditionVariableBroadcast(&slot->changed);
}

/*
 * Whether the slot is still the target's; the caller holds its lock.  Without a
 * lock on the table that keeps drop_target out this is asked before each look.
 */
bool
bdd_slot_belongs_to(const BddSharedSlot *slot, int32 target_id)
{
	return slot->in_use && slot->database == MyDatabaseId &&
		   slot->target_id == target_id;
}

/*
 * The slot of the target, or an unused one made its own; NULL: there is none.
 * At the start of the server, when no other process uses slots.
 */
BddSharedSlot *
bdd_slot_to_load(Oid database, Oid relid, int32 target_id, uint64 applied)
{
	BddSharedSlot *unused = NULL;

	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->database == database &&
			slot->target_id == target_id)
			return slot;
		if (!slot->in_use && unused == NULL)
			unused = slot;
	}
	if (unused != NULL)
		init_slot(unused, database, target_id, relid, applied,
				  bdd_worker_index(database));
	return unused;
}
