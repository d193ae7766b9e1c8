/*-------------------------------------------------------------------------
 *
 * shutdown_file.h
 *		What is still buffered when the server is shut down.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SHUTDOWN_FILE_H
#define BDD_SHUTDOWN_FILE_H

#include "base/base.h"

extern void bdd_shutdown_file_init(void);
extern void bdd_shutdown_file_remove(void);
extern void bdd_shutdown_file_refuse_upgrade(void);

#endif /* BDD_SHUTDOWN_FILE_H */
