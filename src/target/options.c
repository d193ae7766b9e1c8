/*-------------------------------------------------------------------------
 *
 * options.c
 *		The rows of batchdedup.target_option and batchdedup.mark.
 *
 *-------------------------------------------------------------------------
 */
#include "target/options.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xlog.h"
#include "base/list.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "sql/catalog.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Columns of batchdedup.target_option, in the order of its definition. */
enum
{
	OPTION_TARGET_ID = 1,
	OPTION_TARGET,
	OPTION_KEY_COLUMNS,
	OPTION_UPDATE_COLUMNS,
	OPTION_FLUSH_INTERVAL,
	OPTION_FLUSH_ROWS,
	OPTION_MODE,
	OPTION_ON_FULL,
	OPTION_GUARD,
	OPTION_MERGE_COLUMNS,
	OPTION_MERGE_RULES,
	OPTION_VERSION_COLUMN,
	OPTION_COALESCE_ROWS,
	OPTION_FLUSH_GROUP,
	OPTION_PAUSED,
	OPTION_LOGGED,
	OPTION_OWN,
	OPTION_COUNT = OPTION_OWN
};

/* Column of batchdedup.dead_letter_row. */
#define DEAD_LETTER_TARGET 3

/* ---------- catalog ---------- */

static int
interval_ms(const Interval *interval)
{
	int64 days = interval->month * INT64CONST(30) + interval->day;
	int64 ms = interval->time / 1000 + days * (USECS_PER_DAY / 1000);

	return (int) Min(ms, INT_MAX);
}

/* Names of modes and of what to do when full, as in the catalog. */
static BddMode
parse_mode(Datum value)
{
	return strcmp(TextDatumGetCString(value), "direct") == 0 ?
			   BDD_MODE_DIRECT :
			   BDD_MODE_BUFFERED;
}

static BddOnFull
parse_on_full(Datum value)
{
	const char *name = TextDatumGetCString(value);

	return strcmp(name, "error") == 0  ? BDD_FULL_ERROR :
		   strcmp(name, "direct") == 0 ? BDD_FULL_DIRECT :
										 BDD_FULL_WAIT;
}

static BddGuard
parse_guard(Datum value)
{
	const char *name = TextDatumGetCString(value);

	return strcmp(name, "off") == 0   ? BDD_GUARD_OFF :
		   strcmp(name, "flush") == 0 ? BDD_GUARD_FLUSH :
		   strcmp(name, "error") == 0 ? BDD_GUARD_ERROR :
										BDD_GUARD_WARN;
}

static void
parse_options(Relation rel, HeapTuple tuple, BddOptions *options)
{
	TupleDesc desc = RelationGetDescr(rel);
	Datum values[OPTION_COUNT];
	bool isnull[OPTION_COUNT];

	heap_deform_tuple(tuple, desc, values, isnull);
	options->target_id = DatumGetInt32(values[OPTION_TARGET_ID - 1]);
	options->relid = DatumGetObjectId(values[OPTION_TARGET - 1]);
	options->key_columns = bdd_names_of(values[OPTION_KEY_COLUMNS - 1]);
	options->default_update = isnull[OPTION_UPDATE_COLUMNS - 1];
	options->update_columns = NIL;
	if (!options->default_update)
		options->update_columns = bdd_names_of(values[OPTION_UPDATE_COLUMNS - 1]);
	options->flush_interval_ms = -1;
	if (!isnull[OPTION_FLUSH_INTERVAL - 1])
		options->flush_interval_ms =
			interval_ms(DatumGetIntervalP(values[OPTION_FLUSH_INTERVAL - 1]));
	options->flush_rows = -1;
	if (!isnull[OPTION_FLUSH_ROWS - 1])
		options->flush_rows = DatumGetInt32(values[OPTION_FLUSH_ROWS - 1]);
	options->mode = parse_mode(values[OPTION_MODE - 1]);
	options->on_full = parse_on_full(values[OPTION_ON_FULL - 1]);
	options->guard = parse_guard(values[OPTION_GUARD - 1]);
	options->merge_columns = NIL;
	options->merge_rules = NIL;
	if (!isnull[OPTION_MERGE_COLUMNS - 1] && !isnull[OPTION_MERGE_RULES - 1])
	{
		options->merge_columns = bdd_names_of(values[OPTION_MERGE_COLUMNS - 1]);
		options->merge_rules = bdd_names_of(values[OPTION_MERGE_RULES - 1]);
	}
	options->version_column = NULL;
	if (!isnull[OPTION_VERSION_COLUMN - 1])
		options->version_column =
			TextDatumGetCString(values[OPTION_VERSION_COLUMN - 1]);
	options->coalesce_rows = DatumGetBool(values[OPTION_COALESCE_ROWS - 1]);
	options->flush_group = NULL;
	if (!isnull[OPTION_FLUSH_GROUP - 1])
		options->flush_group =
			TextDatumGetCString(values[OPTION_FLUSH_GROUP - 1]);
	options->paused = DatumGetBool(values[OPTION_PAUSED - 1]);
	options->logged = DatumGetBool(values[OPTION_LOGGED - 1]);
	options->own = DatumGetBool(values[OPTION_OWN - 1]);
}

/*
 * Reads a table's options; false: it is no target.  Privileges of the caller
 * on our own tables do not matter here.
 */
bool
bdd_options_read(Oid relid, BddOptions *options)
{
	Oid catalog = bdd_catalog_relation("target_option");
	Oid index = bdd_catalog_relation("target_option_target_key");
	Relation rel;
	SysScanDesc scan;
	ScanKeyData key;
	HeapTuple tuple;
	Snapshot snapshot;

	if (!OidIsValid(catalog) || !OidIsValid(index))
		return false;
	rel = table_open(catalog, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, OPTION_TARGET, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, index, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		parse_options(rel, tuple, options);
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/*
 * OIDs of all targets of the database, in OID order.  Without an index: DROP
 * EXTENSION asks when that is gone already.
 */
List *
bdd_all_targets(void)
{
	List *relids = NIL;
	Oid catalog = bdd_catalog_relation("target_option");
	Relation rel;
	SysScanDesc scan;
	Snapshot snapshot;
	HeapTuple tuple;
	bool isnull;

	if (!OidIsValid(catalog))
		return NIL;
	rel = table_open(catalog, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan = systable_beginscan(rel, InvalidOid, false, snapshot, 0, NULL);
	while (HeapTupleIsValid(tuple = systable_getnext(scan)))
		relids = lappend_oid(relids,
							 DatumGetObjectId(heap_getattr(tuple,
														   OPTION_TARGET,
														   RelationGetDescr(rel),
														   &isnull)));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	list_sort(relids, list_oid_cmp);
	return relids;
}

/* Columns of batchdedup.mark. */
enum
{
	MARK_TARGET_ID = 1,
	MARK_GENERATION,
	MARK_JOURNAL_FROM,
	MARK_SYSTEM,
	MARK_SHAPE,
	MARK_COUNT = MARK_SHAPE
};

/* The target's mark; false: there is none. */
static bool
read_mark(int32 target_id, Datum *values, bool *isnull)
{
	Relation rel = table_open(bdd_catalog_relation("mark"),
							  AccessShareLock);
	Snapshot snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, MARK_TARGET_ID, BTEqualStrategyNumber, F_INT4EQ,
				Int32GetDatum(target_id));
	scan = systable_beginscan(rel, bdd_catalog_relation("mark_pkey"), true,
							  snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		heap_deform_tuple(tuple, RelationGetDescr(rel), values, isnull);
		if (!isnull[MARK_SHAPE - 1])
			values[MARK_SHAPE - 1] = CStringGetDatum(TextDatumGetCString(values[MARK_SHAPE - 1]));
	}
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return HeapTupleIsValid(tuple);
}

/* The table's shape when the target was last applied, or NULL. */
char *
bdd_mark_shape(int32 target_id)
{
	Datum values[MARK_COUNT];
	bool isnull[MARK_COUNT];

	if (!read_mark(target_id, values, isnull) || isnull[MARK_SHAPE - 1])
		return NULL;
	return DatumGetCString(values[MARK_SHAPE - 1]);
}

/*
 * The generation up to which the target is applied, and if "journal_from" is
 * not NULL from where on its journal is needed: InvalidXLogRecPtr if this
 * server has none of it.
 */
uint64
bdd_mark_read(int32 target_id, XLogRecPtr *journal_from)
{
	Datum values[MARK_COUNT];
	bool isnull[MARK_COUNT];

	if (journal_from != NULL)
		*journal_from = InvalidXLogRecPtr;
	if (!read_mark(target_id, values, isnull))
		return 0;
	if (journal_from != NULL &&
		DatumGetInt64(values[MARK_SYSTEM - 1]) == (int64) GetSystemIdentifier())
		*journal_from = DatumGetLSN(values[MARK_JOURNAL_FROM - 1]);
	return DatumGetInt64(values[MARK_GENERATION - 1]);
}

/* Whether letters of the table are kept. */
bool
bdd_has_dead_letters(Oid relid)
{
	Oid catalog = bdd_catalog_relation("dead_letter_row");
	Oid index = bdd_catalog_relation("dead_letter_row_table");
	Relation rel;
	Snapshot snapshot;
	ScanKeyData key;
	SysScanDesc scan;
	bool found;

	if (!OidIsValid(catalog) || !OidIsValid(index))
		return false;
	rel = table_open(catalog, AccessShareLock);
	snapshot = RegisterSnapshot(GetLatestSnapshot());
	ScanKeyInit(&key, DEAD_LETTER_TARGET, BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, index, true, snapshot, 1, &key);
	found = HeapTupleIsValid(systable_getnext(scan));
	systable_endscan(scan);
	UnregisterSnapshot(snapshot);
	table_close(rel, AccessShareLock);
	return found;
}
