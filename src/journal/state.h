/*-------------------------------------------------------------------------
 *
 * state.h
 *		What is known of the journal, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_STATE_H
#define BDD_STATE_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "buffer/memtable.h"
#include "port/atomics.h"
#include "storage/condition_variable.h"

#define BDD_PROBLEM_SIZE 128

/*
 * Written by the launcher under the worker lock, but for the atomics: those
 * are written by everybody, unless it says otherwise.
 */
typedef struct BddSharedJournal
{
	pg_atomic_uint32 replayed; /* what the server found at start is known;
								* launcher */
	pg_atomic_uint32 kept;     /* a slot keeps the WAL; launcher */
	pg_atomic_uint32 ticking;  /* the launcher announces what is skipped */
	pg_atomic_uint64 written;  /* end of the newest message with rows */
	pg_atomic_uint64 announced;
	pg_atomic_uint64 skipped;
	pg_atomic_uint64 needed; /* needed from here on; launcher */
	ConditionVariable changed;

	bool in_memory;                 /* what the journal has already is, at start; postmaster */
	char problem[BDD_PROBLEM_SIZE]; /* why there is no slot; empty: none */
	XLogRecPtr slot_at;             /* restart_lsn of the slot */
	XLogRecPtr gap_from;            /* WAL that was needed and not there ... */
	XLogRecPtr gap_to;              /* ... up to here; 0: none */
	XLogRecPtr read_from;           /* by the replay at start */
	XLogRecPtr read_to;
	uint64 replay_rows;
	uint64 replay_us;
} BddSharedJournal;

extern BddSharedJournal *bdd_journal;

extern void bdd_journal_init(BddSharedJournal *journal);
extern void bdd_raise_to(pg_atomic_uint64 *lsn, XLogRecPtr value);
extern bool bdd_journal_is_replayed(void);
extern bool bdd_journal_is_kept(void);
extern bool bdd_journal_has(const BddSharedGeneration *generation);
extern void bdd_journal_check_kept(void);
extern void bdd_journal_wait_replayed(void);
extern bool bdd_journal_read_gap(XLogRecPtr *from, XLogRecPtr *to);
extern void bdd_journal_add_gap(XLogRecPtr from, XLogRecPtr to);

#endif /* BDD_STATE_H */
