/*-------------------------------------------------------------------------
 *
 * read.c
 *		SQL functions that read rows: get() and buffered().
 *
 * A statement takes a generation's rows from the buffer if its snapshot does
 * not see the transaction that applies them, else from the table.  Applied
 * generations stay until no such snapshot is left, so table plus buffer is
 * exact.
 *
 *-------------------------------------------------------------------------
 */
#include "read/read.h"

#include "access/htup_details.h"
#include "access/table.h"
#include "access/transam.h"
#include "access/xact.h"
#include "apply/target_sql.h"
#include "base/compat.h"
#include "buffer/flush_wait.h"
#include "buffer/generation.h"
#include "buffer/slot.h"
#include "buffer/wake.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type.h"
#include "commit/pending.h"
#include "executor/executor.h"
#include "fmgr.h"
#include "funcapi.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "nodes/supportnodes.h"
#include "optimizer/optimizer.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/procarray.h"
#include "target/keyorder.h"
#include "target/privilege.h"
#include "target/target.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/datum.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(bdd_get);
PG_FUNCTION_INFO_V1(bdd_buffered);
PG_FUNCTION_INFO_V1(bdd_read_support);

/* ---------- which generations ---------- */

/* Whether the snapshot finds the generation's rows in the table. */
static bool
table_has_it(const BddSharedGeneration *generation, Snapshot snapshot)
{
	TransactionId xid = generation->apply_xid;

	if (!TransactionIdIsValid(xid))
		return generation->state == BDD_APPLIED;
	if (TransactionIdIsCurrentTransactionId(xid))
		return true;
	return !XidInMVCCSnapshot(xid, snapshot) &&
		   !TransactionIdIsInProgress(xid) && TransactionIdDidCommit(xid);
}

/*
 * The generation after number "after" whose rows the snapshot needs, or NULL.
 * The caller holds the slot lock, which keeps the generation in memory.
 */
static BddSharedGeneration *
next_needed(BddTarget *target, uint64 after, Snapshot snapshot)
{
	BddSharedSlot *slot = target->slot;
	BddSharedGeneration *generation = slot->oldest;

	if (!bdd_slot_belongs_to(slot, target->options.target_id))
		return NULL;
	/* Rows of another shape cannot be read; their apply says so. */
	while (generation != NULL &&
		   (generation->number <= after ||
			(generation->fingerprint != target->shape.fingerprint &&
			 !generation->spooled) ||
			table_has_it(generation, snapshot)))
		generation = generation->next;
	/* Its rows are in a file; see wait_for_replay. */
	if (generation != NULL && generation->spooled)
		ereport(ERROR,
				(errcode(ERRCODE_T_R_SERIALIZATION_FAILURE),
				 errmsg("rows of \"%s\" have been replayed from the journal while the statement ran",
						get_rel_name(target->relid)),
				 errhint("The server had just started. Repeat the transaction.")));
	return generation;
}

/* The key's rows in the buffer, if its bytes are all that says which it is. */
void
bdd_read_published_key(BddTarget *target, uint32 hash, StringInfo key,
					   Snapshot snapshot, BddRows *rows)
{
	BddSharedSlot *slot = target->slot;
	BddSharedGeneration *generation;
	uint64 number = 0;

	if (slot == NULL)
		return;
	LWLockAcquire(&slot->lock, LW_SHARED);
	while ((generation = next_needed(target, number, snapshot)) != NULL)
	{
		number = generation->number;
		bdd_collect_key(generation, hash, key->data, key->len, rows);
	}
	LWLockRelease(&slot->lock);
}

/*
 * All rows in the buffer.  The lock is let go between partitions; what is
 * freed meanwhile was applied.
 */
void
bdd_read_published(BddTarget *target, Snapshot snapshot, BddRows *rows)
{
	BddSharedSlot *slot = target->slot;
	uint64 number = 0;
	bool more = slot != NULL;

	while (more)
	{
		uint64 after = number;

		for (int i = 0; i < BDD_PARTITIONS && more; i++)
		{
			BddSharedGeneration *generation;

			CHECK_FOR_INTERRUPTS();
			LWLockAcquire(&slot->lock, LW_SHARED);
			generation = next_needed(target, after, snapshot);
			if (generation != NULL &&
				(i == 0 || generation->number == number))
			{
				number = generation->number;
				bdd_collect_partition(generation, i, false, rows);
			}
			else if (generation == NULL)
				more = false;
			LWLockRelease(&slot->lock);
		}
	}
}

/* ---------- what the transaction itself has pending ---------- */

/* Pending rows are newer than all that is published. */
static void
add_pending_row(BddPendingRow *row, BddRows *rows)
{
	uint64 sequence = PG_UINT64_MAX - bdd_pending_ordinal;

	bdd_rows_add(rows, sequence + row->newest->ordinal, &row->newest->image);
}

/* Rows that this transaction has pushed and not yet published. */
void
bdd_read_pending(BddTarget *target, BddRows *rows)
{
	BddPending *pending = bdd_pending_find(target->relid);
	dlist_iter iter;

	if (pending == NULL)
		return;
	dlist_foreach(iter, &pending->set->rows)
		add_pending_row(dlist_container(BddPendingRow, set_link, iter.cur),
						rows);
}

/*
 * The key's rows of this transaction, as bdd_read_published_key gives those of
 * the buffer.
 */
static void
collect_pending_key(BddTarget *target, uint32 hash, StringInfo key,
					BddRows *rows)
{
	BddPending *pending = bdd_pending_find(target->relid);
	BddPendingRow *row = pending == NULL ?
							 NULL :
							 bdd_pending_lookup(pending, hash, key->data,
												key->len);

	for (; row != NULL; row = row->hides)
		add_pending_row(row, rows);
}

/*
 * What buffer and transaction say of a key, if its bytes are all that says
 * which it is.
 */
void
bdd_read_key(BddTarget *target, uint32 hash, StringInfo key,
			 Snapshot snapshot, BddRows *rows)
{
	bdd_read_published_key(target, hash, key, snapshot, rows);
	collect_pending_key(target, hash, key, rows);
}

/* ---------- get ---------- */

/*
 * Rows that were found in the journal can be read only from the table: waits
 * until they are applied.  This is soon after the server has started.
 */
static void
wait_for_replay(BddSharedSlot *slot)
{
	TimestampTz since = GetCurrentTimestamp();
	uint64 number;

	if (!slot->spooled)
		return;
	LWLockAcquire(&slot->lock, LW_SHARED);
	number = bdd_slot_spooled(slot);
	LWLockRelease(&slot->lock);
	if (number == 0)
		return;
	bdd_wake_worker(slot);
	bdd_wait_applied(slot, slot->target_id, number, since,
					 bdd_may_read(slot->relid));
}

/*
 * While a statement is planned it has no snapshot yet that it will use: so it
 * waits then, and sees the rows.
 */
void
bdd_read_planned(Oid relid)
{
	BddSharedSlot *slot;

	if (bdd_am_worker || !OidIsValid(relid))
		return;
	bdd_journal_wait_replayed();
	if (bdd_journal->replay_rows == 0)
		return;
	slot = bdd_slot_find_by_table(relid);
	if (slot != NULL)
		wait_for_replay(slot);
}

/* The table that a constant names, or whose row type it has. */
static Oid
table_of_argument(List *args)
{
	Const *constant = args != NIL ? linitial(args) : NULL;

	if (constant == NULL || !IsA(constant, Const))
		return InvalidOid;
	if (constant->consttype == REGCLASSOID)
		return constant->constisnull ? InvalidOid : DatumGetObjectId(constant->constvalue);
	return get_typ_typrelid(getBaseType(constant->consttype));
}

/* For get() and buffered(). */
Datum
bdd_read_support(PG_FUNCTION_ARGS)
{
	Node *request = (Node *) PG_GETARG_POINTER(0);
	List *args = NIL;

	if (IsA(request, SupportRequestSimplify))
		args = ((SupportRequestSimplify *) request)->fcall->args;
	if (bdd_preloaded)
		bdd_read_planned(table_of_argument(args));
	PG_RETURN_POINTER(NULL);
}

/* Before the snapshot is taken that table and buffer are read with. */
void
bdd_read_wait_replayed(BddTarget *target)
{
	if (bdd_target_find_slot(target) != NULL)
		wait_for_replay(target->slot);
}

/* The caller may read the table, and hence what is buffered for it. */
void
bdd_read_begin(BddTarget *target)
{
	Oid relid = target->relid;

	if (pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) != ACLCHECK_OK &&
		pg_attribute_aclcheck_all(relid, GetUserId(), ACL_SELECT,
								  ACLMASK_ALL) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE, get_rel_name(relid));
	bdd_check_row_security(target);
	bdd_read_wait_replayed(target);
}

/*
 * Opens the target, checks that the caller may read it, and waits for rows
 * that are being replayed.
 */
static BddTarget *
open_for_reading(Oid relid)
{
	BddTarget *target = bdd_target_open(relid, AccessShareLock);

	bdd_read_begin(target);
	return target;
}

/*
 * The buffer's rows of a key.  Where one key has several spellings all rows
 * are compared with it.
 */
static void
collect_key(BddTarget *target, BddValues *given, Snapshot snapshot,
			BddRows *rows)
{
	StringInfoData key;
	uint32 hash;

	initStringInfo(&key);
	hash = bdd_values_key(target, given, &key);
	if (target->key.exact)
	{
		bdd_read_key(target, hash, &key, snapshot, rows);
		return;
	}
	bdd_read_published(target, snapshot, rows);
	bdd_read_pending(target, rows);
	bdd_rows_keep_key(target, rows, bdd_key_image(target, given));
}

/*
 * Hands the table's rows of the keys that the images have to "visit", as the
 * active snapshot shows them.  Runs as the owner; the caller sees to that.
 */
void
bdd_read_table_rows(BddTarget *target, const BddImage *const *keys,
					uint64 count, BddTableRowVisitor visit, void *arg)
{
	MemoryContext context = CurrentMemoryContext;
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);
	TupleTableSlot *slot = MakeSingleTupleTableSlot(target->shape.desc,
													&TTSOpsMinimalTuple);
	SPITupleTable *table;
	uint64 found;

	for (uint64 i = 0; i < count; i++)
	{
		ExecStoreMinimalTuple(bdd_image_tuple(&target->shape, keys[i]), slot,
							  false);
		tuplestore_puttupleslot(store, slot);
	}
	ExecDropSingleTupleTableSlot(slot);

	bdd_spi_connect();
	found = bdd_run_on_rows(target, bdd_sql_select_row(target), store, count, true);
	table = SPI_tuptable;
	MemoryContextSwitchTo(context);
	for (uint64 i = 0; i < found; i++)
	{
		bool isnull;
		Datum row = SPI_getbinval(table->vals[i], table->tupdesc, 1, &isnull);

		visit(DatumGetHeapTupleHeader(row), arg);
	}
	bdd_spi_finish();
	MemoryContextSwitchTo(context);
	tuplestore_end(store);
}

/*
 * BddTableRowVisitor: keeps a copy of the row, in the current memory context.
 */
static void
keep_row(HeapTupleHeader row, void *arg)
{
	*(HeapTupleHeader *) arg =
		(HeapTupleHeader) PG_DETOAST_DATUM_COPY(HeapTupleHeaderGetDatum(row));
}

/* The table's row of the key, or NULL. */
HeapTupleHeader
bdd_read_table_row(BddTarget *target, const BddImage *key)
{
	HeapTupleHeader row = NULL;

	bdd_read_table_rows(target, &key, 1, keep_row, &row);
	return row;
}

static bool
has_generated(const BddTarget *target)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (target->columns[i].generated)
			return true;
	return false;
}

/*
 * Generated columns follow from the others.  Their expressions run as the
 * owner: a reader of a table does not expect to run code of its owner's.
 */
void
bdd_compute_generated(BddTarget *target, Datum *values, bool *isnull)
{
	BddSavedRole saved;
	Relation rel;
	ExprContext *econtext;
	TupleTableSlot *slot;

	if (!has_generated(target))
		return;
	rel = table_open(target->relid, NoLock);
	econtext = CreateStandaloneExprContext();
	slot = MakeSingleTupleTableSlot(target->shape.desc, &TTSOpsVirtual);
	bdd_become_owner_of(target->owner, &saved);
	for (int i = 0; i < target->shape.desc->natts; i++)
	{
		ExprState *state;

		if (!target->columns[i].generated)
			continue;
		isnull[i] = true;
		memcpy(slot->tts_values, values, slot->tts_tupleDescriptor->natts * sizeof(Datum));
		memcpy(slot->tts_isnull, isnull, slot->tts_tupleDescriptor->natts * sizeof(bool));
		ExecStoreVirtualTuple(slot);
		econtext->ecxt_scantuple = slot;
		state = ExecInitExpr(expression_planner((Expr *) bdd_generation_expression(rel, i + 1)),
							 NULL);
		values[i] = ExecEvalExpr(state, econtext, &isnull[i]);
		values[i] = isnull[i] ? (Datum) 0 :
								datumCopy(values[i],
										  TupleDescAttr(target->shape.desc, i)->attbyval,
										  TupleDescAttr(target->shape.desc, i)->attlen);
		ExecClearTuple(slot);
	}
	bdd_restore_role(&saved);
	ExecDropSingleTupleTableSlot(slot);
	FreeExprContext(econtext, true);
	table_close(rel, NoLock);
}

/* The image's values, with those of generated columns. */
static void
show_image(BddTarget *target, const BddImage *image, BddValues *result)
{
	bdd_values_init(target, result);
	bdd_image_deform(&target->shape, image, result->values, result->isnull);
	bdd_compute_generated(target, result->values, result->isnull);
}

/* A row of the table, as if it had just been put there. */
static BddImage
image_of_table_row(BddTarget *target, HeapTupleHeader row)
{
	BddValues values;

	bdd_values_init(target, &values);
	bdd_values_deform(target, row, &values);
	return bdd_image_from_values(&target->shape, BDD_REPLACE, values.values,
								 values.isnull, target->shape.update,
								 target->shape.insert);
}

/* Whether rows of one key, oldest first, do not say all by themselves. */
bool
bdd_read_needs_table(const BddTarget *target, const BddRows *rows)
{
	const BddShape *shape = &target->shape;
	const BddImage *oldest = &rows->rows[0].image;

	switch (oldest->op)
	{
		case BDD_REPLACE:
			return false;
		case BDD_DELETE:
			return bdd_image_is_versioned_delete(shape, oldest);
		case BDD_UPSERT:
			return !(oldest->full && shape->covers);
	}
	return true;
}

/*
 * What rows of one key, oldest first, make of the table's row, which may be
 * NULL.
 */
static BddImage
overlay(BddTarget *target, const BddRows *rows, HeapTupleHeader row)
{
	BddShape shape = target->shape;
	BddImage result = rows->rows[0].image;
	uint64 next = 1;

	shape.keeps_all = false;
	if (row != NULL)
	{
		result = image_of_table_row(target, row);
		next = 0;
	}
	else if (result.op == BDD_DELETE)
		result = bdd_key_only_delete(&shape, &result);
	else
		result.op = BDD_REPLACE;
	for (; next < rows->count; next++)
	{
		BddImage folded;

		if (bdd_image_fold(&shape, &result, &rows->rows[next].image, true,
						   &folded) == BDD_APART)
			ereport(ERROR,
					(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
					 errmsg("what a buffered row makes of its row in \"%s\" is not known before it is applied",
							get_rel_name(target->relid)),
					 errdetail("A function of a merge rule, a domain or a default has its say only then."),
					 errhint("Flush the target first with batchdedup.flush.")));
		result = folded;
	}
	return result;
}

/*
 * The row that rows of one key, oldest first, make of the table's, which may
 * be NULL (or is not needed); false: there is none.
 */
bool
bdd_read_fold(BddTarget *target, const BddRows *rows, HeapTupleHeader row,
			  BddValues *result)
{
	BddImage image = overlay(target, rows, row);

	if (image.op == BDD_DELETE)
		return false;
	show_image(target, &image, result);
	return true;
}

/* By way of row_to_json, as the owner: output functions of types may run. */
static Datum
row_as_jsonb(BddTarget *target, Datum row)
{
	BddSavedRole saved;
	Datum json;

	bdd_become_owner_of(target->owner, &saved);
	json = DirectFunctionCall1(row_to_json, row);
	bdd_restore_role(&saved);
	return DirectFunctionCall1(jsonb_in,
							   CStringGetDatum(TextDatumGetCString(json)));
}

static Datum
values_as_jsonb(BddTarget *target, const BddValues *row)
{
	HeapTuple tuple = heap_form_tuple(target->shape.desc, row->values,
									  row->isnull);

	return row_as_jsonb(target,
						heap_copy_tuple_as_datum(tuple, target->shape.desc));
}

/* The row as one snapshot of table and buffer shows it; NULL: there is none. */
static bool
get_row(BddTarget *target, BddValues *given, Datum *json)
{
	BddRows rows = {0};
	BddImage key = bdd_key_image(target, given);
	HeapTupleHeader row = NULL;
	BddValues result;

	collect_key(target, given, GetActiveSnapshot(), &rows);
	(void) bdd_rows_fold_equal(target, &rows);
	if (rows.count == 0 || bdd_read_needs_table(target, &rows))
		row = bdd_read_table_row(target, &key);
	if (rows.count == 0)
	{
		if (row != NULL)
			*json = row_as_jsonb(target, HeapTupleHeaderGetDatum(row));
		return row != NULL;
	}
	if (!bdd_read_fold(target, &rows, row, &result))
		return false;
	*json = values_as_jsonb(target, &result);
	return true;
}

/* get(regclass, jsonb): the row as it is once all is applied, or NULL */
Datum
bdd_get(PG_FUNCTION_ARGS)
{
	BddTarget *target;
	BddSavedRole saved;
	BddValues given;
	Datum json;
	bool found;

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("target and key must not be null")));
	target = open_for_reading(PG_GETARG_OID(0));
	bdd_values_init(target, &given);
	bdd_become_owner_of(target->owner, &saved);
	bdd_values_from_jsonb(target, PG_GETARG_JSONB_P(1), &given);
	bdd_check_key_alone(target, &given, false);
	bdd_restore_role(&saved);

	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	/*
	 * The caller may read the table, that was checked.  Planning and comparing
	 * may run functions of its owner's: as the owner.
	 */
	bdd_become_owner_of(target->owner, &saved);
	found = get_row(target, &given, &json);
	bdd_restore_role(&saved);
	PopActiveSnapshot();
	if (!found)
		PG_RETURN_NULL();
	PG_RETURN_DATUM(json);
}

/* ---------- buffered ---------- */

/*
 * buffered(NULL::t): what is published and not in the table as the calling
 * statement's snapshot shows it: a row for each key, or several where they do
 * not combine.  Columns that were not given are null, deletes are left out.
 */
Datum
bdd_buffered(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *result = (ReturnSetInfo *) fcinfo->resultinfo;
	Oid row_type = get_fn_expr_argtype(fcinfo->flinfo, 0);
	Oid relid = get_typ_typrelid(row_type);
	BddTarget *target;
	BddSavedRole saved;
	BddRows rows = {0};

	if (!OidIsValid(relid) || get_rel_relkind(relid) == RELKIND_COMPOSITE_TYPE)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("type %s is not the row type of a table",
						format_type_be(row_type)),
				 errhint("Call it as batchdedup.buffered(NULL::my_table).")));
	InitMaterializedSRF(fcinfo, 0);
	target = open_for_reading(relid);
	bdd_read_published(target, GetActiveSnapshot(), &rows);
	bdd_become_owner_of(target->owner, &saved);
	(void) bdd_rows_fold_equal(target, &rows);
	bdd_restore_role(&saved);
	for (uint64 i = 0; i < rows.count; i++)
	{
		BddValues row;

		if (rows.rows[i].image.op == BDD_DELETE)
			continue;
		show_image(target, &rows.rows[i].image, &row);
		tuplestore_putvalues(result->setResult, result->setDesc, row.values,
							 row.isnull);
	}
	return (Datum) 0;
}
