/*-------------------------------------------------------------------------
 *
 * dead_letter.h
 *		Rows that their table refused, kept with the error.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DEAD_LETTER_H
#define BDD_DEAD_LETTER_H

#include "base/base.h"

#include "buffer/memtable.h"
#include "target/target.h"

extern void bdd_store_dead_letters(BddTarget *target, uint64 generation,
								   List *refused);
extern void bdd_supersede_dead_letters(BddTarget *target, BddRows *rows,
									   List *refused);

extern void bdd_count_waiting_letters(Oid relid);
extern void bdd_retry_waiting_letters(BddTarget *applied);

#endif /* BDD_DEAD_LETTER_H */
