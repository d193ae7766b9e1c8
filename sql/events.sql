-- Events, and consumers of them.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_event;
SET search_path = regress_event;
-- Ids begin at 1 for those who read this.
DELETE FROM batchdedup.event;
ALTER SEQUENCE batchdedup.event_id_seq RESTART;
CREATE VIEW consumer AS
SELECT name, shard, holder, lag_events AS events, dead_letters AS letters, lost_events AS lost,
       lag > '0' AS lag, lease_until > clock_timestamp() AS leased
  FROM batchdedup.consumer ORDER BY name, shard;

--
-- publish_event
--
SELECT batchdedup.publish_event('app.a');
SELECT batchdedup.publish_event('app.a', '{"n": 2}', 'key 1', 'order 1');
-- a repeated key returns the first one's id
SELECT batchdedup.publish_event('app.a', '{"n": 2}', 'key 1', 'order 1');
SELECT batchdedup.publish_event('app.a', '{"n": 2.0}', idempotency_key => 'key 1', ordering_key => 'order 1');
-- but what it says is the same
SELECT batchdedup.publish_event('app.b', '{"n": 2}', 'key 1', 'order 1');
\echo :SQLSTATE
SELECT batchdedup.publish_event('app.a', '{"n": 3}', 'key 1', 'order 1');
SELECT batchdedup.publish_event('app.a', '{"n": 2}', 'key 1', NULL);
-- also in a transaction that has published it, or in part
BEGIN;
SELECT batchdedup.publish_event('app.b', '{}', 'key 2') AS id \gset
SELECT batchdedup.publish_event('app.b', '{}', 'key 2') - :id AS same;
SAVEPOINT s;
SELECT batchdedup.publish_event('app.b', '{}', 'key 3') - :id AS next;
ROLLBACK TO s;
SELECT batchdedup.publish_event('app.b', '[]', 'key 3') - :id AS other;
COMMIT;
SELECT id - :id AS id, kind, payload, idempotency_key, ordering_key, batch_id, file_id, dumped_xid, at <= clock_timestamp() AS at
  FROM batchdedup.event WHERE id >= :id ORDER BY id;
-- arguments
SELECT batchdedup.publish_event(NULL);
\echo :SQLSTATE
SELECT batchdedup.publish_event('app.a', NULL);
\echo :SQLSTATE
SELECT batchdedup.publish_event('');
\echo :SQLSTATE
SELECT batchdedup.publish_event('file_done');
\echo :SQLSTATE
SELECT batchdedup.publish_event(k) FROM unnest('{batch_created,file_added,file_reopened,upload_completed,status_changed,
    file_failed,all_files_done,instance_finalized,import_published,batch_failed,workers_done}'::text[]) k;
SELECT count(*) FROM batchdedup.event;

--
-- create_consumer
--
SELECT batchdedup.create_consumer('all');
SELECT batchdedup.create_consumer('all');
SELECT batchdedup.create_consumer('new', 'newest');
SELECT batchdedup.create_consumer('some', kinds => '{app.b,app.c,app.b}', max_attempts => 2);
SELECT batchdedup.create_consumer('some', kinds => '{app.c,app.b}', max_attempts => 2);
SELECT batchdedup.create_consumer('many', shards => 4);
SELECT name, start, kinds, shards, max_attempts, shard, holder, lease_until, polled_at FROM batchdedup.consumer ORDER BY 1, 6;
SELECT * FROM consumer;
SELECT batchdedup.create_consumer('all', 'newest');
\echo :SQLSTATE
SELECT batchdedup.create_consumer('all', shards => 2);
SELECT batchdedup.create_consumer('all', kinds => '{app.a}');
SELECT batchdedup.create_consumer('some', max_attempts => 2);
SELECT batchdedup.create_consumer('all', max_attempts => 6);
SELECT batchdedup.create_consumer(NULL);
\echo :SQLSTATE
SELECT batchdedup.create_consumer('x', NULL);
SELECT batchdedup.create_consumer('x', shards => NULL);
SELECT batchdedup.create_consumer('x', max_attempts => NULL);
SELECT batchdedup.create_consumer('x', kinds => '{app.a,NULL}');
\echo :SQLSTATE
SELECT batchdedup.create_consumer('x', kinds => '{}');
\echo :SQLSTATE
SELECT batchdedup.create_consumer('');
SELECT batchdedup.create_consumer('x', 'Oldest');
\echo :SQLSTATE
SELECT batchdedup.create_consumer('x', shards => 0);
SELECT batchdedup.create_consumer('x', shards => 1001);
SELECT batchdedup.create_consumer('x', max_attempts => 0);
SELECT count(*) FROM batchdedup.consumer WHERE name = 'x';

--
-- poll and ack
--
SELECT id, kind, payload, idempotency_key, ordering_key, shard, attempts FROM batchdedup.poll_events('all');
-- again and again
SELECT id FROM batchdedup.poll_events('all', 2);
SELECT batchdedup.ack_events('all', 1);
SELECT batchdedup.ack_events('all', 1);
SELECT id FROM batchdedup.poll_events('all', 1);
SELECT * FROM consumer WHERE name = 'all';
-- what it was given by a former poll counts
SELECT batchdedup.ack_events('all', max(id)) FROM batchdedup.event;
SELECT * FROM consumer WHERE name = 'all';
SELECT * FROM batchdedup.poll_events('all');
SELECT batchdedup.ack_events('all', 2);
-- not what it was not given
SELECT batchdedup.publish_event('app.c', '"c"') AS id \gset
SELECT batchdedup.ack_events('all', :id);
\echo :SQLSTATE
SELECT batchdedup.publish_event('app.c', '"c"') AS id2 \gset
SELECT payload FROM batchdedup.poll_events('all', 1);
SELECT batchdedup.ack_events('all', :id2);
SELECT batchdedup.ack_events('all', 9223372036854775807);
SELECT batchdedup.ack_events('all', -1);
SELECT batchdedup.ack_events('all', :id);
-- a poll that is rolled back has given nothing
BEGIN;
SELECT id = :id2 AS second FROM batchdedup.poll_events('all');
ROLLBACK;
SELECT batchdedup.ack_events('all', :id2);
BEGIN;
SAVEPOINT s;
SELECT id = :id2 AS second FROM batchdedup.poll_events('all');
ROLLBACK TO s;
SELECT batchdedup.ack_events('all', :id2);
ROLLBACK;
SELECT id = :id2 AS second FROM batchdedup.poll_events('all');
BEGIN;
SELECT batchdedup.ack_events('all', :id2);
ROLLBACK;
SELECT id = :id2 AS second FROM batchdedup.poll_events('all');
SELECT batchdedup.ack_events('all', :id2);
-- the newest, and those of some kinds
SELECT kind, payload FROM batchdedup.poll_events('new');
SELECT kind, payload FROM batchdedup.poll_events('some');
SELECT batchdedup.ack_events('some', :id);
SELECT id = :id2 AS second FROM batchdedup.poll_events('some');
SELECT batchdedup.ack_events('some', :id2);
-- one passes by what is not of its kinds, so that it may expire
SELECT count(batchdedup.publish_event('app.d')) FROM generate_series(1, 10);
SELECT * FROM batchdedup.poll_events('some');
SELECT count(*) AS not_passed FROM batchdedup.event e JOIN batchdedup.consumer_shard s ON s.consumer = 'some'
 WHERE NOT pg_visible_in_snapshot(e.xid, s.done);
-- where nothing has happened nothing is written
BEGIN;
SELECT count(*) FROM batchdedup.poll_events('some');
SELECT pg_current_xact_id_if_assigned();
ROLLBACK;
-- arguments
SELECT * FROM batchdedup.poll_events('nobody');
\echo :SQLSTATE
SELECT * FROM batchdedup.poll_events(NULL);
\echo :SQLSTATE
SELECT * FROM batchdedup.poll_events('all', NULL);
SELECT * FROM batchdedup.poll_events('all', lease => NULL);
SELECT * FROM batchdedup.poll_events('all', 0);
\echo :SQLSTATE
SELECT * FROM batchdedup.poll_events('all', -1);
SELECT * FROM batchdedup.poll_events('all', shard => 1);
SELECT * FROM batchdedup.poll_events('all', shard => -1);
SELECT * FROM batchdedup.poll_events('all', lease => '0');
SELECT * FROM batchdedup.poll_events('all', lease => '-1 second');
SELECT count(*) FROM batchdedup.poll_events('all', 2147483647);
SELECT batchdedup.ack_events('nobody', 1);
SELECT batchdedup.ack_events(NULL, 1);
SELECT batchdedup.ack_events('all', NULL);
\echo :SQLSTATE
SELECT batchdedup.ack_events('all', 1, shard => 1);
SELECT batchdedup.ack_events('many', 9223372036854775807);
\echo :SQLSTATE

--
-- A transaction that polls, publishes and acknowledges
--
SELECT batchdedup.create_consumer('chain', 'newest');
BEGIN;
SELECT batchdedup.publish_event('app.before', '1');
SELECT * FROM batchdedup.poll_events('chain');
SELECT batchdedup.publish_event('app.before', '2');
SELECT * FROM batchdedup.poll_events('chain');
COMMIT;
BEGIN;
SELECT payload FROM batchdedup.poll_events('chain');
SELECT batchdedup.publish_event('app.between', '3');
SELECT payload FROM batchdedup.poll_events('chain');
SELECT batchdedup.ack_events('chain', (SELECT id FROM batchdedup.event WHERE payload = '2' AND kind = 'app.before'));
SELECT payload FROM batchdedup.poll_events('chain');
SELECT batchdedup.publish_event('app.between', '4');
COMMIT;
SELECT payload FROM batchdedup.poll_events('chain');
-- with one snapshot, too
SELECT batchdedup.ack_events('chain', max(id)) FROM batchdedup.event;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM batchdedup.poll_events('chain');
SELECT batchdedup.publish_event('app.between', '5');
SELECT count(*) FROM batchdedup.poll_events('chain');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT payload FROM batchdedup.poll_events('chain');
SELECT batchdedup.ack_events('chain', max(id)) FROM batchdedup.event;
SELECT count(*) FROM batchdedup.poll_events('chain');
COMMIT;
SELECT count(*) FROM batchdedup.poll_events('chain');
-- nothing in it is skipped where the poll comes between two events
CREATE FUNCTION polled(what text) RETURNS jsonb LANGUAGE sql AS
$$ SELECT jsonb_agg(payload ORDER BY id) FROM batchdedup.poll_events(what) $$;
DO $$
BEGIN
    PERFORM batchdedup.publish_event('app.one', '6');
    PERFORM polled('chain');
    PERFORM batchdedup.publish_event('app.one', '7');
    PERFORM polled('chain');
END $$;
SELECT polled('chain');
SELECT batchdedup.drop_consumer('chain');

--
-- Shards, instances and their leases
--
SELECT batchdedup.create_consumer('shop', 'newest', '{app.order}', 4);
SELECT count(batchdedup.publish_event('app.order', to_jsonb(i), ordering_key => 'key ' || i % 8)) FROM generate_series(1, 24) i;
SELECT shard, lag_events > 0 AS some FROM batchdedup.consumer WHERE name = 'shop' ORDER BY 1;
-- each shard to another one, keys in order
CREATE TABLE got (instance text, shard int, key text, n int, position bigint GENERATED ALWAYS AS IDENTITY);
CREATE FUNCTION get(instance text, max_events int DEFAULT 100, shard int DEFAULT NULL) RETURNS bigint LANGUAGE sql AS $$
WITH polled AS (INSERT INTO got (instance, shard, key, n)
                SELECT $1, p.shard, p.ordering_key, p.payload::int FROM batchdedup.poll_events('shop', $2, $3, $1) p RETURNING *)
SELECT count(DISTINCT p.shard) FROM polled p $$;
SELECT get('a'), get('b'), get('c');
SELECT count(DISTINCT shard), count(DISTINCT instance), count(*) = sum((SELECT count(*) FROM batchdedup.event_pending p
    WHERE p.consumer = 'shop' AND p.shard = g.shard) / (SELECT count(*) FROM got h WHERE h.shard = g.shard)) AS whole FROM got g;
-- an instance has what it has until it has acknowledged it
SELECT shard AS a FROM got WHERE instance = 'a' LIMIT 1 \gset
SELECT get('a', 1), get('a', 1, :a), get('b', 1, :a);
SELECT count(DISTINCT shard) FROM got WHERE instance = 'a';
SELECT max(id) AS last FROM batchdedup.event_pending WHERE consumer = 'shop' AND shard = :a \gset
SELECT batchdedup.ack_events('shop', :last, instance => 'b');
\echo :SQLSTATE
SELECT batchdedup.ack_events('shop', :last);
\set VERBOSITY terse
SELECT batchdedup.ack_events('shop', :last, shard => (:a + 1) % 4, instance => 'a');
\set VERBOSITY default
SELECT batchdedup.ack_events('shop', :last, shard => :a, instance => 'a');
SELECT batchdedup.ack_events('shop', :last, instance => 'b');
SELECT holder, lag_events FROM batchdedup.consumer WHERE name = 'shop' AND shard = :a;
SELECT count(*) FROM batchdedup.poll_events('shop', shard => :a, instance => 'a');
-- the fourth shard is still to be had
SELECT get('d'), get('e'), get('f');
SELECT count(DISTINCT shard), count(DISTINCT instance) FROM got;
SELECT bool_and(sorted) FROM (SELECT n > lag(n) OVER (PARTITION BY key, instance ORDER BY position) AS sorted FROM got
  WHERE NOT (instance = 'a')) g;
-- who is late has lost it once another one has taken it over
SELECT shard AS b FROM got WHERE instance = 'b' LIMIT 1 \gset
SELECT max(id) AS last FROM batchdedup.event_pending WHERE consumer = 'shop' AND shard = :b \gset
SELECT count(*) > 0 AS renewed FROM batchdedup.poll_events('shop', shard => :b, instance => 'b', lease => '1 microsecond');
SELECT pg_sleep(0.001);
SELECT leased FROM consumer WHERE name = 'shop' AND shard = :b;
BEGIN;
SELECT batchdedup.ack_events('shop', :last, instance => 'b');
ROLLBACK;
SELECT count(*) > 0 AS taken FROM batchdedup.poll_events('shop', shard => :b, instance => 'g');
SELECT leased, holder FROM consumer WHERE name = 'shop' AND shard = :b;
\set VERBOSITY terse
SELECT batchdedup.ack_events('shop', :last, instance => 'b');
\echo :SQLSTATE
SELECT batchdedup.nack_event('shop', :last, 'late', instance => 'b');
\set VERBOSITY default
SELECT count(*) FROM batchdedup.poll_events('shop', shard => :b, instance => 'b');
SELECT batchdedup.ack_events('shop', :last, instance => 'g');
SELECT batchdedup.drop_consumer('shop');

--
-- Events that fail
--
SELECT batchdedup.create_consumer('picky', 'newest', max_attempts => 2);
SELECT array_agg(batchdedup.publish_event('app.x', to_jsonb(i), 'x' || i)) AS x FROM generate_series(1, 4) i \gset
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[1], 'too early');
SELECT payload FROM batchdedup.poll_events('picky', 3);
SELECT batchdedup.ack_events('picky', (:'x'::bigint[])[1]);
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[1], 'too late');
\echo :SQLSTATE
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[2], 'first');
SELECT payload, attempts FROM batchdedup.poll_events('picky', 3);
SELECT event_id = (:'x'::bigint[])[2] AS second, attempts, error, dead FROM batchdedup.event_attempt WHERE consumer = 'picky';
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[2], 'second');
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[2], 'once more');
SELECT payload, attempts FROM batchdedup.poll_events('picky', 3);
SELECT event_id = (:'x'::bigint[])[2] AS second, shard, kind, payload, idempotency_key, attempts, error, attempts_left, given
  FROM batchdedup.event_dead_letter WHERE consumer = 'picky';
SELECT events, letters FROM consumer WHERE name = 'picky';
-- discarded is discarded, though the batch is not done
BEGIN;
SELECT batchdedup.discard_event_dead_letters('picky', (:'x'::bigint[])[1]);
SELECT batchdedup.discard_event_dead_letters('picky');
SELECT payload FROM batchdedup.poll_events('picky', 3);
SELECT count(*) FROM batchdedup.event_dead_letter;
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[2], 'once more');
\echo :SQLSTATE
ROLLBACK;
-- given again, before all others and by itself
SELECT batchdedup.retry_event_dead_letters('picky', (:'x'::bigint[])[1]);
SELECT batchdedup.retry_event_dead_letters('picky');
SELECT batchdedup.retry_event_dead_letters('picky');
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[2], 'not given');
SELECT payload, attempts FROM batchdedup.poll_events('picky', 3);
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[2], 'third');
SELECT payload, attempts FROM batchdedup.poll_events('picky', 3);
SELECT batchdedup.nack_event('picky', (:'x'::bigint[])[2], 'fourth');
SELECT payload, attempts FROM batchdedup.poll_events('picky', 3);
SELECT attempts, error, attempts_left, given FROM batchdedup.event_dead_letter WHERE consumer = 'picky';
SELECT batchdedup.retry_event_dead_letters('picky', (:'x'::bigint[])[2]);
SELECT payload FROM batchdedup.poll_events('picky');
SELECT batchdedup.ack_events('picky', (:'x'::bigint[])[2]);
SELECT batchdedup.ack_events('picky', (:'x'::bigint[])[2]);
SELECT count(*) FROM batchdedup.event_dead_letter;
SELECT payload FROM batchdedup.poll_events('picky');
SELECT batchdedup.ack_events('picky', (:'x'::bigint[])[4]);
SELECT holder, events, letters FROM consumer WHERE name = 'picky';
SELECT count(*) FROM batchdedup.event_attempt;
-- the last one of all is given up, and given again when all is done
SELECT batchdedup.publish_event('app.x', '5') AS x5 \gset
SELECT payload FROM batchdedup.poll_events('picky');
SELECT batchdedup.nack_event('picky', :x5, 'a');
SELECT batchdedup.nack_event('picky', :x5, 'b');
SELECT payload FROM batchdedup.poll_events('picky');
SELECT holder, events, letters FROM consumer WHERE name = 'picky';
SELECT batchdedup.nack_event('picky', :x5, 'c');
SELECT batchdedup.retry_event_dead_letters('picky');
SELECT payload FROM batchdedup.poll_events('picky', instance => 'other');
SELECT batchdedup.ack_events('picky', :x5);
\echo :SQLSTATE
SELECT batchdedup.ack_events('picky', :x5, instance => 'other');
SELECT holder, events, letters FROM consumer WHERE name = 'picky';
-- arguments
SELECT batchdedup.nack_event('picky', 1, NULL);
\echo :SQLSTATE
SELECT batchdedup.nack_event('picky', NULL, 'x');
SELECT batchdedup.nack_event(NULL, 1, 'x');
SELECT batchdedup.nack_event('nobody', 1, 'x');
SELECT batchdedup.retry_event_dead_letters(NULL);
SELECT batchdedup.retry_event_dead_letters('nobody');
\echo :SQLSTATE
SELECT batchdedup.discard_event_dead_letters('nobody');
SELECT batchdedup.accept_lost_events('nobody');
SELECT batchdedup.accept_lost_events(NULL);

--
-- drop_consumer
--
SELECT batchdedup.drop_consumer('picky');
SELECT batchdedup.drop_consumer('picky');
\echo :SQLSTATE
SELECT batchdedup.drop_consumer('picky', true);
SELECT batchdedup.drop_consumer(NULL);
SELECT batchdedup.drop_consumer('all', NULL);
SELECT count(*) FROM batchdedup.consumer_shard WHERE consumer = 'picky';

--
-- expire_events
--
SELECT count(batchdedup.drop_consumer(name)) FROM batchdedup.consumer_row;
SELECT batchdedup.create_consumer('all');
SELECT count(*) = (SELECT count(*) FROM batchdedup.event) AS polled FROM batchdedup.poll_events('all');
SELECT batchdedup.ack_events('all', max(id)) FROM batchdedup.event;
SELECT batchdedup.expire_events();
SELECT count(*) > 0 AS young FROM batchdedup.event;
UPDATE batchdedup.event SET at = at - interval '8 days';
SELECT batchdedup.publish_event('app.e', '"waits"') AS id \gset
SELECT batchdedup.publish_event('app.e', '"taken"', 'key e') AS id2 \gset
UPDATE batchdedup.event SET at = at - interval '8 days' WHERE id >= :id;
SELECT batchdedup.publish_event('app.e', '"young"') AS id3 \gset
SELECT count(*) - 3 = batchdedup.expire_events() AS all_but_three FROM batchdedup.event;
SELECT payload FROM batchdedup.event ORDER BY id;
-- in a batch that is not done
SELECT polled('all');
SELECT batchdedup.ack_events('all', :id);
SELECT batchdedup.expire_events();
SELECT polled('all');
-- more than one can bear
SELECT batchdedup.expire_events('7 days', '9 days');
SELECT batchdedup.expire_events('7 days', '7 days');
SELECT polled('all');
SELECT name, events, lost FROM consumer;
SELECT status, detail, hint FROM batchdedup.health() WHERE check_name = 'consumers';
SELECT batchdedup.ack_events('all', :id2);
SELECT batchdedup.accept_lost_events('all');
SELECT batchdedup.accept_lost_events('all');
SELECT status, detail, hint FROM batchdedup.health() WHERE check_name = 'consumers';
-- an expired key may be used anew
SELECT batchdedup.publish_event('app.e', '"again"', 'key e') > :id3 AS anew;
-- what is still to be acknowledged does not expire
UPDATE batchdedup.event SET at = at - interval '8 days';
SELECT batchdedup.expire_events();
SELECT status, detail LIKE 'consumer "all": 2 events wait, the oldest since %' AS detail, hint
  FROM batchdedup.health() WHERE check_name = 'consumers';
SELECT batchdedup.expire_events('0', '0');
SELECT batchdedup.expire_events(NULL);
\echo :SQLSTATE
SELECT batchdedup.expire_events('-1 day');
\echo :SQLSTATE
SELECT batchdedup.expire_events('7 days', '6 days');
\echo :SQLSTATE
SELECT batchdedup.accept_lost_events('all');
-- letters are copies
SELECT batchdedup.drop_consumer('all');
SELECT batchdedup.create_consumer('last', max_attempts => 1);
SELECT batchdedup.publish_event('app.l', '"letter"') AS id \gset
SELECT polled('last');
SELECT batchdedup.nack_event('last', :id, 'no');
SELECT polled('last');
SELECT batchdedup.expire_events('0');
SELECT status, detail, hint FROM batchdedup.health() WHERE check_name = 'consumers';
SELECT batchdedup.retry_event_dead_letters('last');
SELECT polled('last');
SELECT batchdedup.ack_events('last', :id);
SELECT count(*) FROM batchdedup.event;
SELECT batchdedup.drop_consumer('last');
SELECT status, detail, hint FROM batchdedup.health() WHERE check_name = 'consumers';

--
-- Large batches are read in another way
--
SELECT batchdedup.create_consumer('large', kinds => '{app.large}');
SELECT batchdedup.create_consumer('large 2', kinds => '{app.large}', shards => 2);
SELECT count(batchdedup.publish_event(CASE WHEN i % 100 = 0 THEN 'app.large' ELSE 'app.small' END, to_jsonb(i))) FROM generate_series(1, 12000) i;
SELECT count(*), min(payload::int), max(payload::int), bool_and(shard = 0) FROM batchdedup.poll_events('large', 50);
SELECT batchdedup.ack_events('large', id) FROM batchdedup.event WHERE payload = '5000';
SELECT count(*), min(payload::int), max(payload::int) FROM batchdedup.poll_events('large');
SELECT batchdedup.ack_events('large', id) FROM batchdedup.event WHERE payload = '12000';
SELECT count(*) FROM batchdedup.poll_events('large');
SELECT sum(lag_events) FROM batchdedup.consumer WHERE name = 'large 2';
SELECT count(*), count(DISTINCT shard) FROM batchdedup.poll_events('large 2', 1000);
SELECT count(*) FROM batchdedup.poll_events('large 2', 20000);
SELECT count(batchdedup.drop_consumer(name)) FROM batchdedup.consumer_row;
SELECT batchdedup.expire_events('0');

--
-- Where a worker applies: as the owner, in a restricted context
--
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.publish_event('app.t', to_jsonb(NEW), ordering_key => NEW.id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION tell();
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.create_consumer('t', 'newest');
SELECT batchdedup.upsert('t', '[{"id": 1, "v": "a"}, {"id": 2, "v": "b"}]');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT payload, ordering_key FROM batchdedup.poll_events('t') ORDER BY ordering_key;
SELECT batchdedup.drop_consumer('t');

--
-- Events of batches: in order, and in one shard
--
SELECT batchdedup.create_consumer('batch', 'newest', shards => 8);
SELECT batchdedup.create_batch('regress events') AS batch \gset
SELECT count(batchdedup.add_file(:'batch', 'f' || i)) FROM generate_series(1, 3) i;
SELECT batchdedup.complete_upload(:'batch');
SELECT bool_and(batchdedup.complete_file(batch_id, id)) FROM batchdedup.file WHERE batch_id = :'batch';
SELECT batchdedup.flush() >= 0 AS flushed;
SELECT kind, count(*), bool_and(batch_id = :'batch') AS batch, min(payload->>'to') AS "to"
  FROM (SELECT *, sum(CASE WHEN kind = before THEN 0 ELSE 1 END) OVER (ORDER BY id) AS g
          FROM (SELECT *, lag(kind) OVER (ORDER BY id) AS before FROM batchdedup.poll_events('batch')) e) e
 GROUP BY g, kind ORDER BY g;
SELECT count(*) FROM batchdedup.poll_events('batch', instance => 'other');
SELECT batchdedup.drop_consumer('batch');
SELECT batchdedup.advance_batch(:'batch', 'cancelled');

--
-- Who may
--
CREATE ROLE regress_bdd_app;
GRANT USAGE ON SCHEMA regress_event TO regress_bdd_app;
SET ROLE regress_bdd_app;
SELECT batchdedup.publish_event('app.r');
SELECT batchdedup.create_consumer('r');
SELECT batchdedup.drop_consumer('r');
SELECT batchdedup.poll_events('r');
SELECT batchdedup.ack_events('r', 1);
SELECT batchdedup.nack_event('r', 1, 'x');
SELECT batchdedup.retry_event_dead_letters('r');
SELECT batchdedup.discard_event_dead_letters('r');
SELECT batchdedup.accept_lost_events('r');
SELECT batchdedup.expire_events();
SELECT count(*) FROM batchdedup.event;
SELECT count(*) FROM batchdedup.consumer;
RESET ROLE;
SELECT batchdedup.grant_batches('regress_bdd_app');
-- no right to write, and nothing of his own is run by the others' name
SET ROLE regress_bdd_app;
CREATE TEMP TABLE event (id bigint);
CREATE FUNCTION pg_temp.pg_visible_in_snapshot(xid8, pg_snapshot) RETURNS boolean LANGUAGE plpgsql AS
$$ BEGIN RAISE '% runs it', current_user; END $$;
SET search_path = pg_temp, pg_catalog;
SELECT batchdedup.publish_event('app.r', '1') AS id \gset
SELECT batchdedup.create_consumer('r', kinds => '{app.r}');
SELECT payload FROM batchdedup.poll_events('r');
SELECT batchdedup.nack_event('r', :id, $$'; DROP TABLE batchdedup.event; --$$);
SELECT batchdedup.ack_events('r', :id);
SELECT count(*) FROM batchdedup.consumer WHERE name = 'r';
SELECT count(*) FROM batchdedup.event_pending WHERE consumer = 'r';
SELECT count(*) FROM batchdedup.event_dead_letter;
DELETE FROM batchdedup.event;
UPDATE batchdedup.consumer_shard SET acked_id = 0;
SELECT current_user, current_setting('search_path');
RESET ROLE;
SET search_path = regress_event;
SELECT batchdedup.drop_consumer('r');
DROP OWNED BY regress_bdd_app;
-- the view is for those who monitor
GRANT pg_monitor TO regress_bdd_app;
SET ROLE regress_bdd_app;
SELECT count(*) FROM batchdedup.consumer;
SELECT status FROM batchdedup.health() WHERE check_name = 'consumers';
RESET ROLE;
DROP ROLE regress_bdd_app;

DELETE FROM batchdedup.event;
SET client_min_messages = warning;
DROP SCHEMA regress_event CASCADE;
