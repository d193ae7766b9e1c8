/*-------------------------------------------------------------------------
 *
 * pending.c
 *		Rows of the open transaction, private to the backend.
 *
 * One row per key, with a version for each subtransaction level that wrote
 * it, so that a subabort brings back what was there before.  A level exists
 * only while a row has a version of it: a hundred thousand subtransactions
 * that commit leave one level.
 *
 * A row that does not combine with the one of its key hides it: that one is
 * kept, and found through the new one.
 *
 * Where keys can be equal with different bytes, a row that does not cover
 * older ones is kept beside them: only a reader, which compares keys by their
 * operator, can put them in order.
 *
 *-------------------------------------------------------------------------
 */
#include "commit/pending.h"

#include "access/xact.h"
#include "utils/memutils.h"

typedef struct BddRowHashEntry
{
	BddPendingRow *row;
	uint32 hash;
	char status;
} BddRowHashEntry;

/* Keys are equal here if their bytes are. */
static inline bool
same_key(const BddPendingRow *a, const BddPendingRow *b)
{
	return a->key_size == b->key_size &&
		   memcmp(a->key, b->key, a->key_size) == 0;
}

#define SH_PREFIX bdd_row
#define SH_ELEMENT_TYPE BddRowHashEntry
#define SH_KEY_TYPE BddPendingRow *
#define SH_KEY row
#define SH_HASH_KEY(table, key) ((key)->hash)
#define SH_EQUAL(table, a, b) same_key(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) ((entry)->hash)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* Below this number of rows a key is looked up by going through them. */
#define HASH_FROM 8

BddPendingWatcher bdd_pending_watcher = NULL;
BddPending *bdd_pending_targets = NULL;
MemoryContext bdd_pending_context = NULL;
uint64 bdd_pending_ordinal = 0;

static BddLevel *levels = NULL; /* innermost first */

/* Makes the memory context of pending rows, once in a process. */
void
bdd_pending_init(void)
{
	if (bdd_pending_context == NULL)
		bdd_pending_context = AllocSetContextCreate(TopMemoryContext,
													"batchdedup pending rows",
													ALLOCSET_DEFAULT_SIZES);
}

/* ---------- targets ---------- */

/* A set without rows, in bdd_pending_context. */
static BddPendingSet *
new_set(void)
{
	BddPendingSet *set = MemoryContextAllocZero(bdd_pending_context,
												sizeof(BddPendingSet));

	dlist_init(&set->rows);
	return set;
}

/* What the transaction has of the table, or NULL. */
BddPending *
bdd_pending_find(Oid relid)
{
	BddPending *pending = bdd_pending_targets;

	while (pending != NULL && pending->relid != relid)
		pending = pending->next;
	return pending;
}

/*
 * What the transaction has of the table, made if there is nothing.  While it
 * has rows, or writes directly, it stays with the target and the shape that it
 * began with.
 */
BddPending *
bdd_pending_get(Oid relid, int32 target_id, BddSharedSlot *slot,
				const BddShape *shape)
{
	BddPending *pending = bdd_pending_find(relid);

	bdd_pending_init();
	if (pending != NULL && (pending->set->count > 0 || pending->aside != NULL ||
							(pending->direct != NULL &&
							 pending->target_id == target_id)))
	{
		/* The lock on the table has been ours since. */
		if (pending->target_id != target_id)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a target cannot be registered anew in a transaction that has upserted rows into it")));
		/* It may have been made since we began to write directly. */
		if (pending->slot == NULL)
			pending->slot = slot;
		return pending;
	}
	if (pending == NULL)
	{
		pending = MemoryContextAllocZero(bdd_pending_context,
										 sizeof(BddPending));
		pending->relid = relid;
		pending->set = new_set();
		pending->next = bdd_pending_targets;
		bdd_pending_targets = pending;
	}
	/* Its rows may have been rolled back, and the lock with them. */
	pending->target_id = target_id;
	pending->slot = slot;
	pending->shape = shape;
	return pending;
}

/* Bytes of the buffer that all pending rows take. */
Size
bdd_pending_room(void)
{
	Size room = 0;

	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		room += pending->set->room;
	return room;
}

/* Whether there are rows to publish; those set aside are not. */
bool
bdd_pending_has_rows(void)
{
	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		if (pending->set->count > 0)
			return true;
	return false;
}

/* ---------- looking rows up ---------- */

/* All rows of the hash are those with "hashed" set. */
static void
build_hash(BddPendingSet *set)
{
	dlist_iter iter;
	bool found;

	set->hash = bdd_row_create(bdd_pending_context, 64, NULL);
	dlist_foreach(iter, &set->rows)
	{
		BddPendingRow *row = dlist_container(BddPendingRow, set_link,
											 iter.cur);

		if (row->hashed)
			bdd_row_insert(set->hash, row, &found)->row = row;
	}
}

/* The row that is found by the key, or NULL. */
BddPendingRow *
bdd_pending_lookup(BddPending *pending, uint32 hash, const char *key,
				   uint32 key_size)
{
	BddPendingSet *set = pending->set;
	BddPendingRow probe;
	BddRowHashEntry *entry;
	dlist_iter iter;

	probe.hash = hash;
	probe.key = unconstify(char *, key);
	probe.key_size = key_size;
	if (set->hash == NULL && set->count >= HASH_FROM)
		build_hash(set);
	if (set->hash != NULL)
	{
		entry = bdd_row_lookup(set->hash, &probe);
		return entry == NULL ? NULL : entry->row;
	}
	dlist_foreach(iter, &set->rows)
	{
		BddPendingRow *row = dlist_container(BddPendingRow, set_link,
											 iter.cur);

		if (row->hashed && row->hash == hash && same_key(row, &probe))
			return row;
	}
	return NULL;
}

/* ---------- levels ---------- */

/* The node of a nesting depth, made if there is none. */
static BddLevel *
level_at(int nesting)
{
	BddLevel **link = &levels;
	BddLevel *level;

	while (*link != NULL && (*link)->nesting > nesting)
		link = &(*link)->below;
	if (*link != NULL && (*link)->nesting == nesting)
		return *link;
	level = MemoryContextAlloc(bdd_pending_context, sizeof(BddLevel));
	level->nesting = nesting;
	level->below = *link;
	dlist_init(&level->rows);
	*link = level;
	return level;
}

static void
free_version(BddPendingVersion *version)
{
	pfree(version->image.data);
	pfree(version);
}

/* Bytes of the buffer that the row will take as it is now. */
static Size
row_room(const BddPendingRow *row)
{
	return bdd_row_room(row->key_size, row->newest->image.size);
}

/* ---------- adding ---------- */

/* The row is not found by its key any more, or is again. */
static void
set_hashed(BddPendingRow *row, bool hashed)
{
	BddPendingSet *set = row->set;
	bool found;

	row->hashed = hashed;
	if (set->hash == NULL)
		return;
	if (hashed)
		bdd_row_insert(set->hash, row, &found)->row = row;
	else
		bdd_row_delete(set->hash, row);
}

/*
 * Adds a row that has no version yet.  "hashed": it is found by its key.  The
 * current memory context is bdd_pending_context.
 */
static BddPendingRow *
new_row(BddPending *pending, uint32 hash, const char *key, uint32 key_size,
		bool hashed)
{
	BddPendingSet *set = pending->set;
	BddPendingRow *row = palloc0(sizeof(BddPendingRow));

	row->set = set;
	row->hash = hash;
	row->key = palloc(key_size);
	row->key_size = key_size;
	memcpy(row->key, key, key_size);
	if (hashed)
		set_hashed(row, true);
	dlist_push_tail(&set->rows, &row->set_link);
	set->count++;
	return row;
}

/*
 * Makes "version" the newest of the row, or gives its content to the one that
 * the level has already.
 */
static void
set_newest(BddPendingRow *row, BddPendingVersion *version)
{
	BddPendingVersion *newest = row->newest;

	version->calls = newest != NULL ? newest->calls + 1 : 1;
	if (newest != NULL)
		version->stale += newest->stale;
	if (newest != NULL && newest->level == version->level)
	{
		version->below = newest->below;
		row->newest = version;
		free_version(newest);
		return;
	}
	version->below = newest;
	if (newest != NULL)
		dlist_delete(&row->level_link);
	dlist_push_tail(&version->level->rows, &row->level_link);
	row->newest = version;
}

/* The version shall say what the row says, too; false: it cannot. */
static bool
combine(BddPending *pending, BddPendingRow *row, BddPendingVersion *version)
{
	BddImage image = version->image;
	BddFold how = bdd_image_fold(pending->shape, &row->newest->image, &image,
								 false, &version->image);

	if (how == BDD_APART)
		return false;
	if (how == BDD_STALE)
	{
		version->stale = 1;
		version->ordinal = row->newest->ordinal;
	}
	pfree(image.data);
	pending->set->room -= row_room(row);
	return true;
}

/* A new row of the same key, through which the old one is found. */
static BddPendingRow *
hide(BddPending *pending, BddPendingRow *old)
{
	BddPendingRow *row;

	set_hashed(old, false);
	row = new_row(pending, old->hash, old->key, old->key_size, true);
	row->hides = old;
	return row;
}

/*
 * Adds a row.  The image's data was allocated in bdd_pending_context and
 * belongs to the row from here on.  All that can fail comes first: a caller
 * may catch the error and go on.
 */
void
bdd_pending_add(BddPending *pending, uint32 hash, const char *key,
				uint32 key_size, BddImage image)
{
	const BddShape *shape = pending->shape;
	MemoryContext old_context = MemoryContextSwitchTo(bdd_pending_context);
	BddPendingVersion *version = palloc(sizeof(BddPendingVersion));
	bool merges = shape->exact ||
				  bdd_image_covers(shape, image.op, image.full);
	BddPendingRow *row = merges ?
							 bdd_pending_lookup(pending, hash, key, key_size) :
							 NULL;

	if (bdd_pending_watcher != NULL)
		bdd_pending_watcher(pending, hash, key, key_size);
	version->level = level_at(GetCurrentTransactionNestLevel());
	version->ordinal = bdd_pending_ordinal++;
	version->image = image;
	version->stale = 0;
	if (row != NULL && !combine(pending, row, version))
		row = hide(pending, row);
	else if (row == NULL)
		row = new_row(pending, hash, key, key_size, merges);
	set_newest(row, version);
	pending->set->room += row_room(row);
	MemoryContextSwitchTo(old_context);
}

/* ---------- direct writing ---------- */

/*
 * The pending rows were written to the table, or the table was emptied: they are
 * not to be published.  They come back if the current level is rolled back.
 */
void
bdd_pending_set_aside(BddPending *pending)
{
	BddPendingSet *fresh;

	if (pending->set->count == 0)
		return;
	if (bdd_pending_watcher != NULL)
		bdd_pending_watcher(pending, 0, NULL, 0);
	fresh = new_set();
	pending->set->aside_since = level_at(GetCurrentTransactionNestLevel());
	pending->set->below = pending->aside;
	pending->aside = pending->set;
	pending->set = fresh;
}

/*
 * From here on the target's rows are written to the table by the transaction
 * itself; the caller has just written what is pending.
 */
void
bdd_pending_go_direct(BddPending *pending)
{
	if (pending->direct == NULL)
		pending->direct = level_at(GetCurrentTransactionNestLevel());
	bdd_pending_set_aside(pending);
}

/* The level is rolled back, and its rows are gone from the sets. */
static void
undo_level(BddPending *pending, BddLevel *level)
{
	if (pending->direct == level)
		pending->direct = NULL;
	while (pending->aside != NULL && pending->aside->aside_since == level)
	{
		Assert(pending->set->count == 0);
		pending->set = pending->aside;
		pending->aside = pending->set->below;
		pending->set->aside_since = NULL;
		pending->set->below = NULL;
	}
}

/* The level becomes part of the one below. */
static void
hand_down_level(BddPending *pending, BddLevel *level, BddLevel *below)
{
	if (pending->direct == level)
		pending->direct = below;
	for (BddPendingSet *set = pending->aside; set != NULL; set = set->below)
		if (set->aside_since == level)
			set->aside_since = below;
}

/* ---------- ends of subtransactions ---------- */

/* Frees a row without versions; the one that it hid is found again. */
static void
remove_row(BddPendingRow *row)
{
	BddPendingSet *set = row->set;

	if (row->hashed)
		set_hashed(row, false);
	if (row->hides != NULL)
		set_hashed(row->hides, true);
	dlist_delete(&row->set_link);
	set->count--;
	pfree(row->key);
	pfree(row);
}

/* Takes the newest version off; with the last one the row goes. */
static void
pop_version(BddPendingRow *row)
{
	BddPendingVersion *version = row->newest;

	row->set->room -= row_room(row);
	dlist_delete(&row->level_link);
	row->newest = version->below;
	free_version(version);
	if (row->newest == NULL)
		remove_row(row);
	else
	{
		dlist_push_tail(&row->newest->level->rows, &row->level_link);
		row->set->room += row_room(row);
	}
}

/* The level's version replaces what the row said at the level below. */
static void
merge_version(BddPendingRow *row, BddLevel *below)
{
	BddPendingVersion *version = row->newest;
	BddPendingVersion *replaced = version->below;

	dlist_delete(&row->level_link);
	dlist_push_tail(&below->rows, &row->level_link);
	version->level = below;
	if (replaced != NULL && replaced->level == below)
	{
		version->below = replaced->below;
		free_version(replaced);
	}
}

/* Whether the innermost level is the subtransaction that ends now. */
static bool
level_ends(int nesting)
{
	return levels != NULL && levels->nesting == nesting;
}

/*
 * The subtransaction of that nesting depth commits: what it has written is its
 * parent's, which gets its level if it has none.
 */
void
bdd_pending_subcommit(int nesting)
{
	BddLevel *level = levels;
	BddLevel *below;
	dlist_mutable_iter iter;

	if (!level_ends(nesting))
		return;
	below = level->below;
	if (below == NULL || below->nesting != nesting - 1)
	{
		level->nesting = nesting - 1;
		return;
	}
	dlist_foreach_modify(iter, &level->rows)
		merge_version(dlist_container(BddPendingRow, level_link, iter.cur),
					  below);
	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		hand_down_level(pending, level, below);
	levels = below;
	pfree(level);
}

/*
 * The subtransaction of that nesting depth is rolled back: rows say again what
 * they said before it.
 */
void
bdd_pending_subabort(int nesting)
{
	BddLevel *level = levels;

	if (!level_ends(nesting))
		return;
	/* The newest row first: what it hides comes back. */
	while (!dlist_is_empty(&level->rows))
		pop_version(dlist_container(BddPendingRow, level_link,
									dlist_tail_node(&level->rows)));
	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		undo_level(pending, level);
	levels = level->below;
	pfree(level);
}

/* The transaction is over. */
void
bdd_pending_reset(void)
{
	bdd_pending_targets = NULL;
	bdd_pending_ordinal = 0;
	levels = NULL;
	if (bdd_pending_context != NULL)
		MemoryContextReset(bdd_pending_context);
}
