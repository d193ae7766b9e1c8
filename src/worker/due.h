/*-------------------------------------------------------------------------
 *
 * due.h
 *		When the rows of a target are to be applied.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DUE_H
#define BDD_DUE_H

#include "base/base.h"

#include "buffer/registry.h"
#include "datatype/timestamp.h"

/* What is to be known of a target, without a transaction. */
typedef struct BddDue
{
	bool paused;
	int flush_interval_ms;
	int flush_rows;
	char group[NAMEDATALEN * 4]; /* empty: none */
} BddDue;

extern bool bdd_due_read(int32 target_id, Oid relid, BddDue *due);
extern long bdd_due_in(BddSharedSlot *slot, const BddDue *due);
extern long bdd_ms_until(TimestampTz at);
extern long bdd_sooner(long a, long b);

#endif /* BDD_DUE_H */
