/*-------------------------------------------------------------------------
 *
 * database.h
 *		Statements that need a database without connections.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DATABASE_H
#define BDD_DATABASE_H

#include "base/base.h"

#include "datatype/timestamp.h"
#include "nodes/parsenodes.h"

/* A database whose worker was sent away for a statement. */
typedef struct BddVacated
{
	Oid database; /* InvalidOid: none */
	TimestampTz until;
} BddVacated;

extern void bdd_call_worker_back(const BddVacated *vacated);
extern void bdd_before_database_statement(Node *statement, BddVacated *vacated);

#endif /* BDD_DATABASE_H */
