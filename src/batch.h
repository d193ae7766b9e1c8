/*-------------------------------------------------------------------------
 *
 * batch.h
 *		Batches of files, and their barrier.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_BATCH_H
#define BDD_BATCH_H

#include "batchdedup.h"

#include "utils/uuid.h"

extern pg_uuid_t *bdd_new_uuid(void);
extern void bdd_batch_advance(const pg_uuid_t *batch, const char *status);
extern void bdd_event_write(const char *kind, const pg_uuid_t *batch,
							const pg_uuid_t *file, Datum payload);

#endif /* BDD_BATCH_H */
