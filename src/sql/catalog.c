/*-------------------------------------------------------------------------
 *
 * catalog.c
 *		What our files ask of the catalog: our relations, functions, rights.
 *
 *-------------------------------------------------------------------------
 */
#include "sql/catalog.h"

#include "access/htup.h"
#include "access/htup_details.h"
#include "catalog/namespace.h"
#include "catalog/pg_language_d.h"
#include "catalog/pg_proc.h"
#include "catalog/pg_proc_d.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"
#include "utils/syscache.h"

/* OID of a relation in our schema; InvalidOid: no extension here. */
Oid
bdd_catalog_relation(const char *name)
{
	Oid schema = get_namespace_oid(BDD_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid(name, schema) : InvalidOid;
}

/* Whether it is the function of our library with this name in C. */
bool
bdd_is_function(Oid function, const char *symbol)
{
	HeapTuple tuple = SearchSysCache1(PROCOID, ObjectIdGetDatum(function));
	bool isnull;
	Datum source;
	bool result;

	if (!HeapTupleIsValid(tuple))
		return false;
	source = SysCacheGetAttr(PROCOID, tuple, Anum_pg_proc_prosrc, &isnull);
	/* Only a superuser can have created another one of the same name. */
	result = ((Form_pg_proc) GETSTRUCT(tuple))->prolang == ClanguageId &&
			 !isnull && strcmp(TextDatumGetCString(source), symbol) == 0;
	ReleaseSysCache(tuple);
	return result;
}

/* Whether the current user may see all of the table's rows. */
bool
bdd_may_read(Oid relid)
{
	return pg_class_aclcheck(relid, GetUserId(), ACL_SELECT) == ACLCHECK_OK &&
		   check_enable_rls(relid, InvalidOid, true) != RLS_ENABLED;
}
