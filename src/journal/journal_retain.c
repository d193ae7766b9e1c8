/*-------------------------------------------------------------------------
 *
 * journal_retain.c
 *		How long the WAL has to keep the journal.
 *
 * The launcher holds a physical replication slot.  Its restart_lsn is the
 * horizon: no generation that has yet to be applied has a message before it.
 * It advances only past applies whose commit is flushed: what is needed is
 * found out first, then a message with the new horizon is written and
 * flushed, and with it all that came before, and then the slot is moved and
 * saved.  So the slot alone is never trusted: after a start it counts if a
 * message behind it tells the same.
 *
 * Without a slot (wal_level = minimal, or all are in use) there is no journal,
 * and rows of logged targets are written in their callers' transactions.
 *
 *-------------------------------------------------------------------------
 */
#include "journal/journal_retain.h"

#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "base/compat.h"
#include "base/debug_point.h"
#include "base/guc.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "common/controldata_utils.h"
#include "journal/journal_copy.h"
#include "journal/journal_read.h"
#include "journal/spool.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgwriter.h"
#include "replication/slot.h"
#include "storage/fd.h"
#include "storage/spin.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* Without a slot, one is tried to be had after this. */
#define RETRY_MS 5000

static XLogRecPtr horizon = InvalidXLogRecPtr;     /* of our last message */
static XLogRecPtr lost_before = InvalidXLogRecPtr; /* WAL that may be gone */
static TimestampTz tried_at = 0;

/* ---------- the slot ---------- */

/* Whether the server has a slot of our name, held by this process or not. */
static bool
slot_exists(void)
{
	return SearchNamedReplicationSlot(BDD_JOURNAL_SLOT, true) != NULL;
}

/* Tells all processes whether the WAL is kept. */
static void
set_kept(bool kept, const char *problem)
{
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	strlcpy(bdd_journal->problem, problem, BDD_PROBLEM_SIZE);
	bdd_journal->slot_at = kept ? MyReplicationSlot->data.restart_lsn :
								  InvalidXLogRecPtr;
	LWLockRelease(&bdd_registry->worker_lock);
	pg_atomic_write_u32(&bdd_journal->kept, kept);
	ConditionVariableBroadcast(&bdd_journal->changed);
}

/* Why no slot can be had, or NULL. */
static const char *
lacking(void)
{
	int free = 0;

	if (!XLogIsNeeded())
		return "wal_level is minimal";
	LWLockAcquire(ReplicationSlotControlLock, LW_SHARED);
	for (int i = 0; i < max_replication_slots; i++)
		free += !ReplicationSlotCtl->replication_slots[i].in_use;
	LWLockRelease(ReplicationSlotControlLock);
	return free == 0 && !slot_exists() ? "no replication slot is free" : NULL;
}

/* Makes the slot and saves it: the WAL is kept from here on. */
static void
create_slot(void)
{
	bdd_replication_slot_create(BDD_JOURNAL_SLOT);
	ReplicationSlotReserveWal();
	ReplicationSlotMarkDirty();
	ReplicationSlotSave();
}

/* Holds the slot, made if need be; false: there is none to be had. */
static bool
hold_slot(void)
{
	const char *problem = lacking();

	if (MyReplicationSlot != NULL)
		return true;
	tried_at = GetCurrentTimestamp();
	if (problem == NULL)
	{
		if (slot_exists())
			bdd_replication_slot_acquire(BDD_JOURNAL_SLOT);
		else
			create_slot();
		lost_before = MyReplicationSlot->data.restart_lsn;
		set_kept(true, "");
		return true;
	}
	if (strcmp(bdd_journal->problem, problem) != 0)
		ereport(LOG,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batchdedup has no journal: %s", problem),
				 errdetail("Rows for logged targets are written in their callers' transactions."),
				 errhint("Set wal_level to replica, and max_replication_slots to one more.")));
	set_kept(false, problem);
	return false;
}

/*
 * The server has taken WAL away that the slot was to keep: a new one, for
 * what comes from here on.
 */
static void
replace_slot(void)
{
	ereport(LOG,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the server has invalidated the replication slot of batchdedup"),
			 errdetail("Rows that are buffered are in memory only until they are applied."),
			 errhint("Raise max_slot_wal_keep_size.")));
	bdd_replication_slot_drop(BDD_JOURNAL_SLOT);
	create_slot();
	lost_before = MyReplicationSlot->data.restart_lsn;
	horizon = InvalidXLogRecPtr;
	set_kept(true, "");
}

/* Moves the slot; the horizon message is flushed. */
static void
advance_slot(XLogRecPtr lsn)
{
	SpinLockAcquire(&MyReplicationSlot->mutex);
	MyReplicationSlot->data.restart_lsn = lsn;
	SpinLockRelease(&MyReplicationSlot->mutex);
	ReplicationSlotMarkDirty();
	bdd_debug_point("horizon");
	ReplicationSlotSave();
	bdd_debug_point("advanced");
	ReplicationSlotsComputeRequiredLSN();
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	bdd_journal->slot_at = lsn;
	LWLockRelease(&bdd_registry->worker_lock);
}

/* ---------- the horizon ---------- */

/*
 * Whether there is a new checkpoint, which a base backup may begin with.  Our
 * message makes the server write another checkpoint after checkpoint_timeout,
 * even if nothing else happens; that one is left out, or it would never end.
 */
static bool
is_for_checkpoint(void)
{
	static XLogRecPtr seen = InvalidXLogRecPtr;
	static pg_time_t seen_time = 0;
	static bool left_out = false;
	ControlFileData *control;
	bool crc_ok;
	bool idle;
	bool timed;

	if (GetRedoRecPtr() == seen)
		return false;
	control = get_controlfile(DataDir, &crc_ok);
	idle = GetLastImportantRecPtr() == control->checkPoint;
	timed = control->checkPointCopy.time - seen_time >= CheckPointTimeout - 1;
	seen = GetRedoRecPtr();
	seen_time = control->checkPointCopy.time;
	left_out = idle && timed && !left_out;
	pfree(control);
	return !left_out;
}

/*
 * Worth while: a segment of WAL can go, or all messages lie before it, so that
 * nothing is read at the next start, or a base backup taken from the last
 * checkpoint on would have no horizon.
 */
static bool
is_worth_while(XLogRecPtr needed)
{
	XLogRecPtr written = pg_atomic_read_u64(&bdd_journal->written);

	return needed >= horizon + wal_segment_size ||
		   (needed >= written && horizon < written) ||
		   is_for_checkpoint() ||
		   XLogRecPtrIsInvalid(horizon) ||
		   (MyReplicationSlot != NULL &&
			horizon < MyReplicationSlot->data.restart_lsn &&
			needed >= MyReplicationSlot->data.restart_lsn);
}

/* Writes a horizon message and moves the slot, if that is worth while. */
static void
advance(bool always)
{
	XLogRecPtr needed = bdd_buffer_needed_from();

	pg_atomic_write_u64(&bdd_journal->needed, needed);
	if (!always && !is_worth_while(needed))
		return;
	bdd_debug_point("advance");
	bdd_journal_write_horizon(needed);
	horizon = needed;
	if (MyReplicationSlot != NULL &&
		needed > MyReplicationSlot->data.restart_lsn)
		advance_slot(needed);
}

/* ---------- for the launcher ---------- */

/* The beginning of the oldest WAL that is there. */
static XLogRecPtr
oldest_wal(void)
{
	DIR *directory = AllocateDir(XLOGDIR);
	struct dirent *entry;
	XLogSegNo oldest = 0;
	XLogRecPtr lsn;

	while ((entry = ReadDir(directory, XLOGDIR)) != NULL)
	{
		TimeLineID timeline;
		XLogSegNo segment;

		if (!IsXLogFileName(entry->d_name))
			continue;
		XLogFromFileName(entry->d_name, &timeline, &segment,
						 wal_segment_size);
		if (oldest == 0 || segment < oldest)
			oldest = segment;
	}
	FreeDir(directory);
	XLogSegNoOffsetToRecPtr(oldest, 0, wal_segment_size, lsn);
	return lsn;
}

/* ---------- at the start ---------- */

/* From where on the slot has kept the WAL, as far as it is there. */
static XLogRecPtr
kept_from(XLogRecPtr oldest)
{
	if (MyReplicationSlot == NULL ||
		bdd_replication_slot_is_invalidated(MyReplicationSlot))
		return oldest;
	return Max(MyReplicationSlot->data.restart_lsn, oldest);
}

/*
 * Reads the WAL from where the slot has kept it, or from the oldest that is
 * there.
 */
static void
read_journal(void)
{
	bdd_journal_replay(kept_from(oldest_wal()));
	/* Rows found before unreadable WAL are to be copied behind it. */
	lost_before = Max(lost_before, bdd_journal->gap_to);
}

/*
 * When the server has started: reads its journal, once, and holds the slot.
 */
void
bdd_journal_start(void)
{
	XLogRecPtr gap_from;
	XLogRecPtr gap_to;

	if (slot_exists() && XLogIsNeeded())
		(void) hold_slot();
	if (!bdd_journal_is_replayed() && bdd_journal_read_gap(&gap_from, &gap_to))
		bdd_journal_add_gap(gap_from, gap_to);
	if (!bdd_journal_is_replayed() && bdd_journal->in_memory)
		bdd_spool_remove_all();
	else if (!bdd_journal_is_replayed())
		read_journal();
	(void) hold_slot();
	pg_atomic_write_u32(&bdd_journal->replayed, 1);
	ConditionVariableBroadcast(&bdd_journal->changed);
	bdd_journal_maintain();
}

/* Whether the file of the slot's target is still to be applied. */
static bool
has_spooled(BddSharedSlot *slot)
{
	bool found;

	LWLockAcquire(&slot->lock, LW_SHARED);
	found = bdd_slot_spooled(slot) != 0;
	LWLockRelease(&slot->lock);
	return found;
}

/* Whether the target's file is needed, for bdd_spool_remove_others. */
static bool
needs_spool(Oid database, int32 target_id)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->database == database &&
			slot->target_id == target_id)
			return has_spooled(slot);
	}
	return false;
}

/* Files of rows that are applied, or whose target is gone. */
static void
remove_spools(void)
{
	static bool left = true;

	if (!left)
		return;
	left = bdd_spool_remove_others(needs_spool);
	for (int i = 0; i < bdd_registry->slot_count; i++)
		if (bdd_registry->slots[i].spooled &&
			!has_spooled(&bdd_registry->slots[i]))
			bdd_registry->slots[i].spooled = false;
}

/*
 * Rows that keep more WAL than batchdedup.max_journal are written anew.  So are
 * those whose WAL is gone, which would be lost at a crash, and those from
 * before the last checkpoint: base backups and standbys have WAL from there.
 */
static void
copy_what_is_old(void)
{
	BddOldJournal old = {.lost_before = lost_before, .redo = GetRedoRecPtr()};
	XLogRecPtr now = GetXLogInsertRecPtr();
	XLogRecPtr needed = bdd_buffer_needed_from();
	uint64 most = (uint64) bdd_max_journal_mb * 1024 * 1024;

	if (MyReplicationSlot == NULL)
		return;
	if (bdd_max_journal_mb >= 0 && now > most)
		old.kept_before = now - most;
	if (needed < old.lost_before || needed < old.kept_before ||
		needed < old.redo)
		bdd_journal_copy(&old);
}

/* Regularly. */
void
bdd_journal_maintain(void)
{
	if (MyReplicationSlot == NULL &&
		TimestampDifferenceExceeds(tried_at, GetCurrentTimestamp(), RETRY_MS))
		(void) hold_slot();
	if (MyReplicationSlot != NULL &&
		bdd_replication_slot_is_invalidated(MyReplicationSlot))
		replace_slot();
	copy_what_is_old();
	advance(false);
	remove_spools();
}

/* At the end: the next start shall read as little as can be. */
void
bdd_journal_stop(void)
{
	if (bdd_journal_is_replayed() &&
		pg_atomic_read_u64(&bdd_journal->written) > horizon)
		advance(true);
}
