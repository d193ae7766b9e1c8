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

/*
 * A part of the extension that has something to do at the end of each
 * transaction.  It does not raise errors, and at commit it does not allocate.
 */
typedef struct BddXactListener
{
	void (*commit)(void); /* the rows are published */
	void (*abort)(void);
} BddXactListener;

extern void bdd_xact_init(void);
extern void bdd_xact_listen(const BddXactListener *listener);
extern void bdd_check_can_push(void);
extern Size bdd_largest_transaction(void);

extern void bdd_at_abort_free_slot(int32 target_id);
extern void bdd_at_commit_free_slot(BddSharedSlot *slot);
extern void bdd_at_commit_free_database(Oid database);
extern void bdd_at_commit_mark_applied(BddSharedSlot *slot, uint64 number);
extern void bdd_at_commit_wake_worker(BddSharedSlot *slot);

#endif /* BDD_XACT_H */
