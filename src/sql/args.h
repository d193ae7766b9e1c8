/*-------------------------------------------------------------------------
 *
 * args.h
 *		Arguments of a statement, one after the other.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_ARGS_H
#define BDD_ARGS_H

#include "base/base.h"

#include "datatype/timestamp.h"
#include "sql/spi.h"
#include "utils/uuid.h"

/*
 * $1, $2, ... with their types, in the form that SPI takes.  Begins as {0}:
 *
 *	BddArgs args = {0};
 *
 *	bdd_arg_int4(&args, target_id);
 *	bdd_arg_text(&args, name);			-- NULL is a null
 *	(void) bdd_run_with("... WHERE id = $1 AND name = $2", &args);
 */
typedef struct BddArgs
{
	int count;
	Oid types[BDD_MAX_ARGS];
	Datum values[BDD_MAX_ARGS];
	char nulls[BDD_MAX_ARGS + 1]; /* ' ' or 'n' for each */
} BddArgs;

extern void bdd_arg(BddArgs *args, Oid type, Datum value);
extern void bdd_arg_or_null(BddArgs *args, Oid type, Datum value, bool isnull);
extern void bdd_arg_null(BddArgs *args, Oid type);
extern void bdd_arg_bool(BddArgs *args, bool value);
extern void bdd_arg_int4(BddArgs *args, int32 value);
extern void bdd_arg_int8(BddArgs *args, int64 value);
extern void bdd_arg_oid(BddArgs *args, Oid value);
extern void bdd_arg_text(BddArgs *args, const char *value);
extern void bdd_arg_uuid(BddArgs *args, const pg_uuid_t *value);
extern void bdd_arg_timestamptz(BddArgs *args, TimestampTz value);

extern uint64 bdd_run_with(const char *sql, BddArgs *args);
extern uint64 bdd_plan_run_with(BddKeptPlan *plan, BddArgs *args);

#endif /* BDD_ARGS_H */
