/*-------------------------------------------------------------------------
 *
 * sync.c
 *		Syncs: the rows of batchdedup.sync_row, their owners, and the lock of a run.
 *
 * A sync belongs to the role that made it.  What it reads, and all that is
 * written in its mapping, runs as that role, whatever role calls; so only a role
 * that has its rights may run or change the sync.
 *
 * One run at a time: a run holds a lock of its session on the sync.  How far a
 * sync is changes in the transaction that writes a slice.  A run sees a pause or
 * another watermark at its next slice; one that comes while a slice is written
 * makes the server refuse the slice, which is then done again.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/sync.h"

#include "access/xact.h"
#include "base/list.h"
#include "catalog/pg_class.h"
#include "catalog/pg_type_d.h"
#include "fmgr.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "sql/catalog.h"
#include "storage/lmgr.h"
#include "storage/lock.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/syscache.h"

static const char *const kind_names[] = {
	[BDD_CURSOR_CLOCK] = "clock",
	[BDD_CURSOR_SEQUENCE] = "sequence",
	[BDD_CURSOR_OTHER] = "other",
	[BDD_CURSOR_FULL] = "full",
	[BDD_CURSOR_TRIGGER] = "trigger",
};

/* The kind as it stands in sync_row.cursor_kind. */
const char *
bdd_cursor_kind_name(BddCursorKind kind)
{
	return kind_names[kind];
}

/* The kind that sync_row.cursor_kind names; an unknown name is an internal error. */
BddCursorKind
bdd_cursor_kind(const char *name)
{
	for (int i = 0; i < lengthof(kind_names); i++)
		if (strcmp(kind_names[i], name) == 0)
			return (BddCursorKind) i;
	elog(ERROR, "unknown kind of cursor \"%s\"", name);
}

/* ---------- reading ---------- */

/* A text of the row that bdd_sync_read has found; NULL stays NULL. */
static char *
text_of(int column)
{
	bool isnull;
	Datum value = bdd_spi_value(0, column, &isnull);

	return isnull ? NULL : TextDatumGetCString(value);
}

/* An array of texts of that row, as a list; NIL where it is NULL. */
static List *
names_of(int column)
{
	bool isnull;
	Datum value = bdd_spi_value(0, column, &isnull);

	return isnull ? NIL : bdd_names_of(value);
}

/* A boolean of that row, which is never NULL. */
static bool
flag_of(int column)
{
	bool isnull;

	return DatumGetBool(bdd_spi_value(0, column, &isnull));
}

/* An oid of that row; InvalidOid where it is NULL. */
static Oid
oid_of(int column)
{
	bool isnull;
	Datum value = bdd_spi_value(0, column, &isnull);

	return isnull ? InvalidOid : DatumGetObjectId(value);
}

/* An array of types of that row, as a list of oids. */
static List *
oids_of(int column)
{
	bool isnull;
	ArrayType *array = DatumGetArrayTypeP(bdd_spi_value(0, column, &isnull));
	Datum *values;
	int count;
	List *oids = NIL;

	deconstruct_array(array, ARR_ELEMTYPE(array), sizeof(Oid), true, TYPALIGN_INT,
					  &values, NULL, &count);
	for (int i = 0; i < count; i++)
		oids = lappend_oid(oids, DatumGetObjectId(values[i]));
	return oids;
}

/* In the order of the statement below. */
static void
parse_sync(BddSync *sync)
{
	bool isnull;
	int i = 1;

	sync->id = DatumGetInt32(bdd_spi_value(0, i++, &isnull));
	sync->name = text_of(i++);
	sync->owner = oid_of(i++);
	sync->source = oid_of(i++);
	sync->target = oid_of(i++);
	sync->key = names_of(i++);
	sync->position = names_of(i++);
	sync->position_types = oids_of(i++);
	sync->cursor_columns = DatumGetInt32(bdd_spi_value(0, i++, &isnull));
	sync->columns = names_of(i++);
	sync->expressions = names_of(i++);
	sync->filter = text_of(i++);
	sync->slice_rows = DatumGetInt32(bdd_spi_value(0, i++, &isnull));
	sync->kind = bdd_cursor_kind(text_of(i++));
	sync->sequence = oid_of(i++);
	sync->lag = palloc(sizeof(Interval));
	*sync->lag = *DatumGetIntervalP(bdd_spi_value(0, i++, &isnull));
	sync->buffered = flag_of(i++);
	sync->change_log = flag_of(i++);
	sync->log_values = flag_of(i++);
	sync->hash_exclude = names_of(i++);
	sync->delete_missing = flag_of(i++);
	sync->soft = flag_of(i++);
	sync->tombstone = text_of(i++);
	sync->deleted_column = text_of(i++);
	sync->version_column = text_of(i++);
	sync->captured = oid_of(i++);
	sync->paused = flag_of(i++);
	sync->watermark = names_of(i++);
	sync->bound = text_of(i++);
	sync->moment = text_of(i++);
	sync->moment_value = text_of(i++);
	sync->complete = flag_of(i++);
	sync->truncated = flag_of(i++);
	sync->settings = names_of(i++);
}

/* False: there is none of that name.  The caller is connected to SPI. */
bool
bdd_sync_read(const char *name, BddSync *sync)
{
	static BddKeptPlan select = {
		"SELECT id, name, owner::pg_catalog.oid, source::pg_catalog.oid, target::pg_catalog.oid, key_columns, position_columns, "
		"position_types, cursor_columns, columns, expressions, filter, slice_rows, cursor_kind, "
		"sequence::pg_catalog.oid, lag, write_to = 'buffer', change_log, log_values, hash_exclude, "
		"delete_missing <> 'no', delete_missing = 'soft', tombstone, deleted_column, version_column, "
		"captured::pg_catalog.oid, paused, watermark, bound, moment, moment_value, complete, truncated, settings "
		"FROM batchdedup.sync_row WHERE name = $1",
		1,
		{TEXTOID}};
	Datum values[] = {CStringGetTextDatum(name)};
	bool found;

	memset(sync, 0, sizeof(*sync));
	found = bdd_plan_run_own(&select, values, NULL) > 0;
	if (found)
		parse_sync(sync);
	return found;
}

/* As bdd_sync_read, but a name that no sync has is an error. */
void
bdd_sync_read_existing(const char *name, BddSync *sync)
{
	if (!bdd_sync_read(name, sync))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("sync \"%s\" does not exist", name)));
}

/* Raises an error unless the current user has the rights of the sync's owner. */
void
bdd_sync_check_owner(const BddSync *sync)
{
	if (!has_privs_of_role(GetUserId(), sync->owner))
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("must be owner of sync \"%s\"", sync->name)));
}

/* ---------- as whom ---------- */

/* Settings that decide how values are read from text, and how they are written. */
static const char *const settings[] = {"datestyle", "intervalstyle", "timezone", "extra_float_digits",
									   "standard_conforming_strings"};

/* Names and values of the settings, as they are now. */
List *
bdd_sync_settings(void)
{
	List *list = NIL;

	for (int i = 0; i < lengthof(settings); i++)
	{
		list = lappend(list, pstrdup(settings[i]));
		list = lappend(list, pstrdup(GetConfigOption(settings[i], false, false)));
	}
	return list;
}

/*
 * Becomes the owner of the sync, to read, map and compare, with the settings of
 * the session that made it: a run by a job means the same as one by hand.
 */
void
bdd_sync_become(const BddSync *sync, BddSavedRole *saved)
{
	ListCell *cell;

	bdd_become_owner_of(sync->owner, saved);
	for (cell = list_head(sync->settings); cell != NULL; cell = lnext(sync->settings, cell))
	{
		const char *name = lfirst(cell);

		cell = lnext(sync->settings, cell);
		(void) set_config_option(name, lfirst(cell), PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE,
								 true, 0, false);
	}
}

/*
 * Becomes the owner of the target, to write: its triggers, checks and domains
 * are the code of that role, and not of the sync's owner.  Whether the sync's
 * owner may write is asked by bdd_sync_check_still.
 */
void
bdd_sync_become_writer(const BddSync *sync, BddSavedRole *saved)
{
	HeapTuple tuple = SearchSysCache1(RELOID, ObjectIdGetDatum(sync->target));
	Oid owner;

	if (!HeapTupleIsValid(tuple))
		elog(ERROR, "cache lookup failed for relation %u", sync->target);
	owner = ((Form_pg_class) GETSTRUCT(tuple))->relowner;
	ReleaseSysCache(tuple);
	/* Upserts ask for rights themselves, and are written by the worker. */
	bdd_become_owner_of(sync->buffered ? sync->owner : owner, saved);
}

/* ---------- one run at a time ---------- */

/*
 * A lock of the kind that advisory locks are: a session keeps these when one of
 * its transactions is aborted, which those of a run may be.
 */
static LOCKTAG
lock_tag(const BddSync *sync)
{
	LOCKTAG tag;

	SET_LOCKTAG_OBJECT(tag, MyDatabaseId, bdd_catalog_relation("sync_row"), sync->id, 0);
	tag.locktag_lockmethodid = USER_LOCKMETHOD;
	return tag;
}

/* The process that holds the lock; 0: it is free by now. */
static int
holder(const BddSync *sync)
{
	static BddKeptPlan select = {
		"SELECT l.pid FROM pg_catalog.pg_locks l WHERE l.locktype = 'object' AND l.granted "
		"AND l.classid = $1 AND l.objid::pg_catalog.int8 = $2 AND l.mode = 'ExclusiveLock' "
		"AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())",
		2,
		{OIDOID, INT8OID}};
	Datum values[] = {ObjectIdGetDatum(bdd_catalog_relation("sync_row")), Int64GetDatum(sync->id)};
	bool isnull;

	return bdd_plan_run(&select, values, NULL) == 0 ? 0 :
													  DatumGetInt32(bdd_spi_value(0, 1, &isnull));
}

/*
 * For the transaction, or for the session until bdd_sync_unlock.  Raises an
 * error if somebody else has it.
 */
void
bdd_sync_lock(const BddSync *sync, bool session)
{
	LOCKTAG tag = lock_tag(sync);
	int pid;

	if (LockAcquire(&tag, ExclusiveLock, session, true) != LOCKACQUIRE_NOT_AVAIL)
		return;
	pid = holder(sync);
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_IN_USE),
			 errmsg("sync \"%s\" is running", sync->name),
			 pid != 0 ? errdetail("Process %d runs it.", pid) : 0,
			 errhint("batchdedup.pause_sync ends it after its slice.")));
}

/* Releases the lock of the session; that of a transaction ends by itself. */
void
bdd_sync_unlock(const BddSync *sync)
{
	LOCKTAG tag = lock_tag(sync);

	(void) LockRelease(&tag, ExclusiveLock, true);
}
