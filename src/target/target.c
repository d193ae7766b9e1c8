/*-------------------------------------------------------------------------
 *
 * target.c
 *		The targets that a backend knows, and their slots in shared memory.
 *
 * The user of a BddTarget holds a lock on the table; taking it has processed
 * the invalidations that alter_target, drop_target and DDL have sent for the
 * table.
 *
 *-------------------------------------------------------------------------
 */
#include "target/target.h"

#include "access/relation.h"
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
#include "sql/catalog.h"
#include "storage/lmgr.h"
#include "target/privilege.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rls.h"
#include "utils/syscache.h"

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

/*
 * NULL: the table is no target.  A half built one goes with the caller's
 * context if an error is raised; only a whole one lives on.
 */
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
		target = bdd_describe_target(rel, &options, context);
		MemoryContextSetParent(context, TopMemoryContext);
	}
	MemoryContextSwitchTo(old_context);
	if (target == NULL)
		MemoryContextDelete(context);
	relation_close(rel, AccessShareLock);
	return target;
}

/* ---------- cache ---------- */

/*
 * A target that is no longer valid is kept for those that use it, and is built
 * anew at the next lookup.
 */
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

/* At first use.  Callbacks stay for the rest of the session. */
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

/* It is freed by free_retired, not before this transaction has ended. */
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

/* Quick, as it is asked of every table that is written. */
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

/* The target's own option comes before the setting. */
int
bdd_target_flush_rows(const BddTarget *target)
{
	return target->options.flush_rows >= 0 ?
			   target->options.flush_rows :
			   bdd_flush_rows;
}
