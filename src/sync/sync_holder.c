/*-------------------------------------------------------------------------
 *
 * sync_holder.c
 *		What holds back a sync, in words.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_holder.h"

#include "access/twophase.h"
#include "base/loaded.h"
#include "catalog/pg_authid_d.h"
#include "catalog/pg_type_d.h"
#include "sql/spi.h"
#include "sync/moment_text.h"
#include "utils/builtins.h"

#define SHOWN_HOLDERS 5

PG_FUNCTION_INFO_V1(bdd_sync_holders);

/* The state in words like those of pg_stat_activity; NULL for any other state. */
static const char *
state_name(BackendState state)
{
	switch (state)
	{
		case STATE_IDLE:
			return "idle";
		case STATE_RUNNING:
		case STATE_FASTPATH:
			return "active";
		case STATE_IDLEINTRANSACTION:
			return "idle in transaction";
		case STATE_IDLEINTRANSACTION_ABORTED:
			return "idle in transaction (aborted)";
		default:
			return NULL;
	}
}

/*
 * As "pid 123 (idle in transaction since ...)", as far as that is known, and
 * the session's user might see it in pg_stat_activity.
 */
static char *
describe_process(int backend, int pid)
{
	BddProcessStatus status;
	TimestampTz since;
	const char *state;

	bdd_process_status(backend, pid, &status);
	state = status.known ? state_name(status.state) : NULL;
	since = status.transaction != 0 ? status.transaction : status.statement;
	if (state == NULL || since == 0 ||
		!has_privs_of_role(GetSessionUserId(), ROLE_PG_READ_ALL_STATS))
		return psprintf("pid %d", pid);
	return psprintf("pid %d (%s since %s)", pid, state, timestamptz_to_str(since));
}

/* NULL: it has ended. */
static char *
describe_prepared(TransactionId xid)
{
	static BddKeptPlan plan = {
		"SELECT gid FROM pg_catalog.pg_prepared_xacts"
		" WHERE transaction OPERATOR(pg_catalog.=) $1",
		1,
		{XIDOID}};
	Datum value = TransactionIdGetDatum(xid);
	MemoryContext caller = CurrentMemoryContext;
	char *description = NULL;
	bool isnull;

	bdd_spi_connect();
	if (bdd_plan_run(&plan, &value, NULL) > 0)
	{
		Datum gid = bdd_spi_value(0, 1, &isnull);
		MemoryContext mine = MemoryContextSwitchTo(caller);

		description = psprintf("prepared transaction \"%s\"", TextDatumGetCString(gid));
		MemoryContextSwitchTo(mine);
	}
	bdd_spi_finish();
	return description;
}

/* Which prepared transaction had this virtual id, if any. */
static TransactionId
prepared_xid(VirtualTransactionId vxid)
{
	TransactionId xid = InvalidTransactionId;

	LWLockAcquire(TwoPhaseStateLock, LW_SHARED);
	for (int i = 0; i < max_prepared_xacts; i++)
		if (VirtualTransactionIdEquals(bdd_prepared_vxid(&PreparedXactProcs[i]), vxid))
			xid = PreparedXactProcs[i].xid;
	LWLockRelease(TwoPhaseStateLock);
	return xid;
}

/*
 * The process that is in the transaction, or the prepared transaction that it
 * has become; NULL: it has ended.
 */
static char *
describe_transaction(int backend, LocalTransactionId id)
{
	PGPROC *proc = bdd_backend_proc(backend);
	LocalTransactionId lxid = InvalidLocalTransactionId;
	TransactionId xid;
	int pid = 0;

	if (proc != NULL)
	{
		LWLockAcquire(&proc->fpInfoLock, LW_SHARED);
		lxid = proc->fpLocalTransactionId;
		pid = proc->pid;
		LWLockRelease(&proc->fpInfoLock);
	}
	if (lxid == id)
		return describe_process(backend, pid);
	xid = prepared_xid(bdd_make_vxid(backend, id));
	return TransactionIdIsValid(xid) ? describe_prepared(xid) : NULL;
}

/* One holder in words; NULL: its transaction has ended by now. */
static char *
describe_holder(const BddHolder *holder)
{
	if (holder->is_process)
		return describe_process(holder->backend, (int) holder->id);
	if (holder->backend == BDD_PREPARED)
		return describe_prepared(holder->id);
	return describe_transaction(holder->backend, holder->id);
}

/* What holds the moment as of the last look, in words; NULL: nothing.  Needs a snapshot. */
char *
bdd_moment_holders(const BddMoment *moment)
{
	StringInfoData text;
	int shown = 0;
	int i;

	initStringInfo(&text);
	for (i = 0; i < moment->count && shown < SHOWN_HOLDERS; i++)
	{
		char *description = describe_holder(&moment->holders[i]);

		if (description != NULL)
			appendStringInfo(&text, "%s%s", shown++ > 0 ? ", " : "", description);
	}
	if (i < moment->count)
		appendStringInfo(&text, " and %d more", moment->count - i);
	return text.len > 0 ? text.data : NULL;
}

/* sync_holders_internal(text): what holds that moment now. */
Datum
bdd_sync_holders(PG_FUNCTION_ARGS)
{
	BddMoment *moment;
	char *holders;

	bdd_check_preloaded();
	if (PG_ARGISNULL(0))
		PG_RETURN_NULL();
	moment = bdd_moment_in(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	if (moment == NULL || bdd_moment_is_over(moment))
		PG_RETURN_NULL();
	holders = bdd_moment_holders(moment);
	if (holders == NULL)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(holders));
}
