/*-------------------------------------------------------------------------
 *
 * registry.h
 *		The targets and workers of the server, in shared memory.
 *
 * slot.c finds, makes and gives up the slots of targets; generation.c has the
 * steps of their generations; wake.c wakes workers.  Which process writes a
 * field under which lock stands beside it, and in one table in src/README.md.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_REGISTRY_H
#define BDD_REGISTRY_H

#include "base/base.h"

#include "buffer/memtable.h"
#include "storage/condition_variable.h"
#include "storage/latch.h"
#include "storage/lock.h"

#define BDD_MESSAGE_SIZE 256

/* What the last failed apply of a target said; slot lock. */
typedef struct BddSharedFailure
{
	uint64 count; /* failures in a row; 0: none */
	int sqlstate;
	bool passing; /* a lock, a deadlock, memory: no reason to
								 * give up waiting */
	TimestampTz at;
	TimestampTz retry_at;
	char message[BDD_MESSAGE_SIZE];
} BddSharedFailure;

/* Counters of what applies did; slot lock, written by the process that applied. */
typedef struct BddSharedCounts
{
	uint64 inserted;
	uint64 updated;
	uint64 unchanged;
	uint64 stale; /* of those applied; see also BddSharedPartition */
	uint64 deleted;
	uint64 dead_lettered;
	uint64 foreign_writes; /* noticed by the guard */
	uint64 flushes;
	uint64 failed_flushes;
	uint64 applied_rows; /* rows of the buffer that were applied */
	TimestampTz last_flush_at;
	int64 last_flush_us; /* duration */
} BddSharedCounts;

/*
 * A target.  Identity is written under the registry lock (exclusive) and
 * read under it (shared), or with a lock on the table.  "active" is
 * written under the registry and the slot lock (both exclusive).
 */
typedef struct BddSharedSlot
{
	bool in_use;
	Oid database;
	Oid relid;
	int32 target_id;
	int worker; /* index into workers; constant while in use */

	LWLock lock;                 /* guards what follows */
	BddSharedGeneration *oldest; /* list to newest, "active" included */
	BddSharedGeneration *active; /* last of the list, or NULL */
	uint64 next_generation;
	uint64 applied;              /* generations up to this one are applied */
	TimestampTz found_paused_at; /* the worker would apply, and may not */
	uint64 wanted;               /* flush() asks for generations up to here */
	bool loaded;                 /* from the file of a shutdown; see bdd_slot_reconcile */
	bool has_letters;            /* there may be dead letters; never false again */
	bool spooled;                /* there is a file of rows; see spool.c */
	BddSharedFailure failure;
	BddSharedCounts counts;

	ConditionVariable changed; /* "applied", "failure" or memory changed */
	BddSharedBudget budget;
	BddSharedPartition *partitions; /* BDD_PARTITIONS; constant */
} BddSharedSlot;

/* A database with targets, and its worker; worker lock. */
typedef enum BddWorkerState
{
	BDD_WORKER_NONE,
	BDD_WORKER_STARTING, /* registered by the launcher */
	BDD_WORKER_RUNNING
} BddWorkerState;

typedef struct BddSharedWorker
{
	Oid database; /* InvalidOid: free; registry lock */
	BddWorkerState state;
	int pid;
	Latch *latch; /* of the worker, or NULL; read without lock:
								 * a stale one is only a needless wake-up */
	TimestampTz started_at;
	TimestampTz away_until;       /* somebody wants the database for himself */
	VirtualTransactionId applier; /* transaction that applies, or invalid */
	Oid target;                   /* table it applies now, or InvalidOid */
	uint64 generation;
	TimestampTz publishers_since; /* it waits for publishers of "target" */
} BddSharedWorker;

typedef struct BddSharedRegistry
{
	LWLock lock; /* entering: shared; sealing, slots: exclusive */
	LWLock worker_lock;
	int partition_tranche;
	int slot_count;              /* constant */
	int64 incarnation;           /* constant: of this shared memory alone */
	Latch *launcher;             /* or NULL; read without lock */
	TimestampTz start_failed_at; /* no worker could be started; worker lock */
	BddSharedWorker *workers;    /* slot_count */
	BddSharedSlot *slots;        /* slot_count */
} BddSharedRegistry;

/*
 * Slots beside batchdedup.max_targets, the last ones: for targets of the
 * extension itself, one in each database that has any.
 */
#define BDD_OWN_SLOTS 64

extern BddSharedRegistry *bdd_registry;

extern int bdd_worker_index(Oid database);
extern void bdd_release_worker_index(int worker);

#endif /* BDD_REGISTRY_H */
