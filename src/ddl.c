/*-------------------------------------------------------------------------
 *
 * ddl.c
 *		What happens to targets when somebody changes or drops tables.
 *
 * ALTER, TRUNCATE and DROP of a target with buffered rows are refused: the
 * rows have the shape of the table as it was.  Each takes a lock that keeps
 * publishers out, so what is found empty under it stays empty.  When a target
 * is dropped its catalog row and its slot go with it.
 *
 *-------------------------------------------------------------------------
 */
#include "ddl.h"

#include "access/xact.h"
#include "catalog/dependency.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "pending.h"
#include "registry.h"
#include "storage/lmgr.h"
#include "spi_util.h"
#include "target.h"
#include "tcop/utility.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "xact.h"

static object_access_hook_type previous_object_hook = NULL;
static ProcessUtility_hook_type previous_utility_hook = NULL;

static bool
can_be_target(Oid relid)
{
	char		kind = OidIsValid(relid) ? get_rel_relkind(relid) : '\0';

	return kind == RELKIND_RELATION || kind == RELKIND_PARTITIONED_TABLE;
}

/* ---------- refusing ---------- */

static bool
has_pending(Oid relid)
{
	BddPending *pending = bdd_pending_find(relid);

	return pending != NULL && pending->set.count > 0;
}

/* The caller holds a lock that conflicts with that of writers. */
static void
refuse_if_buffered(Oid relid, const char *command)
{
	BddSharedSlot *slot = bdd_slot_find_by_table(relid);

	if (has_pending(relid))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot %s \"%s\" because this transaction has upserted rows into it",
						command, get_rel_name(relid)),
				 errhint("Commit and flush first.")));
	if (slot != NULL && bdd_slot_is_buffering(slot))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot %s \"%s\" because rows for it are buffered",
						command, get_rel_name(relid)),
				 errhint("SELECT batchdedup.flush('%s'); then try again.",
						 quote_qualified_identifier(get_namespace_name(get_rel_namespace(relid)),
													get_rel_name(relid)))));
}

/* ---------- dropping ---------- */

static void
forget_dropped_table(Oid relid)
{
	BddSharedSlot *slot = bdd_slot_find_by_table(relid);
	Oid			types[] = {REGCLASSOID};
	Datum		values[] = {ObjectIdGetDatum(relid)};
	BddOptions	options;
	BddIdentity saved;

	if (slot != NULL)
		bdd_at_commit_free_slot(slot);
	if (!bdd_options_read(relid, &options) ||
		!OidIsValid(bdd_catalog_relation("mark")))
		return;
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run("WITH gone AS (DELETE FROM batchdedup.target_option "
					   "WHERE target OPERATOR(pg_catalog.=) $1 RETURNING target_id) "
					   "DELETE FROM batchdedup.mark m USING gone "
					   "WHERE m.target_id OPERATOR(pg_catalog.=) gone.target_id",
					   1, types, values, NULL);
	bdd_spi_finish();
	bdd_become_again(&saved);
}

/*
 * With the extension all targets of the database go.  The locks keep those
 * out who would go on to use their slots.
 */
static void
forget_all_targets(void)
{
	ListCell   *cell;

	foreach(cell, bdd_all_targets())
	{
		Oid			relid = lfirst_oid(cell);
		BddSharedSlot *slot;

		LockRelationOid(relid, ShareRowExclusiveLock);
		refuse_if_buffered(relid, "drop the extension with");
		slot = bdd_slot_find_by_table(relid);
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
		refuse_if_buffered(object, "drop");
		forget_dropped_table(object);
	}
	else if (class == DatabaseRelationId)
		bdd_at_commit_free_database(object);
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
		refuse_if_buffered(object, "truncate");
}

/* ---------- altering ---------- */

/*
 * Locks the table as the statement will, if that lock keeps writers out, and
 * refuses if rows are buffered.
 */
static void
check_altered_table(RangeVar *table, bool missing_ok, LOCKMODE lockmode)
{
	Oid			relid;

	if (lockmode < ShareRowExclusiveLock ||
		!OidIsValid(bdd_catalog_relation("target_option")))
		return;
	relid = RangeVarGetRelid(table, NoLock, true);
	if (!can_be_target(relid))
		return;
	relid = RangeVarGetRelidExtended(table, lockmode,
									 missing_ok ? RVR_MISSING_OK : 0,
									 RangeVarCallbackOwnsRelation, NULL);
	if (OidIsValid(relid))
		refuse_if_buffered(relid, "alter");
}

static bool
is_table(ObjectType type)
{
	return type == OBJECT_TABLE;
}

static void
check_statement(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
			{
				AlterTableStmt *alter = (AlterTableStmt *) statement;

				if (is_table(alter->objtype))
					check_altered_table(alter->relation, alter->missing_ok,
										AlterTableGetLockLevel(alter->cmds));
				break;
			}
		case T_RenameStmt:
			{
				RenameStmt *rename = (RenameStmt *) statement;

				if (is_table(rename->renameType) ||
					(rename->renameType == OBJECT_COLUMN &&
					 is_table(rename->relationType)))
					check_altered_table(rename->relation, rename->missing_ok,
										AccessExclusiveLock);
				break;
			}
		case T_AlterObjectSchemaStmt:
			{
				AlterObjectSchemaStmt *move = (AlterObjectSchemaStmt *) statement;

				if (is_table(move->objectType))
					check_altered_table(move->relation, move->missing_ok,
										AccessExclusiveLock);
				break;
			}
		default:
			break;
	}
}

/* Our columns are kept by name: a dump shall restore them. */
static void
rename_column(RenameStmt *rename)
{
	Oid			relid = RangeVarGetRelid(rename->relation, NoLock, true);
	Oid			types[] = {REGCLASSOID, TEXTOID, TEXTOID};
	Datum		values[3];
	BddOptions	options;
	BddIdentity saved;

	if (!OidIsValid(relid) || !bdd_options_read(relid, &options))
		return;
	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(rename->subname);
	values[2] = CStringGetTextDatum(rename->newname);
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run("UPDATE batchdedup.target_option "
					   "SET key_columns = pg_catalog.array_replace(key_columns, $2, $3), "
					   "update_columns = pg_catalog.array_replace(update_columns, $2, $3) "
					   "WHERE target OPERATOR(pg_catalog.=) $1",
					   lengthof(types), types, values, NULL);
	bdd_spi_finish();
	bdd_become_again(&saved);
	CacheInvalidateRelcacheByRelid(relid);
}

static void
process_utility(PlannedStmt *planned, const char *query, bool read_only_tree,
				ProcessUtilityContext context, ParamListInfo params,
				QueryEnvironment *environment, DestReceiver *receiver,
				QueryCompletion *completion)
{
	Node	   *statement = planned->utilityStmt;

	if (IsTransactionState() && !bdd_am_worker)
		check_statement(statement);

	if (previous_utility_hook != NULL)
		previous_utility_hook(planned, query, read_only_tree, context, params,
							  environment, receiver, completion);
	else
		standard_ProcessUtility(planned, query, read_only_tree, context,
								params, environment, receiver, completion);

	if (IsA(statement, RenameStmt) &&
		((RenameStmt *) statement)->renameType == OBJECT_COLUMN &&
		is_table(((RenameStmt *) statement)->relationType))
		rename_column((RenameStmt *) statement);
}

void
bdd_ddl_init(void)
{
	previous_object_hook = object_access_hook;
	object_access_hook = object_accessed;
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
