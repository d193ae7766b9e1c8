/*-------------------------------------------------------------------------
 *
 * ddl.h
 *		What happens to targets when somebody changes or drops tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DDL_H
#define BDD_DDL_H

#include "base/base.h"

extern void bdd_ddl_init(void);

#endif /* BDD_DDL_H */
