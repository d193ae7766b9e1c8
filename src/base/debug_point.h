/*-------------------------------------------------------------------------
 *
 * debug_point.h
 *		Named places at which a test can stop, fail or end a process.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DEBUG_POINT_H
#define BDD_DEBUG_POINT_H

#include "base/base.h"

#include "base/guc.h"

/* "name:lock" waits for this key: SELECT pg_advisory_lock(7243) holds it. */
#define BDD_DEBUG_LOCK 7243

/* Number of processes that a test lets through; in shared memory. */
typedef struct BddSharedDebug
{
	volatile uint32 releases; /* any process of the test; only grows */
} BddSharedDebug;

extern BddSharedDebug *bdd_shared_debug;

extern void bdd_debug_point_hit(const char *name);

static inline void
bdd_debug_point(const char *name)
{
	if (unlikely(bdd_debug_point_setting != NULL &&
				 bdd_debug_point_setting[0] != '\0'))
		bdd_debug_point_hit(name);
}

#endif /* BDD_DEBUG_POINT_H */
