/*-------------------------------------------------------------------------
 *
 * flush_wait.h
 *		Waiting until a generation is applied, or until there is room.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_FLUSH_WAIT_H
#define BDD_FLUSH_WAIT_H

#include "base/base.h"

#include "buffer/registry.h"

extern uint64 bdd_request_flush(BddSharedSlot *slot, bool at_once);
extern void bdd_check_may_wait(void);
extern void bdd_wait_applied(BddSharedSlot *slot, int32 target_id,
							 uint64 number, TimestampTz since,
							 bool may_read);
extern bool bdd_wait_for_applier(BddSharedSlot *slot);
extern void bdd_wait_quiet_step(void);
extern void bdd_wait_quiet(BddSharedSlot *slot, uint64 number);
extern bool bdd_above_high_water(BddSharedSlot *slot);
extern bool bdd_above_seal_mark(BddSharedSlot *slot);
extern void bdd_report_full(BddSharedSlot *slot);
extern void bdd_wait_for_room(BddSharedSlot *slot, TimestampTz started);

#endif /* BDD_FLUSH_WAIT_H */
