/*-------------------------------------------------------------------------
 *
 * catalog.h
 *		What our files ask of the catalog: our relations, functions, rights.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_CATALOG_H
#define BDD_CATALOG_H

#include "base/base.h"

extern Oid bdd_catalog_relation(const char *name);
extern bool bdd_is_function(Oid function, const char *symbol);
extern bool bdd_may_read(Oid relid);

#endif /* BDD_CATALOG_H */
