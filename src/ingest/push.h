/*-------------------------------------------------------------------------
 *
 * push.h
 *		The way of a row: into the buffer, or directly to the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_PUSH_H
#define BDD_PUSH_H

#include "base/base.h"

#include "access/htup_details.h"
#include "target/values.h"

extern void bdd_push_row(BddTarget *target, HeapTupleHeader tuple);
extern void bdd_push_tuple(BddTarget *target, HeapTuple tuple);
extern void bdd_push_values(BddTarget *target, BddValues *row);
extern void bdd_push_delete(BddTarget *target, BddValues *row);

#endif /* BDD_PUSH_H */
