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
 * Rows of logged targets are in the journal as well.  After a clean shutdown
 * the file spares reading it, and rows are in memory as before; in every other
 * case, or if memory has become too small, they are taken from the journal.
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
#include "journal/shutdown_file.h"

#include <unistd.h>

#include "buffer/generation.h"
#include "buffer/registry.h"
#include "catalog/catversion.h"
#include "common/controldata_utils.h"
#include "journal/state.h"
#include "miscadmin.h"
#include "port/pg_crc32c.h"
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
	uint64 rows;
	uint64 complete; /* all rows of logged targets are here, too */
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
	uint64 journal_from;
	uint32 set_bytes;
	uint32 logged;
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

typedef struct BddShutdownFile
{
	FILE *stream;
	pg_crc32c crc;
	bool failed;
} BddShutdownFile;

/* ---------- writing ---------- */

/*
 * Writes the data, which goes into the checksum.  A failure is noted, and
 * reported at the end.
 */
static void
put(BddShutdownFile *file, const void *data, size_t size)
{
	COMP_CRC32C(file->crc, data, size);
	if (size > 0 && fwrite(data, size, 1, file->stream) != 1)
		file->failed = true;
}

/* A BddVersionVisitor: writes one row. */
static void
put_version(BddSharedEntry *entry, uint64 sequence, const BddImage *image,
			void *arg)
{
	BddShutdownFile *file = arg;
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

/* A BddGenerationVisitor: writes the generation and its rows. */
static void
put_generation(BddSharedSlot *slot, BddSharedGeneration *generation,
			   void *arg)
{
	BddShutdownFile *file = arg;
	BddFileGeneration head = {0};

	head.database = slot->database;
	head.relid = slot->relid;
	head.target_id = slot->target_id;
	head.applied = slot->applied;
	head.number = generation->number;
	head.fingerprint = generation->fingerprint;
	head.logged = generation->logged;
	head.set_bytes = generation->set_bytes;
	head.journal_from = generation->journal_from;
	head.rows = bdd_count_versions(generation);
	put(file, &head, sizeof(head));
	bdd_each_version(generation, put_version, file);
}

/* Whether there are rows in files of a replay (spool.c), not in memory. */
static bool
has_spooled(void)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
		if (bdd_registry->slots[i].in_use &&
			bdd_slot_spooled(&bdd_registry->slots[i]) != 0)
			return true;
	return false;
}

typedef void (*BddGenerationVisitor)(BddSharedSlot *slot,
									 BddSharedGeneration *generation,
									 void *arg);

/* Generations with rows that are not applied. */
static void
each_generation(BddGenerationVisitor visit, void *arg)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		BddSharedSlot *slot = &bdd_registry->slots[i];

		if (!slot->in_use)
			continue;
		for (BddSharedGeneration *generation = slot->oldest;
			 generation != NULL; generation = generation->next)
			if (generation->state != BDD_APPLIED &&
				bdd_count_versions(generation) > 0)
				visit(slot, generation, arg);
	}
}

/* A BddGenerationVisitor: adds the generation's rows to a uint64. */
static void
count_rows(BddSharedSlot *slot, BddSharedGeneration *generation, void *arg)
{
	*(uint64 *) arg += bdd_count_versions(generation);
}

/* Returns the number of rows. */
static uint64
put_all(BddShutdownFile *file)
{
	BddFileHead head = {.magic = FILE_MAGIC,
						.catalog_version = CATALOG_VERSION_NO,
						.last_sequence = pg_atomic_read_u64(&bdd_sequence->last),
						.complete = bdd_journal_is_replayed() && !has_spooled()};
	BddFileGeneration end = {0};

	each_generation(count_rows, &head.rows);
	put(file, &head, sizeof(head));
	each_generation(put_generation, file);
	put(file, &end, sizeof(end));
	return head.rows;
}

/*
 * Writes a file of another name, which takes its own once it is whole and on
 * disk.  Failures are only logged: the postmaster is ending.
 */
static void
write_file(void)
{
	BddShutdownFile file = {0};
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
	rows = put_all(&file);
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
	if (durable_rename(FILE_NAME_NEW, FILE_NAME, LOG) == 0 && rows > 0)
		ereport(LOG,
				(errmsg("batchdedup kept " UINT64_FORMAT " buffered rows in file \"%s\"",
						rows, FILE_NAME)));
}

/*
 * By the control file, in which a crash or an immediate stop leaves another
 * state.
 */
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

/* Reads so many bytes; false: the file has fewer. */
static bool
take(BddShutdownFile *file, void *data, size_t size)
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

/*
 * The server does not start: these rows are in no journal, and would be lost.
 */
static void
report_no_room(void)
{
	ereport(FATAL,
			(errcode(ERRCODE_OUT_OF_MEMORY),
			 errmsg("rows that batchdedup kept at the last shutdown do not fit into its buffer"),
			 errhint("Raise batchdedup.buffer_size and batchdedup.max_targets to what they were.")));
}

/* Returns false with "no_room", or if the file has less. */
static bool
take_row(BddShutdownFile *file, BddSharedGeneration *generation, bool *no_room)
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
	if (stored && generation != NULL &&
		!bdd_load_version(generation, row.hash, key, row.key_size,
						  row.sequence, &image))
	{
		*no_room = true;
		stored = false;
	}
	pfree(key);
	pfree(image.data);
	return stored;
}

/* Reads a generation; rows of logged targets are passed over unless "logged". */
static bool
take_generation(BddShutdownFile *file, const BddFileGeneration *head, bool logged,
				bool *no_room)
{
	BddSharedGeneration *generation = NULL;

	if (logged || !head->logged)
	{
		generation = bdd_load_generation(head->database, head->relid,
										 head->target_id, head->applied,
										 head->number, head->fingerprint);
		if (generation == NULL)
		{
			*no_room = true;
			return false;
		}
		generation->logged = head->logged;
		generation->set_bytes = head->set_bytes;
		generation->journal_from = head->journal_from;
	}
	for (uint64 i = 0; i < head->rows; i++)
		if (!take_row(file, generation, no_room))
			return false;
	return true;
}

/* "logged": rows of logged targets, too; set to false if there are more. */
static bool
take_all(BddShutdownFile *file, bool *logged, uint64 *rows, bool *no_room)
{
	BddFileHead head;
	BddFileGeneration generation;

	rewind(file->stream);
	*no_room = false;
	if (!take(file, &head, sizeof(head)) || head.magic != FILE_MAGIC ||
		head.catalog_version != CATALOG_VERSION_NO)
		return false;
	*logged = *logged && head.complete != 0;
	*rows = head.rows;
	pg_atomic_write_u64(&bdd_sequence->last, head.last_sequence);
	while (take(file, &generation, sizeof(generation)))
	{
		if (!OidIsValid(generation.database))
			return true;
		if (!take_generation(file, &generation, *logged, no_room))
			return false;
	}
	return false;
}

/* Whether the WAL ends with the shutdown, and goes on from there. */
static bool
starts_cleanly(void)
{
	return was_shut_down_cleanly() && access("standby.signal", F_OK) != 0 &&
		   access("recovery.signal", F_OK) != 0 &&
		   access("backup_label", F_OK) != 0;
}

/*
 * In the postmaster, before anybody else can look at shared memory.  Returns
 * whether rows of logged targets are in memory again, or there were none: only
 * the file knows that, since somebody may have started the server without us.
 */
static bool
load_buffered_rows(void)
{
	BddShutdownFile file = {0};
	bool logged = starts_cleanly();
	uint64 rows = 0;
	bool no_room = false;
	bool loaded;

	file.stream = AllocateFile(FILE_NAME, PG_BINARY_R);
	if (file.stream == NULL)
	{
		if (errno != ENOENT)
			ereport(FATAL,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", FILE_NAME)));
		return false;
	}
	loaded = is_intact(file.stream);
	if (loaded)
		loaded = take_all(&file, &logged, &rows, &no_room);
	if (!loaded && no_room && logged)
	{
		/* There is room for the others, perhaps. */
		logged = false;
		bdd_unload_all();
		loaded = take_all(&file, &logged, &rows, &no_room);
	}
	if (!loaded && no_room)
		report_no_room();
	FreeFile(file.stream);
	if (!loaded)
	{
		bdd_unload_all();
		ereport(LOG,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" is damaged or of another version: its rows are not in the buffer",
						FILE_NAME),
				 errdetail("It is kept as \"%s\".", FILE_NAME_BAD)));
		(void) durable_rename(FILE_NAME, FILE_NAME_BAD, LOG);
		return false;
	}
	if (rows > 0)
		ereport(LOG,
				(errmsg("batchdedup took its rows back from file \"%s\"",
						FILE_NAME)));
	return logged;
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

/* Whether the last shutdown left rows; true also if the file does not tell. */
static bool
may_have_rows(void)
{
	FILE *stream = AllocateFile(FILE_NAME, PG_BINARY_R);
	BddFileHead head;
	bool rows = true;

	if (stream == NULL)
		return errno != ENOENT;
	if (fread(&head, sizeof(head), 1, stream) == 1 &&
		head.magic == FILE_MAGIC)
		rows = head.rows > 0 || head.complete == 0;
	FreeFile(stream);
	return rows;
}

/* The servers that pg_upgrade starts: it would leave the file behind. */
void
bdd_shutdown_file_refuse_upgrade(void)
{
	if (may_have_rows())
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
	bdd_journal->in_memory = load_buffered_rows();
	bdd_am_worker = false;
	on_shmem_exit(keep_buffered_rows, (Datum) 0);
}
