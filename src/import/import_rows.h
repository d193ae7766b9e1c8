/*-------------------------------------------------------------------------
 *
 * import_rows.h
 *		The rows of writers: chunks, and what is published.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_IMPORT_ROWS_H
#define BDD_IMPORT_ROWS_H

#include "base/base.h"

#include "import/import_row.h"

extern void bdd_store_chunk(BddImport *import, const BddInstance *instance,
							int chunk, List *images);
extern int64 bdd_publish_rows(BddImport *import, List *instances,
							  int64 *inserted, int64 *updated);

#endif /* BDD_IMPORT_ROWS_H */
