-- Syncs: rows, triggers, types and settings that get in the way.
\set SHOW_CONTEXT never
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE SCHEMA syncs_failures;
SET search_path = syncs_failures, public;
CREATE ROLE regress_sync_mallory;
GRANT USAGE, CREATE ON SCHEMA syncs_failures TO regress_sync_mallory;

-- ---------------------------------------------------------------------
-- NULL in the position
-- ---------------------------------------------------------------------

CREATE TABLE nulls (id text, n integer, at timestamptz DEFAULT '2026-01-01');
CREATE TABLE nulls_copy (id text PRIMARY KEY, n integer);
SELECT batchdedup.create_sync('nulls', 'nulls', 'nulls_copy', cursor => 'at, n', cursor_kind => 'clock');
INSERT INTO nulls (id, n) VALUES ('a', 1), ('b', NULL), (NULL, 2), ('c', 3), (NULL, NULL);
INSERT INTO nulls VALUES ('d', 4, NULL), ('e', 5, '2026-01-02'), (NULL, 6, '2026-01-02');
CALL batchdedup.run_sync('nulls', slice_rows => 1);
TABLE nulls_copy ORDER BY id;
SELECT row, sqlstate FROM batchdedup.sync_dead_letter ORDER BY row ->> 'n';
SELECT batchdedup.drop_sync('nulls');
SELECT batchdedup.create_sync('nulls', 'nulls', 'nulls_copy', delete_missing => 'hard');
DELETE FROM nulls WHERE id = 'a';
CALL batchdedup.run_sync('nulls', slice_rows => 2);
SELECT id FROM nulls_copy ORDER BY id;
SELECT count(*) FROM batchdedup.sync_dead_letter;
SELECT batchdedup.drop_sync('nulls');

-- ---------------------------------------------------------------------
-- Rows that are refused
-- ---------------------------------------------------------------------

-- One that is accepted late does not undo a newer one of its key.
CREATE TABLE history (n serial PRIMARY KEY, k integer, u text);
CREATE TABLE newest (k integer PRIMARY KEY, u text UNIQUE NOT NULL);
INSERT INTO newest VALUES (2, 'x');
INSERT INTO history (k, u) VALUES (1, 'x'), (9, NULL), (2, 'y'), (1, 'z');
SELECT batchdedup.create_sync('newest', 'history', 'newest', cursor => 'n', cursor_kind => 'sequence');
CALL batchdedup.run_sync('newest');
TABLE newest ORDER BY k;
SELECT batchdedup.drop_sync('newest');

-- The key of a letter is known even if other columns cannot be mapped.
CREATE TABLE numbers (n serial PRIMARY KEY, k integer, v text);
CREATE TABLE numbers_copy (k integer PRIMARY KEY, v integer);
CREATE FUNCTION number(text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN $1::integer; END $$;
SELECT batchdedup.create_sync('numbers', 'numbers', 'numbers_copy', cursor => 'n', cursor_kind => 'sequence',
    mapping => '{"v": "syncs_failures.number(src.v)"}');
INSERT INTO numbers (k, v) VALUES (1, 'old'), (2, '2');
CALL batchdedup.run_sync('numbers');
SELECT key, sqlstate FROM batchdedup.sync_dead_letter;
INSERT INTO numbers (k, v) VALUES (1, '100');
CALL batchdedup.run_sync('numbers');
CREATE OR REPLACE FUNCTION number(text) RETURNS integer LANGUAGE plpgsql AS $$ BEGIN RETURN -1; END $$;
SELECT batchdedup.retry_sync_dead_letters('numbers');
TABLE numbers_copy ORDER BY k;
SELECT batchdedup.drop_sync('numbers');

-- One that is no document; one whose position is long.
CREATE TABLE documents (id integer PRIMARY KEY, j json, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE documents_copy (id integer PRIMARY KEY, j jsonb);
SELECT batchdedup.create_sync('documents', 'documents', 'documents_copy', cursor => 'at');
INSERT INTO documents VALUES (1, '{"a": 1}', '2026-01-01'), (2, '{"a": "\u0000"}', '2026-01-01');
CALL batchdedup.run_sync('documents');
SELECT id FROM documents_copy;
SELECT key, row, sqlstate FROM batchdedup.sync_dead_letter;
SELECT batchdedup.drop_sync('documents');
CREATE TABLE long_copy (k text PRIMARY KEY CHECK (length(k) < 10));
CREATE VIEW long_view AS SELECT (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 120) i) AS k;
SELECT batchdedup.create_sync('long', 'long_view', 'long_copy');
CALL batchdedup.run_sync('long');
CALL batchdedup.run_sync('long');
SELECT length(position) > 3000 AS long, sqlstate, attempts FROM batchdedup.sync_dead_letter;
SELECT batchdedup.drop_sync('long');

-- The error shows the row of the target: to who may read it.
CREATE TABLE open (id integer PRIMARY KEY, v integer, at timestamptz NOT NULL DEFAULT now());
CREATE VIEW open_view AS SELECT id, 1 / v AS v, at FROM open;
CREATE TABLE hidden (id integer PRIMARY KEY, v integer CHECK (v < 10), secret text);
INSERT INTO hidden VALUES (1, 1, 'secret');
INSERT INTO open VALUES (1, 50), (2, 2);
SELECT batchdedup.create_sync('hidden', 'open', 'hidden', cursor => 'at');
SELECT batchdedup.create_sync('error', 'open_view', 'hidden', cursor => 'at', cursor_kind => 'clock');
CALL batchdedup.run_sync('hidden');
UPDATE open SET v = 0 WHERE id = 2;
CALL batchdedup.run_sync('error');
SELECT count(*) FROM batchdedup.sync_dead_letter;
GRANT SELECT ON open TO regress_sync_mallory;
SET ROLE regress_sync_mallory;
SELECT count(*) FROM batchdedup.sync_dead_letter;
RESET ROLE;
-- An error of the source: the same.
REVOKE SELECT ON open FROM regress_sync_mallory;
GRANT SELECT ON hidden TO regress_sync_mallory;
SET ROLE regress_sync_mallory;
SELECT name, watermark, bound, last_error FROM batchdedup.sync_status ORDER BY name;
SELECT sync, rows_read, from_watermark, watermark, error FROM batchdedup.sync_run WHERE target = 'hidden'::regclass;
RESET ROLE;
SELECT name, last_error FROM batchdedup.sync_status ORDER BY name;
SELECT batchdedup.drop_sync('hidden'), batchdedup.drop_sync('error');

-- ---------------------------------------------------------------------
-- Captured keys
-- ---------------------------------------------------------------------

-- A unique value that goes with its row to another key.
CREATE TABLE person (id integer PRIMARY KEY, mail text UNIQUE);
CREATE TABLE person_copy (LIKE person INCLUDING ALL);
SELECT batchdedup.create_sync('person', 'person', 'person_copy', capture => 'trigger');
INSERT INTO person VALUES (1, 'a'), (2, 'b'), (3, 'c');
CALL batchdedup.run_sync('person');
UPDATE person SET id = 30 WHERE id = 1;
DELETE FROM person WHERE id = 3;
UPDATE person SET mail = mail WHERE id = 2;
CALL batchdedup.run_sync('person');
TABLE person_copy ORDER BY id;
SELECT rows_read, inserted, updated, deleted, unchanged, refused FROM batchdedup.sync_run WHERE sync = 'person' ORDER BY id DESC LIMIT 1;
SELECT batchdedup.drop_sync('person');

-- What a trigger of the target writes to the source is the next run's, also directly.
CREATE TABLE ping (id integer PRIMARY KEY, note text);
CREATE TABLE pong (id integer PRIMARY KEY, note text);
CREATE FUNCTION answer() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE syncs_failures.ping SET note = 'answered' WHERE id = NEW.id AND note IS NULL;
    RETURN NULL;
END $$;
CREATE TRIGGER answer AFTER INSERT ON pong FOR EACH ROW EXECUTE FUNCTION answer();
SELECT batchdedup.create_sync('ping', 'ping', 'pong', capture => 'trigger');
CALL batchdedup.run_sync('ping');
SET batchdedup.enabled = off;
INSERT INTO ping VALUES (1);
CALL batchdedup.run_sync('ping');
CALL batchdedup.run_sync('ping');
RESET batchdedup.enabled;
INSERT INTO ping VALUES (2);
CALL batchdedup.run_sync('ping');
CALL batchdedup.run_sync('ping');
TABLE pong ORDER BY id;
SELECT batchdedup.drop_sync('ping');

-- Tables that inherit have no trigger.
CREATE TABLE heir () INHERITS (ping);
SELECT batchdedup.create_sync('heir', 'ping', 'pong', capture => 'trigger');
DROP TABLE heir;

-- The checks of a domain within the key are its owner's code.
SET ROLE regress_sync_mallory;
CREATE TABLE seen (who text);
GRANT INSERT ON seen TO PUBLIC;
CREATE FUNCTION look(integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO syncs_failures.seen VALUES (current_user);
    RETURN true;
END $$;
CREATE DOMAIN looking AS integer CHECK (syncs_failures.look(VALUE));
CREATE TABLE looked (id looking[] PRIMARY KEY);
CREATE TABLE looked_copy (id looking[] PRIMARY KEY);
SELECT batchdedup.create_sync('looked', 'looked', 'looked_copy', capture => 'trigger');
RESET ROLE;
CALL batchdedup.run_sync('looked');
SET ROLE regress_sync_mallory;
INSERT INTO looked SELECT ARRAY[i]::looking[] FROM generate_series(1, 5) i;
RESET ROLE;
CALL batchdedup.run_sync('looked', slice_rows => 2);
SELECT count(*) FROM looked_copy;
SELECT DISTINCT who FROM seen;
SELECT batchdedup.drop_sync('looked');

-- ---------------------------------------------------------------------
-- Targets
-- ---------------------------------------------------------------------

-- A trigger that keeps what is to be removed.
CREATE TABLE gone (id integer PRIMARY KEY);
CREATE TABLE kept (id integer PRIMARY KEY);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER keep BEFORE DELETE ON kept FOR EACH ROW EXECUTE FUNCTION keep();
INSERT INTO gone VALUES (1);
INSERT INTO kept SELECT generate_series(1, 5);
SELECT batchdedup.create_sync('kept', 'gone', 'kept', delete_missing => 'hard');
CALL batchdedup.run_sync('kept', slice_rows => 2);
SELECT count(*) FROM kept;
SELECT key, sqlstate, message FROM batchdedup.sync_dead_letter ORDER BY key;
SELECT count(*) FROM batchdedup.change_log WHERE sync = 'kept';
SELECT batchdedup.drop_sync('kept');

-- The same of what is to be inserted or updated; rules.
CREATE TABLE news (id integer PRIMARY KEY, v integer);
CREATE TABLE ignored (id integer PRIMARY KEY, v integer);
INSERT INTO news VALUES (1, 1), (2, 2);
CREATE TRIGGER keep BEFORE INSERT OR UPDATE ON ignored FOR EACH ROW WHEN (NEW.v > 1) EXECUTE FUNCTION keep();
SELECT batchdedup.create_sync('ignored', 'news', 'ignored');
CALL batchdedup.run_sync('ignored');
UPDATE news SET v = 3 WHERE id = 1;
CALL batchdedup.run_sync('ignored');
TABLE ignored;
SELECT key, sqlstate, message FROM batchdedup.sync_dead_letter ORDER BY key;
SELECT count(*) FROM batchdedup.change_log WHERE sync = 'ignored';
CREATE RULE nothing AS ON INSERT TO ignored DO INSTEAD NOTHING;
CALL batchdedup.run_sync('ignored');
SELECT batchdedup.drop_sync('ignored');

-- One that takes the mark away.
CREATE TABLE marked (id integer PRIMARY KEY, deleted_at timestamptz);
CREATE FUNCTION unmark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.deleted_at := NULL; RETURN NEW; END $$;
CREATE TRIGGER unmark BEFORE UPDATE ON marked FOR EACH ROW EXECUTE FUNCTION unmark();
INSERT INTO marked SELECT generate_series(1, 5);
SELECT batchdedup.create_sync('marked', 'gone', 'marked', delete_missing => 'soft');
CALL batchdedup.run_sync('marked', slice_rows => 2);
SELECT batchdedup.drop_sync('marked');

-- Nothing but a key that only the server numbers.
CREATE TABLE numbered (id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
SELECT batchdedup.create_sync('numbered', 'gone', 'numbered');
CALL batchdedup.run_sync('numbered');
CALL batchdedup.run_sync('numbered');
TABLE numbered;

-- ---------------------------------------------------------------------
-- Runs, and looking at them
-- ---------------------------------------------------------------------

INSERT INTO gone VALUES (2);
CALL batchdedup.run_sync('numbered', max_seconds => 1e9);
SELECT count(*) FROM numbered;
SELECT batchdedup.drop_sync('numbered');

-- A dry run writes nothing, nor do the functions of the mapping.
CREATE TABLE trace (id integer);
CREATE FUNCTION trace(integer) RETURNS integer LANGUAGE sql AS $$ INSERT INTO syncs_failures.trace VALUES ($1) RETURNING id $$;
CREATE TABLE traced (id integer PRIMARY KEY);
SELECT batchdedup.create_sync('traced', 'gone', 'traced', cursor => 'id', lag => '0.000001', mapping => '{"id": "syncs_failures.trace(src.id)"}');
CALL batchdedup.run_sync('traced');
SET client_min_messages = notice;
CALL batchdedup.run_sync('traced', dry_run => true);
SET client_min_messages = warning;
SELECT count(*) FROM trace;
CALL batchdedup.run_sync('traced');
SELECT count(*) FROM trace;
SELECT batchdedup.drop_sync('traced');

-- No sync keeps anybody from looking at the others.
CREATE MATERIALIZED VIEW empty AS SELECT 1 AS id, now() AS at;
SELECT batchdedup.create_sync('empty', 'empty', 'traced', cursor => 'at', lag => '1 day');
REFRESH MATERIALIZED VIEW empty WITH NO DATA;
SELECT batchdedup.create_sync('infinite', 'open', 'traced', cursor => 'at');
SELECT batchdedup.reset_watermark('infinite', '-infinity');
SELECT name, lag_rows, lag FROM batchdedup.sync_status ORDER BY name;
SELECT batchdedup.drop_sync('empty'), batchdedup.drop_sync('infinite');

-- Rows that the caller does not see are not counted for him.
CREATE TABLE limited (id integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
ALTER TABLE limited ENABLE ROW LEVEL SECURITY;
GRANT SELECT ON limited, traced TO regress_sync_mallory;
SELECT batchdedup.create_sync('limited', 'limited', 'traced', cursor => 'at');
INSERT INTO limited VALUES (1), (2);
SELECT lag_rows FROM batchdedup.sync_status;
SET ROLE regress_sync_mallory;
SELECT lag_rows FROM batchdedup.sync_status;
RESET ROLE;
SELECT batchdedup.drop_sync('limited');

RESET search_path;
DROP SCHEMA syncs_failures CASCADE;
DROP OWNED BY regress_sync_mallory;
DROP ROLE regress_sync_mallory;
