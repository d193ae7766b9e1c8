/*-------------------------------------------------------------------------
 *
 * wake.h
 *		Waking the launcher and the workers, and sending a worker away.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_WAKE_H
#define BDD_WAKE_H

#include "base/base.h"

#include "buffer/registry.h"

extern void bdd_wake_launcher(void);
extern void bdd_wake_worker(BddSharedSlot *slot);
extern bool bdd_worker_unavailable(BddSharedSlot *slot);
extern TimestampTz bdd_worker_leave(Oid database);
extern void bdd_worker_may_return(Oid database, TimestampTz until);

#endif /* BDD_WAKE_H */
