/*-------------------------------------------------------------------------
 *
 * guc.c
 *		The settings, prefix "batchdedup.".
 *
 *-------------------------------------------------------------------------
 */
#include "base/guc.h"

#include <limits.h>

#include "utils/guc.h"

bool bdd_enabled = true;
int bdd_buffer_size_kb = 65536;
double bdd_max_target_share = 0.5;
int bdd_flush_interval_ms = 2000;
int bdd_flush_rows = 10000;
int bdd_max_targets = 256;
int bdd_full_timeout_ms = 10000;
int bdd_shutdown_timeout_ms = 5000;
int bdd_lock_timeout_ms = 5000;
int bdd_retry_backoff_ms = 1000;
int bdd_retry_limit = 5;
int bdd_worker_idle_timeout_ms = 60000;
int bdd_max_journal_mb = 1024;
char *bdd_debug_point_setting = NULL;

/* How large the buffer is, and how targets share it. */
static void
define_memory_settings(void)
{
	DefineCustomIntVariable("batchdedup.buffer_size",
							"Shared memory for buffered rows of all targets.",
							NULL, &bdd_buffer_size_kb,
							65536, 4096, MAX_KILOBYTES,
							PGC_POSTMASTER, GUC_UNIT_KB, NULL, NULL, NULL);
	DefineCustomIntVariable("batchdedup.max_targets",
							"How many targets the server can buffer at a time.",
							NULL, &bdd_max_targets,
							256, 1, 10000,
							PGC_POSTMASTER, 0, NULL, NULL, NULL);
	DefineCustomRealVariable("batchdedup.max_target_share",
							 "Share of the buffer that one target may fill.",
							 NULL, &bdd_max_target_share,
							 0.5, 0.1, 1.0,
							 PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* When rows are due, for targets whose options do not say it. */
static void
define_flush_settings(void)
{
	DefineCustomIntVariable("batchdedup.flush_interval",
							"A target is flushed when its oldest buffered row is this old.",
							"Zero: never by time.", &bdd_flush_interval_ms,
							2000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("batchdedup.flush_rows",
							"A target is flushed when it has this many distinct keys.",
							"Zero: never by rows.", &bdd_flush_rows,
							10000, 0, INT_MAX,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
}

/* How long, or how often, calls and workers wait and try again. */
static void
define_waiting_settings(void)
{
	DefineCustomIntVariable("batchdedup.full_timeout",
							"How long a call waits for room in a full buffer.",
							NULL, &bdd_full_timeout_ms,
							10000, 0, INT_MAX,
							PGC_USERSET, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("batchdedup.shutdown_timeout",
							"How long a shutdown waits for rows to be applied.",
							"What is left is kept in a file.", &bdd_shutdown_timeout_ms,
							5000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("batchdedup.lock_timeout",
							"How long an apply waits for a lock before it is put off.",
							NULL, &bdd_lock_timeout_ms,
							5000, 100, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("batchdedup.retry_backoff",
							"Pause after a failed apply; it doubles, up to a minute.",
							NULL, &bdd_retry_backoff_ms,
							1000, 10, 60000,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
	DefineCustomIntVariable("batchdedup.retry_limit",
							"How often a row that a foreign key refused is tried by itself, if its attempts are broken off.",
							NULL, &bdd_retry_limit,
							5, 0, 1000,
							PGC_SIGHUP, 0, NULL, NULL, NULL);
	DefineCustomIntVariable("batchdedup.worker_idle_timeout",
							"A worker with nothing to do leaves after this time.",
							NULL, &bdd_worker_idle_timeout_ms,
							60000, 0, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MS, NULL, NULL, NULL);
}

/* In _PG_init. */
void
bdd_guc_init(void)
{
	DefineCustomBoolVariable("batchdedup.enabled",
							 "Off: every call writes to the table in the caller's transaction.",
							 NULL, &bdd_enabled, true,
							 PGC_USERSET, 0, NULL, NULL, NULL);
	define_memory_settings();
	define_flush_settings();
	define_waiting_settings();
	DefineCustomIntVariable("batchdedup.max_journal",
							"WAL that is kept for rows that cannot be applied; then they are written to the WAL anew.",
							"-1: without limit.", &bdd_max_journal_mb,
							1024, -1, INT_MAX,
							PGC_SIGHUP, GUC_UNIT_MB, NULL, NULL, NULL);
	DefineCustomStringVariable("batchdedup.debug_point",
							   "For tests: stops or fails the code at a named point.",
							   NULL, &bdd_debug_point_setting,
							   "", PGC_SUSET,
							   GUC_NOT_IN_SAMPLE | GUC_NO_SHOW_ALL,
							   NULL, NULL, NULL);
	MarkGUCPrefixReserved("batchdedup");
}

/* How long to wait after so many failures: it doubles, up to a minute. */
int
bdd_backoff_ms(uint64 failures)
{
	int64 ms = bdd_retry_backoff_ms;

	for (uint64 i = 1; i < failures && ms < 60000; i++)
		ms *= 2;
	return (int) Min(ms, 60000);
}
