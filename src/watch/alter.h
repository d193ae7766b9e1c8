/*-------------------------------------------------------------------------
 *
 * alter.h
 *		ALTER TABLE, TYPE and DOMAIN bring buffered rows into the table first, if
 *		the rows would not fit afterwards or the statement checks rows.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_ALTER_H
#define BDD_ALTER_H

#include "base/base.h"

#include "nodes/parsenodes.h"

extern void bdd_before_alter_table(AlterTableStmt *alter);
extern List *bdd_typed_targets(RangeVar *type_name);
extern void bdd_before_alter_type(AlterTableStmt *alter);
extern void bdd_before_alter_domain(AlterDomainStmt *alter);

#endif /* BDD_ALTER_H */
