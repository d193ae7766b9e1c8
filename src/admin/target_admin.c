/*-------------------------------------------------------------------------
 *
 * target_admin.c
 *		create_target, alter_target, drop_target, pause, resume.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/relation.h"
#include "access/xact.h"
#include "access/xlog.h"
#include "apply/close.h"
#include "base/list.h"
#include "base/loaded.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/wake.h"
#include "catalog/catalog.h"
#include "catalog/namespace.h"
#include "catalog/pg_attribute.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commit/xact.h"
#include "fmgr.h"
#include "journal/message.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "proxy/redirect.h"
#include "proxy/view.h"
#include "sql/spi.h"
#include "target/old_shape.h"
#include "target/target.h"
#include "target/target_check.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

PG_FUNCTION_INFO_V1(bdd_create_target);
PG_FUNCTION_INFO_V1(bdd_alter_target);
PG_FUNCTION_INFO_V1(bdd_drop_target);
PG_FUNCTION_INFO_V1(bdd_pause);
PG_FUNCTION_INFO_V1(bdd_resume);
PG_FUNCTION_INFO_V1(bdd_accept_loss);

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
	ARG_LAST /* if_not_exists or reset */
};

/* ---------- arguments ---------- */

/* Arguments with a list of values; the first is the default. */
static const struct
{
	int position;
	const char *name;
	const char *const values[5];
	const char *later; /* a value that is not there yet, or NULL */
} choices[] = {
	{ARG_MODE, "mode", {"buffered", "direct"}, "shadow"},
	{ARG_ON_FULL, "on_full", {"wait", "error", "direct"}, NULL},
	{ARG_GUARD, "guard", {"warn", "off", "flush", "error"}, NULL},
};

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
			check_choice(i, text_to_cstring(PG_GETARG_TEXT_PP(choices[i].position)));
}

static List *
columns_argument(FunctionCallInfo fcinfo, int position, const char *argument)
{
	return bdd_parse_columns(argument,
							 text_to_cstring(PG_GETARG_TEXT_PP(position)));
}

/* {"column": "rule", ...} */
static void
parse_merge(Jsonb *merge, List **columns, List **rules)
{
	JsonbIterator *iterator = JsonbIteratorInit(&merge->root);
	JsonbValue value;
	JsonbIteratorToken token;

	if (!JB_ROOT_IS_OBJECT(merge))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument merge must be a JSON object"),
				 errhint("Write for instance '{\"fill_count\": \"sum\"}'.")));
	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		if (token == WJB_KEY)
			*columns = lappend(*columns, pnstrdup(value.val.string.val,
												  value.val.string.len));
		else if (token == WJB_VALUE && value.type == jbvString)
			*rules = lappend(*rules, pnstrdup(value.val.string.val,
											  value.val.string.len));
		else if (token == WJB_VALUE)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the merge rule of column \"%s\" must be a string",
							(char *) llast(*columns))));
	}
}

/* Functions by a name that means the same under every search_path. */
static List *
qualified_rules(Relation rel, List *columns, List *rules)
{
	List *qualified = NIL;
	ListCell *column;
	ListCell *rule;

	forboth(column, columns, rule, rules)
	{
		AttrNumber attnum = bdd_column_number(RelationGetDescr(rel),
											  lfirst(column));
		Oid type = TupleDescAttr(RelationGetDescr(rel), attnum - 1)->atttypid;

		qualified = lappend(qualified,
							bdd_rule_qualified_name(lfirst(rule), type));
	}
	return qualified;
}

/*
 * What an upsert means: columns and their rules, as create_target and
 * alter_target were told or as they are.
 */
typedef struct BddMeaning
{
	List *key;
	List *update;
	bool default_update;
	List *merge_columns;
	List *merge_rules;
	char *version_column;
	bool coalesce_rows;
	bool logged;
} BddMeaning;

static char *
version_argument(FunctionCallInfo fcinfo)
{
	List *names = columns_argument(fcinfo, ARG_VERSION_COLUMN,
								   "version_column");

	if (list_length(names) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument version_column must name one column")));
	return linitial(names);
}

/* Replaces what arguments give. */
static void
take_meaning(FunctionCallInfo fcinfo, BddMeaning *meaning)
{
	if (!PG_ARGISNULL(ARG_KEY))
		meaning->key = columns_argument(fcinfo, ARG_KEY, "key");
	if (!PG_ARGISNULL(ARG_UPDATE_COLUMNS))
	{
		meaning->update = columns_argument(fcinfo, ARG_UPDATE_COLUMNS,
										   "update_columns");
		meaning->default_update = false;
	}
	if (!PG_ARGISNULL(ARG_MERGE))
	{
		meaning->merge_columns = NIL;
		meaning->merge_rules = NIL;
		parse_merge(PG_GETARG_JSONB_P(ARG_MERGE), &meaning->merge_columns,
					&meaning->merge_rules);
	}
	if (!PG_ARGISNULL(ARG_VERSION_COLUMN))
		meaning->version_column = version_argument(fcinfo);
	if (!PG_ARGISNULL(ARG_COALESCE_ROWS))
		meaning->coalesce_rows = PG_GETARG_BOOL(ARG_COALESCE_ROWS);
	if (!PG_ARGISNULL(ARG_LOGGED))
		meaning->logged = PG_GETARG_BOOL(ARG_LOGGED);
}

/* A logged target needs a journal, and a table that is worth one. */
static void
check_logged(Relation rel)
{
	if (rel->rd_rel->relpersistence == RELPERSISTENCE_UNLOGGED)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("table \"%s\" is unlogged, and a target of it cannot be logged",
						RelationGetRelationName(rel)),
				 errhint("Use logged => false.")));
	bdd_journal_check_kept();
}

/* Checks it as a whole; returns the key's index. */
static Oid
check_meaning(Relation rel, BddMeaning *meaning)
{
	Oid index = bdd_check_key(rel, meaning->key, meaning->coalesce_rows);

	if (!meaning->default_update)
		bdd_check_update_columns(rel, meaning->key, meaning->update);
	bdd_check_rules(rel, meaning->key, meaning->update,
					meaning->default_update, meaning->merge_columns,
					meaning->merge_rules, meaning->version_column);
	if (meaning->key == NIL &&
		(meaning->merge_columns != NIL || meaning->version_column != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a target without a key has neither merge rules nor a version column"),
				 errdetail("Its rows are inserted and never change.")));
	meaning->merge_rules = qualified_rules(rel, meaning->merge_columns,
										   meaning->merge_rules);
	if (meaning->logged)
		check_logged(rel);
	return index;
}

/* ---------- the catalog ---------- */

/* Runs a statement on our tables; the table's targets are looked up anew. */
static void
change_catalog(Oid relid, const char *sql, int nargs, Oid *types,
			   Datum *values, const char *nulls)
{
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run(sql, nargs, types, values, nulls);
	bdd_spi_finish();
	bdd_restore_role(&saved);
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
	if (!PG_ARGISNULL(ARG_FLUSH_GROUP) &&
		VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(ARG_FLUSH_GROUP)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument flush_group must not be empty"),
				 errhint("reset => 'flush_group' takes a target out of its group.")));
}

/* After the change. */
static void
check_group_size(FunctionCallInfo fcinfo)
{
	Oid types[] = {TEXTOID};
	Datum values[] = {PG_GETARG_DATUM(ARG_FLUSH_GROUP)};
	BddSavedRole saved;
	uint64 members;

	if (PG_ARGISNULL(ARG_FLUSH_GROUP))
		return;
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	members = bdd_spi_run("SELECT 1 FROM batchdedup.target_option "
						  "WHERE flush_group OPERATOR(pg_catalog.=) $1",
						  1, types, values, NULL);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	if (members > BDD_GROUP_MEMBERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a flush_group cannot have more than %d targets",
						BDD_GROUP_MEMBERS)));
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

static void
insert_target(FunctionCallInfo fcinfo, Oid relid, TupleDesc desc,
			  const BddMeaning *meaning)
{
	Oid types[] = {REGCLASSOID, TEXTARRAYOID, TEXTARRAYOID,
				   INTERVALOID, INT4OID, TEXTOID, TEXTOID, TEXTOID,
				   TEXTARRAYOID, TEXTARRAYOID, TEXTOID, BOOLOID, TEXTOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(relid), bdd_text_array(meaning->key),
					  bdd_text_array(meaning->update),
					  PG_GETARG_DATUM(ARG_FLUSH_INTERVAL),
					  PG_GETARG_DATUM(ARG_FLUSH_ROWS),
					  PG_GETARG_DATUM(ARG_MODE), PG_GETARG_DATUM(ARG_ON_FULL),
					  PG_GETARG_DATUM(ARG_GUARD),
					  bdd_text_array(meaning->merge_columns),
					  bdd_text_array(meaning->merge_rules), (Datum) 0,
					  BoolGetDatum(meaning->coalesce_rows),
					  PG_GETARG_DATUM(ARG_FLUSH_GROUP),
					  BoolGetDatum(meaning->logged)};
	char nulls[] = "              ";
	BddOptions options;

	if (meaning->default_update)
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
	if (meaning->merge_columns == NIL)
		nulls[8] = nulls[9] = 'n';
	nulls[10] = 'n';
	if (meaning->version_column != NULL)
	{
		nulls[10] = ' ';
		values[10] = CStringGetTextDatum(meaning->version_column);
	}
	if (PG_ARGISNULL(ARG_FLUSH_GROUP))
		nulls[12] = 'n';
	change_catalog(relid,
				   "INSERT INTO batchdedup.target_option "
				   "(target, key_columns, update_columns, flush_interval, flush_rows, mode, on_full, guard, "
				   "merge_columns, merge_rules, version_column, coalesce_rows, flush_group, logged) "
				   "VALUES ($1, $2, $3, $4, $5, coalesce($6, 'buffered'), coalesce($7, 'wait'), coalesce($8, 'warn'), "
				   "$9, $10, $11, $12, $13, $14)",
				   lengthof(types), types, values, nulls);
	check_group_size(fcinfo);
	if (!bdd_options_read(relid, &options))
		elog(ERROR, "target of table %u is not there", relid);
	bdd_at_abort_free_slot(options.target_id);
	types[0] = INT4OID;
	types[1] = TEXTOID;
	values[0] = Int32GetDatum(options.target_id);
	values[1] = CStringGetTextDatum(bdd_shape_to_text(desc));
	change_catalog(relid,
				   "UPDATE batchdedup.mark SET shape = $2 "
				   "WHERE target_id OPERATOR(pg_catalog.=) $1",
				   2, types, values, NULL);
	types[0] = REGCLASSOID;
	types[1] = INT4OID;
	values[0] = ObjectIdGetDatum(relid);
	values[1] = Int32GetDatum(options.target_id);
	/* Letters of the table from before its last drop_target. */
	change_catalog(relid,
				   "UPDATE batchdedup.dead_letter_row SET target_id = $2 "
				   "WHERE target OPERATOR(pg_catalog.=) $1",
				   2, types, values, NULL);
}

Datum
bdd_create_target(PG_FUNCTION_ARGS)
{
	Oid relid = check_target_argument(fcinfo);
	BddMeaning meaning = {.default_update = true, .coalesce_rows = true, .logged = true};
	Relation rel;
	Oid key_index;

	check_choices(fcinfo);
	check_flush_arguments(fcinfo);
	/* Conflicts with itself: one registration at a time. */
	rel = relation_open(relid, ShareUpdateExclusiveLock);
	bdd_check_table(rel);
	bdd_check_owner(relid);
	if (!already_there(rel, !PG_ARGISNULL(ARG_LAST) &&
								PG_GETARG_BOOL(ARG_LAST)))
	{
		take_meaning(fcinfo, &meaning);
		if (PG_ARGISNULL(ARG_KEY))
			meaning.key = bdd_primary_key(rel);
		key_index = check_meaning(rel, &meaning);
		if (OidIsValid(key_index))
			bdd_notice_other_indexes(rel, key_index, meaning.key);
		insert_target(fcinfo, relid, RelationGetDescr(rel), &meaning);
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

/* What alter_target changes, as a SET list with parameters $2 ... */
typedef struct BddChanges
{
	StringInfoData set;
	int count; /* of parameters, $1 included */
	Oid types[16];
	Datum values[16];
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
	"coalesce_rows"};

/* Options of BddMeaning. */
static bool
is_meaning(const char *name)
{
	static const char *const names[] = {"key", "update_columns", "merge",
										"version_column", "coalesce_rows",
										"logged"};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
			return true;
	return false;
}

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

/* Options that go back to their default, other than those of BddMeaning. */
static void
collect_resets(FunctionCallInfo fcinfo, List *names, BddChanges *changes)
{
	ListCell *cell;

	foreach(cell, names)
	{
		const char *name = lfirst(cell);
		bool known = is_meaning(name);

		check_reset(fcinfo, names, foreach_current_index(cell));
		if (strcmp(name, "flush_interval") == 0 ||
			strcmp(name, "flush_rows") == 0 ||
			strcmp(name, "flush_group") == 0)
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
		if (!known)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("target option \"%s\" does not exist", name)));
	}
}

static void
reset_meaning(Relation rel, List *resets, BddMeaning *meaning)
{
	ListCell *cell;

	foreach(cell, resets)
	{
		const char *name = lfirst(cell);

		if (strcmp(name, "key") == 0)
			meaning->key = bdd_primary_key(rel);
		else if (strcmp(name, "update_columns") == 0)
			meaning->default_update = true;
		else if (strcmp(name, "merge") == 0)
			meaning->merge_columns = meaning->merge_rules = NIL;
		else if (strcmp(name, "version_column") == 0)
			meaning->version_column = NULL;
		else if (strcmp(name, "coalesce_rows") == 0)
			meaning->coalesce_rows = true;
		else if (strcmp(name, "logged") == 0)
			meaning->logged = true;
	}
}

/* Whether alter_target changes what an upsert means. */
static bool
changes_meaning(FunctionCallInfo fcinfo, List *resets)
{
	ListCell *cell;

	for (int i = ARG_KEY; i < ARG_LAST; i++)
		if (is_meaning(argument_names[i]) && !PG_ARGISNULL(i))
			return true;
	foreach(cell, resets)
		if (is_meaning(lfirst(cell)))
			return true;
	return false;
}

static void
add_names(BddChanges *changes, const char *column, List *names, bool none)
{
	if (none)
		add_reset(changes, column);
	else
		add_change(changes, column, TEXTARRAYOID, bdd_text_array(names));
}

/* A new meaning, checked together with what stays. */
static void
collect_meaning(FunctionCallInfo fcinfo, BddTarget *target, List *resets,
				BddChanges *changes)
{
	Relation rel = relation_open(target->relid, NoLock);
	const BddOptions *options = &target->options;
	BddMeaning meaning = {options->key_columns, options->update_columns,
						  options->default_update, options->merge_columns,
						  options->merge_rules, options->version_column,
						  options->coalesce_rows, options->logged};

	reset_meaning(rel, resets, &meaning);
	take_meaning(fcinfo, &meaning);
	(void) check_meaning(rel, &meaning);
	relation_close(rel, NoLock);

	add_change(changes, "key_columns", TEXTARRAYOID, bdd_text_array(meaning.key));
	add_names(changes, "update_columns", meaning.update,
			  meaning.default_update);
	add_names(changes, "merge_columns", meaning.merge_columns,
			  meaning.merge_columns == NIL);
	add_names(changes, "merge_rules", meaning.merge_rules,
			  meaning.merge_columns == NIL);
	if (meaning.version_column != NULL)
		add_change(changes, "version_column", TEXTOID,
				   CStringGetTextDatum(meaning.version_column));
	else
		add_reset(changes, "version_column");
	add_change(changes, "coalesce_rows", BOOLOID,
			   BoolGetDatum(meaning.coalesce_rows));
	add_change(changes, "logged", BOOLOID, BoolGetDatum(meaning.logged));
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

Datum
bdd_alter_target(PG_FUNCTION_ARGS)
{
	Oid relid = check_target_argument(fcinfo);
	BddTarget *target;
	BddChanges changes = {.count = 1};
	List *resets = NIL;

	check_choices(fcinfo);
	check_flush_arguments(fcinfo);
	bdd_check_owner(relid);
	initStringInfo(&changes.set);
	if (!PG_ARGISNULL(ARG_LAST))
		resets = columns_argument(fcinfo, ARG_LAST, "reset");
	collect_resets(fcinfo, resets, &changes);
	if (changes_meaning(fcinfo, resets))
	{
		refuse_own(relid);
		target = bdd_close_target(relid);
		collect_meaning(fcinfo, target, resets, &changes);
	}
	else if (!PG_ARGISNULL(ARG_MODE))
		target = bdd_close_target(relid);
	else
		target = bdd_target_open_any(relid, ShareUpdateExclusiveLock);
	if (!PG_ARGISNULL(ARG_FLUSH_INTERVAL))
		add_change(&changes, "flush_interval", INTERVALOID,
				   PG_GETARG_DATUM(ARG_FLUSH_INTERVAL));
	if (!PG_ARGISNULL(ARG_FLUSH_ROWS))
		add_change(&changes, "flush_rows", INT4OID,
				   PG_GETARG_DATUM(ARG_FLUSH_ROWS));
	if (!PG_ARGISNULL(ARG_FLUSH_GROUP))
		add_change(&changes, "flush_group", TEXTOID,
				   PG_GETARG_DATUM(ARG_FLUSH_GROUP));
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
		check_group_size(fcinfo);
		wake_worker_at_commit(target);
	}
	if (changes_meaning(fcinfo, resets))
		bdd_views_make_anew(relid);
	PG_RETURN_VOID();
}

static void
delete_from_catalog(Oid relid, int32 target_id)
{
	Oid types[] = {INT4OID};
	Datum values[] = {Int32GetDatum(target_id)};

	change_catalog(relid,
				   "DELETE FROM batchdedup.target_option "
				   "WHERE target_id OPERATOR(pg_catalog.=) $1",
				   1, types, values, NULL);
	change_catalog(relid,
				   "DELETE FROM batchdedup.mark "
				   "WHERE target_id OPERATOR(pg_catalog.=) $1",
				   1, types, values, NULL);
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
	Oid types[] = {REGCLASSOID, BOOLOID};
	Datum values[] = {ObjectIdGetDatum(relid), BoolGetDatum(paused)};

	bdd_check_owner(relid);
	target = bdd_target_open_any(relid, ShareUpdateExclusiveLock);
	change_catalog(relid,
				   "UPDATE batchdedup.target_option SET paused = $2 "
				   "WHERE target OPERATOR(pg_catalog.=) $1",
				   2, types, values, NULL);
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
	Oid types[] = {INT4OID, INT8OID};
	Datum values[] = {Int32GetDatum(target->options.target_id),
					  Int64GetDatum(GetSystemIdentifier())};

	bdd_check_owner(relid);
	change_catalog(relid,
				   "INSERT INTO batchdedup.mark AS m VALUES ($1, 0, pg_catalog.pg_current_wal_insert_lsn(), $2) "
				   "ON CONFLICT (target_id) DO UPDATE "
				   "SET journal_from = EXCLUDED.journal_from, system = EXCLUDED.system",
				   2, types, values, NULL);
	wake_worker_at_commit(target);
	PG_RETURN_VOID();
}
