/*-------------------------------------------------------------------------
 *
 * option_args.h
 *		Options of a target as arguments of create_target and alter_target.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_OPTION_ARGS_H
#define BDD_OPTION_ARGS_H

#include "base/base.h"

#include "fmgr.h"
#include "sql/args.h"
#include "target/options.h"
#include "utils/rel.h"

extern void bdd_check_option_arguments(FunctionCallInfo fcinfo);
extern void bdd_take_option_arguments(FunctionCallInfo fcinfo, BddOptions *options);
extern List *bdd_reset_argument(FunctionCallInfo fcinfo);
extern void bdd_reset_options(Relation rel, List *resets, BddOptions *options);
extern bool bdd_changes_meaning(FunctionCallInfo fcinfo, List *resets);
extern Oid bdd_check_meaning(Relation rel, BddOptions *options);
extern void bdd_change_catalog(Oid relid, const char *sql, BddArgs *args);
extern void bdd_insert_options(FunctionCallInfo fcinfo, Oid relid,
							   const BddOptions *options);
extern bool bdd_update_options(FunctionCallInfo fcinfo, Oid relid, List *resets,
							   const BddOptions *options);

#endif /* BDD_OPTION_ARGS_H */
