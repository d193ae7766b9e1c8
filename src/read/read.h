/*-------------------------------------------------------------------------
 *
 * read.h
 *		Reading table and buffer together.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_READ_H
#define BDD_READ_H

#include "base/base.h"

#include "buffer/memtable.h"
#include "target/values.h"
#include "target/target.h"
#include "utils/snapshot.h"

typedef void (*BddTableRowVisitor)(HeapTupleHeader row, void *arg);

extern void bdd_read_planned(Oid relid);
extern void bdd_read_wait_replayed(BddTarget *target);
extern void bdd_read_begin(BddTarget *target);

extern void bdd_read_published_key(BddTarget *target, uint32 hash,
								   StringInfo key, Snapshot snapshot,
								   BddRows *rows);
extern void bdd_read_key(BddTarget *target, uint32 hash, StringInfo key,
						 Snapshot snapshot, BddRows *rows);
extern void bdd_read_published(BddTarget *target, Snapshot snapshot,
							   BddRows *rows);
extern void bdd_read_pending(BddTarget *target, BddRows *rows);
extern void bdd_read_table_rows(BddTarget *target, const BddImage *const *keys,
								uint64 count, BddTableRowVisitor visit,
								void *arg);
extern HeapTupleHeader bdd_read_table_row(BddTarget *target,
										  const BddImage *key);
extern bool bdd_read_needs_table(const BddTarget *target, const BddRows *rows);
extern bool bdd_read_fold(BddTarget *target, const BddRows *rows,
						  HeapTupleHeader row, BddValues *result);
extern void bdd_compute_generated(BddTarget *target, Datum *values,
								  bool *isnull);

#endif /* BDD_READ_H */
