/*-------------------------------------------------------------------------
 *
 * group.c
 *		The targets that are sealed at one moment and applied in one transaction.
 *
 * Targets with the same flush_group; a target without one is a group of its own.
 * A group here has the members that have rows, or may have.
 *
 *-------------------------------------------------------------------------
 */
#include "worker/group.h"

#include "base/debug_point.h"
#include "buffer/generation.h"
#include "sql/spi.h"
#include "utils/array.h"
#include "utils/timestamp.h"

/* ---------- members ---------- */

/* Adds the slot's target; false: it is gone. */
static bool
add_member(BddFlushGroup *group, BddSharedSlot *slot)
{
	BddMember *member = &group->members[group->count];

	member->slot = slot;
	member->target_id = slot->target_id;
	member->relid = slot->relid;
	member->number = 0;
	member->related = false;
	if (!bdd_due_read(member->target_id, member->relid, &member->due))
		return false;
	group->count++;
	return true;
}

/* Whether the table is one of the members. */
bool
bdd_group_has(const BddFlushGroup *group, Oid relid)
{
	for (int i = 0; i < group->count; i++)
		if (group->members[i].relid == relid)
			return true;
	return false;
}

/* Adds targets of the group that have rows and are not known as members. */
static void
add_others(BddFlushGroup *group)
{
	if (group->members[0].due.group[0] == '\0')
		return;
	for (int i = 0; i < bdd_registry->slot_count && group->count < BDD_GROUP_MEMBERS;
		 i++)
	{
		BddSharedSlot *other = &bdd_registry->slots[i];

		if (!other->in_use || other->worker != group->members[0].slot->worker ||
			bdd_group_has(group, other->relid) ||
			!bdd_slot_is_buffering(other) || !add_member(group, other))
			continue;
		if (strcmp(group->members[group->count - 1].due.group,
				   group->members[0].due.group) != 0)
			group->count--;
	}
}

/* The target, and those of its group that have rows; false: it is gone. */
bool
bdd_group_find(BddSharedSlot *slot, BddFlushGroup *group)
{
	group->count = 0;
	if (!add_member(group, slot))
		return false;
	add_others(group);
	return true;
}

/* One that is paused keeps all waiting. */
bool
bdd_group_is_paused(const BddFlushGroup *group)
{
	for (int i = 0; i < group->count; i++)
		if (group->members[i].due.paused)
			return true;
	return false;
}

/* ---------- sealing ---------- */

/* Whether a member has rows to apply. */
bool
bdd_group_has_sealed(const BddFlushGroup *group)
{
	for (int i = 0; i < group->count; i++)
		if (bdd_next_sealed(group->members[i].slot, 0) != NULL)
			return true;
	return false;
}

/*
 * Seals all members at one moment.  Their rows may have been published together
 * with rows of a target that had none when we looked: then that becomes a member,
 * and all are sealed once more.
 */
void
bdd_group_seal(BddFlushGroup *group)
{
	BddSharedSlot *slots[BDD_GROUP_MEMBERS];
	int sealed;

	bdd_debug_point("seal");
	do
	{
		sealed = group->count;
		for (int i = 0; i < sealed; i++)
			slots[i] = group->members[i].slot;
		bdd_seal_together(slots, sealed);
		add_others(group);
	} while (group->count > sealed);
}

/* ---------- order of members ---------- */

/* For qsort: by the table's OID. */
static int
compare_members(const void *a, const void *b)
{
	Oid left = ((const BddMember *) a)->relid;
	Oid right = ((const BddMember *) b)->relid;

	return left < right ? -1 : left > right ? 1 :
											  0;
}

/* The members in the order in which tables are locked, if there are several. */
void
bdd_group_sort_by_oid(BddFlushGroup *group)
{
	qsort(group->members, group->count, sizeof(BddMember), compare_members);
}

/* The members' tables as an oid[]. */
static Datum
member_oids(const BddFlushGroup *group)
{
	Datum oids[BDD_GROUP_MEMBERS];

	for (int i = 0; i < group->count; i++)
		oids[i] = ObjectIdGetDatum(group->members[i].relid);
	return PointerGetDatum(construct_array(oids, group->count, OIDOID,
										   sizeof(Oid), true, TYPALIGN_INT));
}

/* Marks, from member "from" on, those that others of these reference. */
static void
mark_referenced(BddFlushGroup *group, int from, Datum *references, uint64 count)
{
	for (int i = from; i < group->count; i++)
		group->members[i].referenced = false;
	for (uint64 r = 0; r < count; r++)
		for (int i = from; i < group->count; i++)
			for (int j = from; j < group->count; j++)
				if (group->members[i].relid == DatumGetObjectId(references[2 * r]) &&
					group->members[j].relid == DatumGetObjectId(references[2 * r + 1]))
				{
					group->members[j].referenced = true;
					group->members[i].related = true;
					group->members[j].related = true;
				}
}

/*
 * The members in an order in which each comes before those that it references
 * by a foreign key, as far as there is one.
 */
void
bdd_group_sort_by_reference(BddFlushGroup *group)
{
	Oid types[] = {OIDARRAYOID};
	Datum values[] = {member_oids(group)};
	Datum *references;
	uint64 count;
	bool isnull;

	if (group->count == 1)
		return;
	bdd_spi_connect();
	count = bdd_spi_run("SELECT conrelid, confrelid FROM pg_catalog.pg_constraint "
						"WHERE contype OPERATOR(pg_catalog.=) 'f' "
						"AND conrelid OPERATOR(pg_catalog.=) ANY ($1) "
						"AND confrelid OPERATOR(pg_catalog.=) ANY ($1) "
						"AND confrelid OPERATOR(pg_catalog.<>) conrelid",
						1, types, values, NULL);
	references = palloc(Max(count, 1) * 2 * sizeof(Datum));
	for (uint64 i = 0; i < 2 * count; i++)
		references[i] = SPI_getbinval(SPI_tuptable->vals[i / 2],
									  SPI_tuptable->tupdesc, i % 2 + 1,
									  &isnull);
	for (int place = 0; place < group->count; place++)
	{
		mark_referenced(group, place, references, count);
		for (int i = place; i < group->count; i++)
			if (!group->members[i].referenced)
			{
				BddMember swap = group->members[place];

				group->members[place] = group->members[i];
				group->members[i] = swap;
				break;
			}
	}
	bdd_spi_finish();
}

/* ---------- when ---------- */

/* Milliseconds until the first of the members is due; 0: now, -1: none is. */
long
bdd_group_due_in(const BddFlushGroup *group)
{
	long wait = -1;

	for (int i = 0; i < group->count; i++)
		wait = bdd_sooner(wait, bdd_due_in(group->members[i].slot,
										   &group->members[i].due));
	return wait;
}

/* Milliseconds until a failed target is to be tried again; 0: now. */
long
bdd_group_retry_in(const BddFlushGroup *group)
{
	long wait = 0;

	for (int i = 0; i < group->count; i++)
	{
		BddSharedSlot *slot = group->members[i].slot;
		TimestampTz at;

		LWLockAcquire(&slot->lock, LW_SHARED);
		at = slot->failure.count > 0 ? slot->failure.retry_at : 0;
		LWLockRelease(&slot->lock);
		if (at != 0)
			wait = Max(wait, bdd_ms_until(at));
	}
	return wait;
}
