/*-------------------------------------------------------------------------
 *
 * tolerate.c
 *		Finding the rows that a table refuses.
 *
 * All rows are tried in one subtransaction.  If the table refuses them, halves
 * are tried, and so on to single rows.  An error that passes by itself (a
 * deadlock, a lock, memory) or that is nobody's (cancel, shutdown) is raised:
 * the whole generation is tried again.  So is one that speaks of the table
 * and not of the row (a column that a trigger misses, say), if it hits every
 * row.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/tolerate.h"

#include "access/xact.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* ---------- kinds of errors ---------- */

/*
 * Errors that the values of a row cause, whatever a trigger calls them.  The
 * others speak of the table, of functions, or of the server.
 */
bool
bdd_error_is_of_row(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
		case ERRCODE_INTERNAL_ERROR:
		case ERRCODE_INVALID_TRANSACTION_STATE:
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:
		case ERRCODE_INVALID_SCHEMA_NAME:
		case ERRCODE_INVALID_CATALOG_NAME:
		case ERRCODE_SQL_ROUTINE_EXCEPTION:
		case ERRCODE_EXTERNAL_ROUTINE_EXCEPTION:
		case ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION:
		case ERRCODE_CONFIG_FILE_ERROR:
			return false;
		default:
			return true;
	}
}

/* Errors that pass without anybody doing something about them. */
bool
bdd_error_is_passing(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
			return true;
		default:
			return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/* Errors that say nothing about rows. */
static bool
concerns_no_row(int sqlstate)
{
	int category = ERRCODE_TO_CATEGORY(sqlstate);

	return bdd_error_is_passing(sqlstate) ||
		   category == ERRCODE_SYSTEM_ERROR ||
		   category == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
}

/* ---------- trying ---------- */

/* Does the work in a subtransaction; returns the error that undid it, or NULL. */
ErrorData *
bdd_catch(BddWork work, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* The same; errors that say nothing about rows are raised. */
ErrorData *
bdd_in_subtransaction(BddWork work, void *arg)
{
	ErrorData *error = bdd_catch(work, arg);

	if (error != NULL && concerns_no_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}

typedef struct BddWrite
{
	BddTarget *target;
	const BddRow *rows;
	uint64 count;
	bool merge;
	BddApplyCounts counts;
} BddWrite;

static void
do_write(void *arg)
{
	BddWrite *write = arg;

	bdd_write_rows(write->target, write->rows, write->count, write->merge,
				   &write->counts);
}

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

static List *
add_refused(List *refused, const BddRow *row, ErrorData *error)
{
	BddRefused *entry = palloc(sizeof(BddRefused));

	entry->row = *row;
	entry->error = error;
	return lappend(refused, entry);
}

static List *
bisect(BddTarget *target, const BddRow *rows, uint64 count,
	   BddApplyCounts *counts, List *refused)
{
	ErrorData *error;

	if (count == 0)
		return refused;
	error = bdd_try_write(target, rows, count, counts);
	if (error == NULL)
		return refused;
	if (count == 1)
		return add_refused(refused, rows, error);
	FreeErrorData(error);
	refused = bisect(target, rows, count / 2, counts, refused);
	return bisect(target, rows + count / 2, count - count / 2, counts,
				  refused);
}

/*
 * A refused row may have been waiting for another: for a unique value that a
 * row after it gives up, say.  So the refused are tried again, until none is
 * accepted any more.
 */
static List *
retry_refused(BddTarget *target, BddApplyCounts *counts, List *refused)
{
	bool progress = true;

	while (progress && refused != NIL)
	{
		List *left = NIL;
		ListCell *cell;

		progress = false;
		foreach(cell, refused)
		{
			BddRefused *entry = lfirst(cell);
			ErrorData *error = bdd_try_write(target, &entry->row, 1, counts);

			if (error == NULL)
				progress = true;
			else
				left = add_refused(left, &entry->row, error);
		}
		refused = left;
	}
	return refused;
}

/* ---------- faults of the table ---------- */

static bool
refuses_alone(BddTarget *target, const BddRow *row, int sqlstate)
{
	BddApplyCounts ignored = {0};
	ErrorData *error = bdd_try_write(target, row, 1, &ignored);

	return error != NULL && error->sqlerrcode == sqlstate;
}

/*
 * Raises the error if it is not a row's and hits the first, the middle and
 * the last row alike; what they wrote, if they were accepted, is undone.
 */
static void
raise_if_fault(BddTarget *target, BddRows *rows, ErrorData *error)
{
	uint64 probes[] = {0, rows->count / 2, rows->count - 1};

	if (bdd_error_is_of_row(error->sqlerrcode))
		return;
	for (int i = 0; i < lengthof(probes); i++)
	{
		MemoryContext context = CurrentMemoryContext;
		ResourceOwner owner = CurrentResourceOwner;
		bool same;

		BeginInternalSubTransaction(NULL);
		MemoryContextSwitchTo(context);
		same = refuses_alone(target, &rows->rows[probes[i]],
							 error->sqlerrcode);
		RollbackAndReleaseCurrentSubTransaction();
		MemoryContextSwitchTo(context);
		CurrentResourceOwner = owner;
		if (!same)
			return;
	}
	ReThrowError(error);
}

/* ---------- the whole ---------- */

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

static List *
write_round(BddTarget *target, const BddRow *rows, uint64 count,
			BddApplyCounts *counts)
{
	uint64 deletes;
	BddRow *sorted = deletes_first(rows, count, &deletes);
	List *refused = bisect(target, sorted, deletes, counts, NIL);

	refused = bisect(target, sorted + deletes, count - deletes, counts,
					 refused);
	return retry_refused(target, counts, refused);
}

/*
 * Writes the rows, as bdd_rows_fold_equal leaves them, and returns those that
 * the table refuses (of BddRefused), each with its error.
 */
List *
bdd_write_tolerantly(BddTarget *target, BddRows *rows, BddApplyCounts *counts)
{
	ErrorData *error;
	BddRounds rounds;
	List *refused = NIL;

	if (rows->count == 0)
		return NIL;
	error = bdd_try_write_quickly(target, rows->rows, rows->count, counts);
	if (error == NULL)
		return NIL;
	raise_if_fault(target, rows, error);

	rounds = bdd_split_rounds(rows->rows, rows->count);
	for (uint32 i = 0; i < rounds.count; i++)
		refused = list_concat(refused,
							  write_round(target,
										  &rounds.rows[rounds.starts[i]],
										  rounds.starts[i + 1] - rounds.starts[i],
										  counts));
	return refused;
}
