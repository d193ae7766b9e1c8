/*-------------------------------------------------------------------------
 *
 * emit.c
 *		Events that the extension publishes itself: their kinds, and how one is
 *		written.
 *
 * C code emits with bdd_event_emit, or with one statement for many rows
 * (BDD_EVENT_EMIT_EACH); triggers in SQL call event_emit_internal.  The events
 * of applications come from publish_event (event.c).
 *
 *-------------------------------------------------------------------------
 */
#include "event/emit.h"

#include "catalog/pg_type_d.h"
#include "funcapi.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_event_emit_sql);
PG_FUNCTION_INFO_V1(bdd_event_kinds);

typedef struct BddEventKindDef
{
	const char *name;
	const char *description;
} BddEventKindDef;

static const BddEventKindDef kinds[] = {
#define BDD_EVENT_DEFINITION(constant, name, description) [constant] = {name, description},
	BDD_EVENT_KINDS(BDD_EVENT_DEFINITION)
#undef BDD_EVENT_DEFINITION
};

/* ---------- kinds ---------- */

/* The name of the kind, as a text. */
Datum
bdd_event_kind(BddEventKind kind)
{
	return CStringGetTextDatum(kinds[kind].name);
}

/* Whether only the extension itself publishes events of this kind. */
bool
bdd_event_kind_is_own(const char *name)
{
	for (int i = 0; i < lengthof(kinds); i++)
		if (strcmp(kinds[i].name, name) == 0)
			return true;
	return false;
}

/* event_kinds_internal(): all kinds that the extension publishes. */
Datum
bdd_event_kinds(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;

	InitMaterializedSRF(fcinfo, 0);
	for (int i = 0; i < lengthof(kinds); i++)
	{
		Datum values[] = {CStringGetTextDatum(kinds[i].name),
						  CStringGetTextDatum(kinds[i].description)};
		bool nulls[] = {false, false};

		tuplestore_putvalues(result->setResult, result->setDesc, values, nulls);
	}
	return (Datum) 0;
}

/* ---------- payloads ---------- */

/* A payload without fields. */
void
bdd_payload_begin(BddPayload *payload)
{
	initStringInfo(&payload->json);
}

/* Appends the name of a field; its value is to follow. */
static void
add_field(BddPayload *payload, const char *field)
{
	appendStringInfoChar(&payload->json, payload->json.len == 0 ? '{' : ',');
	escape_json(&payload->json, field);
	appendStringInfoChar(&payload->json, ':');
}

/* A field with a string; NULL: with null. */
void
bdd_payload_text(BddPayload *payload, const char *field, const char *value)
{
	if (value == NULL)
	{
		bdd_payload_null(payload, field);
		return;
	}
	add_field(payload, field);
	escape_json(&payload->json, value);
}

/* A field with a number. */
void
bdd_payload_int(BddPayload *payload, const char *field, int64 value)
{
	add_field(payload, field);
	appendStringInfo(&payload->json, INT64_FORMAT, value);
}

/* A field with null. */
void
bdd_payload_null(BddPayload *payload, const char *field)
{
	add_field(payload, field);
	appendStringInfoString(&payload->json, "null");
}

/* The payload as a jsonb. */
static Datum
payload_jsonb(const BddPayload *payload)
{
	char *json = payload->json.len == 0 ? "{}" : psprintf("%s}", payload->json.data);

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(json));
}

/* ---------- emitting ---------- */

/* Adds the event; $2 and $3 are the batch and the file, or null. */
static BddKeptPlan insert_event = {
	BDD_EVENT_EMIT_EACH "VALUES ($1, $2, $3, $4)",
	4,
	{TEXTOID, UUIDOID, UUIDOID, JSONBOID}};

/*
 * Writes an event, in the current transaction.  Expects to be connected to SPI,
 * as the extension's owner.  "batch" and "file" may be NULL.
 */
void
bdd_event_emit(BddEventKind kind, const pg_uuid_t *batch, const pg_uuid_t *file,
			   const BddPayload *payload)
{
	Datum values[] = {bdd_event_kind(kind), UUIDPGetDatum(batch), UUIDPGetDatum(file),
					  payload_jsonb(payload)};
	char nulls[] = {' ', batch == NULL ? 'n' : ' ', file == NULL ? 'n' : ' ', ' '};

	(void) bdd_plan_run(&insert_event, values, nulls);
}

/*
 * event_emit_internal(kind, batch, file, payload): the same for triggers in SQL,
 * which run as a role that may write batchdedup.event.
 */
Datum
bdd_event_emit_sql(PG_FUNCTION_ARGS)
{
	Datum values[4];
	char nulls[4];

	for (int i = 0; i < lengthof(values); i++)
	{
		values[i] = PG_GETARG_DATUM(i);
		nulls[i] = PG_ARGISNULL(i) ? 'n' : ' ';
	}
	bdd_check_argument(fcinfo, 0, "kind");
	if (!bdd_event_kind_is_own(text_to_cstring(PG_GETARG_TEXT_PP(0))))
		elog(ERROR, "unknown kind of event: %s", text_to_cstring(PG_GETARG_TEXT_PP(0)));
	bdd_spi_connect();
	(void) bdd_plan_run(&insert_event, values, nulls);
	bdd_spi_finish();
	PG_RETURN_VOID();
}
