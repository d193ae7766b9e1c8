/*-------------------------------------------------------------------------
 *
 * write.h
 *		Writing rows to the table, and finding those that it refuses.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_WRITE_H
#define BDD_WRITE_H

#include "base/base.h"

#include "buffer/memtable.h"
#include "target/target.h"

/* What a set of rows did to the table. */
typedef struct BddApplyCounts
{
	uint64 rows; /* of the buffer, one per key */
	uint64 inserted;
	uint64 updated;
	uint64 unchanged;
	uint64 stale; /* older than the row they met */
	uint64 deleted;
	uint64 dead_lettered;
	bool finds_stale; /* also where no worker writes */
} BddApplyCounts;

/* Rows by round: those of round i are rows[starts[i]] to rows[starts[i + 1]]. */
typedef struct BddRounds
{
	BddRow *rows;
	uint64 *starts;
	uint32 count;
} BddRounds;

/* A row that the table refused, and why. */
typedef struct BddRefused
{
	BddRow row;
	ErrorData *error;
} BddRefused;

extern BddRounds bdd_split_rounds(const BddRow *rows, uint64 count);
extern void bdd_write_rows(BddTarget *target, const BddRow *rows, uint64 count,
						   bool merge, BddApplyCounts *counts);
extern void bdd_constraints_immediate(Oid relid);
extern ErrorData *bdd_try_write(BddTarget *target, const BddRow *rows,
								uint64 count, BddApplyCounts *counts);
extern ErrorData *bdd_try_write_quickly(BddTarget *target, const BddRow *rows,
										uint64 count, BddApplyCounts *counts);
extern List *bdd_write_tolerantly(BddTarget *target, BddRows *rows,
								  BddApplyCounts *counts);
extern void bdd_count_stale(BddSharedSlot *slot, int32 target_id,
							uint64 stale);
extern void bdd_apply_count(BddSharedSlot *slot, int32 target_id,
							const BddApplyCounts *counts, TimestampTz started);

#endif /* BDD_WRITE_H */
