/*-------------------------------------------------------------------------
 *
 * keyorder.c
 *		Rows in the order of their key, one for each.
 *
 * Keys are compared as the key's index compares them, so this is also where
 * keys that are equal in several spellings meet.
 *
 *-------------------------------------------------------------------------
 */
#include "target/keyorder.h"

#include "access/nbtree.h"
#include "common/hashfn.h"
#include "sql/attempt.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/sortsupport.h"

typedef struct BddSortRow
{
	Datum *keys;
	BddRow row;
} BddSortRow;

typedef struct BddSorter
{
	int count;
	SortSupportData keys[INDEX_MAX_KEYS];
} BddSorter;

/*
 * Comparisons by the operator class of the key's index.  The sorter's memory
 * is in the current context.
 */
static void
init_sorter(BddTarget *target, BddSorter *sorter)
{
	memset(sorter, 0, sizeof(*sorter));
	sorter->count = target->key.count;
	for (int i = 0; i < sorter->count; i++)
	{
		BddKeyColumn *column = &target->key.columns[i];
		SortSupport sort = &sorter->keys[i];

		sort->ssup_cxt = CurrentMemoryContext;
		sort->ssup_collation = column->collation;
		sort->ssup_attno = column->attnum;
		PrepareSortSupportFromOrderingOp(get_opfamily_member(column->opfamily,
															 column->input_type,
															 column->input_type,
															 BTLessStrategyNumber),
										 sort);
	}
}

static int
compare_keys(const BddSortRow *a, const BddSortRow *b, BddSorter *sorter)
{
	/* Without a key every row is another one. */
	if (sorter->count == 0)
		return a->row.sequence < b->row.sequence ? -1 : 1;
	for (int i = 0; i < sorter->count; i++)
	{
		int order = ApplySortComparator(a->keys[i], false,
										b->keys[i], false,
										&sorter->keys[i]);

		if (order != 0)
			return order;
	}
	return 0;
}

/* Rows of one key are in the order in which they were given. */
static int
compare_rows(const void *a, const void *b, void *sorter)
{
	const BddSortRow *left = a;
	const BddSortRow *right = b;
	int order = compare_keys(left, right, sorter);

	if (order != 0)
		return order;
	return left->row.sequence < right->row.sequence ? -1 :
		   left->row.sequence > right->row.sequence ? 1 :
													  0;
}

/* The image's key values; they point into the image. */
static void
extract_keys(BddTarget *target, const BddImage *image, Datum *keys)
{
	HeapTupleData heap;
	bool isnull;

	bdd_tuple_as_heap(bdd_image_tuple(&target->shape, image), &heap);
	for (int i = 0; i < target->key.count; i++)
	{
		keys[i] = heap_getattr(&heap, target->key.columns[i].attnum,
							   target->shape.desc, &isnull);
		Assert(!isnull);
	}
}

/* Which columns are the key, and of what type. */
static uint32
key_basis(BddTarget *target)
{
	uint32 basis = 0;

	for (int i = 0; i < target->key.count; i++)
	{
		const BddKeyColumn *column = &target->key.columns[i];
		uint32 parts[] = {column->attnum, column->type, column->opclass,
						  column->collation};

		basis = hash_combine(basis, hash_bytes((const unsigned char *) parts,
											   sizeof(parts)));
	}
	return basis;
}

/*
 * The same for rows of one key, as long as the upper half, which is of the
 * key's columns, is the same; and if the target's key is "exact".
 */
int64
bdd_key_hash(BddTarget *target, const BddImage *image)
{
	Datum keys[INDEX_MAX_KEYS];
	StringInfoData bytes;
	uint64 hash = (uint64) key_basis(target) << 32;

	initStringInfo(&bytes);
	extract_keys(target, image, keys);
	hash |= bdd_key_encode(&target->key, keys, &bytes);
	pfree(bytes.data);
	return (int64) hash;
}

/* A sorted copy, with the key values beside each row. */
static BddSortRow *
sort_rows(BddTarget *target, BddRows *rows, BddSorter *sorter)
{
	int count = target->key.count;
	BddSortRow *sorted = MemoryContextAllocHuge(CurrentMemoryContext,
												rows->count *
													sizeof(BddSortRow));
	Datum *keys = MemoryContextAllocHuge(CurrentMemoryContext,
										 rows->count * count *
											 sizeof(Datum));

	for (uint64 i = 0; i < rows->count; i++)
	{
		sorted[i].row = rows->rows[i];
		sorted[i].keys = keys + i * count;
		extract_keys(target, &sorted[i].row.image, sorted[i].keys);
	}
	qsort_arg(sorted, rows->count, sizeof(BddSortRow), compare_rows, sorter);
	return sorted;
}

/* Sorts the rows by key, and those of one key by sequence. */
void
bdd_rows_sort(BddTarget *target, BddRows *rows)
{
	BddSorter sorter;
	BddSortRow *sorted;

	if (rows->count == 0)
		return;
	init_sorter(target, &sorter);
	sorted = sort_rows(target, rows, &sorter);
	for (uint64 i = 0; i < rows->count; i++)
		rows->rows[i] = sorted[i].row;
	pfree(sorted);
}

typedef struct BddFolding
{
	BddTarget *target;
	BddSorter *sorter;
	const BddSortRow *sorted;
	uint64 count;
	uint64 next;  /* first row of the key that comes next */
	BddRow *kept; /* result; room for all */
	uint64 kept_count;
	uint64 stale;
} BddFolding;

/* Rows of the next key, oldest first, as few as there can be. */
static void
fold_key(BddFolding *folding, bool may_call)
{
	uint64 first = folding->next;
	uint64 end = first + 1;
	uint64 stale;
	BddRows key;

	while (end < folding->count &&
		   compare_keys(&folding->sorted[first], &folding->sorted[end],
						folding->sorter) == 0)
		end++;
	key.rows = &folding->kept[folding->kept_count];
	key.count = end - first;
	for (uint64 i = 0; i < key.count; i++)
		key.rows[i] = folding->sorted[first + i].row;
	stale = bdd_rows_fold(&folding->target->shape, &key, may_call);
	for (uint64 i = 0; i < key.count; i++)
		key.rows[i].round = i;
	folding->stale += stale;
	folding->kept_count += key.count;
	folding->next = end;
}

/*
 * For bdd_in_subtransaction, with a BddFolding: it goes on where the last try
 * has failed.
 */
static void
fold_keys(void *arg)
{
	BddFolding *folding = arg;

	while (folding->next < folding->count)
		fold_key(folding, true);
}

/*
 * Sorts the rows by key and leaves as few as there can be for each: one that
 * says what all rows of the key say in sequence order, or several that must
 * meet the table one after the other, in "round" 0, 1, ...  Returns how many
 * were stale.  Where a sum or the like fails, rows of the key are left apart,
 * and the table will say which it refuses.
 */
uint64
bdd_rows_fold_equal(BddTarget *target, BddRows *rows)
{
	BddSorter sorter;
	BddFolding folding = {target, &sorter};

	if (rows->count == 0)
		return 0;
	init_sorter(target, &sorter);
	folding.sorted = sort_rows(target, rows, &sorter);
	folding.count = rows->count;
	folding.kept = rows->rows;
	if (!target->shape.calls)
		fold_keys(&folding);
	else
		while (bdd_in_subtransaction(fold_keys, &folding) != NULL)
			fold_key(&folding, false);
	rows->count = folding.kept_count;
	pfree(unconstify(BddSortRow *, folding.sorted));
	return folding.stale;
}

/* Leaves the rows whose key equals that of "key". */
void
bdd_rows_keep_key(BddTarget *target, BddRows *rows, BddImage key)
{
	BddSorter sorter;
	BddSortRow wanted;
	BddSortRow row;
	uint64 kept = 0;

	init_sorter(target, &sorter);
	wanted.keys = palloc(target->key.count * sizeof(Datum));
	row.keys = palloc(target->key.count * sizeof(Datum));
	extract_keys(target, &key, wanted.keys);
	for (uint64 i = 0; i < rows->count; i++)
	{
		extract_keys(target, &rows->rows[i].image, row.keys);
		if (compare_keys(&row, &wanted, &sorter) == 0)
			rows->rows[kept++] = rows->rows[i];
	}
	rows->count = kept;
}

/*
 * The first row of the key with a sequence not below "from", in rows that are
 * sorted by both; NULL: there is none.  As bdd_rows_fold_equal leaves them,
 * others of the key follow it, with rounds above 0.
 */
BddRow *
bdd_rows_find(BddTarget *target, BddRows *rows, BddImage *key, uint64 from)
{
	BddSorter sorter;
	BddSortRow wanted;
	BddSortRow row;
	uint64 low = 0;
	uint64 high = rows->count;

	init_sorter(target, &sorter);
	wanted.keys = palloc(target->key.count * sizeof(Datum));
	row.keys = palloc(target->key.count * sizeof(Datum));
	extract_keys(target, key, wanted.keys);
	wanted.row.sequence = from;
	while (low < high)
	{
		uint64 middle = low + (high - low) / 2;

		row.row.sequence = rows->rows[middle].sequence;
		extract_keys(target, &rows->rows[middle].image, row.keys);
		if (compare_rows(&row, &wanted, &sorter) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	if (low == rows->count)
		return NULL;
	extract_keys(target, &rows->rows[low].image, row.keys);
	return compare_keys(&row, &wanted, &sorter) == 0 ? &rows->rows[low] : NULL;
}
