/*-------------------------------------------------------------------------
 *
 * import_bound.c
 *		The bounds of partitions that writers of an import load.
 *
 *-------------------------------------------------------------------------
 */
#include "import/import_bound.h"

#include "access/relation.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/pg_list.h"
#include "parser/parse_node.h"
#include "parser/parse_utilcmd.h"
#include "parser/parser.h"
#include "partitioning/partbounds.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/partcache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

/* ---------- as text ---------- */

/* Errors point into the bound, and not into the statement of the caller. */
static void
move_position(void *arg)
{
	int position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(arg);
	}
}

/* The bound as it stands in ATTACH PARTITION. */
static PartitionBoundSpec *
parse_bound(const char *bound)
{
	char *sql = psprintf("ALTER TABLE t ATTACH PARTITION p %s", bound);
	ErrorContextCallback context = {error_context_stack, move_position, sql};
	List *statements;
	AlterTableStmt *alter;
	AlterTableCmd *command;
	PartitionBoundSpec *spec = NULL;

	error_context_stack = &context;
	statements = raw_parser(sql, RAW_PARSE_DEFAULT);
	error_context_stack = context.previous;
	if (list_length(statements) == 1 &&
		IsA(linitial_node(RawStmt, statements)->stmt, AlterTableStmt))
	{
		alter = (AlterTableStmt *) linitial_node(RawStmt, statements)->stmt;
		command = linitial_node(AlterTableCmd, alter->cmds);
		if (list_length(alter->cmds) == 1 &&
			command->subtype == AT_AttachPartition)
			spec = ((PartitionCmd *) command->def)->bound;
	}
	if (spec == NULL || spec->is_default)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("not the bound of a partition: %s", bound),
				 errhint("Write for instance 'FOR VALUES FROM (1) TO (2)'.")));
	return spec;
}

/* A value of a bound, as SQL. */
static char *
constant_text(Node *constant)
{
	return deparse_expression(constant, NIL, false, false);
}

/* Of constants only. */
static char *
bound_text(const PartitionBoundSpec *spec)
{
	StringInfoData text;
	ListCell *cell;

	initStringInfo(&text);
	appendStringInfoString(&text, "FOR VALUES ");
	switch (spec->strategy)
	{
		case PARTITION_STRATEGY_HASH:
			appendStringInfo(&text, "WITH (MODULUS %d, REMAINDER %d)",
							 spec->modulus, spec->remainder);
			break;
		case PARTITION_STRATEGY_LIST:
			foreach(cell, spec->listdatums)
				appendStringInfo(&text, "%s%s", cell == list_head(spec->listdatums) ? "IN (" : ", ",
								 constant_text(lfirst(cell)));
			appendStringInfoChar(&text, ')');
			break;
		default:
			appendStringInfo(&text, "FROM %s TO %s",
							 get_range_partbound_string(spec->lowerdatums),
							 get_range_partbound_string(spec->upperdatums));
			break;
	}
	return text.data;
}

/* ---------- overlaps ---------- */

/* The order of two values, as the partitioned table compares them. */
static int
compare_values(PartitionKey key, int column, Node *a, Node *b)
{
	return DatumGetInt32(FunctionCall2Coll(&key->partsupfunc[column], key->partcollation[column],
										   castNode(Const, a)->constvalue,
										   castNode(Const, b)->constvalue));
}

/* An upper bound is below the lower one of the same values. */
static int
compare_ends(PartitionKey key, List *a, List *b)
{
	for (int i = 0; i < key->partnatts; i++)
	{
		PartitionRangeDatum *left = list_nth(a, i);
		PartitionRangeDatum *right = list_nth(b, i);
		int order;

		if (left->kind != right->kind)
			return left->kind < right->kind ? -1 : 1;
		if (left->kind != PARTITION_RANGE_DATUM_VALUE)
			break;
		order = compare_values(key, i, left->value, right->value);
		if (order != 0)
			return order;
	}
	return 0;
}

/* Whether both lists have a value in common; NULL is one, too. */
static bool
lists_overlap(PartitionKey key, List *a, List *b)
{
	ListCell *left;
	ListCell *right;

	foreach(left, a)
		foreach(right, b)
		{
			bool null = lfirst_node(Const, left)->constisnull;

			if (null != lfirst_node(Const, right)->constisnull)
				continue;
			if (null || compare_values(key, 0, lfirst(left), lfirst(right)) == 0)
				return true;
		}
	return false;
}

static int
common_divisor(int a, int b)
{
	return b == 0 ? a : common_divisor(b, a % b);
}

/*
 * Whether a row could belong to both.  Of hashes: whether both remainders are
 * the same modulo the common divisor.
 */
static bool
bounds_overlap(PartitionKey key, const PartitionBoundSpec *a,
			   const PartitionBoundSpec *b)
{
	switch (key->strategy)
	{
		case PARTITION_STRATEGY_HASH:
			return (a->remainder - b->remainder) %
					   common_divisor(a->modulus, b->modulus) ==
				   0;
		case PARTITION_STRATEGY_LIST:
			return lists_overlap(key, a->listdatums, b->listdatums);
		default:
			return compare_ends(key, a->lowerdatums, b->upperdatums) < 0 &&
				   compare_ends(key, b->lowerdatums, a->upperdatums) < 0;
	}
}

/* Whether a row could belong to both; each is one of bdd_bound_checked. */
bool
bdd_bounds_overlap(Oid relid, const char *a, const char *b)
{
	Relation rel = relation_open(relid, AccessShareLock);
	ParseState *state = make_parsestate(NULL);
	bool overlap = bounds_overlap(RelationGetPartitionKey(rel),
								  transformPartitionBound(state, rel, parse_bound(a)),
								  transformPartitionBound(state, rel, parse_bound(b)));

	relation_close(rel, AccessShareLock);
	return overlap;
}

/* ---------- checks ---------- */

/*
 * The bound of a partition of the table, with its expressions evaluated, and
 * the condition of its rows.  Partitions that the table has must not overlap.
 */
char *
bdd_bound_checked(Oid relid, char *name, const char *bound,
				  char **condition)
{
	Relation rel = relation_open(relid, AccessShareLock);
	ParseState *state = make_parsestate(NULL);
	PartitionBoundSpec *spec = parse_bound(bound);
	BddSavedRole exact;
	List *quals;
	char *text;

	spec = transformPartitionBound(state, rel, spec);
	check_new_partition_bound(name, rel, spec, state);
	quals = list_concat(get_qual_from_partbound(rel, spec),
						list_copy(RelationGetPartitionQual(rel)));
	/* As text that means the same to whoever adds it to a table. */
	GetUserIdAndSecContext(&exact.role, &exact.security);
	exact.guc_nesting = NewGUCNestLevel();
	(void) set_config_option("search_path", "pg_catalog, pg_temp", PGC_USERSET,
							 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	bdd_exact_output();
	text = bound_text(spec);
	*condition = quals == NIL ?
					 "true" :
					 deparse_expression((Node *) make_ands_explicit(quals),
										deparse_context_for(RelationGetRelationName(rel), relid),
										false, false);
	bdd_restore_role(&exact);
	relation_close(rel, AccessShareLock);
	return text;
}
