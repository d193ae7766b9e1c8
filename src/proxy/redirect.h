/*-------------------------------------------------------------------------
 *
 * redirect.h
 *		A trigger that takes plain INSERT and COPY to the buffer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_REDIRECT_H
#define BDD_REDIRECT_H

#include "base/base.h"

extern bool bdd_redirect_remove(Oid relid);

#endif /* BDD_REDIRECT_H */
