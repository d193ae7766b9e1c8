/*-------------------------------------------------------------------------
 *
 * lookup.c
 *		Looking keys up in the buffer, in plans.
 *
 * Where a query compares the whole key of overlay_rows() with constants,
 * parameters, or columns of other tables, the planner is offered a custom
 * scan that looks it up instead of going through all that is buffered.  Only
 * equality of the key's index counts; all conditions are checked again on
 * what is found, so a lookup may return too much but must not miss a row.
 *
 *-------------------------------------------------------------------------
 */
#include "read/lookup.h"

#include "access/nbtree.h"
#include "base/compat.h"
#include "base/list.h"
#include "catalog/pg_opfamily_d.h"
#include "catalog/pg_type_d.h"
#include "executor/executor.h"
#include "nodes/extensible.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/clauses.h"
#include "optimizer/cost.h"
#include "optimizer/optimizer.h"
#include "optimizer/pathnode.h"
#include "optimizer/paths.h"
#include "optimizer/restrictinfo.h"
#include "parser/parse_coerce.h"
#include "read/overlay.h"
#include "sql/catalog.h"
#include "storage/lmgr.h"
#include "target/target.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#define LOOKUP_NAME "batchdedup lookup"

static set_rel_pathlist_hook_type previous_pathlist_hook = NULL;

/* ---------- values as keys ---------- */

static bool
is_integer(Oid type)
{
	return type == INT2OID || type == INT4OID || type == INT8OID;
}

/*
 * Whether values of the type can be brought into the form that the column's
 * have.
 */
static bool
can_be_key(const BddKeyColumn *column, Oid type)
{
	Oid base = getBaseType(column->type);

	type = getBaseType(type);
	return (is_integer(base) && is_integer(type)) ||
		   IsBinaryCoercible(type, base) ||
		   (type == column->input_type && IsBinaryCoercible(base, type));
}

/* The value in the column's form; false: no value of the column equals it. */
static bool
value_as_key(const BddTarget *target, const BddKeyColumn *column, Oid type,
			 Datum *value)
{
	int32 typmod = TupleDescAttr(target->shape.desc, column->attnum - 1)->atttypmod;
	Oid base = getBaseTypeAndTypmod(column->type, &typmod);

	type = getBaseType(type);
	if (is_integer(base) && is_integer(type) && base != type)
	{
		int64 number = type == INT2OID ? DatumGetInt16(*value) :
					   type == INT4OID ? DatumGetInt32(*value) :
										 DatumGetInt64(*value);

		if (base == INT8OID)
			*value = Int64GetDatum(number);
		else if (base == INT4OID)
			*value = Int32GetDatum((int32) number);
		else
			*value = Int16GetDatum((int16) number);
		return base == INT8OID ||
			   (base == INT4OID ? number == (int32) number : number == (int16) number);
	}
	/* A type modifier has given the column's values one form. */
	if (base == NUMERICOID && typmod >= (int32) VARHDRSZ)
	{
		int32 scale = ((typmod - VARHDRSZ) & 0x7ff);

		scale = (scale ^ 1024) - 1024;
		*value = DirectFunctionCall2(numeric_round, *value, Int32GetDatum(scale));
	}
	else if (base == BPCHAROID && typmod >= (int32) VARHDRSZ)
		*value = DirectFunctionCall3(bpchar, *value, Int32GetDatum(typmod),
									 BoolGetDatum(true));
	return true;
}

/* ---------- conditions ---------- */

/* A condition that gives a column of the key. */
typedef struct BddCondition
{
	Expr *value;
	bool is_array; /* any element of the value */
	Relids others; /* relations that it refers to */
} BddCondition;

/* The column that the planner's equivalence classes are asked for. */
typedef struct BddWanted
{
	Index rti;
	const BddKeyColumn *column;
} BddWanted;

/* Relabelling, as of varchar to text, does not change the value. */
static bool
is_column(Node *node, Index rti, const BddKeyColumn *column)
{
	Var *var;

	while (node != NULL && IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	var = (Var *) node;
	return var != NULL && IsA(var, Var) && var->varno == rti &&
		   var->varlevelsup == 0 && var->varattno == column->attnum;
}

/* Whether the operator and the collation are those of the key's index. */
static bool
is_equality(const BddKeyColumn *column, Oid opno, Oid collation)
{
	return get_op_opfamily_strategy(opno, column->opfamily) == BTEqualStrategyNumber &&
		   op_strict(opno) &&
		   (!OidIsValid(column->collation) || column->collation == collation);
}

/*
 * Notes the value if it can be looked up: its type fits, and it is the same
 * for all rows of the scan.
 */
static bool
take_value(PlannerInfo *root, RelOptInfo *rel, const BddKeyColumn *column,
		   Node *value, Oid type, BddCondition *condition)
{
	condition->others = pull_varnos(root, value);
	if (!can_be_key(column, type) ||
		bms_overlap(condition->others, rel->relids) ||
		contain_volatile_functions(value) || contain_subplans(value))
		return false;
	condition->value = (Expr *) value;
	return true;
}

/* column = value, or the other way round */
static bool
match_operator(PlannerInfo *root, RelOptInfo *rel, const BddKeyColumn *column,
			   OpExpr *clause, BddCondition *condition)
{
	Node *left;
	Node *right;
	Oid opno = clause->opno;

	if (list_length(clause->args) != 2)
		return false;
	left = linitial(clause->args);
	right = lsecond(clause->args);
	if (!is_column(left, rel->relid, column))
	{
		left = right;
		right = linitial(clause->args);
		opno = get_commutator(opno);
	}
	return OidIsValid(opno) && is_column(left, rel->relid, column) &&
		   is_equality(column, opno, clause->inputcollid) &&
		   take_value(root, rel, column, right, exprType(right), condition);
}

/* column = ANY (array) */
static bool
match_array(PlannerInfo *root, RelOptInfo *rel, const BddKeyColumn *column,
			ScalarArrayOpExpr *clause, BddCondition *condition)
{
	Node *array = lsecond(clause->args);

	condition->is_array = true;
	return clause->useOr && is_column(linitial(clause->args), rel->relid, column) &&
		   is_equality(column, clause->opno, clause->inputcollid) &&
		   take_value(root, rel, column, array,
					  get_base_element_type(exprType(array)), condition);
}

/* The clause as a condition on the column, or NULL. */
static BddCondition *
match_clause(PlannerInfo *root, RelOptInfo *rel, const BddKeyColumn *column,
			 RestrictInfo *rinfo)
{
	BddCondition *condition = palloc0(sizeof(BddCondition));
	Node *clause = (Node *) rinfo->clause;

	if (rinfo->pseudoconstant)
		return NULL;
	if (IsA(clause, OpExpr) &&
		match_operator(root, rel, column, (OpExpr *) clause, condition))
		return condition;
	if (IsA(clause, ScalarArrayOpExpr) &&
		match_array(root, rel, column, (ScalarArrayOpExpr *) clause, condition))
		return condition;
	return NULL;
}

/* Adds the clauses that are conditions on the column. */
static List *
match_clauses(PlannerInfo *root, RelOptInfo *rel, const BddKeyColumn *column,
			  List *clauses, List *conditions)
{
	ListCell *cell;

	foreach(cell, clauses)
	{
		BddCondition *condition = match_clause(root, rel, column,
											   lfirst_node(RestrictInfo, cell));

		if (condition != NULL)
			conditions = lappend(conditions, condition);
	}
	return conditions;
}

/* Called back by the planner for each member of an equivalence class. */
static bool
is_wanted_member(PlannerInfo *root, RelOptInfo *rel, EquivalenceClass *class,
				 EquivalenceMember *member, void *arg)
{
	BddWanted *wanted = arg;

	return is_column((Node *) member->em_expr, wanted->rti, wanted->column);
}

/* All conditions that give the column; those on constants come first. */
static List *
conditions_of(PlannerInfo *root, RelOptInfo *rel, const BddKeyColumn *column)
{
	List *conditions = match_clauses(root, rel, column, rel->baserestrictinfo, NIL);
	BddWanted wanted = {.rti = rel->relid, .column = column};
	List *movable = NIL;
	ListCell *cell;

	foreach(cell, rel->joininfo)
		if (join_clause_is_movable_to(lfirst_node(RestrictInfo, cell), rel))
			movable = lappend(movable, lfirst(cell));
	conditions = match_clauses(root, rel, column, movable, conditions);
	if (rel->has_eclass_joins)
		conditions = match_clauses(root, rel, column,
								   generate_implied_equalities_for_column(root, rel,
																		  is_wanted_member, &wanted,
																		  rel->lateral_referencers),
								   conditions);
	return conditions;
}

/* ---------- paths ---------- */

static Plan *plan_lookup(PlannerInfo *root, RelOptInfo *rel, CustomPath *path,
						 List *tlist, List *clauses, List *custom_plans);

static const CustomPathMethods path_methods = {
	.CustomName = LOOKUP_NAME,
	.PlanCustomPath = plan_lookup,
};

/* Conditions that give the key and refer to the outer relations, or NIL. */
static List *
choose(List **by_column, int count, Relids outer)
{
	List *chosen = NIL;

	for (int i = 0; i < count; i++)
	{
		BddCondition *found = NULL;
		ListCell *cell;

		foreach(cell, by_column[i])
		{
			BddCondition *condition = lfirst(cell);

			if (found == NULL && bms_is_subset(condition->others, outer) &&
				!(condition->is_array && count > 1))
				found = condition;
		}
		if (found == NULL)
			return NIL;
		chosen = lappend(chosen, found);
	}
	return chosen;
}

/*
 * Offers a path that looks up these conditions, one for each column of the
 * key.  "outer" are the relations that they refer to.
 */
static void
add_lookup(PlannerInfo *root, RelOptInfo *rel, Oid relid, List *conditions,
		   Relids outer)
{
	CustomPath *path = makeNode(CustomPath);
	List *values = NIL;
	bool is_array = false;
	double lookups = 1;
	ListCell *cell;

	foreach(cell, conditions)
	{
		BddCondition *condition = lfirst(cell);

		values = lappend(values, condition->value);
		is_array = is_array || condition->is_array;
		if (condition->is_array)
			lookups = bdd_estimate_array_length(root, (Node *) condition->value);
	}
	path->path.pathtype = T_CustomScan;
	path->path.parent = rel;
	path->path.pathtarget = rel->reltarget;
	path->path.param_info = get_baserel_parampathinfo(root, rel, outer);
	path->path.rows = lookups;
	path->path.startup_cost = rel->reltarget->cost.startup;
	path->path.total_cost = path->path.startup_cost +
							lookups * (20 * cpu_operator_cost + cpu_tuple_cost +
									   rel->reltarget->cost.per_tuple);
	path->flags = CUSTOMPATH_SUPPORT_PROJECTION;
	path->methods = &path_methods;
	path->custom_private = list_make3(values, makeInteger((int) relid),
									  makeInteger(is_array));
	add_path(rel, (Path *) path);
}

/* A path for each set of relations that can give the key. */
static void
add_lookups(PlannerInfo *root, RelOptInfo *rel, BddTarget *target)
{
	List *by_column[INDEX_MAX_KEYS];
	List *outers = list_make1(rel->lateral_relids);
	int count = target->key.count;
	ListCell *cell;

	for (int i = 0; i < count; i++)
	{
		BddKeyColumn column = target->key.columns[i];

		column.attnum = bdd_live_columns(target->shape.desc, column.attnum);
		by_column[i] = conditions_of(root, rel, &column);
		if (by_column[i] == NIL)
			return;
	}
	/* Relations that one column refers to the others may refer to, too. */
	for (int i = 0; i < count; i++)
		foreach(cell, by_column[i])
			outers = lappend(outers, bms_union(((BddCondition *) lfirst(cell))->others,
											   rel->lateral_relids));
	if (count > 1)
	{
		Relids all = NULL;

		foreach(cell, outers)
			all = bms_union(all, lfirst(cell));
		outers = lappend(outers, all);
	}
	foreach(cell, outers)
	{
		Relids outer = lfirst(cell);
		List *chosen;
		bool known = false;

		for (int i = 0; i < foreach_current_index(cell) && !known; i++)
			known = bms_equal(list_nth(outers, i), outer);
		chosen = known ? NIL : choose(by_column, count, outer);
		if (chosen != NIL)
			add_lookup(root, rel, target->relid, chosen, outer);
	}
}

/* The table whose rows the function returns, or InvalidOid. */
static Oid
table_of_overlay(RangeTblEntry *rte)
{
	RangeTblFunction *function;

	if (rte->rtekind != RTE_FUNCTION || list_length(rte->functions) != 1 ||
		rte->funcordinality)
		return InvalidOid;
	function = linitial_node(RangeTblFunction, rte->functions);
	if (!IsA(function->funcexpr, FuncExpr) ||
		!bdd_is_function(((FuncExpr *) function->funcexpr)->funcid,
						 "bdd_overlay_rows"))
		return InvalidOid;
	return bdd_overlay_argument(function->funcexpr);
}

/*
 * set_rel_pathlist_hook: offers lookups for overlay_rows() of a target whose
 * keys are known by their bytes.
 */
static void
consider_lookups(PlannerInfo *root, RelOptInfo *rel, Index rti,
				 RangeTblEntry *rte)
{
	BddTarget *target;
	Oid relid;

	if (previous_pathlist_hook != NULL)
		previous_pathlist_hook(root, rel, rti, rte);
	relid = table_of_overlay(rte);
	if (!OidIsValid(relid))
		return;
	/* A row as a whole has no place in the plan's list of columns. */
	if (rel->attr_needed[0 - rel->min_attr] != NULL)
		return;
	LockRelationOid(relid, AccessShareLock);
	target = bdd_target_lookup(relid);
	if (target != NULL && target->broken == BDD_USABLE && target->key.exact)
		add_lookups(root, rel, target);
}

/* ---------- plans ---------- */

/* All columns of the function's rows, as a scan returns them. */
static List *
scan_columns(Oid relid, RelOptInfo *rel)
{
	TupleDesc desc = bdd_target_lookup(relid)->shape.desc;
	List *columns = NIL;
	int live = 0;

	for (int i = 0; i < desc->natts && live < rel->max_attr; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		Expr *column;

		if (attribute->attisdropped)
			continue;
		live++;
		column = (Expr *) makeVar(rel->relid, live, attribute->atttypid,
								  attribute->atttypmod,
								  attribute->attcollation, 0);
		columns = lappend(columns, makeTargetEntry(column, live, NULL, false));
	}
	return columns;
}

static Node *create_scan_state(CustomScan *scan);

static const CustomScanMethods scan_methods = {
	.CustomName = LOOKUP_NAME,
	.CreateCustomScanState = create_scan_state,
};

/*
 * PlanCustomPath.  All clauses stay as conditions: a lookup may find too much.
 */
static Plan *
plan_lookup(PlannerInfo *root, RelOptInfo *rel, CustomPath *path, List *tlist,
			List *clauses, List *custom_plans)
{
	CustomScan *scan = makeNode(CustomScan);

	/* A cached plan is to be made anew when the target changes. */
	root->glob->relationOids = lappend_oid(root->glob->relationOids,
										   intVal(lsecond(path->custom_private)));
	scan->scan.plan.targetlist = tlist;
	scan->scan.plan.qual = extract_actual_clauses(clauses, false);
	scan->scan.scanrelid = 0;
	scan->flags = path->flags;
	scan->custom_exprs = linitial(path->custom_private);
	scan->custom_private = list_make2(lsecond(path->custom_private),
									  lthird(path->custom_private));
	scan->custom_scan_tlist = scan_columns(intVal(lsecond(path->custom_private)),
										   rel);
	scan->methods = &scan_methods;
	return &scan->scan.plan;
}

/* ---------- execution ---------- */

typedef struct BddLookupState
{
	CustomScanState custom; /* first */
	Oid relid;
	bool is_array;
	List *values; /* of ExprState, by column of the key */
	Oid *types;   /* of the values or their elements */
	bool started;
	MemoryContext keys_context;
	BddOverlaid **keys; /* what was found, each key once */
	int count;
	int next;
} BddLookupState;

static uint32 last_number = 0; /* of a lookup */

/*
 * Nothing is looked up before the first row is asked for: values of parameters
 * are not known yet.
 */
static void
begin_scan(CustomScanState *node, EState *estate, int flags)
{
	BddLookupState *state = (BddLookupState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	ListCell *cell;
	int i = 0;

	state->relid = (Oid) intVal(linitial(scan->custom_private));
	state->is_array = intVal(lsecond(scan->custom_private)) != 0;
	state->values = ExecInitExprList(scan->custom_exprs, &node->ss.ps);
	state->types = palloc(list_length(scan->custom_exprs) * sizeof(Oid));
	state->keys_context = AllocSetContextCreate(estate->es_query_cxt,
												"batchdedup lookup",
												ALLOCSET_SMALL_SIZES);
	foreach(cell, scan->custom_exprs)
	{
		Oid type = exprType(lfirst(cell));

		state->types[i++] = state->is_array ? get_base_element_type(type) : type;
	}
}

/* Looks a key up, which may have been named before. */
static void
add_key(BddLookupState *state, BddOverlay *overlay, Datum *values)
{
	BddOverlaid *key = bdd_overlay_find(overlay, values);

	if (key == NULL || key->lookup == last_number)
		return;
	key->lookup = last_number;
	state->keys[state->count++] = key;
}

/* Looks the elements of the array up. */
static void
find_elements(BddLookupState *state, BddOverlay *overlay, ArrayType *array)
{
	const BddTarget *target = bdd_overlay_target(overlay);
	Datum *elements;
	bool *nulls;
	int count;
	int16 length;
	bool by_value;
	char align;

	get_typlenbyvalalign(state->types[0], &length, &by_value, &align);
	deconstruct_array(array, state->types[0], length, by_value, align,
					  &elements, &nulls, &count);
	state->keys = MemoryContextAlloc(state->keys_context,
									 Max(count, 1) * sizeof(BddOverlaid *));
	for (int i = 0; i < count; i++)
		if (!nulls[i] && value_as_key(target, &target->key.columns[0],
									  state->types[0], &elements[i]))
			add_key(state, overlay, &elements[i]);
}

/* Looks the values up that give the key's columns. */
static void
find_values(BddLookupState *state, BddOverlay *overlay, ExprContext *econtext)
{
	const BddTarget *target = bdd_overlay_target(overlay);
	Datum values[INDEX_MAX_KEYS];
	ListCell *cell;

	foreach(cell, state->values)
	{
		int i = foreach_current_index(cell);
		bool isnull;

		values[i] = ExecEvalExpr(lfirst(cell), econtext, &isnull);
		if (isnull || !value_as_key(target, &target->key.columns[i],
									state->types[i], &values[i]))
			return;
	}
	state->keys = MemoryContextAlloc(state->keys_context, sizeof(BddOverlaid *));
	add_key(state, overlay, values);
}

/* Finds the keys once for each scan.  No overlay: nothing is found. */
static void
start_lookup(BddLookupState *state, BddOverlay *overlay)
{
	ExprContext *econtext = state->custom.ss.ps.ps_ExprContext;
	bool isnull;
	Datum array;

	state->started = true;
	state->next = 0;
	state->count = 0;
	last_number++;
	MemoryContextReset(state->keys_context);
	if (overlay == NULL)
		return;
	if (!state->is_array)
	{
		find_values(state, overlay, econtext);
		return;
	}
	array = ExecEvalExpr(linitial(state->values), econtext, &isnull);
	if (!isnull)
		find_elements(state, overlay, DatumGetArrayTypeP(array));
}

/*
 * The next row of the keys that were found; keys that have no row in the end
 * are passed over.
 */
static TupleTableSlot *
fetch(ScanState *node)
{
	BddLookupState *state = (BddLookupState *) node;
	TupleTableSlot *slot = node->ss_ScanTupleSlot;
	MemoryContext context = node->ps.ps_ExprContext->ecxt_per_tuple_memory;
	MemoryContext old_context = MemoryContextSwitchTo(context);
	BddOverlay *overlay = bdd_overlay_of(node->ps.state->es_query_cxt, state->relid);

	ExecClearTuple(slot);
	if (!state->started)
		start_lookup(state, overlay);
	while (state->next < state->count && TupIsNull(slot))
	{
		int natts = slot->tts_tupleDescriptor->natts;
		BddValues row;

		if (!bdd_overlay_row(overlay, state->keys[state->next++], &row))
			continue;
		bdd_overlay_pack(overlay, &row);
		memcpy(slot->tts_values, row.values, natts * sizeof(Datum));
		memcpy(slot->tts_isnull, row.isnull, natts * sizeof(bool));
		ExecStoreVirtualTuple(slot);
	}
	MemoryContextSwitchTo(old_context);
	return slot;
}

/*
 * For a row that another transaction has changed meanwhile the server runs
 * parts of the plan once more.  Of a scan that is not of one relation it asks
 * for the next row here, and not by fetch().
 */
static bool
fetch_again(ScanState *node, TupleTableSlot *slot)
{
	(void) fetch(node);
	return !TupIsNull(slot);
}

static TupleTableSlot *
exec_scan(CustomScanState *node)
{
	return ExecScan(&node->ss, fetch, fetch_again);
}

/* Values of parameters may have changed: the keys are looked up anew. */
static void
rescan(CustomScanState *node)
{
	((BddLookupState *) node)->started = false;
	ExecScanReScan(&node->ss);
}

/* Memory goes with the executor's context, and nothing else is held. */
static void
end_scan(CustomScanState *node)
{
}

/* Key: a = 1, b = $1 */
static void
explain(CustomScanState *node, List *ancestors, ExplainState *es)
{
	BddLookupState *state = (BddLookupState *) node;
	CustomScan *scan = (CustomScan *) node->ss.ps.plan;
	BddTarget *target = bdd_target_lookup(state->relid);
	List *context;
	StringInfoData keys;
	ListCell *cell;

	if (target == NULL)
		return;
	context = set_deparse_context_plan(es->deparse_cxt,
									   node->ss.ps.plan, ancestors);
	initStringInfo(&keys);
	foreach(cell, scan->custom_exprs)
	{
		int i = foreach_current_index(cell);
		AttrNumber attnum = target->key.columns[i].attnum;

		appendStringInfo(&keys, "%s%s = %s%s%s", i > 0 ? ", " : "",
						 quote_identifier(NameStr(TupleDescAttr(target->shape.desc,
																attnum - 1)
													  ->attname)),
						 state->is_array ? "ANY (" : "",
						 deparse_expression(lfirst(cell), context,
											list_length(es->rtable) > 1, false),
						 state->is_array ? ")" : "");
	}
	ExplainPropertyText("Key", keys.data, es);
}

static const CustomExecMethods exec_methods = {
	.CustomName = LOOKUP_NAME,
	.BeginCustomScan = begin_scan,
	.ExecCustomScan = exec_scan,
	.EndCustomScan = end_scan,
	.ReScanCustomScan = rescan,
	.ExplainCustomScan = explain,
};

/* CreateCustomScanState. */
static Node *
create_scan_state(CustomScan *scan)
{
	BddLookupState *state = (BddLookupState *) newNode(sizeof(BddLookupState),
													   T_CustomScanState);

	state->custom.methods = &exec_methods;
	return (Node *) state;
}

/* Called once, in the postmaster. */
void
bdd_lookup_init(void)
{
	RegisterCustomScanMethods(&scan_methods);
	previous_pathlist_hook = set_rel_pathlist_hook;
	set_rel_pathlist_hook = consider_lookups;
}
