/*-------------------------------------------------------------------------
 *
 * alter.c
 *		ALTER TABLE, TYPE and DOMAIN bring buffered rows into the table first, if
 *		the rows would not fit afterwards or the statement checks rows.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/catalog.h"
#include "watch/alter.h"

#include "base/compat.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "catalog/namespace.h"
#include "catalog/partition.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commands/tablecmds.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_type.h"
#include "target/target.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "watch/settle.h"

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
		if (bdd_is_target(relid) && bdd_owns_relation(relid, GetUserId()))
			bdd_settle(relid, AccessExclusiveLock);
	}
}

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

/* The partition and all tables above it that are targets are flushed. */
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
	if (!bdd_can_be_target(relid) || !bdd_owns_relation(relid, GetUserId()))
		return; /* the server says why */
	if (get_rel_relispartition(relid))
		relids = get_partition_ancestors(relid);
	foreach(cell, lcons_oid(relid, relids))
		if (bdd_is_target(lfirst_oid(cell)))
			flush_before_detach(lfirst_oid(cell));
}

/*
 * Before ALTER TABLE: the table is locked as the statement will lock it, and
 * its buffered rows go into it if a command needs that.
 */
void
bdd_before_alter_table(AlterTableStmt *alter)
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
		!bdd_can_be_target(RangeVarGetRelid(alter->relation, NoLock, true)))
		return;
	relid = RangeVarGetRelidExtended(alter->relation, lockmode,
									 alter->missing_ok ? RVR_MISSING_OK : 0,
									 RangeVarCallbackOwnsRelation, NULL);
	if (!OidIsValid(relid))
		return;
	bdd_settle_ancestors(relid, NIL);
	bdd_settle_tree(relid, lockmode, shape);
}

/* Targets that were made OF the type. */
List *
bdd_typed_targets(RangeVar *type_name)
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

/* Before ALTER TYPE of a composite type: typed tables change with it. */
void
bdd_before_alter_type(AlterTableStmt *alter)
{
	Oid type_relid = RangeVarGetRelid(alter->relation, NoLock, true);
	ListCell *cell;

	if (!OidIsValid(type_relid) || !bdd_owns_relation(type_relid, GetUserId()))
		return; /* the server says why */
	foreach(cell, bdd_typed_targets(alter->relation))
		bdd_settle(lfirst_oid(cell), AccessExclusiveLock);
}

/* The type below a domain, or InvalidOid if the domain is gone. */
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

/* Whether a column of the target is of the domain, or of one above it. */
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
void
bdd_before_alter_domain(AlterDomainStmt *alter)
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
			bdd_settle(lfirst_oid(cell), ShareRowExclusiveLock);
	}
}
