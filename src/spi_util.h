/*-------------------------------------------------------------------------
 *
 * spi_util.h
 *		SQL from C: as whom, and with which plan.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SPI_UTIL_H
#define BDD_SPI_UTIL_H

#include "batchdedup.h"

#include "executor/spi.h"

/* What bdd_become must restore. */
typedef struct BddIdentity
{
	Oid role;
	int security;
	int guc_nesting;
} BddIdentity;

extern void bdd_become_owner_of(Oid owner, BddIdentity *saved);
extern void bdd_become_extension_owner(BddIdentity *saved);
extern void bdd_exact_output(void);
extern void bdd_become_again(const BddIdentity *saved);

extern void bdd_spi_connect(void);
extern void bdd_spi_finish(void);
extern uint64 bdd_spi_run(const char *sql, int nargs, Oid *types,
						  Datum *values, const char *nulls);

#endif /* BDD_SPI_UTIL_H */
