/*-------------------------------------------------------------------------
 *
 * sync_refusal.c
 *		Dead letters of a sync: what is known of a row that its target refuses.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_refusal.h"

#include "catalog/pg_type_d.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "sql/statement.h"
#include "sync/sync_relation.h"
#include "sync/sync_sql.h"
#include "utils/builtins.h"

typedef struct BddDescription
{
	const BddSync *sync;
	BddSyncRows rows;
	BddSyncDescribe what;
	char *first; /* in the caller's memory; NULL: unknown */
	char *second;
	MemoryContext context;
} BddDescription;

/*
 * Describes the one row as the sync's owner, into memory of
 * description->context.  This may fail by what is in the row; see describe.
 */
static void
describe_row(void *arg)
{
	BddDescription *description = arg;
	const BddSync *sync = description->sync;
	EphemeralNamedRelation relation;
	BddSavedRole saved;

	bdd_spi_connect();
	bdd_sync_become(sync, &saved);
	bdd_exact_output();
	relation = bdd_slice_relation(BDD_SLICE_NAME, &description->rows);
	if (bdd_run_on_relation(
			sync->target,
			bdd_sync_sql_describe(sync, description->what, bdd_slice_shape(description->rows.desc)),
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
describe(const BddSync *sync, const BddSyncRows *rows, uint64 number, bool removals,
		 char **document, char **position, char **key)
{
	BddDescription description = {
		.sync = sync,
		.rows = {rows->desc, rows->tuples + number, 1},
		.what = BDD_DESCRIBE_ROW,
		.context = CurrentMemoryContext,
	};
	int columns = list_length(sync->columns);

	if (removals)
	{
		*document = *position = *key =
			SPI_getvalue(rows->tuples[number], rows->desc, columns + BDD_CHANGE_KEY);
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

/*
 * Writes a dead letter of a row that is refused.  "removals": the rows are those
 * that the source has no more, as bdd_slice_missing returns them.
 */
void
bdd_sync_store_letter(const BddSync *sync, int64 run_id, const BddSyncRows *rows,
					  const BddRefusal *refusal, bool removals)
{
	Oid types[] = {INT4OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT8OID};
	char nulls[] = "         ";
	char *document;
	char *position;
	char *key;
	Datum values[lengthof(types)];
	BddSavedRole saved;

	describe(sync, rows, refusal->number, removals, &document, &position, &key);
	values[0] = Int32GetDatum(sync->id);
	values[1] = CStringGetTextDatum(position);
	values[2] = bdd_text_or_null(key, &nulls[2]);
	values[3] = CStringGetTextDatum(document);
	bdd_error_values(refusal->error, &values[4], &nulls[4]);
	values[8] = Int64GetDatum(run_id);
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

/* Whether rows of the sync were refused before. */
bool
bdd_sync_has_letters(const BddSync *sync)
{
	static BddKeptPlan select = {
		"SELECT FROM batchdedup.sync_letter_row WHERE sync_id = $1 LIMIT 1", 1, {INT4OID}};
	Datum values[] = {Int32GetDatum(sync->id)};
	bool found;

	found = bdd_plan_run_own(&select, values, NULL) > 0;
	return found;
}
