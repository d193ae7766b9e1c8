/*-------------------------------------------------------------------------
 *
 * sync.h
 *		Syncs: pipelines from a source to a target, with a watermark.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_H
#define BDD_SYNC_H

#include "base/base.h"

#include "executor/spi.h"
#include "nodes/pg_list.h"
#include "sql/spi.h"
#include "utils/timestamp.h"
#include "utils/tuplestore.h"

/* Names of rows in the statements of a sync. */
#define BDD_SLICE_NAME "batchdedup_slice"
#define BDD_CHANGES_NAME "batchdedup_changes"
#define BDD_CAPTURED_NAME "batchdedup_captured"

/* What the cursor's values are, which decides how far it may be read. */
typedef enum BddCursorKind
{
	BDD_CURSOR_CLOCK,    /* from now() or clock_timestamp() of the writer */
	BDD_CURSOR_SEQUENCE, /* from nextval() of the writer */
	BDD_CURSOR_OTHER,    /* nobody knows: what is older than the lag is complete */
	BDD_CURSOR_FULL,     /* none: every run reads the whole source, by key */
	BDD_CURSOR_TRIGGER   /* none: a trigger keeps the keys that have changed */
} BddCursorKind;

/* The row of batchdedup.sync_row; lists of columns are of char *. */
typedef struct BddSync
{
	int32 id;
	char *name;
	Oid owner;
	Oid source;
	Oid target;
	List *key;
	List *position;       /* columns of the source, in whose order it is read */
	List *position_types; /* of Oid */
	int cursor_columns;   /* so many of them are the cursor */
	List *columns;        /* of the target */
	List *expressions;    /* of char *, for each column */
	char *filter;         /* or NULL */
	int slice_rows;
	BddCursorKind kind;
	Oid sequence;
	Interval *lag;
	bool buffered; /* writes through the buffer */
	bool change_log;
	bool log_values;
	List *hash_exclude;
	bool delete_missing;
	bool soft;            /* rows are marked in deleted_column, not deleted */
	char *tombstone;      /* an expression over src, or NULL */
	char *deleted_column; /* or NULL */
	char *version_column; /* or NULL */
	Oid captured;         /* or InvalidOid */
	bool paused;
	List *watermark; /* of char *; NIL: from the beginning */
	char *bound;     /* or NULL */
	char *moment;    /* or NULL */
	char *moment_value;
	bool complete;
	bool truncated;
	List *settings; /* of char *: name, value, name, ... */
} BddSync;

/* What has been done to rows of a sync. */
typedef struct BddSyncCounts
{
	uint64 slices;
	uint64 read;
	uint64 inserted;
	uint64 updated;
	uint64 deleted;
	uint64 unchanged;
	uint64 refused;
} BddSyncCounts;

/* Rows with their descriptor: those of a slice, or its changes. */
typedef struct BddSyncRows
{
	TupleDesc desc;
	HeapTuple *tuples;
	uint64 count;
} BddSyncRows;

extern bool bdd_sync_read(const char *name, BddSync *sync);
extern void bdd_sync_read_existing(const char *name, BddSync *sync);
extern void bdd_sync_check_owner(const BddSync *sync);
extern List *bdd_sync_settings(void);
extern void bdd_sync_become(const BddSync *sync, BddSavedRole *saved);
extern void bdd_sync_become_writer(const BddSync *sync, BddSavedRole *saved);
extern void bdd_sync_lock(const BddSync *sync, bool session);
extern void bdd_sync_unlock(const BddSync *sync);
extern const char *bdd_cursor_kind_name(BddCursorKind kind);
extern BddCursorKind bdd_cursor_kind(const char *name);

#endif /* BDD_SYNC_H */
