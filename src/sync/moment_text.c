/*-------------------------------------------------------------------------
 *
 * moment_text.c
 *		Moments as text, which a sync keeps between runs.
 *
 * The numbers of a moment mean something as long as the server's shared memory
 * lives, so an incarnation is written beside them.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/moment_text.h"

#include "base/loaded.h"
#include "buffer/registry.h"
#include "miscadmin.h"

#define TEXT_VERSION 1

/*
 * Numbers with spaces between them: what must be the same for the rest to mean
 * anything, the moment itself, how many hold it, and these.
 */
char *
bdd_moment_out(const BddMoment *moment)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "%d " INT64_FORMAT " %u " INT64_FORMAT " %d %d " INT64_FORMAT " %d",
					 TEXT_VERSION, bdd_registry->incarnation, MyDatabaseId,
					 moment->at, moment->of_sequence, moment->called,
					 moment->last_value, moment->count);
	for (int i = 0; i < moment->count; i++)
	{
		const BddHolder *holder = &moment->holders[i];

		appendStringInfo(&text, " %d %d %u " INT64_FORMAT, holder->is_process,
						 holder->backend, holder->id, holder->since);
	}
	return text.data;
}

static void
report_malformed(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("this is not a moment of a sync")));
}

/* The next number of the text, which must be in the range. */
static int64
read_number(const char **text, int64 min, int64 max)
{
	char *end;
	int64 number;

	errno = 0;
	number = strtoll(*text, &end, 10);
	if (end == *text || errno != 0 || number < min || number > max ||
		(*end != ' ' && *end != '\0'))
		report_malformed();
	*text = end;
	return number;
}

/*
 * Reads the four numbers of one holder, as bdd_moment_out writes them.  A
 * backend's number must be in its range, because places in shared memory are
 * found by it.
 */
static void
read_holder(const char **text, BddMoment *moment)
{
	bool is_process = read_number(text, 0, 1) != 0;
	int64 backend = read_number(text, is_process ? BDD_FIRST_BACKEND : BDD_PREPARED,
								BDD_FIRST_BACKEND + MaxBackends - 1);
	int64 id = read_number(text, 1, PG_UINT32_MAX);
	int64 since = read_number(text, PG_INT64_MIN, PG_INT64_MAX);

	bdd_moment_add_holder(moment, is_process, (int) backend, (uint32) id, since);
}

/*
 * The moment that was written as this text.  NULL: it was NULL, or means
 * nothing now, because the server has started anew or the text comes from
 * another database.
 */
BddMoment *
bdd_moment_in(const char *text)
{
	BddMoment *moment;
	int count;

	bdd_check_preloaded();
	if (text == NULL ||
		read_number(&text, 0, PG_INT32_MAX) != TEXT_VERSION ||
		read_number(&text, PG_INT64_MIN, PG_INT64_MAX) != bdd_registry->incarnation ||
		read_number(&text, 0, PG_UINT32_MAX) != MyDatabaseId)
		return NULL;
	moment = bdd_moment_new(0);
	moment->at = read_number(&text, PG_INT64_MIN, PG_INT64_MAX);
	moment->of_sequence = read_number(&text, 0, 1) != 0;
	moment->called = read_number(&text, 0, 1) != 0;
	moment->last_value = read_number(&text, PG_INT64_MIN, PG_INT64_MAX);
	count = (int) read_number(&text, 0, PG_INT32_MAX);
	for (int i = 0; i < count; i++)
		read_holder(&text, moment);
	if (*text != '\0')
		report_malformed();
	return moment;
}
