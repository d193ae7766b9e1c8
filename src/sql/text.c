/*-------------------------------------------------------------------------
 *
 * text.c
 *		Pieces of statements: operators, collations, keys.
 *
 * Each name is qualified: a statement means the same under any search_path.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/text.h"

#include "access/nbtree.h"
#include "access/stratnum.h"
#include "catalog/pg_collation.h"
#include "catalog/pg_namespace_d.h"
#include "catalog/pg_opclass.h"
#include "catalog/pg_operator.h"
#include "catalog/pg_type.h"
#include "catalog/pg_type_d.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"
#include "utils/typcache.h"

/* schema.name, quoted where need be. */
static const char *
qualified(Oid schema, const NameData *name)
{
	return quote_qualified_identifier(get_namespace_name(schema),
									  NameStr(*name));
}

/* " OPERATOR(schema.name) ". */
void
bdd_append_operator(StringInfo sql, Oid opno)
{
	HeapTuple tuple = SearchSysCache1(OPEROID, ObjectIdGetDatum(opno));
	Form_pg_operator form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator %u", opno);
	form = (Form_pg_operator) GETSTRUCT(tuple);
	appendStringInfo(sql, " OPERATOR(%s.%s) ",
					 quote_identifier(get_namespace_name(form->oprnamespace)),
					 NameStr(form->oprname));
	ReleaseSysCache(tuple);
}

/* " COLLATE schema.name", or nothing for types without one. */
void
bdd_append_collation(StringInfo sql, Oid collation)
{
	if (OidIsValid(collation))
	{
		HeapTuple tuple = SearchSysCache1(COLLOID,
										  ObjectIdGetDatum(collation));
		Form_pg_collation form;

		if (!HeapTupleIsValid(tuple))
			elog(ERROR, "cache lookup failed for collation %u", collation);
		form = (Form_pg_collation) GETSTRUCT(tuple);
		appendStringInfo(sql, " COLLATE %s",
						 qualified(form->collnamespace, &form->collname));
		ReleaseSysCache(tuple);
	}
}

/* " schema.name". */
static void
append_opclass(StringInfo sql, Oid opclass)
{
	HeapTuple tuple = SearchSysCache1(CLAOID, ObjectIdGetDatum(opclass));
	Form_pg_opclass form;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for operator class %u", opclass);
	form = (Form_pg_opclass) GETSTRUCT(tuple);
	appendStringInfo(sql, " %s",
					 qualified(form->opcnamespace, &form->opcname));
	ReleaseSysCache(tuple);
}

/* "alias.k1 = other.k1 AND ...", as the key's index compares. */
void
bdd_append_same_key(StringInfo sql, TupleDesc desc, const BddKey *key,
					const char *alias, const char *other)
{
	for (int i = 0; i < key->count; i++)
	{
		const BddKeyColumn *column = &key->columns[i];
		const char *name =
			quote_identifier(NameStr(TupleDescAttr(desc, column->attnum - 1)->attname));

		appendStringInfo(sql, "%s%s.%s", i > 0 ? " AND " : "", alias, name);
		bdd_append_operator(sql, get_opfamily_member(column->opfamily,
													 column->input_type,
													 column->input_type,
													 BTEqualStrategyNumber));
		appendStringInfo(sql, "%s.%s", other, name);
		bdd_append_collation(sql, column->collation);
	}
}

/* "k1, ...", as ON CONFLICT finds the key's index. */
void
bdd_append_conflict_key(StringInfo sql, TupleDesc desc, const BddKey *key)
{
	for (int i = 0; i < key->count; i++)
	{
		const BddKeyColumn *column = &key->columns[i];
		const char *name =
			quote_identifier(NameStr(TupleDescAttr(desc, column->attnum - 1)->attname));

		appendStringInfo(sql, "%s%s", i > 0 ? ", " : "", name);
		bdd_append_collation(sql, column->collation);
		append_opclass(sql, column->opclass);
	}
}

/* The schema that the type is in. */
static Oid
get_type_namespace(Oid type)
{
	HeapTuple tuple = SearchSysCache1(TYPEOID, ObjectIdGetDatum(type));
	Oid result;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for type %u", type);
	result = ((Form_pg_type) GETSTRUCT(tuple))->typnamespace;
	ReleaseSysCache(tuple);
	return result;
}

/*
 * Whether values that the type's = takes for equal are the same to the byte,
 * and = is a quick function that is found under any search_path.
 */
bool
bdd_equal_is_same(Form_pg_attribute attribute)
{
	Oid type = getBaseType(attribute->atttypid);
	TypeCacheEntry *entry = lookup_type_cache(type, TYPECACHE_BTREE_OPFAMILY);
	Oid proc;

	if (get_type_namespace(type) != PG_CATALOG_NAMESPACE ||
		type == BPCHAROID || entry->btree_opintype != type)
		return false;
	proc = get_opfamily_proc(entry->btree_opf, type, type, BTEQUALIMAGE_PROC);
	return OidIsValid(proc) &&
		   DatumGetBool(OidFunctionCall1Coll(proc, attribute->attcollation,
											 ObjectIdGetDatum(type)));
}
