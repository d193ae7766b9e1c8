/*-------------------------------------------------------------------------
 *
 * drop.h
 *		What is dropped: tables, columns, the extension, databases.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_DROP_H
#define BDD_DROP_H

#include "base/base.h"

#include "nodes/parsenodes.h"

extern void bdd_object_dropped(Oid class, Oid object, int sub_object);
extern void bdd_before_drop(DropStmt *drop);

#endif /* BDD_DROP_H */
