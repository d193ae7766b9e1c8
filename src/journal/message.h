/*-------------------------------------------------------------------------
 *
 * message.h
 *		The messages of the journal: their form, and how one is written.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_MESSAGE_H
#define BDD_MESSAGE_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "lib/stringinfo.h"
#include "row/rowimage.h"

/*
 * Everybody may write messages with pg_logical_emit_message.  Ours have a prefix
 * that cannot be written in SQL: it has one more zero byte.  A decoder of
 * the WAL sees "batchdedup".
 */
#define BDD_JOURNAL_PREFIX "batchdedup\0"
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

extern void bdd_begin_message(StringInfo message, BddMessageKind kind);
extern void bdd_put_row(StringInfo rows, uint64 sequence,
						const BddShape *shape, const BddImage *image);
extern void bdd_put_section(StringInfo message,
							const BddJournalSection *section);
extern XLogRecPtr bdd_log_message(StringInfo message, bool transactional);
extern XLogRecPtr bdd_write_rows_message(StringInfo message, bool transactional);
extern void bdd_journal_write_applied(int32 target_id, Oid relid,
									  uint64 generation);
extern void bdd_journal_write_horizon(XLogRecPtr horizon);
extern bool bdd_journal_announce_skipped(void);

#endif /* BDD_MESSAGE_H */
