/*-------------------------------------------------------------------------
 *
 * sync_sql_part.h
 *		Parts of a sync's statements.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SYNC_SQL_PART_H
#define BDD_SYNC_SQL_PART_H

#include "base/base.h"

#include "lib/stringinfo.h"
#include "row/key.h"
#include "sync/sync.h"
#include "utils/rel.h"

/* A statement that is being put together, and its target. */
typedef struct BddSyncSql
{
	const BddSync *sync;
	Relation rel;
	TupleDesc desc;
	BddKey key;
	StringInfoData text;
} BddSyncSql;

extern void bdd_sync_sql_begin(BddSyncSql *sql, const BddSync *sync, uint32 shape);
extern char *bdd_sync_sql_end(BddSyncSql *sql);
extern Form_pg_attribute bdd_sync_sql_attribute_of(BddSyncSql *sql, const char *name);
extern const char *bdd_sync_sql_only(BddSyncSql *sql);
extern char *bdd_sync_sql_target_name(BddSyncSql *sql);
extern bool bdd_sync_sql_is_hashed(const BddSync *sync, const char *name);
extern char *bdd_sync_sql_unhashed(BddSyncSql *sql);
extern void bdd_sync_sql_append_value(StringInfo sql, Form_pg_attribute attribute,
									  const char *expression);
extern void bdd_sync_sql_append_same_key(BddSyncSql *sql, const char *other);
extern void bdd_sync_sql_append_key(BddSyncSql *sql, const char *prefix);
extern void bdd_sync_sql_append_key_document(BddSyncSql *sql, const char *alias);
extern void bdd_sync_sql_append_columns(BddSyncSql *sql, const char *prefix);
extern void bdd_sync_sql_append_new_row(BddSyncSql *sql);
extern void bdd_sync_sql_append_same_value(BddSyncSql *sql, const char *name);
extern void bdd_sync_sql_append_same_row(BddSyncSql *sql);
extern bool bdd_sync_sql_deleted_is_flag(BddSyncSql *sql);
extern void bdd_sync_sql_append_is_deleted(BddSyncSql *sql, const char *alias);
extern void bdd_sync_sql_append_set_deleted(BddSyncSql *sql, bool deleted);
extern void bdd_sync_sql_append_removal(BddSyncSql *sql);
extern void bdd_sync_sql_append_row(StringInfo text, const List *columns, int count,
									bool parameters);
extern void bdd_sync_sql_append_mapped_key(BddSyncSql *sql);

#endif /* BDD_SYNC_SQL_PART_H */
