/*-------------------------------------------------------------------------
 *
 * option_args.c
 *		Options of a target as arguments of create_target and alter_target.
 *
 * What options there are, with their columns, types and values, stands in
 * bdd_option_defs (target/options.c).  Here arguments become options, are
 * checked each for itself and together, and go to batchdedup.target_option.
 *
 *-------------------------------------------------------------------------
 */
#include "admin/option_args.h"

#include "access/xact.h"
#include "base/list.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "journal/state.h"
#include "sql/spi.h"
#include "target/target_check.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/timestamp.h"

/* ---------- each argument for itself ---------- */

static void
check_choice(const BddOptionDef *def, const char *value)
{
	const BddChoice *choice = def->choice;
	StringInfoData list;

	if (bdd_choice_number(choice, value) >= 0)
		return;
	if (choice->later != NULL && strcmp(value, choice->later) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("argument %s => '%s' is not supported yet", def->name,
						value)));
	initStringInfo(&list);
	for (int i = 0; i < choice->count; i++)
		appendStringInfo(&list, "%s%s", i > 0 ? ", " : "", choice->names[i]);
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("argument %s cannot be \"%s\"", def->name, value),
			 errhint("Its values are: %s.", list.data)));
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
	if (!PG_ARGISNULL(BDD_ARG_FLUSH_INTERVAL))
		check_interval(PG_GETARG_INTERVAL_P(BDD_ARG_FLUSH_INTERVAL));
	if (!PG_ARGISNULL(BDD_ARG_FLUSH_ROWS) && PG_GETARG_INT32(BDD_ARG_FLUSH_ROWS) < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument flush_rows must not be negative")));
	if (!PG_ARGISNULL(BDD_ARG_FLUSH_GROUP) &&
		VARSIZE_ANY_EXHDR(PG_GETARG_TEXT_PP(BDD_ARG_FLUSH_GROUP)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument flush_group must not be empty"),
				 errhint("reset => 'flush_group' takes a target out of its group.")));
}

/* Checks what arguments say that can be told without the table. */
void
bdd_check_option_arguments(FunctionCallInfo fcinfo)
{
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
	{
		const BddOptionDef *def = &bdd_option_defs[i];

		if (def->choice != NULL && !PG_ARGISNULL(def->argument))
			check_choice(def, text_to_cstring(PG_GETARG_TEXT_PP(def->argument)));
	}
	check_flush_arguments(fcinfo);
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

static char *
version_argument(FunctionCallInfo fcinfo)
{
	List *names = columns_argument(fcinfo, BDD_ARG_VERSION_COLUMN,
								   "version_column");

	if (list_length(names) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("argument version_column must name one column")));
	return linitial(names);
}

/*
 * Replaces the options that arguments give.  Lists of columns are written in
 * SQL's way in an argument; the others have the type of their column.
 */
void
bdd_take_option_arguments(FunctionCallInfo fcinfo, BddOptions *options)
{
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
	{
		const BddOptionDef *def = &bdd_option_defs[i];

		if (def->name != NULL && def->form != BDD_OPTION_NAMES &&
			def->argument != BDD_ARG_VERSION_COLUMN && !PG_ARGISNULL(def->argument))
			bdd_option_take(options, def, PG_GETARG_DATUM(def->argument), false);
	}
	if (!PG_ARGISNULL(BDD_ARG_KEY))
		options->key_columns = columns_argument(fcinfo, BDD_ARG_KEY, "key");
	if (!PG_ARGISNULL(BDD_ARG_UPDATE_COLUMNS))
	{
		options->update_columns = columns_argument(fcinfo, BDD_ARG_UPDATE_COLUMNS,
												   "update_columns");
		options->default_update = false;
	}
	if (!PG_ARGISNULL(BDD_ARG_MERGE))
	{
		options->merge_columns = NIL;
		options->merge_rules = NIL;
		parse_merge(PG_GETARG_JSONB_P(BDD_ARG_MERGE), &options->merge_columns,
					&options->merge_rules);
	}
	if (!PG_ARGISNULL(BDD_ARG_VERSION_COLUMN))
		options->version_column = version_argument(fcinfo);
}

/* ---------- reset ---------- */

/* An option exists, is reset once, and is not set as well. */
static void
check_reset(FunctionCallInfo fcinfo, List *names, int position)
{
	const char *name = list_nth(names, position);
	bool known = false;

	for (int i = 0; i < position; i++)
		if (strcmp(list_nth(names, i), name) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("target option \"%s\" is twice in argument reset",
							name)));
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
	{
		const BddOptionDef *def = &bdd_option_defs[i];

		if (def->name == NULL || strcmp(def->name, name) != 0)
			continue;
		known = true;
		if (!PG_ARGISNULL(def->argument))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("target option \"%s\" is both set and reset",
							name)));
	}
	if (!known)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("target option \"%s\" does not exist", name)));
}

/* The names in alter_target's argument reset. */
List *
bdd_reset_argument(FunctionCallInfo fcinfo)
{
	List *names = NIL;

	if (!PG_ARGISNULL(BDD_ARG_LAST))
		names = columns_argument(fcinfo, BDD_ARG_LAST, "reset");
	for (int i = 0; i < list_length(names); i++)
		check_reset(fcinfo, names, i);
	return names;
}

/* Options that go back to their default; the key's is the primary key. */
void
bdd_reset_options(Relation rel, List *resets, BddOptions *options)
{
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
	{
		const BddOptionDef *def = &bdd_option_defs[i];

		if (def->name == NULL || !bdd_is_named(resets, def->name))
			continue;
		bdd_option_reset(options, def);
		if (def->argument == BDD_ARG_KEY)
			options->key_columns = bdd_primary_key(rel);
	}
}

/* Whether an argument or "reset" changes the option. */
static bool
is_changed(FunctionCallInfo fcinfo, List *resets, const BddOptionDef *def)
{
	return def->name != NULL &&
		   (!PG_ARGISNULL(def->argument) || bdd_is_named(resets, def->name));
}

/* Whether alter_target changes what an upsert means. */
bool
bdd_changes_meaning(FunctionCallInfo fcinfo, List *resets)
{
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
		if (bdd_option_defs[i].meaning &&
			is_changed(fcinfo, resets, &bdd_option_defs[i]))
			return true;
	return false;
}

/* ---------- all together ---------- */

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

/*
 * Checks what an upsert is to mean as a whole, and gives rules a name that
 * means the same under every search_path; returns the key's index.
 */
Oid
bdd_check_meaning(Relation rel, BddOptions *options)
{
	Oid index = bdd_check_key(rel, options->key_columns, options->coalesce_rows);

	if (!options->default_update)
		bdd_check_update_columns(rel, options->key_columns, options->update_columns);
	bdd_check_rules(rel, options->key_columns, options->update_columns,
					options->default_update, options->merge_columns,
					options->merge_rules, options->version_column);
	if (options->key_columns == NIL &&
		(options->merge_columns != NIL || options->version_column != NULL))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a target without a key has neither merge rules nor a version column"),
				 errdetail("Its rows are inserted and never change.")));
	options->merge_rules = qualified_rules(rel, options->merge_columns,
										   options->merge_rules);
	if (options->logged)
		check_logged(rel);
	return index;
}

/* ---------- the catalog ---------- */

/* Runs a statement on our tables; the table's targets are looked up anew. */
void
bdd_change_catalog(Oid relid, const char *sql, BddArgs *args)
{
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_run_with(sql, args);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	CacheInvalidateRelcacheByRelid(relid);
	/* Local caches hear of it now, and also if we are rolled back. */
	CommandCounterIncrement();
}

/* After the change. */
static void
check_group_size(const char *flush_group)
{
	BddArgs args = {0};
	BddSavedRole saved;
	uint64 members;

	bdd_arg_text(&args, flush_group);
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	members = bdd_run_with("SELECT 1 FROM batchdedup.target_option "
						   "WHERE flush_group OPERATOR(pg_catalog.=) $1",
						   &args);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	if (members > BDD_GROUP_MEMBERS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("a flush_group cannot have more than %d targets",
						BDD_GROUP_MEMBERS)));
}

static void
add_option(BddArgs *args, const BddOptions *options, const BddOptionDef *def)
{
	bool isnull;
	Datum value = bdd_option_value(options, def, &isnull);

	bdd_arg_or_null(args, bdd_option_type(def), value, isnull);
}

/* The row of a new target. */
void
bdd_insert_options(FunctionCallInfo fcinfo, Oid relid, const BddOptions *options)
{
	BddArgs args = {0};
	StringInfoData columns;
	StringInfoData parameters;

	initStringInfo(&columns);
	initStringInfo(&parameters);
	bdd_arg(&args, REGCLASSOID, ObjectIdGetDatum(relid));
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
	{
		const BddOptionDef *def = &bdd_option_defs[i];

		if (def->name == NULL)
			continue;
		add_option(&args, options, def);
		appendStringInfo(&columns, ", %s", def->column);
		appendStringInfo(&parameters, ", $%d", args.count);
	}
	bdd_change_catalog(relid,
					   psprintf("INSERT INTO batchdedup.target_option (target%s) VALUES ($1%s)",
								columns.data, parameters.data),
					   &args);
	if (!PG_ARGISNULL(BDD_ARG_FLUSH_GROUP))
		check_group_size(options->flush_group);
}

/*
 * The columns of what has changed; of all that is checked together, where the
 * meaning has.  False: nothing has.
 */
bool
bdd_update_options(FunctionCallInfo fcinfo, Oid relid, List *resets,
				   const BddOptions *options)
{
	bool meaning = bdd_changes_meaning(fcinfo, resets);
	BddArgs args = {0};
	StringInfoData set;

	initStringInfo(&set);
	bdd_arg(&args, REGCLASSOID, ObjectIdGetDatum(relid));
	for (int i = 0; i < BDD_OPTION_COLUMNS; i++)
	{
		const BddOptionDef *def = &bdd_option_defs[i];

		if (!(def->meaning && meaning) && !is_changed(fcinfo, resets, def))
			continue;
		add_option(&args, options, def);
		appendStringInfo(&set, "%s%s = $%d", set.len > 0 ? ", " : "",
						 def->column, args.count);
	}
	if (set.len == 0)
		return false;
	bdd_change_catalog(relid,
					   psprintf("UPDATE batchdedup.target_option SET %s "
								"WHERE target OPERATOR(pg_catalog.=) $1",
								set.data),
					   &args);
	if (!PG_ARGISNULL(BDD_ARG_FLUSH_GROUP))
		check_group_size(options->flush_group);
	return true;
}
