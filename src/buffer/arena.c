/*-------------------------------------------------------------------------
 *
 * arena.c
 *		Memory of the buffer: a pool of equal chunks, and arenas on top.
 *
 * Nothing here raises an error or allocates private memory, so all of it may
 * be called in COMMIT and under locks.  An allocation that finds no room
 * returns NULL.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/arena.h"

#include "base/guc.h"
#include "port/pg_bitutils.h"

BddSharedPool *bdd_pool = NULL;

/* In the postmaster, before other processes exist. */
void
bdd_pool_init(BddSharedPool *pool, char *memory, Size size)
{
	char *start = (char *) TYPEALIGN(PG_CACHE_LINE_SIZE, memory);

	SpinLockInit(&pool->mutex);
	pool->free = NULL;
	pool->fresh = start;
	pool->total = (memory + size - start) / BDD_CHUNK_SIZE;
	pool->end = start + (Size) pool->total * BDD_CHUNK_SIZE;
	pool->reserve = Max(pool->total / 32, 18);
	pg_atomic_init_u32(&pool->used, 0);
}

/* Chunks that one target may hold. */
uint32
bdd_budget_limit(void)
{
	return (uint32) ((bdd_pool->total - bdd_pool->reserve) *
					 bdd_max_target_share);
}

/*
 * Takes a chunk, or returns NULL.  Only a worker gets at the reserve: its
 * triggers may upsert, and it cannot wait for itself.
 */
BddSharedChunk *
bdd_pool_take(BddSharedBudget *budget)
{
	uint32 keep = bdd_am_worker ? 0 : bdd_pool->reserve;
	BddSharedChunk *chunk = NULL;

	if (!bdd_am_worker &&
		pg_atomic_read_u32(&budget->used) >= bdd_budget_limit())
		return NULL;

	SpinLockAcquire(&bdd_pool->mutex);
	if (pg_atomic_read_u32(&bdd_pool->used) + keep < bdd_pool->total)
	{
		if (bdd_pool->free != NULL)
		{
			chunk = bdd_pool->free;
			bdd_pool->free = chunk->next;
		}
		else if (bdd_pool->fresh < bdd_pool->end)
		{
			chunk = (BddSharedChunk *) bdd_pool->fresh;
			bdd_pool->fresh += BDD_CHUNK_SIZE;
		}
		if (chunk != NULL)
			pg_atomic_write_u32(&bdd_pool->used,
								pg_atomic_read_u32(&bdd_pool->used) + 1);
	}
	SpinLockRelease(&bdd_pool->mutex);

	if (chunk != NULL)
	{
		chunk->next = NULL;
		pg_atomic_fetch_add_u32(&budget->used, 1);
	}
	return chunk;
}

/* Gives a chunk back to the pool.  Cannot fail: COMMIT does it. */
void
bdd_pool_give(BddSharedBudget *budget, BddSharedChunk *chunk)
{
	SpinLockAcquire(&bdd_pool->mutex);
	chunk->next = bdd_pool->free;
	bdd_pool->free = chunk;
	pg_atomic_write_u32(&bdd_pool->used,
						pg_atomic_read_u32(&bdd_pool->used) - 1);
	SpinLockRelease(&bdd_pool->mutex);
	pg_atomic_fetch_sub_u32(&budget->used, 1);
}

/* The class whose blocks hold "size" bytes, and that size. */
static inline int
size_class(Size size, Size *rounded)
{
	int top;
	int step;

	if (size <= 256)
	{
		int cls = size == 0 ? 0 : (int) ((size - 1) / 8);

		*rounded = (Size) (cls + 1) * 8;
		return cls;
	}
	top = pg_leftmost_one_pos32((uint32) size - 1); /* 2^top < size */
	step = (int) (((size - 1) >> (top - 3)) & 7);
	*rounded = Min(((Size) 8 + step + 1) << (top - 3), BDD_MAX_BLOCK);
	return 32 + (top - 8) * 8 + step;
}

/* The largest class whose blocks fit into "size" bytes; -1: none. */
static int
class_within(Size size, Size *rounded)
{
	int cls;

	if (size < 8)
		return -1;
	cls = size_class(Min(size, BDD_MAX_BLOCK), rounded);
	if (*rounded > size)
	{
		cls--;
		*rounded = cls < 32 ? (Size) (cls + 1) * 8 :
							  (Size) (9 + cls % 8) << (cls / 8 + 1);
	}
	return cls;
}

/* Bytes that a block for "size" bytes takes. */
Size
bdd_block_size(Size size)
{
	Size rounded;

	size_class(size, &rounded);
	return rounded;
}

/* What is left of the arena's last chunk goes to the free lists. */
static void
keep_remainder(BddSharedArena *arena)
{
	Size rounded;
	int cls;

	while ((cls = class_within(arena->bump_end - arena->bump,
							   &rounded)) >= 0)
	{
		BddSharedBlock *block = (BddSharedBlock *) arena->bump;

		block->next = arena->free[cls];
		arena->free[cls] = block;
		arena->bump += rounded;
	}
}

/* A block of at least "size" (<= BDD_MAX_BLOCK) bytes, or NULL. */
void *
bdd_arena_alloc(BddSharedArena *arena, BddSharedBudget *budget, Size size)
{
	Size rounded;
	int cls = size_class(size, &rounded);
	void *block = arena->free[cls];

	Assert(size <= BDD_MAX_BLOCK);
	if (block != NULL)
	{
		arena->free[cls] = arena->free[cls]->next;
		return block;
	}
	if ((Size) (arena->bump_end - arena->bump) < rounded)
	{
		BddSharedChunk *chunk = bdd_pool_take(budget);

		if (chunk == NULL)
			return NULL;
		keep_remainder(arena);
		chunk->next = arena->chunks;
		arena->chunks = chunk;
		arena->bump = (char *) chunk + sizeof(BddSharedChunk);
		arena->bump_end = (char *) chunk + BDD_CHUNK_SIZE;
	}
	block = arena->bump;
	arena->bump += rounded;
	return block;
}

/* The block, which was allocated with "size", may be used again. */
void
bdd_arena_free(BddSharedArena *arena, void *block, Size size)
{
	Size rounded;
	int cls = size_class(size, &rounded);
	BddSharedBlock *freed = (BddSharedBlock *) block;

	freed->next = arena->free[cls];
	arena->free[cls] = freed;
}

/* Gives all chunks back; the arena is empty then. */
void
bdd_arena_release(BddSharedArena *arena, BddSharedBudget *budget)
{
	while (arena->chunks != NULL)
	{
		BddSharedChunk *chunk = arena->chunks;

		arena->chunks = chunk->next;
		bdd_pool_give(budget, chunk);
	}
	memset(arena, 0, sizeof(*arena));
}
