/*-------------------------------------------------------------------------
 *
 * arena.h
 *		Memory of the buffer: a pool of equal chunks, and arenas on top.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_ARENA_H
#define BDD_ARENA_H

#include "base/base.h"

#include "port/atomics.h"
#include "storage/spin.h"

/*
 * Every chunk has the same size, so the pool never fragments, a chunk can be
 * taken and given back in a few instructions without an error path (also in
 * COMMIT), and shared pointers are plain pointers: the pool is part of the
 * main shared memory, which every process maps at the same address.
 */
#define BDD_CHUNK_SIZE 16384

typedef struct BddSharedChunk
{
	struct BddSharedChunk *next; /* in an arena's or the pool's list */
	uint64 unused;               /* keeps what follows 16-byte aligned */
} BddSharedChunk;

#define BDD_CHUNK_ROOM (BDD_CHUNK_SIZE - sizeof(BddSharedChunk))

typedef struct BddSharedPool
{
	slock_t mutex;        /* guards free and fresh */
	BddSharedChunk *free; /* chunks given back */
	char *fresh;          /* chunks never used begin here */
	char *end;
	uint32 total;          /* chunks; constant */
	uint32 reserve;        /* kept for workers; constant */
	pg_atomic_uint32 used; /* chunks taken; written under mutex */
} BddSharedPool;

/* Chunks that one target holds; changed by each process that takes or gives them. */
typedef struct BddSharedBudget
{
	pg_atomic_uint32 used;
} BddSharedBudget;

/*
 * Blocks come in size classes: multiples of 8 up to 256 bytes, then eight
 * classes per doubling.  The largest fits four times in a chunk.
 */
#define BDD_SIZE_CLASSES 64
#define BDD_MAX_BLOCK 4080

typedef struct BddSharedBlock
{
	struct BddSharedBlock *next;
} BddSharedBlock;

/* All fields: under the lock of the partition that owns the arena. */
typedef struct BddSharedArena
{
	BddSharedChunk *chunks;
	char *bump;
	char *bump_end;
	BddSharedBlock *free[BDD_SIZE_CLASSES];
} BddSharedArena;

extern BddSharedPool *bdd_pool;

extern void bdd_pool_init(BddSharedPool *pool, char *memory, Size size);
extern BddSharedChunk *bdd_pool_take(BddSharedBudget *budget);
extern void bdd_pool_give(BddSharedBudget *budget, BddSharedChunk *chunk);
extern uint32 bdd_budget_limit(void);

extern void *bdd_arena_alloc(BddSharedArena *arena, BddSharedBudget *budget,
							 Size size);
extern void bdd_arena_free(BddSharedArena *arena, void *block, Size size);
extern void bdd_arena_release(BddSharedArena *arena, BddSharedBudget *budget);
extern Size bdd_block_size(Size size);

#endif /* BDD_ARENA_H */
