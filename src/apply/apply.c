/*-------------------------------------------------------------------------
 *
 * apply.c
 *		From the buffer to the table.
 *
 * A generation is applied in one transaction, in key order, together with the
 * mark that says so: an apply that finds the mark set has nothing to do.
 * Deletes come first, then upserts, one or two statements for each set of
 * columns that rows give.  Rows of one key that do not combine are written in
 * rounds.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/apply.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "apply/dead_letter.h"
#include "apply/letter_retry.h"
#include "apply/replay.h"
#include "base/debug_point.h"
#include "base/loaded.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/progress.h"
#include "catalog/pg_type_d.h"
#include "commit/xact.h"
#include "executor/tuptable.h"
#include "journal/message.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "sql/spi.h"
#include "target/keyorder.h"
#include "target/old_shape.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pg_lsn.h"
#include "utils/wait_event.h"

/* ---------- generations ---------- */

/*
 * False: generations up to this one were applied before.  Beside it the mark
 * tells from where on the journal is needed for those that come after.
 */
static bool
set_mark(BddTarget *target, uint64 generation)
{
	Oid types[] = {INT4OID, INT8OID, PG_LSNOID, INT8OID, TEXTOID};
	Datum values[] = {Int32GetDatum(target->options.target_id),
					  Int64GetDatum(generation),
					  LSNGetDatum(bdd_slot_needed_from(target->slot, generation)),
					  Int64GetDatum(GetSystemIdentifier()),
					  CStringGetTextDatum(bdd_shape_to_text(target->shape.desc))};
	BddSavedRole saved;
	uint64 changed;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	changed = bdd_spi_run("INSERT INTO batchdedup.mark AS m VALUES ($1, $2, $3, $4, $5) "
						  "ON CONFLICT (target_id) DO UPDATE "
						  "SET generation = EXCLUDED.generation, journal_from = EXCLUDED.journal_from, "
						  "system = EXCLUDED.system, shape = EXCLUDED.shape "
						  "WHERE m.generation OPERATOR(pg_catalog.<) EXCLUDED.generation",
						  lengthof(types), types, values, NULL);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	if (changed > 0)
		bdd_journal_write_applied(target->options.target_id, target->relid,
								  generation);
	return changed > 0;
}

/*
 * All that the apply needs lives in a context of its own, under the current
 * one; bdd_apply_end deletes it.
 */
void
bdd_apply_begin(BddApply *apply, BddTarget *target)
{
	/* The mark and the letters are tables of the script. */
	bdd_check_version();
	memset(apply, 0, sizeof(*apply));
	apply->target = target;
	apply->context = AllocSetContextCreate(CurrentMemoryContext,
										   "batchdedup apply",
										   ALLOCSET_DEFAULT_SIZES);
	apply->row_context = apply->context;
}

/*
 * The shape that the generation's rows have, if it is another than the
 * table's; NULL: it is not, or may not be.  Asked before the mark is set.
 */
static const BddOldShape *
shape_before(BddTarget *target, const BddSharedGeneration *generation)
{
	const BddOldShape *old;

	if (generation->spooled)
		return bdd_old_shape(target);
	if (generation->fingerprint == target->shape.fingerprint)
		return NULL;
	old = bdd_old_shape(target);
	if (!bdd_old_shape_fits(old, generation->fingerprint))
		bdd_report_other_shape(target);
	return old;
}

/*
 * Adds the image in place of the row's own; the row keeps its sequence and its
 * round.
 */
static void
add_row(BddRows *rows, const BddRow *row, const BddImage *image)
{
	bdd_rows_add(rows, row->sequence, image);
	rows->rows[rows->count - 1].round = row->round;
}

/*
 * Writes rows as the owner, with constraints checked while we still are the
 * owner.  Returns those that the table refuses.
 */
static List *
write_rows_as_owner(BddApply *apply, BddRows *rows)
{
	BddSavedRole saved;
	List *refused;

	if (rows->count > 0)
		bdd_progress_begin("flush", apply->target->relid, NULL, rows->count);
	bdd_become_owner_of(apply->target->owner, &saved);
	bdd_constraints_immediate(apply->target->relid);
	refused = bdd_write_tolerantly(apply->target, rows, &apply->counts);
	bdd_restore_role(&saved);
	if (bdd_progress_is("flush"))
		bdd_progress_end();
	return refused;
}

/* The rows that the table refuses are added to those refused so far. */
static void
write_as_owner(BddApply *apply, BddRows *rows)
{
	apply->refused = list_concat(apply->refused,
								 write_rows_as_owner(apply, rows));
}

/* Leaves as few rows for each key as there can be. */
void
bdd_apply_fold(BddApply *apply)
{
	MemoryContext old_context = MemoryContextSwitchTo(apply->row_context);
	BddSavedRole saved;

	bdd_become_owner_of(apply->target->owner, &saved);
	apply->counts.stale += bdd_rows_fold_equal(apply->target, &apply->rows);
	bdd_restore_role(&saved);
	MemoryContextSwitchTo(old_context);
}

/* Writes the rows that have come so far, as they are more than memory is to hold. */
static void
write_part(BddApply *apply)
{
	MemoryContext old_context = MemoryContextSwitchTo(apply->context);
	MemoryContext rows = apply->row_context;
	int refused_before = list_length(apply->refused);

	write_as_owner(apply, &apply->rows);
	bdd_supersede_dead_letters(apply->target, &apply->rows, apply->refused);
	memset(&apply->rows, 0, sizeof(apply->rows));
	apply->row_context = AllocSetContextCreate(apply->context,
											   "batchdedup replay",
											   ALLOCSET_DEFAULT_SIZES);
	for (int i = refused_before; i < list_length(apply->refused); i++)
	{
		BddRefused *refused = list_nth(apply->refused, i);

		refused->row.image = bdd_image_copy(&refused->row.image);
	}
	if (rows != apply->context)
		MemoryContextDelete(rows);
	MemoryContextSwitchTo(old_context);
}

/* ---------- rows from the journal ---------- */

/* Bytes of rows that are folded when they have come together. */
#define FOLD_BYTES (16 * 1024 * 1024)
/* Bytes of folded rows that are written. */
#define WRITE_BYTES (64 * 1024 * 1024)

/* Roughly the memory that the rows take. */
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
fold_part(BddApply *apply)
{
	MemoryContext old = apply->row_context;
	MemoryContext old_context;
	BddRows rows = {0};

	bdd_apply_fold(apply);
	apply->row_context = AllocSetContextCreate(apply->context,
											   "batchdedup replay",
											   ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(apply->row_context);
	for (uint64 i = 0; i < apply->rows.count; i++)
	{
		BddRow *row = &apply->rows.rows[i];
		BddImage copy = bdd_image_copy(&row->image);

		add_row(&rows, row, &copy);
	}
	MemoryContextSwitchTo(old_context);
	apply->rows = rows;
	if (old != apply->context)
		MemoryContextDelete(old);
}

/*
 * Takes the rows of the target's file.  They are folded as they come; what is
 * left goes to the table at the end of the apply as other rows do, and if that
 * would be too much, part by part, in the same transaction.
 */
static void
replay_rows(BddApply *apply, const BddReplayed *known)
{
	BddReplaySource *replay = bdd_replay_open(apply->target, known);
	MemoryContext old_context = CurrentMemoryContext;

	if (replay == NULL)
		return;
	MemoryContextSwitchTo(apply->row_context);
	while (bdd_replay_next(replay, &apply->rows, FOLD_BYTES))
	{
		MemoryContextSwitchTo(apply->context);
		fold_part(apply);
		if (row_bytes(&apply->rows) > WRITE_BYTES)
			write_part(apply);
		MemoryContextSwitchTo(apply->row_context);
	}
	MemoryContextSwitchTo(old_context);
	bdd_replay_close(replay);
}

/* ---------- generations ---------- */

/*
 * Takes the rows of a generation that is in memory.  With an old shape they
 * are put into the table's present one.
 */
static void
collect_rows(BddApply *apply, BddSharedGeneration *generation,
			 const BddOldShape *old)
{
	uint64 first = apply->rows.count;

	for (int i = 0; i < BDD_PARTITIONS; i++)
		bdd_collect_partition(generation, i, true, &apply->rows);
	for (uint64 i = first; i < apply->rows.count && old != NULL; i++)
		apply->rows.rows[i].image = bdd_image_renew(old, &apply->rows.rows[i].image);
}

/*
 * Takes the rows of a quiet generation and sets its mark; false: the mark was
 * there already, it only has to be freed.
 */
bool
bdd_apply_add(BddApply *apply, BddSharedGeneration *generation)
{
	BddTarget *target = apply->target;
	MemoryContext old_context;
	BddReplayed known = {0};

	Assert(generation->state == BDD_SEALED);
	bdd_check_journal(target);
	old_context = MemoryContextSwitchTo(apply->context);
	/* Before the mark is set. */
	if (generation->spooled)
		known.mark = bdd_mark_read(target->options.target_id, &known.from);
	known.rows = pg_atomic_read_u32(&generation->keys);
	known.old = shape_before(target, generation);
	if (!set_mark(target, generation->number))
	{
		MemoryContextSwitchTo(old_context);
		return false;
	}
	bdd_generation_applying(target->slot, generation,
							GetCurrentTransactionId());
	apply->number = generation->number;
	apply->unlogged = apply->unlogged || !bdd_journal_has(generation);
	if (generation->spooled)
		replay_rows(apply, &known);
	else
		collect_rows(apply, generation, known.old);
	MemoryContextSwitchTo(old_context);
	return true;
}

/* All rows, of a target that is applied alone. */
void
bdd_apply_all(BddApply *apply)
{
	MemoryContext old_context = MemoryContextSwitchTo(apply->context);

	write_as_owner(apply, &apply->rows);
	MemoryContextSwitchTo(old_context);
}

/*
 * A delete of a higher round follows another row of its key, and must stay
 * behind it.
 */
static bool
is_plain_delete(const BddRow *row)
{
	return row->image.op == BDD_DELETE && row->round == 0;
}

/*
 * A delete and an insert of one key in one row; see is_plain_delete for the
 * round.
 */
static bool
is_replace(const BddRow *row)
{
	return row->image.op == BDD_REPLACE && row->round == 0;
}

/*
 * Of targets that are applied together, deletes come before the rest.
 * "related": foreign keys are between them, and what is deleted in order to be
 * inserted anew goes with the others.  Where that is refused it comes with the
 * rest once more, and is refused there.
 */
void
bdd_apply_deletes(BddApply *apply, bool related)
{
	MemoryContext old_context = MemoryContextSwitchTo(apply->context);
	BddRows deletes = {0};
	BddRows replaced = {0};
	uint64 counted;

	for (uint64 i = 0; i < apply->rows.count; i++)
	{
		const BddRow *row = &apply->rows.rows[i];

		if (is_plain_delete(row))
			add_row(&deletes, row, &row->image);
		else if (related && is_replace(row))
		{
			BddImage image = bdd_key_only_delete(&apply->target->shape,
												 &row->image);

			add_row(&replaced, row, &image);
		}
	}
	counted = apply->counts.rows;
	list_free(write_rows_as_owner(apply, &replaced));
	apply->counts.rows = counted;
	write_as_owner(apply, &deletes);
	MemoryContextSwitchTo(old_context);
}

/* All that bdd_apply_deletes has left for later. */
void
bdd_apply_rest(BddApply *apply)
{
	MemoryContext old_context = MemoryContextSwitchTo(apply->context);
	BddRows rows = {0};

	for (uint64 i = 0; i < apply->rows.count; i++)
		if (!is_plain_delete(&apply->rows.rows[i]))
			add_row(&rows, &apply->rows.rows[i], &apply->rows.rows[i].image);
	write_as_owner(apply, &rows);
	MemoryContextSwitchTo(old_context);
}

/*
 * In this order: letters that the rows make needless, letters of the rows that
 * were refused now, letters that wait for this table.
 */
static void
settle_letters(BddApply *apply)
{
	bdd_supersede_dead_letters(apply->target, &apply->rows, apply->refused);
	bdd_store_dead_letters(apply->target, apply->number, apply->refused);
	bdd_retry_waiting_letters(apply->target);
	apply->counts.dead_lettered += list_length(apply->refused);
}

/* The rows have been written: what becomes of dead letters. */
void
bdd_apply_end(BddApply *apply)
{
	MemoryContext old_context = MemoryContextSwitchTo(apply->context);

	if (apply->number > 0)
	{
		settle_letters(apply);
		bdd_debug_point("apply");
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(apply->context);
}

/* One generation of one target; false: see bdd_apply_add. */
bool
bdd_apply_generation(BddTarget *target, BddSharedGeneration *generation,
					 BddApplyCounts *counts)
{
	BddApply apply;
	bool taken;

	bdd_apply_begin(&apply, target);
	taken = bdd_apply_add(&apply, generation);
	if (taken)
	{
		bdd_apply_fold(&apply);
		bdd_apply_all(&apply);
	}
	bdd_apply_end(&apply);
	*counts = apply.counts;
	return taken;
}

/*
 * Its mark is set: by this transaction before, or by a worker that has
 * committed and has yet to say so.
 */
static void
note_applied(BddTarget *target, BddSharedGeneration *generation)
{
	if (!TransactionIdIsCurrentTransactionId(generation->apply_xid))
		bdd_generation_applied(target->slot, target->options.target_id,
							   generation->number);
}

/*
 * Applies all that is buffered in the caller's transaction.  The caller holds
 * a lock that keeps publishers out.
 */
void
bdd_apply_here(BddTarget *target)
{
	BddSharedSlot *slot = bdd_target_slot(target);
	BddSharedGeneration *generation;
	uint64 number = 0;

	bdd_seal(slot);
	if (IsolationUsesXactSnapshot() && bdd_slot_has_unapplied(slot))
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("rows buffered for \"%s\" cannot be applied with an old snapshot",
						get_rel_name(target->relid)),
				 errhint("Flush the target before the transaction, or use READ COMMITTED.")));
	while ((generation = bdd_next_sealed(slot, number)) != NULL)
	{
		BddApplyCounts counts = {0};

		number = generation->number;
		bdd_wait_quiet(slot, number);
		if (!bdd_apply_generation(target, generation, &counts))
			note_applied(target, generation);
	}
	if (number > 0)
		bdd_at_commit_mark_applied(slot, number);
}

/*
 * The table was emptied: what is buffered is as good as applied, unless the
 * caller's transaction is rolled back.  The same lock as for bdd_apply_here.
 */
void
bdd_discard_here(BddTarget *target)
{
	BddSharedSlot *slot = bdd_target_slot(target);
	BddSharedGeneration *generation;
	uint64 number = 0;

	bdd_seal(slot);
	while ((generation = bdd_next_sealed(slot, number)) != NULL)
	{
		number = generation->number;
		bdd_wait_quiet(slot, number);
		if (set_mark(target, number))
			bdd_generation_applying(slot, generation,
									GetCurrentTransactionId());
		else
			note_applied(target, generation);
	}
	if (number > 0)
		bdd_at_commit_mark_applied(slot, number);
}
