/*-------------------------------------------------------------------------
 *
 * barrier_hint.c
 *		How many completed files of a batch are in the buffer.
 *
 * A batch's last file should not wait for the next flush: it is asked for when
 * as many completed files of the batch are buffered as the batch has open.
 * A transaction that completes files notes how many, and how many were open; at
 * commit it adds them to the count of the generation that took them.  The worker
 * looks at the counts of the next generation when it has applied one, since only
 * then it is known how many are open still.
 *
 * Here, too, waiters for a batch are woken (batch_wait.c).
 *
 *-------------------------------------------------------------------------
 */
#include "batch/barrier_hint.h"

#include "buffer/flush_wait.h"
#include "buffer/registry.h"
#include "buffer/slot.h"
#include "commit/pending.h"
#include "commit/xact.h"
#include "common/hashfn.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

/* What the transaction says of a batch. */
typedef struct BddNote
{
	pg_uuid_t batch;  /* key of the hash table */
	uint32 completed; /* files, by this transaction */
	uint32 open;      /* files that the table has open */
} BddNote;

BddSharedBarrier *bdd_barrier = NULL;

static HTAB *notes = NULL; /* in TopTransactionContext */
static Oid noted_table = InvalidOid;
static bool flush_wanted = false;
static bool status_changed = false;

/* In the postmaster, before other processes exist. */
void
bdd_barrier_init(BddSharedBarrier *shared)
{
	ConditionVariableInit(&shared->changed);
	for (int i = 0; i < BDD_BARRIER_CELLS; i++)
		pg_atomic_init_u64(&shared->cells[i], 0);
}

/* The table goes with the transaction's memory. */
static void
create_notes(void)
{
	HASHCTL control = {.keysize = sizeof(pg_uuid_t),
					   .entrysize = sizeof(BddNote),
					   .hcxt = TopTransactionContext};

	notes = hash_create("batchdedup batches", 16, &control,
						HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * The transaction has completed so many files of the batch, of so many that
 * are open in the table of files.
 */
void
bdd_barrier_note(Oid table, const pg_uuid_t *batch, uint32 completed,
				 uint32 open)
{
	BddNote *note;
	bool found;

	if (notes == NULL)
		create_notes();
	note = hash_search(notes, batch, HASH_ENTER, &found);
	if (!found)
		note->completed = 0;
	note->completed += completed;
	note->open = open;
	noted_table = table;
}

/* Whether the transaction has completed files of the batch. */
bool
bdd_barrier_noted(const pg_uuid_t *batch)
{
	BddNote *note = notes == NULL ?
						NULL :
						hash_search(notes, batch, HASH_FIND, NULL);

	return note != NULL && note->completed > 0;
}

/* At commit a flush is asked for: the buffer may have all that a batch waits for. */
void
bdd_barrier_want_flush(Oid table)
{
	noted_table = table;
	flush_wanted = true;
}

/*
 * A batch's status has changed: at commit those that wait for it look again.
 */
void
bdd_barrier_status_changed(void)
{
	status_changed = true;
}

/* ---------- at commit ---------- */

/* Adds to a batch's count in a generation; returns what it is then. */
static uint32
count(const BddNote *note, int32 target_id, uint64 generation)
{
	uint32 hash = hash_bytes(note->batch.data, UUID_LEN);
	pg_atomic_uint64 *cell = &bdd_barrier->cells[hash % BDD_BARRIER_CELLS];
	uint64 tag = (uint64) hash_combine(murmurhash32((uint32) target_id),
									   murmurhash32((uint32) generation))
				 << 32;
	uint64 old = pg_atomic_read_u64(cell);
	uint64 new;

	do
	{
		uint64 counted = (old & ~(uint64) PG_UINT32_MAX) == tag ? old : tag;

		new = counted + note->completed;
		if (note->completed == 0)
			break;
	} while (!pg_atomic_compare_exchange_u64(cell, &old, new));
	return (uint32) new;
}

/*
 * Adds the transaction's notes to the counts of the generation; returns
 * whether one batch has as many files in it as are open.
 */
static bool
is_complete(BddSharedSlot *slot, uint64 generation)
{
	bool complete = false;
	HASH_SEQ_STATUS scan;
	BddNote *note;

	if (notes == NULL)
		return false;
	hash_seq_init(&scan, notes);
	while ((note = hash_seq_search(&scan)) != NULL)
		if (count(note, slot->target_id, generation) >= note->open &&
			note->open > 0)
			complete = true;
	return complete;
}

/* At the end of a transaction, whose memory has the notes. */
static void
forget(void)
{
	notes = NULL;
	noted_table = InvalidOid;
	flush_wanted = false;
	status_changed = false;
}

/* After the transaction's rows are published, or a generation is applied. */
static void
note_commit(void)
{
	if (notes != NULL || flush_wanted)
	{
		BddPending *pending = bdd_pending_find(noted_table);
		BddSharedSlot *slot = bdd_slot_find_by_table(noted_table);

		if (slot != NULL &&
			(is_complete(slot, pending != NULL && pending->published != 0 ?
								   pending->published :
								   slot->next_generation - 1) ||
			 flush_wanted))
			(void) bdd_request_flush(slot, false);
	}
	if (status_changed)
		ConditionVariableBroadcast(&bdd_barrier->changed);
	forget();
}

/* In _PG_init. */
void
bdd_barrier_hint_init(void)
{
	static const BddXactListener listener = {.commit = note_commit,
											 .abort = forget};

	bdd_xact_listen(&listener);
}
