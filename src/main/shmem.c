/*-------------------------------------------------------------------------
 *
 * shmem.c
 *		Our part of the main shared memory.
 *
 * One piece: what there is once (registry, journal, barrier, progress), workers,
 * slots, the locks of their partitions, sequence numbers, and the pool of
 * chunks, which is batchdedup.buffer_size large.  It is laid out by the
 * postmaster and inherited by its children.
 *
 *-------------------------------------------------------------------------
 */
#include "main/shmem.h"

#include "base/compat.h"
#include "base/debug_point.h"
#include "base/guc.h"
#include "batch/barrier_hint.h"
#include "buffer/memtable.h"
#include "buffer/progress.h"
#include "buffer/registry.h"
#include "journal/shutdown_file.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

typedef struct BddSharedMemory
{
	BddSharedRegistry registry;
	BddSharedPool pool;
	BddSharedDebug debug;
	BddSharedJournal journal;
	BddSharedBarrier barrier;
	BddSharedProgress progress;
	BddSharedSequence *sequence;
	BddSharedPartition *partitions;
	char *chunks;
} BddSharedMemory;

static shmem_request_hook_type previous_request_hook = NULL;
static shmem_startup_hook_type previous_startup_hook = NULL;

/* With a floor for each process. */
static Size
sequence_size(void)
{
	return offsetof(BddSharedSequence, floors) +
		   MaxBackends * sizeof(pg_atomic_uint64);
}

/* Targets of users, and of the extension itself. */
static int
slot_limit(void)
{
	return bdd_max_targets + BDD_OWN_SLOTS;
}

static Size
partitions_size(void)
{
	return mul_size(slot_limit(),
					BDD_PARTITIONS * sizeof(BddSharedPartition));
}

static Size
pool_size(void)
{
	return mul_size(bdd_buffer_size_kb, 1024);
}

/* Every part begins at a cache line. */
static Size
total_size(void)
{
	Size parts[] = {
		sizeof(BddSharedMemory),
		mul_size(slot_limit(), sizeof(BddSharedWorker)),
		mul_size(slot_limit(), sizeof(BddSharedSlot)),
		partitions_size(), sequence_size(), pool_size()};
	Size size = PG_CACHE_LINE_SIZE;

	for (int i = 0; i < lengthof(parts); i++)
		size = add_size(size, add_size(parts[i], PG_CACHE_LINE_SIZE));
	return size;
}

/* Hook: how much memory we need. */
static void
request_memory(void)
{
	if (previous_request_hook != NULL)
		previous_request_hook();
	RequestAddinShmemSpace(total_size());
}

/* Takes "size" bytes off the front of the memory. */
static void *
carve(char **memory, Size size)
{
	char *start = (char *) TYPEALIGN(PG_CACHE_LINE_SIZE, *memory);

	*memory = start + size;
	return start;
}

/* Cuts the memory into its parts. */
static void
lay_out(BddSharedMemory *shared, char *end)
{
	char *memory = (char *) (shared + 1);

	shared->registry.workers = carve(&memory,
									 slot_limit() * sizeof(BddSharedWorker));
	shared->registry.slots = carve(&memory,
								   slot_limit() * sizeof(BddSharedSlot));
	shared->partitions = carve(&memory, partitions_size());
	shared->sequence = carve(&memory, sequence_size());
	memset(shared + 1, 0, memory - (char *) (shared + 1));
	shared->chunks = carve(&memory, pool_size());
	Assert(memory <= end);
}

/* What is not set here is zero, as lay_out left it. */
static void
init_slots(BddSharedMemory *shared)
{
	BddSharedRegistry *registry = &shared->registry;
	int target_tranche = bdd_new_tranche("BatchdedupTarget");

	for (int i = 0; i < registry->slot_count; i++)
	{
		BddSharedSlot *slot = &registry->slots[i];

		LWLockInitialize(&slot->lock, target_tranche);
		ConditionVariableInit(&slot->changed);
		pg_atomic_init_u32(&slot->budget.used, 0);
		slot->partitions = shared->partitions + i * BDD_PARTITIONS;
		for (int j = 0; j < BDD_PARTITIONS; j++)
			LWLockInitialize(&slot->partitions[j].lock,
							 registry->partition_tranche);
	}
}

/* A number that no other start of this server, or of another one, has had. */
static int64
new_incarnation(void)
{
	int64 number;

	if (!pg_strong_random(&number, sizeof(number)))
		number = GetCurrentTimestamp();
	return number;
}

/*
 * In the postmaster, before other processes exist: at its start, and after a
 * crash.
 */
static void
init_memory(BddSharedMemory *shared, char *end)
{
	BddSharedRegistry *registry = &shared->registry;
	int tranche = bdd_new_tranche("BatchdedupRegistry");

	memset(shared, 0, sizeof(*shared));
	lay_out(shared, end);
	LWLockInitialize(&registry->lock, tranche);
	LWLockInitialize(&registry->worker_lock, tranche);
	registry->partition_tranche = bdd_new_tranche("BatchdedupPartition");
	registry->slot_count = slot_limit();
	registry->incarnation = new_incarnation();
	init_slots(shared);

	bdd_journal_init(&shared->journal);
	bdd_barrier_init(&shared->barrier);
	bdd_progress_init(&shared->progress);
	pg_atomic_init_u64(&shared->sequence->last, 0);
	shared->sequence->floors_size = MaxBackends;
	for (int i = 0; i < MaxBackends; i++)
		pg_atomic_init_u64(&shared->sequence->floors[i], 0);
	bdd_pool_init(&shared->pool, shared->chunks, pool_size());
}

/* Hook: makes the memory in the postmaster, finds it in its children. */
static void
start_memory(void)
{
	BddSharedMemory *shared;
	bool found;

	if (previous_startup_hook != NULL)
		previous_startup_hook();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	shared = ShmemInitStruct("batchdedup", total_size(), &found);
	if (!found)
		init_memory(shared, (char *) shared + total_size());
	LWLockRelease(AddinShmemInitLock);

	bdd_registry = &shared->registry;
	bdd_pool = &shared->pool;
	bdd_sequence = shared->sequence;
	bdd_shared_debug = &shared->debug;
	bdd_journal = &shared->journal;
	bdd_barrier = &shared->barrier;
	bdd_progress = &shared->progress;
	bdd_shutdown_file_init();
}

/* In _PG_init. */
void
bdd_shmem_init(void)
{
	previous_request_hook = shmem_request_hook;
	shmem_request_hook = request_memory;
	previous_startup_hook = shmem_startup_hook;
	shmem_startup_hook = start_memory;
}
