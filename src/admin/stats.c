/*-------------------------------------------------------------------------
 *
 * stats.c
 *		What the views stat_target, stat_buffer, stat_worker and stat_journal show.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/xlog.h"
#include "base/guc.h"
#include "base/loaded.h"
#include "buffer/registry.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "storage/proc.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/pg_lsn.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_stat_target);
PG_FUNCTION_INFO_V1(bdd_stat_buffer);
PG_FUNCTION_INFO_V1(bdd_stat_worker);
PG_FUNCTION_INFO_V1(bdd_stat_journal);
PG_FUNCTION_INFO_V1(bdd_stat_reset);

#define TARGET_COLUMNS 24

static void
set_time(Datum *value, bool *isnull, TimestampTz at)
{
	*value = TimestampTzGetDatum(at);
	*isnull = at == 0;
}

/* Rows and the oldest one's time, of what is not applied. */
static void
buffered_rows(BddSharedSlot *slot, uint64 *rows, TimestampTz *oldest)
{
	*rows = 0;
	*oldest = 0;
	for (BddSharedGeneration *generation = slot->oldest; generation != NULL;
		 generation = generation->next)
	{
		if (generation->state == BDD_APPLIED)
			continue;
		*rows += pg_atomic_read_u32(&generation->keys);
		if (*oldest == 0)
			*oldest = pg_atomic_read_u64(&generation->first_at);
	}
}

static void
received_rows(BddSharedSlot *slot, uint64 *received, uint64 *coalesced,
			  uint64 *stale)
{
	*received = 0;
	*coalesced = 0;
	*stale = 0;
	for (int i = 0; i < BDD_PARTITIONS; i++)
	{
		BddSharedPartition *partition = &slot->partitions[i];

		LWLockAcquire(&partition->lock, LW_SHARED);
		*received += partition->received;
		*coalesced += partition->coalesced;
		*stale += partition->stale;
		LWLockRelease(&partition->lock);
	}
}

/* An error may quote values: only who may read the table is shown it. */
static void
fill_failure(Oid relid, const BddSharedFailure *failure, Datum *values,
			 bool *isnull)
{
	isnull[0] = isnull[1] = isnull[2] = isnull[3] = true;
	if (failure->count == 0)
		return;
	values[0] = Int64GetDatum(failure->count);
	values[1] = TimestampTzGetDatum(failure->at);
	values[2] = CStringGetTextDatum(unpack_sql_state(failure->sqlstate));
	isnull[0] = isnull[1] = isnull[2] = false;
	if (SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) &&
		bdd_may_read(relid))
	{
		values[3] = CStringGetTextDatum(failure->message);
		isnull[3] = false;
	}
}

static void
fill_target(BddSharedSlot *slot, Datum *values, bool *isnull)
{
	BddSharedCounts all_counts;
	const BddSharedCounts *counts = &all_counts;
	BddSharedFailure failure;
	Oid relid;
	uint64 applied;
	uint64 received;
	uint64 coalesced;
	uint64 stale;
	uint64 rows;
	TimestampTz oldest;
	int i = 0;

	LWLockAcquire(&slot->lock, LW_SHARED);
	values[i++] = Int32GetDatum(slot->target_id);
	relid = slot->relid;
	all_counts = slot->counts;
	failure = slot->failure;
	applied = slot->applied;
	buffered_rows(slot, &rows, &oldest);
	LWLockRelease(&slot->lock);

	received_rows(slot, &received, &coalesced, &stale);
	values[i++] = ObjectIdGetDatum(relid);
	values[i++] = Int64GetDatum(received);
	values[i++] = Int64GetDatum(coalesced);
	values[i++] = Int64GetDatum(stale + counts->stale);
	values[i++] = Int64GetDatum(counts->inserted);
	values[i++] = Int64GetDatum(counts->updated);
	values[i++] = Int64GetDatum(counts->unchanged);
	values[i++] = Int64GetDatum(counts->deleted);
	values[i++] = Int64GetDatum(counts->dead_lettered);
	values[i++] = Int64GetDatum(counts->flushes);
	values[i++] = Int64GetDatum(counts->failed_flushes);
	values[i++] = Int64GetDatum(rows);
	values[i++] = Int64GetDatum((uint64) pg_atomic_read_u32(&slot->budget.used) *
								BDD_CHUNK_SIZE);
	set_time(&values[i], &isnull[i], oldest);
	i++;
	set_time(&values[i], &isnull[i], counts->last_flush_at);
	i++;
	values[i] = Float8GetDatum(counts->last_flush_us / 1000.0);
	isnull[i++] = counts->last_flush_at == 0;
	values[i++] = Int64GetDatum(applied);
	values[i++] = Int64GetDatum(counts->foreign_writes);
	values[i] = BoolGetDatum(failure.passing);
	isnull[i++] = failure.count == 0;
	fill_failure(relid, &failure, &values[i], &isnull[i]);
	Assert(i + 4 == TARGET_COLUMNS);
}

Datum
bdd_stat_target(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];
		Datum values[TARGET_COLUMNS] = {0};
		bool isnull[TARGET_COLUMNS] = {0};

		if (!slot->in_use || slot->database != MyDatabaseId)
			continue;
		fill_target(slot, values, isnull);
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 isnull);
	}
	return (Datum) 0;
}

Datum
bdd_stat_buffer(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	uint64 used;
	int slots = 0;
	Datum values[6];
	bool isnull[6] = {0};

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < bdd_max_targets; i++)
		slots += bdd_registry->slots[i].in_use;
	used = pg_atomic_read_u32(&bdd_pool->used);
	values[0] = Int64GetDatum((int64) bdd_pool->total * BDD_CHUNK_SIZE);
	values[1] = Int64GetDatum((int64) used * BDD_CHUNK_SIZE);
	values[2] = Int32GetDatum(slots);
	values[3] = Int32GetDatum(bdd_max_targets);
	values[4] = BoolGetDatum(bdd_registry->launcher != NULL);
	set_time(&values[5], &isnull[5], bdd_registry->start_failed_at);
	tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	return (Datum) 0;
}

static const char *
worker_state(const BddSharedWorker *worker)
{
	switch (worker->state)
	{
		case BDD_WORKER_NONE:
			return "none";
		case BDD_WORKER_STARTING:
			return "starting";
		case BDD_WORKER_RUNNING:
			return worker->publishers_since != 0 ? "waiting" :
				   OidIsValid(worker->target)    ? "applying" :
												   "idle";
	}
	return "unknown";
}

/* The processes that are between PRE_COMMIT and the end of their COMMIT. */
static Datum
publishers(void)
{
	Datum *pids = palloc(bdd_sequence->floors_size * sizeof(Datum));
	int count = 0;

	for (int i = 0; i < bdd_sequence->floors_size; i++)
		if (pg_atomic_read_u64(&bdd_sequence->floors[i]) != 0)
			pids[count++] = Int32GetDatum(GetPGProcByNumber(i)->pid);
	return PointerGetDatum(construct_array(pids, count, INT4OID, sizeof(int32),
										   true, TYPALIGN_INT));
}

Datum
bdd_stat_worker(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedWorker worker;
		Datum values[8] = {0};
		bool isnull[8] = {0};

		LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
		worker = bdd_registry->workers[i];
		LWLockRelease(&bdd_registry->worker_lock);
		if (!OidIsValid(worker.database) || worker.state == BDD_WORKER_NONE)
			continue;
		values[0] = Int32GetDatum(worker.pid);
		isnull[0] = worker.pid == 0;
		values[1] = ObjectIdGetDatum(worker.database);
		values[2] = CStringGetTextDatum(worker_state(&worker));
		set_time(&values[3], &isnull[3], worker.started_at);
		values[4] = ObjectIdGetDatum(worker.target);
		isnull[4] = !OidIsValid(worker.target) ||
					worker.database != MyDatabaseId;
		values[5] = Int64GetDatum(worker.generation);
		isnull[5] = !OidIsValid(worker.target) || worker.publishers_since != 0;
		set_time(&values[6], &isnull[6], worker.publishers_since);
		isnull[7] = worker.publishers_since == 0;
		values[7] = isnull[7] ? (Datum) 0 : publishers();
		tuplestore_putvalues(result->setResult, result->setDesc, values,
							 isnull);
	}
	return (Datum) 0;
}

static void
set_lsn(Datum *value, bool *isnull, XLogRecPtr lsn)
{
	*value = LSNGetDatum(lsn);
	*isnull = XLogRecPtrIsInvalid(lsn);
}

Datum
bdd_stat_journal(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	BddSharedJournal *journal = bdd_journal;
	XLogRecPtr now = RecoveryInProgress() ? InvalidXLogRecPtr : GetXLogInsertRecPtr();
	Datum values[12] = {0};
	bool isnull[12] = {0};

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
	values[0] = BoolGetDatum(bdd_journal_is_kept());
	values[1] = CStringGetTextDatum(journal->problem);
	isnull[1] = journal->problem[0] == '\0';
	set_lsn(&values[2], &isnull[2], journal->slot_at);
	values[3] = Int64GetDatum(now - journal->slot_at);
	isnull[3] = isnull[2] || now == InvalidXLogRecPtr;
	set_lsn(&values[4], &isnull[4], pg_atomic_read_u64(&journal->needed));
	values[5] = BoolGetDatum(bdd_journal_is_replayed());
	values[6] = Int64GetDatum(journal->replay_rows);
	values[7] = Float8GetDatum(journal->replay_us / 1000.0);
	set_lsn(&values[8], &isnull[8], journal->read_from);
	set_lsn(&values[9], &isnull[9], journal->read_to);
	set_lsn(&values[10], &isnull[10], journal->gap_from);
	set_lsn(&values[11], &isnull[11], journal->gap_to);
	isnull[10] = isnull[11];
	LWLockRelease(&bdd_registry->worker_lock);
	tuplestore_putvalues(result->setResult, result->setDesc, values, isnull);
	return (Datum) 0;
}

static void
reset_slot(BddSharedSlot *slot)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	memset(&slot->counts, 0, sizeof(slot->counts));
	LWLockRelease(&slot->lock);
	for (int i = 0; i < BDD_PARTITIONS; i++)
	{
		BddSharedPartition *partition = &slot->partitions[i];

		LWLockAcquire(&partition->lock, LW_EXCLUSIVE);
		partition->received = 0;
		partition->coalesced = 0;
		partition->stale = 0;
		LWLockRelease(&partition->lock);
	}
}

/* stat_reset(): the counters of this database's targets begin anew. */
Datum
bdd_stat_reset(PG_FUNCTION_ARGS)
{
	bdd_check_preloaded();
	for (int i = 0; i < bdd_registry->slot_count; i++)
		if (bdd_registry->slots[i].in_use &&
			bdd_registry->slots[i].database == MyDatabaseId)
			reset_slot(&bdd_registry->slots[i]);
	PG_RETURN_VOID();
}
