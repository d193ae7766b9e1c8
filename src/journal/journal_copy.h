/*-------------------------------------------------------------------------
 *
 * journal_copy.h
 *		Rows that are written to the journal once more.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_JOURNAL_COPY_H
#define BDD_JOURNAL_COPY_H

#include "base/base.h"

#include "access/xlogdefs.h"

/* WAL that rows had better not be in alone. */
typedef struct BddOldJournal
{
	XLogRecPtr lost_before; /* it may be gone */
	XLogRecPtr kept_before; /* it is more than is to be kept */
	XLogRecPtr redo;        /* base backups do not have it */
} BddOldJournal;

extern void bdd_journal_copy(const BddOldJournal *old);

#endif /* BDD_JOURNAL_COPY_H */
