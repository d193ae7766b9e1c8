/*-------------------------------------------------------------------------
 *
 * rename.h
 *		RENAME COLUMN and RENAME ATTRIBUTE in what the extension keeps by name.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_RENAME_H
#define BDD_RENAME_H

#include "base/base.h"

#include "nodes/parsenodes.h"

extern void bdd_after_rename(RenameStmt *rename);

#endif /* BDD_RENAME_H */
