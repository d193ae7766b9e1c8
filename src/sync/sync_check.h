/*-------------------------------------------------------------------------
 *
 * sync_check.h
 *		Whether source, target and arguments are fit for a sync.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_CHECK_H
#define BDD_SYNC_CHECK_H

#include "base/base.h"

#include "sync/sync.h"
#include "utils/rel.h"

extern char *bdd_sync_plain_column(const char *expression);
extern List *bdd_sync_nullable(const BddSync *sync);
extern List *bdd_sync_source_key(const BddSync *sync);

extern void bdd_sync_check_still(BddSync *sync);
extern void bdd_sync_check_sequence(const BddSync *sync);
extern void bdd_sync_check_relations(const BddSync *sync);
extern void bdd_sync_check_expression(const char *what, const char *expression);
extern void bdd_sync_check_mapping(const BddSync *sync);
extern void bdd_sync_check_followers(const BddSync *sync);
extern void bdd_sync_choose_kind(BddSync *sync, const char *wanted, bool lag);

#endif /* BDD_SYNC_CHECK_H */
