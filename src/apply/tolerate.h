/*-------------------------------------------------------------------------
 *
 * tolerate.h
 *		Finding the units of work that fail.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TOLERATE_H
#define BDD_TOLERATE_H

#include "base/base.h"

#include "nodes/pg_list.h"

/* A unit that failed, by its number, and why. */
typedef struct BddRefusal
{
	uint64 number;
	ErrorData *error;
} BddRefusal;

/*
 * How units of work are tried, each with "arg".
 *
 * write: does the units from "first" on in a subtransaction; returns the error
 * that undid it, or NULL.  Errors that say nothing about units are raised: see
 * bdd_in_subtransaction.
 *
 * probe: the same for one unit, which the caller undoes.  *tried: whether the
 * unit says anything; one that changes nothing may not, and then the next one
 * is asked.  Only bdd_raise_if_fault and bdd_tolerate need it.
 *
 * accepted: called when a unit is accepted late, behind others, with those
 * that are refused so far; does again what may come out otherwise now and
 * returns what is refused of it (of BddRefusal).  NULL: nothing may.
 */
typedef struct BddTrial BddTrial;

struct BddTrial
{
	ErrorData *(*write)(void *arg, uint64 first, uint64 count);
	ErrorData *(*probe)(void *arg, uint64 number, bool *tried);
	List *(*accepted)(const BddTrial *trial, uint64 number, List *refused);
	void *arg;
};

extern List *bdd_bisect(const BddTrial *trial, uint64 first, uint64 count,
						List *refused);
extern List *bdd_retry_refused(const BddTrial *trial, List *refused);
extern void bdd_raise_if_fault(const BddTrial *trial, uint64 count,
							   ErrorData *error);
extern List *bdd_tolerate(const BddTrial *trial, uint64 count);

extern void bdd_error_values(const ErrorData *error, Datum *values, char *nulls);

#endif /* BDD_TOLERATE_H */
