/*-------------------------------------------------------------------------
 *
 * direct.h
 *		Writing to the table in the caller's transaction.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DIRECT_H
#define BDD_DIRECT_H

#include "base/base.h"

#include "commit/pending.h"
#include "target/target.h"

extern void bdd_direct_begin(BddTarget *target, BddPending *pending);
extern void bdd_direct_settle(BddTarget *target);
extern void bdd_direct_write(BddTarget *target, const BddImage *image);

#endif /* BDD_DIRECT_H */
