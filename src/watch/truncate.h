/*-------------------------------------------------------------------------
 *
 * truncate.h
 *		TRUNCATE discards buffered rows with those of the table.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_TRUNCATE_H
#define BDD_TRUNCATE_H

#include "base/base.h"

#include "nodes/parsenodes.h"

extern void bdd_table_truncated(Oid relid);
extern void bdd_before_truncate(TruncateStmt *truncate);

#endif /* BDD_TRUNCATE_H */
