/*-------------------------------------------------------------------------
 *
 * conflict.h
 *		What an INSERT wants to happen to rows that exist.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_CONFLICT_H
#define BDD_CONFLICT_H

#include "base/base.h"

#include "nodes/plannodes.h"
#include "row/rowimage.h"
#include "target/target.h"

typedef enum BddConflictKind
{
	BDD_CONFLICT_NONE,    /* no ON CONFLICT, or COPY */
	BDD_CONFLICT_NOTHING, /* DO NOTHING */
	BDD_CONFLICT_UPDATE,  /* DO UPDATE SET column = EXCLUDED.column, or what
						   * the column's rule says */
	BDD_CONFLICT_OTHER    /* what an upsert of ours cannot say */
} BddConflictKind;

typedef struct BddConflict
{
	BddConflictKind kind;
	BddColumns *update; /* of the target; with BDD_CONFLICT_UPDATE */
} BddConflict;

extern void bdd_conflict_init(void);
extern PlannedStmt *bdd_running_statement(void);
extern PlannedStmt *bdd_set_running_statement(PlannedStmt *planned);
extern BddConflict bdd_conflict_of(PlannedStmt *planned, Oid relid,
								   const BddTarget *target);

#endif /* BDD_CONFLICT_H */
