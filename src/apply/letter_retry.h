/*-------------------------------------------------------------------------
 *
 * letter_retry.h
 *		Trying dead letters again, and discarding them.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_LETTER_RETRY_H
#define BDD_LETTER_RETRY_H

#include "base/base.h"

#include "target/target.h"

extern void bdd_count_waiting_letters(Oid relid);
extern void bdd_retry_waiting_letters(BddTarget *applied);

#endif /* BDD_LETTER_RETRY_H */
