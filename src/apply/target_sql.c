/*-------------------------------------------------------------------------
 *
 * target_sql.c
 *		The statements that write rows to a target.
 *
 * Rows reach SPI as an ephemeral named relation, as transition tables do, in
 * key order.  Every operator and type is qualified: the statements mean the
 * same under any search_path.  Aliases: t the target, x the target once more
 * (to look whether a row is there), r the rows.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/target_sql.h"

#include "access/nbtree.h"
#include "access/relation.h"
#include "access/xact.h"
#include "base/list.h"
#include "catalog/pg_class.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_inherits.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_trigger.h"
#include "catalog/pg_type.h"
#include "commands/trigger.h"
#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "nodes/pathnodes.h"
#include "optimizer/optimizer.h"
#include "sql/statement.h"
#include "sql/text.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/hsearch.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/plancache.h"
#include "utils/queryenvironment.h"
#include "utils/rel.h"
#include "utils/resowner.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* ---------- triggers ---------- */

/*
 * Triggers of foreign keys do not mind rows that stay as they are, and a
 * redirect lets our rows pass.
 */
static void
add_trigger(const Trigger *trigger, BddWriteRules *rules)
{
	if (trigger->tgenabled == TRIGGER_DISABLED || bdd_is_redirect(trigger) ||
		RI_FKey_trigger_type(trigger->tgfoid) != RI_TRIGGER_NONE)
		return;
	if (TRIGGER_FOR_INSERT(trigger->tgtype) &&
		TRIGGER_FOR_BEFORE(trigger->tgtype) &&
		TRIGGER_FOR_ROW(trigger->tgtype))
		rules->insert_triggers = true;
	if (TRIGGER_FOR_UPDATE(trigger->tgtype) &&
		(TRIGGER_FOR_ROW(trigger->tgtype) || trigger->tgoldtable != NULL ||
		 trigger->tgnewtable != NULL))
		rules->update_triggers = true;
}

/*
 * Adds what the triggers of the table, or of one partition, ask for.  The
 * caller holds a lock on it.
 */
static void
add_rules(Oid relid, BddWriteRules *rules)
{
	Relation rel = relation_open(relid, NoLock);
	TriggerDesc *triggers = rel->trigdesc;

	for (int i = 0; triggers != NULL && i < triggers->numtriggers; i++)
		add_trigger(&triggers->triggers[i], rules);
	relation_close(rel, NoLock);
}

/* A partition may have triggers of its own. */
BddWriteRules
bdd_write_rules(BddTarget *target)
{
	BddWriteRules rules = {false, false, false};
	List *relids = get_rel_relkind(target->relid) == RELKIND_PARTITIONED_TABLE ?
					   find_all_inheritors(target->relid, AccessShareLock, NULL) :
					   list_make1_oid(target->relid);
	ListCell *cell;
	bool old_snapshot = IsolationUsesXactSnapshot();
	bool may_read = pg_class_aclcheck(target->relid, GetUserId(),
									  ACL_SELECT) == ACLCHECK_OK;

	foreach(cell, relids)
		add_rules(lfirst_oid(cell), &rules);
	/* MERGE would insert what is not there: rows of our own are. */
	rules.merge = target->key.count > 0 && !rules.insert_triggers &&
				  !old_snapshot && may_read && !target->options.own;

	/*
	 * What an old snapshot shows as unchanged may have been changed since; and
	 * the comparison reads columns that the writer may not be allowed to see.
	 */
	if (old_snapshot || !may_read)
		rules.update_triggers = true;
	return rules;
}

/* ---------- pieces ---------- */

/* Quoted where it must be. */
static const char *
column_name(BddTarget *target, int i)
{
	return quote_identifier(NameStr(TupleDescAttr(target->shape.desc,
												  i)
										->attname));
}

static char *
table_name(BddTarget *target)
{
	return bdd_qualified_name(target->relid);
}

/* INSERT looks at the table alone, not at tables that inherit from it. */
static const char *
only(BddTarget *target)
{
	return get_rel_relkind(target->relid) == RELKIND_PARTITIONED_TABLE ?
			   "" :
			   "ONLY ";
}

static void
append_same_key(StringInfo sql, BddTarget *target, const char *alias)
{
	bdd_append_same_key(sql, target->shape.desc, &target->key, alias, "r");
}

/* The columns of the set, each behind the prefix, with commas between them. */
static void
append_columns(StringInfo sql, BddTarget *target, const BddColumns *columns,
			   const char *prefix)
{
	const char *comma = "";

	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(columns, i))
		{
			appendStringInfo(sql, "%s%s%s", comma, prefix,
							 column_name(target, i));
			comma = ", ";
		}
}

/* The merge rule of column i, or NULL if the target has no rules. */
static const BddRule *
rule_of(BddTarget *target, int i)
{
	return target->shape.rules != NULL ? &target->shape.rules[i] : NULL;
}

/* "IS NULL" would be true of a composite value whose fields are all NULL. */
#define IS_NULL " IS NOT DISTINCT FROM NULL"

/* f(old, new), as its strictness has it. */
static void
append_function(StringInfo sql, const BddRule *rule, const char *old,
				const char *new)
{
	const char *schema = get_namespace_name(get_func_namespace(rule->function));
	const char *function = get_func_name(rule->function);
	char *call = psprintf("%s(%s, %s)",
						  quote_qualified_identifier(schema, function), old,
						  new);

	if (rule->strict)
		appendStringInfo(sql, "CASE WHEN %s" IS_NULL " THEN %s WHEN %s" IS_NULL " THEN %s ELSE %s END",
						 old, new, new, old, call);
	else
		appendStringInfoString(sql, call);
}

/* The template of a rule, with {old} and {new} replaced. */
static void
append_template(StringInfo sql, const char *template, const char *old,
				const char *new)
{
	while (*template != '\0')
	{
		if (strncmp(template, "{old}", 5) == 0 ||
			strncmp(template, "{new}", 5) == 0)
		{
			appendStringInfoString(sql, template[1] == 'o' ? old : new);
			template += 5;
		}
		else
			appendStringInfoChar(sql, *template ++);
	}
}

/*
 * What the column's rule makes of "table.c" and "row.c", as a value of the
 * column's type; its length is checked when it is assigned.
 */
static void
append_result(StringInfo sql, BddTarget *target, int i, const char *table,
			  const char *row)
{
	const BddRule *rule = rule_of(target, i);
	Oid type = TupleDescAttr(target->shape.desc, i)->atttypid;
	const char *name = column_name(target, i);
	char *old = psprintf("%s.%s", table, name);
	char *new = psprintf("%s.%s", row, name);

	if (rule == NULL || rule->kind == BDD_LAST)
	{
		appendStringInfoString(sql, new);
		return;
	}
	appendStringInfoChar(sql, '(');
	if (rule->kind == BDD_FUNCTION)
		append_function(sql, rule, old, new);
	else
		append_template(sql, bdd_rule_template(rule->kind), old, new);
	appendStringInfo(sql, ")::%s", format_type_be_qualified(type));
}

/* "c1 = ..., c2 = ...": what the rows make of the table's. */
static void
append_assignments(StringInfo sql, BddTarget *target,
				   const BddColumns *columns, const char *row)
{
	const char *comma = "";

	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(columns, i))
		{
			appendStringInfo(sql, "%s%s = ", comma, column_name(target, i));
			append_result(sql, target, i, "t", row);
			comma = ", ";
		}
}

/* Whether the row's version is not older than the table's. */
static void
append_is_newer(StringInfo sql, BddTarget *target, const char *table,
				const char *row)
{
	int column = target->shape.version;
	const char *name = column_name(target, column);
	Oid base = getBaseType(TupleDescAttr(target->shape.desc, column)->atttypid);
	TypeCacheEntry *type = lookup_type_cache(base,
											 TYPECACHE_BTREE_OPFAMILY);

	appendStringInfo(sql, "(%s.%s" IS_NULL " OR %s.%s", table, name, row, name);
	bdd_append_operator(sql, get_opfamily_member(type->btree_opf,
												 type->btree_opintype,
												 type->btree_opintype,
												 BTGreaterEqualStrategyNumber));
	appendStringInfo(sql, "%s.%s)", table, name);
}

static bool
is_empty(BddTarget *target, const BddColumns *columns)
{
	for (int i = 0; i < target->shape.set_bytes; i++)
		if (columns[i] != 0)
			return false;
	return true;
}

/* Whether an unchanged row can be told without calling functions of rules. */
static bool
can_tell_unchanged(BddTarget *target, const BddColumns *columns)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(columns, i) && rule_of(target, i) != NULL &&
			rule_of(target, i)->kind == BDD_FUNCTION)
			return false;
	return true;
}

/*
 * True if the row leaves the columns as they are, to the byte: equality of the
 * type would take 1.0 and 1.00 for unchanged.  Columns that are quick to compare
 * come first.
 */
static void
append_same_image(StringInfo sql, BddTarget *target, const char *alias,
				  const BddColumns *columns)
{
	BddColumns *slow = palloc0(target->shape.set_bytes);
	char *prefix = psprintf("%s.", alias);
	const char *comma = "";
	const char *and = "";

	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		const char *name = column_name(target, i);

		if (!bdd_column_in(columns, i))
			continue;
		if (!bdd_equal_is_same(TupleDescAttr(target->shape.desc, i)))
		{
			bdd_column_add(slow, i);
			continue;
		}
		appendStringInfo(sql, "%s%s%s IS NOT DISTINCT FROM ", and, prefix,
						 name);
		append_result(sql, target, i, alias, "r");
		and = " AND ";
	}
	if (is_empty(target, slow))
		return;
	appendStringInfo(sql, "%sROW(", and);
	append_columns(sql, target, slow, prefix);
	appendStringInfoString(sql, ")::pg_catalog.record OPERATOR(pg_catalog.*=) ROW(");
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(slow, i))
		{
			appendStringInfoString(sql, comma);
			append_result(sql, target, i, alias, "r");
			comma = ", ";
		}
	appendStringInfoString(sql, ")::pg_catalog.record");
}

/*
 * The row overwrites these columns of what is there, if there are any; with a
 * version column only if it is not older.
 */
static void
append_conflict(StringInfo sql, BddTarget *target, const BddColumns *update)
{
	appendStringInfoString(sql, " ON CONFLICT (");
	bdd_append_conflict_key(sql, target->shape.desc, &target->key);
	if (is_empty(target, update))
		appendStringInfoString(sql, ") DO NOTHING");
	else
	{
		appendStringInfoString(sql, ") DO UPDATE SET ");
		append_assignments(sql, target, update, "EXCLUDED");
		if (target->shape.version >= 0)
		{
			appendStringInfoString(sql, " WHERE ");
			append_is_newer(sql, target, "t", "EXCLUDED");
		}
	}
}

/* "(c1, ...)", and that values for identity columns are meant. */
static void
append_insert_columns(StringInfo sql, BddTarget *target,
					  const BddColumns *insert)
{
	bool overriding = false;

	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(insert, i) && target->columns[i].identity_always)
			overriding = true;
	appendStringInfoChar(sql, '(');
	append_columns(sql, target, insert, "");
	appendStringInfo(sql, ")%s",
					 overriding ? " OVERRIDING SYSTEM VALUE" : "");
}

/* INSERT ... SELECT from the rows, without its ON CONFLICT. */
static void
append_insert(StringInfo sql, BddTarget *target, const BddColumns *insert)
{
	appendStringInfo(sql, "INSERT INTO %s AS t ", table_name(target));
	append_insert_columns(sql, target, insert);
	appendStringInfoString(sql, " SELECT ");
	append_columns(sql, target, insert, "r.");
	appendStringInfoString(sql, " FROM " BDD_ROWS_NAME " r");
}

/* ---------- statements ---------- */

/* "versioned": only what the rows are not older than. */
static char *
build_delete(BddTarget *target, bool versioned)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "DELETE FROM %s%s t USING " BDD_ROWS_NAME " r WHERE ",
					 only(target), table_name(target));
	append_same_key(&sql, target, "t");
	if (versioned)
	{
		appendStringInfoString(&sql, " AND ");
		append_is_newer(&sql, target, "t", "r");
	}
	return sql.data;
}

/* How many rows are older than the table's. */
static char *
build_count_stale(BddTarget *target)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT pg_catalog.count(*) FROM %s%s t, " BDD_ROWS_NAME " r WHERE ",
					 only(target), table_name(target));
	append_same_key(&sql, target, "t");
	appendStringInfoString(&sql, " AND (");
	append_is_newer(&sql, target, "t", "r");
	appendStringInfoString(&sql, ") IS NOT TRUE");
	return sql.data;
}

/*
 * For rows that give every column that an insert must have.  Rows that would
 * change nothing are left out before they are locked, unless a trigger is to
 * see them.
 */
static char *
build_upsert(BddTarget *target, const BddWriteRules *rules,
			 const BddColumns *update, const BddColumns *insert)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_insert(&sql, target, insert);
	if (target->key.count == 0)
		return sql.data;
	if (!rules->insert_triggers && !rules->update_triggers &&
		can_tell_unchanged(target, update))
	{
		appendStringInfo(&sql, " WHERE NOT EXISTS (SELECT FROM %s%s x WHERE ",
						 only(target), table_name(target));
		append_same_key(&sql, target, "x");
		if (!is_empty(target, update))
		{
			appendStringInfoString(&sql, " AND (");
			append_same_image(&sql, target, "x", update);
			if (target->shape.version >= 0)
			{
				appendStringInfoString(&sql, " OR (");
				append_is_newer(&sql, target, "x", "r");
				appendStringInfoString(&sql, ") IS NOT TRUE");
			}
			appendStringInfoChar(&sql, ')');
		}
		appendStringInfoChar(&sql, ')');
	}
	append_conflict(&sql, target, update);
	return sql.data;
}

/*
 * The same, and for rows given in part, in one go: a key is looked up once, a
 * row is not locked before it is updated.  A key that another transaction
 * inserts meanwhile is an error.
 */
static char *
build_merge(BddTarget *target, const BddWriteRules *rules,
			const BddColumns *update, const BddColumns *insert)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "MERGE INTO %s%s t USING " BDD_ROWS_NAME " r ON ",
					 only(target), table_name(target));
	append_same_key(&sql, target, "t");
	if (!is_empty(target, update))
	{
		appendStringInfoString(&sql, " WHEN MATCHED");
		if (target->shape.version >= 0)
		{
			appendStringInfoString(&sql, " AND ");
			append_is_newer(&sql, target, "t", "r");
		}
		if (!rules->update_triggers && can_tell_unchanged(target, update))
		{
			appendStringInfoString(&sql, " AND NOT (");
			append_same_image(&sql, target, "t", update);
			appendStringInfoChar(&sql, ')');
		}
		appendStringInfoString(&sql, " THEN UPDATE SET ");
		append_assignments(&sql, target, update, "r");
	}
	appendStringInfoString(&sql, " WHEN NOT MATCHED THEN INSERT ");
	append_insert_columns(&sql, target, insert);
	appendStringInfoString(&sql, " VALUES (");
	append_columns(&sql, target, insert, "r.");
	appendStringInfoChar(&sql, ')');
	return sql.data;
}

/* For rows given in part: first those whose key is there ... */
static char *
build_update_existing(BddTarget *target, const BddWriteRules *rules,
					  const BddColumns *update)
{
	StringInfoData sql;

	if (is_empty(target, update))
		return NULL;
	initStringInfo(&sql);
	appendStringInfo(&sql, "UPDATE %s%s t SET ", only(target),
					 table_name(target));
	append_assignments(&sql, target, update, "r");
	appendStringInfoString(&sql, " FROM " BDD_ROWS_NAME " r WHERE ");
	append_same_key(&sql, target, "t");
	if (target->shape.version >= 0)
	{
		appendStringInfoString(&sql, " AND ");
		append_is_newer(&sql, target, "t", "r");
	}
	if (!rules->update_triggers && can_tell_unchanged(target, update))
	{
		appendStringInfoString(&sql, " AND NOT (");
		append_same_image(&sql, target, "t", update);
		appendStringInfoChar(&sql, ')');
	}
	return sql.data;
}

/* ... then the others; a key that appears meanwhile is updated after all. */
static char *
build_insert_missing(BddTarget *target, const BddColumns *update,
					 const BddColumns *insert)
{
	StringInfoData sql;

	initStringInfo(&sql);
	append_insert(&sql, target, insert);
	appendStringInfo(&sql, " WHERE NOT EXISTS (SELECT FROM %s%s x WHERE ",
					 only(target), table_name(target));
	append_same_key(&sql, target, "x");
	appendStringInfoChar(&sql, ')');
	append_conflict(&sql, target, update);
	return sql.data;
}

/* The table's row of the one key in the rows. */
static char *
build_select_row(BddTarget *target)
{
	StringInfoData sql;

	initStringInfo(&sql);
	appendStringInfo(&sql, "SELECT (t.*)::%s FROM %s%s t, " BDD_ROWS_NAME " r WHERE ",
					 table_name(target), only(target), table_name(target));
	append_same_key(&sql, target, "t");
	return sql.data;
}

/* ---------- statements that are made once ---------- */

typedef enum BddStatementKind
{
	BDD_SQL_COUNT_STALE,
	BDD_SQL_DELETE,
	BDD_SQL_DELETE_VERSIONED,
	BDD_SQL_UPSERT,
	BDD_SQL_MERGE,
	BDD_SQL_UPDATE_EXISTING,
	BDD_SQL_INSERT_MISSING,
	BDD_SQL_SELECT_ROW
} BddStatementKind;

/* A target's statements, newest first; they go with what is known of it. */
typedef struct BddStatement
{
	struct BddStatement *next;
	BddStatementKind kind;
	BddWriteRules rules;
	BddColumns *update;
	BddColumns *insert;
	uint64 names; /* names_changed when it was made */
	char *sql;    /* NULL: there is nothing to do */
} BddStatement;

#define MAX_STATEMENTS 64

/* Statements name schemas, operators, functions and types by their names. */
static uint64 names_changed = 0;

/*
 * A schema, an operator or the like has changed: statements that were made
 * before may name it wrongly.
 */
static void
note_new_names(Datum arg, int cacheid, uint32 hashvalue)
{
	names_changed++;
}

static char *
build(BddTarget *target, const BddStatement *wanted)
{
	switch (wanted->kind)
	{
		case BDD_SQL_COUNT_STALE:
			return build_count_stale(target);
		case BDD_SQL_DELETE:
			return build_delete(target, false);
		case BDD_SQL_DELETE_VERSIONED:
			return build_delete(target, true);
		case BDD_SQL_UPSERT:
			return build_upsert(target, &wanted->rules, wanted->update,
								wanted->insert);
		case BDD_SQL_MERGE:
			return build_merge(target, &wanted->rules, wanted->update,
							   wanted->insert);
		case BDD_SQL_UPDATE_EXISTING:
			return build_update_existing(target, &wanted->rules,
										 wanted->update);
		case BDD_SQL_INSERT_MISSING:
			return build_insert_missing(target, wanted->update,
										wanted->insert);
		case BDD_SQL_SELECT_ROW:
			return build_select_row(target);
	}
	return NULL;
}

/* Whether the one was made for all that the other is wanted for. */
static bool
is_same_statement(BddTarget *target, const BddStatement *a,
				  const BddStatement *b)
{
	return a->kind == b->kind && a->names == b->names &&
		   a->rules.insert_triggers == b->rules.insert_triggers &&
		   a->rules.update_triggers == b->rules.update_triggers &&
		   a->rules.merge == b->rules.merge &&
		   memcmp(a->update, b->update, target->shape.set_bytes) == 0 &&
		   memcmp(a->insert, b->insert, target->shape.set_bytes) == 0;
}

static BddColumns *
copy_columns(BddTarget *target, const BddColumns *columns)
{
	BddColumns *copy = palloc(target->shape.set_bytes);

	memcpy(copy, columns, target->shape.set_bytes);
	return copy;
}

/*
 * The statements of a target are kept with it, since the same few are needed
 * again and again.  Beyond MAX_STATEMENTS they are made for this call only.
 * NULL: there is nothing to do.
 */
static char *
statement(BddTarget *target, BddStatementKind kind, const BddWriteRules *rules,
		  const BddColumns *update, const BddColumns *insert)
{
	BddStatement wanted = {.kind = kind, .names = names_changed};
	BddStatement *made;
	MemoryContext old_context;
	int count = 0;

	if (rules != NULL)
		wanted.rules = *rules;
	/* Where a set does not matter any will do. */
	wanted.update = unconstify(BddColumns *, update != NULL ? update : target->shape.update);
	wanted.insert = unconstify(BddColumns *, insert != NULL ? insert : target->shape.insert);
	for (made = target->statements; made != NULL; made = made->next, count++)
		if (is_same_statement(target, made, &wanted))
			return made->sql;
	wanted.sql = build(target, &wanted);
	if (count >= MAX_STATEMENTS)
		return wanted.sql;
	old_context = MemoryContextSwitchTo(target->context);
	made = palloc(sizeof(BddStatement));
	*made = wanted;
	made->update = copy_columns(target, wanted.update);
	made->insert = copy_columns(target, wanted.insert);
	made->sql = wanted.sql != NULL ? pstrdup(wanted.sql) : NULL;
	made->next = target->statements;
	target->statements = made;
	MemoryContextSwitchTo(old_context);
	return made->sql;
}

char *
bdd_sql_count_stale(BddTarget *target)
{
	return statement(target, BDD_SQL_COUNT_STALE, NULL, NULL, NULL);
}

char *
bdd_sql_delete(BddTarget *target, bool versioned)
{
	return statement(target,
					 versioned ? BDD_SQL_DELETE_VERSIONED : BDD_SQL_DELETE,
					 NULL, NULL, NULL);
}

char *
bdd_sql_upsert(BddTarget *target, const BddWriteRules *rules,
			   const BddColumns *update, const BddColumns *insert)
{
	return statement(target, BDD_SQL_UPSERT, rules, update, insert);
}

char *
bdd_sql_merge(BddTarget *target, const BddWriteRules *rules,
			  const BddColumns *update, const BddColumns *insert)
{
	return statement(target, BDD_SQL_MERGE, rules, update, insert);
}

/* NULL: the rows overwrite nothing. */
char *
bdd_sql_update_existing(BddTarget *target, const BddWriteRules *rules,
						const BddColumns *update)
{
	return statement(target, BDD_SQL_UPDATE_EXISTING, rules, update, NULL);
}

char *
bdd_sql_insert_missing(BddTarget *target, const BddColumns *update,
					   const BddColumns *insert)
{
	return statement(target, BDD_SQL_INSERT_MISSING, NULL, update, insert);
}

char *
bdd_sql_select_row(BddTarget *target)
{
	return statement(target, BDD_SQL_SELECT_ROW, NULL, NULL, NULL);
}

/* ---------- running ---------- */

/*
 * The callbacks count changes of all that a statement names beside the table
 * and its columns; those make a new target.
 */
void
bdd_target_sql_init(void)
{
	static const int caches[] = {NAMESPACEOID, OPEROID, CLAOID, COLLOID,
								 PROCOID, TYPEOID};

	for (int i = 0; i < lengthof(caches); i++)
		CacheRegisterSyscacheCallback(caches[i], note_new_names, (Datum) 0);
}

/* Runs a statement of this file on rows that have the table's row type. */
uint64
bdd_run_on_rows(BddTarget *target, const char *sql, Tuplestorestate *rows,
				uint64 count, bool read_only)
{
	EphemeralNamedRelation relation =
		palloc0(sizeof(EphemeralNamedRelationData));

	relation->md.name = pstrdup(BDD_ROWS_NAME);
	relation->md.reliddesc = target->relid;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = count;
	relation->reldata = rows;
	return bdd_run_on_relation(target->relid, sql, relation, 0, NULL, NULL,
							   read_only);
}
