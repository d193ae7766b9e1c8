/*-------------------------------------------------------------------------
 *
 * rowimage.h
 *		A row on its way to a target: what it says, and how two combine.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_ROWIMAGE_H
#define BDD_ROWIMAGE_H

#include "base/base.h"

#include "access/htup_details.h"
#include "access/tupdesc.h"
#include "lib/stringinfo.h"
#include "row/rule.h"

typedef enum BddOp
{
	BDD_UPSERT,
	BDD_DELETE,
	BDD_REPLACE /* delete, then upsert */
} BddOp;

/* A set of columns: bit attnum - 1. */
typedef uint8 BddColumns;

#define bdd_column_in(set, i) (((set)[(i) >> 3] & (1 << ((i) &7))) != 0)
#define bdd_column_add(set, i) ((set)[(i) >> 3] |= (1 << ((i) &7)))
#define bdd_column_remove(set, i) ((set)[(i) >> 3] &= ~(1 << ((i) &7)))

/* What the rows of a target have in common. */
typedef struct BddShape
{
	TupleDesc desc;       /* the table's, with its dropped columns */
	int set_bytes;        /* of a BddColumns */
	BddColumns *update;   /* overwritten by an upsert */
	BddColumns *insert;   /* a full row gives: not dropped, generated */
	BddColumns *required; /* NOT NULL and without a default */
	uint32 fingerprint;   /* of desc: what an image can be read with */
	bool covers;          /* a full row leaves nothing of older ones */
	bool exact;           /* equal keys have equal bytes */
	bool keeps_all;       /* coalesce_rows => false: no two rows combine */
	const BddRule *rules; /* by attnum - 1; NULL: all are "last" */
	int version;          /* attnum - 1 of version_column, or -1 */
	BddRule newer;        /* compares versions */
	bool calls;           /* combining rows may call functions */
} BddShape;

/* How two rows of a key combine. */
typedef enum BddFold
{
	BDD_FOLDED, /* into one */
	BDD_STALE,  /* the newer one says nothing: its version is older */
	BDD_APART   /* they cannot; both meet the table, one after the other */
} BddFold;

/*
 * A row image: a tuple with the table's row type, and for each column whether
 * it has a value here ("insert") and whether that value also overwrites the
 * column of a row that exists ("update", a subset of "insert").  A column
 * that is in "insert" only carries a first value: of a column that is not in
 * the target's update columns, or a default taken at the call.  A column in
 * neither takes the table's default if a row is inserted.
 *
 * "full": the two sets are the target's, and are not stored.  Otherwise data
 * begins with them.  data is maximally aligned.
 */
typedef struct BddImage
{
	BddOp op;
	bool full;
	uint32 size; /* bytes of data */
	char *data;
} BddImage;

/* Bytes of the two column sets in front of the tuple. */
static inline Size
bdd_image_head(const BddShape *shape, const BddImage *image)
{
	return image->full ? 0 : MAXALIGN(2 * shape->set_bytes);
}

static inline MinimalTuple
bdd_image_tuple(const BddShape *shape, const BddImage *image)
{
	return (MinimalTuple) (image->data + bdd_image_head(shape, image));
}

static inline const BddColumns *
bdd_image_update(const BddShape *shape, const BddImage *image)
{
	return image->full ? shape->update : (BddColumns *) image->data;
}

static inline const BddColumns *
bdd_image_insert(const BddShape *shape, const BddImage *image)
{
	return image->full ? shape->insert :
						 (BddColumns *) image->data + shape->set_bytes;
}

/*
 * Whether nothing older of the same key matters beside the image, whatever the
 * older rows are.
 */
static inline bool
bdd_image_covers(const BddShape *shape, BddOp op, bool full)
{
	if (shape->keeps_all)
		return false;
	switch (op)
	{
		case BDD_UPSERT:
			return full && shape->covers;
		case BDD_DELETE:
			return shape->version < 0;
		case BDD_REPLACE:
			return true;
	}
	return false;
}

/* A delete that carries no version always wins. */
static inline bool
bdd_image_is_versioned_delete(const BddShape *shape, const BddImage *image)
{
	return image->op == BDD_DELETE && shape->version >= 0 &&
		   bdd_column_in(bdd_image_insert(shape, image), shape->version);
}

extern void bdd_tuple_as_heap(MinimalTuple tuple, HeapTuple heap);
extern void bdd_image_deform(const BddShape *shape, const BddImage *image,
							 Datum *values, bool *isnull);
extern BddImage bdd_image_from_values(const BddShape *shape, BddOp op,
									  Datum *values, bool *isnull,
									  const BddColumns *update,
									  const BddColumns *insert);
extern BddImage bdd_image_from_full_row(HeapTuple row);
extern BddImage bdd_key_only_delete(const BddShape *shape,
									const BddImage *image);
extern BddImage bdd_image_copy(const BddImage *image);
extern void bdd_image_pack(const BddShape *shape, const BddImage *image,
						   StringInfo buffer);
extern BddImage bdd_image_unpack(const BddShape *shape, BddOp op, bool full,
								 const char *data, uint32 size);
extern BddFold bdd_image_fold(const BddShape *shape, const BddImage *older,
							  const BddImage *newer, bool may_call,
							  BddImage *folded);

#endif /* BDD_ROWIMAGE_H */
