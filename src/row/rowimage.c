/*-------------------------------------------------------------------------
 *
 * rowimage.c
 *		A row on its way to a target: what it says, and how two combine.
 *
 * Nothing here calls a function of a data type unless it is told that it may,
 * so images may be combined under a lock.
 *
 *-------------------------------------------------------------------------
 */
#include "row/rowimage.h"

#include "access/detoast.h"
#include "base/number.h"

/* Makes "heap" a view of the tuple, for heap_getattr and friends. */
void
bdd_tuple_as_heap(MinimalTuple tuple, HeapTuple heap)
{
	heap->t_len = tuple->t_len + MINIMAL_TUPLE_OFFSET;
	heap->t_data = (HeapTupleHeader) ((char *) tuple - MINIMAL_TUPLE_OFFSET);
	ItemPointerSetInvalid(&heap->t_self);
	heap->t_tableOid = InvalidOid;
}

/* Values point into the image. */
void
bdd_image_deform(const BddShape *shape, const BddImage *image, Datum *values,
				 bool *isnull)
{
	HeapTupleData heap;

	bdd_tuple_as_heap(bdd_image_tuple(shape, image), &heap);
	heap_deform_tuple(&heap, shape->desc, values, isnull);
}

/*
 * Makes a minimal tuple of the header and data that a heap tuple or composite
 * value of the given length has behind its first MINIMAL_TUPLE_OFFSET bytes.
 * Its marks as a composite value go: what they speak of is not copied.
 */
static void
copy_tuple(MinimalTuple tuple, HeapTupleHeader header, uint32 length)
{
	memcpy(tuple, (char *) header + MINIMAL_TUPLE_OFFSET, length);
	tuple->t_len = length;
	memset(tuple->mt_padding, 0, sizeof(tuple->mt_padding));
	tuple->t_infomask &= ~HEAP_XACT_MASK;
}

/*
 * A value must not point into another table, which may change before the row
 * is applied.
 */
static Datum
fetch_external(Datum value)
{
	struct varlena *pointer = (struct varlena *) DatumGetPointer(value);

	if (VARATT_IS_EXTERNAL(pointer) && !VARATT_IS_EXTERNAL_EXPANDED(pointer))
		return PointerGetDatum(detoast_external_attr(pointer));
	return value;
}

/*
 * An image of the given values; columns outside "insert" are left out.
 */
BddImage
bdd_image_from_values(const BddShape *shape, BddOp op, Datum *values,
					  bool *isnull, const BddColumns *update,
					  const BddColumns *insert)
{
	BddImage image;
	HeapTuple heap;
	Size head;
	Size length;

	for (int i = 0; i < shape->desc->natts; i++)
	{
		if (!bdd_column_in(insert, i))
			isnull[i] = true;
		else if (!isnull[i] && TupleDescAttr(shape->desc, i)->attlen == -1)
			values[i] = fetch_external(values[i]);
	}

	image.op = op;
	image.full = op != BDD_DELETE &&
				 memcmp(update, shape->update, shape->set_bytes) == 0 &&
				 memcmp(insert, shape->insert, shape->set_bytes) == 0;
	image.data = NULL;
	head = bdd_image_head(shape, &image);

	heap = heap_form_tuple(shape->desc, values, isnull);
	length = heap->t_len - MINIMAL_TUPLE_OFFSET;
	image.size = head + length;
	image.data = palloc0(image.size);
	if (!image.full)
	{
		memcpy(image.data, update, shape->set_bytes);
		memcpy(image.data + shape->set_bytes, insert, shape->set_bytes);
	}
	copy_tuple((MinimalTuple) (image.data + head), heap->t_data, length);
	heap_freetuple(heap);
	return image;
}

/* The image of a row that gives every column and points to nothing. */
BddImage
bdd_image_from_full_row(HeapTuple row)
{
	BddImage image;

	image.op = BDD_UPSERT;
	image.full = true;
	image.size = row->t_len - MINIMAL_TUPLE_OFFSET;
	image.data = palloc(image.size);
	copy_tuple((MinimalTuple) image.data, row->t_data, image.size);
	return image;
}

/* A copy with data of its own, in the current memory context. */
BddImage
bdd_image_copy(const BddImage *image)
{
	BddImage copy = *image;

	copy.data = palloc(image->size);
	memcpy(copy.data, image->data, image->size);
	return copy;
}

/* ---------- as bytes of the journal ---------- */

/* The first fields of a minimal tuple follow from its size, and are left out. */
#define PACKED_OFFSET offsetof(MinimalTupleData, t_infomask2)

/* Size and bytes: the column sets unless it is full, and the tuple. */
void
bdd_image_pack(const BddShape *shape, const BddImage *image,
			   StringInfo buffer)
{
	Size head = bdd_image_head(shape, image);
	Size sets = image->full ? 0 : 2 * shape->set_bytes;
	Size tuple = image->size - head - PACKED_OFFSET;

	bdd_put_number(buffer, sets + tuple);
	appendBinaryStringInfo(buffer, image->data, sets);
	appendBinaryStringInfo(buffer, image->data + head + PACKED_OFFSET, tuple);
}

/* The image of those bytes, which were made with an equal shape. */
BddImage
bdd_image_unpack(const BddShape *shape, BddOp op, bool full,
				 const char *data, uint32 size)
{
	BddImage image = {.op = op, .full = full};
	Size head = bdd_image_head(shape, &image);
	Size sets = full ? 0 : 2 * shape->set_bytes;
	MinimalTuple tuple;

	image.size = head + PACKED_OFFSET + size - sets;
	image.data = palloc0(image.size);
	memcpy(image.data, data, sets);
	tuple = (MinimalTuple) (image.data + head);
	tuple->t_len = image.size - head;
	memcpy((char *) tuple + PACKED_OFFSET, data + sets, size - sets);
	return image;
}

/* ---------- combining two rows ---------- */

/* A row that is taken apart. */
typedef struct BddParts
{
	Datum *values;
	bool *isnull;
	const BddColumns *update;
	const BddColumns *insert;
} BddParts;

/* Values and column sets point into the image; free_parts frees the arrays. */
static void
take_apart(const BddShape *shape, const BddImage *image, BddParts *parts)
{
	int natts = shape->desc->natts;

	parts->values = palloc(natts * sizeof(Datum));
	parts->isnull = palloc(natts * sizeof(bool));
	parts->update = bdd_image_update(shape, image);
	parts->insert = bdd_image_insert(shape, image);
	bdd_image_deform(shape, image, parts->values, parts->isnull);
}

/* Frees what take_apart has allocated, and not the image. */
static void
free_parts(BddParts *parts)
{
	pfree(parts->values);
	pfree(parts->isnull);
}

/* The rows' result, in the making. */
typedef struct BddMix
{
	const BddShape *shape;
	BddOp op; /* of the older row, and of the result */
	bool may_call;
	BddParts older; /* becomes the result */
	BddParts newer;
	BddColumns *update;
	BddColumns *insert;
} BddMix;

/*
 * Column i of the result is what the newer row says.  "overwrites": also of a
 * row that is there, and not only of one that is inserted.
 */
static void
take_newer(BddMix *mix, int i, bool overwrites)
{
	mix->older.values[i] = mix->newer.values[i];
	mix->older.isnull[i] = mix->newer.isnull[i];
	bdd_column_add(mix->insert, i);
	if (overwrites)
		bdd_column_add(mix->update, i);
}

/*
 * Column i of the result is made of both values; false: the rule cannot do
 * that here.  Only after a REPLACE the older value is known to be that of the
 * row.
 */
static bool
combine_values(BddMix *mix, const BddRule *rule, int i)
{
	NullableDatum older = {mix->older.values[i], mix->older.isnull[i]};
	NullableDatum newer = {mix->newer.values[i], mix->newer.isnull[i]};
	NullableDatum combined;

	if (!bdd_rule_combine(rule, older, newer,
						  !mix->may_call         ? BDD_MEMORY :
						  mix->op == BDD_REPLACE ? BDD_VALUE :
												   BDD_DELTAS,
						  &combined))
		return false;
	mix->older.values[i] = combined.value;
	mix->older.isnull[i] = combined.isnull;
	bdd_column_add(mix->insert, i);
	bdd_column_add(mix->update, i);
	return true;
}

/*
 * A column with a rule that makes a new value of two.  An image has one value
 * for a column, the same for the row that is there and for the row that is
 * inserted.  If the older row has a first value only (a default), the two
 * would differ, unless it adds nothing.
 */
static bool
accumulate(BddMix *mix, const BddRule *rule, int i)
{
	bool first_value = !bdd_column_in(mix->update, i) &&
					   mix->op != BDD_REPLACE;

	if (mix->newer.isnull[i] &&
		!(rule->kind == BDD_FUNCTION && !rule->strict))
		return true;
	if (!bdd_column_in(mix->insert, i))
	{
		/* The table's default would come first; without one it would be refused. */
		if (!bdd_column_in(mix->shape->required, i))
			return false;
		take_newer(mix, i, true);
		return true;
	}
	if (!first_value)
		return combine_values(mix, rule, i);
	if (!mix->older.isnull[i] &&
		!(rule->kind == BDD_SUM &&
		  bdd_rule_is_zero(rule, mix->older.values[i])))
		return false;
	if (rule->kind == BDD_FUNCTION && !rule->strict)
		return false;
	take_newer(mix, i, true);
	return true;
}

/* One column; false: the rows cannot be combined. */
static bool
mix_column(BddMix *mix, int i)
{
	static const BddRule last = {BDD_LAST};
	const BddRule *rule = mix->shape->rules != NULL ? &mix->shape->rules[i] :
													  &last;

	if (!bdd_column_in(mix->newer.update, i))
	{
		/*
		 * A column that the older row left to its default stays so, because
		 * that row would have been inserted with it; but if it would have been
		 * refused, the newer row's first value serves.
		 */
		if (bdd_column_in(mix->newer.insert, i) &&
			!bdd_column_in(mix->insert, i) &&
			bdd_column_in(mix->shape->required, i))
			take_newer(mix, i, false);
		return true;
	}
	if (bdd_rule_accumulates(rule))
		return accumulate(mix, rule, i);
	if (rule->kind == BDD_LAST || !mix->newer.isnull[i])
		take_newer(mix, i, true);
	return true;
}

/*
 * Column by column, what an older and a newer upsert of one key say together:
 * the newer value where it overwrites, else what the older one says.
 */
static BddFold
fold_columns(const BddShape *shape, const BddImage *older,
			 const BddImage *newer, bool may_call, BddImage *folded)
{
	BddMix mix = {shape, older->op, may_call};
	bool possible = true;

	take_apart(shape, older, &mix.older);
	take_apart(shape, newer, &mix.newer);
	mix.update = palloc(2 * shape->set_bytes);
	mix.insert = mix.update + shape->set_bytes;
	memcpy(mix.update, mix.older.update, shape->set_bytes);
	memcpy(mix.insert, mix.older.insert, shape->set_bytes);
	for (int i = 0; i < shape->desc->natts && possible; i++)
		possible = mix_column(&mix, i);
	if (possible)
		*folded = bdd_image_from_values(shape, older->op, mix.older.values,
										mix.older.isnull, mix.update,
										mix.insert);
	free_parts(&mix.older);
	free_parts(&mix.newer);
	pfree(mix.update);
	return possible ? BDD_FOLDED : BDD_APART;
}

/* ---------- versions ---------- */

/* The value of the version column, which points into the image. */
static NullableDatum
version_of(const BddShape *shape, const BddImage *image)
{
	HeapTupleData heap;
	NullableDatum version;

	bdd_tuple_as_heap(bdd_image_tuple(shape, image), &heap);
	version.value = heap_getattr(&heap, shape->version + 1, shape->desc,
								 &version.isnull);
	return version;
}

/* NULL is the oldest version; false: comparing them would need a call. */
static bool
compare_versions(const BddShape *shape, const BddImage *older,
				 const BddImage *newer, bool may_call, int *order)
{
	NullableDatum a = version_of(shape, older);
	NullableDatum b = version_of(shape, newer);

	if (a.isnull || b.isnull)
	{
		*order = (int) a.isnull - (int) b.isnull;
		return true;
	}
	return bdd_rule_compare(&shape->newer, b.value, a.value, may_call, order);
}

/* The delete without its version: it wins, whatever version the row has. */
BddImage
bdd_key_only_delete(const BddShape *shape, const BddImage *image)
{
	BddParts parts;
	BddColumns *insert = palloc(shape->set_bytes);
	BddImage plain;

	take_apart(shape, image, &parts);
	memcpy(insert, parts.insert, shape->set_bytes);
	if (shape->version >= 0)
		bdd_column_remove(insert, shape->version);
	plain = bdd_image_from_values(shape, BDD_DELETE, parts.values,
								  parts.isnull, parts.update, insert);
	free_parts(&parts);
	pfree(insert);
	return plain;
}

/*
 * Whether the newer row alone decides what the updated columns become: then
 * it does not matter whether the table takes the older one.
 */
static bool
overwrites_all(const BddShape *shape, const BddImage *older,
			   const BddImage *newer)
{
	const BddColumns *before = bdd_image_update(shape, older);
	const BddColumns *after = bdd_image_update(shape, newer);

	for (int i = 0; i < shape->desc->natts; i++)
		if (bdd_column_in(before, i) &&
			(!bdd_column_in(after, i) ||
			 (shape->rules != NULL && shape->rules[i].kind != BDD_LAST)))
			return false;
	return true;
}

/*
 * Makes the result a copy of one of the two rows, with the operation "op", and
 * returns "how".
 */
static BddFold
copy_as(const BddImage *image, BddOp op, BddFold how, BddImage *folded)
{
	*folded = bdd_image_copy(image);
	folded->op = op;
	return how;
}

/*
 * With a version column a row is ignored if the row that it meets is newer.
 * The version in the table is not known here: only a REPLACE knows what it
 * leaves, and a row that is older than the one before it in the buffer is
 * stale whatever the table has.
 */
static BddFold
fold_versions(const BddShape *shape, const BddImage *older,
			  const BddImage *newer, bool may_call, BddImage *folded)
{
	bool after_delete = older->op == BDD_DELETE;
	int order;

	if (newer->op == BDD_REPLACE ||
		(newer->op == BDD_DELETE &&
		 !bdd_image_is_versioned_delete(shape, newer)))
		return copy_as(newer, newer->op, BDD_FOLDED, folded);
	if (after_delete && !bdd_image_is_versioned_delete(shape, older))
		return newer->op == BDD_DELETE ?
				   copy_as(older, BDD_DELETE, BDD_FOLDED, folded) :
				   copy_as(newer, BDD_REPLACE, BDD_FOLDED, folded);
	if (after_delete && newer->op == BDD_UPSERT)
		return BDD_APART; /* the table may ignore the delete */
	if (!compare_versions(shape, older, newer, may_call, &order))
		return BDD_APART;
	if (order < 0)
		return copy_as(older, older->op, BDD_STALE, folded);
	if (newer->op == BDD_DELETE && older->op == BDD_REPLACE)
	{
		*folded = bdd_key_only_delete(shape, newer);
		return BDD_FOLDED;
	}
	if (newer->op == BDD_DELETE)
		return copy_as(newer, BDD_DELETE, BDD_FOLDED, folded);
	if (order > 0 && older->op == BDD_UPSERT &&
		!overwrites_all(shape, older, newer))
		return BDD_APART;
	return fold_columns(shape, older, newer, may_call, folded);
}

/*
 * One image that says what the older and then the newer one say, as a copy in
 * the current memory context, if there is one.  "may_call": functions of data
 * types may be called, and may raise errors.
 */
BddFold
bdd_image_fold(const BddShape *shape, const BddImage *older,
			   const BddImage *newer, bool may_call, BddImage *folded)
{
	if (shape->keeps_all)
		return BDD_APART;
	if (shape->version >= 0)
		return fold_versions(shape, older, newer, may_call, folded);
	if (newer->op != BDD_UPSERT)
		return copy_as(newer, newer->op, BDD_FOLDED, folded);
	if (older->op == BDD_DELETE)
		return copy_as(newer, BDD_REPLACE, BDD_FOLDED, folded);
	if (newer->full && shape->covers)
		return copy_as(newer, older->op, BDD_FOLDED, folded);
	return fold_columns(shape, older, newer, may_call, folded);
}
