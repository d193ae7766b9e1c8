/*-------------------------------------------------------------------------
 *
 * statement.h
 *		Statements on rows that are not in a table yet.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_STATEMENT_H
#define BDD_STATEMENT_H

#include "base/base.h"

#include "utils/queryenvironment.h"

extern void bdd_statement_init(void);
extern bool bdd_starts_own_statement(void);
extern bool bdd_is_writing(Oid relid);
extern uint64 bdd_run_on_relation(Oid relid, const char *sql,
								  EphemeralNamedRelation relation, int nargs,
								  Oid *types, Datum *values, bool read_only);

#endif /* BDD_STATEMENT_H */
