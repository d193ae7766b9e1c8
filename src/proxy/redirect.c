/*-------------------------------------------------------------------------
 *
 * redirect.c
 *		A trigger that takes plain INSERT and COPY to the buffer.
 *
 * It is a BEFORE INSERT trigger of the table itself, so that applications need
 * not be changed.  It fires before the table's other triggers (in the order of
 * their names), because those fire when the row is applied.  Rows that we
 * write ourselves pass, and so do those of callers who do not use the buffer,
 * and of statements whose ON CONFLICT an upsert of ours cannot express: the
 * guard takes care of these, as of every plain writer.
 *
 *-------------------------------------------------------------------------
 */
#include "proxy/redirect.h"

#include "access/relation.h"
#include "apply/close.h"
#include "base/list.h"
#include "base/loaded.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "proxy/relay.h"
#include "sql/spi.h"
#include "sql/statement.h"
#include "storage/lmgr.h"
#include "target/target.h"
#include "target/target_check.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(bdd_create_redirect);
PG_FUNCTION_INFO_V1(bdd_drop_redirect);
PG_FUNCTION_INFO_V1(bdd_redirect);

/* redirect(): the trigger */
Datum
bdd_redirect(PG_FUNCTION_ARGS)
{
	TriggerData *trigger = (TriggerData *) fcinfo->context;
	BddRelay *relay;

	if (!CALLED_AS_TRIGGER(fcinfo) ||
		!TRIGGER_FIRED_BEFORE(trigger->tg_event) ||
		!TRIGGER_FIRED_BY_INSERT(trigger->tg_event) ||
		!TRIGGER_FIRED_FOR_ROW(trigger->tg_event))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function \"redirect\" was not called as a BEFORE INSERT trigger for each row"),
				 errhint("The trigger is made by batchdedup.create_redirect.")));
	relay = bdd_relay_of(fcinfo, trigger->tg_relation);
	if (relay->target == NULL || bdd_is_writing(relay->table) ||
		!bdd_redirects(relay->target))
		return PointerGetDatum(trigger->tg_trigtuple);
	bdd_check_usable(relay->target);
	if (relay->conflict.kind == BDD_CONFLICT_OTHER)
		return PointerGetDatum(trigger->tg_trigtuple);
	bdd_relay_redirect(relay, trigger->tg_relation, trigger->tg_trigtuple);
	return PointerGetDatum(NULL);
}

/* ---------- create_redirect and drop_redirect ---------- */

/* Whether the table has our trigger. */
static bool
has_redirect(Oid relid)
{
	Relation rel = relation_open(relid, AccessShareLock);
	bool found = false;

	for (int i = 0; rel->trigdesc != NULL && i < rel->trigdesc->numtriggers; i++)
		found = found || bdd_is_redirect(&rel->trigdesc->triggers[i]);
	relation_close(rel, AccessShareLock);
	return found;
}

/* Runs a statement on the table as its owner, to whom the trigger belongs. */
static void
run_as_owner_of(Oid relid, const char *sql)
{
	Relation rel = relation_open(relid, NoLock);
	Oid owner = rel->rd_rel->relowner;

	relation_close(rel, NoLock);
	bdd_spi_connect();
	bdd_run_utility(owner, "%s", sql);
	bdd_spi_finish();
}

/* Removes the trigger if it is there.  The caller has flushed the target. */
bool
bdd_redirect_remove(Oid relid)
{
	if (!has_redirect(relid))
		return false;
	run_as_owner_of(relid,
					psprintf("DROP TRIGGER \"" BDD_REDIRECT_TRIGGER "\" ON %s",
							 bdd_qualified_name(relid)));
	return true;
}

/* The table of create_redirect and drop_redirect, which the caller owns. */
static Oid
check_argument(FunctionCallInfo fcinfo)
{
	bdd_check_preloaded();
	PreventCommandDuringRecovery("changing a redirect");
	PreventCommandIfReadOnly("changing a redirect");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	bdd_check_owner(PG_GETARG_OID(0));
	return PG_GETARG_OID(0);
}

/* create_redirect(regclass) */
Datum
bdd_create_redirect(PG_FUNCTION_ARGS)
{
	Oid relid = check_argument(fcinfo);

	(void) bdd_target_open(relid, ShareRowExclusiveLock);
	run_as_owner_of(relid,
					psprintf("CREATE OR REPLACE TRIGGER \"" BDD_REDIRECT_TRIGGER "\" BEFORE INSERT ON %s "
							 "FOR EACH ROW EXECUTE FUNCTION " BDD_SCHEMA ".redirect()",
							 bdd_qualified_name(relid)));
	PG_RETURN_VOID();
}

/*
 * drop_redirect(regclass): what is buffered goes first, or it would end on
 * top of what is inserted plainly from here on.
 */
Datum
bdd_drop_redirect(PG_FUNCTION_ARGS)
{
	Oid relid = check_argument(fcinfo);
	BddOptions options;

	if (bdd_options_read(relid, &options))
		(void) bdd_close_target(relid);
	if (!bdd_redirect_remove(relid))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("table \"%s\" has no redirect", get_rel_name(relid))));
	PG_RETURN_VOID();
}
