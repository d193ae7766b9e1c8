-- Writing to the table in the caller's transaction: batchdedup.enabled = off,
-- and targets in mode direct. Same calls, same rules.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_direct;
SET search_path = regress_direct;
CREATE ROLE regress_bdd_writer;
CREATE ROLE regress_bdd_reader;
GRANT USAGE ON SCHEMA regress_direct TO regress_bdd_writer, regress_bdd_reader;
CREATE TABLE t (id int PRIMARY KEY, v int, w text DEFAULT 'w');
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);

--
-- The kill switch
--
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":1,"v":1}');
TABLE t;
SELECT count(*) FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.get('t', '{"id":1}');
SELECT batchdedup.flush('t');
SELECT received, inserted, buffered_rows FROM batchdedup.stat_target WHERE target = 't'::regclass;
-- seen by the same statement's transaction, undone with it
BEGIN;
SELECT batchdedup.upsert(ROW(2, 2, 'two')::t);
SELECT batchdedup.upsert('t', '{"id":1,"v":10}');
SELECT * FROM t ORDER BY id;
SAVEPOINT s;
SELECT batchdedup.delete('t', '{"id":1}');
SELECT batchdedup.upsert('t', '{"id":3}');
SELECT * FROM t ORDER BY id;
SELECT batchdedup.get('t', '{"id":1}');
ROLLBACK TO s;
SELECT * FROM t ORDER BY id;
ROLLBACK;
TABLE t;
-- after what is buffered, whose key it ever is
SET batchdedup.enabled = on;
SELECT batchdedup.upsert('t', '[{"id":1,"v":100,"w":"buffered"},{"id":4,"v":4}]');
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":1,"v":101}');
SELECT * FROM t ORDER BY id;
SET batchdedup.enabled = on;
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
-- in a transaction with rows pending: they are written first
BEGIN;
SELECT batchdedup.upsert('t', '[{"id":5,"v":5},{"id":6,"v":6},{"id":1,"w":"pending"}]');
SELECT batchdedup.delete('t', '{"id":4}');
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":5,"w":"direct"}');
SELECT * FROM t ORDER BY id;
-- and what follows goes the same way, whatever the switch says
SET LOCAL batchdedup.enabled = on;
SELECT batchdedup.upsert('t', '{"id":7,"v":7}');
SELECT * FROM t WHERE id = 7;
COMMIT;
SELECT count(*) FROM batchdedup.buffered(NULL::t);
SELECT * FROM t ORDER BY id;
-- rolled back to a savepoint before the switch: the rows are pending again
BEGIN;
SELECT batchdedup.upsert('t', '{"id":8,"v":8}');
SAVEPOINT s;
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":9,"v":9}');
SELECT id FROM t WHERE id > 7 ORDER BY id;
ROLLBACK TO s;
SHOW batchdedup.enabled;
SELECT id FROM t WHERE id > 7 ORDER BY id;
SELECT batchdedup.get('t', '{"id":8}') -> 'v' AS v8, batchdedup.get('t', '{"id":9}') -> 'v' AS v9;
SELECT batchdedup.upsert('t', '{"id":8,"w":"more"}');
COMMIT;
SELECT id FROM t WHERE id > 7 ORDER BY id;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id > 7 ORDER BY id;
-- released, and then rolled back further up
BEGIN;
SELECT batchdedup.upsert('t', '{"id":10,"v":1}');
SAVEPOINT a;
SELECT batchdedup.upsert('t', '{"id":10,"v":2}');
SAVEPOINT b;
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":10,"v":3}');
RELEASE b;
SELECT v FROM t WHERE id = 10;
ROLLBACK TO a;
SELECT count(*) FROM t WHERE id = 10;
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id = 10;
-- caught exceptions
DO $$
BEGIN
    FOR i IN 20..25 LOOP
        BEGIN
            PERFORM batchdedup.upsert('regress_direct.t', jsonb_build_object('id', i, 'v', i));
            PERFORM set_config('batchdedup.enabled', CASE i % 3 WHEN 0 THEN 'off' ELSE 'on' END, true);
            PERFORM batchdedup.upsert('regress_direct.t', jsonb_build_object('id', i, 'w', 'second'));
            IF i % 2 = 0 THEN
                RAISE EXCEPTION 'undone';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t WHERE id >= 20 ORDER BY id;
-- a function's own setting
CREATE FUNCTION put(int) RETURNS void LANGUAGE sql SET batchdedup.enabled = off AS
$$ SELECT batchdedup.upsert('regress_direct.t', jsonb_build_object('id', $1)) $$;
SELECT put(30);
SELECT id FROM t WHERE id = 30;
SHOW batchdedup.enabled;
-- two-phase commit works, as nothing is pending
SET batchdedup.enabled = off;
BEGIN;
SELECT batchdedup.upsert('t', '{"id":31,"v":31}');
PREPARE TRANSACTION 'regress_bdd_direct';
COMMIT PREPARED 'regress_bdd_direct';
SELECT v FROM t WHERE id = 31;
-- with rows of the target that went direct, and another's pending it does not
SET batchdedup.enabled = on;
CREATE TABLE u (LIKE t INCLUDING ALL);
SELECT batchdedup.create_target('u', flush_interval => '0');
BEGIN;
SELECT batchdedup.upsert('u', '{"id":1}');
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":32}');
PREPARE TRANSACTION 'regress_bdd_direct';
\echo :SQLSTATE
SELECT count(*) FROM t WHERE id = 32;
-- errors come at the call
SET batchdedup.enabled = off;
ALTER TABLE t ADD CHECK (v > 0), ADD UNIQUE (w, v);
SELECT batchdedup.upsert('t', '{"id":40,"v":-1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '[{"id":40,"v":1,"w":"a"},{"id":41,"v":1,"w":"a"}]');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":null}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":40,"nope":1}');
\echo :SQLSTATE
SELECT batchdedup.delete('t', '{"id":40,"v":1}');
\echo :SQLSTATE
SELECT count(*) FROM t WHERE id >= 40;
SELECT count(*) FROM batchdedup.dead_letter;
-- read only
BEGIN READ ONLY;
SELECT batchdedup.upsert('t', '{"id":40}');
\echo :SQLSTATE
ROLLBACK;
-- paused: rows that are buffered come first, and cannot
SET batchdedup.enabled = on;
SELECT batchdedup.pause('t');
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":42,"v":42}');
SET batchdedup.enabled = on;
SELECT batchdedup.upsert('t', '{"id":42,"w":"buffered"}');
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":42,"w":"direct"}');
\echo :SQLSTATE
SET batchdedup.enabled = on;
SELECT batchdedup.resume('t');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t WHERE id = 42;
DROP TABLE t, u;

--
-- The same rules: a program, buffered and direct
--
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE by_default (id int, k text COLLATE "C", v int DEFAULT 1, w text DEFAULT 'w', n numeric(8,2), d positive DEFAULT 7,
    m mood, created text, twice int GENERATED ALWAYS AS (v * 2) STORED, nr serial, dropped int,
    by_identity int GENERATED BY DEFAULT AS IDENTITY (START 100), PRIMARY KEY (k, id));
ALTER TABLE by_default DROP dropped;
CREATE PROCEDURE program(t regclass) LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('SELECT batchdedup.upsert(ROW(1, ''a'', 1, ''one'', 1.005, 5, ''sad'', ''first'', NULL, 1, NULL)::%s)', t);
    EXECUTE format('SELECT batchdedup.upsert(ARRAY[ROW(1, ''a'', 11, ''eleven'', 2, 6, ''happy'', ''ignored'', NULL, 1, NULL),
                                                   ROW(2, ''b'', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 2, NULL)]::%s[])', t);
    PERFORM batchdedup.upsert(t, '{"id":3,"k":"c"}');
    PERFORM batchdedup.upsert(t, '[{"id":3,"k":"c","w":"three"},{"id":3,"k":"c","v":33,"created":"third"},{"id":4,"k":"d","v":null,"created":"4"}]');
    PERFORM batchdedup.upsert_record(t, s) FROM (VALUES ('e', 5, 5.555, 'sad'::mood), ('a', 1, 7, NULL)) AS s(k, id, n, m);
    COMMIT;
    PERFORM batchdedup.upsert(t, '{"id":1,"k":"a","v":111}');
    PERFORM batchdedup.delete(t, '[{"id":2,"k":"b"},{"id":99,"k":"z"}]');
    PERFORM batchdedup.upsert(t, '{"id":2,"k":"b","w":"again"}');
    PERFORM batchdedup.delete(t, '{"id":4,"k":"d"}');
    EXECUTE format('SELECT batchdedup.delete(ROW(5, ''e'', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::%s)', t);
    BEGIN
        PERFORM batchdedup.upsert(t, '{"id":3,"k":"c","w":"undone"}');
        PERFORM batchdedup.delete(t, '{"id":1,"k":"a"}');
        RAISE EXCEPTION 'undone';
    EXCEPTION WHEN raise_exception THEN
        PERFORM batchdedup.upsert(t, '{"id":3,"k":"c","n":3.3}');
    END;
    COMMIT;
    PERFORM batchdedup.upsert(t, '{"id":6,"k":"f","v":6}');
    ROLLBACK;
    PERFORM batchdedup.upsert(t, '{"id":7,"k":"g","d":1,"by_identity":7}');
    PERFORM batchdedup.upsert(t, '{"id":7,"k":"g","by_identity":8}');
    COMMIT;
    PERFORM batchdedup.flush(t);
    COMMIT;
END $$;
CREATE TABLE buffered (LIKE by_default INCLUDING ALL);
CREATE TABLE direct (LIKE by_default INCLUDING ALL);
CREATE TABLE switched (LIKE by_default INCLUDING ALL);
SELECT batchdedup.create_target('buffered', update_columns => 'v, w, n, d, m, by_identity', flush_interval => '0');
SELECT batchdedup.create_target('direct', update_columns => 'v, w, n, d, m, by_identity', flush_interval => '0', mode => 'direct');
SELECT batchdedup.create_target('switched', update_columns => 'v, w, n, d, m, by_identity', flush_interval => '0');
CALL program('buffered');
CALL program('direct');
SET batchdedup.enabled = off;
CALL program('switched');
SET batchdedup.enabled = on;
SELECT id, k, v, w, n, d, m, created, twice FROM direct ORDER BY k;
SELECT count(*) FROM (SELECT id, k, v, w, n, d, m, created, twice, by_identity >= 100 AS generated FROM buffered EXCEPT
                      SELECT id, k, v, w, n, d, m, created, twice, by_identity >= 100 AS generated FROM direct) d;
SELECT count(*) FROM (SELECT id, k, v, w, n, d, m, created, twice, by_identity FROM direct EXCEPT
                      SELECT id, k, v, w, n, d, m, created, twice, by_identity FROM switched) d;
SELECT (SELECT count(*) FROM buffered) AS buffered, (SELECT count(*) FROM direct) AS direct, (SELECT count(*) FROM switched) AS switched;
SELECT target, inserted > 0 AS inserted FROM batchdedup.stat_target WHERE target IN ('buffered'::regclass, 'direct'::regclass) ORDER BY target::text;
-- defaults are those of the call in both
CREATE TABLE moments (id int PRIMARY KEY, v int, at timestamptz DEFAULT now());
SELECT batchdedup.create_target('moments', mode => 'direct');
BEGIN;
SELECT batchdedup.upsert('moments', '{"id":1,"v":1}');
SELECT at = now() AS same FROM moments;
COMMIT;

--
-- Modes
--
CREATE TABLE m (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('m', flush_interval => '0');
SELECT mode FROM batchdedup.target WHERE target = 'm'::regclass;
SELECT batchdedup.upsert('m', '{"id":1,"v":1}');
-- what is buffered is brought into the table
SELECT batchdedup.alter_target('m', mode => 'direct');
SELECT mode FROM batchdedup.target WHERE target = 'm'::regclass;
TABLE m;
SELECT batchdedup.upsert('m', '{"id":1,"v":2}');
TABLE m;
SELECT batchdedup.get('m', '{"id":1}');
SELECT count(*) FROM batchdedup.buffered(NULL::m);
SELECT batchdedup.flush('m');
SELECT batchdedup.alter_target('m', mode => 'buffered');
SELECT batchdedup.upsert('m', '{"id":1,"v":3}');
TABLE m;
SELECT batchdedup.flush('m');
TABLE m;
SELECT batchdedup.alter_target('m', mode => 'direct', flush_rows => 10);
SELECT batchdedup.alter_target('m', reset => 'mode');
SELECT mode, flush_rows FROM batchdedup.target WHERE target = 'm'::regclass;
-- rolled back
SELECT batchdedup.upsert('m', '{"id":2,"v":2}');
BEGIN;
SELECT batchdedup.alter_target('m', mode => 'direct');
SELECT batchdedup.upsert('m', '{"id":3,"v":3}');
SELECT * FROM m ORDER BY id;
ROLLBACK;
SELECT mode FROM batchdedup.target WHERE target = 'm'::regclass;
SELECT batchdedup.upsert('m', '{"id":4,"v":4}');
SELECT count(*) FROM m WHERE id > 2;
SELECT batchdedup.flush('m') > 0 AS flushed;
SELECT * FROM m ORDER BY id;
BEGIN;
SAVEPOINT s;
SELECT batchdedup.alter_target('m', mode => 'direct');
ROLLBACK TO s;
SELECT batchdedup.upsert('m', '{"id":5,"v":5}');
SELECT count(*) FROM m WHERE id = 5;
COMMIT;
SELECT count(*) FROM m WHERE id = 5;
SELECT batchdedup.flush('m');
-- with rows pending: not in the middle of the transaction
BEGIN;
SELECT batchdedup.upsert('m', '{"id":6,"v":6}');
SELECT batchdedup.alter_target('m', mode => 'direct');
\echo :SQLSTATE
ROLLBACK;
-- back and forth
BEGIN;
SELECT batchdedup.alter_target('m', mode => 'direct');
SELECT batchdedup.upsert('m', '{"id":6,"v":6}');
SELECT batchdedup.alter_target('m', mode => 'buffered');
SELECT batchdedup.upsert('m', '{"id":6,"v":66}');
COMMIT;
SELECT batchdedup.flush('m') >= 0 AS flushed;
SELECT * FROM m WHERE id = 6;
-- mistakes
SELECT batchdedup.alter_target('m', mode => 'nope');
\echo :SQLSTATE
SELECT batchdedup.alter_target('m', mode => 'shadow');
\echo :SQLSTATE
SELECT batchdedup.alter_target('m', mode => '');
\echo :SQLSTATE
SELECT batchdedup.alter_target('m', mode => 'Direct');
\echo :SQLSTATE
-- on_full
SELECT batchdedup.alter_target('m', on_full => 'error');
SELECT on_full FROM batchdedup.target WHERE target = 'm'::regclass;
SELECT batchdedup.alter_target('m', on_full => 'direct');
SELECT on_full FROM batchdedup.target WHERE target = 'm'::regclass;
SELECT batchdedup.alter_target('m', reset => 'on_full');
SELECT on_full FROM batchdedup.target WHERE target = 'm'::regclass;
SELECT batchdedup.alter_target('m', on_full => 'nope');
\echo :SQLSTATE
SELECT batchdedup.alter_target('m', on_full => 'drop');
\echo :SQLSTATE

--
-- Privileges: the caller's
--
CREATE TABLE p (id int PRIMARY KEY, v int, w int, who text);
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.who := current_user;
    RETURN NEW;
END $$;
CREATE TRIGGER stamp BEFORE INSERT OR UPDATE ON p FOR EACH ROW EXECUTE FUNCTION stamp();
SELECT batchdedup.create_target('p', mode => 'direct');
GRANT INSERT, UPDATE ON p TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
-- who may only INSERT and UPDATE can write all that he can write to the buffer
SELECT batchdedup.upsert('p', '{"id":1,"v":1}');
SELECT batchdedup.upsert('p', '{"id":1,"w":2}');
SELECT batchdedup.upsert(ROW(2, 2, 2, NULL)::p);
SELECT batchdedup.upsert('p', '{"id":2,"v":3}');
SELECT batchdedup.delete('p', '{"id":2}');
\echo :SQLSTATE
SELECT batchdedup.get('p', '{"id":2}');
\echo :SQLSTATE
SELECT * FROM p;
\echo :SQLSTATE
RESET ROLE;
SELECT id, v, w FROM p ORDER BY id;
-- with SELECT triggers see him
GRANT SELECT, DELETE ON p TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('p', '[{"id":3,"v":1},{"id":2,"w":4}]');
SELECT batchdedup.upsert(ROW(4, 4, 4, 'x')::p);
SELECT batchdedup.delete('p', '{"id":1}');
SELECT * FROM p ORDER BY id;
RESET ROLE;
SELECT batchdedup.upsert('p', '{"id":5}');
SELECT who = session_user AS me FROM p WHERE id = 5;
-- without
REVOKE ALL ON p FROM regress_bdd_writer;
GRANT SELECT ON p TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('p', '{"id":6}');
\echo :SQLSTATE
RESET ROLE;
-- columns
REVOKE ALL ON p FROM regress_bdd_writer;
GRANT INSERT (id, v), UPDATE (v) ON p TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('p', '{"id":6,"v":6}');
SELECT batchdedup.upsert('p', '{"id":6,"v":7}');
SELECT batchdedup.upsert('p', '{"id":6,"w":7}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(6, 6, 6, 'x')::p);
\echo :SQLSTATE
RESET ROLE;
SELECT id, v, w FROM p WHERE id = 6;
GRANT SELECT (id, v), INSERT (w), UPDATE (w) ON p TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('p', '{"id":6,"w":8}');
SELECT batchdedup.upsert('p', '{"id":7,"v":8}');
RESET ROLE;
SELECT id, v, w FROM p WHERE id >= 6 ORDER BY id;
-- the switch, with rows of his pending
SELECT batchdedup.alter_target('p', mode => 'buffered');
SET ROLE regress_bdd_writer;
BEGIN;
SELECT batchdedup.upsert('p', '{"id":8,"v":8}');
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('p', '{"id":8,"w":9}');
COMMIT;
-- rows of several roles in one transaction, each with its own rights
RESET ROLE;
CREATE FUNCTION put_for_owner(int) RETURNS void LANGUAGE sql SECURITY DEFINER AS
$$ SELECT batchdedup.upsert('regress_direct.p', jsonb_build_object('id', $1, 'who', 'definer')) $$;
SET ROLE regress_bdd_writer;
BEGIN;
SELECT put_for_owner(9);
SELECT batchdedup.upsert('p', '{"id":10,"v":10}');
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('p', '{"id":9,"v":9}');
COMMIT;
RESET ROLE;
SELECT id, v, w FROM p WHERE id >= 8 ORDER BY id;
-- the same if he may read the table: his rows, not those of others, are bound
-- by his rights
GRANT SELECT ON p TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
BEGIN;
SELECT put_for_owner(11);
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('p', '{"id":11,"v":11}');
COMMIT;
RESET ROLE;
SELECT id, v, w FROM p WHERE id = 11;

--
-- Around
--
-- deferred constraints of others stay deferred
CREATE TABLE other (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO other VALUES (1);
SET batchdedup.enabled = off;
BEGIN;
INSERT INTO other VALUES (1);
SELECT batchdedup.upsert('m', '{"id":50,"v":50}');
DELETE FROM other WHERE ctid = (SELECT min(ctid) FROM other);
COMMIT;
SELECT v FROM m WHERE id = 50;
-- triggers that upsert in their turn, to this and to another target
CREATE TABLE audit (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('audit', flush_interval => '0');
CREATE FUNCTION copy_row() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('regress_direct.audit', jsonb_build_object('id', NEW.id, 'v', NEW.v));
    IF NEW.id > 0 AND NEW.id < 100 THEN
        PERFORM batchdedup.upsert('regress_direct.m', jsonb_build_object('id', -NEW.id, 'v', NEW.v));
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER copy_row AFTER INSERT OR UPDATE ON m FOR EACH ROW EXECUTE FUNCTION copy_row();
SELECT batchdedup.upsert('m', '[{"id":60,"v":1},{"id":61,"v":1},{"id":60,"v":2}]');
SELECT * FROM m WHERE abs(id) >= 60 ORDER BY id;
SELECT * FROM audit ORDER BY id;
-- a cursor WITH HOLD, read at commit
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT batchdedup.upsert('m', jsonb_build_object('id', i)) FROM generate_series(200, 202) i;
COMMIT;
CLOSE c;
SELECT count(*) FROM m WHERE id >= 200;
-- a statement does not see what it writes itself, as with a function that writes
SELECT batchdedup.upsert('m', '{"id":300,"v":1}'), (SELECT count(*) FROM m WHERE id = 300) AS before;
-- REPEATABLE READ
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM m WHERE id = 300;
SELECT batchdedup.upsert('m', '{"id":300,"v":2}');
SELECT v FROM m WHERE id = 300;
COMMIT;
-- partitions, and rows that move
CREATE TABLE parted (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parted_n PARTITION OF parted FOR VALUES IN ('n');
CREATE TABLE parted_s PARTITION OF parted FOR VALUES IN ('s');
SELECT batchdedup.create_target('parted');
SELECT batchdedup.upsert('parted', '[{"id":1,"region":"n","v":1},{"id":1,"region":"s","v":2}]');
SELECT batchdedup.upsert('parted', '{"id":1,"region":"s","v":3}');
SELECT batchdedup.delete('parted', '{"id":1,"region":"n"}');
SELECT tableoid::regclass, * FROM parted;
SELECT batchdedup.upsert('parted', '{"id":1,"region":"x","v":3}');
\echo :SQLSTATE
SET batchdedup.enabled = on;

SET client_min_messages = warning;
DROP SCHEMA regress_direct CASCADE;
DROP ROLE regress_bdd_writer, regress_bdd_reader;
