-- Syncs: what is refused, odd names and types, who may, DDL.
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA syncs_create;
SET search_path = syncs_create, public;

CREATE TABLE source (id integer PRIMARY KEY, v text, n integer, at timestamptz NOT NULL DEFAULT now(), local timestamp DEFAULT now());
CREATE INDEX ON source (at);
CREATE TABLE target (id integer PRIMARY KEY, v text, n integer);

-- ---------------------------------------------------------------------
-- Arguments
-- ---------------------------------------------------------------------

SELECT batchdedup.create_sync(NULL, 'source', 'target');
SELECT batchdedup.create_sync('', 'source', 'target');
SELECT batchdedup.create_sync('x', NULL, 'target');
SELECT batchdedup.create_sync('x', 'source', 'source');
SELECT batchdedup.create_sync('x', 'pg_class', 'target', key => 'id');
SELECT batchdedup.create_sync('x', 'source', 'pg_class');
SELECT batchdedup.create_sync('x', 'source', 'target', key => 'v');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'nix');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'n');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'n', cursor_kind => 'sequence');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'n', cursor_kind => 'clock');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'local', cursor_kind => 'clock');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'local', cursor_kind => 'other');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'local', cursor_kind => 'full');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'at', lag => '-1 second');
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'at', slice_rows => 0);
SELECT batchdedup.create_sync('x', 'source', 'target', cursor => 'at', capture => 'trigger');
SELECT batchdedup.create_sync('x', 'source', 'target', capture => 'nothing');
SELECT batchdedup.create_sync('x', 'source', 'target', "into" => 'buffer');
SELECT batchdedup.create_sync('x', 'source', 'target', "into" => 'bucket');
SELECT batchdedup.create_sync('x', 'source', 'target', delete_missing => 'soft');
SELECT batchdedup.create_sync('x', 'source', 'target', delete_missing => 'soft', deleted_column => 'v');
SELECT batchdedup.create_sync('x', 'source', 'target', tombstone => 'nix');
SELECT batchdedup.create_sync('x', 'source', 'target', hash_exclude => 'nix');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '[]');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"nix": "1"}');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"v": 1}');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"v": "src.nix"}');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"v": "1; DROP TABLE source"}');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"v": "1, 2"}');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"v": "1) FROM source src --"}');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"n": "src.v"}');
SELECT batchdedup.create_sync('x', 'source', 'target', mapping => '{"id": null}');
SELECT batchdedup.create_sync('x', 'source', 'target', filter => 'src.n');
SELECT batchdedup.create_sync('x', 'source', 'target', filter => 'true OR');
CALL batchdedup.run_sync('x');
CALL batchdedup.run_sync('x', max_rows => 0);
CALL batchdedup.run_sync('x', slice_rows => -1);
CALL batchdedup.run_sync('x', max_seconds => 'nan');
CALL batchdedup.run_sync('x', dry_run => NULL);
SELECT batchdedup.drop_sync('x');
SELECT batchdedup.pause_sync('x');
SELECT batchdedup.retry_sync_dead_letters('x');
TABLE batchdedup.sync;

-- Not inside a transaction, and not in a function.
SELECT batchdedup.create_sync('s', 'source', 'target', cursor => 'at');
SELECT batchdedup.create_sync('s', 'source', 'target', cursor => 'at');
BEGIN;
CALL batchdedup.run_sync('s');
ROLLBACK;
CREATE FUNCTION run() RETURNS void LANGUAGE plpgsql AS $$ BEGIN CALL batchdedup.run_sync('s'); END $$;
SELECT run();
DO $$ BEGIN CALL batchdedup.run_sync('s'); END $$;
SET default_transaction_read_only = on;
CALL batchdedup.run_sync('s');
SELECT batchdedup.reset_watermark('s');
RESET default_transaction_read_only;
SET default_transaction_isolation = serializable;
INSERT INTO source VALUES (1, 'a', 1);
CALL batchdedup.run_sync('s');
RESET default_transaction_isolation;
TABLE target;

-- ---------------------------------------------------------------------
-- Who may
-- ---------------------------------------------------------------------

CREATE ROLE regress_sync_owner;
CREATE ROLE regress_sync_other;
GRANT USAGE, CREATE ON SCHEMA syncs_create TO regress_sync_owner, regress_sync_other;
SET ROLE regress_sync_other;
CALL batchdedup.run_sync('s');
SELECT batchdedup.pause_sync('s');
SELECT batchdedup.drop_sync('s');
SELECT batchdedup.create_sync('o', 'source', 'target', cursor => 'at');
SELECT count(*) FROM batchdedup.sync;
SELECT count(*) FROM batchdedup.sync_status;
SELECT count(*) FROM batchdedup.change_log;
SELECT count(*) FROM batchdedup.sync_run;
SELECT batchdedup.sync_lag_internal(1, 10) IS NULL AS hidden;
SELECT batchdedup.expire_syncs();
-- A domain whose check would run as the extension's owner.
CREATE TABLE seen (who name);
CREATE FUNCTION spy(integer) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO syncs_create.seen VALUES (current_user);
    RETURN true;
END $$;
CREATE DOMAIN spying AS integer CHECK (syncs_create.spy(VALUE));
CREATE TABLE spied (id spying PRIMARY KEY);
CREATE TABLE spied_copy (id integer PRIMARY KEY);
SELECT batchdedup.create_sync('spied', 'spied', 'spied_copy', capture => 'trigger');
INSERT INTO spied VALUES (1);
CALL batchdedup.run_sync('spied');
INSERT INTO spied VALUES (2);
RESET ROLE;
CALL batchdedup.run_sync('spied');
SELECT DISTINCT who FROM seen;
TABLE spied_copy;
SET ROLE regress_sync_other;
SELECT batchdedup.drop_sync('spied');
CREATE TABLE mine (id integer PRIMARY KEY);
CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION batchdedup.capture_internal('captured_1', '1', 'id');
RESET ROLE;

-- What the owner has written runs as the owner, whoever calls.
GRANT SELECT ON source TO regress_sync_owner;
SET ROLE regress_sync_owner;
CREATE FUNCTION who(text) RETURNS text LANGUAGE sql AS $$ SELECT $1 || ' by ' || current_user $$;
CREATE TABLE own_target (id integer PRIMARY KEY, v text, written_by text DEFAULT current_user);
SELECT batchdedup.create_sync('own', 'source', 'own_target', mapping => '{"v": "syncs_create.who(src.v)"}');
RESET ROLE;
CALL batchdedup.run_sync('own');
TABLE own_target;
REVOKE SELECT ON source FROM regress_sync_owner;
CALL batchdedup.run_sync('own');
SELECT last_error FROM batchdedup.sync_status WHERE name = 'own';
GRANT SELECT ON source TO regress_sync_owner;
CALL batchdedup.run_sync('own');
SELECT last_error FROM batchdedup.sync_status WHERE name = 'own';
SELECT batchdedup.drop_sync('own');

-- What the target's owner has written runs as that one.
SET ROLE regress_sync_other;
CREATE TABLE told (what text, who name);
CREATE FUNCTION tell(what text) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO syncs_create.told VALUES (what, current_user);
    RETURN true;
END $$;
CREATE FUNCTION tell_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM syncs_create.tell('trigger');
    RETURN coalesce(NEW, OLD);
END $$;
CREATE DOMAIN telling AS text CHECK (syncs_create.tell('domain'));
CREATE TABLE theirs (id integer PRIMARY KEY, v telling, w json, n integer CHECK (syncs_create.tell('check')),
    who name DEFAULT current_user);
CREATE TRIGGER tell BEFORE INSERT OR UPDATE OR DELETE ON theirs FOR EACH ROW EXECUTE FUNCTION tell_row();
TRUNCATE told;
RESET ROLE;
CREATE TABLE ours (id integer PRIMARY KEY, v text, w json, n integer);
INSERT INTO ours VALUES (1, 'a', '{}', 1), (2, 'b', '{}', 2);
SELECT batchdedup.create_sync('theirs', 'ours', 'theirs', delete_missing => 'hard', log_values => true);
CALL batchdedup.run_sync('theirs');
UPDATE ours SET v = 'c' WHERE id = 1;
DELETE FROM ours WHERE id = 2;
CALL batchdedup.run_sync('theirs');
TABLE theirs;
SELECT operation, key, changed_columns,
       CASE WHEN new_values IS NOT NULL THEN new_version = batchdedup.data_version(new_values) END AS version
  FROM batchdedup.change_log WHERE sync = 'theirs' ORDER BY at, key;
SELECT DISTINCT what, who FROM told ORDER BY what;
SELECT batchdedup.drop_sync('theirs');
-- If the sync's owner may write.
GRANT SELECT, INSERT, UPDATE ON target TO regress_sync_owner;
SET ROLE regress_sync_owner;
SELECT batchdedup.create_sync('borrowed', 'source', 'target');
CALL batchdedup.run_sync('borrowed');
RESET ROLE;
REVOKE UPDATE ON target FROM regress_sync_owner;
CALL batchdedup.run_sync('borrowed');
SELECT batchdedup.drop_sync('borrowed');

-- Text means what it meant to who made the sync.
CREATE TABLE texts (id integer PRIMARY KEY, d text);
CREATE TABLE dates (id integer PRIMARY KEY, d date, t timestamptz);
SET datestyle = 'SQL, DMY';
SET timezone = 'Asia/Tokyo';
SELECT batchdedup.create_sync('dates', 'texts', 'dates', mapping => '{"d": "src.d::date", "t": "src.d::timestamptz"}');
RESET datestyle;
RESET timezone;
INSERT INTO texts VALUES (1, '02/03/2026');
CALL batchdedup.run_sync('dates');
SELECT id, d = '2026-03-02' AS d, t = '2026-03-02 00:00:00+09' AS t FROM dates;
SELECT batchdedup.drop_sync('dates');

-- A deferred constraint is checked in the slice, as the owner.
CREATE TABLE parent (id integer PRIMARY KEY);
CREATE TABLE child (id integer PRIMARY KEY, v text, n integer REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
INSERT INTO parent VALUES (1);
INSERT INTO source VALUES (2, 'no parent', 77), (3, 'has one', 1);
SELECT batchdedup.create_sync('child', 'source', 'child', cursor => 'at');
CALL batchdedup.run_sync('child');
SELECT id, v FROM child ORDER BY id;
SELECT key, sqlstate FROM batchdedup.sync_dead_letter;
-- What it waited for comes.
INSERT INTO parent VALUES (77);
SELECT batchdedup.retry_sync_dead_letters('child');
SELECT id, v FROM child ORDER BY id;
-- A row that cannot be removed yet.
ALTER TABLE source ALTER at SET DEFAULT now();
CREATE TABLE grandchild (id integer REFERENCES child);
INSERT INTO grandchild VALUES (3);
CREATE TABLE trimmed AS SELECT * FROM source WHERE id < 3;
ALTER TABLE trimmed ADD PRIMARY KEY (id);
SELECT batchdedup.create_sync('trimmed', 'trimmed', 'child', delete_missing => 'hard');
CALL batchdedup.run_sync('trimmed');
SELECT key, sqlstate FROM batchdedup.sync_dead_letter;
DELETE FROM grandchild;
SELECT batchdedup.retry_sync_dead_letters('trimmed');
SELECT id FROM child ORDER BY id;
SELECT batchdedup.drop_sync('trimmed');
DROP TABLE grandchild;
SELECT batchdedup.drop_sync('child');

-- Triggers of the target; one that refuses every row is a fault.
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.id = 2 OR TG_ARGV[0] = 'all' THEN
        PERFORM * FROM syncs_create.no_such_table;
    END IF;
    RETURN NEW;
END $$;
CREATE TABLE guarded (id integer PRIMARY KEY, v text);
CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION refuse('all');
SELECT batchdedup.create_sync('guarded', 'source', 'guarded', cursor => 'at');
CALL batchdedup.run_sync('guarded');
SELECT last_error, dead_letters FROM batchdedup.sync_status WHERE name = 'guarded';
SELECT status, detail ~ 'SQLSTATE 42P01' AS says_so FROM batchdedup.health() WHERE check_name = 'syncs';
DROP TRIGGER refuse ON guarded;
CREATE TRIGGER refuse BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION refuse('two');
CALL batchdedup.run_sync('guarded');
SELECT last_error, dead_letters FROM batchdedup.sync_status WHERE name = 'guarded';
SELECT id FROM guarded ORDER BY id;
SELECT batchdedup.drop_sync('guarded');

-- Row-level security of the target.
ALTER TABLE own_target ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
SET ROLE regress_sync_owner;
SELECT batchdedup.create_sync('rls', 'source', 'own_target');
RESET ROLE;

-- ---------------------------------------------------------------------
-- Names and types
-- ---------------------------------------------------------------------

-- Columns named as our aliases are; quotes; dropped, generated, identity columns.
CREATE TABLE "Odd ""source" (t integer, n text, src text, "d" text, "p" jsonb, "R; --" numeric, m json, "It's" text, PRIMARY KEY (t, n));
CREATE TABLE "Odd 'target" (gone integer, t integer, n text COLLATE "C", src text, "d" char(4), "p" jsonb, "R; --" numeric, m json, "It's" text,
    number bigint GENERATED ALWAYS AS IDENTITY, twice text GENERATED ALWAYS AS (src || src) STORED, PRIMARY KEY (t, n));
ALTER TABLE "Odd 'target" DROP COLUMN gone;
SELECT batchdedup.create_sync('It''s "odd"', '"Odd ""source"', '"Odd ''target"', log_values => true, delete_missing => 'hard');
INSERT INTO "Odd ""source" VALUES (1, 'a', 's', 'd', '{"b": 1, "a": 2}', 1.0, '{"x":1}', 'y'), (1, 'b', NULL, NULL, NULL, 'NaN', NULL, NULL);
CALL batchdedup.run_sync('It''s "odd"');
UPDATE "Odd ""source" SET "R; --" = 1.00, m = '{ "x" : 1 }' WHERE n = 'a';
DELETE FROM "Odd ""source" WHERE n = 'b';
CALL batchdedup.run_sync('It''s "odd"');
SELECT * FROM "Odd 'target";
SELECT operation, key, new_values FROM batchdedup.change_log WHERE sync = 'It''s "odd"' ORDER BY at, key;
SELECT batchdedup.drop_sync('It''s "odd"');

-- Every ordered type of the server can be a cursor; values are kept exactly.
CREATE TYPE level AS ENUM ('low', 'high', 'higher');
CREATE DOMAIN positive AS integer CHECK (VALUE > 0);
CREATE TABLE typed (id serial PRIMARY KEY, a double precision, b uuid, c text COLLATE "C", d bytea, e level, f positive, g interval, h numeric,
    i timestamp, j date, k integer[], l inet);
CREATE TABLE typed_copy (id integer PRIMARY KEY);
INSERT INTO typed (a, b, c, d, e, f, g, h, i, j, k, l)
SELECT 1.0 / i, md5(i::text)::uuid, chr(64 + i), decode(lpad(to_hex(i), 4, '0'), 'hex'),
       (ARRAY['low', 'high', 'higher'])[1 + i % 3]::level, i, i * interval '1 month 3 days', i / 7.0,
       '2020-01-01'::timestamp + i * interval '0.000001 s', date '2020-01-01' + i, ARRAY[i, i % 2], ('10.0.0.' || i)::inet
  FROM generate_series(1, 9) i;
DO $$
DECLARE
    cursor_column text;
BEGIN
    FOREACH cursor_column IN ARRAY '{a,b,c,d,e,f,g,h,i,j,k,l}'::text[] LOOP
        TRUNCATE typed_copy;
        PERFORM batchdedup.create_sync('type ' || cursor_column, 'typed', 'typed_copy', cursor => cursor_column, lag => '1 microsecond');
    END LOOP;
END $$;
SET datestyle = 'SQL, DMY';
SET intervalstyle = 'iso_8601';
SET extra_float_digits = 0;
-- Those that are no times are read when they have been seen for as long as the lag.
SELECT format('CALL batchdedup.run_sync(%L, slice_rows => 2)', name) FROM batchdedup.sync, generate_series(1, 2) WHERE name LIKE 'type %' ORDER BY name \gexec
RESET datestyle;
RESET intervalstyle;
RESET extra_float_digits;
SELECT r.sync, sum(r.rows_read) AS rows_read, s.watermark FROM batchdedup.sync_run r JOIN batchdedup.sync_status s ON s.name = r.sync
 WHERE r.sync LIKE 'type %' GROUP BY 1, 3 ORDER BY 1;
SELECT count(batchdedup.drop_sync(name)) FROM batchdedup.sync WHERE name LIKE 'type %';

-- A type whose order is not the server's own.
CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
CREATE TABLE insensitive (k citext PRIMARY KEY, v text);
CREATE TABLE insensitive_copy (k citext PRIMARY KEY, v text);
SELECT batchdedup.create_sync('citext', 'insensitive', 'insensitive_copy', cursor => 'k');
SELECT batchdedup.create_sync('citext', 'insensitive', 'insensitive_copy', cursor => 'v', lag => '0.000001');
INSERT INTO insensitive VALUES ('A', 1), ('b', 2);
CALL batchdedup.run_sync('citext');
CALL batchdedup.run_sync('citext');
INSERT INTO insensitive_copy VALUES ('B', 3) ON CONFLICT DO NOTHING;
TABLE insensitive_copy;
SELECT batchdedup.drop_sync('citext');
DROP TABLE insensitive, insensitive_copy;

-- ---------------------------------------------------------------------
-- Retention, and the clock of the worker
-- ---------------------------------------------------------------------

CREATE TABLE batchdedup.change_log_20200101 PARTITION OF batchdedup.change_log_row
    FOR VALUES FROM ('2020-01-01 00:00:00+00') TO ('2020-01-02 00:00:00+00');
SELECT batchdedup.expire_syncs('100 years');
SELECT batchdedup.expire_syncs('1 day') >= 1 AS expired;
SELECT to_regclass('batchdedup.change_log_20200101') AS left, (SELECT count(*) > 0 FROM batchdedup.change_log) AS today_stays;

-- What its triggers take from now() is the time of the apply.
CREATE TABLE stamped (id integer PRIMARY KEY, v integer, at timestamptz);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at := now(); RETURN NEW; END $$;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON stamped FOR EACH ROW EXECUTE FUNCTION stamp();
SELECT batchdedup.create_target('stamped', update_columns => 'v');
SELECT batchdedup.upsert('stamped', '{"id": 1, "v": 1}');
SELECT batchdedup.flush('stamped');
SELECT at AS first FROM stamped \gset
SELECT pg_sleep(0.3);
SELECT batchdedup.upsert('stamped', '{"id": 1, "v": 2}');
SELECT batchdedup.flush('stamped');
SELECT at - :'first' >= interval '0.3 seconds' AS later FROM stamped;
SELECT batchdedup.drop_target('stamped');

-- A cursor that another sync copies: rows come with old values.
CREATE TABLE middle (id integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE last (id integer PRIMARY KEY);
SELECT batchdedup.create_sync('second', 'middle', 'last', cursor => 'at');
SELECT batchdedup.create_sync('first', 'source', 'middle', cursor => 'at');
SELECT batchdedup.create_sync('first', 'source', 'middle', cursor => 'at', mapping => '{"at": "clock_timestamp()"}', hash_exclude => 'at');
SELECT batchdedup.drop_sync('second'), batchdedup.drop_sync('first');
SELECT batchdedup.create_sync('first', 'source', 'middle', cursor => 'at');
SELECT batchdedup.create_sync('second', 'middle', 'last', cursor => 'at');
SELECT batchdedup.drop_sync('first');

-- ---------------------------------------------------------------------
-- DDL
-- ---------------------------------------------------------------------

INSERT INTO source SELECT i, 'v', i FROM generate_series(10, 15) i;
CALL batchdedup.run_sync('s');
ALTER TABLE source ADD COLUMN extra text DEFAULT 'x';
ALTER TABLE target ADD COLUMN extra text;
UPDATE source SET at = now();
CALL batchdedup.run_sync('s');
SELECT count(*), count(extra) FROM target;
ALTER TABLE source RENAME COLUMN v TO w;
ALTER TABLE source RENAME COLUMN extra TO v;
UPDATE source SET at = now();
CALL batchdedup.run_sync('s');
SELECT DISTINCT v FROM target;
ALTER TABLE source DROP COLUMN v;
UPDATE source SET at = now();
\set VERBOSITY sqlstate
CALL batchdedup.run_sync('s');
\set VERBOSITY default
SELECT last_error FROM batchdedup.sync_status WHERE name = 's';
ALTER TABLE source RENAME COLUMN w TO v;
CALL batchdedup.run_sync('s');
SELECT v, count(*) FROM target GROUP BY v ORDER BY v;
ALTER TABLE target DROP CONSTRAINT target_pkey;
UPDATE source SET at = now();
CALL batchdedup.run_sync('s');
ALTER TABLE target ADD PRIMARY KEY (id);
CALL batchdedup.run_sync('s');
DROP TABLE source;
CALL batchdedup.run_sync('s');
SELECT batchdedup.drop_sync('s');

RESET search_path;
DROP SCHEMA syncs_create CASCADE;
DROP ROLE regress_sync_owner, regress_sync_other;
