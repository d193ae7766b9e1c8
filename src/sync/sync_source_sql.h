/*-------------------------------------------------------------------------
 *
 * sync_source_sql.h
 *		Statements that read the source of a sync, or the keys that its trigger keeps.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_SOURCE_SQL_H
#define BDD_SYNC_SOURCE_SQL_H

#include "base/base.h"

#include "sync/sync.h"

extern char *bdd_sync_sql_read(const BddSync *sync, int watermark, bool bounded);
extern char *bdd_sync_sql_read_nulls(const BddSync *sync, bool first);
extern char *bdd_sync_sql_read_null_keys(const BddSync *sync);
extern char *bdd_sync_sql_read_at(const BddSync *sync, const List *texts);
extern char *bdd_sync_sql_left(const BddSync *sync, int watermark, bool bounded);
extern char *bdd_sync_sql_last(const BddSync *sync);
extern char *bdd_sync_sql_missing(const BddSync *sync, bool one_key);
extern char *bdd_sync_sql_captured(const BddSync *sync, bool after);
extern char *bdd_sync_sql_captured_rows(const BddSync *sync);
extern char *bdd_sync_sql_captured_gone(const BddSync *sync);
extern char *bdd_sync_sql_captured_forget(const BddSync *sync);

#endif /* BDD_SYNC_SOURCE_SQL_H */
