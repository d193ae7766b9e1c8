/*-------------------------------------------------------------------------
 *
 * import_bound.h
 *		The bounds of partitions that writers of an import load.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_IMPORT_BOUND_H
#define BDD_IMPORT_BOUND_H

#include "base/base.h"

extern bool bdd_bounds_overlap(Oid relid, const char *a, const char *b);
extern char *bdd_bound_checked(Oid relid, char *name, const char *bound,
							   char **condition);

#endif /* BDD_IMPORT_BOUND_H */
