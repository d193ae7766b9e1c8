/*-------------------------------------------------------------------------
 *
 * state.c
 *		What is known of the journal, in shared memory.
 *
 * The launcher writes it (journal_retain.c), others read it and wait for it.
 *
 *-------------------------------------------------------------------------
 */
#include "journal/state.h"

#include "access/xlog.h"
#include "base/guc.h"
#include "buffer/registry.h"
#include "miscadmin.h"
#include "storage/fd.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

BddSharedJournal *bdd_journal = NULL;

/* In the postmaster, before other processes exist. */
void
bdd_journal_init(BddSharedJournal *journal)
{
	pg_atomic_init_u32(&journal->replayed, 0);
	pg_atomic_init_u32(&journal->kept, 0);
	pg_atomic_init_u32(&journal->ticking, 0);
	pg_atomic_init_u64(&journal->written, 0);
	pg_atomic_init_u64(&journal->announced, 0);
	pg_atomic_init_u64(&journal->skipped, 0);
	pg_atomic_init_u64(&journal->needed, 0);
	ConditionVariableInit(&journal->changed);
}

/* Sets a position of the WAL to "value" if that is further. */
void
bdd_raise_to(pg_atomic_uint64 *lsn, XLogRecPtr value)
{
	uint64 old = pg_atomic_read_u64(lsn);

	while (old < value && !pg_atomic_compare_exchange_u64(lsn, &old, value))
		;
}

/* ---------- questions ---------- */

/*
 * Whether the launcher has read what the server found in the WAL at its start.
 */
bool
bdd_journal_is_replayed(void)
{
	return pg_atomic_read_u32(&bdd_journal->replayed) != 0;
}

/* Whether rows can be journalled: the WAL is kept until they are applied. */
bool
bdd_journal_is_kept(void)
{
	return pg_atomic_read_u32(&bdd_journal->kept) != 0;
}

/* Whether the generation's rows would be found after a crash. */
bool
bdd_journal_has(const BddSharedGeneration *generation)
{
	XLogRecPtr slot_at;

	LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
	slot_at = bdd_journal->slot_at;
	LWLockRelease(&bdd_registry->worker_lock);
	return generation->logged && bdd_journal_is_kept() &&
		   generation->journal_from >= slot_at;
}

/* There is no slot; the error says why. */
static void
report_lacking(void)
{
	char problem[BDD_PROBLEM_SIZE];

	LWLockAcquire(&bdd_registry->worker_lock, LW_SHARED);
	strlcpy(problem, bdd_journal->problem, sizeof(problem));
	LWLockRelease(&bdd_registry->worker_lock);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("a logged target needs a journal, and there is none%s%s",
					problem[0] != '\0' ? ": " : "", problem),
			 errhint("Set wal_level to replica or logical and max_replication_slots to one more than are in use, and restart the server; or use logged => false, and lose what is buffered at a crash.")));
}

/* For create_target: logged targets cannot be had without a slot. */
void
bdd_journal_check_kept(void)
{
	bdd_journal_wait_replayed();
	if (!bdd_journal_is_kept())
		report_lacking();
}

/*
 * Until the launcher has read the journal nobody knows what is buffered, nor
 * which numbers of generations are free.
 */
void
bdd_journal_wait_replayed(void)
{
	TimestampTz started;

	if (likely(bdd_journal_is_replayed()))
		return;
	/* There is no launcher, and nothing is buffered. */
	if (!IsUnderPostmaster || IsBinaryUpgrade || RecoveryInProgress())
		return;
	started = GetCurrentTimestamp();
	ConditionVariablePrepareToSleep(&bdd_journal->changed);
	while (!bdd_journal_is_replayed())
	{
		if (TimestampDifferenceExceeds(started, GetCurrentTimestamp(),
									   bdd_full_timeout_ms))
		{
			ConditionVariableCancelSleep();
			ereport(ERROR,
					(errcode(ERRCODE_CANNOT_CONNECT_NOW),
					 errmsg("batchdedup has not read its journal yet"),
					 errdetail("The server has just started, and looks in its WAL for rows that are not applied."),
					 errhint("Try again; if it lasts, see the server log for what the launcher says.")));
		}
		(void) ConditionVariableTimedSleep(&bdd_journal->changed, 100,
										   PG_WAIT_EXTENSION);
	}
	ConditionVariableCancelSleep();
}

/* ---------- WAL that was needed and not there ---------- */

#define GAP_FILE "batchdedup.gap"

/*
 * It is known to later starts by a file: a target that may have had rows in it
 * stays refused.
 */
bool
bdd_journal_read_gap(XLogRecPtr *from, XLogRecPtr *to)
{
	FILE *file = AllocateFile(GAP_FILE, "r");
	uint32 parts[4];
	int count;

	if (file == NULL)
		return false;
	count = fscanf(file, "%X/%X %X/%X", &parts[0], &parts[1], &parts[2], &parts[3]);
	FreeFile(file);
	*from = (uint64) parts[0] << 32 | parts[1];
	*to = (uint64) parts[2] << 32 | parts[3];
	return count == 4;
}

/* A later start reads it. */
static void
write_gap(XLogRecPtr from, XLogRecPtr to)
{
	FILE *file = AllocateFile(GAP_FILE ".new", "w");

	if (file == NULL ||
		fprintf(file, "%X/%X %X/%X\n", LSN_FORMAT_ARGS(from),
				LSN_FORMAT_ARGS(to)) < 0 ||
		FreeFile(file) != 0)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", GAP_FILE ".new")));
	(void) durable_rename(GAP_FILE ".new", GAP_FILE, ERROR);
}

/* One range, which also has what may lie between two. */
void
bdd_journal_add_gap(XLogRecPtr from, XLogRecPtr to)
{
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	if (!XLogRecPtrIsInvalid(bdd_journal->gap_to))
	{
		from = Min(from, bdd_journal->gap_from);
		to = Max(to, bdd_journal->gap_to);
	}
	bdd_journal->gap_from = from;
	bdd_journal->gap_to = to;
	LWLockRelease(&bdd_registry->worker_lock);
	write_gap(from, to);
}
