/*-------------------------------------------------------------------------
 *
 * import_row.h
 *		The row of an import and those of its writers.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_IMPORT_ROW_H
#define BDD_IMPORT_ROW_H

#include "base/base.h"

#include "fmgr.h"
#include "nodes/pg_list.h"
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

/* A writer of an import. */
typedef struct BddInstance
{
	char *name;
	bool finalized;
	Oid writer;
	Oid chunks; /* InvalidOid: there is none */
	char *bound;
	int64 rows; /* once it is finalized */
} BddInstance;

extern char *bdd_import_text_argument(FunctionCallInfo fcinfo, int n, const char *what);
extern List *bdd_import_names(Datum array);
extern void bdd_import_check_rights(BddTarget *target);

extern void bdd_import_begin(BddImport *import, const char *call);
extern void bdd_import_open(BddImport *import, const pg_uuid_t *id, const char *call,
							bool alone, bool may_be_gone);
extern void bdd_import_end(BddImport *import);
extern bool bdd_import_has_status(const BddImport *import, const char *status);
extern void bdd_import_check_open(const BddImport *import);

extern bool bdd_instance_read(const BddImport *import, char *name, BddInstance *instance,
							  bool alone);
extern bool bdd_instance_has_tables(const BddInstance *instance);
extern void bdd_instance_check_tables(const BddInstance *instance);

#endif /* BDD_IMPORT_ROW_H */
