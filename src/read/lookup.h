/*-------------------------------------------------------------------------
 *
 * lookup.h
 *		Looking keys up in the buffer, in plans.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_LOOKUP_H
#define BDD_LOOKUP_H

#include "base/base.h"

extern void bdd_lookup_init(void);

#endif /* BDD_LOOKUP_H */
