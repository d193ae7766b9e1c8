/*-------------------------------------------------------------------------
 *
 * file.h
 *		Files of batches: their table, and what the buffer says of them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_FILE_H
#define BDD_FILE_H

#include "base/base.h"

#include "access/htup.h"
#include "access/tupdesc.h"
#include "ingest/push.h"
#include "target/target.h"
#include "utils/uuid.h"

/* Columns of batchdedup.file, in the order of its definition. */
enum
{
	BDD_FILE_COLUMN_ID = 1,
	BDD_FILE_COLUMN_BATCH_ID,
	BDD_FILE_COLUMN_FILENAME,
	BDD_FILE_COLUMN_SIZE,
	BDD_FILE_COLUMN_LOCATION,
	BDD_FILE_COLUMN_CHECKSUM,
	BDD_FILE_COLUMN_VERSION,
	BDD_FILE_COLUMN_STATUS,
	BDD_FILE_COLUMN_ATTEMPTS,
	BDD_FILE_COLUMN_CLAIMED_BY,
	BDD_FILE_COLUMN_LEASE_UNTIL,
	BDD_FILE_COLUMN_RESULT,
	BDD_FILE_COLUMN_ERROR,
	BDD_FILE_COLUMN_CREATED_AT,
	BDD_FILE_COLUMN_COMPLETED_AT
};

typedef enum BddFileStatus
{
	BDD_FILE_PENDING,
	BDD_FILE_PROCESSING,
	BDD_FILE_DONE,
	BDD_FILE_FAILED
} BddFileStatus;

extern const char *const bdd_file_status_names[];

/* A file as the table has it. */
typedef struct BddBatchFile
{
	pg_uuid_t id;
	pg_uuid_t batch;
	int version;
	int attempts;
	BddFileStatus status;
	char *claimed_by; /* or NULL */
} BddBatchFile;

extern BddTarget *bdd_files_open(LOCKMODE lockmode);
extern void bdd_file_parse(HeapTuple tuple, TupleDesc desc, BddBatchFile *file);
extern bool bdd_file_read_buffered(BddTarget *target, const pg_uuid_t *id, int version,
								   BddFileStatus *status, BddValues *row);

#endif /* BDD_FILE_H */
