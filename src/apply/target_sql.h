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
	bool update_triggers; /* they must see unchanged rows, too */
	bool merge;           /* MERGE means the same, but for what others insert meanwhile */
} BddWriteRules;

extern void bdd_target_sql_init(void);

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

extern uint64 bdd_run_on_rows(BddTarget *target, const char *sql,
							  Tuplestorestate *rows, uint64 count,
							  bool read_only);

#endif /* BDD_TARGET_SQL_H */
