-- Rows that their table refuses are set aside, with the error.
\a
\pset footer off
\set SHOW_CONTEXT never
-- Rows that are written directly are refused at the call instead.
SET batchdedup.enabled = on;
\pset null '(null)'
CREATE SCHEMA regress_dead;
SET search_path = regress_dead;
CREATE VIEW letters AS
SELECT target, key, "row", operation, sqlstate, message, detail, hint, attempts, superseded
  FROM batchdedup.dead_letter ORDER BY generation, sequence;

--
-- One bad row, and several among many
--
CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v > 0), w text DEFAULT 'w', n numeric NOT NULL DEFAULT 1.50);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.upsert('t', '{"id":1,"v":-1}');
SELECT batchdedup.flush('t');
SELECT * FROM letters \gx
SELECT refused_at BETWEEN now() - interval '1 minute' AND clock_timestamp() AS refused,
       last_attempt_at >= refused_at AS last, generation > 0 AS generation, sequence > 0 AS sequence
  FROM batchdedup.dead_letter;
SELECT buffered_rows, inserted, dead_lettered, flushes, failed_flushes, failures, last_error
  FROM batchdedup.stat_target WHERE target = 't'::regclass;
SELECT * FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.get('t', '{"id":1}');
SELECT batchdedup.discard_dead_letters('t');
SELECT count(*) FROM letters;
-- of two thousand, those that are bad: the first, the last, two neighbours
SELECT batchdedup.upsert('t', (SELECT jsonb_agg(jsonb_build_object('id', i,
           'v', CASE WHEN i IN (1, 700, 701, 2000) THEN -i ELSE i END)) FROM generate_series(1, 2000) i));
SELECT batchdedup.flush('t');
SELECT count(*), sum(v) FROM t;
SELECT key, "row", sqlstate, attempts FROM letters;
SELECT buffered_rows, inserted, dead_lettered, flushes, failed_flushes
  FROM batchdedup.stat_target WHERE target = 't'::regclass;
SELECT batchdedup.discard_dead_letters('t');
-- all of them are bad
SELECT batchdedup.upsert('t', '[{"id":3001,"v":-1},{"id":3002,"v":-2},{"id":3003,"v":-3}]');
SELECT batchdedup.flush('t');
SELECT key, message FROM letters;
SELECT batchdedup.discard_dead_letters('t');
-- equal errors of rows in several generations
SELECT batchdedup.upsert('t', '{"id":3001,"v":-1}');
SELECT batchdedup.flush('t');
SELECT batchdedup.upsert('t', '{"id":3001,"v":-2}');
SELECT batchdedup.flush('t');
SELECT "row", superseded FROM letters;
SELECT batchdedup.discard_dead_letters('t');
TRUNCATE t;

--
-- Beside deletes, rows that replace others, rows given in part
--
SELECT batchdedup.upsert('t', (SELECT jsonb_agg(jsonb_build_object('id', i, 'v', i, 'w', 'old')) FROM generate_series(1, 9) i));
SELECT batchdedup.flush('t');
SELECT batchdedup.delete('t', '[{"id":1},{"id":2},{"id":3}]');
-- replaces
SELECT batchdedup.upsert('t', '[{"id":2,"v":20},{"id":3,"v":-30}]');
-- in part
SELECT batchdedup.upsert('t', '[{"id":4,"w":"part"},{"id":5,"v":-50},{"id":6,"v":60},{"id":10,"w":"new"},{"id":11,"v":-11},{"id":12,"n":12}]');
-- whole
SELECT batchdedup.upsert(ARRAY[ROW(7, 70, 'whole', 7), ROW(8, -80, 'whole', 8), ROW(13, 13, 'whole', 13)]::t[]);
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
SELECT key, "row", operation, sqlstate FROM letters;
-- a refused REPLACE has deleted nothing
ALTER TABLE t DROP CONSTRAINT t_v_check;
SELECT batchdedup.retry_dead_letters('t');
SELECT * FROM t WHERE v < 0 ORDER BY id;
SELECT count(*) FROM letters;
TRUNCATE t;
-- a NOT NULL column that was never given
CREATE TABLE strict (id int PRIMARY KEY, a int NOT NULL, b int);
SELECT batchdedup.create_target('strict', flush_interval => '0');
SELECT batchdedup.upsert('strict', '[{"id":1,"b":1},{"id":2,"a":2},{"id":3,"b":3}]');
SELECT batchdedup.flush('strict');
TABLE strict;
SELECT key, "row", sqlstate, message, detail FROM letters;
-- it is fine once the row is there: the letter gives what it gives
INSERT INTO strict VALUES (1, 10, 10);
SELECT batchdedup.retry_dead_letters('strict');
SELECT * FROM strict ORDER BY id;
SELECT key, sqlstate, attempts FROM letters;
SELECT batchdedup.discard_dead_letters('strict');
-- a delete that is refused
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'not this one: %', OLD.id USING ERRCODE = 'BD001', DETAIL = 'detail', HINT = 'hint';
END $$;
CREATE TRIGGER refuse BEFORE DELETE ON strict FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION refuse();
SELECT batchdedup.delete('strict', '[{"id":1},{"id":2}]');
SELECT batchdedup.flush('strict');
TABLE strict;
SELECT * FROM letters \gx
DROP TRIGGER refuse ON strict;
SELECT batchdedup.retry_dead_letters('strict');
TABLE strict;
SELECT count(*) FROM letters;
-- columns that keep their first value
CREATE TABLE firsts (id int PRIMARY KEY, v int CHECK (v > 0), created text);
SELECT batchdedup.create_target('firsts', update_columns => 'v', flush_interval => '0');
SELECT batchdedup.upsert(ROW(1, -1, 'first')::firsts), batchdedup.upsert(ROW(2, -2, 'first')::firsts);
SELECT batchdedup.flush('firsts');
INSERT INTO firsts VALUES (1, 7, 'other');
ALTER TABLE firsts DROP CONSTRAINT firsts_v_check;
SELECT batchdedup.retry_dead_letters('firsts');
SELECT * FROM firsts ORDER BY id;

--
-- Unique values that rows hand on
--
CREATE TABLE u (id int PRIMARY KEY, code text UNIQUE, v int CHECK (v > 0));
SET client_min_messages = warning;
SELECT batchdedup.create_target('u', flush_interval => '0');
RESET client_min_messages;
SELECT batchdedup.upsert('u', '[{"id":1,"code":"a","v":1},{"id":2,"code":"b","v":2},{"id":3,"code":"c","v":3}]');
SELECT batchdedup.flush('u');
-- 3 gives up c, 1 takes it: in key order 1 comes first
SELECT batchdedup.upsert('u', '[{"id":3,"code":"d","v":3},{"id":1,"code":"c","v":1}]');
SELECT batchdedup.flush('u');
-- a chain
SELECT batchdedup.upsert('u', '[{"id":3,"code":"e","v":3},{"id":2,"code":"d","v":2},{"id":1,"code":"b","v":1},{"id":4,"code":"c","v":4}]');
SELECT batchdedup.flush('u');
-- given up by a row that goes
SELECT batchdedup.upsert('u', '{"id":1,"code":"e","v":1}');
SELECT batchdedup.delete('u', '{"id":3}');
SELECT batchdedup.flush('u');
SELECT count(*) FROM letters;
SELECT * FROM u ORDER BY id;
-- one that nobody gives up
SELECT batchdedup.upsert('u', '[{"id":5,"code":"c","v":5},{"id":6,"code":"f","v":6}]');
SELECT batchdedup.flush('u');
SELECT key, sqlstate, message, detail FROM letters;
-- taken by a row that is refused itself: the row that waited for it is, too
SELECT batchdedup.upsert('u', '[{"id":1,"code":"c","v":1},{"id":4,"code":"g","v":-4}]');
SELECT batchdedup.flush('u');
SELECT key, sqlstate FROM letters;
UPDATE u SET code = 'free' WHERE id = 4;
SELECT batchdedup.retry_dead_letters('u');
SELECT key, sqlstate, attempts FROM letters;
SELECT * FROM u ORDER BY id;
SELECT batchdedup.discard_dead_letters('u');

--
-- Retry
--
CREATE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
CREATE TABLE r (id int PRIMARY KEY, v int CHECK (regress_dead.allowed(v)), w text);
SELECT batchdedup.create_target('r', flush_interval => '0');
SELECT batchdedup.upsert('r', '[{"id":1,"v":-1,"w":"one"},{"id":2,"v":-2,"w":"two"}]');
SELECT batchdedup.flush('r');
SELECT batchdedup.retry_dead_letters('r');
SELECT batchdedup.retry_dead_letters('r', force => true);
SELECT key, attempts, superseded FROM letters;
-- rolled back
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > -10';
BEGIN;
SELECT batchdedup.retry_dead_letters('r');
SELECT count(*) FROM letters;
SELECT * FROM r ORDER BY id;
ROLLBACK;
SELECT key, attempts FROM letters;
BEGIN;
SAVEPOINT s;
SELECT batchdedup.discard_dead_letters('r');
ROLLBACK TO s;
SELECT count(*) FROM letters;
COMMIT;
-- what is buffered comes after the letter
SELECT batchdedup.upsert('r', '{"id":1,"w":"newer"}');
SELECT batchdedup.retry_dead_letters('r');
SELECT batchdedup.get('r', '{"id":1}');
SELECT batchdedup.flush('r');
SELECT * FROM r ORDER BY id;
-- attempts are counted, the error is the last one
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
SELECT batchdedup.upsert('r', '{"id":3,"v":-3}');
SELECT batchdedup.flush('r');
SELECT batchdedup.retry_dead_letters('r');
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN RAISE EXCEPTION 'another error' USING DETAIL = 'its detail', HINT = 'its hint'; END $$;
SELECT batchdedup.retry_dead_letters('r');
SELECT attempts, sqlstate, message, detail, hint FROM letters;
SELECT batchdedup.discard_dead_letters('r');
SELECT batchdedup.retry_dead_letters('r');
SELECT batchdedup.discard_dead_letters('r');
-- mistakes
SELECT batchdedup.retry_dead_letters(NULL);
\echo :SQLSTATE
SELECT batchdedup.discard_dead_letters(NULL);
\echo :SQLSTATE
CREATE TABLE no_target (id int PRIMARY KEY);
SELECT batchdedup.retry_dead_letters('no_target');
\echo :SQLSTATE
SELECT batchdedup.discard_dead_letters('no_target');
\echo :SQLSTATE
BEGIN READ ONLY;
SELECT batchdedup.retry_dead_letters('r');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT batchdedup.discard_dead_letters('r');
\echo :SQLSTATE
ROLLBACK;

--
-- Superseded letters
--
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
-- 1: by a whole row; 2: by a delete; 3: by a REPLACE; 4: by a row in part that
-- gives as much; 5: not by one that gives less; 6: not by a refused one;
-- 7: not by nothing
SELECT batchdedup.upsert('r', (SELECT jsonb_agg(jsonb_build_object('id', i, 'v', -i, 'w', 'letter')) FROM generate_series(1, 3) i));
SELECT batchdedup.upsert('r', (SELECT jsonb_agg(jsonb_build_object('id', i, 'v', -i)) FROM generate_series(4, 7) i));
SELECT batchdedup.flush('r');
SELECT batchdedup.upsert(ROW(1, 1, 'later')::r);
SELECT batchdedup.delete('r', '[{"id":2},{"id":3}]');
SELECT batchdedup.upsert('r', '[{"id":3,"w":"later"},{"id":4,"v":4},{"id":5,"w":"later"},{"id":6,"v":-66,"w":"refused"}]');
SELECT batchdedup.flush('r');
SELECT "row", superseded FROM letters;
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
SELECT batchdedup.retry_dead_letters('r');
SELECT * FROM r ORDER BY id;
SELECT "row", superseded, attempts FROM letters;
SELECT batchdedup.retry_dead_letters('r', true);
SELECT * FROM r ORDER BY id;
SELECT count(*) FROM letters;
-- discarded with the others
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
SELECT batchdedup.upsert('r', '[{"id":21,"v":-1},{"id":22,"v":-1}]');
SELECT batchdedup.flush('r');
SELECT batchdedup.upsert(ROW(21, 1, 'later')::r);
SELECT batchdedup.flush('r');
SELECT batchdedup.discard_dead_letters('r');
-- a row that is written directly is applied, too
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
SELECT batchdedup.upsert('r', '[{"id":23,"v":-1},{"id":24,"v":-1}]');
SELECT batchdedup.flush('r');
SET batchdedup.enabled = off;
SELECT batchdedup.upsert(ROW(23, 1, 'later')::r);
BEGIN;
SELECT batchdedup.upsert(ROW(24, 1, 'rolled back')::r);
ROLLBACK;
SET batchdedup.enabled = on;
SELECT key, superseded FROM letters;
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
SELECT batchdedup.retry_dead_letters('r');
SELECT * FROM r WHERE id IN (23, 24) ORDER BY id;
SELECT batchdedup.discard_dead_letters('r');
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';

-- keys in another spelling, and a key that has changed since
CREATE TABLE spelled (n numeric NOT NULL UNIQUE, i interval, v int CHECK (v > 0), PRIMARY KEY (n, i));
SELECT batchdedup.create_target('spelled', key => 'n, i', flush_interval => '0');
SELECT batchdedup.upsert('spelled', '[{"n":1.0,"i":"1 month","v":-1},{"n":2,"i":"1 day","v":-2},{"n":3,"i":"3 days","v":-3},{"n":4,"i":"-1 days +02:00","v":-4}]');
SELECT batchdedup.flush('spelled');
SELECT batchdedup.upsert('spelled', '[{"n":1.00,"i":"30 days","v":1},{"n":2.0,"i":"2 days","v":2}]');
SELECT batchdedup.flush('spelled');
SELECT key, superseded FROM letters;
SELECT batchdedup.alter_target('spelled', key => 'n');
SELECT batchdedup.upsert('spelled', '{"n":3.000,"i":"3 days","v":3}');
SELECT batchdedup.flush('spelled');
SELECT key, superseded FROM letters;
-- written as any session reads it
SET intervalstyle = sql_standard;
ALTER TABLE spelled DROP CONSTRAINT spelled_v_check;
SELECT batchdedup.retry_dead_letters('spelled');
RESET intervalstyle;
SELECT * FROM spelled ORDER BY n;
DROP TABLE spelled;

--
-- The table changes before the retry
--
CREATE TABLE c (id int PRIMARY KEY, v int CHECK (regress_dead.allowed(v)), w text, x int, y text);
SELECT batchdedup.create_target('c', flush_interval => '0', update_columns => 'v, w, x, y');
SELECT batchdedup.upsert('c', '[{"id":1,"v":-1,"w":"one","x":1,"y":"10"},{"id":2,"v":-2,"w":"two","x":2,"y":"ten"}]');
SELECT batchdedup.flush('c');
ALTER TABLE c RENAME w TO "W w";
ALTER TABLE c RENAME id TO key;
SELECT key, "row" FROM letters;
SELECT batchdedup.alter_target('c', update_columns => 'v, "W w", y');
ALTER TABLE c DROP x;
ALTER TABLE c ADD z int DEFAULT 9;
ALTER TABLE c RENAME TO "C c";
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
SELECT batchdedup.retry_dead_letters('"C c"');
SELECT target, key, "row", sqlstate, message FROM letters;
SELECT * FROM "C c" ORDER BY 1;
SELECT batchdedup.discard_dead_letters('"C c"');
-- a value that its column does not take any more is refused, the others are not
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT $1 > 0';
SELECT batchdedup.upsert('"C c"', '[{"key":3,"v":-3,"y":"not a number"},{"key":4,"v":-4,"y":"4"}]');
SELECT batchdedup.flush('"C c"');
UPDATE "C c" SET y = NULL, v = 1;
ALTER TABLE "C c" ALTER y TYPE int USING y::int;
CREATE OR REPLACE FUNCTION allowed(int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT true';
SELECT batchdedup.retry_dead_letters('"C c"');
SELECT key, sqlstate, message, attempts FROM letters;
SELECT key, v, y FROM "C c" WHERE key > 2 ORDER BY key;
-- TRUNCATE leaves letters, DROP TABLE does not
TRUNCATE "C c";
SELECT count(*) FROM letters;
BEGIN;
DROP TABLE "C c";
SELECT count(*) FROM letters;
ROLLBACK;
SELECT count(*) FROM letters;
DROP TABLE "C c";
SELECT count(*) FROM batchdedup.dead_letter_row;

--
-- Faults that are not the rows'
--
-- A trigger that misses a column hits every row: no letters, an error to see
CREATE TABLE f (id int PRIMARY KEY, v int);
CREATE FUNCTION missing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.v := NEW.missing;
    RETURN NEW;
END $$;
SELECT batchdedup.create_target('f', flush_interval => '0', flush_rows => 0);
CREATE TRIGGER missing BEFORE INSERT ON f FOR EACH ROW EXECUTE FUNCTION missing();
SELECT batchdedup.upsert('f', '[{"id":1,"v":1},{"id":2,"v":2},{"id":3,"v":3},{"id":4,"v":4}]');
SELECT batchdedup.flush('f');
\echo :SQLSTATE
SELECT count(*) FROM letters;
SELECT buffered_rows, inserted, dead_lettered, flushes, failed_flushes > 0 AS failed, failures > 0 AS failing,
       last_error_at IS NOT NULL AS at, last_error_sqlstate, last_error
  FROM batchdedup.stat_target WHERE target = 'f'::regclass;
SELECT id FROM batchdedup.buffered(NULL::f) ORDER BY id;
SELECT batchdedup.get('f', '{"id":1}') -> 'v' AS v;
-- what comes later waits behind it
SELECT batchdedup.upsert('f', '{"id":5,"v":5}');
SELECT batchdedup.flush('f');
\echo :SQLSTATE
-- a target that cannot be applied is neither dropped nor altered
SELECT batchdedup.drop_target('f');
\echo :SQLSTATE
SELECT batchdedup.alter_target('f', update_columns => 'v');
\echo :SQLSTATE
ALTER TABLE f ADD w int;
\echo :SQLSTATE
SELECT target, update_columns FROM batchdedup.target WHERE target = 'f'::regclass;
-- nor can writes go past it
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('f', '{"id":1,"v":10}');
\echo :SQLSTATE
SET batchdedup.enabled = on;
-- other targets do not wait
SELECT batchdedup.upsert('r', '{"id":31,"v":31}');
SELECT batchdedup.flush('r');
-- the cause is gone: it goes on by itself, after at most a minute; here sooner
CREATE FUNCTION wait_for(query text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    done bool;
BEGIN
    FOR i IN 1..1500 LOOP
        EXECUTE query INTO done;
        IF done THEN
            RETURN true;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN false;
END $$;
ALTER SYSTEM SET batchdedup.retry_backoff = '10ms';
SELECT pg_reload_conf();
SELECT pg_sleep(0.3);
SELECT batchdedup.flush('f');
CREATE OR REPLACE FUNCTION missing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT wait_for('SELECT count(*) = 5 FROM regress_dead.f');
ALTER SYSTEM RESET batchdedup.retry_backoff;
SELECT pg_reload_conf();
SELECT batchdedup.flush('f') >= 0 AS flushed;
SELECT * FROM f ORDER BY id;
SELECT buffered_rows, dead_lettered, failures, last_error_at IS NULL AS none, last_error_sqlstate, last_error
  FROM batchdedup.stat_target WHERE target = 'f'::regclass;
SELECT count(*) FROM letters;
-- a right that the owner lacks
CREATE ROLE regress_bdd_owner;
GRANT ALL ON SCHEMA regress_dead TO regress_bdd_owner;
CREATE TABLE secret (id int);
SET ROLE regress_bdd_owner;
CREATE TABLE mine (id int PRIMARY KEY);
CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_dead.secret VALUES (NEW.id);
    RETURN NEW;
END $$;
CREATE TRIGGER touch AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION touch();
SELECT batchdedup.create_target('mine', flush_interval => '0');
RESET ROLE;
SELECT batchdedup.upsert('mine', '[{"id":1},{"id":2}]');
SELECT batchdedup.flush('mine');
\echo :SQLSTATE
SELECT count(*) FROM letters;
GRANT INSERT ON secret TO regress_bdd_owner;
SELECT batchdedup.flush('mine');
SELECT * FROM secret ORDER BY id;
-- the same error of one row of many is the row's
CREATE FUNCTION missing_for_3() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.v = 3 THEN
        NEW.v := NEW.missing;
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER missing_for_3 BEFORE INSERT OR UPDATE ON f FOR EACH ROW EXECUTE FUNCTION missing_for_3();
SELECT batchdedup.upsert('f', '[{"id":6,"v":1},{"id":7,"v":3},{"id":8,"v":5}]');
SELECT batchdedup.flush('f') >= 0 AS flushed;
SELECT count(*) FROM f;
SELECT key, sqlstate, message FROM letters;
SELECT batchdedup.discard_dead_letters('f');

--
-- Foreign keys between two targets
--
CREATE TABLE parent (id int PRIMARY KEY, v int);
CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent ON DELETE CASCADE);
SELECT batchdedup.create_target('child', flush_interval => '0'), batchdedup.create_target('parent', flush_interval => '0');
BEGIN;
SELECT batchdedup.upsert('child', '{"id":1,"p":1}');
SELECT batchdedup.upsert('parent', '{"id":1,"v":1}');
COMMIT;
SELECT batchdedup.flush('child') >= 0 AS child;
SELECT batchdedup.flush('parent') >= 0 AS parent;
SELECT * FROM child;
-- together
BEGIN;
SELECT batchdedup.upsert('parent', '{"id":2,"v":2}');
SELECT batchdedup.upsert('child', '[{"id":2,"p":2},{"id":3,"p":99}]');
COMMIT;
SELECT batchdedup.flush('child', 'parent') >= 0 AS both;
SELECT * FROM child ORDER BY id;
-- 99 is nowhere
SELECT key, "row", sqlstate, message, detail FROM letters;
SELECT batchdedup.upsert('parent', '{"id":99}');
SELECT batchdedup.flush('parent');
SELECT batchdedup.retry_dead_letters('child');
SELECT * FROM child ORDER BY id;
-- two of one key wait for different parents: the older one comes too late
SELECT batchdedup.upsert('child', '{"id":4,"p":41}');
SELECT batchdedup.flush('child');
SELECT batchdedup.upsert('child', '{"id":4,"p":42}');
SELECT batchdedup.flush('child');
SELECT batchdedup.upsert('parent', '{"id":42}');
SELECT batchdedup.flush('parent');
SELECT key, "row", superseded FROM letters;
SELECT batchdedup.upsert('parent', '{"id":41}');
SELECT batchdedup.flush('parent');
SELECT batchdedup.retry_dead_letters('child');
SELECT * FROM child WHERE id = 4;
SELECT batchdedup.discard_dead_letters('child');
-- children go with their parents
SELECT batchdedup.delete('parent', '{"id":99}');
SELECT batchdedup.flush();
SELECT * FROM child ORDER BY id;

-- a foreign key that is deferred
CREATE TABLE deferred (id int PRIMARY KEY, p int REFERENCES parent DEFERRABLE INITIALLY DEFERRED, v int CHECK (v > 0));
SELECT batchdedup.create_target('deferred', flush_interval => '0');
SELECT batchdedup.upsert('deferred', '[{"id":1,"p":1,"v":1},{"id":2,"p":2,"v":-2},{"id":3,"p":98,"v":3}]');
SELECT batchdedup.flush('deferred');
SELECT key, sqlstate FROM letters;
ALTER TABLE deferred DROP CONSTRAINT deferred_v_check;
INSERT INTO parent VALUES (98);
SELECT batchdedup.retry_dead_letters('deferred');
SELECT * FROM deferred ORDER BY id;
SELECT key, sqlstate, message FROM letters;
SELECT batchdedup.discard_dead_letters('deferred');

--
-- Who may see letters, and who may act on them
--
CREATE ROLE regress_bdd_writer;
CREATE ROLE regress_bdd_reader;
GRANT USAGE ON SCHEMA regress_dead TO regress_bdd_writer, regress_bdd_reader;
GRANT SELECT ON letters TO PUBLIC;
SET ROLE regress_bdd_owner;
CREATE TABLE hers (id int PRIMARY KEY, v int CHECK (v > 0));
SELECT batchdedup.create_target('hers', flush_interval => '0');
GRANT INSERT, UPDATE ON hers TO regress_bdd_writer;
GRANT SELECT ON hers TO regress_bdd_reader;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('hers', '{"id":1,"v":-12345}');
SELECT batchdedup.flush('hers');
SELECT count(*) FROM batchdedup.dead_letter;
SELECT * FROM batchdedup.dead_letter_row;
\echo :SQLSTATE
SELECT batchdedup.retry_dead_letters('hers');
\echo :SQLSTATE
SELECT batchdedup.discard_dead_letters('hers');
\echo :SQLSTATE
SET ROLE regress_bdd_reader;
SELECT target, "row" FROM batchdedup.dead_letter;
SELECT batchdedup.retry_dead_letters('hers');
\echo :SQLSTATE
DELETE FROM batchdedup.dead_letter;
\echo :SQLSTATE
SET ROLE regress_bdd_owner;
SELECT target, "row" FROM batchdedup.dead_letter;
-- a function in a query sees no letters of others
GRANT SELECT ON hers TO regress_bdd_writer;
REVOKE SELECT ON hers FROM regress_bdd_reader;
SET ROLE regress_bdd_reader;
CREATE FUNCTION pg_temp.peek(jsonb) RETURNS bool LANGUAGE plpgsql COST 0.0001 AS
$$ BEGIN RAISE NOTICE 'saw %', $1; RETURN true; END $$;
SELECT count(*) FROM batchdedup.dead_letter WHERE pg_temp.peek("row");
DROP FUNCTION pg_temp.peek;
-- nor does who may read some columns only, or some rows only
RESET ROLE;
GRANT SELECT (id) ON hers TO regress_bdd_reader;
SET ROLE regress_bdd_reader;
SELECT count(*) FROM batchdedup.dead_letter;
RESET ROLE;
GRANT SELECT ON hers TO regress_bdd_reader;
ALTER TABLE hers ENABLE ROW LEVEL SECURITY;
SET ROLE regress_bdd_reader;
SELECT count(*) FROM batchdedup.dead_letter;
SET ROLE regress_bdd_owner;
SELECT count(*) FROM batchdedup.dead_letter;
ALTER TABLE hers DROP CONSTRAINT hers_v_check;
SELECT batchdedup.retry_dead_letters('hers');
SELECT * FROM hers;
-- letters outlive the registration, but not the table
CREATE TABLE again (id int PRIMARY KEY, v int CHECK (v > 0));
SELECT batchdedup.create_target('again', flush_interval => '0');
SELECT batchdedup.upsert('again', '{"id":1,"v":-1}');
SELECT batchdedup.drop_target('again');
SELECT key FROM letters WHERE target = 'again'::regclass;
DROP TABLE again;
RESET ROLE;
SELECT key, "row" FROM batchdedup.dead_letter_row ORDER BY id;

SET client_min_messages = warning;
DROP SCHEMA regress_dead CASCADE;
DROP ROLE regress_bdd_owner, regress_bdd_writer, regress_bdd_reader;
SELECT count(*) FROM batchdedup.dead_letter_row;
