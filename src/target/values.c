/*-------------------------------------------------------------------------
 *
 * values.c
 *		From SQL values to a row image.
 *
 * Values come from a composite of the table's row type, from a JSON object,
 * or column by column.  A column is given or not: an upsert overwrites what
 * is given.  bdd_values_complete checks what can be told at the call (NOT
 * NULL, the version, privileges) and adds defaults that are known then.
 *
 *-------------------------------------------------------------------------
 */
#include "target/values.h"

#include "access/htup_details.h"
#include "base/compat.h"
#include "base/list.h"
#include "commands/sequence.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "target/privilege.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"

/* ---------- values ---------- */

/* The column with this name; an error, with a hint or NULL, if there is none. */
int
bdd_named_column(const BddTarget *target, const char *name, const char *hint)
{
	AttrNumber attnum = bdd_column_number(target->shape.desc, name);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name, get_rel_name(target->relid)),
				 hint != NULL ? errhint("%s", hint) : 0));
	return attnum - 1;
}

/* A row that gives nothing yet, in the current memory context. */
void
bdd_values_init(const BddTarget *target, BddValues *row)
{
	int natts = target->shape.desc->natts;

	row->values = palloc0(natts * sizeof(Datum));
	row->isnull = palloc(natts * sizeof(bool));
	memset(row->isnull, true, natts * sizeof(bool));
	row->given = palloc0(2 * target->shape.set_bytes);
	row->first = row->given + target->shape.set_bytes;
	row->take_identities = false;
	row->no_defaults = false;
}

/*
 * NULL for a column that the server computes means that it is not given;
 * another value for a generated column is an error, as in INSERT.
 */
void
bdd_values_give(const BddTarget *target, BddValues *row, int column)
{
	const BddTargetColumn *described = &target->columns[column];

	if (row->isnull[column] && (described->identity || described->generated))
		return;
	if (described->generated)
		ereport(ERROR,
				(errcode(ERRCODE_GENERATED_ALWAYS),
				 errmsg("cannot give a value for column \"%s\"",
						NameStr(TupleDescAttr(target->shape.desc,
											  column)
									->attname)),
				 errdetail("Column \"%s\" is a generated column.",
						   NameStr(TupleDescAttr(target->shape.desc,
												 column)
									   ->attname))));
	bdd_column_add(row->given, column);
}

/* The header's tuple as functions of the heap want it; nothing is copied. */
void
bdd_composite_as_heap(HeapTupleHeader tuple, HeapTuple heap)
{
	heap->t_len = HeapTupleHeaderGetDatumLength(tuple);
	heap->t_data = tuple;
	ItemPointerSetInvalid(&heap->t_self);
	heap->t_tableOid = InvalidOid;
}

/* The values of a composite of the table's row type; none is given yet. */
void
bdd_values_deform(const BddTarget *target, HeapTupleHeader tuple,
				  BddValues *row)
{
	HeapTupleData heap;

	bdd_composite_as_heap(tuple, &heap);
	heap_deform_tuple(&heap, target->shape.desc, row->values, row->isnull);
}

/* Columns that were added after the row was made are not given. */
void
bdd_values_from_row(BddTarget *target, HeapTupleHeader tuple, BddValues *row)
{
	int given = Min(HeapTupleHeaderGetNatts(tuple),
					target->shape.desc->natts);

	bdd_values_deform(target, tuple, row);
	for (int i = 0; i < given; i++)
		if (!TupleDescAttr(target->shape.desc, i)->attisdropped)
			bdd_values_give(target, row, i);
}

/* ---------- jsonb ---------- */

/* jsonb_populate_record, set up for the target's row type. */
typedef struct BddJsonState
{
	FmgrInfo populate;
	Datum empty_row; /* all NULL: what is absent is not checked */
} BddJsonState;

/* What jsonb_populate_record needs, kept from call to call where it can be. */
static BddJsonState *
json_state(BddTarget *target)
{
	MemoryContext old_context;
	BddJsonState *state = target->json;
	BddValues row;
	Node *argument;

	if (state != NULL && !target->nested_types)
		return state;
	/* A composite inside may have changed: nobody tells us. */
	if (target->json_context == NULL)
		target->json_context = AllocSetContextCreate(target->context,
													 "batchdedup jsonb",
													 ALLOCSET_SMALL_SIZES);
	MemoryContextReset(target->json_context);
	target->json = NULL;
	old_context = MemoryContextSwitchTo(target->json_context);
	state = palloc0(sizeof(BddJsonState));
	bdd_values_init(target, &row);
	state->empty_row = heap_copy_tuple_as_datum(heap_form_tuple(target->shape.desc,
																row.values,
																row.isnull),
												target->shape.desc);
	fmgr_info_cxt(F_JSONB_POPULATE_RECORD, &state->populate,
				  target->json_context);
	argument = (Node *) makeNullConst(target->row_type, -1, InvalidOid);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_JSONB_POPULATE_RECORD,
											 target->row_type,
											 list_make2(argument,
														makeNullConst(JSONBOID, -1, InvalidOid)),
											 InvalidOid, InvalidOid,
											 COERCE_EXPLICIT_CALL),
					   &state->populate);
	target->json = state;
	MemoryContextSwitchTo(old_context);
	return state;
}

/* Which columns an object names. */
static void
find_named(const BddTarget *target, Jsonb *object, bool *named)
{
	JsonbIterator *iterator = JsonbIteratorInit(&object->root);
	JsonbValue value;
	JsonbIteratorToken token;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
		if (token == WJB_KEY)
			named[bdd_named_column(target,
								   pnstrdup(value.val.string.val,
											value.val.string.len),
								   NULL)] = true;
}

/* One object; what is absent is not given. */
void
bdd_values_from_jsonb(BddTarget *target, Jsonb *object, BddValues *row)
{
	BddJsonState *state = json_state(target);
	int natts = target->shape.desc->natts;
	bool *named = palloc0(natts * sizeof(bool));
	Datum populated;

	if (!JB_ROOT_IS_OBJECT(object))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a row must be a JSON object"),
				 errdetail("The document is %s.",
						   JB_ROOT_IS_SCALAR(object) ? "a scalar" : "an array")));
	find_named(target, object, named);
	populated = FunctionCall2(&state->populate, state->empty_row,
							  JsonbPGetDatum(object));
	bdd_values_deform(target, DatumGetHeapTupleHeader(populated), row);
	for (int i = 0; i < natts; i++)
		if (named[i])
			bdd_values_give(target, row, i);
}

/* ---------- checks ---------- */

/* The server's own error, unless the column is one of the key. */
static void
report_null(const BddTarget *target, int column)
{
	const char *name = NameStr(TupleDescAttr(target->shape.desc,
											 column)
								   ->attname);
	bool is_key = bdd_is_key_column(target, column + 1);

	ereport(ERROR,
			(errcode(ERRCODE_NOT_NULL_VIOLATION),
			 is_key ?
				 errmsg("null value in key column \"%s\" of target \"%s\"",
						name, get_rel_name(target->relid)) :
				 errmsg("null value in column \"%s\" of relation \"%s\" violates not-null constraint",
						name, get_rel_name(target->relid)),
			 is_key && target->columns[column].identity ?
				 errhint("The key's values are generated when a row is inserted, so they cannot find it; name another key with batchdedup.alter_target.") :
				 0));
}

/* Columns that have no value here are left to their defaults. */
static void
check_not_null(const BddTarget *target, const BddValues *row)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (row->isnull[i] &&
			(bdd_column_in(row->given, i) || bdd_column_in(row->first, i)) &&
			TupleDescAttr(target->shape.desc, i)->attnotnull)
			report_null(target, i);
}

/* All columns of the key are given, and none is null. */
void
bdd_check_key_given(const BddTarget *target, const BddValues *row)
{
	for (int i = 0; i < target->key.count; i++)
	{
		int column = target->key.columns[i].attnum - 1;

		if (!bdd_column_in(row->given, column))
			ereport(ERROR,
					(errcode(ERRCODE_NOT_NULL_VIOLATION),
					 errmsg("key column \"%s\" of target \"%s\" is not given",
							NameStr(TupleDescAttr(target->shape.desc,
												  column)
										->attname),
							get_rel_name(target->relid))));
		if (row->isnull[column])
			report_null(target, column);
	}
}

/* For calls that name rows by their key. */
void
bdd_check_has_key(const BddTarget *target)
{
	if (target->key.count == 0)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("target \"%s\" has no key", get_rel_name(target->relid)),
				 errdetail("Its rows are inserted, and cannot be found again.")));
}

/*
 * For who is to name a row, and not to give it; "version": it may carry the
 * version column.
 */
void
bdd_check_key_alone(const BddTarget *target, const BddValues *row,
					bool version)
{
	bdd_check_has_key(target);
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		if (bdd_column_in(row->given, i) && !bdd_is_key_column(target, i + 1) &&
			!(version && i == target->shape.version))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("column \"%s\" is not part of the key of target \"%s\"",
							NameStr(TupleDescAttr(target->shape.desc,
												  i)
										->attname),
							get_rel_name(target->relid)),
					 errhint("Name the row by its key alone.")));
	}
}

/* NULL is a version, the oldest; but one must be given. */
static void
check_version(const BddTarget *target, const BddValues *row)
{
	int version = target->shape.version;

	if (version >= 0 && !bdd_column_in(row->given, version))
		ereport(ERROR,
				(errcode(ERRCODE_NOT_NULL_VIOLATION),
				 errmsg("version column \"%s\" of target \"%s\" is not given",
						NameStr(TupleDescAttr(target->shape.desc,
											  version)
									->attname),
						get_rel_name(target->relid)),
				 errdetail("Without it nobody can tell whether the row is newer than the one it meets.")));
}

/* ---------- what is not given ---------- */

/* Columns not given, as far as their value is known at the call. */
static void
add_defaults(BddTarget *target, BddValues *row, BddColumns *insert)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		if (bdd_column_in(insert, i))
			continue;
		row->isnull[i] = true;
		if (target->columns[i].source == BDD_DEFAULT_AT_CALL)
			bdd_target_default(target, i, &row->values[i], &row->isnull[i]);
		else if (target->columns[i].source != BDD_DEFAULT_NULL)
			continue;
		if (!(row->isnull[i] &&
			  TupleDescAttr(target->shape.desc, i)->attnotnull))
			bdd_column_add(insert, i);
	}
}

/* Looked up once for each target. */
static Oid
sequence_of(BddTarget *target, int column)
{
	BddTargetColumn *described = &target->columns[column];

	if (!OidIsValid(described->sequence))
		described->sequence = bdd_identity_sequence(target->relid, column + 1);
	return described->sequence;
}

/*
 * Values of identity columns, taken at the call.  They are for a row that is
 * inserted; one that exists keeps its own.  INSERT is the right that is
 * asked for; none on the sequence is needed.
 */
static void
take_identities(BddTarget *target, BddValues *row)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		Oid type = TupleDescAttr(target->shape.desc, i)->atttypid;
		int64 value;

		if (!target->columns[i].identity || bdd_column_in(row->given, i))
			continue;
		value = nextval_internal(sequence_of(target, i), false);
		row->values[i] = type == INT2OID ? Int16GetDatum((int16) value) :
						 type == INT4OID ? Int32GetDatum((int32) value) :
										   Int64GetDatum(value);
		row->isnull[i] = false;
		bdd_column_add(bdd_is_key_column(target, i + 1) ? row->given : row->first,
					   i);
	}
}

/* Checks all that can be told now; "insert" is what the row has values for. */
void
bdd_values_complete(BddTarget *target, BddValues *row, BddColumns *update,
					BddColumns *insert)
{
	const BddShape *shape = &target->shape;

	for (int i = 0; i < shape->set_bytes; i++)
		update[i] = row->given[i] & shape->update[i];
	bdd_check_may_upsert(target, update, row->given);
	check_version(target, row);
	if (row->take_identities)
		take_identities(target, row);
	for (int i = 0; i < shape->set_bytes; i++)
		insert[i] = row->given[i] | row->first[i];
	if (target->key.count > 0)
		bdd_check_key_given(target, row);
	check_not_null(target, row);
	if (!row->no_defaults)
		add_defaults(target, row, insert);
}

/* ---------- keys and images ---------- */

/* Without a key every row is another one. */
uint32
bdd_unique_key(StringInfo bytes)
{
	static uint64 count = 0;
	const uint64 parts[] = {(uint64) MyStartTimestamp, (uint64) MyProcPid,
							++count};

	appendBinaryStringInfo(bytes, (const char *) parts, sizeof(parts));
	return hash_bytes((const unsigned char *) parts, sizeof(parts));
}

/* The key's bytes, appended; returns their hash. */
uint32
bdd_values_key(BddTarget *target, const BddValues *row, StringInfo bytes)
{
	Datum values[INDEX_MAX_KEYS];

	if (target->key.count == 0)
		return bdd_unique_key(bytes);
	bdd_check_key_given(target, row);
	for (int i = 0; i < target->key.count; i++)
		values[i] = row->values[target->key.columns[i].attnum - 1];
	return bdd_key_encode(&target->key, values, bytes);
}

/* The image of such an upsert, which goes elsewhere. */
BddImage
bdd_values_image(BddTarget *target, BddValues *row)
{
	BddColumns *update = palloc0(2 * target->shape.set_bytes);
	BddColumns *insert = update + target->shape.set_bytes;

	bdd_values_complete(target, row, update, insert);
	return bdd_image_from_values(&target->shape, BDD_UPSERT, row->values,
								 row->isnull, update, insert);
}

/*
 * A delete carries the key and, "versioned", the version that it was made
 * with.
 */
BddImage
bdd_delete_image(BddTarget *target, BddValues *row, bool versioned)
{
	BddColumns *update = palloc0(2 * target->shape.set_bytes);
	BddColumns *insert = update + target->shape.set_bytes;

	for (int i = 0; i < target->key.count; i++)
		bdd_column_add(insert, target->key.columns[i].attnum - 1);
	if (versioned)
		bdd_column_add(insert, target->shape.version);
	return bdd_image_from_values(&target->shape, BDD_DELETE, row->values,
								 row->isnull, update, insert);
}

/* An image that carries the key alone; the other values are lost. */
BddImage
bdd_key_image(BddTarget *target, BddValues *row)
{
	return bdd_delete_image(target, row, false);
}
