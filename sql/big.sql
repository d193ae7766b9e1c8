-- Big rows, big transactions.
\a
\pset footer off
\pset null '(null)'
CREATE SCHEMA regress_big;
SET search_path = regress_big;

--
-- Rows
--
CREATE TABLE t (id int PRIMARY KEY, v text, w bytea);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);
-- 10 MB that do not compress; paused, or the worker would be as quick
CREATE FUNCTION random_text(megabytes int, seed float8) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM setseed(seed);
    RETURN (SELECT string_agg(md5(random()::text), '') FROM generate_series(1, megabytes * 32768));
END $$;
SELECT batchdedup.pause('t');
SELECT batchdedup.upsert(ROW(1, random_text(10, 0.1), NULL)::t);
SELECT batchdedup.upsert('t', '{"id":1,"w":"\\x0102"}');
SELECT id, length(v), md5(v) = md5(random_text(10, 0.1)) AS same, w FROM batchdedup.buffered(NULL::t);
SELECT length(batchdedup.get('t', '{"id":1}') ->> 'v');
SELECT batchdedup.resume('t');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT batchdedup.upsert('t', jsonb_build_object('id', 2, 'v', random_text(10, 0.2)));
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT id, length(v), md5(v) = md5(random_text(10, id / 10.0)) AS same, w FROM t ORDER BY id;
-- fifty times the same, in a transaction each: memory comes back
SELECT used_bytes AS before FROM batchdedup.stat_buffer \gset
DO $$
DECLARE
    big text := regress_big.random_text(1, 0.3);
BEGIN
    FOR i IN 1..50 LOOP
        PERFORM batchdedup.upsert(ROW(3, big || i % 10, NULL)::regress_big.t);
        COMMIT;
    END LOOP;
END $$;
SELECT used_bytes - :before < 8 * 1024 * 1024 AS bounded FROM batchdedup.stat_buffer;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT length(v) FROM t WHERE id = 3;
-- values that are stored out of line in another table
CREATE TABLE source AS SELECT 4 AS id, random_text(1, 0.4) AS v;
SELECT batchdedup.upsert(ROW(id, v, NULL)::t) FROM source;
SELECT batchdedup.upsert_record('t', s) FROM (SELECT id + 1 AS id, v FROM source) s;
TRUNCATE source;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT id, md5(v) = md5(random_text(1, 0.4)) AS same FROM t WHERE id > 3 ORDER BY id;
-- a row that can never fit: refused with the setting to raise, whatever that is
DO $$
DECLARE
    detail text;
    hint text;
BEGIN
    PERFORM batchdedup.upsert(ROW(6, repeat('x', least((SELECT pg_size_bytes(current_setting('batchdedup.buffer_size'))), 500000000)::int), NULL)::regress_big.t);
EXCEPTION WHEN OTHERS THEN
    GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    RAISE NOTICE '% % / % / %', SQLSTATE, regexp_replace(SQLERRM, '\d+', 'N'), regexp_replace(detail, '\d+', 'N'), hint;
END $$;

--
-- Transactions
--
CREATE TABLE big (id int PRIMARY KEY, a int, b text, c int DEFAULT 3);
CREATE TABLE plain (LIKE big INCLUDING ALL);
SELECT batchdedup.create_target('big', flush_interval => '0', flush_rows => 0);
CREATE FUNCTION compare() RETURNS bigint LANGUAGE sql AS $$
    SELECT count(*) FROM ((TABLE regress_big.big EXCEPT ALL TABLE regress_big.plain)
                          UNION ALL (TABLE regress_big.plain EXCEPT ALL TABLE regress_big.big)) d $$;

-- many rows of ten keys; not as many where each is a version in the table
SELECT CASE current_setting('batchdedup.enabled') WHEN 'on' THEN 200000 ELSE 2000 END AS many \gset
BEGIN;
SELECT count(batchdedup.upsert(ROW(i % 10, i, 'b', NULL)::big)) = :many AS all FROM generate_series(1, :many) i;
COMMIT;
SELECT batchdedup.flush('big');
INSERT INTO plain SELECT DISTINCT ON (i % 10) i % 10, i, 'b', NULL FROM generate_series(:many - 100, :many) i ORDER BY i % 10, i DESC;
SELECT compare();

-- as many keys as exceed the buffer, after others that are buffered already;
-- a million is for t/
SELECT count(batchdedup.upsert('big', jsonb_build_object('id', i, 'a', -i))) FROM generate_series(5, 1000) i;
BEGIN;
SELECT count(batchdedup.upsert(ROW(i, i, 'second', i)::big)) FROM generate_series(1, 250000) i;
SELECT batchdedup.upsert('big', '{"id":7,"b":"in the same transaction"}');
SELECT batchdedup.delete('big', '{"id":8}');
SELECT batchdedup.get('big', '{"id":7}'), batchdedup.get('big', '{"id":8}'), batchdedup.get('big', '{"id":250000}');
COMMIT;
SELECT batchdedup.flush('big') >= 0 AS flushed;
INSERT INTO plain SELECT i, i, 'second', i FROM generate_series(1, 250000) i
    ON CONFLICT (id) DO UPDATE SET a = EXCLUDED.a, b = EXCLUDED.b, c = EXCLUDED.c;
UPDATE plain SET b = 'in the same transaction' WHERE id = 7;
DELETE FROM plain WHERE id = 8;
SELECT compare();
TRUNCATE big, plain;
-- rolled back, whole and to a savepoint
BEGIN;
SELECT count(batchdedup.upsert(ROW(i, 0, repeat('never', 50), i)::big)) FROM generate_series(1, 100000) i;
ROLLBACK;
BEGIN;
SELECT batchdedup.upsert('big', '{"id":-1,"a":1}');
SAVEPOINT s;
SELECT count(batchdedup.upsert(ROW(i, 0, repeat('never', 50), i)::big)) FROM generate_series(-100, 99999) i;
ROLLBACK TO s;
SELECT batchdedup.upsert('big', '{"id":-2,"a":2}');
COMMIT;
SELECT batchdedup.flush('big');
INSERT INTO plain (id, a) VALUES (-1, 1), (-2, 2);
SELECT compare();
-- a part of it before a savepoint
BEGIN;
SELECT count(batchdedup.upsert(ROW(i, 0, repeat('kept', 50), i)::big)) FROM generate_series(-100000, -10) i;
SAVEPOINT s;
SELECT count(batchdedup.upsert(ROW(i, 0, 'never', i)::big)) FROM generate_series(-20, 10) i;
ROLLBACK TO s;
SELECT batchdedup.upsert('big', '{"id":-10,"a":10}');
COMMIT;
SELECT batchdedup.flush('big');
INSERT INTO plain SELECT i, 0, repeat('kept', 50), i FROM generate_series(-100000, -10) i;
UPDATE plain SET a = 10 WHERE id = -10;
SELECT compare();
-- who may only INSERT and UPDATE can do that, too
CREATE ROLE regress_bdd_writer;
GRANT USAGE ON SCHEMA regress_big TO regress_bdd_writer;
GRANT INSERT, UPDATE ON big TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT count(batchdedup.upsert(ROW(i, 1, repeat('writer', 50), i)::big)) FROM generate_series(-100000, -10) i;
RESET ROLE;
UPDATE plain SET a = 1, b = repeat('writer', 50) WHERE id <= -10;
SELECT compare();
-- with a target that is paused while rows wait it cannot go on: it says so
SELECT batchdedup.pause('big');
SELECT batchdedup.upsert('big', '{"id":-2,"a":3}');
SET statement_timeout = '10s';
SELECT count(batchdedup.upsert(ROW(i, 0, repeat('paused', 50), i)::big)) FROM generate_series(1, 100000) i;
\echo :SQLSTATE
RESET statement_timeout;
SELECT batchdedup.resume('big');
SELECT batchdedup.flush('big') >= 0 AS flushed;

SET client_min_messages = warning;
DROP SCHEMA regress_big CASCADE;
DROP ROLE regress_bdd_writer;
