/*-------------------------------------------------------------------------
 *
 * apply.c
 *		From the buffer to the table.
 *
 * A generation is applied in one transaction, in key order, together with the
 * mark that says so: whoever finds the mark already set has nothing to do.
 * Deletes come first, then upserts, one or two statements for each set of
 * columns that rows give.
 *
 *-------------------------------------------------------------------------
 */
#include "apply.h"

#include "access/relation.h"
#include "access/xact.h"
#include "apply_sql.h"
#include "bisect.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "dead_letter.h"
#include "debug_point.h"
#include "executor/tuptable.h"
#include "keyorder.h"
#include "miscadmin.h"
#include "spi_util.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "xact.h"

/* ---------- writing ---------- */

/* Rows that give the same columns, and so share their statements. */
typedef struct BddGroup
{
	bool full;
	BddColumns *update;
	BddColumns *insert;
	Tuplestorestate *rows;
	uint64 count;
} BddGroup;

static Tuplestorestate *
new_store(void)
{
	return tuplestore_begin_heap(false, false, Max(work_mem, maintenance_work_mem));
}

static void
put_row(Tuplestorestate *store, TupleTableSlot *slot, BddTarget *target,
		const BddImage *image)
{
	ExecStoreMinimalTuple(bdd_image_tuple(&target->shape, image), slot, false);
	tuplestore_puttupleslot(store, slot);
	ExecClearTuple(slot);
}

static BddGroup *
group_of(BddTarget *target, List **groups, const BddImage *image)
{
	const BddShape *shape = &target->shape;
	const BddColumns *update = bdd_image_update(shape, image);
	const BddColumns *insert = bdd_image_insert(shape, image);
	BddGroup *group;
	ListCell *cell;

	foreach(cell, *groups)
	{
		group = lfirst(cell);
		if (memcmp(group->update, update, shape->set_bytes) == 0 &&
			memcmp(group->insert, insert, shape->set_bytes) == 0)
			return group;
	}
	group = palloc0(sizeof(BddGroup));
	group->full = image->full;
	group->update = palloc(2 * shape->set_bytes);
	group->insert = group->update + shape->set_bytes;
	memcpy(group->update, update, shape->set_bytes);
	memcpy(group->insert, insert, shape->set_bytes);
	group->rows = new_store();
	*groups = lappend(*groups, group);
	return group;
}

static bool
gives_required(BddTarget *target, const BddColumns *insert)
{
	for (int i = 0; i < target->shape.set_bytes; i++)
		if ((target->shape.required[i] & ~insert[i]) != 0)
			return false;
	return true;
}

static void
write_group(BddTarget *target, const BddWriteRules *rules, BddGroup *group)
{
	char *sql;

	if (rules->merge)
		bdd_run_on_rows(target,
						bdd_sql_merge(target, rules, group->update,
									  group->insert),
						group->rows, group->count, false);

	/*
	 * BEFORE INSERT triggers must see every row, as they do with INSERT ... ON
	 * CONFLICT.  Otherwise rows given in part are first tried as updates: an
	 * insert of them might lack a NOT NULL column, or use up a sequence.
	 */
	else if (group->full || (rules->insert_triggers &&
							 gives_required(target, group->insert)))
		bdd_run_on_rows(target,
						bdd_sql_upsert(target, rules, group->update,
									   group->insert),
						group->rows, group->count, false);
	else
	{
		sql = bdd_sql_update_existing(target, rules, group->update);
		if (sql != NULL)
			bdd_run_on_rows(target, sql, group->rows, group->count,
							false);
		bdd_run_on_rows(target,
						bdd_sql_insert_missing(target, group->update,
											   group->insert),
						group->rows, group->count, false);
	}
	tuplestore_end(group->rows);
}

static void
delete_rows(BddTarget *target, const BddRow *rows, uint64 count,
			TupleTableSlot *slot)
{
	Tuplestorestate *store = NULL;
	uint64 deletes = 0;

	for (uint64 i = 0; i < count; i++)
	{
		if (rows[i].image.op == BDD_UPSERT)
			continue;
		if (store == NULL)
			store = new_store();
		put_row(store, slot, target, &rows[i].image);
		deletes++;
	}
	if (store == NULL)
		return;
	bdd_run_on_rows(target, bdd_sql_delete(target), store, deletes, false);
	tuplestore_end(store);
}

static uint64
upsert_rows(BddTarget *target, const BddRow *rows, uint64 count, bool merge,
			TupleTableSlot *slot)
{
	BddWriteRules rules = bdd_write_rules(target);
	List *groups = NIL;
	ListCell *cell;
	uint64 upserts = 0;

	rules.merge = rules.merge && merge;
	for (uint64 i = 0; i < count; i++)
	{
		const BddImage *image = &rows[i].image;
		BddGroup *group;

		if (image->op == BDD_DELETE)
			continue;
		group = group_of(target, &groups, image);
		put_row(group->rows, slot, target, image);
		group->count++;
		upserts++;
	}
	foreach(cell, groups)
		write_group(target, &rules, lfirst(cell));
	return upserts;
}

/* ---------- counting ---------- */

/* What this transaction did to the table so far, by the server's count. */
static void
read_table_counts(Oid relid, BddApplyCounts *counts)
{
	List *relids = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
					   find_all_inheritors(relid, NoLock, NULL) :
					   list_make1_oid(relid);
	ListCell *cell;

	foreach(cell, relids)
	{
		Datum oid = ObjectIdGetDatum(lfirst_oid(cell));

		counts->inserted +=
			DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_inserted,
											  oid));
		counts->updated +=
			DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_updated,
											  oid));
		counts->deleted +=
			DatumGetInt64(DirectFunctionCall1(pg_stat_get_xact_tuples_deleted,
											  oid));
	}
}

/*
 * Writes rows, one per key, to the table as the current user: deletes first,
 * then upserts.  "merge": quicker where the table allows it, but with an error
 * if another transaction inserts a key meanwhile.  The caller holds
 * RowExclusiveLock on the table.  Adds to "counts".
 */
void
bdd_write_rows(BddTarget *target, const BddRow *rows, uint64 count, bool merge,
			   BddApplyCounts *counts)
{
	BddApplyCounts before = {0};
	BddApplyCounts after = {0};
	TupleTableSlot *slot;
	uint64 upserts;

	bdd_spi_connect();
	slot = MakeSingleTupleTableSlot(target->shape.desc, &TTSOpsMinimalTuple);
	read_table_counts(target->relid, &before);
	delete_rows(target, rows, count, slot);
	upserts = upsert_rows(target, rows, count, merge, slot);
	read_table_counts(target->relid, &after);
	ExecDropSingleTupleTableSlot(slot);
	bdd_spi_finish();

	counts->rows += count;
	counts->inserted += after.inserted - before.inserted;
	counts->updated += after.updated - before.updated;
	counts->deleted += after.deleted - before.deleted;
	upserts -= Min(upserts, after.inserted - before.inserted +
								after.updated - before.updated);
	counts->unchanged += upserts;
}

/* ---------- generations ---------- */

/*
 * Waits for the last publisher of a sealed generation: he is about to commit
 * or abort, and waits for nothing that the caller holds.  The generation may
 * go away meanwhile, hence it is looked up each time.
 */
void
bdd_wait_quiet(BddSharedSlot *slot, uint64 number)
{
	while (!bdd_is_quiet(slot, number))
		bdd_wait_quiet_step();
}

void
bdd_wait_quiet_step(void)
{
	(void) WaitLatch(MyLatch,
					 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
					 1, PG_WAIT_EXTENSION);
	ResetLatch(MyLatch);
	CHECK_FOR_INTERRUPTS();
}

/* False: generations up to this one were applied before. */
static bool
set_mark(int32 target_id, uint64 generation)
{
	Oid types[2] = {INT4OID, INT8OID};
	Datum values[2] = {Int32GetDatum(target_id),
					   Int64GetDatum(generation)};
	BddIdentity saved;
	uint64 changed;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	changed = bdd_spi_run("INSERT INTO batchdedup.mark AS m VALUES ($1, $2) "
						  "ON CONFLICT (target_id) DO UPDATE "
						  "SET generation = EXCLUDED.generation "
						  "WHERE m.generation OPERATOR(pg_catalog.<) EXCLUDED.generation",
						  2, types, values, NULL);
	bdd_spi_finish();
	bdd_become_again(&saved);
	return changed > 0;
}

/*
 * Deferred triggers could not fire once we are not the owner any more.  In a
 * transaction that may have deferred checks of its own only the constraints
 * of the table are meant.
 */
void
bdd_constraints_immediate(BddTarget *target)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(target->relid)};
	const char *sql = "SET CONSTRAINTS ALL IMMEDIATE";

	bdd_spi_connect();
	if (!bdd_am_worker && IsTransactionBlock())
	{
		(void) bdd_spi_run("SELECT pg_catalog.string_agg(pg_catalog.format('%I.%I', n.nspname, c.conname), ', ') "
						   "FROM pg_catalog.pg_constraint c "
						   "JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.connamespace "
						   "WHERE c.condeferrable AND (c.conrelid OPERATOR(pg_catalog.=) $1 "
						   "OR c.confrelid OPERATOR(pg_catalog.=) $1)",
						   1, types, values, NULL);
		sql = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);
		if (sql != NULL)
			sql = psprintf("SET CONSTRAINTS %s IMMEDIATE", sql);
	}
	if (sql != NULL && SPI_execute(sql, false, 0) < 0)
		elog(ERROR, "SET CONSTRAINTS failed");
	bdd_spi_finish();
}

/*
 * As the owner, with constraints checked while we still are the owner.  Rows
 * that the table refuses are left out and returned.
 */
static List *
write_as_owner(BddTarget *target, BddRows *rows, BddApplyCounts *counts)
{
	List *refused = NIL;
	BddIdentity saved;

	bdd_become_owner_of(target->owner, &saved);
	bdd_constraints_immediate(target);
	bdd_rows_fold_equal(target, rows);
	refused = bdd_write_tolerantly(target, rows, counts);
	bdd_become_again(&saved);
	return refused;
}

/*
 * Applies a quiet generation in the current transaction; false: its mark was
 * there already, it only has to be freed.  The caller holds RowExclusiveLock
 * on the table, or a stronger one.
 */
bool
bdd_apply_generation(BddTarget *target, BddSharedGeneration *generation,
					 BddApplyCounts *counts)
{
	MemoryContext context;
	MemoryContext old_context;
	BddRows rows = {0};
	List *refused;

	Assert(generation->state == BDD_SEALED);
	if (!set_mark(target->options.target_id, generation->number))
		return false;
	if (generation->fingerprint != target->shape.fingerprint)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rows buffered for \"%s\" have another shape than the table",
						get_rel_name(target->relid)),
				 errdetail("The table was changed while batchdedup was not loaded."),
				 errhint("Change the table's columns back, or TRUNCATE it to discard the rows.")));
	context = AllocSetContextCreate(CurrentMemoryContext, "batchdedup apply",
									ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	bdd_generation_applying(target->slot, generation,
							GetCurrentTransactionId());
	for (int i = 0; i < BDD_PARTITIONS; i++)
		bdd_collect_partition(generation, i, true, &rows);
	refused = write_as_owner(target, &rows, counts);
	bdd_supersede_dead_letters(target, &rows, refused);
	bdd_store_dead_letters(target, generation->number, refused);
	bdd_retry_waiting_letters(target);
	counts->dead_lettered += list_length(refused);
	bdd_debug_point("apply");
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return true;
}

/* Adds what was applied to the target's counters. */
void
bdd_apply_count(BddSharedSlot *slot, int32 target_id,
				const BddApplyCounts *counts, TimestampTz started)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (!bdd_slot_belongs_to(slot, target_id))
	{
		LWLockRelease(&slot->lock);
		return;
	}
	slot->counts.inserted += counts->inserted;
	slot->counts.updated += counts->updated;
	slot->counts.unchanged += counts->unchanged;
	slot->counts.deleted += counts->deleted;
	slot->counts.dead_lettered += counts->dead_lettered;
	slot->counts.applied_rows += counts->rows;
	slot->counts.flushes++;
	slot->counts.last_flush_at = now;
	slot->counts.last_flush_us = now - started;
	LWLockRelease(&slot->lock);
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
		if (set_mark(target->options.target_id, number))
			bdd_generation_applying(slot, generation,
									GetCurrentTransactionId());
		else
			note_applied(target, generation);
	}
	if (number > 0)
		bdd_at_commit_mark_applied(slot, number);
}
