/*-------------------------------------------------------------------------
 *
 * delivery.c
 *		add_file: files that are delivered to a batch, also once more.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/uuid.h"
#include "batch/batch.h"
#include "batch/file.h"
#include "catalog/pg_type_d.h"
#include "event/emit.h"
#include "ingest/push.h"
#include "miscadmin.h"
#include "read/read.h"
#include "sql/spi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(bdd_add_file);

typedef struct BddDelivery
{
	Datum values[7]; /* id, batch, filename, size, location, checksum, version */
	char nulls[7];
} BddDelivery;

/* A text of the delivery, or NULL. */
static char *
delivered_text(const BddDelivery *delivery, int n)
{
	return delivery->nulls[n] == 'n' ? NULL : TextDatumGetCString(delivery->values[n]);
}

/* file_added or file_reopened */
static void
emit_delivery(BddEventKind kind, const BddDelivery *delivery)
{
	BddPayload payload;

	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "filename", delivered_text(delivery, 2));
	if (delivery->nulls[3] == 'n')
		bdd_payload_null(&payload, "size");
	else
		bdd_payload_int(&payload, "size", DatumGetInt64(delivery->values[3]));
	bdd_payload_text(&payload, "location", delivered_text(delivery, 4));
	bdd_payload_text(&payload, "checksum", delivered_text(delivery, 5));
	bdd_payload_int(&payload, "version", DatumGetInt32(delivery->values[6]));
	bdd_event_emit(kind, DatumGetUUIDP(delivery->values[1]), DatumGetUUIDP(delivery->values[0]),
				   &payload);
}

/* False: the batch has a file of that name. */
static bool
insert_file(BddDelivery *delivery)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.file (id, batch_id, filename, size, location, checksum) "
		"VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (batch_id, filename) DO NOTHING",
		6,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}};

	if (bdd_plan_run(&insert, delivery->values,
					 delivery->nulls) == 0)
		return false;
	emit_delivery(BDD_EVENT_FILE_ADDED, delivery);
	return true;
}

/*
 * The file of that name; "again": its checksum, or where one is not known its
 * size, says that it is another one now.
 */
static bool
find_file(BddDelivery *delivery, BddBatchFile *file, bool *again)
{
	static BddKeptPlan select = {
		"SELECT f.*, CASE WHEN f.checksum IS NOT NULL AND $6 IS NOT NULL THEN f.checksum <> $6 "
		"ELSE coalesce(f.size <> $4, false) END AS again "
		"FROM batchdedup.file f WHERE f.batch_id = $2 AND f.filename = $3 AND $1 IS NOT NULL AND ($5 IS NULL OR true) FOR UPDATE",
		6,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}};
	bool isnull;

	if (bdd_plan_run(&select, delivery->values,
					 delivery->nulls) == 0)
		return false;
	bdd_file_parse(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, file);
	*again = DatumGetBool(bdd_spi_value(0, BDD_FILE_COLUMN_COMPLETED_AT + 1, &isnull));
	return true;
}

/* Keeps what there was of the file, and opens it for its new content. */
static void
deliver_again(BddDelivery *delivery, const BddBatchFile *file)
{
	static BddKeptPlan keep = {
		"INSERT INTO batchdedup.file_version (file_id, version, size, location, checksum, status, attempts, claimed_by, result, error, completed_at) "
		"SELECT id, version, size, location, checksum, coalesce($2, status), attempts, claimed_by, "
		"CASE WHEN $2 IS NULL THEN result ELSE $3 END, CASE WHEN $2 IS NULL THEN error ELSE $4 END, "
		"CASE WHEN $2 IS NULL THEN completed_at ELSE $5 END "
		"FROM batchdedup.file WHERE id = $1",
		5,
		{UUIDOID, TEXTOID, JSONBOID, TEXTOID, TIMESTAMPTZOID}};
	static BddKeptPlan renew = {
		"WITH b AS (UPDATE batchdedup.batch_row SET reopened_files = reopened_files + 1, "
		"updated_at = pg_catalog.clock_timestamp() WHERE id = $2) "
		"UPDATE batchdedup.file SET size = $4, location = coalesce($5, location), checksum = $6, version = $7, status = 'pending', attempts = 0, "
		"claimed_by = NULL, lease_until = NULL, result = NULL, error = NULL, completed_at = NULL WHERE id = $1 AND filename = $3",
		7,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID, INT4OID}};
	BddFileStatus status;
	BddValues row;
	Datum values[5] = {delivery->values[0]};
	char nulls[5] = {' ', 'n', 'n', 'n', 'n'};

	/* The end of the old version may be in the buffer only, and will be stale there. */
	if (bdd_file_read_buffered(bdd_files_open(AccessShareLock), &file->id,
							   file->version, &status, &row))
	{
		static const int columns[] = {BDD_FILE_COLUMN_RESULT, BDD_FILE_COLUMN_ERROR,
									  BDD_FILE_COLUMN_COMPLETED_AT};

		values[1] = CStringGetTextDatum(bdd_file_status_names[status]);
		nulls[1] = ' ';
		for (int i = 0; i < lengthof(columns); i++)
		{
			values[i + 2] = row.values[columns[i] - 1];
			nulls[i + 2] = row.isnull[columns[i] - 1] ? 'n' : ' ';
		}
	}
	(void) bdd_plan_run(&keep, values, nulls);
	delivery->values[6] = Int32GetDatum(file->version + 1);
	(void) bdd_plan_run(&renew, delivery->values, delivery->nulls);
	emit_delivery(BDD_EVENT_FILE_REOPENED, delivery);
}

/* The same content again: fills in what was not known; its place may be another one. */
static void
complete_description(BddDelivery *delivery)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.file SET size = coalesce(size, $4), location = coalesce($5, location), checksum = coalesce(checksum, $6) "
		"WHERE id = $1 AND (size, location, checksum) IS DISTINCT FROM "
		"(coalesce(size, $4), coalesce($5, location), coalesce(checksum, $6)) AND batch_id = $2 AND filename = $3",
		6,
		{UUIDOID, UUIDOID, TEXTOID, INT8OID, TEXTOID, TEXTOID}};

	(void) bdd_plan_run(&update, delivery->values, delivery->nulls);
}

/*
 * An error unless the batch takes the file.  "new_name": it has no file of
 * that name, and gets none once its list is final.
 */
static void
check_takes_files(const BddBatch *batch, bool new_name)
{
	if (strcmp(batch->kind, "files") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is an import", batch->name),
				 errhint("Write to it with create_writer or write_chunk.")));
	if (bdd_batch_has_ended(batch) || strcmp(batch->status, "failed") == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batch \"%s\" is %s", batch->name, batch->status),
				 errhint("Add the file to another batch.")));
	if (new_name && batch->uploaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the list of files of batch \"%s\" is final", batch->name),
				 errdetail("complete_upload has been called."),
				 errhint("Add the file to another batch.")));
}

/* Takes the file's id of the table. */
static void
add_known_file(BddDelivery *delivery, const BddBatch *batch, BddBatchFile *file,
			   bool again)
{
	*DatumGetUUIDP(delivery->values[0]) = file->id;
	if (again)
	{
		check_takes_files(batch, false);
		deliver_again(delivery, file);
	}
	else
		complete_description(delivery);
}

/*
 * Adds the file, or finds it by its name.  The batch's row is locked, so that
 * its list of files does not become final meanwhile.
 */
static void
add_file(BddDelivery *delivery)
{
	BddBatch batch;
	BddBatchFile file;
	bool again;

	bdd_batch_lock(DatumGetUUIDP(delivery->values[1]), true, &batch);
	for (;;)
	{
		if (find_file(delivery, &file, &again))
		{
			add_known_file(delivery, &batch, &file, again);
			return;
		}
		check_takes_files(&batch, true);
		if (insert_file(delivery))
			return;
		CHECK_FOR_INTERRUPTS();
	}
}

/* add_file(batch, filename, size, location, checksum): the file's id */
Datum
bdd_add_file(PG_FUNCTION_ARGS)
{
	BddSavedRole saved;
	BddDelivery delivery;
	pg_uuid_t *id = bdd_new_uuid();

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "filename");
	if (VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(1)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("filename must not be empty")));
	memset(delivery.nulls, ' ', sizeof(delivery.nulls));
	delivery.values[0] = UUIDPGetDatum(id);
	for (int i = 0; i < 5; i++)
	{
		delivery.values[i + 1] = PG_GETARG_DATUM(i);
		delivery.nulls[i + 1] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	delivery.values[6] = Int32GetDatum(1);
	bdd_batch_begin(&saved, "add_file()");
	bdd_read_wait_replayed(bdd_files_open(AccessShareLock));
	add_file(&delivery);
	bdd_own_end(&saved);
	PG_RETURN_UUID_P(id);
}
