/*-------------------------------------------------------------------------
 *
 * replay.c
 *		Rows that were found in the journal, as a source for an apply.
 *
 * They are in a file, in the order of the WAL, and may be many more than were
 * in memory: every row that was ever published since.  They are sorted by
 * their sequence numbers, on disk if need be, and handed out part by part, so
 * that the apply can fold each part and needs no more memory than it is given.
 *
 * A file may have rows from before the table was altered: see old_shape.c.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/replay.h"

#include "access/tupdesc.h"
#include "base/compat.h"
#include "buffer/progress.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "journal/journal_read.h"
#include "journal/spool.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplesort.h"

/* An open file whose rows are sorted. */
struct BddReplaySource
{
	BddTarget *target;
	const BddOldShape *old;
	MemoryContext context; /* of all that is here */
	Tuplesortstate *sort;
	TupleTableSlot *slot;
};

/* In front of a row's bytes in the sort. */
typedef struct BddSortedHead
{
	uint8 op;
	uint8 full;
	uint8 old; /* of the shape that the table had */
} BddSortedHead;

/* ---------- sorting ---------- */

/* What is sorted: the sequence number, and all else of the row as bytes. */
static TupleDesc
sorted_desc(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(desc, 1, "sequence", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "image", BYTEAOID, -1, 0);
	bdd_finish_desc(desc);
	return desc;
}

/* The row's bytes are behind a BddSortedHead; the sort takes a copy. */
static void
sort_row(Tuplesortstate *sort, TupleTableSlot *slot,
		 const BddJournalRow *row, bool old)
{
	BddSortedHead head = {row->op, row->full, old};
	bytea *value = palloc(VARHDRSZ + sizeof(head) + row->size);

	SET_VARSIZE(value, VARHDRSZ + sizeof(head) + row->size);
	memcpy(VARDATA(value), &head, sizeof(head));
	memcpy(VARDATA(value) + sizeof(head), row->data, row->size);
	ExecClearTuple(slot);
	slot->tts_values[0] = Int64GetDatum(row->sequence);
	slot->tts_values[1] = PointerGetDatum(value);
	slot->tts_isnull[0] = slot->tts_isnull[1] = false;
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(sort, slot);
	pfree(value);
}

/* Whether rows with this fingerprint are of the shape that the table had. */
static bool
is_old(BddTarget *target, const BddOldShape *old, uint32 fingerprint)
{
	if (fingerprint == target->shape.fingerprint)
		return false;
	if (!bdd_old_shape_fits(old, fingerprint))
		bdd_report_other_shape(target);
	return true;
}

/* Rows of the file that are of generations above the mark. */
static Tuplesortstate *
sort_file(BddTarget *target, BddSpool *spool, TupleDesc desc,
		  const BddReplayed *known)
{
	AttrNumber column = 1;
	Oid less = Int8LessOperator;
	Oid collation = InvalidOid;
	bool nulls_first = false;
	Tuplesortstate *sort = tuplesort_begin_heap(desc, 1, &column, &less,
												&collation, &nulls_first,
												maintenance_work_mem, NULL,
												TUPLESORT_NONE);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	BddJournalSection section;
	BddJournalRow row;
	bool is_of_old;

	while (bdd_spool_next(spool, &section))
	{
		CHECK_FOR_INTERRUPTS();
		/* Messages before "from" were given up, or are of an older target. */
		if (section.generation <= known->mark || section.lsn < known->from)
			continue;
		is_of_old = is_old(target, known->old, section.fingerprint);
		while (bdd_journal_next_row(&section, &row))
			sort_row(sort, slot, &row, is_of_old);
	}
	ExecDropSingleTupleTableSlot(slot);
	tuplesort_performsort(sort);
	return sort;
}

/* ---------- as a source ---------- */

/* Opens the target's file; false: there is none, as there were no rows. */
static bool
open_file(BddSpool *spool, int32 target_id, uint32 rows)
{
	bool found = bdd_spool_open(spool, MyDatabaseId, target_id);

	if (!bdd_spool_is_whole(spool, rows))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("rows are missing in file \"%s\"", spool->path),
				 errhint("Restart the server with \"immediate\": the file is made again.")));
	return found;
}

/*
 * The rows of the target's file that are not applied, sorted by sequence
 * number; NULL: there is no file.
 */
BddReplaySource *
bdd_replay_open(BddTarget *target, const BddReplayed *known)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "batchdedup sort",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	BddReplaySource *replay = NULL;
	BddSpool spool;

	if (open_file(&spool, target->options.target_id, known->rows))
	{
		TupleDesc desc = sorted_desc();

		replay = palloc(sizeof(BddReplaySource));
		replay->target = target;
		replay->old = known->old;
		replay->context = context;
		replay->sort = sort_file(target, &spool, desc, known);
		replay->slot = MakeSingleTupleTableSlot(desc, &TTSOpsMinimalTuple);
		bdd_spool_close(&spool);
		bdd_progress_begin("replay", target->relid, NULL, known->rows);
	}
	MemoryContextSwitchTo(old_context);
	if (replay == NULL)
		MemoryContextDelete(context);
	return replay;
}

/* Adds the row in the slot; returns how much memory it takes. */
static Size
add_row(BddReplaySource *replay, BddRows *rows)
{
	bool isnull;
	Datum sequence = slot_getattr(replay->slot, 1, &isnull);
	bytea *value = (bytea *) DatumGetPointer(slot_getattr(replay->slot, 2, &isnull));
	BddSortedHead head;
	BddImage image;
	const char *data;
	uint32 size;

	memcpy(&head, VARDATA_ANY(value), sizeof(head));
	data = VARDATA_ANY(value) + sizeof(head);
	size = VARSIZE_ANY_EXHDR(value) - sizeof(head);
	image = head.old ? bdd_image_from_old(replay->old, head.op, head.full, data, size) :
					   bdd_image_unpack(&replay->target->shape, head.op,
										head.full, data, size);
	bdd_rows_add(rows, DatumGetInt64(sequence), &image);
	return image.size + sizeof(BddRow);
}

/*
 * Adds the next rows, in the current memory context, until they take "bytes";
 * false: those were the last ones.
 */
bool
bdd_replay_next(BddReplaySource *replay, BddRows *rows, Size bytes)
{
	Size taken = 0;

	while (taken < bytes)
	{
		if (!tuplesort_gettupleslot(replay->sort, true, false, replay->slot, NULL))
			return false;
		CHECK_FOR_INTERRUPTS();
		taken += add_row(replay, rows);
		bdd_progress_add(1);
	}
	return true;
}

/* The file itself was closed when its rows were sorted. */
void
bdd_replay_close(BddReplaySource *replay)
{
	ExecDropSingleTupleTableSlot(replay->slot);
	if (bdd_progress_is("replay"))
		bdd_progress_end();
	tuplesort_end(replay->sort);
	MemoryContextDelete(replay->context);
}
