/*-------------------------------------------------------------------------
 *
 * relay.h
 *		Relations whose triggers hand rows on to a target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_RELAY_H
#define BDD_RELAY_H

#include "base/base.h"

#include "access/htup_details.h"
#include "fmgr.h"
#include "nodes/parsenodes.h"
#include "proxy/conflict.h"
#include "target/target.h"
#include "utils/rel.h"

/* What a trigger of such a relation remembers for its statement. */
typedef struct BddRelay
{
	Oid table; /* of the target; InvalidOid: there is none */
	int natts;
	AttrNumber *columns;  /* of the table, by column of the relation - 1;
						  * 0: none */
	BddTarget *target;    /* NULL: the table is no target */
	bool same_shape;      /* tuples can be taken as they are */
	BddConflict conflict; /* what an INSERT says, for a redirect */
} BddRelay;

extern bool bdd_view_definition(Query *query, Oid *table, int natts,
								AttrNumber *columns);
extern Oid bdd_relay_table(Oid relid);
extern BddRelay *bdd_relay_of(FunctionCallInfo fcinfo, Relation rel);
extern HeapTuple bdd_relay_insert(BddRelay *relay, Relation rel,
								  HeapTuple tuple);
extern void bdd_relay_redirect(BddRelay *relay, Relation rel, HeapTuple tuple);
extern HeapTuple bdd_relay_update(BddRelay *relay, Relation rel, HeapTuple old,
								  HeapTuple new);
extern void bdd_relay_delete(BddRelay *relay, Relation rel, HeapTuple old);

#endif /* BDD_RELAY_H */
