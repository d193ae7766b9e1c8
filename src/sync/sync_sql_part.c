/*-------------------------------------------------------------------------
 *
 * sync_sql_part.c
 *		Parts of a sync's statements: the target, its values, its deleted rows.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_sql_part.h"

#include "access/table.h"
#include "base/list.h"
#include "catalog/pg_type_d.h"
#include "nodes/pg_list.h"
#include "sql/text.h"
#include "target/target_check.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* ---------- the target ---------- */

/*
 * Opens the target, checks that it still has the sync's columns and key, and
 * begins the text.  "shape" tells statements on other rows apart, see
 * bdd_slice_shape.
 */
void
bdd_sync_sql_begin(BddSyncSql *sql, const BddSync *sync, uint32 shape)
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

/* Closes the target, which stays locked, and returns the text. */
char *
bdd_sync_sql_end(BddSyncSql *sql)
{
	table_close(sql->rel, NoLock);
	return sql->text.data;
}

/* The column must be there; bdd_sync_sql_begin has checked those of mapping and key. */
Form_pg_attribute
bdd_sync_sql_attribute_of(BddSyncSql *sql, const char *name)
{
	return TupleDescAttr(sql->desc, bdd_column_number(sql->desc, name) - 1);
}

/* Tables that inherit from the target are none of the sync's; partitions are. */
const char *
bdd_sync_sql_only(BddSyncSql *sql)
{
	return sql->rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ";
}

char *
bdd_sync_sql_target_name(BddSyncSql *sql)
{
	return bdd_qualified_name(sql->sync->target);
}

/* Columns whose values make the data version. */
bool
bdd_sync_sql_is_hashed(const BddSync *sync, const char *name)
{
	return bdd_is_named(sync->columns, name) &&
		   !bdd_is_named(sync->hash_exclude, name);
}

/* The others, as an array. */
char *
bdd_sync_sql_unhashed(BddSyncSql *sql)
{
	StringInfoData array;

	initStringInfo(&array);
	appendStringInfoString(&array, "ARRAY[");
	for (int i = 0; i < sql->desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(sql->desc, i);
		const char *name = NameStr(attribute->attname);

		if (!attribute->attisdropped && !bdd_sync_sql_is_hashed(sql->sync, name))
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

/* Whether a cast to the type, or an array of it, cuts off what is too long. */
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
void
bdd_sync_sql_append_value(StringInfo sql, Form_pg_attribute attribute, const char *expression)
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

/* True where t, the row of the target, has the key of the row "other". */
void
bdd_sync_sql_append_same_key(BddSyncSql *sql, const char *other)
{
	bdd_append_same_key(&sql->text, sql->desc, &sql->key, "t", other);
}

/* "prefix.k1, prefix.k2", in the order of the key's index. */
void
bdd_sync_sql_append_key(BddSyncSql *sql, const char *prefix)
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

/* The key of the row "alias" as a jsonb, by the names of the target's columns. */
void
bdd_sync_sql_append_key_document(BddSyncSql *sql, const char *alias)
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

/* "n.c1, n.c2" for the prefix "n.": the columns that the sync writes. */
void
bdd_sync_sql_append_columns(BddSyncSql *sql, const char *prefix)
{
	const char *comma = "";
	ListCell *cell;

	foreach(cell, sql->sync->columns)
	{
		appendStringInfo(&sql->text, "%s%s%s", comma, prefix, quote_identifier(lfirst(cell)));
		comma = ", ";
	}
}

/* Whether a column that the sync writes is of a domain. */
static bool
has_domains(BddSyncSql *sql)
{
	ListCell *cell;

	foreach(cell, sql->sync->columns)
	{
		Oid type = bdd_sync_sql_attribute_of(sql, lfirst(cell))->atttypid;

		if (getBaseType(type) != type)
			return true;
	}
	return false;
}

/*
 * n as a row of the target; columns that are not mapped are NULL.  Where that
 * would call the checks of a domain: as a record with the same names.
 */
void
bdd_sync_sql_append_new_row(BddSyncSql *sql)
{
	const char *comma = "";

	if (has_domains(sql))
	{
		appendStringInfoString(&sql->text, "(SELECT (x.*)::pg_catalog.record FROM (SELECT ");
		bdd_sync_sql_append_columns(sql, "n.");
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
	appendStringInfo(&sql->text, ")::%s", bdd_sync_sql_target_name(sql));
}

/* Whether a column is to the byte what it was. */
void
bdd_sync_sql_append_same_value(BddSyncSql *sql, const char *name)
{
	const char *quoted = quote_identifier(name);

	if (bdd_equal_is_same(bdd_sync_sql_attribute_of(sql, name)))
		appendStringInfo(&sql->text, "t.%s IS NOT DISTINCT FROM n.%s", quoted, quoted);
	else
		appendStringInfo(
			&sql->text,
			"ROW(CAST(t.%s AS %s))::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(n.%s)::pg_catalog.record",
			quoted,
			type_name(getBaseType(bdd_sync_sql_attribute_of(sql, name)->atttypid), -1, false),
			quoted);
}

/* True where t and n are the same in all that makes the data version, without the key. */
void
bdd_sync_sql_append_same_row(BddSyncSql *sql)
{
	ListCell *cell;

	appendStringInfoString(&sql->text, "(true");
	/* What is quick to compare comes first. */
	for (int slow = 0; slow < 2; slow++)
		foreach(cell, sql->sync->columns)
			if (bdd_sync_sql_is_hashed(sql->sync, lfirst(cell)) &&
				!bdd_is_named(sql->sync->key, lfirst(cell)) &&
				bdd_equal_is_same(bdd_sync_sql_attribute_of(sql, lfirst(cell))) == (slow == 0))
			{
				appendStringInfoString(&sql->text, " AND ");
				bdd_sync_sql_append_same_value(sql, lfirst(cell));
			}
	appendStringInfoChar(&sql->text, ')');
}

/* ---------- rows that are marked as deleted ---------- */

/* Whether a boolean marks deleted rows; else it is a time. */
bool
bdd_sync_sql_deleted_is_flag(BddSyncSql *sql)
{
	Form_pg_attribute attribute = bdd_sync_sql_attribute_of(sql, sql->sync->deleted_column);

	return getBaseType(attribute->atttypid) == BOOLOID;
}

/* True of rows of the target that are deleted for all who read it. */
void
bdd_sync_sql_append_is_deleted(BddSyncSql *sql, const char *alias)
{
	if (sql->sync->deleted_column == NULL)
		appendStringInfoString(&sql->text, "false");
	else
		appendStringInfo(&sql->text, bdd_sync_sql_deleted_is_flag(sql) ? "(%s.%s IS TRUE)" : "(%s.%s IS NOT NULL)",
						 alias, quote_identifier(sql->sync->deleted_column));
}

/* "column = value", which marks a row as deleted or takes the mark away. */
void
bdd_sync_sql_append_set_deleted(BddSyncSql *sql, bool deleted)
{
	const char *value = bdd_sync_sql_deleted_is_flag(sql) ? (deleted ? "true" : "false") :
															(deleted ? "pg_catalog.now()" : "NULL");

	appendStringInfo(&sql->text, "%s = %s", quote_identifier(sql->sync->deleted_column), value);
}

/* ---------- changes ---------- */

/* The changes that mark or delete rows t. */
void
bdd_sync_sql_append_removal(BddSyncSql *sql)
{
	const char *exclude = bdd_sync_sql_unhashed(sql);

	appendStringInfoString(&sql->text, "SELECT ");
	bdd_sync_sql_append_columns(sql, "t.");
	appendStringInfoString(&sql->text, ", true AS \"batchdedup removed\", true AS \"batchdedup present\", "
									   "'delete' AS \"batchdedup operation\", ");
	bdd_sync_sql_append_key_document(sql, "t");
	appendStringInfo(&sql->text, " AS \"batchdedup key\", batchdedup.data_version((t.*)::%s, %s) AS \"batchdedup old_version\", "
								 "NULL::pg_catalog.text AS \"batchdedup new_version\", "
								 "NULL::pg_catalog.text[] AS \"batchdedup changed\", ",
					 bdd_sync_sql_target_name(sql), exclude);
	if (sql->sync->log_values)
		appendStringInfo(&sql->text, "pg_catalog.to_jsonb((t.*)::%s) OPERATOR(pg_catalog.-) %s", bdd_sync_sql_target_name(sql), exclude);
	else
		appendStringInfoString(&sql->text, "NULL::pg_catalog.jsonb");
	appendStringInfoString(&sql->text, " AS \"batchdedup old_values\", NULL::pg_catalog.jsonb AS \"batchdedup new_values\"");
}

/* ---------- the source ---------- */

/* The expression that the mapping has for a column, which must be in it. */
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

/* Names of columns of the source with the place of their value: $1, $2 ... */
void
bdd_sync_sql_append_row(StringInfo text, const List *columns, int count, bool parameters)
{
	for (int i = 0; i < count; i++)
		if (parameters)
			appendStringInfo(text, "%s$%d", i > 0 ? ", " : "", i + 1);
		else
			appendStringInfo(text, "%ssrc.%s", i > 0 ? ", " : "",
							 quote_identifier(list_nth(columns, i)));
}

/* "expression AS k1, ..." */
void
bdd_sync_sql_append_mapped_key(BddSyncSql *sql)
{
	ListCell *cell;

	foreach(cell, sql->sync->key)
	{
		bdd_sync_sql_append_value(&sql->text, bdd_sync_sql_attribute_of(sql, lfirst(cell)),
								  expression_of(sql->sync, lfirst(cell)));
		appendStringInfo(&sql->text, " AS %s%s", quote_identifier(lfirst(cell)),
						 lnext(sql->sync->key, cell) != NULL ? ", " : "");
	}
}
