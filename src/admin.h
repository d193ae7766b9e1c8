/*-------------------------------------------------------------------------
 *
 * admin.h
 *		create_target, alter_target, drop_target, pause, resume.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_ADMIN_H
#define BDD_ADMIN_H

#include "batchdedup.h"

#include "target.h"

extern BddTarget *bdd_close_target(Oid relid);

#endif /* BDD_ADMIN_H */
