/*-------------------------------------------------------------------------
 *
 * loaded.c
 *		Whether the library can be used: it was loaded at start, and the
 *		extension's script is of its version.
 *
 * The C code knows the columns of the tables that the script makes, and the
 * script knows the functions of the library.  Two versions meet when a server
 * was started with a new library and ALTER EXTENSION UPDATE is still to come,
 * or when that was done and the server still has the old library.  Then every
 * call and every apply ends in an error that says so; rows stay in the buffer.
 *
 * The library's version is BDD_VERSION, which the Makefile takes from the
 * control file; the script's is that of the extension in the database.
 *
 *-------------------------------------------------------------------------
 */
#include "base/base.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/xact.h"
#include "base/loaded.h"
#include "catalog/indexing.h"
#include "catalog/namespace.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/inval.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

/* Whether the versions were found to be the same, and no news came since. */
static bool known_to_match = false;

/* Counts invalidations: one may come while the version is being read. */
static uint64 news = 0;

/*
 * The table whose invalidations tell of another version: pg_extension has
 * none.  InvalidOid: not looked up yet.
 */
static Oid messenger = InvalidOid;

/*
 * Looks the messenger up; InvalidOid: there is no extension in this database.
 */
static Oid
find_messenger(void)
{
	Oid schema = get_namespace_oid(BDD_SCHEMA, true);

	return OidIsValid(schema) ? get_relname_relid("target_option", schema) : InvalidOid;
}

/*
 * A relcache callback: after an invalidation of the messenger, or of all
 * relations (InvalidOid), the version is to be looked up again.
 */
static void
relation_changed(Datum arg, Oid relid)
{
	if (relid != InvalidOid && relid != messenger)
		return;
	known_to_match = false;
	news++;
}

/* The version of the extension in this database; NULL: there is none. */
static char *
script_version(void)
{
	Relation rel = table_open(ExtensionRelationId, AccessShareLock);
	char *version = NULL;
	ScanKeyData key;
	SysScanDesc scan;
	HeapTuple tuple;

	ScanKeyInit(&key, Anum_pg_extension_extname, BTEqualStrategyNumber, F_NAMEEQ,
				CStringGetDatum(BDD_LIBRARY));
	scan = systable_beginscan(rel, ExtensionNameIndexId, true, NULL, 1, &key);
	tuple = systable_getnext(scan);
	if (HeapTupleIsValid(tuple))
	{
		bool isnull;
		Datum value = heap_getattr(tuple, Anum_pg_extension_extversion,
								   RelationGetDescr(rel), &isnull);

		if (!isnull)
			version = TextDatumGetCString(value);
	}
	systable_endscan(scan);
	table_close(rel, AccessShareLock);
	return version;
}

/* "level" is LOG or ERROR. */
static void
report_difference(int level, const char *version)
{
	ereport(level,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("batchdedup's library and the extension in this database are of different versions"),
			 errdetail("The library is of version %s, the extension of version %s.",
					   BDD_VERSION, version),
			 errhint("Run ALTER EXTENSION batchdedup UPDATE, or install the library of version %s and restart the server.",
					 version)));
}

/*
 * Raises an error if the extension here is not of the library's version.  Not
 * inside of the extension's scripts, which are on the way from one version to
 * the next.  A worker looks each time, others once until there is news.
 */
void
bdd_check_version(void)
{
	static bool listening = false;
	uint64 news_before;
	char *version;

	if ((known_to_match && !bdd_am_worker) || creating_extension || !IsTransactionState())
		return;
	if (!listening)
	{
		CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
		listening = true;
	}
	messenger = find_messenger();
	news_before = news;
	version = script_version();
	if (version == NULL)
		return;
	if (strcmp(version, BDD_VERSION) != 0)
	{
		/* Of errors of an apply the log has the SQLSTATE only. */
		if (bdd_am_worker)
			report_difference(LOG, version);
		report_difference(ERROR, version);
	}
	pfree(version);
	known_to_match = OidIsValid(messenger) && news == news_before;
}

/* ALTER EXTENSION has been run: at its commit all sessions look again. */
void
bdd_version_changed(void)
{
	Oid relid = find_messenger();

	known_to_match = false;
	if (OidIsValid(relid))
		CacheInvalidateRelcacheByRelid(relid);
}

/*
 * Without shared memory no function of ours works, nor beside a script of
 * another version.
 */
void
bdd_check_preloaded(void)
{
	if (!bdd_preloaded)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("batchdedup is not loaded at server start"),
				 errhint("Add batchdedup to shared_preload_libraries and restart the server.")));
	bdd_check_version();
}
