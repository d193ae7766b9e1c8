/*-------------------------------------------------------------------------
 *
 * ddl.c
 *		What happens to targets when somebody changes or drops tables.
 *
 * Rows in the buffer have the shape of the table as it was.  So an ALTER that
 * changes the shape, or what the table accepts, first brings them into the
 * table; TRUNCATE and DROP discard them.  All of it happens in the statement's
 * own transaction, under a lock that keeps publishers out, and shared memory
 * changes after its commit: a rollback leaves the rows where they were.
 *
 *-------------------------------------------------------------------------
 */
#include "watch/ddl.h"

#include "access/xact.h"
#include "apply/apply.h"
#include "apply/direct.h"
#include "base/compat.h"
#include "buffer/flush_wait.h"
#include "buffer/registry.h"
#include "catalog/dependency.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/tablecmds.h"
#include "commit/pending.h"
#include "commit/xact.h"
#include "import/import_table.h"
#include "journal/journal.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/value.h"
#include "parser/parse_type.h"
#include "proxy/conflict.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/target.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "watch/guard.h"

static object_access_hook_type previous_object_hook = NULL;
static ProcessUtility_hook_type previous_utility_hook = NULL;

static bool
can_be_target(Oid relid)
{
	char kind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';

	return kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE;
}

static bool
is_target(Oid relid)
{
	BddOptions options;

	return can_be_target(relid) && bdd_options_read(relid, &options);
}

/* Whether there are rows that the table does not have yet. */
static bool
has_rows(BddSharedSlot *slot, BddPending *pending)
{
	return (pending != NULL && pending->set->count > 0) ||
		   (slot != NULL && bdd_slot_has_unapplied(slot));
}

/*
 * Locks the target and brings all its rows into the table.  A target that
 * cannot be used as it is does not matter while it has none (a dump is
 * restored before its indexes are made), or unless they "must" be there.
 */
static void
settle_if(Oid relid, LOCKMODE lockmode, bool must)
{
	BddSharedSlot *slot;
	BddPending *pending;

	if (bdd_target_open_any(relid, lockmode)->broken != BDD_USABLE && !must)
		return;
	bdd_journal_wait_replayed();
	slot = bdd_slot_find_by_table(relid);
	pending = bdd_pending_find(relid);
	if (has_rows(slot, pending))
		bdd_direct_settle(bdd_target_open(relid, lockmode));
	else if (slot != NULL)
		bdd_at_commit_mark_applied(slot, 0);
}

static void
settle(Oid relid, LOCKMODE lockmode)
{
	settle_if(relid, lockmode, true);
}

/*
 * Rows of a partition are in the buffer of the table that it belongs to; but
 * nobody needs those of "emptied" tables.
 */
static void
settle_ancestors(Oid relid, List *emptied)
{
	ListCell *cell;

	if (!OidIsValid(relid) || !get_rel_relispartition(relid))
		return;
	foreach(cell, get_partition_ancestors(relid))
		if (is_target(lfirst_oid(cell)) &&
			!list_member_oid(emptied, lfirst_oid(cell)))
			settle(lfirst_oid(cell), ShareRowExclusiveLock);
}

/* A table that becomes a partition is checked against its bounds. */
static void
settle_attached(AlterTableStmt *alter)
{
	ListCell *cell;

	foreach(cell, alter->cmds)
	{
		AlterTableCmd *command = lfirst_node(AlterTableCmd, cell);
		Oid relid;

		if (command->subtype != AT_AttachPartition)
			continue;
		relid = RangeVarGetRelid(((PartitionCmd *) command->def)->name, NoLock,
								 true);
		if (is_target(relid) && bdd_owns_relation(relid, GetUserId()))
			settle(relid, AccessExclusiveLock);
	}
}

/* ---------- dropping ---------- */

/* Rows of this transaction are not published; they come back on rollback. */
static void
set_pending_aside(Oid relid)
{
	BddPending *pending = bdd_pending_find(relid);

	if (pending != NULL)
		bdd_pending_set_aside(pending);
}

static void
delete_options(Oid relid)
{
	Oid types[] = {REGCLASSOID};
	Datum values[] = {ObjectIdGetDatum(relid)};
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run("WITH gone AS (DELETE FROM batchdedup.target_option "
					   "WHERE target OPERATOR(pg_catalog.=) $1 RETURNING target_id), "
					   "letters AS (DELETE FROM batchdedup.dead_letter_row "
					   "WHERE target OPERATOR(pg_catalog.=) $1) "
					   "DELETE FROM batchdedup.mark m USING gone "
					   "WHERE m.target_id OPERATOR(pg_catalog.=) gone.target_id",
					   1, types, values, NULL);
	bdd_spi_finish();
	bdd_restore_role(&saved);
}

static void
table_dropped(Oid relid)
{
	BddSharedSlot *slot = bdd_slot_find_by_table(relid);

	set_pending_aside(relid);
	if (slot != NULL)
	{
		bdd_journal_write_applied(slot->target_id, relid, PG_UINT64_MAX);
		bdd_at_commit_free_slot(slot);
	}
	if (OidIsValid(bdd_catalog_relation("mark")) &&
		OidIsValid(bdd_catalog_relation("dead_letter_row")) &&
		(is_target(relid) || bdd_has_dead_letters(relid)))
		delete_options(relid);
}

/*
 * A column goes.  ALTER TABLE has brought the rows into the table before; DROP
 * TYPE ... CASCADE and the like have not.
 */
static void
refuse_if_unapplied(Oid relid)
{
	BddSharedSlot *slot;
	BddPending *pending = bdd_pending_find(relid);

	if (is_target(relid))
		bdd_journal_wait_replayed();
	slot = bdd_slot_find_by_table(relid);
	if (has_rows(slot, pending))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop a column of \"%s\" because rows for it are buffered",
						get_rel_name(relid)),
				 errhint("Flush the target first with batchdedup.flush.")));
}

/*
 * The extension goes, and with it all targets of the database.  DROP EXTENSION
 * has brought their rows into the tables before (settle_all_targets); other
 * ways to drop it are refused while rows are there.
 */
static void
forget_all_targets(void)
{
	ListCell *cell;

	foreach(cell, bdd_all_targets())
	{
		Oid relid = lfirst_oid(cell);
		BddSharedSlot *slot;
		BddPending *pending = bdd_pending_find(relid);

		LockRelationOid(relid, ShareRowExclusiveLock);
		bdd_journal_wait_replayed();
		slot = bdd_slot_find_by_table(relid);
		if (has_rows(slot, pending))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop extension batchdedup because rows for \"%s\" are buffered",
							get_rel_name(relid)),
					 errhint("DROP EXTENSION batchdedup; brings them into the table first.")));
		if (slot != NULL)
			bdd_at_commit_free_slot(slot);
		CacheInvalidateRelcacheByRelid(relid);
	}
}

static void
object_dropped(Oid class, Oid object, int sub_object)
{
	if (class == RelationRelationId && sub_object == 0 &&
		OidIsValid(MyDatabaseId))
	{
		if (!can_be_target(object))
			return;
		if (object == bdd_catalog_relation("target_option"))
			forget_all_targets();
		else
			table_dropped(object);
	}
	else if (class == RelationRelationId && sub_object > 0)
		refuse_if_unapplied(object);
	else if (class == DatabaseRelationId)
		bdd_at_commit_free_database(object);
}

/* ---------- emptying ---------- */

/*
 * The server asks once before it has the lock (it is asking whether it may),
 * but process_utility has taken it then; for tables that CASCADE adds it has
 * the lock.
 */
static void
table_truncated(Oid relid)
{
	if (!is_target(relid) || !bdd_holds_lock(relid, AccessExclusiveLock))
		return;
	set_pending_aside(relid);
	bdd_discard_here(bdd_target_open_any(relid, AccessExclusiveLock));
}

static void
object_accessed(ObjectAccessType access, Oid class, Oid object,
				int sub_object, void *arg)
{
	if (previous_object_hook != NULL)
		previous_object_hook(access, class, object, sub_object, arg);
	if (access == OAT_DROP)
		object_dropped(class, object, sub_object);
	else if (access == OAT_TRUNCATE)
		table_truncated(object);
	else if (access == OAT_FUNCTION_EXECUTE && object == F_PG_NOTIFY)
		bdd_journal_expect_xid();
}

static void
check_may_truncate(const RangeVar *table, Oid relid, Oid old_relid, void *arg)
{
	if (OidIsValid(relid) &&
		pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV,
					   get_relkind_objtype(get_rel_relkind(relid)),
					   table->relname);
}

static bool
may_truncate(Oid relid)
{
	return OidIsValid(relid) &&
		   pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) == ACLCHECK_OK;
}

/* Partitions that CASCADE adds to the tables. */
static void
settle_cascade(List *relids)
{
	List *found;
	ListCell *cell;

	while ((found = heap_truncate_find_FKs(relids)) != NIL)
	{
		relids = list_concat(relids, found);
		foreach(cell, found)
			if (may_truncate(lfirst_oid(cell)))
				settle_ancestors(lfirst_oid(cell), relids);
	}
}

static void
lock_truncated_tables(TruncateStmt *truncate)
{
	List *relids = NIL;
	ListCell *cell;

	foreach(cell, truncate->relations)
	{
		RangeVar *table = lfirst(cell);

		Oid relid = RangeVarGetRelid(table, NoLock, true);

		if (may_truncate(relid))
			settle_ancestors(relid, NIL);
		if (is_target(RangeVarGetRelid(table, NoLock, true)))
			(void) RangeVarGetRelidExtended(table, AccessExclusiveLock, 0,
											check_may_truncate, NULL);
		if (OidIsValid(relid))
			relids = list_concat(relids,
								 table->inh ? find_all_inheritors(relid, NoLock, NULL) :
											  list_make1_oid(relid));
	}
	if (truncate->behavior == DROP_CASCADE)
		settle_cascade(relids);
}

/* ---------- altering ---------- */

/* Whether rows in the buffer would not fit the table any more. */
static bool
changes_shape(AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_AddColumn:
		case AT_DropColumn:
		case AT_AlterColumnType:
		case AT_DropExpression:
		case AT_AddIdentity:
		case AT_SetIdentity:
		case AT_DropIdentity:
		case AT_AddOf:
		case AT_DropOf:
		case AT_AddInherit:
		case AT_DropInherit:
		case AT_DetachPartition:
			return true;
		default:
			return false;
	}
}

/* Whether the rows of the table are checked, those in the buffer included. */
static bool
checks_rows(AlterTableCmd *command)
{
	switch (command->subtype)
	{
		case AT_SetNotNull:
		case AT_AddConstraint:
		case AT_AlterConstraint: /* it may be ENFORCED now */
		case AT_AddIndexConstraint:
			return true;
		default:
			return false;
	}
}

/* Brings the rows of the table into it, and those of tables below it. */
static void
settle_tree(Oid relid, LOCKMODE lockmode, bool must)
{
	ListCell *cell;

	foreach(cell, find_all_inheritors(relid, lockmode, NULL))
		if (is_target(lfirst_oid(cell)))
			settle_if(lfirst_oid(cell), lockmode, must);
}

/*
 * Rows that were committed before go into the partition that leaves.  With
 * CONCURRENTLY nobody keeps others out, who like all writers then meet a
 * table that the partition has left.
 */
static void
flush_before_detach(Oid relid)
{
	BddTarget *target = bdd_target_open_any(relid, AccessShareLock);
	BddSharedSlot *slot = bdd_target_find_slot(target);
	TimestampTz since = GetCurrentTimestamp();

	if (slot == NULL || !bdd_slot_has_unapplied(slot))
		return;
	if (target->options.paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("target \"%s\" is paused, and rows for it are buffered",
						get_rel_name(relid)),
				 errhint("Resume the target with batchdedup.resume, or detach the partition without CONCURRENTLY.")));
	bdd_wait_applied(slot, target->options.target_id,
					 bdd_request_flush(slot, true), since,
					 bdd_may_read(relid));
}

static void
flush_before_concurrent_detach(AlterTableStmt *alter)
{
	AlterTableCmd *command = linitial_node(AlterTableCmd, alter->cmds);
	List *relids = NIL;
	Oid relid;
	ListCell *cell;

	if (command->subtype != AT_DetachPartition ||
		!((PartitionCmd *) command->def)->concurrent)
		return;
	relid = RangeVarGetRelid(alter->relation, NoLock, true);
	if (!can_be_target(relid) || !bdd_owns_relation(relid, GetUserId()))
		return; /* the server says why */
	if (get_rel_relispartition(relid))
		relids = get_partition_ancestors(relid);
	foreach(cell, lcons_oid(relid, relids))
		if (is_target(lfirst_oid(cell)))
			flush_before_detach(lfirst_oid(cell));
}

static void
settle_altered_table(AlterTableStmt *alter)
{
	LOCKMODE lockmode = AlterTableGetLockLevel(alter->cmds);
	bool shape = false;
	bool needed = false;
	ListCell *cell;
	Oid relid;

	settle_attached(alter);
	flush_before_concurrent_detach(alter);
	foreach(cell, alter->cmds)
	{
		shape = shape || changes_shape(lfirst_node(AlterTableCmd, cell));
		needed = needed || shape ||
				 checks_rows(lfirst_node(AlterTableCmd, cell));
	}
	if (!needed || lockmode < ShareRowExclusiveLock ||
		!can_be_target(RangeVarGetRelid(alter->relation, NoLock, true)))
		return;
	relid = RangeVarGetRelidExtended(alter->relation, lockmode,
									 alter->missing_ok ? RVR_MISSING_OK : 0,
									 RangeVarCallbackOwnsRelation, NULL);
	if (!OidIsValid(relid))
		return;
	settle_ancestors(relid, NIL);
	settle_tree(relid, lockmode, shape);
}

/* Targets that were made OF the type. */
static List *
typed_targets(RangeVar *type_name)
{
	Oid type_relid = RangeVarGetRelid(type_name, NoLock, true);
	Oid type = OidIsValid(type_relid) ? get_rel_type_id(type_relid) :
										InvalidOid;
	List *relids = NIL;
	ListCell *cell;

	foreach(cell, bdd_all_targets())
	{
		Oid relid = lfirst_oid(cell);
		HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(relid));

		if (!HeapTupleIsValid(tuple))
			continue;
		if (OidIsValid(type) &&
			((Form_pg_class) GETSTRUCT(tuple))->reloftype == type)
			relids = lappend_oid(relids, relid);
		ReleaseSysCache(tuple);
	}
	return relids;
}

static void
settle_typed_tables(AlterTableStmt *alter)
{
	Oid type_relid = RangeVarGetRelid(alter->relation, NoLock, true);
	ListCell *cell;

	if (!OidIsValid(type_relid) || !bdd_owns_relation(type_relid, GetUserId()))
		return; /* the server says why */
	foreach(cell, typed_targets(alter->relation))
		settle(lfirst_oid(cell), AccessExclusiveLock);
}

static Oid
domain_base(Oid type)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Oid base;

	if (!HeapTupleIsValid(tuple))
		return InvalidOid;
	base = ((Form_pg_type) GETSTRUCT(tuple))->typbasetype;
	ReleaseSysCache(tuple);
	return base;
}

static bool
uses_domain(const BddTarget *target, Oid domain)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		Oid type = TupleDescAttr(target->shape.desc, i)->atttypid;

		while (OidIsValid(type) && get_typtype(type) == TYPTYPE_DOMAIN)
		{
			if (type == domain)
				return true;
			type = domain_base(type);
		}
	}
	return false;
}

/* The call checks what a domain accepts; ALTER DOMAIN checks only tables. */
static void
settle_users_of_domain(AlterDomainStmt *alter)
{
	Oid domain = LookupTypeNameOid(NULL,
								   makeTypeNameFromNameList(alter->typeName),
								   true);
	ListCell *cell;

	if (!OidIsValid(domain) || !bdd_owns_type(domain, GetUserId()))
		return; /* the server says why */
	foreach(cell, bdd_all_targets())
	{
		BddTarget *target = bdd_target_open_any(lfirst_oid(cell),
												AccessShareLock);

		if (uses_domain(target, domain))
			settle(lfirst_oid(cell), ShareRowExclusiveLock);
	}
}

static bool
drops_extension(DropStmt *drop)
{
	ListCell *cell;

	if (drop->removeType == OBJECT_EXTENSION)
		foreach(cell, drop->objects)
			if (strcmp(strVal(lfirst(cell)), BDD_LIBRARY) == 0)
				return true;
	return false;
}

/* The rows of a partition go with it, but not as dead letters. */
static void
settle_partitioned(DropStmt *drop)
{
	ListCell *cell;

	foreach(cell, drop->objects)
	{
		RangeVar *table = makeRangeVarFromNameList(lfirst(cell));
		Oid relid = RangeVarGetRelid(table, NoLock, true);

		if (OidIsValid(relid) && bdd_owns_relation(relid, GetUserId()))
			settle_ancestors(relid, NIL);
	}
}

/* The server checks itself who may drop the extension. */
static void
settle_all_targets(void)
{
	ListCell *cell;

	if (!superuser())
		return;
	foreach(cell, bdd_all_targets())
		settle(lfirst_oid(cell), ShareRowExclusiveLock);
	bdd_staging_follows_extension();
}

/* A database whose worker was sent away for a statement. */
typedef struct BddVacated
{
	Oid database; /* InvalidOid: none */
	TimestampTz until;
} BddVacated;

/*
 * The database must have no connections, so its worker leaves at once.  The
 * server waits a few seconds for that itself.
 */
static void
send_worker_away(const char *database, BddVacated *vacated)
{
	Oid oid = database != NULL ? get_database_oid(database, true) : InvalidOid;

	if (!OidIsValid(oid) || !bdd_owns_database(oid, GetUserId()))
		return;
	vacated->database = oid;
	vacated->until = bdd_worker_leave(oid);
}

static void
call_worker_back(const BddVacated *vacated)
{
	if (OidIsValid(vacated->database))
		bdd_worker_may_return(vacated->database, vacated->until);
}

/* The value of an option of CREATE or ALTER DATABASE, or NULL. */
static const char *
database_option(List *options, const char *name)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

static void
guard_copy(CopyStmt *copy)
{
	bool flushed;
	Oid relid;

	if (!copy->is_from || copy->relation == NULL)
		return;
	relid = RangeVarGetRelid(copy->relation, RowExclusiveLock, true);
	if (OidIsValid(relid) &&
		pg_class_aclcheck(relid, GetUserId(), ACL_INSERT) == ACLCHECK_OK)
		bdd_guard_written(relid, true, NULL, &flushed);
}

static void
before_database_statement(Node *statement, BddVacated *vacated)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			send_worker_away(((DropdbStmt *) statement)->dbname, vacated);
			break;
		case T_CreatedbStmt:
			send_worker_away(database_option(((CreatedbStmt *) statement)->options,
											 "template"),
							 vacated);
			break;
		case T_AlterDatabaseStmt:
			if (database_option(((AlterDatabaseStmt *) statement)->options,
								"tablespace") != NULL)
				send_worker_away(((AlterDatabaseStmt *) statement)->dbname,
								 vacated);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				send_worker_away(((RenameStmt *) statement)->subname, vacated);
			break;
		default:
			break;
	}
}

static void
before_statement(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
			if (((AlterTableStmt *) statement)->objtype == OBJECT_TABLE)
				settle_altered_table((AlterTableStmt *) statement);
			else if (((AlterTableStmt *) statement)->objtype == OBJECT_TYPE)
				settle_typed_tables((AlterTableStmt *) statement);
			break;
		case T_AlterDomainStmt:
			settle_users_of_domain((AlterDomainStmt *) statement);
			break;
		case T_NotifyStmt:
			bdd_journal_expect_xid();
			break;
		case T_TruncateStmt:
			lock_truncated_tables((TruncateStmt *) statement);
			break;
		case T_CopyStmt:
			guard_copy((CopyStmt *) statement);
			break;
		case T_DropStmt:
			if (drops_extension((DropStmt *) statement))
				settle_all_targets();
			else if (((DropStmt *) statement)->removeType == OBJECT_TABLE)
				settle_partitioned((DropStmt *) statement);
			break;
		default:
			break;
	}
}

/* Our columns are kept by name: a dump shall restore them. */
static void
rename_column_of(Oid relid, RenameStmt *rename)
{
	Oid types[] = {REGCLASSOID, TEXTOID, TEXTOID};
	Datum values[3];
	BddSavedRole saved;

	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(rename->subname);
	values[2] = CStringGetTextDatum(rename->newname);
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run("UPDATE batchdedup.target_option "
					   "SET key_columns = pg_catalog.array_replace(key_columns, $2, $3), "
					   "update_columns = pg_catalog.array_replace(update_columns, $2, $3), "
					   "merge_columns = pg_catalog.array_replace(merge_columns, $2, $3), "
					   "version_column = CASE WHEN version_column OPERATOR(pg_catalog.=) $2 THEN $3 ELSE version_column END "
					   "WHERE target OPERATOR(pg_catalog.=) $1",
					   lengthof(types), types, values, NULL);
	(void) bdd_spi_run("UPDATE batchdedup.dead_letter_row SET "
					   "key = CASE WHEN key OPERATOR(pg_catalog.?) $2 THEN (key OPERATOR(pg_catalog.-) $2) "
					   "OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object($3, key OPERATOR(pg_catalog.->) $2) ELSE key END, "
					   "row = CASE WHEN row OPERATOR(pg_catalog.?) $2 THEN (row OPERATOR(pg_catalog.-) $2) "
					   "OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object($3, row OPERATOR(pg_catalog.->) $2) ELSE row END, "
					   "update_columns = pg_catalog.array_replace(update_columns, $2, $3) "
					   "WHERE target OPERATOR(pg_catalog.=) $1",
					   lengthof(types), types, values, NULL);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}

static void
rename_column(RenameStmt *rename)
{
	Oid relid = RangeVarGetRelid(rename->relation, NoLock, true);
	ListCell *cell;

	if (!can_be_target(relid))
		return;
	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
		if (is_target(lfirst_oid(cell)))
			rename_column_of(lfirst_oid(cell), rename);
}

/* With CASCADE the column of every table OF the type. */
static void
rename_attribute(RenameStmt *rename)
{
	ListCell *cell;

	foreach(cell, typed_targets(rename->relation))
		rename_column_of(lfirst_oid(cell), rename);
}

static void
after_statement(Node *statement)
{
	RenameStmt *rename = (RenameStmt *) statement;

	if (!IsA(statement, RenameStmt))
		return;
	if (rename->renameType == OBJECT_COLUMN)
		rename_column(rename);
	else if (rename->renameType == OBJECT_ATTRIBUTE)
		rename_attribute(rename);
}

/* The statement itself. */
static void
run_utility(PlannedStmt *planned, const char *query, bool read_only_tree,
			ProcessUtilityContext context, ParamListInfo params,
			QueryEnvironment *environment, DestReceiver *receiver,
			QueryCompletion *completion)
{
	if (previous_utility_hook != NULL)
		previous_utility_hook(planned, query, read_only_tree, context, params,
							  environment, receiver, completion);
	else
		standard_ProcessUtility(planned, query, read_only_tree, context,
								params, environment, receiver, completion);
}

static void
process_utility(PlannedStmt *planned, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *receiver,
				QueryCompletion *completion)
{
	Node *statement = planned->utilityStmt;
	bool ours = IsTransactionState() && !bdd_am_worker;
	BddVacated vacated = {InvalidOid, 0};
	PlannedStmt *outer;

	if (ours)
		before_database_statement(statement, &vacated);
	ours = ours && OidIsValid(bdd_catalog_relation("target_option"));
	if (ours)
		before_statement(statement);
	outer = bdd_set_running_statement(planned);
	PG_TRY();
	{
		run_utility(planned, query, read_only_tree, context, params,
					environment, receiver, completion);
	}
	PG_CATCH();
	{
		bdd_set_running_statement(outer);
		call_worker_back(&vacated);
		PG_RE_THROW();
	}
	PG_END_TRY();
	bdd_set_running_statement(outer);
	/* A database that is dropped stays until the commit. */
	if (!IsA(statement, DropdbStmt))
		call_worker_back(&vacated);
	if (ours)
		after_statement(statement);
}

void
bdd_ddl_init(void)
{
	previous_object_hook = object_access_hook;
	object_access_hook = object_accessed;
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
