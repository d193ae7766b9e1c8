/*-------------------------------------------------------------------------
 *
 * overlay_rows.c
 *		overlay_rows() and overlaid(), the SQL functions of a view.
 *
 * overlay_rows() returns a row for each key of the overlay, as it is on top of
 * the table's.  Rows that the table's row shows through are looked up in the
 * table together, in one statement.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "base/list.h"
#include "base/loaded.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "read/overlay.h"
#include "read/read.h"
#include "sql/spi.h"
#include "storage/lmgr.h"
#include "target/target.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

PG_FUNCTION_INFO_V1(bdd_overlaid);

PG_FUNCTION_INFO_V1(bdd_overlay_rows);

PG_FUNCTION_INFO_V1(bdd_overlay_support);

/* ---------- rows ---------- */

typedef struct BddEmission
{
	BddOverlay *overlay;
	ReturnSetInfo *result;
	MemoryContext context; /* of one row */
	const BddImage **partial;
	BddOverlaid **partial_keys;
	uint64 partial_count;
	uint64 room;
} BddEmission;

/*
 * Puts into the result what the key says on top of "stored", the table's row
 * or NULL; no row if it says that there is none.
 */
static void
emit(BddEmission *emission, BddOverlaid *key, HeapTupleHeader stored)
{
	MemoryContext old_context = MemoryContextSwitchTo(emission->context);
	BddValues row;

	key->emitted = true;
	if (bdd_read_fold(bdd_overlay_target(emission->overlay), &key->rows, stored, &row))
	{
		bdd_overlay_pack(emission->overlay, &row);
		tuplestore_putvalues(emission->result->setResult,
							 emission->result->setDesc, row.values,
							 row.isnull);
	}
	MemoryContextSwitchTo(old_context);
	MemoryContextReset(emission->context);
}

/* Called for each row that the table has of the keys that wait. */
static void
emit_stored(HeapTupleHeader stored, void *arg)
{
	BddEmission *emission = arg;
	BddTarget *target = bdd_overlay_target(emission->overlay);
	MemoryContext old_context = MemoryContextSwitchTo(emission->context);
	Datum values[INDEX_MAX_KEYS];
	BddValues row;
	BddOverlaid *key;

	bdd_values_init(target, &row);
	bdd_values_deform(target, stored, &row);
	for (int i = 0; i < target->key.count; i++)
		values[i] = row.values[target->key.columns[i].attnum - 1];
	key = bdd_overlay_find(emission->overlay, values);
	MemoryContextSwitchTo(old_context);
	if (key != NULL && !key->emitted)
		emit(emission, key, stored);
}

/* Rows that the table's shows through wait; they are looked up together. */
static void
emit_or_wait(BddOverlaid *key, void *arg)
{
	BddEmission *emission = arg;

	key->emitted = false;
	if (key->rows.count == 0)
		return;
	if (!bdd_read_needs_table(bdd_overlay_target(emission->overlay), &key->rows))
	{
		emit(emission, key, NULL);
		return;
	}
	emission->partial[emission->partial_count] = &key->rows.rows[0].image;
	emission->partial_keys[emission->partial_count] = key;
	emission->partial_count++;
}

/*
 * Returns the rows that wait, first those of keys that the table has.  It is
 * read as its owner: see bdd_read_table_rows.
 */
static void
emit_partial(BddEmission *emission)
{
	BddTarget *target = bdd_overlay_target(emission->overlay);
	BddSavedRole saved;

	if (emission->partial_count == 0)
		return;
	bdd_become_owner_of(target->owner, &saved);
	bdd_read_table_rows(target, emission->partial, emission->partial_count,
						emit_stored, emission);
	bdd_restore_role(&saved);
	for (uint64 i = 0; i < emission->partial_count; i++)
		if (!emission->partial_keys[i]->emitted)
			emit(emission, emission->partial_keys[i], NULL);
}

/* A key has one row at the most in the result. */
static void
emit_all(BddOverlay *overlay, ReturnSetInfo *result)
{
	BddEmission emission = {.overlay = overlay, .result = result};
	uint64 count = bdd_overlay_count(overlay);

	emission.context = AllocSetContextCreate(CurrentMemoryContext,
											 "batchdedup row",
											 ALLOCSET_DEFAULT_SIZES);
	emission.partial = MemoryContextAllocHuge(CurrentMemoryContext,
											  Max(count, 1) * sizeof(void *));
	emission.partial_keys = MemoryContextAllocHuge(CurrentMemoryContext,
												   Max(count, 1) * sizeof(void *));
	bdd_overlay_visit(overlay, emit_or_wait, &emission);
	emit_partial(&emission);
	MemoryContextDelete(emission.context);
}

/* ---------- SQL functions ---------- */

/* The caller has named the table's columns, or the first of them. */
static void
check_columns(TupleDesc named, const BddTarget *target)
{
	TupleDesc desc = target->shape.desc;
	int live = 0;

	for (int i = 0; i < desc->natts && live < named->natts; i++)
	{
		if (TupleDescAttr(desc, i)->attisdropped)
			continue;
		if (TupleDescAttr(desc, i)->atttypid != TupleDescAttr(named, live)->atttypid)
			break;
		live++;
	}
	if (live < named->natts)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("the columns are not those of table \"%s\"",
						get_rel_name(target->relid)),
				 errhint("Use the view that batchdedup.create_view makes.")));
}

/*
 * overlay_rows(regclass): a row for each key that is buffered or pending, as
 * it is on top of the table's.  Its columns are the table's, or the first of
 * them: columns that were added since the view was made are left out.  (The
 * row type is not used for that: a view that mentions it keeps others from
 * altering the table.)
 */
Datum
bdd_overlay_rows(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	BddOverlay *overlay;

	bdd_check_preloaded();
	InitMaterializedSRF(fcinfo, 0);
	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target must not be null")));
	overlay = bdd_overlay_of(fcinfo->flinfo->fn_mcxt, PG_GETARG_OID(0));
	if (overlay == NULL)
		return (Datum) 0;
	check_columns(result->setDesc, bdd_overlay_target(overlay));
	bdd_overlay_complete(overlay);
	emit_all(overlay, result);
	return (Datum) 0;
}

/* overlay_rows() returns as many rows as there are keys in the buffer. */
Datum
bdd_overlay_support(PG_FUNCTION_ARGS)
{
	Node *request = (Node *) PG_GETARG_POINTER(0);
	SupportRequestRows *rows = (SupportRequestRows *) request;
	BddTarget *target;
	Oid relid;

	if (!bdd_preloaded || !IsA(request, SupportRequestRows))
		PG_RETURN_POINTER(NULL);
	relid = bdd_overlay_argument(rows->node);
	if (!OidIsValid(relid))
		PG_RETURN_POINTER(NULL);
	bdd_read_planned(relid);
	LockRelationOid(relid, AccessShareLock);
	target = bdd_target_lookup(relid);
	rows->rows = target == NULL ? 1 : Max(bdd_overlay_estimate(target), 1);
	PG_RETURN_POINTER(request);
}

/* What overlaid() remembers from row to row. */
typedef struct BddOverlaidCall
{
	Oid relid;
	BddOverlay *overlay; /* NULL: the table is no target */
} BddOverlaidCall;

/* The view was made for this key. */
static void
check_key_arguments(FunctionCallInfo fcinfo, const BddTarget *target)
{
	bool fits = PG_NARGS() == target->key.count + 1 &&
				!get_fn_expr_variadic(fcinfo->flinfo);

	for (int i = 0; i < target->key.count && fits; i++)
		fits = get_fn_expr_argtype(fcinfo->flinfo, i + 1) ==
			   target->key.columns[i].type;
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the view was made for another key of target \"%s\"",
						get_rel_name(target->relid)),
				 errhint("SELECT batchdedup.create_view(%s);",
						 quote_literal_cstr(bdd_qualified_name(target->relid)))));
}

/*
 * Finds the overlay at the first row of a call site, and again if the table or
 * the role has changed.  fn_extra is empty while that may fail.
 */
static BddOverlaidCall *
begin_call(FunctionCallInfo fcinfo, Oid relid)
{
	BddOverlaidCall *call = fcinfo->flinfo->fn_extra;

	if (call != NULL && call->relid == relid &&
		(call->overlay == NULL ||
		 bdd_overlay_is_open_to(call->overlay, GetUserId())))
		return call;
	if (call == NULL)
		call = MemoryContextAlloc(fcinfo->flinfo->fn_mcxt,
								  sizeof(BddOverlaidCall));
	fcinfo->flinfo->fn_extra = NULL;
	call->relid = relid;
	call->overlay = bdd_overlay_of(fcinfo->flinfo->fn_mcxt, relid);
	if (call->overlay != NULL)
		check_key_arguments(fcinfo, bdd_overlay_target(call->overlay));
	fcinfo->flinfo->fn_extra = call;
	return call;
}

/* overlaid(regclass, VARIADIC "any"): whether the buffer says more of a key */
Datum
bdd_overlaid(PG_FUNCTION_ARGS)
{
	Datum values[INDEX_MAX_KEYS];
	BddOverlaidCall *call;
	BddOverlaid *key;

	if (PG_ARGISNULL(0))
		PG_RETURN_BOOL(false);
	call = begin_call(fcinfo, PG_GETARG_OID(0));
	if (call->overlay == NULL)
		PG_RETURN_BOOL(false);
	for (int i = 0; i < bdd_overlay_target(call->overlay)->key.count; i++)
	{
		if (PG_ARGISNULL(i + 1))
			PG_RETURN_BOOL(false);
		values[i] = PG_GETARG_DATUM(i + 1);
	}
	key = bdd_overlay_find(call->overlay, values);
	PG_RETURN_BOOL(key != NULL && key->rows.count > 0);
}
