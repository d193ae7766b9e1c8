/*-------------------------------------------------------------------------
 *
 * privilege.c
 *		What a caller may do with a target.
 *
 * Rows are applied later, as the owner of the table.  So the caller's rights
 * are checked at the call: INSERT on the columns that a row gives, UPDATE on
 * those of them that may overwrite, DELETE for a delete.
 *
 *-------------------------------------------------------------------------
 */
#include "target/privilege.h"

#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/lsyscache.h"
#include "utils/rls.h"

/*
 * The buffer has no policies, so it is closed to a caller that is bound by
 * those of the table.
 */
void
bdd_check_row_security(const BddTarget *target)
{
	if (bdd_row_security_binds(target))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("row-level security of \"%s\" applies to role \"%s\", who therefore cannot read its buffer",
						get_rel_name(target->relid),
						GetUserNameFromId(GetUserId(), false)),
				 errhint("Read the table itself.")));
}

/*
 * An error unless the caller has the right on the table, or on each column of
 * the set.
 */
static void
check_columns(const BddTarget *target, const BddColumns *columns,
			  AclMode mode)
{
	Oid role = GetUserId();

	if (pg_class_aclcheck(target->relid, role, mode) == ACLCHECK_OK)
		return;
	for (int i = 0; i < target->shape.desc->natts; i++)
		if (bdd_column_in(columns, i) &&
			pg_attribute_aclcheck(target->relid, i + 1, role,
								  mode) != ACLCHECK_OK)
			aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE,
						   get_rel_name(target->relid));
}

/* INSERT on what is given, UPDATE on what of it may overwrite. */
void
bdd_check_may_upsert(BddTarget *target, const BddColumns *update,
					 const BddColumns *given)
{
	Oid role = GetUserId();

	if (target->trusted_role == role)
		return;
	check_columns(target, given, ACL_INSERT);
	check_columns(target, update, ACL_UPDATE);
	if (pg_class_aclmask(target->relid, role, ACL_INSERT | ACL_UPDATE,
						 ACLMASK_ALL) == (ACL_INSERT | ACL_UPDATE))
		target->trusted_role = role;
}

/* For rows that are still to come: INSERT and UPDATE of all columns. */
void
bdd_check_may_upsert_all(BddTarget *target)
{
	bdd_check_may_upsert(target, target->shape.update, target->shape.insert);
}

/* There is no DELETE on columns. */
void
bdd_check_may_delete(BddTarget *target)
{
	if (pg_class_aclcheck(target->relid, GetUserId(),
						  ACL_DELETE) != ACLCHECK_OK)
		aclcheck_error(ACLCHECK_NO_PRIV, OBJECT_TABLE,
					   get_rel_name(target->relid));
}

/*
 * Policies cannot be checked when the row is applied by somebody else, so a
 * caller whom they bind does not use the buffer.
 */
bool
bdd_row_security_binds(const BddTarget *target)
{
	return target->row_security &&
		   check_enable_rls(target->relid, InvalidOid, true) == RLS_ENABLED;
}
