/*-------------------------------------------------------------------------
 *
 * change_log.h
 *		What syncs have changed, in a partition for each day.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_CHANGE_LOG_H
#define BDD_CHANGE_LOG_H

#include "base/base.h"

#include "sync/sync.h"

extern int bdd_change_log_day(void);
extern void bdd_change_log_prepare(void);
extern void bdd_change_log_write(const BddSync *sync, int64 run_id, uint32 shape,
								 EphemeralNamedRelation changes);

#endif /* BDD_CHANGE_LOG_H */
