/*-------------------------------------------------------------------------
 *
 * replay.h
 *		Applying rows that were found in the journal.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_REPLAY_H
#define BDD_REPLAY_H

#include "batchdedup.h"

#include "apply.h"
#include "old_shape.h"

extern void bdd_replay_rows(BddApply *apply, uint64 mark, uint32 rows,
							const BddOldShape *old);

#endif /* BDD_REPLAY_H */
