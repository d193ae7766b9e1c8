/*-------------------------------------------------------------------------
 *
 * letter_retry.c
 *		Trying dead letters again, and discarding them.
 *
 * The owner of a table asks for it (retry_dead_letters), and the worker does
 * it for letters that wait: rows that a foreign key refused are tried once
 * more in the transaction that applies the table at the key's other end.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/letter_retry.h"

#include "access/xact.h"
#include "apply/dead_letter.h"
#include "apply/tolerate.h"
#include "apply/write.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/loaded.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "sql/attempt.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/keyorder.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(bdd_retry_dead_letters);

PG_FUNCTION_INFO_V1(bdd_discard_dead_letters);

/* ---------- retry and discard ---------- */

/* The target in argument 0.  Its letters are for the table's owner only. */
static BddTarget *
open_as_owner(FunctionCallInfo fcinfo)
{
	bdd_check_preloaded();
	PreventCommandIfReadOnly("changing dead letters");
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	if (!bdd_owns_relation(PG_GETARG_OID(0), GetUserId()))
		aclcheck_error(ACLCHECK_NOT_OWNER, OBJECT_TABLE,
					   get_rel_name(PG_GETARG_OID(0)));
	return bdd_target_open(PG_GETARG_OID(0), RowExclusiveLock);
}

/* The table has the row now. */
static void
letter_applied(int64 id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(id)};
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run("DELETE FROM batchdedup.dead_letter_row "
					   "WHERE id OPERATOR(pg_catalog.=) $1",
					   1, types, values, NULL);
	bdd_restore_role(&saved);
}

/*
 * The letter keeps the new error and does not wait any more.  "counted": the
 * attempt was counted before, by bdd_count_waiting_letters.
 */
static void
letter_refused(int64 id, const ErrorData *error, bool counted)
{
	Oid types[] = {INT8OID, TEXTOID, TEXTOID, TEXTOID, TEXTOID, INT4OID};
	char nulls[lengthof(types) + 1] = "      ";
	Datum values[lengthof(types)];
	BddSavedRole saved;

	values[0] = Int64GetDatum(id);
	bdd_error_values(error, &values[1], &nulls[1]);
	values[5] = Int32GetDatum(counted ? 0 : 1);
	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run("UPDATE batchdedup.dead_letter_row SET attempts = attempts OPERATOR(pg_catalog.+) $6, "
					   "waits = false, sqlstate = $2, message = $3, detail = $4, hint = $5, "
					   "last_attempt_at = pg_catalog.clock_timestamp() "
					   "WHERE id OPERATOR(pg_catalog.=) $1",
					   lengthof(types), types, values, nulls);
	bdd_restore_role(&saved);
}

typedef struct BddRetry
{
	BddTarget *target;
	const BddLetter *letter;
	BddApplyCounts counts;
} BddRetry;

/* For bdd_in_subtransaction, with a BddRetry. */
static void
write_letter(void *arg)
{
	BddRetry *retry = arg;
	BddTarget *target = retry->target;
	BddRow row = {0};
	BddSavedRole saved;

	bdd_become_owner_of(target->owner, &saved);
	row.image = bdd_letter_image(target, retry->letter);
	retry->counts.finds_stale = true;
	bdd_write_rows(target, &row, 1, false, &retry->counts);
	bdd_restore_role(&saved);
}

/* Letters are written as the owner: see bdd_constraints_immediate. */
static void
prepare_retry(BddTarget *target)
{
	BddSavedRole saved;

	bdd_become_owner_of(target->owner, &saved);
	bdd_constraints_immediate(target->relid);
	bdd_restore_role(&saved);
}

/* "counted": the attempt was counted before. */
static bool
retry_letter(BddTarget *target, BddLetter *letter, bool counted)
{
	BddRetry retry = {target, letter};
	ErrorData *error = bdd_in_subtransaction(write_letter, &retry);
	BddSharedSlot *slot = bdd_target_find_slot(target);

	letter->accepted = error == NULL;
	if (letter->accepted && retry.counts.stale > 0 && slot != NULL)
		bdd_count_stale(slot, target->options.target_id,
						retry.counts.stale);
	if (letter->accepted)
		letter_applied(letter->id);
	else
		letter_refused(letter->id, error, counted);
	return letter->accepted;
}

typedef struct BddAccepted
{
	BddTarget *target;
	List *letters;
	BddRows rows; /* sequence: place in the list */
} BddAccepted;

/*
 * For bdd_in_subtransaction, with a BddAccepted: its rows, sorted by key, have
 * the letters' places in the list as sequence numbers.
 */
static void
collect_accepted(void *arg)
{
	BddAccepted *accepted = arg;
	BddSavedRole saved;
	ListCell *cell;

	bdd_become_owner_of(accepted->target->owner, &saved);
	foreach(cell, accepted->letters)
	{
		BddLetter *letter = lfirst(cell);

		if (letter->accepted)
		{
			BddImage image = bdd_letter_image(accepted->target, letter);

			bdd_rows_add(&accepted->rows, foreach_current_index(cell), &image);
		}
	}
	bdd_rows_sort(accepted->target, &accepted->rows);
	bdd_restore_role(&saved);
}

/* Whether a newer letter that was accepted leaves nothing of this one. */
static bool
is_left_behind(BddAccepted *accepted, const BddLetter *letter, int place)
{
	BddLetterSearch wanted = {accepted->target, letter, &accepted->rows, place, NULL};

	while (bdd_in_subtransaction(bdd_find_letter_row, &wanted) == NULL &&
		   wanted.found != NULL)
	{
		if (bdd_supersedes(accepted->target, wanted.found, letter))
			return true;
		wanted.from = wanted.found->sequence + 1;
	}
	return false;
}

/*
 * Marks letters that were refused once more, but are older than an accepted
 * one that leaves nothing of them.
 */
static void
supersede_left_letters(BddTarget *target, List *letters)
{
	BddAccepted accepted = {target, letters, {0}};
	ListCell *cell;

	if (target->key.count == 0 ||
		bdd_in_subtransaction(collect_accepted, &accepted) != NULL ||
		accepted.rows.count == 0)
		return;
	foreach(cell, letters)
	{
		BddLetter *letter = lfirst(cell);

		if (!letter->accepted &&
			is_left_behind(&accepted, letter, foreach_current_index(cell)))
			bdd_mark_superseded(letter->id);
	}
}

/*
 * Letters of generation 0 are of files that have failed, see barrier.c: their
 * batches know how to open them again.
 */
static int64
retry_failed_files(void)
{
	BddSavedRole saved;
	bool isnull;

	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run("SELECT coalesce(pg_catalog.sum(batchdedup.retry_files(b)), 0)::pg_catalog.int8 FROM ("
					   "SELECT f.batch_id FROM batchdedup.dead_letter_row l "
					   "JOIN batchdedup.file f ON f.id OPERATOR(pg_catalog.=) (l.key OPERATOR(pg_catalog.->>) 'id')::pg_catalog.uuid "
					   "JOIN batchdedup.batch_row b ON b.id OPERATOR(pg_catalog.=) f.batch_id "
					   "WHERE l.target OPERATOR(pg_catalog.=) 'batchdedup.file'::pg_catalog.regclass "
					   "AND l.generation OPERATOR(pg_catalog.=) 0 "
					   "AND f.status OPERATOR(pg_catalog.=) 'failed' "
					   "AND b.status OPERATOR(pg_catalog.<>) ALL ('{completed,cancelled}') "
					   "GROUP BY 1 ORDER BY 1) f (b)",
					   0, NULL, NULL, NULL);
	bdd_restore_role(&saved);
	return DatumGetInt64(SPI_getbinval(SPI_tuptable->vals[0],
									   SPI_tuptable->tupdesc, 1, &isnull));
}

/*
 * retry_dead_letters(target, force): writes the letters to the table, oldest
 * first, in the caller's transaction; returns how many were accepted.
 */
Datum
bdd_retry_dead_letters(PG_FUNCTION_ARGS)
{
	BddTarget *target = open_as_owner(fcinfo);
	bool force = !PG_ARGISNULL(1) && PG_GETARG_BOOL(1);
	int64 accepted = 0;
	List *letters;
	ListCell *cell;

	prepare_retry(target);
	bdd_spi_connect();
	letters = bdd_read_letters(target, force, NULL);
	foreach(cell, letters)
		if (retry_letter(target, lfirst(cell), false))
			accepted++;
	supersede_left_letters(target, letters);
	if (target->relid == bdd_catalog_relation("file"))
		accepted += retry_failed_files();
	bdd_spi_finish();
	PG_RETURN_INT64(accepted);
}

/* discard_dead_letters(target): returns how many there were. */
Datum
bdd_discard_dead_letters(PG_FUNCTION_ARGS)
{
	BddTarget *target = open_as_owner(fcinfo);
	Oid types[] = {INT4OID, REGCLASSOID};
	Datum values[] = {Int32GetDatum(target->options.target_id),
					  ObjectIdGetDatum(target->relid)};
	BddSavedRole saved;
	uint64 count;

	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	/* Letters of our own targets have come from a dump with another number. */
	count = bdd_spi_run("DELETE FROM batchdedup.dead_letter_row "
						"WHERE target_id OPERATOR(pg_catalog.=) $1 "
						"OR target OPERATOR(pg_catalog.=) $2 AND generation OPERATOR(pg_catalog.=) 0",
						2, types, values, NULL);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	PG_RETURN_INT64(count);
}

/* ---------- rows that wait for another target ---------- */

/* Letters that wait, of tables that a foreign key ties to table $1. */
#define WAITING_FOR_TABLE                                                                          \
	"waits AND NOT superseded AND target::pg_catalog.oid OPERATOR(pg_catalog.=) ANY (ARRAY( "      \
	"SELECT CASE WHEN c.confrelid OPERATOR(pg_catalog.=) $1 THEN c.conrelid ELSE c.confrelid END " \
	"FROM pg_catalog.pg_constraint c WHERE c.contype OPERATOR(pg_catalog.=) 'f' "                  \
	"AND (c.confrelid OPERATOR(pg_catalog.=) $1 OR c.conrelid OPERATOR(pg_catalog.=) $1))) "

/* The worker has found letters when it looked for the first time. */
static bool letters_from_before = false;

/*
 * Whether this database may have letters.  The slots are looked at without
 * their locks: a letter that is missed now is found by the next apply.
 */
static bool
any_letters(void)
{
	bool any = letters_from_before;

	for (int i = 0; i < bdd_registry->slot_count && !any; i++)
		any = bdd_registry->slots[i].in_use &&
			  bdd_registry->slots[i].database == MyDatabaseId &&
			  bdd_registry->slots[i].has_letters;
	return any;
}

/*
 * Before the table is applied, in a transaction of its own: counts the attempt
 * for rows that will be tried again with it.  One that takes the server down
 * each time is so given up in the end.
 */
void
bdd_count_waiting_letters(Oid relid)
{
	static bool looked = false;
	Oid types[] = {OIDOID, INT4OID};
	Datum values[] = {ObjectIdGetDatum(relid), Int32GetDatum(bdd_retry_limit)};
	BddSavedRole saved;

	if (looked && !any_letters())
		return;
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (OidIsValid(bdd_catalog_relation("dead_letter_row")))
	{
		bdd_become_extension_owner(&saved);
		bdd_spi_connect();
		/* Of targets, too, that nobody has used since the server started. */
		if (!looked)
			letters_from_before = bdd_spi_run("SELECT FROM batchdedup.dead_letter_row WHERE waits LIMIT 1",
											  0, NULL, NULL, NULL) > 0;
		looked = true;
		(void) bdd_spi_run("UPDATE batchdedup.dead_letter_row "
						   "SET tries = tries OPERATOR(pg_catalog.+) 1, "
						   "attempts = CASE WHEN tries OPERATOR(pg_catalog.<) $2 "
						   "THEN attempts OPERATOR(pg_catalog.+) 1 ELSE attempts END, "
						   "waits = tries OPERATOR(pg_catalog.<) $2 "
						   "WHERE " WAITING_FOR_TABLE,
						   lengthof(types), types, values, NULL);
		bdd_spi_finish();
		bdd_restore_role(&saved);
	}
	PopActiveSnapshot();
	CommitTransactionCommand();
}

/*
 * The tables whose letters may go now that this one was applied.  The caller
 * is connected to SPI.
 */
static List *
waiting_targets(Oid relid)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(relid)};
	BddSavedRole saved;
	List *relids = NIL;

	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run("SELECT DISTINCT target::pg_catalog.oid FROM batchdedup.dead_letter_row "
					   "WHERE " WAITING_FOR_TABLE "ORDER BY 1",
					   1, types, values, NULL);
	bdd_restore_role(&saved);
	for (uint64 i = 0; i < SPI_tuptable->numvals; i++)
	{
		bool isnull;

		relids = lappend_oid(relids,
							 DatumGetObjectId(SPI_getbinval(SPI_tuptable->vals[i],
															SPI_tuptable->tupdesc,
															1, &isnull)));
	}
	return relids;
}

/*
 * Rows that a foreign key had refused are tried once more after a flush of
 * the table at its other end, in the transaction of that flush.
 */
void
bdd_retry_waiting_letters(BddTarget *applied)
{
	ListCell *cell;

	if (!bdd_am_worker || !any_letters())
		return;
	bdd_spi_connect();
	foreach(cell, waiting_targets(applied->relid))
	{
		BddTarget *target;
		List *letters;
		ListCell *letter;

		/* It must not hold up the table that is applied. */
		if (!ConditionalLockRelationOid(lfirst_oid(cell), RowExclusiveLock))
			continue;
		target = bdd_target_lookup(lfirst_oid(cell));
		if (target == NULL || target->broken != BDD_USABLE ||
			target->options.paused)
			continue;
		prepare_retry(target);
		letters = bdd_read_letters(target, false, NULL);
		foreach(letter, letters)
			if (((BddLetter *) lfirst(letter))->waits)
				(void) retry_letter(target, lfirst(letter), true);
		supersede_left_letters(target, letters);
	}
	bdd_spi_finish();
}
