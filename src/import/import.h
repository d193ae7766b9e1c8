/*-------------------------------------------------------------------------
 *
 * import.h
 *		Imports: rows of many writers that appear at once.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_IMPORT_H
#define BDD_IMPORT_H

#include "base/base.h"

#include "nodes/parsenodes.h"
#include "sql/spi.h"
#include "target/target.h"
#include "utils/uuid.h"

typedef struct BddImport
{
	pg_uuid_t id;
	char *name;
	char *status; /* of the batch; NULL: it is not locked yet */
	Oid relid;
	bool attach;
	int expected;
	List *instances; /* of char *; NIL: not known in advance */
	uint32 shape;
	BddSavedRole caller;
	BddTarget *target; /* NULL: the table is gone */
} BddImport;

typedef struct BddInstance
{
	char *name;
	bool finalized;
	Oid writer;
	Oid chunks; /* InvalidOid: there is none */
	char *bound;
	int64 rows; /* once it is finalized */
} BddInstance;

/* The column of a writer's table that tells in what order rows came. */
#define BDD_ORDER_COLUMN "batchdedup_order"

/* ---------- import_bound.c ---------- */

extern bool bdd_bounds_overlap(Oid relid, const char *a, const char *b);
extern char *bdd_bound_checked(Oid relid, char *name, const char *bound,
							   char **condition);

/* ---------- import_table.c ---------- */

extern void bdd_make_writer(BddImport *import, BddInstance *instance,
							const char *condition);
extern void bdd_empty_writer(BddImport *import, const BddInstance *instance);
extern void bdd_close_writer(BddImport *import, BddInstance *instance,
							 int64 *bytes);
extern void bdd_attach_writer(BddImport *import, const BddInstance *instance);
extern void bdd_drop_staging(Oid relid);
extern void bdd_grant_writer(const BddImport *import, Oid writer);
extern void bdd_staging_follows_extension(void);

/* ---------- import_rows.c ---------- */

extern void bdd_store_chunk(BddImport *import, const BddInstance *instance,
							int chunk, List *images);
extern int64 bdd_publish_rows(BddImport *import, List *instances,
							  int64 *inserted, int64 *updated);

#endif /* BDD_IMPORT_H */
