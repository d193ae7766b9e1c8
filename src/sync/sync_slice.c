/*-------------------------------------------------------------------------
 *
 * sync_slice.c
 *		One transaction's worth of a sync: read, compare, write, log.
 *
 * The rows of a slice are read into memory, then everything is done to all of
 * them in a few statements, in a subtransaction.  If these fail for some row,
 * halves are tried, and so on, until what is refused are single rows: these
 * become dead letters, in the same transaction.
 *
 * The transaction is REPEATABLE READ: what others write between our look at the
 * target and our write makes the server refuse the slice, and it is done again.
 * So the log's old values are what was there.
 *
 * The mapping runs as the sync's owner, writes as the target's owner; only log
 * and dead letters are written by us.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_slice.h"

#include "access/xact.h"
#include "apply/tolerate.h"
#include "apply/write.h"
#include "base/debug_point.h"
#include "base/list.h"
#include "base/loaded.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "sql/statement.h"
#include "sync/change_log.h"
#include "sync/sync_check.h"
#include "sync/sync_refusal.h"
#include "sync/sync_source_sql.h"
#include "sync/sync_sql.h"
#include "target/target.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/rls.h"

/* ---------- values as text ---------- */

/* The type of a column of the source's position. */
static Oid
position_type(const BddSync *sync, const char *column)
{
	ListCell *name;
	ListCell *type;

	forboth(name, sync->position, type, sync->position_types)
		if (strcmp(lfirst(name), column) == 0)
			return getBaseType(lfirst_oid(type));
	elog(ERROR, "column \"%s\" is not in the position", column);
}

/* Values for columns of the position, as the first parameters of a statement. */
void
bdd_slice_parameters(const BddSync *sync, const List *columns, const List *texts,
					 Oid *types, Datum *values)
{
	ListCell *column;
	ListCell *text;
	int i = 0;

	forboth(column, columns, text, texts)
	{
		Oid input;
		Oid parameter;

		types[i] = position_type(sync, lfirst(column));
		getTypeInputInfo(types[i], &input, &parameter);
		values[i++] = OidInputFunctionCall(input, lfirst(text), parameter, -1);
	}
}

/* The same, with the bound of the position, or NULL, behind them; returns how many. */
int
bdd_slice_bounded(const BddSync *sync, const List *columns, const List *texts, const char *bound,
				  Oid *types, Datum *values)
{
	int count = list_length(texts);

	bdd_slice_parameters(sync, columns, texts, types, values);
	if (bound == NULL)
		return count;
	bdd_slice_parameters(sync, list_make1(linitial(sync->position)),
						 list_make1(unconstify(char *, bound)), &types[count], &values[count]);
	return count + 1;
}

/* Where the last of the rows is, by these columns, as texts. */
List *
bdd_slice_position(BddSlice *slice, const BddSyncRows *rows, const List *columns)
{
	HeapTuple last = rows->tuples[rows->count - 1];
	List *texts = NIL;
	BddSavedRole saved;
	ListCell *cell;

	bdd_sync_become(slice->sync, &saved);
	bdd_exact_output();
	foreach(cell, columns)
		texts = lappend(
			texts, SPI_getvalue(last, rows->desc, bdd_column_number(rows->desc, lfirst(cell))));
	bdd_restore_role(&saved);
	return texts;
}

/* ---------- reading ---------- */

/*
 * Reads rows of the source as the sync's owner.  Parameters: values of these
 * columns, the bound where there is one, and the limit of the slice.
 */
static BddSyncRows
read_as_owner(BddSlice *slice, const char *sql, const List *columns, const List *texts,
			  const char *bound)
{
	Oid types[INDEX_MAX_KEYS + 2];
	Datum values[INDEX_MAX_KEYS + 2];
	int count;
	BddSyncRows rows;
	BddSavedRole saved;

	bdd_sync_become(slice->sync, &saved);
	count = bdd_slice_bounded(slice->sync, columns, texts, bound, types, values);
	types[count] = INT8OID;
	values[count++] = Int64GetDatum(slice->limit);
	(void) bdd_spi_run(sql, count, types, values, NULL);
	rows = bdd_slice_take();
	bdd_restore_role(&saved);
	return rows;
}

/* The next rows behind the watermark, up to the bound. */
BddSyncRows
bdd_slice_rows(BddSlice *slice)
{
	const BddSync *sync = slice->sync;

	return read_as_owner(slice,
						 bdd_sync_sql_read(sync, list_length(sync->watermark), sync->bound != NULL),
						 sync->position, sync->watermark, sync->bound);
}

/* Rows without a cursor; after: the key of the last one, or NIL. */
BddSyncRows
bdd_slice_nulls(BddSlice *slice, List *after)
{
	char *sql = bdd_sync_sql_read_nulls(slice->sync, after == NIL);
	BddSyncRows none = {0};

	if (sql == NULL)
		return none;
	return read_as_owner(slice, sql, bdd_sync_source_key(slice->sync), after, NULL);
}

/* Rows without a key, all at once; the target takes none of them. */
BddSyncRows
bdd_slice_null_keys(BddSlice *slice)
{
	char *sql = bdd_sync_sql_read_null_keys(slice->sync);
	BddSyncRows rows = {0};
	BddSavedRole saved;

	if (sql == NULL)
		return rows;
	bdd_sync_become(slice->sync, &saved);
	(void) bdd_spi_run(sql, 0, NULL, NULL, NULL);
	rows = bdd_slice_take();
	bdd_restore_role(&saved);
	return rows;
}

/* Rows that the target has and the source has not; the first ones are to stay. */
BddSyncRows
bdd_slice_missing(BddSlice *slice, int64 refused)
{
	Oid types[] = {INT8OID, INT8OID};
	Datum values[] = {Int64GetDatum(slice->limit), Int64GetDatum(refused)};
	BddSyncRows rows;
	BddSavedRole saved;

	bdd_sync_become(slice->sync, &saved);
	(void) bdd_spi_run(bdd_sync_sql_missing(slice->sync, false), 2, types, values, NULL);
	rows = bdd_slice_take();
	bdd_restore_role(&saved);
	return rows;
}

/* A source without rows is more often a load that failed than the truth. */
bool
bdd_slice_source_is_empty(BddSlice *slice)
{
	BddSavedRole saved;
	bool empty;

	bdd_sync_become(slice->sync, &saved);
	empty = bdd_spi_run(psprintf("%s LIMIT 1", bdd_sync_sql_left(slice->sync, 0, false)), 0, NULL, NULL, NULL) == 0;
	bdd_restore_role(&saved);
	return empty;
}

/* ---------- changes ---------- */

/* What the rows of the slice change in the target.  The caller is the owner. */
static BddSyncRows
changes_of(const BddSync *sync, const BddSyncRows *rows)
{
	EphemeralNamedRelation relation = bdd_slice_relation(BDD_SLICE_NAME, rows);
	BddSyncRows changes;

	(void) bdd_run_on_relation(sync->target,
							   bdd_sync_sql_changes(sync, bdd_slice_shape(rows->desc)),
							   relation, 0, NULL, NULL, false);
	changes = bdd_slice_take();
	bdd_slice_free_relation(relation);
	return changes;
}

/* What stands behind the columns of the i-th change; "what": BDD_CHANGE_... */
static Datum
change_value(const BddSync *sync, const BddSyncRows *changes, uint64 i, int what, bool *isnull)
{
	return SPI_getbinval(changes->tuples[i], changes->desc, list_length(sync->columns) + what,
						 isnull);
}

/* How many rows are to be inserted, updated (or marked as present), removed. */
typedef struct BddChangeKinds
{
	uint64 missing;
	uint64 present;
	uint64 removed;
} BddChangeKinds;

/*
 * Counts what the changes are called, and returns what has to be written.
 * These differ: a row that was marked as deleted and comes back is called an
 * insert, and is written by an update.
 */
static BddChangeKinds
count_changes(const BddSync *sync, const BddSyncRows *changes, BddSyncCounts *counts)
{
	BddChangeKinds kinds = {0};
	bool isnull;

	for (uint64 i = 0; i < changes->count; i++)
	{
		char *operation =
			TextDatumGetCString(change_value(sync, changes, i, BDD_CHANGE_OPERATION, &isnull));

		switch (operation[0])
		{
			case 'i':
				counts->inserted++;
				break;
			case 'u':
				counts->updated++;
				break;
			default:
				counts->deleted++;
				break;
		}
		if (DatumGetBool(change_value(sync, changes, i, BDD_CHANGE_REMOVED, &isnull)))
			kinds.removed++;
		else if (DatumGetBool(change_value(sync, changes, i, BDD_CHANGE_PRESENT, &isnull)))
			kinds.present++;
		else
			kinds.missing++;
		pfree(operation);
	}
	return kinds;
}

/* For a dry run: 'update {"id": 1}: price, stock'. */
static void
add_samples(BddSlice *slice, const BddSyncRows *changes)
{
	int columns = list_length(slice->sync->columns);
	MemoryContext old_context = MemoryContextSwitchTo(slice->context);

	for (uint64 i = 0; i < changes->count && list_length(slice->sample) < BDD_SYNC_SAMPLE; i++)
	{
		HeapTuple tuple = changes->tuples[i];
		char *changed = SPI_getvalue(tuple, changes->desc, columns + BDD_CHANGE_COLUMNS);

		slice->sample = lappend(
			slice->sample,
			psprintf("%s %s%s%s", SPI_getvalue(tuple, changes->desc, columns + BDD_CHANGE_OPERATION),
					 SPI_getvalue(tuple, changes->desc, columns + BDD_CHANGE_KEY),
					 changed != NULL ? ": " : "", changed != NULL ? changed : ""));
	}
	MemoryContextSwitchTo(old_context);
}

/*
 * Runs a statement of sync_sql.c on the changes; SPI_processed tells how many
 * rows it wrote.
 */
static void
run_on_changes(const BddSync *sync, const char *sql, EphemeralNamedRelation changes)
{
	(void) bdd_run_on_relation(sync->target, sql, changes, 0, NULL, NULL, false);
}

/* What a trigger keeps from being written must not be in the log, nor behind the watermark. */
static void
write_all(const BddSync *sync, const char *sql, EphemeralNamedRelation changes, uint64 count)
{
	run_on_changes(sync, sql, changes);
	if (SPI_processed < count)
		ereport(ERROR,
				(errcode(ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION),
				 errmsg("a trigger of \"%s\" keeps rows from being written",
						get_rel_name(sync->target))));
}

/* The caller may write the target. */
static void
write_changes(const BddSync *sync, EphemeralNamedRelation changes, uint32 shape,
			  const BddChangeKinds *kinds)
{
	if (sync->buffered)
	{
		if (kinds->missing + kinds->present > 0 ||
			(kinds->removed > 0 && sync->deleted_column != NULL))
			run_on_changes(sync, bdd_sync_sql_upsert_buffered(sync, shape), changes);
		if (kinds->removed > 0 && sync->deleted_column == NULL)
			run_on_changes(sync, bdd_sync_sql_delete_buffered(sync, shape), changes);
		return;
	}
	/* Values of unique columns are given up before they are taken. */
	if (kinds->removed > 0)
		write_all(sync, bdd_sync_sql_delete(sync, shape), changes, kinds->removed);
	if (kinds->present > 0)
		write_all(sync, bdd_sync_sql_update(sync, shape), changes, kinds->present);
	if (kinds->missing > 0)
		write_all(sync, bdd_sync_sql_insert(sync, shape), changes, kinds->missing);
}

/* ---------- a range of rows ---------- */

typedef struct BddRange
{
	BddSlice *slice;
	BddSyncRows rows;
	bool removals; /* rows are changes already */
	BddSyncCounts counts;
} BddRange;

/* Keys in the target of all rows of a range, as jsonb[].  The caller is the owner. */
static Datum
keys_of(BddRange *range)
{
	const BddSync *sync = range->slice->sync;
	int column = list_length(sync->columns) + BDD_CHANGE_KEY;
	BddSyncRows keys = range->rows;
	Datum *values;
	int count = 0;
	bool isnull;

	if (!range->removals)
	{
		EphemeralNamedRelation relation = bdd_slice_relation(BDD_SLICE_NAME, &range->rows);
		uint32 shape = bdd_slice_shape(range->rows.desc);

		(void) bdd_run_on_relation(sync->target,
								   bdd_sync_sql_describe(sync, BDD_DESCRIBE_KEY, shape), relation,
								   0, NULL, NULL, false);
		keys = bdd_slice_take();
		column = 1;
		bdd_slice_free_relation(relation);
	}
	values = palloc(sizeof(Datum) * (keys.count + 1));
	for (uint64 i = 0; i < keys.count; i++)
	{
		values[count] = SPI_getbinval(keys.tuples[i], keys.desc, column, &isnull);
		count += isnull ? 0 : 1;
	}
	return PointerGetDatum(
		construct_array(values, count, JSONBOID, -1, false, TYPALIGN_INT));
}

/* The table has taken a later row of a key: what it refused is of no interest. */
static void
settle_letters(BddRange *range, Datum keys)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.sync_letter_row WHERE sync_id = $1 AND key = ANY ($2)",
		2,
		{INT4OID, JSONBARRAYOID}};
	Datum values[] = {Int32GetDatum(range->slice->sync->id), keys};

	(void) bdd_plan_run_own(&delete, values, NULL);
}

/*
 * Finds the changes that the rows make, writes them, logs them, and deletes
 * dead letters that they settle; a dry run only shows them.  Called in a
 * subtransaction by try_range.
 */
static void
write_range(void *arg)
{
	BddRange *range = arg;
	BddSync *sync = range->slice->sync;
	BddSyncRows changes = range->rows;
	BddChangeKinds kinds;
	BddSavedRole saved;
	uint32 shape;

	bdd_spi_connect();
	if (!range->removals)
	{
		bdd_sync_become(sync, &saved);
		changes = changes_of(sync, &range->rows);
		bdd_restore_role(&saved);
	}
	kinds = count_changes(sync, &changes, &range->counts);
	if (range->slice->dry_run)
		add_samples(range->slice, &changes);
	else if (changes.count > 0)
	{
		EphemeralNamedRelation relation = bdd_slice_relation(BDD_CHANGES_NAME, &changes);

		shape = bdd_slice_shape(changes.desc);
		bdd_sync_become_writer(sync, &saved);
		write_changes(sync, relation, shape, &kinds);
		bdd_restore_role(&saved);
		bdd_debug_point("sync-written");
		if (sync->change_log)
			bdd_change_log_write(sync, range->slice->run_id, shape, relation);
		bdd_slice_free_relation(relation);
	}
	if (range->slice->has_letters)
	{
		Datum keys;

		bdd_sync_become(sync, &saved);
		keys = keys_of(range);
		bdd_restore_role(&saved);
		settle_letters(range, keys);
	}
	bdd_spi_finish();
}

/* The other counts are not of a range: bdd_slice_write has them. */
static void
add_counts(BddSyncCounts *sum, const BddSyncCounts *counts)
{
	sum->inserted += counts->inserted;
	sum->updated += counts->updated;
	sum->deleted += counts->deleted;
}

/* The error that undid it, or NULL.  Errors that say nothing about rows are raised. */
static ErrorData *
try_range(BddSlice *slice, const BddSyncRows *rows, uint64 first, uint64 count, bool removals)
{
	BddRange range = {slice, {rows->desc, rows->tuples + first, count}, removals, {0}};
	MemoryContext context = CurrentMemoryContext;
	int samples = list_length(slice->sample);
	ErrorData *error = bdd_in_subtransaction(write_range, &range);

	MemoryContextSwitchTo(context);
	if (error == NULL)
		add_counts(&slice->counts, &range.counts);
	else
		slice->sample = list_truncate(slice->sample, samples);
	return error;
}

/* ---------- rows that are refused ---------- */

/* What the units of a BddTrial are here: rows of the source, since the mapping may fail. */
typedef struct BddSliceTrial
{
	BddSlice *slice;
	const BddSyncRows *rows;
	bool removals;
} BddSliceTrial;

/* BddTrial.write: the rows from "first" on. */
static ErrorData *
write_units(void *arg, uint64 first, uint64 count)
{
	BddSliceTrial *trial = arg;

	return try_range(trial->slice, trial->rows, first, count, trial->removals);
}

/* BddTrial.probe: a row that changes nothing says nothing. */
static ErrorData *
probe_unit(void *arg, uint64 number, bool *tried)
{
	BddSliceTrial *trial = arg;
	BddSlice *slice = trial->slice;
	BddSyncCounts counts = slice->counts;
	ErrorData *error = write_units(arg, number, 1);

	*tried = error != NULL || slice->counts.inserted != counts.inserted ||
			 slice->counts.updated != counts.updated || slice->counts.deleted != counts.deleted;
	slice->counts = counts;
	return error;
}

/* Whether the row is one of those that are refused. */
static bool
is_refused(const List *refused, uint64 number)
{
	ListCell *cell;

	foreach(cell, refused)
		if (((BddRefusal *) lfirst(cell))->number == number)
			return true;
	return false;
}

/*
 * BddTrial.accepted: tries the rows behind one that has been accepted late once
 * more, since one of them may have its key, and counts.  Returns those that are
 * refused now, too.
 */
static List *
redo_later(const BddTrial *trial, uint64 number, List *refused)
{
	uint64 rows = ((BddSliceTrial *) trial->arg)->rows->count;
	List *found = NIL;
	uint64 first = number + 1;

	for (uint64 i = number + 1; i <= rows; i++)
	{
		if (i < rows && !is_refused(refused, i))
			continue;
		if (i > first)
			found = bdd_bisect(trial, first, i - first, found);
		first = i + 1;
	}
	return found;
}

/* Writes the rows; returns those that are refused (of BddRefusal). */
static List *
write_tolerantly(BddSlice *slice, const BddSyncRows *rows, bool removals)
{
	BddSliceTrial units = {slice, rows, removals};
	BddTrial trial = {write_units, probe_unit, removals ? NULL : redo_later, &units};

	return bdd_tolerate(&trial, rows->count);
}

/* ---------- the whole ---------- */

/* Deferred checks would fire at commit, as another role. */
static void
check_at_once(const BddSync *sync)
{
	BddSavedRole saved;

	bdd_sync_become_writer(sync, &saved);
	bdd_constraints_immediate(sync->target);
	bdd_restore_role(&saved);
}

/* How many rows were changed or refused; all others are unchanged. */
static uint64
sum_of(const BddSyncCounts *counts)
{
	return counts->inserted + counts->updated + counts->deleted + counts->refused;
}

/*
 * Brings the rows to the target; removals: rows of bdd_slice_missing.  The
 * caller is connected to SPI.
 */
void
bdd_slice_write(BddSlice *slice, const BddSyncRows *rows, bool removals)
{
	List *refused;
	BddSyncCounts before = slice->counts;
	ListCell *cell;

	if (rows->count == 0)
		return;
	slice->context = CurrentMemoryContext;
	if (!removals)
		slice->counts.read += rows->count;
	check_at_once(slice->sync);
	slice->has_letters = !slice->dry_run && bdd_sync_has_letters(slice->sync);
	refused = write_tolerantly(slice, rows, removals);
	slice->counts.refused += list_length(refused);
	if (!slice->dry_run)
		foreach(cell, refused)
			bdd_sync_store_letter(slice->sync, slice->run_id, rows, lfirst(cell), removals);
	if (!removals)
		slice->counts.unchanged +=
			rows->count - Min(rows->count, sum_of(&slice->counts) - sum_of(&before));
}

/* Runs the statements on no rows.  The caller is connected to SPI, as the owner. */
void
bdd_sync_try_out(const BddSync *sync)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(0)};
	BddSyncRows rows;

	(void) bdd_spi_run(bdd_sync_sql_read(sync, 0, false), 1, types, values, NULL);
	rows = bdd_slice_take();
	rows.count = 0;
	(void) changes_of(sync, &rows);
}
