/*-------------------------------------------------------------------------
 *
 * guard.h
 *		Plain writers beside us.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_GUARD_H
#define BDD_GUARD_H

#include "base/base.h"

#include "nodes/plannodes.h"

/* The next statement that starts is one of ours. */
extern bool bdd_guard_own_statement;

extern void bdd_guard_written(Oid relid, bool inserts, PlannedStmt *planned,
							  bool *flushed);
extern void bdd_guard_init(void);

#endif /* BDD_GUARD_H */
