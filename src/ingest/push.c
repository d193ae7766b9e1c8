/*-------------------------------------------------------------------------
 *
 * push.c
 *		From SQL values to pending rows.
 *
 * All that can be told at once is checked here, in the caller's transaction:
 * keys, NOT NULL, privileges, size.
 *
 *-------------------------------------------------------------------------
 */
#include "ingest/push.h"

#include "access/xact.h"
#include "apply/direct.h"
#include "buffer/flush_wait.h"
#include "buffer/wake.h"
#include "commands/sequence.h"
#include "commit/pending.h"
#include "commit/xact.h"
#include "common/hashfn.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "target/privilege.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* ---------- checks of the transaction ---------- */

/* "call" is the function's name, for errors. */
static void
check_transaction(const char *call)
{
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot execute %s during a parallel operation",
						call)));
	bdd_check_can_push();
}

/* ---------- checks of values ---------- */

/*
 * A row that would not fit into an empty buffer is refused at once, since it
 * could never be published.
 */
static void
check_size(const BddTarget *target, uint32 key_size, uint32 image_size)
{
	if (offsetof(BddSharedEntry, key) + key_size > BDD_MAX_BLOCK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("key of %u bytes is too long for target \"%s\"",
						key_size, get_rel_name(target->relid)),
				 errdetail("A key has at most %d bytes.",
						   (int) (BDD_MAX_BLOCK - offsetof(BddSharedEntry, key)))));
	if (bdd_row_room(key_size, image_size) > bdd_largest_transaction())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row of %u bytes does not fit into the buffer of \"%s\"",
						image_size, get_rel_name(target->relid)),
				 errdetail("The largest row has %zu bytes.",
						   bdd_largest_transaction()),
				 errhint("Raise batchdedup.buffer_size or batchdedup.max_target_share.")));
}

/* ---------- pushing ---------- */

/* Reused for every row of the session. */
static StringInfo
key_buffer(void)
{
	static StringInfo buffer = NULL;

	if (buffer == NULL)
	{
		MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);

		buffer = makeStringInfo();
		MemoryContextSwitchTo(old_context);
	}
	resetStringInfo(buffer);
	return buffer;
}

/* Whether rows of this caller do not go through the buffer. */
static bool
bypasses_buffer(const BddTarget *target, bool kept)
{
	/* A worker cannot wait for itself, as a direct write might. */
	if (bdd_am_worker)
	{
		bdd_check_row_security(target);
		return false;
	}
	if (target->slot != NULL && bdd_worker_unavailable(target->slot))
		return true;
	if (target->options.logged && !kept)
		return true;
	return bdd_is_switched_off(target);
}

/*
 * What the transaction has pending for the target, brought up to date with its
 * options and the caller's role.  "kept": the journal takes rows now.
 */
static BddPending *
pending_of(BddTarget *target, bool kept)
{
	bool bypasses = bypasses_buffer(target, kept);
	BddSharedSlot *slot;
	BddPending *pending;

	slot = bypasses ? bdd_target_find_slot(target) : bdd_target_slot(target);
	bdd_pending_init();
	pending = bdd_pending_get(target->relid, target->options.target_id, slot,
							  &target->shape);
	pending->flush_rows = bdd_target_flush_rows(target);
	/* Only a worker goes on without a journal: it cannot write directly. */
	pending->logged = target->options.logged &&
					  (!bdd_am_worker || kept);
	if (OidIsValid(pending->role) && pending->role != GetUserId())
		pending->several_roles = true;
	if (!bypasses)
		pending->role = GetUserId();
	return pending;
}

/* The buffer is nearly full; true: the row is to be written directly. */
static bool
make_room(const BddTarget *target, BddPending *pending)
{
	if (bdd_am_worker || !bdd_above_high_water(pending->slot))
		return false;
	if (target->options.on_full == BDD_FULL_DIRECT)
		return true;
	if (target->options.on_full == BDD_FULL_ERROR)
		bdd_report_full(pending->slot);
	bdd_wait_for_room(pending->slot, GetCurrentTimestamp());
	return false;
}

/* The image's data is in bdd_pending_context. */
static void
push(BddTarget *target, uint32 hash, StringInfo key, BddImage image)
{
	BddPending *pending;
	bool kept;

	bdd_journal_wait_replayed();
	kept = bdd_journal_is_kept(); /* it may change at any time */
	pending = pending_of(target, kept);
	/* Now that there is a slot it is known whether there is a worker. */
	if (pending->direct == NULL &&
		(bypasses_buffer(target, kept) || make_room(target, pending)))
		bdd_direct_begin(target, pending);
	if (pending->direct != NULL)
	{
		bdd_direct_write(target, &image);
		pfree(image.data);
		return;
	}
	check_size(target, key->len, image.size);
	bdd_pending_add(pending, hash, key->data, key->len, image);
	if (bdd_pending_room() > bdd_largest_transaction() && !bdd_am_worker)
		bdd_direct_begin(target, pending);
}

/* An upsert of the columns that are given. */
void
bdd_push_values(BddTarget *target, BddValues *row)
{
	const BddShape *shape = &target->shape;
	BddColumns *update = palloc0(2 * shape->set_bytes);
	BddColumns *insert = update + shape->set_bytes;
	StringInfo key = key_buffer();
	MemoryContext old_context;
	BddImage image;
	uint32 hash;

	check_transaction("upsert()");
	bdd_values_complete(target, row, update, insert);
	hash = bdd_values_key(target, row, key);
	bdd_pending_init();
	old_context = MemoryContextSwitchTo(bdd_pending_context);
	image = bdd_image_from_values(shape, BDD_UPSERT, row->values, row->isnull,
								  update, insert);
	MemoryContextSwitchTo(old_context);
	push(target, hash, key, image);
}

/* A version that is given and not NULL limits what the delete may delete. */
void
bdd_push_delete(BddTarget *target, BddValues *row)
{
	StringInfo key = key_buffer();
	MemoryContext old_context;
	int version = target->shape.version;
	BddImage image;
	uint32 hash;

	bdd_check_has_key(target);
	check_transaction("delete()");
	bdd_check_may_delete(target);
	hash = bdd_values_key(target, row, key);
	bdd_pending_init();
	old_context = MemoryContextSwitchTo(bdd_pending_context);
	image = bdd_delete_image(target, row,
							 version >= 0 && bdd_column_in(row->given, version) &&
								 !row->isnull[version]);
	MemoryContextSwitchTo(old_context);
	push(target, hash, key, image);
}

/* ---------- the fast way for typed rows ---------- */

/* Such a row goes the long way, where the error is raised. */
static bool
has_null_it_must_not(const BddTarget *target, HeapTuple heap)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (TupleDescAttr(target->shape.desc, i)->attnotnull &&
			heap_attisnull(heap, i + 1, target->shape.desc))
			return true;
	return false;
}

/* The row as it is: every column is given, none is computed, none is wrong. */
static void
push_full_row(BddTarget *target, HeapTuple heap)
{
	Datum values[INDEX_MAX_KEYS];
	StringInfo key = key_buffer();
	MemoryContext old_context;
	BddImage image;
	uint32 hash;
	bool isnull;

	check_transaction("upsert()");
	bdd_check_may_upsert(target, target->shape.update, target->shape.insert);
	for (int i = 0; i < target->key.count; i++)
		values[i] = heap_getattr(heap, target->key.columns[i].attnum,
								 target->shape.desc, &isnull);
	hash = target->key.count == 0 ? bdd_unique_key(key) :
									bdd_key_encode(&target->key, values, key);
	bdd_pending_init();
	old_context = MemoryContextSwitchTo(bdd_pending_context);
	image = bdd_image_from_full_row(heap);
	MemoryContextSwitchTo(old_context);
	push(target, hash, key, image);
}

/*
 * Whether the row can be taken as it is; the caller knows that it points to
 * nothing outside.
 */
static bool
is_plain_row(const BddTarget *target, HeapTuple heap)
{
	return target->plain_rows &&
		   HeapTupleHeaderGetNatts(heap->t_data) == target->shape.desc->natts &&
		   !((heap->t_data->t_infomask & HEAP_HASNULL) != 0 &&
			 has_null_it_must_not(target, heap));
}

/* An upsert of a value of the table's row type. */
void
bdd_push_row(BddTarget *target, HeapTupleHeader tuple)
{
	HeapTupleData heap;
	BddValues row;

	bdd_composite_as_heap(tuple, &heap);
	if (is_plain_row(target, &heap))
	{
		push_full_row(target, &heap);
		return;
	}
	bdd_values_init(target, &row);
	bdd_values_from_row(target, tuple, &row);
	bdd_push_values(target, &row);
}

/* An upsert of a tuple that gives all of the table's columns. */
void
bdd_push_tuple(BddTarget *target, HeapTuple tuple)
{
	BddValues row;

	if (!HeapTupleHasExternal(tuple) && is_plain_row(target, tuple))
	{
		push_full_row(target, tuple);
		return;
	}
	bdd_values_init(target, &row);
	heap_deform_tuple(tuple, target->shape.desc, row.values, row.isnull);
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (!TupleDescAttr(target->shape.desc, i)->attisdropped)
			bdd_values_give(target, &row, i);
	bdd_push_values(target, &row);
}
