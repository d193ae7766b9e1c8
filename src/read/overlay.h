/*-------------------------------------------------------------------------
 *
 * overlay.h
 *		What a statement that reads a view of create_view knows of the buffer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_OVERLAY_H
#define BDD_OVERLAY_H

#include "base/base.h"

#include "target/values.h"
#include "target/target.h"

typedef struct BddOverlay BddOverlay;

/*
 * A key's rows in the buffer and in the own transaction, oldest first and as
 * few as there can be.
 */
typedef struct BddOverlaid
{
	uint32 hash;
	uint32 key_size;
	char *key;
	bool decided;  /* "rows" say what the statement sees */
	bool saved;    /* "own" says what was pending */
	bool emitted;  /* used while all keys are visited */
	uint32 lookup; /* the last one that has met it */
	BddRows rows;  /* none: it is neither in the buffer nor pending */
	BddRows own;   /* pending */
} BddOverlaid;

typedef void (*BddOverlaidVisitor)(BddOverlaid *key, void *arg);

extern void bdd_overlay_begin(MemoryContext query, Oid relid);
extern BddOverlay *bdd_overlay_of(MemoryContext query, Oid relid);
extern BddTarget *bdd_overlay_target(const BddOverlay *overlay);
extern bool bdd_overlay_is_open_to(const BddOverlay *overlay, Oid role);
extern void bdd_overlay_complete(BddOverlay *overlay);
extern uint64 bdd_overlay_count(const BddOverlay *overlay);
extern void bdd_overlay_visit(BddOverlay *overlay, BddOverlaidVisitor visit,
							  void *arg);
extern BddOverlaid *bdd_overlay_find(BddOverlay *overlay,
									 const Datum *values);
extern bool bdd_overlay_row(BddOverlay *overlay, const BddOverlaid *key,
							BddValues *row);
extern void bdd_overlay_pack(const BddOverlay *overlay, BddValues *row);
extern Oid bdd_overlay_argument(Node *call);
extern uint64 bdd_overlay_estimate(BddTarget *target);

#endif /* BDD_OVERLAY_H */
