/*-------------------------------------------------------------------------
 *
 * close.h
 *		Closing a target: nothing of it is left in the buffer.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_CLOSE_H
#define BDD_CLOSE_H

#include "base/base.h"

#include "target/target.h"

extern BddTarget *bdd_close_target(Oid relid);

#endif /* BDD_CLOSE_H */
