/*-------------------------------------------------------------------------
 *
 * target_admin.c
 *		create_target, alter_target, drop_target, pause, resume.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/relation.h"
#include "access/xlog.h"
#include "admin/option_args.h"
#include "apply/close.h"
#include "base/loaded.h"
#include "catalog/pg_type.h"
#include "commit/xact.h"
#include "fmgr.h"
#include "journal/message.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "proxy/redirect.h"
#include "proxy/view.h"
#include "target/old_shape.h"
#include "target/target.h"
#include "target/target_check.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(bdd_create_target);
PG_FUNCTION_INFO_V1(bdd_alter_target);
PG_FUNCTION_INFO_V1(bdd_drop_target);
PG_FUNCTION_INFO_V1(bdd_pause);
PG_FUNCTION_INFO_V1(bdd_resume);
PG_FUNCTION_INFO_V1(bdd_accept_loss);

static Oid
check_target_argument(FunctionCallInfo fcinfo)
{
	bdd_check_preloaded();
	PreventCommandDuringRecovery("changing a target");
	PreventCommandIfReadOnly("changing a target");
	if (PG_ARGISNULL(BDD_ARG_TARGET))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	return PG_GETARG_OID(BDD_ARG_TARGET);
}

/* ---------- create_target ---------- */

static bool
already_there(Relation rel, bool if_not_exists)
{
	BddOptions options;

	if (!bdd_options_read(RelationGetRelid(rel), &options))
		return false;
	ereport(if_not_exists ? NOTICE : ERROR,
			(errcode(ERRCODE_DUPLICATE_OBJECT),
			 errmsg("table \"%s\" is a target already%s",
					RelationGetRelationName(rel),
					if_not_exists ? ", skipping" : ""),
			 if_not_exists ? 0 :
							 errhint("Use batchdedup.alter_target to change it.")));
	return true;
}

/* What belongs to a target's row and can be written when it has a number. */
static void
begin_target(Oid relid, TupleDesc desc)
{
	BddOptions options;
	BddArgs shape = {0};
	BddArgs letters = {0};

	if (!bdd_options_read(relid, &options))
		elog(ERROR, "target of table %u is not there", relid);
	bdd_at_abort_free_slot(options.target_id);
	bdd_arg_int4(&shape, options.target_id);
	bdd_arg_text(&shape, bdd_shape_to_text(desc));
	bdd_change_catalog(relid,
					   "UPDATE batchdedup.mark SET shape = $2 "
					   "WHERE target_id OPERATOR(pg_catalog.=) $1",
					   &shape);
	/* Letters of the table from before its last drop_target. */
	bdd_arg(&letters, REGCLASSOID, ObjectIdGetDatum(relid));
	bdd_arg_int4(&letters, options.target_id);
	bdd_change_catalog(relid,
					   "UPDATE batchdedup.dead_letter_row SET target_id = $2 "
					   "WHERE target OPERATOR(pg_catalog.=) $1",
					   &letters);
}

Datum
bdd_create_target(PG_FUNCTION_ARGS)
{
	Oid relid = check_target_argument(fcinfo);
	BddOptions options;
	Relation rel;
	Oid key_index;

	bdd_check_option_arguments(fcinfo);
	/* Conflicts with itself: one registration at a time. */
	rel = relation_open(relid, ShareUpdateExclusiveLock);
	bdd_check_table(rel);
	bdd_check_owner(relid);
	if (!already_there(rel, !PG_ARGISNULL(BDD_ARG_LAST) &&
								PG_GETARG_BOOL(BDD_ARG_LAST)))
	{
		bdd_options_default(&options);
		bdd_take_option_arguments(fcinfo, &options);
		if (PG_ARGISNULL(BDD_ARG_KEY))
			options.key_columns = bdd_primary_key(rel);
		key_index = bdd_check_meaning(rel, &options);
		if (OidIsValid(key_index))
			bdd_notice_other_indexes(rel, key_index, options.key_columns);
		bdd_insert_options(fcinfo, relid, &options);
		begin_target(relid, RelationGetDescr(rel));
		bdd_views_make_anew(relid);
	}
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}

/* ---------- alter_target and drop_target ---------- */

/* The worker shall see what has changed. */
static void
wake_worker_at_commit(BddTarget *target)
{
	BddSharedSlot *slot = bdd_target_find_slot(target);

	if (slot != NULL)
		bdd_at_commit_wake_worker(slot);
}

/* What our own functions rely on is not to be changed. */
static void
refuse_own(Oid relid)
{
	BddOptions options;

	if (bdd_options_read(relid, &options) && options.own)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("target \"%s\" is part of batchdedup", get_rel_name(relid)),
				 errhint("When it is flushed, its mode, on_full and guard can be changed.")));
}

/*
 * Locks the table and returns its target.  What an upsert means, and whether
 * rows are buffered, changes when nothing is in the buffer.
 */
static BddTarget *
open_to_alter(FunctionCallInfo fcinfo, Oid relid, List *resets)
{
	bool meaning = bdd_changes_meaning(fcinfo, resets);

	if (meaning)
		refuse_own(relid);
	if (meaning || !PG_ARGISNULL(BDD_ARG_MODE))
		return bdd_close_target(relid);
	return bdd_target_open_any(relid, ShareUpdateExclusiveLock);
}

Datum
bdd_alter_target(PG_FUNCTION_ARGS)
{
	Oid relid = check_target_argument(fcinfo);
	BddTarget *target;
	BddOptions options;
	Relation rel;
	List *resets;

	bdd_check_option_arguments(fcinfo);
	bdd_check_owner(relid);
	resets = bdd_reset_argument(fcinfo);
	target = open_to_alter(fcinfo, relid, resets);
	options = target->options;
	rel = relation_open(relid, NoLock);
	bdd_reset_options(rel, resets, &options);
	bdd_take_option_arguments(fcinfo, &options);
	if (bdd_changes_meaning(fcinfo, resets))
		(void) bdd_check_meaning(rel, &options);
	relation_close(rel, NoLock);
	if (bdd_update_options(fcinfo, relid, resets, &options))
		wake_worker_at_commit(target);
	if (bdd_changes_meaning(fcinfo, resets))
		bdd_views_make_anew(relid);
	PG_RETURN_VOID();
}

static void
delete_from_catalog(Oid relid, int32 target_id)
{
	BddArgs args = {0};

	bdd_arg_int4(&args, target_id);
	bdd_change_catalog(relid,
					   "DELETE FROM batchdedup.target_option "
					   "WHERE target_id OPERATOR(pg_catalog.=) $1",
					   &args);
	bdd_change_catalog(relid,
					   "DELETE FROM batchdedup.mark "
					   "WHERE target_id OPERATOR(pg_catalog.=) $1",
					   &args);
	bdd_journal_write_applied(target_id, relid, PG_UINT64_MAX);
}

Datum
bdd_drop_target(PG_FUNCTION_ARGS)
{
	Oid relid = check_target_argument(fcinfo);
	BddOptions options;
	BddTarget *target;

	bdd_check_owner(relid);
	refuse_own(relid);
	if (!bdd_options_read(relid, &options) && !PG_ARGISNULL(1) &&
		PG_GETARG_BOOL(1))
	{
		ereport(NOTICE,
				(errmsg("table \"%s\" is not a target, skipping",
						get_rel_name(relid))));
		PG_RETURN_VOID();
	}
	target = bdd_close_target(relid);
	bdd_redirect_remove(relid);
	if (target->slot != NULL)
		bdd_at_commit_free_slot(target->slot);
	delete_from_catalog(relid, target->options.target_id);
	PG_RETURN_VOID();
}

/* ---------- pause and resume ---------- */

static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	Oid relid = check_target_argument(fcinfo);
	BddTarget *target;
	BddArgs args = {0};

	bdd_check_owner(relid);
	target = bdd_target_open_any(relid, ShareUpdateExclusiveLock);
	bdd_arg(&args, REGCLASSOID, ObjectIdGetDatum(relid));
	bdd_arg_bool(&args, paused);
	bdd_change_catalog(relid,
					   "UPDATE batchdedup.target_option SET paused = $2 "
					   "WHERE target OPERATOR(pg_catalog.=) $1",
					   &args);
	wake_worker_at_commit(target);
}

Datum
bdd_pause(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, true);
	PG_RETURN_VOID();
}

Datum
bdd_resume(PG_FUNCTION_ARGS)
{
	set_paused(fcinfo, false);
	PG_RETURN_VOID();
}

/* ---------- accept_loss ---------- */

/*
 * accept_loss(target): the target goes on without the part of its journal
 * that was missing at the last start.
 */
Datum
bdd_accept_loss(PG_FUNCTION_ARGS)
{
	Oid relid = check_target_argument(fcinfo);
	BddTarget *target = bdd_target_open_any(relid, ShareUpdateExclusiveLock);
	BddArgs args = {0};

	bdd_check_owner(relid);
	bdd_arg_int4(&args, target->options.target_id);
	bdd_arg_int8(&args, GetSystemIdentifier());
	bdd_change_catalog(relid,
					   "INSERT INTO batchdedup.mark AS m VALUES ($1, 0, pg_catalog.pg_current_wal_insert_lsn(), $2) "
					   "ON CONFLICT (target_id) DO UPDATE "
					   "SET journal_from = EXCLUDED.journal_from, system = EXCLUDED.system",
					   &args);
	wake_worker_at_commit(target);
	PG_RETURN_VOID();
}
