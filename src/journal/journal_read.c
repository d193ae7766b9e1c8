/*-------------------------------------------------------------------------
 *
 * journal_read.c
 *		What the server finds in the WAL when it starts.
 *
 * The launcher reads the WAL once, from where its slot keeps it, for all
 * databases.  Messages without an xid count as they are, those with one when
 * their transaction's commit record comes.  It does not know what is applied:
 * each target's rows go to a file (spool.c), and a sealed generation of the
 * target stands for the file, with the highest number found.  Its apply
 * leaves out what the mark says is applied.
 *
 * So the order of generations, waiting for a flush, DDL and deadlocks need
 * nothing of their own for replay, writers need not wait for it, and memory
 * does not have to hold what was in memory before.
 *
 *-------------------------------------------------------------------------
 */
#include "journal/journal_read.h"

#include <unistd.h>

#include "access/rmgr.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "access/xlog_internal.h"
#include "access/xlogutils.h"
#include "base/compat.h"
#include "base/debug_point.h"
#include "base/number.h"
#include "buffer/generation.h"
#include "buffer/registry.h"
#include "journal/spool.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "replication/message.h"
#include "storage/fd.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* Rows that are kept in memory before they go to their file. */
#define SPOOL_BUFFER (256 * 1024)

typedef struct BddFoundKey
{
	Oid database;
	int32 target_id;
} BddFoundKey;

/* A target of which there are rows. */
typedef struct BddFound
{
	BddFoundKey key;
	Oid relid;
	uint64 highest; /* generation, also of rows that do not count */
	uint64 rows;
	bool applied; /* all that was found */
	StringInfoData buffer;
} BddFound;

/* A message of a transaction that has yet to end. */
typedef struct BddUndecided
{
	struct BddUndecided *next; /* older */
	Oid database;
	XLogRecPtr lsn;
	char kind;
	Size size;
	char data[FLEXIBLE_ARRAY_MEMBER];
} BddUndecided;

typedef struct BddFoundTransaction
{
	TransactionId xid;
	BddUndecided *newest;
} BddFoundTransaction;

typedef struct BddReplay
{
	XLogReaderState *reader;
	HTAB *found;
	HTAB *transactions;
	uint64 rows;
	uint64 highest_sequence;
	XLogRecPtr horizon; /* the highest that a message tells */
	XLogRecPtr reached; /* all before is read */
	XLogRecPtr lsn;     /* of the message */
} BddReplay;

/* ---------- messages ---------- */

/* Takes "size" bytes off the front of the data; false: there are fewer. */
static bool
take(const char **data, const char *end, void *value, size_t size)
{
	if ((size_t) (end - *data) < size)
		return false;
	memcpy(value, *data, size);
	*data += size;
	return true;
}

/* Takes the next section off the front of a message; false: damaged. */
static bool
take_section(const char **data, const char *end, BddJournalSection *section)
{
	uint64 target_id;
	uint64 relid;
	uint64 size;

	if (!bdd_get_number(data, end, &target_id) ||
		!bdd_get_number(data, end, &relid) ||
		!bdd_get_number(data, end, &section->generation) ||
		!take(data, end, &section->fingerprint, sizeof(uint32)) ||
		!bdd_get_number(data, end, &section->rows) ||
		!bdd_get_number(data, end, &size) || (uint64) (end - *data) < size)
		return false;
	section->target_id = (int32) target_id;
	section->relid = (Oid) relid;
	section->size = size;
	section->data = *data;
	*data += size;
	return true;
}

/* Takes the next row off the front of the section; false: it is empty. */
bool
bdd_journal_next_row(BddJournalSection *section, BddJournalRow *row)
{
	const char *end = section->data + section->size;
	const char *data = section->data;
	uint64 sequence;
	uint64 size;
	uint8 op;

	if (section->rows == 0)
		return false;
	if (!bdd_get_number(&data, end, &sequence) ||
		!take(&data, end, &op, 1) || !bdd_get_number(&data, end, &size) ||
		(uint64) (end - data) < size)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("batchdedup does not understand a message of its journal")));
	row->sequence = section->first_sequence + sequence;
	row->op = op & ~BDD_JOURNAL_FULL;
	row->full = (op & BDD_JOURNAL_FULL) != 0;
	row->size = size;
	row->data = data;
	data += size;
	section->size = end - data;
	section->data = data;
	section->rows--;
	return true;
}

/* ---------- what is found ---------- */

/*
 * What is known of the section's target, made if nothing is.  Its highest
 * generation counts from here on, whether or not the rows do.
 */
static BddFound *
find_target(BddReplay *replay, Oid database, const BddJournalSection *section)
{
	BddFoundKey key = {database, section->target_id};
	bool found;
	BddFound *target = hash_search(replay->found, &key, HASH_ENTER, &found);

	if (!found)
	{
		target->highest = 0;
		target->rows = 0;
		initStringInfo(&target->buffer);
	}
	target->applied = false;
	target->relid = section->relid;
	target->highest = Max(target->highest, section->generation);
	return target;
}

/*
 * Adds the section's rows to the target's buffer, which goes to its file once
 * it is large enough.
 */
static void
keep_section(BddReplay *replay, BddFound *target,
			 const BddJournalSection *section)
{
	BddJournalSection rest = *section;
	BddJournalRow row;

	while (bdd_journal_next_row(&rest, &row))
		replay->highest_sequence = Max(replay->highest_sequence,
									   row.sequence);
	rest = *section;
	rest.lsn = replay->lsn;
	target->rows += section->rows;
	replay->rows += section->rows;
	bdd_spool_put(&target->buffer, &rest);
	if (target->buffer.len > SPOOL_BUFFER)
		bdd_spool_append(target->key.database, target->key.target_id,
						 &target->buffer);
}

/*
 * The rows of a message.  Of a transaction that is not decided only the
 * numbers of generations count: they are not to be used again.
 */
static void
read_rows(BddReplay *replay, Oid database, const char *data, Size size,
		  bool decided)
{
	const char *end = data + size;
	BddJournalSection section = {0};
	TimestampTz at;

	if (!take(&data, end, &at, sizeof(at)) ||
		!bdd_get_number(&data, end, &section.first_sequence))
		elog(ERROR, "message without a head");
	while (data < end)
	{
		BddFound *target;

		if (!take_section(&data, end, &section))
			elog(ERROR, "message with a damaged section");
		target = find_target(replay, database, &section);
		if (decided)
			keep_section(replay, target, &section);
	}
}

/* The target's rows found so far are not needed, if none is of a later generation. */
static void
read_applied(BddReplay *replay, Oid database, const char *data, Size size)
{
	const char *end = data + size;
	BddFoundKey key = {.database = database};
	BddFound *target;
	uint64 target_id;
	uint64 relid;
	uint64 generation;

	if (!bdd_get_number(&data, end, &target_id) ||
		!bdd_get_number(&data, end, &relid) ||
		!bdd_get_number(&data, end, &generation))
		elog(ERROR, "damaged message of an apply");
	key.target_id = (int32) target_id;
	target = hash_search(replay->found, &key, HASH_FIND, NULL);
	if (target == NULL || target->highest > generation)
		return;
	resetStringInfo(&target->buffer);
	bdd_spool_remove(database, key.target_id);
	replay->rows -= target->rows;
	target->rows = 0;
	target->applied = true;
}

/* A message of a copy: rows, or that the copy counts. */
static void
read_copy(BddReplay *replay, const char *data, Size size)
{
	const char *end = data + size;
	BddJournalSection section = {0};
	BddFound *target;
	uint64 database;
	uint64 copy;
	uint64 target_id;
	uint64 relid;
	uint64 from;
	uint64 to;
	bool last;
	TimestampTz at;

	if (!bdd_get_number(&data, end, &database) ||
		!bdd_get_number(&data, end, &copy) ||
		!bdd_get_number(&data, end, &target_id) ||
		!bdd_get_number(&data, end, &relid) ||
		!bdd_get_number(&data, end, &from) ||
		!bdd_get_number(&data, end, &to) || !take(&data, end, &last, 1) ||
		!take(&data, end, &at, sizeof(at)) ||
		!bdd_get_number(&data, end, &section.first_sequence))
		elog(ERROR, "message of a copy without a head");
	section.target_id = (int32) target_id;
	section.relid = relid;
	section.generation = to;
	target = find_target(replay, database, &section);
	if (last)
		bdd_spool_copied(&target->buffer, copy, from, to);
	while (data < end)
	{
		if (!take_section(&data, end, &section))
			elog(ERROR, "message of a copy with a damaged section");
		section.copy = copy;
		keep_section(replay, target, &section);
	}
}

/*
 * Copies the message: whether it counts is known when the transaction's end is
 * read.
 */
static void
keep_undecided(BddReplay *replay, TransactionId xid, Oid database, char kind,
			   const char *data, Size size)
{
	bool found;
	BddFoundTransaction *transaction = hash_search(replay->transactions, &xid,
												   HASH_ENTER, &found);
	BddUndecided *kept = MemoryContextAllocHuge(CurrentMemoryContext,
												offsetof(BddUndecided, data) + size);

	kept->next = found ? transaction->newest : NULL;
	kept->database = database;
	kept->kind = kind;
	kept->lsn = replay->lsn;
	kept->size = size;
	memcpy(kept->data, data, size);
	transaction->newest = kept;
}

/*
 * The transaction has ended: if it has committed its messages count.  The order
 * of its rows does not matter, they have numbers; what it has applied was there
 * before.
 */
static void
decide(BddReplay *replay, TransactionId xid, bool committed)
{
	BddFoundTransaction *transaction = hash_search(replay->transactions, &xid,
												   HASH_FIND, NULL);
	BddUndecided *kept;

	if (transaction == NULL)
		return;
	for (kept = transaction->newest; kept != NULL && committed; kept = kept->next)
		if (kept->kind == BDD_MESSAGE_APPLIED)
			read_applied(replay, kept->database, kept->data, kept->size);
	kept = transaction->newest;
	while (kept != NULL)
	{
		BddUndecided *next = kept->next;

		replay->lsn = kept->lsn;
		if (committed && kept->kind == BDD_MESSAGE_ROWS)
			read_rows(replay, kept->database, kept->data, kept->size, true);
		pfree(kept);
		kept = next;
	}
	hash_search(replay->transactions, &xid, HASH_REMOVE, NULL);
}

/* ---------- records ---------- */

/* The highest horizon of all messages counts. */
static void
read_horizon(BddReplay *replay, const char *data, Size size)
{
	XLogRecPtr horizon;

	if (size != sizeof(horizon))
		elog(ERROR, "message with a damaged horizon");
	memcpy(&horizon, data, sizeof(horizon));
	replay->horizon = Max(replay->horizon, horizon);
}

/*
 * Reads a logical message if it is one of ours.  One of another version is an
 * error, at which reading ends.
 */
static void
read_message(BddReplay *replay)
{
	xl_logical_message *record =
		(xl_logical_message *) XLogRecGetData(replay->reader);
	const char *data = record->message + record->prefix_size;
	Size size = record->message_size;
	char kind;

	if (record->prefix_size != sizeof(BDD_JOURNAL_PREFIX) ||
		memcmp(record->message, BDD_JOURNAL_PREFIX,
			   sizeof(BDD_JOURNAL_PREFIX)) != 0)
		return;
	if (size < 2 || data[0] != BDD_JOURNAL_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("the WAL has messages of another version of batchdedup"),
				 errhint("Start the server with the version that wrote them, and stop it cleanly.")));
	replay->lsn = replay->reader->ReadRecPtr;
	kind = data[1];
	data += 2;
	size -= 2;
	if (kind == BDD_MESSAGE_HORIZON)
		read_horizon(replay, data, size);
	else if (kind == BDD_MESSAGE_COPY)
		read_copy(replay, data, size);
	else if (kind == BDD_MESSAGE_ROWS)
	{
		read_rows(replay, record->dbId, data, size, !record->transactional);
		if (record->transactional)
			keep_undecided(replay, XLogRecGetXid(replay->reader),
						   record->dbId, kind, data, size);
	}
	else if (kind == BDD_MESSAGE_APPLIED)
		keep_undecided(replay, XLogRecGetXid(replay->reader), record->dbId,
					   kind, data, size);
}

/*
 * At a commit what the transaction and its subtransactions have written
 * counts; at an abort it is dropped.
 */
static void
read_transaction_end(BddReplay *replay)
{
	uint8 info = XLogRecGetInfo(replay->reader);

	if ((info & XLOG_XACT_OPMASK) == XLOG_XACT_COMMIT)
	{
		xl_xact_parsed_commit parsed;

		ParseCommitRecord(info, (xl_xact_commit *) XLogRecGetData(replay->reader),
						  &parsed);
		for (int i = 0; i < parsed.nsubxacts; i++)
			decide(replay, parsed.subxacts[i], true);
		decide(replay, XLogRecGetXid(replay->reader), true);
	}
	else if ((info & XLOG_XACT_OPMASK) == XLOG_XACT_ABORT)
		decide(replay, XLogRecGetXid(replay->reader), false);
}

/* Of all records only logical messages and ends of transactions matter. */
static void
read_record(BddReplay *replay)
{
	switch (XLogRecGetRmid(replay->reader))
	{
		case RM_LOGICALMSG_ID:
			read_message(replay);
			break;
		case RM_XACT_ID:
			read_transaction_end(replay);
			break;
		default:
			break;
	}
}

/*
 * Whether the reader has nothing more because no more is flushed.  That may be
 * in the middle of a record that is being written meanwhile; before it all is
 * read.
 */
static bool
is_at_end(const BddReplay *replay)
{
	const ReadLocalXLogPageNoWaitPrivate *end = replay->reader->private_data;

	return end->end_of_wal;
}

/*
 * Only logged: the server starts, and bdd_journal_replay makes a gap of the
 * rest.
 */
static void
report_unreadable(BddReplay *replay, const char *error)
{
	ereport(LOG,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("batchdedup cannot read the WAL at %X/%X: %s",
					LSN_FORMAT_ARGS(replay->reached), error)));
}

/*
 * Reads from "from" up to "to"; "reached" is where it got to, which is less if
 * the WAL is damaged or missing there.
 */
static void
read_wal(BddReplay *replay, XLogRecPtr from, XLogRecPtr to)
{
	XLogRecPtr at = bdd_find_next_record(replay->reader, from);

	replay->reached = from;
	if (XLogRecPtrIsInvalid(at) && is_at_end(replay))
		replay->reached = to;
	if (XLogRecPtrIsInvalid(at))
		return;
	replay->reached = at;
	while (replay->reached < to)
	{
		char *error;

		CHECK_FOR_INTERRUPTS();
		if (XLogReadRecord(replay->reader, &error) == NULL)
		{
			if (is_at_end(replay))
				replay->reached = to;
			else if (error != NULL)
				report_unreadable(replay, error);
			return;
		}
		read_record(replay);
		replay->reached = replay->reader->EndRecPtr;
	}
}

/*
 * The same; an error (a segment that is not there, a message that is not
 * understood) is where it ends.  What was read before counts.
 */
static void
read_wal_as_far_as_possible(BddReplay *replay, XLogRecPtr from, XLogRecPtr to)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		read_wal(replay, from, to);
	}
	PG_CATCH();
	{
		ErrorData *error;

		if (geterrcode() != ERRCODE_UNDEFINED_FILE &&
			geterrcode() != ERRCODE_DATA_CORRUPTED &&
			geterrcode() != ERRCODE_INTERNAL_ERROR)
			PG_RE_THROW();
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		report_unreadable(replay, error->message);
		FreeErrorData(error);
	}
	PG_END_TRY();
}

/* ---------- replay ---------- */

/* A hash table in the current memory context. */
static HTAB *
make_hash(const char *name, Size key_size, Size entry_size)
{
	HASHCTL control;

	control.keysize = key_size;
	control.entrysize = entry_size;
	control.hcxt = CurrentMemoryContext;
	return hash_create(name, 64, &control,
					   HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

/*
 * Makes the reader and the hash tables, in the current memory context.  The
 * reader does not wait for WAL that is not flushed yet, see is_at_end.
 */
static void
begin_replay(BddReplay *replay)
{
	ReadLocalXLogPageNoWaitPrivate *end = palloc0(sizeof(*end));

	memset(replay, 0, sizeof(*replay));
	replay->reader =
		XLogReaderAllocate(wal_segment_size, NULL,
						   XL_ROUTINE(.page_read = &read_local_xlog_page_no_wait,
									  .segment_open = &wal_segment_open,
									  .segment_close = &wal_segment_close),
						   end);
	if (replay->reader == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	replay->found = make_hash("batchdedup replay", sizeof(BddFoundKey),
							  sizeof(BddFound));
	replay->transactions = make_hash("batchdedup transactions",
									 sizeof(TransactionId),
									 sizeof(BddFoundTransaction));
}

/* A generation for each target that was found. */
static void
register_found(BddReplay *replay, XLogRecPtr from)
{
	MemoryContext context = CurrentMemoryContext;
	HASH_SEQ_STATUS scan;
	BddFound *target;

	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	MemoryContextSwitchTo(context);
	hash_seq_init(&scan, replay->found);
	while ((target = hash_seq_search(&scan)) != NULL)
	{
		if (target->applied ||
			!SearchSysCacheExists1(DATABASEOID,
								   ObjectIdGetDatum(target->key.database)))
			continue;
		bdd_spool_append(target->key.database, target->key.target_id,
						 &target->buffer);
		if (!bdd_slot_add_spooled(target->key.database, target->relid,
								  target->key.target_id, target->highest,
								  target->rows, from))
			ereport(FATAL,
					(errcode(ERRCODE_CONFIGURATION_LIMIT_EXCEEDED),
					 errmsg("batchdedup found rows of more targets in its journal than the server has slots or memory for"),
					 errhint("Raise batchdedup.max_targets and batchdedup.buffer_size to what they were, and restart the server.")));
	}
	CommitTransactionCommand();
	MemoryContextSwitchTo(context);
}

/* The slot was to keep the WAL from here on, which is not there. */
static XLogRecPtr
slot_before(XLogRecPtr from)
{
	return bdd_journal->slot_at < from ? bdd_journal->slot_at : InvalidXLogRecPtr;
}

/*
 * Reads the WAL from "from", and makes generations of what it finds.  Part of
 * the journal is known to be missing if nothing says that what comes before
 * "from" is not needed, or if the WAL cannot be read to its end.
 */
void
bdd_journal_replay(XLogRecPtr from)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "batchdedup replay",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(context);
	TimestampTz started = GetCurrentTimestamp();
	XLogRecPtr to;
	XLogRecPtr reached;
	BddReplay replay;

	bdd_debug_point("replay");
	to = GetFlushRecPtr(NULL);
	bdd_spool_remove_all();
	begin_replay(&replay);
	read_wal_as_far_as_possible(&replay, from, to);
	reached = replay.reached;
	XLogReaderFree(replay.reader);
	bdd_sequence_raise(replay.highest_sequence);
	register_found(&replay, from);
	bdd_debug_point("replayed");
	if (reached < to)
		bdd_journal_add_gap(reached, to);
	else if (replay.horizon < from)
		bdd_journal_add_gap(Max(replay.horizon, slot_before(from)), from);

	LWLockAcquire(&bdd_registry->worker_lock, LW_EXCLUSIVE);
	bdd_journal->read_from = from;
	bdd_journal->read_to = reached;
	bdd_journal->replay_rows = replay.rows;
	bdd_journal->replay_us = GetCurrentTimestamp() - started;
	LWLockRelease(&bdd_registry->worker_lock);
	if (replay.rows > 0)
		ereport(LOG,
				(errmsg("batchdedup found " UINT64_FORMAT " rows in the WAL from %X/%X to %X/%X",
						replay.rows, LSN_FORMAT_ARGS(from),
						LSN_FORMAT_ARGS(reached))));
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
}
