/*-------------------------------------------------------------------------
 *
 * memtable.h
 *		Generations: shared hash tables with one entry per key.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_MEMTABLE_H
#define BDD_MEMTABLE_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "buffer/arena.h"
#include "datatype/timestamp.h"
#include "row/rowimage.h"
#include "storage/lwlock.h"

#define BDD_PARTITIONS 16

/*
 * Locks and hot counters of a target's partition.  They belong to the target,
 * not to a generation: a lock never lives in memory that is freed.
 */
typedef union BddSharedPartition
{
	struct
	{
		LWLock lock;      /* guards the rest and the generations' tables */
		uint64 received;  /* rows published */
		uint64 coalesced; /* of these: met an older row of the key */
		uint64 stale;     /* of these: were older by their version */
	};
	char pad[PG_CACHE_LINE_SIZE];
} BddSharedPartition;

/* One row of a key; never changed once it is linked, but for "op". */
typedef struct BddSharedVersion
{
	struct BddSharedVersion *older;
	uint64 sequence;
	uint32 size; /* bytes of the image */
	uint8 op;    /* BddOp */
	bool full;
	bool split;                       /* the image is in a chain of pieces */
	bool apart;                       /* it does not combine with the older one */
	char data[FLEXIBLE_ARRAY_MEMBER]; /* image, or BddSharedPiece * */
} BddSharedVersion;

typedef struct BddSharedPiece
{
	struct BddSharedPiece *next;
	char data[FLEXIBLE_ARRAY_MEMBER];
} BddSharedPiece;

/* A key. Without a version it is a reservation and nobody sees it. */
typedef struct BddSharedEntry
{
	struct BddSharedEntry *next; /* in the bucket */
	BddSharedVersion *newest;    /* newest first */
	uint32 hash;
	uint32 key_size;
	char key[FLEXIBLE_ARRAY_MEMBER];
} BddSharedEntry;

/*
 * The part of a generation that one partition lock guards.  Buckets come in
 * segments of at most BDD_SEGMENT, so that no block is large.
 */
#define BDD_SEGMENT 256

typedef struct BddSharedTable
{
	BddSharedArena arena;
	uint32 buckets; /* a power of two, or 0: nothing there yet */
	uint32 entries;
	BddSharedEntry ***segments;
} BddSharedTable;

typedef enum BddGenerationState
{
	BDD_ACTIVE, /* publishers enter */
	BDD_SEALED, /* nobody enters; quiet at publishers = 0 */
	BDD_APPLIED /* in the table; kept for old snapshots */
} BddGenerationState;

typedef struct BddSharedGeneration
{
	struct BddSharedGeneration *next;      /* newer; registry.h: slot lock */
	uint64 number;                         /* constant */
	uint32 fingerprint;                    /* of its rows' shape; constant */
	int set_bytes;                         /* of their BddColumns; constant */
	bool logged;                           /* its rows are in the journal; constant */
	bool spooled;                          /* its rows are in a file; constant */
	XLogRecPtr journal_from;               /* no message before; registry lock */
	BddGenerationState state;              /* slot lock */
	TransactionId apply_xid;               /* slot lock; of the last attempt to apply */
	pg_atomic_uint32 publishers;           /* entered and not yet left */
	pg_atomic_uint32 keys;                 /* keys with a version */
	pg_atomic_uint64 first_at;             /* TimestampTz of the first publish, or 0 */
	BddSharedPartition *partitions;        /* the target's; constant */
	BddSharedBudget *budget;               /* the target's; constant */
	BddSharedTable tables[BDD_PARTITIONS]; /* partition lock */
} BddSharedGeneration;

/*
 * Sequence numbers order all rows of the server.  A publisher stores a floor
 * before it reserves and clears it after it has published: its rows will have
 * higher numbers.  Hence nobody will link a row at or below the lowest floor.
 */
typedef struct BddSharedSequence
{
	pg_atomic_uint64 last; /* highest number taken */
	int floors_size;
	pg_atomic_uint64 floors[FLEXIBLE_ARRAY_MEMBER]; /* by process; 0: none.
													 * Written by the process */
} BddSharedSequence;

/* A publisher's place for one row. */
typedef struct BddReservation
{
	BddSharedEntry *entry;
	BddSharedVersion *version;
} BddReservation;

/* Rows read from generations. */
typedef struct BddRow
{
	uint64 sequence;
	uint32 round; /* of those of its key that do not combine: 0, 1, ... */
	BddImage image;
} BddRow;

typedef struct BddRows
{
	BddRow *rows;
	uint64 count;
	uint64 room;
} BddRows;

typedef void (*BddVersionVisitor)(BddSharedEntry *entry, uint64 sequence,
								  const BddImage *image, void *arg);

extern BddSharedSequence *bdd_sequence;

extern void bdd_floor_set(void);
extern void bdd_floor_clear(void);
extern uint64 bdd_sequence_take(uint64 count);
extern void bdd_sequence_raise(uint64 last);

extern BddSharedGeneration *bdd_generation_create(BddSharedPartition *partitions,
												  BddSharedBudget *budget,
												  uint64 number);
extern void bdd_generation_free(BddSharedGeneration *generation);

extern bool bdd_reserve(BddSharedGeneration *generation,
						const BddShape *shape, uint32 hash, const char *key,
						uint32 key_size, const BddImage *image,
						BddReservation *reservation);
extern void bdd_unreserve(BddSharedGeneration *generation,
						  const BddReservation *reservation);
extern bool bdd_publish(BddSharedGeneration *generation,
						const BddShape *shape,
						const BddReservation *reservation, uint64 received,
						uint64 stale);

extern void bdd_rows_add(BddRows *rows, uint64 sequence,
						 const BddImage *image);
extern uint64 bdd_rows_fold(const BddShape *shape, BddRows *rows,
							bool may_call);
extern void bdd_collect_key(BddSharedGeneration *generation, uint32 hash,
							const char *key, uint32 key_size, BddRows *rows);
extern void bdd_collect_partition(BddSharedGeneration *generation,
								  int partition, bool quiet, BddRows *rows);
extern uint64 bdd_count_versions(BddSharedGeneration *generation);
extern void bdd_each_version(BddSharedGeneration *generation,
							 BddVersionVisitor visit, void *arg);
extern bool bdd_load_version(BddSharedGeneration *generation, uint32 hash,
							 const char *key, uint32 key_size,
							 uint64 sequence, const BddImage *image);
extern Size bdd_row_room(uint32 key_size, uint32 image_size);

#endif /* BDD_MEMTABLE_H */
