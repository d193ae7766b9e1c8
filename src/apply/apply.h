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

#include "apply/write.h"
#include "buffer/memtable.h"
#include "target/target.h"

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

extern void bdd_apply_begin(BddApply *apply, BddTarget *target);
extern bool bdd_apply_add(BddApply *apply, BddSharedGeneration *generation);
extern void bdd_apply_fold(BddApply *apply);
extern void bdd_apply_all(BddApply *apply);
extern void bdd_apply_deletes(BddApply *apply, bool related);
extern void bdd_apply_rest(BddApply *apply);
extern void bdd_apply_end(BddApply *apply);
extern bool bdd_apply_generation(BddTarget *target,
								 BddSharedGeneration *generation,
								 BddApplyCounts *counts);
extern void bdd_apply_here(BddTarget *target);
extern void bdd_discard_here(BddTarget *target);

#endif /* BDD_APPLY_H */
