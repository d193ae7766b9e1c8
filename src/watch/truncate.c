/*-------------------------------------------------------------------------
 *
 * truncate.c
 *		TRUNCATE discards buffered rows with those of the table.
 *
 *-------------------------------------------------------------------------
 */
#include "watch/truncate.h"

#include "apply/apply.h"
#include "base/compat.h"
#include "catalog/heap.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "target/target.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "watch/settle.h"

/*
 * The server asks once before it has the lock (it is asking whether it may),
 * but process_utility has taken it then; for tables that CASCADE adds it has
 * the lock.
 */
void
bdd_table_truncated(Oid relid)
{
	if (!bdd_is_target(relid) || !bdd_holds_lock(relid, AccessExclusiveLock))
		return;
	bdd_set_pending_aside(relid);
	bdd_discard_here(bdd_target_open_any(relid, AccessExclusiveLock));
}

/*
 * For RangeVarGetRelidExtended: no lock on a table that the caller may not
 * truncate.
 */
static void
check_may_truncate(const RangeVar *table, Oid relid, Oid old_relid, void *arg)
{
	if (OidIsValid(relid) &&
		pg_class_aclcheck(relid, GetUserId(), ACL_TRUNCATE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV,
					   get_relkind_objtype(get_rel_relkind(relid)),
					   table->relname);
}

/* Whether the caller may truncate the table; else the server refuses. */
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
				bdd_settle_ancestors(lfirst_oid(cell), relids);
	}
}

/*
 * Before TRUNCATE: rows of ancestors go into their partitions, and targets are
 * locked, so that nobody publishes rows between their discarding and the
 * server's.
 */
void
bdd_before_truncate(TruncateStmt *truncate)
{
	List *relids = NIL;
	ListCell *cell;

	foreach(cell, truncate->relations)
	{
		RangeVar *table = lfirst(cell);

		Oid relid = RangeVarGetRelid(table, NoLock, true);

		if (may_truncate(relid))
			bdd_settle_ancestors(relid, NIL);
		if (bdd_is_target(RangeVarGetRelid(table, NoLock, true)))
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
