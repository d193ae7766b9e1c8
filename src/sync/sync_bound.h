/*-------------------------------------------------------------------------
 *
 * sync_bound.h
 *		Up to where a cursor may be read: who can still write below it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_BOUND_H
#define BDD_SYNC_BOUND_H

#include "base/base.h"

#include "datatype/timestamp.h"

/* What keeps a moment from being over. */
typedef struct BddHolder
{
	bool is_process;   /* what it is in may have begun before, else: a transaction */
	int backend;       /* its number, see bdd_backend_proc; or BDD_PREPARED */
	uint32 id;         /* pid, local transaction id, or transaction id */
	TimestampTz since; /* no value of the clock below that is written; 0: unknown */
} BddHolder;

/* The server, too, uses this number where an id is a prepared transaction's. */
#define BDD_PREPARED (-1)

typedef struct BddMoment
{
	TimestampTz at;
	bool of_sequence;
	bool called;      /* of a sequence: it was, up to last_value */
	int64 last_value; /* of a sequence */
	int count;
	int size;
	BddHolder *holders;
} BddMoment;

extern BddMoment *bdd_moment_take(void);
extern BddMoment *bdd_moment_take_sequence(Oid sequence, int64 *last_value,
										   bool *called);
extern bool bdd_moment_is_over(BddMoment *moment);
extern bool bdd_moment_wait(BddMoment *moment, int timeout_ms);
extern bool bdd_moment_bound(const BddMoment *moment, TimestampTz *bound);
extern char *bdd_moment_out(const BddMoment *moment);
extern BddMoment *bdd_moment_in(const char *text);
extern char *bdd_moment_holders(const BddMoment *moment);

#endif /* BDD_SYNC_BOUND_H */
