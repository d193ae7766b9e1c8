/*-------------------------------------------------------------------------
 *
 * tolerate.h
 *		Finding the rows that a table refuses.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TOLERATE_H
#define BDD_TOLERATE_H

#include "base/base.h"

#include "apply/apply.h"

typedef struct BddRefused
{
	BddRow row;
	ErrorData *error;
} BddRefused;

typedef void (*BddWork)(void *arg);

extern ErrorData *bdd_catch(BddWork work, void *arg);
extern ErrorData *bdd_in_subtransaction(BddWork work, void *arg);
extern ErrorData *bdd_try_write(BddTarget *target, const BddRow *rows,
								uint64 count, BddApplyCounts *counts);
extern ErrorData *bdd_try_write_quickly(BddTarget *target, const BddRow *rows,
										uint64 count, BddApplyCounts *counts);
extern List *bdd_write_tolerantly(BddTarget *target, BddRows *rows,
								  BddApplyCounts *counts);
extern bool bdd_error_is_of_row(int sqlstate);
extern bool bdd_error_is_passing(int sqlstate);

#endif /* BDD_TOLERATE_H */
