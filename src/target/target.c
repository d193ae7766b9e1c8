/*-------------------------------------------------------------------------
 *
 * target.c
 *		Targets as a backend sees them: the catalog row and the table.
 *
 * Who uses a BddTarget holds a lock on the table; taking it has processed the
 * invalidations that alter_target, drop_target and DDL have sent for the
 * table.
 *
 *-------------------------------------------------------------------------
 */
#include "target/target.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/list.h"
#include "base/loaded.h"
#include "buffer/generation.h"
#include "buffer/slot.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_language.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "commit/pending.h"
#include "common/hashfn.h"
#include "executor/executor.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "rewrite/rewriteHandler.h"
#include "sql/catalog.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/rls.h"
#include "utils/snapmgr.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

typedef struct BddTargetEntry
{
	Oid relid;
	bool known_not; /* looked up, and no target */
	BddTarget *target;
} BddTargetEntry;

static HTAB *target_cache = NULL;
static BddTarget *retired_targets = NULL;
static BddTarget *last_of_row_type = NULL;
static uint64 invalidations = 0;

/* ---------- building ---------- */

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

static void
describe_default(Relation rel, int i, BddColumn *column)
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

static bool
has_composite(Oid type)
{
	Oid base = getBaseType(type);
	Oid element = get_element_type(base);

	if (OidIsValid(element))
		return has_composite(element);
	return get_typtype(base) == TYPTYPE_COMPOSITE;
}

static void
describe_columns(BddTarget *target, Relation rel)
{
	BddShape *shape = &target->shape;
	int natts = shape->desc->natts;

	shape->set_bytes = (natts + 7) / 8;
	shape->update = palloc0(3 * shape->set_bytes);
	shape->insert = shape->update + shape->set_bytes;
	shape->required = shape->insert + shape->set_bytes;
	target->columns = palloc0(natts * sizeof(BddColumn));
	target->plain_rows = true;
	for (int i = 0; i < natts; i++)
	{
		BddColumn *column = &target->columns[i];

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

bool
bdd_is_key_column(const BddTarget *target, AttrNumber attnum)
{
	for (int i = 0; i < target->key.count; i++)
		if (target->key.columns[i].attnum == attnum)
			return true;
	return false;
}

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

/* What two descriptors have in common whose tuples can be exchanged. */
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

static char
redirect_of(const TriggerDesc *triggers)
{
	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		if (bdd_is_redirect(&triggers->triggers[i]))
			return triggers->triggers[i].tgenabled;
	return '\0';
}

/* Builds the target in a memory context of its own. */
static BddTarget *
build_target(Relation rel, const BddOptions *options, MemoryContext context)
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

static BddTarget *
load_target(Oid relid)
{
	Relation rel = relation_open(relid, AccessShareLock);
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "batchdedup target",
												  ALLOCSET_SMALL_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	BddOptions options;
	BddTarget *target = NULL;

	if (bdd_options_read(relid, &options))
	{
		target = build_target(rel, &options, context);
		MemoryContextSetParent(context, TopMemoryContext);
	}
	MemoryContextSwitchTo(old_context);
	if (target == NULL)
		MemoryContextDelete(context);
	relation_close(rel, AccessShareLock);
	return target;
}

/* ---------- cache ---------- */

static void
invalidate_one(BddTargetEntry *entry)
{
	entry->known_not = false;
	if (entry->target != NULL)
		entry->target->valid = false;
}

/* relid InvalidOid: everything. */
static void
relation_changed(Datum arg, Oid relid)
{
	HASH_SEQ_STATUS scan;
	BddTargetEntry *entry;

	invalidations++;
	if (OidIsValid(relid))
	{
		entry = hash_search(target_cache, &relid, HASH_FIND, NULL);
		if (entry != NULL)
			invalidate_one(entry);
		return;
	}
	hash_seq_init(&scan, target_cache);
	while ((entry = hash_seq_search(&scan)) != NULL)
		invalidate_one(entry);
}

/* Roles changed: what was found out about privileges may be wrong. */
static void
roles_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	HASH_SEQ_STATUS scan;
	BddTargetEntry *entry;

	hash_seq_init(&scan, target_cache);
	while ((entry = hash_seq_search(&scan)) != NULL)
		if (entry->target != NULL)
			entry->target->trusted_role = InvalidOid;
}

/* A function changed, on which a default may depend. */
static void
functions_changed(Datum arg, int cacheid, uint32 hashvalue)
{
	relation_changed((Datum) 0, InvalidOid);
}

static void
init_cache(void)
{
	HASHCTL control;

	control.keysize = sizeof(Oid);
	control.entrysize = sizeof(BddTargetEntry);
	target_cache = hash_create("batchdedup targets", 64, &control,
							   HASH_ELEM | HASH_BLOBS);
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHMEMROLEMEM, roles_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(AUTHOID, roles_changed, (Datum) 0);
	CacheRegisterSyscacheCallback(PROCOID, functions_changed, (Datum) 0);
}

/*
 * Old targets go when the transaction that retired them is over: until then
 * pending rows refer to them, and calls further up the stack.
 */
static void
free_retired(void)
{
	LocalTransactionId now = bdd_my_vxid().localTransactionId;
	BddTarget **link = &retired_targets;

	while (*link != NULL)
	{
		BddTarget *target = *link;

		if (target->retired_in == now)
			link = &target->retired;
		else
		{
			*link = target->retired;
			MemoryContextDelete(target->context);
		}
	}
}

static void
retire(BddTarget *target)
{
	target->retired = retired_targets;
	target->retired_in = bdd_my_vxid().localTransactionId;
	retired_targets = target;
}

/*
 * The target of a table, or NULL if it is none.  The caller holds a lock on
 * the table.
 */
BddTarget *
bdd_target_lookup(Oid relid)
{
	BddTargetEntry *entry;
	BddTarget *target;
	uint64 seen;
	bool found;

	if (target_cache == NULL)
		init_cache();
	entry = hash_search(target_cache, &relid, HASH_FIND, NULL);
	if (entry != NULL && entry->target != NULL && entry->target->valid)
		return entry->target;

	free_retired();
	seen = invalidations;
	target = load_target(relid);
	if (target != NULL && seen != invalidations)
		target->valid = false; /* news came while it was built */
	entry = hash_search(target_cache, &relid, HASH_ENTER, &found);
	if (found && entry->target != NULL)
		retire(entry->target);
	last_of_row_type = NULL;
	entry->target = target;
	entry->known_not = target == NULL && seen == invalidations;
	return target;
}

/* Quick, for who asks about every table that is written. */
bool
bdd_is_known_not_target(Oid relid)
{
	BddTargetEntry *entry = NULL;

	if (target_cache != NULL)
		entry = hash_search(target_cache, &relid, HASH_FIND, NULL);

	return entry != NULL && entry->known_not;
}

/*
 * Locks the table and returns its target, even if that cannot be used as it
 * is; an error if it is none.
 */
BddTarget *
bdd_target_open_any(Oid relid, LOCKMODE lockmode)
{
	BddTarget *target;

	bdd_check_preloaded();
	LockRelationOid(relid, lockmode);
	if (!SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("relation with OID %u does not exist", relid)));
	target = bdd_target_lookup(relid);
	if (target == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" is not a target of batchdedup",
						get_rel_name(relid)),
				 errhint("SELECT batchdedup.create_target(%s);",
						 quote_literal_cstr(bdd_qualified_name(relid)))));
	return target;
}

/* The same, and the target can be used. */
BddTarget *
bdd_target_open(Oid relid, LOCKMODE lockmode)
{
	BddTarget *target = bdd_target_open_any(relid, lockmode);

	bdd_check_usable(target);
	return target;
}

/* The target whose table has the row type, locked for writing. */
BddTarget *
bdd_target_of_row_type(Oid row_type)
{
	BddTarget *last = last_of_row_type;
	Oid relid;

	bdd_check_preloaded();
	if (last != NULL && last->row_type == row_type)
	{
		LockRelationOid(last->relid, RowExclusiveLock);
		/* The lock may have brought news; then this one is retired. */
		if (last == last_of_row_type && last->valid)
			return last;
	}
	relid = get_typ_typrelid(row_type);
	if (!OidIsValid(relid) || get_rel_relkind(relid) == RELKIND_COMPOSITE_TYPE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("the row is of type %s, which is not a table's row type",
						format_type_be(row_type)),
				 errhint("Cast it, as in ROW(...)::my_table, or use batchdedup.upsert_record.")));
	last_of_row_type = NULL;
	last = bdd_target_open(relid, RowExclusiveLock);
	last_of_row_type = last;
	return last;
}

/*
 * Whether the slot is of no target: its create_target was rolled back.  The
 * lock conflicts with that of a create_target that may still commit, and with
 * that of writers.
 */
static bool
is_orphan(int32 target_id, Oid relid)
{
	BddOptions options;

	if (bdd_options_read(relid, &options) && options.target_id == target_id)
		return false;
	if (!ConditionalLockRelationOid(relid, ShareRowExclusiveLock))
		return false;
	return !(bdd_options_read(relid, &options) &&
			 options.target_id == target_id);
}

/* Frees the slots of this database that are of no target. */
void
bdd_free_orphans(void)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];
		int32 target_id = slot->target_id;

		if (slot->in_use && slot->database == MyDatabaseId &&
			is_orphan(target_id, slot->relid))
			bdd_slot_free(slot, MyDatabaseId, target_id);
	}
}

/* The target's slot in shared memory; NULL: it has none, so it has no rows. */
BddSharedSlot *
bdd_target_find_slot(BddTarget *target)
{
	int32 id = target->options.target_id;

	if (target->slot != NULL)
		return target->slot;
	bdd_journal_wait_replayed();
	target->slot = bdd_slot_find(id, target->relid);
	if (target->slot != NULL && target->slot->loaded)
		bdd_slot_reconcile(target->slot, bdd_mark_read(id, NULL));
	return target->slot;
}

/*
 * Part of the journal was missing when the server started: targets that may
 * have had rows in it are not used until their owner accepts that.
 */
void
bdd_check_journal(BddTarget *target)
{
	XLogRecPtr from;
	XLogRecPtr to;
	XLogRecPtr needed;

	if (!target->options.logged)
		return;
	LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
	from = bdd_journal->gap_from;
	to = bdd_journal->gap_to;
	LWLockRelease(&bdd_registry->worker_lock);
	if (XLogRecPtrIsInvalid(to))
		return;
	(void) bdd_mark_read(target->options.target_id, &needed);
	if (XLogRecPtrIsInvalid(needed) || needed >= to)
		return;
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("part of the journal of \"%s\" is missing",
					get_rel_name(target->relid)),
			 errdetail("There is no WAL from %X/%X to %X/%X, which may have had rows that are not in the table.",
					   LSN_FORMAT_ARGS(Max(from, needed)),
					   LSN_FORMAT_ARGS(to)),
			 errhint("Go on without these rows with batchdedup.accept_loss(%s).",
					 quote_literal_cstr(bdd_qualified_name(target->relid)))));
}

/* The target's slot, made if need be. */
BddSharedSlot *
bdd_target_slot(BddTarget *target)
{
	int32 id = target->options.target_id;

	if (target->slot != NULL && target->journal_checked)
		return target->slot;
	bdd_journal_wait_replayed();
	bdd_check_journal(target);
	target->journal_checked = true;
	if (bdd_target_find_slot(target) != NULL)
		return target->slot;
	target->slot = bdd_slot_create(id, target->relid, bdd_mark_read(id, NULL),
								   target->options.own);
	if (target->slot == NULL)
	{
		bdd_free_orphans();
		target->slot = bdd_slot_create(id, target->relid,
									   bdd_mark_read(id, NULL),
									   target->options.own);
	}
	if (target->slot != NULL && bdd_has_dead_letters(target->relid))
		target->slot->has_letters = true;
	if (target->slot == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("all %d slots for targets are in use",
						target->options.own ? BDD_OWN_SLOTS : bdd_max_targets),
				 errhint("Raise batchdedup.max_targets and restart the server.")));
	return target->slot;
}

/* ---------- who writes to the table ---------- */

/*
 * Policies cannot be checked when the row is applied by somebody else, so a
 * caller whom they bind does not use the buffer.
 */
bool
bdd_row_security_binds(const BddTarget *target)
{
	return target->row_security &&
		   check_enable_rls(target->relid, InvalidOid, true) == RLS_ENABLED;
}

/* Whether rows of this caller are not meant for the buffer. */
bool
bdd_is_switched_off(const BddTarget *target)
{
	return !bdd_enabled || target->options.mode == BDD_MODE_DIRECT ||
		   bdd_row_security_binds(target);
}

/*
 * Whether plain rows of this caller go to the buffer.  With rows pending they
 * do, even if it is switched off: they are then written after those.
 */
bool
bdd_redirects(const BddTarget *target)
{
	BddPending *pending;
	bool fires;

	if (SessionReplicationRole == SESSION_REPLICATION_ROLE_REPLICA)
		fires = target->redirect == TRIGGER_FIRES_ON_REPLICA;
	else
		fires = target->redirect == TRIGGER_FIRES_ON_ORIGIN;
	if (!fires && target->redirect != TRIGGER_FIRES_ALWAYS)
		return false;
	if (!bdd_is_switched_off(target))
		return true;
	pending = bdd_pending_find(target->relid);
	return pending != NULL && pending->set->count > 0;
}

/* ---------- small things ---------- */

int
bdd_target_flush_rows(const BddTarget *target)
{
	return target->options.flush_rows >= 0 ?
			   target->options.flush_rows :
			   bdd_flush_rows;
}

/* ---------- defaults ---------- */

/*
 * Evaluates a default of kind BDD_DEFAULT_AT_CALL, as the caller.  Planning
 * may evaluate parts of it, so it is done here and not when the target is
 * built: then a worker would run the owner's functions as a superuser.
 */
void
bdd_target_default(BddTarget *target, int column, Datum *value, bool *isnull)
{
	BddColumn *described = &target->columns[column];
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
