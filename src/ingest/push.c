/*-------------------------------------------------------------------------
 *
 * push.c
 *		From SQL values to pending rows.
 *
 * All that the caller can be told at once is checked here, in his
 * transaction: keys, NOT NULL, privileges, size.
 *
 *-------------------------------------------------------------------------
 */
#include "ingest/push.h"

#include "access/parallel.h"
#include "access/xact.h"
#include "apply/direct.h"
#include "base/compat.h"
#include "base/list.h"
#include "buffer/flush_wait.h"
#include "buffer/wake.h"
#include "commands/sequence.h"
#include "commit/pending.h"
#include "commit/xact.h"
#include "common/hashfn.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* ---------- who may ---------- */

void
bdd_check_row_security(const BddTarget *target)
{
	if (bdd_row_security_binds(target))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security of \"%s\" applies to role \"%s\", who therefore cannot read its buffer",
						get_rel_name(target->relid),
						GetUserNameFromId(GetUserId(), false)),
				 errhint("Read the table itself.")));
}

static void
check_columns(const BddTarget *target, const BddColumns *columns,
			  AclMode mode)
{
	Oid role = GetUserId();

	if (pg_class_aclcheck(target->relid, role, mode) == ACLCHECK_OK)
		return;
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(columns, i) &&
			pg_attribute_aclcheck(target->relid, i + 1, role,
								  mode) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE,
						   get_rel_name(target->relid));
}

/* INSERT on what is given, UPDATE on what of it may overwrite. */
static void
check_may_upsert(BddTarget *target, const BddColumns *update,
				 const BddColumns *given)
{
	Oid role = GetUserId();

	if (target->trusted_role == role)
		return;
	check_columns(target, given, ACL_INSERT);
	check_columns(target, update, ACL_UPDATE);
	if (pg_class_aclmask(target->relid, role, ACL_INSERT | ACL_UPDATE,
						 ACLMASK_ALL) == (ACL_INSERT | ACL_UPDATE))
		target->trusted_role = role;
}

static void
check_may_delete(BddTarget *target)
{
	if (pg_class_aclcheck(target->relid, GetUserId(),
						  ACL_DELETE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE,
					   get_rel_name(target->relid));
}

static void
check_transaction(const char *call)
{
	PreventCommandDuringRecovery(call);
	PreventCommandIfReadOnly(call);
	if (IsInParallelMode())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_TRANSACTION_STATE),
				 errmsg("cannot execute %s during a parallel operation",
						call)));
	bdd_check_can_push();
}

/* ---------- checks of values ---------- */

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

static void
check_not_null(const BddTarget *target, const BddValues *row)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (row->isnull[i] &&
			(bdd_column_in(row->given, i) || bdd_column_in(row->first, i)) &&
			TupleDescAttr(target->shape.desc, i)->attnotnull)
			report_null(target, i);
}

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

static void
check_has_key(const BddTarget *target)
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
	check_has_key(target);
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

static void
check_size(const BddTarget *target, uint32 key_size, uint32 image_size)
{
	if (offsetof(BddSharedEntry, key) + key_size > BDD_MAX_BLOCK)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("key of %u bytes is too long for target \"%s\"",
						key_size, get_rel_name(target->relid)),
				 errdetail("A key has at most %d bytes.",
						   (int) (BDD_MAX_BLOCK - offsetof(BddSharedEntry, key)))));
	if (bdd_row_room(key_size, image_size) > bdd_largest_transaction())
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("row of %u bytes does not fit into the buffer of \"%s\"",
						image_size, get_rel_name(target->relid)),
				 errdetail("The largest row has %zu bytes.",
						   bdd_largest_transaction()),
				 errhint("Raise batchdedup.buffer_size or batchdedup.max_target_share.")));
}

/* ---------- values ---------- */

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
	const BddColumn *described = &target->columns[column];

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

static void
composite_as_heap(HeapTupleHeader tuple, HeapTuple heap)
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

	composite_as_heap(tuple, &heap);
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

/* The column that a name of a document or a record means. */
static int
named_column(const BddTarget *target, const char *name)
{
	AttrNumber attnum = bdd_column_number(target->shape.desc, name);

	if (attnum == InvalidAttrNumber)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_COLUMN),
				 errmsg("column \"%s\" of relation \"%s\" does not exist",
						name, get_rel_name(target->relid))));
	return attnum - 1;
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
			named[named_column(target,
							   pnstrdup(value.val.string.val,
										value.val.string.len))] = true;
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

/* ---------- pushing ---------- */

/* Without a key every row is another one. */
static uint32
unique_key(StringInfo bytes)
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
		return unique_key(bytes);
	bdd_check_key_given(target, row);
	for (int i = 0; i < target->key.count; i++)
		values[i] = row->values[target->key.columns[i].attnum - 1];
	return bdd_key_encode(&target->key, values, bytes);
}

/* Reused for every row of the session. */
static StringInfo
key_buffer(void)
{
	static StringInfo buffer = NULL;

	if (buffer == NULL)
	{
		MemoryContext old_context = MemoryContextSwitchTo(TopMemoryContext);

		buffer = makeStringInfo();
		MemoryContextSwitchTo(old_context);
	}
	resetStringInfo(buffer);
	return buffer;
}

/* Whether rows of this caller do not go through the buffer. */
static bool
bypasses_buffer(const BddTarget *target, bool kept)
{
	/* A worker cannot wait for itself, as a direct write might. */
	if (bdd_am_worker)
	{
		bdd_check_row_security(target);
		return false;
	}
	if (target->slot != NULL && bdd_worker_unavailable(target->slot))
		return true;
	if (target->options.logged && !kept)
		return true;
	return bdd_is_switched_off(target);
}

static BddPending *
pending_of(BddTarget *target, bool kept)
{
	bool bypasses = bypasses_buffer(target, kept);
	BddSharedSlot *slot;
	BddPending *pending;

	slot = bypasses ? bdd_target_find_slot(target) : bdd_target_slot(target);
	bdd_pending_init();
	pending = bdd_pending_get(target->relid, target->options.target_id, slot,
							  &target->shape);
	pending->flush_rows = bdd_target_flush_rows(target);
	/* Only a worker goes on without a journal: it cannot write directly. */
	pending->logged = target->options.logged &&
					  (!bdd_am_worker || kept);
	if (OidIsValid(pending->role) && pending->role != GetUserId())
		pending->several_roles = true;
	if (!bypasses)
		pending->role = GetUserId();
	return pending;
}

/* The buffer is nearly full; true: the row is to be written directly. */
static bool
make_room(const BddTarget *target, BddPending *pending)
{
	if (bdd_am_worker || !bdd_above_high_water(pending->slot))
		return false;
	if (target->options.on_full == BDD_FULL_DIRECT)
		return true;
	if (target->options.on_full == BDD_FULL_ERROR)
		bdd_report_full(pending->slot);
	bdd_wait_for_room(pending->slot, GetCurrentTimestamp());
	return false;
}

/* The image's data is in bdd_pending_context. */
static void
push(BddTarget *target, uint32 hash, StringInfo key, BddImage image)
{
	BddPending *pending;
	bool kept;

	bdd_journal_wait_replayed();
	kept = bdd_journal_is_kept(); /* it may change at any time */
	pending = pending_of(target, kept);
	/* Now that there is a slot it is known whether there is a worker. */
	if (pending->direct == NULL &&
		(bypasses_buffer(target, kept) || make_room(target, pending)))
		bdd_direct_begin(target, pending);
	if (pending->direct != NULL)
	{
		bdd_direct_write(target, &image);
		pfree(image.data);
		return;
	}
	check_size(target, key->len, image.size);
	bdd_pending_add(pending, hash, key->data, key->len, image);
	if (bdd_pending_room() > bdd_largest_transaction() && !bdd_am_worker)
		bdd_direct_begin(target, pending);
}

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

static Oid
sequence_of(BddTarget *target, int column)
{
	BddColumn *described = &target->columns[column];

	if (!OidIsValid(described->sequence))
		described->sequence = bdd_identity_sequence(target->relid, column + 1);
	return described->sequence;
}

/*
 * Values of identity columns, taken at the call.  They are for a row that is
 * inserted; one that exists keeps its own.  Who may INSERT needs no right on
 * the sequence.
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
static void
complete_values(BddTarget *target, BddValues *row, BddColumns *update,
				BddColumns *insert)
{
	const BddShape *shape = &target->shape;

	for (int i = 0; i < shape->set_bytes; i++)
		update[i] = row->given[i] & shape->update[i];
	check_may_upsert(target, update, row->given);
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

/* An upsert of the columns that are given. */
void
bdd_push_values(BddTarget *target, BddValues *row)
{
	const BddShape *shape = &target->shape;
	BddColumns *update = palloc0(2 * shape->set_bytes);
	BddColumns *insert = update + shape->set_bytes;
	StringInfo key = key_buffer();
	MemoryContext old_context;
	BddImage image;
	uint32 hash;

	check_transaction("upsert()");
	complete_values(target, row, update, insert);
	hash = bdd_values_key(target, row, key);
	bdd_pending_init();
	old_context = MemoryContextSwitchTo(bdd_pending_context);
	image = bdd_image_from_values(shape, BDD_UPSERT, row->values, row->isnull,
								  update, insert);
	MemoryContextSwitchTo(old_context);
	push(target, hash, key, image);
}

/* The image of such an upsert, which goes elsewhere. */
BddImage
bdd_values_image(BddTarget *target, BddValues *row)
{
	BddColumns *update = palloc0(2 * target->shape.set_bytes);
	BddColumns *insert = update + target->shape.set_bytes;

	complete_values(target, row, update, insert);
	return bdd_image_from_values(&target->shape, BDD_UPSERT, row->values,
								 row->isnull, update, insert);
}

/* For who is to give rows later: INSERT and UPDATE of all columns. */
void
bdd_check_may_upsert_all(BddTarget *target)
{
	check_may_upsert(target, target->shape.update, target->shape.insert);
}

static BddImage
delete_image(BddTarget *target, BddValues *row, bool versioned)
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
	return delete_image(target, row, false);
}

/* A version that is given and not NULL limits what the delete may delete. */
void
bdd_push_delete(BddTarget *target, BddValues *row)
{
	StringInfo key = key_buffer();
	MemoryContext old_context;
	int version = target->shape.version;
	BddImage image;
	uint32 hash;

	check_has_key(target);
	check_transaction("delete()");
	check_may_delete(target);
	hash = bdd_values_key(target, row, key);
	bdd_pending_init();
	old_context = MemoryContextSwitchTo(bdd_pending_context);
	image = delete_image(target, row,
						 version >= 0 && bdd_column_in(row->given, version) &&
							 !row->isnull[version]);
	MemoryContextSwitchTo(old_context);
	push(target, hash, key, image);
}

/* ---------- the fast way for typed rows ---------- */

static bool
has_null_it_must_not(const BddTarget *target, HeapTuple heap)
{
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (TupleDescAttr(target->shape.desc, i)->attnotnull &&
			heap_attisnull(heap, i + 1, target->shape.desc))
			return true;
	return false;
}

/* The row as it is: every column is given, none is computed, none is wrong. */
static void
push_full_row(BddTarget *target, HeapTuple heap)
{
	Datum values[INDEX_MAX_KEYS];
	StringInfo key = key_buffer();
	MemoryContext old_context;
	BddImage image;
	uint32 hash;
	bool isnull;

	check_transaction("upsert()");
	check_may_upsert(target, target->shape.update, target->shape.insert);
	for (int i = 0; i < target->key.count; i++)
		values[i] = heap_getattr(heap, target->key.columns[i].attnum,
								 target->shape.desc, &isnull);
	hash = target->key.count == 0 ? unique_key(key) :
									bdd_key_encode(&target->key, values, key);
	bdd_pending_init();
	old_context = MemoryContextSwitchTo(bdd_pending_context);
	image = bdd_image_from_full_row(heap);
	MemoryContextSwitchTo(old_context);
	push(target, hash, key, image);
}

/*
 * Whether the row can be taken as it is; the caller knows that it points to
 * nothing outside.
 */
static bool
is_plain_row(const BddTarget *target, HeapTuple heap)
{
	return target->plain_rows &&
		   HeapTupleHeaderGetNatts(heap->t_data) == target->shape.desc->natts &&
		   !((heap->t_data->t_infomask & HEAP_HASNULL) != 0 &&
			 has_null_it_must_not(target, heap));
}

/* An upsert of a value of the table's row type. */
void
bdd_push_row(BddTarget *target, HeapTupleHeader tuple)
{
	HeapTupleData heap;
	BddValues row;

	composite_as_heap(tuple, &heap);
	if (is_plain_row(target, &heap))
	{
		push_full_row(target, &heap);
		return;
	}
	bdd_values_init(target, &row);
	bdd_values_from_row(target, tuple, &row);
	bdd_push_values(target, &row);
}

/* An upsert of a tuple that gives all of the table's columns. */
void
bdd_push_tuple(BddTarget *target, HeapTuple tuple)
{
	BddValues row;

	if (!HeapTupleHasExternal(tuple) && is_plain_row(target, tuple))
	{
		push_full_row(target, tuple);
		return;
	}
	bdd_values_init(target, &row);
	heap_deform_tuple(tuple, target->shape.desc, row.values, row.isnull);
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (!TupleDescAttr(target->shape.desc, i)->attisdropped)
			bdd_values_give(target, &row, i);
	bdd_push_values(target, &row);
}
