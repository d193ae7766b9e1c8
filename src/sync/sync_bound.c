/*-------------------------------------------------------------------------
 *
 * sync_bound.c
 *		Up to where a cursor may be read: what can still be written below it.
 *
 * A transaction takes the value of its rows' cursor early and commits them
 * late.  A reader that is beyond that value by then has missed them.  So a sync
 * takes a moment, waits until it is over, and reads up to there: everything
 * below that will ever be seen is then seen by every new snapshot.
 *
 * A cursor from a sequence without a cache.  nextval() locks the sequence for
 * the rest of the transaction before it takes a value.  So a transaction that
 * has taken a value up to last_value either holds that lock after last_value was
 * read, or has ended: the holders are waited for.
 *
 * A cursor from the clock: now() or clock_timestamp() of the transaction that
 * writes.  It is not enough to wait for the transactions that are open at the
 * moment, because a process reads the clock earlier than it shows that a
 * transaction is open:
 *
 *  - now() of a client's backend is the time at which its message was
 *    received (before StartTransaction), and that of all the transactions of
 *    one message: in "COMMIT; BEGIN; INSERT ..." the second one begins long
 *    after its now().
 *  - Only what a procedure begins after its own COMMIT has a now() of its own
 *    (but the statement_timestamp() of the CALL: that is no cursor for us).
 *
 * So every process has to give a sign, after the moment, that what it begins
 * from then on reads the clock after the moment; the transaction that it is in
 * at that time is then waited for.  For a process without a sign the moment
 * goes on.  Signs (find_sign), each with the fact it rests on:
 *
 *  - pg_stat_activity shows a statement that began after the moment: that is
 *    the time at which its message was received, and the clock goes on.
 *  - It shows a transaction of a client's backend that began after the moment.
 *    Its message did, too, or it was begun by a procedure.  Transactions can
 *    end in a procedure only if it is all there is in its message, so all that
 *    may still follow in the message is begun by the procedure.
 *  - A client's backend waits for the client outside of a transaction: a
 *    message is received as a whole before its time is taken, and COPY FROM
 *    STDIN, which waits for the client amid a message, is in a transaction.
 *  - It waits for the client and is idle in a transaction by what
 *    pg_stat_activity says before and after: so this is not a COPY.
 *  - A background process waits for something to do, outside of a transaction:
 *    such processes take the time (SetCurrentStatementStartTimestamp) when there
 *    is something.  Some wait without saying so (the scheduler of pg_cron in
 *    poll()): they take the time just before they begin a transaction, so one
 *    that is in none a good while after the moment gives a sign, too.
 *  - It is gone.  One that came later takes the time later: a process can be seen
 *    here before its first reading of the clock (InitPostgres, which opens a
 *    transaction in no database yet; hence processes without a database count
 *    until they have one).
 *
 * What a process waits for and whether it is in a transaction must be read as
 * of one time: a process begins and ends transactions under its fpInfoLock, so
 * we hold that.  VirtualXactLock goes by the same field, follows a transaction
 * that is prepared while it is waited for, and says that one has ended only
 * when new snapshots see it.  A transaction that is prepared already when its
 * process gives its sign has left the process; all that are prepared are
 * listed after the last sign, and they are in PreparedXactProcs before they
 * leave their process.  They are waited for by the lock on their xid, which is
 * released only when new snapshots see what they did.
 *
 * What writes no rows is passed over: other databases, parallel workers (their
 * leader counts), VACUUM and concurrent builds of indexes (each is all of its
 * message), a walsender that sends.  What is not known for sure is waited for.
 *
 * The clock must not be set back.  And what is written by another transaction
 * than the one whose clock it shows is not seen here: rows of a subscription,
 * or those that wait in a buffer of ours.
 *
 * While a moment goes on, there often is a bound all the same: the time before
 * which none of the holders can have read the clock.  pg_stat_activity may lag
 * behind, and then shows older times, which do no harm.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_bound.h"

#include "access/relation.h"
#include "access/twophase.h"
#include "base/compat.h"
#include "base/loaded.h"
#include "buffer/registry.h"
#include "catalog/pg_authid_d.h"
#include "commands/sequence.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "sql/spi.h"
#include "storage/bufmgr.h"
#include "storage/latch.h"
#include "storage/lmgr.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/rel.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

/* For what other processors have written before the moment to be seen here. */
#define SETTLE_US 100

/* A background process takes the time at most so long before it begins a transaction. */
#define QUIET_MS 200

#define MAX_DELAY_MS 10

/* A process, looked at. */
typedef struct Look
{
	BddProcessStatus status;
	bool same_status; /* it has reported nothing until "lxid" was read */
	int pid;
	bool gone;
	bool background;
	bool follows; /* is a parallel worker */
	Oid database;
	uint8 flags;
	uint32 waits_for;
	LocalTransactionId lxid;
} Look;

typedef enum Sign
{
	SIGN_NONE,
	SIGN_OF_NEXT, /* what it begins next reads the clock later */
	SIGN_OF_ALL   /* and it is in nothing that could have done so before */
} Sign;

/* ---------- moments ---------- */

/* A moment that nothing keeps from being over. */
BddMoment *
bdd_moment_new(int size)
{
	BddMoment *moment = palloc0(sizeof(BddMoment));

	moment->size = Max(size, 1);
	moment->holders = palloc(moment->size * sizeof(BddHolder));
	return moment;
}

/* Adds what keeps the moment from being over. */
void
bdd_moment_add_holder(BddMoment *moment, bool is_process, int backend, uint32 id,
					  TimestampTz since)
{
	BddHolder holder = {is_process, backend, id, since};

	if (moment->count == moment->size)
	{
		moment->size *= 2;
		moment->holders = repalloc(moment->holders,
								   moment->size * sizeof(BddHolder));
	}
	moment->holders[moment->count++] = holder;
}

/* ---------- looking at a process ---------- */

/*
 * Reads it by the protocol of the server.  If the process is writing it just
 * then, it is not known, this time.
 */
void
bdd_process_status(int backend, int pid, BddProcessStatus *status)
{
	volatile PgBackendStatus *entry = bdd_backend_status(backend);
	int before;
	int after;

	pgstat_begin_read_activity(entry, before);
	status->known = entry->st_procpid == pid;
	status->type = entry->st_backendType;
	status->state = entry->st_state;
	status->process = entry->st_proc_start_timestamp;
	status->transaction = entry->st_xact_start_timestamp;
	status->statement = entry->st_activity_start_timestamp;
	pgstat_end_read_activity(entry, after);

	status->changes = before;
	if (!pgstat_read_activity_complete(before, after))
		status->known = false;
}

/* Whether the process has reported anything since "status" was read. */
static bool
has_reported(int backend, const BddProcessStatus *status)
{
	volatile PgBackendStatus *entry = bdd_backend_status(backend);

	pg_read_barrier();
	return entry->st_changecount != status->changes;
}

/* Looks at another process; it is gone if its place has another "pid" by now. */
static void
look_at_process(int backend, int pid, Look *look)
{
	PGPROC *proc = bdd_backend_proc(backend);

	bdd_process_status(backend, pid, &look->status);
	look->pid = pid;
	look->gone = true;
	if (proc == NULL)
		return;
	LWLockAcquire(&proc->fpInfoLock, LW_SHARED);
	look->gone = proc->pid != pid;
	look->background = bdd_is_background(proc);
	look->follows = proc->lockGroupLeader != NULL &&
					proc->lockGroupLeader != proc;
	look->database = proc->databaseId;
	look->flags = proc->statusFlags;
	look->waits_for = proc->wait_event_info;
	look->lxid = proc->fpLocalTransactionId;
	LWLockRelease(&proc->fpInfoLock);

	look->same_status = look->status.known &&
						!has_reported(backend, &look->status);
	if (look->status.known)
		look->background = look->status.type != B_BACKEND &&
						   look->status.type != B_WAL_SENDER;
}

/* A walsender in one of these sends; its message has nothing else in it. */
static bool
is_sending(const Look *look)
{
	return look->status.known && look->status.type == B_WAL_SENDER &&
		   (look->waits_for == WAIT_EVENT_WAL_SENDER_MAIN ||
			look->waits_for == WAIT_EVENT_WAL_SENDER_WRITE_DATA ||
			look->waits_for == BDD_WAIT_EVENT_WALSENDER_WAITS);
}

/* Whether nothing of what it does writes rows of this database. */
static bool
writes_nothing_here(const Look *look)
{
	const uint8 passed_over = PROC_IS_AUTOVACUUM | PROC_IN_VACUUM |
							  PROC_IN_SAFE_IC;

	if (look->gone || look->follows || (look->flags & passed_over) != 0)
		return true;
	if (OidIsValid(look->database))
		return look->database != MyDatabaseId || is_sending(look);
	/* An entry is made when the database is known; the clock is read between. */
	if (look->status.known)
		return !bdd_is_starting(look->status.state);
	return BackendPidGetProc(look->pid) == NULL;
}

/* Whether the process waits for its client, in a transaction or outside of one. */
static bool
is_idle(BackendState state)
{
	return state == STATE_IDLE || state == STATE_IDLEINTRANSACTION ||
		   state == STATE_IDLEINTRANSACTION_ABORTED;
}

/*
 * A process without a client gives a sign only outside of a transaction: when
 * it waits for something to do, or is quiet a good while after the moment.
 */
static Sign
find_background_sign(const Look *look, TimestampTz at)
{
	uint32 wait_class = look->waits_for & 0xFF000000;

	if (look->lxid != InvalidLocalTransactionId)
		return SIGN_NONE;
	if (wait_class == PG_WAIT_ACTIVITY || wait_class == PG_WAIT_EXTENSION ||
		TimestampDifferenceExceeds(at, GetCurrentTimestamp(), QUIET_MS))
		return SIGN_OF_ALL;
	return SIGN_NONE;
}

/*
 * A client's backend gives a sign by a transaction that began after the
 * moment, or by waiting for its client; see the head of this file for what
 * COPY needs.
 */
static Sign
find_client_sign(const Look *look, TimestampTz at)
{
	if (look->status.known && look->status.type == B_BACKEND &&
		look->status.transaction >= at)
		return SIGN_OF_ALL;
	if (look->waits_for != WAIT_EVENT_CLIENT_READ)
		return SIGN_NONE;
	if (look->lxid == InvalidLocalTransactionId)
		return SIGN_OF_ALL;
	return look->same_status && is_idle(look->status.state) ? SIGN_OF_NEXT : SIGN_NONE;
}

/* What it has shown since the moment; see the head of this file. */
static Sign
find_sign(const Look *look, TimestampTz at)
{
	Sign sign = look->background ? find_background_sign(look, at) :
								   find_client_sign(look, at);

	if (sign == SIGN_NONE && look->status.known && look->status.statement >= at)
		return SIGN_OF_NEXT;
	return sign;
}

/* ---------- since when ---------- */

/* Before which its open transaction has not read the clock; 0: not known. */
static TimestampTz
transaction_since(const BddProcessStatus *status)
{
	if (!status->known)
		return 0;
	return status->transaction != 0 ? status->transaction : status->process;
}

/* The same of all that it may still commit. */
static TimestampTz
process_since(const Look *look)
{
	const BddProcessStatus *status = &look->status;
	TimestampTz statement = status->statement != 0 ? status->statement :
													 status->process;

	if (!status->known)
		return 0;
	if (look->lxid == InvalidLocalTransactionId && status->transaction == 0)
		return statement;
	return Min(statement, transaction_since(status));
}

/* ---------- is it over? ---------- */

/* Whether it still holds the moment; a process may become its transaction. */
static bool
process_holds(BddHolder *holder, TimestampTz at)
{
	Look look;
	Sign sign;

	look_at_process(holder->backend, (int) holder->id, &look);
	if (writes_nothing_here(&look))
		return false;
	sign = find_sign(&look, at);
	if (sign == SIGN_NONE)
	{
		holder->since = process_since(&look);
		return true;
	}
	if (sign == SIGN_OF_ALL || look.lxid == InvalidLocalTransactionId)
		return false;
	holder->is_process = false;
	holder->id = look.lxid;
	holder->since = transaction_since(&look.status);
	return true;
}

/* Whether the transaction has ended for all new snapshots; does not wait for it. */
static bool
has_ended(int backend, uint32 id)
{
	return VirtualXactLock(bdd_make_vxid(backend, id), false);
}

/*
 * Whether the holder still keeps the moment from being over.  A process may
 * become the transaction that it is in.
 */
static bool
holds(BddHolder *holder, TimestampTz at)
{
	return holder->is_process ? process_holds(holder, at) :
								!has_ended(holder->backend, holder->id);
}

/* Whether some process has not given its sign yet. */
static bool
waits_for_signs(const BddMoment *moment)
{
	for (int i = 0; i < moment->count; i++)
		if (moment->holders[i].is_process)
			return true;
	return false;
}

/* Whether the prepared transaction is among the holders already. */
static bool
has_prepared(const BddMoment *moment, TransactionId xid)
{
	for (int i = 0; i < moment->count; i++)
		if (!moment->holders[i].is_process &&
			moment->holders[i].backend == BDD_PREPARED &&
			moment->holders[i].id == xid)
			return true;
	return false;
}

/*
 * Adds what is prepared in this database.  A place that is free again still
 * has the transaction that was there last, hence the question whether that has
 * ended.
 */
static void
add_prepared(BddMoment *moment)
{
	TransactionId *xids = palloc(max_prepared_xacts * sizeof(TransactionId) + 1);
	int count = 0;

	LWLockAcquire(TwoPhaseStateLock, LW_SHARED);
	for (int i = 0; i < max_prepared_xacts; i++)
		if (TransactionIdIsValid(PreparedXactProcs[i].xid) &&
			PreparedXactProcs[i].databaseId == MyDatabaseId)
			xids[count++] = PreparedXactProcs[i].xid;
	LWLockRelease(TwoPhaseStateLock);

	for (int i = 0; i < count; i++)
		if (!has_prepared(moment, xids[i]) && !has_ended(BDD_PREPARED, xids[i]))
			bdd_moment_add_holder(moment, false, BDD_PREPARED, xids[i], 0);
	pfree(xids);
}

/*
 * Looks once, without waiting, and forgets what holds it no longer.  What is
 * prepared is listed each time until all signs were given, so that the bound
 * before the end knows of it.
 */
bool
bdd_moment_is_over(BddMoment *moment)
{
	bool more_signs = waits_for_signs(moment);
	int kept = 0;

	for (int i = 0; i < moment->count; i++)
	{
		BddHolder holder = moment->holders[i];

		if (holds(&holder, moment->at))
			moment->holders[kept++] = holder;
	}
	moment->count = kept;
	if (more_signs)
		add_prepared(moment);
	return moment->count == 0;
}

/*
 * Looks until it is over, or the time is.  No lock is waited for: the deadlock
 * detector does not see this.
 */
bool
bdd_moment_wait(BddMoment *moment, int timeout_ms)
{
	TimestampTz end = TimestampTzPlusMilliseconds(GetCurrentTimestamp(), timeout_ms);
	long delay = 1;

	while (!bdd_moment_is_over(moment))
	{
		long left = TimestampDifferenceMilliseconds(GetCurrentTimestamp(), end);

		if (left <= 0)
			return false;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
						 Min(delay, left), PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		delay = Min(delay + 1, MAX_DELAY_MS);
	}
	return true;
}

/*
 * The highest value of the clock that may be read, as of the last look; false:
 * none is known.
 */
bool
bdd_moment_bound(const BddMoment *moment, TimestampTz *bound)
{
	TimestampTz since = moment->at;

	if (moment->of_sequence)
		return false;
	for (int i = 0; i < moment->count; i++)
	{
		if (moment->holders[i].since == 0)
			return false;
		since = Min(since, moment->holders[i].since);
	}
	*bound = since - 1;
	return true;
}

/* ---------- taking one ---------- */

/* Now, by the clock. */
BddMoment *
bdd_moment_take(void)
{
	BddMoment *moment;

	bdd_check_preloaded();
	moment = bdd_moment_new(MaxBackends);
	moment->at = GetCurrentTimestamp();
	pg_usleep(SETTLE_US);
	pg_memory_barrier();
	for (int i = BDD_FIRST_BACKEND; i < BDD_FIRST_BACKEND + MaxBackends; i++)
	{
		PGPROC *proc = bdd_backend_proc(i);

		if (proc != NULL && proc != MyProc)
			bdd_moment_add_holder(moment, true, i, (uint32) proc->pid, 0);
	}
	/* There may be nobody else but prepared transactions. */
	add_prepared(moment);
	(void) bdd_moment_is_over(moment);
	return moment;
}

/* What nextval() has given last, if anything; no privilege is asked for. */
static int64
read_last_value(Oid sequence, bool *called)
{
	Relation rel = relation_open(sequence, AccessShareLock);
	FormData_pg_sequence_data data;
	HeapTupleHeader tuple;
	Buffer buffer;
	Page page;

	if (rel->rd_rel->relkind != RELKIND_SEQUENCE)
		elog(ERROR, "\"%s\" is not a sequence", RelationGetRelationName(rel));
	buffer = ReadBuffer(rel, 0);
	LockBuffer(buffer, BUFFER_LOCK_SHARE);
	page = BufferGetPage(buffer);
	tuple = (HeapTupleHeader) PageGetItem(page, PageGetItemId(page, FirstOffsetNumber));
	memcpy(&data, (char *) tuple + tuple->t_hoff, sizeof(data));
	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);

	*called = data.is_called;
	return data.last_value;
}

/* Now, by what a sequence has given; its cache must be 1. */
BddMoment *
bdd_moment_take_sequence(Oid sequence, int64 *last_value, bool *called)
{
	BddMoment *moment;
	VirtualTransactionId *users;
	LOCKTAG tag;
	int count;

	bdd_check_preloaded();
	*last_value = read_last_value(sequence, called);
	pg_memory_barrier();
	SET_LOCKTAG_RELATION(tag, MyDatabaseId, sequence);
	users = GetLockConflicts(&tag, ShareLock, &count);

	moment = bdd_moment_new(count);
	moment->at = GetCurrentTimestamp();
	moment->of_sequence = true;
	moment->called = *called;
	moment->last_value = *last_value;
	for (int i = 0; i < count; i++)
		bdd_moment_add_holder(moment, false, bdd_vxid_backend(users[i]),
							  users[i].localTransactionId, 0);
	return moment;
}
