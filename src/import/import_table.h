/*-------------------------------------------------------------------------
 *
 * import_table.h
 *		The tables of writers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_IMPORT_TABLE_H
#define BDD_IMPORT_TABLE_H

#include "base/base.h"

#include "import/import_row.h"

/* The column of a writer's table that tells in what order rows came. */
#define BDD_ORDER_COLUMN "batchdedup_order"

extern void bdd_make_writer(BddImport *import, BddInstance *instance,
							const char *condition);
extern void bdd_empty_writer(BddImport *import, const BddInstance *instance);
extern void bdd_close_writer(BddImport *import, BddInstance *instance,
							 int64 *bytes);
extern void bdd_attach_writer(BddImport *import, const BddInstance *instance);
extern void bdd_drop_staging(Oid relid);
extern void bdd_grant_writer(const BddImport *import, Oid writer);
extern void bdd_staging_follows_extension(void);

#endif /* BDD_IMPORT_TABLE_H */
