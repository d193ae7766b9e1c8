/*-------------------------------------------------------------------------
 *
 * sync_sql.c
 *		The statements of a sync.
 *
 * They run as the sync's owner under a search_path of pg_catalog, so what the
 * owner has written into "mapping" and "filter" means the same in every run.
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
#include "base/base.h"

#include "access/table.h"
#include "base/list.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "catalog/pg_type_d.h"
#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "row/key.h"
#include "sql/text.h"
#include "sync/sync.h"
#include "sync/sync_check.h"
#include "target/target_check.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

/* A statement that is being put together, and its target. */
typedef struct BddSyncSql
{
	const BddSync *sync;
	Relation rel;
	TupleDesc desc;
	BddKey key;
	StringInfoData text;
} BddSyncSql;

/* ---------- the target ---------- */

static void
begin(BddSyncSql *sql, const BddSync *sync, uint32 shape)
{
	AttrNumber attnums[INDEX_MAX_KEYS];
	int count = 0;
	ListCell *cell;
	Oid index;

	memset(sql, 0, sizeof(*sql));
	sql->sync = sync;
	sql->rel = table_open(sync->target, AccessShareLock);
	sql->desc = RelationGetDescr(sql->rel);
	bdd_check_columns(sql->rel, "mapping", sync->columns);
	index = bdd_check_key(sql->rel, sync->key, true);
	foreach(cell, sync->key)
		attnums[count++] = bdd_column_number(sql->desc, lfirst(cell));
	bdd_key_describe(sql->rel, index, attnums, count, &sql->key);
	initStringInfo(&sql->text);
	/* A plan is kept by its text, and does not notice other rows. */
	appendStringInfo(&sql->text, "/* %d %08x */ ", sync->id, shape);
}

static char *
end(BddSyncSql *sql)
{
	table_close(sql->rel, NoLock);
	return sql->text.data;
}

static Form_pg_attribute
attribute_of(BddSyncSql *sql, const char *name)
{
	return TupleDescAttr(sql->desc, bdd_column_number(sql->desc, name) - 1);
}

static const char *
only(BddSyncSql *sql)
{
	return sql->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";
}

static char *
target_name(BddSyncSql *sql)
{
	return bdd_qualified_name(sql->sync->target);
}

/* Columns whose values make the data version. */
static bool
is_hashed(const BddSync *sync, const char *name)
{
	return bdd_is_named(sync->columns, name) &&
		   !bdd_is_named(sync->hash_exclude, name);
}

/* The others, as an array. */
static char *
unhashed(BddSyncSql *sql)
{
	StringInfoData array;

	initStringInfo(&array);
	appendStringInfoString(&array, "ARRAY[");
	for (int i = 0; i < sql->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(sql->desc, i);
		const char *name = NameStr(attribute->attname);

		if (!attribute->attisdropped && !is_hashed(sql->sync, name))
			appendStringInfo(&array, "%s%s", array.data[array.len - 1] == '[' ? "" : ", ",
							 quote_literal_cstr(name));
	}
	appendStringInfoString(&array, "]::pg_catalog.text[]");
	return array.data;
}

/* ---------- values ---------- */

/*
 * A type as it is written in a cast.  Without its length where a cast would cut
 * off what is too long, which an assignment refuses.
 */
static char *
type_name(Oid type, int32 typmod, bool with_length)
{
	return format_type_extended(type, with_length ? typmod : -1,
								FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY);
}

static bool
is_cut_by_casts(Oid type)
{
	Oid element = get_element_type(type);

	if (OidIsValid(element))
		type = getBaseType(element);
	return type == VARCHAROID || type == BPCHAROID || type == BITOID ||
		   type == VARBITOID;
}

/* What checks the length of such a type, and says so when it is told. */
static const char *
length_function(Oid type)
{
	switch (type)
	{
		case VARCHAROID:
			return "\"varchar\"";
		case BPCHAROID:
			return "bpchar";
		case BITOID:
			return "\"bit\"";
		default:
			return "varbit";
	}
}

/*
 * The expression as a value of the column's type, as an assignment makes it.  Of
 * a domain it is a value of its base type: checks are the target's owner's
 * code, and wait for the write.
 */
static void
append_value(StringInfo sql, Form_pg_attribute attribute, const char *expression)
{
	int32 typmod = attribute->atttypmod;
	Oid base = getBaseTypeAndTypmod(attribute->atttypid, &typmod);
	bool cut = is_cut_by_casts(base);
	bool limited = cut && typmod >= 0 && !OidIsValid(get_element_type(base));

	if (limited)
		appendStringInfo(sql, "pg_catalog.%s(", length_function(base));
	appendStringInfo(sql, "CAST((%s\n) AS %s)", expression, type_name(base, typmod, !cut));
	if (limited)
		appendStringInfo(sql, ", %d, false)", typmod);
}

static void
append_same_key(BddSyncSql *sql, const char *other)
{
	bdd_append_same_key(&sql->text, sql->desc, &sql->key, "t", other);
}

/* "prefix.k1, prefix.k2", in the order of the key's index. */
static void
append_key(BddSyncSql *sql, const char *prefix)
{
	for (int i = 0; i < sql->key.count; i++)
	{
		BddKeyColumn *column = &sql->key.columns[i];

		appendStringInfo(
			&sql->text, "%s%s%s", i > 0 ? ", " : "", prefix,
			quote_identifier(NameStr(TupleDescAttr(sql->desc, column->attnum - 1)->attname)));
		bdd_append_collation(&sql->text, column->collation);
	}
}

static void
append_key_document(BddSyncSql *sql, const char *alias)
{
	const char *comma = "";
	ListCell *cell;

	appendStringInfoString(&sql->text, "pg_catalog.jsonb_build_object(");
	foreach(cell, sql->sync->key)
	{
		appendStringInfo(&sql->text, "%s%s, %s.%s", comma, quote_literal_cstr(lfirst(cell)),
						 alias, quote_identifier(lfirst(cell)));
		comma = ", ";
	}
	appendStringInfoChar(&sql->text, ')');
}

static void
append_columns(BddSyncSql *sql, const char *prefix)
{
	const char *comma = "";
	ListCell *cell;

	foreach(cell, sql->sync->columns)
	{
		appendStringInfo(&sql->text, "%s%s%s", comma, prefix, quote_identifier(lfirst(cell)));
		comma = ", ";
	}
}

static bool
has_domains(BddSyncSql *sql)
{
	ListCell *cell;

	foreach(cell, sql->sync->columns)
	{
		Oid type = attribute_of(sql, lfirst(cell))->atttypid;

		if (getBaseType(type) != type)
			return true;
	}
	return false;
}

/*
 * n as a row of the target; columns that are not mapped are NULL.  Where that
 * would call the checks of a domain: as a record with the same names.
 */
static void
append_new_row(BddSyncSql *sql)
{
	const char *comma = "";

	if (has_domains(sql))
	{
		appendStringInfoString(&sql->text, "(SELECT (x.*)::pg_catalog.record FROM (SELECT ");
		append_columns(sql, "n.");
		appendStringInfoString(&sql->text, ") x)");
		return;
	}
	appendStringInfoString(&sql->text, "ROW(");
	for (int i = 0; i < sql->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(sql->desc, i);
		const char *name = NameStr(attribute->attname);

		if (attribute->attisdropped)
			continue;
		if (bdd_is_named(sql->sync->columns, name))
			appendStringInfo(&sql->text, "%sn.%s", comma, quote_identifier(name));
		else
			appendStringInfo(&sql->text, "%sNULL", comma);
		comma = ", ";
	}
	appendStringInfo(&sql->text, ")::%s", target_name(sql));
}

/* Whether a column is to the byte what it was. */
static void
append_same_value(BddSyncSql *sql, const char *name)
{
	const char *quoted = quote_identifier(name);

	if (bdd_equal_is_same(attribute_of(sql, name)))
		appendStringInfo(&sql->text, "t.%s IS NOT DISTINCT FROM n.%s", quoted, quoted);
	else
		appendStringInfo(
			&sql->text,
			"ROW(CAST(t.%s AS %s))::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(n.%s)::pg_catalog.record",
			quoted, type_name(getBaseType(attribute_of(sql, name)->atttypid), -1, false), quoted);
}

static void
append_same_row(BddSyncSql *sql)
{
	ListCell *cell;

	appendStringInfoString(&sql->text, "(true");
	/* What is quick to compare comes first. */
	for (int slow = 0; slow < 2; slow++)
		foreach(cell, sql->sync->columns)
			if (is_hashed(sql->sync, lfirst(cell)) &&
				!bdd_is_named(sql->sync->key, lfirst(cell)) &&
				bdd_equal_is_same(attribute_of(sql, lfirst(cell))) == (slow == 0))
			{
				appendStringInfoString(&sql->text, " AND ");
				append_same_value(sql, lfirst(cell));
			}
	appendStringInfoChar(&sql->text, ')');
}

/* ---------- rows that are marked as deleted ---------- */

static bool
deleted_is_flag(BddSyncSql *sql)
{
	return getBaseType(attribute_of(sql, sql->sync->deleted_column)->atttypid) == BOOLOID;
}

/* True of rows of the target that are deleted for all who read it. */
static void
append_is_deleted(BddSyncSql *sql, const char *alias)
{
	if (sql->sync->deleted_column == NULL)
		appendStringInfoString(&sql->text, "false");
	else
		appendStringInfo(&sql->text, deleted_is_flag(sql) ? "(%s.%s IS TRUE)" : "(%s.%s IS NOT NULL)",
						 alias, quote_identifier(sql->sync->deleted_column));
}

static void
append_set_deleted(BddSyncSql *sql, bool deleted)
{
	const char *value = deleted_is_flag(sql) ? (deleted ? "true" : "false") :
											   (deleted ? "pg_catalog.now()" : "NULL");

	appendStringInfo(&sql->text, "%s = %s", quote_identifier(sql->sync->deleted_column), value);
}

/* ---------- changes ---------- */

/* What a change has beside the columns; see the head of the file. */
static void
append_description(BddSyncSql *sql)
{
	const char *exclude = unhashed(sql);
	const char *comma = "";
	ListCell *cell;

	appendStringInfoString(&sql->text, ", n.\"batchdedup removed\", p.present AS \"batchdedup present\", "
									   "CASE WHEN n.\"batchdedup removed\" THEN 'delete' WHEN p.present AND NOT p.deleted "
									   "THEN 'update' ELSE 'insert' END AS \"batchdedup operation\", ");
	append_key_document(sql, "n");
	appendStringInfo(&sql->text, " AS \"batchdedup key\", CASE WHEN p.present AND NOT p.deleted THEN "
								 "batchdedup.data_version((t.*)::%s, %s) END AS \"batchdedup old_version\", "
								 "CASE WHEN NOT n.\"batchdedup removed\" THEN batchdedup.data_version(",
					 target_name(sql), exclude);
	append_new_row(sql);
	appendStringInfo(&sql->text, ", %s) END AS \"batchdedup new_version\", ", exclude);

	appendStringInfoString(&sql->text, "CASE WHEN p.present AND NOT p.deleted AND NOT n.\"batchdedup removed\" "
									   "THEN pg_catalog.array_remove(ARRAY[");
	foreach(cell, sql->sync->columns)
		if (is_hashed(sql->sync, lfirst(cell)) && !bdd_is_named(sql->sync->key, lfirst(cell)))
		{
			appendStringInfo(&sql->text, "%sCASE WHEN NOT (", comma);
			append_same_value(sql, lfirst(cell));
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
					 target_name(sql), exclude);
	append_new_row(sql);
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
	append_key(sql, "m.");
	appendStringInfoString(&sql->text, ") m.* FROM (SELECT ");
	forboth(column, sql->sync->columns, expression, sql->sync->expressions)
	{
		append_value(&sql->text, attribute_of(sql, lfirst(column)), lfirst(expression));
		appendStringInfo(&sql->text, " AS %s, ", quote_identifier(lfirst(column)));
	}
	for (int i = 0; i < list_length(sql->sync->position); i++)
		appendStringInfo(&sql->text, "src.%s AS \"batchdedup position %d\", ",
						 quote_identifier(list_nth(sql->sync->position, i)), i);
	appendStringInfo(&sql->text, "(%s\n) AS \"batchdedup removed\" FROM " BDD_SLICE_NAME " src) m ORDER BY ",
					 tombstone != NULL ? tombstone : "false");
	append_key(sql, "m.");
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
		appendStringInfo(&sql->text, " LEFT JOIN %s%s t ON ", only(sql), target_name(sql));
		append_same_key(sql, "n");
		return;
	}
	appendStringInfo(&sql->text, " CROSS JOIN LATERAL pg_catalog.jsonb_populate_record(NULL::%s, batchdedup.get(%s, ",
					 target_name(sql), quote_literal_cstr(target_name(sql)));
	append_key_document(sql, "n");
	appendStringInfoString(&sql->text, ")) t");
}

/* The changes that the rows of a slice make to the target. */
char *
bdd_sync_sql_changes(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;
	const char *key = quote_identifier(linitial(sync->key));

	begin(&sql, sync, shape);
	appendStringInfoString(&sql.text, "SELECT d.* FROM (SELECT ");
	append_columns(&sql, "n.");
	append_description(&sql);
	appendStringInfoString(&sql.text, " FROM (");
	append_mapped(&sql);
	appendStringInfoString(&sql.text, ") n");
	append_join(&sql);
	appendStringInfo(&sql.text, " CROSS JOIN LATERAL (SELECT t.%s IS NOT NULL AS present, ", key);
	append_is_deleted(&sql, "t");
	appendStringInfoString(&sql.text, " AS deleted) p WHERE CASE WHEN n.\"batchdedup removed\" "
									  "THEN p.present AND NOT p.deleted ELSE p.deleted OR NOT p.present OR NOT ");
	append_same_row(&sql);
	appendStringInfoString(&sql.text, " END OFFSET 0) d WHERE d.\"batchdedup old_version\" "
									  "IS DISTINCT FROM d.\"batchdedup new_version\"");
	return end(&sql);
}

/* The changes that mark or delete rows t. */
static void
append_removal(BddSyncSql *sql)
{
	const char *exclude = unhashed(sql);

	appendStringInfoString(&sql->text, "SELECT ");
	append_columns(sql, "t.");
	appendStringInfoString(&sql->text, ", true AS \"batchdedup removed\", true AS \"batchdedup present\", "
									   "'delete' AS \"batchdedup operation\", ");
	append_key_document(sql, "t");
	appendStringInfo(&sql->text, " AS \"batchdedup key\", batchdedup.data_version((t.*)::%s, %s) AS \"batchdedup old_version\", "
								 "NULL::pg_catalog.text AS \"batchdedup new_version\", "
								 "NULL::pg_catalog.text[] AS \"batchdedup changed\", ",
					 target_name(sql), exclude);
	if (sql->sync->log_values)
		appendStringInfo(&sql->text, "pg_catalog.to_jsonb((t.*)::%s) OPERATOR(pg_catalog.-) %s", target_name(sql), exclude);
	else
		appendStringInfoString(&sql->text, "NULL::pg_catalog.jsonb");
	appendStringInfoString(&sql->text, " AS \"batchdedup old_values\", NULL::pg_catalog.jsonb AS \"batchdedup new_values\"");
}

/* ---------- the source ---------- */

static char *
expression_of(const BddSync *sync, const char *column)
{
	ListCell *name;
	ListCell *expression;

	forboth(name, sync->columns, expression, sync->expressions)
		if (strcmp(lfirst(name), column) == 0)
			return lfirst(expression);
	elog(ERROR, "column \"%s\" has no expression", column);
}

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

/* Names of columns of the source with the place of their value: $1, $2 ... */
static void
append_row(StringInfo text, const List *columns, int count, bool parameters)
{
	for (int i = 0; i < count; i++)
		if (parameters)
			appendStringInfo(text, "%s$%d", i > 0 ? ", " : "", i + 1);
		else
			appendStringInfo(text, "%ssrc.%s", i > 0 ? ", " : "",
							 quote_identifier(list_nth(columns, i)));
}

/* " AND (c1, c2) > ($1, $2)", of the first "count" columns. */
static void
append_after(StringInfo text, const List *columns, int count)
{
	if (count == 0)
		return;
	appendStringInfoString(text, " AND ROW(");
	append_row(text, columns, count, false);
	appendStringInfoString(text, ") OPERATOR(pg_catalog.>) ROW(");
	append_row(text, columns, count, true);
	appendStringInfoChar(text, ')');
}

static void
append_not_null(StringInfo text, const List *columns)
{
	ListCell *cell;

	foreach(cell, columns)
		appendStringInfo(text, " AND src.%s IS NOT NULL", quote_identifier(lfirst(cell)));
}

static void
append_bound(StringInfo text, const BddSync *sync, int parameter)
{
	appendStringInfo(text, " AND src.%s OPERATOR(pg_catalog.<=) $%d",
					 quote_identifier(linitial(sync->position)), parameter);
}

static void
append_order(StringInfo text, const List *columns, int limit)
{
	if (columns != NIL)
	{
		appendStringInfoString(text, " ORDER BY ");
		append_row(text, columns, list_length(columns), false);
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

/* "expression AS k1, ..." */
static void
append_mapped_key(BddSyncSql *sql)
{
	ListCell *cell;

	foreach(cell, sql->sync->key)
	{
		append_value(&sql->text, attribute_of(sql, lfirst(cell)),
					 expression_of(sql->sync, lfirst(cell)));
		appendStringInfo(&sql->text, " AS %s%s", quote_identifier(lfirst(cell)),
						 lnext(sql->sync->key, cell) != NULL ? ", " : "");
	}
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

	begin(&sql, sync, 0);
	append_removal(&sql);
	appendStringInfo(&sql.text, " FROM %s%s t WHERE NOT ", only(&sql), target_name(&sql));
	append_is_deleted(&sql, "t");
	appendStringInfoString(&sql.text, " AND NOT EXISTS (SELECT FROM (SELECT ");
	append_mapped_key(&sql);
	append_living_source(&sql.text, sync);
	appendStringInfoString(&sql.text, ") n WHERE ");
	append_same_key(&sql, "n");
	appendStringInfoChar(&sql.text, ')');
	if (one_key)
	{
		appendStringInfoString(&sql.text, " AND ");
		append_key_document(&sql, "t");
		appendStringInfoString(&sql.text, " OPERATOR(pg_catalog.=) $1");
		return end(&sql);
	}
	appendStringInfoString(&sql.text, " ORDER BY ");
	append_key(&sql, "t.");
	appendStringInfoString(&sql.text, " LIMIT $1 OFFSET $2");
	return end(&sql);
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
	append_row(&text, key, list_length(key), false);
	appendStringInfo(&text, ", src.\"batchdedup transaction\" FROM %s src WHERE true", bdd_qualified_name(sync->captured));
	append_after(&text, key, after ? list_length(key) : 0);
	append_order(&text, key, after ? list_length(key) + 1 : 1);
	return text.data;
}

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

	begin(&sql, sync, (uint32) sync->id);
	append_removal(&sql);
	appendStringInfo(&sql.text, " FROM " BDD_CAPTURED_NAME " c CROSS JOIN LATERAL (SELECT ");
	forboth(name, sync->key, column, columns)
	{
		appendStringInfoString(&sql.text, comma);
		append_value(&sql.text, attribute_of(&sql, lfirst(name)), psprintf("c.%s", quote_identifier(lfirst(column))));
		appendStringInfo(&sql.text, " AS %s", quote_identifier(lfirst(name)));
		comma = ", ";
	}
	appendStringInfo(&sql.text, ") n JOIN %s%s t ON ", only(&sql), target_name(&sql));
	append_same_key(&sql, "n");
	appendStringInfoString(&sql.text, " WHERE NOT ");
	append_is_deleted(&sql, "t");
	appendStringInfoString(&sql.text, " AND NOT EXISTS (SELECT");
	append_living_source(&sql.text, sync);
	appendStringInfoString(&sql.text, " AND ");
	append_captured_key(&sql.text, columns, "src");
	appendStringInfoChar(&sql.text, ')');
	return end(&sql);
}

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
		append_set_deleted(sql, false);
		comma = ", ";
	}
}

char *
bdd_sync_sql_update(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "UPDATE %s%s t SET ", only(&sql), target_name(&sql));
	append_set(&sql, "d", "d.\"batchdedup new_version\"");
	appendStringInfoString(&sql.text, " FROM " BDD_CHANGES_NAME " d WHERE d.\"batchdedup present\" "
									  "AND NOT d.\"batchdedup removed\" AND ");
	append_same_key(&sql, "d");
	return end(&sql);
}

static bool
has_identity_always(BddSyncSql *sql)
{
	ListCell *cell;

	foreach(cell, sql->sync->columns)
		if (attribute_of(sql, lfirst(cell))->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
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

	begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "INSERT INTO %s AS t (", target_name(&sql));
	append_columns(&sql, "");
	if (version != NULL)
		appendStringInfo(&sql.text, ", %s", version);
	appendStringInfo(&sql.text, ")%s SELECT ", has_identity_always(&sql) ? " OVERRIDING SYSTEM VALUE" : "");
	append_columns(&sql, "d.");
	if (version != NULL)
		appendStringInfoString(&sql.text, ", d.\"batchdedup new_version\"");
	appendStringInfoString(&sql.text, " FROM " BDD_CHANGES_NAME " d WHERE NOT d.\"batchdedup present\" "
									  "AND NOT d.\"batchdedup removed\" ON CONFLICT (");
	bdd_append_conflict_key(&sql.text, sql.desc, &sql.key);
	if (list_length(sync->columns) == list_length(sync->key) && version == NULL &&
		sync->deleted_column == NULL)
	{
		appendStringInfoString(&sql.text, ") DO NOTHING");
		return end(&sql);
	}
	appendStringInfoString(&sql.text, ") DO UPDATE SET ");
	append_set(&sql, "EXCLUDED", version != NULL ? psprintf("EXCLUDED.%s", version) : "");
	return end(&sql);
}

char *
bdd_sync_sql_delete(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	begin(&sql, sync, shape);
	if (sync->deleted_column != NULL)
	{
		appendStringInfo(&sql.text, "UPDATE %s%s t SET ", only(&sql), target_name(&sql));
		append_set_deleted(&sql, true);
		appendStringInfoString(&sql.text, " FROM ");
	}
	else
		appendStringInfo(&sql.text, "DELETE FROM %s%s t USING ", only(&sql), target_name(&sql));
	appendStringInfoString(&sql.text, BDD_CHANGES_NAME " d WHERE d.\"batchdedup removed\" AND ");
	append_same_key(&sql, "d");
	return end(&sql);
}

/* ---------- writing through the buffer ---------- */

char *
bdd_sync_sql_upsert_buffered(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "SELECT batchdedup.upsert_record(%s, (SELECT (r.*)::pg_catalog.record FROM (SELECT ",
					 quote_literal_cstr(target_name(&sql)));
	append_columns(&sql, "d.");
	if (sync->version_column != NULL)
		appendStringInfo(&sql.text, ", d.\"batchdedup new_version\" AS %s", quote_identifier(sync->version_column));
	if (sync->deleted_column != NULL)
		appendStringInfo(&sql.text, deleted_is_flag(&sql) ? ", d.\"batchdedup removed\" AS %s" : ", CASE WHEN d.\"batchdedup removed\" THEN pg_catalog.now() END AS %s",
						 quote_identifier(sync->deleted_column));
	appendStringInfoString(&sql.text, ") r)) FROM " BDD_CHANGES_NAME " d");
	if (sync->deleted_column == NULL)
		appendStringInfoString(&sql.text, " WHERE NOT d.\"batchdedup removed\"");
	return end(&sql);
}

char *
bdd_sync_sql_delete_buffered(const BddSync *sync, uint32 shape)
{
	BddSyncSql sql;

	begin(&sql, sync, shape);
	appendStringInfo(&sql.text, "SELECT batchdedup.delete(%s, d.\"batchdedup key\") FROM " BDD_CHANGES_NAME " d WHERE d.\"batchdedup removed\"",
					 quote_literal_cstr(target_name(&sql)));
	return end(&sql);
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

	begin(&sql, sync, shape);
	if (what == BDD_DESCRIBE_KEY)
	{
		/* Rows without a key have none in common. */
		appendStringInfoString(&sql.text, "SELECT CASE WHEN true");
		foreach(cell, sync->key)
			appendStringInfo(&sql.text, " AND n.%s IS NOT NULL", quote_identifier(lfirst(cell)));
		appendStringInfoString(&sql.text, " THEN ");
		append_key_document(&sql, "n");
		appendStringInfoString(&sql.text, " END FROM (SELECT ");
		append_mapped_key(&sql);
		appendStringInfoString(&sql.text, " FROM " BDD_SLICE_NAME " src) n");
		return end(&sql);
	}
	appendStringInfo(&sql.text, "SELECT %s, pg_catalog.jsonb_build_array(",
					 what == BDD_DESCRIBE_ROW ? "pg_catalog.to_jsonb(src.*)" :
												"pg_catalog.jsonb_build_object('text', (src.*)::pg_catalog.text)");
	append_row(&sql.text, sync->position, list_length(sync->position), false);
	appendStringInfoString(&sql.text, ")::pg_catalog.text FROM " BDD_SLICE_NAME " src");
	return end(&sql);
}
