/*-------------------------------------------------------------------------
 *
 * barrier.c
 *		The counts of batches, and the moment when the last file is done.
 *
 * A statement trigger of batchdedup.file sees every change of a file's status,
 * wherever it comes from: the worker that applies what complete_file has put into
 * the buffer, ten thousand files in one statement, or a direct UPDATE.
 * It changes the counts of each batch once, and takes the batch on if that was
 * the last file: in the transaction that changes the files. Counts are of a
 * set, not of calls: a file that was done before changes nothing.
 *
 * The batch's row is locked before it is looked at, so of two transactions that
 * complete the last two files the second sees what the first has done.
 *
 *-------------------------------------------------------------------------
 */
#include "batch/barrier.h"

#include "base/debug_point.h"
#include "base/loaded.h"
#include "base/uuid.h"
#include "batch/barrier_hint.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "event/emit.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(bdd_file_changed);

/* ---------- taking a batch on ---------- */

static uint64
update_batches(BddKeptPlan *plan, Datum batches)
{
	return bdd_plan_run(plan, &batches, NULL);
}

/*
 * Takes those of the batches (a uuid[]) on that are due for it: the first file
 * that is done begins their work, a failed one may be their end, the last one
 * is the barrier.  The caller has locked their rows.  The events are written by a
 * trigger.
 */
void
bdd_batch_settle(Datum batches)
{
	static BddKeptPlan fail = {
		"UPDATE batchdedup.batch_row SET status = 'failed', claimed_by = NULL, lease_until = NULL, "
		"error = pg_catalog.format('%s files failed', failed_files) "
		"WHERE id = ANY ($1) AND kind = 'files' AND failed_files > 0 AND on_file_failure = 'fail' "
		"AND status IN ('uploaded', 'scattering')",
		1,
		{UUIDARRAYOID}};
	static BddKeptPlan begin = {
		"UPDATE batchdedup.batch_row SET status = 'scattering' "
		"WHERE id = ANY ($1) AND kind = 'files' AND status = 'uploaded' AND processed_files + failed_files + (total_files = 0)::int > 0",
		1,
		{UUIDARRAYOID}};
	static BddKeptPlan finish = {
		"UPDATE batchdedup.batch_row SET status = 'scattered', "
		"all_files_done_at = coalesce(all_files_done_at, pg_catalog.clock_timestamp()) "
		"WHERE id = ANY ($1) AND kind = 'files' AND status = 'scattering' AND upload_completed_at IS NOT NULL "
		"AND processed_files + failed_files = total_files AND (failed_files = 0 OR on_file_failure = 'continue')",
		1,
		{UUIDARRAYOID}};

	(void) update_batches(&fail, batches);
	(void) update_batches(&begin, batches);
	(void) update_batches(&finish, batches);
}

/* The same for one batch. */
void
bdd_batch_settle_one(const pg_uuid_t *batch)
{
	Datum id = UUIDPGetDatum(batch);

	bdd_batch_settle(bdd_uuid_array(&id, 1));
}

/* ---------- the trigger ---------- */

/* What a statement has done to the files of batches. */
typedef struct BddChange
{
	uint64 count; /* batches */
	Datum due;    /* uuid[]: those to look at once more */
	bool any_due;
	bool letters; /* files failed, or are no longer failed */
} BddChange;

/*
 * One row for each batch.  Counts that somebody has broken by hand are counted
 * anew rather than be refused by a constraint: other batches are in the same
 * statement.
 */
static BddKeptPlan change_counts = {
	"WITH changed AS (SELECT n.batch_id, "
	"pg_catalog.sum((n.status = 'done')::int - (o.status = 'done')::int)::int AS done, "
	"pg_catalog.sum((n.status = 'failed')::int - (o.status = 'failed')::int)::int AS failed, "
	"pg_catalog.bool_or('failed' IN (o.status, n.status)) AS letters "
	"FROM new_files n JOIN old_files o ON o.id = n.id "
	"WHERE n.status <> o.status AND (n.status IN ('done', 'failed') OR o.status IN ('done', 'failed')) GROUP BY n.batch_id), "
	"locked AS MATERIALIZED (SELECT b.id, b.upload_completed_at IS NOT NULL AS uploaded, b.total_files AS total, "
	"b.processed_files + c.done AS done, b.failed_files + c.failed AS failed, c.letters "
	"FROM changed c JOIN batchdedup.batch_row b ON b.id = c.batch_id ORDER BY b.id FOR NO KEY UPDATE OF b), "
	"checked AS (SELECT l.id, l.letters, r.done, r.failed FROM locked l CROSS JOIN LATERAL ("
	"SELECT l.done, l.failed WHERE l.done >= 0 AND l.failed >= 0 AND (NOT l.uploaded OR l.done + l.failed <= l.total) "
	"UNION ALL SELECT pg_catalog.count(*) FILTER (WHERE f.status = 'done')::int, pg_catalog.count(*) FILTER (WHERE f.status = 'failed')::int "
	"FROM batchdedup.file f WHERE f.batch_id = l.id "
	"HAVING NOT (l.done >= 0 AND l.failed >= 0 AND (NOT l.uploaded OR l.done + l.failed <= l.total))) r) "
	"UPDATE batchdedup.batch_row b SET processed_files = l.done, failed_files = l.failed, "
	"total_files = CASE WHEN b.upload_completed_at IS NULL THEN l.done + l.failed "
	"ELSE greatest(b.total_files, l.done + l.failed) END, "
	"updated_at = pg_catalog.clock_timestamp() FROM checked l WHERE b.id = l.id "
	"RETURNING b.id, l.letters, b.status = 'uploaded' OR b.failed_files > 0 "
	"OR b.upload_completed_at IS NOT NULL AND b.processed_files + b.failed_files >= b.total_files, "
	"CASE WHEN b.upload_completed_at IS NOT NULL THEN b.total_files - b.processed_files - b.failed_files END"};

static BddKeptPlan write_events = {
	BDD_EVENT_EMIT_EACH
	"SELECT CASE n.status WHEN 'done' THEN $1 ELSE $2 END, n.batch_id, n.id, "
	"CASE n.status WHEN 'done' THEN pg_catalog.jsonb_build_object('filename', n.filename, 'version', n.version) "
	"ELSE pg_catalog.jsonb_build_object('filename', n.filename, 'version', n.version, 'error', n.error) END "
	"FROM new_files n JOIN old_files o ON o.id = n.id "
	"WHERE n.status <> o.status AND n.status IN ('done', 'failed') ORDER BY n.completed_at, n.id",
	2,
	{TEXTOID, TEXTOID}};

/*
 * The dead letters of files that have failed: the row of one, written anew, makes
 * the file pending again.  Files that are no longer failed lose theirs.
 */
static BddKeptPlan write_letters = {
	"WITH changed AS MATERIALIZED (SELECT n.*, o.status AS before FROM new_files n JOIN old_files o ON o.id = n.id "
	"WHERE n.status <> o.status AND 'failed' IN (o.status, n.status)), "
	"gone AS (DELETE FROM batchdedup.dead_letter_row l USING changed c "
	"WHERE c.before = 'failed' AND l.target = 'batchdedup.file'::regclass AND l.generation = 0 "
	"AND l.key = pg_catalog.jsonb_build_object('id', c.id)) "
	"INSERT INTO batchdedup.dead_letter_row (target_id, target, key, row, update_columns, operation, sqlstate, message, detail, attempts, generation, sequence) "
	"SELECT t.target_id, t.target, pg_catalog.jsonb_build_object('id', c.id), "
	"pg_catalog.jsonb_build_object('id', c.id, 'version', c.version, 'status', 'pending', 'error', NULL, 'completed_at', NULL), "
	"'{version,status,error,completed_at}', 'upsert', 'P0001', c.error, "
	"pg_catalog.format('File %s of batch %s.', c.filename, c.batch_id), c.attempts, 0, 0 "
	"FROM changed c JOIN batchdedup.target_option t ON t.target = 'batchdedup.file'::regclass "
	"WHERE c.status = 'failed'"};

/* file_done and file_failed, for each file that is now. */
static void
emit_files(void)
{
	Datum kinds[] = {bdd_event_kind(BDD_EVENT_FILE_DONE),
					 bdd_event_kind(BDD_EVENT_FILE_FAILED)};

	(void) bdd_plan_run(&write_events, kinds, NULL);
}

/*
 * Changes the counts of the batches, and finds those that are due to be taken
 * on.  Of the others it is noted how many files are open (barrier_hint.c).
 */
static void
count_changes(Oid table, BddChange *change)
{
	Datum *due;
	uint64 dues = 0;
	bool isnull;

	change->count = bdd_plan_run(&change_counts, NULL, NULL);
	due = palloc(Max(change->count, 1) * sizeof(Datum));
	for (uint64 i = 0; i < change->count; i++)
	{
		Datum id = bdd_spi_value(i, 1, &isnull);
		int32 open;

		change->letters |= DatumGetBool(bdd_spi_value(i, 2, &isnull));
		if (DatumGetBool(bdd_spi_value(i, 3, &isnull)))
			due[dues++] = id;
		open = DatumGetInt32(bdd_spi_value(i, 4, &isnull));
		if (!isnull && open > 0)
			bdd_barrier_note(table, DatumGetUUIDP(id), 0, open);
	}
	change->any_due = dues > 0;
	change->due = bdd_uuid_array(due, (int) dues);
}

/*
 * AFTER UPDATE of batchdedup.file, for each statement; as the role that runs the
 * statement, with the search_path of the function.
 */
Datum
bdd_file_changed(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	BddChange change = {0};

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("file_changed_internal() was not called as a trigger")));
	/* The kept plans are of our own table's rows: another table's would poison them. */
	if (RelationGetRelid(trigger->tg_relation) != bdd_catalog_relation("file"))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("file_changed_internal() is a trigger of batchdedup.file only")));
	bdd_check_preloaded();
	bdd_spi_connect();
	if (SPI_register_trigger_data(trigger) < 0)
		elog(ERROR, "SPI_register_trigger_data failed");
	count_changes(RelationGetRelid(trigger->tg_relation), &change);
	if (change.count > 0)
		emit_files();
	if (change.letters)
		(void) bdd_plan_run(&write_letters, NULL, NULL);
	bdd_debug_point("counted");
	if (change.any_due)
		bdd_batch_settle(change.due);
	bdd_debug_point("barrier");
	bdd_spi_finish();
	PG_RETURN_POINTER(NULL);
}
