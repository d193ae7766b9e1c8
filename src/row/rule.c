/*-------------------------------------------------------------------------
 *
 * rule.c
 *		What an upsert makes of a column that has a value already.
 *
 * A rule has one meaning in three places: between two rows in the buffer
 * (here), against the row in the table (target_sql.c), and for reads
 * through the buffer (here again).  For all rules but "last" and functions
 * that are not strict, a NULL on one side leaves the other side's value.
 *
 * Under a lock no function may be called: then only the types of BddFixedType
 * combine.  A sum that overflows is kept apart, so that the table says which
 * row it refuses.
 *
 *-------------------------------------------------------------------------
 */
#include "row/rule.h"

#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_operator_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_type.h"
#include "common/int.h"
#include "nodes/pg_list.h"
#include "nodes/value.h"
#include "parser/parse_coerce.h"
#include "parser/parse_func.h"
#include "utils/builtins.h"
#include "utils/date.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"
#include "utils/varlena.h"

/*
 * The rules that have a name.  "template": what the rule makes of the row's
 * value {old} and the upsert's {new}, in SQL, with NULL on either side as the
 * rule has it; NULL: it needs no statement of its own, see target_sql.c.
 * "accumulates": the rule makes of two values what neither says alone.
 */
static const struct
{
	const char *name;
	const char *template;
	bool accumulates;
} rules[] = {
	[BDD_LAST] = {"last", NULL, false},
	[BDD_COALESCE] = {"coalesce", "coalesce({new}, {old})", false},
	[BDD_SUM] = {"sum", "coalesce({old} OPERATOR(pg_catalog.+) {new}, {new}, {old})", true},
	[BDD_MIN] = {"min", "least({old}, {new})", true},
	[BDD_MAX] = {"max", "greatest({old}, {new})", true},
	[BDD_CONCAT] = {"concat", "coalesce({old} OPERATOR(pg_catalog.||) {new}, {new}, {old})", true},
	[BDD_FUNCTION] = {NULL, NULL, true},
	[BDD_FIRST] = {"first", NULL, true},
};

/* A rule that is added to the enumeration is added here, too. */
StaticAssertDecl(lengthof(rules) == BDD_RULES, "each rule has its line");

/* ---------- describing a rule ---------- */

/* BDD_FUNCTION: it is none of the names. */
static BddRuleKind
kind_of(const char *name)
{
	for (int i = 0; i < lengthof(rules); i++)
		if (rules[i].name != NULL && strcmp(rules[i].name, name) == 0)
			return (BddRuleKind) i;
	return BDD_FUNCTION;
}

/*
 * The rule's SQL with {old} and {new}.  Asked for "last", "first" or a
 * function it is an error: they are no expression of the two values alone.
 */
const char *
bdd_rule_template(BddRuleKind kind)
{
	if (rules[kind].template == NULL)
		elog(ERROR, "merge rule %d has no SQL", (int) kind);
	return rules[kind].template;
}

/* Whether the rule makes of two values what neither says alone. */
bool
bdd_rule_accumulates(const BddRule *rule)
{
	return rules[rule->kind].accumulates;
}

/* "adds": for a sum, else for comparing. */
static BddFixedType
fixed_type(Oid type, bool adds)
{
	switch (type)
	{
		case INT2OID:
			return BDD_INT2;
		case INT4OID:
			return BDD_INT4;
		case INT8OID:
			return BDD_INT8;
		case FLOAT4OID:
			return BDD_FLOAT4;
		case FLOAT8OID:
			return BDD_FLOAT8;
		case DATEOID:
			return adds ? BDD_NOT_FIXED : BDD_INT4;
		case TIMEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
		case CASHOID:
			return adds ? BDD_NOT_FIXED : BDD_INT8;
		default:
			return BDD_NOT_FIXED;
	}
}

/*
 * The rule may call the function from here on.  What is known of it lives as
 * long as "context".
 */
static void
set_call(BddRule *rule, Oid function, MemoryContext context)
{
	fmgr_info_cxt(function, &rule->call, context);
	rule->calls = true;
}

/* The operator that adds two values of a type that is no domain, or InvalidOid. */
Oid
bdd_rule_sum_operator(Oid type)
{
	List *name = list_make2(makeString("pg_catalog"), makeString("+"));
	Oid plus = OpernameGetOprid(name, type, type);

	return OidIsValid(plus) && get_op_rettype(plus) == type ? plus : InvalidOid;
}

/*
 * Returns NULL, or why values of the type cannot be added.  The types of
 * BddFixedType are added without a call.
 */
static char *
describe_sum(Oid type, MemoryContext context, BddRule *rule)
{
	Oid plus = bdd_rule_sum_operator(type);

	if (!OidIsValid(plus))
		return psprintf("There is no operator + that adds two values of type %s.",
						format_type_be(type));
	rule->fixed = fixed_type(type, true);
	if (rule->fixed == BDD_NOT_FIXED)
		set_call(rule, get_opcode(plus), context);
	return NULL;
}

/*
 * Returns NULL, or why values of the type cannot be compared.  The types of
 * BddFixedType are compared without a call.
 */
static char *
describe_order(Oid type, MemoryContext context, BddRule *rule)
{
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_CMP_PROC);

	if (!OidIsValid(entry->cmp_proc))
		return psprintf("Values of type %s have no order.",
						format_type_be(type));
	rule->fixed = fixed_type(type, false);
	if (rule->fixed == BDD_NOT_FIXED)
		set_call(rule, entry->cmp_proc, context);
	return NULL;
}

/* Returns NULL, or why values of the type cannot be concatenated. */
static char *
describe_concat(Oid type, MemoryContext context, BddRule *rule)
{
	rule->is_text = type == TEXTOID || type == VARCHAROID || type == BYTEAOID;
	if (type == TEXTOID || type == VARCHAROID)
		set_call(rule, F_TEXTCAT, context);
	else if (type == BYTEAOID)
		set_call(rule, F_BYTEACAT, context);
	else if (type == JSONBOID)
		set_call(rule, F_JSONB_CONCAT, context);
	else if (OidIsValid(get_element_type(type)))
		set_call(rule, F_ARRAY_CAT, context);
	else
		return psprintf("Values of type %s are not concatenated: only text, varchar, bytea, jsonb and arrays are.",
						format_type_be(type));
	return NULL;
}

/*
 * A sum or concatenation of values that the column accepts is not one that it
 * accepts: a length is checked, and what a domain says only the table checks.
 */
static void
describe_fit(Oid type, int32 typmod, MemoryContext context, BddRule *rule)
{
	Oid function;

	if (rule->kind != BDD_SUM && rule->kind != BDD_CONCAT)
		return;
	if (getBaseType(type) != type)
	{
		rule->fixed = BDD_NOT_FIXED;
		rule->calls = false;
		return;
	}
	rule->typmod = typmod;
	if (typmod < 0 ||
		find_typmod_coercion_function(type, &function) != COERCION_PATH_FUNC)
		return;
	fmgr_info_cxt(function, &rule->fit, context);
	rule->fits = true;
}

/* The function that the rule's name means, or InvalidOid. */
static Oid
find_function(const char *name, Oid type)
{
	Oid types[] = {type, type};

	return LookupFuncName(textToQualifiedNameList(cstring_to_text(name)),
						  lengthof(types), types, true);
}

/*
 * Returns NULL, or why there is no such rule.  The function is only called by
 * the statement on the table, so it is not prepared for a call here.
 */
static char *
describe_function(const char *name, Oid type, BddRule *rule)
{
	HeapTuple tuple;
	Form_pg_proc form;
	char *problem = NULL;

	rule->function = find_function(name, type);
	if (!OidIsValid(rule->function))
		return psprintf("It is none of last, first, coalesce, sum, min, max and concat, and there is no function %s(%s, %s).",
						name, format_type_be(type), format_type_be(type));
	tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(rule->function));
	form = (Form_pg_proc) GETSTRUCT(tuple);
	rule->strict = form->proisstrict;
	if (form->prokind != PROKIND_FUNCTION || form->proretset ||
		form->prorettype != type)
		problem = psprintf("Function %s does not return one value of type %s.",
						   name, format_type_be(type));
	ReleaseSysCache(tuple);
	return problem;
}

/*
 * Describes the rule for a column of the type.  Returns NULL, or why there is
 * no such rule (a sentence, for an error's detail).
 */
char *
bdd_rule_describe(const char *name, Oid type, int32 typmod, Oid collation,
				  MemoryContext context, BddRule *rule)
{
	Oid base = getBaseType(type);
	char *problem = NULL;

	memset(rule, 0, sizeof(*rule));
	rule->kind = kind_of(name);
	rule->collation = collation;
	switch (rule->kind)
	{
		case BDD_LAST:
		case BDD_FIRST:
		case BDD_COALESCE:
			break;
		case BDD_SUM:
			problem = describe_sum(base, context, rule);
			break;
		case BDD_MIN:
		case BDD_MAX:
			problem = describe_order(base, context, rule);
			break;
		case BDD_CONCAT:
			problem = describe_concat(base, context, rule);
			break;
		case BDD_FUNCTION:
			problem = describe_function(name, base, rule);
			break;
	}
	if (problem == NULL)
		describe_fit(type, typmod, context, rule);
	return problem;
}

/* A rule's name that means the same under every search_path. */
char *
bdd_rule_qualified_name(const char *name, Oid type)
{
	Oid function;

	if (kind_of(name) != BDD_FUNCTION)
		return pstrdup(name);
	function = find_function(name, getBaseType(type));
	return quote_qualified_identifier(get_namespace_name(get_func_namespace(function)),
									  get_func_name(function));
}

/* ---------- comparing ---------- */

#define ORDER(a, b) ((a) < (b) ? -1 : (a) > (b) ? 1 : \
												  0)

/* As the type's btree operator class does; false: it would need a call. */
bool
bdd_rule_compare(const BddRule *rule, Datum a, Datum b, bool may_call,
				 int *order)
{
	switch (rule->fixed)
	{
		case BDD_INT2:
			*order = ORDER(DatumGetInt16(a), DatumGetInt16(b));
			return true;
		case BDD_INT4:
			*order = ORDER(DatumGetInt32(a), DatumGetInt32(b));
			return true;
		case BDD_INT8:
			*order = ORDER(DatumGetInt64(a), DatumGetInt64(b));
			return true;
		case BDD_FLOAT4:
			*order = float4_cmp_internal(DatumGetFloat4(a),
										 DatumGetFloat4(b));
			return true;
		case BDD_FLOAT8:
			*order = float8_cmp_internal(DatumGetFloat8(a),
										 DatumGetFloat8(b));
			return true;
		case BDD_NOT_FIXED:
			break;
	}
	if (!may_call || !rule->calls)
		return false;
	*order = DatumGetInt32(FunctionCall2Coll(unconstify(FmgrInfo *, &rule->call),
											 rule->collation, a, b));
	return true;
}

/* Whether adding the value changes nothing. */
bool
bdd_rule_is_zero(const BddRule *rule, Datum value)
{
	switch (rule->fixed)
	{
		case BDD_INT2:
			return DatumGetInt16(value) == 0;
		case BDD_INT4:
			return DatumGetInt32(value) == 0;
		case BDD_INT8:
			return DatumGetInt64(value) == 0;
		default:
			return false;
	}
}

/* ---------- combining ---------- */

/* The length function's third argument says that no cast was written. */
static Datum
fit(const BddRule *rule, Datum value)
{
	if (!rule->fits)
		return value;
	return FunctionCall3Coll(unconstify(FmgrInfo *, &rule->fit),
							 rule->collation, value,
							 Int32GetDatum(rule->typmod), BoolGetDatum(false));
}

/* False: it overflows, or would need a call. */
static bool
add(const BddRule *rule, Datum a, Datum b, bool may_call, Datum *sum)
{
	int16 sum2;
	int32 sum4;
	int64 sum8;
	float4 real;
	float8 wide;

	switch (rule->fixed)
	{
		case BDD_INT2:
			if (pg_add_s16_overflow(DatumGetInt16(a), DatumGetInt16(b), &sum2))
				return false;
			*sum = Int16GetDatum(sum2);
			return true;
		case BDD_INT4:
			if (pg_add_s32_overflow(DatumGetInt32(a), DatumGetInt32(b), &sum4))
				return false;
			*sum = Int32GetDatum(sum4);
			return true;
		case BDD_INT8:
			if (pg_add_s64_overflow(DatumGetInt64(a), DatumGetInt64(b), &sum8))
				return false;
			*sum = Int64GetDatum(sum8);
			return true;
		case BDD_FLOAT4:
			real = DatumGetFloat4(a) + DatumGetFloat4(b);
			*sum = Float4GetDatum(real);
			return !isinf(real) || isinf(DatumGetFloat4(a)) || isinf(DatumGetFloat4(b));
		case BDD_FLOAT8:
			wide = DatumGetFloat8(a) + DatumGetFloat8(b);
			*sum = Float8GetDatum(wide);
			return !isinf(wide) || isinf(DatumGetFloat8(a)) || isinf(DatumGetFloat8(b));
		case BDD_NOT_FIXED:
			break;
	}
	if (!may_call || !rule->calls)
		return false;
	*sum = fit(rule, FunctionCall2Coll(unconstify(FmgrInfo *, &rule->call),
									   rule->collation, a, b));
	return true;
}

/* Of two that are equal the older one stays, as with LEAST and GREATEST. */
static bool
choose(const BddRule *rule, Datum a, Datum b, bool may_call, Datum *chosen)
{
	int order;

	if (!bdd_rule_compare(rule, a, b, may_call, &order))
		return false;
	*chosen = (rule->kind == BDD_MIN ? order > 0 : order < 0) ? b : a;
	return true;
}

/* One behind the other: not the same for all types whatever comes before. */
static bool
append(const BddRule *rule, Datum a, Datum b, BddReach reach, Datum *joined)
{
	if (!rule->calls || reach == BDD_MEMORY ||
		(reach == BDD_DELTAS && !rule->is_text))
		return false;
	*joined = fit(rule, FunctionCall2Coll(unconstify(FmgrInfo *, &rule->call),
										  rule->collation, a, b));
	return true;
}

/*
 * What two upserts of a column say together, the older one first; false: that
 * cannot be said here.  Values may be shared with the arguments.
 */
bool
bdd_rule_combine(const BddRule *rule, NullableDatum older,
				 NullableDatum newer, BddReach reach, NullableDatum *combined)
{
	bool may_call = reach != BDD_MEMORY;

	*combined = newer;
	if (rule->kind == BDD_LAST)
		return true;
	if (rule->kind == BDD_FUNCTION && !rule->strict)
		return false;
	if (older.isnull)
		return true;
	if (newer.isnull)
	{
		*combined = older;
		return true;
	}
	switch (rule->kind)
	{
		case BDD_COALESCE:
			return true;
		case BDD_SUM:
			return add(rule, older.value, newer.value, may_call,
					   &combined->value);
		case BDD_MIN:
		case BDD_MAX:
			return choose(rule, older.value, newer.value, may_call,
						  &combined->value);
		case BDD_CONCAT:
			return append(rule, older.value, newer.value, reach,
						  &combined->value);
		case BDD_LAST:     /* decided above */
		case BDD_FIRST:    /* of no column that is updated */
		case BDD_FUNCTION: /* only the table calls it */
			break;
	}
	return false;
}
