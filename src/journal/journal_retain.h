/*-------------------------------------------------------------------------
 *
 * journal_retain.h
 *		How long the WAL has to keep the journal.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_JOURNAL_RETAIN_H
#define BDD_JOURNAL_RETAIN_H

#include "base/base.h"

#define BDD_JOURNAL_SLOT "batchdedup"

extern void bdd_journal_start(void);
extern void bdd_journal_maintain(void);
extern void bdd_journal_stop(void);

#endif /* BDD_JOURNAL_RETAIN_H */
