/*-------------------------------------------------------------------------
 *
 * group.h
 *		The targets that are sealed at one moment and applied in one transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_GROUP_H
#define BDD_GROUP_H

#include "base/base.h"

#include "apply/apply.h"
#include "worker/due.h"

typedef struct BddMember
{
	BddSharedSlot *slot;
	int32 target_id;
	Oid relid;
	BddDue due;
	BddApply apply;  /* in the apply's transaction */
	uint64 number;   /* newest generation that it has applied, or 0 */
	bool referenced; /* by a member that has yet to find its place */
	bool related;    /* has a foreign key from or to another member */
} BddMember;

typedef struct BddFlushGroup
{
	int count;
	BddMember members[BDD_GROUP_MEMBERS];
} BddFlushGroup;

extern bool bdd_group_find(BddSharedSlot *slot, BddFlushGroup *group);
extern bool bdd_group_has(const BddFlushGroup *group, Oid relid);
extern bool bdd_group_is_paused(const BddFlushGroup *group);
extern bool bdd_group_has_sealed(const BddFlushGroup *group);
extern void bdd_group_seal(BddFlushGroup *group);
extern void bdd_group_sort_by_oid(BddFlushGroup *group);
extern void bdd_group_sort_by_reference(BddFlushGroup *group);
extern long bdd_group_due_in(const BddFlushGroup *group);
extern long bdd_group_retry_in(const BddFlushGroup *group);

#endif /* BDD_GROUP_H */
