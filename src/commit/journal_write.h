/*-------------------------------------------------------------------------
 *
 * journal_write.h
 *		A transaction's rows as a logical message in the WAL.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_JOURNAL_WRITE_H
#define BDD_JOURNAL_WRITE_H

#include "base/base.h"

#include "access/xlogdefs.h"

extern void bdd_journal_prepare(void);
extern bool bdd_journal_is_prepared(void);
extern XLogRecPtr bdd_journal_commit(void);
extern void bdd_journal_wait_for_standby(XLogRecPtr lsn);
extern void bdd_journal_forget(void);
extern void bdd_journal_expect_xid(void);

#endif /* BDD_JOURNAL_WRITE_H */
