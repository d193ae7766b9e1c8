/*-------------------------------------------------------------------------
 *
 * base.h
 *		Vocabulary that every file of the extension shares.
 *
 * Layers (a file includes headers of its own and of lower layers only; which
 * file is in which one: README.md):
 *	0 ground, 1 shared memory, 2 commit and WAL, 3 SQL work, 4 surface
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_BASE_H
#define BDD_BASE_H

#include "postgres.h"

#include "base/compat.h"
#include "fmgr.h"

#define BDD_SCHEMA "batchdedup"
#define BDD_LIBRARY "batchdedup"

/* True in backends of a server that has us in shared_preload_libraries. */
extern bool bdd_preloaded;

extern void bdd_check_preloaded(void);
extern void bdd_check_argument(FunctionCallInfo fcinfo, int n, const char *what);

/* Set once in a background worker of ours; NULL or false elsewhere. */
extern bool bdd_am_worker;

#endif /* BDD_BASE_H */
