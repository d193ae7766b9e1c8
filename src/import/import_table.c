/*-------------------------------------------------------------------------
 *
 * import_table.c
 *		The tables that writers of an import load.
 *
 * They are ordinary tables in our schema, like the target and without its
 * indexes; they belong to the target's owner.  What is in their definitions
 * (defaults, checks, generated columns, indexes) is the owner's code, which the
 * server may run while it makes them, so it is added as the owner; only the
 * bare columns are made by us, since that role may create nothing in our schema.
 * They depend on the target and on the extension, and go with them.
 *
 * Rows that will be upserted must keep the order in which they came, and the
 * place of a row in a heap does not tell it: a small row may go back to an
 * earlier page.  So such tables have a last column that is generated, which
 * COPY leaves alone, by a function that counts.  It has to be called immutable
 * to be allowed there.  Its numbers begin with the clock whenever a
 * transaction begins, and then are the next ones: a later COPY has higher
 * numbers than one that was over before it began.
 *
 * A table that will be attached has a CHECK constraint that says the same as
 * its partition's bound: bad rows are refused when they are loaded, and
 * ATTACH PARTITION reads no row.  Indexes are made when it is finalized.
 *
 *-------------------------------------------------------------------------
 */
#include "import/import_table.h"

#include "access/genam.h"
#include "access/relation.h"
#include "access/xact.h"
#include "base/compat.h"
#include "base/list.h"
#include "catalog/dependency.h"
#include "catalog/index.h"
#include "catalog/namespace.h"
#include "catalog/objectaddress.h"
#include "catalog/pg_class.h"
#include "catalog/pg_extension.h"
#include "catalog/pg_type_d.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "nodes/pg_list.h"
#include "parser/parse_utilcmd.h"
#include "sql/catalog.h"
#include "sql/spi.h"
#include "storage/bufmgr.h"
#include "storage/lmgr.h"
#include "utils/builtins.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"

/* A writer's table is read-only from here on. */
#define CLOSED_TRIGGER "batchdedup_finalized"
#define BOUND_CHECK "batchdedup_bound"

PG_FUNCTION_INFO_V1(bdd_refuse_writer);
PG_FUNCTION_INFO_V1(bdd_import_order);

/* ---------- functions in them ---------- */

/* import_order_internal(tableoid): see above. */
Datum
bdd_import_order(PG_FUNCTION_ARGS)
{
	static int64 last = 0;
	static LocalTransactionId of = InvalidLocalTransactionId;
	LocalTransactionId now = bdd_my_vxid().localTransactionId;

	if (of != now)
	{
		/* So many rows in a microsecond nobody writes. */
		last = Max(last, GetCurrentTimestamp() * 1000);
		of = now;
	}
	PG_RETURN_INT64(++last);
}

/* refuse_writer_internal() */
Datum
bdd_refuse_writer(PG_FUNCTION_ARGS)
{
	ereport(ERROR,
			(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
			 errmsg("the table of a writer that is finalized cannot be written")));
}

/* ---------- SQL as somebody ---------- */

/* A text that a query makes of the table; NULL: there is none. */
static char *
text_of(const char *sql, Oid relid)
{
	Oid types[] = {OIDOID};
	Datum values[] = {ObjectIdGetDatum(relid)};
	Datum value;
	bool isnull;

	if (bdd_spi_run(sql, 1, types, values, NULL) == 0)
		return NULL;
	value = bdd_spi_value(0, 1, &isnull);
	return isnull ? NULL : TextDatumGetCString(value);
}

/* ---------- making ---------- */

/* A table of our schema that has just been made. */
static Oid
relation_named(const char *name)
{
	Oid relid = bdd_catalog_relation(name);

	if (!OidIsValid(relid))
		elog(ERROR, "table \"%s\" was not made", name);
	return relid;
}

/* A writer's table goes with the target, and does not hold up DROP EXTENSION. */
static void
depend(Oid relid, Oid target)
{
	ObjectAddress self;
	ObjectAddress other;

	ObjectAddressSet(self, RelationRelationId, relid);
	if (OidIsValid(target))
	{
		ObjectAddressSet(other, RelationRelationId, target);
		recordDependencyOn(&self, &other, DEPENDENCY_AUTO);
	}
	ObjectAddressSet(other, ExtensionRelationId,
					 get_extension_oid(BDD_LIBRARY, false));
	recordDependencyOn(&self, &other, DEPENDENCY_AUTO_EXTENSION);
}

/* The end of what depend has recorded: the table becomes a partition of the target. */
static void
depend_no_more(Oid relid, Oid target)
{
	(void) deleteDependencyRecordsForSpecific(RelationRelationId, relid,
											  DEPENDENCY_AUTO,
											  RelationRelationId, target);
	(void) deleteDependencyRecordsForSpecific(RelationRelationId, relid,
											  DEPENDENCY_AUTO_EXTENSION,
											  ExtensionRelationId,
											  get_extension_oid(BDD_LIBRARY, false));
}

/*
 * Called before DROP EXTENSION: records what depends on the extension for
 * writers' tables that come from a dump, which does not have it.
 */
void
bdd_staging_follows_extension(void)
{
	BddSavedRole saved;
	uint64 count;
	List *relids = NIL;
	ListCell *cell;
	bool isnull;

	if (!OidIsValid(bdd_catalog_relation("import_instance")))
		return;
	bdd_become_extension_owner(&saved);
	bdd_spi_connect();
	count = bdd_spi_run("SELECT c.oid FROM pg_class c WHERE c.relnamespace = 'batchdedup'::regnamespace "
						"AND c.oid IN (SELECT writer FROM batchdedup.import_instance "
						"UNION ALL SELECT chunks FROM batchdedup.import_instance) "
						"AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass "
						"AND d.objid = c.oid AND d.deptype = 'x')",
						0, NULL, NULL, NULL);
	for (uint64 i = 0; i < count; i++)
		relids = lappend_oid(relids, DatumGetObjectId(bdd_spi_value(i, 1, &isnull)));
	foreach(cell, relids)
		depend(lfirst_oid(cell), InvalidOid);
	bdd_spi_finish();
	bdd_restore_role(&saved);
	CommandCounterIncrement();
}

/* Lets the caller, whose right to upsert has been checked, load the table. */
void
bdd_grant_writer(const BddImport *import, Oid writer)
{
	bdd_run_utility(InvalidOid, "GRANT INSERT ON %s TO %s", bdd_qualified_name(writer),
					quote_identifier(GetUserNameFromId(import->caller.role, false)));
}

/*
 * Defaults and checks, as ALTER TABLE's list.  Generated columns are made when
 * the row is written; a partition has to have them itself.  Identity columns
 * outside the key may be NULL, which means that they are not given; in a
 * partition they must be given.
 */
static char *
definition_of(const BddImport *import)
{
	return text_of(psprintf(
					   "SELECT string_agg(c.command, ', ' ORDER BY c.step, c.place) FROM ("
					   "SELECT 1, attnum, format('DROP COLUMN %%I', attname) "
					   "FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated <> '' "
					   "UNION ALL SELECT 2, a.attnum, CASE WHEN a.attgenerated = '' "
					   "THEN format('ALTER COLUMN %%I SET DEFAULT %%s', a.attname, pg_get_expr(d.adbin, d.adrelid)) "
					   "ELSE format('ADD COLUMN %%I %%s %%s GENERATED ALWAYS AS (%%s) %%s %%s', a.attname, "
					   "format_type(a.atttypid, a.atttypmod), "
					   "(SELECT format('COLLATE %%I.%%I', n.nspname, l.collname) FROM pg_collation l "
					   "JOIN pg_namespace n ON n.oid = l.collnamespace WHERE l.oid = a.attcollation), "
					   "pg_get_expr(d.adbin, d.adrelid), CASE a.attgenerated WHEN 's' THEN 'STORED' ELSE 'VIRTUAL' END, "
					   "CASE WHEN a.attnotnull THEN 'NOT NULL' END) END "
					   "FROM pg_attrdef d JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum "
					   "WHERE d.adrelid = $1 AND (a.attgenerated = '' OR %1$s) "
					   "UNION ALL SELECT 3, a.attnum, format('ALTER COLUMN %%I DROP NOT NULL', a.attname) "
					   "FROM pg_attribute a JOIN batchdedup.target_option o ON o.target = $1 "
					   "WHERE a.attrelid = $1 AND a.attidentity <> '' AND NOT a.attname = ANY (o.key_columns) AND NOT %1$s "
					   "UNION ALL SELECT 3, a.attnum, format('ALTER COLUMN %%I SET NOT NULL', a.attname) "
					   "FROM pg_attribute a JOIN batchdedup.target_option o ON o.target = $1 "
					   "WHERE a.attrelid = $1 AND NOT a.attnotnull AND a.attname = ANY (o.key_columns) AND NOT %1$s "
					   "UNION ALL SELECT 4, t.oid::bigint, format('ADD CONSTRAINT %%I %%s', t.conname, pg_get_constraintdef(t.oid)) "
					   "FROM pg_constraint t WHERE t.conrelid = $1 AND t.contype = 'c' AND (%1$s OR (0 <> ALL (t.conkey) "
					   "AND NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = $1 "
					   "AND a.attnum = ANY (t.conkey) AND a.attgenerated <> ''))) "
					   ") c (step, place, command)",
					   import->attach ? "true" : "false"),
				   import->relid);
}

/*
 * Adds what the owner has defined, as the owner.  "condition": that of the
 * partition's rows, or NULL.
 */
static void
add_definition(BddImport *import, const char *writer, const char *condition)
{
	char *definition = definition_of(import);

	if (definition != NULL)
		bdd_run_utility(import->target->owner, "ALTER TABLE %s %s", writer, definition);
	if (condition != NULL)
		bdd_run_utility(import->target->owner, "ALTER TABLE %s ADD CONSTRAINT " BOUND_CHECK " CHECK (%s)",
						writer, condition);
}

/* Makes the instance's tables. */
void
bdd_make_writer(BddImport *import, BddInstance *instance,
				const char *condition)
{
	uint64 number;
	char *name;
	char *writer;

	if (!pg_strong_random(&number, sizeof(number)))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	name = psprintf("import_%016llx", (unsigned long long) number);
	writer = psprintf(BDD_SCHEMA ".%s", name);
	bdd_run_utility(InvalidOid, "CREATE TABLE %s (LIKE %s INCLUDING STORAGE INCLUDING COMPRESSION)%s",
					writer, bdd_qualified_name(import->relid),
					import->attach ? "" : " WITH (autovacuum_enabled = off)");
	instance->writer = relation_named(name);
	bdd_run_utility(InvalidOid, "COMMENT ON TABLE %s IS %s", writer,
					quote_literal_cstr(psprintf("instance \"%s\" of import \"%s\"", instance->name, import->name)));
	if (!import->attach)
		bdd_run_utility(InvalidOid, "ALTER TABLE %s ADD COLUMN " BDD_ORDER_COLUMN " bigint "
									"GENERATED ALWAYS AS (batchdedup.import_order_internal(tableoid)) STORED",
						writer);
	bdd_run_utility(InvalidOid, "ALTER TABLE %s OWNER TO %s", writer,
					quote_identifier(GetUserNameFromId(import->target->owner, false)));
	add_definition(import, writer, condition);
	if (!import->attach)
	{
		bdd_run_utility(InvalidOid, "CREATE TABLE %s_chunks (chunk_no integer, part integer, rows bytea) "
									"WITH (autovacuum_enabled = off)",
						writer);
		bdd_run_utility(InvalidOid, "ALTER TABLE %s_chunks ALTER COLUMN rows SET STORAGE EXTERNAL", writer);
		instance->chunks = relation_named(psprintf("%s_chunks", name));
		depend(instance->chunks, import->relid);
	}
	depend(instance->writer, import->relid);
	CommandCounterIncrement();
	bdd_grant_writer(import, instance->writer);
}

/* The table may have got another owner since. */
static void
follow_owner(const BddImport *import, Oid writer)
{
	if (bdd_owns_relation(writer, import->target->owner))
		return;
	bdd_run_utility(InvalidOid, "ALTER TABLE %s OWNER TO %s", bdd_qualified_name(writer),
					quote_identifier(GetUserNameFromId(import->target->owner, false)));
	CommandCounterIncrement();
}

/* Empties the instance's tables; TRUNCATE waits for sessions that are loading. */
void
bdd_empty_writer(BddImport *import, const BddInstance *instance)
{
	follow_owner(import, instance->writer);
	bdd_run_utility(import->target->owner, "TRUNCATE %s", bdd_qualified_name(instance->writer));
	if (OidIsValid(instance->chunks))
		bdd_run_utility(InvalidOid, "TRUNCATE %s", bdd_qualified_name(instance->chunks));
}

/* Drops a table of an instance, if it is still there. */
void
bdd_drop_staging(Oid relid)
{
	if (get_rel_name(relid) != NULL)
		bdd_run_utility(InvalidOid, "DROP TABLE %s", bdd_qualified_name(relid));
}

/* ---------- finalize_instance ---------- */

/* The indexes that ATTACH PARTITION would make. */
static void
make_indexes(BddImport *import, Oid writer)
{
	Relation target = relation_open(import->relid, AccessShareLock);
	Relation rel = relation_open(writer, NoLock);
	List *statements = NIL;
	BddSavedRole saved;
	ListCell *cell;

	foreach(cell, RelationGetIndexList(target))
	{
		Relation index = index_open(lfirst_oid(cell), AccessShareLock);
		AttrMap *map = bdd_map_columns(RelationGetDescr(rel),
									   RelationGetDescr(target));
		Oid constraint;

		statements = lappend(statements,
							 generateClonedIndexStmt(NULL, index, map, &constraint));
		index_close(index, AccessShareLock);
	}
	relation_close(rel, NoLock);
	relation_close(target, AccessShareLock);
	bdd_become_owner_of(import->target->owner, &saved);
	foreach(cell, statements)
	{
		bdd_define_index(writer, lfirst(cell));
		CommandCounterIncrement();
	}
	bdd_restore_role(&saved);
}

/* Foreign keys are checked now, and not when the partition is attached. */
static void
make_foreign_keys(BddImport *import, Oid writer)
{
	char *list = text_of("SELECT string_agg(format('ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid)), ', ') "
						 "FROM pg_constraint WHERE conrelid = $1 AND contype = 'f'",
						 import->relid);

	if (list != NULL)
		bdd_run_utility(import->target->owner, "ALTER TABLE %s %s", bdd_qualified_name(writer), list);
}

/* Also rows that came after the transaction's snapshot: none come any more. */
static int64
count_rows(const BddImport *import, const BddInstance *instance)
{
	char *sql = psprintf("SELECT count(*) FROM %s", bdd_qualified_name(instance->writer));
	BddSavedRole saved;
	bool isnull;

	bdd_become_owner_of(import->target->owner, &saved);
	PushActiveSnapshot(GetLatestSnapshot());
	if (SPI_execute(sql, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not count rows");
	PopActiveSnapshot();
	bdd_restore_role(&saved);
	return DatumGetInt64(bdd_spi_value(0, 1, &isnull));
}

/* The rows that were counted when the chunks were written. */
static int64
count_chunk_rows(const BddImport *import, const BddInstance *instance)
{
	Oid types[] = {UUIDOID, TEXTOID};
	Datum values[] = {UUIDPGetDatum(&import->id), CStringGetTextDatum(instance->name)};
	bool isnull;

	(void) bdd_spi_run("SELECT coalesce(sum(rows), 0)::bigint FROM batchdedup.import_chunk "
					   "WHERE batch_id = $1 AND instance = $2",
					   2, types, values, NULL);
	return DatumGetInt64(bdd_spi_value(0, 1, &isnull));
}

/* Bytes of the table alone, without its indexes and what is stored out of line. */
static int64
main_fork_size(Oid relid)
{
	Relation rel = relation_open(relid, AccessShareLock);
	int64 size = (int64) RelationGetNumberOfBlocks(rel) * BLCKSZ;

	relation_close(rel, AccessShareLock);
	return size;
}

/*
 * Waits for sessions that are loading, and lets none load any more.  Counts rows
 * and bytes.
 */
void
bdd_close_writer(BddImport *import, BddInstance *instance, int64 *bytes)
{
	char *writer = bdd_qualified_name(instance->writer);

	LockRelationOid(instance->writer, ShareRowExclusiveLock);
	follow_owner(import, instance->writer);
	bdd_run_utility(InvalidOid, "CREATE TRIGGER " CLOSED_TRIGGER " BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s "
								"FOR EACH STATEMENT EXECUTE FUNCTION batchdedup.refuse_writer_internal()",
					writer);
	instance->rows = count_rows(import, instance);
	*bytes = main_fork_size(instance->writer);
	if (OidIsValid(instance->chunks))
	{
		instance->rows += count_chunk_rows(import, instance);
		*bytes += main_fork_size(instance->chunks);
	}
	if (import->attach)
	{
		make_indexes(import, instance->writer);
		make_foreign_keys(import, instance->writer);
	}
}

/* ---------- finalize_batch: attach ---------- */

/* target_instance, of letters that need no quotes where that is possible. */
static char *
partition_name(const BddImport *import, const BddInstance *instance)
{
	char *suffix = pstrdup(instance->name);
	const char *target = get_rel_name(import->relid);
	char *name;

	for (char *c = suffix; *c != '\0'; c++)
		if (!IS_HIGHBIT_SET(*c))
			*c = isalnum((unsigned char) *c) ? pg_tolower((unsigned char) *c) : '_';
	name = makeObjectName(target, suffix, NULL);
	for (int i = 1; OidIsValid(get_relname_relid(name, get_rel_namespace(import->relid))); i++)
		name = makeObjectName(target, suffix, psprintf("%d", i));
	return name;
}

/* Renames the indexes of the new partition as the server would have named them. */
static void
rename_indexes(Oid relid, const char *name)
{
	Relation rel = relation_open(relid, NoLock);
	List *indexes = RelationGetIndexList(rel);
	ListCell *cell;

	relation_close(rel, NoLock);
	foreach(cell, indexes)
	{
		Relation index = relation_open(lfirst_oid(cell), AccessShareLock);
		const char *kind = index->rd_index->indisprimary ? "pkey" :
						   index->rd_index->indisunique  ? "key" :
														   "idx";
		char *now = bdd_qualified_name(RelationGetRelid(index));

		relation_close(index, NoLock);
		bdd_run_utility(InvalidOid, "ALTER INDEX %s RENAME TO %s", now,
						quote_identifier(ChooseRelationName(name, NULL, kind,
															get_rel_namespace(relid), true)));
		CommandCounterIncrement();
	}
}

/* What the writer was granted was for loading. */
static void
revoke_grants(Oid relid)
{
	char *grantees = text_of("SELECT string_agg(DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC' "
							 "ELSE quote_ident(pg_get_userbyid(a.grantee)) END, ', ') "
							 "FROM pg_class c, LATERAL aclexplode(c.relacl) a "
							 "WHERE c.oid = $1 AND a.grantee <> c.relowner",
							 relid);

	if (grantees != NULL)
		bdd_run_utility(InvalidOid, "REVOKE ALL ON %s FROM %s", bdd_qualified_name(relid), grantees);
}

/* The writer's table becomes a partition. */
void
bdd_attach_writer(BddImport *import, const BddInstance *instance)
{
	char *target = bdd_qualified_name(import->relid);
	const char *schema = quote_identifier(get_namespace_name(get_rel_namespace(import->relid)));
	char *name = partition_name(import, instance);
	Oid owner = import->target->owner;
	char *now;

	LockRelationOid(instance->writer, AccessExclusiveLock);
	follow_owner(import, instance->writer);
	now = bdd_qualified_name(instance->writer);
	bdd_run_utility(InvalidOid, "DROP TRIGGER " CLOSED_TRIGGER " ON %s", now);
	bdd_run_utility(InvalidOid, "COMMENT ON TABLE %s IS NULL", now);
	revoke_grants(instance->writer);
	bdd_run_utility(InvalidOid, "ALTER TABLE %s SET SCHEMA %s", now, schema);
	CommandCounterIncrement();
	now = bdd_qualified_name(instance->writer);
	bdd_run_utility(InvalidOid, "ALTER TABLE %s RENAME TO %s", now, quote_identifier(name));
	CommandCounterIncrement();
	now = bdd_qualified_name(instance->writer);
	rename_indexes(instance->writer, name);
	depend_no_more(instance->writer, import->relid);
	bdd_run_utility(owner, "ALTER TABLE %s ATTACH PARTITION %s %s", target, now,
					instance->bound);
	bdd_run_utility(owner, "ALTER TABLE %s DROP CONSTRAINT " BOUND_CHECK, now);
	CommandCounterIncrement();
}
