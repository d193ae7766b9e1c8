/*-------------------------------------------------------------------------
 *
 * target_check.h
 *		Whether a table, a key and columns are fit for a target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TARGET_CHECK_H
#define BDD_TARGET_CHECK_H

#include "base/base.h"

#include "nodes/pg_list.h"
#include "utils/rel.h"

/* Each raises an error that says what is wrong; lists are of char *. */
extern List *bdd_parse_columns(const char *argument, const char *value);
extern void bdd_check_columns(Relation rel, const char *argument, List *names);
extern void bdd_check_table(Relation rel);
extern void bdd_check_owner(Oid relid);
extern bool bdd_is_named(const List *names, const char *name);
extern List *bdd_primary_key(Relation rel);
extern Oid bdd_check_key(Relation rel, List *names, bool coalesce_rows);
extern void bdd_check_rules(Relation rel, List *key, List *update,
							bool default_update, List *columns, List *rules,
							const char *version);
extern void bdd_check_update_columns(Relation rel, List *key, List *names);

extern void bdd_notice_other_indexes(Relation rel, Oid key_index, List *key);

#endif /* BDD_TARGET_CHECK_H */
