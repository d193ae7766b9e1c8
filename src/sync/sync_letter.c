/*-------------------------------------------------------------------------
 *
 * sync_letter.c
 *		Dead letters of syncs: trying again, and giving up.
 *
 * A letter says where in the source the row was.  It is read from there once
 * more: what the source says now counts, not what it said then.  If the row is
 * not there any more, it is gone, or has been changed and so read again.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/loaded.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/spi.h"
#include "sync/change_log.h"
#include "sync/sync_slice.h"
#include "sync/sync_source_sql.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

PG_FUNCTION_INFO_V1(bdd_retry_sync_letters);
PG_FUNCTION_INFO_V1(bdd_discard_sync_letters);

typedef struct BddSyncLetter
{
	int64 id;
	List *position; /* of char *, NULL for a column that was */
	Datum key;      /* jsonb, of a row that could not be removed; else 0 */
} BddSyncLetter;

/*
 * All letters of the sync, the oldest first.  Their position is an array, or
 * an object: the key of a row that could not be removed.  The caller is the
 * extension's owner.
 */
static List *
read_letters(const BddSync *sync)
{
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(sync->id)};
	uint64 count = bdd_spi_run("SELECT l.id, p.value, CASE WHEN pg_catalog.jsonb_typeof(d.document) = 'object' "
							   "THEN d.document END FROM batchdedup.sync_letter_row l "
							   "CROSS JOIN LATERAL (SELECT l.position::pg_catalog.jsonb) d (document) "
							   "LEFT JOIN LATERAL pg_catalog.jsonb_array_elements_text(CASE WHEN pg_catalog.jsonb_typeof(d.document) = 'array' "
							   "THEN d.document END) WITH ORDINALITY p (value, number) ON true "
							   "WHERE l.sync_id = $1 ORDER BY l.id, p.number",
							   1, types, values, NULL);
	List *letters = NIL;
	BddSyncLetter *letter = NULL;
	bool isnull;

	for (uint64 i = 0; i < count; i++)
	{
		int64 id = DatumGetInt64(bdd_spi_value(i, 1, &isnull));

		if (letter == NULL || letter->id != id)
		{
			letter = palloc0(sizeof(BddSyncLetter));
			letter->id = id;
			letters = lappend(letters, letter);
			letter->key = bdd_spi_value(i, 3, &isnull);
			if (isnull)
				letter->key = (Datum) 0;
		}
		letter->position = lappend(letter->position,
								   SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 2));
	}
	return letters;
}

/*
 * The row of the source at the letter's position, read as the sync's owner.
 * Columns that were NULL are compared without a parameter.
 */
static BddSyncRows
read_row(const BddSync *sync, const BddSyncLetter *letter)
{
	Oid types[INDEX_MAX_KEYS];
	Datum values[INDEX_MAX_KEYS];
	List *columns = NIL;
	List *texts = NIL;
	BddSavedRole saved;
	BddSyncRows rows;
	ListCell *column;
	ListCell *text;

	forboth(column, sync->position, text, letter->position)
		if (lfirst(text) != NULL)
		{
			columns = lappend(columns, lfirst(column));
			texts = lappend(texts, lfirst(text));
		}
	bdd_sync_become(sync, &saved);
	bdd_slice_parameters(sync, columns, texts, types, values);
	(void) bdd_spi_run(bdd_sync_sql_read_at(sync, letter->position), list_length(texts), types,
					   values, NULL);
	rows = bdd_slice_take();
	bdd_restore_role(&saved);
	return rows;
}

/* The change that removes it, if it is still there and the source has it not. */
static BddSyncRows
read_removal(const BddSync *sync, const BddSyncLetter *letter)
{
	Oid types[] = {JSONBOID};
	Datum values[] = {letter->key};
	BddSavedRole saved;
	BddSyncRows rows;

	bdd_sync_become(sync, &saved);
	(void) bdd_spi_run(bdd_sync_sql_missing(sync, true), 1, types, values, NULL);
	rows = bdd_slice_take();
	bdd_restore_role(&saved);
	return rows;
}

static void
delete_letter(int64 id)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.sync_letter_row WHERE id = $1", 1, {INT8OID}};
	Datum values[] = {Int64GetDatum(id)};

	(void) bdd_plan_run_own(&delete, values, NULL);
}

/* Whether nothing of it is left. */
static bool
retry_letter(BddSync *sync, const BddSyncLetter *letter)
{
	BddSlice slice = {.sync = sync};
	BddSyncRows rows;

	bdd_spi_connect();
	rows = letter->key != (Datum) 0 ? read_removal(sync, letter) : read_row(sync, letter);
	bdd_slice_write(&slice, &rows, letter->key != (Datum) 0);
	if (slice.counts.refused == 0)
		delete_letter(letter->id);
	bdd_spi_finish();
	return slice.counts.refused == 0;
}

/*
 * Connects to SPI, reads the sync, and locks it against runs until the
 * transaction ends.  The caller must own it.
 */
static void
begin_call(FunctionCallInfo fcinfo, const char *call, BddSync *sync)
{
	char *name;

	bdd_check_argument(fcinfo, 0, "name");
	name = text_to_cstring(PG_GETARG_TEXT_PP(0));
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	bdd_spi_connect();
	bdd_sync_read_existing(name, sync);
	bdd_sync_check_owner(sync);
	bdd_sync_lock(sync, false);
}

/* retry_sync_dead_letters(name) */
Datum
bdd_retry_sync_letters(PG_FUNCTION_ARGS)
{
	BddSync sync;
	BddSavedRole saved;
	List *letters;
	int64 settled = 0;
	ListCell *cell;

	bdd_check_preloaded();
	begin_call(fcinfo, "retry_sync_dead_letters()", &sync);
	bdd_change_log_prepare();
	bdd_become_extension_owner(&saved);
	letters = read_letters(&sync);
	bdd_restore_role(&saved);
	foreach(cell, letters)
		settled += retry_letter(&sync, lfirst(cell)) ? 1 : 0;
	bdd_spi_finish();
	PG_RETURN_INT64(settled);
}

/* discard_sync_dead_letters(name) */
Datum
bdd_discard_sync_letters(PG_FUNCTION_ARGS)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.sync_letter_row WHERE sync_id = $1", 1, {INT4OID}};
	BddSync sync;
	Datum values[1];
	int64 count;

	begin_call(fcinfo, "discard_sync_dead_letters()", &sync);
	values[0] = Int32GetDatum(sync.id);
	count = (int64) bdd_plan_run_own(&delete, values, NULL);
	bdd_spi_finish();
	PG_RETURN_INT64(count);
}
