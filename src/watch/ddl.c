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
#include "sql/catalog.h"
#include "watch/ddl.h"

#include "access/xact.h"
#include "base/loaded.h"
#include "catalog/namespace.h"
#include "catalog/objectaccess.h"
#include "catalog/pg_type.h"
#include "commit/journal_write.h"
#include "miscadmin.h"
#include "proxy/conflict.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/fmgroids.h"
#include "watch/alter.h"
#include "watch/database.h"
#include "watch/drop.h"
#include "watch/guard.h"
#include "watch/rename.h"
#include "watch/truncate.h"

static object_access_hook_type previous_object_hook = NULL;
static ProcessUtility_hook_type previous_utility_hook = NULL;

/*
 * The object access hook: what has no statement of its own, such as tables
 * that DROP ... CASCADE or DROP SCHEMA takes along.
 */
static void
object_accessed(ObjectAccessType access, Oid class, Oid object,
				int sub_object, void *arg)
{
	if (previous_object_hook != NULL)
		previous_object_hook(access, class, object, sub_object, arg);
	if (access == OAT_DROP)
		bdd_object_dropped(class, object, sub_object);
	else if (access == OAT_TRUNCATE)
		bdd_table_truncated(object);
	else if (access == OAT_FUNCTION_EXECUTE && object == F_PG_NOTIFY)
		bdd_journal_expect_xid();
}

/*
 * COPY FROM is a utility statement: the guard's own hook does not see it.
 * Callers without the right to insert get the server's error.
 */
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

/* What a statement needs before it runs, in the same transaction. */
static void
before_statement(Node *statement)
{
	switch (nodeTag(statement))
	{
		case T_AlterTableStmt:
			if (((AlterTableStmt *) statement)->objtype == OBJECT_TABLE)
				bdd_before_alter_table((AlterTableStmt *) statement);
			else if (((AlterTableStmt *) statement)->objtype == OBJECT_TYPE)
				bdd_before_alter_type((AlterTableStmt *) statement);
			break;
		case T_AlterDomainStmt:
			bdd_before_alter_domain((AlterDomainStmt *) statement);
			break;
		case T_NotifyStmt:
			bdd_journal_expect_xid();
			break;
		case T_TruncateStmt:
			bdd_before_truncate((TruncateStmt *) statement);
			break;
		case T_CopyStmt:
			guard_copy((CopyStmt *) statement);
			break;
		case T_DropStmt:
			bdd_before_drop((DropStmt *) statement);
			break;
		default:
			break;
	}
}

static void
after_statement(Node *statement)
{
	if (IsA(statement, RenameStmt))
		bdd_after_rename((RenameStmt *) statement);
	else if (IsA(statement, AlterExtensionStmt) &&
			 strcmp(((AlterExtensionStmt *) statement)->extname, BDD_LIBRARY) == 0)
		bdd_version_changed();
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

/*
 * The utility hook. The worker's own statements and those outside of a
 * transaction pass, and so do all where the extension is not installed.
 */
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
		bdd_before_database_statement(statement, &vacated);
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
		bdd_call_worker_back(&vacated);
		PG_RE_THROW();
	}
	PG_END_TRY();
	bdd_set_running_statement(outer);
	/* A database that is dropped stays until the commit. */
	if (!IsA(statement, DropdbStmt))
		bdd_call_worker_back(&vacated);
	if (ours)
		after_statement(statement);
}

/* Called once, in the postmaster. */
void
bdd_ddl_init(void)
{
	previous_object_hook = object_access_hook;
	object_access_hook = object_accessed;
	previous_utility_hook = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
