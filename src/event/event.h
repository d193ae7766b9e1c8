/*-------------------------------------------------------------------------
 *
 * event.h
 *		Events, and where a consumer of them is.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_EVENT_H
#define BDD_EVENT_H

#include "base/base.h"

#include "fmgr.h"

/*
 * SQL: a snapshot of now, as a pg_snapshot.  The transaction that takes it may
 * write events after it; pg_current_snapshot() calls it visible all the same,
 * if others that began later have ended.
 */
#define BDD_SNAPSHOT_NOW                                                             \
	"(SELECT CASE WHEN n.own >= pg_snapshot_xmax(n.s) THEN n.s ELSE ("               \
	"least(pg_snapshot_xmin(n.s), n.own) || ':' || pg_snapshot_xmax(n.s) || ':' || " \
	"array_to_string(ARRAY(SELECT x.x FROM (SELECT pg_snapshot_xip(n.s) AS x "       \
	"UNION SELECT n.own) x ORDER BY x.x), ','))::pg_snapshot END "                   \
	"FROM (SELECT pg_current_snapshot() AS s, pg_current_xact_id() AS own OFFSET 0) n) "

/* SQL: the shard of event "e", of so many; as in the view event_pending. */
#define BDD_EVENT_SHARD(shards)                                                            \
	"((hashtextextended(coalesce(e.ordering_key, e.batch_id::text, '') COLLATE \"C\", 0) " \
	"& 9223372036854775807) % " shards ")::int "

#endif /* BDD_EVENT_H */
