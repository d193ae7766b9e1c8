/*-------------------------------------------------------------------------
 *
 * shutdown_file.c
 *		What is still buffered when the server is shut down.
 *
 * Workers try to apply everything before they leave.  What they cannot apply
 * (a locked table, a paused target, a writer that committed after them) the
 * postmaster writes to a file when all its children are gone, as statistics
 * are, and reads back when it starts.  Generations keep their numbers, so one
 * that was applied after all is known by its mark.
 *
 * Rows of logged targets are in the journal, and stay there; the file only
 * says that there are some, for pg_upgrade.
 *
 * After a crash or an immediate stop shared memory may be in any state and
 * nothing is written.
 *
 * The file, in the server's own byte order: a head, then for each generation
 * BddFileGeneration and its rows, each BddFileRow, key and image; a last
 * BddFileGeneration without rows and database; CRC-32C of all before.
 *
 *-------------------------------------------------------------------------
 */
#include "shutdown_file.h"

#include <unistd.h>

#include "catalog/catversion.h"
#include "common/controldata_utils.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
#include "registry.h"
#include "storage/fd.h"
#include "storage/ipc.h"
#include "utils/memutils.h"

#define FILE_NAME "batchdedup.buffer"
#define FILE_NAME_NEW FILE_NAME ".new"
#define FILE_NAME_BAD FILE_NAME ".bad"
#define FILE_MAGIC 0x42444432 /* "BDD2" */

typedef struct BddFileHead
{
	uint32 magic;
	uint32 catalog_version;
	uint64 last_sequence;
} BddFileHead;

typedef struct BddFileGeneration
{
	Oid database; /* InvalidOid: the end */
	Oid relid;
	int32 target_id;
	uint32 fingerprint;
	uint64 applied; /* of the target */
	uint64 number;
	uint64 rows;
	uint32 logged; /* its rows are in the journal, not here */
	uint32 unused;
} BddFileGeneration;

typedef struct BddFileRow
{
	uint64 sequence;
	uint32 hash;
	uint32 key_size;
	uint32 image_size;
	uint8 op;
	uint8 full;
	uint16 unused;
} BddFileRow;

typedef struct BddFile
{
	FILE *stream;
	pg_crc32c crc;
	bool failed;
} BddFile;

/* ---------- writing ---------- */

static void
put(BddFile *file, const void *data, size_t size)
{
	COMP_CRC32C(file->crc, data, size);
	if (size > 0 && fwrite(data, size, 1, file->stream) != 1)
		file->failed = true;
}

static void
put_version(BddSharedEntry *entry, uint64 sequence, const BddImage *image,
			void *arg)
{
	BddFile *file = arg;
	BddFileRow row = {0};

	row.sequence = sequence;
	row.hash = entry->hash;
	row.key_size = entry->key_size;
	row.image_size = image->size;
	row.op = image->op;
	row.full = image->full;
	put(file, &row, sizeof(row));
	put(file, entry->key, entry->key_size);
	put(file, image->data, image->size);
}

static void
put_generation(BddFile *file, BddSharedSlot *slot,
			   BddSharedGeneration *generation)
{
	BddFileGeneration head = {0};

	head.database = slot->database;
	head.relid = slot->relid;
	head.target_id = slot->target_id;
	head.applied = slot->applied;
	head.number = generation->number;
	head.fingerprint = generation->fingerprint;
	head.logged = generation->logged;
	head.rows = generation->logged ? 0 : bdd_count_versions(generation);
	put(file, &head, sizeof(head));
	if (!generation->logged)
		bdd_each_version(generation, put_version, file);
}

/* Returns the number of rows written, and whether there are others. */
static uint64
put_all(BddFile *file, bool *journalled)
{
	BddFileHead head = {FILE_MAGIC, CATALOG_VERSION_NO,
						pg_atomic_read_u64(&bdd_sequence->last)};
	BddFileGeneration end = {0};
	uint64 rows = 0;

	put(file, &head, sizeof(head));
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (!slot->in_use)
			continue;
		for (BddSharedGeneration *generation = slot->oldest;
			 generation != NULL; generation = generation->next)
		{
			uint64 count = bdd_count_versions(generation);

			if (generation->state == BDD_APPLIED ||
				(count == 0 && !generation->spooled))
				continue;
			put_generation(file, slot, generation);
			if (generation->logged)
				*journalled = true;
			else
				rows += count;
		}
	}
	put(file, &end, sizeof(end));
	return rows;
}

static void
write_file(void)
{
	BddFile file = {0};
	bool journalled = false;
	uint64 rows;

	file.stream = AllocateFile(FILE_NAME_NEW, PG_BINARY_W);
	if (file.stream == NULL)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not create file \"%s\": %m", FILE_NAME_NEW)));
		return;
	}
	INIT_CRC32C(file.crc);
	rows = put_all(&file, &journalled);
	FIN_CRC32C(file.crc);
	if (fwrite(&file.crc, sizeof(file.crc), 1, file.stream) != 1)
		file.failed = true;
	if (FreeFile(file.stream) != 0 || file.failed)
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", FILE_NAME_NEW),
				 errdetail("Rows that are buffered are lost.")));
		unlink(FILE_NAME_NEW);
		return;
	}
	if (rows == 0 && !journalled)
	{
		unlink(FILE_NAME_NEW);
		unlink(FILE_NAME);
	}
	else if (durable_rename(FILE_NAME_NEW, FILE_NAME, LOG) == 0 && rows > 0)
		ereport(LOG,
				(errmsg("batchdedup kept " UINT64_FORMAT " buffered rows in file \"%s\"",
						rows, FILE_NAME)));
	if (journalled)
		ereport(LOG,
				(errmsg("batchdedup leaves rows in its journal for the next start")));
}

static bool
was_shut_down_cleanly(void)
{
	bool crc_ok;
	ControlFileData *control = get_controlfile(DataDir, &crc_ok);

	return crc_ok && (control->state == DB_SHUTDOWNED ||
					  control->state == DB_SHUTDOWNED_IN_RECOVERY);
}

/* At the end of the postmaster. */
static void
keep_buffered_rows(int code, Datum arg)
{
	if (code == 0 && bdd_registry != NULL && was_shut_down_cleanly())
		write_file();
}

/* ---------- reading ---------- */

static bool
take(BddFile *file, void *data, size_t size)
{
	if (size > 0 && fread(data, size, 1, file->stream) != 1)
		return false;
	COMP_CRC32C(file->crc, data, size);
	return true;
}

/* The whole file is checked before anything of it is believed. */
static bool
is_intact(FILE *stream)
{
	char buffer[8192];
	pg_crc32c crc;
	pg_crc32c stored;
	long left;

	if (fseek(stream, 0, SEEK_END) != 0 ||
		(left = ftell(stream)) < (long) (sizeof(BddFileHead) + sizeof(crc)))
		return false;
	rewind(stream);
	left -= sizeof(crc);
	INIT_CRC32C(crc);
	while (left > 0)
	{
		size_t part = Min((size_t) left, sizeof(buffer));

		if (fread(buffer, part, 1, stream) != 1)
			return false;
		COMP_CRC32C(crc, buffer, part);
		left -= part;
	}
	FIN_CRC32C(crc);
	if (fread(&stored, sizeof(stored), 1, stream) != 1)
		return false;
	rewind(stream);
	return EQ_CRC32C(crc, stored);
}

static bool
take_row(BddFile *file, BddSharedGeneration *generation)
{
	BddFileRow row;
	BddImage image;
	char *key;
	bool stored;

	if (!take(file, &row, sizeof(row)))
		return false;
	key = palloc(Max(row.key_size, 1));
	image.op = row.op;
	image.full = row.full;
	image.size = row.image_size;
	image.data = MemoryContextAllocHuge(CurrentMemoryContext,
										Max(row.image_size, 1));
	stored = take(file, key, row.key_size) &&
			 take(file, image.data, row.image_size);
	if (stored && !bdd_load_version(generation, row.hash, key, row.key_size,
									row.sequence, &image))
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("rows that batchdedup kept at the last shutdown do not fit into its buffer"),
				 errhint("Raise batchdedup.buffer_size and batchdedup.max_targets to what they were.")));
	pfree(key);
	pfree(image.data);
	return stored;
}

static bool
take_generation(BddFile *file, const BddFileGeneration *head)
{
	BddSharedGeneration *generation = bdd_load_generation(head->database,
														  head->relid,
														  head->target_id,
														  head->applied,
														  head->number,
														  head->fingerprint);

	if (generation == NULL)
		ereport(FATAL,
				(errcode(ERRCODE_OUT_OF_MEMORY),
				 errmsg("rows that batchdedup kept at the last shutdown do not fit into its buffer"),
				 errhint("Raise batchdedup.buffer_size and batchdedup.max_targets to what they were.")));
	for (uint64 i = 0; i < head->rows; i++)
		if (!take_row(file, generation))
			return false;
	return true;
}

static bool
take_all(BddFile *file, uint64 *rows)
{
	BddFileHead head;
	BddFileGeneration generation;

	*rows = 0;
	if (!take(file, &head, sizeof(head)) || head.magic != FILE_MAGIC ||
		head.catalog_version != CATALOG_VERSION_NO)
		return false;
	pg_atomic_write_u64(&bdd_sequence->last, head.last_sequence);
	while (take(file, &generation, sizeof(generation)))
	{
		if (!OidIsValid(generation.database))
			return true;
		if (!generation.logged && !take_generation(file, &generation))
			return false;
		*rows += generation.rows;
	}
	return false;
}

/* In the postmaster, before anybody else can look at shared memory. */
static void
load_buffered_rows(void)
{
	BddFile file = {0};
	uint64 rows;
	bool loaded;

	file.stream = AllocateFile(FILE_NAME, PG_BINARY_R);
	if (file.stream == NULL)
	{
		if (errno != ENOENT)
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", FILE_NAME)));
		return;
	}
	loaded = is_intact(file.stream) && take_all(&file, &rows);
	FreeFile(file.stream);
	if (!loaded)
	{
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" is damaged or of another version: its rows are not in the buffer",
						FILE_NAME),
				 errdetail("It is kept as \"%s\".", FILE_NAME_BAD)));
		(void) durable_rename(FILE_NAME, FILE_NAME_BAD, LOG);
		return;
	}
	if (rows > 0)
		ereport(LOG,
				(errmsg("batchdedup took its rows back from file \"%s\"",
						FILE_NAME)));
}

/*
 * The server has started: from here on a crash loses what the file held.  A
 * start that failed before leaves it for the next.
 */
void
bdd_shutdown_file_remove(void)
{
	if (access(FILE_NAME, F_OK) == 0)
		(void) durable_unlink(FILE_NAME, LOG);
}

/* The servers that pg_upgrade starts: it would leave the file behind. */
void
bdd_shutdown_file_refuse_upgrade(void)
{
	if (access(FILE_NAME, F_OK) == 0)
		ereport(FATAL,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("rows that batchdedup kept at the last shutdown are not upgraded"),
				 errhint("Start the old server, flush all targets with batchdedup.flush, and stop it. To give the rows up remove file \"%s\".",
						 FILE_NAME)));
}

/* Called by the postmaster once shared memory is laid out. */
void
bdd_shutdown_file_init(void)
{
	if (IsUnderPostmaster)
		return;
	bdd_am_worker = true; /* the reserve is for us */
	load_buffered_rows();
	bdd_am_worker = false;
	on_shmem_exit(keep_buffered_rows, (Datum) 0);
}
