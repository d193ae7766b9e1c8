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

extern void bdd_guard_written(Oid relid, bool inserts, PlannedStmt *planned,
							  bool *flushed);
extern void bdd_guard_init(void);

#endif /* BDD_GUARD_H */
