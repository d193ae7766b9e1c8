/*-------------------------------------------------------------------------
 *
 * list.h
 *		Lists of names, columns of a row type, names of tables.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_LIST_H
#define BDD_LIST_H

#include "base/base.h"

#include "access/attnum.h"
#include "access/tupdesc.h"
#include "nodes/pg_list.h"

extern List *bdd_names_of(Datum array);
extern Datum bdd_text_array(List *strings);
extern AttrNumber bdd_column_number(TupleDesc desc, const char *name);
extern int bdd_live_columns(TupleDesc desc, AttrNumber up_to);
extern char *bdd_qualified_name(Oid relid);

#endif /* BDD_LIST_H */
