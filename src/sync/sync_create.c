/*-------------------------------------------------------------------------
 *
 * sync_create.c
 *		create_sync: a sync from its arguments.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/table.h"
#include "base/list.h"
#include "base/loaded.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_type.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "nodes/pg_list.h"
#include "sql/spi.h"
#include "sync/capture.h"
#include "sync/sync.h"
#include "sync/sync_check.h"
#include "sync/sync_slice.h"
#include "target/options.h"
#include "target/target_check.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(bdd_create_sync);

/* A text column of the target with this name takes the data version. */
#define VERSION_COLUMN "data_version"

enum
{
	ARG_NAME,
	ARG_SOURCE,
	ARG_TARGET,
	ARG_KEY,
	ARG_CURSOR,
	ARG_MAPPING,
	ARG_FILTER,
	ARG_SLICE_ROWS,
	ARG_CURSOR_KIND,
	ARG_LAG,
	ARG_CAPTURE,
	ARG_INTO,
	ARG_CHANGE_LOG,
	ARG_HASH_EXCLUDE,
	ARG_DELETE_MISSING,
	ARG_TOMBSTONE,
	ARG_DELETED_COLUMN,
	ARG_LOG_VALUES
};

/* ---------- arguments ---------- */

static char *
text_argument(FunctionCallInfo fcinfo, int n)
{
	return PG_ARGISNULL(n) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(n));
}

/* Which of the values the argument has. */
static int
choice_argument(FunctionCallInfo fcinfo, int n, const char *what, const char *const *values,
				int count)
{
	char *value;
	StringInfoData list;

	bdd_check_argument(fcinfo, n, what);
	value = text_argument(fcinfo, n);
	initStringInfo(&list);
	for (int i = 0; i < count; i++)
	{
		if (strcmp(value, values[i]) == 0)
			return i;
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", values[i]);
	}
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument %s cannot be \"%s\"", what, value),
			 errhint("Its values are: %s.", list.data)));
}

/* The columns that the argument lists; NIL where it is NULL. */
static List *
columns_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	return PG_ARGISNULL(n) ? NIL : bdd_parse_columns(what, text_argument(fcinfo, n));
}

/*
 * Takes what needs no look at source and target.  The kind of a cursor comes
 * later, from bdd_sync_choose_kind.
 */
static void
take_arguments(FunctionCallInfo fcinfo, BddSync *sync)
{
	static const char *const captures[] = {"cursor", "trigger"};
	static const char *const destinations[] = {"table", "buffer"};
	static const char *const deletes[] = {"no", "soft", "hard"};
	int delete;

	bdd_check_argument(fcinfo, ARG_NAME, "name");
	bdd_check_argument(fcinfo, ARG_SOURCE, "source");
	bdd_check_argument(fcinfo, ARG_TARGET, "target");
	bdd_check_argument(fcinfo, ARG_SLICE_ROWS, "slice_rows");
	bdd_check_argument(fcinfo, ARG_LAG, "lag");
	bdd_check_argument(fcinfo, ARG_CHANGE_LOG, "change_log");
	bdd_check_argument(fcinfo, ARG_LOG_VALUES, "log_values");
	sync->name = text_argument(fcinfo, ARG_NAME);
	sync->owner = GetUserId();
	sync->settings = bdd_sync_settings();
	sync->source = PG_GETARG_OID(ARG_SOURCE);
	sync->target = PG_GETARG_OID(ARG_TARGET);
	sync->filter = text_argument(fcinfo, ARG_FILTER);
	sync->slice_rows = PG_GETARG_INT32(ARG_SLICE_ROWS);
	sync->lag = PG_GETARG_INTERVAL_P(ARG_LAG);
	sync->buffered = choice_argument(fcinfo, ARG_INTO, "into", destinations, 2) == 1;
	sync->change_log = PG_GETARG_BOOL(ARG_CHANGE_LOG);
	sync->log_values = PG_GETARG_BOOL(ARG_LOG_VALUES);
	sync->hash_exclude = columns_argument(fcinfo, ARG_HASH_EXCLUDE, "hash_exclude");
	delete = choice_argument(fcinfo, ARG_DELETE_MISSING, "delete_missing", deletes, 3);
	sync->delete_missing = delete > 0;
	sync->soft = delete == 1;
	if (choice_argument(fcinfo, ARG_CAPTURE, "capture", captures, 2) == 1)
		sync->kind = BDD_CURSOR_TRIGGER;
	else if (PG_ARGISNULL(ARG_CURSOR))
		sync->kind = BDD_CURSOR_FULL;
	if (sync->slice_rows <= 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("slice_rows must be positive")));
	if (sync->name[0] == '\0')
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("name must not be empty")));
	if (sync->kind == BDD_CURSOR_TRIGGER && !PG_ARGISNULL(ARG_CURSOR))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a sync with capture => 'trigger' has no cursor")));
}

/* Whether the lag is above zero; a negative one is an error. */
static bool
has_lag(const BddSync *sync)
{
	Interval zero = {0};
	Datum lag = IntervalPGetDatum(sync->lag);

	if (DatumGetBool(DirectFunctionCall2(interval_lt, lag, IntervalPGetDatum(&zero))))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("lag must not be negative")));
	return DatumGetBool(DirectFunctionCall2(interval_gt, lag, IntervalPGetDatum(&zero)));
}

/* ---------- the target's columns ---------- */

/*
 * The columns that are named, or else the primary key; a key without an index
 * is an error.
 */
static void
take_key(FunctionCallInfo fcinfo, BddSync *sync, Relation target)
{
	sync->key = PG_ARGISNULL(ARG_KEY) ? bdd_primary_key(target) :
										columns_argument(fcinfo, ARG_KEY, "key");
	(void) bdd_check_key(target, sync->key, true);
}

/* Columns that the sync itself fills in. */
static void
take_own_columns(FunctionCallInfo fcinfo, BddSync *sync, Relation target)
{
	TupleDesc desc = RelationGetDescr(target);
	AttrNumber version = bdd_column_number(desc, VERSION_COLUMN);

	if (version != InvalidAttrNumber && TupleDescAttr(desc, version - 1)->atttypid == TEXTOID)
		sync->version_column = VERSION_COLUMN;
	if (!sync->soft)
		return;
	bdd_check_argument(fcinfo, ARG_DELETED_COLUMN, "deleted_column");
	sync->deleted_column = text_argument(fcinfo, ARG_DELETED_COLUMN);
	bdd_check_columns(target, "deleted_column", list_make1(sync->deleted_column));
	switch (getBaseType(
		TupleDescAttr(desc, bdd_column_number(desc, sync->deleted_column) - 1)->atttypid))
	{
		case BOOLOID:
		case TIMESTAMPTZOID:
		case TIMESTAMPOID:
		case DATEOID:
			break;
		default:
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("column \"%s\" cannot mark rows as deleted", sync->deleted_column),
					 errdetail("It must be a boolean, or a time.")));
	}
}

/*
 * Adds a column and its expression.  A version column that is mapped is filled
 * by its expression, and by the sync no more.
 */
static void
map_column(BddSync *sync, char *column, char *expression)
{
	if (bdd_is_named(sync->columns, column))
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_COLUMN),
				 errmsg("column \"%s\" is twice in argument mapping", column)));
	if (sync->deleted_column != NULL && strcmp(column, sync->deleted_column) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
				 errmsg("column \"%s\" cannot be in argument mapping", column),
				 errdetail("It marks rows as deleted.")));
	if (strcmp(column, VERSION_COLUMN) == 0)
		sync->version_column = NULL;
	sync->columns = lappend(sync->columns, column);
	sync->expressions = lappend(sync->expressions, expression);
}

/* {"column": "expression", "column": null}: the second kind is not written. */
static List *
take_mapping(FunctionCallInfo fcinfo, BddSync *sync, Relation target)
{
	Jsonb *mapping;
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue value;
	List *left_out = NIL;
	char *column = NULL;

	bdd_check_argument(fcinfo, ARG_MAPPING, "mapping");
	mapping = PG_GETARG_JSONB_P(ARG_MAPPING);
	iterator = JsonbIteratorInit(&mapping->root);
	if (!JB_ROOT_IS_OBJECT(mapping))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument mapping must be a JSON object"),
				 errhint("Write for instance '{\"price\": \"src.price::numeric\"}'.")));
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
		{
			column = pnstrdup(value.val.string.val, value.val.string.len);
			bdd_check_columns(target, "mapping", list_make1(column));
		}
		else if (token == WJB_VALUE && value.type == jbvString)
		{
			char *expression = pnstrdup(value.val.string.val, value.val.string.len);

			bdd_sync_check_expression(psprintf("the mapping of column \"%s\"", column), expression);
			map_column(sync, column, expression);
		}
		else if (token == WJB_VALUE && value.type == jbvNull)
			left_out = lappend(left_out, column);
		else if (token == WJB_VALUE)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the mapping of column \"%s\" must be a string", column)));
	}
	return left_out;
}

/* Columns that source and target both have. */
static void
map_same_names(BddSync *sync, Relation target, Relation source, List *left_out)
{
	TupleDesc desc = RelationGetDescr(target);

	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);
		char *name = NameStr(attribute->attname);

		if (attribute->attisdropped || attribute->attgenerated ||
			bdd_is_named(sync->columns, name) || bdd_is_named(left_out, name) ||
			(sync->deleted_column != NULL && strcmp(name, sync->deleted_column) == 0) ||
			(attribute->attidentity == ATTRIBUTE_IDENTITY_ALWAYS &&
			 !bdd_is_named(sync->key, name)) ||
			bdd_column_number(RelationGetDescr(source), name) == InvalidAttrNumber)
			continue;
		map_column(sync, pstrdup(name), psprintf("src.%s", quote_identifier(name)));
	}
}

/* Without a value for each column of the key the sync could not find the target's row. */
static void
check_key_is_mapped(const BddSync *sync)
{
	ListCell *cell;

	foreach(cell, sync->key)
		if (!bdd_is_named(sync->columns, lfirst(cell)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("key column \"%s\" has no value", (char *) lfirst(cell)),
					 errdetail("The source has no column of that name, and the mapping no expression."),
					 errhint("mapping => '{\"%s\": \"src.column\"}'", (char *) lfirst(cell))));
}

/* ---------- the source's columns ---------- */

/* Whether the server can compare two rows by columns of this type. */
static bool
is_ordered(Oid type)
{
	TypeCacheEntry *entry = lookup_type_cache(getBaseType(type), TYPECACHE_GT_OPR);

	return OidIsValid(entry->gt_opr) &&
		   get_func_namespace(get_opcode(entry->gt_opr)) == PG_CATALOG_NAMESPACE;
}

/*
 * Adds a column of the source to the position, if it is not there yet.  A type
 * without an order is an error where the cursor has the column ("must"); a
 * column of the key is then left out.
 */
static void
add_position(BddSync *sync, Relation source, char *name, bool must)
{
	AttrNumber attnum = bdd_column_number(RelationGetDescr(source), name);
	Oid type;

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist", name, RelationGetRelationName(source)),
				 errdetail("It is named in argument %s.", must ? "cursor" : "mapping")));
	type = TupleDescAttr(RelationGetDescr(source), attnum - 1)->atttypid;
	if (bdd_is_named(sync->position, name) || (!must && !is_ordered(type)))
		return;
	if (!is_ordered(type))
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" of type %s cannot be in a cursor", name, format_type_be(type)),
				 errdetail("Values of the type have no order that the server's own types have.")));
	sync->position = lappend(sync->position, name);
	sync->position_types = lappend_oid(sync->position_types, type);
}

/* The cursor, and the key behind it where it consists of columns. */
static void
take_position(FunctionCallInfo fcinfo, BddSync *sync, Relation source)
{
	ListCell *cell;
	ListCell *column;
	ListCell *expression;

	foreach(cell, columns_argument(fcinfo, ARG_CURSOR, "cursor"))
		add_position(sync, source, lfirst(cell), true);
	sync->cursor_columns = list_length(sync->position);
	foreach(cell, sync->key)
		forboth(column, sync->columns, expression, sync->expressions)
		{
			char *name = bdd_sync_plain_column(lfirst(expression));

			if (strcmp(lfirst(column), lfirst(cell)) == 0 && name != NULL)
				add_position(sync, source, name, false);
		}
	if (sync->position == NIL ||
		(sync->kind == BDD_CURSOR_TRIGGER && bdd_sync_source_key(sync) == NIL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the source cannot be read in the order of the key"),
				 errdetail("The key is mapped to something else than columns of the source."),
				 sync->kind == BDD_CURSOR_TRIGGER ? 0 : errhint("Name columns to read it by: cursor => 'column, ...'.")));
}

/* 'deleted': true, or of another type than boolean and not NULL. */
static void
take_tombstone(FunctionCallInfo fcinfo, BddSync *sync, Relation source)
{
	List *names = columns_argument(fcinfo, ARG_TOMBSTONE, "tombstone");
	AttrNumber attnum;

	if (names == NIL)
		return;
	bdd_check_columns(source, "tombstone", names);
	if (list_length(names) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument tombstone must name one column")));
	attnum = bdd_column_number(RelationGetDescr(source), linitial(names));
	sync->tombstone = psprintf(
		getBaseType(TupleDescAttr(RelationGetDescr(source), attnum - 1)->atttypid) == BOOLOID ?
			"src.%s IS TRUE" :
			"src.%s IS NOT NULL",
		quote_identifier(linitial(names)));
}

/* A sync reads by index, or sorts what is left for every slice. */
static void
notice_index(const BddSync *sync, Relation source)
{
	StringInfoData columns;
	ListCell *cell;

	if (source->rd_rel->relkind != RELKIND_RELATION &&
		source->rd_rel->relkind != RELKIND_PARTITIONED_TABLE)
		return;
	foreach(cell, RelationGetIndexList(source))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		AttrNumber first = index->rd_index->indkey.values[0];
		bool fits = index->rd_rel->relam == BTREE_AM_OID ||
					index->rd_rel->relkind == RELKIND_PARTITIONED_INDEX;

		fits = fits && index->rd_indpred == NIL && first > 0 &&
			   strcmp(NameStr(TupleDescAttr(RelationGetDescr(source), first - 1)->attname),
					  linitial(sync->position)) == 0;
		index_close(index, NoLock);
		if (fits)
			return;
	}
	initStringInfo(&columns);
	foreach(cell, sync->position)
		appendStringInfo(&columns, "%s%s", columns.len > 0 ? ", " : "", quote_identifier(lfirst(cell)));
	ereport(NOTICE,
			(errmsg("table \"%s\" has no index on \"%s\", so every slice sorts all rows that are left",
					RelationGetRelationName(source), (char *) linitial(sync->position)),
			 errhint("CREATE INDEX ON %s (%s);", bdd_qualified_name(RelationGetRelid(source)), columns.data)));
}

/* ---------- the whole ---------- */

/*
 * A sync that writes through the buffer needs a registered target, whose key
 * has the same columns.
 */
static void
check_buffer(const BddSync *sync)
{
	BddOptions options;
	ListCell *cell;

	if (!sync->buffered)
		return;
	if (!bdd_options_read(sync->target, &options))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("table \"%s\" is not registered as a target", get_rel_name(sync->target)),
				 errhint("SELECT batchdedup.create_target(%s);", quote_literal_cstr(bdd_qualified_name(sync->target)))));
	foreach(cell, options.key_columns)
		if (!bdd_is_named(sync->key, lfirst(cell)) ||
			list_length(sync->key) != list_length(options.key_columns))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the key of the sync is not the key of target \"%s\"", get_rel_name(sync->target))));
}

/* Tells the caller the kind of the cursor, and on what condition no row is missed. */
static void
say_kind(const BddSync *sync)
{
	const char *cursor = linitial(sync->position);

	switch (sync->kind)
	{
		case BDD_CURSOR_CLOCK:
			ereport(NOTICE,
					(errmsg("the cursor of sync \"%s\" is of kind \"clock\"", sync->name),
					 errdetail("No row is missed if every writer sets \"%s\" from now() or clock_timestamp() in its own transaction.", cursor),
					 errhint("If clients set it themselves: capture => 'trigger'.")));
			break;
		case BDD_CURSOR_SEQUENCE:
			ereport(NOTICE,
					(errmsg("the cursor of sync \"%s\" is of kind \"sequence\"", sync->name),
					 errdetail("No row is missed if every \"%s\" comes from nextval in the transaction that writes the row.", cursor)));
			break;
		case BDD_CURSOR_OTHER:
			ereport(NOTICE,
					(errmsg("the cursor of sync \"%s\" is of kind \"other\"", sync->name),
					 errdetail("Its lag is a guess: rows that become visible later than that are missed.")));
			break;
		case BDD_CURSOR_FULL:
			ereport(NOTICE,
					(errmsg("sync \"%s\" has no cursor: every run reads the whole source", sync->name)));
			break;
		case BDD_CURSOR_TRIGGER:
			ereport(NOTICE,
					(errmsg("a trigger of \"%s\" keeps the keys that change for sync \"%s\"",
							get_rel_name(sync->source), sync->name)));
			break;
	}
}

/*
 * Inserts the sync's row, as the extension's owner, and sets its id.  A name
 * that is taken is an error.
 */
static void
insert_sync(BddSync *sync, char *delete_missing)
{
	Oid parameters[] = {TEXTOID, OIDOID, OIDOID, OIDOID, TEXTARRAYOID,
						TEXTARRAYOID, OIDARRAYOID, INT4OID, TEXTARRAYOID, TEXTARRAYOID,
						TEXTOID, INT4OID, TEXTOID, OIDOID, INTERVALOID,
						TEXTOID, BOOLOID, BOOLOID, TEXTARRAYOID, TEXTOID,
						TEXTOID, TEXTOID, TEXTOID, TEXTARRAYOID};
	Datum values[lengthof(parameters)];
	char nulls[lengthof(parameters) + 1];
	Datum *oids = palloc(sizeof(Datum) * list_length(sync->position_types));
	ListCell *cell;
	bool isnull;
	int count = 0;
	int i = 0;

	memset(nulls, ' ', sizeof(nulls) - 1);
	nulls[lengthof(parameters)] = '\0';
	foreach(cell, sync->position_types)
		oids[count++] = ObjectIdGetDatum(lfirst_oid(cell));
	values[i++] = CStringGetTextDatum(sync->name);
	values[i++] = ObjectIdGetDatum(sync->owner);
	values[i++] = ObjectIdGetDatum(sync->source);
	values[i++] = ObjectIdGetDatum(sync->target);
	values[i++] = bdd_text_array(sync->key);
	values[i++] = bdd_text_array(sync->position);
	values[i++] =
		PointerGetDatum(construct_array(oids, count, OIDOID, sizeof(Oid), true, TYPALIGN_INT));
	values[i++] = Int32GetDatum(sync->cursor_columns);
	values[i++] = bdd_text_array(sync->columns);
	values[i++] = bdd_text_array(sync->expressions);
	values[i] = bdd_text_or_null(sync->filter, &nulls[i]);
	i++;
	values[i++] = Int32GetDatum(sync->slice_rows);
	values[i++] = CStringGetTextDatum(bdd_cursor_kind_name(sync->kind));
	nulls[i] = OidIsValid(sync->sequence) ? ' ' : 'n';
	values[i++] = ObjectIdGetDatum(sync->sequence);
	values[i++] = IntervalPGetDatum(sync->lag);
	values[i++] = CStringGetTextDatum(sync->buffered ? "buffer" : "table");
	values[i++] = BoolGetDatum(sync->change_log);
	values[i++] = BoolGetDatum(sync->log_values);
	values[i++] = bdd_text_array(sync->hash_exclude);
	values[i++] = CStringGetTextDatum(delete_missing);
	values[i] = bdd_text_or_null(sync->tombstone, &nulls[i]);
	i++;
	values[i] = bdd_text_or_null(sync->deleted_column, &nulls[i]);
	i++;
	values[i] = bdd_text_or_null(sync->version_column, &nulls[i]);
	i++;
	values[i++] = bdd_text_array(sync->settings);
	Assert(i == lengthof(parameters));
	if (bdd_spi_run("INSERT INTO batchdedup.sync_row (name, owner, source, target, key_columns, position_columns, "
					"position_types, cursor_columns, columns, expressions, filter, slice_rows, cursor_kind, sequence, lag, "
					"write_to, change_log, log_values, hash_exclude, delete_missing, tombstone, deleted_column, version_column, settings) "
					"VALUES ($1, $2, $3, $4, $5, $6, $7::pg_catalog.regtype[], $8, $9, $10, $11, $12, $13, $14, $15, $16, "
					"$17, $18, $19, $20, $21, $22, $23, $24) ON CONFLICT (name) DO NOTHING RETURNING id",
					lengthof(parameters), parameters, values, nulls) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("sync \"%s\" already exists", sync->name)));
	sync->id = DatumGetInt32(bdd_spi_value(0, 1, &isnull));
}

/*
 * Finds out from the arguments what is read, mapped and written.  Both
 * relations stay locked until the transaction ends.
 */
static void
describe(FunctionCallInfo fcinfo, BddSync *sync)
{
	Relation source = relation_open(sync->source, AccessShareLock);
	Relation target = table_open(sync->target, AccessShareLock);
	List *left_out;

	take_key(fcinfo, sync, target);
	take_own_columns(fcinfo, sync, target);
	left_out = take_mapping(fcinfo, sync, target);
	map_same_names(sync, target, source, left_out);
	check_key_is_mapped(sync);
	if (sync->hash_exclude != NIL)
		bdd_check_columns(target, "hash_exclude", sync->hash_exclude);
	take_position(fcinfo, sync, source);
	take_tombstone(fcinfo, sync, source);
	if (sync->filter != NULL)
		bdd_sync_check_expression("argument filter", sync->filter);
	notice_index(sync, source);
	table_close(target, NoLock);
	relation_close(source, NoLock);
}

/* create_sync(name, source, target, ...) */
Datum
bdd_create_sync(PG_FUNCTION_ARGS)
{
	static const char *const kinds[] = {"clock", "sequence", "other"};
	BddSync sync = {0};
	BddSavedRole saved;
	char *wanted = NULL;
	bool lag;

	bdd_check_preloaded();
	PreventCommandDuringRecovery("create_sync()");
	PreventCommandIfReadOnly("create_sync()");
	take_arguments(fcinfo, &sync);
	lag = has_lag(&sync);
	if (!PG_ARGISNULL(ARG_CURSOR_KIND))
		wanted = pstrdup(kinds[choice_argument(fcinfo, ARG_CURSOR_KIND, "cursor_kind", kinds, lengthof(kinds))]);
	bdd_spi_connect();
	bdd_sync_check_relations(&sync);
	describe(fcinfo, &sync);
	check_buffer(&sync);

	bdd_sync_become(&sync, &saved);
	if (sync.cursor_columns > 0)
		bdd_sync_choose_kind(&sync, wanted, lag);
	bdd_sync_check_followers(&sync);
	bdd_sync_check_mapping(&sync);
	bdd_sync_try_out(&sync);
	bdd_restore_role(&saved);

	bdd_become_extension_owner(&saved);
	insert_sync(&sync, text_argument(fcinfo, ARG_DELETE_MISSING));
	bdd_restore_role(&saved);
	if (sync.kind == BDD_CURSOR_TRIGGER)
		bdd_capture_create(&sync);
	say_kind(&sync);
	bdd_spi_finish();
	PG_RETURN_VOID();
}
