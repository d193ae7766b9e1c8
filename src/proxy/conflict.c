/*-------------------------------------------------------------------------
 *
 * conflict.c
 *		What an INSERT wants to happen to rows that exist.
 *
 * A trigger is not told what its statement's ON CONFLICT says.  So we keep
 * track of the statement that runs, and look at its plan.
 *
 *-------------------------------------------------------------------------
 */
#include "proxy/conflict.h"

#include "base/compat.h"
#include "catalog/partition.h"
#include "executor/executor.h"
#include "nodes/nodeFuncs.h"
#include "nodes/primnodes.h"
#include "parser/parsetree.h"
#include "sql/text.h"
#include "utils/lsyscache.h"

static ExecutorRun_hook_type previous_run_hook = NULL;
static ExecutorFinish_hook_type previous_finish_hook = NULL;

/* ---------- the statement that runs ---------- */

static PlannedStmt *running = NULL;

/* The innermost statement that runs in this backend, or NULL. */
PlannedStmt *
bdd_running_statement(void)
{
	return running;
}

/* For statements that the executor does not run; returns the outer one. */
PlannedStmt *
bdd_set_running_statement(PlannedStmt *planned)
{
	PlannedStmt *outer = running;

	running = planned;
	return outer;
}

/* Keeps track of the statement that runs, whatever ends it. */
static void
executor_run(BDD_EXECUTOR_RUN_PARAMETERS)
{
	PlannedStmt *outer = running;

	running = query->plannedstmt;
	PG_TRY();
	{
		if (previous_run_hook != NULL)
			previous_run_hook(BDD_EXECUTOR_RUN_ARGUMENTS);
		else
			standard_ExecutorRun(BDD_EXECUTOR_RUN_ARGUMENTS);
	}
	PG_FINALLY();
	{
		running = outer;
	}
	PG_END_TRY();
}

/* Modifying CTEs that nobody reads run here. */
static void
executor_finish(QueryDesc *query)
{
	PlannedStmt *outer = running;

	running = query->plannedstmt;
	PG_TRY();
	{
		if (previous_finish_hook != NULL)
			previous_finish_hook(query);
		else
			standard_ExecutorFinish(query);
	}
	PG_FINALLY();
	{
		running = outer;
	}
	PG_END_TRY();
}

/* Called once, in the postmaster. */
void
bdd_conflict_init(void)
{
	previous_run_hook = ExecutorRun_hook;
	ExecutorRun_hook = executor_run;
	previous_finish_hook = ExecutorFinish_hook;
	ExecutorFinish_hook = executor_finish;
}

/* ---------- what its plan says ---------- */

/* Whether the index is the one, or that of a partition. */
static bool
is_index_of(Oid index, Oid key_index)
{
	return index == key_index ||
		   (get_rel_relispartition(index) &&
			list_member_oid(get_partition_ancestors(index), key_index));
}

/* Whether the conflicts that are meant are those of the target's key. */
static bool
means_key(ModifyTable *plan, const BddTarget *target)
{
	return list_length(plan->arbiterIndexes) == 1 &&
		   is_index_of(linitial_oid(plan->arbiterIndexes), target->key_index);
}

/* A column that is set: in the table that is written, and in the target. */
typedef struct BddAssigned
{
	int stored; /* the table's varno */
	AttrNumber attnum;
	Form_pg_attribute attribute;
	const BddRule *rule; /* NULL: "last" */
} BddAssigned;

/* Whether the expression is the assigned column of that relation. */
static bool
is_column(Node *node, int varno, const BddAssigned *assigned)
{
	Var *var;

	/* A domain's value, for an operator. */
	if (IsA(node, RelabelType))
		node = (Node *) ((RelabelType *) node)->arg;
	var = (Var *) node;
	return IsA(var, Var) && var->varno == varno &&
		   var->varattno == assigned->attnum;
}

/*
 * Whether the expression is EXCLUDED.column; EXCLUDED is the inner relation.
 */
static bool
is_excluded(Node *node, const BddAssigned *assigned)
{
	return is_column(node, INNER_VAR, assigned);
}

/* Whether the expression is the column of the row in the table. */
static bool
is_stored(Node *node, const BddAssigned *assigned)
{
	return is_column(node, assigned->stored, assigned);
}

/* The table's value and the new one; "swapped": or the other way round. */
static bool
are_both(List *args, bool swapped, const BddAssigned *assigned)
{
	return list_length(args) == 2 &&
		   ((is_stored(linitial(args), assigned) &&
			 is_excluded(lsecond(args), assigned)) ||
			(swapped && is_excluded(linitial(args), assigned) &&
			 is_stored(lsecond(args), assigned)));
}

/* What is brought into the column, without the check that it fits. */
static Node *
before_coercion(Node *value, const BddAssigned *assigned)
{
	int32 typmod;

	if (IsA(value, CoerceToDomain))
		value = (Node *) ((CoerceToDomain *) value)->arg;
	if (IsA(value, FuncExpr) &&
		((FuncExpr *) value)->funcformat == COERCE_IMPLICIT_CAST &&
		exprIsLengthCoercion(value, &typmod) && typmod >= 0)
		value = linitial(((FuncExpr *) value)->args);
	return value;
}

/* With a NULL a sum is NULL, but the rule takes the other value. */
static bool
says_sum(Node *value, const BddAssigned *assigned)
{
	OpExpr *sum = (OpExpr *) value;

	return IsA(value, OpExpr) && assigned->attribute->attnotnull &&
		   sum->opno == bdd_rule_sum_operator(getBaseType(assigned->attribute->atttypid)) &&
		   are_both(sum->args, get_commutator(sum->opno) == sum->opno,
					assigned);
}

/* Of equal values the first stays. */
static bool
says_extreme(Node *value, const BddAssigned *assigned)
{
	MinMaxExpr *extreme = (MinMaxExpr *) value;

	return IsA(value, MinMaxExpr) &&
		   extreme->op == (assigned->rule->kind == BDD_MIN ? IS_LEAST :
															 IS_GREATEST) &&
		   extreme->inputcollid == assigned->attribute->attcollation &&
		   are_both(extreme->args,
					assigned->rule->fixed != BDD_NOT_FIXED ||
						bdd_equal_is_same(assigned->attribute),
					assigned);
}

/* COALESCE(EXCLUDED.column, table.column) */
static bool
says_coalesce(Node *value, const BddAssigned *assigned)
{
	List *args = IsA(value, CoalesceExpr) ? ((CoalesceExpr *) value)->args :
											NIL;

	return list_length(args) == 2 && is_excluded(linitial(args), assigned) &&
		   is_stored(lsecond(args), assigned);
}

/* Whether the value is what the column's rule makes of the two. */
static bool
says_rule(Node *value, const BddAssigned *assigned)
{
	BddRuleKind kind = assigned->rule != NULL ? assigned->rule->kind : BDD_LAST;

	switch (kind)
	{
		case BDD_SUM:
			return says_sum(before_coercion(value, assigned), assigned);
		case BDD_MIN:
		case BDD_MAX:
			return says_extreme(value, assigned);
		case BDD_COALESCE:
			return says_coalesce(value, assigned);
		case BDD_LAST:   /* EXCLUDED.c alone, which the caller looks for */
		case BDD_FIRST:  /* of no column that is updated */
		case BDD_CONCAT: /* no expression is taken for these */
		case BDD_FUNCTION:
			break;
	}
	return false;
}

/*
 * What is set of that table, as the target's columns: SET column =
 * EXCLUDED.column, or what the column's rule says.  A column that keeps its
 * first value may be set to the value that it has.  False: something else is
 * set.
 */
static bool
take_assignments(ModifyTable *plan, Oid written, const BddTarget *target,
				 BddColumns *update)
{
	ListCell *column;
	ListCell *entry;

	forboth(column, plan->onConflictCols, entry, plan->onConflictSet)
	{
		Node *value = (Node *) lfirst_node(TargetEntry, entry)->expr;
		AttrNumber attnum = get_attnum(target->relid,
									   get_attname(written, lfirst_int(column),
												   false));
		BddAssigned assigned = {linitial_int(plan->resultRelations),
								lfirst_int(column)};

		if (attnum == InvalidAttrNumber)
			return false;
		assigned.attribute = TupleDescAttr(target->shape.desc, attnum - 1);
		if (target->shape.rules != NULL)
			assigned.rule = &target->shape.rules[attnum - 1];
		if (IsA(value, Var) && is_stored(value, &assigned) &&
			!bdd_column_in(target->shape.update, attnum - 1))
			continue;
		if (!(IsA(value, Var) && is_excluded(value, &assigned)) &&
			!says_rule(value, &assigned))
			return false;
		bdd_column_add(update, attnum - 1);
	}
	return true;
}

/* What one ModifyTable node does with rows that exist. */
static BddConflict
read_plan(ModifyTable *plan, Oid written, const BddTarget *target)
{
	BddConflict conflict = {BDD_CONFLICT_OTHER, NULL};

	/*
	 * What MERGE does with a row depends on whether the table has it.  UPDATE
	 * inserts the rows that it moves to another partition.
	 */
	if (plan->operation != CMD_INSERT)
		return conflict;
	switch (plan->onConflictAction)
	{
		case ONCONFLICT_NONE:
			conflict.kind = BDD_CONFLICT_NONE;
			break;
		case ONCONFLICT_NOTHING:
			if (plan->arbiterIndexes == NIL || means_key(plan, target))
				conflict.kind = BDD_CONFLICT_NOTHING;
			break;
		case ONCONFLICT_UPDATE:
			conflict.update = palloc0(target->shape.set_bytes);
			if (plan->onConflictWhere == NULL && means_key(plan, target) &&
				take_assignments(plan, written, target, conflict.update))
				conflict.kind = BDD_CONFLICT_UPDATE;
			break;
		default:
			break;
	}
	return conflict;
}

/* Whether two parts of a statement want the same for rows that exist. */
static bool
is_same(const BddConflict *a, const BddConflict *b, const BddTarget *target)
{
	return a->kind == b->kind &&
		   (a->kind != BDD_CONFLICT_UPDATE ||
			memcmp(a->update, b->update, target->shape.set_bytes) == 0);
}

/*
 * What the statement says of rows that come into the relation, which is the
 * target or a partition of it.  Parts that say different things are too much
 * for a trigger that cannot tell them apart.
 */
BddConflict
bdd_conflict_of(PlannedStmt *planned, Oid relid, const BddTarget *target)
{
	BddConflict conflict = {BDD_CONFLICT_NONE, NULL};
	List *named = list_make1_oid(relid);
	bool is_partition = get_rel_relispartition(relid);
	List *plans;
	bool found = false;
	ListCell *cell;

	if (planned == NULL || planned->commandType == CMD_UTILITY)
		return conflict;
	if (is_partition)
		named = list_concat(named, get_partition_ancestors(relid));
	plans = lcons(planned->planTree, list_copy(planned->subplans));
	foreach(cell, plans)
	{
		ModifyTable *plan = lfirst(cell);
		BddConflict other;
		Oid written;

		if (plan == NULL || !IsA(plan, ModifyTable) ||
			!(plan->operation == CMD_INSERT || plan->operation == CMD_MERGE ||
			  (plan->operation == CMD_UPDATE && is_partition)))
			continue;
		written = rt_fetch(plan->rootRelation > 0 ? plan->rootRelation :
													linitial_int(plan->resultRelations),
						   planned->rtable)
					  ->relid;
		if (!list_member_oid(named, written))
			continue;
		other = read_plan(plan, written, target);
		if (found && !is_same(&conflict, &other, target))
			other.kind = BDD_CONFLICT_OTHER;
		conflict = other;
		found = true;
	}
	return conflict;
}
