/*-------------------------------------------------------------------------
 *
 * target_sql.h
 *		The statements that write rows to a target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TARGET_SQL_H
#define BDD_TARGET_SQL_H

#include "base/base.h"

#include "lib/stringinfo.h"
#include "target/target.h"
#include "utils/queryenvironment.h"
#include "utils/tuplestore.h"

/* The rows appear in the statements under this name. */
#define BDD_ROWS_NAME "batchdedup_rows"

/* What of the table decides which statement is right. */
typedef struct BddWriteRules
{
	bool insert_triggers; /* BEFORE INSERT for each row */
	bool update_triggers; /* who must see unchanged rows, too */
	bool merge;           /* MERGE means the same, but for what others insert meanwhile */
} BddWriteRules;

extern void bdd_apply_sql_init(void);

extern BddWriteRules bdd_write_rules(BddTarget *target);

extern char *bdd_sql_count_stale(BddTarget *target);
extern char *bdd_sql_delete(BddTarget *target, bool versioned);
extern char *bdd_sql_upsert(BddTarget *target, const BddWriteRules *rules,
							const BddColumns *update,
							const BddColumns *insert);
extern char *bdd_sql_merge(BddTarget *target, const BddWriteRules *rules,
						   const BddColumns *update,
						   const BddColumns *insert);
extern char *bdd_sql_update_existing(BddTarget *target,
									 const BddWriteRules *rules,
									 const BddColumns *update);
extern char *bdd_sql_insert_missing(BddTarget *target,
									const BddColumns *update,
									const BddColumns *insert);
extern char *bdd_sql_select_row(BddTarget *target);

extern void bdd_append_operator(StringInfo sql, Oid opno);
extern void bdd_append_collation(StringInfo sql, Oid collation);
extern void bdd_append_same_key(StringInfo sql, TupleDesc desc, const BddKey *key,
								const char *alias, const char *other);
extern void bdd_append_conflict_key(StringInfo sql, TupleDesc desc, const BddKey *key);

extern bool bdd_equal_is_same(Form_pg_attribute attribute);
extern bool bdd_is_writing(Oid relid);
extern uint64 bdd_run_on_relation(Oid relid, const char *sql,
								  EphemeralNamedRelation relation, int nargs,
								  Oid *types, Datum *values, bool read_only);
extern uint64 bdd_run_on_rows(BddTarget *target, const char *sql,
							  Tuplestorestate *rows, uint64 count,
							  bool read_only);

#endif /* BDD_TARGET_SQL_H */
