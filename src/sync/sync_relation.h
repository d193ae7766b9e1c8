/*-------------------------------------------------------------------------
 *
 * sync_relation.h
 *		Rows of a sync as a relation that its statements read.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_RELATION_H
#define BDD_SYNC_RELATION_H

#include "base/base.h"

#include "sync/sync.h"
#include "utils/queryenvironment.h"

/* What a change has behind the columns of the target, in this order. */
enum
{
	BDD_CHANGE_REMOVED = 1,
	BDD_CHANGE_PRESENT,
	BDD_CHANGE_OPERATION,
	BDD_CHANGE_KEY,
	BDD_CHANGE_OLD_VERSION,
	BDD_CHANGE_NEW_VERSION,
	BDD_CHANGE_COLUMNS
};

extern BddSyncRows bdd_slice_take(void);
extern EphemeralNamedRelation bdd_slice_relation(const char *name, const BddSyncRows *rows);
extern void bdd_slice_free_relation(EphemeralNamedRelation relation);
extern uint32 bdd_slice_shape(TupleDesc desc);

#endif /* BDD_SYNC_RELATION_H */
