/*-------------------------------------------------------------------------
 *
 * consumer.h
 *		Consumers of events.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_CONSUMER_H
#define BDD_CONSUMER_H

#include "base/base.h"

#include "fmgr.h"

/* A consumer as it was created. */
typedef struct BddConsumer
{
	Datum name;
	Datum kinds; /* of events that it wants, a text[] */
	bool all_kinds;
	int shards;
	int max_attempts;
} BddConsumer;

/* The instance of a consumer that calls poll_events, ack_events or nack_event. */
typedef struct BddPoller
{
	char *name; /* "": the call does not name one */
	int shard;  /* -1: any */
} BddPoller;

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

extern void bdd_check_between(int value, int most, const char *what);
extern BddPoller bdd_poller_argument(FunctionCallInfo fcinfo, int shard, int name);
extern BddConsumer bdd_consumer_find(Datum name, int shard);

#endif /* BDD_CONSUMER_H */
