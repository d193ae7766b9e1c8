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
#include "commit/journal_write.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "base/compat.h"
#include "base/debug_point.h"
#include "base/number.h"
#include "buffer/wake.h"
#include "commit/pending.h"
#include "journal/message.h"
#include "journal/state.h"
#include "postmaster/walwriter.h"
#include "replication/message.h"
#include "replication/syncrep.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/*
 * The message with the transaction's rows, in the memory of pending rows.  No
 * other message uses this buffer: see message.c.
 */
static StringInfoData message;
static bool prepared = false; /* the message waits for COMMIT */
static bool expect_xid = false;

/*
 * The head of a message with rows; they count their sequence numbers from the
 * first one.
 */
static void
begin_rows(uint64 first_sequence)
{
	TimestampTz now = GetCurrentTransactionStopTimestamp();

	bdd_begin_message(&message, BDD_MESSAGE_ROWS);
	appendBinaryStringInfo(&message, (char *) &now, sizeof(now));
	bdd_put_number(&message, first_sequence);
}

/* ---------- PRE_COMMIT ---------- */

/* Adds the rows of one target that are in "rows", and empties that. */
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
		(void) bdd_write_rows_message(&message, true);
		begin_rows(first_sequence);
	}
	if (count > 0)
		append_section(pending, count, &rows);
	pfree(rows.data);
}

/* Whether the target's rows belong into the journal. */
static bool
is_logged(const BddPending *pending)
{
	return pending->set->count > 0 && pending->generation->logged;
}

/* The lowest sequence number that the target's rows have. */
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
		(void) bdd_write_rows_message(&message, true);
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

/* Whether bdd_journal_commit has a message to write. */
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
		bdd_raise_to(&bdd_journal->skipped, lsn);
		pg_memory_barrier();
		if (pg_atomic_read_u32(&bdd_journal->ticking) == 0)
			bdd_wake_launcher();
		return;
	}
	bdd_raise_to(&bdd_journal->announced, lsn);
#endif
	XLogSetAsyncXactLSN(lsn);
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
	/* It is still the one that was prepared. */
	Assert(message.len > 1 && message.data[1] == BDD_MESSAGE_ROWS);
	lsn = bdd_write_rows_message(&message, false);
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
