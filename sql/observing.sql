-- The statistics of a program whose numbers are known.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_observing;
SET search_path = regress_observing;
CREATE TABLE t (id int PRIMARY KEY, v int);
CREATE VIEW stat AS
    SELECT received, coalesced, inserted, updated, unchanged, deleted, flushes, failed_flushes, buffered_rows
      FROM batchdedup.stat_target WHERE target = 't'::regclass;
SELECT batchdedup.create_target('t', flush_interval => '0');
-- 10 rows of 4 keys
SELECT count(batchdedup.upsert(ROW(i % 4, i)::t)) FROM generate_series(1, 10) i;
TABLE stat;
SELECT batchdedup.flush('t');
TABLE stat;
-- 2 in one transaction for the same key, one changes nothing, one is new, one is deleted, one was never there
SELECT * FROM t ORDER BY id;
BEGIN;
SELECT batchdedup.upsert('t', '{"id":0,"v":100}');
SELECT batchdedup.upsert('t', '{"id":0,"v":101}');
COMMIT;
SELECT batchdedup.upsert('t', '{"id":1,"v":9}');
SELECT batchdedup.upsert('t', '{"id":10,"v":10}');
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.delete('t', '{"id":99}');
TABLE stat;
SELECT batchdedup.flush('t');
TABLE stat;
-- a delete and a new row of the same key
SELECT batchdedup.delete('t', '{"id":3}');
SELECT batchdedup.upsert('t', '{"id":3,"v":3}');
SELECT batchdedup.flush('t');
TABLE stat;
-- rolled back rows do not count
BEGIN;
SELECT batchdedup.upsert('t', '{"id":4,"v":4}');
ROLLBACK;
BEGIN;
SELECT batchdedup.upsert('t', '{"id":4,"v":4}');
SAVEPOINT s;
SELECT batchdedup.upsert('t', '{"id":5,"v":5}');
SELECT batchdedup.upsert('t', '{"id":4,"v":5}');
ROLLBACK TO s;
COMMIT;
SELECT batchdedup.flush('t');
TABLE stat;
-- a flush with nothing to do is none
SELECT batchdedup.flush('t');
TABLE stat;
-- an apply that fails
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RAISE undefined_column USING MESSAGE = ''no''; END';
CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse();
SELECT batchdedup.upsert('t', '{"id":20,"v":20}');
SELECT batchdedup.flush('t');
SELECT buffered_rows, flushes, failed_flushes, failures, last_error_sqlstate, last_error FROM batchdedup.stat_target;
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT batchdedup.flush('t');
TABLE stat;
DROP FUNCTION refuse CASCADE;
-- when, and for how long
SELECT last_flush_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS recent, last_flush_ms > 0 AS took,
       oldest_row_age IS NULL AS nothing, generation FROM batchdedup.stat_target;
SELECT batchdedup.upsert('t', '{"id":1,"v":1}');
SELECT pg_sleep(0.02);
SELECT oldest_row_age BETWEEN interval '20 ms' AND interval '1 minute' AS age, buffered_rows, buffered_bytes > 0 AS bytes FROM batchdedup.stat_target;
-- rewriting a row takes no more memory, and is as old as its first version
SELECT buffered_bytes AS before FROM batchdedup.stat_target \gset
SELECT count(batchdedup.upsert(ROW(1, i)::t)) FROM generate_series(1, 1000) i;
DO $$
BEGIN
    FOR i IN 1..1000 LOOP
        PERFORM batchdedup.upsert(ROW(1, i)::regress_observing.t);
        COMMIT;
    END LOOP;
END $$;
SELECT buffered_bytes = :before AS same, buffered_rows FROM batchdedup.stat_target;
SELECT batchdedup.flush('t');
SELECT buffered_rows, oldest_row_age FROM batchdedup.stat_target;
-- the memory of all
SELECT total_bytes > 0 AS total, used_bytes BETWEEN 0 AND total_bytes AS used, targets > 0 AS targets, max_targets >= targets AS enough FROM batchdedup.stat_buffer;
-- a partitioned target, written to its partitions
CREATE TABLE p (id int PRIMARY KEY, v int) PARTITION BY HASH (id);
CREATE TABLE p_0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE p_1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
SELECT batchdedup.create_target('p', flush_interval => '0');
SELECT count(batchdedup.upsert(ROW(i, i)::p)) FROM generate_series(1, 10) i;
SELECT batchdedup.flush('p');
SELECT count(batchdedup.upsert(ROW(i, i % 8)::p)) FROM generate_series(1, 12) i;
SELECT batchdedup.delete('p', '{"id":12}');
SELECT batchdedup.flush('p');
SELECT received, coalesced, inserted, updated, unchanged, deleted FROM batchdedup.stat_target WHERE target = 'p'::regclass;
-- workers
SELECT database = current_database() AS here, state IN ('idle', 'applying') AS state, started_at < clock_timestamp() AS started FROM batchdedup.stat_worker
 WHERE database = current_database();
SELECT backend_type, application_name, datname = current_database() AS here FROM pg_stat_activity
 WHERE pid = (SELECT pid FROM batchdedup.stat_worker WHERE database = current_database());
-- a target that is gone is gone here, too
DROP TABLE p;
SELECT count(*) FROM batchdedup.stat_target;
SELECT batchdedup.drop_target('t');
SELECT count(*) FROM batchdedup.stat_target;

SET client_min_messages = warning;
DROP SCHEMA regress_observing CASCADE;
