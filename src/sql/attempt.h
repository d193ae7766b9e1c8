/*-------------------------------------------------------------------------
 *
 * attempt.h
 *		Work that may fail: in a subtransaction, and what its error says.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_ATTEMPT_H
#define BDD_ATTEMPT_H

#include "base/base.h"

typedef void (*BddWork)(void *arg);

extern ErrorData *bdd_catch(BddWork work, void *arg);
extern ErrorData *bdd_in_subtransaction(BddWork work, void *arg);
extern bool bdd_error_is_of_row(int sqlstate);
extern bool bdd_error_is_passing(int sqlstate);

#endif /* BDD_ATTEMPT_H */
