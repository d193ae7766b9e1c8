/*-------------------------------------------------------------------------
 *
 * target.h
 *		The targets that a backend knows, and their slots in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TARGET_H
#define BDD_TARGET_H

#include "base/base.h"

#include "target/describe.h"

extern BddTarget *bdd_target_lookup(Oid relid);
extern bool bdd_is_known_not_target(Oid relid);
extern BddTarget *bdd_target_open_any(Oid relid, LOCKMODE lockmode);
extern BddTarget *bdd_target_open(Oid relid, LOCKMODE lockmode);
extern void bdd_free_orphans(void);
extern BddSharedSlot *bdd_target_find_slot(BddTarget *target);
extern BddSharedSlot *bdd_target_slot(BddTarget *target);
extern void bdd_check_journal(BddTarget *target);
extern BddTarget *bdd_target_of_row_type(Oid row_type);
extern int bdd_target_flush_rows(const BddTarget *target);

extern bool bdd_is_switched_off(const BddTarget *target);
extern bool bdd_redirects(const BddTarget *target);

#endif /* BDD_TARGET_H */
