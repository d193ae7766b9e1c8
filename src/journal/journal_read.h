/*-------------------------------------------------------------------------
 *
 * journal_read.h
 *		What the server finds in the WAL when it starts.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_JOURNAL_READ_H
#define BDD_JOURNAL_READ_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "journal/message.h"

extern void bdd_journal_replay(XLogRecPtr from);
extern bool bdd_journal_next_row(BddJournalSection *section,
								 BddJournalRow *row);

#endif /* BDD_JOURNAL_READ_H */
