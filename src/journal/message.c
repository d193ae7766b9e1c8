/*-------------------------------------------------------------------------
 *
 * message.c
 *		The messages of the journal: their form, and how one is written.
 *
 * docs/journal.md describes the form.  Messages of a transaction's rows are put
 * together by journal_write.c, copies of older rows by journal_copy.c.  The others
 * are written here, each in a buffer of its own: one may have to be written while
 * the message with a transaction's rows waits for COMMIT.
 *
 *-------------------------------------------------------------------------
 */
#include "journal/message.h"

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xloginsert.h"
#include "base/number.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "replication/message.h"

/* The head that each message has, in an empty buffer. */
void
bdd_begin_message(StringInfo message, BddMessageKind kind)
{
	resetStringInfo(message);
	appendStringInfoCharMacro(message, BDD_JOURNAL_VERSION);
	appendStringInfoCharMacro(message, kind);
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

/* Writes a message with rows.  Does not allocate. */
XLogRecPtr
bdd_write_rows_message(StringInfo message, bool transactional)
{
	XLogRecPtr lsn = bdd_log_message(message, transactional);

	bdd_raise_to(&bdd_journal->written, lsn);
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

/*
 * Says, if the transaction commits, that the target's generations up to this
 * one are in the table; PG_UINT64_MAX: the target is gone.  Replay would find
 * that out by the mark, but only after it has kept all the rows.
 */
void
bdd_journal_write_applied(int32 target_id, Oid relid, uint64 generation)
{
	StringInfoData message;

	if (!bdd_journal_is_kept())
		return;
	initStringInfo(&message);
	bdd_begin_message(&message, BDD_MESSAGE_APPLIED);
	bdd_put_number(&message, (uint32) target_id);
	bdd_put_number(&message, relid);
	bdd_put_number(&message, generation);
	(void) bdd_log_message(&message, true);
	pfree(message.data);
}

/* Says, and flushes, that no WAL before "horizon" is needed. */
void
bdd_journal_write_horizon(XLogRecPtr horizon)
{
	StringInfoData message;
	XLogRecPtr lsn;

	initStringInfo(&message);
	bdd_begin_message(&message, BDD_MESSAGE_HORIZON);
	appendBinaryStringInfo(&message, (char *) &horizon, sizeof(horizon));
	lsn = bdd_log_message(&message, false);
	pfree(message.data);
	XLogFlush(lsn);
}

/* ---------- telling the walwriter ---------- */

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
	bdd_raise_to(&bdd_journal->announced, skipped);
	XLogSetAsyncXactLSN(skipped);
	return true;
}
