/*-------------------------------------------------------------------------
 *
 * apply.h
 *		From the buffer to the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_APPLY_H
#define BDD_APPLY_H

#include "batchdedup.h"

#include "memtable.h"
#include "target.h"

/* What a set of rows did to the table. */
typedef struct BddApplyCounts
{
	uint64 rows; /* of the buffer, one per key */
	uint64 inserted;
	uint64 updated;
	uint64 unchanged;
	uint64 deleted;
	uint64 dead_lettered;
} BddApplyCounts;

extern void bdd_write_rows(BddTarget *target, const BddRow *rows, uint64 count,
						   bool merge, BddApplyCounts *counts);
extern void bdd_constraints_immediate(BddTarget *target);
extern bool bdd_apply_generation(BddTarget *target,
								 BddSharedGeneration *generation,
								 BddApplyCounts *counts);
extern void bdd_apply_count(BddSharedSlot *slot, int32 target_id,
							const BddApplyCounts *counts, TimestampTz started);
extern void bdd_apply_here(BddTarget *target);
extern void bdd_discard_here(BddTarget *target);
extern void bdd_wait_quiet_step(void);
extern void bdd_wait_quiet(BddSharedSlot *slot, uint64 number);

#endif /* BDD_APPLY_H */
