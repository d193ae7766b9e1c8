/*-------------------------------------------------------------------------
 *
 * progress.h
 *		How far long work is, for everybody to see.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_PROGRESS_H
#define BDD_PROGRESS_H

#include "base/base.h"

#include "datatype/timestamp.h"
#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/uuid.h"

/* So many processes are seen at once; work goes on unseen beyond that. */
#define BDD_PROGRESS_ENTRIES 64

/*
 * Set and cleared by the process that works, under the lock, exclusive; "done"
 * and "total" are its own to change and only grow.
 */
typedef struct BddSharedProgressEntry
{
	int pid; /* 0: free */
	Oid database;
	Oid relid;
	pg_uuid_t batch;
	bool of_batch;
	const char *kind; /* a constant of the library: the same everywhere */
	TimestampTz started;
	pg_atomic_uint64 done;
	pg_atomic_uint64 total;
} BddSharedProgressEntry;

typedef struct BddSharedProgress
{
	LWLock lock;
	BddSharedProgressEntry entries[BDD_PROGRESS_ENTRIES];
} BddSharedProgress;

extern BddSharedProgress *bdd_progress;

extern void bdd_progress_init(BddSharedProgress *shared);
extern void bdd_progress_begin(const char *kind, Oid relid,
							   const pg_uuid_t *batch, uint64 total);
extern void bdd_progress_add(uint64 count);
extern void bdd_progress_keep(void);
extern void bdd_progress_end(void);
extern bool bdd_progress_is(const char *kind);

#endif /* BDD_PROGRESS_H */
