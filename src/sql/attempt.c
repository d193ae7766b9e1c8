/*-------------------------------------------------------------------------
 *
 * attempt.c
 *		Work that may fail: in a subtransaction, and what its error says.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/attempt.h"

#include "access/xact.h"
#include "utils/resowner.h"

/* ---------- kinds of errors ---------- */

/*
 * Errors that the values of a row cause, whatever a trigger calls them.  The
 * others speak of the table, of functions, or of the server.
 */
bool
bdd_error_is_of_row(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION:
		case ERRCODE_FEATURE_NOT_SUPPORTED:
		case ERRCODE_INTERNAL_ERROR:
		case ERRCODE_INVALID_TRANSACTION_STATE:
		case ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION:
		case ERRCODE_INVALID_SCHEMA_NAME:
		case ERRCODE_INVALID_CATALOG_NAME:
		case ERRCODE_SQL_ROUTINE_EXCEPTION:
		case ERRCODE_EXTERNAL_ROUTINE_EXCEPTION:
		case ERRCODE_EXTERNAL_ROUTINE_INVOCATION_EXCEPTION:
		case ERRCODE_CONFIG_FILE_ERROR:
			return false;
		default:
			return true;
	}
}

/* Errors that pass without anybody doing something about them. */
bool
bdd_error_is_passing(int sqlstate)
{
	switch (ERRCODE_TO_CATEGORY(sqlstate))
	{
		case ERRCODE_TRANSACTION_ROLLBACK:
		case ERRCODE_INSUFFICIENT_RESOURCES:
		case ERRCODE_OPERATOR_INTERVENTION:
			return true;
		default:
			return sqlstate == ERRCODE_LOCK_NOT_AVAILABLE;
	}
}

/* Errors that say nothing about rows. */
static bool
concerns_no_row(int sqlstate)
{
	int category = ERRCODE_TO_CATEGORY(sqlstate);

	return bdd_error_is_passing(sqlstate) ||
		   category == ERRCODE_SYSTEM_ERROR ||
		   category == ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE;
}

/* ---------- trying ---------- */

/* Does the work in a subtransaction; returns the error that undid it, or NULL. */
ErrorData *
bdd_catch(BddWork work, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	ErrorData *volatile error = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		work(arg);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	return error;
}

/* The same; errors that say nothing about rows are raised. */
ErrorData *
bdd_in_subtransaction(BddWork work, void *arg)
{
	ErrorData *error = bdd_catch(work, arg);

	if (error != NULL && concerns_no_row(error->sqlerrcode))
		ReThrowError(error);
	return error;
}
