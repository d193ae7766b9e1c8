/*-------------------------------------------------------------------------
 *
 * compat.h
 *		What differs between PostgreSQL 15 and 19; the only place that looks
 *		at PG_VERSION_NUM.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_COMPAT_H
#define BDD_COMPAT_H

#include "postgres.h"

#include "access/attmap.h"
#include "access/relation.h"
#include "access/xlogreader.h"
#include "catalog/dependency.h"
#include "catalog/pg_class.h"
#include "catalog/pg_database.h"
#include "catalog/pg_proc_d.h"
#include "catalog/pg_type.h"
#include "commands/defrem.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/plannodes.h"
#include "optimizer/pathnode.h"
#include "optimizer/plancat.h"
#include "parser/parse_relation.h"
#include "parser/parsetree.h"
#include "replication/slot.h"
#include "rewrite/rewriteHandler.h"
#include "storage/lock.h"
#include "storage/lwlock.h"
#include "storage/proc.h"
#include "storage/procarray.h"
#include "utils/acl.h"
#include "utils/backend_status.h"
#include "utils/relcache.h"
#include "utils/selfuncs.h"
#include "utils/wait_event.h"

#if PG_VERSION_NUM >= 180000
#include "commands/explain_format.h"
#include "commands/explain_state.h"
#else
#include "commands/explain.h"
#endif

#if PG_VERSION_NUM < 170000
#include "storage/sinvaladt.h"
#endif

#if PG_VERSION_NUM < 150000
#error "batchdedup needs PostgreSQL 15 or newer"
#endif

/* Index of this process among all that can run transactions. */
static inline int
bdd_proc_index(void)
{
#if PG_VERSION_NUM >= 170000
	return MyProcNumber;
#else
	return MyProc->pgprocno;
#endif
}

/* The virtual transaction id of this backend's running transaction. */
static inline VirtualTransactionId
bdd_my_vxid(void)
{
	VirtualTransactionId vxid;

#if PG_VERSION_NUM >= 170000
	vxid.procNumber = MyProc->vxid.procNumber;
	vxid.localTransactionId = MyProc->vxid.lxid;
#else
	vxid.backendId = MyBackendId;
	vxid.localTransactionId = MyProc->lxid;
#endif
	return vxid;
}

static inline int
bdd_new_tranche(const char *name)
{
#if PG_VERSION_NUM >= 190000
	return LWLockNewTrancheId(name);
#else
	int id = LWLockNewTrancheId();

	LWLockRegisterTranche(id, name);
	return id;
#endif
}

/*
 * OIDs of the tables that a statement names as to be written, and beside them
 * which of them it inserts into.
 */
static inline List *
bdd_written_tables(PlannedStmt *planned, List **inserts)
{
	List *relids = NIL;
	const AclMode writes = ACL_INSERT | ACL_UPDATE | ACL_DELETE;
	ListCell *cell;

#if PG_VERSION_NUM >= 160000
	foreach(cell, planned->permInfos)
	{
		RTEPermissionInfo *info = lfirst_node(RTEPermissionInfo, cell);

		if (!(info->requiredPerms & writes))
			continue;
		relids = lappend_oid(relids, info->relid);
		*inserts = lappend_int(*inserts, (info->requiredPerms & ACL_INSERT) != 0);
	}
#else
	foreach(cell, planned->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);

		if (entry->rtekind != RTE_RELATION || !(entry->requiredPerms & writes))
			continue;
		relids = lappend_oid(relids, entry->relid);
		*inserts = lappend_int(*inserts, (entry->requiredPerms & ACL_INSERT) != 0);
	}
#endif
	return relids;
}

/* OIDs of the views that a statement reads. */
static inline List *
bdd_read_views(PlannedStmt *planned)
{
	List *relids = NIL;
	ListCell *cell;

	foreach(cell, planned->rtable)
	{
		RangeTblEntry *entry = lfirst_node(RangeTblEntry, cell);
		AclMode needed;

		if (entry->relkind != RELKIND_VIEW || !OidIsValid(entry->relid))
			continue;
#if PG_VERSION_NUM >= 160000
		if (entry->perminfoindex == 0)
			continue;
		needed = getRTEPermissionInfo(planned->permInfos, entry)->requiredPerms;
#else
		needed = entry->requiredPerms;
#endif
		if (needed & ACL_SELECT)
			relids = list_append_unique_oid(relids, entry->relid);
	}
	return relids;
}

/* OIDs of the tables that it writes and that are not among those. */
static inline List *
bdd_written_children(PlannedStmt *planned, List *named)
{
	List *relids = NIL;

#if PG_VERSION_NUM >= 190000
	int i = -1;

	while ((i = bms_next_member(planned->resultRelationRelids, i)) >= 0)
		relids = lappend_oid(relids, rt_fetch(i, planned->rtable)->relid);
#else
	ListCell *cell;

	foreach(cell, planned->resultRelations)
		relids = lappend_oid(relids, rt_fetch(lfirst_int(cell), planned->rtable)->relid);
#endif
	return list_difference_oid(relids, named);
}

static inline bool
bdd_holds_lock(Oid relid, LOCKMODE lockmode)
{
	LOCKTAG tag;

	SET_LOCKTAG_RELATION(tag, MyDatabaseId, relid);
#if PG_VERSION_NUM >= 170000
	return LockHeldByMe(&tag, lockmode, false);
#else
	return LockHeldByMe(&tag, lockmode);
#endif
}

static inline bool
bdd_owns_database(Oid database, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(DatabaseRelationId, database, role);
#else
	return pg_database_ownercheck(database, role);
#endif
}

static inline bool
bdd_owns_type(Oid type, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(TypeRelationId, type, role);
#else
	return pg_type_ownercheck(type, role);
#endif
}

static inline bool
bdd_owns_relation(Oid relid, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_ownercheck(RelationRelationId, relid, role);
#else
	return pg_class_ownercheck(relid, role);
#endif
}

static inline bool
bdd_may_execute(Oid function, Oid role)
{
#if PG_VERSION_NUM >= 160000
	return object_aclcheck(ProcedureRelationId, function, role,
						   ACL_EXECUTE) == ACLCHECK_OK;
#else
	return pg_proc_aclcheck(function, role, ACL_EXECUTE) == ACLCHECK_OK;
#endif
}

/* The table's primary key if it is not deferrable, or InvalidOid. */
static inline Oid
bdd_primary_key_index(Relation rel)
{
#if PG_VERSION_NUM >= 180000
	return RelationGetPrimaryKeyIndex(rel, false);
#else
	return RelationGetPrimaryKeyIndex(rel);
#endif
}

/* The sequence of an identity column. */
static inline Oid
bdd_identity_sequence(Oid relid, AttrNumber attnum)
{
#if PG_VERSION_NUM >= 170000
	Relation rel = relation_open(relid, NoLock);
	Oid sequence = getIdentitySequence(rel, attnum, false);

	relation_close(rel, NoLock);
	return sequence;
#else
	return getIdentitySequence(relid, attnum, false);
#endif
}

#if PG_VERSION_NUM >= 180000
#define BDD_EXECUTOR_RUN_PARAMETERS \
	QueryDesc *query, ScanDirection direction, uint64 count
#define BDD_EXECUTOR_RUN_ARGUMENTS query, direction, count
#else
#define BDD_EXECUTOR_RUN_PARAMETERS \
	QueryDesc *query, ScanDirection direction, uint64 count, bool execute_once
#define BDD_EXECUTOR_RUN_ARGUMENTS query, direction, count, execute_once
#endif

static inline double
bdd_estimate_array_length(PlannerInfo *root, Node *array)
{
#if PG_VERSION_NUM >= 170000
	return estimate_array_length(root, array);
#else
	return estimate_array_length(array);
#endif
}

/* The expression of a generated column. */
static inline Node *
bdd_generation_expression(Relation rel, int attnum)
{
#if PG_VERSION_NUM >= 180000
	return build_generation_expression(rel, attnum);
#else
	return build_column_default(rel, attnum);
#endif
}

/* Where the columns of "out" are in "in". */
static inline AttrMap *
bdd_map_columns(TupleDesc in, TupleDesc out)
{
#if PG_VERSION_NUM >= 160000
	return build_attrmap_by_name(in, out, false);
#else
	return build_attrmap_by_name(in, out);
#endif
}

/* An index as in CREATE INDEX, by a role that need not be allowed to create anything. */
static inline void
bdd_define_index(Oid relid, IndexStmt *statement)
{
#if PG_VERSION_NUM >= 190000
	(void) DefineIndex(NULL, relid, statement, InvalidOid, InvalidOid, InvalidOid,
					   -1, false, false, false, false, true);
#elif PG_VERSION_NUM >= 160000
	(void) DefineIndex(relid, statement, InvalidOid, InvalidOid, InvalidOid,
					   -1, false, false, false, false, true);
#else
	(void) DefineIndex(relid, statement, InvalidOid, InvalidOid, InvalidOid,
					   false, false, false, false, true);
#endif
}

/* What a signal handler passes on to another. */
#if PG_VERSION_NUM >= 190000
#define BDD_PASS_SIGNAL_ARGS postgres_signal_arg, pg_siginfo
#else
#define BDD_PASS_SIGNAL_ARGS postgres_signal_arg
#endif

/* CREATE, ALTER and DROP DATABASE may end the worker themselves. */
#if PG_VERSION_NUM >= 190000
#define BDD_WORKER_INTERRUPTIBLE BGWORKER_INTERRUPTIBLE
#else
#define BDD_WORKER_INTERRUPTIBLE 0
#endif

/* The setting that limits transactions, or statements where there is none. */
#if PG_VERSION_NUM >= 170000
#define BDD_TRANSACTION_TIMEOUT "transaction_timeout"
#else
#define BDD_TRANSACTION_TIMEOUT "statement_timeout"
#endif

/* Called when the planner has read what the catalog says about a relation. */
#if PG_VERSION_NUM >= 190000
#define bdd_relation_hook build_simple_rel_hook
typedef build_simple_rel_hook_type BddRelationHook;
#define BDD_RELATION_HOOK(name) \
	void name(PlannerInfo *root, RelOptInfo *rel, RangeTblEntry *entry)
#define BDD_CALL_RELATION_HOOK(hook) (hook)(root, rel, entry)
#else
#define bdd_relation_hook get_relation_info_hook
typedef get_relation_info_hook_type BddRelationHook;
#define BDD_RELATION_HOOK(name) \
	void name(PlannerInfo *root, Oid relid, bool inherits, RelOptInfo *rel)
#define BDD_CALL_RELATION_HOOK(hook) (hook)(root, relid, inherits, rel)
#endif

/* What is derived of an attribute that was filled in by hand. */
static inline void
bdd_finish_attribute(TupleDesc desc, int i)
{
#if PG_VERSION_NUM >= 180000
	populate_compact_attribute(desc, i);
#else
	TupleDescAttr(desc, i)->attcacheoff = -1;
#endif
}

static inline void
bdd_finish_desc(TupleDesc desc)
{
#if PG_VERSION_NUM >= 190000
	TupleDescFinalize(desc);
#endif
}

/* ---------- other processes ---------- */

/*
 * A process that can run transactions has a number: the first part of its virtual
 * transaction ids, and its place among the entries of pg_stat_activity.
 */
#if PG_VERSION_NUM >= 170000
#define BDD_FIRST_BACKEND 0
#else
#define BDD_FIRST_BACKEND 1
#endif

/* The process with this number, or NULL: there is none. */
static inline PGPROC *
bdd_backend_proc(int number)
{
#if PG_VERSION_NUM >= 170000
	return ProcNumberGetProc(number);
#else
	return BackendIdGetProc(number);
#endif
}

/* What pg_stat_activity is read from; it may be of another process, or empty. */
static inline PgBackendStatus *
bdd_backend_status(int number)
{
#if PG_VERSION_NUM >= 170000
	return MyBEEntry + (number - MyProcNumber);
#else
	return MyBEEntry + (number - MyBackendId);
#endif
}

static inline VirtualTransactionId
bdd_make_vxid(int number, LocalTransactionId lxid)
{
	VirtualTransactionId vxid;

#if PG_VERSION_NUM >= 170000
	vxid.procNumber = number;
#else
	vxid.backendId = number;
#endif
	vxid.localTransactionId = lxid;
	return vxid;
}

static inline int
bdd_vxid_backend(VirtualTransactionId vxid)
{
#if PG_VERSION_NUM >= 170000
	return vxid.procNumber;
#else
	return vxid.backendId;
#endif
}

/* The virtual transaction id that a prepared transaction had, or has. */
static inline VirtualTransactionId
bdd_prepared_vxid(const PGPROC *proc)
{
#if PG_VERSION_NUM >= 170000
	return bdd_make_vxid(proc->vxid.procNumber, proc->vxid.lxid);
#else
	return bdd_make_vxid(proc->backendId, proc->lxid);
#endif
}

/* Whether it is something else than a client's backend. */
static inline bool
bdd_is_background(const PGPROC *proc)
{
#if PG_VERSION_NUM >= 190000
	return proc->backendType != B_BACKEND;
#elif PG_VERSION_NUM >= 180000
	return !proc->isRegularBackend;
#else
	return proc->isBackgroundWorker;
#endif
}

/* Whether its entry in pg_stat_activity cannot tell its database yet. */
static inline bool
bdd_is_starting(BackendState state)
{
#if PG_VERSION_NUM >= 180000
	return state == STATE_STARTING;
#else
	return false; /* it has no entry */
#endif
}

#if PG_VERSION_NUM >= 170000
#define BDD_WAIT_EVENT_WALSENDER_WAITS WAIT_EVENT_WAL_SENDER_WAIT_FOR_WAL
#else
#define BDD_WAIT_EVENT_WALSENDER_WAITS WAIT_EVENT_WAL_SENDER_WAIT_WAL
#endif

/* ---------- WAL and replication slots ---------- */

/* Telling the walwriter of an asynchronous commit wakes it only if it must. */
#if PG_VERSION_NUM >= 170000
#define BDD_ANNOUNCING_IS_CHEAP
#endif

static inline void
bdd_replication_slot_create(const char *name)
{
#if PG_VERSION_NUM >= 190000
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false, false, false,
						  false);
#elif PG_VERSION_NUM >= 170000
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false, false, false);
#else
	ReplicationSlotCreate(name, false, RS_PERSISTENT, false);
#endif
}

static inline void
bdd_replication_slot_acquire(const char *name)
{
#if PG_VERSION_NUM >= 180000
	ReplicationSlotAcquire(name, true, false);
#else
	ReplicationSlotAcquire(name, true);
#endif
}

/* Whether the server has taken away the WAL that the slot was to keep. */
static inline bool
bdd_replication_slot_is_invalidated(const ReplicationSlot *slot)
{
#if PG_VERSION_NUM >= 160000
	return slot->data.invalidated != RS_INVAL_NONE;
#else
	return slot->data.invalidated_at != InvalidXLogRecPtr;
#endif
}

static inline void
bdd_replication_slot_drop(const char *name)
{
#if PG_VERSION_NUM >= 190000
	ReplicationSlotDropAcquired(false);
#elif PG_VERSION_NUM >= 170000
	ReplicationSlotDropAcquired();
#else
	ReplicationSlotRelease();
	ReplicationSlotDrop(name, true);
#endif
}

static inline XLogRecPtr
bdd_find_next_record(XLogReaderState *reader, XLogRecPtr from)
{
#if PG_VERSION_NUM >= 190000
	char *message;

	return XLogFindNextRecord(reader, from, &message);
#else
	return XLogFindNextRecord(reader, from);
#endif
}

#endif /* BDD_COMPAT_H */
