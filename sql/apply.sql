-- What happens at the table when rows are applied.
\a
\pset footer off
\pset null '(null)'
CREATE SCHEMA regress_apply;
SET search_path = regress_apply;

--
-- Triggers see the rows, once per applied row
--
CREATE TABLE t (id int PRIMARY KEY, v text, twice text GENERATED ALWAYS AS (v || v) STORED);
CREATE TABLE log (nr serial, what text);
CREATE FUNCTION log_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_apply.log (what) VALUES (format('%s %s: %s -> %s', TG_WHEN, TG_OP, to_jsonb(OLD), to_jsonb(NEW)));
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;
CREATE FUNCTION show_log() RETURNS SETOF text LANGUAGE sql AS $$
    WITH gone AS (DELETE FROM regress_apply.log RETURNING *) SELECT what FROM gone ORDER BY nr $$;
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert('t', '[{"id":1,"v":"a"},{"id":2,"v":"b"},{"id":3,"v":"c"}]');
SELECT batchdedup.flush('t');
TABLE t;
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION log_row();
SELECT batchdedup.upsert('t', '{"id":1,"v":"a2"}');
SELECT batchdedup.upsert('t', '{"id":1,"v":"a3"}');
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.upsert('t', '{"id":4,"v":"d"}');
SELECT batchdedup.delete('t', '{"id":3}');
SELECT batchdedup.upsert('t', '{"id":3,"v":"new"}');
SELECT batchdedup.delete('t', '{"id":99}');
SELECT batchdedup.flush('t');
SELECT l FROM show_log() l ORDER BY l COLLATE "C";
DROP TRIGGER after_row ON t;

-- BEFORE triggers change rows, and drop them
CREATE FUNCTION change_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.v = 'drop' THEN
        RETURN NULL;
    END IF;
    NEW.v := NEW.v || '!';
    RETURN NEW;
END $$;
CREATE TRIGGER before_insert BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION change_row();
SELECT batchdedup.upsert('t', '[{"id":1,"v":"b"},{"id":10,"v":"new"},{"id":11,"v":"drop"}]');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
-- given in part: as with ON CONFLICT, the trigger sees the row to be inserted
SELECT batchdedup.upsert('t', '[{"id":1},{"id":12}]');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
DROP TRIGGER before_insert ON t;
CREATE TRIGGER before_update BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION change_row();
-- unchanged rows too: the trigger is to see them
SELECT batchdedup.upsert('t', '[{"id":10,"v":"same"},{"id":10,"v":"same"},{"id":13,"v":"same"}]');
SELECT batchdedup.flush('t');
SELECT batchdedup.upsert('t', '{"id":10,"v":"same!"}');
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id >= 10 ORDER BY id;
DROP TRIGGER before_update ON t;
TRUNCATE t, log;

-- statement level, with transition tables
CREATE FUNCTION log_statement() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    rows text;
BEGIN
    SELECT string_agg(n.id || n.v, ' ' ORDER BY id) INTO rows FROM n;
    IF rows IS NOT NULL THEN
        INSERT INTO regress_apply.log (what) VALUES (format('%s %s', TG_OP, rows));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER inserted AFTER INSERT ON t REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION log_statement();
CREATE TRIGGER updated AFTER UPDATE ON t REFERENCING NEW TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION log_statement();
CREATE TRIGGER deleted AFTER DELETE ON t REFERENCING OLD TABLE AS n FOR EACH STATEMENT EXECUTE FUNCTION log_statement();
SELECT batchdedup.upsert('t', '[{"id":1,"v":"a"},{"id":2,"v":"b"}]');
SELECT batchdedup.flush('t');
SELECT batchdedup.upsert('t', '[{"id":2,"v":"c"},{"id":3,"v":"d"}]');
SELECT batchdedup.delete('t', '{"id":1}');
SELECT batchdedup.flush('t');
SELECT l FROM show_log() l ORDER BY l COLLATE "C";
DROP TABLE t, log;

-- a trigger that upserts another target
CREATE TABLE t (id int PRIMARY KEY, v int);
CREATE TABLE totals (id int PRIMARY KEY, rows int, last int);
CREATE FUNCTION forward() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('regress_apply.totals', jsonb_build_object('id', NEW.id % 2, 'last', NEW.v));
    RETURN NULL;
END $$;
CREATE TRIGGER forward AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION forward();
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.create_target('totals', flush_interval => '0');
SELECT batchdedup.upsert('t', '[{"id":1,"v":1},{"id":2,"v":2},{"id":3,"v":3}]');
SELECT batchdedup.flush('t');
SELECT batchdedup.flush('totals');
SELECT * FROM totals ORDER BY id;
DROP TABLE t, totals;

--
-- Unchanged rows are neither written nor locked
--
CREATE TABLE t (id int PRIMARY KEY, n numeric, v text, j json);
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert(ARRAY[ROW(1, 1.0, 'a', '{"a":1}'), ROW(2, 2.0, 'b', NULL), ROW(3, NULL, NULL, NULL)]::t[]);
SELECT batchdedup.flush('t');
CREATE TEMP TABLE before AS SELECT id, xmin AS xid FROM t;
SELECT batchdedup.upsert(ARRAY[ROW(1, 1.0, 'a', '{"a":1}'), ROW(2, 2.0, 'changed', NULL), ROW(3, NULL, NULL, NULL)]::t[]);
SELECT batchdedup.flush('t');
SELECT t.id, v, b.xid = t.xmin AS same, b.xid <> t.xmin OR t.xmax = 0 AS unlocked FROM t JOIN before b USING (id) ORDER BY id;
-- what = takes for equal is a change all the same, if it looks different
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN code AS text;
CREATE TABLE kinds (
    id int PRIMARY KEY, n numeric, f float8, i interval, c bpchar, t text, d code, m mood,
    b bool, u uuid, z timestamptz, y bytea, r int4range, a numeric[], j jsonb);
SELECT batchdedup.create_target('kinds', flush_interval => '0');
INSERT INTO kinds SELECT nr, 1.0, 0, '1 day', 'x', 't', 'd', 'sad', true, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
    '2026-01-01 12:00+00', 'y', '[1,2]', '{1.0}', '{"k": 1.0}' FROM generate_series(1, 15) nr;
CREATE TEMP TABLE kinds_before AS SELECT id, to_jsonb(k) AS row FROM kinds k;
SELECT batchdedup.upsert('kinds', jsonb_agg(row || change))
  FROM kinds_before JOIN jsonb_array_elements('[{"n": 1.00}, {"f": "-0"}, {"i": "24:00:00"}, {"c": "x  "}, {"a": [1.00]},
    {"j": {"k": 1.00}}, {"t": "T"}, {"d": null}, {"m": "happy"}, {"b": false}, {"r": "[1,4)"}, {"y": "\\x7a"},
    {"u": "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a12"}, {"z": "2026-01-01 13:00+00"}, {}]')
    WITH ORDINALITY AS changes(change, nr) ON id = nr;
SELECT batchdedup.flush('kinds');
SELECT o.key, o.value AS was, n.value AS is_now
  FROM kinds_before b JOIN kinds k USING (id), jsonb_each_text(b.row) o JOIN jsonb_each_text(to_jsonb(k)) n USING (key)
 WHERE o.value IS DISTINCT FROM n.value ORDER BY k.id;
SELECT updated, unchanged FROM batchdedup.stat_target WHERE target = 'kinds'::regclass;
DROP TABLE kinds, kinds_before;
DROP TYPE mood;
DROP DOMAIN code;
-- also when given in part
SELECT batchdedup.upsert('t', '[{"id":1,"v":"a"},{"id":3}]');
SELECT batchdedup.flush('t');
SELECT t.id, v, b.xid = t.xmin AS same, b.xid <> t.xmin OR t.xmax = 0 AS unlocked FROM t JOIN before b USING (id) ORDER BY id;
-- equal is not the same
SELECT batchdedup.upsert('t', '{"id":1,"n":1.00}');
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (2, '{"a": 1}'::json)) AS s(id, j);
SELECT batchdedup.flush('t');
SELECT t.id, n, v, j, b.xid = t.xmin AS same FROM t JOIN before b USING (id) ORDER BY id;
DROP TABLE t, before;

--
-- Rows are looked up by key, also in tables that were small, or seemed empty,
-- when the statements were planned
--
CREATE TABLE small (id int PRIMARY KEY, v int) WITH (autovacuum_enabled = off);
CREATE TABLE seems_empty (LIKE small INCLUDING ALL) WITH (autovacuum_enabled = off);
SELECT batchdedup.create_target(t, flush_interval => '0', flush_rows => 0) FROM unnest('{small,seems_empty}'::regclass[]) t;
INSERT INTO small VALUES (0, 0);
BEGIN;
INSERT INTO seems_empty SELECT i, i FROM generate_series(1, 5000) i;
ROLLBACK;
VACUUM (ANALYZE, TRUNCATE off) small, seems_empty;
SELECT relname, relpages > 0 AS pages, reltuples FROM pg_class WHERE oid IN ('small'::regclass, 'seems_empty'::regclass) ORDER BY relname;
DO $$
BEGIN
    FOR n IN 1..10 LOOP
        PERFORM batchdedup.upsert('regress_apply.small', jsonb_build_object('id', n * 300 + i, 'v', i)),
                batchdedup.upsert(ROW(n * 300 + i, i)::regress_apply.seems_empty),
                batchdedup.delete('regress_apply.small', jsonb_build_object('id', n * 300 - i))
           FROM generate_series(1, 300) i;
        COMMIT;
        PERFORM batchdedup.flush();
        COMMIT;
    END LOOP;
END $$;
SELECT pg_stat_force_next_flush();
SELECT relname, seq_tup_read < 1000 AS no_scan, idx_tup_fetch < 20000 AS by_key FROM pg_stat_user_tables
 WHERE schemaname = 'regress_apply' AND relname IN ('small', 'seems_empty') ORDER BY relname;
DROP TABLE small, seems_empty;

--
-- The rights of the owner, and nothing else
--
CREATE ROLE regress_bdd_owner;
CREATE ROLE regress_bdd_writer;
GRANT USAGE, CREATE ON SCHEMA regress_apply TO regress_bdd_owner, regress_bdd_writer;
SET ROLE regress_bdd_owner;
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE seen (current name, path text, db name);
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_apply.seen VALUES (current_user, current_setting('search_path'), current_database());
    RETURN NEW;
END $$;
CREATE TRIGGER look BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION look();
SELECT batchdedup.create_target('t', flush_interval => '0');
GRANT INSERT, UPDATE ON t TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":1,"v":"x"}');
SELECT batchdedup.flush('t');
RESET ROLE;
SELECT current, path, db = current_database() AS db FROM seen;
-- what a trigger of the owner tries to do with the worker's rights
CREATE OR REPLACE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE NEW.v;
    RETURN NEW;
EXCEPTION WHEN OTHERS THEN
    NEW.v := format('%s %s', SQLSTATE, SQLERRM);
    RETURN NEW;
END $$;
SELECT batchdedup.upsert('t', '[{"id":2,"v":"RESET ROLE"},{"id":3,"v":"SET SESSION AUTHORIZATION DEFAULT"},
    {"id":4,"v":"CREATE TEMP TABLE x ()"},{"id":5,"v":"CREATE ROLE regress_bdd_none"},{"id":6,"v":"SET ROLE regress_bdd_writer"},
    {"id":7,"v":"SET CONSTRAINTS ALL DEFERRED"}]');
SELECT batchdedup.flush('t');
-- where rows are written directly it has the caller's rights
RESET SESSION AUTHORIZATION;
SELECT * FROM t WHERE id > 1 ORDER BY id;
DROP TABLE t, seen;
DROP ROLE IF EXISTS regress_bdd_none;

--
-- Foreign keys, checks, constraints that are deferred
--
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent VALUES (1), (2);
CREATE TABLE t (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE, v int CHECK (v > 0), u int UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE grandchild (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE ON UPDATE CASCADE);
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert('t', '[{"id":1,"p":1,"v":1,"u":1},{"id":2,"p":2,"v":2,"u":2}]');
SELECT batchdedup.flush('t');
INSERT INTO grandchild VALUES (1, 1), (2, 2);
-- unique values that move from row to row: fine at the end of the statement
SELECT batchdedup.upsert('t', '[{"id":1,"p":1,"v":1,"u":2},{"id":2,"p":2,"v":2,"u":1}]');
SELECT batchdedup.flush('t');
SELECT batchdedup.delete('t', '{"id":1}');
SELECT batchdedup.flush('t');
TABLE t;
TABLE grandchild;
DROP TABLE t, grandchild;

SET client_min_messages = warning;
DROP SCHEMA regress_apply CASCADE;
DROP ROLE regress_bdd_owner;
DROP ROLE regress_bdd_writer;
