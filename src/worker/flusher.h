/*-------------------------------------------------------------------------
 *
 * flusher.h
 *		What the worker does for its targets.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_FLUSHER_H
#define BDD_FLUSHER_H

#include "base/base.h"

#include <signal.h>

/* Set by the worker; read between and in applies. */
extern volatile bool bdd_flusher_applying;    /* written here: an apply runs */
extern volatile bool bdd_flusher_out_of_time; /* shutdown_timeout is over */

extern void bdd_flusher_init(int worker);
extern long bdd_flusher_work(void);
extern bool bdd_flusher_has_work(void);
extern void bdd_flusher_drain(void);

#endif /* BDD_FLUSHER_H */
