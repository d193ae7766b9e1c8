/*-------------------------------------------------------------------------
 *
 * step_worker.c
 *		Workers of a step of a batch: how many have to be done, and which are.
 *
 * The last worker of a kind emits workers_done.  A step is the status that the
 * batch is in; its row is locked, so that the step does not end meanwhile.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "batch/batch.h"
#include "catalog/pg_type_d.h"
#include "event/emit.h"
#include "sql/spi.h"
#include "utils/builtins.h"

PG_FUNCTION_INFO_V1(bdd_expect_workers);
PG_FUNCTION_INFO_V1(bdd_complete_worker);

/* $1: the batch, $2: its status, $3: the kind of workers. */
static void
emit_workers_done(Datum *values, int workers)
{
	BddPayload payload;

	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "status", TextDatumGetCString(values[1]));
	bdd_payload_text(&payload, "kind", TextDatumGetCString(values[2]));
	bdd_payload_int(&payload, "workers", workers);
	bdd_event_emit(BDD_EVENT_WORKERS_DONE, DatumGetUUIDP(values[0]), NULL, &payload);
}

/*
 * Emits workers_done if the statement that has just run says so: its row has the
 * number of workers that are done, and whether they are all.
 */
static void
emit_if_workers_done(Datum *values)
{
	bool isnull;
	int workers = DatumGetInt32(bdd_spi_value(0, 1, &isnull));

	if (DatumGetBool(bdd_spi_value(0, 2, &isnull)))
		emit_workers_done(values, workers);
}

/*
 * expect_workers(batch, kind, expected): so many workers of a kind have to be
 * done in the step that the batch is in
 */
Datum
bdd_expect_workers(PG_FUNCTION_ARGS)
{
	static BddKeptPlan upsert = {
		"WITH c AS (INSERT INTO batchdedup.batch_worker_count AS c (batch_id, status, kind, expected_workers) VALUES ($1, $2, $3, $4) "
		"ON CONFLICT (batch_id, status, kind) DO UPDATE SET expected_workers = EXCLUDED.expected_workers "
		/* Once all are done, and the event is written, more would come too late. */
		"WHERE c.completed_workers <= EXCLUDED.expected_workers "
		"AND (c.completed_workers < c.expected_workers OR c.completed_workers = 0 OR c.expected_workers = EXCLUDED.expected_workers) "
		"RETURNING *) "
		"SELECT c.completed_workers, c.completed_workers = c.expected_workers AND c.completed_workers > 0 "
		"AND EXISTS (SELECT FROM batchdedup.batch_worker_count o WHERE o.batch_id = $1 AND o.status = $2 "
		"AND o.kind = $3 AND o.expected_workers > c.expected_workers) FROM c",
		4,
		{UUIDOID, TEXTOID, TEXTOID, INT4OID}};
	BddSavedRole saved;
	BddBatch batch;
	Datum values[4];

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "kind");
	bdd_check_argument(fcinfo, 2, "number of workers");
	bdd_check_at_least(fcinfo, 2, 0, "number of workers");
	bdd_batch_begin(&saved, "expect_workers()");
	bdd_batch_lock(PG_GETARG_UUID_P(0), false, &batch);
	values[0] = UUIDPGetDatum(&batch.id);
	values[1] = CStringGetTextDatum(batch.status);
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	if (bdd_plan_run(&upsert, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("more workers of kind \"%s\" are done already", TextDatumGetCString(values[2]))));
	emit_if_workers_done(values);
	bdd_own_end(&saved);
	PG_RETURN_VOID();
}

/*
 * complete_worker(batch, kind, worker): a worker is done with the step that the
 * batch is in; true: it was not before
 */
Datum
bdd_complete_worker(PG_FUNCTION_ARGS)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.batch_worker (batch_id, status, kind, worker) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
		4,
		{UUIDOID, TEXTOID, TEXTOID, TEXTOID}};
	static BddKeptPlan update = {
		"UPDATE batchdedup.batch_worker_count SET completed_workers = completed_workers + 1 "
		"WHERE batch_id = $1 AND status = $2 AND kind = $3 AND completed_workers < expected_workers "
		"RETURNING completed_workers, completed_workers = expected_workers",
		3,
		{UUIDOID, TEXTOID, TEXTOID}};
	BddSavedRole saved;
	BddBatch batch;
	Datum values[4];
	bool is_new;

	bdd_check_argument(fcinfo, 0, "batch");
	bdd_check_argument(fcinfo, 1, "kind");
	bdd_check_argument(fcinfo, 2, "worker");
	bdd_batch_begin(&saved, "complete_worker()");
	bdd_batch_lock(PG_GETARG_UUID_P(0), false, &batch);
	values[0] = UUIDPGetDatum(&batch.id);
	values[1] = CStringGetTextDatum(batch.status);
	values[2] = PG_GETARG_DATUM(1);
	values[3] = PG_GETARG_DATUM(2);
	is_new = bdd_plan_run(&insert, values, NULL) > 0;
	if (is_new && bdd_plan_run(&update, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("no more workers of kind \"%s\" are expected while batch \"%s\" is %s",
						TextDatumGetCString(values[2]), batch.name, batch.status),
				 errhint("Say how many with batchdedup.expect_workers.")));
	if (is_new)
		emit_if_workers_done(values);
	bdd_own_end(&saved);
	PG_RETURN_BOOL(is_new);
}
