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
 * All that the owner of the sync has written runs as the owner; only log and
 * dead letters are written by us.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_slice.h"

#include "access/xact.h"
#include "apply/write.h"
#include "base/debug_point.h"
#include "base/list.h"
#include "base/loaded.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "sql/attempt.h"
#include "sql/statement.h"
#include "sync/change_log.h"
#include "sync/sync_check.h"
#include "target/target.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/rls.h"

PG_FUNCTION_INFO_V1(bdd_sync_lag);

/* What a change has behind the columns of the target, in this order. */
enum
{
	CHANGE_REMOVED = 1,
	CHANGE_PRESENT,
	CHANGE_OPERATION,
	CHANGE_KEY,
	CHANGE_OLD_VERSION,
	CHANGE_NEW_VERSION,
	CHANGE_COLUMNS
};

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

/* The result of the last statement. */
BddSyncRows
bdd_slice_take(void)
{
	BddSyncRows rows = {SPI_tuptable->tupdesc, SPI_tuptable->vals, SPI_processed};

	return rows;
}

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

/* ---------- rows as a relation ---------- */

EphemeralNamedRelation
bdd_slice_relation(const char *name, const BddSyncRows *rows)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);

	for (uint64 i = 0; i < rows->count; i++)
		tuplestore_puttuple(store, rows->tuples[i]);
	relation->md.name = pstrdup(name);
	relation->md.tupdesc = rows->desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = rows->count;
	relation->reldata = store;
	return relation;
}

void
bdd_slice_free_relation(EphemeralNamedRelation relation)
{
	tuplestore_end(relation->reldata);
}

/*
 * What a statement on the rows depends on: a plan is kept by its text, and takes
 * columns by their number, so names count, too.
 */
static uint32
shape_of(TupleDesc desc)
{
	uint32 hash = bdd_fingerprint(desc);

	for (int i = 0; i < desc->natts; i++)
		hash =
			hash_combine(hash, string_hash(NameStr(TupleDescAttr(desc, i)->attname), NAMEDATALEN));
	return hash;
}

/* ---------- changes ---------- */

/* What the rows of the slice change in the target.  The caller is the owner. */
static BddSyncRows
changes_of(const BddSync *sync, const BddSyncRows *rows)
{
	EphemeralNamedRelation relation = bdd_slice_relation(BDD_SLICE_NAME, rows);
	BddSyncRows changes;

	(void) bdd_run_on_relation(sync->target, bdd_sync_sql_changes(sync, shape_of(rows->desc)),
							   relation, 0, NULL, NULL, false);
	changes = bdd_slice_take();
	bdd_slice_free_relation(relation);
	return changes;
}

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

static BddChangeKinds
count_changes(const BddSync *sync, const BddSyncRows *changes, BddSyncCounts *counts)
{
	BddChangeKinds kinds = {0};
	bool isnull;

	for (uint64 i = 0; i < changes->count; i++)
	{
		char *operation =
			TextDatumGetCString(change_value(sync, changes, i, CHANGE_OPERATION, &isnull));

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
		if (DatumGetBool(change_value(sync, changes, i, CHANGE_REMOVED, &isnull)))
			kinds.removed++;
		else if (DatumGetBool(change_value(sync, changes, i, CHANGE_PRESENT, &isnull)))
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
		char *changed = SPI_getvalue(tuple, changes->desc, columns + CHANGE_COLUMNS);

		slice->sample = lappend(
			slice->sample,
			psprintf("%s %s%s%s", SPI_getvalue(tuple, changes->desc, columns + CHANGE_OPERATION),
					 SPI_getvalue(tuple, changes->desc, columns + CHANGE_KEY),
					 changed != NULL ? ": " : "", changed != NULL ? changed : ""));
	}
	MemoryContextSwitchTo(old_context);
}

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
	int column = list_length(sync->columns) + CHANGE_KEY;
	BddSyncRows keys = range->rows;
	Datum *values;
	int count = 0;
	bool isnull;

	if (!range->removals)
	{
		EphemeralNamedRelation relation = bdd_slice_relation(BDD_SLICE_NAME, &range->rows);
		uint32 shape = shape_of(range->rows.desc);

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

		shape = shape_of(changes.desc);
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

typedef struct BddRefusedRow
{
	uint64 number;
	ErrorData *error;
} BddRefusedRow;

static List *
bisect(BddSlice *slice, const BddSyncRows *rows, uint64 first, uint64 count, bool removals,
	   List *refused)
{
	ErrorData *error = try_range(slice, rows, first, count, removals);

	if (error == NULL)
		return refused;
	if (count == 1)
	{
		BddRefusedRow *row = palloc(sizeof(BddRefusedRow));

		row->number = first;
		row->error = error;
		return lappend(refused, row);
	}
	FreeErrorData(error);
	refused = bisect(slice, rows, first, count / 2, removals, refused);
	return bisect(slice, rows, first + count / 2, count - count / 2, removals, refused);
}

static bool
is_refused(const List *refused, uint64 number)
{
	ListCell *cell;

	foreach(cell, refused)
		if (((BddRefusedRow *) lfirst(cell))->number == number)
			return true;
	return false;
}

/*
 * Rows behind one that has been accepted late, once more: one of them may have
 * its key, and counts.  Returns those that are refused now, too.
 */
static List *
redo_later(BddSlice *slice, const BddSyncRows *rows, uint64 number, List *refused)
{
	List *found = NIL;
	uint64 first = number + 1;

	for (uint64 i = number + 1; i <= rows->count; i++)
	{
		if (i < rows->count && !is_refused(refused, i))
			continue;
		if (i > first)
			found = bisect(slice, rows, first, i - first, false, found);
		first = i + 1;
	}
	return found;
}

/* A row may have waited for another one: for a unique value, say. */
static List *
retry_refused(BddSlice *slice, const BddSyncRows *rows, bool removals, List *refused)
{
	int before;

	do
	{
		List *left = NIL;
		List *found = NIL;
		ListCell *cell;

		before = list_length(refused);
		foreach(cell, refused)
		{
			BddRefusedRow *row = lfirst(cell);

			row->error = try_range(slice, rows, row->number, 1, removals);
			if (row->error != NULL)
				left = lappend(left, row);
			else if (!removals)
			{
				List *others = list_concat_copy(refused, found);

				found = list_concat(found, redo_later(slice, rows, row->number, others));
			}
		}
		refused = list_concat(left, found);
	} while (refused != NIL && list_length(refused) < before);
	return refused;
}

/*
 * Tries rows from "first" on until one changes something, and undoes it.  Returns
 * its error, or NULL; *tried: there is such a row.
 */
static ErrorData *
probe(BddSlice *slice, const BddSyncRows *rows, uint64 first, bool removals, bool *tried)
{
	BddSyncCounts counts = slice->counts;
	ErrorData *error = NULL;

	*tried = false;
	for (uint64 i = first; i < rows->count && !*tried; i++)
	{
		MemoryContext context = CurrentMemoryContext;
		ResourceOwner owner = CurrentResourceOwner;

		CHECK_FOR_INTERRUPTS();
		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		error = try_range(slice, rows, i, 1, removals);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		*tried = error != NULL || slice->counts.inserted != counts.inserted ||
				 slice->counts.updated != counts.updated || slice->counts.deleted != counts.deleted;
		slice->counts = counts;
	}
	return error;
}

/*
 * Raises an error that is not a row's if it hits the first, the middle and the
 * last row alike: then it is the sync that is at fault.  Rows that change
 * nothing say nothing: the next one is asked.
 */
static void
raise_if_fault(BddSlice *slice, const BddSyncRows *rows, bool removals, ErrorData *error)
{
	uint64 probes[] = {0, rows->count / 2, rows->count - 1};

	if (bdd_error_is_of_row(error->sqlerrcode))
		return;
	for (int i = 0; i < lengthof(probes); i++)
	{
		bool tried;
		ErrorData *other = probe(slice, rows, probes[i], removals, &tried);

		if (tried && (other == NULL || other->sqlerrcode != error->sqlerrcode))
			return;
	}
	ReThrowError(error);
}

/* ---------- dead letters ---------- */

typedef struct BddDescription
{
	BddSlice *slice;
	BddSyncRows rows;
	BddSyncDescribe what;
	char *first; /* in the caller's memory; NULL: unknown */
	char *second;
	MemoryContext context;
} BddDescription;

static void
describe_row(void *arg)
{
	BddDescription *description = arg;
	const BddSync *sync = description->slice->sync;
	EphemeralNamedRelation relation;
	BddSavedRole saved;

	bdd_spi_connect();
	bdd_sync_become(sync, &saved);
	bdd_exact_output();
	relation = bdd_slice_relation(BDD_SLICE_NAME, &description->rows);
	if (bdd_run_on_relation(
			sync->target,
			bdd_sync_sql_describe(sync, description->what, shape_of(description->rows.desc)),
			relation, 0, NULL, NULL, false) > 0)
	{
		char *first = SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1);

		if (first != NULL)
			description->first = MemoryContextStrdup(description->context, first);
		if (description->what != BDD_DESCRIBE_KEY)
			description->second =
				MemoryContextStrdup(description->context,
									SPI_getvalue(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 2));
	}
	bdd_restore_role(&saved);
	bdd_slice_free_relation(relation);
	bdd_spi_finish();
}

/* Document and position of the row; its key, if that is no reason to refuse it. */
static void
describe(BddSlice *slice, const BddSyncRows *rows, uint64 number, bool removals,
		 char **document, char **position, char **key)
{
	BddDescription description = {
		.slice = slice,
		.rows = {rows->desc, rows->tuples + number, 1},
		.what = BDD_DESCRIBE_ROW,
		.context = CurrentMemoryContext,
	};
	int columns = list_length(slice->sync->columns);

	if (removals)
	{
		*document = *position = *key =
			SPI_getvalue(rows->tuples[number], rows->desc, columns + CHANGE_KEY);
		return;
	}
	/* Not every json is a jsonb. */
	if (bdd_in_subtransaction(describe_row, &description) != NULL)
	{
		description.what = BDD_DESCRIBE_TEXT;
		describe_row(&description);
	}
	*document = description.first;
	*position = description.second;
	description.what = BDD_DESCRIBE_KEY;
	description.first = NULL;
	*key = bdd_in_subtransaction(describe_row, &description) == NULL ? description.first : NULL;
}

static void
store_letter(BddSlice *slice, const BddSyncRows *rows, const BddRefusedRow *row, bool removals)
{
	Oid types[] = {INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID};
	char nulls[] = "         ";
	char *document;
	char *position;
	char *key;
	Datum values[lengthof(types)];
	BddSavedRole saved;

	describe(slice, rows, row->number, removals, &document, &position, &key);
	values[0] = Int32GetDatum(slice->sync->id);
	values[1] = CStringGetTextDatum(position);
	values[2] = bdd_text_or_null(key, &nulls[2]);
	values[3] = CStringGetTextDatum(document);
	values[4] = CStringGetTextDatum(unpack_sql_state(row->error->sqlerrcode));
	values[5] = bdd_text_or_null(row->error->message, &nulls[5]);
	values[6] = bdd_text_or_null(row->error->detail, &nulls[6]);
	values[7] = bdd_text_or_null(row->error->hint, &nulls[7]);
	values[8] = Int64GetDatum(slice->run_id);
	bdd_own_begin(&saved);
	/* What was refused of the key before is of no interest any more. */
	(void) bdd_spi_run("DELETE FROM batchdedup.sync_letter_row "
					   "WHERE sync_id = $1 AND key = $3::pg_catalog.jsonb AND position <> $2",
					   3, types, values, nulls);
	(void) bdd_spi_run("INSERT INTO batchdedup.sync_letter_row AS l "
					   "(sync_id, position, key, row, sqlstate, message, detail, hint, run_id) "
					   "VALUES ($1, $2, $3::pg_catalog.jsonb, $4::pg_catalog.jsonb, $5, $6, $7, $8, $9) "
					   "ON CONFLICT (sync_id, pg_catalog.md5(position)) DO UPDATE SET key = EXCLUDED.key, row = EXCLUDED.row, "
					   "sqlstate = EXCLUDED.sqlstate, message = EXCLUDED.message, detail = EXCLUDED.detail, "
					   "hint = EXCLUDED.hint, run_id = EXCLUDED.run_id, attempts = l.attempts + 1, "
					   "last_attempt_at = pg_catalog.clock_timestamp()",
					   lengthof(types), types, values, nulls);
	bdd_own_end(&saved);
}

static bool
has_letters(const BddSync *sync)
{
	static BddKeptPlan select = {
		"SELECT FROM batchdedup.sync_letter_row WHERE sync_id = $1 LIMIT 1", 1, {INT4OID}};
	Datum values[] = {Int32GetDatum(sync->id)};
	bool found;

	found = bdd_plan_run_own(&select, values, NULL) > 0;
	return found;
}

/* ---------- the whole ---------- */

/* Deferred checks would fire as somebody else, at commit. */
static void
check_at_once(const BddSync *sync)
{
	BddSavedRole saved;

	bdd_sync_become_writer(sync, &saved);
	bdd_constraints_immediate(sync->target);
	bdd_restore_role(&saved);
}

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
	List *refused = NIL;
	BddSyncCounts before = slice->counts;
	ErrorData *error;
	ListCell *cell;

	if (rows->count == 0)
		return;
	slice->context = CurrentMemoryContext;
	if (!removals)
		slice->counts.read += rows->count;
	check_at_once(slice->sync);
	slice->has_letters = !slice->dry_run && has_letters(slice->sync);
	error = try_range(slice, rows, 0, rows->count, removals);
	if (error != NULL)
	{
		raise_if_fault(slice, rows, removals, error);
		refused = bisect(slice, rows, 0, rows->count, removals, NIL);
		refused = retry_refused(slice, rows, removals, refused);
	}
	slice->counts.refused += list_length(refused);
	if (!slice->dry_run)
		foreach(cell, refused)
			store_letter(slice, rows, lfirst(cell), removals);
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

/* ---------- lag ---------- */

typedef struct BddLag
{
	BddSync *sync;
	Datum up_to;
	int64 rows;
} BddLag;

static void
count_left(void *arg)
{
	BddLag *lag = arg;
	BddSync *sync = lag->sync;
	int count = list_length(sync->watermark);
	Oid types[INDEX_MAX_KEYS + 1];
	Datum values[INDEX_MAX_KEYS + 1];
	char *left;
	BddSavedRole saved;
	bool isnull;

	bdd_spi_connect();
	bdd_sync_check_still(sync);
	/* Captured keys are in a table of ours. */
	if (sync->kind == BDD_CURSOR_TRIGGER && sync->complete)
	{
		left = psprintf("SELECT FROM %s", bdd_qualified_name(sync->captured));
		count = 0;
		bdd_become_extension_owner(&saved);
	}
	else
	{
		left = bdd_sync_sql_left(sync, count, false);
		bdd_sync_become(sync, &saved);
		bdd_slice_parameters(sync, sync->position, sync->watermark, types, values);
	}
	types[count] = INT8OID;
	values[count] = lag->up_to;
	(void) bdd_spi_run(psprintf("SELECT pg_catalog.count(*) FROM (%s LIMIT $%d) x", left, count + 1),
					   count + 1, types, values, NULL);
	lag->rows = DatumGetInt64(bdd_spi_value(0, 1, &isnull));
	bdd_restore_role(&saved);
	bdd_spi_finish();
}

/* The owner's code may fail in any way: nobody's look at all syncs is to fail with it. */
static bool
can_count(BddLag *lag)
{
	ErrorData *error = bdd_catch(count_left, lag);

	if (error != NULL && ERRCODE_TO_CATEGORY(error->sqlerrcode) == ERRCODE_OPERATOR_INTERVENTION)
		ReThrowError(error);
	return error == NULL;
}

/*
 * sync_lag_internal(sync_id, up_to): NULL for who may not read the source, and
 * where it cannot be read.
 */
Datum
bdd_sync_lag(PG_FUNCTION_ARGS)
{
	static BddKeptPlan name = {
		"SELECT name FROM batchdedup.sync_row WHERE id = $1", 1, {INT4OID}};
	Datum id[1];
	BddSync sync;
	BddLag lag = {&sync};
	BddSavedRole saved;
	bool isnull;
	bool known;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	bdd_check_preloaded();
	id[0] = PG_GETARG_DATUM(0);
	lag.up_to = PG_GETARG_DATUM(1);
	bdd_own_begin(&saved);
	if (bdd_plan_run(&name, id, NULL) == 0)
	{
		bdd_own_end(&saved);
		PG_RETURN_NULL();
	}
	bdd_sync_read_existing(TextDatumGetCString(bdd_spi_value(0, 1, &isnull)), &sync);
	bdd_restore_role(&saved);
	known = sync.kind != BDD_CURSOR_FULL &&
			get_rel_name(sync.source) != NULL &&
			pg_class_aclcheck(sync.source, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
			check_enable_rls(sync.source, InvalidOid, true) != RLS_ENABLED &&
			can_count(&lag);
	bdd_spi_finish();
	if (!known)
		PG_RETURN_NULL();
	PG_RETURN_INT64(lag.rows);
}
