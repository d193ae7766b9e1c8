/*-------------------------------------------------------------------------
 *
 * sync_relation.c
 *		Rows of a sync as a relation that its statements read.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync_relation.h"

#include "common/hashfn.h"
#include "miscadmin.h"
#include "target/target.h"
#include "utils/tuplestore.h"

/* The result of the last statement. */
BddSyncRows
bdd_slice_take(void)
{
	BddSyncRows rows = {SPI_tuptable->tupdesc, SPI_tuptable->vals, SPI_processed};

	return rows;
}

/*
 * A copy of the rows that statements read by its name.  It is freed by
 * bdd_slice_free_relation.
 */
EphemeralNamedRelation
bdd_slice_relation(const char *name, const BddSyncRows *rows)
{
	EphemeralNamedRelation relation = palloc0(sizeof(EphemeralNamedRelationData));
	Tuplestorestate *store = tuplestore_begin_heap(false, false, work_mem);

	for (uint64 i = 0; i < rows->count; i++)
		tuplestore_puttuple(store, rows->tuples[i]);
	relation->md.name = pstrdup(name);
	relation->md.tupdesc = rows->desc;
	relation->md.enrtype = ENR_NAMED_TUPLESTORE;
	relation->md.enrtuples = rows->count;
	relation->reldata = store;
	return relation;
}

/* Frees the copy of the rows; the rest goes with its memory context. */
void
bdd_slice_free_relation(EphemeralNamedRelation relation)
{
	tuplestore_end(relation->reldata);
}

/*
 * What a statement on the rows depends on: a plan is kept by its text, and takes
 * columns by their number, so names count, too.
 */
uint32
bdd_slice_shape(TupleDesc desc)
{
	uint32 hash = bdd_fingerprint(desc);

	for (int i = 0; i < desc->natts; i++)
		hash =
			hash_combine(hash, string_hash(NameStr(TupleDescAttr(desc, i)->attname), NAMEDATALEN));
	return hash;
}
