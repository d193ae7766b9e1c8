/*-------------------------------------------------------------------------
 *
 * uuid.c
 *		UUIDs: new ones, as text, in arrays.
 *
 *-------------------------------------------------------------------------
 */
#include "base/uuid.h"

#include "catalog/pg_type_d.h"
#include "datatype/timestamp.h"
#include "utils/array.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

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

/* As the type's output function writes it, palloc'd. */
char *
bdd_uuid_text(const pg_uuid_t *uuid)
{
	return DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(uuid)));
}

/* A uuid[]. */
Datum
bdd_uuid_array(Datum *ids, int count)
{
	return PointerGetDatum(construct_array(ids, count, UUIDOID, UUID_LEN,
										   false, TYPALIGN_CHAR));
}
