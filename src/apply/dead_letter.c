/*-------------------------------------------------------------------------
 *
 * dead_letter.c
 *		Rows that their table refused, kept with the error.
 *
 * A letter is written in the transaction that applies the rest.  It keeps the
 * row as jsonb with the values it carries, and which of its columns overwrite
 * (the others are first values).  A letter that a later applied row makes
 * needless is marked in the transaction that applies that row.
 *
 *-------------------------------------------------------------------------
 */
#include "apply/dead_letter.h"

#include "access/table.h"
#include "access/xact.h"
#include "apply/tolerate.h"
#include "apply/write.h"
#include "base/compat.h"
#include "base/guc.h"
#include "base/list.h"
#include "base/loaded.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "target/values.h"
#include "miscadmin.h"
#include "sql/attempt.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/keyorder.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"

PG_FUNCTION_INFO_V1(bdd_retry_dead_letters);
PG_FUNCTION_INFO_V1(bdd_discard_dead_letters);

static const char *const operation_names[] = {"upsert", "delete", "replace"};

/* ---------- storing ---------- */

static Datum
column_names(BddTarget *target, const BddColumns *columns, bool in)
{
	int natts = target->shape.desc->natts;
	Datum *names = palloc(natts * sizeof(Datum));
	int count = 0;

	for (int i = 0; i < natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(target->shape.desc, i);

		if (!attribute->attisdropped && bdd_column_in(columns, i) == in)
			names[count++] = CStringGetTextDatum(NameStr(attribute->attname));
	}
	return PointerGetDatum(construct_array(names, count, TEXTOID, -1, false,
										   TYPALIGN_INT));
}

static Datum
key_names(BddTarget *target)
{
	BddColumns *columns = palloc0(target->shape.set_bytes);

	for (int i = 0; i < target->key.count; i++)
		bdd_column_add(columns, target->key.columns[i].attnum - 1);
	return column_names(target, columns, true);
}

/*
 * The image's row as json text.  The types' output functions run as the
 * table's owner.
 */
static Datum
row_json(BddTarget *target, const BddImage *image)
{
	BddSavedRole saved;
	BddValues row;
	HeapTuple tuple;
	Datum json;

	bdd_values_init(target, &row);
	bdd_image_deform(&target->shape, image, row.values, row.isnull);
	tuple = heap_form_tuple(target->shape.desc, row.values, row.isnull);
	bdd_become_owner_of(target->owner, &saved);
	bdd_exact_output();
	json = DirectFunctionCall1(row_to_json,
							   heap_copy_tuple_as_datum(tuple,
														target->shape.desc));
	bdd_restore_role(&saved);
	return json;
}

/* A json column may say \\u0000, which jsonb does not take: keep it as text. */
static Datum
without_nul(Datum json)
{
	return DirectFunctionCall3Coll(replace_text, DEFAULT_COLLATION_OID, json,
								   CStringGetTextDatum("\\u0000"),
								   CStringGetTextDatum("\\\\u0000"));
}

static void
store_letter(BddTarget *target, uint64 generation, BddRefused *refused)
{
	const BddImage *image = &refused->row.image;
	Oid types[] = {INT4OID, REGCLASSOID, TEXTARRAYOID, TEXTOID,
				   TEXTARRAYOID, TEXTARRAYOID, TEXTOID, TEXTOID, TEXTOID, TEXTOID,
				   TEXTOID, INT4OID, INT8OID, INT8OID, INT8OID};
	char nulls[lengthof(types) + 1] = "               ";
	Datum values[lengthof(types)];
	int i = 0;

	values[i++] = Int32GetDatum(target->options.target_id);
	values[i++] = ObjectIdGetDatum(target->relid);
	values[i++] = key_names(target);
	values[i++] = without_nul(row_json(target, image));
	values[i++] = column_names(target, bdd_image_insert(&target->shape, image),
							   false);
	values[i++] = column_names(target, bdd_image_update(&target->shape, image),
							   true);
	values[i++] = CStringGetTextDatum(operation_names[image->op]);
	bdd_error_values(refused->error, &values[i], &nulls[i]);
	i += 4;
	values[i++] = Int32GetDatum((int32) target->slot->failure.count + 1);
	values[i++] = Int64GetDatum(generation);
	values[i++] = Int64GetDatum(refused->row.sequence);
	nulls[i] = target->key.exact ? ' ' : 'n';
	values[i++] = target->key.exact ?
					  Int64GetDatum(bdd_key_hash(target, image)) :
					  (Datum) 0;
	Assert(i == lengthof(types));
	(void) bdd_spi_run("INSERT INTO batchdedup.dead_letter_row "
					   "(target_id, target, key, row, update_columns, operation, "
					   "sqlstate, message, detail, hint, attempts, generation, sequence, key_hash, waits) "
					   "SELECT $1, $2, (SELECT coalesce(pg_catalog.jsonb_object_agg(k, r.doc OPERATOR(pg_catalog.->) k), '{}') "
					   "FROM pg_catalog.unnest($3) k), "
					   "r.doc OPERATOR(pg_catalog.-) $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $8 OPERATOR(pg_catalog.=) '23503' "
					   "FROM (SELECT $4::pg_catalog.jsonb) AS r(doc)",
					   lengthof(types), types, values, nulls);
}

static void
note_letters(BddSharedSlot *slot)
{
	LWLockAcquire(&slot->lock, LW_EXCLUSIVE);
	slot->has_letters = true;
	LWLockRelease(&slot->lock);
}

/* In the transaction that applies the rest. */
void
bdd_store_dead_letters(BddTarget *target, uint64 generation, List *refused)
{
	BddSavedRole saved;
	ListCell *cell;

	if (refused == NIL)
		return;
	note_letters(target->slot);
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	foreach(cell, refused)
		store_letter(target, generation, lfirst(cell));
	bdd_spi_finish();
	bdd_restore_role(&saved);
}

/* ---------- letters as they come back ---------- */

typedef struct BddLetter
{
	int64 id;
	const char *operation;
	Datum update_columns; /* text[] */
	Jsonb *document;      /* the row, or its key alone; NULL: nothing left */
	bool waits;           /* for another target */
	bool accepted;        /* by the table, now */
} BddLetter;

static BddOp
operation_of(const char *name)
{
	for (int i = 0; i < lengthof(operation_names); i++)
		if (strcmp(name, operation_names[i]) == 0)
			return (BddOp) i;
	elog(ERROR, "unknown operation \"%s\"", name);
}

/* Columns that are not there any more are left out. */
static BddColumns *
columns_named(BddTarget *target, Datum array)
{
	BddColumns *columns = palloc0(target->shape.set_bytes);
	Datum *names;
	int count;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &names, NULL, &count);
	for (int i = 0; i < count; i++)
	{
		AttrNumber attnum = bdd_column_number(target->shape.desc,
											  TextDatumGetCString(names[i]));

		if (attnum != InvalidAttrNumber)
			bdd_column_add(columns, attnum - 1);
	}
	return columns;
}

static BddLetter *
read_letter(HeapTuple tuple, TupleDesc desc)
{
	BddLetter *letter = palloc0(sizeof(BddLetter));
	Datum document;
	bool isnull;

	letter->id = DatumGetInt64(SPI_getbinval(tuple, desc, 1, &isnull));
	letter->operation = TextDatumGetCString(SPI_getbinval(tuple, desc, 2,
														  &isnull));
	letter->update_columns = PointerGetDatum(
		PG_DETOAST_DATUM_COPY(SPI_getbinval(tuple, desc, 3, &isnull)));
	document = SPI_getbinval(tuple, desc, 4, &isnull);
	if (!isnull)
		letter->document = DatumGetJsonbPCopy(document);
	letter->waits = DatumGetBool(SPI_getbinval(tuple, desc, 5, &isnull));
	return letter;
}

/*
 * The letter's row as an image, if the table can still take it.  The caller
 * is the table's owner.
 */
static BddImage
letter_image(BddTarget *target, const BddLetter *letter)
{
	BddValues row;

	bdd_values_init(target, &row);
	if (letter->document != NULL)
		bdd_values_from_jsonb(target, letter->document, &row);
	bdd_check_key_given(target, &row);
	return bdd_image_from_values(&target->shape,
								 operation_of(letter->operation), row.values,
								 row.isnull,
								 columns_named(target, letter->update_columns),
								 row.given);
}

/* More rows than this are not worth an array. */
#define MAX_KEYS_SOUGHT 1000000

static Datum
key_hashes(BddTarget *target, const BddRows *rows)
{
	Datum *hashes = MemoryContextAllocHuge(CurrentMemoryContext,
										   Max(rows->count, 1) * sizeof(Datum));
	ArrayType *array;

	for (uint64 i = 0; i < rows->count; i++)
		hashes[i] = Int64GetDatum(bdd_key_hash(target, &rows->rows[i].image));
	array = construct_array(hashes, (int) rows->count, INT8OID, sizeof(int64),
							FLOAT8PASSBYVAL, TYPALIGN_DOUBLE);
	pfree(hashes);
	return PointerGetDatum(array);
}

/*
 * The target's letters, oldest first, with all their columns that are still
 * there; or those that may be of the keys of "of_rows", with the key alone.
 * Those that are "superseded", too?  The caller is connected to SPI.
 */
static List *
read_letters(BddTarget *target, bool superseded, const BddRows *of_rows)
{
	Oid types[] = {INT4OID, BOOLOID, TEXTARRAYOID, INT8ARRAYOID};
	Datum columns = of_rows != NULL ?
						key_names(target) :
						column_names(target, target->shape.insert, true);
	Datum values[] = {Int32GetDatum(target->options.target_id),
					  BoolGetDatum(superseded), columns, (Datum) 0};
	char nulls[lengthof(types) + 1] = "   n";
	BddSavedRole saved;
	List *letters = NIL;
	SPITupleTable *table;

	if (of_rows != NULL && target->key.exact && of_rows->count <= MAX_KEYS_SOUGHT)
	{
		nulls[3] = ' ';
		values[3] = key_hashes(target, of_rows);
	}
	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run("SELECT id, operation, update_columns, "
					   "(SELECT pg_catalog.jsonb_object_agg(e.key, e.value) FROM pg_catalog.jsonb_each(row) e "
					   "WHERE e.key OPERATOR(pg_catalog.=) ANY ($3)), waits "
					   "FROM batchdedup.dead_letter_row "
					   "WHERE target_id OPERATOR(pg_catalog.=) $1 AND (NOT superseded OR $2) "
					   "AND generation OPERATOR(pg_catalog.>) 0 "
					   "AND ($4 IS NULL OR key_hash IS NULL "
					   "OR (key_hash OPERATOR(pg_catalog.>>) 32) OPERATOR(pg_catalog.<>) ($4[1] OPERATOR(pg_catalog.>>) 32) "
					   "OR key_hash OPERATOR(pg_catalog.=) ANY ($4)) "
					   "ORDER BY generation, sequence, id",
					   lengthof(types), types, values, nulls);
	bdd_restore_role(&saved);

	table = SPI_tuptable;
	for (uint64 i = 0; i < table->numvals; i++)
		letters = lappend(letters,
						  read_letter(table->vals[i], table->tupdesc));
	return letters;
}

/* ---------- superseded letters ---------- */

/*
 * Whether the applied row leaves nothing of the letter.  With a version column
 * the table may have ignored it, and tells again when the letter is retried.
 */
static bool
supersedes(BddTarget *target, const BddRow *row, const BddLetter *letter)
{
	const BddShape *shape = &target->shape;
	const BddColumns *update = bdd_image_update(shape, &row->image);
	const BddColumns *wanted = columns_named(target, letter->update_columns);

	if (row->image.op != BDD_UPSERT)
		return !bdd_image_is_versioned_delete(shape, &row->image);
	if (shape->version >= 0)
		return false;
	for (int i = 0; i < shape->desc->natts; i++)
		if (bdd_column_in(wanted, i) &&
			(!bdd_column_in(update, i) ||
			 (shape->rules != NULL && shape->rules[i].kind != BDD_LAST)))
			return false;
	return true;
}

static bool
is_refused(List *refused, const BddRow *row)
{
	ListCell *cell;

	foreach(cell, refused)
		if (((BddRefused *) lfirst(cell))->row.sequence == row->sequence)
			return true;
	return false;
}

static void
mark_superseded(int64 id)
{
	Oid types[] = {INT8OID};
	Datum values[] = {Int64GetDatum(id)};
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	(void) bdd_spi_run("UPDATE batchdedup.dead_letter_row SET superseded = true "
					   "WHERE id OPERATOR(pg_catalog.=) $1",
					   1, types, values, NULL);
	bdd_restore_role(&saved);
}

typedef struct BddSearch
{
	BddTarget *target;
	const BddLetter *letter;
	BddRows *rows;
	uint64 from; /* sequence */
	BddRow *found;
} BddSearch;

static void
find_letter_row(void *arg)
{
	BddSearch *search = arg;
	BddSavedRole saved;
	BddImage image;

	bdd_become_owner_of(search->target->owner, &saved);
	image = letter_image(search->target, search->letter);
	search->found = bdd_rows_find(search->target, search->rows, &image,
								  search->from);
	bdd_restore_role(&saved);
}

/*
 * Letters are written by applies, which need a slot; without one there are at
 * most those from before the server's start.
 */
static bool
may_have_letters(BddTarget *target)
{
	BddSharedSlot *slot = bdd_target_find_slot(target);

	if (slot != NULL)
		return slot->has_letters;
	if (!target->letters_known)
	{
		target->has_letters = bdd_has_dead_letters(target->relid);
		target->letters_known = true;
	}
	return target->has_letters;
}

/* Whether one of the key's rows, from "row" on, supersedes the letter. */
static bool
any_supersedes(BddTarget *target, const BddRows *rows, const BddRow *row,
			   List *refused, const BddLetter *letter)
{
	const BddRow *end = rows->rows + rows->count;
	const BddRow *first = row;

	for (; row < end && (row == first || row->round > 0); row++)
		if (!is_refused(refused, row) && supersedes(target, row, letter))
			return true;
	return false;
}

/*
 * Marks the letters that rows just applied make needless.  "rows" are sorted
 * by key; "refused" are those of them that were not applied.
 */
void
bdd_supersede_dead_letters(BddTarget *target, BddRows *rows, List *refused)
{
	ListCell *cell;

	if (rows->count == 0 || target->key.count == 0 || !may_have_letters(target))
		return;
	bdd_spi_connect();
	foreach(cell, read_letters(target, false, rows))
	{
		BddSearch wanted = {target, lfirst(cell), rows, 0, NULL};

		/* A letter whose key is none any more is not looked for. */
		if (bdd_in_subtransaction(find_letter_row, &wanted) == NULL &&
			wanted.found != NULL &&
			any_supersedes(target, rows, wanted.found, refused,
						   wanted.letter))
			mark_superseded(wanted.letter->id);
	}
	bdd_spi_finish();
}

/* ---------- retry and discard ---------- */

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

static void
write_letter(void *arg)
{
	BddRetry *retry = arg;
	BddTarget *target = retry->target;
	BddRow row = {0};
	BddSavedRole saved;

	bdd_become_owner_of(target->owner, &saved);
	row.image = letter_image(target, retry->letter);
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
			BddImage image = letter_image(accepted->target, letter);

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
	BddSearch wanted = {accepted->target, letter, &accepted->rows, place, NULL};

	while (bdd_in_subtransaction(find_letter_row, &wanted) == NULL &&
		   wanted.found != NULL)
	{
		if (supersedes(accepted->target, wanted.found, letter))
			return true;
		wanted.from = wanted.found->sequence + 1;
	}
	return false;
}

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
			mark_superseded(letter->id);
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
	letters = read_letters(target, force, NULL);
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
		letters = read_letters(target, false, NULL);
		foreach(letter, letters)
			if (((BddLetter *) lfirst(letter))->waits)
				(void) retry_letter(target, lfirst(letter), true);
		supersede_left_letters(target, letters);
	}
	bdd_spi_finish();
}
