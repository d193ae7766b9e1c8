/*-------------------------------------------------------------------------
 *
 * rowimage.c
 *		A row on its way to a target: what it says, and how two combine.
 *
 * Nothing here calls a function of a data type, so images may be combined
 * under a lock.
 *
 *-------------------------------------------------------------------------
 */
#include "rowimage.h"

#include "access/detoast.h"

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

BddImage
bdd_image_copy(const BddImage *image)
{
	BddImage copy = *image;

	copy.data = palloc(image->size);
	memcpy(copy.data, image->data, image->size);
	return copy;
}

/*
 * Column by column, what an older and a newer upsert of one key say together:
 * the newer value where it overwrites, else what the older one says.  A
 * column that the older row left to its default stays so, because that row
 * would have been inserted with it; but if it would have been refused
 * ("required"), the newer row's first value serves.
 */
static BddImage
fold_columns(const BddShape *shape, BddOp op, const BddImage *older,
			 const BddImage *newer)
{
	int natts = shape->desc->natts;
	Datum *values = palloc(2 * natts * sizeof(Datum));
	bool *isnull = palloc(2 * natts * sizeof(bool));
	Datum *newer_values = values + natts;
	bool *newer_isnull = isnull + natts;
	BddColumns *update = palloc0(2 * shape->set_bytes);
	BddColumns *insert = update + shape->set_bytes;
	const BddColumns *newer_update = bdd_image_update(shape, newer);
	const BddColumns *newer_insert = bdd_image_insert(shape, newer);
	BddImage folded;

	memcpy(update, bdd_image_update(shape, older), shape->set_bytes);
	memcpy(insert, bdd_image_insert(shape, older), shape->set_bytes);
	bdd_image_deform(shape, older, values, isnull);
	bdd_image_deform(shape, newer, newer_values, newer_isnull);

	for (int i = 0; i < natts; i++)
	{
		bool overwrites = bdd_column_in(newer_update, i);

		if (!overwrites &&
			!(bdd_column_in(newer_insert, i) && !bdd_column_in(insert, i) &&
			  bdd_column_in(shape->required, i)))
			continue;
		values[i] = newer_values[i];
		isnull[i] = newer_isnull[i];
		bdd_column_add(insert, i);
		if (overwrites)
			bdd_column_add(update, i);
	}
	folded = bdd_image_from_values(shape, op, values, isnull, update, insert);
	pfree(values);
	pfree(isnull);
	pfree(update);
	return folded;
}

/*
 * One image that says what the older and then the newer one say.  The result
 * is a copy in the current memory context.
 */
BddImage
bdd_image_fold(const BddShape *shape, const BddImage *older,
			   const BddImage *newer)
{
	BddImage folded;

	if (newer->op != BDD_UPSERT)
		return bdd_image_copy(newer);

	if (older->op == BDD_DELETE)
	{
		folded = bdd_image_copy(newer);
		folded.op = BDD_REPLACE;
		return folded;
	}
	if (newer->full && shape->covers)
	{
		folded = bdd_image_copy(newer);
		folded.op = older->op;
		return folded;
	}
	return fold_columns(shape, older->op, older, newer);
}
