/*-------------------------------------------------------------------------
 *
 * statement.c
 *		Statements on rows that are not in a table yet.
 *
 * The rows are an ephemeral named relation, as transition tables are.  Plans
 * are kept by the text of the statement and by whether there are few rows; and
 * they are made as for a large table, whatever the catalog says.
 *
 * Code that watches the statements of a backend learns here which are our own: the
 * guard lets them start (bdd_starts_own_statement), a redirect and the views let
 * their rows pass (bdd_is_writing).
 *
 *-------------------------------------------------------------------------
 */
#include "sql/statement.h"

#include "base/compat.h"
#include "common/hashfn.h"
#include "sql/spi.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/syscache.h"

/* ---------- plans ---------- */

#define MAX_PLANS 256

typedef struct BddPlan
{
	uint32 hash; /* of statement and size class */
	SPIPlanPtr plan;
	char *sql;
} BddPlan;

static HTAB *plans = NULL;

/* The table that the innermost statement of ours writes, or InvalidOid. */
static Oid writing = InvalidOid;

/* The next statement that starts is one of ours. */
static bool own_statement_starts = false;

/* Statements that run now: a plan in use must not be freed. */
static int running = 0;
static LocalTransactionId running_in = InvalidLocalTransactionId;

/* Whether no statement runs that uses a plan. */
static bool
may_free_plans(void)
{
	LocalTransactionId now = bdd_my_vxid().localTransactionId;

	if (running_in != now)
		running = 0; /* an error ended what ran */
	running_in = now;
	return running == 0;
}

/* Frees all plans. */
static void
forget_plans(void)
{
	HASH_SEQ_STATUS scan;
	BddPlan *entry;

	hash_seq_init(&scan, plans);
	while ((entry = hash_seq_search(&scan)) != NULL)
	{
		SPI_freeplan(entry->plan);
		pfree(entry->sql);
	}
	hash_destroy(plans);
	plans = NULL;
}

/* The hash table lives as long as the process. */
static void
init_plans(void)
{
	HASHCTL control;

	control.keysize = sizeof(uint32);
	control.entrysize = sizeof(BddPlan);
	plans = hash_create("batchdedup plans", MAX_PLANS, &control,
						HASH_ELEM | HASH_BLOBS);
}

/*
 * What the catalog says about the table's size is not believed if it is
 * little: a plan for a table of no rows reads all of it for every row of ours,
 * and it stays in use while the table fills up.
 */
#define LEAST_PAGES 1000
#define LEAST_ROWS 100000

static bool planning = false; /* a statement of ours */
static BddRelationHook previous_relation_hook = NULL;

static BDD_RELATION_HOOK(assume_large)
{
	ListCell *cell;

	if (previous_relation_hook != NULL)
		BDD_CALL_RELATION_HOOK(previous_relation_hook);
	if (!planning || rel->rtekind != RTE_RELATION)
		return;
	rel->pages = Max(rel->pages, LEAST_PAGES);
	rel->tuples = Max(rel->tuples, LEAST_ROWS);
	foreach(cell, rel->indexlist)
	{
		IndexOptInfo *index = lfirst_node(IndexOptInfo, cell);

		if (index->indpred == NIL)
		{
			index->pages = Max(index->pages, LEAST_PAGES / 4);
			index->tuples = rel->tuples;
		}
	}
}

/*
 * Few rows are looked up one by one: the planner would rather read the whole
 * table.  The settings act on the planning only, not on what triggers run.
 */
static void
make_plan(SPIPlanPtr plan, bool few)
{
	int nesting = NewGUCNestLevel();
	CachedPlan *cached;

	if (few)
	{
		const char *const settings[] = {"enable_hashjoin", "enable_mergejoin"};

		for (int i = 0; i < lengthof(settings); i++)
			(void) set_config_option(settings[i], "off", PGC_USERSET,
									 PGC_S_SESSION, GUC_ACTION_SAVE, true, 0,
									 false);
	}
	PG_TRY();
	{
		planning = true;
		cached = SPI_plan_get_cached_plan(plan);
	}
	PG_FINALLY();
	{
		planning = false;
	}
	PG_END_TRY();
	if (cached != NULL)
		ReleaseCachedPlan(cached, CurrentResourceOwner);
	AtEOXact_GUC(false, nesting);
}

/* Whether so many rows are few beside those in the table. */
static bool
few_for_table(Oid relid, uint64 count)
{
	HeapTuple tuple = SearchSysCache1(RELOID,
									  ObjectIdGetDatum(relid));
	double rows = 0;

	if (HeapTupleIsValid(tuple))
	{
		rows = ((Form_pg_class) GETSTRUCT(tuple))->reltuples;
		ReleaseSysCache(tuple);
	}
	return count < 1000 || count <= rows / 2;
}

/* A saved plan, whose dependencies the server watches. */
static SPIPlanPtr
plan_for(Oid relid, const char *sql, uint64 count, int nargs, Oid *types)
{
	bool few = few_for_table(relid, count);
	uint32 hash = hash_combine(string_hash(sql, 0), few);
	BddPlan *entry;
	bool found;
	SPIPlanPtr plan;

	if (plans != NULL && hash_get_num_entries(plans) >= MAX_PLANS &&
		may_free_plans())
		forget_plans();
	if (plans == NULL)
		init_plans();
	entry = hash_search(plans, &hash, HASH_FIND, NULL);
	if (entry != NULL && strcmp(entry->sql, sql) == 0)
	{
		make_plan(entry->plan, few);
		return entry->plan;
	}
	plan = SPI_prepare(sql, nargs, types);
	if (plan != NULL && entry != NULL && !may_free_plans())
		return plan; /* for this time only */
	if (plan == NULL || SPI_keepplan(plan) != 0)
		elog(ERROR, "could not prepare \"%s\": %s", sql,
			 SPI_result_code_string(SPI_result));
	make_plan(plan, few);
	entry = hash_search(plans, &hash, HASH_ENTER, &found);
	if (found)
	{
		/* Another statement with the same hash has to make room. */
		SPI_freeplan(entry->plan);
		pfree(entry->sql);
	}
	entry->plan = plan;
	entry->sql = MemoryContextStrdup(TopMemoryContext, sql);
	return plan;
}

/* ---------- whose statement ---------- */

/*
 * Whether the statement that starts now is one of this file.  True once for
 * each: what its triggers run is not ours.
 */
bool
bdd_starts_own_statement(void)
{
	bool own = own_statement_starts;

	own_statement_starts = false;
	return own;
}

/* An error may have come before our statement started. */
static void
forget_own_statement(XactEvent event, void *arg)
{
	own_statement_starts = false;
}

/* The same for an error that is caught. */
static void
forget_own_statement_sub(SubXactEvent event, SubTransactionId self,
						 SubTransactionId parent, void *arg)
{
	if (event == SUBXACT_EVENT_ABORT_SUB)
		own_statement_starts = false;
}

/* In _PG_init. */
void
bdd_statement_init(void)
{
	RegisterXactCallback(forget_own_statement, NULL);
	RegisterSubXactCallback(forget_own_statement_sub, NULL);
	previous_relation_hook = bdd_relation_hook;
	bdd_relation_hook = assume_large;
}

/* Whether rows that come into the table now are ours. */
bool
bdd_is_writing(Oid relid)
{
	return writing == relid;
}

/* ---------- running ---------- */

/* Runs the plan; its rows come into the table as ours meanwhile. */
static int
execute(SPIPlanPtr plan, Oid relid, Datum *values, bool read_only)
{
	Oid outer = writing;
	int result = 0;

	writing = relid;
	PG_TRY();
	{
		result = SPI_execute_plan(plan, values, NULL, read_only, 0);
	}
	PG_FINALLY();
	{
		writing = outer;
	}
	PG_END_TRY();
	return result;
}

/*
 * Runs a statement on rows that it knows by the name in "relation"; returns
 * how many rows it wrote or found.  "relid" is the table that it writes, or
 * looks into for each of the rows.  The caller is connected to SPI.
 * "read_only": with the active snapshot.
 */
uint64
bdd_run_on_relation(Oid relid, const char *sql, EphemeralNamedRelation relation,
					int nargs, Oid *types, Datum *values, bool read_only)
{
	SPIPlanPtr plan;
	int result;

	if (SPI_register_relation(relation) != SPI_OK_REL_REGISTER)
		elog(ERROR, "could not register the rows");
	plan = plan_for(relid, sql, (uint64) relation->md.enrtuples, nargs, types);
	(void) may_free_plans();
	running++;
	own_statement_starts = true;
	result = execute(plan, relid, values, read_only);
	running--;
	own_statement_starts = false;
	if (result < 0)
		elog(ERROR, "statement failed: %s: %s",
			 SPI_result_code_string(result), sql);
	(void) SPI_unregister_relation(relation->md.name);
	return SPI_processed;
}
