/*-------------------------------------------------------------------------
 *
 * base.h
 *		Vocabulary that every file of the extension shares.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_BASE_H
#define BDD_BASE_H

#include "postgres.h"

#include "fmgr.h"

#define BDD_SCHEMA "batchdedup"
#define BDD_LIBRARY "batchdedup"

/* True in backends of a server that has us in shared_preload_libraries. */
extern bool bdd_preloaded;

extern void bdd_check_argument(FunctionCallInfo fcinfo, int n, const char *what);

/* Set once in a background worker of ours; NULL or false elsewhere. */
extern bool bdd_am_worker;

#endif /* BDD_BASE_H */
