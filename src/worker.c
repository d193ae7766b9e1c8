/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The process that applies what is buffered for a database.
 *
 * It seals a target's active generation when its oldest row is old enough,
 * when it has keys enough, when memory runs low, or when flush() asks; waits
 * until the generation is quiet; and applies it.  An apply that fails is
 * tried again later, with all its rows.
 *
 *-------------------------------------------------------------------------
 */
#include "batchdedup.h"

#include "access/transam.h"
#include "access/xact.h"
#include "apply.h"
#include "bisect.h"
#include "catalog/pg_type_d.h"
#include "dead_letter.h"
#include "debug_point.h"
#include "flush_wait.h"
#include "fmgr.h"
#include "guc.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "registry.h"
#include "spi_util.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "target.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/snapmgr.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"

PGDLLEXPORT void bdd_worker_main(Datum arg);

static BddSharedWorker *my_worker = NULL;
static int my_index = 0;
static volatile bool applying = false;
static volatile bool out_of_time = false;
static bool draining = false;                   /* at shutdown: go on although it is wanted */
static char applied_table[2 * NAMEDATALEN + 2]; /* for the log */

/* ---------- states of the worker ---------- */

/* STARTING -> RUNNING; false: there is one already. */
static bool
attach(void)
{
	bool attached = false;

	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	if (my_worker->state != BDD_WORKER_RUNNING &&
		OidIsValid(my_worker->database))
	{
		my_worker->state = BDD_WORKER_RUNNING;
		my_worker->pid = MyProcPid;
		my_worker->started_at = GetCurrentTimestamp();
		my_worker->latch = MyLatch;
		attached = true;
	}
	LWLockRelease(&bdd_registry->worker_lock);
	return attached;
}

/* RUNNING -> NONE */
static void
detach(int code, Datum arg)
{
	LWLockAcquire(&bdd_registry->lock, LW_EXCLUSIVE);
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	Assert(my_worker->state == BDD_WORKER_RUNNING);
	my_worker->state = BDD_WORKER_NONE;
	my_worker->latch = NULL;
	my_worker->pid = 0;
	my_worker->target = InvalidOid;
	my_worker->publishers_since = 0;
	SetInvalidVirtualTransactionId(my_worker->applier);
	/* The launcher may start the next one at once, unless this one failed. */
	my_worker->started_at = code == 0 ? 0 : GetCurrentTimestamp();
	LWLockRelease(&bdd_registry->worker_lock);
	bdd_release_worker_index(my_index);
	LWLockRelease(&bdd_registry->lock);
	bdd_wake_launcher();
}

static void
report_applying(Oid target, uint64 generation)
{
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	my_worker->target = target;
	my_worker->generation = generation;
	if (!OidIsValid(target))
		SetInvalidVirtualTransactionId(my_worker->applier);
	LWLockRelease(&bdd_registry->worker_lock);
}

/* Waiters see the transaction that they wait for. */
static void
report_transaction(void)
{
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	my_worker->applier = bdd_my_vxid();
	LWLockRelease(&bdd_registry->worker_lock);
}

/* ---------- applying ---------- */

/*
 * In a transaction: applies the target's next generation if it is this one
 * and nobody has changed anything meanwhile.  The lock on the table comes
 * before any look at the target, for drop_target and the like.
 */
static bool
apply_locked(BddSharedSlot *slot, int32 target_id, Oid relid, uint64 number,
			 BddApplyCounts *counts)
{
	BddSharedGeneration *generation;
	BddTarget *target;

	snprintf(applied_table, sizeof(applied_table), "table %u", relid);
	LockRelationOid(relid, RowExclusiveLock);
	target = bdd_target_lookup(relid);
	if (target == NULL || bdd_target_find_slot(target) != slot ||
		target->options.target_id != target_id)
		return false;
	snprintf(applied_table, sizeof(applied_table), "%s.%s",
			 get_namespace_name(get_rel_namespace(relid)),
			 get_rel_name(relid));
	pgstat_report_activity(STATE_RUNNING, psprintf("batchdedup: apply generation " UINT64_FORMAT " of %s",
												   number, applied_table));
	generation = bdd_next_sealed(slot, 0);
	if (generation == NULL || generation->number != number ||
		!bdd_is_quiet(slot, number))
		return false;
	bdd_check_usable(target);
	(void) bdd_apply_generation(target, generation, counts);
	return true;
}

static bool
apply_in_transaction(BddSharedSlot *slot, int32 target_id, Oid relid,
					 uint64 number)
{
	TimestampTz started = GetCurrentTimestamp();
	BddApplyCounts counts = {0};
	bool applied;

	StartTransactionCommand();
	report_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	applied = apply_locked(slot, target_id, relid, number, &counts);
	PopActiveSnapshot();
	CommitTransactionCommand();
	bdd_debug_point("applied");
	if (applied)
	{
		bdd_apply_count(slot, target_id, &counts, started);
		bdd_generation_applied(slot, target_id, number);
	}
	return applied;
}

/* ---------- failures ---------- */

static int
backoff_ms(uint64 failures)
{
	int64 ms = bdd_retry_backoff_ms;

	for (uint64 i = 1; i < failures && ms < 60000; i++)
		ms *= 2;
	return (int) Min(ms, 60000);
}

static void
note_failure(BddSharedSlot *slot, int32 target_id, const ErrorData *error)
{
	TimestampTz now = GetCurrentTimestamp();

	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	if (!bdd_slot_belongs_to(slot, target_id))
	{
		LWLockRelease(&slot->lock);
		return;
	}
	slot->failure.count++;
	slot->failure.sqlstate = error->sqlerrcode;
	slot->failure.passing = bdd_error_is_passing(error->sqlerrcode);
	slot->failure.at = now;
	slot->failure.retry_at =
		TimestampTzPlusMilliseconds(now, backoff_ms(slot->failure.count));
	strlcpy(slot->failure.message, error->message,
			pg_mbcliplen(error->message, strlen(error->message),
						 BDD_MESSAGE_SIZE - 1) +
				1);
	slot->counts.failed_flushes++;
	if (!slot->failure.passing)
		slot->wanted = 0; /* its flush() has had its answer */
	LWLockRelease(&slot->lock);
	ConditionVariableBroadcast(&slot->changed);
}

/*
 * After an error in an apply: all its rows stay.  The log names the target
 * and the kind of error; the message may hold values, and is shown in
 * stat_target to who may read the table.
 */
static void
recover(BddSharedSlot *slot, int32 target_id, MemoryContext context)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	note_failure(slot, target_id, error);
	ereport(LOG,
			(errcode(error->sqlerrcode),
			 errmsg("batchdedup could not apply rows of %s: SQLSTATE %s",
					applied_table, unpack_sql_state(error->sqlerrcode)),
			 errdetail("The rows stay in the buffer and are tried again.")));
	FreeErrorData(error);
	RESUME_INTERRUPTS();
}

/* False: it failed, or there was nothing to apply. */
static bool
apply_generation(BddSharedSlot *slot, int32 target_id, Oid relid,
				 uint64 number)
{
	MemoryContext context = CurrentMemoryContext;
	volatile bool applied = false;

	report_applying(relid, number);
	PG_TRY();
	{
		applying = true;
		bdd_count_waiting_letters(relid);
		applied = apply_in_transaction(slot, target_id, relid, number);
	}
	PG_CATCH();
	{
		recover(slot, target_id, context);
	}
	PG_END_TRY();
	applying = false;
	report_applying(InvalidOid, 0);
	MemoryContextSwitchTo(context);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	/* Waiting for locks may have eaten a wake-up. */
	SetLatch(MyLatch);
	return applied;
}

/* ---------- what is due ---------- */

/* What the worker needs to know of a target, without a transaction. */
typedef struct BddDue
{
	bool paused;
	int flush_interval_ms;
	int flush_rows;
} BddDue;

/* False: the target is gone, or its create_target has yet to commit. */
static bool
read_due(int32 target_id, Oid relid, BddDue *due)
{
	BddOptions options;
	bool found;

	StartTransactionCommand();
	found = bdd_options_read(relid, &options) &&
			options.target_id == target_id;
	if (found)
	{
		due->paused = options.paused;
		due->flush_interval_ms = options.flush_interval_ms >= 0 ?
									 options.flush_interval_ms :
									 bdd_flush_interval_ms;
		due->flush_rows = options.flush_rows >= 0 ?
							  options.flush_rows :
							  bdd_flush_rows;
	}
	else
		bdd_free_orphans();
	CommitTransactionCommand();
	return found;
}

static long
ms_until(TimestampTz at)
{
	return TimestampDifferenceMilliseconds(GetCurrentTimestamp(), at);
}

/*
 * Milliseconds until the active generation is due; 0: now, -1: it has no
 * rows or time does not count.
 */
static long
due_in(BddSharedSlot *slot, const BddDue *due)
{
	long wait = -1;

	LWLockAcquire(&slot->lock, LW_SHARED);
	if (slot->active != NULL && pg_atomic_read_u32(&slot->active->keys) > 0)
	{
		uint32 keys = pg_atomic_read_u32(&slot->active->keys);
		TimestampTz first = pg_atomic_read_u64(&slot->active->first_at);

		if (slot->wanted >= slot->active->number ||
			(due->flush_rows > 0 && keys >= due->flush_rows) ||
			bdd_above_seal_mark(slot))
			wait = 0;
		else if (due->flush_interval_ms > 0)
			wait = ms_until(TimestampTzPlusMilliseconds(first, due->flush_interval_ms));
	}
	else if (slot->active != NULL && slot->wanted >= slot->active->number)
		wait = 1; /* a publisher is about to bring the first row */
	LWLockRelease(&slot->lock);
	return wait;
}

/* Milliseconds until a failed target is to be tried again; 0: now. */
static long
retry_in(BddSharedSlot *slot)
{
	TimestampTz at;

	LWLockAcquire(&slot->lock, LW_SHARED);
	at = slot->failure.count > 0 ? slot->failure.retry_at : 0;
	LWLockRelease(&slot->lock);
	return at == 0 ? 0 :
					 ms_until(at);
}

static long
sooner(long a, long b)
{
	return a < 0 ? b : b < 0 ? a :
							   Min(a, b);
}

static bool
must_leave(void)
{
	return draining ? out_of_time : ShutdownRequestPending;
}

static void
report_publishers(Oid target, TimestampTz since)
{
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	my_worker->target = target;
	my_worker->publishers_since = since;
	LWLockRelease(&bdd_registry->worker_lock);
}

/* Like bdd_wait_quiet, but leaves when the worker is to leave. */
static void
wait_quiet(BddSharedSlot *slot, uint64 number)
{
	if (bdd_is_quiet(slot, number))
		return;
	report_publishers(slot->relid, GetCurrentTimestamp());
	while (!must_leave() && !bdd_is_quiet(slot, number))
		bdd_wait_quiet_step();
	report_publishers(InvalidOid, 0);
	SetLatch(MyLatch); /* that was meant for the main loop */
}

/* Applies what is sealed; returns when to come back, or -1. */
static long
apply_sealed(BddSharedSlot *slot, int32 target_id, Oid relid)
{
	BddSharedGeneration *generation;

	while (!must_leave() &&
		   my_worker->away_until <= GetCurrentTimestamp() &&
		   (generation = bdd_next_sealed(slot, 0)) != NULL)
	{
		uint64 number = generation->number;
		long wait = retry_in(slot);

		if (wait > 0)
			return wait;
		wait_quiet(slot, number);
		bdd_debug_point("quiet");
		if (!must_leave() &&
			!apply_generation(slot, target_id, relid, number) &&
			retry_in(slot) <= 0)
			return 1000; /* in somebody else's hands */
	}
	return -1;
}

/* ---------- foreign keys ---------- */

#define MAX_REFERENCED 64

/* Tables that foreign keys of the table point to; returns their number. */
static int
referenced_tables(Oid relid, Oid *relids)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(relid)};
	int count = 0;

	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	bdd_spi_connect();
	(void) bdd_spi_run("SELECT confrelid FROM pg_catalog.pg_constraint "
					   "WHERE contype OPERATOR(pg_catalog.=) 'f' "
					   "AND conrelid OPERATOR(pg_catalog.=) $1 "
					   "AND confrelid OPERATOR(pg_catalog.<>) $1",
					   1, types, values, NULL);
	for (uint64 i = 0; i < SPI_processed && count < MAX_REFERENCED; i++)
	{
		bool isnull;

		relids[count++] =
			DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
										   SPI_tuptable->tupdesc, 1,
										   &isnull));
	}
	bdd_spi_finish();
	PopActiveSnapshot();
	CommitTransactionCommand();
	return count;
}

static bool
others_are_buffering(BddSharedSlot *slot)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *other = &bdd_registry->slots[i];

		if (other != slot && other->in_use && other->worker == my_index &&
			bdd_slot_is_buffering(other))
			return true;
	}
	return false;
}

/*
 * Before a sealed generation is applied: rows that were published with or
 * before it in tables that it references.  Those are sealed later than it, so
 * all that it needs is in what is applied here.
 */
static void
apply_referenced(BddSharedSlot *slot, Oid relid, int depth)
{
	Oid relids[MAX_REFERENCED];
	int count;

	if (depth > 8 || !others_are_buffering(slot) ||
		bdd_next_sealed(slot, 0) == NULL)
		return;
	count = referenced_tables(relid, relids);
	for (int i = 0; i < count; i++)
	{
		BddSharedSlot *parent = bdd_slot_find_by_table(relids[i]);
		BddDue due;

		if (parent == NULL || parent == slot ||
			!bdd_slot_is_buffering(parent) ||
			!read_due(parent->target_id, relids[i], &due) || due.paused)
			continue;
		bdd_seal(parent);
		apply_referenced(parent, relids[i], depth + 1);
		(void) apply_sealed(parent, parent->target_id, relids[i]);
	}
}

/* Old snapshots may need applied generations, but not as much as writers. */
static bool
free_what_is_applied(BddSharedSlot *slot)
{
	TransactionId horizon = InvalidTransactionId;
	bool left;

	LWLockAcquire(&slot->lock, LW_SHARED);
	left = slot->oldest != NULL && slot->oldest->state == BDD_APPLIED;
	LWLockRelease(&slot->lock);
	if (!left)
		return false;
	if (!bdd_above_seal_mark(slot))
	{
		StartTransactionCommand();
		horizon = GetOldestNonRemovableTransactionId(NULL);
		CommitTransactionCommand();
	}
	bdd_free_applied(slot, horizon);
	LWLockAcquire(&slot->lock, LW_SHARED);
	left = slot->oldest != NULL && slot->oldest->state == BDD_APPLIED;
	LWLockRelease(&slot->lock);
	return left;
}

/* Who waits for a flush is told. */
static void
note_paused(BddSharedSlot *slot)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->found_paused_at = GetCurrentTimestamp();
	LWLockRelease(&slot->lock);
	ConditionVariableBroadcast(&slot->changed);
}

/* One target; returns milliseconds until it wants attention, or -1. */
static long
tend(BddSharedSlot *slot)
{
	int32 target_id = slot->target_id;
	Oid relid = slot->relid;
	BddDue due;
	long wait = -1;
	long blocked;

	if (bdd_slot_is_buffering(slot))
	{
		if (!read_due(target_id, relid, &due))
			return 1000;
		if (due.paused)
			note_paused(slot);
		else
		{
			wait = due_in(slot, &due);
			if (wait == 0)
			{
				/* One at a time: rows of one key shall meet in the buffer. */
				if (bdd_next_sealed(slot, 0) == NULL)
					bdd_seal(slot);
				wait = -1;
			}
			apply_referenced(slot, relid, 0);
			blocked = apply_sealed(slot, target_id, relid);
			if (blocked >= 0)
				wait = blocked;
			/* More may have come while we applied. */
			else if (bdd_slot_is_buffering(slot))
				wait = sooner(wait, Max(due_in(slot, &due), -1));
		}
	}
	if (free_what_is_applied(slot))
		wait = sooner(wait, 1000);
	return wait;
}

static long
tend_all(void)
{
	long wait = -1;

	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->worker == my_index)
			wait = sooner(wait, tend(slot));
	}
	return wait;
}

/* ---------- main ---------- */

/*
 * Settings of roles and databases are not meant for us: a timeout would end
 * every apply, and a read-only default would prevent it.
 */
static void
override_settings(void)
{
	static int deadlock_timeout = 0;
	static const char *const settings[][2] = {
		{"statement_timeout", "0"},
		{BDD_TRANSACTION_TIMEOUT, "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_read_only", "off"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_deferrable", "off"},
		{"synchronous_commit", "local"},
		{"row_security", "on"},
		{"track_counts", "on"},
		{"jit", "off"},
		{"max_parallel_workers_per_gather", "0"},
		{"session_replication_role", "origin"},
		/* A waiter for our apply shall be the victim of a deadlock. */
		{"deadlock_timeout", "1h"},
	};
	char *lock_timeout;

	/* Who waits for us shall have found a deadlock before we give up. */
	if (deadlock_timeout == 0)
		deadlock_timeout = DeadlockTimeout;
	lock_timeout = psprintf("%d", Max(bdd_lock_timeout_ms,
									  2 * deadlock_timeout));

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET,
						PGC_S_OVERRIDE);
	SetConfigOption("lock_timeout", lock_timeout, PGC_SUSET, PGC_S_OVERRIDE);
	pfree(lock_timeout);
}

static void
reload_settings(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	override_settings();
}

static bool
any_work(void)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->worker == my_index &&
			bdd_slot_is_buffering(slot))
			return true;
	}
	return false;
}

/* Idle for long enough, and nothing came since the latch was cleared. */
static bool
may_leave(TimestampTz idle_since)
{
	bool work;

	if (!TimestampDifferenceExceeds(idle_since, GetCurrentTimestamp(),
									bdd_worker_idle_timeout_ms))
		return false;
	my_worker->latch = NULL;
	pg_memory_barrier();
	work = any_work();
	if (work)
		my_worker->latch = MyLatch;
	return !work;
}

/* ---------- leaving ---------- */

/* The server is shut down, and not the worker alone terminated. */
static bool
server_is_stopping(void)
{
	char line[MAXPGPATH];
	FILE *file = AllocateFile("postmaster.pid", "r");
	bool stopping = false;

	if (file == NULL)
		return false;
	for (int i = 1; fgets(line, sizeof(line), file) != NULL; i++)
		if (i == LOCK_FILE_LINE_PM_STATUS)
			stopping = strncmp(line, PM_STATUS_STOPPING,
							   strlen(PM_STATUS_STOPPING)) == 0;
	FreeFile(file);
	return stopping;
}

/* shutdown_timeout is over: break off what runs. */
static void
time_is_up(void)
{
	out_of_time = true;
	if (applying)
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
}

/*
 * At a shutdown: applies what can be applied until shutdown_timeout; the
 * postmaster keeps the rest.  One failure of a target is enough.
 */
static void
drain(void)
{
	draining = true;
	RegisterTimeout(USER_TIMEOUT, time_is_up);
	enable_timeout_after(USER_TIMEOUT, Max(bdd_shutdown_timeout_ms, 1));
	for (int i = 0; i < bdd_registry->slot_count && !out_of_time; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];
		BddDue due;

		if (!slot->in_use || slot->worker != my_index ||
			!bdd_slot_is_buffering(slot) ||
			!read_due(slot->target_id, slot->relid, &due) || due.paused)
			continue;
		bdd_seal(slot);
		apply_referenced(slot, slot->relid, 0);
		(void) apply_sealed(slot, slot->target_id, slot->relid);
	}
	disable_timeout(USER_TIMEOUT, false);
}

/* An apply is broken off: its rows stay, and the next worker applies them. */
static void
handle_sigterm(SIGNAL_ARGS)
{
	if (applying)
		die(BDD_PASS_SIGNAL_ARGS);
	SignalHandlerForShutdownRequest(BDD_PASS_SIGNAL_ARGS);
}

static void
main_loop(void)
{
	TimestampTz idle_since = GetCurrentTimestamp();

	while (!ShutdownRequestPending)
	{
		long wait;

		ResetLatch(MyLatch);
		reload_settings();
		if (my_worker->away_until > GetCurrentTimestamp())
			break;
		wait = tend_all();
		if (any_work())
			idle_since = GetCurrentTimestamp();
		else if (may_leave(idle_since))
			break;
		if (wait < 0)
			wait = Max(bdd_worker_idle_timeout_ms, 10);
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 wait, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
}

void
bdd_worker_main(Datum arg)
{
	my_index = DatumGetInt32(arg);
	my_worker = &bdd_registry->workers[my_index];
	bdd_am_worker = true;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, handle_sigterm);
	BackgroundWorkerUnblockSignals();
	if (!attach())
		proc_exit(0);
	before_shmem_exit(detach, (Datum) 0);
	BackgroundWorkerInitializeConnectionByOid(my_worker->database, InvalidOid,
											  BGWORKER_BYPASS_ALLOWCONN);
	override_settings();
	SetConfigOption("application_name", "batchdedup worker", PGC_USERSET,
					PGC_S_SESSION);
	main_loop();
	if (ShutdownRequestPending && any_work() && server_is_stopping())
		drain();
	proc_exit(0);
}
