/*-------------------------------------------------------------------------
 *
 * admin.c
 *		create_target, alter_target, drop_target, pause, resume.
 *
 *-------------------------------------------------------------------------
 */
#include "batchdedup.h"

#include "access/relation.h"
#include "access/xact.h"
#include "apply.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_type.h"
#include "flush_wait.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "pending.h"
#include "spi_util.h"
#include "storage/lmgr.h"
#include "target.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/varlena.h"
#include "xact.h"

PG_FUNCTION_INFO_V1(bdd_create_target);
PG_FUNCTION_INFO_V1(bdd_alter_target);
PG_FUNCTION_INFO_V1(bdd_drop_target);
PG_FUNCTION_INFO_V1(bdd_pause);
PG_FUNCTION_INFO_V1(bdd_resume);

/* Arguments that create_target and alter_target share, by position. */
enum
{
	ARG_TARGET,
	ARG_KEY,
	ARG_UPDATE_COLUMNS,
	ARG_MERGE,
	ARG_VERSION_COLUMN,
	ARG_LOGGED,
	ARG_MODE,
	ARG_FLUSH_INTERVAL,
	ARG_FLUSH_ROWS,
	ARG_ON_FULL,
	ARG_GUARD,
	ARG_FLUSH_GROUP,
	ARG_COALESCE_ROWS,
	ARG_LAST					/* if_not_exists or reset */
};

/* ---------- arguments ---------- */

/* Arguments for which there is only one value yet. */
static const struct
{
	int			position;
	const char *name;
	const char *allowed;		/* NULL: none */
}			later_arguments[] = {
	{ARG_MERGE, "merge", NULL},
	{ARG_VERSION_COLUMN, "version_column", NULL},
	{ARG_LOGGED, "logged", "false"},
	{ARG_FLUSH_GROUP, "flush_group", NULL},
	{ARG_COALESCE_ROWS, "coalesce_rows", "true"},
};

/* Arguments with a list of values; the first is the default. */
static const struct
{
	int			position;
	const char *name;
	const char *const values[5];
	const char *later;			/* a value that is not there yet, or NULL */
}			choices[] = {
	{ARG_MODE, "mode", {"buffered", "direct"}, "shadow"},
	{ARG_ON_FULL, "on_full", {"wait", "error", "direct"}, NULL},
	{ARG_GUARD, "guard", {"warn", "off", "flush", "error"}, NULL},
};

static const char *
argument_text(FunctionCallInfo fcinfo, int position)
{
	if (position == ARG_LOGGED || position == ARG_COALESCE_ROWS)
		return PG_GETARG_BOOL(position) ? "true" : "false";
	if (position == ARG_MERGE)
		return DatumGetCString(DirectFunctionCall1(jsonb_out,
												   PG_GETARG_DATUM(position)));
	return text_to_cstring(PG_GETARG_TEXT_PP(position));
}

static void
check_later_arguments(FunctionCallInfo fcinfo)
{
	for (int i = 0; i < lengthof(later_arguments); i++)
	{
		int			position = later_arguments[i].position;
		const char *allowed = later_arguments[i].allowed;
		const char *value;

		if (PG_ARGISNULL(position))
			continue;
		value = argument_text(fcinfo, position);
		if (allowed != NULL && strcmp(value, allowed) == 0)
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument %s => %s is not supported yet",
						later_arguments[i].name, quote_literal_cstr(value)),
				 allowed != NULL ?
				 errhint("The only value for now is %s.", allowed) :
				 errhint("Leave it out.")));
	}
}

static void
check_choice(int choice, const char *value)
{
	StringInfoData list;

	initStringInfo(&list);
	for (int i = 0; choices[choice].values[i] != NULL; i++)
	{
		if (strcmp(value, choices[choice].values[i]) == 0)
			return;
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "",
						 choices[choice].values[i]);
	}
	if (choices[choice].later != NULL &&
		strcmp(value, choices[choice].later) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument %s => '%s' is not supported yet",
						choices[choice].name, value)));
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument %s cannot be \"%s\"", choices[choice].name,
					value),
			 errhint("Its values are: %s.", list.data)));
}

static void
check_choices(FunctionCallInfo fcinfo)
{
	for (int i = 0; i < lengthof(choices); i++)
		if (!PG_ARGISNULL(choices[i].position))
			check_choice(i, argument_text(fcinfo, choices[i].position));
}

/*
 * 'a, "B"' or '{a,B}': names of columns.  Identifiers are folded and
 * truncated as in SQL; elements of an array are taken as they are.
 */
static List *
parse_columns(const char *argument, const char *value)
{
	char	   *copy = pstrdup(value);
	List	   *names = NIL;

	while (isspace((unsigned char) *copy))
		copy++;
	if (*copy == '{')
	{
		Datum		array = OidInputFunctionCall(F_ARRAY_IN, copy, TEXTOID, -1);
		Datum	   *elements;
		bool	   *nulls;
		int			count;

		deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
						  TYPALIGN_INT, &elements, &nulls, &count);
		for (int i = 0; i < count; i++)
		{
			if (nulls[i])
				ereport(ERROR,
						(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
						 errmsg("argument %s must not contain null",
								argument)));
			names = lappend(names, TextDatumGetCString(elements[i]));
		}
	}
	else if (!SplitIdentifierString(copy, ',', &names))
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("argument %s is not a list of columns: \"%s\"",
						argument, value),
				 errhint("Write for instance 'id, \"Mixed Case\"'.")));
	return names;
}

static void
check_name_list(Relation rel, const char *argument, List *names)
{
	ListCell   *cell;
	int			i = 0;

	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		AttrNumber	attnum = bdd_column_number(RelationGetDescr(rel), name);

		if (attnum == InvalidAttrNumber)
			ereport(ERROR,
					(errcode(ERRCODE_UNDEFINED_COLUMN),
					 errmsg("column \"%s\" of relation \"%s\" does not exist",
							name, RelationGetRelationName(rel)),
					 errdetail("It is named in argument %s.", argument)));
		if (TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attgenerated)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("generated column \"%s\" cannot be in argument %s",
							name, argument)));
		for (int j = 0; j < i; j++)
			if (strcmp(list_nth(names, j), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" is twice in argument %s",
								name, argument)));
		i++;
	}
}

/* ---------- the table ---------- */

static void
refuse_table(Relation rel, int code, const char *reason, const char *hint)
{
	ereport(ERROR,
			(errcode(code),
			 errmsg("\"%s\" cannot be a target of batchdedup",
					RelationGetRelationName(rel)),
			 errdetail("%s", reason),
			 hint != NULL ? errhint("%s", hint) : 0));
}

static void
check_table(Relation rel)
{
	char		kind = rel->rd_rel->relkind;

	if (kind == RELKIND_VIEW || kind == RELKIND_MATVIEW)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE, "It is a view.",
					 "Register the table behind it.");
	if (kind == RELKIND_FOREIGN_TABLE)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE,
					 "It is a foreign table.", NULL);
	if (kind != RELKIND_RELATION && kind != RELKIND_PARTITIONED_TABLE)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE, "It is not a table.",
					 NULL);
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_TEMP)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE,
					 "It is a temporary table, which only its session can write.",
					 NULL);
	if (IsSystemRelation(rel) ||
		RelationGetNamespace(rel) == get_namespace_oid(BDD_SCHEMA, true))
		refuse_table(rel, ERRCODE_INSUFFICIENT_PRIVILEGE,
					 "It is a system table.", NULL);
	if (rel->rd_rules != NULL)
		refuse_table(rel, ERRCODE_WRONG_OBJECT_TYPE,
					 "It has rules, with which INSERT ... ON CONFLICT does not work.",
					 "Use triggers instead.");
}

static void
check_owner(Oid relid)
{
	if (!bdd_owns_relation(relid, GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER,
					   get_relkind_objtype(get_rel_relkind(relid)),
					   get_rel_name(relid));
}

/* ---------- the key ---------- */

static List *
index_column_names(Oid index, int count)
{
	HeapTuple	tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));
	Form_pg_index form = (Form_pg_index) GETSTRUCT(tuple);
	List	   *names = NIL;

	for (int i = 0; i < count && i < form->indnkeyatts; i++)
		names = lappend(names, get_attname(form->indrelid,
										   form->indkey.values[i], false));
	ReleaseSysCache(tuple);
	return names;
}

static char *
join_names(List *names)
{
	StringInfoData joined;
	ListCell   *cell;

	initStringInfo(&joined);
	foreach(cell, names)
		appendStringInfo(&joined, "%s%s", joined.len > 0 ? ", " : "",
						 quote_identifier(lfirst(cell)));
	return joined.data;
}

static List *
primary_key(Relation rel)
{
	Oid			index;

	(void) RelationGetIndexList(rel);
	index = rel->rd_pkindex;
	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table \"%s\" has no primary key",
						RelationGetRelationName(rel)),
				 errhint("Name the columns of a unique index: key => 'column, ...'.")));
	return index_column_names(index, INDEX_MAX_KEYS);
}

static void
check_key_columns(Relation rel, List *names)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		AttrNumber	attnum = bdd_column_number(RelationGetDescr(rel),
											   lfirst(cell));

		if (!TupleDescAttr(RelationGetDescr(rel), attnum - 1)->attnotnull)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
					 errmsg("key column \"%s\" can be null",
							(char *) lfirst(cell)),
					 errhint("ALTER TABLE %s ALTER COLUMN %s SET NOT NULL;",
							 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
														RelationGetRelationName(rel)),
							 quote_identifier(lfirst(cell)))));
	}
}

/* The index on the key; its absence is an error. */
static Oid
check_key(Relation rel, List *names)
{
	AttrNumber	attnums[INDEX_MAX_KEYS];
	int			count = 0;
	ListCell   *cell;
	Oid			index;

	if (names == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an empty key is not supported yet")));
	check_name_list(rel, "key", names);
	foreach(cell, names)
		if (count < INDEX_MAX_KEYS)
			attnums[count++] = bdd_column_number(RelationGetDescr(rel),
												 lfirst(cell));
	index = bdd_key_index(rel, attnums, list_length(names));
	if (!OidIsValid(index))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TABLE_DEFINITION),
				 errmsg("table \"%s\" has no unique index on (%s)",
						RelationGetRelationName(rel), join_names(names)),
				 errdetail("The index must be a valid btree on just these columns, without expressions or predicate, and not deferrable."),
				 errhint("CREATE UNIQUE INDEX ON %s (%s);",
						 quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
													RelationGetRelationName(rel)),
						 join_names(names))));
	check_key_columns(rel, names);
	return index;
}

static bool
key_is_identity(Relation rel, List *names)
{
	return list_length(names) == 1 &&
		TupleDescAttr(RelationGetDescr(rel),
					  bdd_column_number(RelationGetDescr(rel),
										linitial(names)) - 1)->attidentity;
}

/* Another unique index can refuse a row when it is applied. */
static void
notice_other_indexes(Relation rel, Oid key_index, List *key)
{
	ListCell   *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Oid			index = lfirst_oid(cell);
		HeapTuple	tuple = SearchSysCache1(INDEXRELID,
											ObjectIdGetDatum(index));
		bool		unique = HeapTupleIsValid(tuple) &&
			((Form_pg_index) GETSTRUCT(tuple))->indisunique;

		if (HeapTupleIsValid(tuple))
			ReleaseSysCache(tuple);
		if (!unique || index == key_index)
			continue;
		ereport(NOTICE,
				(errmsg("table \"%s\" has another unique index, \"%s\"",
						RelationGetRelationName(rel), get_rel_name(index)),
				 errdetail("A row that violates it is refused when it is applied, not at the call."),
				 key_is_identity(rel, key) ?
				 errhint("The key \"%s\" is generated for new rows. If rows are found by other columns, name them: key => '%s'.",
						 (char *) linitial(key),
						 join_names(index_column_names(index,
													   INDEX_MAX_KEYS))) : 0));
	}
}

static void
check_update_columns(Relation rel, List *key, List *names)
{
	ListCell   *cell;

	check_name_list(rel, "update_columns", names);
	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		AttrNumber	attnum = bdd_column_number(RelationGetDescr(rel), name);
		ListCell   *key_cell;

		foreach(key_cell, key)
			if (strcmp(lfirst(key_cell), name) == 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
						 errmsg("key column \"%s\" cannot be in argument update_columns",
								name)));
		if (TupleDescAttr(RelationGetDescr(rel),
						  attnum - 1)->attidentity == ATTRIBUTE_IDENTITY_ALWAYS)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_COLUMN_REFERENCE),
					 errmsg("column \"%s\" is GENERATED ALWAYS AS IDENTITY and cannot be in argument update_columns",
							name)));
	}
}

/* ---------- the catalog ---------- */

static Datum
names_datum(List *names)
{
	Datum	   *elements = palloc(Max(list_length(names), 1) * sizeof(Datum));
	int			count = 0;
	ListCell   *cell;

	foreach(cell, names)
		elements[count++] = CStringGetTextDatum(lfirst(cell));
	return PointerGetDatum(construct_array(elements, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

/* Runs a statement on our tables; the table's targets are looked up anew. */
static void
change_catalog(Oid relid, const char *sql, int nargs, Oid *types,
			   Datum *values, const char *nulls)
{
	BddIdentity saved;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run(sql, nargs, types, values, nulls);
	bdd_spi_finish();
	bdd_become_again(&saved);
	CacheInvalidateRelcacheByRelid(relid);
	/* Local caches hear of it now, and also if we are rolled back. */
	CommandCounterIncrement();
}

static void
check_interval(const Interval *interval)
{
	if (interval->month < 0 || interval->day < 0 || interval->time < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument flush_interval must not be negative")));
}

static void
check_flush_arguments(FunctionCallInfo fcinfo)
{
	if (!PG_ARGISNULL(ARG_FLUSH_INTERVAL))
		check_interval(PG_GETARG_INTERVAL_P(ARG_FLUSH_INTERVAL));
	if (!PG_ARGISNULL(ARG_FLUSH_ROWS) && PG_GETARG_INT32(ARG_FLUSH_ROWS) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument flush_rows must not be negative")));
}

static Oid
check_target_argument(FunctionCallInfo fcinfo)
{
	bdd_check_preloaded();
	PreventCommandDuringRecovery("changing a target");
	PreventCommandIfReadOnly("changing a target");
	if (PG_ARGISNULL(ARG_TARGET))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	return PG_GETARG_OID(ARG_TARGET);
}

/* ---------- create_target ---------- */

static bool
already_there(Relation rel, bool if_not_exists)
{
	BddOptions	options;

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

static void
insert_target(FunctionCallInfo fcinfo, Oid relid, List *key, List *update,
			  bool default_update)
{
	Oid			types[] = {REGCLASSOID, TEXTARRAYOID, TEXTARRAYOID,
	INTERVALOID, INT4OID, TEXTOID, TEXTOID, TEXTOID};
	Datum		values[] = {ObjectIdGetDatum(relid), names_datum(key),
		names_datum(update), PG_GETARG_DATUM(ARG_FLUSH_INTERVAL),
		PG_GETARG_DATUM(ARG_FLUSH_ROWS), PG_GETARG_DATUM(ARG_MODE),
	PG_GETARG_DATUM(ARG_ON_FULL), PG_GETARG_DATUM(ARG_GUARD)};
	char		nulls[] = "        ";

	if (default_update)
		nulls[2] = 'n';
	if (PG_ARGISNULL(ARG_FLUSH_INTERVAL))
		nulls[3] = 'n';
	if (PG_ARGISNULL(ARG_FLUSH_ROWS))
		nulls[4] = 'n';
	if (PG_ARGISNULL(ARG_MODE))
		nulls[5] = 'n';
	if (PG_ARGISNULL(ARG_ON_FULL))
		nulls[6] = 'n';
	if (PG_ARGISNULL(ARG_GUARD))
		nulls[7] = 'n';
	change_catalog(relid,
				   "INSERT INTO batchdedup.target_option "
				   "(target, key_columns, update_columns, flush_interval, flush_rows, mode, on_full, guard) "
				   "VALUES ($1, $2, $3, $4, $5, coalesce($6, 'buffered'), coalesce($7, 'wait'), coalesce($8, 'warn'))",
				   lengthof(types), types, values, nulls);
}

Datum
bdd_create_target(PG_FUNCTION_ARGS)
{
	Oid			relid = check_target_argument(fcinfo);
	bool		default_update = PG_ARGISNULL(ARG_UPDATE_COLUMNS);
	Relation	rel;
	List	   *key;
	List	   *update = NIL;
	Oid			key_index;

	check_later_arguments(fcinfo);
	check_choices(fcinfo);
	check_flush_arguments(fcinfo);
	/* Conflicts with itself: one registration at a time. */
	rel = relation_open(relid, ShareUpdateExclusiveLock);
	check_table(rel);
	check_owner(relid);
	if (!already_there(rel, !PG_ARGISNULL(ARG_LAST) &&
					   PG_GETARG_BOOL(ARG_LAST)))
	{
		key = PG_ARGISNULL(ARG_KEY) ? primary_key(rel) :
			parse_columns("key", text_to_cstring(PG_GETARG_TEXT_PP(ARG_KEY)));
		key_index = check_key(rel, key);
		if (!default_update)
			update = parse_columns("update_columns",
								   text_to_cstring(PG_GETARG_TEXT_PP(ARG_UPDATE_COLUMNS)));
		check_update_columns(rel, key, update);
		notice_other_indexes(rel, key_index, key);
		insert_target(fcinfo, relid, key, update, default_update);
	}
	relation_close(rel, NoLock);
	PG_RETURN_VOID();
}

/* ---------- alter_target and drop_target ---------- */

static void
refuse_pending(Oid relid)
{
	BddPending *pending = bdd_pending_find(relid);

	if (pending != NULL && pending->set->count > 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("this transaction has upserted rows into \"%s\"",
						get_rel_name(relid)),
				 errhint("Commit it first.")));
}

/*
 * Brings what is buffered to the table and keeps writers out until the end of
 * the transaction.  Most is flushed before the lock is taken; the rest is
 * applied in this transaction.
 */
static BddTarget *
close_target(Oid relid)
{
	BddTarget  *target = bdd_target_open_any(relid, AccessShareLock);
	BddSharedSlot *slot = bdd_target_slot(target);
	TimestampTz since = GetCurrentTimestamp();

	refuse_pending(relid);
	if (!target->options.paused && target->broken == BDD_USABLE)
		bdd_wait_applied(slot, target->options.target_id,
						 bdd_request_flush(slot, true), since, true);
	target = bdd_target_open_any(relid, ShareRowExclusiveLock);
	if (bdd_slot_has_unapplied(bdd_target_slot(target)))
		bdd_apply_here(bdd_target_open(relid, ShareRowExclusiveLock));
	return target;
}

/* What alter_target changes, as a SET list with parameters $2 ... */
typedef struct BddChanges
{
	StringInfoData set;
	int			count;			/* of parameters, $1 included */
	Oid			types[12];
	Datum		values[12];
} BddChanges;

static void
add_change(BddChanges *changes, const char *column, Oid type, Datum value)
{
	changes->types[changes->count] = type;
	changes->values[changes->count] = value;
	changes->count++;
	appendStringInfo(&changes->set, "%s%s = $%d",
					 changes->set.len > 0 ? ", " : "", column, changes->count);
}

static void
add_reset(BddChanges *changes, const char *column)
{
	appendStringInfo(&changes->set, "%s%s = NULL",
					 changes->set.len > 0 ? ", " : "", column);
}

static const char *const argument_names[] = {
	"target", "key", "update_columns", "merge", "version_column", "logged",
	"mode", "flush_interval", "flush_rows", "on_full", "guard", "flush_group",
	"coalesce_rows"
};

/* An option is reset once, and not set as well. */
static void
check_reset(FunctionCallInfo fcinfo, List *names, int position)
{
	const char *name = list_nth(names, position);

	for (int i = 0; i < position; i++)
		if (strcmp(list_nth(names, i), name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("target option \"%s\" is twice in argument reset",
							name)));
	for (int i = ARG_KEY; i < ARG_LAST; i++)
		if (strcmp(argument_names[i], name) == 0 && !PG_ARGISNULL(i))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("target option \"%s\" is both set and reset",
							name)));
}

/* Options that go back to their default; tells what they mean for the key. */
static void
collect_resets(FunctionCallInfo fcinfo, List *names, BddChanges *changes,
			   bool *reset_key, bool *reset_update)
{
	ListCell   *cell;

	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		bool		known = false;

		check_reset(fcinfo, names, foreach_current_index(cell));
		if (strcmp(name, "flush_interval") == 0 ||
			strcmp(name, "flush_rows") == 0)
		{
			add_reset(changes, name);
			continue;
		}
		for (int i = 0; i < lengthof(choices); i++)
			if (strcmp(name, choices[i].name) == 0)
			{
				add_change(changes, name, TEXTOID,
						   CStringGetTextDatum(choices[i].values[0]));
				known = true;
			}
		if (strcmp(name, "key") == 0)
			*reset_key = known = true;
		else if (strcmp(name, "update_columns") == 0)
			*reset_update = known = true;
		for (int i = 0; i < lengthof(later_arguments); i++)
			known = known || strcmp(name, later_arguments[i].name) == 0;
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("target option \"%s\" does not exist", name)));
	}
}

/* A new key or new update columns, checked together with what stays. */
static void
collect_columns(FunctionCallInfo fcinfo, BddTarget *target, bool reset_key,
				bool reset_update, BddChanges *changes)
{
	Relation	rel = relation_open(target->relid, NoLock);
	List	   *key = target->options.key_columns;
	List	   *update = target->options.update_columns;
	bool		default_update = target->options.default_update || reset_update;

	if (!PG_ARGISNULL(ARG_KEY))
		key = parse_columns("key", text_to_cstring(PG_GETARG_TEXT_PP(ARG_KEY)));
	else if (reset_key)
		key = primary_key(rel);
	if (!PG_ARGISNULL(ARG_UPDATE_COLUMNS))
	{
		update = parse_columns("update_columns",
							   text_to_cstring(PG_GETARG_TEXT_PP(ARG_UPDATE_COLUMNS)));
		default_update = false;
	}
	(void) check_key(rel, key);
	if (!default_update)
		check_update_columns(rel, key, update);
	relation_close(rel, NoLock);

	add_change(changes, "key_columns", TEXTARRAYOID, names_datum(key));
	if (default_update)
		add_reset(changes, "update_columns");
	else
		add_change(changes, "update_columns", TEXTARRAYOID,
				   names_datum(update));
}

Datum
bdd_alter_target(PG_FUNCTION_ARGS)
{
	Oid			relid = check_target_argument(fcinfo);
	BddTarget  *target;
	BddChanges	changes = {.count = 1};
	List	   *resets = NIL;
	bool		reset_key = false;
	bool		reset_update = false;

	check_later_arguments(fcinfo);
	check_choices(fcinfo);
	check_flush_arguments(fcinfo);
	check_owner(relid);
	initStringInfo(&changes.set);
	if (!PG_ARGISNULL(ARG_LAST))
		resets = parse_columns("reset",
							   text_to_cstring(PG_GETARG_TEXT_PP(ARG_LAST)));
	collect_resets(fcinfo, resets, &changes, &reset_key, &reset_update);
	if (!PG_ARGISNULL(ARG_KEY) || !PG_ARGISNULL(ARG_UPDATE_COLUMNS) ||
		reset_key || reset_update)
	{
		target = close_target(relid);
		collect_columns(fcinfo, target, reset_key, reset_update, &changes);
	}
	else if (!PG_ARGISNULL(ARG_MODE))
		target = close_target(relid);
	else
		target = bdd_target_open_any(relid, ShareUpdateExclusiveLock);
	if (!PG_ARGISNULL(ARG_FLUSH_INTERVAL))
		add_change(&changes, "flush_interval", INTERVALOID,
				   PG_GETARG_DATUM(ARG_FLUSH_INTERVAL));
	if (!PG_ARGISNULL(ARG_FLUSH_ROWS))
		add_change(&changes, "flush_rows", INT4OID,
				   PG_GETARG_DATUM(ARG_FLUSH_ROWS));
	for (int i = 0; i < lengthof(choices); i++)
		if (!PG_ARGISNULL(choices[i].position))
			add_change(&changes, choices[i].name, TEXTOID,
					   PG_GETARG_DATUM(choices[i].position));
	if (changes.set.len > 0)
	{
		changes.types[0] = REGCLASSOID;
		changes.values[0] = ObjectIdGetDatum(relid);
		change_catalog(relid,
					   psprintf("UPDATE batchdedup.target_option SET %s "
								"WHERE target OPERATOR(pg_catalog.=) $1",
								changes.set.data),
					   changes.count, changes.types, changes.values, NULL);
		bdd_at_commit_wake_worker(bdd_target_slot(target));
	}
	PG_RETURN_VOID();
}

static void
delete_from_catalog(Oid relid, int32 target_id)
{
	Oid			types[] = {INT4OID};
	Datum		values[] = {Int32GetDatum(target_id)};

	change_catalog(relid,
				   "DELETE FROM batchdedup.target_option "
				   "WHERE target_id OPERATOR(pg_catalog.=) $1",
				   1, types, values, NULL);
	change_catalog(relid,
				   "DELETE FROM batchdedup.mark "
				   "WHERE target_id OPERATOR(pg_catalog.=) $1",
				   1, types, values, NULL);
}

Datum
bdd_drop_target(PG_FUNCTION_ARGS)
{
	Oid			relid = check_target_argument(fcinfo);
	BddOptions	options;
	BddTarget  *target;

	check_owner(relid);
	if (!bdd_options_read(relid, &options) && !PG_ARGISNULL(1) &&
		PG_GETARG_BOOL(1))
	{
		ereport(NOTICE,
				(errmsg("table \"%s\" is not a target, skipping",
						get_rel_name(relid))));
		PG_RETURN_VOID();
	}
	target = close_target(relid);
	bdd_at_commit_free_slot(target->slot);
	delete_from_catalog(relid, target->options.target_id);
	PG_RETURN_VOID();
}

/* ---------- pause and resume ---------- */

static void
set_paused(FunctionCallInfo fcinfo, bool paused)
{
	Oid			relid = check_target_argument(fcinfo);
	BddTarget  *target;
	Oid			types[] = {REGCLASSOID, BOOLOID};
	Datum		values[] = {ObjectIdGetDatum(relid), BoolGetDatum(paused)};

	check_owner(relid);
	target = bdd_target_open_any(relid, ShareUpdateExclusiveLock);
	change_catalog(relid,
				   "UPDATE batchdedup.target_option SET paused = $2 "
				   "WHERE target OPERATOR(pg_catalog.=) $1",
				   2, types, values, NULL);
	bdd_at_commit_wake_worker(bdd_target_slot(target));
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
