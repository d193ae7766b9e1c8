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
#include "catalog/pg_type.h"
#include "sql/catalog.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/pg_lsn.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* Column of batchdedup.dead_letter_row. */
#define DEAD_LETTER_TARGET 3

/* ---------- the options ---------- */

static const char *const mode_names[] = {
	[BDD_MODE_BUFFERED] = "buffered",
	[BDD_MODE_DIRECT] = "direct",
};

static const char *const on_full_names[] = {
	[BDD_FULL_WAIT] = "wait",
	[BDD_FULL_ERROR] = "error",
	[BDD_FULL_DIRECT] = "direct",
};

static const char *const guard_names[] = {
	[BDD_GUARD_WARN] = "warn",
	[BDD_GUARD_OFF] = "off",
	[BDD_GUARD_FLUSH] = "flush",
	[BDD_GUARD_ERROR] = "error",
};

static const BddChoice mode_choice = {mode_names, lengthof(mode_names), "shadow"};
static const BddChoice on_full_choice = {on_full_names, lengthof(on_full_names), NULL};
static const BddChoice guard_choice = {guard_names, lengthof(guard_names), NULL};

#define DEF(form, field, ...)                                               \
	{                                                                       \
#field, BDD_OPTION_##form, offsetof(BddOptions, field), __VA_ARGS__ \
	}

/*
 * All columns of batchdedup.target_option.  What create_target, alter_target
 * and "reset" take, what is read and what is written comes from here.
 */
const BddOptionDef bdd_option_defs[BDD_OPTION_COLUMNS] = {
	DEF(INT4, target_id, NULL),
	{"target", BDD_OPTION_OID, offsetof(BddOptions, relid), NULL},
	DEF(NAMES, key_columns, "key", BDD_ARG_KEY, true),
	DEF(NAMES, update_columns, "update_columns", BDD_ARG_UPDATE_COLUMNS, true),
	DEF(NAMES, merge_columns, "merge", BDD_ARG_MERGE, true),
	DEF(NAMES, merge_rules, "merge", BDD_ARG_MERGE, true),
	DEF(TEXT, version_column, "version_column", BDD_ARG_VERSION_COLUMN, true),
	DEF(BOOL, logged, "logged", BDD_ARG_LOGGED, true),
	DEF(CHOICE, mode, "mode", BDD_ARG_MODE, false, &mode_choice),
	DEF(INTERVAL, flush_interval, "flush_interval", BDD_ARG_FLUSH_INTERVAL),
	DEF(INT4, flush_rows, "flush_rows", BDD_ARG_FLUSH_ROWS),
	DEF(CHOICE, on_full, "on_full", BDD_ARG_ON_FULL, false, &on_full_choice),
	DEF(CHOICE, guard, "guard", BDD_ARG_GUARD, false, &guard_choice),
	DEF(TEXT, flush_group, "flush_group", BDD_ARG_FLUSH_GROUP),
	DEF(BOOL, coalesce_rows, "coalesce_rows", BDD_ARG_COALESCE_ROWS, true),
	DEF(BOOL, paused, NULL),
	DEF(BOOL, own, NULL),
};

#define FIELD_OF(options, def, type) ((type *) ((char *) (options) + (def)->offset))

/* The number of the value with this name; -1: there is none. */
int
bdd_choice_number(const BddChoice *choice, const char *name)
{
	for (int i = 0; i < choice->count; i++)
		if (strcmp(choice->names[i], name) == 0)
			return i;
	return -1;
}

static int
interval_ms(const Interval *interval)
{
	int64 days = interval->month * INT64CONST(30) + interval->day;
	int64 ms = interval->time / 1000 + days * (USECS_PER_DAY / 1000);

	return (int) Min(ms, INT_MAX);
}

/* The default: NULL, true, or the first of a list of values. */
void
bdd_option_reset(BddOptions *options, const BddOptionDef *def)
{
	switch (def->form)
	{
		case BDD_OPTION_INT4:
			*FIELD_OF(options, def, int32) = -1;
			break;
		case BDD_OPTION_OID:
			*FIELD_OF(options, def, Oid) = InvalidOid;
			break;
		case BDD_OPTION_BOOL:
			/* "paused" and "own" are no options. */
			*FIELD_OF(options, def, bool) = def->name != NULL;
			break;
		case BDD_OPTION_TEXT:
			*FIELD_OF(options, def, char *) = NULL;
			break;
		case BDD_OPTION_NAMES:
			*FIELD_OF(options, def, List *) = NIL;
			if (def->argument == BDD_ARG_UPDATE_COLUMNS)
				options->default_update = true;
			break;
		case BDD_OPTION_INTERVAL:
			*FIELD_OF(options, def, Interval *) = NULL;
			options->flush_interval_ms = -1;
			break;
		case BDD_OPTION_CHOICE:
			*FIELD_OF(options, def, int) = 0;
			break;
	}
}

void
bdd_options_default(BddOptions *options)
{
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
		bdd_option_reset(options, &bdd_option_defs[i]);
}

/* A text that the extension's script does not allow, or not any more. */
static int
take_choice(const BddOptionDef *def, const char *name)
{
	int number = bdd_choice_number(def->choice, name);

	if (number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("target option %s has the unknown value \"%s\"", def->column, name),
				 errhint("Install the version of batchdedup that knows it.")));
	return number;
}

/* Takes the value of the option's column, or of an argument of its type. */
void
bdd_option_take(BddOptions *options, const BddOptionDef *def, Datum value,
				bool isnull)
{
	bdd_option_reset(options, def);
	if (isnull)
		return;
	switch (def->form)
	{
		case BDD_OPTION_INT4:
			*FIELD_OF(options, def, int32) = DatumGetInt32(value);
			break;
		case BDD_OPTION_OID:
			*FIELD_OF(options, def, Oid) = DatumGetObjectId(value);
			break;
		case BDD_OPTION_BOOL:
			*FIELD_OF(options, def, bool) = DatumGetBool(value);
			break;
		case BDD_OPTION_TEXT:
			*FIELD_OF(options, def, char *) = TextDatumGetCString(value);
			break;
		case BDD_OPTION_NAMES:
			*FIELD_OF(options, def, List *) = bdd_names_of(value);
			if (def->argument == BDD_ARG_UPDATE_COLUMNS)
				options->default_update = false;
			break;
		case BDD_OPTION_INTERVAL:
			options->flush_interval = palloc(sizeof(Interval));
			*options->flush_interval = *DatumGetIntervalP(value);
			options->flush_interval_ms = interval_ms(options->flush_interval);
			break;
		case BDD_OPTION_CHOICE:
			*FIELD_OF(options, def, int) = take_choice(def, TextDatumGetCString(value));
			break;
	}
}

/* The type of the option's column. */
Oid
bdd_option_type(const BddOptionDef *def)
{
	switch (def->form)
	{
		case BDD_OPTION_INT4:
			return INT4OID;
		case BDD_OPTION_OID:
			return REGCLASSOID;
		case BDD_OPTION_BOOL:
			return BOOLOID;
		case BDD_OPTION_TEXT:
		case BDD_OPTION_CHOICE:
			return TEXTOID;
		case BDD_OPTION_NAMES:
			return TEXTARRAYOID;
		case BDD_OPTION_INTERVAL:
			return INTERVALOID;
	}
	return InvalidOid;
}

/* An empty list is NULL, but for a key and for update columns that are given. */
static bool
names_are_null(const BddOptions *options, const BddOptionDef *def)
{
	if (def->argument == BDD_ARG_UPDATE_COLUMNS)
		return options->default_update;
	return def->argument != BDD_ARG_KEY && *FIELD_OF(options, def, List *) == NIL;
}

/* What the option's column is to have. */
Datum
bdd_option_value(const BddOptions *options, const BddOptionDef *def, bool *isnull)
{
	*isnull = false;
	switch (def->form)
	{
		case BDD_OPTION_INT4:
			*isnull = *FIELD_OF(options, def, int32) < 0;
			return Int32GetDatum(*FIELD_OF(options, def, int32));
		case BDD_OPTION_OID:
			return ObjectIdGetDatum(*FIELD_OF(options, def, Oid));
		case BDD_OPTION_BOOL:
			return BoolGetDatum(*FIELD_OF(options, def, bool));
		case BDD_OPTION_TEXT:
			*isnull = *FIELD_OF(options, def, char *) == NULL;
			return *isnull ? (Datum) 0 :
							 CStringGetTextDatum(*FIELD_OF(options, def, char *));
		case BDD_OPTION_NAMES:
			*isnull = names_are_null(options, def);
			return bdd_text_array(*FIELD_OF(options, def, List *));
		case BDD_OPTION_INTERVAL:
			*isnull = options->flush_interval == NULL;
			return IntervalPGetDatum(options->flush_interval);
		case BDD_OPTION_CHOICE:
			return CStringGetTextDatum(def->choice->names[*FIELD_OF(options, def, int)]);
	}
	return (Datum) 0;
}

/* ---------- the catalog ---------- */

static AttrNumber
column_of(Relation rel, const char *column)
{
	AttrNumber attnum = bdd_column_number(RelationGetDescr(rel), column);

	if (attnum == InvalidAttrNumber)
		elog(ERROR, "table batchdedup.target_option has no column \"%s\"", column);
	return attnum;
}

static void
read_options(Relation rel, HeapTuple tuple, BddOptions *options)
{
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
	{
		const BddOptionDef *def = &bdd_option_defs[i];
		bool isnull;
		Datum value = heap_getattr(tuple, column_of(rel, def->column),
								   RelationGetDescr(rel), &isnull);

		bdd_option_take(options, def, value, isnull);
	}
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
	ScanKeyInit(&key, column_of(rel, "target"), BTEqualStrategyNumber, F_OIDEQ,
				ObjectIdGetDatum(relid));
	scan = systable_beginscan(rel, index, true, snapshot, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
		read_options(rel, tuple, options);
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
														   column_of(rel, "target"),
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
