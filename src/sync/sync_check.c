/*-------------------------------------------------------------------------
 *
 * sync_check.c
 *		Whether source, target and arguments are fit for a sync.
 *
 * What is wrong is said by create_sync, not by the first run at night.  What may
 * have become wrong since then is looked at by each slice (bdd_sync_check_still).
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_check.h"

#include "access/relation.h"
#include "access/table.h"
#include "base/list.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_type.h"
#include "catalog/pg_type_d.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "nodes/plannodes.h"
#include "parser/parse_coerce.h"
#include "parser/parser.h"
#include "sql/spi.h"
#include "target/target_check.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/plancache.h"
#include "utils/resowner.h"
#include "utils/rls.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* ---------- expressions ---------- */

/* The expression alone, or NULL if the text is more, or something else. */
static Node *
parse_expression(const char *expression)
{
	List *statements = raw_parser(psprintf("SELECT %s\n", expression), RAW_PARSE_DEFAULT);
	SelectStmt *select;
	ResTarget *target;

	if (list_length(statements) != 1 ||
		!IsA(linitial_node(RawStmt, statements)->stmt, SelectStmt))
		return NULL;
	select = castNode(SelectStmt, linitial_node(RawStmt, statements)->stmt);
	if (select->op != SETOP_NONE || list_length(select->targetList) != 1 ||
		select->distinctClause != NIL || select->intoClause != NULL ||
		select->fromClause != NIL || select->whereClause != NULL ||
		select->groupClause != NIL || select->havingClause != NULL ||
		select->windowClause != NIL || select->valuesLists != NIL ||
		select->sortClause != NIL || select->limitCount != NULL ||
		select->limitOffset != NULL || select->lockingClause != NIL ||
		select->withClause != NULL)
		return NULL;
	target = linitial_node(ResTarget, select->targetList);
	return target->name == NULL ? target->val : NULL;
}

/*
 * Raises an error unless the text is one expression, because it is put into
 * statements as it stands.  "what" names it in the error.
 */
void
bdd_sync_check_expression(const char *what, const char *expression)
{
	if (parse_expression(expression) == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("%s is not a single expression: \"%s\"", what, expression),
				 errhint("Columns of the source are src.column.")));
}

/* The column of the source that the expression is, or NULL: it is more. */
char *
bdd_sync_plain_column(const char *expression)
{
	Node *node = parse_expression(expression);
	List *fields = node != NULL && IsA(node, ColumnRef) ? ((ColumnRef *) node)->fields : NIL;

	if (list_length(fields) != 2 || !IsA(lsecond(fields), String) ||
		strcmp(strVal(linitial(fields)), "src") != 0)
		return NULL;
	return strVal(lsecond(fields));
}

/* Columns of the source that make the key; NIL: it takes more than columns. */
List *
bdd_sync_source_key(const BddSync *sync)
{
	List *columns = NIL;
	ListCell *cell;

	foreach(cell, sync->key)
	{
		ListCell *name;
		ListCell *expression;
		char *column = NULL;

		forboth(name, sync->columns, expression, sync->expressions)
			if (strcmp(lfirst(name), lfirst(cell)) == 0)
				column = bdd_sync_plain_column(lfirst(expression));
		if (column == NULL || !bdd_is_named(sync->position, column))
			return NIL;
		columns = lappend(columns, column);
	}
	return columns;
}

/* Columns of the position that may be NULL: no watermark can be there. */
List *
bdd_sync_nullable(const BddSync *sync)
{
	Relation rel;
	List *nullable = NIL;

	if (sync->kind == BDD_CURSOR_TRIGGER)
		return NIL;
	rel = relation_open(sync->source, AccessShareLock);
	for (int i = 0; i < list_length(sync->position); i++)
	{
		char *name = list_nth(sync->position, i);
		AttrNumber attnum = bdd_column_number(RelationGetDescr(rel), name);

		if (attnum != InvalidAttrNumber &&
			!TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull)
			nullable = lappend(nullable, name);
	}
	relation_close(rel, NoLock);
	return nullable;
}

/* ---------- relations ---------- */

/* Raises an error if the current user, the owner of the sync to be, lacks a right. */
static void
check_privilege(Oid relid, AclMode mode)
{
	AclResult result = pg_class_aclcheck(relid, GetUserId(), mode);

	if (result != ACLCHECK_OK)
		aclcheck_error(result, get_relkind_objtype(get_rel_relkind(relid)), get_rel_name(relid));
}

/*
 * What create_sync demands of a source: a table or a view that outlives the
 * session, and the right to read it.
 */
static void
check_source(const BddSync *sync)
{
	Relation rel = relation_open(sync->source, AccessShareLock);

	switch (rel->rd_rel->relkind)
	{
		case RELKIND_RELATION:
		case RELKIND_PARTITIONED_TABLE:
		case RELKIND_VIEW:
		case RELKIND_MATVIEW:
		case RELKIND_FOREIGN_TABLE:
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_WRONG_OBJECT_TYPE),
					 errmsg("\"%s\" cannot be the source of a sync", RelationGetRelationName(rel)),
					 errdetail("It is no table and no view.")));
	}
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot be the source of a sync", RelationGetRelationName(rel)),
				 errdetail("It is temporary, and belongs to one session.")));
	relation_close(rel, NoLock);
	check_privilege(sync->source, ACL_SELECT);
}

/* Rows that row-level security hides from the owner would be inserted again. */
static void
check_row_security(const BddSync *sync)
{
	if (check_enable_rls(sync->target, sync->owner, true) == RLS_ENABLED)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security of \"%s\" applies to role \"%s\", whose sync cannot write it",
						get_rel_name(sync->target), GetUserNameFromId(sync->owner, false))));
}

/*
 * What create_sync demands of a target: a fit table, the rights to write it
 * (DELETE only where rows are deleted), and no row-level security that binds
 * the owner.
 */
static void
check_target(const BddSync *sync)
{
	Relation rel = table_open(sync->target, AccessShareLock);

	bdd_check_table(rel);
	check_privilege(sync->target, ACL_SELECT);
	check_privilege(sync->target, ACL_INSERT);
	check_privilege(sync->target, ACL_UPDATE);
	if ((sync->delete_missing || sync->tombstone != NULL || sync->kind == BDD_CURSOR_TRIGGER) &&
		!sync->soft)
		check_privilege(sync->target, ACL_DELETE);
	check_row_security(sync);
	table_close(rel, NoLock);
}

/* Whether the owner, here the caller, may read the source and write the target. */
void
bdd_sync_check_relations(const BddSync *sync)
{
	if (sync->source == sync->target)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("source and target of a sync must not be the same")));
	check_source(sync);
	check_target(sync);
}

/* ---------- what has become of them ---------- */

/* "what" is missing for good: the sync can only be dropped. */
static void
report_gone(const BddSync *sync, const char *what, int sqlstate)
{
	ereport(ERROR,
			(errcode(sqlstate),
			 errmsg("the %s of sync \"%s\" does not exist any more", what, sync->name),
			 errhint("Drop the sync: SELECT batchdedup.drop_sync(%s);", quote_literal_cstr(sync->name))));
}

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/*
 * The watermark means something only in the order that it was found in; that of
 * integers is the same for all their types.
 */
static void
check_position_column(const BddSync *sync, Relation source, const char *name, ListCell *type)
{
	AttrNumber attnum = bdd_column_number(RelationGetDescr(source), name);
	Oid before = lfirst_oid(type);
	Oid now;

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of \"%s\" does not exist any more", name, RelationGetRelationName(source)),
				 errdetail("Sync \"%s\" reads in the order of this column.", sync->name),
				 errhint("Drop the sync and make it anew.")));
	now = TupleDescAttr(RelationGetDescr(source), attnum - 1)->atttypid;
	if (now == before)
		return;
	if (!is_integer(getBaseType(now)) || !is_integer(getBaseType(before)))
		ereport(
			ERROR,
			(errcode(ERRCODE_DATATYPE_MISMATCH),
			 errmsg(
				 "column \"%s\" of \"%s\" is of type %s, and was of type %s when sync \"%s\" was made",
				 name, RelationGetRelationName(source), format_type_be(now), format_type_be(before),
				 sync->name),
			 errdetail("The sync reads in the order of this column, which may be another one now."),
			 errhint("Drop the sync and make it anew.")));
	lfirst_oid(type) = now;
}

/* Writes are done as the target's owner, so the sync's owner is asked for here. */
static void
check_may_write(const BddSync *sync)
{
	bool deletes =
		(sync->delete_missing || sync->tombstone != NULL || sync->kind == BDD_CURSOR_TRIGGER) &&
		!sync->soft;
	AclMode needed = ACL_SELECT | ACL_INSERT | ACL_UPDATE | (deletes ? ACL_DELETE : 0);

	if (pg_class_aclmask(sync->target, sync->owner, needed, ACLMASK_ALL) != needed)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for table %s", get_rel_name(sync->target)),
				 errdetail("Role \"%s\", which owns sync \"%s\", needs SELECT, INSERT%s and UPDATE.",
						   GetUserNameFromId(sync->owner, false), sync->name, deletes ? ", DELETE" : "")));
}

/* Whether owner, source and target are still there, and the source can be read in order. */
void
bdd_sync_check_still(BddSync *sync)
{
	Relation source;
	Relation target;
	ListCell *name;
	ListCell *type;

	if (!SearchSysCacheExists1(AUTHOID, ObjectIdGetDatum(sync->owner)))
		report_gone(sync, "owner", ERRCODE_UNDEFINED_OBJECT);
	source = try_relation_open(sync->source, AccessShareLock);
	if (source == NULL)
		report_gone(sync, "source", ERRCODE_UNDEFINED_TABLE);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(sync->target)))
		report_gone(sync, "target", ERRCODE_UNDEFINED_TABLE);
	forboth(name, sync->position, type, sync->position_types)
		check_position_column(sync, source, lfirst(name), type);
	relation_close(source, NoLock);
	/* Rules may have come. */
	target = table_open(sync->target, AccessShareLock);
	bdd_check_table(target);
	table_close(target, NoLock);
	check_may_write(sync);
	check_row_security(sync);
}

/* ---------- the mapping ---------- */

/*
 * Raises an error if values of the type cannot be assigned to the column.  An
 * identity that is GENERATED ALWAYS can be written as a part of the key alone.
 */
static void
check_type(const BddSync *sync, const char *column, const char *expression, Oid type)
{
	Relation rel = table_open(sync->target, AccessShareLock);
	Form_pg_attribute attribute =
		TupleDescAttr(RelationGetDescr(rel), bdd_column_number(RelationGetDescr(rel), column) - 1);

	if (!can_coerce_type(1, &type, &attribute->atttypid, COERCION_ASSIGNMENT))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of the target is of type %s but its expression is of type %s",
						column, format_type_be(attribute->atttypid), format_type_be(type)),
				 errhint("Say how: mapping => '{\"%s\": \"(%s)::%s\"}'.", column, expression,
						 format_type_be(attribute->atttypid))));
	if (attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS && !bdd_is_named(sync->key, column))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("column \"%s\" is GENERATED ALWAYS AS IDENTITY and cannot be written", column)));
	table_close(rel, NoLock);
}

/*
 * Parses all expressions over the source.  The caller is connected to SPI, as
 * the sync's owner.
 */
void
bdd_sync_check_mapping(const BddSync *sync)
{
	StringInfoData text;
	TupleDesc desc;
	ListCell *column;
	ListCell *expression;
	int i = 0;

	initStringInfo(&text);
	appendStringInfoString(&text, "SELECT ");
	foreach(expression, sync->expressions)
		appendStringInfo(&text, "(%s\n), ", (char *) lfirst(expression));
	appendStringInfo(&text, "1 FROM %s src WHERE (%s\n) AND (%s\n) LIMIT 0",
					 bdd_qualified_name(sync->source),
					 sync->filter != NULL ? sync->filter : "true",
					 sync->tombstone != NULL ? sync->tombstone : "true");
	(void) bdd_spi_run(text.data, 0, NULL, NULL, NULL);
	desc = SPI_tuptable->tupdesc;
	forboth(column, sync->columns, expression, sync->expressions)
		check_type(sync, lfirst(column), lfirst(expression), TupleDescAttr(desc, i++)->atttypid);
}

/* ---------- kinds of cursors ---------- */

/* Whether reading the source reads a foreign table, or what a view keeps. */
static bool
reads_elsewhere(const BddSync *sync)
{
	SPIPlanPtr plan = SPI_prepare(psprintf("SELECT * FROM %s", bdd_qualified_name(sync->source)), 0, NULL);
	CachedPlan *cached =
		plan != NULL && SPI_keepplan(plan) == 0 ? SPI_plan_get_cached_plan(plan) : NULL;
	bool elsewhere = false;
	ListCell *statement;
	ListCell *cell;

	if (cached == NULL)
		elog(ERROR, "could not plan a scan of the source: %s", SPI_result_code_string(SPI_result));
	foreach(statement, cached->stmt_list)
		foreach(cell, lfirst_node(PlannedStmt, statement)->rtable)
		{
			RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

			if (entry->rtekind == RTE_RELATION &&
				(entry->relkind == RELKIND_FOREIGN_TABLE || entry->relkind == RELKIND_MATVIEW))
				elsewhere = true;
		}
	ReleaseCachedPlan(cached, CurrentResourceOwner);
	(void) SPI_freeplan(plan);
	return elsewhere;
}

/* The first column of the cursor, which decides its kind. */
static char *
cursor_name(const BddSync *sync)
{
	return linitial(sync->position);
}

/* The type of that column, beneath domains. */
static Oid
cursor_type(const BddSync *sync)
{
	return getBaseType(linitial_oid(sync->position_types));
}

/* Whether the cursor's column has the time of the insert as its default. */
static bool
has_clock_default(const BddSync *sync)
{
	Oid types[] = {OIDOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(sync->source), CStringGetTextDatum(cursor_name(sync))};

	return bdd_spi_run("SELECT FROM pg_catalog.pg_attrdef d JOIN pg_catalog.pg_attribute a "
					   "ON a.attrelid = d.adrelid AND a.attnum = d.adnum "
					   "WHERE a.attrelid = $1 AND a.attname = $2 AND pg_catalog.pg_get_expr(d.adbin, d.adrelid) ~ "
					   "'^(now|clock_timestamp|statement_timestamp|transaction_timestamp)\\(\\)$|^CURRENT_TIMESTAMP(\\(\\d\\))?$'",
					   2, types, values, NULL) > 0;
}

/* The cursor's sequence: of an identity, or of any default with nextval. */
static Oid
find_sequence(const BddSync *sync)
{
	Oid types[] = {OIDOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(sync->source), CStringGetTextDatum(cursor_name(sync))};
	bool isnull;

	if (bdd_spi_run("SELECT s.oid FROM pg_catalog.pg_attribute a "
					"LEFT JOIN pg_catalog.pg_attrdef f ON f.adrelid = a.attrelid AND f.adnum = a.attnum "
					"JOIN pg_catalog.pg_depend d ON "
					"(d.classid = 'pg_catalog.pg_attrdef'::pg_catalog.regclass AND d.objid = f.oid "
					"AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass) "
					"OR (d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.refclassid = d.classid "
					"AND d.refobjid = a.attrelid AND d.refobjsubid = a.attnum AND d.deptype = 'i') "
					"JOIN pg_catalog.pg_class s ON s.relkind = 'S' AND s.oid = "
					"CASE WHEN d.deptype = 'i' THEN d.objid ELSE d.refobjid END "
					"WHERE a.attrelid = $1 AND a.attname = $2",
					2, types, values, NULL) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("column \"%s\" of \"%s\" takes its values from no sequence",
						cursor_name(sync), get_rel_name(sync->source)),
				 errhint("Cursors of kind \"sequence\" need an identity column, or a default with nextval.")));
	return DatumGetObjectId(bdd_spi_value(0, 1, &isnull));
}

/*
 * Raises an error unless each nextval gives a higher number than all before
 * it, in whatever session: no cache, no cycle, a positive increment.
 */
static void
check_sequence(Oid sequence)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(sequence)};

	if (bdd_spi_run("SELECT FROM pg_catalog.pg_sequence WHERE seqrelid = $1 "
					"AND seqcache = 1 AND seqincrement > 0 AND NOT seqcycle",
					1, types, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("sequence \"%s\" does not number rows in the order of nextval", get_rel_name(sequence)),
				 errdetail("A cursor needs CACHE 1, NO CYCLE and an increment above zero."),
				 errhint("ALTER SEQUENCE %s CACHE 1 NO CYCLE;", bdd_qualified_name(sequence))));
}

/*
 * Raises an error if the cursor has another sequence than before, or one that
 * does not number rows in order.  The caller is connected to SPI.
 */
void
bdd_sync_check_sequence(const BddSync *sync)
{
	BddSavedRole saved;

	bdd_sync_become(sync, &saved);
	if (find_sequence(sync) != sync->sequence)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of \"%s\" takes its values from another sequence than when sync \"%s\" was made",
						cursor_name(sync), get_rel_name(sync->source), sync->name),
				 errhint("Drop the sync and make it anew.")));
	check_sequence(sync->sequence);
	bdd_restore_role(&saved);
}

/* "reason": the detail of the error. */
static void
refuse_clock(const BddSync *sync, const char *reason)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("cursor column \"%s\" cannot be of kind \"clock\"", cursor_name(sync)),
			 errdetail("%s", reason),
			 errhint("Give a lag within which rows become visible, or use capture => 'trigger'.")));
}

/*
 * Raises an error if the cursor's values cannot be compared with this server's
 * clock, or come from transactions that are not seen here.
 */
static void
check_clock(const BddSync *sync)
{
	if (cursor_type(sync) != TIMESTAMPTZOID)
		refuse_clock(sync, "It is not of type timestamp with time zone, so it is no moment.");
	if (reads_elsewhere(sync))
		refuse_clock(sync, "The source has rows of another server, or of a materialized view: "
						   "whose transactions are still open there cannot be seen here.");
}

/*
 * Values of the source's cursor that another sync copies are older than the
 * transaction that writes them, or than the values before them.
 */
static void
refuse_copied(const BddSync *sync)
{
	Oid types[] = {OIDOID, TEXTOID};
	Datum values[] = {ObjectIdGetDatum(sync->source), CStringGetTextDatum(cursor_name(sync))};
	BddSavedRole saved;
	bool isnull;

	bdd_become_extension_owner(&saved);
	if (bdd_spi_run("SELECT s.name FROM batchdedup.sync_row s, ROWS FROM (pg_catalog.unnest(s.columns), "
					"pg_catalog.unnest(s.expressions)) AS m (name, expression) WHERE s.target = $1 AND m.name = $2 "
					"AND m.expression !~* '^\\s*(pg_catalog\\.)?(now|clock_timestamp|transaction_timestamp)\\(\\s*\\)\\s*$'",
					2, types, values, NULL) > 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the cursor column \"%s\" is copied by sync \"%s\"", cursor_name(sync),
						TextDatumGetCString(bdd_spi_value(0, 1, &isnull))),
				 errdetail("Rows come with values that are older than rows which are there already, and would be missed."),
				 errhint("Use capture => 'trigger'; or let that sync map the column to clock_timestamp(), and exclude it from the hash.")));
	bdd_restore_role(&saved);
}

/*
 * The same from the other side: this sync must not copy values into a column
 * that is the cursor of a sync which reads this one's target.
 */
void
bdd_sync_check_followers(const BddSync *sync)
{
	Oid types[] = {OIDOID, TEXTARRAYOID, TEXTARRAYOID};
	Datum values[] = {ObjectIdGetDatum(sync->target), bdd_text_array(sync->columns),
					  bdd_text_array(sync->expressions)};
	BddSavedRole saved;
	bool isnull;

	bdd_become_extension_owner(&saved);
	if (bdd_spi_run("SELECT s.name, m.name FROM batchdedup.sync_row s, ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) "
					"AS m (name, expression) WHERE s.source = $1 AND s.cursor_kind IN ('clock', 'sequence') "
					"AND m.name = s.position_columns[1] "
					"AND m.expression !~* '^\\s*(pg_catalog\\.)?(now|clock_timestamp|transaction_timestamp)\\(\\s*\\)\\s*$'",
					3, types, values, NULL) > 0)
		ereport(
			ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("the column \"%s\" is the cursor of sync \"%s\", which would miss rows",
					TextDatumGetCString(bdd_spi_value(0, 2, &isnull)),
					TextDatumGetCString(bdd_spi_value(0, 1, &isnull))),
			 errdetail(
				 "They would come with values that are older than rows which are there already."),
			 errhint(
				 "Map the column to clock_timestamp() and exclude it from the hash; or let that sync use capture => 'trigger'.")));
	bdd_restore_role(&saved);
}

/*
 * The kind where the caller has declared none: a clock, if the column's
 * default says so, else one with a lag.  Without a lag a guess could lose
 * rows, so it is an error.
 */
static void
choose_unasked(BddSync *sync, bool lag)
{
	char kind = get_rel_relkind(sync->source);

	if ((kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE) &&
		cursor_type(sync) == TIMESTAMPTZOID && has_clock_default(sync))
		sync->kind = BDD_CURSOR_CLOCK;
	else if (lag)
		sync->kind = BDD_CURSOR_OTHER;
	else
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("it is not known where column \"%s\" takes its values from", cursor_name(sync)),
				 errdetail("So a transaction could commit a row behind the watermark, and the row would be lost."),
				 errhint("If every writer sets it from now() or clock_timestamp() in its own transaction: cursor_kind => 'clock'. "
						 "If it comes from nextval of a sequence with CACHE 1: cursor_kind => 'sequence'. "
						 "Else capture => 'trigger' is exact, and lag => '10 minutes' is a guess.")));
}

/* Says of which kind the cursor is; "wanted": what the caller has declared. */
void
bdd_sync_choose_kind(BddSync *sync, const char *wanted, bool lag)
{
	if (wanted == NULL)
		choose_unasked(sync, lag);
	else
		sync->kind = bdd_cursor_kind(wanted);
	if (sync->kind == BDD_CURSOR_CLOCK || sync->kind == BDD_CURSOR_SEQUENCE)
		refuse_copied(sync);
	if (sync->kind == BDD_CURSOR_CLOCK)
		check_clock(sync);
	if (sync->kind == BDD_CURSOR_SEQUENCE)
	{
		sync->sequence = find_sequence(sync);
		check_sequence(sync->sequence);
	}
	if (sync->kind == BDD_CURSOR_OTHER && !lag)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a cursor of kind \"other\" needs a lag"),
				 errdetail("Rows that become visible later than that are lost."),
				 errhint("Write for instance lag => '10 minutes'; capture => 'trigger' needs no guess.")));
}
