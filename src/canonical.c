/*-------------------------------------------------------------------------
 *
 * canonical.c
 *		JSON in one spelling: canonical_json, and its hash, data_version.
 *
 * canonical_json is RFC 8785 (JSON Canonicalization Scheme): no white space,
 * keys in the order of their UTF-16 code units, strings with as few escapes as
 * there can be, numbers as ECMAScript writes the double that is nearest to
 * them.  A number that does not come back from that double is refused unless
 * the caller says what to do.
 *
 * data_version is sha256 of the same form in UTF-8, but with numbers as exact
 * decimals without trailing zeros: two numbers that differ never have the same
 * version.
 *
 *-------------------------------------------------------------------------
 */
#include "batchdedup.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "common/sha2.h"
#include "common/shortest_dec.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "spi_util.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(bdd_canonical_json);
PG_FUNCTION_INFO_V1(bdd_data_version_json);
PG_FUNCTION_INFO_V1(bdd_data_version_text);
PG_FUNCTION_INFO_V1(bdd_data_version_row);

/* What becomes of a number that a double cannot say. */
typedef enum BddInexact
{
	INEXACT_ERROR,
	INEXACT_STRING, /* the exact decimal, as a string */
	INEXACT_ROUND,  /* the nearest double */
	ALL_DECIMAL     /* every number is written as its exact decimal */
} BddInexact;

typedef struct BddCanonical
{
	StringInfoData out;
	BddInexact inexact;
	ArrayType *exclude; /* keys of the outermost object to leave out, or NULL */
} BddCanonical;

typedef struct BddPair
{
	JsonbValue key;
	JsonbValue value;
	const char *utf8; /* of the key */
	int size;
} BddPair;

typedef BddPair *BddPairPointer;

static void put_container(BddCanonical *canonical, JsonbContainer *container, bool outermost);

/* ---------- numbers ---------- */

/* 0.DIGITS times ten to the power of "point"; no digits: zero. */
typedef struct BddDecimal
{
	bool negative;
	char *digits; /* without zeros at either end */
	int count;
	int point;
} BddDecimal;

/* From what numeric or float8 are written as. */
static BddDecimal
parse_decimal(const char *text)
{
	BddDecimal decimal = {.digits = palloc(strlen(text) + 1)};
	const char *c = text;
	int before = -1;
	int zeros = 0;

	if (*c == '-')
	{
		decimal.negative = true;
		c++;
	}
	for (; *c != '\0' && *c != 'e'; c++)
	{
		if (*c == '.')
			before = decimal.count + zeros;
		else if (decimal.count == 0 && *c == '0')
			zeros++;
		else
			decimal.digits[decimal.count++] = *c;
	}
	if (before < 0)
		before = decimal.count + zeros;
	decimal.point = before - zeros + (*c == 'e' ? atoi(c + 1) : 0);
	while (decimal.count > 0 && decimal.digits[decimal.count - 1] == '0')
		decimal.count--;
	return decimal;
}

static bool
same_decimal(const BddDecimal *a, const BddDecimal *b)
{
	return a->count == b->count &&
		   (a->count == 0 || (a->negative == b->negative && a->point == b->point &&
							  memcmp(a->digits, b->digits, a->count) == 0));
}

/* As Number::toString of ECMAScript does. */
static void
put_ecmascript(StringInfo out, const BddDecimal *decimal)
{
	int count = decimal->count;
	int point = decimal->point;

	if (count == 0)
	{
		appendStringInfoChar(out, '0');
		return;
	}
	if (decimal->negative)
		appendStringInfoChar(out, '-');
	if (point > 0 && point <= 21)
	{
		appendBinaryStringInfo(out, decimal->digits, Min(count, point));
		for (int i = count; i < point; i++)
			appendStringInfoChar(out, '0');
		if (count > point)
			appendStringInfo(out, ".%.*s", count - point, decimal->digits + point);
	}
	else if (point > -6 && point <= 0)
	{
		appendStringInfoString(out, "0.");
		for (int i = point; i < 0; i++)
			appendStringInfoChar(out, '0');
		appendBinaryStringInfo(out, decimal->digits, count);
	}
	else
	{
		appendStringInfoChar(out, decimal->digits[0]);
		if (count > 1)
			appendStringInfo(out, ".%.*s", count - 1, decimal->digits + 1);
		appendStringInfo(out, "e%+d", point - 1);
	}
}

/*
 * The fewest digits that come back as the same double.  Where the server takes
 * a decimal for another double's because it lies right between two, ECMAScript
 * takes it if it is read as this one: 1e23.  Such decimals are shorter than 16
 * digits, and what the server writes instead is not.
 */
static BddDecimal
shortest_decimal(double value)
{
	char text[DOUBLE_SHORTEST_DECIMAL_LEN];
	BddDecimal decimal;

	double_to_shortest_decimal_buf(value, text);
	decimal = parse_decimal(text);
	for (int digits = 1; decimal.count >= 16 && digits < decimal.count; digits++)
	{
		char *shorter = psprintf("%.*e", digits - 1, value);

		if (strtod(shorter, NULL) == value)
			return parse_decimal(shorter);
		pfree(shorter);
	}
	return decimal;
}

static void
report_inexact(const char *text)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("number %.100s%s has no canonical form", text, strlen(text) > 100 ? "..." : ""),
			 errdetail("RFC 8785 writes numbers as double precision, which cannot say this one."),
			 errhint("With on_inexact => 'string' it becomes a string, with 'round' the nearest double.")));
}

static void
put_number(BddCanonical *canonical, Numeric number)
{
	char *text = numeric_normalize(number);
	BddDecimal exact;
	BddDecimal rounded;
	double value;

	if (canonical->inexact == ALL_DECIMAL)
	{
		appendStringInfoString(&canonical->out, text);
		return;
	}
	value = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											   NumericGetDatum(number)));
	if (isinf(value) && canonical->inexact != INEXACT_STRING)
		report_inexact(text);
	exact = parse_decimal(text);
	rounded = shortest_decimal(isinf(value) ? 0 : value);
	if (canonical->inexact == INEXACT_ROUND ||
		(!isinf(value) && same_decimal(&exact, &rounded)))
		put_ecmascript(&canonical->out, &rounded);
	else if (canonical->inexact == INEXACT_STRING)
		appendStringInfo(&canonical->out, "\"%s\"", text);
	else
		report_inexact(text);
}

/* ---------- strings and keys ---------- */

static void
put_string(StringInfo out, const char *string, int size)
{
	static const char short_escapes[] = "btn\0fr"; /* of 8 to 13 */
	int plain = 0;

	appendStringInfoCharMacro(out, '"');
	for (int i = 0; i < size; i++)
	{
		unsigned char c = string[i];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		appendBinaryStringInfo(out, string + plain, i - plain);
		plain = i + 1;
		if (c >= 0x20)
			appendStringInfo(out, "\\%c", c);
		else if (c >= 8 && c <= 13 && short_escapes[c - 8] != '\0')
			appendStringInfo(out, "\\%c", short_escapes[c - 8]);
		else
			appendStringInfo(out, "\\u%04x", c);
	}
	appendBinaryStringInfo(out, string + plain, size - plain);
	appendStringInfoCharMacro(out, '"');
}

/*
 * UTF-16 has what UTF-8 writes with four bytes (F0 and above) as surrogates,
 * which come before what begins with EE and EF.
 */
static inline int
utf16_weight(unsigned char byte)
{
	return byte >= 0xf0 ? byte - 2 : byte >= 0xee ? byte + 0x10 :
													byte;
}

static inline int
compare_pairs(const BddPair *left, const BddPair *right)
{
	int size = Min(left->size, right->size);

	for (int i = 0; i < size; i++)
		if (left->utf8[i] != right->utf8[i])
			return utf16_weight((unsigned char) left->utf8[i]) -
				   utf16_weight((unsigned char) right->utf8[i]);
	return left->size - right->size;
}

#define ST_SORT sort_pairs
#define ST_ELEMENT_TYPE BddPairPointer
#define ST_COMPARE(a, b) compare_pairs(*(a), *(b))
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

static bool
is_excluded(const ArrayType *exclude, const JsonbValue *key)
{
	ArrayIterator iterator = array_create_iterator(unconstify(ArrayType *, exclude), 0, NULL);
	Datum value;
	bool isnull;
	bool found = false;

	while (!found && array_iterate(iterator, &value, &isnull))
		found = !isnull && VARSIZE_ANY_EXHDR(DatumGetPointer(value)) == key->val.string.len &&
				memcmp(VARDATA_ANY(DatumGetPointer(value)), key->val.string.val,
					   key->val.string.len) == 0;
	array_free_iterator(iterator);
	return found;
}

/* ---------- values ---------- */

static void
put_value(BddCanonical *canonical, const JsonbValue *value)
{
	switch (value->type)
	{
		case jbvNull:
			appendStringInfoString(&canonical->out, "null");
			break;
		case jbvBool:
			appendStringInfoString(&canonical->out, value->val.boolean ? "true" : "false");
			break;
		case jbvNumeric:
			put_number(canonical, value->val.numeric);
			break;
		case jbvString:
			put_string(&canonical->out, value->val.string.val, value->val.string.len);
			break;
		case jbvBinary:
			put_container(canonical, value->val.binary.data, false);
			break;
		default:
			elog(ERROR, "unexpected type of a jsonb value: %d", value->type);
	}
}

static void
put_array(BddCanonical *canonical, JsonbIterator **iterator)
{
	JsonbValue value;
	bool first = true;

	appendStringInfoChar(&canonical->out, '[');
	while (JsonbIteratorNext(iterator, &value, true) == WJB_ELEM)
	{
		if (!first)
			appendStringInfoChar(&canonical->out, ',');
		first = false;
		put_value(canonical, &value);
	}
	appendStringInfoChar(&canonical->out, ']');
}

/* Of keys that are not excluded; returns their number. */
static int
read_pairs(BddCanonical *canonical, JsonbIterator **iterator, BddPair *pairs, bool outermost)
{
	JsonbValue key;
	int count = 0;

	while (JsonbIteratorNext(iterator, &key, true) == WJB_KEY)
	{
		BddPair *pair = &pairs[count];

		(void) JsonbIteratorNext(iterator, &pair->value, true);
		if (outermost && canonical->exclude != NULL && is_excluded(canonical->exclude, &key))
			continue;
		pair->key = key;
		pair->utf8 = pg_server_to_any(key.val.string.val, key.val.string.len, PG_UTF8);
		pair->size = pair->utf8 == key.val.string.val ? key.val.string.len : strlen(pair->utf8);
		count++;
	}
	return count;
}

static void
put_object(BddCanonical *canonical, JsonbIterator **iterator, int room, bool outermost)
{
	BddPair *pairs = palloc(Max(room, 1) * (sizeof(BddPair) + sizeof(BddPair *)));
	BddPair **sorted = (BddPair **) (pairs + Max(room, 1));
	int count = read_pairs(canonical, iterator, pairs, outermost);

	for (int i = 0; i < count; i++)
		sorted[i] = &pairs[i];
	sort_pairs(sorted, count);
	appendStringInfoChar(&canonical->out, '{');
	for (int i = 0; i < count; i++)
	{
		const JsonbValue *key = &sorted[i]->key;

		if (i > 0)
			appendStringInfoCharMacro(&canonical->out, ',');
		put_string(&canonical->out, key->val.string.val, key->val.string.len);
		appendStringInfoCharMacro(&canonical->out, ':');
		put_value(canonical, &sorted[i]->value);
	}
	appendStringInfoChar(&canonical->out, '}');
	pfree(pairs);
}

static void
put_container(BddCanonical *canonical, JsonbContainer *container, bool outermost)
{
	JsonbIterator *iterator = JsonbIteratorInit(container);
	JsonbValue value;
	JsonbIteratorToken token = JsonbIteratorNext(&iterator, &value, true);

	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (token == WJB_BEGIN_OBJECT)
		put_object(canonical, &iterator, value.val.object.nPairs, outermost);
	else if (value.val.array.rawScalar)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		put_value(canonical, &value);
	}
	else
		put_array(canonical, &iterator);
}

/* ---------- functions ---------- */

static BddInexact
inexact_argument(const char *name)
{
	static const char *const names[] = {"error", "string", "round"};

	for (int i = 0; i < lengthof(names); i++)
		if (strcmp(name, names[i]) == 0)
			return (BddInexact) i;
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("on_inexact cannot be \"%s\"", name),
			 errhint("Its values are: error, string, round.")));
	return INEXACT_ERROR;
}

/* canonical_json(jsonb, on_inexact) */
Datum
bdd_canonical_json(PG_FUNCTION_ARGS)
{
	BddCanonical canonical = {0};

	bdd_check_argument(fcinfo, 0, "document");
	bdd_check_argument(fcinfo, 1, "on_inexact");
	canonical.inexact = inexact_argument(text_to_cstring(PG_GETARG_TEXT_PP(1)));
	initStringInfo(&canonical.out);
	put_container(&canonical, &PG_GETARG_JSONB_P(0)->root, true);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(canonical.out.data, canonical.out.len));
}

static Datum
version_of(Jsonb *document, ArrayType *exclude)
{
	BddCanonical canonical = {.inexact = ALL_DECIMAL};
	char *utf8;
	Datum hash;
	text *result;

	if (ArrayGetNItems(ARR_NDIM(exclude), ARR_DIMS(exclude)) > 0)
		canonical.exclude = exclude;
	initStringInfo(&canonical.out);
	put_container(&canonical, &document->root, true);
	utf8 = pg_server_to_any(canonical.out.data, canonical.out.len, PG_UTF8);
	hash = DirectFunctionCall1(sha256_bytea,
							   PointerGetDatum(cstring_to_text_with_len(utf8,
																		utf8 == canonical.out.data ?
																			canonical.out.len :
																			strlen(utf8))));
	result = palloc(VARHDRSZ + 2 * PG_SHA256_DIGEST_LENGTH);
	SET_VARSIZE(result, VARHDRSZ + 2 * PG_SHA256_DIGEST_LENGTH);
	(void) hex_encode(VARDATA_ANY(DatumGetPointer(hash)), PG_SHA256_DIGEST_LENGTH, VARDATA(result));
	return PointerGetDatum(result);
}

/* data_version(jsonb, exclude) */
Datum
bdd_data_version_json(PG_FUNCTION_ARGS)
{
	bdd_check_argument(fcinfo, 0, "document");
	bdd_check_argument(fcinfo, 1, "list of excluded keys");
	PG_RETURN_DATUM(version_of(PG_GETARG_JSONB_P(0), PG_GETARG_ARRAYTYPE_P(1)));
}

/* data_version(text, exclude): JSON as text, so that a literal is one */
Datum
bdd_data_version_text(PG_FUNCTION_ARGS)
{
	Datum document;

	bdd_check_argument(fcinfo, 0, "document");
	bdd_check_argument(fcinfo, 1, "list of excluded keys");
	document = DirectFunctionCall1(jsonb_in,
								   CStringGetDatum(text_to_cstring(PG_GETARG_TEXT_PP(0))));
	PG_RETURN_DATUM(version_of(DatumGetJsonbP(document), PG_GETARG_ARRAYTYPE_P(1)));
}

/* The row as JSON that does not depend on the session's settings. */
static Jsonb *
row_as_json(Datum row)
{
	int nesting = NewGUCNestLevel();
	static const char *const settings[][2] = {
		{"timezone", "UTC"}, {"bytea_output", "hex"}, {"lc_monetary", "C"}};
	Datum json;

	bdd_exact_output();
	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	json = DirectFunctionCall1(row_to_json, row);
	AtEOXact_GUC(false, nesting);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(TextDatumGetCString(json))));
}

/* data_version(record, exclude) */
Datum
bdd_data_version_row(PG_FUNCTION_ARGS)
{
	bdd_check_argument(fcinfo, 0, "row");
	bdd_check_argument(fcinfo, 1, "list of excluded columns");
	PG_RETURN_DATUM(version_of(row_as_json(PG_GETARG_DATUM(0)), PG_GETARG_ARRAYTYPE_P(1)));
}
