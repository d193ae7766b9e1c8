/*-------------------------------------------------------------------------
 *
 * journal.h
 *		Published rows in the WAL, until their generation is applied.
 *
 * Written in journal_write.c, kept by a replication slot in journal_retain.c,
 * read after a crash in journal_read.c.  docs/journal.md describes the
 * messages.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_JOURNAL_H
#define BDD_JOURNAL_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "buffer/memtable.h"
#include "datatype/timestamp.h"
#include "lib/stringinfo.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"

/*
 * Everybody may write messages with pg_logical_emit_message.  Ours have a prefix
 * that cannot be written in SQL: it has one more zero byte.  Who decodes them
 * sees "batchdedup".
 */
#define BDD_JOURNAL_PREFIX "batchdedup\0"
#define BDD_JOURNAL_SLOT "batchdedup"
#define BDD_JOURNAL_VERSION 1

typedef enum BddMessageKind
{
	BDD_MESSAGE_ROWS = 'r',
	BDD_MESSAGE_COPY = 'c',    /* replaces older rows of its generations */
	BDD_MESSAGE_APPLIED = 'a', /* rows of generations up to this one are not
								* needed */
	BDD_MESSAGE_HORIZON = 'h'  /* nothing before this LSN is needed */
} BddMessageKind;

/* A row's operation; the bit says that the image is full. */
#define BDD_JOURNAL_FULL 0x80

/* Without an xid there is one message, and no larger one. */
#define BDD_MESSAGE_LIMIT (1024 * 1024)

#define BDD_PROBLEM_SIZE 128

/*
 * Written by the launcher under the worker lock, but for the atomics: those
 * are written by everybody, unless it says otherwise.
 */
typedef struct BddSharedJournal
{
	pg_atomic_uint32 replayed; /* what the server found at start is known;
								* launcher */
	pg_atomic_uint32 kept;     /* a slot keeps the WAL; launcher */
	pg_atomic_uint32 ticking;  /* the launcher announces what is skipped */
	pg_atomic_uint64 written;  /* end of the newest message with rows */
	pg_atomic_uint64 announced;
	pg_atomic_uint64 skipped;
	pg_atomic_uint64 needed; /* needed from here on; launcher */
	ConditionVariable changed;

	bool in_memory;                 /* what the journal has already is, at start; postmaster */
	char problem[BDD_PROBLEM_SIZE]; /* why there is no slot; empty: none */
	XLogRecPtr slot_at;             /* restart_lsn of the slot */
	XLogRecPtr gap_from;            /* WAL that was needed and not there ... */
	XLogRecPtr gap_to;              /* ... up to here; 0: none */
	XLogRecPtr read_from;           /* by the replay at start */
	XLogRecPtr read_to;
	uint64 replay_rows;
	uint64 replay_us;
} BddSharedJournal;

/* Rows of one transaction and target, as in a message. */
typedef struct BddJournalSection
{
	int32 target_id;
	Oid relid;
	uint64 generation;
	uint32 fingerprint;
	uint64 first_sequence; /* of the transaction */
	uint64 rows;
	uint32 size;
	const char *data; /* the rows */
	uint64 copy;      /* of which copy the rows are; 0: none */
	uint64 copied_to; /* no rows, but: the copy counts; 0: rows */
	XLogRecPtr lsn;   /* of the message */
} BddJournalSection;

/* One of these rows. */
typedef struct BddJournalRow
{
	uint64 sequence;
	uint8 op; /* BddOp */
	bool full;
	uint32 size;
	const char *data; /* for bdd_image_unpack */
} BddJournalRow;

extern BddSharedJournal *bdd_journal;

/* journal_write.c */
extern void bdd_journal_init(BddSharedJournal *journal);
extern void bdd_journal_prepare(void);
extern bool bdd_journal_is_prepared(void);
extern XLogRecPtr bdd_journal_commit(void);
extern void bdd_journal_wait_for_standby(XLogRecPtr lsn);
extern void bdd_journal_forget(void);
extern void bdd_journal_expect_xid(void);
extern XLogRecPtr bdd_log_message(StringInfo message, bool transactional);
extern void bdd_journal_write_applied(int32 target_id, Oid relid,
									  uint64 generation);
extern void bdd_journal_write_horizon(XLogRecPtr horizon);
extern void bdd_put_row(StringInfo rows, uint64 sequence,
						const BddShape *shape, const BddImage *image);
extern void bdd_put_section(StringInfo message,
							const BddJournalSection *section);
extern bool bdd_journal_announce_skipped(void);

/* journal_read.c */
extern void bdd_journal_replay(XLogRecPtr from);
extern bool bdd_journal_next_row(BddJournalSection *section,
								 BddJournalRow *row);

/* WAL that rows had better not be in alone. */
typedef struct BddOldJournal
{
	XLogRecPtr lost_before; /* it may be gone */
	XLogRecPtr kept_before; /* it is more than is to be kept */
	XLogRecPtr redo;        /* base backups do not have it */
} BddOldJournal;

/* journal_copy.c */
extern void bdd_journal_copy(const BddOldJournal *old);

/* journal_retain.c */
extern void bdd_journal_start(void);
extern void bdd_journal_tend(void);
extern void bdd_journal_stop(void);
extern void bdd_journal_add_gap(XLogRecPtr from, XLogRecPtr to);
extern bool bdd_journal_is_replayed(void);
extern bool bdd_journal_is_kept(void);
extern bool bdd_journal_has(const BddSharedGeneration *generation);
extern void bdd_journal_check_kept(void);
extern void bdd_journal_wait_replayed(void);

#endif /* BDD_JOURNAL_H */
