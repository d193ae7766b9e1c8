/*-------------------------------------------------------------------------
 *
 * text.h
 *		Pieces of statements: operators, collations, keys.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TEXT_H
#define BDD_TEXT_H

#include "base/base.h"

#include "access/tupdesc.h"
#include "catalog/pg_attribute.h"
#include "lib/stringinfo.h"
#include "row/key.h"

extern void bdd_append_operator(StringInfo sql, Oid opno);
extern void bdd_append_collation(StringInfo sql, Oid collation);
extern void bdd_append_same_key(StringInfo sql, TupleDesc desc, const BddKey *key,
								const char *alias, const char *other);
extern void bdd_append_conflict_key(StringInfo sql, TupleDesc desc, const BddKey *key);
extern bool bdd_equal_is_same(Form_pg_attribute attribute);

#endif /* BDD_TEXT_H */
