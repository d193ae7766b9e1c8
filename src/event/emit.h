/*-------------------------------------------------------------------------
 *
 * emit.h
 *		Events that the extension publishes itself: their kinds, and how one is
 *		written.
 *
 * The list below is the only place that spells the kinds.  publish_event
 * refuses them, event_emit_internal takes no others, and event_kinds_internal()
 * returns the list, from which docs/reference.md is made.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_EMIT_H
#define BDD_EMIT_H

#include "base/base.h"

#include "lib/stringinfo.h"
#include "utils/uuid.h"

/* X(constant, name, description) */
/* clang-format off */
#define BDD_EVENT_KINDS(X) \
	X(BDD_EVENT_BATCH_CREATED, "batch_created", \
	  "a batch of files or an import has begun; payload: name, and source or kind") \
	X(BDD_EVENT_FILE_ADDED, "file_added", \
	  "a file was added to a batch; payload: filename, size, location, checksum, version") \
	X(BDD_EVENT_FILE_REOPENED, "file_reopened", \
	  "a file was delivered once more with another content; payload: as of file_added") \
	X(BDD_EVENT_UPLOAD_COMPLETED, "upload_completed", \
	  "the list of files of a batch is final; payload: total_files") \
	X(BDD_EVENT_STATUS_CHANGED, "status_changed", \
	  "a batch has taken a step; payload: from, to") \
	X(BDD_EVENT_FILE_DONE, "file_done", \
	  "a file was processed; payload: filename, version") \
	X(BDD_EVENT_FILE_FAILED, "file_failed", \
	  "a file has failed for good; payload: filename, version, error") \
	X(BDD_EVENT_ALL_FILES_DONE, "all_files_done", \
	  "the last file of a batch was processed, once for a batch; payload: processed_files, failed_files") \
	X(BDD_EVENT_INSTANCE_FINALIZED, "instance_finalized", \
	  "a writer of an import has written all its rows; payload: instance, rows, bytes, position") \
	X(BDD_EVENT_IMPORT_PUBLISHED, "import_published", \
	  "the rows of an import are in its table; payload: name, target, publish, instances, rows") \
	X(BDD_EVENT_BATCH_FAILED, "batch_failed", \
	  "a batch has failed; payload: error") \
	X(BDD_EVENT_WORKERS_DONE, "workers_done", \
	  "all expected workers of a kind are done with a step of a batch; payload: status, kind, workers")
/* clang-format on */

typedef enum BddEventKind
{
#define BDD_EVENT_CONSTANT(constant, name, description) constant,
	BDD_EVENT_KINDS(BDD_EVENT_CONSTANT)
#undef BDD_EVENT_CONSTANT
} BddEventKind;

/* The payload of an event: a JSON object that grows field by field. */
typedef struct BddPayload
{
	StringInfoData json;
} BddPayload;

/*
 * SQL: emits an event for each row of the query that follows, which returns
 * kind, batch_id, file_id and payload.  A kind is a parameter whose value comes
 * from bdd_event_kind.
 */
#define BDD_EVENT_EMIT_EACH "INSERT INTO batchdedup.event (kind, batch_id, file_id, payload) "

extern void bdd_payload_begin(BddPayload *payload);
extern void bdd_payload_text(BddPayload *payload, const char *field, const char *value);
extern void bdd_payload_int(BddPayload *payload, const char *field, int64 value);
extern void bdd_payload_null(BddPayload *payload, const char *field);

extern Datum bdd_event_kind(BddEventKind kind);
extern bool bdd_event_kind_is_own(const char *name);
extern void bdd_event_emit(BddEventKind kind, const pg_uuid_t *batch,
						   const pg_uuid_t *file, const BddPayload *payload);

#endif /* BDD_EMIT_H */
