-- get() and buffered(): table, buffer and own pending rows.
\a
\pset footer off
\pset null '(null)'
CREATE SCHEMA regress_read;
SET search_path = regress_read;
CREATE TABLE t (id int PRIMARY KEY, a int, b int DEFAULT 7, c int GENERATED ALWAYS AS (a + b) STORED, nr serial);
SELECT batchdedup.create_target('t', flush_interval => '0');

--
-- get
--
INSERT INTO t VALUES (1, 1, 1), (2, 2, 2), (3, 3, 3);
SELECT batchdedup.get('t', '{"id":1}'), batchdedup.get('t', '{"id":99}');
-- buffered over the table
SELECT batchdedup.upsert('t', '{"id":1,"a":10}');
SELECT batchdedup.upsert('t', '{"id":4,"a":40}');
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.delete('t', '{"id":3}');
SELECT batchdedup.upsert('t', '{"id":3,"a":30}');
SELECT i, batchdedup.get('t', jsonb_build_object('id', i)) FROM generate_series(1, 5) i;
-- own pending rows over both
BEGIN;
SELECT batchdedup.upsert('t', '{"id":1,"b":100}');
SELECT batchdedup.upsert('t', '{"id":2,"b":200}');
SELECT batchdedup.delete('t', '{"id":4}');
SELECT batchdedup.upsert('t', '{"id":5,"a":500,"b":null}');
SELECT i, batchdedup.get('t', jsonb_build_object('id', i)) FROM generate_series(1, 5) i;
-- what the transaction itself writes is seen, too
SET LOCAL client_min_messages = error;
UPDATE t SET b = 1000, a = 1000 WHERE id = 1;
SET LOCAL client_min_messages = notice;
SELECT batchdedup.get('t', '{"id":1}');
ROLLBACK;
SELECT i, batchdedup.get('t', jsonb_build_object('id', i)) FROM generate_series(1, 5) i;
SELECT batchdedup.flush('t');
SELECT i, batchdedup.get('t', jsonb_build_object('id', i)) = to_jsonb(t) AS same, t.* FROM generate_series(1, 5) i LEFT JOIN t ON id = i;
-- in the same statement as the upsert
SELECT batchdedup.upsert('t', '{"id":6,"a":6}'), batchdedup.get('t', '{"id":6}');
-- columns that keep their first value
CREATE TABLE firsts (id int PRIMARY KEY, v int, created int);
SELECT batchdedup.create_target('firsts', update_columns => 'v', flush_interval => '0');
INSERT INTO firsts VALUES (1, 1, 1);
SELECT batchdedup.upsert('firsts', '[{"id":1,"v":2,"created":2},{"id":2,"v":2,"created":2},{"id":2,"v":3,"created":3}]');
SELECT batchdedup.get('firsts', '{"id":1}'), batchdedup.get('firsts', '{"id":2}');
SELECT batchdedup.flush('firsts');
-- what is wrong with a key
SELECT batchdedup.get('t', '{}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":null}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":1,"nope":1}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":1,"a":1}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '[{"id":1}]');
\echo :SQLSTATE
SELECT batchdedup.get('t', NULL);
\echo :SQLSTATE
SELECT batchdedup.get(NULL, '{"id":1}');
\echo :SQLSTATE
CREATE TABLE no_target (id int PRIMARY KEY);
SELECT batchdedup.get('no_target', '{"id":1}');
\echo :SQLSTATE
-- values that JSON has no type for
CREATE TYPE pair AS (x int, y text);
CREATE TABLE kinds (id int PRIMARY KEY, j json, jb jsonb, p pair, a numeric[], n numeric, f float8, at timestamptz, by bytea, "Mixed ""Case" text);
SELECT batchdedup.create_target('kinds', flush_interval => '0');
SET timezone = 'UTC';
SELECT batchdedup.upsert(ROW(1, '{"z": 1,  "a": [1.50]}', '{"k":1.50}', ROW(1, 'y'), '{1.10,NULL}', 'NaN', '-0', '2026-01-01 00:00+00', '\x00ff', 'ü"')::kinds);
SELECT batchdedup.get('kinds', '{"id":1}') AS buffered \gset
SELECT :'buffered' AS buffered;
SELECT batchdedup.flush('kinds');
SELECT :'buffered'::jsonb = to_jsonb(k) AS same FROM kinds k;

--
-- buffered
--
SELECT batchdedup.flush('t');
TRUNCATE t RESTART IDENTITY;
SELECT * FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.upsert('t', '[{"id":1,"a":1},{"id":2,"b":2},{"id":3,"a":3,"b":3,"nr":3}]');
SELECT batchdedup.upsert('t', '{"id":1,"b":1}');
SELECT batchdedup.delete('t', '{"id":2}');
SELECT * FROM batchdedup.buffered(NULL::t) ORDER BY id;
SELECT (batchdedup.buffered(NULL::t)).id ORDER BY 1;
-- pending rows are not there yet
BEGIN;
SELECT batchdedup.upsert('t', '{"id":4,"a":4}');
SELECT id FROM batchdedup.buffered(NULL::t) ORDER BY id;
ROLLBACK;
-- in queries
SELECT coalesce(b.id, t.id) AS id, coalesce(b.a, t.a) AS a FROM t FULL JOIN batchdedup.buffered(NULL::t) b USING (id) ORDER BY 1;
SELECT batchdedup.flush('t');
SELECT * FROM batchdedup.buffered(NULL::t);
SELECT * FROM batchdedup.buffered(NULL::pair);
\echo :SQLSTATE
SELECT * FROM batchdedup.buffered(NULL::int);
\echo :SQLSTATE
SELECT * FROM batchdedup.buffered(NULL::no_target);
\echo :SQLSTATE
-- a snapshot that does not see the apply still finds the rows, once
SELECT batchdedup.upsert('t', '{"id":10,"a":10}');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM t;
SELECT batchdedup.flush('t');
SELECT id, a FROM t WHERE id = 10;
SELECT id, a FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.get('t', '{"id":10}') -> 'a' AS a;
COMMIT;
SELECT id, a FROM t WHERE id = 10;
SELECT count(*) FROM batchdedup.buffered(NULL::t);
-- in one statement, too: its snapshot is older than the apply
SELECT batchdedup.upsert('t', '{"id":11,"a":11}');
SELECT batchdedup.flush('t') AS flushed, (SELECT count(*) FROM batchdedup.buffered(NULL::t)) + (SELECT count(*) FROM t WHERE id = 11) AS rows;

SET client_min_messages = warning;
DROP SCHEMA regress_read CASCADE;
