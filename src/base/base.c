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

/* An argument that has no meaning when it is null. */
void
bdd_check_argument(FunctionCallInfo fcinfo, int n, const char *what)
{
	if (PG_ARGISNULL(n))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("%s must not be null", what)));
}
