/*-------------------------------------------------------------------------
 *
 * sync_holder.h
 *		What holds back a sync, in words.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_HOLDER_H
#define BDD_SYNC_HOLDER_H

#include "base/base.h"

#include "sync/sync_bound.h"

extern char *bdd_moment_holders(const BddMoment *moment);

#endif /* BDD_SYNC_HOLDER_H */
