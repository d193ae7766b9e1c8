/*-------------------------------------------------------------------------
 *
 * sync_slice.h
 *		One transaction's worth of a sync.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_SLICE_H
#define BDD_SYNC_SLICE_H

#include "base/base.h"

#include "sync/sync_relation.h"

/* So many changes a dry run shows. */
#define BDD_SYNC_SAMPLE 10

/* A slice; all of it lives as long as the caller's memory context. */
typedef struct BddSlice
{
	BddSync *sync;
	int64 run_id;
	bool dry_run;
	bool has_letters;     /* of rows that were refused before */
	int limit;            /* rows; more where positions are equal */
	BddSyncCounts counts; /* of this slice */
	List *sample;         /* of char *: what a dry run would do */
	MemoryContext context;
} BddSlice;

extern void bdd_sync_try_out(const BddSync *sync);

extern BddSyncRows bdd_slice_rows(BddSlice *slice);
extern BddSyncRows bdd_slice_nulls(BddSlice *slice, List *after);
extern BddSyncRows bdd_slice_null_keys(BddSlice *slice);
extern BddSyncRows bdd_slice_missing(BddSlice *slice, int64 refused);
extern List *bdd_slice_position(BddSlice *slice, const BddSyncRows *rows, const List *columns);
extern void bdd_slice_write(BddSlice *slice, const BddSyncRows *rows, bool removals);

extern void bdd_slice_parameters(const BddSync *sync, const List *columns, const List *texts,
								 Oid *types, Datum *values);
extern int bdd_slice_bounded(const BddSync *sync, const List *columns, const List *texts,
							 const char *bound, Oid *types, Datum *values);
extern bool bdd_slice_source_is_empty(BddSlice *slice);

#endif /* BDD_SYNC_SLICE_H */
