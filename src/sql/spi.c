/*-------------------------------------------------------------------------
 *
 * spi.c
 *		SQL from C: as which role, and with which plan.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/spi.h"

#include "access/table.h"
#include "access/xact.h"
#include "base/loaded.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"

/* Acts as the role, with a search_path of pg_catalog. */
static void
become(Oid role, int security, BddSavedRole *saved)
{
	GetUserIdAndSecContext(&saved->role, &saved->security);
	saved->guc_nesting = NewGUCNestLevel();
	SetUserIdAndSecContext(role, saved->security | security);
	(void) set_config_option("search_path", "pg_catalog, pg_temp",
							 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
							 true, 0, false);
}

/*
 * Becomes a table's owner, to write its rows: whatever runs then cannot get at
 * the rights of the process, nor leave something behind that would.
 */
void
bdd_become_owner_of(Oid owner, BddSavedRole *saved)
{
	const int security = SECURITY_LOCAL_USERID_CHANGE |
						 SECURITY_RESTRICTED_OPERATION |
						 SECURITY_NOFORCE_RLS;

	become(owner, security, saved);
}

/*
 * Until bdd_restore_role: values as text that any session reads back as they
 * were, whatever the settings.
 */
void
bdd_exact_output(void)
{
	static const char *const settings[][2] = {
		{"datestyle", "ISO"},
		{"intervalstyle", "postgres"},
		{"extra_float_digits", "3"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1],
								 PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

/* Becomes the extension's owner, which may write our own tables. */
void
bdd_become_extension_owner(BddSavedRole *saved)
{
	Relation rel = table_open(bdd_catalog_relation("target_option"),
							  AccessShareLock);
	Oid owner = rel->rd_rel->relowner;

	table_close(rel, AccessShareLock);
	become(owner, SECURITY_LOCAL_USERID_CHANGE, saved);
}

/*
 * The end of bdd_become_owner_of and bdd_become_extension_owner, and of
 * settings made meanwhile.
 */
void
bdd_restore_role(const BddSavedRole *saved)
{
	AtEOXact_GUC(false, saved->guc_nesting);
	SetUserIdAndSecContext(saved->role, saved->security);
}

/* An error if it fails. */
void
bdd_spi_connect(void)
{
	int result = SPI_connect();

	if (result != SPI_OK_CONNECT)
		elog(ERROR, "SPI_connect failed: %s", SPI_result_code_string(result));
}

void
bdd_spi_finish(void)
{
	(void) SPI_finish();
}

/* Until bdd_own_end: connected to SPI, as the extension's owner. */
void
bdd_own_begin(BddSavedRole *saved)
{
	bdd_check_version();
	bdd_become_extension_owner(saved);
	bdd_spi_connect();
}

/* The end of bdd_own_begin. */
void
bdd_own_end(const BddSavedRole *saved)
{
	bdd_spi_finish();
	bdd_restore_role(saved);
}

/* Runs one statement; returns the number of rows. */
uint64
bdd_spi_run(const char *sql, int nargs, Oid *types, Datum *values,
			const char *nulls)
{
	int result = SPI_execute_with_args(sql, nargs, types, values,
									   nulls, false, 0);

	if (result < 0)
		elog(ERROR, "statement failed: %s: %s",
			 SPI_result_code_string(result), sql);
	return SPI_processed;
}

/*
 * Runs a statement without arguments and results, CREATE TABLE say, that is
 * put together as by printf; as "owner", or as the caller for InvalidOid.
 */
void
bdd_run_utility(Oid owner, const char *format, ...)
{
	BddSavedRole saved;
	StringInfoData sql;

	initStringInfo(&sql);
	for (;;)
	{
		va_list args;
		int needed;

		va_start(args, format);
		needed = appendStringInfoVA(&sql, format, args);
		va_end(args);
		if (needed == 0)
			break;
		enlargeStringInfo(&sql, needed);
	}
	if (OidIsValid(owner))
		bdd_become_owner_of(owner, &saved);
	(void) bdd_spi_run(sql.data, 0, NULL, NULL, NULL);
	if (OidIsValid(owner))
		bdd_restore_role(&saved);
}

/* Prepares the statement once in a process. */
static void
make_plan(BddKeptPlan *plan)
{
	SPIPlanPtr made;

	if (plan->plan != NULL)
		return;
	made = SPI_prepare(plan->sql, plan->nargs, plan->types);
	if (made == NULL || SPI_keepplan(made) != 0)
		elog(ERROR, "statement could not be prepared: %s: %s",
			 SPI_result_code_string(SPI_result), plan->sql);
	plan->plan = made;
}

/* Returns the number of rows. */
static uint64
check_result(const BddKeptPlan *plan, int result)
{
	if (result < 0)
		elog(ERROR, "statement failed: %s: %s",
			 SPI_result_code_string(result), plan->sql);
	return SPI_processed;
}

/*
 * Runs a statement with a plan that is kept; returns the number of rows.
 * "nulls": NULL, or 'n' for each value that is null.
 */
uint64
bdd_plan_run(BddKeptPlan *plan, Datum *values, const char *nulls)
{
	make_plan(plan);
	return check_result(plan, SPI_execute_plan(plan->plan, values, nulls,
											   false, 0));
}

/* The same, as the extension's owner. */
uint64
bdd_plan_run_own(BddKeptPlan *plan, Datum *values, const char *nulls)
{
	BddSavedRole saved;
	uint64 count;

	bdd_become_extension_owner(&saved);
	count = bdd_plan_run(plan, values, nulls);
	bdd_restore_role(&saved);
	return count;
}

/*
 * Runs a query that sees all that is committed now, whatever the snapshot of
 * the transaction.
 */
uint64
bdd_plan_run_now(BddKeptPlan *plan, Datum *values, const char *nulls)
{
	make_plan(plan);
	CommandCounterIncrement();
	return check_result(plan, SPI_execute_snapshot(plan->plan, values, nulls,
												   GetLatestSnapshot(),
												   InvalidSnapshot, true,
												   false, 0));
}

/* A parameter that is NULL for no text; *null says so as "nulls" has it. */
Datum
bdd_text_or_null(const char *text, char *null)
{
	*null = text == NULL ? 'n' : ' ';
	return text == NULL ? (Datum) 0 : CStringGetTextDatum(text);
}

/* A value of the last statement's result; "column" counts from 1. */
Datum
bdd_spi_value(uint64 row, int column, bool *isnull)
{
	return SPI_getbinval(SPI_tuptable->vals[row], SPI_tuptable->tupdesc,
						 column, isnull);
}
