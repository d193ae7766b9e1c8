/*-------------------------------------------------------------------------
 *
 * change_log.c
 *		What syncs have changed, in a partition for each day.
 *
 * A day is one of UTC.  Its partition is made by the first run that needs it,
 * in a transaction of its own, as a table of its own that is then attached:
 * that does not wait for sessions which read the log.
 *
 *-------------------------------------------------------------------------
 */
#include "sync/change_log.h"

#include "access/xact.h"
#include "catalog/pg_type_d.h"
#include "datatype/timestamp.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "sql/statement.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/lsyscache.h"

PG_FUNCTION_INFO_V1(bdd_expire_syncs);

/* Days since 2000-01-01, of UTC. */
int
bdd_change_log_day(void)
{
	return (int) (GetCurrentTransactionStartTimestamp() / USECS_PER_DAY);
}

/* The date of a day of bdd_change_log_day, with the separator between its parts. */
static char *
date_of(int day, const char *separator)
{
	int year;
	int month;
	int mday;

	j2date(day + POSTGRES_EPOCH_JDATE, &year, &month, &mday);
	return psprintf("%04d%s%02d%s%02d", year, separator, month, separator, mday);
}

/* As change_log_20261231; drop_partitions reads the day from the name. */
static char *
partition_name(int day)
{
	return psprintf("change_log_%s", date_of(day, ""));
}

/* Connected to SPI, as the extension's owner. */
static void
make_partition(int day)
{
	char *name = psprintf("batchdedup.%s", partition_name(day));

	if (OidIsValid(bdd_catalog_relation(partition_name(day))))
		return;
	LockRelationOid(bdd_catalog_relation("change_log_row"), ShareUpdateExclusiveLock);
	if (OidIsValid(bdd_catalog_relation(partition_name(day))))
		return;
	bdd_run_utility(InvalidOid, "CREATE TABLE %s (LIKE batchdedup.change_log_row INCLUDING DEFAULTS)", name);
	bdd_run_utility(InvalidOid, "ALTER TABLE batchdedup.change_log_row ATTACH PARTITION %s "
								"FOR VALUES FROM ('%s 00:00:00+00') TO ('%s 00:00:00+00')",
					name, date_of(day, "-"), date_of(day + 1, "-"));
}

/* Today's partition, and tomorrow's, for a slice that begins before midnight. */
void
bdd_change_log_prepare(void)
{
	BddSavedRole saved;

	bdd_own_begin(&saved);
	make_partition(bdd_change_log_day());
	make_partition(bdd_change_log_day() + 1);
	bdd_own_end(&saved);
}

/* In the transaction of the slice.  The caller is connected to SPI. */
void
bdd_change_log_write(const BddSync *sync, int64 run_id, uint32 shape,
					 EphemeralNamedRelation changes)
{
	Oid types[] = {TEXTOID, INT8OID, OIDOID};
	Datum values[] = {CStringGetTextDatum(sync->name), Int64GetDatum(run_id),
					  ObjectIdGetDatum(sync->target)};
	BddSavedRole saved;

	bdd_become_extension_owner(&saved);
	(void) bdd_run_on_relation(bdd_catalog_relation("change_log_row"),
							   psprintf("/* %08x */ INSERT INTO batchdedup.change_log_row (sync, run_id, at, target, key, operation, "
										"old_version, new_version, changed_columns, old_values, new_values) "
										"SELECT $1, $2, pg_catalog.now(), $3, d.\"batchdedup key\", d.\"batchdedup operation\", "
										"d.\"batchdedup old_version\", d.\"batchdedup new_version\", d.\"batchdedup changed\", "
										"d.\"batchdedup old_values\", d.\"batchdedup new_values\" FROM " BDD_CHANGES_NAME " d",
										shape),
							   changes, lengthof(types), types, values, false);
	bdd_restore_role(&saved);
}

/* ---------- expiry ---------- */

/*
 * Drops the partitions whose day ended longer ago than that; returns how many.
 * The caller is connected to SPI, as the extension's owner.
 */
static int64
drop_partitions(Datum older_than)
{
	Oid types[] = {INTERVALOID};
	uint64 count = bdd_spi_run("SELECT c.relname::pg_catalog.text FROM pg_catalog.pg_inherits i "
							   "JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid "
							   "WHERE i.inhparent = 'batchdedup.change_log_row'::pg_catalog.regclass "
							   "AND c.relname ~ '^change_log_[0-9]{8}$' "
							   "AND pg_catalog.timezone('UTC', pg_catalog.to_date(pg_catalog.right(c.relname, 8), 'YYYYMMDD') + 1) "
							   "< pg_catalog.now() - $1",
							   1, types, &older_than, NULL);
	List *names = NIL;
	ListCell *cell;

	for (uint64 i = 0; i < count; i++)
		names = lappend(names, SPI_getvalue(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1));
	foreach(cell, names)
		bdd_run_utility(InvalidOid, "DROP TABLE batchdedup.%s", quote_identifier(lfirst(cell)));
	return list_length(names);
}

/* expire_syncs(older_than) */
Datum
bdd_expire_syncs(PG_FUNCTION_ARGS)
{
	static BddKeptPlan delete = {
		"DELETE FROM batchdedup.sync_run_row WHERE started_at < pg_catalog.now() - $1 AND finished_at IS NOT NULL",
		1,
		{INTERVALOID}};
	Datum values[1];
	BddSavedRole saved;
	int64 count;

	bdd_check_argument(fcinfo, 0, "older_than");
	PreventCommandDuringRecovery("expire_syncs()");
	PreventCommandIfReadOnly("expire_syncs()");
	values[0] = PG_GETARG_DATUM(0);
	bdd_own_begin(&saved);
	count = (int64) bdd_plan_run(&delete, values, NULL);
	count += drop_partitions(values[0]);
	bdd_own_end(&saved);
	PG_RETURN_INT64(count);
}
