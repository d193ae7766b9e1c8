/*-------------------------------------------------------------------------
 *
 * barrier_hint.h
 *		How many completed files of a batch are in the buffer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_BARRIER_HINT_H
#define BDD_BARRIER_HINT_H

#include "base/base.h"

#include "port/atomics.h"
#include "storage/condition_variable.h"
#include "utils/uuid.h"

#define BDD_BARRIER_CELLS 4096

/*
 * A cell belongs to a batch and a generation: the upper half says of which
 * generation it counts, the lower half how many files.  Batches may share one,
 * and one may take it from another: so it is a hint, too high or too low, of
 * when a flush is worth while, and nothing else.
 */
typedef struct BddSharedBarrier
{
	ConditionVariable changed;                 /* the status of a batch did */
	pg_atomic_uint64 cells[BDD_BARRIER_CELLS]; /* publishers */
} BddSharedBarrier;

extern BddSharedBarrier *bdd_barrier;

extern void bdd_barrier_hint_init(void);
extern void bdd_barrier_init(BddSharedBarrier *shared);
extern void bdd_barrier_note(Oid table, const pg_uuid_t *batch, uint32 completed,
							 uint32 open);
extern bool bdd_barrier_noted(const pg_uuid_t *batch);
extern void bdd_barrier_want_flush(Oid table);
extern void bdd_barrier_status_changed(void);

#endif /* BDD_BARRIER_HINT_H */
