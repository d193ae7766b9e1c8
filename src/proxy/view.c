/*-------------------------------------------------------------------------
 *
 * view.c
 *		Views that write to the buffer and read through it.
 *
 * The view of create_view is
 *
 *		SELECT u.columns FROM (
 *			SELECT t.columns, true AS stored FROM ONLY t
 *			UNION ALL
 *			SELECT b.columns, false FROM batchdedup.overlay_rows('t') b(columns)) u
 *		WHERE NOT (u.stored AND batchdedup.overlaid('t', u.key columns))
 *
 * In this form the planner takes the view apart: what a query asks of it comes
 * to an index scan of the table and a lookup in the buffer (lookup.c), for
 * constants and in joins.  With the condition inside the first branch only
 * constants would get there.
 *
 * An INSTEAD OF trigger takes what is written.  The view runs with the rights
 * of who uses it, and the trigger asks for what upsert() and delete() ask.
 *
 *-------------------------------------------------------------------------
 */
#include "proxy/view.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "base/compat.h"
#include "base/list.h"
#include "base/loaded.h"
#include "catalog/namespace.h"
#include "catalog/pg_class.h"
#include "catalog/pg_depend.h"
#include "catalog/pg_rewrite.h"
#include "commands/defrem.h"
#include "commands/trigger.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "parser/parsetree.h"
#include "proxy/relay.h"
#include "read/overlay.h"
#include "rewrite/rewriteHandler.h"
#include "sql/spi.h"
#include "target/target.h"
#include "target/target_check.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"
#include "utils/varlena.h"

PG_FUNCTION_INFO_V1(bdd_create_view);
PG_FUNCTION_INFO_V1(bdd_view_write);

static ExecutorStart_hook_type previous_start_hook = NULL;

/* ---------- writing ---------- */

/* Hands the row on, and returns what RETURNING shows of it. */
static HeapTuple
write_row(BddRelay *relay, TriggerData *trigger)
{
	if (TRIGGER_FIRED_BY_INSERT(trigger->tg_event))
		return bdd_relay_insert(relay, trigger->tg_relation,
								trigger->tg_trigtuple);
	if (TRIGGER_FIRED_BY_UPDATE(trigger->tg_event))
		return bdd_relay_update(relay, trigger->tg_relation,
								trigger->tg_trigtuple, trigger->tg_newtuple);
	bdd_relay_delete(relay, trigger->tg_relation, trigger->tg_trigtuple);
	return trigger->tg_trigtuple;
}

/* view_write(): the INSTEAD OF trigger */
Datum
bdd_view_write(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	BddRelay *relay;

	bdd_check_preloaded();
	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_INSTEAD(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"view_write\" was not called as an INSTEAD OF trigger"),
				 errhint("Views are made by batchdedup.create_view.")));
	relay = bdd_relay_of(fcinfo, trigger->tg_relation);
	if (!OidIsValid(relay->table))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("view \"%s\" was not made by batchdedup.create_view",
						RelationGetRelationName(trigger->tg_relation)),
				 errhint("Drop its trigger \"%s\".",
						 trigger->tg_trigger->tgname)));
	/* Raises an error if it is no target, or none that can be used. */
	if (relay->target == NULL || relay->target->broken != BDD_USABLE)
		(void) bdd_target_open(relay->table, RowExclusiveLock);
	return PointerGetDatum(write_row(relay, trigger));
}

/*
 * The server refuses ON CONFLICT (key) for a view, which has no indexes, but
 * takes ON CONFLICT DO NOTHING and forgets it.
 */
static void
refuse_on_conflict(PlannedStmt *planned)
{
	List *plans = lcons(planned->planTree, list_copy(planned->subplans));
	ListCell *cell;

	foreach(cell, plans)
	{
		ModifyTable *plan = lfirst(cell);
		RangeTblEntry *written;

		if (plan == NULL || !IsA(plan, ModifyTable) ||
			plan->onConflictAction == ONCONFLICT_NONE)
			continue;
		written = rt_fetch(linitial_int(plan->resultRelations), planned->rtable);
		if (get_rel_relkind(written->relid) == RELKIND_VIEW &&
			OidIsValid(bdd_relay_table(written->relid)))
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("INSERT ... ON CONFLICT does not work with view \"%s\"",
							get_rel_name(written->relid)),
					 errhint("Leave it out: INSERT into the view overwrites rows that exist. Or see batchdedup.create_redirect.")));
	}
	list_free(plans);
}

/*
 * What the statement reads of views is decided from here on.  INSERT ...
 * RETURNING names a view, and has nothing to do with its table.
 */
static void
begin_overlays(QueryDesc *query)
{
	ListCell *cell;

	foreach(cell, bdd_read_views(query->plannedstmt))
	{
		Oid table = bdd_relay_table(lfirst_oid(cell));

		if (OidIsValid(table) &&
			list_member_oid(query->plannedstmt->relationOids, table))
			bdd_overlay_begin(query->estate->es_query_cxt, table);
	}
}

/*
 * Runs before each query: refuses ON CONFLICT, and begins overlays of views.
 */
static void
executor_start(QueryDesc *query, int flags)
{
	PlannedStmt *planned = query->plannedstmt;

	if (planned->commandType == CMD_INSERT || planned->hasModifyingCTE)
		refuse_on_conflict(planned);
	if (previous_start_hook != NULL)
		previous_start_hook(query, flags);
	else
		standard_ExecutorStart(query, flags);
	if (!(flags & EXEC_FLAG_EXPLAIN_ONLY))
		begin_overlays(query);
}

/* Called once, in the postmaster. */
void
bdd_view_init(void)
{
	previous_start_hook = ExecutorStart_hook;
	ExecutorStart_hook = executor_start;
}

/* ---------- the definition ---------- */

/* A column's name as SQL. */
static const char *
column_name(TupleDesc desc, int i)
{
	return quote_identifier(NameStr(TupleDescAttr(desc, i)->attname));
}

/* The columns that are not dropped, each with the prefix. */
static void
append_columns(StringInfo sql, TupleDesc desc, const char *prefix)
{
	const char *comma = "";

	for (int i = 0; i < desc->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		appendStringInfo(sql, "%s%s%s", comma, prefix, column_name(desc, i));
		comma = ", ";
	}
}

/* The columns as those of a function that returns records. */
static void
append_column_types(StringInfo sql, TupleDesc desc)
{
	const char *comma = "";

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (attribute->attisdropped)
			continue;
		appendStringInfo(sql, "%s%s %s", comma, column_name(desc, i),
						 format_type_extended(attribute->atttypid,
											  attribute->atttypmod,
											  FORMAT_TYPE_TYPEMOD_GIVEN |
												  FORMAT_TYPE_FORCE_QUALIFY));
		if (OidIsValid(attribute->attcollation) &&
			attribute->attcollation != get_typcollation(attribute->atttypid))
			appendStringInfo(sql, " COLLATE %s",
							 generate_collation_name(attribute->attcollation));
		comma = ", ";
	}
}

/* A name for the column that tells the branches apart. */
static char *
unused_name(TupleDesc desc)
{
	char *name = pstrdup("stored");

	for (int i = 1; bdd_column_number(desc, name) != InvalidAttrNumber; i++)
		name = psprintf("stored_%d", i);
	return name;
}

/* The statement that creates the view; its form is explained above. */
static char *
view_sql(BddTarget *target, const char *view)
{
	TupleDesc desc = target->shape.desc;
	const char *table = bdd_qualified_name(target->relid);
	const char *stored = unused_name(desc);
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "CREATE OR REPLACE VIEW %s WITH (security_invoker = true) AS SELECT ",
					 view);
	append_columns(&sql, desc, "u.");
	appendStringInfoString(&sql, " FROM (SELECT ");
	append_columns(&sql, desc, "t.");
	appendStringInfo(&sql, ", true AS %s FROM %s%s t UNION ALL SELECT ", stored,
					 get_rel_relkind(target->relid) == RELKIND_PARTITIONED_TABLE ? "" : "ONLY ",
					 table);
	append_columns(&sql, desc, "b.");
	appendStringInfo(&sql, ", false FROM " BDD_SCHEMA ".overlay_rows(%s::pg_catalog.regclass) b(",
					 quote_literal_cstr(table));
	append_column_types(&sql, desc);
	appendStringInfo(&sql, ")) u "
						   "WHERE NOT (u.%s AND " BDD_SCHEMA ".overlaid(%s::pg_catalog.regclass",
					 stored, quote_literal_cstr(table));
	for (int i = 0; i < target->key.count; i++)
		appendStringInfo(&sql, ", u.%s",
						 column_name(desc, target->key.columns[i].attnum - 1));
	appendStringInfoString(&sql, "))");
	return sql.data;
}

/* Columns that were renamed in the table since the view was made. */
static void
rename_columns(BddTarget *target, const char *view, Oid view_oid)
{
	Relation rel = relation_open(view_oid, AccessExclusiveLock);
	int natts = RelationGetNumberOfAttributes(rel);
	AttrNumber *columns = palloc(natts * sizeof(AttrNumber));
	StringInfoData sql;
	Oid table;

	initStringInfo(&sql);
	if (!bdd_view_definition(get_view_query(rel), &table, natts, columns))
		elog(ERROR, "view %s has changed", view);
	for (int i = 0; i < natts; i++)
	{
		const char *old = column_name(RelationGetDescr(rel), i);
		const char *new = columns[i] > 0 ?
							  column_name(target->shape.desc, columns[i] - 1) :
							  old;

		if (strcmp(old, new) != 0)
			appendStringInfo(&sql, "ALTER VIEW %s RENAME COLUMN %s TO %s;",
							 view, old, new);
	}
	relation_close(rel, NoLock);
	if (sql.len > 0)
		bdd_run_utility(InvalidOid, "%s", sql.data);
}

/* A column's default as SQL, or NULL. */
static char *
default_text(Relation rel, AttrNumber attnum)
{
	TupleConstr *constraints = RelationGetDescr(rel)->constr;

	for (int i = 0; i < constraints->num_defval; i++)
	{
		const AttrDefault *value = &constraints->defval[i];
		Oid relid = RelationGetRelid(rel);

		if (value->adnum == attnum)
			return TextDatumGetCString(DirectFunctionCall2(pg_get_expr,
														   CStringGetTextDatum(value->adbin),
														   ObjectIdGetDatum(relid)));
	}
	return NULL;
}

/* The table's defaults become the view's; the trigger sees to identities. */
static void
set_defaults(BddTarget *target, const char *view)
{
	Relation rel = relation_open(target->relid, NoLock);
	StringInfoData sql;

	initStringInfo(&sql);
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(target->shape.desc, i);
		const char *expression = NULL;

		if (attribute->attisdropped)
			continue;
		if (attribute->atthasdef && !attribute->attgenerated)
			expression = default_text(rel, i + 1);
		appendStringInfo(&sql, "ALTER VIEW %s ALTER COLUMN %s ", view,
						 column_name(target->shape.desc, i));
		if (expression != NULL)
			appendStringInfo(&sql, "SET DEFAULT %s;", expression);
		else
			appendStringInfoString(&sql, "DROP DEFAULT;");
	}
	relation_close(rel, NoLock);
	bdd_run_utility(InvalidOid, "%s", sql.data);
}

/* ---------- create_view ---------- */

/* Whether the relation is a view that create_view has made for the table. */
static bool
is_view_of(Oid view, Oid table)
{
	Relation rel;
	AttrNumber *columns;
	Oid found = InvalidOid;
	bool result = false;

	if (get_rel_relkind(view) != RELKIND_VIEW)
		return false;
	rel = relation_open(view, AccessShareLock);
	columns = palloc(RelationGetNumberOfAttributes(rel) * sizeof(AttrNumber));
	if (rel->rd_rules != NULL && rel->rd_rules->numLocks > 0)
		result = bdd_view_definition(get_view_query(rel), &found,
									 RelationGetNumberOfAttributes(rel),
									 columns) &&
				 found == table;
	relation_close(rel, AccessShareLock);
	return result;
}

/* Makes the view as the table's owner, or replaces one made before. */
static void
make_view(BddTarget *target, Oid schema, const char *name)
{
	char *view = quote_qualified_identifier(get_namespace_name(schema), name);
	Oid existing = get_relname_relid(name, schema);
	BddSavedRole saved;

	if (target->key.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("target \"%s\" has no key, and can have no view",
						get_rel_name(target->relid)),
				 errhint("See batchdedup.create_redirect.")));
	if (OidIsValid(existing) && !is_view_of(existing, target->relid))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_TABLE),
				 errmsg("relation \"%s\" already exists, and is not a view of \"%s\" made by create_view",
						name, get_rel_name(target->relid)),
				 errhint("Name another view in argument name.")));
	bdd_become_owner_of(target->owner, &saved);
	bdd_spi_connect();
	if (OidIsValid(existing))
		rename_columns(target, view, existing);
	bdd_run_utility(InvalidOid, "%s", view_sql(target, view));
	set_defaults(target, view);
	bdd_run_utility(InvalidOid, "CREATE OR REPLACE TRIGGER batchdedup_write INSTEAD OF INSERT OR UPDATE OR DELETE ON %s "
								"FOR EACH ROW EXECUTE FUNCTION " BDD_SCHEMA ".view_write()",
					view);
	bdd_spi_finish();
	bdd_restore_role(&saved);
}

/* The view to which a rewrite rule belongs, or InvalidOid. */
static Oid
relation_of_rule(Oid rule)
{
	Relation rewrite = table_open(RewriteRelationId, AccessShareLock);
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;
	Oid relid = InvalidOid;

	ScanKeyInit(&key, Anum_pg_rewrite_oid, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(rule));
	scan = systable_beginscan(rewrite, RewriteOidIndexId, true, NULL, 1, &key);
	if (HeapTupleIsValid(tuple = systable_getnext(scan)))
		relid = ((Form_pg_rewrite) GETSTRUCT(tuple))->ev_class;
	systable_endscan(scan);
	table_close(rewrite, AccessShareLock);
	return relid;
}

/* The views that create_view has made for the table. */
static List *
views_of(Oid table)
{
	Relation depend = table_open(DependRelationId, AccessShareLock);
	ScanKeyData keys[2];
	SysScanDesc scan;
	HeapTuple tuple;
	List *views = NIL;

	ScanKeyInit(&keys[0], Anum_pg_depend_refclassid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(RelationRelationId));
	ScanKeyInit(&keys[1], Anum_pg_depend_refobjid, BTEqualStrategyNumber,
				F_OIDEQ, ObjectIdGetDatum(table));
	scan = systable_beginscan(depend, DependReferenceIndexId, true, NULL, 2,
							  keys);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
	{
		Form_pg_depend form = (Form_pg_depend) GETSTRUCT(tuple);
		Oid view;

		if (form->classid != RewriteRelationId)
			continue;
		view = relation_of_rule(form->objid);
		if (OidIsValid(view) && is_view_of(view, table))
			views = list_append_unique_oid(views, view);
	}
	systable_endscan(scan);
	table_close(depend, AccessShareLock);
	return views;
}

/* The key may be another one now. */
void
bdd_views_make_anew(Oid relid)
{
	ListCell *cell;

	foreach(cell, views_of(relid))
		make_view(bdd_target_open(relid, AccessShareLock),
				  get_rel_namespace(lfirst_oid(cell)),
				  get_rel_name(lfirst_oid(cell)));
}

/* One identifier, as in SQL. */
static char *
name_argument(text *argument)
{
	char *value = text_to_cstring(argument);
	List *names;

	if (!SplitIdentifierString(pstrdup(value), '.', &names) || names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("argument name is not a name: \"%s\"", value),
				 errhint("Write for instance 'my_view' or '\"Mixed Case\"'.")));
	if (list_length(names) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_NAME),
				 errmsg("argument name must not have a schema: \"%s\"", value),
				 errdetail("The view is made in the schema of the table.")));
	return linitial(names);
}

/* create_view(regclass, text): the view */
Datum
bdd_create_view(PG_FUNCTION_ARGS)
{
	BddTarget *target;
	Oid relid;
	Oid schema;
	char *name;

	bdd_check_preloaded();
	PreventCommandDuringRecovery("create_view()");
	PreventCommandIfReadOnly("create_view()");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	relid = PG_GETARG_OID(0);
	bdd_check_owner(relid);
	target = bdd_target_open(relid, AccessShareLock);
	schema = get_rel_namespace(relid);
	name = PG_ARGISNULL(1) ?
			   makeObjectName(get_rel_name(relid), NULL, "buffered") :
			   name_argument(PG_GETARG_TEXT_PP(1));
	make_view(target, schema, name);
	PG_RETURN_OID(get_relname_relid(name, schema));
}
