/*-------------------------------------------------------------------------
 *
 * overlay.c
 *		What a statement that reads a view of create_view knows of the buffer.
 *
 * The view is the table's rows whose key is not overlaid(), and what
 * overlay_rows() returns.  So that no key is in both or in neither, whatever
 * is published or applied while the statement runs, it decides once for each
 * key whether the buffer has it, and what it says.  It remembers that until
 * its end: at first key by key, and once it has asked for many of them, for
 * all keys at once, in a copy of the buffer.  A statement that looks up a few
 * keys thus scans nothing, one that reads a table does not ask shared memory
 * for each of its rows, and both need no more memory than the buffer.
 *
 * This begins with the statement: then its role is asked whether it may read
 * the table.
 *
 * The statement may write what it reads (UPDATE of the view).  As in a table,
 * it does not see what it has written itself: before a pending row changes,
 * what was pending is remembered as well.
 *
 * What is known is found by the memory context of the statement's executor,
 * which all its expressions have in common.
 *
 *-------------------------------------------------------------------------
 */
#include "read/overlay.h"

#include "base/debug_point.h"
#include "base/loaded.h"
#include "buffer/slot.h"
#include "commit/pending.h"
#include "miscadmin.h"
#include "read/read.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/keyorder.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

typedef struct BddOverlaidEntry
{
	BddOverlaid *key;
	uint32 hash;
	char status;
} BddOverlaidEntry;

static inline bool
same_key(const BddOverlaid *a, const BddOverlaid *b)
{
	return a->key_size == b->key_size &&
		   memcmp(a->key, b->key, a->key_size) == 0;
}

#define SH_PREFIX bdd_overlaid
#define SH_ELEMENT_TYPE BddOverlaidEntry
#define SH_KEY_TYPE BddOverlaid *
#define SH_KEY key
#define SH_HASH_KEY(table, key) ((key)->hash)
#define SH_EQUAL(table, a, b) same_key(a, b)
#define SH_STORE_HASH
#define SH_GET_HASH(table, entry) ((entry)->hash)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* From this number of keys on all of a small buffer are copied. */
#define FEW_KEYS 64

struct BddOverlay
{
	BddOverlay *next; /* of this backend's */
	MemoryContext query;
	MemoryContext context;
	MemoryContextCallback callback;
	Oid role; /* the one that may use it; InvalidOid: any in the statement */
	Oid relid;
	BddTarget *target;
	bool complete;  /* every key of the buffer is decided */
	bool own_saved; /* a key without an entry had nothing pending */
	uint64 few;     /* keys to ask for one by one */
	StringInfoData bytes;
	struct bdd_overlaid_hash *keys;

	/* Where equal keys differ in bytes: all, in key order. */
	BddRows rows;
	BddOverlaid *sorted; /* beside rows */
};

static BddOverlay *overlays = NULL;

/* ---------- keys ---------- */

/* The key's entry, made if there is none. */
static BddOverlaid *
entry_of(BddOverlay *overlay, uint32 hash, const char *key, uint32 key_size)
{
	BddOverlaid probe = {.hash = hash, .key_size = key_size};
	BddOverlaidEntry *entry;
	BddOverlaid *made;
	bool found;

	probe.key = unconstify(char *, key);
	entry = bdd_overlaid_lookup(overlay->keys, &probe);
	if (entry != NULL)
		return entry->key;
	made = MemoryContextAllocZero(overlay->context,
								  sizeof(BddOverlaid) + key_size);
	made->hash = hash;
	made->key_size = key_size;
	made->key = (char *) (made + 1);
	memcpy(made->key, key, key_size);
	bdd_overlaid_insert(overlay->keys, made, &found)->key = made;
	return made;
}

/* The key says this on top of what it said so far. */
static void
add_image(BddOverlay *overlay, BddOverlaid *key, const BddImage *image)
{
	bdd_rows_add(&key->rows, 0, image);
	(void) bdd_rows_fold(&overlay->target->shape, &key->rows, false);
}

/* For qsort of BddRow, oldest first. */
static int
compare_sequence(const void *a, const void *b)
{
	uint64 left = ((const BddRow *) a)->sequence;
	uint64 right = ((const BddRow *) b)->sequence;

	return left < right ? -1 : left > right ? 1 :
											  0;
}

/* The row and those that it hides, the oldest first. */
static void
save_rows(const BddPendingRow *row, BddRows *rows)
{
	BddImage copy;

	if (row == NULL)
		return;
	save_rows(row->hides, rows);
	copy = bdd_image_copy(&row->newest->image);
	bdd_rows_add(rows, 0, &copy);
}

/* Remembers what is pending of the key now, unless that is known already. */
static void
save_own(BddOverlay *overlay, BddOverlaid *key)
{
	BddPending *pending = bdd_pending_find(overlay->relid);
	BddPendingRow *row = NULL;

	if (key->decided || key->saved)
		return;
	if (pending != NULL && !overlay->own_saved)
		row = bdd_pending_lookup(pending, key->hash, key->key, key->key_size);
	save_rows(row, &key->own);
	key->saved = true;
}

/*
 * Puts what this transaction has pending on top of the buffer's rows.  With
 * this the key is decided.
 */
static void
add_own(BddOverlay *overlay, BddOverlaid *key)
{
	save_own(overlay, key);
	for (uint64 i = 0; i < key->own.count; i++)
		add_image(overlay, key, &key->own.rows[i].image);
	key->own.count = 0;
	key->decided = true;
}

/* Asks the buffer for one key. */
static void
decide(BddOverlay *overlay, BddOverlaid *key, StringInfo bytes)
{
	BddRows rows = {0};

	bdd_read_published_key(overlay->target, key->hash, bytes,
						   GetActiveSnapshot(), &rows);
	if (rows.count > 1)
		qsort(rows.rows, rows.count, sizeof(BddRow), compare_sequence);
	for (uint64 i = 0; i < rows.count; i++)
		add_image(overlay, key, &rows.rows[i].image);
	if (rows.rows != NULL)
		pfree(rows.rows);
	add_own(overlay, key);
}

/* The image's key, in overlay->bytes; returns its hash. */
static uint32
encode_image(BddOverlay *overlay, const BddImage *image)
{
	BddTarget *target = overlay->target;
	Datum values[INDEX_MAX_KEYS];
	HeapTupleData heap;
	bool isnull;

	bdd_tuple_as_heap(bdd_image_tuple(&target->shape, image), &heap);
	for (int i = 0; i < target->key.count; i++)
		values[i] = heap_getattr(&heap, target->key.columns[i].attnum,
								 target->shape.desc, &isnull);
	resetStringInfo(&overlay->bytes);
	return bdd_key_encode(&target->key, values, &overlay->bytes);
}

/* Remembers all that is pending; keys saved before stay as they were. */
static void
save_all_own(BddOverlay *overlay)
{
	BddPending *pending = bdd_pending_find(overlay->relid);
	dlist_iter iter;

	if (pending == NULL || overlay->own_saved)
		return;
	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingRow *row = dlist_container(BddPendingRow, set_link,
											 iter.cur);

		save_own(overlay, entry_of(overlay, row->hash, row->key, row->key_size));
	}
	overlay->own_saved = true;
}

/* Asks the buffer for all keys that are not decided yet. */
static void
decide_all(BddOverlay *overlay)
{
	BddRows rows = {0};
	bdd_overlaid_iterator iterator;
	BddOverlaidEntry *entry;

	bdd_debug_point("overlay");
	bdd_read_published(overlay->target, GetActiveSnapshot(), &rows);
	if (rows.count > 1)
		qsort(rows.rows, rows.count, sizeof(BddRow), compare_sequence);
	for (uint64 i = 0; i < rows.count; i++)
	{
		BddImage *image = &rows.rows[i].image;
		uint32 hash = encode_image(overlay, image);
		BddOverlaid *key = entry_of(overlay, hash, overlay->bytes.data,
									overlay->bytes.len);

		if (!key->decided)
			add_image(overlay, key, image);
	}
	if (rows.rows != NULL)
		pfree(rows.rows);
	save_all_own(overlay);
	bdd_overlaid_start_iterate(overlay->keys, &iterator);
	while ((entry = bdd_overlaid_iterate(overlay->keys, &iterator)) != NULL)
		if (!entry->key->decided)
			add_own(overlay, entry->key);
	overlay->complete = true;
}

/* The same where only the operator class knows which keys are equal. */
static void
decide_all_sorted(BddOverlay *overlay)
{
	BddSavedRole saved;

	bdd_debug_point("overlay");
	bdd_read_published(overlay->target, GetActiveSnapshot(), &overlay->rows);
	bdd_read_pending(overlay->target, &overlay->rows);
	for (uint64 i = 0; i < overlay->rows.count; i++)
		overlay->rows.rows[i].image = bdd_image_copy(&overlay->rows.rows[i].image);
	bdd_become_owner_of(overlay->target->owner, &saved);
	(void) bdd_rows_fold_equal(overlay->target, &overlay->rows);
	bdd_restore_role(&saved);
	overlay->sorted = MemoryContextAllocHuge(overlay->context,
											 Max(overlay->rows.count, 1) *
												 sizeof(BddOverlaid));
	for (uint64 i = 0; i < overlay->rows.count; i++)
	{
		BddRow *row = &overlay->rows.rows[i];
		BddOverlaid *first = &overlay->sorted[i - row->round];

		/* Only the first row of a key stands for it. */
		memset(&overlay->sorted[i], 0, sizeof(BddOverlaid));
		overlay->sorted[i].decided = true;
		first->rows.rows = row - row->round;
		first->rows.count = row->round + 1;
	}
	overlay->complete = true;
}

/* Decides all keys that the buffer has. */
void
bdd_overlay_complete(BddOverlay *overlay)
{
	MemoryContext old_context;

	if (overlay->complete)
		return;
	old_context = MemoryContextSwitchTo(overlay->context);
	if (overlay->target->key.exact)
		decide_all(overlay);
	else
		decide_all_sorted(overlay);
	MemoryContextSwitchTo(old_context);
}

/* ---------- overlays ---------- */

/* Called before pending rows change.  No key: before all of them do. */
static void
watch_pending(BddPending *pending, uint32 hash, const char *key,
			  uint32 key_size)
{
	for (BddOverlay *overlay = overlays; overlay != NULL;
		 overlay = overlay->next)
	{
		MemoryContext old_context;

		if (overlay->relid != pending->relid || overlay->complete)
			continue;
		old_context = MemoryContextSwitchTo(overlay->context);
		if (key == NULL)
			save_all_own(overlay);
		else
			save_own(overlay, entry_of(overlay, hash, key, key_size));
		MemoryContextSwitchTo(old_context);
	}
}

/* The statement is over, and its memory goes. */
static void
forget(void *arg)
{
	BddOverlay **link = &overlays;

	while (*link != NULL && *link != arg)
		link = &(*link)->next;
	if (*link != NULL)
		*link = (*link)->next;
	if (overlays == NULL)
		bdd_pending_watcher = NULL;
}

/* Keys that are buffered or pending, roughly. */
uint64
bdd_overlay_estimate(BddTarget *target)
{
	BddPending *pending = bdd_pending_find(target->relid);
	uint64 count = pending != NULL ? pending->set->count : 0;

	if (target->slot == NULL)
		return count;
	LWLockAcquire(&target->slot->lock, LW_SHARED);
	if (bdd_slot_belongs_to(target->slot, target->options.target_id))
		for (BddSharedGeneration *generation = target->slot->oldest;
			 generation != NULL; generation = generation->next)
			count += pg_atomic_read_u32(&generation->keys);
	LWLockRelease(&target->slot->lock);
	return count;
}

/* A new overlay of the statement, in a context under that of its executor. */
static BddOverlay *
start(MemoryContext query, BddTarget *target)
{
	MemoryContext context = AllocSetContextCreate(query, "batchdedup overlay",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	BddOverlay *overlay = palloc0(sizeof(BddOverlay));

	overlay->query = query;
	overlay->context = context;
	overlay->role = GetUserId();
	overlay->relid = target->relid;
	overlay->target = target;
	overlay->few = Max(FEW_KEYS, bdd_overlay_estimate(target) / 4);
	initStringInfo(&overlay->bytes);
	overlay->keys = bdd_overlaid_create(context, 16, NULL);
	overlay->callback.func = forget;
	overlay->callback.arg = overlay;
	MemoryContextRegisterResetCallback(context, &overlay->callback);
	MemoryContextSwitchTo(old_context);
	overlay->next = overlays;
	overlays = overlay;
	bdd_pending_watcher = watch_pending;
	if (!target->key.exact)
		bdd_overlay_complete(overlay);
	return overlay;
}

/*
 * What the statement knows of the table's buffer; NULL: the table is no
 * target.  Checks that the caller may read it.
 */
BddOverlay *
bdd_overlay_of(MemoryContext query, Oid relid)
{
	Oid role = GetUserId();
	BddTarget *target;

	bdd_check_preloaded();
	for (BddOverlay *overlay = overlays; overlay != NULL;
		 overlay = overlay->next)
		if (overlay->query == query && overlay->relid == relid &&
			bdd_overlay_is_open_to(overlay, role))
			return overlay;
	LockRelationOid(relid, AccessShareLock);
	target = bdd_target_lookup(relid);
	if (target == NULL)
		return NULL;
	bdd_check_usable(target);
	bdd_read_begin(target);
	return start(query, target);
}

/*
 * A statement begins that reads the view.  As of a table it sees what is
 * pending now, and the rights of the role that began it count, also if it
 * is a cursor that another role fetches from.
 */
void
bdd_overlay_begin(MemoryContext query, Oid relid)
{
	BddOverlay *overlay = bdd_overlay_of(query, relid);

	if (overlay != NULL)
		overlay->role = InvalidOid;
}

BddTarget *
bdd_overlay_target(const BddOverlay *overlay)
{
	return overlay->target;
}

/*
 * bdd_overlay_find where only the operator class knows which keys are equal.
 * It is called when the overlay is complete.
 */
static BddOverlaid *
find_sorted(BddOverlay *overlay, const Datum *values)
{
	BddTarget *target = overlay->target;
	BddSavedRole saved;
	BddValues row;
	BddImage key;
	BddRow *found;

	if (overlay->rows.count == 0)
		return NULL;
	bdd_values_init(target, &row);
	for (int i = 0; i < target->key.count; i++)
	{
		int column = target->key.columns[i].attnum - 1;

		row.values[column] = values[i];
		row.isnull[column] = false;
	}
	key = bdd_key_image(target, &row);
	bdd_become_owner_of(target->owner, &saved);
	found = bdd_rows_find(target, &overlay->rows, &key, 0);
	bdd_restore_role(&saved);
	return found == NULL ? NULL : &overlay->sorted[found - overlay->rows.rows];
}

/* What the statement sees of the key, none of whose values is null. */
BddOverlaid *
bdd_overlay_find(BddOverlay *overlay, const Datum *values)
{
	StringInfo bytes = &overlay->bytes;
	BddOverlaid *key;
	MemoryContext old_context;
	uint32 hash;

	if (!overlay->target->key.exact)
		return find_sorted(overlay, values);
	if (!overlay->complete && overlay->keys->members >= overlay->few)
		bdd_overlay_complete(overlay);
	if (overlay->complete && overlay->keys->members == 0)
		return NULL;
	resetStringInfo(bytes);
	hash = bdd_key_encode(&overlay->target->key, values, bytes);
	if (overlay->complete)
	{
		BddOverlaid probe = {.hash = hash, .key_size = bytes->len, .key = bytes->data};
		BddOverlaidEntry *entry = bdd_overlaid_lookup(overlay->keys, &probe);

		return entry == NULL ? NULL : entry->key;
	}
	key = entry_of(overlay, hash, bytes->data, bytes->len);
	if (!key->decided)
	{
		old_context = MemoryContextSwitchTo(overlay->context);
		decide(overlay, key, bytes);
		MemoryContextSwitchTo(old_context);
	}
	return key;
}

/* ---------- rows ---------- */

/* The row that the view shows for the key; false: there is none. */
bool
bdd_overlay_row(BddOverlay *overlay, const BddOverlaid *key, BddValues *row)
{
	BddTarget *target = overlay->target;
	HeapTupleHeader stored = NULL;
	BddSavedRole saved;

	if (key == NULL || key->rows.count == 0)
		return false;
	if (bdd_read_needs_table(target, &key->rows))
	{
		bdd_become_owner_of(target->owner, &saved);
		stored = bdd_read_table_row(target, &key->rows.rows[0].image);
		bdd_restore_role(&saved);
	}
	return bdd_read_fold(target, &key->rows, stored, row);
}

/* Leaves dropped columns out. */
void
bdd_overlay_pack(const BddOverlay *overlay, BddValues *row)
{
	TupleDesc desc = overlay->target->shape.desc;
	int live = 0;

	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		row->values[live] = row->values[i];
		row->isnull[live] = row->isnull[i];
		live++;
	}
}

/* ---------- SQL functions ---------- */

/* Whether the role may go on with an overlay that it has not begun. */
bool
bdd_overlay_is_open_to(const BddOverlay *overlay, Oid role)
{
	return !OidIsValid(overlay->role) || overlay->role == role;
}

/* How many keys bdd_overlay_visit visits at the most. */
uint64
bdd_overlay_count(const BddOverlay *overlay)
{
	return overlay->target->key.exact ? overlay->keys->members : overlay->rows.count;
}

/* All keys of an overlay that is complete. */
void
bdd_overlay_visit(BddOverlay *overlay, BddOverlaidVisitor visit, void *arg)
{
	bdd_overlaid_iterator iterator;
	BddOverlaidEntry *entry;

	if (!overlay->target->key.exact)
	{
		for (uint64 i = 0; i < overlay->rows.count; i++)
			visit(&overlay->sorted[i], arg);
		return;
	}
	bdd_overlaid_start_iterate(overlay->keys, &iterator);
	while ((entry = bdd_overlaid_iterate(overlay->keys, &iterator)) != NULL)
		visit(entry->key, arg);
}

/* The table that a call of overlay_rows() names, or InvalidOid. */
Oid
bdd_overlay_argument(Node *call)
{
	Const *argument;

	if (!IsA(call, FuncExpr) || list_length(((FuncExpr *) call)->args) != 1)
		return InvalidOid;
	argument = linitial(((FuncExpr *) call)->args);
	return IsA(argument, Const) && !argument->constisnull ?
			   DatumGetObjectId(argument->constvalue) :
			   InvalidOid;
}
