/*-------------------------------------------------------------------------
 *
 * replay.h
 *		Applying rows that were found in the journal.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_REPLAY_H
#define BDD_REPLAY_H

#include "base/base.h"

#include "apply/apply.h"
#include "target/old_shape.h"

/* What is known of a target's rows before the apply sets its mark. */
typedef struct BddReplayed
{
	uint64 mark;            /* generations that are applied */
	XLogRecPtr from;        /* no message before counts */
	uint32 rows;            /* in the file */
	const BddOldShape *old; /* the shape that the table had, or NULL */
} BddReplayed;

extern void bdd_replay_rows(BddApply *apply, const BddReplayed *known);

#endif /* BDD_REPLAY_H */
