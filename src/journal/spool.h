/*-------------------------------------------------------------------------
 *
 * spool.h
 *		Rows of a target that were found in the journal, in a file.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SPOOL_H
#define BDD_SPOOL_H

#include "base/base.h"

#include <stdio.h>

#include "journal/message.h"
#include "nodes/pg_list.h"

typedef struct BddSpool
{
	FILE *stream;
	char path[MAXPGPATH];
	char *buffer; /* of the section that was read last */
	Size room;
	List *copies; /* that count: sections with "copied_to" */
	uint64 rows;  /* in the file, also those that do not count */
} BddSpool;

extern void bdd_spool_remove_all(void);
extern void bdd_spool_put(StringInfo buffer,
						  const BddJournalSection *section);
extern void bdd_spool_append(Oid database, int32 target_id,
							 StringInfo buffer);
extern bool bdd_spool_open(BddSpool *spool, Oid database, int32 target_id);
extern bool bdd_spool_is_whole(const BddSpool *spool, uint32 rows);
extern bool bdd_spool_next(BddSpool *spool, BddJournalSection *section);
extern void bdd_spool_copied(StringInfo buffer, uint64 copy, uint64 from,
							 uint64 to);
extern void bdd_spool_close(BddSpool *spool);
extern uint64 bdd_spool_size(Oid database, int32 target_id);
extern void bdd_spool_remove(Oid database, int32 target_id);
extern bool bdd_spool_remove_others(bool (*needed)(Oid database,
												   int32 target_id));

#endif /* BDD_SPOOL_H */
