/*-------------------------------------------------------------------------
 *
 * slot.h
 *		The slot of a target: found, made, given up.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SLOT_H
#define BDD_SLOT_H

#include "base/base.h"

#include "buffer/registry.h"

extern BddSharedSlot *bdd_slot_find(int32 target_id, Oid relid);
extern BddSharedSlot *bdd_slot_find_by_table(Oid relid);
extern BddSharedSlot *bdd_slot_create(int32 target_id, Oid relid,
									  uint64 applied, bool own);
extern BddSharedSlot *bdd_slot_to_load(Oid database, Oid relid, int32 target_id,
									   uint64 applied);
extern void bdd_slot_free(BddSharedSlot *slot, Oid database,
						  int32 target_id);
extern bool bdd_slot_belongs_to(const BddSharedSlot *slot, int32 target_id);

#endif /* BDD_SLOT_H */
