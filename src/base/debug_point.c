/*-------------------------------------------------------------------------
 *
 * debug_point.c
 *		Named places at which a test can stop, fail or end a process.
 *
 * batchdedup.debug_point = 'name:action'.  The action is one of
 *
 *	wait	until a test calls bdd_debug_release (testing.c), 60 seconds at
 *			most; pg_stat_activity shows a wait for PgSleep
 *	lock	until nobody holds the advisory lock BDD_DEBUG_LOCK; a wait that
 *			isolationtester and pg_blocking_pids() recognize
 *	error	an error is raised
 *	exit	the process ends at once, as if it had been terminated
 *	kill	as by SIGKILL, so that the server begins again
 *
 * "wait" and "kill" work in places where nothing may fail.
 *
 *-------------------------------------------------------------------------
 */
#include "base/debug_point.h"

#include <signal.h>

#include "fmgr.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "storage/ipc.h"
#include "storage/lock.h"
#include "storage/proc.h"

#define MAX_WAIT_MS 60000

BddSharedDebug *bdd_shared_debug = NULL;

/*
 * Sleeps until the next bdd_debug_release, or for MAX_WAIT_MS.  It only looks
 * at shared memory, so it works where nothing may fail.
 */
static void
wait_for_release(void)
{
	uint32 seen = bdd_shared_debug->releases;

	/* So that a test sees which process has come here. */
	pgstat_report_wait_start(WAIT_EVENT_PG_SLEEP);
	for (int i = 0; i < MAX_WAIT_MS && bdd_shared_debug->releases == seen; i++)
		pg_usleep(1000L);
	pgstat_report_wait_end();
}

/* Works outside of transactions, too, hence a lock of the session. */
static void
wait_for_lock(void)
{
	LOCKTAG tag;
	int lock_timeout = LockTimeout;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0, BDD_DEBUG_LOCK, 1);
	LockTimeout = 0;
	(void) LockAcquire(&tag, ShareLock, true, false);
	(void) LockRelease(&tag, ShareLock, true);
	LockTimeout = lock_timeout;
}

/* Does what the setting says of this point, if it says something. */
void
bdd_debug_point_hit(const char *name)
{
	size_t len = strlen(name);
	const char *action;

	if (strncmp(bdd_debug_point_setting, name, len) != 0 ||
		bdd_debug_point_setting[len] != ':')
		return;
	action = bdd_debug_point_setting + len + 1;

	if (strcmp(action, "wait") == 0)
		wait_for_release();
	else if (strcmp(action, "lock") == 0)
		wait_for_lock();
	else if (strcmp(action, "exit") == 0)
		proc_exit(1);
	else if (strcmp(action, "kill") == 0)
		(void) raise(SIGKILL);
	else if (strcmp(action, "error") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("debug point \"%s\" was hit", name)));
}
