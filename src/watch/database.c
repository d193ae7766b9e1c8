/*-------------------------------------------------------------------------
 *
 * database.c
 *		Statements that need a database without connections.
 *
 * CREATE DATABASE ... TEMPLATE, ALTER DATABASE and DROP DATABASE fail while a
 * worker is connected: it leaves for their time.
 *
 *-------------------------------------------------------------------------
 */
#include "watch/database.h"

#include "base/compat.h"
#include "buffer/wake.h"
#include "catalog/pg_type.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "miscadmin.h"

/*
 * The database must have no connections, so its worker leaves at once.  The
 * server waits a few seconds for that itself.
 */
static void
send_worker_away(const char *database, BddVacated *vacated)
{
	Oid oid = database != NULL ? get_database_oid(database, true) : InvalidOid;

	if (!OidIsValid(oid) || !bdd_owns_database(oid, GetUserId()))
		return;
	vacated->database = oid;
	vacated->until = bdd_worker_leave(oid);
}

/* The statement is over, whether it failed or not. */
void
bdd_call_worker_back(const BddVacated *vacated)
{
	if (OidIsValid(vacated->database))
		bdd_worker_may_return(vacated->database, vacated->until);
}

/* The value of an option of CREATE or ALTER DATABASE, or NULL. */
static const char *
database_option(List *options, const char *name)
{
	ListCell *cell;

	foreach(cell, options)
	{
		DefElem *option = lfirst(cell);

		if (strcmp(option->defname, name) == 0 && option->arg != NULL)
			return defGetString(option);
	}
	return NULL;
}

/*
 * Sends the worker of the database away if the statement needs that; "vacated"
 * says of which, and stays as it is otherwise.
 */
void
bdd_before_database_statement(Node *statement, BddVacated *vacated)
{
	switch (nodeTag(statement))
	{
		case T_DropdbStmt:
			send_worker_away(((DropdbStmt *) statement)->dbname, vacated);
			break;
		case T_CreatedbStmt:
			send_worker_away(database_option(((CreatedbStmt *) statement)->options,
											 "template"),
							 vacated);
			break;
		case T_AlterDatabaseStmt:
			if (database_option(((AlterDatabaseStmt *) statement)->options,
								"tablespace") != NULL)
				send_worker_away(((AlterDatabaseStmt *) statement)->dbname,
								 vacated);
			break;
		case T_RenameStmt:
			if (((RenameStmt *) statement)->renameType == OBJECT_DATABASE)
				send_worker_away(((RenameStmt *) statement)->subname, vacated);
			break;
		default:
			break;
	}
}
