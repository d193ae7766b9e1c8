/*-------------------------------------------------------------------------
 *
 * key.c
 *		Keys: the index that a target's key matches, and keys as bytes.
 *
 * No function of a type runs under a lock, so equal keys must be equal bytes.
 * Where the operator class says that equality is image equality, they are.
 * Some other types have a normal form.  For the rest two spellings of a key
 * are two entries of the buffer, and a reader of rows compares their keys
 * with the operator class and folds what is equal.
 *
 *-------------------------------------------------------------------------
 */
#include "row/key.h"

#include <math.h>

#include "access/htup_details.h"
#include "access/nbtree.h"
#include "access/tupmacs.h"
#include "catalog/pg_am_d.h"
#include "catalog/pg_class.h"
#include "catalog/pg_index.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_opfamily_d.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "common/hashfn.h"
#include "common/int128.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/timestamp.h"

/* ---------- the index ---------- */

/* Whether the index's key is these columns and no others, in any order. */
static bool
index_has_columns(Form_pg_index index, const AttrNumber *attnums, int count)
{
	if (index->indnkeyatts != count)
		return false;
	for (int i = 0; i < count; i++)
	{
		bool found = false;

		for (int j = 0; j < count && !found; j++)
			found = index->indkey.values[j] == attnums[i];
		if (!found)
			return false;
	}
	return true;
}

/* False also if the index is gone. */
static bool
is_btree(Oid index)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(index));
	bool result;

	if (!HeapTupleIsValid(tuple))
		return false;
	result = ((Form_pg_class) GETSTRUCT(tuple))->relam == BTREE_AM_OID;
	ReleaseSysCache(tuple);
	return result;
}

/* Whether ON CONFLICT can use the index for those columns. */
static bool
index_serves(HeapTuple tuple, const AttrNumber *attnums, int count)
{
	Form_pg_index index = (Form_pg_index) GETSTRUCT(tuple);

	return index->indisunique && index->indisvalid && index->indisready &&
		   index->indislive && index->indimmediate && !index->indisexclusion &&
		   heap_attisnull(tuple, Anum_pg_index_indpred, NULL) &&
		   heap_attisnull(tuple, Anum_pg_index_indexprs, NULL) &&
		   index_has_columns(index, attnums, count) &&
		   is_btree(index->indexrelid);
}

/*
 * A unique, valid, immediate btree index on exactly these columns, without
 * expressions and predicate; the primary key if it is one.  InvalidOid: none.
 */
Oid
bdd_key_index(Relation rel, const AttrNumber *attnums, int count)
{
	Oid found = InvalidOid;
	ListCell *cell;

	foreach(cell, RelationGetIndexList(rel))
	{
		Oid index = lfirst_oid(cell);
		HeapTuple tuple = SearchSysCache1(INDEXRELID,
										  ObjectIdGetDatum(index));

		if (!HeapTupleIsValid(tuple))
			continue;
		if (index_serves(tuple, attnums, count) &&
			(!OidIsValid(found) ||
			 ((Form_pg_index) GETSTRUCT(tuple))->indisprimary))
			found = index;
		ReleaseSysCache(tuple);
	}
	return found;
}

/* ---------- how columns become bytes ---------- */

/*
 * Whether the operator class promises that equal values are the same to the
 * byte, under the column's collation.
 */
static bool
equality_is_image_equality(const BddKeyColumn *column)
{
	Oid proc = get_opfamily_proc(column->opfamily, column->input_type,
								 column->input_type,
								 BTEQUALIMAGE_PROC);

	return OidIsValid(proc) &&
		   DatumGetBool(OidFunctionCall1Coll(proc, column->collation,
											 ObjectIdGetDatum(column->input_type)));
}

/*
 * Whether char(n) values that are equal differ in their trailing blanks only:
 * a nondeterministic collation takes more for equal.
 */
static bool
is_deterministic_bpchar(const BddKeyColumn *column)
{
	return (column->opfamily == BPCHAR_BTREE_FAM_OID ||
			column->opfamily == BPCHAR_PATTERN_BTREE_FAM_OID) &&
		   (!OidIsValid(column->collation) ||
			get_collation_isdeterministic(column->collation));
}

/*
 * The form for a column of a base type.  A type modifier fixes the scale of
 * a numeric and the length of a char, so there is one spelling only.
 */
static BddKeyForm
key_form(BddKeyColumn *column, Oid base_type, int32 typmod, BddKey *key)
{
	bool varlena = column->length == -1;
	BddKeyForm form = varlena ? BDD_KEY_VARLENA : BDD_KEY_FIXED;

	/*
	 * The normal forms are those of the types' own operator classes; and
	 * bpchar_pattern_ops does not look at trailing blanks, either.
	 */
	if (GetDefaultOpClass(base_type, BTREE_AM_OID) != column->opclass &&
		column->opfamily != BPCHAR_PATTERN_BTREE_FAM_OID)
		base_type = InvalidOid;
	switch (base_type)
	{
		case NUMERICOID:
			form = BDD_KEY_NUMERIC;
			break;
		case FLOAT4OID:
			form = BDD_KEY_FLOAT4;
			break;
		case FLOAT8OID:
			form = BDD_KEY_FLOAT8;
			break;
		case INTERVALOID:
			form = BDD_KEY_INTERVAL;
			break;
		case BPCHAROID:
			/* Without their blanks, equal values have equal bytes. */
			if (!is_deterministic_bpchar(column))
				key->exact = false;
			form = BDD_KEY_BPCHAR;
			break;
		default:
			if (!equality_is_image_equality(column))
				key->exact = false;
			return form;
	}
	if ((form == BDD_KEY_NUMERIC || form == BDD_KEY_BPCHAR) && typmod >= 0)
		return BDD_KEY_VARLENA;
	key->one_spelling = false;
	return form;
}

/*
 * Fills in how the index compares the column, and the form of its bytes.  The
 * column is one of the index's.
 */
static void
describe_column(Relation rel, HeapTuple index, AttrNumber attnum,
				BddKeyColumn *column, BddKey *key)
{
	Form_pg_index form = (Form_pg_index) GETSTRUCT(index);
	Form_pg_attribute attribute = TupleDescAttr(RelationGetDescr(rel),
												attnum - 1);
	int32 typmod = attribute->atttypmod;
	Oid base_type = getBaseTypeAndTypmod(attribute->atttypid, &typmod);
	oidvector *classes;
	oidvector *collations;
	int position = 0;
	bool isnull;

	classes = (oidvector *)
		DatumGetPointer(SysCacheGetAttr(INDEXRELID, index,
										Anum_pg_index_indclass, &isnull));
	collations = (oidvector *)
		DatumGetPointer(SysCacheGetAttr(INDEXRELID, index,
										Anum_pg_index_indcollation, &isnull));
	while (form->indkey.values[position] != attnum)
		position++;

	column->attnum = attnum;
	column->length = attribute->attlen;
	column->by_value = attribute->attbyval;
	column->type = attribute->atttypid;
	column->opclass = classes->values[position];
	column->opfamily = get_opclass_family(column->opclass);
	column->input_type = get_opclass_input_type(column->opclass);
	column->collation = collations->values[position];
	column->form = key_form(column, base_type, typmod, key);
}

/* Describes the key columns as the index compares them. */
void
bdd_key_describe(Relation rel, Oid index, const AttrNumber *attnums,
				 int count, BddKey *key)
{
	HeapTuple tuple = SearchSysCache1(INDEXRELID, ObjectIdGetDatum(index));

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for index %u", index);
	memset(key, 0, sizeof(*key));
	key->count = count;
	key->exact = true;
	key->one_spelling = true;
	for (int i = 0; i < count; i++)
		describe_column(rel, tuple, attnums[i], &key->columns[i], key);
	ReleaseSysCache(tuple);
}

/* ---------- encoding ---------- */

/* Length first, so that ('a', 'bc') and ('ab', 'c') differ. */
static void
append_bytes(StringInfo bytes, const char *data, uint32 length)
{
	appendBinaryStringInfo(bytes, (const char *) &length, sizeof(length));
	appendBinaryStringInfo(bytes, data, length);
}

/*
 * The value is neither compressed nor stored elsewhere; its header may be
 * short.
 */
static void
append_varlena(StringInfo bytes, struct varlena *value)
{
	append_bytes(bytes, VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value));
}

/*
 * A value that is passed by value takes as many bytes as a Datum; those behind
 * its length are zero.
 */
static void
append_fixed(StringInfo bytes, const BddKeyColumn *column, Datum value)
{
	if (column->by_value)
	{
		char stored[sizeof(Datum)] = {0};

		store_att_byval(stored, value, column->length);
		appendBinaryStringInfo(bytes, stored, sizeof(stored));
	}
	else
		appendBinaryStringInfo(bytes, DatumGetPointer(value), column->length);
}

/* -0 equals 0, and all NaNs are equal: of each one spelling is taken. */
static void
append_float8(StringInfo bytes, double value)
{
	if (isnan(value))
		value = get_float8_nan();
	if (value == 0)
		value = 0;
	appendBinaryStringInfo(bytes, (const char *) &value, sizeof(value));
}

/*
 * Trailing blanks do not count when values are compared, so they are left out.
 */
static void
append_bpchar(StringInfo bytes, Datum value)
{
	struct varlena *text = PG_DETOAST_DATUM_PACKED(value);
	char *data = VARDATA_ANY(text);
	uint32 length = VARSIZE_ANY_EXHDR(text);

	while (length > 0 && data[length - 1] == ' ')
		length--;
	append_bytes(bytes, data, length);
}

/* As the server compares intervals: in microseconds, a month has 30 days. */
static void
append_interval(StringInfo bytes, const Interval *interval)
{
	INT128 span = int64_to_int128(interval->time);
	int64 days = interval->month * INT64CONST(30) + interval->day;

	int128_add_int64_mul_int64(&span, days, USECS_PER_DAY);
	appendBinaryStringInfo(bytes, (const char *) &span, sizeof(span));
}

/*
 * Appends the column's value in its normal form.  It is of a fixed length or
 * begins with it, so nothing has to separate columns.
 */
static void
append_column(StringInfo bytes, const BddKeyColumn *column, Datum value)
{
	switch (column->form)
	{
		case BDD_KEY_FIXED:
			append_fixed(bytes, column, value);
			break;
		case BDD_KEY_VARLENA:
			append_varlena(bytes, PG_DETOAST_DATUM_PACKED(value));
			break;
		case BDD_KEY_NUMERIC:
			append_varlena(bytes, (struct varlena *)
									  DatumGetPointer(DirectFunctionCall1(numeric_trim_scale,
																		  value)));
			break;
		case BDD_KEY_FLOAT4:
			append_float8(bytes, DatumGetFloat4(value));
			break;
		case BDD_KEY_FLOAT8:
			append_float8(bytes, DatumGetFloat8(value));
			break;
		case BDD_KEY_BPCHAR:
			append_bpchar(bytes, value);
			break;
		case BDD_KEY_INTERVAL:
			append_interval(bytes, DatumGetIntervalP(value));
			break;
	}
}

/*
 * Appends the key's bytes and returns their hash.  "values" are in the order
 * of the key's columns and not null.
 */
uint32
bdd_key_encode(const BddKey *key, const Datum *values, StringInfo bytes)
{
	int start = bytes->len;

	for (int i = 0; i < key->count; i++)
		append_column(bytes, &key->columns[i], values[i]);
	return hash_bytes((unsigned char *) bytes->data + start,
					  bytes->len - start);
}
