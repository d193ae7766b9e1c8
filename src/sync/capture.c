/*-------------------------------------------------------------------------
 *
 * capture.c
 *		Keys of a source that have changed, kept by a trigger.
 *
 * For syncs with capture => 'trigger'.  The trigger upserts the key of each row
 * that is written into a table of ours, through the buffer: deduplicated,
 * transactional and durable as any upsert.  A slice reads some of these keys,
 * then the rows of the source that have them, or have them no more, and deletes
 * the keys, all with one snapshot.
 *
 * Beside the key stands the transaction that wrote it.  So a key that is
 * captured again is another row: if that row is applied before a slice has
 * deleted the one that it has seen, the server refuses the slice, which is then
 * done again; if it is applied afterwards, it is there for the next one.  And
 * since a key is published when its transaction has become visible, a snapshot
 * that sees the key sees what the transaction has written.
 *
 * TRUNCATE leaves a mark in the sync: the run after it looks for rows that the
 * source does not have.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/capture.h"

#include "access/htup_details.h"
#include "access/relation.h"
#include "access/xact.h"
#include "base/list.h"
#include "base/loaded.h"
#include "catalog/pg_class.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_type_d.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "ingest/push.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "sql/statement.h"
#include "sql/text.h"
#include "sync/sync_check.h"
#include "sync/sync_source_sql.h"
#include "target/target.h"
#include "target/target_check.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(bdd_capture);

/* Its name is no column's of the source. */
#define TRANSACTION_COLUMN "\"batchdedup transaction\""

/* Name of one of the sync's two triggers: that of rows, or that of TRUNCATE. */
static char *
trigger_name(const BddSync *sync, bool truncate)
{
	return psprintf("batchdedup_capture_%d%s", sync->id, truncate ? "_truncate" : "");
}

/* ---------- making it ---------- */

/*
 * Raises an error if triggers of the source would not see all of its changes.
 * The caller must own it, and its key columns must be NOT NULL.
 */
static void
check_source(const BddSync *sync, Relation rel)
{
	ListCell *cell;

	if (rel->rd_rel->relkind != RELKIND_RELATION &&
		rel->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("\"%s\" cannot have a trigger that captures its changes", RelationGetRelationName(rel)),
				 errdetail("It is not a table."),
				 errhint("Use a cursor.")));
	if (rel->rd_rel->relkind == RELKIND_RELATION && has_subclass(sync->source))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("table \"%s\" has tables that inherit from it, whose changes its trigger does not see",
						RelationGetRelationName(rel)),
				 errhint("Use a cursor, or partitions.")));
	bdd_check_owner(sync->source);
	if (rel->rd_rel->relkind == RELKIND_PARTITIONED_TABLE)
		ereport(NOTICE,
				(errmsg("TRUNCATE, ATTACH and DETACH of single partitions of \"%s\" are not captured", RelationGetRelationName(rel)),
				 errhint("After such a command: SELECT batchdedup.reset_watermark(%s);", quote_literal_cstr(sync->name))));
	foreach(cell, bdd_sync_source_key(sync))
		if (!TupleDescAttr(RelationGetDescr(rel),
						   bdd_column_number(RelationGetDescr(rel), lfirst(cell)) - 1)
				 ->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("key column \"%s\" of \"%s\" can be null", (char *) lfirst(cell), RelationGetRelationName(rel)),
					 errhint("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;", bdd_qualified_name(sync->source),
							 quote_identifier(lfirst(cell)))));
}

/* The table of keys, a target of the extension's own. */
static void
make_table(BddSync *sync, Relation source)
{
	char *name = psprintf("captured_%d", sync->id);
	List *key = bdd_sync_source_key(sync);
	Oid types[] = {TEXTOID, TEXTARRAYOID, INT4OID};
	Datum values[] = {CStringGetTextDatum(psprintf(BDD_SCHEMA ".%s", name)), bdd_text_array(key), Int32GetDatum(sync->id)};
	StringInfoData sql;
	StringInfoData columns;
	ListCell *cell;

	initStringInfo(&sql);
	initStringInfo(&columns);
	appendStringInfo(&sql, "CREATE TABLE " BDD_SCHEMA ".%s (", name);
	foreach(cell, key)
	{
		Form_pg_attribute attribute =
			TupleDescAttr(RelationGetDescr(source),
						  bdd_column_number(RelationGetDescr(source), lfirst(cell)) - 1);
		int32 typmod = attribute->atttypmod;
		/* Checks of a domain would run as the extension's owner. */
		Oid type = getBaseTypeAndTypmod(attribute->atttypid, &typmod);

		appendStringInfo(&sql, "%s %s", quote_identifier(lfirst(cell)),
						 format_type_extended(
							 type, typmod, FORMAT_TYPE_TYPEMOD_GIVEN | FORMAT_TYPE_FORCE_QUALIFY));
		bdd_append_collation(&sql, attribute->attcollation);
		appendStringInfoString(&sql, ", ");
		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "", quote_identifier(lfirst(cell)));
	}

	appendStringInfo(&sql, TRANSACTION_COLUMN " pg_catalog.int8 NOT NULL, PRIMARY KEY (%s))", columns.data);
	bdd_run_utility(InvalidOid, "%s", sql.data);
	(void) bdd_spi_run("INSERT INTO batchdedup.target_option (target, key_columns, guard, own) "
					   "VALUES ($1::pg_catalog.regclass, $2, 'off', true)",
					   2, types, values, NULL);
	(void) bdd_spi_run("UPDATE batchdedup.sync_row SET captured = $1::pg_catalog.regclass WHERE id = $3 AND $2 IS NOT NULL",
					   3, types, values, NULL);
}

/* Also for rows that a subscription brings, which fire no other triggers. */
static void
make_triggers(BddSync *sync)
{
	char *source = bdd_qualified_name(sync->source);
	StringInfoData arguments;
	ListCell *cell;

	initStringInfo(&arguments);
	appendStringInfo(&arguments, "'captured_%d', '%d'", sync->id, sync->id);
	foreach(cell, bdd_sync_source_key(sync))
		appendStringInfo(&arguments, ", %s", quote_literal_cstr(lfirst(cell)));
	bdd_run_utility(InvalidOid, "CREATE TRIGGER %s AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW "
								"EXECUTE FUNCTION batchdedup.capture_internal(%s)",
					trigger_name(sync, false), source, arguments.data);
	bdd_run_utility(InvalidOid, "CREATE TRIGGER %s AFTER TRUNCATE ON %s FOR EACH STATEMENT "
								"EXECUTE FUNCTION batchdedup.capture_internal(%s)",
					trigger_name(sync, true), source, arguments.data);
	bdd_run_utility(InvalidOid, "ALTER TABLE %s ENABLE ALWAYS TRIGGER %s, ENABLE ALWAYS TRIGGER %s", source,
					trigger_name(sync, false), trigger_name(sync, true));
}

/*
 * From the commit on every key that is written is captured.  The caller, who
 * owns the source, is connected to SPI; the triggers' function is nobody's but
 * ours, so nobody else can make triggers of it.
 */
void
bdd_capture_create(BddSync *sync)
{
	Relation source = relation_open(sync->source, AccessShareLock);
	BddSavedRole saved;

	check_source(sync, source);
	bdd_become_extension_owner(&saved);
	make_table(sync, source);
	relation_close(source, NoLock);
	make_triggers(sync);
	bdd_restore_role(&saved);
}

/* The caller is connected to SPI, as the extension's owner. */
void
bdd_capture_drop(const BddSync *sync)
{
	if (get_rel_name(sync->source) != NULL)
		for (int truncate = 0; truncate < 2; truncate++)
			bdd_run_utility(InvalidOid, "DROP TRIGGER IF EXISTS %s ON %s", trigger_name(sync, truncate == 1),
							bdd_qualified_name(sync->source));
	if (OidIsValid(sync->captured) && get_rel_name(sync->captured) != NULL)
		bdd_run_utility(InvalidOid, "DROP TABLE %s", bdd_qualified_name(sync->captured));
}

/* ---------- the trigger ---------- */

/* Number of the source's column that is the captured table's i-th one. */
static AttrNumber
source_column(const TriggerData *data, BddTarget *target, int i)
{
	TupleDesc desc = RelationGetDescr(data->tg_relation);
	const char *name = data->tg_trigger->tgargs[i + 2];
	AttrNumber attnum = bdd_column_number(desc, name);

	if (attnum == InvalidAttrNumber || getBaseType(TupleDescAttr(desc, attnum - 1)->atttypid) !=
										   TupleDescAttr(target->shape.desc, i)->atttypid)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("column \"%s\" of \"%s\" is not what it was when its changes began to be captured",
						name, RelationGetRelationName(data->tg_relation)),
				 errhint("Make the sync anew with batchdedup.drop_sync and create_sync.")));
	return attnum;
}

/* Gives the i-th column of the captured table a value; see check_source for NULL. */
static void
set_value(BddValues *row, int i, Datum value)
{
	row->values[i] = value;
	row->isnull[i] = false;
	bdd_column_add(row->given, i);
}

/*
 * Upserts the key of one row of the source, with the transaction that writes
 * it.  It acts as the owner of the captured table, on which the role that
 * writes the source has no rights.
 */
static void
capture_tuple(const TriggerData *data, BddTarget *target, HeapTuple tuple)
{
	int count = data->tg_trigger->tgnargs - 2;
	BddValues row;
	Oid role;
	int security;
	bool isnull;

	bdd_values_init(target, &row);
	for (int i = 0; i < count; i++)
		set_value(&row, i,
				  heap_getattr(tuple, source_column(data, target, i),
							   RelationGetDescr(data->tg_relation), &isnull));
	set_value(&row, count,
			  Int64GetDatum((int64) U64FromFullTransactionId(GetTopFullTransactionId())));
	GetUserIdAndSecContext(&role, &security);
	SetUserIdAndSecContext(target->owner, security | SECURITY_LOCAL_USERID_CHANGE);
	bdd_push_values(target, &row);
	SetUserIdAndSecContext(role, security);
}

/*
 * The mark that lets the next run look for rows that the source has no more.
 * It commits with the TRUNCATE.
 */
static void
mark_truncated(const TriggerData *data)
{
	static BddKeptPlan update = {
		"UPDATE batchdedup.sync_row SET truncated = true WHERE id = $1", 1, {INT4OID}};
	Datum values[] = {Int32GetDatum(atoi(data->tg_trigger->tgargs[1]))};
	BddSavedRole saved;

	bdd_own_begin(&saved);
	(void) bdd_plan_run(&update, values, NULL);
	bdd_own_end(&saved);
}

/* capture_internal(table of keys, sync, key columns of the source ...) */
Datum
bdd_capture(PG_FUNCTION_ARGS)
{
	const TriggerData *data = (TriggerData *) fcinfo->context;
	BddTarget *target;

	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("function can only be called as a trigger")));
	bdd_check_preloaded();
	if (TRIGGER_FIRED_BY_TRUNCATE(data->tg_event))
	{
		mark_truncated(data);
		return PointerGetDatum(NULL);
	}
	target = bdd_target_open(bdd_catalog_relation(data->tg_trigger->tgargs[0]), RowExclusiveLock);
	capture_tuple(data, target, data->tg_trigtuple);
	/* The old key is gone, if it is another one; else it is the same row here. */
	if (TRIGGER_FIRED_BY_UPDATE(data->tg_event))
		capture_tuple(data, target, data->tg_newtuple);
	return PointerGetDatum(NULL);
}

/* ---------- reading ---------- */

/* The next keys behind those, in their order; after: texts, or NIL. */
BddSyncRows
bdd_capture_read(BddSlice *slice, List *after)
{
	const BddSync *sync = slice->sync;
	List *key = bdd_sync_source_key(sync);
	Oid types[INDEX_MAX_KEYS + 1];
	Datum values[INDEX_MAX_KEYS + 1];
	int count = list_length(after);
	BddSavedRole saved;
	BddSyncRows rows;

	/* A domain within the type has checks, which are somebody's code. */
	bdd_sync_become(sync, &saved);
	bdd_slice_parameters(sync, key, after, types, values);
	bdd_restore_role(&saved);
	types[count] = INT8OID;
	values[count++] = Int64GetDatum(slice->limit);
	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run(bdd_sync_sql_captured(sync, after != NIL), count, types, values, NULL);
	rows = bdd_slice_take();
	bdd_restore_role(&saved);
	return rows;
}

/* Rows of the source that have the keys, or changes for those that it lacks. */
BddSyncRows
bdd_capture_rows(BddSlice *slice, const BddSyncRows *keys, bool gone)
{
	const BddSync *sync = slice->sync;
	EphemeralNamedRelation relation = bdd_slice_relation(BDD_CAPTURED_NAME, keys);
	BddSavedRole saved;
	BddSyncRows rows;

	bdd_sync_become(sync, &saved);
	(void) bdd_run_on_relation(
		sync->source, gone ? bdd_sync_sql_captured_gone(sync) : bdd_sync_sql_captured_rows(sync),
		relation, 0, NULL, NULL, false);
	rows = bdd_slice_take();
	bdd_restore_role(&saved);
	bdd_slice_free_relation(relation);
	return rows;
}

/* Deletes keys that the slice has read, in its transaction. */
void
bdd_capture_forget(BddSlice *slice, const BddSyncRows *keys)
{
	EphemeralNamedRelation relation = bdd_slice_relation(BDD_CAPTURED_NAME, keys);
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	(void) bdd_run_on_relation(slice->sync->captured, bdd_sync_sql_captured_forget(slice->sync),
							   relation, 0, NULL, NULL, false);
	bdd_restore_role(&saved);
	bdd_slice_free_relation(relation);
}
