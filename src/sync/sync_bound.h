/*-------------------------------------------------------------------------
 *
 * sync_bound.h
 *		Up to where a cursor may be read: what can still be written below it.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_BOUND_H
#define BDD_SYNC_BOUND_H

#include "base/base.h"

#include "base/compat.h"
#include "datatype/timestamp.h"
#include "miscadmin.h"
#include "utils/backend_status.h"

/* What keeps a moment from being over. */
typedef struct BddHolder
{
	bool is_process;   /* a process without a sign yet, else: a transaction */
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

/* What pg_stat_activity knows of a process. */
typedef struct BddProcessStatus
{
	bool known;
	int changes; /* counts what it reports */
	BackendType type;
	BackendState state;
	TimestampTz process; /* when it started; 0 below: not known */
	TimestampTz transaction;
	TimestampTz statement;
} BddProcessStatus;

extern BddMoment *bdd_moment_new(int size);
extern void bdd_moment_add_holder(BddMoment *moment, bool is_process, int backend,
								  uint32 id, TimestampTz since);
extern void bdd_process_status(int backend, int pid, BddProcessStatus *status);

extern BddMoment *bdd_moment_take(void);
extern BddMoment *bdd_moment_take_sequence(Oid sequence, int64 *last_value,
										   bool *called);
extern bool bdd_moment_is_over(BddMoment *moment);
extern bool bdd_moment_wait(BddMoment *moment, int timeout_ms);
extern bool bdd_moment_bound(const BddMoment *moment, TimestampTz *bound);

#endif /* BDD_SYNC_BOUND_H */
