/*-------------------------------------------------------------------------
 *
 * instance.c
 *		The writers of an import: create_writer, write_chunk, finalize_instance.
 *
 * An instance begins with its first call.  It has a table of its own for COPY, and
 * one for chunks, as images.  finalize_instance closes both, under a lock that
 * waits for what is being written, and gives the instance its place in the order.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/debug_point.h"
#include "base/list.h"
#include "batch/batch.h"
#include "catalog/pg_type_d.h"
#include "common/hashfn.h"
#include "event/emit.h"
#include "fmgr.h"
#include "import/import_bound.h"
#include "import/import_row.h"
#include "import/import_rows.h"
#include "import/import_table.h"
#include "ingest/push.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/target.h"
#include "target/target_check.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(bdd_create_writer);
PG_FUNCTION_INFO_V1(bdd_write_chunk_json);
PG_FUNCTION_INFO_V1(bdd_write_chunk_text);
PG_FUNCTION_INFO_V1(bdd_write_chunk_rows);
PG_FUNCTION_INFO_V1(bdd_finalize_instance);

static void
check_not_finalized(const BddInstance *instance)
{
	if (instance->finalized)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("instance \"%s\" is finalized", instance->name)));
}

/* Before another instance is made: whether it is one that is expected. */
static void
check_expected(const BddImport *import, const char *name)
{
	static BddKeptPlan select = {
		"SELECT pg_catalog.count(*), pg_catalog.string_agg(pg_catalog.quote_ident(instance), ', ' ORDER BY instance) "
		"FROM batchdedup.import_instance WHERE batch_id = $1",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};
	bool isnull;

	if (import->instances != NIL && !bdd_is_named(import->instances, name))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("instance \"%s\" is not one of import \"%s\"", name,
						import->name)));
	(void) bdd_plan_run(&select, values, NULL);
	if (DatumGetInt64(bdd_spi_value(0, 1, &isnull)) >= import->expected)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" expects %d instances, and all have begun",
						import->name, import->expected),
				 errdetail("They are: %s.",
						   TextDatumGetCString(bdd_spi_value(0, 2, &isnull)))));
}

/*
 * The first writer moves the batch on.  If another call is about to, this one
 * does not wait for it.
 */
static void
note_loading(const BddImport *import)
{
	static BddKeptPlan pending = {
		"SELECT 1 FROM batchdedup.batch_row WHERE id = $1 AND status = 'pending' FOR UPDATE SKIP LOCKED",
		1,
		{UUIDOID}};
	Datum values[] = {UUIDPGetDatum(&import->id)};

	if (bdd_import_has_status(import, "pending") &&
		bdd_plan_run(&pending, values, NULL) > 0)
		bdd_batch_advance(&import->id, "scattering");
}

/* Inserts the instance's row; if it is there, its tables were made anew. */
static void
store_instance(const BddImport *import, const BddInstance *instance)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.import_instance (batch_id, instance, writer, chunks, bound) "
		"VALUES ($1, $2, $3, $4, $5) ON CONFLICT (batch_id, instance) DO UPDATE "
		"SET writer = EXCLUDED.writer, chunks = EXCLUDED.chunks",
		5,
		{UUIDOID, TEXTOID, REGCLASSOID, REGCLASSOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name),
					  ObjectIdGetDatum(instance->writer),
					  ObjectIdGetDatum(instance->chunks), (Datum) 0};
	char nulls[] = {' ', ' ', ' ', OidIsValid(instance->chunks) ? ' ' : 'n',
					instance->bound != NULL ? ' ' : 'n'};

	if (instance->bound != NULL)
		values[4] = CStringGetTextDatum(instance->bound);
	(void) bdd_plan_run(&insert, values, nulls);
}

/*
 * Raises an error if the bound overlaps that of another writer; of two that begin
 * at once, finalize_batch finds out.  Bounds are compared as the caller, since
 * they may have values of a domain.
 */
static void
check_overlaps(BddImport *import, const BddInstance *instance)
{
	static BddKeptPlan select = {
		"SELECT instance, bound FROM batchdedup.import_instance WHERE batch_id = $1 AND instance <> $2",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name)};
	uint64 count = bdd_plan_run(&select, values, NULL);
	SPITupleTable *table = SPI_tuptable;

	bdd_restore_role(&import->caller);
	for (uint64 i = 0; i < count; i++)
		if (bdd_bounds_overlap(import->relid, instance->bound,
							   SPI_getvalue(table->vals[i], table->tupdesc, 2)))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_OBJECT_DEFINITION),
					 errmsg("partition of instance \"%s\" would overlap that of instance \"%s\"",
							instance->name, SPI_getvalue(table->vals[i], table->tupdesc, 1))));
	bdd_become_extension_owner(&import->caller);
}

/* Makes tables and row of an instance, also of one whose tables are gone. */
static void
make_instance(BddImport *import, BddInstance *instance, const char *condition)
{
	if (import->attach && instance->bound == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a writer of import \"%s\" needs the bound of its partition",
						import->name),
				 errhint("Call batchdedup.create_writer with bound => 'FOR VALUES ...'.")));
	if (import->attach)
		check_overlaps(import, instance);
	bdd_make_writer(import, instance, condition);
	store_instance(import, instance);
	note_loading(import);
}

/*
 * Two calls that make the same instance at once would make two tables, so its
 * name is locked until the end of the transaction.  That too many are made at
 * once is seen when they are finalized: nobody shall wait for another
 * instance's transaction.
 */
static void
lock_instance_name(const BddImport *import, const char *name)
{
	Datum batch = DirectFunctionCall1(uuid_hash, UUIDPGetDatum(&import->id));
	uint32 hash = hash_combine(DatumGetUInt32(batch),
							   string_hash(name, strlen(name) + 1));
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, bdd_catalog_relation("import"), hash, 0);
	(void) LockAcquire(&tag, ExclusiveLock, false, false);
}

/*
 * Whether the instance has begun.  If it has not, its name is locked, so that
 * no other call makes it; this may have waited, so it is looked for again.
 */
static bool
find_instance(const BddImport *import, char *name, BddInstance *instance)
{
	if (bdd_instance_read(import, name, instance, false))
		return true;
	lock_instance_name(import, name);
	return bdd_instance_read(import, name, instance, false);
}

/* Finds the instance, or makes it. */
static void
need_instance(BddImport *import, BddInstance *instance, char *name)
{
	if (find_instance(import, name, instance))
		return;
	check_expected(import, name);
	make_instance(import, instance, NULL);
}

/* ---------- create_writer ---------- */

/* Forgets the instance's chunks, so that their numbers can be used again. */
static void
forget_chunks(const BddImport *import, const BddInstance *instance)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.import_chunk WHERE batch_id = $1 AND instance = $2",
		2,
		{UUIDOID, TEXTOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name)};

	(void) bdd_plan_run(&delete, values, NULL);
}

/*
 * Begins the instance anew, without rows.  Tables that are not all there any
 * more are dropped and made again.
 */
static void
restart_instance(BddImport *import, BddInstance *instance,
				 const char *condition)
{
	/* Waits for chunks that are on their way. */
	(void) bdd_instance_read(import, instance->name, instance, true);
	check_not_finalized(instance);
	forget_chunks(import, instance);
	if (bdd_instance_has_tables(instance))
	{
		bdd_empty_writer(import, instance);
		return;
	}
	if (get_rel_name(instance->writer) != NULL)
		bdd_drop_staging(instance->writer);
	if (OidIsValid(instance->chunks) && get_rel_name(instance->chunks) != NULL)
		bdd_drop_staging(instance->chunks);
	make_instance(import, instance, condition);
}

/* As the caller, since the bound may have expressions. */
static char *
check_bound(BddImport *import, char *name, const char *bound, char **condition)
{
	char *checked;

	bdd_restore_role(&import->caller);
	checked = bdd_bound_checked(import->relid, name, bound, condition);
	bdd_become_extension_owner(&import->caller);
	return checked;
}

/* create_writer(batch, instance, bound, restart) */
Datum
bdd_create_writer(PG_FUNCTION_ARGS)
{
	BddImport import;
	BddInstance instance;
	char *name;
	char *bound = NULL;
	char *condition = NULL;

	bdd_check_argument(fcinfo, 0, "batch");
	name = bdd_import_text_argument(fcinfo, 1, "instance");
	bdd_check_argument(fcinfo, 3, "restart");
	bdd_import_open(&import, PG_GETARG_UUID_P(0), "create_writer()", false, false);
	bdd_import_check_open(&import);
	if (!PG_ARGISNULL(2) && !import.attach)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("import \"%s\" attaches nothing, and its writers have no bound",
						import.name)));
	if (!PG_ARGISNULL(2))
		bound = check_bound(&import, name, text_to_cstring(PG_GETARG_TEXT_PP(2)),
							&condition);
	if (!find_instance(&import, name, &instance))
	{
		check_expected(&import, name);
		instance.bound = bound;
		make_instance(&import, &instance, condition);
	}
	else if (bound != NULL && strcmp(bound, instance.bound) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DUPLICATE_OBJECT),
				 errmsg("instance \"%s\" has another bound", name),
				 errdetail("It is %s.", instance.bound)));
	else if (PG_GETARG_BOOL(3))
	{
		if (condition == NULL && instance.bound != NULL)
			(void) check_bound(&import, name, instance.bound, &condition);
		restart_instance(&import, &instance, condition);
	}
	else
	{
		if (!instance.finalized)
			bdd_instance_check_tables(&instance);
		if (get_rel_name(instance.writer) != NULL)
			bdd_grant_writer(&import, instance.writer);
	}
	bdd_import_end(&import);
	bdd_debug_point("import-writer");
	PG_RETURN_OID(instance.writer);
}

/* ---------- write_chunk ---------- */

typedef enum BddChunkForm
{
	BDD_CHUNK_JSON,
	BDD_CHUNK_TEXT,
	BDD_CHUNK_ROWS
} BddChunkForm;

/* A chunk; "content" tells whether it is the same: bytes, not their meaning. */
typedef struct BddChunk
{
	int number;
	int64 rows;
	Datum content;
} BddChunk;

/* False: it is there already. */
static bool
claim_chunk(const BddImport *import, const BddInstance *instance,
			const BddChunk *chunk)
{
	static BddKeptPlan insert = {
		"INSERT INTO batchdedup.import_chunk (batch_id, instance, chunk_no, content, rows) "
		"VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
		5,
		{UUIDOID, TEXTOID, INT4OID, BYTEAOID, INT8OID}};
	static BddKeptPlan compare = {
		"SELECT content = $4 FROM batchdedup.import_chunk "
		"WHERE batch_id = $1 AND instance = $2 AND chunk_no = $3",
		4,
		{UUIDOID, TEXTOID, INT4OID, BYTEAOID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name),
					  Int32GetDatum(chunk->number), chunk->content,
					  Int64GetDatum(chunk->rows)};
	bool isnull;

	if (bdd_plan_run(&compare, values, NULL) == 0)
	{
		check_not_finalized(instance);
		bdd_instance_check_tables(instance);
		if (bdd_plan_run(&insert, values, NULL) > 0)
			return true;
		if (bdd_plan_run(&compare, values, NULL) == 0)
			ereport(ERROR,
					(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
					 errmsg("could not serialize access due to concurrent update")));
	}
	if (!DatumGetBool(bdd_spi_value(0, 1, &isnull)))
		ereport(ERROR,
				(errcode(ERRCODE_UNIQUE_VIOLATION),
				 errmsg("chunk %d of instance \"%s\" was written with other rows",
						chunk->number, instance->name)));
	return false;
}

/* Sets "content" to the SHA-256 of the bytes. */
static void
append_sha256(StringInfo bytes, Datum *content)
{
	bytea *value = palloc(VARHDRSZ + bytes->len);

	SET_VARSIZE(value, VARHDRSZ + bytes->len);
	memcpy(VARDATA(value), bytes->data, bytes->len);
	*content = DirectFunctionCall1(sha256_bytea, PointerGetDatum(value));
	pfree(value);
}

/* Images of an array of objects, or of a single object. */
static List *
images_of_json(BddTarget *target, Jsonb *document)
{
	List *images = NIL;
	JsonbIterator *iterator = JsonbIteratorInit(&document->root);
	bool is_array = JB_ROOT_IS_ARRAY(document) && !JB_ROOT_IS_SCALAR(document);
	JsonbIteratorToken token;
	JsonbValue value;

	do
	{
		BddValues row;
		BddImage *image = palloc(sizeof(BddImage));

		token = is_array ? JsonbIteratorNext(&iterator, &value, true) : WJB_ELEM;
		if (token != WJB_ELEM)
			continue;
		bdd_values_init(target, &row);
		bdd_values_from_jsonb(target, is_array ? JsonbValueToJsonb(&value) : document,
							  &row);
		*image = bdd_values_image(target, &row);
		images = lappend(images, image);
	} while (is_array && token != WJB_DONE);
	return images;
}

/*
 * Images of an array of rows.  Appends their text to "content", which tells
 * whether a chunk that comes again is the same.
 */
static List *
images_of_rows(BddTarget *target, ArrayType *array, StringInfo content)
{
	List *images = NIL;
	Datum *rows;
	bool *nulls;
	int count;

	if (getBaseType(ARR_ELEMTYPE(array)) != target->row_type)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("an array of %s is expected, not of %s",
						format_type_be(target->row_type),
						format_type_be(ARR_ELEMTYPE(array)))));
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_DOUBLE,
					  &rows, &nulls, &count);
	for (int i = 0; i < count; i++)
	{
		BddValues row;
		BddImage *image = palloc(sizeof(BddImage));

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("row must not be null"),
					 errdetail("Element %d of the array is null.", i + 1)));
		bdd_values_init(target, &row);
		bdd_values_from_row(target, DatumGetHeapTupleHeader(rows[i]), &row);
		appendStringInfoString(content,
							   OidOutputFunctionCall(F_RECORD_OUT, rows[i]));
		appendStringInfoChar(content, '\n');
		*image = bdd_values_image(target, &row);
		images = lappend(images, image);
	}
	return images;
}

static Jsonb *
parse_json(text *value)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(text_to_cstring(value))));
}

/*
 * The three forms of write_chunk.  False: the chunk is there already, with the
 * same content; with another one that is an error.  An instance may begin by
 * its first chunk.
 */
static bool
write_chunk(FunctionCallInfo fcinfo, BddChunkForm form)
{
	BddImport import;
	BddInstance instance;
	BddChunk chunk;
	StringInfoData content;
	BddSavedRole exact;
	List *images;
	char *name;
	bool claimed;

	bdd_check_argument(fcinfo, 0, "batch");
	name = bdd_import_text_argument(fcinfo, 1, "instance");
	bdd_check_argument(fcinfo, 2, "chunk_no");
	bdd_check_argument(fcinfo, 3, "rows");
	chunk.number = PG_GETARG_INT32(2);
	if (chunk.number < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("chunk_no must not be negative")));
	bdd_import_open(&import, PG_GETARG_UUID_P(0), "write_chunk()", false, false);
	bdd_import_check_open(&import);
	need_instance(&import, &instance, name);

	/* As the caller: it evaluates defaults, domains and types. */
	bdd_restore_role(&import.caller);
	initStringInfo(&content);
	if (form != BDD_CHUNK_ROWS)
	{
		Jsonb *document = form == BDD_CHUNK_JSON ?
							  PG_GETARG_JSONB_P(3) :
							  parse_json(PG_GETARG_TEXT_PP(3));

		images = images_of_json(import.target, document);
		appendBinaryStringInfo(&content, VARDATA(document),
							   VARSIZE(document) - VARHDRSZ);
	}
	else
	{
		GetUserIdAndSecContext(&exact.role, &exact.security);
		exact.guc_nesting = NewGUCNestLevel();
		bdd_exact_output();
		images = images_of_rows(import.target, PG_GETARG_ARRAYTYPE_P(3), &content);
		bdd_restore_role(&exact);
	}
	bdd_become_extension_owner(&import.caller);
	append_sha256(&content, &chunk.content);
	chunk.rows = list_length(images);
	claimed = claim_chunk(&import, &instance, &chunk);
	if (claimed)
		bdd_store_chunk(&import, &instance, chunk.number, images);
	bdd_import_end(&import);
	bdd_debug_point("import-chunk");
	return claimed;
}

/* write_chunk(batch, instance, chunk_no, rows jsonb) */
Datum
bdd_write_chunk_json(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(write_chunk(fcinfo, BDD_CHUNK_JSON));
}

/* write_chunk(batch, instance, chunk_no, rows text) */
Datum
bdd_write_chunk_text(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(write_chunk(fcinfo, BDD_CHUNK_TEXT));
}

/* write_chunk(batch, instance, chunk_no, rows anyarray) */
Datum
bdd_write_chunk_rows(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(write_chunk(fcinfo, BDD_CHUNK_ROWS));
}

/* ---------- finalize_instance ---------- */

/* The event of finalize_instance, in its transaction. */
static void
emit_finalized(const BddImport *import, const BddInstance *instance, int64 bytes,
			   int position)
{
	BddPayload payload;

	bdd_payload_begin(&payload);
	bdd_payload_text(&payload, "instance", instance->name);
	bdd_payload_int(&payload, "rows", instance->rows);
	bdd_payload_int(&payload, "bytes", bytes);
	bdd_payload_int(&payload, "position", position);
	bdd_event_emit(BDD_EVENT_INSTANCE_FINALIZED, &import->id, NULL, &payload);
}

/* The instance is the next in order; the last one makes the import ready. */
static void
count_finalized(BddImport *import, const BddInstance *instance, int64 bytes)
{
	static BddKeptPlan count = {
		"UPDATE batchdedup.batch_row SET processed_files = processed_files + 1 WHERE id = $1 "
		"AND processed_files < total_files RETURNING processed_files",
		1,
		{UUIDOID}};
	static BddKeptPlan update = {
		"UPDATE batchdedup.import_instance SET status = 'finalized', position = $3, rows = $4, bytes = $5, "
		"finalized_at = pg_catalog.clock_timestamp() WHERE batch_id = $1 AND instance = $2",
		5,
		{UUIDOID, TEXTOID, INT4OID, INT8OID, INT8OID}};
	Datum values[] = {UUIDPGetDatum(&import->id),
					  CStringGetTextDatum(instance->name), (Datum) 0,
					  Int64GetDatum(instance->rows), Int64GetDatum(bytes)};
	bool isnull;

	if (bdd_plan_run(&count, values, NULL) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("import \"%s\" expects %d instances, and all are finalized",
						import->name, import->expected)));
	values[2] = bdd_spi_value(0, 1, &isnull);
	(void) bdd_plan_run(&update, values, NULL);
	emit_finalized(import, instance, bytes, DatumGetInt32(values[2]));
	bdd_batch_advance(&import->id,
					  DatumGetInt32(values[2]) >= import->expected ? "scattered" :
																	 "scattering");
}

/* finalize_instance(batch, instance) */
Datum
bdd_finalize_instance(PG_FUNCTION_ARGS)
{
	BddImport import;
	BddInstance instance;
	char *name;
	int64 bytes;
	bool first;

	bdd_check_argument(fcinfo, 0, "batch");
	name = bdd_import_text_argument(fcinfo, 1, "instance");
	bdd_import_open(&import, PG_GETARG_UUID_P(0), "finalize_instance()", false, false);
	if (!bdd_import_has_status(&import, "completed"))
		bdd_import_check_open(&import);
	/* Waits for chunks that are on their way. */
	if (!bdd_instance_read(&import, name, &instance, true))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("instance \"%s\" of import \"%s\" has not begun",
						name, import.name),
				 errhint("One without rows begins with batchdedup.create_writer.")));
	first = !instance.finalized;
	if (first)
	{
		bdd_import_check_open(&import);
		bdd_instance_check_tables(&instance);
		bdd_close_writer(&import, &instance, &bytes);
		bdd_debug_point("import-closed");
		count_finalized(&import, &instance, bytes);
	}
	bdd_import_end(&import);
	bdd_debug_point("import-finalized");
	PG_RETURN_BOOL(first);
}
