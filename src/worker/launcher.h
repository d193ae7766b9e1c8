/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The process that starts a worker for each database in need of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_LAUNCHER_H
#define BDD_LAUNCHER_H

#include "base/base.h"

extern void bdd_launcher_register(void);
extern bool bdd_server_is_stopping(void);

#endif /* BDD_LAUNCHER_H */
