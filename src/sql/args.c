/*-------------------------------------------------------------------------
 *
 * args.c
 *		Arguments of a statement, one after the other.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/args.h"

#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

/* Adds the next argument. */
void
bdd_arg_or_null(BddArgs *args, Oid type, Datum value, bool isnull)
{
	if (args->count >= BDD_MAX_ARGS)
		elog(ERROR, "too many arguments");
	args->types[args->count] = type;
	args->values[args->count] = isnull ? (Datum) 0 : value;
	args->nulls[args->count] = isnull ? 'n' : ' ';
	args->count++;
}

/* Adds an argument that is not null. */
void
bdd_arg(BddArgs *args, Oid type, Datum value)
{
	bdd_arg_or_null(args, type, value, false);
}

void
bdd_arg_null(BddArgs *args, Oid type)
{
	bdd_arg_or_null(args, type, (Datum) 0, true);
}

void
bdd_arg_bool(BddArgs *args, bool value)
{
	bdd_arg(args, BOOLOID, BoolGetDatum(value));
}

void
bdd_arg_int4(BddArgs *args, int32 value)
{
	bdd_arg(args, INT4OID, Int32GetDatum(value));
}

void
bdd_arg_int8(BddArgs *args, int64 value)
{
	bdd_arg(args, INT8OID, Int64GetDatum(value));
}

void
bdd_arg_oid(BddArgs *args, Oid value)
{
	bdd_arg(args, OIDOID, ObjectIdGetDatum(value));
}

/* NULL is a null. */
void
bdd_arg_text(BddArgs *args, const char *value)
{
	if (value == NULL)
		bdd_arg_null(args, TEXTOID);
	else
		bdd_arg(args, TEXTOID, CStringGetTextDatum(value));
}

/* NULL is a null.  The value is not copied. */
void
bdd_arg_uuid(BddArgs *args, const pg_uuid_t *value)
{
	bdd_arg_or_null(args, UUIDOID, UUIDPGetDatum(value), value == NULL);
}

void
bdd_arg_timestamptz(BddArgs *args, TimestampTz value)
{
	bdd_arg(args, TIMESTAMPTZOID, TimestampTzGetDatum(value));
}

/* Runs one statement; returns the number of rows. */
uint64
bdd_run_with(const char *sql, BddArgs *args)
{
	return bdd_spi_run(sql, args->count, args->types, args->values, args->nulls);
}

/*
 * Runs a statement with a plan that is kept.  A plan that says nothing of its
 * arguments takes their types from the first call, and each call has the same.
 */
uint64
bdd_plan_run_with(BddKeptPlan *plan, BddArgs *args)
{
	if (plan->plan == NULL && plan->nargs == 0)
	{
		plan->nargs = args->count;
		memcpy(plan->types, args->types, args->count * sizeof(Oid));
	}
	if (plan->nargs != args->count ||
		memcmp(plan->types, args->types, args->count * sizeof(Oid)) != 0)
		elog(ERROR, "arguments do not fit the statement: %s", plan->sql);
	return bdd_plan_run(plan, args->values, args->nulls);
}
