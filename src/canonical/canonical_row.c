/*-------------------------------------------------------------------------
 *
 * canonical_row.c
 *		data_version of rows.
 *
 * The form is that of row_to_json, read as jsonb, with the settings that
 * bdd_exact_output and "settings" below name.  Columns of the types that most
 * columns have are written without JSON in between; of another type the value
 * alone takes that way.  The order of the keys is found once for a call site
 * and row type.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/htup_details.h"
#include "canonical/canonical.h"
#include "catalog/pg_type.h"
#include "common/shortest_dec.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "parser/parse_coerce.h"
#include "sql/spi.h"
#include "utils/builtins.h"
#include "utils/bytea.h"
#include "utils/date.h"
#include "utils/datetime.h"
#include "utils/float.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/json.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/typcache.h"

PG_FUNCTION_INFO_V1(bdd_data_version_row);

typedef struct BddCanonicalColumn
{
	int index; /* in the row type */
	Oid type;  /* below domains, ANYENUMOID for enums; InvalidOid: through JSON */
	FmgrInfo to_json;
	bool needs_settings; /* the output of the type may depend on some */
	StringInfoData key;  /* as in JSON, with the colon */
	const char *utf8;
} BddCanonicalColumn;

/* Of a call site: what it knows of the row type that it saw last. */
typedef struct BddRowForm
{
	MemoryContext context;
	Oid type;
	int32 typmod;
	uint64 identifier;
	ArrayType *exclude;
	bool same_names; /* two columns do: all of the row goes through JSON */
	int count;
	BddCanonicalColumn *columns; /* in the order of their keys */
} BddRowForm;

/* ---------- through JSON ---------- */

/* Sets it, until AtEOXact_GUC, unless it is so already. */
static void
use_setting(bool already, const char *name, const char *value)
{
	if (!already)
		(void) set_config_option(name, value, PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
}

/* Under one of its names: initdb often writes the second. */
static bool
is_utc(const char *zone)
{
	return strcmp(zone, "UTC") == 0 || strcmp(zone, "Etc/UTC") == 0;
}

/* As the output of types shall be, until AtEOXact_GUC; to set one takes longer than a row. */
static int
use_exact_settings(void)
{
	int nesting = NewGUCNestLevel();

	if (DateStyle != USE_ISO_DATES || IntervalStyle != INTSTYLE_POSTGRES || extra_float_digits < 1)
		bdd_exact_output();
	use_setting(is_utc(pg_get_timezone_name(session_timezone)), "timezone", "UTC");
	use_setting(bytea_output == BYTEA_OUTPUT_HEX, "bytea_output", "hex");
	use_setting(strcmp(GetConfigOption("lc_monetary", false, false), "C") == 0, "lc_monetary", "C");
	return nesting;
}

/* A json as jsonb, by way of its text. */
static Jsonb *
parse_json(Datum json)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(TextDatumGetCString(json))));
}

/* The whole row as row_to_json writes it, with the settings above. */
static Jsonb *
row_as_json(Datum row)
{
	int nesting = use_exact_settings();
	Datum json = DirectFunctionCall1(row_to_json, row);

	AtEOXact_GUC(false, nesting);
	return parse_json(json);
}

/* to_json wants to be told the type of its argument. */
static void
prepare_to_json(BddCanonicalColumn *column, Oid type, MemoryContext context)
{
	fmgr_info_cxt(F_TO_JSON, &column->to_json, context);
	fmgr_info_set_expr((Node *) makeFuncExpr(F_TO_JSON, JSONOID,
											 list_make1(makeNullConst(type, -1, InvalidOid)),
											 InvalidOid, InvalidOid, COERCE_EXPLICIT_CALL),
					   &column->to_json);
}

/* ---------- columns ---------- */

/* Types that put_value knows, beside enums. */
static const Oid known_types[] = {
	BOOLOID, INT2OID, INT4OID, INT8OID, FLOAT4OID, FLOAT8OID, NUMERICOID, TEXTOID, VARCHAROID,
	BPCHAROID, NAMEOID, UUIDOID, DATEOID, TIMESTAMPOID, TIMESTAMPTZOID, JSONBOID, BYTEAOID};

/* Types whose JSON is the same whatever the settings are. */
static const Oid plain_types[] = {
	BOOLOID, INT2OID, INT4OID, INT8OID, NUMERICOID, TEXTOID, VARCHAROID, BPCHAROID, NAMEOID,
	UUIDOID, DATEOID, TIMESTAMPOID, JSONOID, JSONBOID, INETOID, CIDROID, MACADDROID, OIDOID,
	BITOID, VARBITOID};

/* row_to_json asks for casts each time, we do when the form is made. */
static bool
is_enum_without_cast(Oid type)
{
	Oid function;

	return get_typtype(type) == TYPTYPE_ENUM &&
		   find_coercion_pathway(JSONOID, type, COERCION_EXPLICIT, &function) != COERCION_PATH_FUNC;
}

/* Of a type; InvalidOid unless put_value knows it. */
static Oid
known_type(Oid type)
{
	Oid base = getBaseType(type);

	for (int i = 0; i < lengthof(known_types); i++)
		if (known_types[i] == base)
			return base;
	return is_enum_without_cast(base) ? ANYENUMOID : InvalidOid;
}

/* Of types that go through JSON; an array is as its elements are. */
static bool
may_need_settings(Oid type)
{
	Oid base = getBaseType(type);
	Oid element = get_element_type(base);

	if (OidIsValid(element))
		base = getBaseType(element);
	for (int i = 0; i < lengthof(plain_types); i++)
		if (plain_types[i] == base)
			return false;
	return !is_enum_without_cast(base);
}

/* For qsort: in the order of the keys. */
static int
compare_columns(const void *left, const void *right)
{
	const char *a = ((const BddCanonicalColumn *) left)->utf8;
	const char *b = ((const BddCanonicalColumn *) right)->utf8;

	return bdd_canonical_compare(a, strlen(a), b, strlen(b));
}

/*
 * How the column's value is written, and its key.  The current memory context
 * is the form's, as is "context".
 */
static void
read_column(BddCanonicalColumn *column, Form_pg_attribute attribute, int index,
			MemoryContext context)
{
	const char *name = NameStr(attribute->attname);

	column->index = index;
	column->type = known_type(attribute->atttypid);
	if (!OidIsValid(column->type))
	{
		prepare_to_json(column, attribute->atttypid, context);
		column->needs_settings = may_need_settings(attribute->atttypid);
	}
	column->utf8 = pstrdup(pg_server_to_any(name, strlen(name), PG_UTF8));
	initStringInfo(&column->key);
	bdd_canonical_string(&column->key, name, strlen(name));
	bdd_canonical_byte(&column->key, ':');
}

/*
 * The columns that are neither dropped nor excluded, in the order of their
 * keys.
 */
static void
read_columns(BddRowForm *form, TupleDesc row)
{
	form->count = 0;
	form->same_names = false;
	form->columns = palloc0(Max(row->natts, 1) * sizeof(BddCanonicalColumn));
	for (int i = 0; i < row->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(row, i);
		const char *name = NameStr(attribute->attname);

		if (!attribute->attisdropped &&
			!bdd_canonical_excluded(form->exclude, name, strlen(name)))
			read_column(&form->columns[form->count++], attribute, i, form->context);
	}
	qsort(form->columns, form->count, sizeof(BddCanonicalColumn), compare_columns);
	for (int i = 1; i < form->count; i++)
		if (strcmp(form->columns[i - 1].utf8, form->columns[i].utf8) == 0)
			form->same_names = true;
}

/*
 * Whether the form is that of the row's type, as the type is now, with the
 * same columns excluded.
 */
static bool
same_form(const BddRowForm *form, HeapTupleHeader row, const ArrayType *exclude)
{
	return form->columns != NULL && form->type == HeapTupleHeaderGetTypeId(row) &&
		   form->typmod == HeapTupleHeaderGetTypMod(row) &&
		   form->identifier == assign_record_type_identifier(form->type, form->typmod) &&
		   VARSIZE(form->exclude) == VARSIZE(exclude) &&
		   memcmp(form->exclude, exclude, VARSIZE(exclude)) == 0;
}

/*
 * The form that the call site keeps in fn_extra, made anew if the row or the
 * excluded columns are others than the last time.
 */
static BddRowForm *
form_of(FmgrInfo *function, HeapTupleHeader row, TupleDesc desc, const ArrayType *exclude)
{
	BddRowForm *form = function->fn_extra;
	MemoryContext before;

	if (form == NULL)
	{
		form = MemoryContextAllocZero(function->fn_mcxt, sizeof(BddRowForm));
		form->context = AllocSetContextCreate(function->fn_mcxt, "data_version",
											  ALLOCSET_SMALL_SIZES);
		function->fn_extra = form;
	}
	if (same_form(form, row, exclude))
		return form;
	form->columns = NULL; /* in case that we do not get to the end */
	MemoryContextReset(form->context);
	before = MemoryContextSwitchTo(form->context);
	form->type = HeapTupleHeaderGetTypeId(row);
	form->typmod = HeapTupleHeaderGetTypMod(row);
	form->identifier = assign_record_type_identifier(form->type, form->typmod);
	form->exclude = DatumGetArrayTypePCopy(PointerGetDatum(exclude));
	read_columns(form, desc);
	MemoryContextSwitchTo(before);
	return form;
}

/* ---------- values ---------- */

static void
put_cstring(BddCanonical *canonical, const char *string)
{
	bdd_canonical_string(&canonical->out, string, strlen(string));
}

static void
put_text(BddCanonical *canonical, Datum value)
{
	text *string = DatumGetTextPP(value);

	bdd_canonical_string(&canonical->out, VARDATA_ANY(string), VARSIZE_ANY_EXHDR(string));
}

static void
put_integer(BddCanonical *canonical, int64 value)
{
	char text[MAXINT8LEN + 1];
	int length = pg_lltoa(value, text);

	bdd_canonical_bytes(&canonical->out, text, length);
}

/* NaN and infinity are the strings that JSON has for them. */
static void
put_numeric(BddCanonical *canonical, Numeric value)
{
	if (numeric_is_nan(value) || numeric_is_inf(value))
		put_cstring(canonical, DatumGetCString(DirectFunctionCall1(numeric_out,
																   NumericGetDatum(value))));
	else
		bdd_canonical_number(canonical, value);
}

/* By way of a numeric, since its shortest decimal may have an exponent. */
static void
put_float(BddCanonical *canonical, const char *text)
{
	put_numeric(canonical, DatumGetNumeric(DirectFunctionCall3(numeric_in, CStringGetDatum(text),
															   ObjectIdGetDatum(InvalidOid),
															   Int32GetDatum(-1))));
}

/* Times are told in UTC. */
static void
put_time(BddCanonical *canonical, Datum value, Oid type)
{
	char text[MAXDATELEN + 1];
	const int utc = 0;

	JsonEncodeDateTime(text, value, type, type == TIMESTAMPTZOID ? &utc : NULL);
	put_cstring(canonical, text);
}

/* As with bytea_output = hex; in JSON the backslash is doubled. */
static void
put_bytea(BddCanonical *canonical, Datum value)
{
	bytea *bytes = DatumGetByteaPP(value);
	int size = VARSIZE_ANY_EXHDR(bytes);
	StringInfo out = &canonical->out;

	bdd_canonical_bytes(out, "\"\\\\x", 4);
	out->len += hex_encode(VARDATA_ANY(bytes), size,
						   bdd_canonical_room(out, (int) Min((Size) 2 * size, MaxAllocSize)));
	bdd_canonical_byte(out, '"');
}

/* Settings are changed once a row, if at all; "nesting" is then for AtEOXact_GUC. */
static void
put_through_json(BddCanonical *canonical, BddCanonicalColumn *column, Datum value, int *nesting)
{
	if (column->needs_settings && *nesting < 0)
		*nesting = use_exact_settings();
	bdd_canonical_document(canonical, parse_json(FunctionCall1(&column->to_json, value)));
}

/* Writes a value that is not null; "nesting" is that of put_through_json. */
static void
put_value(BddCanonical *canonical, BddCanonicalColumn *column, Datum value, int *nesting)
{
	char text[DOUBLE_SHORTEST_DECIMAL_LEN];

	switch (column->type)
	{
		case BOOLOID:
			bdd_canonical_bytes(&canonical->out, DatumGetBool(value) ? "true" : "false",
								DatumGetBool(value) ? 4 : 5);
			break;
		case INT2OID:
			put_integer(canonical, DatumGetInt16(value));
			break;
		case INT4OID:
			put_integer(canonical, DatumGetInt32(value));
			break;
		case INT8OID:
			put_integer(canonical, DatumGetInt64(value));
			break;
		case FLOAT4OID:
			float_to_shortest_decimal_buf(DatumGetFloat4(value), text);
			put_float(canonical, text);
			break;
		case FLOAT8OID:
			double_to_shortest_decimal_buf(DatumGetFloat8(value), text);
			put_float(canonical, text);
			break;
		case NUMERICOID:
			put_numeric(canonical, DatumGetNumeric(value));
			break;
		case TEXTOID:
		case VARCHAROID:
		case BPCHAROID:
			put_text(canonical, value);
			break;
		case NAMEOID:
			put_cstring(canonical, NameStr(*DatumGetName(value)));
			break;
		case UUIDOID:
			put_cstring(canonical, DatumGetCString(DirectFunctionCall1(uuid_out, value)));
			break;
		case ANYENUMOID:
			put_cstring(canonical, DatumGetCString(DirectFunctionCall1(enum_out, value)));
			break;
		case BYTEAOID:
			put_bytea(canonical, value);
			break;
		case DATEOID:
		case TIMESTAMPOID:
		case TIMESTAMPTZOID:
			put_time(canonical, value, column->type);
			break;
		case JSONBOID:
			bdd_canonical_document(canonical, DatumGetJsonbP(value));
			break;
		default:
			put_through_json(canonical, column, value, nesting);
			break;
	}
}

/* ---------- rows ---------- */

/*
 * Writes the row as an object.  Settings that a value has changed are undone
 * at the end.
 */
static void
put_row(BddCanonical *canonical, BddRowForm *form, HeapTupleHeader row, TupleDesc desc)
{
	HeapTupleData tuple = {.t_len = HeapTupleHeaderGetDatumLength(row), .t_data = row};
	Datum *values = palloc(desc->natts * (sizeof(Datum) + sizeof(bool)));
	bool *nulls = (bool *) (values + desc->natts);
	int nesting = -1;

	heap_deform_tuple(&tuple, desc, values, nulls);
	bdd_canonical_byte(&canonical->out, '{');
	for (int i = 0; i < form->count; i++)
	{
		BddCanonicalColumn *column = &form->columns[i];

		if (i > 0)
			bdd_canonical_byte(&canonical->out, ',');
		bdd_canonical_bytes(&canonical->out, column->key.data, column->key.len);
		if (nulls[column->index])
			bdd_canonical_bytes(&canonical->out, "null", 4);
		else
			put_value(canonical, column, values[column->index], &nesting);
	}
	bdd_canonical_byte(&canonical->out, '}');
	if (nesting >= 0)
		AtEOXact_GUC(false, nesting);
	pfree(values);
}

/* data_version(record, exclude) */
Datum
bdd_data_version_row(PG_FUNCTION_ARGS)
{
	BddCanonical canonical;
	HeapTupleHeader row;
	ArrayType *exclude;
	TupleDesc desc;
	BddRowForm *form;

	bdd_check_argument(fcinfo, 0, "row");
	bdd_check_argument(fcinfo, 1, "list of excluded columns");
	row = PG_GETARG_HEAPTUPLEHEADER(0);
	exclude = PG_GETARG_ARRAYTYPE_P(1);
	desc = lookup_rowtype_tupdesc(HeapTupleHeaderGetTypeId(row), HeapTupleHeaderGetTypMod(row));
	form = form_of(fcinfo->flinfo, row, desc, exclude);
	if (form->same_names)
	{
		ReleaseTupleDesc(desc);
		PG_RETURN_DATUM(bdd_canonical_version_of(row_as_json(HeapTupleHeaderGetDatum(row)),
												 exclude));
	}
	bdd_canonical_start(&canonical, BDD_ALL_DECIMAL, HeapTupleHeaderGetDatumLength(row));
	put_row(&canonical, form, row, desc);
	ReleaseTupleDesc(desc);
	PG_RETURN_DATUM(bdd_canonical_version(&canonical));
}
