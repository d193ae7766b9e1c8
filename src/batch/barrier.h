/*-------------------------------------------------------------------------
 *
 * barrier.h
 *		The counts of batches, and the moment when the last file is done.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_BARRIER_H
#define BDD_BARRIER_H

#include "base/base.h"

#include "utils/uuid.h"

extern void bdd_batch_settle(Datum batches);
extern void bdd_batch_settle_one(const pg_uuid_t *batch);

#endif /* BDD_BARRIER_H */
