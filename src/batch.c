/*-------------------------------------------------------------------------
 *
 * batch.c
 *		Batches of files, and their barrier.
 *
 *-------------------------------------------------------------------------
 */
#include "batch.h"

#include "catalog/pg_type_d.h"
#include "spi_util.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/*
 * A new id.  Ids of one time are neighbours (version 7 of RFC 9562: 48 bits of
 * milliseconds, then random ones), so that rows that come together lie
 * together in the index.
 */
pg_uuid_t *
bdd_new_uuid(void)
{
	pg_uuid_t *uuid = palloc(sizeof(pg_uuid_t));
	int64 ms = (GetCurrentTimestamp() +
				(POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY) /
			   1000;

	if (!pg_strong_random(uuid->data, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	for (int i = 0; i < 6; i++)
		uuid->data[i] = (unsigned char) (ms >> (8 * (5 - i)));
	uuid->data[6] = (uuid->data[6] & 0x0f) | 0x70;
	uuid->data[8] = (uuid->data[8] & 0x3f) | 0x80;
	return uuid;
}

/*
 * Adds an event; NULL: of no batch, of no file.  "payload" is a jsonb.  The
 * caller is connected to SPI, as the extension's owner.
 */
void
bdd_event_write(const char *kind, const pg_uuid_t *batch,
				const pg_uuid_t *file, Datum payload)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.event (kind, batch_id, file_id, payload) VALUES ($1, $2, $3, $4)",
		4,
		{TEXTOID, UUIDOID, UUIDOID, JSONBOID}};
	Datum values[] = {CStringGetTextDatum(kind), UUIDPGetDatum(batch),
					  UUIDPGetDatum(file), payload};
	char nulls[] = {' ', batch == NULL ? 'n' : ' ', file == NULL ? 'n' : ' ', ' '};

	(void) bdd_plan_run(&insert, values, nulls);
}

/*
 * Moves the batch to "status", by as many legal steps of the way from pending
 * to completed as it takes.  The caller is connected to SPI, as the
 * extension's owner.
 */
void
bdd_batch_advance(const pg_uuid_t *batch, const char *status)
{
	static BddKeptPlan step = {
		"WITH way AS (SELECT * FROM pg_catalog.unnest('{pending,uploaded,scattering,scattered,gathering,gathered,completed}'::text[]) "
		"WITH ORDINALITY AS w (status, place)) "
		"UPDATE batchdedup.batch_row b SET status = n.status FROM way o, way n, way l "
		"WHERE b.id = $1 AND o.status = b.status AND l.status = $2 "
		"AND n.place = o.place + 1 AND n.place <= l.place",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(batch), CStringGetTextDatum(status)};

	while (bdd_plan_run(&step, values, NULL) > 0)
		;
}
