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
#include "base/list.h"
#include "base/loaded.h"
#include "buffer/registry.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "storage/proc.h"
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

/* ---------- rows, whose columns have names ---------- */

/*
 * A row of what a function returns.  Its columns are found by their names in
 * the extension's script, so their order is the script's alone, and a name
 * that only one of the two knows is an error at the first call.
 */
typedef struct BddStatRow
{
	ReturnSetInfo *result;
	Datum values[32];
	bool isnull[32];
	bool given[32];
} BddStatRow;

static BddStatRow
begin_row(FunctionCallInfo fcinfo)
{
	BddStatRow row = {.result = (ReturnSetInfo *) fcinfo->resultinfo};

	Assert(row.result->setDesc->natts <= lengthof(row.values));
	return row;
}

static void
put_or_null(BddStatRow *row, const char *name, Datum value, bool isnull)
{
	AttrNumber attnum = bdd_column_number(row->result->setDesc, name);

	if (attnum == InvalidAttrNumber)
		elog(ERROR, "there is no column \"%s\" for a statistic", name);
	row->values[attnum - 1] = value;
	row->isnull[attnum - 1] = isnull;
	row->given[attnum - 1] = true;
}

static void
put(BddStatRow *row, const char *name, Datum value)
{
	put_or_null(row, name, value, false);
}

static void
put_time(BddStatRow *row, const char *name, TimestampTz at)
{
	put_or_null(row, name, TimestampTzGetDatum(at), at == 0);
}

static void
put_lsn(BddStatRow *row, const char *name, XLogRecPtr lsn)
{
	put_or_null(row, name, LSNGetDatum(lsn), XLogRecPtrIsInvalid(lsn));
}

static void
end_row(BddStatRow *row)
{
	TupleDesc desc = row->result->setDesc;

	for (int i = 0; i < desc->natts; i++)
		if (!row->given[i])
			elog(ERROR, "there is no statistic for column \"%s\"",
				 NameStr(TupleDescAttr(desc, i)->attname));
	tuplestore_putvalues(row->result->setResult, desc, row->values, row->isnull);
}

/* ---------- targets ---------- */

/*
 * The counters of a slot that are columns of stat_target under the same name.
 * All that is in BddSharedCounts is set to 0 by stat_reset() and lost at a
 * restart.
 */
#define COUNTER(name)                          \
	{                                          \
#name, offsetof(BddSharedCounts, name) \
	}

static const struct
{
	const char *name;
	Size offset;
} counters[] = {
	COUNTER(inserted),
	COUNTER(updated),
	COUNTER(unchanged),
	COUNTER(deleted),
	COUNTER(dead_lettered),
	COUNTER(flushes),
	COUNTER(failed_flushes),
	COUNTER(foreign_writes),
};

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
put_failure(BddStatRow *row, Oid relid, const BddSharedFailure *failure)
{
	bool none = failure->count == 0;
	bool hidden = none || !SearchSysCacheExists1(RELOID, ObjectIdGetDatum(relid)) ||
				  !bdd_may_read(relid);

	put_or_null(row, "error_passes", BoolGetDatum(failure->passing), none);
	put_or_null(row, "failures", Int64GetDatum(failure->count), none);
	put_or_null(row, "last_error_at", TimestampTzGetDatum(failure->at), none);
	put_or_null(row, "last_error_sqlstate",
				none ? (Datum) 0 : CStringGetTextDatum(unpack_sql_state(failure->sqlstate)),
				none);
	put_or_null(row, "last_error",
				hidden ? (Datum) 0 : CStringGetTextDatum(failure->message),
				hidden);
}

/* What was counted where rows come in, in all partitions; stale is counted there, too. */
static void
put_received(BddStatRow *row, BddSharedSlot *slot, uint64 stale_at_applies)
{
	uint64 received;
	uint64 coalesced;
	uint64 stale;

	received_rows(slot, &received, &coalesced, &stale);
	put(row, "received", Int64GetDatum(received));
	put(row, "coalesced", Int64GetDatum(coalesced));
	put(row, "stale", Int64GetDatum(stale + stale_at_applies));
}

static void
put_target(BddStatRow *row, BddSharedSlot *slot)
{
	BddSharedCounts counts;
	BddSharedFailure failure;
	int32 target_id;
	Oid relid;
	uint64 applied;
	uint64 rows;
	TimestampTz oldest;

	LWLockAcquire(&slot->lock, LW_SHARED);
	target_id = slot->target_id;
	relid = slot->relid;
	counts = slot->counts;
	failure = slot->failure;
	applied = slot->applied;
	buffered_rows(slot, &rows, &oldest);
	LWLockRelease(&slot->lock);

	put(row, "target_id", Int32GetDatum(target_id));
	put(row, "target", ObjectIdGetDatum(relid));
	put_received(row, slot, counts.stale);
	for (int i = 0; i < lengthof(counters); i++)
		put(row, counters[i].name,
			Int64GetDatum(*(uint64 *) ((char *) &counts + counters[i].offset)));
	put(row, "buffered_rows", Int64GetDatum(rows));
	put(row, "buffered_bytes",
		Int64GetDatum((uint64) pg_atomic_read_u32(&slot->budget.used) * BDD_CHUNK_SIZE));
	put_time(row, "oldest_row_at", oldest);
	put_time(row, "last_flush_at", counts.last_flush_at);
	put_or_null(row, "last_flush_ms", Float8GetDatum(counts.last_flush_us / 1000.0),
				counts.last_flush_at == 0);
	put(row, "generation", Int64GetDatum(applied));
	put_failure(row, relid, &failure);
}

Datum
bdd_stat_target(PG_FUNCTION_ARGS)
{
	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];
		BddStatRow row;

		if (!slot->in_use || slot->database != MyDatabaseId)
			continue;
		row = begin_row(fcinfo);
		put_target(&row, slot);
		end_row(&row);
	}
	return (Datum) 0;
}

/* ---------- the buffer ---------- */

Datum
bdd_stat_buffer(PG_FUNCTION_ARGS)
{
	BddStatRow row;
	int slots = 0;

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	row = begin_row(fcinfo);
	for (int i = 0; i < bdd_max_targets; i++)
		slots += bdd_registry->slots[i].in_use;
	put(&row, "total_bytes", Int64GetDatum((int64) bdd_pool->total * BDD_CHUNK_SIZE));
	put(&row, "used_bytes",
		Int64GetDatum((int64) pg_atomic_read_u32(&bdd_pool->used) * BDD_CHUNK_SIZE));
	put(&row, "targets", Int32GetDatum(slots));
	put(&row, "max_targets", Int32GetDatum(bdd_max_targets));
	put(&row, "launcher_running", BoolGetDatum(bdd_registry->launcher != NULL));
	put_time(&row, "worker_start_failed_at", bdd_registry->start_failed_at);
	end_row(&row);
	return (Datum) 0;
}

/* ---------- workers ---------- */

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

static void
put_worker(BddStatRow *row, const BddSharedWorker *worker)
{
	bool applies = OidIsValid(worker->target);
	bool waits = worker->publishers_since != 0;

	put_or_null(row, "pid", Int32GetDatum(worker->pid), worker->pid == 0);
	put(row, "database_id", ObjectIdGetDatum(worker->database));
	put(row, "state", CStringGetTextDatum(worker_state(worker)));
	put_time(row, "started_at", worker->started_at);
	put_or_null(row, "target", ObjectIdGetDatum(worker->target),
				!applies || worker->database != MyDatabaseId);
	put_or_null(row, "generation", Int64GetDatum(worker->generation),
				!applies || waits);
	put_time(row, "waits_since", worker->publishers_since);
	put_or_null(row, "waits_for", waits ? publishers() : (Datum) 0, !waits);
}

Datum
bdd_stat_worker(PG_FUNCTION_ARGS)
{
	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedWorker worker;
		BddStatRow row;

		LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
		worker = bdd_registry->workers[i];
		LWLockRelease(&bdd_registry->worker_lock);
		if (!OidIsValid(worker.database) || worker.state == BDD_WORKER_NONE)
			continue;
		row = begin_row(fcinfo);
		put_worker(&row, &worker);
		end_row(&row);
	}
	return (Datum) 0;
}

/* ---------- the journal ---------- */

Datum
bdd_stat_journal(PG_FUNCTION_ARGS)
{
	XLogRecPtr now = RecoveryInProgress() ? InvalidXLogRecPtr : GetXLogInsertRecPtr();
	BddSharedJournal journal;
	BddStatRow row;

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	row = begin_row(fcinfo);
	LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
	journal = *bdd_journal;
	LWLockRelease(&bdd_registry->worker_lock);
	put(&row, "kept", BoolGetDatum(bdd_journal_is_kept()));
	put_or_null(&row, "problem", CStringGetTextDatum(journal.problem),
				journal.problem[0] == '\0');
	put_lsn(&row, "slot_lsn", journal.slot_at);
	put_or_null(&row, "retained_bytes", Int64GetDatum(now - journal.slot_at),
				XLogRecPtrIsInvalid(journal.slot_at) || XLogRecPtrIsInvalid(now));
	put_lsn(&row, "oldest_unapplied_lsn", pg_atomic_read_u64(&bdd_journal->needed));
	put(&row, "read", BoolGetDatum(bdd_journal_is_replayed()));
	put(&row, "replayed_rows", Int64GetDatum(journal.replay_rows));
	put(&row, "read_ms", Float8GetDatum(journal.replay_us / 1000.0));
	put_lsn(&row, "read_from", journal.read_from);
	put_lsn(&row, "read_to", journal.read_to);
	put_or_null(&row, "missing_from", LSNGetDatum(journal.gap_from),
				XLogRecPtrIsInvalid(journal.gap_to));
	put_lsn(&row, "missing_to", journal.gap_to);
	end_row(&row);
	return (Datum) 0;
}

/* ---------- stat_reset() ---------- */

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
