/*-------------------------------------------------------------------------
 *
 * privilege.h
 *		What a caller may do with a target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_PRIVILEGE_H
#define BDD_PRIVILEGE_H

#include "base/base.h"

#include "target/describe.h"

extern bool bdd_row_security_binds(const BddTarget *target);
extern void bdd_check_row_security(const BddTarget *target);
extern void bdd_check_may_upsert(BddTarget *target, const BddColumns *update,
								 const BddColumns *given);
extern void bdd_check_may_upsert_all(BddTarget *target);
extern void bdd_check_may_delete(BddTarget *target);

#endif /* BDD_PRIVILEGE_H */
