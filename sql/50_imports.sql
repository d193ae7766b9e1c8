--
-- Imports: rows of many writers that appear at once
--
\a
\pset footer off
\pset null (null)
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA regress_imports;
SET search_path = regress_imports;

-- Tables of writers that are still there.
CREATE VIEW staging AS
SELECT count(*) AS tables FROM pg_class
 WHERE relnamespace = 'batchdedup'::regnamespace AND relkind = 'r' AND relname ~ '^import_[0-9a-f]{16}';
CREATE FUNCTION load(writer regclass, rows text) RETURNS bigint LANGUAGE plpgsql AS
$$
DECLARE n bigint;
BEGIN
    EXECUTE format('INSERT INTO %s VALUES %s', writer, rows);
    GET DIAGNOSTICS n = ROW_COUNT;
    RETURN n;
END $$;

CREATE TABLE bar (symbol text, day date, close numeric CHECK (close > 0), volume bigint, PRIMARY KEY (symbol, day));
SELECT batchdedup.prepare_import('no target', 'bar', 1);
\echo :SQLSTATE
SELECT batchdedup.create_target('bar');

-- Two writers, by COPY and by chunks; nothing is seen before it is published.
SELECT batchdedup.prepare_import('bars', 'bar', 2) AS batch \gset
SELECT batchdedup.prepare_import('bars', 'bar', 2) = :'batch' AS same;
SELECT batchdedup.prepare_import('bars', 'bar', 3);
\echo :SQLSTATE
SELECT batchdedup.prepare_import('bars', 'bar', 2, metadata => '{"a": 1}');
\echo :SQLSTATE
SELECT status, kind, expected_files, total_files, processed_files FROM batchdedup.batch_row WHERE id = :'batch';
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'one') AS writer \gset
SELECT batchdedup.create_writer(:'batch', 'one') = :'writer'::regclass AS same;
SELECT status FROM batchdedup.batch_row WHERE id = :'batch';
-- psql writes no variable into COPY's error messages
ALTER TABLE :writer RENAME TO import_0000000000000001;
COPY batchdedup.import_0000000000000001 FROM STDIN;
a	2026-01-01	1.5	10
a	2026-01-02	2	\N
b	2026-01-01	3	30
\.
SELECT batchdedup.write_chunk(:'batch', 'two', 2, '[{"symbol": "c", "day": "2026-01-01", "close": 2, "volume": 2}]');
SELECT batchdedup.write_chunk(:'batch', 'two', 1, ARRAY[ROW('c', '2026-01-01', 1, 1), ROW('d', '2026-01-01', 4, 4)]::bar[]);
-- a lost answer, and another chunk with the same number
SELECT batchdedup.write_chunk(:'batch', 'two', 2, '[{"symbol": "c", "day": "2026-01-01", "close": 2, "volume": 2}]');
SELECT batchdedup.write_chunk(:'batch', 'two', 2, '[{"symbol": "c", "day": "2026-01-01", "close": 3, "volume": 2}]');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'two', 1, ARRAY[ROW('c', '2026-01-01', 1, 1), ROW('d', '2026-01-01', 4, 4)]::bar[]);
SELECT batchdedup.write_chunk(:'batch', 'two', 1, ARRAY[ROW('c', '2026-01-01', 1, 1)]::bar[]);
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'two', 3, '[]');
-- there are no more than two
SELECT batchdedup.create_writer(:'batch', 'three');
\echo :SQLSTATE
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
SELECT count(*) FROM bar;
SELECT kind, phase, target, name, pid, instances_done, instances_total, rows, bytes > 0 AS bytes, done, total, rate > 0 AS rate, eta
  FROM batchdedup.stat_progress;
SELECT batchdedup.finalize_instance(:'batch', 'one');
SELECT batchdedup.finalize_instance(:'batch', 'one');
SELECT batchdedup.finalize_instance(:'batch', 'three');
\echo :SQLSTATE
-- it is closed
\set VERBOSITY sqlstate
COPY batchdedup.import_0000000000000001 FROM STDIN;
\.
DELETE FROM batchdedup.import_0000000000000001;
TRUNCATE batchdedup.import_0000000000000001;
\set VERBOSITY default
SELECT batchdedup.write_chunk(:'batch', 'one', 1, '[]');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'one', restart => true);
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'one') IS NOT NULL AS still_there;
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
SELECT batchdedup.finalize_instance(:'batch', 'two');
SELECT batchdedup.write_chunk(:'batch', 'two', 3, '[]');
SELECT status, processed_files FROM batchdedup.batch_row WHERE id = :'batch';
SELECT instances_done, rows, done, total, eta FROM batchdedup.stat_progress;
SELECT batchdedup.finalize_batch(:'batch');
SELECT batchdedup.finalize_batch(:'batch');
SELECT * FROM bar ORDER BY 1, 2;
SELECT name, target, publish, instances, rows, inserted, updated FROM batchdedup.import_completed;
SELECT status, processed_files FROM batchdedup.batch_row WHERE id = :'batch';
SELECT kind, payload - 'bytes' FROM batchdedup.event WHERE batch_id = :'batch' AND kind IN ('instance_finalized', 'import_published') ORDER BY id;
SELECT * FROM staging;
SELECT count(*) FROM batchdedup.import_chunk;
SELECT count(*) FROM batchdedup.stat_progress;
-- what comes afterwards
SELECT batchdedup.write_chunk(:'batch', 'two', 4, '[]');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'one');
\echo :SQLSTATE
SELECT batchdedup.finalize_instance(:'batch', 'one');
SELECT batchdedup.abort_batch(:'batch');
\echo :SQLSTATE
SELECT batchdedup.prepare_import('bars', 'bar', 2) = :'batch' AS same;

-- Arguments
SELECT batchdedup.prepare_import(NULL, 'bar', 1);
\echo :SQLSTATE
SELECT batchdedup.prepare_import('x', NULL, 1);
\echo :SQLSTATE
SELECT batchdedup.prepare_import('x', 'bar', NULL);
\echo :SQLSTATE
SELECT batchdedup.prepare_import('x', 'bar', 1, NULL);
\echo :SQLSTATE
SELECT batchdedup.prepare_import('x', 'bar', 1, metadata => NULL);
\echo :SQLSTATE
SELECT batchdedup.prepare_import('', 'bar', 1);
SELECT batchdedup.prepare_import('x', 'bar', 0);
SELECT batchdedup.prepare_import('x', 'bar', 1, 'copy');
SELECT batchdedup.prepare_import('x', 'bar', 1, 'attach');
\echo :SQLSTATE
SELECT batchdedup.prepare_import('x', 'bar', 3, instances => '{a,b}');
SELECT batchdedup.prepare_import('x', 'bar', 2, instances => '{a,a}');
SELECT batchdedup.prepare_import('x', 'bar', 2, instances => '{a,NULL}');
SELECT batchdedup.prepare_import('x', 'staging', 1);
\echo :SQLSTATE
SELECT batchdedup.create_writer(NULL, 'a');
\echo :SQLSTATE
SELECT batchdedup.create_writer('00000000-0000-0000-0000-000000000000', 'a');
\echo :SQLSTATE
SELECT batchdedup.prepare_import('named', 'bar', NULL, instances => '{a,b,"C c"}') AS batch \gset
SELECT batchdedup.create_writer(:'batch', NULL);
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', '');
SELECT batchdedup.create_writer(:'batch', 'd');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'a', 'FOR VALUES IN (1)');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'a', restart => NULL);
\echo :SQLSTATE
SELECT batchdedup.write_chunk(NULL, 'a', 1, '[]');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', NULL, 1, '[]');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'a', NULL, '[]');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'a', 1, NULL::jsonb);
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'a', 1, NULL::bar[]);
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'a', -1, '[]');
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '1');
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '{1}'::int[]);
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'a', 1, ARRAY[NULL]::bar[]);
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '{"nothing": 1}');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '{"symbol": "a"}');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '{"symbol": "a", "day": "x"}');
\echo :SQLSTATE
SELECT batchdedup.finalize_instance(NULL, 'a');
\echo :SQLSTATE
SELECT batchdedup.finalize_instance(:'batch', NULL);
\echo :SQLSTATE
SELECT batchdedup.finalize_batch(NULL);
\echo :SQLSTATE
SELECT batchdedup.abort_batch(NULL);
\echo :SQLSTATE
SELECT batchdedup.expire_imports(NULL);
\echo :SQLSTATE
-- those that are missing are named
SELECT batchdedup.create_writer(:'batch', 'C c') IS NOT NULL AS made;
SELECT batchdedup.finalize_batch(:'batch');
SELECT batchdedup.abort_batch(:'batch');
SELECT batchdedup.abort_batch(:'batch');
SELECT * FROM staging;
SELECT status FROM batchdedup.batch_row WHERE id = :'batch';
SELECT batchdedup.create_writer(:'batch', 'a');
\echo :SQLSTATE
SELECT batchdedup.finalize_instance(:'batch', 'C c');
\echo :SQLSTATE
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE

-- ---------- what rows mean ----------

CREATE TABLE stat (id int PRIMARY KEY, calls int DEFAULT 1, best int, seen int, note text DEFAULT 'none', first text);
SELECT batchdedup.create_target('stat', merge => '{"calls": "sum", "best": "max", "first": "first"}', version_column => 'seen');
INSERT INTO stat VALUES (1, 10, 10, 10, 'table', 'table'), (2, 10, 10, 10, 'table', 'table');
SELECT batchdedup.prepare_import('rules', 'stat', 2) AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'late') AS late \gset
SELECT batchdedup.create_writer(:'batch', 'early') AS early \gset
SELECT load(:'late', $$(1, 1, 11, 12, 'late', 'late'), (2, 1, 9, 9, 'stale', 'late'), (3, 1, 1, 1, 'old', 'late'), (3, 1, 5, 3, 'new', 'late'), (3, 1, 2, 2, 'between', 'late')$$);
SELECT load(:'early', $$(1, 1, 12, 11, 'early', 'early'), (4, DEFAULT, 1, 1, DEFAULT, 'early')$$);
-- given in part
SELECT batchdedup.write_chunk(:'batch', 'early', 1, '[{"id": 1, "seen": 20}, {"id": 5, "seen": 1}, {"id": 4, "seen": 2, "note": "chunk"}]');
SELECT batchdedup.finalize_instance(:'batch', 'early'), batchdedup.finalize_instance(:'batch', 'late');
SELECT batchdedup.finalize_batch(:'batch');
SELECT * FROM stat ORDER BY id;

-- The order of rows: instances as they were finalized, COPY before chunks,
-- chunks by number; the place of a row in the heap says nothing.
CREATE TABLE word (id int PRIMARY KEY, w text);
SELECT batchdedup.create_target('word', merge => '{"w": "concat"}');
SELECT batchdedup.prepare_import('order', 'word', 2) AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a') AS a \gset
SELECT batchdedup.create_writer(:'batch', 'b') AS b \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 10, '{"id": 1, "w": " a10"}');
SELECT batchdedup.write_chunk(:'batch', 'a', 9, '[{"id": 1, "w": " a9"}, {"id": 1, "w": " a9b"}]');
SELECT load(:'a', $$(1, 'a1'), (1, ' a2')$$);
SELECT load(:'a', $$(1, ' a3')$$);
SELECT load(:'b', $$(1, 'b')$$);

-- Rows that go back to pages that had room left.
INSERT INTO :a (id, w) SELECT 2, CASE WHEN i % 7 = 0 THEN repeat('x', 1500) ELSE ' ' || i END FROM generate_series(1, 700) i;
SELECT count(*) > 0 AS out_of_place FROM (SELECT batchdedup_order < lag(batchdedup_order) OVER (ORDER BY ctid) AS before FROM :a) o WHERE before;
SELECT batchdedup.finalize_instance(:'batch', 'b'), batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT * FROM word WHERE id = 1;
SELECT replace(w, repeat('x', 1500), 'x') = string_agg(CASE WHEN i % 7 = 0 THEN 'x' ELSE ' ' || i END, '' ORDER BY i) AS in_order
  FROM word, generate_series(1, 700) i WHERE id = 2 GROUP BY w;

-- Columns that the server computes, dropped ones, domains, defaults, a key in
-- a unique index that allows NULL.
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE odd (gone int, code text UNIQUE, id int GENERATED ALWAYS AS IDENTITY, a positive, gone_too text,
    twice int GENERATED ALWAYS AS (a * 2) STORED, at timestamptz DEFAULT now(), CHECK (twice < 1000), CHECK (a <> 13));
ALTER TABLE odd DROP COLUMN gone, DROP COLUMN gone_too;
SELECT batchdedup.create_target('odd', key => 'code');
INSERT INTO odd (code, a) VALUES ('x', 1);
SELECT batchdedup.prepare_import('odd', 'odd', 1) AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a') AS a \gset
SELECT attname, attnotnull, attgenerated <> '' AS generated, atthasdef FROM pg_attribute WHERE attrelid = :'a'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;
\set VERBOSITY sqlstate
INSERT INTO :a (code, a) VALUES (NULL, 1);
INSERT INTO :a (code, a) VALUES ('y', -1);
INSERT INTO :a (code, a) VALUES ('y', 13);
\set VERBOSITY default
INSERT INTO :a (code, a) VALUES ('x', 2), ('y', 3);
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '[{"code": "z", "a": 4}, {"code": "x", "at": "2026-01-01"}]');
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT code, id, a, twice, at = '2026-01-01' AS given FROM odd ORDER BY code;
-- what a writer cannot know
SELECT batchdedup.prepare_import('odd 2', 'odd', 2) AS batch \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '[{"code": "v", "a": 1}, {"code": "w", "a": 600}]');
SELECT batchdedup.write_chunk(:'batch', 'b', 1, '[{"code": "u", "a": 1}]');
SELECT batchdedup.finalize_instance(:'batch', 'a'), batchdedup.finalize_instance(:'batch', 'b');
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
SELECT count(*) FROM odd;
SELECT status FROM batchdedup.batch_row WHERE id = :'batch';
ALTER TABLE odd DROP CONSTRAINT odd_twice_check;
SELECT batchdedup.finalize_batch(:'batch');
SELECT code, twice FROM odd ORDER BY code;

-- Without a key, and with every row kept.
CREATE TABLE log (at int, what text);
SELECT batchdedup.create_target('log', key => '', coalesce_rows => false);
SELECT batchdedup.prepare_import('log', 'log', 2) AS batch \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 1, ARRAY[ROW(1, 'a'), ROW(1, 'a')]::log[]);
SELECT batchdedup.write_chunk(:'batch', 'b', 1, '{"at": 1}');
SELECT batchdedup.finalize_instance(:'batch', 'b'), batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
TABLE log;
CREATE TABLE audit (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('audit', coalesce_rows => false, merge => '{"v": "sum"}');
SELECT batchdedup.prepare_import('audit', 'audit', 1) AS batch \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 1, ARRAY[ROW(1, 1), ROW(2, 1), ROW(1, 5)]::audit[]);
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
TABLE audit;

-- What was upserted before counts before; also in the same transaction.
SELECT batchdedup.upsert('audit', '{"id": 1, "v": 100}');
SELECT batchdedup.prepare_import('behind', 'audit', 1) AS batch \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 1, ARRAY[ROW(1, 1), ROW(3, 1)]::audit[]);
BEGIN;
SELECT batchdedup.upsert('audit', '{"id": 3, "v": 1000}');
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT batchdedup.upsert('audit', '{"id": 2, "v": 1000}');
TABLE audit ORDER BY id;
ROLLBACK;
SELECT * FROM audit ORDER BY id;
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT * FROM audit ORDER BY id;

-- Paused with rows: nobody brings them in.
SELECT batchdedup.prepare_import('paused', 'audit', 1) AS batch \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 1, ARRAY[ROW(1, 1)]::audit[]);
SELECT batchdedup.finalize_instance(:'batch', 'a');
-- An old snapshot.
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM audit;
SELECT batchdedup.finalize_batch(:'batch');
COMMIT;
SELECT * FROM audit WHERE id = 1;
