/*-------------------------------------------------------------------------
 *
 * flusher.c
 *		What the worker does for its targets: sealing and applying what is due.
 *
 * A target's active generation is sealed when it is due (due.c), and applied
 * when it is quiet.  An apply that fails is tried again later, with all its
 * rows.
 *
 * The targets of a group (group.c) are sealed at one moment and applied in one
 * transaction: deletes first, of what references before what is referenced,
 * then the rest the other way round.
 *
 *-------------------------------------------------------------------------
 */
#include "worker/flusher.h"

#include "access/transam.h"
#include "access/xact.h"
#include "apply/apply.h"
#include "apply/dead_letter.h"
#include "apply/letter_retry.h"
#include "base/compat.h"
#include "base/debug_point.h"
#include "base/guc.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "buffer/slot.h"
#include "catalog/pg_type_d.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/interrupt.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "storage/procarray.h"
#include "target/target.h"
#include "utils/array.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "worker/due.h"
#include "worker/group.h"

volatile bool bdd_flusher_applying = false;
volatile bool bdd_flusher_out_of_time = false;

static BddSharedWorker *my_worker = NULL;
static int my_index = 0;
static bool draining = false;                   /* at shutdown: go on although it is wanted */
static char applied_table[2 * NAMEDATALEN + 2]; /* for the log */

/* Once in a worker: the argument is its place in the registry. */
void
bdd_flusher_init(int worker)
{
	my_index = worker;
	my_worker = &bdd_registry->workers[worker];
}

/* ---------- what is shown ---------- */

/* What stat_target shows: the table that this worker applies, or InvalidOid. */
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

/*
 * The worker waits for publishers of the target since then; InvalidOid: no
 * more.
 */
static void
report_publishers(Oid target, TimestampTz since)
{
	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	my_worker->target = target;
	my_worker->publishers_since = since;
	LWLockRelease(&bdd_registry->worker_lock);
}

/* For the log, should the apply fail.  In a transaction. */
static void
name_applied_table(Oid relid)
{
	snprintf(applied_table, sizeof(applied_table), "%s.%s",
			 get_namespace_name(get_rel_namespace(relid)),
			 get_rel_name(relid));
}

/* ---------- applying ---------- */

/*
 * Takes the member's rows; false: nobody knows yet what they are.  The table
 * is locked, which comes before any look at the target, for drop_target and
 * the like.  A group's member gives all that is sealed, so that none of it
 * comes later than what was published with it.
 */
static bool
take_rows(BddMember *member, bool all)
{
	BddTarget *target = bdd_target_lookup(member->relid);
	BddSharedGeneration *generation;

	member->number = 0;
	if (target == NULL || bdd_target_find_slot(target) != member->slot ||
		target->options.target_id != member->target_id)
		return false;
	name_applied_table(member->relid);
	bdd_check_usable(target);
	bdd_apply_begin(&member->apply, target);
	while ((generation = bdd_next_sealed(member->slot, member->number)) != NULL)
	{
		if (!bdd_is_quiet(member->slot, generation->number))
			return false;
		member->number = generation->number;
		(void) bdd_apply_add(&member->apply, generation);
		if (!all)
			break;
	}
	return true;
}

/* Writes what was taken. */
static void
write_group(BddFlushGroup *group)
{
	for (int i = 0; i < group->count; i++)
		bdd_apply_fold(&group->members[i].apply);
	bdd_group_sort_by_reference(group);
	for (int i = 0; i < group->count; i++)
	{
		name_applied_table(group->members[i].relid);
		bdd_apply_deletes(&group->members[i].apply,
						  group->members[i].related);
	}
	for (int i = group->count; i-- > 0;)
	{
		name_applied_table(group->members[i].relid);
		bdd_apply_rest(&group->members[i].apply);
	}
}

/*
 * Locks the tables, takes the rows of all members and writes them, in the
 * transaction that is open; false: see take_rows.
 */
static bool
apply_locked(BddFlushGroup *group)
{
	bdd_group_sort_by_oid(group);
	for (int i = 0; i < group->count; i++)
	{
		snprintf(applied_table, sizeof(applied_table), "table %u",
				 group->members[i].relid);
		LockRelationOid(group->members[i].relid, RowExclusiveLock);
	}
	for (int i = 0; i < group->count; i++)
		if (!take_rows(&group->members[i], group->count > 1))
			return false;
	pgstat_report_activity(STATE_RUNNING,
						   psprintf("batchdedup: apply generation " UINT64_FORMAT " of %s%s",
									group->members[0].number, applied_table,
									group->count > 1 ? " and its group" : ""));
	if (group->count == 1)
	{
		bdd_apply_fold(&group->members[0].apply);
		bdd_apply_all(&group->members[0].apply);
	}
	else
		write_group(group);
	for (int i = 0; i < group->count; i++)
		bdd_apply_end(&group->members[i].apply);
	return true;
}

/*
 * Rows that are in the journal stay there until this commit is flushed; others
 * would be lost by a crash after flush() has returned.
 */
static void
commit_as_durably_as_needed(const BddFlushGroup *group)
{
	bool unlogged = false;

	for (int i = 0; i < group->count; i++)
		unlogged = unlogged || group->members[i].apply.unlogged;
	if (!unlogged)
		(void) set_config_option("synchronous_commit", "off", PGC_SUSET,
								 PGC_S_SESSION, GUC_ACTION_LOCAL, true, 0,
								 false);
	CommitTransactionCommand();
}

/*
 * Applies and commits; false: there was nothing to apply, or it is not known
 * yet what.
 */
static bool
apply_in_transaction(BddFlushGroup *group)
{
	TimestampTz started = GetCurrentTimestamp();
	bool applied;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	report_transaction();
	PushActiveSnapshot(GetTransactionSnapshot());
	applied = apply_locked(group);
	PopActiveSnapshot();
	if (!applied)
	{
		/* Marks may have been set for rows that are not written. */
		AbortCurrentTransaction();
		return false;
	}
	commit_as_durably_as_needed(group);
	bdd_debug_point("applied");
	applied = false;
	for (int i = 0; i < group->count; i++)
	{
		BddMember *member = &group->members[i];

		if (member->number == 0)
			continue;
		bdd_apply_count(member->slot, member->target_id,
						&member->apply.counts, started);
		bdd_generation_applied(member->slot, member->target_id,
							   member->number);
		applied = true;
	}
	return applied;
}

/* ---------- failures ---------- */

/* For stat_target, for waiters, and for the time of the next try. */
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
		TimestampTzPlusMilliseconds(now, bdd_backoff_ms(slot->failure.count));
	strlcpy(slot->failure.message, error->message,
			pg_mbcliplen(error->message, strlen(error->message),
						 BDD_MESSAGE_SIZE - 1) +
				1);
	slot->counts.failed_flushes++;
	if (!slot->failure.passing)
		slot->wanted = 0; /* its flush() has had its answer */
	LWLockRelease(&slot->lock);
}

/*
 * After an error in an apply: all its rows stay.  The log names the target
 * and the kind of error; the message may hold values, and is shown in
 * stat_target only to roles that may read the table.
 */
static void
recover(BddFlushGroup *group, MemoryContext context)
{
	ErrorData *error;

	HOLD_INTERRUPTS();
	MemoryContextSwitchTo(context);
	error = CopyErrorData();
	FlushErrorState();
	AbortCurrentTransaction();
	for (int i = 0; i < group->count; i++)
		note_failure(group->members[i].slot, group->members[i].target_id,
					 error);
	for (int i = 0; i < group->count; i++)
		ConditionVariableBroadcast(&group->members[i].slot->changed);
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
apply_group(BddFlushGroup *group)
{
	MemoryContext context = CurrentMemoryContext;
	BddSharedGeneration *first = bdd_next_sealed(group->members[0].slot, 0);
	volatile bool applied = false;

	report_applying(group->members[0].relid,
					first != NULL ? first->number : 0);
	PG_TRY();
	{
		bdd_flusher_applying = true;
		for (int i = 0; i < group->count; i++)
			bdd_count_waiting_letters(group->members[i].relid);
		applied = apply_in_transaction(group);
	}
	PG_CATCH();
	{
		recover(group, context);
	}
	PG_END_TRY();
	bdd_flusher_applying = false;
	report_applying(InvalidOid, 0);
	MemoryContextSwitchTo(context);
	pgstat_report_stat(true);
	pgstat_report_activity(STATE_IDLE, NULL);
	/* Waiting for locks may have eaten a wake-up. */
	SetLatch(MyLatch);
	return applied;
}

/* ---------- what is sealed ---------- */

/* Whether the worker ends as soon as it can. */
static bool
must_leave(void)
{
	return draining ? bdd_flusher_out_of_time : ShutdownRequestPending;
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

/*
 * Waits for the publishers of all that is sealed, or of a single target's next
 * generation: so much of it take_rows takes.
 */
static void
wait_quiet_group(const BddFlushGroup *group)
{
	for (int i = 0; i < group->count; i++)
	{
		BddSharedSlot *slot = group->members[i].slot;
		BddSharedGeneration *generation;
		uint64 number = 0;

		while ((generation = bdd_next_sealed(slot, number)) != NULL)
		{
			number = generation->number;
			wait_quiet(slot, number);
			if (group->count == 1)
				break;
		}
	}
}

/* Applies what is sealed; returns when to come back, or -1. */
static long
apply_sealed(BddFlushGroup *group)
{
	while (!must_leave() &&
		   my_worker->away_until <= GetCurrentTimestamp() &&
		   bdd_group_has_sealed(group))
	{
		long wait = bdd_group_retry_in(group);

		if (wait > 0)
			return wait;
		wait_quiet_group(group);
		bdd_debug_point("quiet");
		if (!must_leave() && !apply_group(group) && bdd_group_retry_in(group) <= 0)
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

	SetCurrentStatementStartTimestamp();
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

/*
 * Whether there are rows of targets that are not members: without any, foreign
 * keys need not be looked up.
 */
static bool
others_are_buffering(const BddFlushGroup *group)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *other = &bdd_registry->slots[i];

		if (other->in_use && other->worker == my_index &&
			!bdd_group_has(group, other->relid) && bdd_slot_is_buffering(other))
			return true;
	}
	return false;
}

static void apply_referenced(const BddFlushGroup *group, int depth);

/* One table that a sealed generation references. */
static void
apply_parent(const BddFlushGroup *group, Oid relid, int depth)
{
	BddSharedSlot *slot = bdd_slot_find_by_table(relid);
	BddFlushGroup parent;

	/* Members of groups are never applied alone. */
	if (slot == NULL || bdd_group_has(group, relid) ||
		!bdd_slot_is_buffering(slot) || !bdd_group_find(slot, &parent) ||
		parent.members[0].due.group[0] != '\0' || bdd_group_is_paused(&parent))
		return;
	bdd_group_seal(&parent);
	apply_referenced(&parent, depth + 1);
	(void) apply_sealed(&parent);
}

/*
 * Before a sealed generation is applied: rows that were published with or
 * before it in tables that it references.  Those are sealed later than it, so
 * all that it needs is in what is applied here.
 */
static void
apply_referenced(const BddFlushGroup *group, int depth)
{
	if (depth > 8 || !bdd_group_has_sealed(group) || !others_are_buffering(group))
		return;
	for (int i = 0; i < group->count; i++)
	{
		Oid relids[MAX_REFERENCED];
		int count = referenced_tables(group->members[i].relid, relids);

		for (int j = 0; j < count; j++)
			apply_parent(group, relids[j], depth);
	}
}

/* ---------- one target, all targets ---------- */

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
		SetCurrentStatementStartTimestamp();
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

/*
 * Waiters for a flush are told; not those that have come since "looked_at", when
 * the group was looked at: it may have been resumed.
 */
static void
note_paused(const BddFlushGroup *group, TimestampTz looked_at)
{
	for (int i = 0; i < group->count; i++)
	{
		BddSharedSlot *slot = group->members[i].slot;

		LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
		slot->found_paused_at = looked_at;
		LWLockRelease(&slot->lock);
		ConditionVariableBroadcast(&slot->changed);
	}
}

/* Returns milliseconds until the group wants attention, or -1. */
static long
work_on_group(BddFlushGroup *group, TimestampTz looked_at)
{
	long wait = bdd_group_due_in(group);
	long blocked;

	/* One at a time: rows of one key shall meet in the buffer. */
	if (wait == 0 && !bdd_group_is_paused(group) && !bdd_group_has_sealed(group))
		bdd_group_seal(group);
	/* A member that was added just now may be paused. */
	if (bdd_group_is_paused(group))
	{
		note_paused(group, looked_at);
		return -1;
	}
	if (wait == 0)
		wait = -1;
	apply_referenced(group, 0);
	blocked = apply_sealed(group);
	if (blocked >= 0)
		return blocked;
	/* More may have come while we applied. */
	return bdd_sooner(wait, bdd_group_due_in(group));
}

/* Returns milliseconds until the target wants attention, or -1. */
static long
work_on_target(BddSharedSlot *slot)
{
	BddFlushGroup group;
	long wait = -1;

	if (bdd_slot_is_buffering(slot))
	{
		TimestampTz looked_at = GetCurrentTimestamp();

		if (!bdd_group_find(slot, &group))
			return 1000;
		wait = work_on_group(&group, looked_at);
	}
	if (free_what_is_applied(slot))
		wait = bdd_sooner(wait, 1000);
	return wait;
}

/* Looks after all targets; returns milliseconds until the next look, or -1. */
long
bdd_flusher_work(void)
{
	long wait = -1;

	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (slot->in_use && slot->worker == my_index)
			wait = bdd_sooner(wait, work_on_target(slot));
	}
	return wait;
}

/* Whether a target of this worker has rows that are not applied. */
bool
bdd_flusher_has_work(void)
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

/* At a shutdown: applies what can be applied; one failure is enough. */
void
bdd_flusher_drain(void)
{
	draining = true;
	for (int i = 0; i < bdd_registry->slot_count && !bdd_flusher_out_of_time;
		 i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];
		BddFlushGroup group;

		if (!slot->in_use || slot->worker != my_index ||
			!bdd_slot_is_buffering(slot) || !bdd_group_find(slot, &group) ||
			bdd_group_is_paused(&group))
			continue;
		bdd_group_seal(&group);
		if (bdd_group_is_paused(&group))
			continue;
		apply_referenced(&group, 0);
		(void) apply_sealed(&group);
	}
}
