/*-------------------------------------------------------------------------
 *
 * launcher.c
 *		The process that starts a worker for each database in need of one.
 *
 * It is connected to no database.  A database needs a worker when one of its
 * targets has rows and none is there:
 *
 *	NONE --launcher registers it--> STARTING --worker attaches--> RUNNING
 *	  ^                                 |                            |
 *	  +------ it failed to start -------+------- it has left --------+
 *
 *-------------------------------------------------------------------------
 */
#include "worker/launcher.h"

#include "access/xact.h"
#include "base/compat.h"
#include "base/debug_point.h"
#include "base/guc.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "buffer/slot.h"
#include "fmgr.h"
#include "journal/journal_retain.h"
#include "journal/message.h"
#include "journal/shutdown_file.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "postmaster/walwriter.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/pidfile.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* A worker that could not be started is tried again after this. */
#define RESTART_MS 1000
/* Lost wake-ups are made good after this. */
#define NAP_MS 10000
/* So often the journal is looked after. */
#define JOURNAL_MS 1000

PGDLLEXPORT void bdd_launcher_main(Datum arg);

/* In _PG_init. */
void
bdd_launcher_register(void)
{
	BackgroundWorker worker = {0};

	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
					   BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = 1;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, BDD_LIBRARY);
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "bdd_launcher_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "batchdedup launcher");
	snprintf(worker.bgw_type, BGW_MAXLEN, "batchdedup launcher");
	RegisterBackgroundWorker(&worker);
}

/* Whether a target of the database has rows to apply. */
static bool
has_work(int worker)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->worker == worker &&
			bdd_slot_is_buffering(slot))
			return true;
	}
	return false;
}

/* NONE -> STARTING */
static void
start_worker(int index)
{
	BddSharedWorker *shared = &bdd_registry->workers[index];
	BackgroundWorker worker = {0};

	Assert(shared->state == BDD_WORKER_NONE);
	worker.bgw_flags = BGWORKER_SHMEM_ACCESS |
					   BGWORKER_BACKEND_DATABASE_CONNECTION |
					   BDD_WORKER_INTERRUPTIBLE;
	worker.bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker.bgw_restart_time = BGW_NEVER_RESTART;
	worker.bgw_main_arg = Int32GetDatum(index);
	worker.bgw_notify_pid = MyProcPid;
	snprintf(worker.bgw_library_name, BGW_MAXLEN, BDD_LIBRARY);
	snprintf(worker.bgw_function_name, BGW_MAXLEN, "bdd_worker_main");
	snprintf(worker.bgw_name, BGW_MAXLEN, "batchdedup worker for database %u",
			 shared->database);
	snprintf(worker.bgw_type, BGW_MAXLEN, "batchdedup worker");

	shared->started_at = GetCurrentTimestamp();
	if (RegisterDynamicBackgroundWorker(&worker, NULL))
	{
		shared->state = BDD_WORKER_STARTING;
		bdd_registry->start_failed_at = 0;
		return;
	}
	if (bdd_registry->start_failed_at == 0)
		ereport(LOG,
				(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
				 errmsg("batchdedup cannot start a worker for database %u: no worker process is free",
						shared->database),
				 errdetail("Until one is, rows are written in their callers' transactions."),
				 errhint("Raise max_worker_processes.")));
	bdd_registry->start_failed_at = shared->started_at;
}

/*
 * Looks after one database; returns true if it must be looked at again soon.
 * STARTING -> NONE happens here when a worker did not attach in time.
 */
static bool
look_after_worker(int index)
{
	BddSharedWorker *worker = &bdd_registry->workers[index];
	bool recent = !TimestampDifferenceExceeds(worker->started_at,
											  GetCurrentTimestamp(),
											  RESTART_MS);
	bool again = false;

	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	if (worker->state == BDD_WORKER_STARTING && !recent)
		worker->state = BDD_WORKER_NONE;
	if (worker->state == BDD_WORKER_STARTING)
		again = true;
	else if (worker->state == BDD_WORKER_NONE &&
			 (recent || worker->away_until > GetCurrentTimestamp()))
		again = true;
	else if (worker->state == BDD_WORKER_NONE &&
			 (has_work(index) || bdd_registry->start_failed_at != 0))
	{
		start_worker(index);
		again = true;
	}
	LWLockRelease(&bdd_registry->worker_lock);
	return again;
}

/* Rows of a file may be of a database that was dropped in the meantime. */
static void
forget_dropped_databases(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->loaded &&
			!SearchSysCacheExists1(DATABASEOID,
								   ObjectIdGetDatum(slot->database)))
			bdd_slot_free(slot, slot->database, slot->target_id);
	}
	CommitTransactionCommand();
}

/* The server is shut down, and not this process alone terminated. */
bool
bdd_server_is_stopping(void)
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

/* At the end of the process: its latch must not be set any more. */
static void
forget_launcher(int code, Datum arg)
{
	bdd_registry->launcher = NULL;
}

/* Every JOURNAL_MS; returns when to come again, in milliseconds. */
static long
maintain_journal(void)
{
	static TimestampTz last = 0;

	if (TimestampDifferenceExceeds(last, GetCurrentTimestamp(), JOURNAL_MS))
	{
		bdd_journal_maintain();
		last = GetCurrentTimestamp();
	}
	return bdd_journal_announce_skipped() ? Min(WalWriterDelay, JOURNAL_MS) :
											JOURNAL_MS;
}

/* At a shutdown workers go on until shutdown_timeout: what they apply counts. */
static void
await_workers(void)
{
	TimestampTz since = GetCurrentTimestamp();
	bool running = true;

	while (running && !TimestampDifferenceExceeds(since, GetCurrentTimestamp(),
												  bdd_shutdown_timeout_ms + RESTART_MS))
	{
		running = false;
		LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
		for (int i = 0; i < bdd_registry->slot_count; i++)
			running |= bdd_registry->workers[i].state == BDD_WORKER_RUNNING;
		LWLockRelease(&bdd_registry->worker_lock);
		if (running)
			pg_usleep(10000L);
	}
}

/*
 * The process.  It reads the journal once, then looks after workers and
 * journal until it is told to end.
 */
void
bdd_launcher_main(Datum arg)
{
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	/* No database; but so it is seen in pg_stat_activity. */
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);
	before_shmem_exit(forget_launcher, (Datum) 0);
	bdd_registry->launcher = MyLatch;
	bdd_journal_start();
	bdd_debug_point("started");
	bdd_shutdown_file_remove();
	forget_dropped_databases();

	while (!ShutdownRequestPending)
	{
		bool again = false;
		long nap;

		ResetLatch(MyLatch);
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		for (int i = 0; i < bdd_registry->slot_count; i++)
			if (OidIsValid(bdd_registry->workers[i].database))
				again |= look_after_worker(i);
		nap = again ? RESTART_MS / 10 : NAP_MS;
		nap = Min(nap, maintain_journal());
		(void) WaitLatch(MyLatch,
						 WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 nap, PG_WAIT_EXTENSION);
		CHECK_FOR_INTERRUPTS();
	}
	if (bdd_server_is_stopping())
	{
		await_workers();
		bdd_journal_stop();
	}
	/* One: the postmaster starts us again, unless it is shutting down. */
	proc_exit(1);
}
