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
#include "canonical/canonical.h"

#include <math.h>

#include "catalog/pg_type_d.h"
#include "common/sha2.h"
#include "common/shortest_dec.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "port/pg_bswap.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/numeric.h"

PG_FUNCTION_INFO_V1(bdd_canonical_json);
PG_FUNCTION_INFO_V1(bdd_data_version_json);
PG_FUNCTION_INFO_V1(bdd_data_version_text);

/* A key of an object, and where its value is. */
typedef struct BddPair
{
	const char *key;
	int size;
	const char *utf8; /* of the key */
	int utf8_size;
	JEntry entry; /* of the value */
	uint32 offset;
	uint32 end;
} BddPair;

/* The first eight bytes of a key tell most keys apart. */
typedef struct BddOrder
{
	uint64 head;
	const BddPair *pair;
} BddOrder;

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

/* Whether the numbers are equal; a zero has no sign. */
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

/* The error for a number that no double says, or that is too large for one. */
static void
report_inexact(const char *text)
{
	ereport(ERROR,
			(errcode(ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE),
			 errmsg("number %.100s%s has no canonical form", text, strlen(text) > 100 ? "..." : ""),
			 errdetail("RFC 8785 writes numbers as double precision, which cannot say this one."),
			 errhint("With on_inexact => 'string' it becomes a string, with 'round' the nearest double.")));
}

/*
 * Writes the number as canonical->inexact says: as an exact decimal, or as the
 * double that is nearest to it.
 */
void
bdd_canonical_number(BddCanonical *canonical, Numeric number)
{
	char *text = numeric_normalize(number);
	BddDecimal exact;
	BddDecimal rounded;
	double value;

	if (canonical->inexact == BDD_ALL_DECIMAL)
	{
		bdd_canonical_bytes(&canonical->out, text, strlen(text));
		return;
	}
	value = DatumGetFloat8(DirectFunctionCall1(numeric_float8_no_overflow,
											   NumericGetDatum(number)));
	if (isinf(value) && canonical->inexact != BDD_INEXACT_STRING)
		report_inexact(text);
	exact = parse_decimal(text);
	rounded = shortest_decimal(isinf(value) ? 0 : value);
	if (canonical->inexact == BDD_INEXACT_ROUND ||
		(!isinf(value) && same_decimal(&exact, &rounded)))
		put_ecmascript(&canonical->out, &rounded);
	else if (canonical->inexact == BDD_INEXACT_STRING)
		appendStringInfo(&canonical->out, "\"%s\"", text);
	else
		report_inexact(text);
}

/* ---------- strings and keys ---------- */

#define EVERY_BYTE(value) (~UINT64CONST(0) / 0xff * (value))

/* Is one of eight bytes a quote, a backslash or a control character? */
static inline bool
has_escape(uint64 bytes)
{
	uint64 quotes = bytes ^ EVERY_BYTE('"');
	uint64 backslashes = bytes ^ EVERY_BYTE('\\');

	/* a subtraction borrows at the first byte that is less, if there is one */
	return (((bytes - EVERY_BYTE(0x20)) & ~bytes) | ((quotes - EVERY_BYTE(1)) & ~quotes) |
			((backslashes - EVERY_BYTE(1)) & ~backslashes)) &
		   EVERY_BYTE(0x80);
}

/* Copies what needs no escape, and returns how much that is. */
static inline int
copy_plain(char *to, const char *from, int size)
{
	int i = 0;

	for (; i + (int) sizeof(uint64) <= size; i += sizeof(uint64))
	{
		uint64 bytes;

		memcpy(&bytes, from + i, sizeof(bytes));
		if (has_escape(bytes))
			break;
		memcpy(to + i, &bytes, sizeof(bytes));
	}
	for (; i < size; i++)
	{
		unsigned char c = from[i];

		if (c < 0x20 || c == '"' || c == '\\')
			break;
		to[i] = c;
	}
	return i;
}

/*
 * Writes one byte as JSON escapes it, with at most six; returns where it ends.
 */
static char *
put_escape(char *to, unsigned char c)
{
	static const char short_escapes[] = "btn\0fr"; /* of 8 to 13 */
	static const char digits[] = "0123456789abcdef";

	*to++ = '\\';
	if (c >= 0x20)
		*to++ = c;
	else if (c >= 8 && c <= 13 && short_escapes[c - 8] != '\0')
		*to++ = short_escapes[c - 8];
	else
	{
		memcpy(to, "u00", 3);
		to[3] = digits[c >> 4];
		to[4] = digits[c & 15];
		to += 5;
	}
	return to;
}

/* Writes the string, which is in the server's encoding, with quotes. */
void
bdd_canonical_string(StringInfo out, const char *string, int size)
{
	char *to = bdd_canonical_room(out, size + 2);
	int done;

	*to++ = '"';
	done = copy_plain(to, string, size);
	to += done;
	while (done < size)
	{
		int plain;

		out->len = to - out->data;
		to = put_escape(bdd_canonical_room(out, size - done + 6), string[done]);
		done++;
		plain = copy_plain(to, string + done, size - done);
		to += plain;
		done += plain;
	}
	*to++ = '"';
	out->len = to - out->data;
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

/* Of keys, by their UTF-16 code units. */
int
bdd_canonical_compare(const char *left, int left_size, const char *right, int right_size)
{
	int size = Min(left_size, right_size);

	for (int i = 0; i < size; i++)
		if (left[i] != right[i])
			return utf16_weight((unsigned char) left[i]) - utf16_weight((unsigned char) right[i]);
	return left_size - right_size;
}

/* Keys have no byte of zero, so what a short one lacks comes first. */
static inline uint64
head_of(const char *key, int size)
{
	uint64 head = 0;

	if (size >= (int) sizeof(head))
	{
		memcpy(&head, key, sizeof(head));
		if ((head & EVERY_BYTE(0x80)) == 0)
			return pg_hton64(head);
		size = sizeof(head);
		head = 0;
	}
	for (int i = 0; i < size; i++)
		head |= (uint64) utf16_weight((unsigned char) key[i]) << (56 - 8 * i);
	return head;
}

/*
 * For sort_pairs: all of a key is looked at only where the first bytes are
 * equal.
 */
static inline int
compare_order(const BddOrder *left, const BddOrder *right)
{
	if (left->head != right->head)
		return left->head < right->head ? -1 : 1;
	return bdd_canonical_compare(left->pair->utf8, left->pair->utf8_size,
								 right->pair->utf8, right->pair->utf8_size);
}

#define ST_SORT sort_pairs
#define ST_ELEMENT_TYPE BddOrder
#define ST_COMPARE(a, b) compare_order(a, b)
#define ST_SCOPE static
#define ST_DEFINE
#include "lib/sort_template.h"

/* Whether the array of texts has the key; nulls in it count for nothing. */
bool
bdd_canonical_excluded(const ArrayType *exclude, const char *key, int size)
{
	ArrayIterator iterator = array_create_iterator(unconstify(ArrayType *, exclude), 0, NULL);
	Datum value;
	bool isnull;
	bool found = false;

	while (!found && array_iterate(iterator, &value, &isnull))
		found = !isnull && VARSIZE_ANY_EXHDR(DatumGetPointer(value)) == size &&
				memcmp(VARDATA_ANY(DatumGetPointer(value)), key, size) == 0;
	array_free_iterator(iterator);
	return found;
}

/* ---------- values ---------- */

/* An array's element or an object's value, which "base" has at that offset. */
static void
put_entry(BddCanonical *canonical, JEntry entry, char *base, uint32 offset, uint32 end)
{
	if (JBE_ISSTRING(entry))
		bdd_canonical_string(&canonical->out, base + offset, end - offset);
	else if (JBE_ISNUMERIC(entry))
		bdd_canonical_number(canonical, (Numeric) (base + INTALIGN(offset)));
	else if (JBE_ISNULL(entry))
		bdd_canonical_bytes(&canonical->out, "null", 4);
	else if (JBE_ISBOOL_TRUE(entry))
		bdd_canonical_bytes(&canonical->out, "true", 4);
	else if (JBE_ISBOOL_FALSE(entry))
		bdd_canonical_bytes(&canonical->out, "false", 5);
	else
		put_container(canonical, (JsonbContainer *) (base + INTALIGN(offset)), false);
}

/* A scalar is an array of one, without brackets. */
static void
put_array(BddCanonical *canonical, JsonbContainer *container)
{
	int count = JsonContainerSize(container);
	char *base = (char *) &container->children[count];
	bool brackets = !JsonContainerIsScalar(container);
	uint32 offset = 0;

	if (brackets)
		bdd_canonical_byte(&canonical->out, '[');
	for (int i = 0; i < count; i++)
	{
		JEntry entry = container->children[i];
		uint32 end = offset;

		JBE_ADVANCE_OFFSET(end, entry);
		if (i > 0)
			bdd_canonical_byte(&canonical->out, ',');
		put_entry(canonical, entry, base, offset, end);
		offset = end;
	}
	if (brackets)
		bdd_canonical_byte(&canonical->out, ']');
}

/* Keys first, then the values in the same order; returns how many are not excluded. */
static int
read_pairs(JsonbContainer *container, const ArrayType *exclude, BddPair *pairs)
{
	int total = JsonContainerSize(container);
	const char *base = (char *) &container->children[2 * total];
	bool is_utf8 = GetDatabaseEncoding() == PG_UTF8;
	uint32 key_offset = 0;
	uint32 offset = getJsonbOffset(container, total);
	int count = 0;

	for (int i = 0; i < total; i++)
	{
		BddPair *pair = &pairs[count];

		pair->key = base + key_offset;
		pair->size = -(int) key_offset;
		JBE_ADVANCE_OFFSET(key_offset, container->children[i]);
		pair->size += key_offset;
		pair->entry = container->children[total + i];
		pair->offset = offset;
		JBE_ADVANCE_OFFSET(offset, pair->entry);
		pair->end = offset;
		if (exclude != NULL && bdd_canonical_excluded(exclude, pair->key, pair->size))
			continue;
		pair->utf8 = is_utf8 ? pair->key : pg_server_to_any(pair->key, pair->size, PG_UTF8);
		pair->utf8_size = pair->utf8 == pair->key ? pair->size : strlen(pair->utf8);
		count++;
	}
	return count;
}

/* Writes the object with its keys in order, without those to exclude. */
static void
put_object(BddCanonical *canonical, JsonbContainer *container, const ArrayType *exclude)
{
	int total = JsonContainerSize(container);
	char *base = (char *) &container->children[2 * total];
	BddPair *pairs = palloc(Max(total, 1) * (sizeof(BddPair) + sizeof(BddOrder)));
	BddOrder *order = (BddOrder *) (pairs + Max(total, 1));
	int count = read_pairs(container, exclude, pairs);

	for (int i = 0; i < count; i++)
	{
		order[i].head = head_of(pairs[i].utf8, pairs[i].utf8_size);
		order[i].pair = &pairs[i];
	}
	sort_pairs(order, count);
	bdd_canonical_byte(&canonical->out, '{');
	for (int i = 0; i < count; i++)
	{
		const BddPair *pair = order[i].pair;

		if (i > 0)
			bdd_canonical_byte(&canonical->out, ',');
		bdd_canonical_string(&canonical->out, pair->key, pair->size);
		bdd_canonical_byte(&canonical->out, ':');
		put_entry(canonical, pair->entry, base, pair->offset, pair->end);
	}
	bdd_canonical_byte(&canonical->out, '}');
	pfree(pairs);
}

/*
 * Writes an object, an array or a scalar.  Keys are excluded from the
 * outermost object only.
 */
static void
put_container(BddCanonical *canonical, JsonbContainer *container, bool outermost)
{
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	if (JsonContainerIsObject(container))
		put_object(canonical, container, outermost ? canonical->exclude : NULL);
	else
		put_array(canonical, container);
}

/* Writes the document with all of its keys, whatever "exclude" says. */
void
bdd_canonical_document(BddCanonical *canonical, Jsonb *document)
{
	put_container(canonical, &document->root, false);
}

/* ---------- results ---------- */

/*
 * Keeps room for the header of a varlena in front, so that nobody has to copy
 * what comes out.
 */
void
bdd_canonical_start(BddCanonical *canonical, BddInexact inexact, Size expected)
{
	initStringInfo(&canonical->out);
	if (expected < MaxAllocSize / 2)
		enlargeStringInfo(&canonical->out, expected + VARHDRSZ);
	canonical->out.len = VARHDRSZ;
	canonical->inexact = inexact;
	canonical->exclude = NULL;
}

/* sha256 of what has been written. */
Datum
bdd_canonical_version(BddCanonical *canonical)
{
	StringInfo out = &canonical->out;
	char *start = out->data + VARHDRSZ;
	char *utf8 = pg_server_to_any(start, out->len - VARHDRSZ, PG_UTF8);
	text *bytes = utf8 == start ? (text *) out->data : cstring_to_text(utf8);
	Datum hash;
	text *result;

	if (utf8 == start)
		SET_VARSIZE(bytes, out->len);
	hash = DirectFunctionCall1(sha256_bytea, PointerGetDatum(bytes));
	result = palloc(VARHDRSZ + 2 * PG_SHA256_DIGEST_LENGTH);
	SET_VARSIZE(result, VARHDRSZ + 2 * PG_SHA256_DIGEST_LENGTH);
	(void) hex_encode(VARDATA_ANY(DatumGetPointer(hash)), PG_SHA256_DIGEST_LENGTH, VARDATA(result));
	return PointerGetDatum(result);
}

/* ---------- functions ---------- */

/*
 * The names are in the order of BddInexact; BDD_ALL_DECIMAL is none of them.
 */
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
	return BDD_INEXACT_ERROR;
}

/* canonical_json(jsonb, on_inexact) */
Datum
bdd_canonical_json(PG_FUNCTION_ARGS)
{
	BddCanonical canonical;
	Jsonb *document;

	bdd_check_argument(fcinfo, 0, "document");
	bdd_check_argument(fcinfo, 1, "on_inexact");
	document = PG_GETARG_JSONB_P(0);
	bdd_canonical_start(&canonical, inexact_argument(text_to_cstring(PG_GETARG_TEXT_PP(1))),
						VARSIZE(document));
	bdd_canonical_document(&canonical, document);
	SET_VARSIZE(canonical.out.data, canonical.out.len);
	PG_RETURN_TEXT_P((text *) canonical.out.data);
}

/* The data_version of the document without the outermost keys in "exclude". */
Datum
bdd_canonical_version_of(Jsonb *document, ArrayType *exclude)
{
	BddCanonical canonical;

	bdd_canonical_start(&canonical, BDD_ALL_DECIMAL, VARSIZE(document));
	if (ArrayGetNItems(ARR_NDIM(exclude), ARR_DIMS(exclude)) > 0)
		canonical.exclude = exclude;
	put_container(&canonical, &document->root, true);
	return bdd_canonical_version(&canonical);
}

/* data_version(jsonb, exclude) */
Datum
bdd_data_version_json(PG_FUNCTION_ARGS)
{
	bdd_check_argument(fcinfo, 0, "document");
	bdd_check_argument(fcinfo, 1, "list of excluded keys");
	PG_RETURN_DATUM(bdd_canonical_version_of(PG_GETARG_JSONB_P(0), PG_GETARG_ARRAYTYPE_P(1)));
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
	PG_RETURN_DATUM(bdd_canonical_version_of(DatumGetJsonbP(document), PG_GETARG_ARRAYTYPE_P(1)));
}
