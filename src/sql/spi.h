/*-------------------------------------------------------------------------
 *
 * spi.h
 *		SQL from C: as which role, and with which plan.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SPI_H
#define BDD_SPI_H

#include "base/base.h"

#include "executor/spi.h"

/* The role that bdd_restore_role goes back to. */
typedef struct BddSavedRole
{
	Oid role;
	int security;
	int guc_nesting;
} BddSavedRole;

#define BDD_MAX_ARGS 16

/*
 * A statement whose plan is kept: static, with sql, nargs and types set; or
 * with sql alone, for bdd_plan_run_with.
 */
typedef struct BddKeptPlan
{
	const char *sql;
	int nargs;
	Oid types[BDD_MAX_ARGS];
	SPIPlanPtr plan; /* made at the first use */
} BddKeptPlan;

extern void bdd_become_owner_of(Oid owner, BddSavedRole *saved);
extern void bdd_become_extension_owner(BddSavedRole *saved);
extern void bdd_exact_output(void);
extern void bdd_restore_role(const BddSavedRole *saved);

extern void bdd_spi_connect(void);
extern void bdd_spi_finish(void);
extern void bdd_own_begin(BddSavedRole *saved);
extern void bdd_own_end(const BddSavedRole *saved);
extern uint64 bdd_spi_run(const char *sql, int nargs, Oid *types,
						  Datum *values, const char *nulls);
extern void bdd_run_utility(Oid owner, const char *format, ...) pg_attribute_printf(2, 3);
extern uint64 bdd_plan_run(BddKeptPlan *plan, Datum *values, const char *nulls);
extern uint64 bdd_plan_run_own(BddKeptPlan *plan, Datum *values, const char *nulls);
extern uint64 bdd_plan_run_now(BddKeptPlan *plan, Datum *values, const char *nulls);
extern Datum bdd_text_or_null(const char *text, char *null);
extern Datum bdd_spi_value(uint64 row, int column, bool *isnull);

#endif /* BDD_SPI_H */
