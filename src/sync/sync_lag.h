/*-------------------------------------------------------------------------
 *
 * sync_lag.h
 *		How far a sync is behind its source.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_LAG_H
#define BDD_SYNC_LAG_H

#include "base/base.h"

#include "sync/sync.h"

extern int64 bdd_sync_estimate_left(BddSync *sync);

#endif /* BDD_SYNC_LAG_H */
