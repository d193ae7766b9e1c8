/*-------------------------------------------------------------------------
 *
 * api.c
 *		SQL functions that take rows: upsert, upsert_record, delete.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/htup_details.h"
#include "base/list.h"
#include "base/loaded.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "catalog/pg_type.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "ingest/push.h"
#include "nodes/makefuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "sql/catalog.h"
#include "target/target.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(bdd_upsert_row);
PG_FUNCTION_INFO_V1(bdd_upsert_rows);
PG_FUNCTION_INFO_V1(bdd_upsert_json);
PG_FUNCTION_INFO_V1(bdd_upsert_record);
PG_FUNCTION_INFO_V1(bdd_delete_row);
PG_FUNCTION_INFO_V1(bdd_delete_json);

/* ---------- typed rows ---------- */

/* upsert(record) */
Datum
bdd_upsert_row(PG_FUNCTION_ARGS)
{
	HeapTupleHeader row;

	bdd_check_argument(fcinfo, 0, "row");
	row = PG_GETARG_HEAPTUPLEHEADER(0);
	bdd_push_row(bdd_target_of_row_type(HeapTupleHeaderGetTypeId(row)), row);
	PG_RETURN_VOID();
}

/* upsert(anyarray): the number of rows */
Datum
bdd_upsert_rows(PG_FUNCTION_ARGS)
{
	ArrayType *array;
	Datum *rows;
	bool *nulls;
	int count;
	MemoryContext context;
	MemoryContext old_context;

	bdd_check_argument(fcinfo, 0, "array of rows");
	array = PG_GETARG_ARRAYTYPE_P(0);
	if (get_typtype(getBaseType(ARR_ELEMTYPE(array))) != TYPTYPE_COMPOSITE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("an array of rows is expected, not of %s",
						format_type_be(ARR_ELEMTYPE(array)))));
	deconstruct_array(array, ARR_ELEMTYPE(array), -1, false, TYPALIGN_DOUBLE,
					  &rows, &nulls, &count);
	context = AllocSetContextCreate(CurrentMemoryContext, "batchdedup rows",
									ALLOCSET_DEFAULT_SIZES);
	old_context = MemoryContextSwitchTo(context);
	for (int i = 0; i < count; i++)
	{
		HeapTupleHeader row;

		if (nulls[i])
			ereport(ERROR,
					(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
					 errmsg("row must not be null"),
					 errdetail("Element %d of the array is null.", i + 1)));
		row = DatumGetHeapTupleHeader(rows[i]);
		bdd_push_row(bdd_target_of_row_type(HeapTupleHeaderGetTypeId(row)),
					 row);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	PG_RETURN_INT64(count);
}

/* delete(record): the row's key columns count */
Datum
bdd_delete_row(PG_FUNCTION_ARGS)
{
	HeapTupleHeader tuple;
	BddTarget *target;
	BddValues row;

	bdd_check_argument(fcinfo, 0, "row");
	tuple = PG_GETARG_HEAPTUPLEHEADER(0);
	target = bdd_target_of_row_type(HeapTupleHeaderGetTypeId(tuple));
	bdd_values_init(target, &row);
	bdd_values_from_row(target, tuple, &row);
	bdd_push_delete(target, &row);
	PG_RETURN_VOID();
}

/* ---------- jsonb ---------- */

typedef void (*BddPush)(BddTarget *target, BddValues *row);

/* A member that the object has not is a column that is not given. */
static void
push_object(BddTarget *target, Jsonb *object, BddPush push)
{
	BddValues row;

	bdd_values_init(target, &row);
	bdd_values_from_jsonb(target, object, &row);
	push(target, &row);
}

/*
 * One row for each element; returns how many.  Their memory is freed row by
 * row, since an array may be long.
 */
static int64
push_array(BddTarget *target, Jsonb *array, BddPush push)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext,
												  "batchdedup rows",
												  ALLOCSET_DEFAULT_SIZES);
	JsonbIterator *iterator = JsonbIteratorInit(&array->root);
	JsonbValue value;
	JsonbIteratorToken token;
	int64 count = 0;

	while ((token = JsonbIteratorNext(&iterator, &value, true)) != WJB_DONE)
	{
		MemoryContext old_context;

		if (token != WJB_ELEM)
			continue;
		old_context = MemoryContextSwitchTo(context);
		push_object(target, JsonbValueToJsonb(&value), push);
		MemoryContextSwitchTo(old_context);
		MemoryContextReset(context);
		count++;
	}
	MemoryContextDelete(context);
	return count;
}

/* The document is an object, for one row, or an array of objects. */
static int64
push_document(FunctionCallInfo fcinfo, BddPush push)
{
	Jsonb *document;
	BddTarget *target;

	bdd_check_argument(fcinfo, 0, "target");
	bdd_check_argument(fcinfo, 1, "document");
	target = bdd_target_open(PG_GETARG_OID(0), RowExclusiveLock);
	document = PG_GETARG_JSONB_P(1);
	if (JB_ROOT_IS_ARRAY(document) && !JB_ROOT_IS_SCALAR(document))
		return push_array(target, document, push);
	push_object(target, document, push);
	return 1;
}

/* upsert(regclass, jsonb): the number of rows */
Datum
bdd_upsert_json(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(push_document(fcinfo, bdd_push_values));
}

/*
 * BddPush of a delete: the object names the key, and the version if there is
 * one.
 */
static void
push_named_key(BddTarget *target, BddValues *row)
{
	bdd_check_key_alone(target, row, true);
	bdd_push_delete(target, row);
}

/* delete(regclass, jsonb): the number of keys */
Datum
bdd_delete_json(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT64(push_document(fcinfo, push_named_key));
}

/* ---------- records, columns by name ---------- */

/* How the fields of a record type become columns of a target. */
typedef struct BddFields
{
	MemoryContext context;
	uint64 serial; /* of the target */
	Oid type;      /* of the record */
	int32 typmod;
	int count;
	int *columns;      /* by field; -1: dropped */
	ExprState **casts; /* by field */
	ExprContext *econtext;
} BddFields;

/* The expression that assigns a field's value to a column, as INSERT does. */
static Expr *
assignment(const BddTarget *target, int column, Form_pg_attribute field)
{
	Form_pg_attribute attribute = TupleDescAttr(target->shape.desc, column);
	CaseTestExpr *value = makeNode(CaseTestExpr);
	Node *expr;

	value->typeId = field->atttypid;
	value->typeMod = field->atttypmod;
	value->collation = field->attcollation;
	expr = coerce_to_target_type(NULL, (Node *) value, field->atttypid,
								 attribute->atttypid, attribute->atttypmod,
								 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST,
								 -1);
	if (expr == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("column \"%s\" is of type %s but the record's field is of type %s",
						NameStr(attribute->attname),
						format_type_be(attribute->atttypid),
						format_type_be(field->atttypid)),
				 errhint("You will need to cast the field.")));
	return expression_planner((Expr *) expr);
}

/*
 * Which column each field of the record type is, and how its value is cast to
 * it, as an assignment does.  Lives in fields->context.
 */
static void
build_fields(const BddTarget *target, TupleDesc record, BddFields *fields)
{
	MemoryContext old_context = MemoryContextSwitchTo(fields->context);

	fields->count = record->natts;
	fields->columns = palloc(record->natts * sizeof(int));
	fields->casts = palloc0(record->natts * sizeof(ExprState *));
	fields->econtext = CreateStandaloneExprContext();
	for (int i = 0; i < record->natts; i++)
	{
		Form_pg_attribute field = TupleDescAttr(record, i);

		fields->columns[i] = -1;
		if (field->attisdropped)
			continue;
		fields->columns[i] = bdd_named_column(target, NameStr(field->attname),
											  "Fields are matched to columns by name: give the record column aliases.");
		for (int j = 0; j < i; j++)
			if (fields->columns[j] == fields->columns[i])
				ereport(ERROR,
						(errcode(ERRCODE_DUPLICATE_COLUMN),
						 errmsg("column \"%s\" is given more than once",
								NameStr(field->attname))));
		fields->casts[i] = ExecInitExpr(assignment(target,
												   fields->columns[i], field),
										NULL);
	}
	fields->serial = target->serial;
	fields->type = record->tdtypeid;
	fields->typmod = record->tdtypmod;
	MemoryContextSwitchTo(old_context);
}

/* The mapping, remembered from call to call. */
static BddFields *
fields_of(FunctionCallInfo fcinfo, const BddTarget *target, TupleDesc record)
{
	BddFields *fields = fcinfo->flinfo->fn_extra;

	if (fields != NULL && fields->serial == target->serial &&
		fields->type == record->tdtypeid && fields->typmod == record->tdtypmod)
		return fields;
	if (fields == NULL)
	{
		fields = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt,
										sizeof(BddFields));
		fields->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt,
												"batchdedup record fields",
												ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = fields;
	}
	MemoryContextReset(fields->context);
	fields->serial = 0;
	build_fields(target, record, fields);
	return fields;
}

/* Gives the row the record's values, cast to the types of their columns. */
static void
values_from_fields(const BddTarget *target, const BddFields *fields,
				   TupleDesc record, HeapTupleHeader tuple, BddValues *row)
{
	HeapTupleData heap;
	Datum *values = palloc(fields->count * sizeof(Datum));
	bool *isnull = palloc(fields->count * sizeof(bool));

	bdd_composite_as_heap(tuple, &heap);
	heap_deform_tuple(&heap, record, values, isnull);
	for (int i = 0; i < fields->count; i++)
	{
		int column = fields->columns[i];

		if (column < 0)
			continue;
		fields->econtext->caseValue_datum = values[i];
		fields->econtext->caseValue_isNull = isnull[i];
		row->values[column] = ExecEvalExpr(fields->casts[i],
										   fields->econtext,
										   &row->isnull[column]);
		bdd_values_give(target, row, column);
	}
}

/* upsert_record(regclass, record) */
Datum
bdd_upsert_record(PG_FUNCTION_ARGS)
{
	BddTarget *target;
	HeapTupleHeader tuple;
	TupleDesc record;
	BddFields *fields;
	BddValues row;

	bdd_check_argument(fcinfo, 0, "target");
	bdd_check_argument(fcinfo, 1, "record");
	target = bdd_target_open(PG_GETARG_OID(0), RowExclusiveLock);
	tuple = PG_GETARG_HEAPTUPLEHEADER(1);
	record = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(tuple),
									HeapTupleHeaderGetTypMod(tuple));
	fields = fields_of(fcinfo, target, record);
	bdd_values_init(target, &row);
	values_from_fields(target, fields, record, tuple, &row);
	ReleaseTupleDesc(record);
	bdd_push_values(target, &row);
	PG_RETURN_VOID();
}
