/*-------------------------------------------------------------------------
 *
 * settle.h
 *		Bringing buffered rows into the table before a statement changes it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SETTLE_H
#define BDD_SETTLE_H

#include "base/base.h"

#include "buffer/slot.h"
#include "commit/pending.h"
#include "nodes/pg_list.h"
#include "storage/lockdefs.h"

extern bool bdd_can_be_target(Oid relid);
extern bool bdd_is_target(Oid relid);
extern bool bdd_has_unapplied(BddSharedSlot *slot, BddPending *pending);
extern void bdd_set_pending_aside(Oid relid);
extern void bdd_settle(Oid relid, LOCKMODE lockmode);
extern void bdd_settle_ancestors(Oid relid, List *emptied);
extern void bdd_settle_tree(Oid relid, LOCKMODE lockmode, bool must);

#endif /* BDD_SETTLE_H */
