/*-------------------------------------------------------------------------
 *
 * drop.c
 *		What is dropped: tables, columns, the extension, databases.
 *
 * Buffered rows of a dropped table are discarded with it, at the commit.  Rows of
 * a dropped partition go into it first, so that they do not become dead letters.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/catalog.h"
#include "watch/drop.h"

#include "base/compat.h"
#include "buffer/registry.h"
#include "buffer/slot.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commit/pending.h"
#include "commit/xact.h"
#include "import/import_table.h"
#include "journal/message.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "nodes/value.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "watch/settle.h"

/* Removes what the extension keeps of the table: options, mark and letters. */
static void
delete_options(Oid relid)
{
	Oid types[] = {REGCLASSOID};
	Datum values[] = {ObjectIdGetDatum(relid)};
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	(void) bdd_spi_run("WITH gone AS (DELETE FROM batchdedup.target_option "
					   "WHERE target OPERATOR(pg_catalog.=) $1 RETURNING target_id), "
					   "letters AS (DELETE FROM batchdedup.dead_letter_row "
					   "WHERE target OPERATOR(pg_catalog.=) $1) "
					   "DELETE FROM batchdedup.mark m USING gone "
					   "WHERE m.target_id OPERATOR(pg_catalog.=) gone.target_id",
					   1, types, values, NULL);
	bdd_spi_finish();
	bdd_restore_role(&saved);
}

/*
 * The table goes: memory is freed at commit, and the journal learns that its
 * rows are not needed.
 */
static void
table_dropped(Oid relid)
{
	BddSharedSlot *slot = bdd_slot_find_by_table(relid);

	bdd_set_pending_aside(relid);
	if (slot != NULL)
	{
		bdd_journal_write_applied(slot->target_id, relid, PG_UINT64_MAX);
		bdd_at_commit_free_slot(slot);
	}
	if (OidIsValid(bdd_catalog_relation("mark")) &&
		OidIsValid(bdd_catalog_relation("dead_letter_row")) &&
		(bdd_is_target(relid) || bdd_has_dead_letters(relid)))
		delete_options(relid);
}

/*
 * A column goes.  ALTER TABLE has brought the rows into the table before; DROP
 * TYPE ... CASCADE and the like have not.
 */
static void
refuse_if_unapplied(Oid relid)
{
	BddSharedSlot *slot;
	BddPending *pending = bdd_pending_find(relid);

	if (bdd_is_target(relid))
		bdd_journal_wait_replayed();
	slot = bdd_slot_find_by_table(relid);
	if (bdd_has_unapplied(slot, pending))
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_IN_USE),
				 errmsg("cannot drop a column of \"%s\" because rows for it are buffered",
						get_rel_name(relid)),
				 errhint("Flush the target first with batchdedup.flush.")));
}

/*
 * The extension goes, and with it all targets of the database.  DROP EXTENSION
 * has brought their rows into the tables before (settle_all_targets); other
 * ways to drop it are refused while rows are there.
 */
static void
forget_all_targets(void)
{
	ListCell *cell;

	foreach(cell, bdd_all_targets())
	{
		Oid relid = lfirst_oid(cell);
		BddSharedSlot *slot;
		BddPending *pending = bdd_pending_find(relid);

		LockRelationOid(relid, ShareRowExclusiveLock);
		bdd_journal_wait_replayed();
		slot = bdd_slot_find_by_table(relid);
		if (bdd_has_unapplied(slot, pending))
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_IN_USE),
					 errmsg("cannot drop extension batchdedup because rows for \"%s\" are buffered",
							get_rel_name(relid)),
					 errhint("DROP EXTENSION batchdedup; brings them into the table first.")));
		if (slot != NULL)
			bdd_at_commit_free_slot(slot);
		CacheInvalidateRelcacheByRelid(relid);
	}
}

/* For each object that is dropped, also by CASCADE. */
void
bdd_object_dropped(Oid class, Oid object, int sub_object)
{
	if (class == RelationRelationId && sub_object == 0 &&
		OidIsValid(MyDatabaseId))
	{
		if (!bdd_can_be_target(object))
			return;
		if (object == bdd_catalog_relation("target_option"))
			forget_all_targets();
		else
			table_dropped(object);
	}
	else if (class == RelationRelationId && sub_object > 0)
		refuse_if_unapplied(object);
	else if (class == DatabaseRelationId)
		bdd_at_commit_free_database(object);
}

/* Whether batchdedup is among the extensions that are dropped. */
static bool
drops_extension(DropStmt *drop)
{
	ListCell *cell;

	if (drop->removeType == OBJECT_EXTENSION)
		foreach(cell, drop->objects)
			if (strcmp(strVal(lfirst(cell)), BDD_LIBRARY) == 0)
				return true;
	return false;
}

/* The rows of a partition go with it, but not as dead letters. */
static void
settle_partitioned(DropStmt *drop)
{
	ListCell *cell;

	foreach(cell, drop->objects)
	{
		RangeVar *table = makeRangeVarFromNameList(lfirst(cell));
		Oid relid = RangeVarGetRelid(table, NoLock, true);

		if (OidIsValid(relid) && bdd_owns_relation(relid, GetUserId()))
			bdd_settle_ancestors(relid, NIL);
	}
}

/* The server checks itself who may drop the extension. */
static void
settle_all_targets(void)
{
	ListCell *cell;

	if (!superuser())
		return;
	foreach(cell, bdd_all_targets())
		bdd_settle(lfirst_oid(cell), ShareRowExclusiveLock);
	bdd_staging_follows_extension();
}

/* Before DROP: rows go into the tables that stay, or that the extension leaves. */
void
bdd_before_drop(DropStmt *drop)
{
	if (drops_extension(drop))
		settle_all_targets();
	else if (drop->removeType == OBJECT_TABLE)
		settle_partitioned(drop);
}
