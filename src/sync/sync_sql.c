/*-------------------------------------------------------------------------
 *
 * sync_sql.c
 *		Statements that find and write the changes of a sync.
 *
 * All run under a search_path of pg_catalog, and those with "mapping" and "filter"
 * as the sync's owner, so what is written there means the same in every run.
 * Aliases: src a row of the source, n what the mapping makes of it, t the row
 * of the target, d a change.
 *
 * A change has the target's columns that the sync writes, and beside them, with
 * names that no column has:
 *	removed, present (in the target), operation, key, old_version, new_version,
 *	changed (columns), old_values, new_values
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_sql.h"

#include "nodes/pg_list.h"
#include "sql/text.h"
#include "sync/sync_sql_part.h"
#include "target/target_check.h"
#include "utils/builtins.h"

/* ---------- changes ---------- */

/* What a change has beside the columns; see the head of the file. */
static void
append_description(BddSyncSql *sql)
{
	const char *exclude = bdd_sync_sql_unhashed(sql);
	const char *comma = "";
	ListCell *cell;

	appendStringInfoString(&sql->text, ", n.\"batchdedup removed\", p.present AS \"batchdedup present\", "
									   "CASE WHEN n.\"batchdedup removed\" THEN 'delete' WHEN p.present AND NOT p.deleted "
									   "THEN 'update' ELSE 'insert' END AS \"batchdedup operation\", ");
	bdd_sync_sql_append_key_document(sql, "n");
	appendStringInfo(&sql->text, " AS \"batchdedup key\", CASE WHEN p.present AND NOT p.deleted THEN "
								 "batchdedup.data_version((t.*)::%s, %s) END AS \"batchdedup old_version\", "
								 "CASE WHEN NOT n.\"batchdedup removed\" THEN batchdedup.data_version(",
					 bdd_sync_sql_target_name(sql), exclude);
	bdd_sync_sql_append_new_row(sql);
	appendStringInfo(&sql->text, ", %s) END AS \"batchdedup new_version\", ", exclude);

	appendStringInfoString(&sql->text, "CASE WHEN p.present AND NOT p.deleted AND NOT n.\"batchdedup removed\" "
									   "THEN pg_catalog.array_remove(ARRAY[");
	foreach(cell, sql->sync->columns)
		if (bdd_sync_sql_is_hashed(sql->sync, lfirst(cell)) &&
			!bdd_is_named(sql->sync->key, lfirst(cell)))
		{
			appendStringInfo(&sql->text, "%sCASE WHEN NOT (", comma);
			bdd_sync_sql_append_same_value(sql, lfirst(cell));
			appendStringInfo(&sql->text, ") THEN %s END", quote_literal_cstr(lfirst(cell)));
			comma = ", ";
		}
	appendStringInfoString(&sql->text, "]::pg_catalog.text[], NULL) END AS \"batchdedup changed\", ");

	if (!sql->sync->log_values)
	{
		appendStringInfoString(&sql->text, "NULL::pg_catalog.jsonb AS \"batchdedup old_values\", "
										   "NULL::pg_catalog.jsonb AS \"batchdedup new_values\"");
		return;
	}
	appendStringInfo(&sql->text, "CASE WHEN p.present AND NOT p.deleted THEN pg_catalog.to_jsonb((t.*)::%s) "
								 "OPERATOR(pg_catalog.-) %s END AS \"batchdedup old_values\", "
								 "CASE WHEN NOT n.\"batchdedup removed\" THEN pg_catalog.to_jsonb(",
					 bdd_sync_sql_target_name(sql), exclude);
	bdd_sync_sql_append_new_row(sql);
	appendStringInfo(&sql->text, ") OPERATOR(pg_catalog.-) %s END AS \"batchdedup new_values\"", exclude);
}

/* What the mapping makes of the slice; of each key the row that is read last. */
static void
append_mapped(BddSyncSql *sql)
{
	const char *tombstone = sql->sync->tombstone;
	ListCell *column;
	ListCell *expression;

	appendStringInfoString(&sql->text, "SELECT DISTINCT ON (");
	bdd_sync_sql_append_key(sql, "m.");
	appendStringInfoString(&sql->text, ") m.* FROM (SELECT ");
	forboth(column, sql->sync->columns, expression, sql->sync->expressions)
	{
		bdd_sync_sql_append_value(&sql->text, bdd_sync_sql_attribute_of(sql, lfirst(column)),
								  lfirst(expression));
		appendStringInfo(&sql->text, " AS %s, ", quote_identifier(lfirst(column)));
	}
	for (int i = 0; i < list_length(sql->sync->position); i++)
		appendStringInfo(&sql->text, "src.%s AS \"batchdedup position %d\", ",
						 quote_identifier(list_nth(sql->sync->position, i)), i);
	appendStringInfo(&sql->text, "(%s\n) AS \"batchdedup removed\" FROM " BDD_SLICE_NAME " src) m ORDER BY ",
					 tombstone != NULL ? tombstone : "false");
	bdd_sync_sql_append_key(sql, "m.");
	for (int i = 0; i < list_length(sql->sync->position); i++)
		appendStringInfo(&sql->text, ", m.\"batchdedup position %d\" DESC NULLS LAST", i);
}

/*
 * The row of the target for each n.  Where writes go through the buffer the
 * table alone does not tell.
 */
static void
append_join(BddSyncSql *sql)
{
	if (!sql->sync->buffered)
	{
		appendStringInfo(&sql->text, " LEFT JOIN %s%s t ON ", bdd_sync_sql_only(sql), bdd_sync_sql_target_name(sql));
		bdd_sync_sql_append_same_key(sql, "n");
		return;
	}
	appendStringInfo(&sql->text, " CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::%s, batchdedup.get(%s, ",
					 bdd_sync_sql_target_name(sql),
					 quote_literal_cstr(bdd_sync_sql_target_name(sql)));
	bdd_sync_sql_append_key_document(sql, "n");
	appendStringInfoString(&sql->text, ")) t");
}

/* The changes that the rows of a slice make to the target. */
char *
bdd_sync_sql_changes(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;
	const char *key = quote_identifier(linitial(sync->key));

	bdd_sync_sql_begin(&sql, sync, shape);
	appendStringInfoString(&sql.text, "SELECT d.* FROM (SELECT ");
	bdd_sync_sql_append_columns(&sql, "n.");
	append_description(&sql);
	appendStringInfoString(&sql.text, " FROM (");
	append_mapped(&sql);
	appendStringInfoString(&sql.text, ") n");
	append_join(&sql);
	appendStringInfo(&sql.text, " CROSS JOIN LATERAL (SELECT t.%s IS NOT NULL AS present, ", key);
	bdd_sync_sql_append_is_deleted(&sql, "t");
	appendStringInfoString(&sql.text, " AS deleted) p WHERE CASE WHEN n.\"batchdedup removed\" "
									  "THEN p.present AND NOT p.deleted ELSE p.deleted OR NOT p.present OR NOT ");
	bdd_sync_sql_append_same_row(&sql);
	appendStringInfoString(&sql.text, " END OFFSET 0) d WHERE d.\"batchdedup old_version\" "
									  "IS DISTINCT FROM d.\"batchdedup new_version\"");
	return bdd_sync_sql_end(&sql);
}

/* ---------- writing ---------- */

/* Columns and values for a row that is written; "from": d or EXCLUDED. */
static void
append_set(BddSyncSql *sql, const char *from, const char *version)
{
	const char *comma = "";
	ListCell *cell;

	foreach(cell, sql->sync->columns)
	{
		const char *name = quote_identifier(lfirst(cell));

		if (bdd_is_named(sql->sync->key, lfirst(cell)))
			continue;
		appendStringInfo(&sql->text, "%s%s = %s.%s", comma, name, from, name);
		comma = ", ";
	}
	if (sql->sync->version_column != NULL)
	{
		appendStringInfo(&sql->text, "%s%s = %s", comma, quote_identifier(sql->sync->version_column), version);
		comma = ", ";
	}
	if (sql->sync->deleted_column != NULL)
	{
		appendStringInfoString(&sql->text, comma);
		bdd_sync_sql_append_set_deleted(sql, false);
		comma = ", ";
	}
}

/* Writes the changes of rows that the target has; those marked as deleted come back. */
char *
bdd_sync_sql_update(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	bdd_sync_sql_begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "UPDATE %s%s t SET ", bdd_sync_sql_only(&sql), bdd_sync_sql_target_name(&sql));
	append_set(&sql, "d", "d.\"batchdedup new_version\"");
	appendStringInfoString(&sql.text, " FROM " BDD_CHANGES_NAME " d WHERE d.\"batchdedup present\" "
									  "AND NOT d.\"batchdedup removed\" AND ");
	bdd_sync_sql_append_same_key(&sql, "d");
	return bdd_sync_sql_end(&sql);
}

/* Whether the sync writes a column that is GENERATED ALWAYS AS IDENTITY. */
static bool
has_identity_always(BddSyncSql *sql)
{
	ListCell *cell;

	foreach(cell, sql->sync->columns)
		if (bdd_sync_sql_attribute_of(sql, lfirst(cell))->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			return true;
	return false;
}

/*
 * With a clause for rows that others insert meanwhile: our snapshot does not
 * see them, so the server says so, and the slice is done once more.
 */
char *
bdd_sync_sql_insert(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;
	const char *version =
		sync->version_column != NULL ? quote_identifier(sync->version_column) : NULL;

	bdd_sync_sql_begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "INSERT INTO %s AS t (", bdd_sync_sql_target_name(&sql));
	bdd_sync_sql_append_columns(&sql, "");
	if (version != NULL)
		appendStringInfo(&sql.text, ", %s", version);
	appendStringInfo(&sql.text, ")%s SELECT ", has_identity_always(&sql) ? " OVERRIDING SYSTEM VALUE" : "");
	bdd_sync_sql_append_columns(&sql, "d.");
	if (version != NULL)
		appendStringInfoString(&sql.text, ", d.\"batchdedup new_version\"");
	appendStringInfoString(&sql.text, " FROM " BDD_CHANGES_NAME " d WHERE NOT d.\"batchdedup present\" "
									  "AND NOT d.\"batchdedup removed\" ON CONFLICT (");
	bdd_append_conflict_key(&sql.text, sql.desc, &sql.key);
	if (list_length(sync->columns) == list_length(sync->key) && version == NULL &&
		sync->deleted_column == NULL)
	{
		appendStringInfoString(&sql.text, ") DO NOTHING");
		return bdd_sync_sql_end(&sql);
	}
	appendStringInfoString(&sql.text, ") DO UPDATE SET ");
	append_set(&sql, "EXCLUDED", version != NULL ? psprintf("EXCLUDED.%s", version) : "");
	return bdd_sync_sql_end(&sql);
}

/* Deletes the removed rows, or marks them where there is a column for it. */
char *
bdd_sync_sql_delete(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	bdd_sync_sql_begin(&sql, sync, shape);
	if (sync->deleted_column != NULL)
	{
		appendStringInfo(&sql.text, "UPDATE %s%s t SET ", bdd_sync_sql_only(&sql), bdd_sync_sql_target_name(&sql));
		bdd_sync_sql_append_set_deleted(&sql, true);
		appendStringInfoString(&sql.text, " FROM ");
	}
	else
		appendStringInfo(&sql.text, "DELETE FROM %s%s t USING ", bdd_sync_sql_only(&sql), bdd_sync_sql_target_name(&sql));
	appendStringInfoString(&sql.text, BDD_CHANGES_NAME " d WHERE d.\"batchdedup removed\" AND ");
	bdd_sync_sql_append_same_key(&sql, "d");
	return bdd_sync_sql_end(&sql);
}

/* ---------- writing through the buffer ---------- */

/*
 * Upserts the changes through the buffer; with a column that marks deleted
 * rows, removals too.
 */
char *
bdd_sync_sql_upsert_buffered(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	bdd_sync_sql_begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "SELECT batchdedup.upsert_record(%s, (SELECT (r.*)::pg_catalog.record FROM (SELECT ",
					 quote_literal_cstr(bdd_sync_sql_target_name(&sql)));
	bdd_sync_sql_append_columns(&sql, "d.");
	if (sync->version_column != NULL)
		appendStringInfo(&sql.text, ", d.\"batchdedup new_version\" AS %s", quote_identifier(sync->version_column));
	if (sync->deleted_column != NULL)
		appendStringInfo(&sql.text, bdd_sync_sql_deleted_is_flag(&sql) ? ", d.\"batchdedup removed\" AS %s" : ", CASE WHEN d.\"batchdedup removed\" THEN pg_catalog.now() END AS %s",
						 quote_identifier(sync->deleted_column));
	appendStringInfoString(&sql.text, ") r)) FROM " BDD_CHANGES_NAME " d");
	if (sync->deleted_column == NULL)
		appendStringInfoString(&sql.text, " WHERE NOT d.\"batchdedup removed\"");
	return bdd_sync_sql_end(&sql);
}

/* Deletes the removed rows through the buffer, where no column marks them. */
char *
bdd_sync_sql_delete_buffered(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	bdd_sync_sql_begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "SELECT batchdedup.delete(%s, d.\"batchdedup key\") FROM " BDD_CHANGES_NAME " d WHERE d.\"batchdedup removed\"",
					 quote_literal_cstr(bdd_sync_sql_target_name(&sql)));
	return bdd_sync_sql_end(&sql);
}

/*
 * One row of a slice, for a dead letter: as a document, with its position; or
 * its key in the target.
 */
char *
bdd_sync_sql_describe(const BddSync *sync, BddSyncDescribe what, uint32 shape)
{
	BddSyncSql sql;
	ListCell *cell;

	bdd_sync_sql_begin(&sql, sync, shape);
	if (what == BDD_DESCRIBE_KEY)
	{
		/* Rows without a key have none in common. */
		appendStringInfoString(&sql.text, "SELECT CASE WHEN true");
		foreach(cell, sync->key)
			appendStringInfo(&sql.text, " AND n.%s IS NOT NULL", quote_identifier(lfirst(cell)));
		appendStringInfoString(&sql.text, " THEN ");
		bdd_sync_sql_append_key_document(&sql, "n");
		appendStringInfoString(&sql.text, " END FROM (SELECT ");
		bdd_sync_sql_append_mapped_key(&sql);
		appendStringInfoString(&sql.text, " FROM " BDD_SLICE_NAME " src) n");
		return bdd_sync_sql_end(&sql);
	}
	appendStringInfo(&sql.text, "SELECT %s, pg_catalog.jsonb_build_array(",
					 what == BDD_DESCRIBE_ROW ? "pg_catalog.to_jsonb(src.*)" :
												"pg_catalog.jsonb_build_object('text', (src.*)::pg_catalog.text)");
	bdd_sync_sql_append_row(&sql.text, sync->position, list_length(sync->position), false);
	appendStringInfoString(&sql.text, ")::pg_catalog.text FROM " BDD_SLICE_NAME " src");
	return bdd_sync_sql_end(&sql);
}
