/*-------------------------------------------------------------------------
 *
 * progress.c
 *		How far long work is, for everybody to see.
 *
 * The work of an open transaction cannot be seen in tables by others; so its
 * progress is in shared memory, an entry for each process.  The entry goes with the
 * transaction or subtransaction that made it, unless it is kept, or with the
 * process.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/progress.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/loaded.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

BddSharedProgress *bdd_progress = NULL;

static BddSharedProgressEntry *mine = NULL;
static SubTransactionId mine_of = InvalidSubTransactionId;
static bool mine_is_kept = false; /* work of many transactions */

PG_FUNCTION_INFO_V1(bdd_stat_progress);

/* In the postmaster, before other processes exist. */
void
bdd_progress_init(BddSharedProgress *shared)
{
	LWLockInitialize(&shared->lock, bdd_new_tranche("BatchdedupProgress"));
	for (int i = 0; i < BDD_PROGRESS_ENTRIES; i++)
	{
		pg_atomic_init_u64(&shared->entries[i].done, 0);
		pg_atomic_init_u64(&shared->entries[i].total, 0);
	}
}

/* Gives up what this process shows, if it shows something. */
void
bdd_progress_end(void)
{
	if (mine == NULL)
		return;
	LWLockAcquire(&bdd_progress->lock, LW_EXCLUSIVE);
	mine->pid = 0;
	LWLockRelease(&bdd_progress->lock);
	mine = NULL;
	mine_is_kept = false;
}

/* A callback at the end of the process. */
static void
end_with_process(int code, Datum arg)
{
	bdd_progress_end();
}

/* Work that an error has broken off ends with its transaction. */
static void
end_with_transaction(XactEvent event, void *arg)
{
	if (!mine_is_kept && (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT))
		bdd_progress_end();
}

/*
 * The same for a subtransaction; one that commits hands its entry to its
 * parent.
 */
static void
end_with_subtransaction(SubXactEvent event, SubTransactionId self,
						SubTransactionId parent, void *arg)
{
	if (mine == NULL || mine_is_kept || mine_of != self)
		return;
	if (event == SUBXACT_EVENT_ABORT_SUB)
		bdd_progress_end();
	else if (event == SUBXACT_EVENT_COMMIT_SUB)
		mine_of = parent;
}

/* Registers the callbacks above, once in a process. */
static void
watch_ends(void)
{
	static bool watching = false;

	if (watching)
		return;
	before_shmem_exit(end_with_process, (Datum) 0);
	RegisterXactCallback(end_with_transaction, NULL);
	RegisterSubXactCallback(end_with_subtransaction, NULL);
	watching = true;
}

/* "batch": NULL, or what the work is of.  Work within work is not shown. */
void
bdd_progress_begin(const char *kind, Oid relid, const pg_uuid_t *batch,
				   uint64 total)
{
	if (mine != NULL || bdd_progress == NULL)
		return;
	watch_ends();
	LWLockAcquire(&bdd_progress->lock, LW_EXCLUSIVE);
	for (int i = 0; i < BDD_PROGRESS_ENTRIES && mine == NULL; i++)
		if (bdd_progress->entries[i].pid == 0)
			mine = &bdd_progress->entries[i];
	if (mine != NULL)
	{
		mine->pid = MyProcPid;
		mine->database = MyDatabaseId;
		mine->relid = relid;
		mine->of_batch = batch != NULL;
		if (batch != NULL)
			mine->batch = *batch;
		mine->kind = kind;
		mine->started = GetCurrentTimestamp();
		pg_atomic_write_u64(&mine->done, 0);
		pg_atomic_write_u64(&mine->total, total);
	}
	LWLockRelease(&bdd_progress->lock);
	mine_of = GetCurrentSubTransactionId();
}

/* Does nothing if the work is not shown. */
void
bdd_progress_add(uint64 count)
{
	if (mine != NULL)
		(void) pg_atomic_fetch_add_u64(&mine->done, count);
}

/* The entry stays until bdd_progress_end, or until the process ends. */
void
bdd_progress_keep(void)
{
	mine_is_kept = mine != NULL;
}

/* Whether it is this work that is shown of the process. */
bool
bdd_progress_is(const char *kind)
{
	return mine != NULL && strcmp(mine->kind, kind) == 0;
}

/* Adds a row to the result of stat_progress_internal. */
static void
put_entry(ReturnSetInfo *result, const BddSharedProgressEntry *entry)
{
	/* No more is shown as done than there is. */
	uint64 total = pg_atomic_read_u64((pg_atomic_uint64 *) &entry->total);
	uint64 done = pg_atomic_read_u64((pg_atomic_uint64 *) &entry->done);
	Datum values[] = {Int32GetDatum(entry->pid),
					  CStringGetTextDatum(entry->kind),
					  ObjectIdGetDatum(entry->relid),
					  UUIDPGetDatum(&entry->batch),
					  TimestampTzGetDatum(entry->started),
					  Int64GetDatum((int64) Min(done, total)),
					  Int64GetDatum((int64) total)};
	bool nulls[lengthof(values)] = {false};

	nulls[3] = !entry->of_batch;
	tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
}

/* stat_progress_internal(): what works in this database. */
Datum
bdd_stat_progress(PG_FUNCTION_ARGS)
{
	BddSharedProgressEntry entries[BDD_PROGRESS_ENTRIES];
	int count = 0;

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	LWLockAcquire(&bdd_progress->lock, LW_SHARED);
	for (int i = 0; i < BDD_PROGRESS_ENTRIES; i++)
		if (bdd_progress->entries[i].pid != 0 &&
			bdd_progress->entries[i].database == MyDatabaseId)
			entries[count++] = bdd_progress->entries[i];
	LWLockRelease(&bdd_progress->lock);
	for (int i = 0; i < count; i++)
		put_entry((ReturnSetInfo *) fcinfo->resultinfo, &entries[i]);
	return (Datum) 0;
}
