/*-------------------------------------------------------------------------
 *
 * shmem.h
 *		Our part of the main shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SHMEM_H
#define BDD_SHMEM_H

#include "base/base.h"

extern void bdd_shmem_init(void);

#endif /* BDD_SHMEM_H */
