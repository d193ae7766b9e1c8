/*-------------------------------------------------------------------------
 *
 * flush.c
 *		flush(): waits until what was committed before is in the tables.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/list.h"
#include "base/loaded.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/wake.h"
#include "catalog/pg_type_d.h"
#include "commit/pending.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "target/target.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"

PG_FUNCTION_INFO_V1(bdd_flush);

/* INSERT on some column, and UPDATE on some column. */
static bool
may_flush(Oid relid)
{
	Oid role = GetUserId();

	return pg_attribute_aclcheck_all(relid, role, ACL_INSERT,
									 ACLMASK_ANY) == ACLCHECK_OK &&
		   pg_attribute_aclcheck_all(relid, role, ACL_UPDATE,
									 ACLMASK_ANY) == ACLCHECK_OK;
}

/* INSERT and UPDATE on the table, or on some of its columns. */
static bool
may_write(Oid relid)
{
	return pg_class_aclmask(relid, GetUserId(), ACL_INSERT | ACL_UPDATE,
							ACLMASK_ALL) == (ACL_INSERT | ACL_UPDATE) ||
		   may_flush(relid);
}

/* One target whose flush was asked for. */
typedef struct BddFlush
{
	Oid relid;
	int32 target_id;
	BddSharedSlot *slot;
	TimestampTz since;
	uint64 number;
	uint64 rows_before;
} BddFlush;

/* A snapshot of the counter, under the slot lock. */
static uint64
applied_rows(BddSharedSlot *slot)
{
	uint64 rows;

	LWLockAcquire(&slot->lock, LW_SHARED);
	rows = slot->counts.applied_rows;
	LWLockRelease(&slot->lock);
	return rows;
}

/* A flush concerns what was published before it. */
static void
notice_pending(BddTarget *target)
{
	BddPending *pending = bdd_pending_find(target->relid);

	if (pending != NULL && pending->set->count > 0)
		ereport(NOTICE,
				(errmsg("rows of \"%s\" that this transaction has upserted are not flushed: they are published at its end",
						get_rel_name(target->relid))));
}

/* Asks for the flush; NULL: there is nothing to wait for. */
static BddFlush *
start_flush(Oid relid, bool named)
{
	BddTarget *target;
	BddSharedSlot *slot;
	BddOptions options;
	BddFlush *flush;

	if (!named && !may_write(relid))
		return NULL;
	target = bdd_target_open_any(relid, AccessShareLock);
	if (!may_write(relid))
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
	notice_pending(target);
	/* Read now: resume() takes no lock that we would have to wait for. */
	if (!bdd_options_read(relid, &options) || (options.paused && !named))
		return NULL;
	if (options.paused)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("target \"%s\" is paused", get_rel_name(relid)),
				 errhint("SELECT batchdedup.resume('%s');",
						 bdd_qualified_name(relid))));
	if (named)
		(void) bdd_target_open(relid, AccessShareLock);
	else if (target->broken != BDD_USABLE)
	{
		ereport(WARNING,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("target \"%s\" is not flushed: a column of it, or its key's index, does not exist any more",
						get_rel_name(relid))));
		return NULL;
	}
	/* What this transaction itself has applied or discarded needs no worker. */
	slot = bdd_target_find_slot(target);
	if (slot == NULL || !bdd_slot_has_unapplied(slot))
		return NULL;
	flush = palloc(sizeof(BddFlush));
	flush->relid = relid;
	flush->target_id = target->options.target_id;
	flush->slot = slot;
	flush->rows_before = applied_rows(flush->slot);
	flush->since = GetCurrentTimestamp();
	flush->number = bdd_request_flush(flush->slot, true);
	return flush;
}

/*
 * Waits for the worker; returns how many rows were applied since the flush was
 * begun.
 */
static uint64
finish_flush(BddFlush *flush)
{
	bool may_read = bdd_may_read(flush->relid);

	bdd_wait_applied(flush->slot, flush->target_id, flush->number,
					 flush->since, may_read);
	return applied_rows(flush->slot) - flush->rows_before;
}

/*
 * The tables named in argument 0, each once; *named: there are any.  Otherwise
 * all targets.
 */
static List *
flush_targets(FunctionCallInfo fcinfo, bool *named)
{
	ArrayType *array = PG_GETARG_ARRAYTYPE_P(0);
	Datum *oids;
	bool *nulls;
	int count;
	List *relids = NIL;

	deconstruct_array(array, REGCLASSOID, sizeof(Oid), true, TYPALIGN_INT,
					  &oids, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("target must not be null")));
		relids = list_append_unique_oid(relids, DatumGetObjectId(oids[i]));
	}
	*named = relids != NIL;
	return *named ? relids : bdd_all_targets();
}

/*
 * flush(VARIADIC regclass[]): the rows applied, once all that was committed
 * before the call is in the tables.  All flushes run side by side.
 */
Datum
bdd_flush(PG_FUNCTION_ARGS)
{
	List *flushes = NIL;
	ListCell *cell;
	uint64 rows = 0;
	bool named;

	bdd_check_preloaded();
	bdd_check_argument(fcinfo, 0, "list of targets");
	PreventCommandDuringRecovery("flush()");
	bdd_check_may_wait();
	foreach(cell, flush_targets(fcinfo, &named))
	{
		BddFlush *flush = start_flush(lfirst_oid(cell), named);

		if (flush != NULL)
			flushes = lappend(flushes, flush);
	}
	foreach(cell, flushes)
		rows += finish_flush(lfirst(cell));
	PG_RETURN_INT64(rows);
}
