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
#include "datatype/timestamp.h"
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
	BDD_GUARD_WARN,
	BDD_GUARD_OFF,
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
	List *key_columns;        /* of char * */
	List *update_columns;     /* of char *; NIL with default_update */
	bool default_update;      /* every column outside the key */
	Interval *flush_interval; /* or NULL */
	int flush_interval_ms;    /* -1: the setting */
	int flush_rows;           /* -1: the setting */
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

/* An option with a list of values: the numbers of its enumeration. */
typedef struct BddChoice
{
	const char *const *names; /* by number; the first is the default */
	int count;
	const char *later; /* a value that is not there yet, or NULL */
} BddChoice;

/* How an option is kept in BddOptions and in its column. */
typedef enum BddOptionForm
{
	BDD_OPTION_INT4, /* int; NULL is -1 */
	BDD_OPTION_OID,
	BDD_OPTION_BOOL,
	BDD_OPTION_TEXT,     /* char *, or NULL */
	BDD_OPTION_NAMES,    /* List of char * as text[]; NULL is NIL */
	BDD_OPTION_INTERVAL, /* Interval *, or NULL */
	BDD_OPTION_CHOICE    /* an enumeration as text */
} BddOptionForm;

/* Arguments that create_target and alter_target share, by position. */
typedef enum BddOptionArgument
{
	BDD_ARG_TARGET, /* of columns that are no option, too */
	BDD_ARG_KEY,
	BDD_ARG_UPDATE_COLUMNS,
	BDD_ARG_MERGE,
	BDD_ARG_VERSION_COLUMN,
	BDD_ARG_LOGGED,
	BDD_ARG_MODE,
	BDD_ARG_FLUSH_INTERVAL,
	BDD_ARG_FLUSH_ROWS,
	BDD_ARG_ON_FULL,
	BDD_ARG_GUARD,
	BDD_ARG_FLUSH_GROUP,
	BDD_ARG_COALESCE_ROWS,
	BDD_ARG_LAST /* if_not_exists or reset */
} BddOptionArgument;

/*
 * A column of batchdedup.target_option.  An option has one column, or two
 * (merge).  "meaning": it says what an upsert means, so it changes only when
 * nothing is buffered, and is checked together with the others of its kind.
 */
typedef struct BddOptionDef
{
	const char *column;
	BddOptionForm form;
	Size offset;      /* in BddOptions */
	const char *name; /* of the argument, and in "reset"; NULL: no option */
	BddOptionArgument argument;
	bool meaning;
	const BddChoice *choice;
} BddOptionDef;

#define BDD_OPTION_COLUMNS 17

extern const BddOptionDef bdd_option_defs[BDD_OPTION_COLUMNS];

extern void bdd_options_default(BddOptions *options);
extern void bdd_option_reset(BddOptions *options, const BddOptionDef *def);
extern Oid bdd_option_type(const BddOptionDef *def);
extern Datum bdd_option_value(const BddOptions *options,
							  const BddOptionDef *def, bool *isnull);
extern void bdd_option_take(BddOptions *options, const BddOptionDef *def,
							Datum value, bool isnull);
extern int bdd_choice_number(const BddChoice *choice, const char *name);

extern bool bdd_options_read(Oid relid, BddOptions *options);
extern List *bdd_all_targets(void);
extern bool bdd_has_dead_letters(Oid relid);
extern char *bdd_mark_shape(int32 target_id);
extern uint64 bdd_mark_read(int32 target_id, XLogRecPtr *journal_from);

#endif /* BDD_OPTIONS_H */
