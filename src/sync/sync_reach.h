/*-------------------------------------------------------------------------
 *
 * sync_reach.h
 *		Up to where a run of a sync reads.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_REACH_H
#define BDD_SYNC_REACH_H

#include "base/base.h"

#include "datatype/timestamp.h"

/* What a run knows of its bound, from step to step. */
typedef struct BddBoundSearch
{
	const char *name;      /* of the sync */
	bool dry_run;          /* nothing is written */
	TimestampTz started;   /* when the run began */
	MemoryContext context; /* of what is kept from step to step */
	char *moment;          /* that this run waits for; NULL: none yet */
	bool waits;            /* another step is to come */
	char *bound;           /* the result; NULL: there is none */
} BddBoundSearch;

extern void bdd_sync_find_bound(BddBoundSearch *reach);

#endif /* BDD_SYNC_REACH_H */
