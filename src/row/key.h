/*-------------------------------------------------------------------------
 *
 * key.h
 *		Keys: the index that a target's key matches, and keys as bytes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_KEY_H
#define BDD_KEY_H

#include "base/base.h"

#include "lib/stringinfo.h"
#include "nodes/pg_list.h"
#include "utils/rel.h"

/* How a key column becomes bytes. */
typedef enum BddKeyForm
{
	BDD_KEY_FIXED,   /* the bytes of a fixed-length value */
	BDD_KEY_VARLENA, /* detoasted, without header */
	BDD_KEY_NUMERIC, /* scale trimmed */
	BDD_KEY_FLOAT4,  /* one zero, one NaN */
	BDD_KEY_FLOAT8,
	BDD_KEY_BPCHAR,  /* blanks stripped */
	BDD_KEY_INTERVAL /* its length: 1 month is 30 days */
} BddKeyForm;

typedef struct BddKeyColumn
{
	AttrNumber attnum;
	BddKeyForm form;
	int16 length;
	bool by_value;
	Oid type;    /* of the column */
	Oid opclass; /* of the index column, with what follows */
	Oid opfamily;
	Oid input_type;
	Oid collation;
} BddKeyColumn;

typedef struct BddKey
{
	int count;
	bool exact;        /* equal keys have equal bytes */
	bool one_spelling; /* equal bytes mean equal values */
	BddKeyColumn columns[INDEX_MAX_KEYS];
} BddKey;

extern Oid bdd_key_index(Relation rel, const AttrNumber *attnums, int count);
extern void bdd_key_describe(Relation rel, Oid index,
							 const AttrNumber *attnums, int count,
							 BddKey *key);
extern uint32 bdd_key_encode(const BddKey *key, const Datum *values,
							 StringInfo bytes);

#endif /* BDD_KEY_H */
