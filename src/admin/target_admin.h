/*-------------------------------------------------------------------------
 *
 * target_admin.h
 *		create_target, alter_target, drop_target, pause, resume.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TARGET_ADMIN_H
#define BDD_TARGET_ADMIN_H

#include "base/base.h"

#include "target/target.h"

extern BddTarget *bdd_close_target(Oid relid);

#endif /* BDD_TARGET_ADMIN_H */
