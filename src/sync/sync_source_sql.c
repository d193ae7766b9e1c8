/*-------------------------------------------------------------------------
 *
 * sync_source_sql.c
 *		Statements that read the source of a sync, or the keys that its trigger keeps.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_source_sql.h"

#include "base/list.h"
#include "nodes/pg_list.h"
#include "sync/sync_check.h"
#include "sync/sync_sql_part.h"
#include "target/target_check.h"
#include "utils/builtins.h"

/* ---------- the source ---------- */

/* " FROM source src WHERE filter" */
static void
append_source(StringInfo text, const BddSync *sync)
{
	appendStringInfo(text, " FROM %s src WHERE ", bdd_qualified_name(sync->source));
	if (sync->filter != NULL)
		appendStringInfo(text, "(%s\n)", sync->filter);
	else
		appendStringInfoString(text, "true");
}

/* The same, without rows that say of themselves that they are gone. */
static void
append_living_source(StringInfo text, const BddSync *sync)
{
	append_source(text, sync);
	if (sync->tombstone != NULL)
		appendStringInfo(text, " AND (%s\n) IS NOT TRUE", sync->tombstone);
}

/* " AND (c1, c2) > ($1, $2)", of the first "count" columns. */
static void
append_after(StringInfo text, const List *columns, int count)
{
	if (count == 0)
		return;
	appendStringInfoString(text, " AND ROW(");
	bdd_sync_sql_append_row(text, columns, count, false);
	appendStringInfoString(text, ") OPERATOR(pg_catalog.>) ROW(");
	bdd_sync_sql_append_row(text, columns, count, true);
	appendStringInfoChar(text, ')');
}

/* " AND src.c1 IS NOT NULL AND src.c2 IS NOT NULL" */
static void
append_not_null(StringInfo text, const List *columns)
{
	ListCell *cell;

	foreach(cell, columns)
		appendStringInfo(text, " AND src.%s IS NOT NULL", quote_identifier(lfirst(cell)));
}

/* " AND src.c1 <= $n": the bound is that of the position's first column. */
static void
append_bound(StringInfo text, const BddSync *sync, int parameter)
{
	appendStringInfo(text, " AND src.%s OPERATOR(pg_catalog.<=) $%d",
					 quote_identifier(linitial(sync->position)), parameter);
}

/* " ORDER BY ... FETCH FIRST $n ROWS WITH TIES"; without columns there is no limit. */
static void
append_order(StringInfo text, const List *columns, int limit)
{
	if (columns != NIL)
	{
		appendStringInfoString(text, " ORDER BY ");
		bdd_sync_sql_append_row(text, columns, list_length(columns), false);
		appendStringInfo(text, " FETCH FIRST $%d ROWS WITH TIES", limit);
	}
}

/*
 * The next rows of the source.  Parameters: as many values of the watermark as
 * are said, the bound, how many.  Rows of equal position stay together.
 */
char *
bdd_sync_sql_read(const BddSync *sync, int watermark, bool bounded)
{
	StringInfoData text;
	int next = watermark + 1;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT src.*");
	append_source(&text, sync);
	append_not_null(&text, bdd_sync_nullable(sync));
	append_after(&text, sync->position, watermark);
	if (bounded)
		append_bound(&text, sync, next++);
	append_order(&text, sync->position, next);
	return text.data;
}

/* Names of the one list that are, or are not, in the other. */
static List *
names_in(const List *names, List *others, bool wanted)
{
	List *found = NIL;
	ListCell *cell;

	foreach(cell, names)
		if (bdd_is_named(others, lfirst(cell)) == wanted)
			found = lappend(found, lfirst(cell));
	return found;
}

/* " AND (c1 IS NULL OR ...)"; false: there are no columns. */
static bool
append_some_null(StringInfo text, const List *columns)
{
	ListCell *cell;

	foreach(cell, columns)
		appendStringInfo(text, "%ssrc.%s IS NULL", foreach_current_index(cell) > 0 ? " OR " : " AND (",
						 quote_identifier(lfirst(cell)));
	if (columns != NIL)
		appendStringInfoChar(text, ')');
	return columns != NIL;
}

/*
 * Rows whose cursor has a NULL, which no watermark can pass, in the order of
 * the key.  Parameters: the key of the last one, if it is not the first time,
 * and how many.  NULL: the cursor cannot have one.
 */
char *
bdd_sync_sql_read_nulls(const BddSync *sync, bool first)
{
	List *nullable = bdd_sync_nullable(sync);
	List *key = bdd_sync_source_key(sync);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT src.*");
	append_source(&text, sync);
	if (!append_some_null(&text, names_in(nullable, key, false)))
		return NULL;
	append_not_null(&text, names_in(key, nullable, true));
	append_after(&text, key, first ? 0 : list_length(key));
	append_order(&text, key, first ? 1 : list_length(key) + 1);
	return text.data;
}

/* Rows whose key has a NULL: they have no order.  NULL: the key cannot have one. */
char *
bdd_sync_sql_read_null_keys(const BddSync *sync)
{
	List *key = bdd_sync_source_key(sync);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT src.*");
	append_source(&text, sync);
	if (!append_some_null(&text, names_in(key, bdd_sync_nullable(sync), true)))
		return NULL;
	return text.data;
}

/* Rows at one position; texts: its values, of which some may be NULL. */
char *
bdd_sync_sql_read_at(const BddSync *sync, const List *texts)
{
	StringInfoData text;
	int parameter = 1;
	ListCell *column;
	ListCell *value;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT src.*");
	append_source(&text, sync);
	forboth(column, sync->position, value, texts)
	{
		appendStringInfo(&text, " AND src.%s", quote_identifier(lfirst(column)));
		if (lfirst(value) == NULL)
			appendStringInfoString(&text, " IS NULL");
		else
			appendStringInfo(&text, " OPERATOR(pg_catalog.=) $%d", parameter++);
	}
	return text.data;
}

/* What comes after the watermark, without values, up to the bound. */
char *
bdd_sync_sql_left(const BddSync *sync, int watermark, bool bounded)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT");
	append_source(&text, sync);
	append_after(&text, sync->position, watermark);
	if (bounded)
		append_bound(&text, sync, watermark + 1);
	return text.data;
}

/* The highest value of the cursor's first column. */
char *
bdd_sync_sql_last(const BddSync *sync)
{
	const char *column = quote_identifier(linitial(sync->position));
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "SELECT src.%s", column);
	append_source(&text, sync);
	appendStringInfo(&text, " AND src.%s IS NOT NULL ORDER BY src.%s DESC LIMIT 1", column, column);
	return text.data;
}

/*
 * The changes for rows of the target whose key the source does not have (any
 * more).  Parameters: how many at most, and how many of the first ones are to
 * stay; or the one key that is meant, as a jsonb.
 */
char *
bdd_sync_sql_missing(const BddSync *sync, bool one_key)
{
	BddSyncSql sql;

	bdd_sync_sql_begin(&sql, sync, 0);
	bdd_sync_sql_append_removal(&sql);
	appendStringInfo(&sql.text, " FROM %s%s t WHERE NOT ", bdd_sync_sql_only(&sql), bdd_sync_sql_target_name(&sql));
	bdd_sync_sql_append_is_deleted(&sql, "t");
	appendStringInfoString(&sql.text, " AND NOT EXISTS (SELECT FROM (SELECT ");
	bdd_sync_sql_append_mapped_key(&sql);
	append_living_source(&sql.text, sync);
	appendStringInfoString(&sql.text, ") n WHERE ");
	bdd_sync_sql_append_same_key(&sql, "n");
	appendStringInfoChar(&sql.text, ')');
	if (one_key)
	{
		appendStringInfoString(&sql.text, " AND ");
		bdd_sync_sql_append_key_document(&sql, "t");
		appendStringInfoString(&sql.text, " OPERATOR(pg_catalog.=) $1");
		return bdd_sync_sql_end(&sql);
	}
	appendStringInfoString(&sql.text, " ORDER BY ");
	bdd_sync_sql_append_key(&sql, "t.");
	appendStringInfoString(&sql.text, " LIMIT $1 OFFSET $2");
	return bdd_sync_sql_end(&sql);
}

/* ---------- captured keys ---------- */

/* "src.k1 = c.k1 AND ..." */
static void
append_captured_key(StringInfo text, const List *key, const char *alias)
{
	ListCell *cell;

	foreach(cell, key)
		appendStringInfo(text, "%s%s.%s OPERATOR(pg_catalog.=) c.%s", foreach_current_index(cell) > 0 ? " AND " : "",
						 alias, quote_identifier(lfirst(cell)), quote_identifier(lfirst(cell)));
}

/* Keys behind the given ones.  Parameters: these, and how many. */
char *
bdd_sync_sql_captured(const BddSync *sync, bool after)
{
	List *key = bdd_sync_source_key(sync);
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT ");
	bdd_sync_sql_append_row(&text, key, list_length(key), false);
	appendStringInfo(&text, ", src.\"batchdedup transaction\" FROM %s src WHERE true", bdd_qualified_name(sync->captured));
	append_after(&text, key, after ? list_length(key) : 0);
	append_order(&text, key, after ? list_length(key) + 1 : 1);
	return text.data;
}

/*
 * Rows of the source that have one of the captured keys.  The sync's id is in
 * the text because plans are kept by it.
 */
char *
bdd_sync_sql_captured_rows(const BddSync *sync)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "/* %d */ SELECT src.* FROM " BDD_CAPTURED_NAME " c CROSS JOIN LATERAL (SELECT src.*", sync->id);
	append_source(&text, sync);
	appendStringInfoString(&text, " AND ");
	append_captured_key(&text, bdd_sync_source_key(sync), "src");
	appendStringInfoString(&text, ") src");
	return text.data;
}

/* The changes for captured keys that the source does not have. */
char *
bdd_sync_sql_captured_gone(const BddSync *sync)
{
	List *columns = bdd_sync_source_key(sync);
	BddSyncSql sql;
	ListCell *column;
	ListCell *name;
	const char *comma = "";

	bdd_sync_sql_begin(&sql, sync, (uint32) sync->id);
	bdd_sync_sql_append_removal(&sql);
	appendStringInfo(&sql.text, " FROM " BDD_CAPTURED_NAME " c CROSS JOIN LATERAL (SELECT ");
	forboth(name, sync->key, column, columns)
	{
		appendStringInfoString(&sql.text, comma);
		bdd_sync_sql_append_value(&sql.text, bdd_sync_sql_attribute_of(&sql, lfirst(name)), psprintf("c.%s", quote_identifier(lfirst(column))));
		appendStringInfo(&sql.text, " AS %s", quote_identifier(lfirst(name)));
		comma = ", ";
	}
	appendStringInfo(&sql.text, ") n JOIN %s%s t ON ", bdd_sync_sql_only(&sql), bdd_sync_sql_target_name(&sql));
	bdd_sync_sql_append_same_key(&sql, "n");
	appendStringInfoString(&sql.text, " WHERE NOT ");
	bdd_sync_sql_append_is_deleted(&sql, "t");
	appendStringInfoString(&sql.text, " AND NOT EXISTS (SELECT");
	append_living_source(&sql.text, sync);
	appendStringInfoString(&sql.text, " AND ");
	append_captured_key(&sql.text, columns, "src");
	appendStringInfoChar(&sql.text, ')');
	return bdd_sync_sql_end(&sql);
}

/* Deletes the captured keys that a slice has read. */
char *
bdd_sync_sql_captured_forget(const BddSync *sync)
{
	StringInfoData text;

	initStringInfo(&text);
	appendStringInfo(&text, "DELETE FROM %s t USING " BDD_CAPTURED_NAME " c WHERE ", bdd_qualified_name(sync->captured));
	append_captured_key(&text, bdd_sync_source_key(sync), "t");
	/* A trigger of the target may have written the row once more just now. */
	appendStringInfoString(&text, " AND t.\"batchdedup transaction\" OPERATOR(pg_catalog.=) c.\"batchdedup transaction\"");
	return text.data;
}
