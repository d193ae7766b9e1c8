/*-------------------------------------------------------------------------
 *
 * spool.c
 *		Rows of a target that were found in the journal, in a file.
 *
 * After a crash the launcher reads the journal once for all databases and
 * puts what it finds into a file for each target; the worker of the database
 * applies them.  The files are scratch: after a crash on the way they are made
 * from the journal again.
 *
 * A file has sections as the journal's messages do, each behind a
 * BddSpoolHead.
 *
 *-------------------------------------------------------------------------
 */
#include "journal/spool.h"

#include <sys/stat.h>
#include <unistd.h>

#include "journal/message.h"
#include "storage/fd.h"

#define SPOOL_DIRECTORY "batchdedup_replay"

typedef struct BddSpoolHead
{
	uint64 generation;
	uint64 first_sequence;
	uint64 rows;
	uint64 copy;
	uint64 copied_to;
	XLogRecPtr lsn;
	uint32 fingerprint;
	uint32 size;
} BddSpoolHead;

/* The file of a target. */
static void
spool_path(char *path, Oid database, int32 target_id)
{
	snprintf(path, MAXPGPATH, SPOOL_DIRECTORY "/%u.%d", database, target_id);
}

/* The reason is in errno. */
static void
report_write(const char *path)
{
	ereport(ERROR,
			(errcode_for_file_access(),
			 errmsg("could not write file \"%s\": %m", path)));
}

/* Of all databases, with their directory. */
void
bdd_spool_remove_all(void)
{
	struct stat status;

	if (stat(SPOOL_DIRECTORY, &status) == 0)
		(void) rmtree(SPOOL_DIRECTORY, true);
}

/* Adds the section to a buffer for bdd_spool_append. */
void
bdd_spool_put(StringInfo buffer, const BddJournalSection *section)
{
	BddSpoolHead head = {.generation = section->generation,
						 .first_sequence = section->first_sequence,
						 .rows = section->rows,
						 .copy = section->copy,
						 .lsn = section->lsn,
						 .fingerprint = section->fingerprint,
						 .size = section->size};

	appendBinaryStringInfo(buffer, (char *) &head, sizeof(head));
	appendBinaryStringInfo(buffer, section->data, section->size);
}

/* Adds that a copy counts, which is of generations "from" to "to". */
void
bdd_spool_copied(StringInfo buffer, uint64 copy, uint64 from, uint64 to)
{
	BddSpoolHead head = {.generation = from, .copy = copy, .copied_to = to};

	appendBinaryStringInfo(buffer, (char *) &head, sizeof(head));
}

/* Appends the buffer to the target's file, and empties it. */
void
bdd_spool_append(Oid database, int32 target_id, StringInfo buffer)
{
	char path[MAXPGPATH];
	FILE *stream;

	if (buffer->len == 0)
		return;
	if (MakePGDirectory(SPOOL_DIRECTORY) < 0 && errno != EEXIST)
		report_write(SPOOL_DIRECTORY);
	spool_path(path, database, target_id);
	stream = AllocateFile(path, PG_BINARY_A);
	if (stream == NULL ||
		fwrite(buffer->data, buffer->len, 1, stream) != 1 ||
		FreeFile(stream) != 0)
		report_write(path);
	resetStringInfo(buffer);
}

/* Reads bytes that must be there: anything else is an error. */
static void
read_exactly(BddSpool *spool, void *data, Size size)
{
	if (size > 0 && fread(data, size, 1, spool->stream) != 1)
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("file \"%s\" ends too early", spool->path),
				 errhint("Restart the server: the file is made again.")));
}

/*
 * The next section, whether or not it counts; false: the end.  Its data is in
 * the spool's buffer until the next one is read.
 */
static bool
read_section(BddSpool *spool, BddJournalSection *section)
{
	BddSpoolHead head;
	int c = getc(spool->stream);

	if (c == EOF)
		return false;
	ungetc(c, spool->stream);
	read_exactly(spool, &head, sizeof(head));
	if (head.size > spool->room)
	{
		if (spool->buffer != NULL)
			pfree(spool->buffer);
		spool->buffer = MemoryContextAllocHuge(CurrentMemoryContext,
											   head.size);
		spool->room = head.size;
	}
	read_exactly(spool, spool->buffer, head.size);
	memset(section, 0, sizeof(*section));
	section->generation = head.generation;
	section->first_sequence = head.first_sequence;
	section->rows = head.rows;
	section->copy = head.copy;
	section->copied_to = head.copied_to;
	section->lsn = head.lsn;
	section->fingerprint = head.fingerprint;
	section->size = head.size;
	section->data = spool->buffer;
	return true;
}

/* Rows count unless a later copy replaces them; those of a copy, if it does. */
static bool
counts(const BddSpool *spool, const BddJournalSection *section)
{
	bool complete = section->copy == 0;
	ListCell *cell;

	foreach(cell, spool->copies)
	{
		const BddJournalSection *copy = lfirst(cell);

		if (copy->copy == section->copy)
			complete = true;
		else if (copy->copy > section->copy &&
				 copy->generation <= section->generation &&
				 section->generation <= copy->copied_to)
			return false;
	}
	return complete;
}

/* False: there is no file, and so there are no rows. */
bool
bdd_spool_open(BddSpool *spool, Oid database, int32 target_id)
{
	BddJournalSection section;

	memset(spool, 0, sizeof(*spool));
	spool_path(spool->path, database, target_id);
	spool->stream = AllocateFile(spool->path, PG_BINARY_R);
	if (spool->stream == NULL && errno != ENOENT)
		ereport(ERROR,
				(errcode_for_file_access(),
				 errmsg("could not open file \"%s\": %m", spool->path)));
	if (spool->stream == NULL)
		return false;
	while (read_section(spool, &section))
	{
		spool->rows += section.rows;
		if (section.copied_to != 0)
		{
			BddJournalSection *copy = palloc(sizeof(*copy));

			*copy = section;
			spool->copies = lappend(spool->copies, copy);
		}
	}
	rewind(spool->stream);
	return true;
}

/* Whether the file, or that there is none, agrees with what was found. */
bool
bdd_spool_is_whole(const BddSpool *spool, uint32 rows)
{
	return Min(spool->rows, PG_UINT32_MAX) == rows;
}

/*
 * The next section with rows that count, valid until the one after it; false:
 * the end.
 */
bool
bdd_spool_next(BddSpool *spool, BddJournalSection *section)
{
	while (read_section(spool, section))
		if (section->copied_to == 0 && counts(spool, section))
			return true;
	return false;
}

/* The list of copies goes with its memory context. */
void
bdd_spool_close(BddSpool *spool)
{
	FreeFile(spool->stream);
	if (spool->buffer != NULL)
		pfree(spool->buffer);
}

/* Bytes of the target's file; 0: there is none. */
uint64
bdd_spool_size(Oid database, int32 target_id)
{
	char path[MAXPGPATH];
	struct stat status;

	spool_path(path, database, target_id);
	return stat(path, &status) == 0 ? status.st_size : 0;
}

/* Removes the target's file, if it has one.  A failure is only logged. */
void
bdd_spool_remove(Oid database, int32 target_id)
{
	char path[MAXPGPATH];

	spool_path(path, database, target_id);
	if (unlink(path) != 0 && errno != ENOENT)
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not remove file \"%s\": %m", path)));
}

/*
 * Removes the files that nobody needs; true: others are left.  A target or a
 * database may be gone that had one.
 */
bool
bdd_spool_remove_others(bool (*needed)(Oid database, int32 target_id))
{
	DIR *directory = AllocateDir(SPOOL_DIRECTORY);
	struct dirent *entry;
	bool left = false;

	if (directory == NULL)
		return false;
	while ((entry = ReadDir(directory, SPOOL_DIRECTORY)) != NULL)
	{
		Oid database;
		int32 target_id;

		if (sscanf(entry->d_name, "%u.%d", &database, &target_id) != 2)
			continue;
		if (needed(database, target_id))
			left = true;
		else
			bdd_spool_remove(database, target_id);
	}
	FreeDir(directory);
	return left;
}
