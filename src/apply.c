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

#include "access/nbtree.h"
#include "access/relation.h"
#include "access/xact.h"
#include "apply_sql.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "debug_point.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "spi_util.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/sortsupport.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"
#include "xact.h"

/* ---------- key order ---------- */

typedef struct BddSortRow
{
	Datum	   *keys;
	BddRow		row;
} BddSortRow;

typedef struct BddSorter
{
	int			count;
	SortSupportData keys[INDEX_MAX_KEYS];
} BddSorter;

static void
init_sorter(BddTarget *target, BddSorter *sorter)
{
	memset(sorter, 0, sizeof(*sorter));
	sorter->count = target->key.count;
	for (int i = 0; i < sorter->count; i++)
	{
		BddKeyColumn *column = &target->key.columns[i];
		SortSupport sort = &sorter->keys[i];

		sort->ssup_cxt = CurrentMemoryContext;
		sort->ssup_collation = column->collation;
		sort->ssup_attno = column->attnum;
		PrepareSortSupportFromOrderingOp(get_opfamily_member(column->opfamily,
															 column->input_type,
															 column->input_type,
															 BTLessStrategyNumber),
										 sort);
	}
}

static int
compare_keys(const BddSortRow *a, const BddSortRow *b, BddSorter *sorter)
{
	for (int i = 0; i < sorter->count; i++)
	{
		int			order = ApplySortComparator(a->keys[i], false,
												b->keys[i], false,
												&sorter->keys[i]);

		if (order != 0)
			return order;
	}
	return 0;
}

static int
compare_rows(const void *a, const void *b, void *sorter)
{
	const BddSortRow *left = a;
	const BddSortRow *right = b;
	int			order = compare_keys(left, right, sorter);

	if (order != 0)
		return order;
	return left->row.sequence < right->row.sequence ? -1 :
		left->row.sequence > right->row.sequence ? 1 : 0;
}

static void
extract_keys(BddTarget *target, const BddImage *image, Datum *keys)
{
	HeapTupleData heap;
	bool		isnull;

	bdd_tuple_as_heap(bdd_image_tuple(&target->shape, image), &heap);
	for (int i = 0; i < target->key.count; i++)
	{
		keys[i] = heap_getattr(&heap, target->key.columns[i].attnum,
							   target->shape.desc, &isnull);
		Assert(!isnull);
	}
}

static BddSortRow *
sort_rows(BddTarget *target, BddRows *rows, BddSorter *sorter)
{
	int			count = target->key.count;
	BddSortRow *sorted = MemoryContextAllocHuge(CurrentMemoryContext,
												rows->count *
												sizeof(BddSortRow));
	Datum	   *keys = MemoryContextAllocHuge(CurrentMemoryContext,
											  rows->count * count *
											  sizeof(Datum));

	for (uint64 i = 0; i < rows->count; i++)
	{
		sorted[i].row = rows->rows[i];
		sorted[i].keys = keys + i * count;
		extract_keys(target, &sorted[i].row.image, sorted[i].keys);
	}
	qsort_arg(sorted, rows->count, sizeof(BddSortRow), compare_rows, sorter);
	return sorted;
}

/*
 * Sorts the rows by key and leaves one for each, which says what all rows of
 * the key say in sequence order.
 */
void
bdd_rows_fold_equal(BddTarget *target, BddRows *rows)
{
	BddSorter	sorter;
	BddSortRow *sorted;
	uint64		kept = 0;

	if (rows->count == 0)
		return;
	init_sorter(target, &sorter);
	sorted = sort_rows(target, rows, &sorter);
	for (uint64 i = 0; i < rows->count; i++)
	{
		if (i > 0 && compare_keys(&sorted[i - 1], &sorted[i], &sorter) == 0)
		{
			BddRow	   *folded = &rows->rows[kept - 1];

			folded->image = bdd_image_fold(&target->shape, &folded->image,
										   &sorted[i].row.image);
			folded->sequence = sorted[i].row.sequence;
		}
		else
			rows->rows[kept++] = sorted[i].row;
	}
	rows->count = kept;
	pfree(sorted);
}

/* Leaves the rows whose key equals that of "key". */
void
bdd_rows_keep_key(BddTarget *target, BddRows *rows, BddImage key)
{
	BddSorter	sorter;
	BddSortRow	wanted;
	BddSortRow	row;
	uint64		kept = 0;

	init_sorter(target, &sorter);
	wanted.keys = palloc(target->key.count * sizeof(Datum));
	row.keys = palloc(target->key.count * sizeof(Datum));
	extract_keys(target, &key, wanted.keys);
	for (uint64 i = 0; i < rows->count; i++)
	{
		extract_keys(target, &rows->rows[i].image, row.keys);
		if (compare_keys(&row, &wanted, &sorter) == 0)
			rows->rows[kept++] = rows->rows[i];
	}
	rows->count = kept;
}

/* ---------- writing ---------- */

/* Rows that give the same columns, and so share their statements. */
typedef struct BddGroup
{
	bool		full;
	BddColumns *update;
	BddColumns *insert;
	Tuplestorestate *rows;
	uint64		count;
} BddGroup;

static Tuplestorestate *
new_store(void)
{
	return tuplestore_begin_heap(false, false, work_mem);
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
	BddGroup   *group;
	ListCell   *cell;

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

static void
write_group(BddTarget *target, const BddWriteRules *rules, BddGroup *group)
{
	char	   *sql;

	/*
	 * BEFORE INSERT triggers must see every row, as they do with INSERT ... ON
	 * CONFLICT.  Otherwise rows given in part are first tried as updates: an
	 * insert of them might lack a NOT NULL column, or use up a sequence.
	 */
	if (group->full || rules->insert_triggers)
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
delete_rows(BddTarget *target, BddRows *rows, TupleTableSlot *slot)
{
	Tuplestorestate *store = NULL;
	uint64		count = 0;

	for (uint64 i = 0; i < rows->count; i++)
	{
		if (rows->rows[i].image.op == BDD_UPSERT)
			continue;
		if (store == NULL)
			store = new_store();
		put_row(store, slot, target, &rows->rows[i].image);
		count++;
	}
	if (store == NULL)
		return;
	bdd_run_on_rows(target, bdd_sql_delete(target), store, count, false);
	tuplestore_end(store);
}

static uint64
upsert_rows(BddTarget *target, BddRows *rows, TupleTableSlot *slot)
{
	BddWriteRules rules = bdd_write_rules(target);
	List	   *groups = NIL;
	ListCell   *cell;
	uint64		count = 0;

	for (uint64 i = 0; i < rows->count; i++)
	{
		BddImage   *image = &rows->rows[i].image;
		BddGroup   *group;

		if (image->op == BDD_DELETE)
			continue;
		group = group_of(target, &groups, image);
		put_row(group->rows, slot, target, image);
		group->count++;
		count++;
	}
	foreach(cell, groups)
		write_group(target, &rules, lfirst(cell));
	return count;
}

/* ---------- counting ---------- */

/* What this transaction did to the table so far, by the server's count. */
static void
read_table_counts(Oid relid, BddApplyCounts *counts)
{
	List	   *relids = get_rel_relkind(relid) == RELKIND_PARTITIONED_TABLE ?
		find_all_inheritors(relid, NoLock, NULL) : list_make1_oid(relid);
	ListCell   *cell;

	foreach(cell, relids)
	{
		Datum		oid = ObjectIdGetDatum(lfirst_oid(cell));

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
 * Writes the rows to the table as the current user, in this transaction: one
 * row per key first, then the statements.  The caller holds RowExclusiveLock
 * on the table and is connected to SPI.  Adds to "counts".
 */
void
bdd_write_rows(BddTarget *target, BddRows *rows, BddApplyCounts *counts)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(target->shape.desc,
													&TTSOpsMinimalTuple);
	BddApplyCounts before = {0};
	BddApplyCounts after = {0};
	uint64		upserted;

	bdd_rows_fold_equal(target, rows);
	read_table_counts(target->relid, &before);
	delete_rows(target, rows, slot);
	upserted = upsert_rows(target, rows, slot);
	read_table_counts(target->relid, &after);
	ExecDropSingleTupleTableSlot(slot);

	counts->rows += rows->count;
	counts->inserted += after.inserted - before.inserted;
	counts->updated += after.updated - before.updated;
	counts->deleted += after.deleted - before.deleted;
	upserted -= Min(upserted, after.inserted - before.inserted +
					after.updated - before.updated);
	counts->unchanged += upserted;
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
	Oid			types[2] = {INT4OID, INT8OID};
	Datum		values[2] = {Int32GetDatum(target_id),
	Int64GetDatum(generation)};
	BddIdentity saved;
	uint64		changed;

	bdd_become_extension_owner(&saved);
	changed = bdd_spi_run("INSERT INTO batchdedup.mark AS m VALUES ($1, $2) "
						  "ON CONFLICT (target_id) DO UPDATE "
						  "SET generation = EXCLUDED.generation "
						  "WHERE m.generation OPERATOR(pg_catalog.<) EXCLUDED.generation",
						  2, types, values, NULL);
	bdd_become_again(&saved);
	return changed > 0;
}

/* As the owner, with constraints checked while we still are the owner. */
static void
write_as_owner(BddTarget *target, BddRows *rows, BddApplyCounts *counts)
{
	BddIdentity saved;

	bdd_become_owner_of(target->owner, &saved);
	if (SPI_execute("SET CONSTRAINTS ALL IMMEDIATE", false, 0) < 0)
		elog(ERROR, "SET CONSTRAINTS failed");
	bdd_write_rows(target, rows, counts);
	bdd_become_again(&saved);
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
	BddRows		rows = {0};
	bool		fresh;

	Assert(generation->state == BDD_SEALED);
	bdd_spi_connect();
	fresh = set_mark(target->options.target_id, generation->number);
	if (fresh)
	{
		bdd_generation_applying(target->slot, generation,
								GetCurrentTransactionId());
		for (int i = 0; i < BDD_PARTITIONS; i++)
			bdd_collect_partition(generation, i, true, &rows);
		write_as_owner(target, &rows, counts);
		bdd_debug_point("apply");
	}
	bdd_spi_finish();
	return fresh;
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
	slot->counts.applied_rows += counts->rows;
	slot->counts.flushes++;
	slot->counts.last_flush_at = now;
	slot->counts.last_flush_us = now - started;
	LWLockRelease(&slot->lock);
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
	uint64		number = 0;

	bdd_seal(slot);
	while ((generation = bdd_next_sealed(slot, number)) != NULL)
	{
		BddApplyCounts counts = {0};

		number = generation->number;
		bdd_wait_quiet(slot, number);
		(void) bdd_apply_generation(target, generation, &counts);
	}
	if (number > 0)
		bdd_at_commit_mark_applied(slot, number);
}
