/*-------------------------------------------------------------------------
 *
 * push.h
 *		From SQL values to pending rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_PUSH_H
#define BDD_PUSH_H

#include "base/base.h"

#include "access/htup_details.h"
#include "target/target.h"
#include "utils/jsonb.h"

/* Values by column number - 1, and which of them are given. */
typedef struct BddValues
{
	Datum *values;
	bool *isnull;
	BddColumns *given;
	BddColumns *first;    /* have a value for a row that is inserted */
	bool take_identities; /* of identity columns, too */
	bool no_defaults;     /* the row is known to exist */
} BddValues;

extern void bdd_values_init(const BddTarget *target, BddValues *row);
extern void bdd_values_deform(const BddTarget *target, HeapTupleHeader tuple,
							  BddValues *row);
extern void bdd_values_from_jsonb(BddTarget *target, Jsonb *object,
								  BddValues *row);
extern void bdd_values_from_row(BddTarget *target, HeapTupleHeader tuple,
								BddValues *row);

extern void bdd_values_give(const BddTarget *target, BddValues *row,
							int column);

extern void bdd_push_row(BddTarget *target, HeapTupleHeader tuple);
extern void bdd_push_tuple(BddTarget *target, HeapTuple tuple);
extern void bdd_push_values(BddTarget *target, BddValues *row);
extern BddImage bdd_values_image(BddTarget *target, BddValues *row);
extern void bdd_check_may_upsert_all(BddTarget *target);
extern void bdd_push_delete(BddTarget *target, BddValues *row);
extern uint32 bdd_values_key(BddTarget *target, const BddValues *row,
							 StringInfo bytes);
extern BddImage bdd_key_image(BddTarget *target, BddValues *row);
extern void bdd_check_key_given(const BddTarget *target, const BddValues *row);
extern void bdd_check_key_alone(const BddTarget *target,
								const BddValues *row, bool version);
extern void bdd_check_row_security(const BddTarget *target);

#endif /* BDD_PUSH_H */
