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
#include "utils/jsonb.h"

/* A letter as it was read. */
typedef struct BddLetter
{
	int64 id;
	const char *operation;
	Datum update_columns; /* text[] */
	Jsonb *document;      /* the row, or its key alone; NULL: nothing left */
	bool waits;           /* for another target */
	bool accepted;        /* by the table, now */
} BddLetter;

/* The first of "rows" that has the letter's key and a sequence from "from" on. */
typedef struct BddLetterSearch
{
	BddTarget *target;
	const BddLetter *letter;
	BddRows *rows;
	uint64 from; /* sequence */
	BddRow *found;
} BddLetterSearch;

extern void bdd_store_dead_letters(BddTarget *target, uint64 generation,
								   List *refused);
extern void bdd_supersede_dead_letters(BddTarget *target, BddRows *rows,
									   List *refused);

extern List *bdd_read_letters(BddTarget *target, bool superseded,
							  const BddRows *of_rows);
extern BddImage bdd_letter_image(BddTarget *target, const BddLetter *letter);
extern void bdd_find_letter_row(void *arg);
extern bool bdd_supersedes(BddTarget *target, const BddRow *row,
						   const BddLetter *letter);
extern void bdd_mark_superseded(int64 id);

#endif /* BDD_DEAD_LETTER_H */
