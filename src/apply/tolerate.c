/*-------------------------------------------------------------------------
 *
 * tolerate.c
 *		Finding the units of work that fail.
 *
 * All units are tried in one subtransaction.  If that fails, halves are
 * tried, and so on to single units.  An error that passes by itself (a
 * deadlock, a lock, memory) or that is nobody's (cancel, shutdown) is raised:
 * everything is tried again later.  So is one that speaks of the table and
 * not of the row (a column that a trigger misses, say), if it hits the first,
 * the middle and the last unit alike.
 *
 * A unit that failed may have been waiting for another: for a unique value
 * that a row after it gives up, say.  So those that failed are tried again,
 * until none is accepted any more.
 *
 * A unit is a row of an apply (write.c) or a row of a sync's source
 * (sync_slice.c); this file knows numbers only.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/tolerate.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/resowner.h"

/* ---------- bisecting ---------- */

/*
 * Tries the units from "first" on, and halves of them where that fails.  Adds
 * a BddRefusal for each unit that fails alone to "refused".
 */
List *
bdd_bisect(const BddTrial *trial, uint64 first, uint64 count, List *refused)
{
	ErrorData *error;
	BddRefusal *refusal;

	if (count == 0)
		return refused;
	error = trial->write(trial->arg, first, count);
	if (error == NULL)
		return refused;
	if (count == 1)
	{
		refusal = palloc(sizeof(BddRefusal));
		refusal->number = first;
		refusal->error = error;
		return lappend(refused, refusal);
	}
	FreeErrorData(error);
	refused = bdd_bisect(trial, first, count / 2, refused);
	return bdd_bisect(trial, first + count / 2, count - count / 2, refused);
}

/*
 * One more pass over "refused": what is left of it, and what trial->accepted
 * finds because of those that are accepted now.
 */
static List *
retry_once(const BddTrial *trial, List *refused)
{
	List *left = NIL;
	List *found = NIL;
	ListCell *cell;

	foreach(cell, refused)
	{
		BddRefusal *refusal = lfirst(cell);

		refusal->error = trial->write(trial->arg, refusal->number, 1);
		if (refusal->error != NULL)
			left = lappend(left, refusal);
		else if (trial->accepted != NULL)
			found = list_concat(found,
								trial->accepted(trial, refusal->number,
												list_concat_copy(refused, found)));
	}
	return list_concat(left, found);
}

/* Tries those that were refused again, as long as some are accepted. */
List *
bdd_retry_refused(const BddTrial *trial, List *refused)
{
	int before;

	do
	{
		before = list_length(refused);
		refused = retry_once(trial, refused);
	} while (refused != NIL && list_length(refused) < before);
	return refused;
}

/* ---------- faults that are no unit's ---------- */

/* trial->probe of one unit, all of whose effects are undone. */
static ErrorData *
probe(const BddTrial *trial, uint64 number, bool *tried)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *error;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	error = trial->probe(trial->arg, number, tried);
	RollbackAndReleaseCurrentSubTransaction();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/*
 * From "number" on, the first unit that says something; *tried is false if
 * there is none.
 */
static ErrorData *
probe_from(const BddTrial *trial, uint64 number, uint64 count, bool *tried)
{
	ErrorData *error = NULL;

	*tried = false;
	for (; number < count && !*tried; number++)
	{
		CHECK_FOR_INTERRUPTS();
		error = probe(trial, number, tried);
	}
	return error;
}

/*
 * Raises the error of all "count" units together if it is not a row's and hits
 * the first, the middle and the last unit alike.
 */
void
bdd_raise_if_fault(const BddTrial *trial, uint64 count, ErrorData *error)
{
	uint64 probes[] = {0, count / 2, count - 1};

	if (bdd_error_is_of_row(error->sqlerrcode))
		return;
	for (int i = 0; i < lengthof(probes); i++)
	{
		bool tried;
		ErrorData *other = probe_from(trial, probes[i], count, &tried);

		if (tried && (other == NULL || other->sqlerrcode != error->sqlerrcode))
			return;
	}
	ReThrowError(error);
}

/* ---------- the whole ---------- */

/*
 * Writes the units and returns those that fail (of BddRefusal).  Raises an
 * error that is no unit's.
 */
List *
bdd_tolerate(const BddTrial *trial, uint64 count)
{
	ErrorData *error;

	if (count == 0)
		return NIL;
	error = trial->write(trial->arg, 0, count);
	if (error == NULL)
		return NIL;
	bdd_raise_if_fault(trial, count, error);
	return bdd_retry_refused(trial, bdd_bisect(trial, 0, count, NIL));
}

/* ---------- letters ---------- */

/*
 * What letters of all kinds say of an error: sqlstate, message, detail and
 * hint, as four parameters of a statement.
 */
void
bdd_error_values(const ErrorData *error, Datum *values, char *nulls)
{
	const char *const texts[] = {error->message, error->detail, error->hint};

	values[0] = CStringGetTextDatum(unpack_sql_state(error->sqlerrcode));
	nulls[0] = ' ';
	for (int i = 0; i < lengthof(texts); i++)
		values[i + 1] = bdd_text_or_null(texts[i], &nulls[i + 1]);
}
