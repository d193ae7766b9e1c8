/*-------------------------------------------------------------------------
 *
 * pending.h
 *		Rows of the open transaction, private to the backend.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_PENDING_H
#define BDD_PENDING_H

#include "base/base.h"

#include "buffer/registry.h"
#include "lib/ilist.h"
#include "row/rowimage.h"

/* A subtransaction level at which rows were pushed. */
typedef struct BddLevel
{
	struct BddLevel *below;
	int nesting;
	dlist_head rows; /* rows whose newest version is of the level */
} BddLevel;

/*
 * What the transaction says of a key, up to and including a level; the
 * version below is what it said before that level began.
 */
typedef struct BddPendingVersion
{
	struct BddPendingVersion *below;
	BddLevel *level;
	BddImage image;
	uint64 ordinal; /* position in the transaction */
	uint64 calls;   /* rows received */
	uint64 stale;   /* of these: were older by their version */
} BddPendingVersion;

typedef struct BddPendingRow
{
	dlist_node set_link;   /* in BddPendingSet.rows, oldest first */
	dlist_node level_link; /* in the newest version's level */
	struct BddPendingSet *set;
	struct BddPendingRow *hides; /* row of the key that does not combine */
	BddPendingVersion *newest;
	uint32 hash;
	uint32 key_size;
	char *key;
	bool hashed;                /* false: kept beside others of its key */
	BddReservation reservation; /* from PRE_COMMIT on */
} BddPendingRow;

struct bdd_row_hash;

/*
 * Rows of a target.  A set that was written to the table or discarded is kept
 * aside, in case the level that did so is rolled back.
 */
typedef struct BddPendingSet
{
	struct BddPendingSet *below; /* set aside earlier */
	BddLevel *aside_since;       /* NULL: the current set */
	dlist_head rows;
	struct bdd_row_hash *hash;
	uint64 count;
	Size room; /* bytes that the rows take in the buffer */
} BddPendingSet;

/* The transaction's rows of a target. */
typedef struct BddPending
{
	struct BddPending *next;
	Oid relid;
	int32 target_id;
	BddSharedSlot *slot;
	const BddShape *shape; /* lives at least as long as the transaction */
	uint32 flush_rows;
	bool logged;                     /* its rows go to the journal */
	Oid role;                        /* that has pushed rows ... */
	bool several_roles;              /* ... and not it alone */
	BddPendingSet *set;              /* current one */
	BddPendingSet *aside;            /* newest first */
	BddLevel *direct;                /* since this level rows go to the table */
	BddSharedGeneration *generation; /* entered; from PRE_COMMIT on */
	uint64 published;                /* number of that generation; from COMMIT on */
} BddPending;

/*
 * For statements that are to see what was pending when they began: called
 * before the row of a key changes, or without a key before all rows are set
 * aside.  NULL while there are none.
 */
typedef void (*BddPendingWatcher)(BddPending *pending, uint32 hash,
								  const char *key, uint32 key_size);

extern BddPendingWatcher bdd_pending_watcher;
extern BddPending *bdd_pending_targets;
extern MemoryContext bdd_pending_context;
extern uint64 bdd_pending_ordinal;

extern void bdd_pending_init(void);
extern BddPending *bdd_pending_find(Oid relid);
extern BddPending *bdd_pending_get(Oid relid, int32 target_id,
								   BddSharedSlot *slot,
								   const BddShape *shape);
extern void bdd_pending_add(BddPending *pending, uint32 hash, const char *key,
							uint32 key_size, BddImage image);
extern BddPendingRow *bdd_pending_lookup(BddPending *pending, uint32 hash,
										 const char *key, uint32 key_size);
extern Size bdd_pending_room(void);
extern bool bdd_pending_has_rows(void);
extern void bdd_pending_set_aside(BddPending *pending);
extern void bdd_pending_go_direct(BddPending *pending);
extern void bdd_pending_subcommit(int nesting);
extern void bdd_pending_subabort(int nesting);
extern void bdd_pending_reset(void);

#endif /* BDD_PENDING_H */
