/*-------------------------------------------------------------------------
 *
 * keyorder.h
 *		Rows in the order of their key, one for each.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_KEYORDER_H
#define BDD_KEYORDER_H

#include "base/base.h"

#include "buffer/memtable.h"
#include "target/target.h"

extern void bdd_rows_sort(BddTarget *target, BddRows *rows);
extern uint64 bdd_rows_fold_equal(BddTarget *target, BddRows *rows);
extern void bdd_rows_keep_key(BddTarget *target, BddRows *rows, BddImage key);
extern int64 bdd_key_hash(BddTarget *target, const BddImage *image);
extern BddRow *bdd_rows_find(BddTarget *target, BddRows *rows, BddImage *key,
							 uint64 from);

#endif /* BDD_KEYORDER_H */
