/*-------------------------------------------------------------------------
 *
 * apply.h
 *		From the buffer to the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_APPLY_H
#define BDD_APPLY_H

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

/*
 * What is applied to one target in the current transaction.  The caller holds
 * RowExclusiveLock on the table, or a stronger one, until its end.
 */
typedef struct BddApply
{
	BddTarget *target;
	MemoryContext context;
	MemoryContext row_context; /* of rows: context, or one in it */
	uint64 number;             /* of the newest generation; 0: none */
	bool unlogged;             /* rows that are in no journal */
	BddRows rows;
	List *refused; /* of BddRefused */
	BddApplyCounts counts;
} BddApply;

/* Rows by round: those of round i are rows[starts[i]] to rows[starts[i + 1]]. */
typedef struct BddRounds
{
	BddRow *rows;
	uint64 *starts;
	uint32 count;
} BddRounds;

extern BddRounds bdd_split_rounds(const BddRow *rows, uint64 count);
extern void bdd_write_rows(BddTarget *target, const BddRow *rows, uint64 count,
						   bool merge, BddApplyCounts *counts);
extern void bdd_constraints_immediate(Oid relid);
extern void bdd_apply_begin(BddApply *apply, BddTarget *target);
extern bool bdd_apply_add(BddApply *apply, BddSharedGeneration *generation);
extern void bdd_report_other_shape(BddTarget *target);
extern void bdd_apply_fold(BddApply *apply);
extern void bdd_apply_part(BddApply *apply);
extern void bdd_apply_all(BddApply *apply);
extern void bdd_apply_deletes(BddApply *apply, bool related);
extern void bdd_apply_rest(BddApply *apply);
extern void bdd_apply_end(BddApply *apply);
extern bool bdd_apply_generation(BddTarget *target,
								 BddSharedGeneration *generation,
								 BddApplyCounts *counts);
extern void bdd_count_stale(BddSharedSlot *slot, int32 target_id,
							uint64 stale);
extern void bdd_apply_count(BddSharedSlot *slot, int32 target_id,
							const BddApplyCounts *counts, TimestampTz started);
extern void bdd_apply_here(BddTarget *target);
extern void bdd_discard_here(BddTarget *target);
extern void bdd_wait_quiet_step(void);
extern void bdd_wait_quiet(BddSharedSlot *slot, uint64 number);

#endif /* BDD_APPLY_H */
