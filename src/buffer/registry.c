/*-------------------------------------------------------------------------
 *
 * registry.c
 *		The targets and workers of the server, in shared memory.
 *
 *-------------------------------------------------------------------------
 */
#include "buffer/registry.h"

BddSharedRegistry *bdd_registry = NULL;

/*
 * The database's entry in workers, a free one made its own if it has none; -1:
 * none is free.  There are as many as slots, but a worker that has yet to leave
 * may hold the entry of a database without any.
 */
int
bdd_worker_index(Oid database)
{
	int free_index = -1;

	for (int i = 0; i < bdd_registry->slot_count; i++)
	{
		if (bdd_registry->workers[i].database == database)
			return i;
		if (free_index < 0 && bdd_registry->workers[i].database == InvalidOid)
			free_index = i;
	}
	if (free_index >= 0)
	{
		bdd_registry->workers[free_index].database = database;
		bdd_registry->workers[free_index].away_until = 0;
	}
	return free_index;
}

/*
 * A worker entry without targets and without a worker is free again.  The
 * caller holds the registry lock exclusively.
 */
void
bdd_release_worker_index(int worker)
{
	for (int i = 0; i < bdd_registry->slot_count; i++)
		if (bdd_registry->slots[i].in_use &&
			bdd_registry->slots[i].worker == worker)
			return;
	if (bdd_registry->workers[worker].state == BDD_WORKER_NONE)
		bdd_registry->workers[worker].database = InvalidOid;
}
