/*-------------------------------------------------------------------------
 *
 * import_rows.c
 *		The rows of an import: how chunks are kept, and how all are published.
 *
 * To be upserted, the rows of all writers are sorted by key and then by the
 * order in which they count, on disk if need be.  They go to the table as those
 * of a generation do (same rules, same statements), part by part, so that
 * memory is bounded whatever there is: rows of a key that come in two parts
 * meet the table one after the other, which means the same as one upsert
 * after the other.
 *
 * The import's transaction writes directly from here on, as one that was too
 * large for the buffer: it first waits for the flush of what was published
 * before, and its own pending rows come first.  Rows that are published
 * meanwhile are applied after it; an apply that meets our rows waits for us,
 * and both write in key order.
 *
 *-------------------------------------------------------------------------
 */
#include "import/import_rows.h"

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/relation.h"
#include "access/tableam.h"
#include "apply/dead_letter.h"
#include "apply/direct.h"
#include "apply/write.h"
#include "base/compat.h"
#include "base/debug_point.h"
#include "base/list.h"
#include "base/number.h"
#include "buffer/progress.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_type_d.h"
#include "commit/pending.h"
#include "executor/tuptable.h"
#include "import/import_table.h"
#include "ingest/push.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/keyorder.h"
#include "target/target.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplesort.h"

/* Bytes of rows that are folded and written together. */
#define PART_BYTES (64 * 1024 * 1024)
/* Bytes of a chunk that are one row of its table. */
#define CHUNK_BYTES (1024 * 1024)

/* ---------- chunks ---------- */

/* Inserts the bytes as one row of a table of chunks, and empties the buffer. */
static void
insert_part(const char *table, int chunk, int part, StringInfo bytes)
{
	Oid types[] = {INT4OID, INT4OID, BYTEAOID};
	bytea *value = palloc(VARHDRSZ + bytes->len);
	Datum values[] = {Int32GetDatum(chunk), Int32GetDatum(part),
					  PointerGetDatum(value)};

	SET_VARSIZE(value, VARHDRSZ + bytes->len);
	memcpy(VARDATA(value), bytes->data, bytes->len);
	(void) bdd_spi_run(psprintf("INSERT INTO %s VALUES ($1, $2, $3)", table),
					   lengthof(types), types, values, NULL);
	resetStringInfo(bytes);
	pfree(value);
}

/* As images, in parts: each row a byte "full", size, and bytes. */
static void
store_images(BddImport *import, Oid chunks, int chunk, List *images)
{
	const char *table = bdd_qualified_name(chunks);
	StringInfoData bytes;
	ListCell *cell;
	int part = 0;

	initStringInfo(&bytes);
	foreach(cell, images)
	{
		const BddImage *image = lfirst(cell);

		appendStringInfoChar(&bytes, image->full);
		bdd_image_pack(&import->target->shape, image, &bytes);
		if (bytes.len >= CHUNK_BYTES)
			insert_part(table, chunk, part++, &bytes);
	}
	if (bytes.len > 0)
		insert_part(table, chunk, part, &bytes);
}

/* Names of the columns that the image has values for; "prefix" each. */
static char *
columns_of(BddTarget *target, const BddColumns *set, const char *prefix)
{
	StringInfoData names;

	initStringInfo(&names);
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		const char *name = NameStr(TupleDescAttr(target->shape.desc, i)->attname);

		if (bdd_column_in(set, i))
			appendStringInfo(&names, "%s%s%s", names.len > 0 ? ", " : "", prefix,
							 quote_identifier(name));
	}
	return names.data;
}

/* The image as a value of the target's row type. */
static Datum
composite_of(BddTarget *target, const BddImage *image)
{
	int natts = target->shape.desc->natts;
	Datum *values = palloc(natts * sizeof(Datum));
	bool *isnull = palloc(natts * sizeof(bool));

	bdd_image_deform(&target->shape, image, values, isnull);
	return heap_copy_tuple_as_datum(heap_form_tuple(target->shape.desc, values, isnull),
									target->shape.desc);
}

/* Rows that give the same columns, as INSERT of the owner. */
static void
insert_images(BddImport *import, Oid writer, const List *images, int first,
			  int end)
{
	BddTarget *target = import->target;
	const BddColumns *set = bdd_image_insert(&target->shape, list_nth(images, first));
	Datum *rows = palloc((end - first) * sizeof(Datum));
	Oid types[] = {get_array_type(target->row_type)};
	Datum values[1];
	BddSavedRole saved;

	for (int i = first; i < end; i++)
		rows[i - first] = composite_of(target, list_nth(images, i));
	values[0] = PointerGetDatum(construct_array(rows, end - first, target->row_type, -1, false,
												TYPALIGN_DOUBLE));
	bdd_become_owner_of(target->owner, &saved);
	(void) bdd_spi_run(psprintf("INSERT INTO %s (%s) SELECT %s FROM unnest($1) AS r",
								bdd_qualified_name(writer), columns_of(target, set, ""),
								columns_of(target, set, "r.")),
					   1, types, values, NULL);
	bdd_restore_role(&saved);
}

/*
 * Inserts the rows into a table that will be attached.  Neighbours that give
 * the same columns share a statement; columns that are not given take their
 * defaults.
 */
static void
insert_chunk(BddImport *import, Oid writer, const List *images)
{
	const BddShape *shape = &import->target->shape;
	int first = 0;

	while (first < list_length(images))
	{
		const BddColumns *set = bdd_image_insert(shape, list_nth(images, first));
		int end = first + 1;

		while (end < list_length(images) &&
			   memcmp(set, bdd_image_insert(shape, list_nth(images, end)),
					  shape->set_bytes) == 0)
			end++;
		insert_images(import, writer, images, first, end);
		first = end;
	}
}

/* Keeps the rows of a chunk. */
void
bdd_store_chunk(BddImport *import, const BddInstance *instance, int chunk,
				List *images)
{
	if (OidIsValid(instance->chunks))
		store_images(import, instance->chunks, chunk, images);
	else
		insert_chunk(import, instance->writer, images);
}

/* ---------- sorting ---------- */

/*
 * What is sorted: the columns of the key, then place (two for each instance:
 * COPY and chunks), order in it, and the image behind its byte "full".
 */
typedef struct BddPublishing
{
	BddImport *import;
	BddTarget *target;
	List *instances;
	TupleDesc desc;
	TupleTableSlot *slot;
	Tuplesortstate *sort;
	MemoryContext row_context; /* of one row */
	uint64 unreported;         /* rows read or written */
	int64 rows;
} BddPublishing;

/* A row counts half when it is read, and half when it is written. */
static void
report(BddPublishing *publishing)
{
	bdd_progress_add(publishing->unreported / 2);
	publishing->unreported %= 2;
}

/* Counts a row that is read, and reports now and then. */
static void
count_row(BddPublishing *publishing)
{
	publishing->rows++;
	if (++publishing->unreported >= 2000)
	{
		CHECK_FOR_INTERRUPTS();
		report(publishing);
	}
}

/*
 * Begins a sort in the order of the key's index, which may go to disk, in the
 * memory of maintenance_work_mem.
 */
static void
begin_sort(BddPublishing *publishing)
{
	BddKey *key = &publishing->target->key;
	int count = key->count + 2;
	AttrNumber *columns = palloc(count * sizeof(AttrNumber));
	Oid *operators = palloc(count * sizeof(Oid));
	Oid *collations = palloc0(count * sizeof(Oid));
	bool *nulls_first = palloc0(count * sizeof(bool));
	TupleDesc desc = CreateTemplateTupleDesc(count + 1);

	for (int i = 0; i < key->count; i++)
	{
		BddKeyColumn *column = &key->columns[i];

		TupleDescInitEntry(desc, i + 1, "key", column->type, -1, 0);
		operators[i] = get_opfamily_member(column->opfamily, column->input_type,
										   column->input_type, BTLessStrategyNumber);
		collations[i] = column->collation;
	}
	TupleDescInitEntry(desc, count - 1, "place", INT4OID, -1, 0);
	TupleDescInitEntry(desc, count, "order", INT8OID, -1, 0);
	TupleDescInitEntry(desc, count + 1, "image", BYTEAOID, -1, 0);
	operators[count - 2] = Int4LessOperator;
	operators[count - 1] = Int8LessOperator;
	for (int i = 0; i < count; i++)
		columns[i] = i + 1;
	bdd_finish_desc(desc);
	publishing->desc = desc;
	publishing->slot = MakeSingleTupleTableSlot(desc, &TTSOpsVirtual);
	publishing->sort = tuplesort_begin_heap(desc, count, columns, operators, collations,
											nulls_first, maintenance_work_mem, NULL,
											TUPLESORT_NONE);
}

/* Gives a row to the sort, which copies it. */
static void
sort_image(BddPublishing *publishing, const BddImage *image, int place,
		   int64 order)
{
	BddTarget *target = publishing->target;
	TupleTableSlot *slot = publishing->slot;
	int count = target->key.count;
	bytea *value = palloc(VARHDRSZ + 1 + image->size);
	HeapTupleData heap;
	bool isnull;

	SET_VARSIZE(value, VARHDRSZ + 1 + image->size);
	VARDATA(value)
	[0] = image->full;
	memcpy(VARDATA(value) + 1, image->data, image->size);
	ExecClearTuple(slot);
	memset(slot->tts_isnull, 0, publishing->desc->natts * sizeof(bool));
	bdd_tuple_as_heap(bdd_image_tuple(&target->shape, image), &heap);
	for (int i = 0; i < count; i++)
		slot->tts_values[i] = heap_getattr(&heap, target->key.columns[i].attnum,
										   target->shape.desc, &isnull);
	slot->tts_values[count] = Int32GetDatum(place);
	slot->tts_values[count + 1] = Int64GetDatum(order);
	slot->tts_values[count + 2] = PointerGetDatum(value);
	ExecStoreVirtualTuple(slot);
	tuplesort_puttupleslot(publishing->sort, slot);
	count_row(publishing);
}

/* ---------- rows by COPY ---------- */

/*
 * Columns of a writer's table by those of the target: it was made with the
 * target's columns in their order, without those that are dropped or generated.
 */
static AttrNumber *
map_columns(const BddTarget *target, TupleDesc writer)
{
	AttrNumber *map = palloc0(target->shape.desc->natts * sizeof(AttrNumber));
	int next = 0;

	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(target->shape.desc, i);

		if (attribute->attisdropped || target->columns[i].generated)
			continue;
		while (next < writer->natts && TupleDescAttr(writer, next)->attisdropped)
			next++;
		if (next >= writer->natts ||
			TupleDescAttr(writer, next)->atttypid != attribute->atttypid)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("a writer's table of an import into \"%s\" has been changed",
							get_rel_name(target->relid)),
					 errhint("End the import with batchdedup.abort_batch, and begin another one.")));
		map[i] = ++next;
	}
	return map;
}

/*
 * A row that came by COPY as an upsert that gives all columns of the writer's
 * table; bdd_values_give decides about each.
 */
static BddImage
image_of_slot(BddTarget *target, TupleTableSlot *slot, const AttrNumber *map)
{
	BddValues row;
	BddColumns *update;

	bdd_values_init(target, &row);
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		if (map[i] == InvalidAttrNumber)
			continue;
		row.values[i] = slot->tts_values[map[i] - 1];
		row.isnull[i] = slot->tts_isnull[map[i] - 1];
		bdd_values_give(target, &row, i);
	}
	update = palloc(target->shape.set_bytes);
	for (int i = 0; i < target->shape.set_bytes; i++)
		update[i] = row.given[i] & target->shape.update[i];
	return bdd_image_from_values(&target->shape, BDD_UPSERT, row.values,
								 row.isnull, update, row.given);
}

/* All rows of a writer's table, as they are now. */
typedef struct BddScan
{
	Relation rel;
	Snapshot snapshot;
	TupleTableSlot *slot;
	TableScanDesc scan;
} BddScan;

/*
 * Begins a scan with a snapshot of now, because that of the transaction may be
 * older than the rows.
 */
static BddScan
open_scan(Oid relid)
{
	BddScan scan;

	scan.rel = relation_open(relid, AccessShareLock);
	scan.snapshot = RegisterSnapshot(GetLatestSnapshot());
	scan.slot = table_slot_create(scan.rel, NULL);
	scan.scan = table_beginscan_strat(scan.rel, scan.snapshot, 0, NULL, true, false);
	return scan;
}

/* The row is in scan->slot. */
static bool
next_row(BddScan *scan)
{
	if (!table_scan_getnextslot(scan->scan, ForwardScanDirection, scan->slot))
		return false;
	slot_getallattrs(scan->slot);
	return true;
}

/* The end of open_scan. */
static void
close_scan(BddScan *scan)
{
	table_endscan(scan->scan);
	ExecDropSingleTupleTableSlot(scan->slot);
	UnregisterSnapshot(scan->snapshot);
	relation_close(scan->rel, AccessShareLock);
}

/* All that is committed: nobody writes it any more. */
static void
sort_table(BddPublishing *publishing, Oid writer, int place)
{
	BddScan scan = open_scan(writer);
	AttrNumber *map = map_columns(publishing->target, RelationGetDescr(scan.rel));
	AttrNumber order = bdd_column_number(RelationGetDescr(scan.rel), BDD_ORDER_COLUMN);

	if (order == InvalidAttrNumber)
		elog(ERROR, "table \"%s\" has no column \"" BDD_ORDER_COLUMN "\"", RelationGetRelationName(scan.rel));
	while (next_row(&scan))
	{
		MemoryContext old_context = MemoryContextSwitchTo(publishing->row_context);
		BddImage image = image_of_slot(publishing->target, scan.slot, map);

		sort_image(publishing, &image, place, DatumGetInt64(scan.slot->tts_values[order - 1]));
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(publishing->row_context);
	}
	close_scan(&scan);
}

/* ---------- rows by chunk ---------- */

/*
 * Gives the rows of one part of a chunk to the sort; see store_images for its
 * form.  Each row takes the next number of "order".
 */
static void
sort_part(BddPublishing *publishing, bytea *part, int place, int64 *order)
{
	const char *data = VARDATA_ANY(part);
	const char *end = data + VARSIZE_ANY_EXHDR(part);

	while (data < end)
	{
		bool full = *data++ != 0;
		uint64 size;
		BddImage image;

		if (!bdd_get_number(&data, end, &size) || size > (uint64) (end - data))
			ereport(ERROR,
					(errcode(ERRCODE_DATA_CORRUPTED),
					 errmsg("a chunk of import \"%s\" is damaged", publishing->import->name)));
		image = bdd_image_unpack(&publishing->target->shape, BDD_UPSERT, full, data, size);
		data += size;
		sort_image(publishing, &image, place, (*order)++);
		pfree(image.data);
	}
}

/*
 * Gives the rows of an instance's chunks to the sort.  They count by chunk,
 * part and place in it, since the order in the heap means nothing.
 */
static void
sort_chunks(BddPublishing *publishing, Oid chunks, int place)
{
	BddScan scan = open_scan(chunks);

	while (next_row(&scan))
	{
		const Datum *values = scan.slot->tts_values;
		int64 order = ((int64) DatumGetInt32(values[0]) << 32) +
					  ((int64) DatumGetInt32(values[1]) << 20);
		MemoryContext old_context = MemoryContextSwitchTo(publishing->row_context);

		sort_part(publishing, DatumGetByteaPP(values[2]), place, &order);
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(publishing->row_context);
	}
	close_scan(&scan);
}

/* Gives the rows of all instances to the sort, and sorts them. */
static void
sort_all(BddPublishing *publishing)
{
	ListCell *cell;

	foreach(cell, publishing->instances)
	{
		const BddInstance *instance = lfirst(cell);
		int place = 2 * foreach_current_index(cell);

		sort_table(publishing, instance->writer, place);
		sort_chunks(publishing, instance->chunks, place + 1);
	}
	report(publishing);
	tuplesort_performsort(publishing->sort);
}

/* ---------- errors ---------- */

/* Rows are numbered behind their place, to tell whose one was. */
#define PLACE_BITS 20

/* The key as the server writes it in messages: (a, b)=(1, 2). */
static char *
key_text(BddTarget *target, const BddImage *image)
{
	StringInfoData names;
	StringInfoData values;
	HeapTupleData heap;

	initStringInfo(&names);
	initStringInfo(&values);
	bdd_tuple_as_heap(bdd_image_tuple(&target->shape, image), &heap);
	for (int i = 0; i < target->key.count; i++)
	{
		AttrNumber attnum = target->key.columns[i].attnum;
		Form_pg_attribute attribute = TupleDescAttr(target->shape.desc, attnum - 1);
		Oid output;
		bool is_varlena;
		bool isnull;
		Datum value = heap_getattr(&heap, attnum, target->shape.desc, &isnull);

		getTypeOutputInfo(attribute->atttypid, &output, &is_varlena);
		appendStringInfo(&names, "%s%s", i > 0 ? ", " : "", NameStr(attribute->attname));
		appendStringInfo(&values, "%s%s", i > 0 ? ", " : "", OidOutputFunctionCall(output, value));
	}
	return psprintf("(%s)=(%s)", names.data, values.data);
}

/*
 * The row that the table refuses, as far as it is one: what is tried before
 * stays, as the transaction will not.
 */
static BddRow *
find_refused(BddTarget *target, BddRow *rows, uint64 count, ErrorData **error)
{
	BddApplyCounts ignored = {0};

	while (count > 1)
	{
		ErrorData *half = bdd_try_write(target, rows, count / 2, &ignored);

		if (half != NULL)
		{
			*error = half;
			count = count / 2;
		}
		else
		{
			rows += count / 2;
			count -= count / 2;
		}
	}
	return bdd_try_write(target, rows, 1, &ignored) != NULL ? rows : NULL;
}

/*
 * Raises the error, with the instance and the key of the row where one row is
 * to blame.  What the table's content would tell is kept from a caller that
 * may not read it.  Called as the table's owner.
 */
static void
report_refused(BddPublishing *publishing, BddRow *rows, uint64 count,
			   ErrorData *error, bool may_read)
{
	BddTarget *target = publishing->target;
	BddRow *row = find_refused(target, rows, count, &error);
	const BddInstance *instance = NULL;
	StringInfoData detail;

	if (!may_read)
		ereport(ERROR,
				(errcode(error->sqlerrcode),
				 errmsg("a row of import \"%s\" was refused by table \"%s\"",
						publishing->import->name, get_rel_name(target->relid)),
				 errhint("The details are shown to who may read the table.")));
	initStringInfo(&detail);
	if (error->detail != NULL)
		appendStringInfo(&detail, "%s\n", error->detail);
	if (row != NULL)
	{
		instance = list_nth(publishing->instances,
							(int) (row->sequence & ((1 << PLACE_BITS) - 1)) / 2);
		appendStringInfo(&detail, "The row is of instance \"%s\"", instance->name);
		if (target->key.count > 0)
			appendStringInfo(&detail, ", with key %s", key_text(target, &row->image));
		appendStringInfoChar(&detail, '.');
	}
	ereport(ERROR,
			(errcode(error->sqlerrcode),
			 errmsg("import \"%s\" cannot be published: %s", publishing->import->name,
					error->message),
			 detail.len > 0 ? errdetail("%s", detail.data) : 0,
			 error->hint != NULL ? errhint("%s", error->hint) : 0));
}

/* ---------- writing ---------- */

/*
 * Folds the rows of each key and writes them as the table's owner; an error
 * ends the import.  The role is that of the extension's owner before and
 * afterwards.
 */
static void
write_part(BddPublishing *publishing, BddRows *rows, uint64 count,
		   BddApplyCounts *counts)
{
	BddTarget *target = publishing->target;
	BddSavedRole saved;
	ErrorData *error;
	bool may_read;

	bdd_restore_role(&publishing->import->caller);
	may_read = bdd_may_read(target->relid);
	bdd_become_owner_of(target->owner, &saved);
	bdd_constraints_immediate(target->relid);
	(void) bdd_rows_fold_equal(target, rows);
	error = bdd_try_write_quickly(target, rows->rows, rows->count, counts);
	if (error != NULL)
		report_refused(publishing, rows->rows, rows->count, error, may_read);
	bdd_restore_role(&saved);
	bdd_supersede_dead_letters(target, rows, NIL);
	bdd_become_extension_owner(&publishing->import->caller);
	publishing->unreported += count;
	report(publishing);
	bdd_debug_point("import-part");
}

/*
 * Adds the row in the slot.  Its number grows with each row, and has the place
 * in its low bits.
 */
static void
take_sorted(BddPublishing *publishing, BddRows *rows, uint64 *number)
{
	TupleTableSlot *slot = publishing->slot;
	int count = publishing->target->key.count;
	BddImage image = {.op = BDD_UPSERT};
	bytea *value;
	bool isnull;
	uint64 place = (uint64) DatumGetInt32(slot_getattr(slot, count + 1, &isnull));

	value = DatumGetByteaPP(slot_getattr(slot, count + 3, &isnull));
	image.full = VARDATA_ANY(value)[0] != 0;
	image.size = VARSIZE_ANY_EXHDR(value) - 1;
	image.data = palloc(image.size);
	memcpy(image.data, VARDATA_ANY(value) + 1, image.size);
	bdd_rows_add(rows, (++*number << PLACE_BITS) | Min(place, (1 << PLACE_BITS) - 1), &image);
}

/* Writes the sorted rows in parts, of which each has its own memory. */
static void
write_all(BddPublishing *publishing, BddApplyCounts *counts)
{
	MemoryContext part = AllocSetContextCreate(CurrentMemoryContext, "batchdedup import part",
											   ALLOCSET_DEFAULT_SIZES);
	MemoryContext old_context = MemoryContextSwitchTo(part);
	BddRows rows = {0};
	Size bytes = 0;
	uint64 number = 0;
	bool more;

	do
	{
		CHECK_FOR_INTERRUPTS();
		more = tuplesort_gettupleslot(publishing->sort, true, false, publishing->slot, NULL);
		if (more)
		{
			take_sorted(publishing, &rows, &number);
			bytes += rows.rows[rows.count - 1].image.size + sizeof(BddRow);
		}
		if (rows.count > 0 && (!more || bytes >= PART_BYTES))
		{
			write_part(publishing, &rows, rows.count, counts);
			memset(&rows, 0, sizeof(rows));
			bytes = 0;
			MemoryContextReset(part);
		}
	} while (more);
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(part);
}

/*
 * From here on this transaction writes to the table itself, behind what was
 * published before.  As the caller.
 */
static void
go_direct(BddTarget *target)
{
	BddPending *pending;

	if (bdd_am_worker)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("an import cannot be published while rows are applied")));
	LockRelationOid(target->relid, RowExclusiveLock);
	bdd_pending_init();
	pending = bdd_pending_get(target->relid, target->options.target_id,
							  bdd_target_find_slot(target), &target->shape);
	if (pending->direct == NULL)
		bdd_direct_begin(target, pending);
}

/* The rows that were counted when the instances were finalized. */
static int64
expected_rows(List *instances)
{
	int64 rows = 0;
	ListCell *cell;

	foreach(cell, instances)
		rows += ((BddInstance *) lfirst(cell))->rows;
	return rows;
}

/*
 * Brings the rows of the instances into the table; returns their number.  With
 * no instances it only waits for what was published before.
 */
int64
bdd_publish_rows(BddImport *import, List *instances, int64 *inserted,
				 int64 *updated)
{
	BddPublishing publishing = {.import = import, .instances = instances};
	BddApplyCounts counts = {0};
	MemoryContext context;
	MemoryContext old_context;

	bdd_restore_role(&import->caller);
	go_direct(import->target);
	bdd_become_extension_owner(&import->caller);
	if (instances == NIL)
		return 0;
	/* What it waited for may have brought news. */
	publishing.target = import->target = bdd_target_open(import->relid, RowExclusiveLock);
	context = AllocSetContextCreate(CurrentMemoryContext, "batchdedup import",
									ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	publishing.row_context = AllocSetContextCreate(context, "batchdedup import row",
												   ALLOCSET_DEFAULT_SIZES);
	bdd_progress_begin("import", import->relid, &import->id, expected_rows(instances));
	begin_sort(&publishing);
	sort_all(&publishing);
	ExecDropSingleTupleTableSlot(publishing.slot);
	bdd_debug_point("import-sorted");
	publishing.slot = MakeSingleTupleTableSlot(publishing.desc, &TTSOpsMinimalTuple);
	write_all(&publishing, &counts);
	ExecDropSingleTupleTableSlot(publishing.slot);
	tuplesort_end(publishing.sort);
	bdd_progress_end();
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	*inserted = (int64) counts.inserted;
	*updated = (int64) counts.updated;
	return publishing.rows;
}
