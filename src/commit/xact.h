/*-------------------------------------------------------------------------
 *
 * xact.h
 *		The commit protocol.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_XACT_H
#define BDD_XACT_H

#include "base/base.h"

#include "buffer/registry.h"

extern void bdd_xact_init(void);
extern void bdd_check_can_push(void);
extern Size bdd_largest_transaction(void);

extern void bdd_at_abort_free_slot(int32 target_id);
extern void bdd_at_commit_free_slot(BddSharedSlot *slot);
extern void bdd_at_commit_free_database(Oid database);
extern void bdd_at_commit_mark_applied(BddSharedSlot *slot, uint64 number);
extern void bdd_at_commit_wake_worker(BddSharedSlot *slot);

#endif /* BDD_XACT_H */
