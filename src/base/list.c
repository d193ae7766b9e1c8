/*-------------------------------------------------------------------------
 *
 * list.c
 *		Lists of names, columns of a row type, names of tables.
 *
 *-------------------------------------------------------------------------
 */
#include "base/list.h"

#include "catalog/pg_type_d.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"

/* Elements of a text[], none of which is null, as char *. */
List *
bdd_names_of(Datum array)
{
	List *names = NIL;
	Datum *elements;
	int count;

	deconstruct_array(DatumGetArrayTypeP(array), TEXTOID, -1, false,
					  TYPALIGN_INT, &elements, NULL, &count);
	for (int i = 0; i < count; i++)
		names = lappend(names, TextDatumGetCString(elements[i]));
	return names;
}

/* A list of char * as text[]. */
Datum
bdd_text_array(List *strings)
{
	Datum *values = palloc(sizeof(Datum) * (list_length(strings) + 1));
	int count = 0;
	ListCell *cell;

	foreach(cell, strings)
		values[count++] = CStringGetTextDatum(lfirst(cell));
	return PointerGetDatum(construct_array(values, count, TEXTOID, -1, false, TYPALIGN_INT));
}

/*
 * The number of a column that is not dropped; InvalidAttrNumber: there is
 * none.
 */
AttrNumber
bdd_column_number(TupleDesc desc, const char *name)
{
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute attribute = TupleDescAttr(desc, i);

		if (!attribute->attisdropped &&
			strcmp(NameStr(attribute->attname), name) == 0)
			return i + 1;
	}
	return InvalidAttrNumber;
}

/* How many of the first columns are not dropped. */
int
bdd_live_columns(TupleDesc desc, AttrNumber up_to)
{
	int count = 0;

	for (int i = 0; i < up_to; i++)
		count += !TupleDescAttr(desc, i)->attisdropped;
	return count;
}

/* schema.table, quoted where need be. */
char *
bdd_qualified_name(Oid relid)
{
	return quote_qualified_identifier(
		get_namespace_name(get_rel_namespace(relid)), get_rel_name(relid));
}
