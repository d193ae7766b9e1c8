--
-- version_column: an older row never replaces a newer one
--
\a
\pset footer off
\pset null (null)
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA regress_versions;
SET search_path = regress_versions;

CREATE TABLE bad (id int PRIMARY KEY, v int, n int, j json);
SELECT batchdedup.create_target('bad', version_column => 'nothing');
SELECT batchdedup.create_target('bad', version_column => 'id');
SELECT batchdedup.create_target('bad', version_column => 'v, n');
SELECT batchdedup.create_target('bad', version_column => '');
SELECT batchdedup.create_target('bad', version_column => 'j');
SELECT batchdedup.create_target('bad', version_column => 'v', update_columns => 'n');
SELECT batchdedup.create_target('bad', version_column => 'v', merge => '{"v": "max"}');
SELECT batchdedup.create_target('bad', version_column => 'v', merge => '{"n": "sum"}');
SELECT version_column, merge FROM batchdedup.target WHERE target = 'bad'::regclass;
SELECT batchdedup.alter_target('bad', merge => '{"v": "sum"}');
SELECT batchdedup.alter_target('bad', reset => 'version_column');
SELECT version_column, merge FROM batchdedup.target WHERE target = 'bad'::regclass;
DROP TABLE bad;

-- Types whose values are compared in memory, and others; three tables each:
-- flushed at the end, after each step, and written directly.
CREATE TABLE fixed (id int PRIMARY KEY, v timestamptz, n int, w text, created int);
CREATE TABLE other (id int PRIMARY KEY, v numeric, n int, w text, created int);
CREATE TABLE fixed_step (LIKE fixed INCLUDING ALL);
CREATE TABLE fixed_direct (LIKE fixed INCLUDING ALL);
CREATE TABLE other_step (LIKE other INCLUDING ALL);
CREATE TABLE other_direct (LIKE other INCLUDING ALL);
SELECT batchdedup.create_target(t, flush_interval => '0', guard => 'off', version_column => 'v',
    mode => CASE WHEN t::text LIKE '%direct' THEN 'direct' ELSE 'buffered' END,
    merge => '{"n": "sum", "created": "first"}')
  FROM unnest('{fixed,fixed_step,fixed_direct,other,other_step,other_direct}'::regclass[]) t;
CREATE FUNCTION timed(doc jsonb) RETURNS jsonb LANGUAGE sql AS $$
    SELECT jsonb_agg(CASE WHEN r ? 'v' AND r ->> 'v' IS NOT NULL
                          THEN jsonb_set(r, '{v}', to_jsonb('2024-01-01 UTC'::timestamptz + (r ->> 'v')::numeric * interval '1 hour')) ELSE r END ORDER BY i)
      FROM jsonb_array_elements(doc) WITH ORDINALITY AS d (r, i)
$$;
CREATE PROCEDURE send(doc jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('other', doc), batchdedup.upsert('other_step', doc), batchdedup.upsert('other_direct', doc),
            batchdedup.upsert('fixed', timed(doc)), batchdedup.upsert('fixed_step', timed(doc)), batchdedup.upsert('fixed_direct', timed(doc));
    COMMIT;
    PERFORM batchdedup.flush('other_step', 'fixed_step');
END$$;
CREATE PROCEDURE remove(doc jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.delete('other', doc), batchdedup.delete('other_step', doc), batchdedup.delete('other_direct', doc),
            batchdedup.delete('fixed', timed(doc)), batchdedup.delete('fixed_step', timed(doc)), batchdedup.delete('fixed_direct', timed(doc));
    COMMIT;
    PERFORM batchdedup.flush('other_step', 'fixed_step');
END$$;
INSERT INTO other VALUES (1, 5, 0, 'table', 0), (2, 5, 0, 'table', 0), (3, NULL, 0, 'table', 0), (10, 5, 0, 'table', 0), (11, 5, 0, 'table', 0);
INSERT INTO other_step TABLE other;
INSERT INTO other_direct TABLE other;
INSERT INTO fixed SELECT id, '2024-01-01 UTC'::timestamptz + v * interval '1 hour', n, w, created FROM other;
INSERT INTO fixed_step TABLE fixed;
INSERT INTO fixed_direct TABLE fixed;

-- 1: older, newer, older than the newer, equal; 2: all older than the table;
-- 3: NULL is the oldest; 4: not there; 5: not there, in falling order
CALL send('[{"id": 1, "v": 4, "n": 1, "w": "stale"}, {"id": 2, "v": 3, "n": 1, "w": "stale"}, {"id": 3, "v": null, "n": 1, "w": "null"},
            {"id": 4, "v": 1, "n": 1, "w": "one", "created": 1}, {"id": 5, "v": 9, "n": 1, "w": "nine", "created": 9}]');
CALL send('[{"id": 1, "v": 6, "n": 10, "w": "six"}, {"id": 2, "v": 4, "n": 10, "w": "stale"}, {"id": 3, "v": 1, "n": 10, "w": "one"},
            {"id": 4, "v": 2, "n": 10, "w": "two", "created": 2}, {"id": 5, "v": 8, "n": 10, "w": "stale", "created": 8}]');
CALL send('[{"id": 1, "v": 5, "n": 100, "w": "stale"}, {"id": 2, "v": 2, "n": 100, "w": "stale"}, {"id": 3, "v": null, "n": 100, "w": "stale"},
            {"id": 4, "v": 2.0, "n": 100, "w": "equal"}, {"id": 5, "v": 9, "n": 100, "w": "equal"}]');
CALL send('[{"id": 1, "v": 6, "n": 1000, "w": "equal"}, {"id": 3, "v": 1, "n": 1000}, {"id": 1, "v": 6.5, "n": 10000}]');
-- deletes: without a version, with a newer, an equal and an older one; and what comes after
CALL send('[{"id": 6, "v": 5, "n": 1}, {"id": 7, "v": 5, "n": 1}, {"id": 8, "v": 5, "n": 1}, {"id": 9, "v": 5, "n": 1}]');
CALL remove('[{"id": 6}, {"id": 7, "v": 6}, {"id": 8, "v": 5}, {"id": 9, "v": 4}, {"id": 10, "v": 6}, {"id": 11, "v": 4}]');
CALL send('[{"id": 6, "v": 1, "n": 2, "w": "again"}, {"id": 7, "v": 1, "n": 2, "w": "again"}, {"id": 9, "v": 5, "n": 2, "w": "equal"},
            {"id": 10, "v": 1, "n": 2, "w": "again"}, {"id": 11, "v": 4.5, "n": 2, "w": "stale"}]');
CALL remove('[{"id": 6, "v": 0}, {"id": 7, "v": 2}, {"id": 12, "v": 3}]');
CALL send('[{"id": 7, "v": 1, "n": 3, "w": "third"}, {"id": 12, "v": 1, "n": 1, "w": "new"}]');
SELECT i, batchdedup.get('other', jsonb_build_object('id', i)) - 'id' AS other FROM generate_series(1, 12) i;
SELECT batchdedup.flush('other', 'fixed') > 0 AS flushed;
SELECT * FROM other ORDER BY id;
SELECT count(*) FROM other a FULL JOIN other_step b ON (a.*) = (b.*) WHERE a.id IS NULL AND b.id IS NOT NULL OR b.id IS NULL;
SELECT a.* FROM other a FULL JOIN other_step b USING (id) WHERE (a.v, a.n, a.w, a.created) IS DISTINCT FROM (b.v, b.n, b.w, b.created);
SELECT a.* FROM other a FULL JOIN other_direct b USING (id) WHERE (a.v, a.n, a.w, a.created) IS DISTINCT FROM (b.v, b.n, b.w, b.created);
SELECT a.* FROM other a FULL JOIN fixed b USING (id) WHERE (a.v, a.n, a.w, a.created) IS DISTINCT FROM (extract(epoch FROM b.v - '2024-01-01 UTC') / 3600, b.n, b.w, b.created);
SELECT a.* FROM fixed a FULL JOIN fixed_step b USING (id) WHERE (a.v, a.n, a.w, a.created) IS DISTINCT FROM (b.v, b.n, b.w, b.created);
SELECT a.* FROM fixed a FULL JOIN fixed_direct b USING (id) WHERE (a.v, a.n, a.w, a.created) IS DISTINCT FROM (b.v, b.n, b.w, b.created);
SELECT target, received, stale > 0 AS stale FROM batchdedup.stat_target WHERE target IN ('other'::regclass, 'other_step'::regclass, 'fixed'::regclass, 'fixed_step'::regclass) ORDER BY 1;

--
-- At the call
--
SELECT batchdedup.upsert('other', '{"id": 1, "n": 1}');
SELECT batchdedup.upsert('other', '{"id": 1, "v": null, "n": 1}');
SELECT batchdedup.upsert_record('other', s) FROM (SELECT 1 AS id, 1 AS n) s;
SELECT batchdedup.delete('other', '{"id": 1, "v": 1, "n": 1}');
SELECT batchdedup.get('other', '{"id": 1, "v": 1}');
SELECT batchdedup.delete(ROW(1, 1, NULL, NULL, NULL)::other);
SELECT batchdedup.flush('other');
SELECT id FROM other WHERE id = 1;
SELECT batchdedup.delete(ROW(1, NULL, NULL, NULL, NULL)::other);
SELECT batchdedup.flush('other');
SELECT id FROM other WHERE id = 1;

--
-- Within one transaction
--
CREATE TABLE plain (id int PRIMARY KEY, v bigint, w text);
SELECT batchdedup.create_target('plain', flush_interval => '0', version_column => 'v');
INSERT INTO plain VALUES (1, 5, 'table'), (2, 5, 'table');
BEGIN;
SELECT batchdedup.upsert(ROW(1, 7, 'seven')::plain), batchdedup.upsert(ROW(1, 6, 'stale')::plain), batchdedup.upsert(ROW(2, 3, 'stale')::plain);
SAVEPOINT s;
SELECT batchdedup.upsert(ROW(1, 9, 'rolled back')::plain), batchdedup.delete('plain', '{"id": 2}');
ROLLBACK TO s;
SELECT batchdedup.upsert(ROW(1, 8, 'eight')::plain), batchdedup.upsert(ROW(2, 4, 'stale')::plain);
SELECT batchdedup.get('plain', '{"id": 1}') ->> 'w' AS one, batchdedup.get('plain', '{"id": 2}') ->> 'w' AS two;
COMMIT;
SELECT received, coalesced, stale, buffered_rows FROM batchdedup.stat_target WHERE target = 'plain'::regclass;
SELECT batchdedup.flush('plain');
SELECT * FROM plain ORDER BY id;
SELECT updated, unchanged, stale FROM batchdedup.stat_target WHERE target = 'plain'::regclass;
-- a thousand rising versions of one key are one row in the buffer
SELECT count(batchdedup.upsert(ROW(1, 100 + i, 'v' || i)::plain)) FROM generate_series(1, 1000) i;
SELECT buffered_rows FROM batchdedup.stat_target WHERE target = 'plain'::regclass;
SELECT batchdedup.flush('plain');
SELECT * FROM plain ORDER BY id;

--
-- Dead letters
--
CREATE TABLE checked (id int PRIMARY KEY, v int, n int CHECK (n > 0));
SELECT batchdedup.create_target('checked', flush_interval => '0', version_column => 'v');
SELECT batchdedup.upsert('checked', '[{"id": 1, "v": 5, "n": -1}, {"id": 2, "v": 5, "n": -1}, {"id": 3, "v": 5, "n": -1}]');
SELECT batchdedup.flush('checked');
SELECT batchdedup.upsert('checked', '[{"id": 1, "v": 6, "n": 1}, {"id": 2, "v": 4, "n": 1}]');
SELECT batchdedup.flush('checked');
ALTER TABLE checked DROP CONSTRAINT checked_n_check;
-- 1 is older than the table by now, 2 and 3 are not
SELECT batchdedup.retry_dead_letters('checked');
SELECT * FROM checked ORDER BY id;
SELECT stale FROM batchdedup.stat_target WHERE target = 'checked'::regclass;

-- an UPDATE trigger sees no stale row
CREATE TABLE watched (id int PRIMARY KEY, v int, w text);
CREATE TABLE seen (w text);
CREATE FUNCTION watch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO regress_versions.seen VALUES (NEW.w); RETURN NEW; END';
CREATE TRIGGER watch AFTER UPDATE ON watched FOR EACH ROW EXECUTE FUNCTION watch();
SELECT batchdedup.create_target('watched', flush_interval => '0', version_column => 'v');
INSERT INTO watched VALUES (1, 5, 'table');
SELECT batchdedup.upsert('watched', '{"id": 1, "v": 4, "w": "stale"}');
SELECT batchdedup.flush('watched');
SELECT batchdedup.upsert('watched', '{"id": 1, "v": 5, "w": "equal"}');
SELECT batchdedup.flush('watched');
TABLE seen;
TABLE watched;

DROP SCHEMA regress_versions CASCADE;
