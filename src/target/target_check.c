/*-------------------------------------------------------------------------
 *
 * target_check.c
 *		Whether a table, a key and columns are fit for a target.
 *
 *-------------------------------------------------------------------------
 */
#include "target/target_check.h"

#include "base/compat.h"
#include "base/list.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "row/key.h"
#include "row/rule.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/varlena.h"

/* ---------- columns ---------- */

/*
 * 'a, "B"' or '{a,B}': names of columns.  Identifiers are folded and
 * truncated as in SQL; elements of an array are taken as they are.
 */
List *
bdd_parse_columns(const char *argument, const char *value)
{
	char *copy = pstrdup(value);
	List *names = NIL;

	while (isspace((unsigned char) *copy))
		copy++;
	if (*copy == '{')
	{
		Datum array = OidInputFunctionCall(F_ARRAY_IN, copy, TEXTOID, -1);

		if (array_contains_nulls(DatumGetArrayTypeP(array)))
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("argument %s must not contain null",
							argument)));
		names = bdd_names_of(array);
	}
	else if (!SplitIdentifierString(copy, ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("argument %s is not a list of columns: \"%s\"",
						argument, value),
				 errhint("Write for instance 'id, \"Mixed Case\"'.")));
	return names;
}

/*
 * Each column is there, once, and is not generated.  "argument" is the one to
 * be named in the error.
 */
void
bdd_check_columns(Relation rel, const char *argument, List *names)
{
	ListCell *cell;
	int i = 0;

	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		AttrNumber attnum = bdd_column_number(RelationGetDescr(rel), name);

		if (attnum == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							name, RelationGetRelationName(rel)),
					 errdetail("It is named in argument %s.", argument)));
		if (TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attgenerated)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("generated column \"%s\" cannot be in argument %s",
							name, argument)));
		for (int j = 0; j < i; j++)
			if (strcmp(list_nth(names, j), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" is twice in argument %s",
								name, argument)));
		i++;
	}
}

/* ---------- the table ---------- */

/* Raises the error; "hint" may be NULL. */
static void
refuse_table(Relation rel, int code, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("\"%s\" cannot be a target of batchdedup",
					RelationGetRelationName(rel)),
			 errdetail("%s", reason),
			 hint != NULL ? errhint("%s", hint) : 0));
}

/*
 * What INSERT ... ON CONFLICT does not work on, what only one session can
 * write, and the system's tables are refused.
 */
void
bdd_check_table(Relation rel)
{
	char kind = rel->rd_rel->relkind;

	if (kind == RELKIND_VIEW || kind == RELKIND_MATVIEW)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE, "It is a view.",
					 "Register the table behind it.");
	if (kind == RELKIND_FOREIGN_TABLE)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE,
					 "It is a foreign table.", NULL);
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE, "It is not a table.",
					 NULL);
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE,
					 "It is a temporary table, which only its session can write.",
					 NULL);
	if (IsSystemRelation(rel) ||
		RelationGetNamespace(rel) == get_namespace_oid(BDD_SCHEMA, true))
		refuse_table(rel, ERRCODE_INSUFFICIENT_PRIVILEGE,
					 "It is a system table.", NULL);
	if (rel->rd_rules != NULL)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE,
					 "It has rules, with which INSERT ... ON CONFLICT does not work.",
					 "Use triggers instead.");
}

void
bdd_check_owner(Oid relid)
{
	if (!bdd_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/* ---------- the key ---------- */

/* The first "count" key columns of the index, in its order. */
static List *
index_column_names(Oid index, int count)
{
	HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);
	List *names = NIL;

	for (int i = 0; i < count && i < form->indnkeyatts; i++)
		names = lappend(names, get_attname(form->indrelid,
										   form->indkey.values[i], false));
	ReleaseSysCache(tuple);
	return names;
}

static char *
join_names(List *names)
{
	StringInfoData joined;
	ListCell *cell;

	initStringInfo(&joined);
	foreach(cell, names)
		appendStringInfo(&joined, "%s%s", joined.len > 0 ? ", " : "",
						 quote_identifier(lfirst(cell)));
	return joined.data;
}

/* WITHOUT OVERLAPS makes a primary key an exclusion constraint. */
static bool
is_exclusion(Oid index)
{
	HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	bool result = ((Form_pg_index) GETSTRUCT(tuple))->indisexclusion;

	ReleaseSysCache(tuple);
	return result;
}

/* Its columns, for a target that is registered without a key. */
List *
bdd_primary_key(Relation rel)
{
	Oid index = bdd_primary_key_index(rel);

	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table \"%s\" has no primary key",
						RelationGetRelationName(rel)),
				 errhint("Name the columns of a unique index: key => 'column, ...'.")));
	if (is_exclusion(index))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("the primary key of table \"%s\" is WITHOUT OVERLAPS",
						RelationGetRelationName(rel)),
				 errdetail("INSERT ... ON CONFLICT DO UPDATE cannot find a row by such a key."),
				 errhint("Name the columns of another unique index: key => 'column, ...'.")));
	return index_column_names(index, INDEX_MAX_KEYS);
}

/*
 * For a unique index NULLs are usually all different: a key with one would not
 * be found again.
 */
static void
check_key_columns(Relation rel, List *names)
{
	ListCell *cell;

	foreach(cell, names)
	{
		AttrNumber attnum = bdd_column_number(RelationGetDescr(rel),
											  lfirst(cell));

		if (!TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("key column \"%s\" can be null",
							(char *) lfirst(cell)),
					 errhint("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;",
							 bdd_qualified_name(RelationGetRelid(rel)),
							 quote_identifier(lfirst(cell)))));
	}
}

/*
 * The index on the key; its absence is an error.  InvalidOid: an empty key,
 * of a target that takes rows and never looks for one.
 */
Oid
bdd_check_key(Relation rel, List *names, bool coalesce_rows)
{
	AttrNumber attnums[INDEX_MAX_KEYS];
	int count = 0;
	ListCell *cell;
	Oid index;

	if (names == NIL && coalesce_rows)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("an empty key needs coalesce_rows => false"),
				 errdetail("Without a key every row is another one.")));
	if (names == NIL)
		return InvalidOid;
	bdd_check_columns(rel, "key", names);
	foreach(cell, names)
		if (count < INDEX_MAX_KEYS)
			attnums[count++] = bdd_column_number(RelationGetDescr(rel),
												 lfirst(cell));
	index = bdd_key_index(rel, attnums, list_length(names));
	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table \"%s\" has no unique index on (%s)",
						RelationGetRelationName(rel), join_names(names)),
				 errdetail("The index must be a valid btree on just these columns, without expressions or predicate, and not deferrable."),
				 errhint("CREATE UNIQUE INDEX ON %s (%s);",
						 bdd_qualified_name(RelationGetRelid(rel)),
						 join_names(names))));
	check_key_columns(rel, names);
	return index;
}

/*
 * With such a key every new row gets one of its own, so its rows are likely to
 * be found by other columns.
 */
static bool
key_is_identity(Relation rel, List *names)
{
	return list_length(names) == 1 &&
		   TupleDescAttr(RelationGetDescr(rel),
						 bdd_column_number(RelationGetDescr(rel),
										   linitial(names)) -
							 1)
			   ->attidentity;
}

/* Another unique index can refuse a row when it is applied. */
void
bdd_notice_other_indexes(Relation rel, Oid key_index, List *key)
{
	ListCell *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Oid index = lfirst_oid(cell);
		HeapTuple tuple = SearchSysCache1(INDEXRELID,
										  ObjectIdGetDatum(index));
		bool unique = HeapTupleIsValid(tuple) &&
					  ((Form_pg_index) GETSTRUCT(tuple))->indisunique;

		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
		if (!unique || index == key_index)
			continue;
		ereport(NOTICE,
				(errmsg("table \"%s\" has another unique index, \"%s\"",
						RelationGetRelationName(rel), get_rel_name(index)),
				 errdetail("A row that violates it is refused when it is applied, not at the call."),
				 key_is_identity(rel, key) ?
					 errhint("The key \"%s\" is generated for new rows. If rows are found by other columns, name them: key => '%s'.",
							 (char *) linitial(key),
							 join_names(index_column_names(index,
														   INDEX_MAX_KEYS))) :
					 0));
	}
}

/*
 * An upsert must be able to set each of them, and to find the row again by its
 * key.
 */
void
bdd_check_update_columns(Relation rel, List *key, List *names)
{
	ListCell *cell;

	bdd_check_columns(rel, "update_columns", names);
	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		AttrNumber attnum = bdd_column_number(RelationGetDescr(rel), name);
		ListCell *key_cell;

		foreach(key_cell, key)
			if (strcmp(lfirst(key_cell), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
						 errmsg("key column \"%s\" cannot be in argument update_columns",
								name)));
		if (TupleDescAttr(RelationGetDescr(rel),
						  attnum - 1)
				->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("column \"%s\" is GENERATED ALWAYS AS IDENTITY and cannot be in argument update_columns",
							name)));
	}
}

bool
bdd_is_named(const List *names, const char *name)
{
	ListCell *cell;

	foreach(cell, names)
		if (strcmp(lfirst(cell), name) == 0)
			return true;
	return false;
}

/* A column that a rule or the version is of must be one that upserts change. */
static void
check_is_updated(Relation rel, const char *argument, const char *name,
				 List *key, List *update, bool default_update)
{
	AttrNumber attnum = bdd_column_number(RelationGetDescr(rel), name);

	if (bdd_is_named(key, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("key column \"%s\" cannot be in argument %s", name,
						argument)));
	if (TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attidentity)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("identity column \"%s\" cannot be in argument %s",
						name, argument)));
	if (!default_update && !bdd_is_named(update, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("column \"%s\" of argument %s is not in update_columns",
						name, argument),
				 errhint("An upsert changes update_columns only: add it there.")));
}

/*
 * The rule must fit the column's type, and the table's owner must be allowed
 * to run it.
 */
static void
check_rule(Relation rel, const char *column, const char *name)
{
	AttrNumber attnum = bdd_column_number(RelationGetDescr(rel), column);
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel),
												attnum - 1);
	BddRule rule;
	char *problem = bdd_rule_describe(name, attribute->atttypid,
									  attribute->atttypmod,
									  attribute->attcollation,
									  CurrentMemoryContext, &rule);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(rule.kind == BDD_FUNCTION ? ERRCODE_UNDEFINED_FUNCTION :
													 ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" cannot have the merge rule \"%s\"",
						column, name),
				 errdetail("%s", problem)));
	if (rule.kind == BDD_FUNCTION &&
		!bdd_may_execute(rule.function, rel->rd_rel->relowner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("role \"%s\", which owns the table, may not execute function %s",
						GetUserNameFromId(rel->rd_rel->relowner, false),
						name),
				 errhint("Merge rules run as the owner of the table.")));
}

/* A version is compared as the rule "max" compares. */
static void
check_has_order(Relation rel, const char *version)
{
	AttrNumber attnum = bdd_column_number(RelationGetDescr(rel), version);
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel),
												attnum - 1);
	BddRule rule;
	char *problem = bdd_rule_describe("max", attribute->atttypid,
									  attribute->atttypmod,
									  attribute->attcollation,
									  CurrentMemoryContext, &rule);

	if (problem != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" cannot be the version column", version),
				 errdetail("%s", problem)));
}

/* The rules of a target, and its version column (or NULL). */
void
bdd_check_rules(Relation rel, List *key, List *update, bool default_update,
				List *columns, List *rules, const char *version)
{
	ListCell *column;
	ListCell *rule;

	bdd_check_columns(rel, "merge", columns);
	forboth(column, columns, rule, rules)
	{
		check_is_updated(rel, "merge", lfirst(column), key, update,
						 default_update || strcmp(lfirst(rule), "first") == 0);
		check_rule(rel, lfirst(column), lfirst(rule));
	}
	if (version == NULL)
		return;
	bdd_check_columns(rel, "version_column", list_make1(unconstify(char *, version)));
	check_is_updated(rel, "version_column", version, key, update,
					 default_update);
	check_has_order(rel, version);
	if (bdd_is_named(columns, version))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("version column \"%s\" cannot have a merge rule",
						version)));
}
