/*-------------------------------------------------------------------------
 *
 * batch.h
 *		Batches of files, and their barrier.
 *
 * The functions that run SQL expect to be connected to SPI, as the extension's
 * owner: between bdd_batch_begin and bdd_own_end.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_BATCH_H
#define BDD_BATCH_H

#include "base/base.h"

#include "datatype/timestamp.h"
#include "fmgr.h"
#include "sql/spi.h"
#include "utils/uuid.h"

/* What is to be known of a batch. */
typedef struct BddBatch
{
	pg_uuid_t id;
	char *status;
	char *kind;
	char *name;
	bool uploaded; /* the list of files is final */
	int total;     /* files; 0 before that */
	int processed;
	int failed;
	int max_attempts;
} BddBatch;

extern void bdd_check_at_least(FunctionCallInfo fcinfo, int n, int least, const char *what);
extern void bdd_batch_begin(BddSavedRole *saved, const char *call);

extern void bdd_batch_read(const pg_uuid_t *id, BddBatch *batch);
extern void bdd_batch_lock(const pg_uuid_t *id, bool for_files,
						   BddBatch *batch);
extern void bdd_batch_report_missing(const pg_uuid_t *id);
extern void bdd_batch_check_of_files(const BddBatch *batch);
extern bool bdd_batch_has_ended(const BddBatch *batch);
extern void bdd_batch_advance(const pg_uuid_t *batch, const char *status);

#endif /* BDD_BATCH_H */
