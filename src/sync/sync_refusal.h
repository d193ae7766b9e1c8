/*-------------------------------------------------------------------------
 *
 * sync_refusal.h
 *		Dead letters of a sync: what is known of a row that its target refuses.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_REFUSAL_H
#define BDD_SYNC_REFUSAL_H

#include "base/base.h"

#include "apply/tolerate.h"
#include "sync/sync.h"

extern void bdd_sync_store_letter(const BddSync *sync, int64 run_id, const BddSyncRows *rows,
								  const BddRefusal *refusal, bool removals);
extern bool bdd_sync_has_letters(const BddSync *sync);

#endif /* BDD_SYNC_REFUSAL_H */
