/*-------------------------------------------------------------------------
 *
 * sync_sql.h
 *		Statements that find and write the changes of a sync.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_SQL_H
#define BDD_SYNC_SQL_H

#include "base/base.h"

#include "sync/sync.h"

/* What a dead letter says of a row. */
typedef enum BddSyncDescribe
{
	BDD_DESCRIBE_ROW,  /* as a document, and its position */
	BDD_DESCRIBE_TEXT, /* the same, where it can be no document */
	BDD_DESCRIBE_KEY   /* its key in the target */
} BddSyncDescribe;

extern char *bdd_sync_sql_changes(const BddSync *sync, uint32 shape);
extern char *bdd_sync_sql_update(const BddSync *sync, uint32 shape);
extern char *bdd_sync_sql_insert(const BddSync *sync, uint32 shape);
extern char *bdd_sync_sql_delete(const BddSync *sync, uint32 shape);
extern char *bdd_sync_sql_upsert_buffered(const BddSync *sync, uint32 shape);
extern char *bdd_sync_sql_delete_buffered(const BddSync *sync, uint32 shape);
extern char *bdd_sync_sql_describe(const BddSync *sync, BddSyncDescribe what, uint32 shape);

#endif /* BDD_SYNC_SQL_H */
