/*-------------------------------------------------------------------------
 *
 * worker.c
 *		The process that applies what is buffered for a database.
 *
 * What it does for its targets is in flusher.c; here is how it comes, waits
 * and leaves.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/compat.h"
#include "base/guc.h"
#include "buffer/registry.h"
#include "buffer/wake.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/proc.h"
#include "tcop/tcopprot.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timeout.h"
#include "utils/timestamp.h"
#include "worker/flusher.h"
#include "worker/launcher.h"

PGDLLEXPORT void bdd_worker_main(Datum arg);

static BddSharedWorker *my_worker = NULL;
static int my_index = 0;

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

	/* A waiter for us shall have found a deadlock before we give up. */
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

/*
 * After SIGHUP.  What is overridden is set anew: lock_timeout depends on a
 * setting.
 */
static void
reload_settings(void)
{
	if (!ConfigReloadPending)
		return;
	ConfigReloadPending = false;
	ProcessConfigFile(PGC_SIGHUP);
	override_settings();
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
	work = bdd_flusher_has_work();
	if (work)
		my_worker->latch = MyLatch;
	return !work;
}

/* ---------- leaving ---------- */

/* shutdown_timeout is over: break off what runs. */
static void
time_is_up(void)
{
	bdd_flusher_out_of_time = true;
	if (bdd_flusher_applying)
	{
		ProcDiePending = true;
		InterruptPending = true;
	}
	SetLatch(MyLatch);
}

/*
 * At a shutdown: applies what can be applied until shutdown_timeout; the
 * postmaster keeps the rest.
 */
static void
drain(void)
{
	RegisterTimeout(USER_TIMEOUT, time_is_up);
	enable_timeout_after(USER_TIMEOUT, Max(bdd_shutdown_timeout_ms, 1));
	bdd_flusher_drain();
	disable_timeout(USER_TIMEOUT, false);
}

/* An apply is broken off: its rows stay, and the next worker applies them. */
static void
handle_sigterm(SIGNAL_ARGS)
{
	if (bdd_flusher_applying)
		die(BDD_PASS_SIGNAL_ARGS);
	SignalHandlerForShutdownRequest(BDD_PASS_SIGNAL_ARGS);
}

/*
 * Works and waits until the worker is told to end, is sent away, or has been
 * idle for long enough.
 */
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
		wait = bdd_flusher_work();
		if (ShutdownRequestPending)
			break; /* waiting for a lock may have eaten the wake-up */
		if (bdd_flusher_has_work())
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

/* The process.  The argument is the place of its database in the registry. */
void
bdd_worker_main(Datum arg)
{
	my_index = DatumGetInt32(arg);
	my_worker = &bdd_registry->workers[my_index];
	bdd_am_worker = true;
	bdd_flusher_init(my_index);

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
	if (ShutdownRequestPending && bdd_flusher_has_work() && bdd_server_is_stopping())
		drain();
	proc_exit(0);
}
