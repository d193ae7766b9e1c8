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

#include "apply/tolerate.h"
#include "apply/write.h"
#include "base/list.h"
#include "catalog/pg_collation_d.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "target/values.h"
#include "sql/attempt.h"
#include "sql/spi.h"
#include "target/keyorder.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

static const char *const operation_names[] = {"upsert", "delete", "replace"};

/* ---------- storing ---------- */

/*
 * The names of the columns that are in the set, or not in it, as text[].
 * Dropped columns are left out.
 */
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

/*
 * Columns that the row does not give are left out of its jsonb.  A row that a
 * foreign key refused waits for the other table.
 */
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

/* Applies skip their search for letters while this is false. */
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

/* The counterpart of operation_names. */
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

/* One row of the query in bdd_read_letters, copied out of SPI's table. */
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
BddImage
bdd_letter_image(BddTarget *target, const BddLetter *letter)
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

/* The hashes of the rows' keys, as int8[]; letters keep the same. */
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
List *
bdd_read_letters(BddTarget *target, bool superseded, const BddRows *of_rows)
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
bool
bdd_supersedes(BddTarget *target, const BddRow *row, const BddLetter *letter)
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

/* The sequence number tells the rows of one apply apart. */
static bool
is_refused(List *refused, const BddRow *row)
{
	ListCell *cell;

	foreach(cell, refused)
		if (((BddRefused *) lfirst(cell))->row.sequence == row->sequence)
			return true;
	return false;
}

/*
 * The letter stays to be seen, and is retried only by force.  The caller is
 * connected to SPI.
 */
void
bdd_mark_superseded(int64 id)
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

/*
 * For bdd_in_subtransaction, with a BddLetterSearch: a letter may have values
 * that the table's columns do not accept any more.
 */
void
bdd_find_letter_row(void *arg)
{
	BddLetterSearch *search = arg;
	BddSavedRole saved;
	BddImage image;

	bdd_become_owner_of(search->target->owner, &saved);
	image = bdd_letter_image(search->target, search->letter);
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

/* Whether bdd_supersedes is true of one of the key's rows, from "row" on. */
static bool
any_supersedes(BddTarget *target, const BddRows *rows, const BddRow *row,
			   List *refused, const BddLetter *letter)
{
	const BddRow *end = rows->rows + rows->count;
	const BddRow *first = row;

	for (; row < end && (row == first || row->round > 0); row++)
		if (!is_refused(refused, row) && bdd_supersedes(target, row, letter))
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
	foreach(cell, bdd_read_letters(target, false, rows))
	{
		BddLetterSearch wanted = {target, lfirst(cell), rows, 0, NULL};

		/* A letter whose key is none any more is not looked for. */
		if (bdd_in_subtransaction(bdd_find_letter_row, &wanted) == NULL &&
			wanted.found != NULL &&
			any_supersedes(target, rows, wanted.found, refused,
						   wanted.letter))
			bdd_mark_superseded(wanted.letter->id);
	}
	bdd_spi_finish();
}
