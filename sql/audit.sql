--
-- coalesce_rows => false: every row is kept and applied in order
--
\a
\pset footer off
\pset null (null)
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA regress_audit;
SET search_path = regress_audit;

-- with a key: triggers see every row
CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v <> 13), w text);
CREATE TABLE log (n int GENERATED ALWAYS AS IDENTITY, op text, id int, v int, w text);
CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN INSERT INTO regress_audit.log (op, id) VALUES (TG_OP, OLD.id);
    ELSE INSERT INTO regress_audit.log (op, id, v, w) VALUES (TG_OP, NEW.id, NEW.v, NEW.w); END IF;
    RETURN NULL;
END$$;
CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION audit();
SELECT batchdedup.create_target('t', coalesce_rows => false, flush_interval => '0', flush_rows => 0, merge => '{"v": "sum"}');
SELECT coalesce_rows FROM batchdedup.target WHERE target = 't'::regclass;
SELECT batchdedup.upsert('t', '[{"id": 1, "v": 1}, {"id": 2, "v": 1}, {"id": 1, "v": 2, "w": "two"}]');
BEGIN;
SELECT batchdedup.upsert('t', '[{"id": 1, "v": 3}, {"id": 3, "v": 13}, {"id": 3, "v": 14}]');
SAVEPOINT s;
SELECT batchdedup.upsert('t', '[{"id": 1, "v": 1000}]');
ROLLBACK TO s;
SELECT batchdedup.delete('t', '{"id": 2}');
SELECT batchdedup.upsert('t', '[{"id": 2, "v": 5}]');
SELECT batchdedup.get('t', '{"id": 1}') AS one, batchdedup.get('t', '{"id": 2}') AS two;
COMMIT;
SELECT received, coalesced, buffered_rows FROM batchdedup.stat_target WHERE target = 't'::regclass;
SELECT id, v, w FROM batchdedup.buffered(NULL::t) ORDER BY id, v;
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
SELECT op, id, v, w FROM log ORDER BY id, n;
SELECT "row", sqlstate FROM batchdedup.dead_letter WHERE target = 't'::regclass;

-- without a key: append only, no unique index needed
CREATE TABLE bad (id int);
SELECT batchdedup.create_target('bad', key => '');
SELECT batchdedup.create_target('bad', key => '', coalesce_rows => false, version_column => 'id');
CREATE TABLE events (n bigint GENERATED ALWAYS AS IDENTITY, kind text NOT NULL, doc jsonb, at timestamptz DEFAULT now(), CHECK (kind <> 'bad'));
SELECT batchdedup.create_target('events', key => '', coalesce_rows => false, flush_interval => '0', flush_rows => 0);
SELECT key, update_columns, coalesce_rows FROM batchdedup.target WHERE target = 'events'::regclass;
SELECT count(batchdedup.upsert(ROW(NULL, 'a', jsonb_build_object('i', i), now())::events)) FROM generate_series(1, 3) i;
\set VERBOSITY terse
SELECT batchdedup.upsert('events', '[{"kind": "b"}, {"kind": "b"}, {"kind": "bad"}, {"kind": "bad"}]');
\set VERBOSITY default
BEGIN;
SELECT batchdedup.upsert('events', '{"kind": "c"}');
SAVEPOINT s;
SELECT batchdedup.upsert('events', '{"kind": "rolled back"}');
ROLLBACK TO s;
SELECT batchdedup.upsert('events', '{"kind": "c", "doc": 1}');
COMMIT;
SELECT buffered_rows, coalesced FROM batchdedup.stat_target WHERE target = 'events'::regclass;
SELECT batchdedup.delete('events', '{"kind": "c"}');
SELECT batchdedup.get('events', '{}');
SELECT batchdedup.upsert('events', '{"kind": null}');
SELECT count(*) FROM batchdedup.buffered(NULL::events);
SELECT batchdedup.flush('events');
SELECT kind, doc, at IS NOT NULL AS at FROM events ORDER BY n;
SELECT key, "row" ->> 'kind' AS kind, sqlstate, superseded FROM batchdedup.dead_letter WHERE target = 'events'::regclass;
ALTER TABLE events DROP CONSTRAINT events_kind_check;
SELECT batchdedup.retry_dead_letters('events');
SELECT count(*) FROM events;
-- in their order, whatever columns they give
SELECT batchdedup.upsert('events', '[{"kind": "1st"}, {"kind": "2nd", "doc": 1}, {"kind": "3rd"}]');
SELECT batchdedup.flush('events');
SELECT kind FROM events WHERE kind ~ '^[123]' ORDER BY n;
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('events', '[{"kind": "d"}, {"kind": "d"}]');
RESET batchdedup.enabled;
SELECT count(*) FROM events;
-- and back
SELECT batchdedup.alter_target('events', coalesce_rows => true);
SELECT batchdedup.alter_target('events', key => 'n', coalesce_rows => true);
ALTER TABLE events ADD PRIMARY KEY (n);
SELECT batchdedup.alter_target('events', reset => 'key, coalesce_rows');
SELECT key, coalesce_rows FROM batchdedup.target WHERE target = 'events'::regclass;
-- TRUNCATE and DROP
SELECT batchdedup.alter_target('events', key => '', coalesce_rows => false);
SELECT batchdedup.upsert('events', '{"kind": "e"}');
TRUNCATE events;
SELECT batchdedup.flush('events');
SELECT batchdedup.upsert('events', '{"kind": "f"}');
SELECT batchdedup.drop_target('events');
SELECT kind FROM events;

DROP SCHEMA regress_audit CASCADE;
