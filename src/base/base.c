/*-------------------------------------------------------------------------
 *
 * base.c
 *		Vocabulary that every file of the extension shares.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

bool bdd_preloaded = false;
bool bdd_am_worker = false;

/* Without shared memory no function of ours works. */
void
bdd_check_preloaded(void)
{
	if (!bdd_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batchdedup is not loaded at server start"),
				 errhint("Add batchdedup to shared_preload_libraries and restart the server.")));
}

/* An argument that has no meaning when it is null. */
void
bdd_check_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
}
