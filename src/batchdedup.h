/*-------------------------------------------------------------------------
 *
 * batchdedup.h
 *		Vocabulary that every file of the extension shares.
 *
 * Layers (a file includes headers of its own and of lower layers only):
 *	0 ground:	batchdedup, guc, compat, debug_point
 *	1 memory:	shmem, arena, rowimage, memtable, registry, flush_wait
 *	2 commit:	pending, xact
 *	3 SQL work:	spi_util, identity, target, apply_sql, apply, direct, ddl
 *	4 surface:	launcher, worker, encode, api, read, stats
 *
 *-------------------------------------------------------------------------
 */
#ifndef BATCHDEDUP_H
#define BATCHDEDUP_H

#include "postgres.h"

#include "compat.h"

#define BDD_SCHEMA "batchdedup"
#define BDD_LIBRARY "batchdedup"

/* True in backends of a server that has us in shared_preload_libraries. */
extern bool bdd_preloaded;

extern void bdd_check_preloaded(void);

/* Set once in a background worker of ours; NULL or false elsewhere. */
extern bool bdd_am_worker;

#endif /* BATCHDEDUP_H */
