/*-------------------------------------------------------------------------
 *
 * values.h
 *		From SQL values to a row image.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_VALUES_H
#define BDD_VALUES_H

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
extern int bdd_named_column(const BddTarget *target, const char *name,
							const char *hint);
extern void bdd_composite_as_heap(HeapTupleHeader tuple, HeapTuple heap);

extern void bdd_check_has_key(const BddTarget *target);
extern void bdd_check_key_given(const BddTarget *target, const BddValues *row);
extern void bdd_check_key_alone(const BddTarget *target,
								const BddValues *row, bool version);

extern void bdd_values_complete(BddTarget *target, BddValues *row,
								BddColumns *update, BddColumns *insert);
extern uint32 bdd_unique_key(StringInfo bytes);
extern uint32 bdd_values_key(BddTarget *target, const BddValues *row,
							 StringInfo bytes);
extern BddImage bdd_values_image(BddTarget *target, BddValues *row);
extern BddImage bdd_delete_image(BddTarget *target, BddValues *row,
								 bool versioned);
extern BddImage bdd_key_image(BddTarget *target, BddValues *row);

#endif /* BDD_VALUES_H */
