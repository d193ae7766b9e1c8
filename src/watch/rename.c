/*-------------------------------------------------------------------------
 *
 * rename.c
 *		RENAME COLUMN and RENAME ATTRIBUTE in what the extension keeps by name.
 *
 * Columns are kept by name, because a dump is to restore them.
 *
 *-------------------------------------------------------------------------
 */
#include "watch/rename.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_inherits.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/inval.h"
#include "watch/alter.h"
#include "watch/settle.h"

/* Our columns are kept by name: a dump shall restore them. */
static void
rename_column_of(Oid relid, RenameStmt *rename)
{
	Oid types[] = {REGCLASSOID, TEXTOID, TEXTOID};
	Datum values[3];
	BddSavedRole saved;

	values[0] = ObjectIdGetDatum(relid);
	values[1] = CStringGetTextDatum(rename->subname);
	values[2] = CStringGetTextDatum(rename->newname);
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run("UPDATE batchdedup.target_option "
					   "SET key_columns = pg_catalog.array_replace(key_columns, $2, $3), "
					   "update_columns = pg_catalog.array_replace(update_columns, $2, $3), "
					   "merge_columns = pg_catalog.array_replace(merge_columns, $2, $3), "
					   "version_column = CASE WHEN version_column OPERATOR(pg_catalog.=) $2 THEN $3 ELSE version_column END "
					   "WHERE target OPERATOR(pg_catalog.=) $1",
					   lengthof(types), types, values, NULL);
	(void) bdd_spi_run("UPDATE batchdedup.dead_letter_row SET "
					   "key = CASE WHEN key OPERATOR(pg_catalog.?) $2 THEN (key OPERATOR(pg_catalog.-) $2) "
					   "OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object($3, key OPERATOR(pg_catalog.->) $2) ELSE key END, "
					   "row = CASE WHEN row OPERATOR(pg_catalog.?) $2 THEN (row OPERATOR(pg_catalog.-) $2) "
					   "OPERATOR(pg_catalog.||) pg_catalog.jsonb_build_object($3, row OPERATOR(pg_catalog.->) $2) ELSE row END, "
					   "update_columns = pg_catalog.array_replace(update_columns, $2, $3) "
					   "WHERE target OPERATOR(pg_catalog.=) $1",
					   lengthof(types), types, values, NULL);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	CacheInvalidateRelcacheByRelid(relid);
	CommandCounterIncrement();
}

/* A column of the table and of all tables that inherit it. */
static void
rename_column(RenameStmt *rename)
{
	Oid relid = RangeVarGetRelid(rename->relation, NoLock, true);
	ListCell *cell;

	if (!bdd_can_be_target(relid))
		return;
	foreach(cell, find_all_inheritors(relid, NoLock, NULL))
		if (bdd_is_target(lfirst_oid(cell)))
			rename_column_of(lfirst_oid(cell), rename);
}

/* With CASCADE the column of every table OF the type. */
static void
rename_attribute(RenameStmt *rename)
{
	ListCell *cell;

	foreach(cell, bdd_typed_targets(rename->relation))
		rename_column_of(lfirst_oid(cell), rename);
}

/* After RENAME of a column, or of an attribute of a type. */
void
bdd_after_rename(RenameStmt *rename)
{
	if (rename->renameType == OBJECT_COLUMN)
		rename_column(rename);
	else if (rename->renameType == OBJECT_ATTRIBUTE)
		rename_attribute(rename);
}
