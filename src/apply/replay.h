/*-------------------------------------------------------------------------
 *
 * replay.h
 *		Rows that were found in the journal, as a source for an apply.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_REPLAY_H
#define BDD_REPLAY_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "buffer/memtable.h"
#include "target/old_shape.h"

/* What is known of a target's rows before the apply sets its mark. */
typedef struct BddReplayed
{
	uint64 mark;            /* generations that are applied */
	XLogRecPtr from;        /* no message before counts */
	uint32 rows;            /* in the file */
	const BddOldShape *old; /* the shape that the table had, or NULL */
} BddReplayed;

typedef struct BddReplaySource BddReplaySource;

extern BddReplaySource *bdd_replay_open(BddTarget *target, const BddReplayed *known);
extern bool bdd_replay_next(BddReplaySource *replay, BddRows *rows, Size bytes);
extern void bdd_replay_close(BddReplaySource *replay);

#endif /* BDD_REPLAY_H */
