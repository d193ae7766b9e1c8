/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The process that starts a worker for each database in need of one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_LAUNCHER_H
#define BDD_LAUNCHER_H

#include "batchdedup.h"

extern void bdd_launcher_register(void);

#endif /* BDD_LAUNCHER_H */
