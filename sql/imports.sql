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
SELECT count(*) AS tables FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE n.nspname = 'batchdedup' AND relkind = 'r' AND relname ~ '^import_[0-9a-f]{16}';
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
INSERT INTO :a (id, w) SELECT 2, CASE WHEN i <= 20 THEN repeat('x', 1500) ELSE ' ' || i END FROM generate_series(1, 700) i;
SELECT count(*) > 0 AS out_of_place FROM (SELECT batchdedup_order < lag(batchdedup_order) OVER (ORDER BY ctid) AS before FROM :a) o WHERE before;
SELECT batchdedup.finalize_instance(:'batch', 'b'), batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT * FROM word WHERE id = 1;
SELECT replace(w, repeat('x', 1500), 'x') = string_agg(CASE WHEN i <= 20 THEN 'x' ELSE ' ' || i END, '' ORDER BY i) AS in_order
  FROM word, generate_series(1, 700) i WHERE id = 2 GROUP BY w;

-- Columns that the server computes, dropped ones, domains, defaults, a key in
-- a unique index that allows NULL.
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE odd (gone int, code text NOT NULL UNIQUE, id int GENERATED ALWAYS AS IDENTITY, a positive, gone_too text,
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
\set VERBOSITY terse
SELECT batchdedup.finalize_batch(:'batch');
\set VERBOSITY default
\echo :SQLSTATE
-- which row it was
CREATE FUNCTION detail_of(batch uuid) RETURNS text LANGUAGE plpgsql AS
$$
DECLARE d text;
BEGIN
    PERFORM batchdedup.finalize_batch(batch);
    RETURN NULL;
EXCEPTION WHEN check_violation THEN
    GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL;
    RETURN split_part(d, E'\n', 2);
END $$;
SELECT detail_of(:'batch');
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

-- ---------- partitions ----------

CREATE TABLE symbol (name text PRIMARY KEY);
INSERT INTO symbol VALUES ('a'), ('b');
CREATE TABLE price (symbol text REFERENCES symbol, day date NOT NULL, close numeric CONSTRAINT close_positive CHECK (close > 0), twice numeric GENERATED ALWAYS AS (close * 2) STORED, gone int,
    note text DEFAULT 'none', PRIMARY KEY (symbol, day)) PARTITION BY RANGE (day);
ALTER TABLE price DROP COLUMN gone;
CREATE INDEX price_note ON price (lower(note)) WHERE note <> '';
CREATE TABLE price_2024 PARTITION OF price FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
SELECT batchdedup.create_target('price');
SELECT batchdedup.prepare_import('prices', 'price', 2, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', '2025');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'batch', '2025', 1, '[]');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', '2025', 'DEFAULT');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', '2025', 'FOR VALUES FROM (1) TO (2), DROP COLUMN note');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', '2025', 'FOR VALUES FROM (1) TO (2); DROP TABLE price');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', '2025', $$FOR VALUES IN ('2025-01-01')$$);
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', '2025', $$FOR VALUES FROM ('2024-06-01') TO ('2025-06-01')$$);
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', '2025', $$FOR VALUES FROM ('2025-01-01') TO ('2024-12-31'::date + 366)$$) AS one \gset
SELECT batchdedup.create_writer(:'batch', '2025', $$FOR VALUES FROM ('2025-01-01') TO ('2026-01-01')$$) = :'one'::regclass AS same;
SELECT batchdedup.create_writer(:'batch', '2025', $$FOR VALUES FROM ('2025-01-01') TO ('2027-01-01')$$);
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'Q1 2026', $$FOR VALUES FROM ('2025-12-01') TO ('2026-04-01')$$);
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'batch', 'Q1 2026', $$FOR VALUES FROM ('2026-01-01') TO ('2026-04-01')$$) AS two \gset
SELECT instance, bound FROM batchdedup.import_instance WHERE batch_id = :'batch' ORDER BY 1;
ALTER TABLE :one RENAME TO import_0000000000000001;
COPY batchdedup.import_0000000000000001 FROM STDIN;
a	2025-01-01	1	x
b	2025-12-31	2	y
\.
-- refused when it is loaded
\set VERBOSITY terse
COPY batchdedup.import_0000000000000001 FROM STDIN;
a	2026-01-01	1	x
\.
COPY batchdedup.import_0000000000000001 FROM STDIN;
a	2025-01-02	-1	x
\.
\set VERBOSITY default
SELECT batchdedup.write_chunk(:'batch', 'Q1 2026', 1, '[{"symbol": "a", "day": "2026-01-01", "close": 3}, {"symbol": "b", "day": "2026-03-31", "close": 4, "note": "z"}]');
SELECT batchdedup.write_chunk(:'batch', 'Q1 2026', 1, '[{"symbol": "a", "day": "2026-01-01", "close": 3}, {"symbol": "b", "day": "2026-03-31", "close": 4, "note": "z"}]');
SELECT batchdedup.write_chunk(:'batch', 'Q1 2026', 2, ARRAY[ROW('b', '2026-01-01', 5, NULL, NULL)]::price[]);
-- a row that is there twice: the index is made when the writer is done
SELECT batchdedup.write_chunk(:'batch', 'Q1 2026', 3, '[{"symbol": "a", "day": "2026-01-01", "close": 3}]');
SELECT batchdedup.finalize_instance(:'batch', '2025');
\set VERBOSITY sqlstate
SELECT batchdedup.finalize_instance(:'batch', 'Q1 2026');
\set VERBOSITY default
SELECT batchdedup.create_writer(:'batch', 'Q1 2026', restart => true) = :'two'::regclass AS same;
SELECT batchdedup.write_chunk(:'batch', 'Q1 2026', 1, '[{"symbol": "a", "day": "2026-01-01", "close": 3}, {"symbol": "b", "day": "2026-03-31", "close": 4, "note": "z"}]');
SELECT batchdedup.finalize_instance(:'batch', 'Q1 2026');
SELECT count(*) FROM price;
-- no row is read when they are attached
SELECT pg_stat_force_next_flush();
BEGIN;
SELECT batchdedup.finalize_batch(:'batch');
SELECT pg_stat_get_xact_numscans('price_2025'::regclass) AS scans, pg_stat_get_xact_numscans('price_q1_2026'::regclass) AS scans;
ROLLBACK;
SELECT count(*) FROM price;
SELECT batchdedup.finalize_batch(:'batch');
SELECT batchdedup.finalize_batch(:'batch');
SELECT tableoid::regclass, * FROM price ORDER BY 2, 3;
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid), c.relacl IS NULL OR c.relacl::text !~ ',' AS own
  FROM pg_class c WHERE c.relnamespace = 'regress_imports'::regnamespace AND c.relispartition AND c.relkind = 'r' ORDER BY 1;
SELECT conrelid::regclass, conname, contype FROM pg_constraint WHERE conrelid = 'price_2025'::regclass AND contype <> 'n' ORDER BY 2;
SELECT tgname FROM pg_trigger WHERE tgrelid = 'price_2025'::regclass AND NOT tgisinternal;
SELECT indexrelid::regclass FROM pg_index WHERE indrelid = 'price_2025'::regclass ORDER BY 1::text;
SELECT count(*) FROM pg_depend WHERE objid = 'price_2025'::regclass AND refobjid = 'price'::regclass;
SELECT count(*) FROM pg_depend WHERE objid = 'price_2025'::regclass AND deptype IN ('e', 'x');
SELECT * FROM staging;
-- they are partitions like others
SELECT batchdedup.upsert('price', '{"symbol": "a", "day": "2025-01-01", "close": 10}');
SELECT batchdedup.flush('price');
SELECT * FROM price_2025 ORDER BY 1;
ALTER TABLE price DETACH PARTITION price_2025;
DROP TABLE price_2025;
SELECT count(*) FROM price;

-- by upsert, through the partitioned table
SELECT batchdedup.prepare_import('price rows', 'price', 1) AS batch \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '[{"symbol": "a", "day": "2026-01-01", "close": 5}, {"symbol": "a", "day": "2024-01-01", "close": 1}]');
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT tableoid::regclass, * FROM price ORDER BY 2, 3;

-- Lists and hashes, without a key, and a partition of a partition.
CREATE TABLE kind (k text, v int) PARTITION BY LIST (k);
SELECT batchdedup.create_target('kind', key => '', coalesce_rows => false);
SELECT batchdedup.prepare_import('kinds', 'kind', 2, 'attach') AS batch \gset
SELECT load(batchdedup.create_writer(:'batch', 'a', $$FOR VALUES IN ('a', 'a''b')$$), $$('a', 1), ('a''b', 2)$$);
SELECT load(batchdedup.create_writer(:'batch', 'null', $$FOR VALUES IN (NULL)$$), $$(NULL, 1)$$);
SELECT batchdedup.finalize_instance(:'batch', 'a'), batchdedup.finalize_instance(:'batch', 'null');
SELECT batchdedup.finalize_batch(:'batch');
SELECT tableoid::regclass, * FROM kind ORDER BY v, k;
SELECT batchdedup.prepare_import('overlaps', 'kind', 2, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a', $$FOR VALUES IN ('c', 'd')$$) IS NOT NULL AS made;
SELECT batchdedup.create_writer(:'batch', 'b', $$FOR VALUES IN ('d', 'e')$$) IS NOT NULL AS made;
SELECT batchdedup.create_writer(:'batch', 'b', $$FOR VALUES IN (NULL)$$) IS NOT NULL AS made;
SELECT batchdedup.create_writer(:'batch', 'b', $$FOR VALUES IN ('e')$$) IS NOT NULL AS made;
SELECT batchdedup.abort_batch(:'batch');
CREATE TABLE hashed (k int, v int) PARTITION BY HASH (k);
SELECT batchdedup.create_target('hashed', key => '', coalesce_rows => false);
SELECT batchdedup.prepare_import('hash overlaps', 'hashed', 3, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a', $$FOR VALUES WITH (MODULUS 4, REMAINDER 1)$$) IS NOT NULL AS made;
SELECT batchdedup.create_writer(:'batch', 'b', $$FOR VALUES WITH (MODULUS 8, REMAINDER 5)$$) IS NOT NULL AS made;
SELECT batchdedup.create_writer(:'batch', 'b', $$FOR VALUES WITH (MODULUS 8, REMAINDER 6)$$) IS NOT NULL AS made;
SELECT batchdedup.abort_batch(:'batch');
SELECT batchdedup.prepare_import('hashes', 'hashed', 1, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a', $$FOR VALUES WITH (MODULUS 1, REMAINDER 0)$$) AS a \gset
SELECT load(:'a', '(1, 1)');
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT tableoid::regclass, * FROM hashed;
CREATE TABLE tree (k int, v int) PARTITION BY RANGE (k);
CREATE TABLE tree_low PARTITION OF tree FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (v);
SELECT batchdedup.create_target('tree_low', key => '', coalesce_rows => false);
SELECT batchdedup.prepare_import('tree', 'tree_low', 1, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a', $$FOR VALUES FROM (MINVALUE) TO (10)$$) AS a \gset
SELECT load(:'a', '(1, 1)');
\set VERBOSITY sqlstate
SELECT load(:'a', '(100, 1)');
\set VERBOSITY default
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT tableoid::regclass, * FROM tree;

-- types that are not in pg_catalog
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE felt (m mood, at date) PARTITION BY LIST (m);
SELECT batchdedup.create_target('felt', key => '', coalesce_rows => false);
SELECT batchdedup.prepare_import('felt', 'felt', 1, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a', $$FOR VALUES IN ('happy')$$) AS a \gset
SELECT load(:'a', $$('happy', '2026-01-01')$$);
SELECT batchdedup.create_writer(:'batch', 'a', restart => true) = :'a'::regclass AS same;
SELECT load(:'a', $$('happy', '2026-01-02')$$);
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT tableoid::regclass, * FROM felt;

-- ---------- tables that change ----------

SELECT batchdedup.prepare_import('changed', 'word', 1) AS batch \gset
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '[{"id": 10, "w": "ten"}]');
SELECT batchdedup.finalize_instance(:'batch', 'a');
BEGIN;
ALTER TABLE word ADD COLUMN added int;
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
ALTER TABLE word RENAME TO words;
ALTER TABLE words RENAME COLUMN w TO text;
SELECT batchdedup.finalize_batch(:'batch');
SELECT text FROM words WHERE id = 10;
ROLLBACK;
BEGIN;
SELECT batchdedup.drop_target('word');
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
ROLLBACK;
BEGIN;
SELECT writer FROM batchdedup.import_instance WHERE batch_id = :'batch' \gset
DROP TABLE :writer;
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
ROLLBACK;
SELECT batchdedup.prepare_import('lost', 'word', 1) AS lost \gset
SELECT batchdedup.create_writer(:'lost', 'a') AS a \gset
DROP TABLE :a;
SELECT batchdedup.create_writer(:'lost', 'a');
\echo :SQLSTATE
SELECT batchdedup.write_chunk(:'lost', 'a', 1, '[]');
\echo :SQLSTATE
SELECT batchdedup.finalize_instance(:'lost', 'a');
\echo :SQLSTATE
SELECT batchdedup.create_writer(:'lost', 'a', restart => true) IS NOT NULL AS made_anew;
SELECT batchdedup.write_chunk(:'lost', 'a', 1, '[{"id": 11}]');
-- they go with their target
CREATE TABLE short (id serial PRIMARY KEY, v int);
SELECT batchdedup.create_target('short');
SELECT batchdedup.prepare_import('short', 'short', 1) AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a') IS NOT NULL AS made;
SELECT * FROM staging;
DROP TABLE short;
SELECT * FROM staging;
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
SELECT batchdedup.abort_batch(:'batch');

-- ---------- age ----------

SELECT batchdedup.expire_imports('1 hour');
CREATE TABLE batchdedup.import_00000000deadbeef (x int);
SELECT * FROM staging;
SELECT batchdedup.expire_imports('-1 second');
SELECT * FROM staging;
SELECT name, status FROM batchdedup.batch_row WHERE kind = 'import' ORDER BY created_at;
SELECT batchdedup.expire_imports('-1 second');

-- ---------- who may ----------

CREATE ROLE regress_import_loader;
CREATE ROLE regress_import_reader;
GRANT USAGE ON SCHEMA regress_imports TO regress_import_loader, regress_import_reader;
GRANT INSERT, UPDATE ON bar TO regress_import_loader;
GRANT SELECT ON bar TO regress_import_reader;
SET ROLE regress_import_loader;
SELECT batchdedup.prepare_import('role', 'bar', 1);
\echo :SQLSTATE
RESET ROLE;
SELECT batchdedup.grant_batches('regress_import_loader'), batchdedup.grant_batches('regress_import_reader');
SET ROLE regress_import_reader;
SELECT batchdedup.prepare_import('role', 'bar', 1);
\echo :SQLSTATE
SET ROLE regress_import_loader;
SELECT batchdedup.prepare_import('role', 'bar', 1) AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a') AS a \gset
INSERT INTO :a (symbol, day, close) VALUES ('role', '2026-01-01', 1);
\set VERBOSITY sqlstate
SELECT * FROM :a;
TRUNCATE :a;
SET ROLE regress_import_reader;
INSERT INTO :a (symbol, day, close) VALUES ('role', '2026-01-01', 1);
SELECT batchdedup.create_writer(:'batch', 'a');
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '[]');
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT batchdedup.abort_batch(:'batch');
\set VERBOSITY default
SET ROLE regress_import_loader;
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT name, rows FROM batchdedup.import_completed WHERE name = 'role';
SELECT count(*) FROM batchdedup.stat_progress;
-- an error shows nothing of the row to who may not read the table
RESET ROLE;
ALTER TABLE bar ADD CONSTRAINT low CHECK (volume < 1000) NOT VALID;
SET ROLE regress_import_loader;
SELECT batchdedup.prepare_import('refused', 'bar', 1) AS batch \gset
RESET ROLE;
ALTER TABLE bar DROP CONSTRAINT low;
SET ROLE regress_import_loader;
SELECT batchdedup.write_chunk(:'batch', 'a', 1, '{"symbol": "secret", "day": "2026-01-01", "close": 1, "volume": 1000}');
SELECT batchdedup.finalize_instance(:'batch', 'a');
RESET ROLE;
ALTER TABLE bar ADD CONSTRAINT low CHECK (volume < 1000) NOT VALID;
SET ROLE regress_import_loader;
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
-- to attach is a matter of the owner
SELECT batchdedup.prepare_import('prices 2', 'price', 1, 'attach');
\echo :SQLSTATE
RESET ROLE;
GRANT INSERT, UPDATE ON price TO regress_import_loader;
SET ROLE regress_import_loader;
SELECT batchdedup.prepare_import('prices 2', 'price', 1, 'attach');
\echo :SQLSTATE
RESET ROLE;
ALTER TABLE bar ENABLE ROW LEVEL SECURITY;
SET ROLE regress_import_loader;
SELECT batchdedup.finalize_batch(:'batch');
\echo :SQLSTATE
SELECT batchdedup.prepare_import('rls', 'bar', 1);
\echo :SQLSTATE
RESET ROLE;
ALTER TABLE bar DISABLE ROW LEVEL SECURITY;
-- the owner's code runs as the owner
CREATE ROLE regress_import_owner;
GRANT ALL ON SCHEMA regress_imports TO regress_import_owner;
SET ROLE regress_import_owner;
CREATE FUNCTION spy(what text, value int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN IF current_user NOT IN ('regress_import_owner', 'regress_import_reader') THEN RAISE WARNING '% runs as %', what, current_user; END IF; RETURN value; END $$;
CREATE TABLE spied (id int PRIMARY KEY, v int DEFAULT 1, g int GENERATED ALWAYS AS (spy('generated', 1)) STORED, CHECK (spy('check', 1) = 1 AND spy('check', v) = v));
CREATE TABLE spied_parts (id int, v int DEFAULT spy('default', 1), g int GENERATED ALWAYS AS (spy('generated', 1)) STORED, CHECK (spy('check', 1) = 1)) PARTITION BY RANGE (id);
CREATE INDEX ON spied_parts (spy('index', v)) WHERE spy('index', 1) = 1;
SELECT batchdedup.create_target('spied');
SELECT batchdedup.create_target('spied_parts', key => '', coalesce_rows => false);
CREATE FUNCTION spy_trigger() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN PERFORM regress_imports.spy('trigger', 1); RETURN NULL; END $$;
RESET ROLE;
SELECT batchdedup.prepare_import('spied', 'spied', 1) AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a') AS a \gset
SET ROLE regress_import_owner;
CREATE TRIGGER spy AFTER TRUNCATE ON :a EXECUTE FUNCTION spy_trigger();
RESET ROLE;
SELECT batchdedup.create_writer(:'batch', 'a', restart => true) = :'a'::regclass AS same;
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SELECT batchdedup.prepare_import('spied parts', 'spied_parts', 1, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a', 'FOR VALUES FROM (1) TO (2)') AS a \gset
SET ROLE regress_import_owner;
INSERT INTO :a (id) VALUES (1);
RESET ROLE;
SELECT batchdedup.finalize_instance(:'batch', 'a');
SELECT batchdedup.finalize_batch(:'batch');
SET ROLE regress_import_owner;
SELECT tableoid::regclass, * FROM spied_parts;
RESET ROLE;

-- the table gets another owner
SELECT batchdedup.prepare_import('owners', 'spied_parts', 2, 'attach') AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'b', 'FOR VALUES FROM (2) TO (3)') AS b \gset
SELECT batchdedup.create_writer(:'batch', 'c', 'FOR VALUES FROM (3) TO (4)') AS c \gset
SELECT batchdedup.finalize_instance(:'batch', 'b');
GRANT USAGE ON SCHEMA regress_imports TO regress_import_reader;
ALTER FUNCTION spy(text, int) OWNER TO regress_import_reader;
ALTER TABLE spied_parts OWNER TO regress_import_reader;
ALTER TABLE spied_parts_a OWNER TO regress_import_reader;
SELECT batchdedup.finalize_instance(:'batch', 'c');
SELECT batchdedup.finalize_batch(:'batch');
SELECT relname, pg_get_userbyid(relowner) FROM pg_class WHERE oid = ANY (SELECT inhrelid FROM pg_inherits WHERE inhparent = 'spied_parts'::regclass) ORDER BY 1;

-- ---------- the end ----------

SELECT batchdedup.prepare_import('last', 'bar', 1) AS batch \gset
SELECT batchdedup.create_writer(:'batch', 'a') IS NOT NULL AS made;
BEGIN;
DROP EXTENSION batchdedup;
SELECT count(*) FROM pg_class WHERE relname ~ '^import_[0-9a-f]{16}';
ROLLBACK;
-- as if they came from a dump
DELETE FROM pg_depend WHERE deptype = 'x' AND refclassid = 'pg_extension'::regclass;
BEGIN;
DROP EXTENSION batchdedup;
ROLLBACK;
SELECT batchdedup.abort_batch(:'batch');
SELECT count(*) FROM batchdedup.expire_imports('-1 second');
SELECT * FROM staging;
SELECT batchdedup.flush() >= 0 AS flushed;
SET client_min_messages = error;
DROP SCHEMA regress_imports CASCADE;
DROP OWNED BY regress_import_loader, regress_import_reader, regress_import_owner;
DROP ROLE regress_import_loader, regress_import_reader, regress_import_owner;
