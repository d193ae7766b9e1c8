/*-------------------------------------------------------------------------
 *
 * memtable.c
 *		Generations: shared hash tables with one entry per key.
 *
 * A publisher reserves an entry and fills a version of its own in PRE_COMMIT
 * (which may fail), and links the version in COMMIT (which cannot).  Versions
 * of an entry are in sequence order, newest first.  What a newer version
 * makes needless goes to the free lists at once, so rewriting a key uses no
 * memory; rows given in part are combined by the next writer of the key, as
 * far as nobody can still link a row between them.
 *
 * Lock: the partition's, exclusive to change and shared to read, for all
 * that is in a BddSharedTable.  A quiet generation (sealed, no publishers)
 * never changes and is read without.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/memtable.h"

#include "base/compat.h"
#include "common/hashfn.h"
#include "utils/memutils.h"

#define FIRST_BUCKETS 64
#define MAX_BUCKETS 65536
#define VERSION_ROOM (BDD_MAX_BLOCK - offsetof(BddSharedVersion, data))
#define PIECE_ROOM (BDD_MAX_BLOCK - offsetof(BddSharedPiece, data))

BddSharedSequence *bdd_sequence = NULL;

static inline int
partition_of(uint32 hash)
{
	return hash % BDD_PARTITIONS;
}

/* ---------- sequence numbers ---------- */

/* No row that this process links from here on has a lower number; see README.md. */
void
bdd_floor_set(void)
{
	/* The floor must be seen by all before we look at any entry. */
	pg_atomic_write_u64(&bdd_sequence->floors[bdd_proc_index()],
						pg_atomic_read_u64(&bdd_sequence->last) + 1);
	pg_memory_barrier();
}

/* This process has linked its rows. */
void
bdd_floor_clear(void)
{
	pg_atomic_write_u64(&bdd_sequence->floors[bdd_proc_index()], 0);
}

/* Takes "count" numbers and returns the first. */
uint64
bdd_sequence_take(uint64 count)
{
	return pg_atomic_fetch_add_u64(&bdd_sequence->last, count) + 1;
}

/* Numbers up to "last" were taken before the server started. */
void
bdd_sequence_raise(uint64 last)
{
	uint64 now = pg_atomic_read_u64(&bdd_sequence->last);

	while (now < last &&
		   !pg_atomic_compare_exchange_u64(&bdd_sequence->last, &now, last))
		;
}

/*
 * No row below the result will be linked to an entry whose partition lock the
 * caller holds: a process that has reserved it has set a floor before, and one that will
 * do so later either has a floor, or takes a higher number than any linked now.
 * The caller's own floor counts: its number is taken, and its row not linked.
 */
static uint64
lowest_floor(void)
{
	uint64 lowest = PG_UINT64_MAX;

	for (int i = 0; i < bdd_sequence->floors_size; i++)
	{
		uint64 floor = pg_atomic_read_u64(&bdd_sequence->floors[i]);

		if (floor != 0)
			lowest = Min(lowest, floor);
	}
	return lowest;
}

/* ---------- generations ---------- */

/* An empty active generation, not linked to its slot yet; NULL: no memory. */
BddSharedGeneration *
bdd_generation_create(BddSharedPartition *partitions, BddSharedBudget *budget,
					  uint64 number)
{
	BddSharedChunk *chunk = bdd_pool_take(budget);
	BddSharedGeneration *generation;

	StaticAssertStmt(sizeof(BddSharedGeneration) <= BDD_CHUNK_ROOM,
					 "a generation's head must fit in a chunk");
	if (chunk == NULL)
		return NULL;
	generation = (BddSharedGeneration *) (chunk + 1);
	memset(generation, 0, sizeof(*generation));
	generation->number = number;
	generation->state = BDD_ACTIVE;
	generation->apply_xid = InvalidTransactionId;
	pg_atomic_init_u32(&generation->publishers, 0);
	pg_atomic_init_u32(&generation->keys, 0);
	pg_atomic_init_u64(&generation->first_at, 0);
	generation->partitions = partitions;
	generation->budget = budget;
	return generation;
}

/* Gives all memory of the generation back. */
void
bdd_generation_free(BddSharedGeneration *generation)
{
	BddSharedBudget *budget = generation->budget;

	Assert(pg_atomic_read_u32(&generation->publishers) == 0);
	for (int i = 0; i < BDD_PARTITIONS; i++)
		bdd_arena_release(&generation->tables[i].arena, budget);
	bdd_pool_give(budget, (BddSharedChunk *) generation - 1);
}

/* ---------- buckets ---------- */

static inline BddSharedEntry **
bucket_of(BddSharedTable *table, uint32 hash)
{
	uint32 bucket = (hash / BDD_PARTITIONS) & (table->buckets - 1);

	return &table->segments[bucket / BDD_SEGMENT][bucket % BDD_SEGMENT];
}

/* Frees buckets of which the first "allocated" segments were allocated. */
static void
free_buckets(BddSharedTable *table, BddSharedEntry ***segments,
			 uint32 buckets, int allocated)
{
	Size segment_size = Min(buckets, BDD_SEGMENT) * sizeof(void *);
	int count = Max(buckets / BDD_SEGMENT, 1);

	for (int i = 0; i < allocated; i++)
		bdd_arena_free(&table->arena, segments[i], segment_size);
	bdd_arena_free(&table->arena, segments, count * sizeof(void *));
}

/* Empty buckets, or NULL if there is no memory. */
static BddSharedEntry ***
alloc_buckets(BddSharedTable *table, BddSharedBudget *budget, uint32 buckets)
{
	Size segment_size = Min(buckets, BDD_SEGMENT) * sizeof(void *);
	int count = Max(buckets / BDD_SEGMENT, 1);
	BddSharedEntry ***segments = bdd_arena_alloc(&table->arena, budget,
												 count * sizeof(void *));

	if (segments == NULL)
		return NULL;
	for (int i = 0; i < count; i++)
	{
		segments[i] = bdd_arena_alloc(&table->arena, budget, segment_size);
		if (segments[i] == NULL)
		{
			free_buckets(table, segments, buckets, i);
			return NULL;
		}
		memset(segments[i], 0, segment_size);
	}
	return segments;
}

/* Moves the entries to more buckets; does nothing if memory is short. */
static bool
grow_buckets(BddSharedTable *table, BddSharedBudget *budget, uint32 buckets)
{
	BddSharedEntry ***old = table->segments;
	uint32 old_buckets = table->buckets;
	BddSharedEntry ***segments = alloc_buckets(table, budget, buckets);

	if (segments == NULL)
		return false;
	table->segments = segments;
	table->buckets = buckets;
	for (uint32 i = 0; i < old_buckets; i++)
	{
		BddSharedEntry *entry = old[i / BDD_SEGMENT][i % BDD_SEGMENT];

		while (entry != NULL)
		{
			BddSharedEntry *next = entry->next;
			BddSharedEntry **bucket = bucket_of(table, entry->hash);

			entry->next = *bucket;
			*bucket = entry;
			entry = next;
		}
	}
	if (old_buckets > 0)
		free_buckets(table, old, old_buckets,
					 Max(old_buckets / BDD_SEGMENT, 1));
	return true;
}

/* The key's entry, or NULL; the caller holds the partition's lock, or is alone. */
static BddSharedEntry *
find_entry(BddSharedTable *table, uint32 hash, const char *key,
		   uint32 key_size)
{
	BddSharedEntry *entry;

	if (table->buckets == 0)
		return NULL;
	for (entry = *bucket_of(table, hash); entry != NULL; entry = entry->next)
		if (entry->hash == hash && entry->key_size == key_size &&
			memcmp(entry->key, key, key_size) == 0)
			return entry;
	return NULL;
}

/* A new entry, without versions and hence invisible; NULL: no memory. */
static BddSharedEntry *
add_entry(BddSharedTable *table, BddSharedBudget *budget, uint32 hash,
		  const char *key, uint32 key_size)
{
	BddSharedEntry *entry;
	BddSharedEntry **bucket;

	if (table->buckets == 0 && !grow_buckets(table, budget, FIRST_BUCKETS))
		return NULL;
	if (table->entries >= 4 * table->buckets && table->buckets < MAX_BUCKETS)
		(void) grow_buckets(table, budget, 4 * table->buckets);

	entry = bdd_arena_alloc(&table->arena, budget,
							offsetof(BddSharedEntry, key) + key_size);
	if (entry == NULL)
		return NULL;
	bucket = bucket_of(table, hash);
	entry->next = *bucket;
	entry->newest = NULL;
	entry->hash = hash;
	entry->key_size = key_size;
	memcpy(entry->key, key, key_size);
	*bucket = entry;
	table->entries++;
	return entry;
}

/* ---------- versions ---------- */

static inline bool
is_split(uint32 image_size)
{
	return image_size > VERSION_ROOM;
}

static inline Size
version_block(const BddSharedVersion *version)
{
	return offsetof(BddSharedVersion, data) +
		   (version->split ? sizeof(BddSharedPiece *) : version->size);
}

static inline BddSharedPiece **
version_pieces(BddSharedVersion *version)
{
	return (BddSharedPiece **) version->data;
}

/* Gives the version back to the free lists; it is not, or no longer, linked. */
static void
free_version(BddSharedTable *table, BddSharedVersion *version)
{
	if (version->split)
	{
		BddSharedPiece *piece = *version_pieces(version);

		while (piece != NULL)
		{
			BddSharedPiece *next = piece->next;

			bdd_arena_free(&table->arena, piece, BDD_MAX_BLOCK);
			piece = next;
		}
	}
	bdd_arena_free(&table->arena, version, version_block(version));
}

/* Puts the image into blocks of BDD_MAX_BLOCK; false: no memory. */
static bool
store_pieces(BddSharedTable *table, BddSharedBudget *budget,
			 BddSharedVersion *version, const BddImage *image)
{
	BddSharedPiece **link = version_pieces(version);
	uint32 done = 0;

	*link = NULL;
	while (done < image->size)
	{
		uint32 part = Min(image->size - done, PIECE_ROOM);
		BddSharedPiece *piece = bdd_arena_alloc(&table->arena, budget,
												BDD_MAX_BLOCK);

		if (piece == NULL)
			return false;
		piece->next = NULL;
		memcpy(piece->data, image->data + done, part);
		done += part;
		*link = piece;
		link = &piece->next;
	}
	return true;
}

/* An unlinked version with a copy of the image, or NULL: no memory. */
static BddSharedVersion *
make_version(BddSharedTable *table, BddSharedBudget *budget,
			 const BddImage *image)
{
	bool split = is_split(image->size);
	BddSharedVersion *version;

	version = bdd_arena_alloc(&table->arena, budget,
							  offsetof(BddSharedVersion, data) +
								  (split ? sizeof(BddSharedPiece *) : image->size));
	if (version == NULL)
		return NULL;
	version->older = NULL;
	version->sequence = 0;
	version->size = image->size;
	version->op = image->op;
	version->full = image->full;
	version->split = split;
	version->apart = false;
	if (!split)
		memcpy(version->data, image->data, image->size);
	else if (!store_pieces(table, budget, version, image))
	{
		free_version(table, version);
		return NULL;
	}
	return version;
}

/* The version's image; data is shared memory unless "copy" or split. */
static BddImage
read_version(BddSharedVersion *version, bool copy)
{
	BddImage image;
	uint32 done = 0;

	image.op = version->op;
	image.full = version->full;
	image.size = version->size;
	image.data = version->data;
	if (!version->split)
		return copy ? bdd_image_copy(&image) : image;

	image.data = MemoryContextAllocHuge(CurrentMemoryContext, image.size);
	for (BddSharedPiece *piece = *version_pieces(version); piece != NULL;
		 piece = piece->next)
	{
		uint32 part = Min(image.size - done, PIECE_ROOM);

		memcpy(image.data + done, piece->data, part);
		done += part;
	}
	return image;
}

/* Bytes of the pool that a row takes when its key is new. */
Size
bdd_row_room(uint32 key_size, uint32 image_size)
{
	Size room;

	room = bdd_block_size(offsetof(BddSharedEntry, key) + key_size) +
		   sizeof(void *);
	if (is_split(image_size))
		return room + bdd_block_size(offsetof(BddSharedVersion, data) + 8) +
			   (image_size / PIECE_ROOM + 1) * (Size) BDD_MAX_BLOCK;
	return room + bdd_block_size(offsetof(BddSharedVersion, data) + image_size);
}

/* ---------- combining ---------- */

/* Frees what is older than "version"; tells whether the row was deleted. */
static bool
drop_older(BddSharedTable *table, BddSharedVersion *version)
{
	bool deleted = false;

	while (version->older != NULL)
	{
		BddSharedVersion *older = version->older;

		version->older = older->older;
		deleted = deleted || older->op != BDD_UPSERT;
		free_version(table, older);
	}
	return deleted;
}

/*
 * The versions that may combine: from "version" down to the first that is
 * known not to, and the one below it.  Oldest first.
 */
static void
collect_combinable(BddSharedVersion *version, BddRows *chain)
{
	bool apart = false;

	for (; version != NULL && !apart; version = version->older)
	{
		BddImage image = read_version(version, false);

		apart = chain->count > 0 && chain->rows[chain->count - 1].round > 0;
		bdd_rows_add(chain, version->sequence, &image);
		chain->rows[chain->count - 1].round = version->apart;
	}
	for (uint64 i = 0; i < chain->count / 2; i++)
	{
		BddRow swap = chain->rows[i];

		chain->rows[i] = chain->rows[chain->count - 1 - i];
		chain->rows[chain->count - 1 - i] = swap;
	}
}

/*
 * Folds rows of one key, oldest first, into as few as possible, in place;
 * tells how many were stale.
 */
uint64
bdd_rows_fold(const BddShape *shape, BddRows *rows, bool may_call)
{
	uint64 kept = 0;
	uint64 stale = 0;

	for (uint64 i = 0; i < rows->count; i++)
	{
		rows->rows[kept++] = rows->rows[i];
		while (kept > 1)
		{
			BddRow *older = &rows->rows[kept - 2];
			BddRow *newer = &rows->rows[kept - 1];
			BddImage folded;
			BddFold how = bdd_image_fold(shape, &older->image, &newer->image,
										 may_call, &folded);

			if (how == BDD_APART)
				break;
			if (how == BDD_STALE)
				stale++;
			else
				older->sequence = newer->sequence;
			older->image = folded;
			kept--;
		}
	}
	rows->count = kept;
	return stale;
}

/* Unlinked versions for the rows, newest first, or NULL: no memory. */
static BddSharedVersion *
make_versions(BddSharedTable *table, BddSharedBudget *budget,
			  const BddRows *rows, BddSharedVersion **last)
{
	BddSharedVersion *newest = NULL;

	*last = NULL;
	for (uint64 i = 0; i < rows->count; i++)
	{
		BddSharedVersion *version = make_version(table, budget,
												 &rows->rows[i].image);

		if (version == NULL)
		{
			while (newest != NULL)
			{
				BddSharedVersion *older = newest->older;

				free_version(table, newest);
				newest = older;
			}
			return NULL;
		}
		version->sequence = rows->rows[i].sequence;
		version->apart = i > 0;
		version->older = newest;
		newest = version;
		if (*last == NULL)
			*last = version;
	}
	return newest;
}

/*
 * Replaces the versions that nobody can come between by as few as possible.
 * With keys that are equal in several spellings the order matters across
 * entries, so there it is left to the reader.
 */
static uint64
combine_settled(BddSharedTable *table, BddSharedBudget *budget,
				const BddShape *shape, BddSharedEntry *entry)
{
	BddSharedVersion **link = &entry->newest;
	BddSharedVersion *version;
	BddSharedVersion *newest;
	BddSharedVersion *oldest;
	BddRows chain = {0};
	MemoryContext context;
	MemoryContext old_context;
	uint64 count;
	uint64 floor;
	uint64 stale;

	if (!shape->exact || shape->keeps_all || entry->newest == NULL ||
		entry->newest->older == NULL)
		return 0;
	floor = lowest_floor();
	while (*link != NULL && (*link)->sequence >= floor)
		link = &(*link)->older;
	if (*link == NULL || (*link)->older == NULL || (*link)->apart)
		return 0;

	context = AllocSetContextCreate(CurrentMemoryContext,
									"batchdedup combining",
									ALLOCSET_SMALL_SIZES);
	old_context = MemoryContextSwitchTo(context);
	collect_combinable(*link, &chain);
	count = chain.count;
	stale = bdd_rows_fold(shape, &chain, false);
	if (chain.count == count)
		(*link)->apart = true;
	else if ((newest = make_versions(table, budget, &chain, &oldest)) != NULL)
	{
		/* Those below keep what they know of each other. */
		version = *link;
		*link = newest;
		for (; count > 0; count--)
		{
			BddSharedVersion *older = version->older;

			oldest->apart = version->apart;
			free_version(table, version);
			version = older;
		}
		oldest->older = version;
	}
	else
		stale = 0;
	MemoryContextSwitchTo(old_context);
	MemoryContextDelete(context);
	return stale;
}

/* ---------- publishing ---------- */

/*
 * Finds or makes the key's entry and stores the image beside it.  Returns
 * false, and leaves nothing behind that matters, if there is no memory.
 */
bool
bdd_reserve(BddSharedGeneration *generation, const BddShape *shape,
			uint32 hash, const char *key, uint32 key_size,
			const BddImage *image, BddReservation *reservation)
{
	int partition = partition_of(hash);
	BddSharedTable *table = &generation->tables[partition];
	BddSharedPartition *shared = &generation->partitions[partition];
	BddSharedEntry *entry;
	BddSharedVersion *version = NULL;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	entry = find_entry(table, hash, key, key_size);
	if (entry != NULL)
		shared->stale += combine_settled(table, generation->budget, shape,
										 entry);
	else
		entry = add_entry(table, generation->budget, hash, key, key_size);
	if (entry != NULL)
		version = make_version(table, generation->budget, image);
	LWLockRelease(&shared->lock);

	reservation->entry = entry;
	reservation->version = version;
	return version != NULL;
}

/* Gives back what was reserved for a row that will not be linked. */
void
bdd_unreserve(BddSharedGeneration *generation,
			  const BddReservation *reservation)
{
	int partition = partition_of(reservation->entry->hash);
	LWLock *lock = &generation->partitions[partition].lock;

	LWLockAcquire(lock, LW_EXCLUSIVE);
	free_version(&generation->tables[partition], reservation->version);
	LWLockRelease(lock);
}

/*
 * Links a version at its place in sequence order and drops what is needless
 * then.  "received" counts the calls that made the row, "stale" those of them
 * that were older than the row before.  Cannot fail.
 * Returns true if the key had no version before.
 */
bool
bdd_publish(BddSharedGeneration *generation, const BddShape *shape,
			const BddReservation *reservation, uint64 received,
			uint64 stale)
{
	BddSharedEntry *entry = reservation->entry;
	BddSharedVersion *version = reservation->version;
	int partition = partition_of(entry->hash);
	BddSharedTable *table = &generation->tables[partition];
	BddSharedPartition *shared = &generation->partitions[partition];
	BddSharedVersion **link = &entry->newest;
	BddSharedVersion *cover;
	bool is_new;

	LWLockAcquire(&shared->lock, LW_EXCLUSIVE);
	is_new = entry->newest == NULL;
	while (*link != NULL && (*link)->sequence > version->sequence)
		link = &(*link)->older;
	version->older = *link;
	*link = version;

	/* What is older than this version has been looked at before. */
	for (cover = entry->newest; cover != version; cover = cover->older)
		if (bdd_image_covers(shape, cover->op, cover->full))
			break;
	if (bdd_image_covers(shape, cover->op, cover->full) && cover->older != NULL &&
		drop_older(table, cover) && cover->op == BDD_UPSERT)
		cover->op = BDD_REPLACE;

	shared->received += received;
	shared->stale += stale;
	shared->coalesced += received - (is_new || shape->keeps_all ? 1 : 0);
	LWLockRelease(&shared->lock);
	return is_new;
}

/* ---------- reading ---------- */

/* Adds a row, whose data is not copied; the array stays in the context that it began in. */
void
bdd_rows_add(BddRows *rows, uint64 sequence, const BddImage *image)
{
	if (rows->count == rows->room)
	{
		rows->room = Max(rows->room * 2, 64);
		if (rows->rows == NULL)
			rows->rows = palloc(rows->room * sizeof(BddRow));
		else
			rows->rows = repalloc_huge(rows->rows,
									   rows->room * sizeof(BddRow));
	}
	rows->rows[rows->count].sequence = sequence;
	rows->rows[rows->count].round = 0;
	rows->rows[rows->count].image = *image;
	rows->count++;
}

/* Adds the entry's rows, newest first. */
static void
collect_entry(BddSharedEntry *entry, bool copy, BddRows *rows)
{
	for (BddSharedVersion *version = entry->newest; version != NULL;
		 version = version->older)
	{
		BddImage image = read_version(version, copy);

		bdd_rows_add(rows, version->sequence, &image);
	}
}

/* Adds copies of the key's rows. */
void
bdd_collect_key(BddSharedGeneration *generation, uint32 hash, const char *key,
				uint32 key_size, BddRows *rows)
{
	int partition = partition_of(hash);
	LWLock *lock = &generation->partitions[partition].lock;
	BddSharedEntry *entry;

	LWLockAcquire(lock, LW_SHARED);
	entry = find_entry(&generation->tables[partition], hash, key, key_size);
	if (entry != NULL)
		collect_entry(entry, true, rows);
	LWLockRelease(lock);
}

/* Adds the partition's rows: of a quiet generation in place, else copies. */
void
bdd_collect_partition(BddSharedGeneration *generation, int partition,
					  bool quiet, BddRows *rows)
{
	BddSharedTable *table = &generation->tables[partition];
	LWLock *lock = &generation->partitions[partition].lock;

	if (!quiet)
		LWLockAcquire(lock, LW_SHARED);
	for (uint32 i = 0; i < table->buckets; i++)
		for (BddSharedEntry *entry = table->segments[i / BDD_SEGMENT][i % BDD_SEGMENT];
			 entry != NULL; entry = entry->next)
			collect_entry(entry, !quiet, rows);
	if (!quiet)
		LWLockRelease(lock);
}

/* ---------- at shutdown and start, when nobody else is there ---------- */

static void
count_version(BddSharedEntry *entry, uint64 sequence, const BddImage *image,
			  void *arg)
{
	(*(uint64 *) arg)++;
}

/* The number of all versions in a quiet generation. */
uint64
bdd_count_versions(BddSharedGeneration *generation)
{
	uint64 count = 0;

	bdd_each_version(generation, count_version, &count);
	return count;
}

static void
visit_entry(BddSharedEntry *entry, BddVersionVisitor visit, void *arg)
{
	for (BddSharedVersion *version = entry->newest; version != NULL;
		 version = version->older)
	{
		BddImage image = read_version(version, false);

		visit(entry, version->sequence, &image, arg);
		if (version->split)
			pfree(image.data);
	}
}

/* Visits all versions of a quiet generation. */
void
bdd_each_version(BddSharedGeneration *generation, BddVersionVisitor visit,
				 void *arg)
{
	for (int i = 0; i < BDD_PARTITIONS; i++)
	{
		BddSharedTable *table = &generation->tables[i];

		for (uint32 j = 0; j < table->buckets; j++)
			for (BddSharedEntry *entry = table->segments[j / BDD_SEGMENT][j % BDD_SEGMENT];
				 entry != NULL; entry = entry->next)
				visit_entry(entry, visit, arg);
	}
}

/* Puts a row at its place in sequence order; false: no memory. */
bool
bdd_load_version(BddSharedGeneration *generation, uint32 hash,
				 const char *key, uint32 key_size, uint64 sequence,
				 const BddImage *image)
{
	BddSharedTable *table = &generation->tables[partition_of(hash)];
	BddSharedEntry *entry = find_entry(table, hash, key, key_size);
	BddSharedVersion *version;
	BddSharedVersion **link;

	if (entry == NULL)
		entry = add_entry(table, generation->budget, hash, key, key_size);
	version = entry == NULL ? NULL :
							  make_version(table, generation->budget, image);
	if (version == NULL)
		return false;
	if (entry->newest == NULL)
		pg_atomic_fetch_add_u32(&generation->keys, 1);
	link = &entry->newest;
	while (*link != NULL && (*link)->sequence > sequence)
		link = &(*link)->older;
	version->sequence = sequence;
	version->older = *link;
	*link = version;
	return true;
}
