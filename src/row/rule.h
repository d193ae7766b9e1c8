/*-------------------------------------------------------------------------
 *
 * rule.h
 *		What an upsert makes of a column that has a value already.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_RULE_H
#define BDD_RULE_H

#include "base/base.h"

#include "fmgr.h"

typedef enum BddRuleKind
{
	BDD_LAST,     /* the new value */
	BDD_COALESCE, /* the new value, unless it is NULL */
	BDD_SUM,
	BDD_MIN,
	BDD_MAX,
	BDD_CONCAT,
	BDD_FUNCTION, /* f(old, new) */
	BDD_FIRST     /* the old value: no rule of an updated column */
} BddRuleKind;

#define BDD_RULES (BDD_FIRST + 1)

/* Types whose values are compared and added without calling a function. */
typedef enum BddFixedType
{
	BDD_NOT_FIXED,
	BDD_INT2,
	BDD_INT4,
	BDD_INT8,
	BDD_FLOAT4,
	BDD_FLOAT8
} BddFixedType;

/*
 * Values of other types are combined by "call" (SUM: adds, MIN and MAX:
 * compares as btree does, CONCAT: appends); without it they are kept apart
 * until they meet the table.
 */
typedef struct BddRule
{
	BddRuleKind kind;
	BddFixedType fixed;
	bool calls; /* "call" is set */
	bool fits;  /* "fit" is set */
	FmgrInfo call;
	FmgrInfo fit; /* sees that a result fits the column's typmod */
	int32 typmod;
	Oid collation;
	bool is_text; /* CONCAT: it does not matter which two meet first */
	Oid function; /* FUNCTION */
	bool strict;
} BddRule;

/* What bdd_rule_combine may rely on. */
typedef enum BddReach
{
	BDD_MEMORY, /* nothing: it is called under a lock */
	BDD_DELTAS, /* functions may be called, and may raise errors */
	BDD_VALUE   /* the same, and the older value is that of the row */
} BddReach;

extern const char *bdd_rule_template(BddRuleKind kind);
extern bool bdd_rule_accumulates(const BddRule *rule);
extern char *bdd_rule_describe(const char *name, Oid type, int32 typmod,
							   Oid collation, MemoryContext context,
							   BddRule *rule);
extern Oid bdd_rule_sum_operator(Oid type);
extern char *bdd_rule_qualified_name(const char *name, Oid type);
extern bool bdd_rule_combine(const BddRule *rule, NullableDatum older,
							 NullableDatum newer, BddReach reach,
							 NullableDatum *combined);
extern bool bdd_rule_compare(const BddRule *rule, Datum a, Datum b,
							 bool may_call, int *order);
extern bool bdd_rule_is_zero(const BddRule *rule, Datum value);

#endif /* BDD_RULE_H */
