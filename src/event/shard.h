/*-------------------------------------------------------------------------
 *
 * shard.h
 *		How far a consumer is: the row of one of its shards.
 *
 *-------------------------------------------------------------------------
 */
#ifndef BDD_SHARD_H
#define BDD_SHARD_H

#include "base/base.h"

#include "event/consumer.h"

/* SQL: the shard of event "e", of so many; as in the view event_pending. */
#define BDD_EVENT_SHARD(shards)                                                            \
	"((hashtextextended(coalesce(e.ordering_key, e.batch_id::text, '') COLLATE \"C\", 0) " \
	"& 9223372036854775807) % " shards ")::int "

/* A row of consumer_shard that is locked. */
typedef struct BddShard
{
	const BddConsumer *consumer;
	int number;
	Datum done;
	Datum until;
	bool in_batch;
	int64 batch_events;
	int64 acked;
	int64 given;
	char *holder; /* or NULL */
	bool restored;
} BddShard;

/* SQL: the shard "s" may be had by instance $3. */
#define BDD_SHARD_MAY_HAVE \
	"(s.holder IS NULL OR s.holder = $3 OR s.lease_until <= clock_timestamp()) "

extern bool bdd_shard_take(BddShard *shard, const char *instance);
extern void bdd_shard_lock(BddShard *shard);
extern void bdd_shard_store(const BddShard *shard, const char *holder, Datum lease);
extern void bdd_shard_begin_restored(BddShard *shard);
extern Datum bdd_snapshot_now(void);

#endif /* BDD_SHARD_H */
