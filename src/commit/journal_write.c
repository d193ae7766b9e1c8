/*-------------------------------------------------------------------------
 *
 * journal_write.c
 *		A transaction's rows as a logical message in the WAL.
 *
 * With an xid the message is transactional and written in PRE_COMMIT: it
 * counts if the transaction's commit record follows.  Without one, which is
 * the usual case, it is prepared in PRE_COMMIT and written in COMMIT: there it
 * is the commit, and costs neither xid nor commit record.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "base/compat.h"
#include "base/debug_point.h"
#include "base/number.h"
#include "buffer/registry.h"
#include "commit/pending.h"
#include "journal/journal.h"
#include "postmaster/walwriter.h"
#include "replication/message.h"
#include "replication/syncrep.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

BddSharedJournal *bdd_journal = NULL;

static StringInfoData message; /* in the transaction's memory */
static bool prepared = false;  /* the message waits for COMMIT */
static bool expect_xid = false;

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

/* ---------- writing ---------- */

static void
begin_message(BddMessageKind kind)
{
	resetStringInfo(&message);
	appendStringInfoCharMacro(&message, BDD_JOURNAL_VERSION);
	appendStringInfoCharMacro(&message, kind);
}

static void
begin_rows(uint64 first_sequence)
{
	TimestampTz now = GetCurrentTransactionStopTimestamp();

	begin_message(BDD_MESSAGE_ROWS);
	appendBinaryStringInfo(&message, (char *) &now, sizeof(now));
	bdd_put_number(&message, first_sequence);
}

static void
raise_to(pg_atomic_uint64 *lsn, XLogRecPtr value)
{
	uint64 old = pg_atomic_read_u64(lsn);

	while (old < value && !pg_atomic_compare_exchange_u64(lsn, &old, value))
		;
}

/*
 * The record that LogLogicalMessage makes, with a prefix of our own; see
 * BDD_JOURNAL_PREFIX.  Does not allocate.
 */
XLogRecPtr
bdd_log_message(StringInfo buffer, bool transactional)
{
	static const char *const prefix = BDD_JOURNAL_PREFIX;
	xl_logical_message record;

	if (transactional)
		(void) GetCurrentTransactionId();
	record.dbId = MyDatabaseId;
	record.transactional = transactional;
	record.prefix_size = sizeof(BDD_JOURNAL_PREFIX);
	record.message_size = buffer->len;
	XLogBeginInsert();
	XLogRegisterData((char *) &record, SizeOfLogicalMessage);
	XLogRegisterData(unconstify(char *, prefix), sizeof(BDD_JOURNAL_PREFIX));
	XLogRegisterData(buffer->data, buffer->len);
	XLogSetRecordFlags(XLOG_INCLUDE_ORIGIN);
	return XLogInsert(RM_LOGICALMSG_ID, XLOG_LOGICAL_MESSAGE);
}

static XLogRecPtr
write_message(bool transactional)
{
	XLogRecPtr lsn = bdd_log_message(&message, transactional);

	raise_to(&bdd_journal->written, lsn);
	return lsn;
}

/* A row; its sequence number is less the first one of the message. */
void
bdd_put_row(StringInfo rows, uint64 sequence, const BddShape *shape,
			const BddImage *image)
{
	bdd_put_number(rows, sequence);
	appendStringInfoCharMacro(rows, image->op | (image->full ? BDD_JOURNAL_FULL : 0));
	bdd_image_pack(shape, image, rows);
}

/* A section is its head, which counts the bytes of the rows, and its rows. */
void
bdd_put_section(StringInfo message, const BddJournalSection *section)
{
	bdd_put_number(message, (uint32) section->target_id);
	bdd_put_number(message, section->relid);
	bdd_put_number(message, section->generation);
	appendBinaryStringInfo(message, (char *) &section->fingerprint,
						   sizeof(section->fingerprint));
	bdd_put_number(message, section->rows);
	bdd_put_number(message, section->size);
	appendBinaryStringInfo(message, section->data, section->size);
}

/* ---------- PRE_COMMIT ---------- */

static void
append_section(const BddPending *pending, uint64 count, StringInfo rows)
{
	BddJournalSection section = {.target_id = pending->target_id,
								 .relid = pending->relid,
								 .generation = pending->generation->number,
								 .fingerprint = pending->shape->fingerprint,
								 .rows = count,
								 .size = rows->len,
								 .data = rows->data};

	bdd_put_section(&message, &section);
	resetStringInfo(rows);
}

/* A message that is large enough goes at once, for the transaction's xid. */
static void
append_target(const BddPending *pending, uint64 first_sequence)
{
	StringInfoData rows;
	uint64 count = 0;
	dlist_iter iter;

	initStringInfo(&rows);
	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingRow *row = dlist_container(BddPendingRow, set_link,
											 iter.cur);

		bdd_put_row(&rows, row->reservation.version->sequence - first_sequence,
					pending->shape, &row->newest->image);
		count++;
		if (message.len + rows.len < BDD_MESSAGE_LIMIT)
			continue;
		append_section(pending, count, &rows);
		count = 0;
		(void) GetTopTransactionId();
		(void) write_message(true);
		begin_rows(first_sequence);
	}
	if (count > 0)
		append_section(pending, count, &rows);
	pfree(rows.data);
}

static bool
is_logged(const BddPending *pending)
{
	return pending->set->count > 0 && pending->generation->logged;
}

static uint64
lowest_sequence(const BddPending *pending)
{
	uint64 lowest = PG_UINT64_MAX;
	dlist_iter iter;

	dlist_foreach(iter, &pending->set->rows)
	{
		BddPendingRow *row = dlist_container(BddPendingRow, set_link,
											 iter.cur);

		lowest = Min(lowest, row->reservation.version->sequence);
	}
	return lowest;
}

/*
 * Puts the rows of logged targets into a message; writes it if there is an
 * xid, or there will be one.  All rows have their sequence numbers.
 */
void
bdd_journal_prepare(void)
{
	MemoryContext old_context;
	uint64 first_sequence = PG_UINT64_MAX;
	Size head;

	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		if (is_logged(pending))
			first_sequence = Min(first_sequence, lowest_sequence(pending));
	if (first_sequence == PG_UINT64_MAX)
		return;

	old_context = MemoryContextSwitchTo(bdd_pending_context);
	initStringInfo(&message);
	begin_rows(first_sequence);
	head = message.len;
	for (BddPending *pending = bdd_pending_targets; pending != NULL;
		 pending = pending->next)
		if (is_logged(pending))
			append_target(pending, first_sequence);
	MemoryContextSwitchTo(old_context);
	if (message.len == head)
		return;
	if (expect_xid)
		(void) GetTopTransactionId();
	if (TransactionIdIsValid(GetTopTransactionIdIfAny()))
		(void) write_message(true);
	else
		prepared = true;
}

/*
 * The transaction will take an xid after our PRE_COMMIT: NOTIFY does.
 */
void
bdd_journal_expect_xid(void)
{
	expect_xid = true;
}

/* ---------- COMMIT ---------- */

bool
bdd_journal_is_prepared(void)
{
	return prepared;
}

/*
 * With synchronous_commit off the walwriter is to flush the message soon.  Up
 * to 16 telling it so costs two context switches each time.  So it is told
 * after every wal_writer_flush_after, and what is left the launcher tells.
 */
static void
announce(XLogRecPtr lsn)
{
#ifndef BDD_ANNOUNCING_IS_CHEAP
	uint64 enough = (uint64) Max(WalWriterFlushAfter, 1) * XLOG_BLCKSZ;

	if (lsn < pg_atomic_read_u64(&bdd_journal->announced) + enough)
	{
		raise_to(&bdd_journal->skipped, lsn);
		pg_memory_barrier();
		if (pg_atomic_read_u32(&bdd_journal->ticking) == 0)
			bdd_wake_launcher();
		return;
	}
	raise_to(&bdd_journal->announced, lsn);
#endif
	XLogSetAsyncXactLSN(lsn);
}

/*
 * By the launcher, every wal_writer_delay; false: there was nothing, and it
 * need not come again before it is woken.
 */
bool
bdd_journal_announce_skipped(void)
{
	XLogRecPtr skipped;

	pg_atomic_write_u32(&bdd_journal->ticking, 1);
	pg_memory_barrier();
	skipped = pg_atomic_read_u64(&bdd_journal->skipped);
	if (skipped <= pg_atomic_read_u64(&bdd_journal->announced))
	{
		pg_atomic_write_u32(&bdd_journal->ticking, 0);
		pg_memory_barrier();
		skipped = pg_atomic_read_u64(&bdd_journal->skipped);
		if (skipped <= pg_atomic_read_u64(&bdd_journal->announced))
			return false;
		pg_atomic_write_u32(&bdd_journal->ticking, 1);
	}
	raise_to(&bdd_journal->announced, skipped);
	XLogSetAsyncXactLSN(skipped);
	return true;
}

/*
 * Writes the prepared message: the transaction has no xid, so this commits
 * it.  In a critical section, which the rows' publication belongs to.
 */
XLogRecPtr
bdd_journal_commit(void)
{
	XLogRecPtr lsn;

	Assert(CritSectionCount > 0);
	lsn = write_message(false);
	bdd_debug_point("journaled");
	if (synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
		XLogFlush(lsn);
	else
		announce(lsn);
	/* This was the commit; the next transaction has written nothing yet. */
	XactLastRecEnd = 0;
	bdd_debug_point("flushed");
	return lsn;
}

/* As the server does after a commit record; outside of the critical section. */
void
bdd_journal_wait_for_standby(XLogRecPtr lsn)
{
	if (synchronous_commit > SYNCHRONOUS_COMMIT_OFF)
		SyncRepWaitForLSN(lsn, true);
}

/* At the end of the transaction; its memory goes with it. */
void
bdd_journal_forget(void)
{
	prepared = false;
	expect_xid = false;
}

/* ---------- other messages ---------- */

/*
 * Says, if the transaction commits, that the target's generations up to this
 * one are in the table; PG_UINT64_MAX: the target is gone.  Replay would find
 * that out by the mark, but only after it has kept all the rows.
 */
void
bdd_journal_write_applied(int32 target_id, Oid relid, uint64 generation)
{
	if (!bdd_journal_is_kept())
		return;
	initStringInfo(&message);
	begin_message(BDD_MESSAGE_APPLIED);
	bdd_put_number(&message, (uint32) target_id);
	bdd_put_number(&message, relid);
	bdd_put_number(&message, generation);
	(void) bdd_log_message(&message, true);
	pfree(message.data);
}

/* Says, and flushes, that nothing before "horizon" is needed. */
void
bdd_journal_write_horizon(XLogRecPtr horizon)
{
	XLogRecPtr lsn;

	initStringInfo(&message);
	begin_message(BDD_MESSAGE_HORIZON);
	appendBinaryStringInfo(&message, (char *) &horizon, sizeof(horizon));
	lsn = bdd_log_message(&message, false);
	pfree(message.data);
	XLogFlush(lsn);
}
