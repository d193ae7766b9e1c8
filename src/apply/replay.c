/*-------------------------------------------------------------------------
 *
 * replay.c
 *		Applying rows that were found in the journal.
 *
 * They are in a file, in the order of the WAL, and may be many more than were
 * in memory: every row that was ever published since.  They are sorted by
 * their sequence numbers, on disk if need be, and folded as they come.  What
 * is left goes to the table at the end of the apply as other rows do; if that
 * would be too much, then part by part, in the same transaction.
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

/* Bytes of rows that are folded when they have come together. */
#define FOLD_BYTES (16 * 1024 * 1024)
/* Bytes of folded rows that are written. */
#define WRITE_BYTES (64 * 1024 * 1024)

/* In front of a row's bytes in the sort. */
typedef struct BddSortedHead
{
	uint8 op;
	uint8 full;
	uint8 old; /* of the shape that the table had */
} BddSortedHead;

/* ---------- sorting ---------- */

static TupleDesc
sorted_desc(void)
{
	TupleDesc desc = CreateTemplateTupleDesc(2);

	TupleDescInitEntry(desc, 1, "sequence", INT8OID, -1, 0);
	TupleDescInitEntry(desc, 2, "image", BYTEAOID, -1, 0);
	bdd_finish_desc(desc);
	return desc;
}

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
		/* What is before "from" was given up, or is of an older target. */
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

/* ---------- folding ---------- */

static Size
row_bytes(const BddRows *rows)
{
	Size bytes = 0;

	for (uint64 i = 0; i < rows->count; i++)
		bytes += rows->rows[i].image.size + sizeof(BddRow);
	return bytes;
}

/* Folds what has come, and keeps only what is left of it in memory. */
static void
fold(BddApply *apply)
{
	MemoryContext old = apply->row_context;
	BddRows rows = {0};

	bdd_apply_fold(apply);
	apply->row_context = AllocSetContextCreate(apply->context,
											   "batchdedup replay",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(apply->row_context);
	for (uint64 i = 0; i < apply->rows.count; i++)
	{
		BddRow *row = &apply->rows.rows[i];
		BddImage copy = bdd_image_copy(&row->image);

		bdd_rows_add(&rows, row->sequence, &copy);
		rows.rows[rows.count - 1].round = row->round;
	}
	apply->rows = rows;
	if (old != apply->context)
		MemoryContextDelete(old);
}

static void
add_row(BddApply *apply, TupleTableSlot *slot, const BddOldShape *old)
{
	bool isnull;
	Datum sequence = slot_getattr(slot, 1, &isnull);
	bytea *value = (bytea *) DatumGetPointer(slot_getattr(slot, 2, &isnull));
	BddSortedHead head;
	BddImage image;
	const char *data;
	uint32 size;

	memcpy(&head, VARDATA_ANY(value), sizeof(head));
	data = VARDATA_ANY(value) + sizeof(head);
	size = VARSIZE_ANY_EXHDR(value) - sizeof(head);
	image = head.old ? bdd_image_from_old(old, head.op, head.full, data, size) :
					   bdd_image_unpack(&apply->target->shape, head.op,
										head.full, data, size);
	bdd_rows_add(&apply->rows, DatumGetInt64(sequence), &image);
}

static void
take_sorted(BddApply *apply, Tuplesortstate *sort, TupleDesc desc,
			const BddOldShape *old)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(desc,
													&TTSOpsMinimalTuple);
	Size bytes = 0;

	while (tuplesort_gettupleslot(sort, true, false, slot, NULL))
	{
		CHECK_FOR_INTERRUPTS();
		MemoryContextSwitchTo(apply->row_context);
		add_row(apply, slot, old);
		bdd_progress_add(1);
		bytes += apply->rows.rows[apply->rows.count - 1].image.size + sizeof(BddRow);
		if (bytes < FOLD_BYTES)
			continue;
		fold(apply);
		bytes = 0;
		if (row_bytes(&apply->rows) > WRITE_BYTES)
			bdd_apply_part(apply);
	}
	ExecDropSingleTupleTableSlot(slot);
}

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

/* Takes the rows of the target's file that are not applied. */
void
bdd_replay_rows(BddApply *apply, const BddReplayed *known)
{
	BddTarget *target = apply->target;
	MemoryContext old_context = CurrentMemoryContext;
	MemoryContext scratch = AllocSetContextCreate(apply->context,
												  "batchdedup sort",
												  ALLOCSET_DEFAULT_SIZES);
	BddSpool spool;

	MemoryContextSwitchTo(scratch);
	if (open_file(&spool, target->options.target_id, known->rows))
	{
		TupleDesc desc = sorted_desc();
		Tuplesortstate *sort = sort_file(target, &spool, desc, known);

		bdd_spool_close(&spool);
		bdd_progress_begin("replay", target->relid, NULL, known->rows);
		take_sorted(apply, sort, desc, known->old);
		if (bdd_progress_is("replay"))
			bdd_progress_end();
		MemoryContextSwitchTo(scratch);
		tuplesort_end(sort);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(scratch);
}
