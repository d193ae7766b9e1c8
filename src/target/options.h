/*-------------------------------------------------------------------------
 *
 * options.h
 *		The rows of batchdedup.target_option and batchdedup.mark.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_OPTIONS_H
#define BDD_OPTIONS_H

#include "base/base.h"

#include "access/xlogdefs.h"
#include "nodes/pg_list.h"

typedef enum BddMode
{
	BDD_MODE_BUFFERED,
	BDD_MODE_DIRECT /* in the caller's transaction */
} BddMode;

/* What a call does when the buffer is full. */
typedef enum BddOnFull
{
	BDD_FULL_WAIT,
	BDD_FULL_ERROR,
	BDD_FULL_DIRECT
} BddOnFull;

/* What happens when somebody writes the table with rows in the buffer. */
typedef enum BddGuard
{
	BDD_GUARD_OFF,
	BDD_GUARD_WARN,
	BDD_GUARD_FLUSH,
	BDD_GUARD_ERROR
} BddGuard;

/* So many targets may have one flush_group. */
#define BDD_GROUP_MEMBERS 64

/* The row of batchdedup.target_option. */
typedef struct BddOptions
{
	int32 target_id;
	Oid relid;
	List *key_columns;     /* of char * */
	List *update_columns;  /* of char *; NIL with default_update */
	bool default_update;   /* every column outside the key */
	int flush_interval_ms; /* -1: the setting */
	int flush_rows;        /* -1: the setting */
	BddMode mode;
	BddOnFull on_full;
	BddGuard guard;
	List *merge_columns;  /* of char *, with merge_rules */
	List *merge_rules;    /* of char * */
	char *version_column; /* or NULL */
	bool coalesce_rows;
	char *flush_group; /* or NULL */
	bool paused;
	bool logged;
	bool own; /* a table of the extension */
} BddOptions;

extern bool bdd_options_read(Oid relid, BddOptions *options);
extern List *bdd_all_targets(void);
extern bool bdd_has_dead_letters(Oid relid);
extern char *bdd_mark_shape(int32 target_id);
extern uint64 bdd_mark_read(int32 target_id, XLogRecPtr *journal_from);

#endif /* BDD_OPTIONS_H */
