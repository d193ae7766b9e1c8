/*-------------------------------------------------------------------------
 *
 * capture.h
 *		Keys of a source that have changed, kept by a trigger.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_CAPTURE_H
#define BDD_CAPTURE_H

#include "base/base.h"

#include "sync/sync_slice.h"

extern void bdd_capture_create(BddSync *sync);
extern void bdd_capture_drop(const BddSync *sync);

extern BddSyncRows bdd_capture_read(BddSlice *slice, List *after);
extern BddSyncRows bdd_capture_rows(BddSlice *slice, const BddSyncRows *keys, bool gone);
extern void bdd_capture_forget(BddSlice *slice, const BddSyncRows *keys);

#endif /* BDD_CAPTURE_H */
