/*-------------------------------------------------------------------------
 *
 * describe.c
 *		Building a BddTarget from the table and the target's options.
 *
 * What the options say was checked when they were set; the table may have
 * been altered since, by a server without batchdedup, too.  What does not fit
 * any more makes the target broken, and does not raise an error here: it is
 * described for DROP and alter_target as well.
 *
 *-------------------------------------------------------------------------
 */
#include "target/describe.h"

#include "base/compat.h"
#include "base/list.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "sql/catalog.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"

/* ---------- building ---------- */

bool
bdd_is_key_column(const BddTarget *target, AttrNumber attnum)
{
	for (int i = 0; i < target->key.count; i++)
		if (target->key.columns[i].attnum == attnum)
			return true;
	return false;
}

/* A column that is gone makes the target unusable until it is altered. */
static AttrNumber
option_column(BddTarget *target, const char *name)
{
	AttrNumber attnum = bdd_column_number(target->shape.desc, name);

	if (attnum == InvalidAttrNumber)
	{
		target->broken = BDD_LACKS_COLUMN;
		target->lacking = pstrdup(name);
	}
	return attnum;
}

/*
 * An expression that is not volatile is evaluated at the call, so that the row
 * has what its statement would have inserted.  Volatile ones and identities
 * are left to the INSERT of the apply.
 */
static void
describe_default(Relation rel, int i, BddTargetColumn *column)
{
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), i);
	Node *expr;

	column->generated = attribute->attgenerated != '\0';
	column->identity = attribute->attidentity != '\0';
	column->identity_always =
		attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS;
	if (attribute->attisdropped || column->generated)
		column->source = BDD_DEFAULT_NONE;
	else if (column->identity)
		column->source = BDD_DEFAULT_AT_APPLY;
	else if ((expr = build_column_default(rel, i + 1)) == NULL)
	{
		/* The server is to see that a domain does not accept NULL. */
		column->source = get_typtype(attribute->atttypid) == TYPTYPE_DOMAIN ?
							 BDD_DEFAULT_AT_APPLY :
							 BDD_DEFAULT_NULL;
	}
	else if (contain_volatile_functions(expr))
		column->source = BDD_DEFAULT_AT_APPLY;
	else
	{
		column->source = BDD_DEFAULT_AT_CALL;
		column->default_expr = (Expr *) expr;
	}
}

/* Looks into arrays and domains, too. */
static bool
has_composite(Oid type)
{
	Oid base = getBaseType(type);
	Oid element = get_element_type(base);

	if (OidIsValid(element))
		return has_composite(element);
	return get_typtype(base) == TYPTYPE_COMPOSITE;
}

/* Which columns an insert fills, and which of them it must be given. */
static void
describe_columns(BddTarget *target, Relation rel)
{
	BddShape *shape = &target->shape;
	int natts = shape->desc->natts;

	shape->set_bytes = (natts + 7) / 8;
	shape->update = palloc0(3 * shape->set_bytes);
	shape->insert = shape->update + shape->set_bytes;
	shape->required = shape->insert + shape->set_bytes;
	target->columns = palloc0(natts * sizeof(BddTargetColumn));
	target->plain_rows = true;
	for (int i = 0; i < natts; i++)
	{
		BddTargetColumn *column = &target->columns[i];

		describe_default(rel, i, column);
		if (column->generated || column->identity)
			target->plain_rows = false;
		if (!TupleDescAttr(shape->desc, i)->attisdropped &&
			has_composite(TupleDescAttr(shape->desc, i)->atttypid))
			target->nested_types = true;
		if (column->source == BDD_DEFAULT_NONE)
			continue;
		bdd_column_add(shape->insert, i);
		if (column->source == BDD_DEFAULT_NULL &&
			TupleDescAttr(shape->desc, i)->attnotnull)
			bdd_column_add(shape->required, i);
	}
}

/*
 * Without update_columns every column is overwritten, but for the key and what
 * the server alone may set.
 */
static void
describe_update_columns(BddTarget *target)
{
	BddShape *shape = &target->shape;
	ListCell *cell;

	foreach(cell, target->options.update_columns)
	{
		AttrNumber attnum = option_column(target, lfirst(cell));

		if (attnum != InvalidAttrNumber)
			bdd_column_add(shape->update, attnum - 1);
	}
	for (int i = 0; i < shape->desc->natts && target->options.default_update; i++)
		if (bdd_column_in(shape->insert, i) &&
			!target->columns[i].identity_always &&
			!bdd_is_key_column(target, i + 1))
			bdd_column_add(shape->update, i);
}

/* One column's rule. */
static void
describe_rule(BddTarget *target, const char *column, const char *name,
			  BddRule *rules)
{
	AttrNumber attnum = option_column(target, column);
	Form_pg_attribute attribute;
	BddRule *rule;
	char *problem;

	if (attnum == InvalidAttrNumber)
		return;
	attribute = TupleDescAttr(target->shape.desc, attnum - 1);
	rule = &rules[attnum - 1];
	problem = bdd_rule_describe(name, attribute->atttypid,
								attribute->atttypmod, attribute->attcollation,
								CurrentMemoryContext, rule);
	if (problem != NULL)
	{
		target->broken = BDD_LACKS_RULE;
		target->lacking = problem;
	}
	if (rule->kind == BDD_FIRST)
		bdd_column_remove(target->shape.update, attnum - 1);
	target->shape.calls |= rule->calls;
}

/* Rules by column; without any, shape.rules stays NULL. */
static void
describe_rules(BddTarget *target)
{
	BddShape *shape = &target->shape;
	BddRule *rules;
	ListCell *column;
	ListCell *name;

	shape->keeps_all = !target->options.coalesce_rows;
	if (target->options.merge_columns == NIL)
		return;
	rules = palloc0(shape->desc->natts * sizeof(BddRule));
	forboth(column, target->options.merge_columns, name,
			target->options.merge_rules)
		describe_rule(target, lfirst(column), lfirst(name), rules);
	shape->rules = rules;
}

/* Versions are compared as "max" compares values. */
static void
describe_version(BddTarget *target)
{
	BddShape *shape = &target->shape;
	AttrNumber attnum;
	Form_pg_attribute attribute;
	char *problem;

	shape->version = -1;
	if (target->options.version_column == NULL)
		return;
	attnum = option_column(target, target->options.version_column);
	if (attnum == InvalidAttrNumber)
		return;
	attribute = TupleDescAttr(shape->desc, attnum - 1);
	problem = bdd_rule_describe("max", attribute->atttypid,
								attribute->atttypmod, attribute->attcollation,
								CurrentMemoryContext, &shape->newer);
	if (problem != NULL)
	{
		target->broken = BDD_LACKS_RULE;
		target->lacking = problem;
	}
	shape->version = attnum - 1;
	shape->calls |= shape->newer.calls;
}

/*
 * A full row leaves nothing of an older one if it overwrites all columns and
 * cannot differ from it in how the key is spelled.
 */
static bool
full_row_covers(const BddTarget *target)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(target->shape.insert, i) &&
			!bdd_column_in(target->shape.update, i) &&
			!bdd_is_key_column(target, i + 1))
			return false;
	for (int i = 0; i < target->shape.desc->natts && target->shape.rules != NULL; i++)
		if (target->shape.rules[i].kind != BDD_LAST)
			return false;
	return target->shape.version < 0 && target->key.exact && target->key.one_spelling;
}

/* Without a key every row is another one, and its bytes tell that exactly. */
static void
describe_key(BddTarget *target, Relation rel)
{
	AttrNumber attnums[INDEX_MAX_KEYS];
	int count = 0;
	ListCell *cell;

	foreach(cell, target->options.key_columns)
		attnums[count++] = option_column(target, lfirst(cell));
	if (target->broken != BDD_USABLE)
		return;
	if (count == 0)
	{
		target->key.exact = target->key.one_spelling = true;
		target->shape.exact = true;
		return;
	}
	target->key_index = bdd_key_index(rel, attnums, count);
	if (!OidIsValid(target->key_index))
	{
		target->broken = BDD_LACKS_INDEX;
		return;
	}
	bdd_key_describe(rel, target->key_index, attnums, count, &target->key);
	target->shape.exact = target->key.exact;
}

/* A hash; two descriptors that have the same can exchange their tuples. */
uint32
bdd_fingerprint(TupleDesc desc)
{
	uint32 hash = desc->natts;

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		hash = hash_combine(hash, attribute->attisdropped ? 0 :
															attribute->atttypid);
		hash = hash_combine(hash, attribute->attlen);
		hash = hash_combine(hash, attribute->attisdropped ? 0 :
															attribute->atttypmod);
	}
	return hash;
}

/* Whether it is the trigger of create_redirect. */
bool
bdd_is_redirect(const Trigger *trigger)
{
	return strcmp(trigger->tgname, BDD_REDIRECT_TRIGGER) == 0 &&
		   bdd_is_function(trigger->tgfoid, "bdd_redirect");
}

/*
 * How the trigger of create_redirect is enabled, as in pg_trigger; '\0': there
 * is none.
 */
static char
redirect_of(const TriggerDesc *triggers)
{
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (bdd_is_redirect(&triggers->triggers[i]))
			return triggers->triggers[i].tgenabled;
	return '\0';
}

/*
 * The target of the open table, built in "context", which is the current one
 * and the target's own.
 */
BddTarget *
bdd_describe_target(Relation rel, const BddOptions *options, MemoryContext context)
{
	static uint64 last_serial = 0;
	BddTarget *target = palloc0(sizeof(BddTarget));

	target->serial = ++last_serial;
	target->relid = RelationGetRelid(rel);
	target->context = context;
	target->options = *options;
	target->row_type = rel->rd_rel->reltype;
	target->owner = rel->rd_rel->relowner;
	target->row_security = rel->rd_rel->relrowsecurity;
	target->redirect = redirect_of(rel->trigdesc);
	target->shape.desc = CreateTupleDescCopyConstr(RelationGetDescr(rel));
	describe_columns(target, rel);
	describe_key(target, rel);
	describe_update_columns(target);
	describe_rules(target);
	describe_version(target);
	target->shape.covers = full_row_covers(target);
	target->shape.fingerprint = bdd_fingerprint(target->shape.desc);
	target->valid = true;
	return target;
}

/* ---------- using it ---------- */

/* An error that says what is missing, if the target is broken. */
void
bdd_check_usable(const BddTarget *target)
{
	switch (target->broken)
	{
		case BDD_USABLE:
			break;
		case BDD_LACKS_COLUMN:
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of target \"%s\" does not exist any more",
							target->lacking, get_rel_name(target->relid)),
					 errhint("Change the target's columns with batchdedup.alter_target.")));
			break;
		case BDD_LACKS_INDEX:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("target \"%s\" has no unique index on its key any more",
							get_rel_name(target->relid)),
					 errhint("Create a unique index on the key columns, or name another key with batchdedup.alter_target.")));
			break;
		case BDD_LACKS_RULE:
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a merge rule of target \"%s\" does not fit its column any more",
							get_rel_name(target->relid)),
					 errdetail("%s", target->lacking),
					 errhint("Change the rules with batchdedup.alter_target. A function that is gone must come back first if rows are buffered.")));
			break;
	}
}

/*
 * Evaluates a default of kind BDD_DEFAULT_AT_CALL, as the caller.  Planning
 * may evaluate parts of it, so it is done here and not when the target is
 * built: then a worker would run the owner's functions as a superuser.
 */
void
bdd_target_default(BddTarget *target, int column, Datum *value, bool *isnull)
{
	BddTargetColumn *described = &target->columns[column];
	MemoryContext old_context;

	Assert(described->source == BDD_DEFAULT_AT_CALL);
	if (described->default_state == NULL)
	{
		old_context = MemoryContextSwitchTo(target->context);
		if (target->econtext == NULL)
			target->econtext = CreateStandaloneExprContext();
		described->default_state =
			ExecInitExpr(expression_planner(described->default_expr), NULL);
		MemoryContextSwitchTo(old_context);
	}
	*value = ExecEvalExpr(described->default_state, target->econtext, isnull);
}
