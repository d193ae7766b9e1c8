/*-------------------------------------------------------------------------
 *
 * journal_copy.c
 *		Writing rows to the journal once more, so that old WAL can go.
 *
 * A target that cannot be applied must not keep WAL for ever, and where the
 * server has taken WAL away that was needed, memory still has the rows.  So
 * the launcher copies generations that are quiet, and those that are in a
 * file since the last start, as messages of their own.  The last message of a
 * copy makes it count: then it replaces all older rows of its generations.
 *
 *-------------------------------------------------------------------------
 */
#include "journal/journal_copy.h"

#include "access/xlog.h"
#include "base/debug_point.h"
#include "base/number.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "journal/message.h"
#include "journal/spool.h"
#include "miscadmin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* What is being copied. */
typedef struct BddCopy
{
	Oid database;
	Oid relid;
	int32 target_id;
	uint32 fingerprint;
	uint32 rows; /* of a file */
	uint64 from; /* generations */
	uint64 to;
	XLogRecPtr id; /* no message of the copy is before */
	XLogRecPtr end;
} BddCopy;

/* ---------- messages ---------- */

/*
 * The head of a message of the copy.  "last": it is the one that makes the
 * copy count, and has no rows.
 */
static void
begin_message(const BddCopy *copy, StringInfo message, bool last,
			  uint64 first_sequence)
{
	TimestampTz now = GetCurrentTimestamp();

	initStringInfo(message);
	appendStringInfoCharMacro(message, BDD_JOURNAL_VERSION);
	appendStringInfoCharMacro(message, BDD_MESSAGE_COPY);
	bdd_put_number(message, copy->database);
	bdd_put_number(message, copy->id);
	bdd_put_number(message, (uint32) copy->target_id);
	bdd_put_number(message, copy->relid);
	bdd_put_number(message, copy->from);
	bdd_put_number(message, copy->to);
	appendStringInfoCharMacro(message, last);
	appendBinaryStringInfo(message, (char *) &now, sizeof(now));
	bdd_put_number(message, first_sequence);
}

/*
 * Writes the message, without an xid, and frees it.  Nothing is flushed before
 * end_copy.
 */
static void
write_message(BddCopy *copy, StringInfo message)
{
	copy->end = bdd_log_message(message, false);
	pfree(message->data);
}

/* Writes the section as a message of its own. */
static void
write_section(BddCopy *copy, const BddJournalSection *section)
{
	StringInfoData message;

	begin_message(copy, &message, false, section->first_sequence);
	bdd_put_section(&message, section);
	write_message(copy, &message);
}

/* From here on the copy counts. */
static void
end_copy(BddCopy *copy)
{
	StringInfoData message;

	bdd_debug_point("copied");
	begin_message(copy, &message, true, 0);
	write_message(copy, &message);
	XLogFlush(copy->end);
}

/* ---------- from memory ---------- */

/*
 * NULL: the generation is applied, or gone.  The caller holds the slot lock.
 */
static BddSharedGeneration *
find_sealed(BddSharedSlot *slot, uint64 number)
{
	BddSharedGeneration *generation = slot->oldest;

	while (generation != NULL && generation->number != number)
		generation = generation->next;
	return generation != NULL && generation->state == BDD_SEALED ? generation : NULL;
}

/* Sections with the rows, of about a message's size each. */
static List *
make_sections(const BddCopy *copy, const BddShape *shape, const BddRows *rows)
{
	List *sections = NIL;
	BddJournalSection *section = NULL;
	StringInfoData data;

	for (uint64 i = 0; i < rows->count; i++)
	{
		if (section == NULL)
		{
			section = palloc0(sizeof(*section));
			section->target_id = copy->target_id;
			section->relid = copy->relid;
			section->generation = copy->to;
			section->fingerprint = copy->fingerprint;
			sections = lappend(sections, section);
			initStringInfo(&data);
		}
		bdd_put_row(&data, rows->rows[i].sequence, shape,
					&rows->rows[i].image);
		section->rows++;
		section->size = data.len;
		section->data = data.data;
		if (data.len >= BDD_MESSAGE_LIMIT)
			section = NULL;
	}
	return sections;
}

/*
 * Copies a part of a quiet generation; false: it was applied meanwhile.  The
 * slot lock keeps it in memory; it is not held while WAL is written.
 */
static bool
copy_partition(BddSharedSlot *slot, BddCopy *copy, int partition)
{
	BddSharedGeneration *generation;
	BddRows rows = {0};
	List *sections = NIL;
	ListCell *cell;

	LWLockAcquire(&slot->lock, LW_SHARED);
	generation = find_sealed(slot, copy->to);
	if (generation != NULL)
	{
		BddShape shape = {.set_bytes = generation->set_bytes};

		bdd_collect_partition(generation, partition, true, &rows);
		sections = make_sections(copy, &shape, &rows);
	}
	LWLockRelease(&slot->lock);
	foreach(cell, sections)
	{
		write_section(copy, lfirst(cell));
		CHECK_FOR_INTERRUPTS();
	}
	MemoryContextReset(CurrentMemoryContext);
	return generation != NULL;
}

/* ---------- from a file ---------- */

/* False: the file is not what it was, and the WAL has to stay. */
static bool
copy_file(BddCopy *copy)
{
	BddSpool spool;
	BddJournalSection section;
	bool found = bdd_spool_open(&spool, copy->database, copy->target_id);
	bool whole = bdd_spool_is_whole(&spool, copy->rows);

	if (!whole)
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("rows are missing in file \"%s\"", spool.path)));
	while (found && whole && bdd_spool_next(&spool, &section))
	{
		section.target_id = copy->target_id;
		section.relid = copy->relid;
		write_section(copy, &section);
		CHECK_FOR_INTERRUPTS();
	}
	if (found)
		bdd_spool_close(&spool);
	return whole;
}

/* ---------- one generation ---------- */

/* The messages are flushed: older ones are not needed any more. */
static void
note_copied(BddSharedSlot *slot, const BddCopy *copy)
{
	BddSharedGeneration *generation;

	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	LWLockAcquire(&slot->lock, LW_SHARED);
	if (slot->in_use && slot->database == copy->database &&
		slot->target_id == copy->target_id)
	{
		generation = find_sealed(slot, copy->to);
		if (generation != NULL)
			generation->journal_from = copy->id;
	}
	LWLockRelease(&slot->lock);
	LWLockRelease(&bdd_registry->lock);
}

/* Copies the slot's generation with this number, which is quiet. */
static void
copy_generation(BddSharedSlot *slot, uint64 number)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "batchdedup copy",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	BddCopy copy = {.from = number, .to = number, .id = GetXLogInsertRecPtr()};
	BddSharedGeneration *generation;
	bool spooled = false;
	bool there = true;

	LWLockAcquire(&slot->lock, LW_SHARED);
	copy.database = slot->database;
	copy.relid = slot->relid;
	copy.target_id = slot->target_id;
	generation = find_sealed(slot, number);
	if (generation != NULL)
	{
		spooled = generation->spooled;
		copy.fingerprint = generation->fingerprint;
		copy.rows = pg_atomic_read_u32(&generation->keys);
	}
	LWLockRelease(&slot->lock);
	if (generation == NULL)
		there = false;
	else if (spooled)
	{
		copy.from = 0;
		there = copy_file(&copy);
	}
	else
		for (int i = 0; i < BDD_PARTITIONS && there; i++)
			there = copy_partition(slot, &copy, i);
	if (there)
	{
		end_copy(&copy);
		note_copied(slot, &copy);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}

/* Bytes that a copy of what the slot has would be, roughly. */
static uint64
copied_bytes(BddSharedSlot *slot)
{
	uint64 bytes = (uint64) pg_atomic_read_u32(&slot->budget.used) * BDD_CHUNK_SIZE;

	if (slot->spooled)
		bytes += bdd_spool_size(slot->database, slot->target_id);
	return bytes;
}

/*
 * Whether to copy what has been in the WAL since "from".  A copy is WAL, too:
 * it is worth while only after several times as much of it.
 */
static bool
is_old(XLogRecPtr from, const BddOldJournal *old, uint64 bytes)
{
	uint64 since = GetXLogInsertRecPtr() - from;

	/* One that is larger than what slots may keep would lose the slot anew. */
	if (max_slot_wal_keep_size_mb >= 0 &&
		bytes / (1024 * 1024) >= max_slot_wal_keep_size_mb)
		return false;
	return from < old->lost_before ||
		   (from < old->kept_before && since >= 2 * bytes) ||
		   (from < old->redo && since >= 16 * bytes);
}

/* The slot's next generation that is to be copied; 0: none. */
static uint64
next_old(BddSharedSlot *slot, uint64 after, const BddOldJournal *old,
		 bool *active)
{
	uint64 bytes = copied_bytes(slot);
	uint64 number = 0;

	LWLockAcquire(&slot->lock, LW_SHARED);
	for (BddSharedGeneration *generation = slot->oldest;
		 generation != NULL && number == 0; generation = generation->next)
	{
		if (!generation->logged || generation->state == BDD_APPLIED ||
			generation->number <= after ||
			!is_old(generation->journal_from, old, bytes))
			continue;
		number = generation->number;
		*active = generation->state == BDD_ACTIVE;
	}
	LWLockRelease(&slot->lock);
	return number;
}

/* All at one moment: there may be groups (flusher.c). */
static void
seal_database(int worker)
{
	BddSharedSlot **slots = palloc(bdd_registry->slot_count * sizeof(BddSharedSlot *));
	int count = 0;

	for (int i = 0; i < bdd_registry->slot_count; i++)
		if (bdd_registry->slots[i].in_use &&
			bdd_registry->slots[i].worker == worker)
			slots[count++] = &bdd_registry->slots[i];
	bdd_seal_together(slots, count);
	pfree(slots);
}

/*
 * Copies what has been in the WAL for too long.  Generations that are active
 * are sealed, and copied when they are quiet: the next time.
 */
void
bdd_journal_copy(const BddOldJournal *old)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];
		uint64 number = 0;
		bool active;

		if (!slot->in_use)
			continue;
		while ((number = next_old(slot, number, old, &active)) != 0)
		{
			if (active)
				seal_database(slot->worker);
			else if (bdd_is_quiet(slot, number))
				copy_generation(slot, number);
		}
	}
}
