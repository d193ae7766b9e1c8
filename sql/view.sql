-- create_view(): INSERT, COPY, UPDATE, DELETE go to the buffer, SELECT shows
-- the table as it will be.
\a
\pset footer off
\pset null '(null)'
\set SHOW_CONTEXT never
CREATE SCHEMA regress_view;
SET search_path = regress_view;
SET timezone = 'UTC';
CREATE ROLE regress_bdd_owner;
CREATE ROLE regress_bdd_user;
GRANT USAGE, CREATE ON SCHEMA regress_view TO regress_bdd_owner;
GRANT USAGE ON SCHEMA regress_view TO regress_bdd_user;

-- EXPLAIN without what is not the same in all versions of the server: how
-- subplans are called, what is disabled, and which side of a lookup's filter
-- comes first (the key below says the same).
CREATE FUNCTION plan(statement text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    line text;
    lookup bool = false;
BEGIN
    FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || statement LOOP
        CONTINUE WHEN line ~ '^ *Disabled: ' OR lookup AND line ~ '^ *Filter: ';
        lookup = line ~ 'batchdedup lookup';
        RETURN NEXT regexp_replace(line, 'SubPlan \w+', 'SubPlan');
    END LOOP;
END $$;

--
-- What create_view makes
--
CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY, k text NOT NULL UNIQUE, gone int, v int, w numeric(10,2) DEFAULT 1,
    at timestamptz NOT NULL DEFAULT now(), nr serial, made text GENERATED ALWAYS AS (k || '/' || v) STORED);
ALTER TABLE t DROP gone;
SELECT batchdedup.create_view('t');
\echo :SQLSTATE
SELECT batchdedup.create_target('t', key => 'k', update_columns => 'v, w', flush_interval => '0');
SELECT batchdedup.create_view('t');
SELECT attname, format_type(atttypid, atttypmod) AS type, pg_get_expr(adbin, adrelid) AS default
  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
 WHERE attrelid = 't_buffered'::regclass AND attnum > 0 ORDER BY attnum;
SELECT relkind, reloptions, pg_get_userbyid(relowner) = current_user AS own FROM pg_class WHERE oid = 't_buffered'::regclass;
SELECT tgname, pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 't_buffered'::regclass;

--
-- INSERT
--
INSERT INTO t_buffered (k, v) VALUES ('a', 1) RETURNING id, k, v, w, at = now() AS now, nr, made;
INSERT INTO t_buffered (k, v, w) VALUES ('b', 2, 2), ('c', 3, DEFAULT), ('d', 4, NULL) RETURNING id, k, v, w, nr, made;
INSERT INTO t_buffered (k, v, id) SELECT 'e' || i, i, CASE i WHEN 2 THEN 100 END FROM generate_series(1, 2) i RETURNING id, k, nr;
COPY t_buffered (k, v) FROM stdin;
f1	1
f2	2
\.
COPY t_buffered (v, k, w) FROM stdin WITH (FORMAT csv, NULL 'none');
3,f3,none
\.
SELECT count(*) FROM t;
SELECT k, v, w, made FROM t_buffered ORDER BY k;
SELECT received, buffered_rows, foreign_writes FROM batchdedup.stat_target WHERE target = 't'::regclass;
SELECT batchdedup.flush('t');
SELECT id, k, v, w, at IS NOT NULL AS at, nr, made FROM t ORDER BY k;
SELECT id, k, v, w, nr, made FROM t_buffered EXCEPT SELECT id, k, v, w, nr, made FROM t;
-- of a key that exists: every column is given, which is what update_columns takes; an identity stays
SELECT v, w, nr FROM t WHERE k = 'a' \gset old_
INSERT INTO t_buffered (k, v) VALUES ('a', 10);
SELECT id, v, w, nr = :old_nr AS same_nr FROM t_buffered WHERE k = 'a';
INSERT INTO t_buffered (k, v, w) VALUES ('b', NULL, 20);
INSERT INTO t_buffered (k) VALUES ('c');
SELECT batchdedup.flush('t');
SELECT id, k, v, w FROM t WHERE k IN ('a', 'b', 'c') ORDER BY k;
-- what is refused
INSERT INTO t_buffered (v) VALUES (1);
\echo :SQLSTATE
INSERT INTO t_buffered (k, at) VALUES ('x', NULL);
\echo :SQLSTATE
INSERT INTO t_buffered (k, made) VALUES ('x', 'x');
\echo :SQLSTATE
INSERT INTO t_buffered (k, w) VALUES ('x', 'x');
\echo :SQLSTATE
INSERT INTO t_buffered (k, v) VALUES ('x', 1), ('y', 1 / 0);
\echo :SQLSTATE
COPY t_buffered (k, v) FROM stdin;
x	1
y	z
\.
INSERT INTO t_buffered (k, v) VALUES ('a', 1) ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v;
\echo :SQLSTATE
INSERT INTO t_buffered (k, v) VALUES ('a', 1) ON CONFLICT DO NOTHING;
\echo :SQLSTATE
WITH new AS (INSERT INTO t_buffered (k, v) VALUES ('a', 1) ON CONFLICT DO NOTHING RETURNING k) SELECT * FROM new;
\echo :SQLSTATE
BEGIN READ ONLY;
INSERT INTO t_buffered (k, v) VALUES ('x', 1);
\echo :SQLSTATE
ROLLBACK;
SELECT count(*) FROM batchdedup.buffered(NULL::t);

--
-- UPDATE carries what has changed, DELETE goes by key
--
UPDATE t_buffered SET v = 11 WHERE k = 'a' RETURNING k, v, w, made;
SELECT batchdedup.upsert('t', '{"k":"a","w":7}');
SELECT v, w FROM t_buffered WHERE k = 'a';
UPDATE t_buffered SET v = v + 1, w = w WHERE k LIKE 'f%';
SELECT k, v, w FROM t_buffered WHERE k LIKE 'f%' ORDER BY k;
-- nothing has changed
SELECT received FROM batchdedup.stat_target WHERE target = 't'::regclass \gset
UPDATE t_buffered SET v = v, w = w;
SELECT received - :received AS received FROM batchdedup.stat_target WHERE target = 't'::regclass;
-- 1.0 is not 1.00
CREATE TABLE scale (k int PRIMARY KEY, n numeric);
SELECT batchdedup.create_target('scale', flush_interval => '0');
SELECT batchdedup.create_view('scale');
INSERT INTO scale_buffered VALUES (1, 1.0);
UPDATE scale_buffered SET n = 1.00;
SELECT * FROM scale_buffered;
UPDATE t_buffered SET v = 5 FROM (VALUES ('b'), ('c')) s(k) WHERE t_buffered.k = s.k RETURNING t_buffered.k, v;
UPDATE t_buffered SET k = 'z' WHERE k = 'a';
\echo :SQLSTATE
UPDATE t_buffered SET at = '2026-01-01' WHERE k = 'a';
\echo :SQLSTATE
UPDATE t_buffered SET id = 1000 WHERE k = 'a';
\echo :SQLSTATE
UPDATE t_buffered SET made = 'x' WHERE k = 'a';
\echo :SQLSTATE
UPDATE t_buffered SET at = at, made = made, id = id, k = k WHERE k = 'a';
DELETE FROM t_buffered WHERE k IN ('d', 'e1', 'f1') RETURNING k, v;
DELETE FROM t_buffered WHERE k = 'no such key';
SELECT k, v, w FROM t_buffered ORDER BY k;
SELECT batchdedup.flush('t', 'scale');
SELECT k, v, w FROM t ORDER BY k;
TABLE scale;

--
-- A statement does not see what it writes; the next one does
--
CREATE TABLE n (k int PRIMARY KEY, v int);
INSERT INTO n SELECT i, i FROM generate_series(1, 5) i;
SELECT batchdedup.create_target('n', flush_interval => '0', guard => 'off');
SELECT batchdedup.create_view('n');
SELECT batchdedup.upsert('n', '[{"k":4,"v":40},{"k":6,"v":60}]');
BEGIN;
UPDATE n_buffered SET v = v + 1000;
SELECT * FROM n_buffered ORDER BY k;
UPDATE n_buffered SET v = v + 1000 WHERE k > 3;
SELECT * FROM n_buffered ORDER BY k;
INSERT INTO n_buffered SELECT k + 1, -v FROM n_buffered;
SELECT * FROM n_buffered ORDER BY k;
DELETE FROM n_buffered WHERE k % 2 = 0;
SELECT * FROM n_buffered ORDER BY k;
DELETE FROM n_buffered;
SELECT * FROM n_buffered ORDER BY k;
INSERT INTO n_buffered SELECT i, i FROM generate_series(1, 200) i;
INSERT INTO n_buffered SELECT k + 1, 1000 + v FROM n_buffered;
SELECT count(*), sum(v), min(k), max(k) FROM n_buffered;
SELECT count(*) FROM n_buffered a JOIN n_buffered b USING (k);
ROLLBACK;
SELECT * FROM n_buffered ORDER BY k;
-- a function in the statement writes, and sees what it has written
CREATE FUNCTION put(int, int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_view.n_buffered VALUES ($1, $2);
    RETURN (SELECT v FROM regress_view.n_buffered WHERE k = $1);
END $$;
BEGIN;
SELECT k, v, put(k + 1, k) FROM n_buffered ORDER BY k;
SELECT * FROM n_buffered ORDER BY k;
ROLLBACK;
-- and changes its mind
CREATE FUNCTION put_and_undo(int) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    PERFORM regress_view.put($1, -1);
    RAISE EXCEPTION 'undone';
EXCEPTION WHEN raise_exception THEN
    RETURN (SELECT v FROM regress_view.n_buffered WHERE k = $1);
END $$;
SELECT k, v, put_and_undo(k + 1) FROM n_buffered ORDER BY k;
-- or switches to direct writing: what was pending is then in the table
CREATE FUNCTION go_direct() RETURNS int LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL batchdedup.enabled = off;
    INSERT INTO regress_view.n_buffered VALUES (1, 1);
    RETURN (SELECT count(*) FROM regress_view.n);
END $$;
BEGIN;
INSERT INTO n_buffered VALUES (2, 22), (7, 77);
SELECT k, v, CASE k WHEN 1 THEN go_direct() END AS rows FROM n_buffered ORDER BY k;
SELECT k, v, CASE k WHEN 1 THEN go_direct() END AS rows FROM n_buffered WHERE k IN (1, 2, 4, 7);
ROLLBACK;
-- a cursor keeps to what was there when it began
BEGIN;
INSERT INTO n_buffered VALUES (1, 11);
DECLARE c CURSOR FOR SELECT * FROM n_buffered WHERE k <> 0;
DECLARE d CURSOR WITH HOLD FOR SELECT * FROM n_buffered WHERE k = 1;
FETCH 1 FROM c;
INSERT INTO n_buffered VALUES (1, 111), (2, 222), (6, 666), (9, 999);
DELETE FROM n_buffered WHERE k = 4;
FETCH ALL FROM c;
SELECT * FROM n_buffered ORDER BY k;
SAVEPOINT s;
DELETE FROM n_buffered WHERE k < 5;
SELECT * FROM n_buffered ORDER BY k;
ROLLBACK TO s;
SELECT * FROM n_buffered ORDER BY k;
COMMIT;
-- which is when it was declared
FETCH ALL FROM d;
CLOSE d;
SELECT * FROM n_buffered ORDER BY k;
SELECT batchdedup.flush('n');
SELECT * FROM n ORDER BY k;
-- an old snapshot keeps to the buffer
SELECT batchdedup.upsert('n', '[{"k":1,"v":2},{"k":10,"v":10}]');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM n WHERE k IN (1, 10);
SELECT batchdedup.flush('n');
SELECT * FROM n WHERE k IN (1, 10);
SELECT * FROM n_buffered WHERE k IN (1, 10);
SELECT * FROM n_buffered WHERE v IN (2, 10) ORDER BY k;
COMMIT;

--
-- Rows that the table shows through
--
CREATE TABLE part (k int PRIMARY KEY, a text, b text DEFAULT 'b0', c text, made text GENERATED ALWAYS AS (a || b) STORED);
INSERT INTO part SELECT i, 'a' || i, 'b' || i, 'c' || i FROM generate_series(1, 6) i;
SELECT batchdedup.create_target('part', update_columns => 'a, b', flush_interval => '0', guard => 'off');
SELECT batchdedup.create_view('part');
SELECT batchdedup.upsert('part', '[{"k":1,"a":"new"},{"k":2,"c":"ignored"},{"k":7,"a":"a7"}]');
SELECT batchdedup.upsert(ROW(3, 'full', 'full', 'ignored', NULL)::part);
SELECT batchdedup.delete('part', '[{"k":4},{"k":5}]');
SELECT batchdedup.upsert('part', '{"k":5,"a":"again"}');
SELECT * FROM part_buffered ORDER BY k;
SELECT p.* FROM generate_series(1, 8) i, part_buffered p WHERE p.k = i ORDER BY i;
BEGIN;
SELECT batchdedup.upsert('part', '{"k":1,"b":"mine"}');
UPDATE part SET c = 'own write' WHERE k = 1;
SELECT * FROM part_buffered WHERE k = 1;
SELECT * FROM part_buffered WHERE c = 'own write';
COMMIT;
SELECT batchdedup.flush('part');
SELECT * FROM part ORDER BY k;

--
-- Plans: a lookup scans neither the table nor the buffer
--
SET enable_seqscan = off;
SELECT plan($$SELECT * FROM n_buffered WHERE k = 1$$);
SELECT plan($$SELECT * FROM n_buffered WHERE k IN (1, 2)$$);
SELECT plan($$SELECT * FROM n_buffered WHERE v = 1$$);
SELECT plan($$SELECT * FROM n_buffered WHERE k > 1$$);
SELECT plan($$UPDATE n_buffered SET v = 1 WHERE k = 1$$);
SELECT plan($$DELETE FROM n_buffered WHERE 1 = k$$);
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_bitmapscan = off;
SELECT plan($$SELECT o.a, b.v FROM part o JOIN n_buffered b ON b.k = o.k$$);
SELECT plan($$SELECT * FROM part o LEFT JOIN n_buffered b ON b.k = o.k$$);
SELECT plan($$SELECT (SELECT v FROM n_buffered b WHERE b.k = o.k) FROM part o$$);
SELECT plan($$SELECT b FROM n_buffered b WHERE k = 1$$);
RESET enable_seqscan;
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_bitmapscan;
PREPARE by_key(bigint) AS SELECT * FROM n_buffered WHERE k = $1;
SELECT plan($$EXECUTE by_key(1)$$);
SET plan_cache_mode = force_generic_plan;
SELECT plan($$EXECUTE by_key(1)$$);
-- nothing goes through the buffer
SELECT count(batchdedup.upsert_record('n', r)) FROM (SELECT 100 + i AS k, i AS v FROM generate_series(1, 1000) i) r;
SELECT batchdedup.delete('n', '{"k":2}');
SET batchdedup.debug_point = 'overlay:error';
SELECT count(*) FROM n_buffered;
EXECUTE by_key(1);
EXECUTE by_key(2);
EXECUTE by_key(101);
EXECUTE by_key(102 + 4294967296);
EXECUTE by_key(NULL);
EXECUTE by_key(99);
SELECT * FROM n_buffered WHERE k IN (101, 2, 1, 101, NULL, 102) ORDER BY k;
SELECT b.* FROM (VALUES (101), (2), (1), (101)) o(k) JOIN n_buffered b ON b.k = o.k ORDER BY k;
-- a key named twice, and met by another scan in between
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT a.k, b.v FROM n_buffered a JOIN n_buffered b ON b.k = a.k WHERE a.k = ANY ('{101,101,102,101}');
RESET enable_hashjoin;
RESET enable_mergejoin;
SELECT o.k, b.v FROM (VALUES (101), (2), (1), (NULL)) o(k) LEFT JOIN n_buffered b ON b.k = o.k ORDER BY 1;
UPDATE n_buffered SET v = 12345 WHERE k = 101 RETURNING *;
DELETE FROM n_buffered WHERE k = 102;
INSERT INTO n_buffered VALUES (103, 1);
RESET batchdedup.debug_point;
SELECT * FROM n_buffered WHERE k BETWEEN 100 AND 105 ORDER BY k;
-- many keys in one statement: then all is copied at once
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SET enable_material = off;
SELECT count(b.v), count(*) FROM generate_series(1, 2000) i LEFT JOIN n_buffered b ON b.k = i;
RESET ALL;
SET search_path = regress_view;
SET timezone = 'UTC';
-- a target that is altered: no stale plan
PREPARE one AS SELECT * FROM n_buffered WHERE k = 101;
EXECUTE one;
SELECT batchdedup.drop_target('n');
EXECUTE one;
SELECT plan($$EXECUTE one$$);
INSERT INTO n_buffered VALUES (1, 1);
\echo :SQLSTATE
UPDATE n_buffered SET v = 0 WHERE k = 1;
\echo :SQLSTATE
DELETE FROM n_buffered WHERE k = 1;
\echo :SQLSTATE
SELECT * FROM n_buffered WHERE k < 3 ORDER BY k;
-- registered again, by another key: the view follows
DELETE FROM n WHERE k > 2 OR v IS NULL;
ALTER TABLE n ADD UNIQUE (v), ALTER v SET NOT NULL;
SELECT batchdedup.create_target('n', key => 'v', flush_interval => '0', guard => 'off');
INSERT INTO n_buffered VALUES (10, 2), (11, 3);
SELECT * FROM n_buffered ORDER BY k;
SET enable_seqscan = off;
SET enable_bitmapscan = off;
SELECT plan($$SELECT * FROM n_buffered WHERE v = 2$$);
SELECT batchdedup.flush('n');
SELECT * FROM n ORDER BY k;
SELECT batchdedup.alter_target('n', reset => 'key');
SELECT plan($$SELECT * FROM n_buffered WHERE k = 1$$);
RESET enable_seqscan;
RESET enable_bitmapscan;

--
-- Keys of all kinds
--
CREATE TABLE keys (a bigint, b varchar(5), c char(5), d numeric(10,2), e numeric, f float8, g smallint, h date, i uuid,
    v int, PRIMARY KEY (a, b, c, d, e, f, g, h, i));
SELECT batchdedup.create_target('keys', flush_interval => '0');
SELECT batchdedup.create_view('keys');
INSERT INTO keys_buffered VALUES (1, 'b', 'c', 1.5, 1.50, 0.0, 7, '2026-01-01', '00000000-0000-0000-0000-000000000001', 1);
SET batchdedup.debug_point = 'overlay:error';
SELECT v FROM keys_buffered WHERE a = 1 AND b = 'b' AND c = 'c' AND d = 1.5 AND e = 1.5000 AND f = '-0' AND g = 7
   AND h = '2026-01-01' AND i = '00000000-0000-0000-0000-000000000001';
SELECT v FROM keys_buffered WHERE a = 1::smallint AND b = 'b'::varchar AND c = 'c  '::char(3) AND d = 1.500 AND e = 1.5 AND f = 0 AND g = 7::bigint
   AND h = '2026-01-01' AND i = '00000000-0000-0000-0000-000000000001';
-- equal to nothing
SELECT v FROM keys_buffered WHERE a = 1 AND b = 'b' AND c = 'c' AND d = 1.501 AND e = 1.5 AND f = 0 AND g = 7
   AND h = '2026-01-01' AND i = '00000000-0000-0000-0000-000000000001';
SELECT v FROM keys_buffered WHERE a = 1 AND b = 'b' AND c = 'c' AND d = 1e30 AND e = 1.5 AND f = 0 AND g = 65543
   AND h = '2026-01-01' AND i = '00000000-0000-0000-0000-000000000001';
SELECT v FROM keys_buffered WHERE a = 1 AND b = 'b' AND c = 'c and more' AND d = 1.5 AND e = 1.5 AND f = 0 AND g = 7
   AND h = '2026-01-01' AND i = '00000000-0000-0000-0000-000000000001';
RESET batchdedup.debug_point;
-- not all of the key, or not as its index compares it
SELECT plan($$SELECT v FROM keys_buffered WHERE a = 1$$);
SELECT v FROM keys_buffered WHERE a = 1;
CREATE TABLE texts (k text COLLATE "C" PRIMARY KEY, v int);
SELECT batchdedup.create_target('texts', flush_interval => '0');
SELECT batchdedup.create_view('texts');
INSERT INTO texts_buffered VALUES ('x', 1);
SET enable_seqscan = off;
SELECT plan($$SELECT v FROM texts_buffered WHERE k = 'x'$$);
SELECT plan($$SELECT v FROM texts_buffered WHERE k = 'x' COLLATE "POSIX"$$);
SELECT v FROM texts_buffered WHERE k = 'x' COLLATE "POSIX";
SELECT plan($$SELECT v FROM texts_buffered WHERE k LIKE 'x'$$);
RESET enable_seqscan;
-- equal keys with different bytes
CREATE TABLE ranges (k int4range PRIMARY KEY, n numeric[] NOT NULL UNIQUE, v int);
SELECT batchdedup.create_target('ranges', key => 'n', flush_interval => '0', guard => 'off');
SELECT batchdedup.create_view('ranges');
INSERT INTO ranges VALUES ('[1,2)', '{1.0}', 1), ('[2,3)', '{2}', 2), ('[3,4)', '{3}', 3);
INSERT INTO ranges_buffered VALUES ('[1,2)', '{1.00}', 10), ('[4,5)', '{4}', 4);
UPDATE ranges_buffered SET v = 20 WHERE n = '{2.0}';
DELETE FROM ranges_buffered WHERE n = '{3.0}';
SELECT * FROM ranges_buffered ORDER BY n;
SELECT * FROM ranges_buffered WHERE n = '{1}';
BEGIN;
INSERT INTO ranges_buffered SELECT k, n, v + 1 FROM ranges_buffered;
SELECT * FROM ranges_buffered ORDER BY n;
COMMIT;
SELECT batchdedup.flush('ranges');
SELECT * FROM ranges ORDER BY n;

--
-- Names, partitions, children, types
--
CREATE TABLE "Odd ""Name" ("Key" int PRIMARY KEY, "va""lue" text DEFAULT 'it''s', stored bool, "stored_1" int, "select" int DEFAULT 3);
SELECT batchdedup.create_target('"Odd ""Name"', flush_interval => '0');
SELECT batchdedup.create_view('"Odd ""Name"');
INSERT INTO "Odd ""Name_buffered" ("Key", stored) VALUES (1, true) RETURNING *;
UPDATE "Odd ""Name_buffered" SET "select" = 4;
SELECT * FROM "Odd ""Name_buffered" WHERE "Key" = 1;
SELECT batchdedup.create_view('"Odd ""Name"', 'plain');
SELECT batchdedup.create_view('"Odd ""Name"', '"My View"');
SELECT batchdedup.create_view('"Odd ""Name"', 'public.other');
\echo :SQLSTATE
SELECT batchdedup.create_view('"Odd ""Name"', 'not a name');
\echo :SQLSTATE
SELECT batchdedup.create_view('"Odd ""Name"', '');
\echo :SQLSTATE
SELECT batchdedup.create_view('"Odd ""Name"', 't_buffered');
\echo :SQLSTATE
SELECT batchdedup.create_view('"Odd ""Name"', 't');
\echo :SQLSTATE
SELECT batchdedup.create_view(NULL);
\echo :SQLSTATE
SELECT batchdedup.create_view('plain');
\echo :SQLSTATE
SELECT count(*) FROM plain, "My View";
CREATE TABLE t23456789_123456789_123456789_123456789_123456789_123456789_123 (k int PRIMARY KEY);
SELECT batchdedup.create_target('t23456789_123456789_123456789_123456789_123456789_123456789_123');
SELECT batchdedup.create_view('t23456789_123456789_123456789_123456789_123456789_123456789_123');
-- renamed, all of it, and made anew after ADD COLUMN
ALTER TABLE t RENAME TO "T 2";
ALTER TABLE "T 2" RENAME k TO "the key";
ALTER VIEW t_buffered RENAME TO tb;
ALTER VIEW tb RENAME v TO "V";
CREATE SCHEMA regress_view_2;
ALTER TABLE "T 2" SET SCHEMA regress_view_2;
INSERT INTO tb (k, "V") VALUES ('renamed', 1) RETURNING k, "V", w, made;
UPDATE tb SET "V" = 2 WHERE k = 'renamed';
SELECT k, "V", made FROM tb WHERE k = 'renamed';
ALTER TABLE regress_view_2."T 2" SET SCHEMA regress_view;
ALTER TABLE "T 2" ADD extra int DEFAULT 5, ALTER w DROP DEFAULT;
INSERT INTO tb (k, "V") VALUES ('renamed 2', 1);
SELECT batchdedup.create_view('"T 2"', 'tb');
SELECT "the key", v, w, extra FROM tb WHERE "the key" LIKE 'renamed%' ORDER BY 1;
INSERT INTO tb ("the key", extra) VALUES ('renamed 3', 6) RETURNING w, extra;
SELECT batchdedup.flush('"T 2"');
SELECT "the key", v, w, extra FROM "T 2" WHERE "the key" LIKE 'renamed%' ORDER BY 1;
-- partitions
CREATE TABLE p (k int, r int, v text DEFAULT 'none', PRIMARY KEY (k, r)) PARTITION BY LIST (r);
CREATE TABLE p1 PARTITION OF p FOR VALUES IN (1);
CREATE TABLE p2 (v text, r int NOT NULL, k int NOT NULL);
ALTER TABLE p ATTACH PARTITION p2 FOR VALUES IN (2);
SELECT batchdedup.create_target('p', flush_interval => '0', guard => 'off');
SELECT batchdedup.create_view('p');
INSERT INTO p VALUES (1, 1, 'old'), (1, 2, 'old'), (2, 2, 'old');
INSERT INTO p_buffered VALUES (1, 1, 'new'), (2, 2, 'new'), (3, 2, DEFAULT);
DELETE FROM p_buffered WHERE (k, r) = (1, 2);
SELECT * FROM p_buffered ORDER BY k, r;
SET enable_seqscan = off;
SET enable_hashjoin = off;
SET enable_mergejoin = off;
SELECT plan($$SELECT * FROM p_buffered WHERE k = 1 AND r = 2$$);
SET enable_bitmapscan = off;
SELECT plan($$SELECT * FROM (VALUES (1, 1), (3, 2)) s(k, r) JOIN p_buffered p USING (k, r)$$);
SELECT plan($$SELECT * FROM (VALUES (1), (3)) s(k) JOIN p_buffered p USING (k) WHERE p.r = 1$$);
SELECT * FROM (VALUES (1, 1), (3, 2)) s(k, r) JOIN p_buffered p USING (k, r);
SELECT * FROM (VALUES (1), (3)) s(k) JOIN p_buffered p USING (k) WHERE p.r = 1;
RESET enable_seqscan;
RESET enable_hashjoin;
RESET enable_mergejoin;
RESET enable_bitmapscan;
SELECT batchdedup.flush('p');
SELECT tableoid::regclass, * FROM p ORDER BY k, r;
-- the rows of tables that inherit are not the target's
CREATE TABLE child () INHERITS (scale);
INSERT INTO child VALUES (1, 5), (2, 5);
SELECT * FROM scale_buffered;
-- domains, composites, arrays, what is stored out of line
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN filled AS text NOT NULL DEFAULT 'filled';
CREATE TYPE pair AS (x int, y text);
CREATE TABLE kinds (k positive PRIMARY KEY, f filled, p pair, a pair[], j jsonb, big text, z json);
ALTER TABLE kinds ALTER big SET STORAGE EXTERNAL;
SELECT batchdedup.create_target('kinds', flush_interval => '0');
SELECT batchdedup.create_view('kinds');
INSERT INTO kinds_buffered (k, p.x, a[2].y, j, big) VALUES (1, 5, 'second', '{"a":1}', repeat('x', 100000));
INSERT INTO kinds_buffered (k) VALUES (-1);
\echo :SQLSTATE
INSERT INTO kinds_buffered (k, f) VALUES (1, NULL);
\echo :SQLSTATE
SELECT k, f, p, a, j, length(big), z FROM kinds_buffered WHERE k = 1;
UPDATE kinds_buffered SET p.y = 'y', j = j || '{"b":2}' WHERE k = 1;
SELECT batchdedup.flush('kinds');
-- from another table, which goes
CREATE TABLE copy_of_kinds (LIKE kinds INCLUDING STORAGE);
INSERT INTO copy_of_kinds SELECT * FROM kinds;
INSERT INTO kinds_buffered SELECT 2, f, p, a, j, big, '[1]' FROM copy_of_kinds;
DROP TABLE copy_of_kinds;
UPDATE kinds_buffered SET f = 'new' WHERE k = 2;
SELECT batchdedup.flush('kinds');
SELECT k, f, p, a, j, length(big), z FROM kinds ORDER BY k;

--
-- The same rules when rows are written directly
--
SET batchdedup.enabled = off;
INSERT INTO tb ("the key", v) VALUES ('direct', 1) RETURNING v, made;
UPDATE tb SET v = 2 WHERE "the key" = 'direct';
DELETE FROM tb WHERE "the key" LIKE 'renamed%';
COPY tb ("the key", v) FROM stdin;
direct 2	2
\.
SELECT "the key", v FROM "T 2" WHERE "the key" LIKE 'direct%' OR "the key" LIKE 'renamed%' ORDER BY 1;
RESET batchdedup.enabled;
SELECT batchdedup.alter_target('p', mode => 'direct');
INSERT INTO p_buffered VALUES (9, 1, 'direct');
SELECT * FROM p WHERE k = 9;

--
-- Privileges: those of the view and of the table
--
SET ROLE regress_bdd_owner;
CREATE TABLE own (k int PRIMARY KEY, v int, w int);
SELECT batchdedup.create_target('own', flush_interval => '0', guard => 'off');
INSERT INTO own VALUES (1, 1, 1);
RESET ROLE;
-- who makes the view does not own it
SELECT batchdedup.create_view('own');
SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'own_buffered'::regclass;
SET ROLE regress_bdd_user;
SELECT batchdedup.create_view('own');
\echo :SQLSTATE
INSERT INTO own_buffered VALUES (2, 2, 2);
\echo :SQLSTATE
RESET ROLE;
GRANT ALL ON own_buffered TO regress_bdd_user;
SET ROLE regress_bdd_user;
INSERT INTO own_buffered VALUES (2, 2, 2);
\echo :SQLSTATE
SELECT * FROM own_buffered;
\echo :SQLSTATE
SELECT * FROM own_buffered WHERE k = 2;
\echo :SQLSTATE
SELECT * FROM batchdedup.overlay_rows('own') b(k int, v int, w int);
\echo :SQLSTATE
SELECT * FROM batchdedup.overlay_rows('own') b(k int, v int, w int) WHERE k = 2;
\echo :SQLSTATE
SELECT batchdedup.overlaid('own', 1);
\echo :SQLSTATE
RESET ROLE;
GRANT INSERT ON own TO regress_bdd_user;
SET ROLE regress_bdd_user;
INSERT INTO own_buffered VALUES (2, 2, 2);
\echo :SQLSTATE
RESET ROLE;
GRANT UPDATE (v) ON own TO regress_bdd_user;
SET ROLE regress_bdd_user;
INSERT INTO own_buffered VALUES (2, 2, 2);
\echo :SQLSTATE
RESET ROLE;
GRANT UPDATE ON own TO regress_bdd_user;
SET ROLE regress_bdd_user;
INSERT INTO own_buffered VALUES (2, 2, 2) RETURNING *;
COPY own_buffered FROM stdin;
3	3	3
\.
UPDATE own_buffered SET v = 1 WHERE k = 1;
\echo :SQLSTATE
DELETE FROM own_buffered WHERE k = 2;
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT (k, v) ON own TO regress_bdd_user;
SET ROLE regress_bdd_user;
SELECT k FROM own_buffered;
\echo :SQLSTATE
RESET ROLE;
GRANT SELECT ON own TO regress_bdd_user;
SET ROLE regress_bdd_user;
SELECT * FROM own_buffered ORDER BY k;
UPDATE own_buffered SET v = 10 WHERE k = 1;
DELETE FROM own_buffered WHERE k = 2;
\echo :SQLSTATE
RESET ROLE;
GRANT DELETE ON own TO regress_bdd_user;
SET ROLE regress_bdd_user;
DELETE FROM own_buffered WHERE k = 2;
SELECT * FROM own_buffered ORDER BY k;
-- a cursor has the rights of who opened it
RESET ROLE;
REVOKE SELECT ON own FROM regress_bdd_user;
CREATE FUNCTION open_own() RETURNS refcursor LANGUAGE plpgsql SECURITY DEFINER SET search_path = regress_view AS
$$ DECLARE c refcursor := 'c'; BEGIN OPEN c FOR SELECT * FROM own_buffered ORDER BY k; RETURN c; END $$;
SET ROLE regress_bdd_user;
BEGIN;
SELECT open_own();
FETCH ALL FROM c;
COMMIT;
-- what a function has learned in one role it does not tell another
RESET ROLE;
CREATE FUNCTION is_overlaid(k int) RETURNS boolean LANGUAGE plpgsql SET search_path = regress_view AS
$$ BEGIN RETURN batchdedup.overlaid('own', k); END $$;
BEGIN;
SELECT is_overlaid(1);
SET ROLE regress_bdd_user;
SELECT is_overlaid(1);
\echo :SQLSTATE
ROLLBACK;
GRANT SELECT ON own TO regress_bdd_user;
-- without its grants on the view he is back where he was
RESET ROLE;
REVOKE ALL ON own_buffered FROM regress_bdd_user;
SET ROLE regress_bdd_user;
SELECT * FROM own_buffered;
\echo :SQLSTATE
-- who is bound by row-level security writes to the table and reads nothing
RESET ROLE;
GRANT ALL ON own_buffered TO regress_bdd_user;
SELECT batchdedup.flush('own');
ALTER TABLE own ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON own USING (v < 100);
SET ROLE regress_bdd_user;
INSERT INTO own_buffered VALUES (4, 4, 4);
INSERT INTO own_buffered VALUES (5, 500, 5);
\echo :SQLSTATE
SELECT * FROM own_buffered;
\echo :SQLSTATE
SELECT * FROM own_buffered WHERE k = 4;
\echo :SQLSTATE
UPDATE own_buffered SET w = 1 WHERE k = 4;
\echo :SQLSTATE
RESET ROLE;
SELECT * FROM own ORDER BY k;

--
-- Misuse
--
SELECT batchdedup.view_write();
\echo :SQLSTATE
CREATE TRIGGER x BEFORE INSERT ON scale FOR EACH ROW EXECUTE FUNCTION batchdedup.view_write();
INSERT INTO scale VALUES (5, 5);
\echo :SQLSTATE
DROP TRIGGER x ON scale;
CREATE VIEW mine AS SELECT * FROM scale;
CREATE TRIGGER x INSTEAD OF INSERT ON mine FOR EACH ROW EXECUTE FUNCTION batchdedup.view_write();
INSERT INTO mine VALUES (5, 5);
\echo :SQLSTATE
SELECT batchdedup.create_view('scale', 'mine');
\echo :SQLSTATE
DROP VIEW mine;
\set VERBOSITY terse
SELECT batchdedup.overlaid('scale');
\set VERBOSITY default
\echo :SQLSTATE
SELECT batchdedup.overlaid('scale', 1::bigint);
\echo :SQLSTATE
SELECT batchdedup.overlaid('scale', VARIADIC ARRAY[1]);
\echo :SQLSTATE
SELECT batchdedup.overlaid('scale', NULL::int), batchdedup.overlaid(NULL, 1), batchdedup.overlaid('pg_class', 1);
SELECT * FROM batchdedup.overlay_rows('scale') b(k text, v int);
\echo :SQLSTATE
SELECT * FROM batchdedup.overlay_rows(NULL) b(k int);
\echo :SQLSTATE
SELECT b, b.k FROM batchdedup.overlay_rows('scale') b(k int, n numeric) WHERE k = 1;

--
-- Ends
--
\set VERBOSITY sqlstate
ALTER TABLE scale ALTER n TYPE float8;
ALTER TABLE scale DROP n;
DROP TABLE p;
\set VERBOSITY default
DROP TABLE p CASCADE;
SELECT to_regclass('p_buffered');
-- a column that goes takes the view along
ALTER TABLE part DROP c CASCADE;
SELECT to_regclass('part_buffered');
SELECT batchdedup.create_view('part');
SELECT * FROM part_buffered ORDER BY k LIMIT 1;

SET client_min_messages = warning;
DROP SCHEMA regress_view, regress_view_2 CASCADE;
DROP ROLE regress_bdd_owner, regress_bdd_user;
