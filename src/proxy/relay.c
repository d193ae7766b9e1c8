/*-------------------------------------------------------------------------
 *
 * relay.c
 *		Relations whose triggers hand rows on to a target.
 *
 * These are views of create_view, and tables with a redirect and their
 * partitions.  Which target is meant is not stored, so that it survives dumps
 * and renames: it follows from the view's definition, or from the partition's
 * ancestors.
 *
 *-------------------------------------------------------------------------
 */
#include "proxy/relay.h"

#include "access/relation.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "ingest/push.h"
#include "nodes/nodeFuncs.h"
#include "read/read.h"
#include "rewrite/rewriteHandler.h"
#include "sql/catalog.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* ---------- the definition of a view ---------- */

/* The first argument of overlaid(), which is the table. */
static bool
find_overlaid(Node *node, Oid *table)
{
	FuncExpr *call = (FuncExpr *) node;

	if (node == NULL)
		return false;
	if (IsA(node, FuncExpr) && call->args != NIL &&
		IsA(linitial(call->args), Const) &&
		bdd_is_function(call->funcid, "bdd_overlaid"))
	{
		*table = DatumGetObjectId(((Const *) linitial(call->args))->constvalue);
		return true;
	}
	return expression_tree_walker(node, find_overlaid, table);
}

/* The subquery that FROM has, beside what the server keeps for a rule. */
static Query *
only_subquery(Query *query)
{
	ListCell *cell;

	foreach(cell, query->rtable)
		if (lfirst_node(RangeTblEntry, cell)->rtekind == RTE_SUBQUERY)
			return lfirst_node(RangeTblEntry, cell)->subquery;
	return NULL;
}

/*
 * Reads the definition of a view: SELECT columns FROM (SELECT columns FROM
 * table UNION ALL ...) WHERE NOT overlaid(table, ...).  False: create_view has
 * not made it.
 */
bool
bdd_view_definition(Query *query, Oid *table, int natts, AttrNumber *columns)
{
	Query *both = only_subquery(query);
	Query *stored = both != NULL ? only_subquery(both) : NULL;
	ListCell *cell;
	int i = 0;

	if (stored == NULL || query->jointree == NULL ||
		!find_overlaid(query->jointree->quals, table))
		return false;
	foreach(cell, query->targetList)
	{
		TargetEntry *entry = lfirst_node(TargetEntry, cell);
		Var *var = (Var *) entry->expr;

		if (entry->resjunk || i >= natts)
			continue;
		if (!IsA(var, Var) || var->varattno < 1 ||
			var->varattno > list_length(stored->targetList))
			return false;
		entry = list_nth_node(TargetEntry, stored->targetList, var->varattno - 1);
		var = (Var *) entry->expr;
		columns[i++] = IsA(var, Var) ? var->varattno : 0;
	}
	return i == natts;
}

/* ---------- what is known of relations ---------- */

typedef struct BddRelayEntry
{
	Oid relid;
	bool valid;
	Oid table;
	int natts;
	AttrNumber *columns;
} BddRelayEntry;

static HTAB *relays = NULL;

/* The relcache tells of a change: of one relation, or (InvalidOid) of any. */
static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	BddRelayEntry *entry;

	if (OidIsValid(relid))
	{
		entry = hash_search(relays, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			entry->valid = false;
		return;
	}
	hash_seq_init(&scan, relays);
	while ((entry = hash_seq_search(&scan)) != NULL)
		entry->valid = false;
}

/* Made at the first use in a session. */
static void
init_cache(void)
{
	HASHCTL control;

	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(BddRelayEntry);
	relays = hash_create("batchdedup relays", 64, &control,
						 HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
}

/* The table itself, or the one of which it is a partition. */
static Oid
target_of_table(Relation rel)
{
	BddOptions options;
	ListCell *cell;

	if (bdd_options_read(RelationGetRelid(rel), &options))
		return RelationGetRelid(rel);
	if (rel->rd_rel->relispartition)
		foreach(cell, get_partition_ancestors(RelationGetRelid(rel)))
			if (bdd_options_read(lfirst_oid(cell), &options))
				return lfirst_oid(cell);
	return InvalidOid;
}

/* The columns of the table with the names that a partition's have. */
static void
map_by_name(Relation rel, Oid table, AttrNumber *columns)
{
	for (int i = 0; i < RelationGetNumberOfAttributes(rel); i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel), i);

		columns[i] = attribute->attisdropped ?
						 0 :
						 get_attnum(table, NameStr(attribute->attname));
	}
}

/*
 * Finds the table behind the relation, and which of its columns each column
 * is.
 */
static void
look_up(Relation rel, BddRelayEntry *entry)
{
	int natts = RelationGetNumberOfAttributes(rel);
	AttrNumber *columns = MemoryContextAllocZero(TopMemoryContext,
												 Max(natts, 1) * sizeof(AttrNumber));

	if (entry->columns != NULL)
		pfree(entry->columns);
	entry->columns = columns;
	entry->natts = natts;
	entry->table = InvalidOid;
	entry->valid = true; /* unless news come from here on */
	if (rel->rd_rel->relkind == RELKIND_VIEW)
	{
		if (!bdd_view_definition(get_view_query(rel), &entry->table, natts,
								 columns))
			entry->table = InvalidOid;
		return;
	}
	entry->table = target_of_table(rel);
	if (OidIsValid(entry->table))
		map_by_name(rel, entry->table, columns);
	else
		entry->valid = false; /* nobody tells us if an ancestor becomes a target */
}

/* What is known of the relation, looked up anew after a change. */
static BddRelayEntry *
entry_of(Relation rel)
{
	Oid relid = RelationGetRelid(rel);
	BddRelayEntry *entry;
	bool found;

	if (relays == NULL)
		init_cache();
	entry = hash_search(relays, &relid, HASH_ENTER, &found);
	if (!found)
	{
		entry->valid = false;
		entry->columns = NULL;
	}
	if (!entry->valid)
		look_up(rel, entry);
	return entry;
}

/* Whether a tuple of the relation is one of the table, byte for byte. */
static bool
has_same_shape(const BddRelay *relay, Relation rel)
{
	TupleDesc desc = RelationGetDescr(rel);
	TupleDesc table = relay->target->shape.desc;

	if (relay->natts != table->natts)
		return false;
	for (int i = 0; i < relay->natts; i++)
		if (relay->columns[i] != i + 1 ||
			TupleDescAttr(desc, i)->atttypid != TupleDescAttr(table, i)->atttypid ||
			TupleDescAttr(desc, i)->attlen != TupleDescAttr(table, i)->attlen ||
			TupleDescAttr(desc, i)->attalign != TupleDescAttr(table, i)->attalign)
			return false;
	return true;
}

/* The table whose target is behind the relation, or InvalidOid. */
Oid
bdd_relay_table(Oid relid)
{
	Relation rel = relation_open(relid, AccessShareLock);
	Oid table = entry_of(rel)->table;

	relation_close(rel, AccessShareLock);
	return table;
}

/*
 * The target behind the relation, remembered by the trigger for its
 * statement.  The table is locked for writing.
 */
BddRelay *
bdd_relay_of(FunctionCallInfo fcinfo, Relation rel)
{
	BddRelay *relay = fcinfo->flinfo->fn_extra;
	MemoryContext old_context;
	BddRelayEntry *entry;

	if (relay != NULL && (relay->target != NULL ? relay->target->valid :
												  !OidIsValid(relay->table)))
		return relay;
	entry = entry_of(rel);
	relay = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(BddRelay));
	relay->table = entry->table;
	relay->natts = entry->natts;
	relay->columns = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt,
										Max(entry->natts, 1) * sizeof(AttrNumber));
	memcpy(relay->columns, entry->columns, entry->natts * sizeof(AttrNumber));
	if (OidIsValid(relay->table) && bdd_preloaded)
	{
		LockRelationOid(relay->table, RowExclusiveLock);
		relay->target = bdd_target_lookup(relay->table);
	}
	if (relay->target != NULL && relay->target->broken == BDD_USABLE)
	{
		relay->same_shape = has_same_shape(relay, rel);
		old_context = MemoryContextSwitchTo(fcinfo->flinfo->fn_mcxt);
		if (rel->rd_rel->relkind != RELKIND_VIEW)
			relay->conflict = bdd_conflict_of(bdd_running_statement(),
											  RelationGetRelid(rel),
											  relay->target);
		MemoryContextSwitchTo(old_context);
	}
	fcinfo->flinfo->fn_extra = relay;
	return relay;
}

/* ---------- rows ---------- */

/* The tuple's values at their places in the table's row. */
static void
deform(const BddRelay *relay, Relation rel, HeapTuple tuple, BddValues *row)
{
	Datum *values = palloc(relay->natts * sizeof(Datum));
	bool *isnull = palloc(relay->natts * sizeof(bool));

	bdd_values_init(relay->target, row);
	heap_deform_tuple(tuple, RelationGetDescr(rel), values, isnull);
	for (int i = 0; i < relay->natts; i++)
	{
		int column = relay->columns[i] - 1;

		if (column < 0)
			continue;
		row->values[column] = values[i];
		row->isnull[column] = isnull[i];
	}
}

/* What RETURNING shows: the row with what the server computes. */
static HeapTuple
form(const BddRelay *relay, Relation rel, BddValues *row)
{
	Datum *values = palloc(relay->natts * sizeof(Datum));
	bool *isnull = palloc(relay->natts * sizeof(bool));

	bdd_compute_generated(relay->target, row->values, row->isnull);
	for (int i = 0; i < relay->natts; i++)
	{
		int column = relay->columns[i] - 1;

		values[i] = column < 0 ? (Datum) 0 : row->values[column];
		isnull[i] = column < 0 || row->isnull[column];
	}
	return heap_form_tuple(RelationGetDescr(rel), values, isnull);
}

/* Upserts a row that gives every column; returns it as it is seen. */
HeapTuple
bdd_relay_insert(BddRelay *relay, Relation rel, HeapTuple tuple)
{
	BddTarget *target = relay->target;
	BddValues row;

	if (relay->same_shape && target->plain_rows)
	{
		bdd_push_tuple(target, tuple);
		return tuple;
	}
	deform(relay, rel, tuple, &row);
	for (int i = 0; i < relay->natts; i++)
		if (relay->columns[i] > 0)
			bdd_values_give(target, &row, relay->columns[i] - 1);
	row.take_identities = true;
	bdd_push_values(target, &row);
	return target->plain_rows ? tuple : form(relay, rel, &row);
}

/* Whether the row overwrites all that it may. */
static bool
overwrites_all(const BddRelay *relay)
{
	const BddShape *shape = &relay->target->shape;

	if (relay->conflict.kind == BDD_CONFLICT_NONE)
		return true;
	for (int i = 0; i < shape->set_bytes; i++)
		if (relay->conflict.kind != BDD_CONFLICT_UPDATE ||
			(shape->update[i] & ~relay->conflict.update[i]) != 0)
			return false;
	return true;
}

/*
 * Whether the column's value is only for a row that is inserted: ON CONFLICT
 * does not set it, or the server has generated it.
 */
static bool
is_first_value(const BddRelay *relay, int column)
{
	const BddTarget *target = relay->target;

	if (bdd_is_key_column(target, column + 1) || target->columns[column].generated)
		return false;
	return target->columns[column].identity ||
		   relay->conflict.kind == BDD_CONFLICT_NOTHING ||
		   (relay->conflict.kind == BDD_CONFLICT_UPDATE &&
			!bdd_column_in(relay->conflict.update, column));
}

/* Upserts a row that the server has completed. */
void
bdd_relay_redirect(BddRelay *relay, Relation rel, HeapTuple tuple)
{
	BddTarget *target = relay->target;
	BddValues row;

	if (relay->same_shape && target->plain_rows && overwrites_all(relay))
	{
		bdd_push_tuple(target, tuple);
		return;
	}
	deform(relay, rel, tuple, &row);
	for (int i = 0; i < relay->natts; i++)
	{
		int column = relay->columns[i] - 1;

		if (column < 0)
			continue;
		if (is_first_value(relay, column))
			bdd_column_add(row.first, column);
		else
			bdd_values_give(target, &row, column);
	}
	bdd_push_values(target, &row);
}

/* Whether UPDATE may change the column of a row that exists. */
static void
check_updatable(const BddTarget *target, int column)
{
	const char *name = NameStr(TupleDescAttr(target->shape.desc, column)->attname);

	if (bdd_is_key_column(target, column + 1))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change key column \"%s\" of target \"%s\" through its view",
						name, get_rel_name(target->relid)),
				 errhint("Delete the row and insert another one.")));
	if (!target->columns[column].generated &&
		!bdd_column_in(target->shape.update, column))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change column \"%s\" of target \"%s\" through its view",
						name, get_rel_name(target->relid)),
				 errdetail("It keeps its first value: it is not among the target's update columns."),
				 errhint("Name it in update_columns with batchdedup.alter_target, or update the table itself.")));
	if (target->shape.rules != NULL &&
		target->shape.rules[column].kind != BDD_LAST)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("cannot change column \"%s\" of target \"%s\" through its view",
						name, get_rel_name(target->relid)),
				 errdetail("Its merge rule would combine the new value with the old one."),
				 errhint("Upsert what is to be combined, or update the table itself.")));
}

/* Upserts the columns that differ. */
HeapTuple
bdd_relay_update(BddRelay *relay, Relation rel, HeapTuple old, HeapTuple new)
{
	BddTarget *target = relay->target;
	bool changed = false;
	BddValues before;
	BddValues after;

	deform(relay, rel, old, &before);
	deform(relay, rel, new, &after);
	for (int i = 0; i < relay->natts; i++)
	{
		int column = relay->columns[i] - 1;
		Form_pg_attribute attribute;

		if (column < 0)
			continue;
		attribute = TupleDescAttr(target->shape.desc, column);
		if (before.isnull[column] == after.isnull[column] &&
			(before.isnull[column] ||
			 datum_image_eq(before.values[column], after.values[column],
							attribute->attbyval, attribute->attlen)))
			continue;
		check_updatable(target, column);
		bdd_values_give(target, &after, column);
		changed = true;
	}
	if (!changed)
		return new;
	for (int i = 0; i < target->key.count; i++)
		bdd_values_give(target, &after, target->key.columns[i].attnum - 1);
	if (target->shape.version >= 0)
		bdd_values_give(target, &after, target->shape.version);
	bdd_push_values(target, &after);
	if (target->plain_rows)
		return new;
	deform(relay, rel, new, &after);
	return form(relay, rel, &after);
}

/* Deletes by key. */
void
bdd_relay_delete(BddRelay *relay, Relation rel, HeapTuple old)
{
	BddTarget *target = relay->target;
	BddValues row;

	deform(relay, rel, old, &row);
	for (int i = 0; i < target->key.count; i++)
		bdd_values_give(target, &row, target->key.columns[i].attnum - 1);
	bdd_push_delete(target, &row);
}
