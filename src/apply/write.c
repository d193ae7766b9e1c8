/*-------------------------------------------------------------------------
 *
 * write.c
 *		Writing rows to the table, and finding those that it refuses.
 *
 * Rows come sorted by key, with a round: round n has the nth row of each key
 * whose rows do not combine.  A round is written by statements of its own:
 * deletes first, then upserts, one or two statements for each set of columns
 * that rows give (target_sql.c makes them).  What the statements did to the
 * table is told by the server's own counters of the transaction.
 *
 * bdd_write_rows writes or raises an error.  bdd_write_tolerantly finds the
 * rows that the table refuses, writes the others, and returns the refused
 * ones: see tolerate.c for how they are found.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/write.h"

#include "access/xact.h"
#include "apply/target_sql.h"
#include "apply/tolerate.h"
#include "buffer/slot.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "executor/tuptable.h"
#include "miscadmin.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* ---------- statements for a set of rows ---------- */

/* Rows that give the same columns, and so share their statements. */
typedef struct BddColumnGroup
{
	bool full;
	BddColumns *update;
	BddColumns *insert;
	Tuplestorestate *rows;
	uint64 count;
} BddColumnGroup;

/* Rows for one statement; too many of them go to disk. */
static Tuplestorestate *
new_store(void)
{
	return tuplestore_begin_heap(false, false, Max(work_mem, maintenance_work_mem));
}

/* The store takes a copy of the row. */
static void
put_row(Tuplestorestate *store, TupleTableSlot *slot, BddTarget *target,
		const BddImage *image)
{
	ExecStoreMinimalTuple(bdd_image_tuple(&target->shape, image), slot, false);
	tuplestore_puttupleslot(store, slot);
	ExecClearTuple(slot);
}

/* The group of the columns that the row gives, made if there is none. */
static BddColumnGroup *
group_of(BddTarget *target, List **groups, const BddImage *image)
{
	const BddShape *shape = &target->shape;
	const BddColumns *update = bdd_image_update(shape, image);
	const BddColumns *insert = bdd_image_insert(shape, image);
	BddColumnGroup *group;
	ListCell *cell;
	int first = 0;

	/* Rows that are only appended stay in order. */
	if (target->key.count == 0 && *groups != NIL)
		first = list_length(*groups) - 1;
	for_each_from(cell, *groups, first)
	{
		group = lfirst(cell);
		if (memcmp(group->update, update, shape->set_bytes) == 0 &&
			memcmp(group->insert, insert, shape->set_bytes) == 0)
			return group;
	}
	group = palloc0(sizeof(BddColumnGroup));
	group->full = image->full;
	group->update = palloc(2 * shape->set_bytes);
	group->insert = group->update + shape->set_bytes;
	memcpy(group->update, update, shape->set_bytes);
	memcpy(group->insert, insert, shape->set_bytes);
	group->rows = new_store();
	*groups = lappend(*groups, group);
	return group;
}

/*
 * Whether an insert of these columns leaves out none that is NOT NULL and has
 * no default.
 */
static bool
gives_required(BddTarget *target, const BddColumns *insert)
{
	for (int i = 0; i < target->shape.set_bytes; i++)
		if ((target->shape.required[i] & ~insert[i]) != 0)
			return false;
	return true;
}

/*
 * Chooses the statements for the group's rows, runs them, and frees the rows.
 */
static void
write_group(BddTarget *target, const BddWriteRules *rules, BddColumnGroup *group)
{
	char *sql;

	if (rules->merge)
		(void) bdd_run_on_rows(target,
							   bdd_sql_merge(target, rules, group->update,
											 group->insert),
							   group->rows, group->count, false);

	/*
	 * BEFORE INSERT triggers must see every row, as they do with INSERT ... ON
	 * CONFLICT.  Otherwise rows given in part are first tried as updates: an
	 * insert of them might lack a NOT NULL column, or use up a sequence.
	 */
	else if (group->full || target->key.count == 0 ||
			 (rules->insert_triggers &&
			  gives_required(target, group->insert)))
		(void) bdd_run_on_rows(target,
							   bdd_sql_upsert(target, rules, group->update,
											  group->insert),
							   group->rows, group->count, false);
	else
	{
		uint64 updated = 0;

		sql = bdd_sql_update_existing(target, rules, group->update);
		if (sql != NULL)
			updated = bdd_run_on_rows(target, sql, group->rows,
									  group->count, false);
		/* Rows of our own are made before they are spoken of: it is gone. */
		if (updated < group->count && !target->options.own)
			(void) bdd_run_on_rows(target,
								   bdd_sql_insert_missing(target, group->update,
														  group->insert),
								   group->rows, group->count, false);
	}
	tuplestore_end(group->rows);
}

/* Deletes that carry a version and those that do not are two statements. */
static void
delete_rows(BddTarget *target, const BddRow *rows, uint64 count,
			TupleTableSlot *slot, bool versioned)
{
	Tuplestorestate *store = NULL;
	uint64 deletes = 0;

	for (uint64 i = 0; i < count; i++)
	{
		const BddImage *image = &rows[i].image;

		if (image->op == BDD_UPSERT ||
			bdd_image_is_versioned_delete(&target->shape, image) != versioned)
			continue;
		if (store == NULL)
			store = new_store();
		put_row(store, slot, target, image);
		deletes++;
	}
	if (store == NULL)
		return;
	(void) bdd_run_on_rows(target, bdd_sql_delete(target, versioned), store,
						   deletes, false);
	tuplestore_end(store);
}

/*
 * Writes all rows but the deletes; returns how many they are.  "merge": the
 * caller admits MERGE, which is taken where the table does as well.
 */
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
		BddColumnGroup *group;

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

/* ---------- rounds ---------- */

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

/* The rows in the order of their rounds. */
BddRounds
bdd_split_rounds(const BddRow *rows, uint64 count)
{
	BddRounds rounds = {0};
	uint64 *next;

	for (uint64 i = 0; i < count; i++)
		rounds.count = Max(rounds.count, rows[i].round + 1);
	rounds.starts = palloc0((rounds.count + 1) * sizeof(uint64));
	for (uint64 i = 0; i < count; i++)
		rounds.starts[rows[i].round + 1]++;
	for (uint32 i = 0; i < rounds.count; i++)
		rounds.starts[i + 1] += rounds.starts[i];
	rounds.rows = MemoryContextAllocHuge(CurrentMemoryContext,
										 Max(count, 1) * sizeof(BddRow));
	next = palloc((rounds.count + 1) * sizeof(uint64));
	memcpy(next, rounds.starts, (rounds.count + 1) * sizeof(uint64));
	for (uint64 i = 0; i < count; i++)
		rounds.rows[next[rows[i].round]++] = rows[i];
	pfree(next);
	return rounds;
}

/* Rows that are older than what the table has. */
static uint64
count_stale(BddTarget *target, const BddRow *rows, uint64 count,
			TupleTableSlot *slot)
{
	Tuplestorestate *store;
	bool isnull;
	uint64 stale;

	if (target->shape.version < 0)
		return 0;
	store = new_store();
	for (uint64 i = 0; i < count; i++)
		if (rows[i].image.op == BDD_UPSERT ||
			bdd_image_is_versioned_delete(&target->shape, &rows[i].image))
			put_row(store, slot, target, &rows[i].image);
	(void) bdd_run_on_rows(target, bdd_sql_count_stale(target), store, count,
						   false);
	stale = DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
										SPI_tuptable->tupdesc, 1, &isnull));
	tuplestore_end(store);
	return stale;
}

/* Deletes first, then upserts. */
static void
write_round(BddTarget *target, const BddRow *rows, uint64 count, bool merge,
			TupleTableSlot *slot, BddApplyCounts *counts)
{
	BddApplyCounts before = {0};
	BddApplyCounts after = {0};
	uint64 stale = 0;
	uint64 upserts;

	read_table_counts(target->relid, &before);
	if ((bdd_am_worker && !target->options.own) || counts->finds_stale)
		stale = count_stale(target, rows, count, slot);
	delete_rows(target, rows, count, slot, false);
	if (target->shape.version >= 0)
		delete_rows(target, rows, count, slot, true);
	upserts = upsert_rows(target, rows, count, merge, slot);
	read_table_counts(target->relid, &after);
	/* Rows of our own that change nothing are of a file delivered again. */
	if (target->options.own)
		stale = upserts - Min(upserts, after.updated - before.updated);

	counts->rows += count;
	counts->stale += stale;
	counts->inserted += after.inserted - before.inserted;
	counts->updated += after.updated - before.updated;
	counts->deleted += after.deleted - before.deleted;
	upserts -= Min(upserts, stale + after.inserted - before.inserted +
								after.updated - before.updated);
	counts->unchanged += upserts;
}

/*
 * Writes rows to the table as the current user, round by round.  "merge":
 * quicker where the table allows it, but with an error if another transaction
 * inserts a key meanwhile.  The caller holds RowExclusiveLock on the table.
 * Adds to "counts".
 */
void
bdd_write_rows(BddTarget *target, const BddRow *rows, uint64 count, bool merge,
			   BddApplyCounts *counts)
{
	BddRounds rounds = bdd_split_rounds(rows, count);
	TupleTableSlot *slot;

	bdd_spi_connect();
	slot = MakeSingleTupleTableSlot(target->shape.desc, &TTSOpsMinimalTuple);
	for (uint32 i = 0; i < rounds.count; i++)
		write_round(target, &rounds.rows[rounds.starts[i]],
					rounds.starts[i + 1] - rounds.starts[i], merge, slot, counts);
	ExecDropSingleTupleTableSlot(slot);
	bdd_spi_finish();
	pfree(rounds.rows);
	pfree(rounds.starts);
}

/*
 * Deferred triggers could not fire once we are not the owner any more.  In a
 * transaction that may have deferred checks of its own only the constraints
 * of the table are meant.
 */
void
bdd_constraints_immediate(Oid relid)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(relid)};
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

/* ---------- in a subtransaction ---------- */

typedef struct BddWrite
{
	BddTarget *target;
	const BddRow *rows;
	uint64 count;
	bool merge;
	BddApplyCounts counts;
} BddWrite;

/* For bdd_in_subtransaction, with a BddWrite. */
static void
do_write(void *arg)
{
	BddWrite *write = arg;

	bdd_write_rows(write->target, write->rows, write->count, write->merge,
				   &write->counts);
}

/*
 * Returns the error that undid it, or NULL.  Only rows that are written count.
 */
static ErrorData *
try_write(BddTarget *target, const BddRow *rows, uint64 count, bool merge,
		  BddApplyCounts *counts)
{
	BddWrite write = {target, rows, count, merge, *counts};
	ErrorData *error = bdd_in_subtransaction(do_write, &write);

	if (error == NULL)
		*counts = write.counts;
	return error;
}

/* Writes the rows in a subtransaction; returns the error, or NULL. */
ErrorData *
bdd_try_write(BddTarget *target, const BddRow *rows, uint64 count,
			  BddApplyCounts *counts)
{
	return try_write(target, rows, count, false, counts);
}

/*
 * The same, quicker where the table allows it.  What MERGE refuses is no
 * answer: somebody may just have inserted a key.
 */
ErrorData *
bdd_try_write_quickly(BddTarget *target, const BddRow *rows, uint64 count,
					  BddApplyCounts *counts)
{
	if (try_write(target, rows, count, true, counts) == NULL)
		return NULL;
	return bdd_try_write(target, rows, count, counts);
}

/* ---------- refused rows ---------- */

/* Deletes to the front, in key order otherwise. */
static BddRow *
deletes_first(const BddRow *rows, uint64 count, uint64 *deletes)
{
	BddRow *sorted = MemoryContextAllocHuge(CurrentMemoryContext,
											count * sizeof(BddRow));
	uint64 next = 0;

	for (uint64 i = 0; i < count; i++)
		if (rows[i].image.op == BDD_DELETE)
			sorted[next++] = rows[i];
	*deletes = next;
	for (uint64 i = 0; i < count; i++)
		if (rows[i].image.op != BDD_DELETE)
			sorted[next++] = rows[i];
	return sorted;
}

/* The rows that the trial of a round writes: see tolerate.h. */
typedef struct BddRoundTrial
{
	BddTarget *target;
	const BddRow *rows;
	BddApplyCounts *counts;
} BddRoundTrial;

/* BddTrial.write, of a round. */
static ErrorData *
try_rows(void *arg, uint64 first, uint64 count)
{
	BddRoundTrial *round = arg;

	return bdd_try_write(round->target, round->rows + first, count, round->counts);
}

/* A trial of one row alone, whose counts do not matter as it is undone. */
static ErrorData *
probe_row(void *arg, uint64 number, bool *tried)
{
	BddRoundTrial *round = arg;
	BddApplyCounts ignored = {0};

	*tried = true;
	return bdd_try_write(round->target, round->rows + number, 1, &ignored);
}

/* The refused rows of one round, added to "refused". */
static List *
write_round_tolerantly(BddTarget *target, const BddRow *rows, uint64 count,
					   BddApplyCounts *counts, List *refused)
{
	uint64 deletes;
	BddRow *sorted = deletes_first(rows, count, &deletes);
	BddRoundTrial round = {target, sorted, counts};
	BddTrial trial = {.write = try_rows, .arg = &round};
	List *numbers = bdd_bisect(&trial, 0, deletes, NIL);
	ListCell *cell;

	numbers = bdd_bisect(&trial, deletes, count - deletes, numbers);
	foreach(cell, bdd_retry_refused(&trial, numbers))
	{
		BddRefusal *refusal = lfirst(cell);
		BddRefused *entry = palloc(sizeof(BddRefused));

		entry->row = sorted[refusal->number];
		entry->error = refusal->error;
		refused = lappend(refused, entry);
	}
	return refused;
}

/*
 * Writes the rows, as bdd_rows_fold_equal leaves them, and returns those that
 * the table refuses (of BddRefused), each with its error.
 */
List *
bdd_write_tolerantly(BddTarget *target, BddRows *rows, BddApplyCounts *counts)
{
	BddRoundTrial all = {target, rows->rows, counts};
	BddTrial trial = {.probe = probe_row, .arg = &all};
	ErrorData *error;
	BddRounds rounds;
	List *refused = NIL;

	if (rows->count == 0)
		return NIL;
	error = bdd_try_write_quickly(target, rows->rows, rows->count, counts);
	if (error == NULL)
		return NIL;
	bdd_raise_if_fault(&trial, rows->count, error);

	rounds = bdd_split_rounds(rows->rows, rows->count);
	for (uint32 i = 0; i < rounds.count; i++)
		refused = write_round_tolerantly(target, &rounds.rows[rounds.starts[i]],
										 rounds.starts[i + 1] - rounds.starts[i],
										 counts, refused);
	return refused;
}

/* ---------- counting ---------- */

/* Adds rows that were not applied with a generation. */
void
bdd_count_stale(BddSharedSlot *slot, int32 target_id, uint64 stale)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (bdd_slot_belongs_to(slot, target_id))
		slot->counts.stale += stale;
	LWLockRelease(&slot->lock);
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
	slot->counts.stale += counts->stale;
	slot->counts.deleted += counts->deleted;
	slot->counts.dead_lettered += counts->dead_lettered;
	slot->counts.applied_rows += counts->rows;
	slot->counts.flushes++;
	slot->counts.last_flush_at = now;
	slot->counts.last_flush_us = now - started;
	LWLockRelease(&slot->lock);
}
