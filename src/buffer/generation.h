/*-------------------------------------------------------------------------
 *
 * generation.h
 *		The generations of a target: their steps, and what is asked of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_GENERATION_H
#define BDD_GENERATION_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "buffer/registry.h"

extern bool bdd_slot_has_unapplied(BddSharedSlot *slot);
extern bool bdd_slot_waits_for(const BddSharedSlot *slot, uint64 number);
extern bool bdd_slot_is_buffering(BddSharedSlot *slot);

extern bool bdd_prepare_to_enter(BddSharedSlot *slot, const BddShape *shape,
								 bool logged);
extern BddSharedGeneration *bdd_enter(BddSharedSlot *slot, uint32 fingerprint,
									  bool logged);
extern void bdd_leave(BddSharedSlot *slot, BddSharedGeneration *generation);

extern void bdd_free_abandoned(BddSharedSlot *slot);
extern void bdd_seal(BddSharedSlot *slot);
extern void bdd_seal_together(BddSharedSlot *const *slots, int count);
extern BddSharedGeneration *bdd_next_sealed(BddSharedSlot *slot,
											uint64 after);
extern bool bdd_is_quiet(BddSharedSlot *slot, uint64 number);
extern void bdd_generation_applying(BddSharedSlot *slot,
									BddSharedGeneration *generation,
									TransactionId xid);
extern void bdd_generation_applied(BddSharedSlot *slot, int32 target_id,
								   uint64 number);
extern void bdd_free_applied(BddSharedSlot *slot, TransactionId horizon);
extern void bdd_slot_reconcile(BddSharedSlot *slot, uint64 mark);

extern BddSharedGeneration *bdd_load_generation(Oid database, Oid relid,
												int32 target_id,
												uint64 applied,
												uint64 number,
												uint32 fingerprint);
extern void bdd_unload_all(void);

extern uint64 bdd_slot_spooled(const BddSharedSlot *slot);
extern bool bdd_slot_add_spooled(Oid database, Oid relid, int32 target_id,
								 uint64 number, uint64 rows,
								 XLogRecPtr journal_from);
extern XLogRecPtr bdd_buffer_needed_from(void);
extern XLogRecPtr bdd_slot_needed_from(BddSharedSlot *slot, uint64 after);

#endif /* BDD_GENERATION_H */
