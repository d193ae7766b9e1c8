-- TRUNCATE, DROP TABLE and DROP SCHEMA discard what is buffered, DROP EXTENSION
-- brings it into the tables; each in its own transaction.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_drop;
SET search_path = regress_drop;
CREATE TABLE t (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);

--
-- TRUNCATE
--
SELECT batchdedup.upsert('t', '{"id":1,"v":1}');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT batchdedup.upsert('t', '{"id":2,"v":2}');
TRUNCATE t;
SELECT batchdedup.get('t', '{"id":2}');
SELECT count(*) FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.flush('t') >= 0 AS flushed;
TABLE t;
SELECT batchdedup.upsert('t', '{"id":2,"v":2}');
SELECT batchdedup.flush('t') >= 0 AS flushed;
TABLE t;
-- rolled back
SELECT batchdedup.upsert('t', '{"id":3,"v":3}');
BEGIN;
TRUNCATE t;
SELECT batchdedup.get('t', '{"id":3}');
SELECT batchdedup.upsert('t', '{"id":4,"v":4}');
ROLLBACK;
SELECT batchdedup.get('t', '{"id":3}') -> 'v' AS v3, batchdedup.get('t', '{"id":4}') -> 'v' AS v4;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;
-- with pending rows before, and after it
BEGIN;
SELECT batchdedup.upsert('t', '{"id":5,"v":5}');
TRUNCATE t;
SELECT batchdedup.get('t', '{"id":5}');
SELECT batchdedup.upsert('t', '{"id":6,"v":6}');
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
TABLE t;
-- in a savepoint that is rolled back
SELECT batchdedup.upsert('t', '{"id":7,"v":7}');
BEGIN;
SELECT batchdedup.upsert('t', '{"id":8,"v":8}');
SAVEPOINT a;
SELECT batchdedup.upsert('t', '{"id":9,"v":9}');
TRUNCATE t;
SELECT batchdedup.upsert('t', '{"id":10,"v":10}');
SELECT i, batchdedup.get('t', jsonb_build_object('id', i)) -> 'v' AS v FROM generate_series(6, 11) i;
ROLLBACK TO a;
SELECT i, batchdedup.get('t', jsonb_build_object('id', i)) -> 'v' AS v FROM generate_series(6, 11) i;
SELECT batchdedup.upsert('t', '{"id":11,"v":11}');
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;
-- released
BEGIN;
SELECT batchdedup.upsert('t', '{"id":12,"v":12}');
SAVEPOINT a;
TRUNCATE t;
SELECT batchdedup.upsert('t', '{"id":13,"v":13}');
RELEASE a;
SELECT batchdedup.upsert('t', '{"id":14,"v":14}');
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;
-- twice, and the same key again
BEGIN;
SELECT batchdedup.upsert('t', '{"id":14,"v":1}');
TRUNCATE t;
SELECT batchdedup.upsert('t', '{"id":14}');
TRUNCATE t;
SELECT batchdedup.upsert('t', '{"id":14}');
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
TABLE t;
-- of another shape than the table that is altered, filled and altered again
SELECT batchdedup.upsert('t', '{"id":17,"v":17}');
BEGIN;
TRUNCATE t;
ALTER TABLE t ADD w int;
SELECT batchdedup.upsert('t', '{"id":18,"w":18}');
ALTER TABLE t DROP w;
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
TABLE t;
-- after a switch to direct writing
BEGIN;
SET LOCAL batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":15,"v":15}');
TRUNCATE t;
SELECT batchdedup.upsert('t', '{"id":16,"v":16}');
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
TABLE t;
-- caught
DO $$
BEGIN
    PERFORM batchdedup.upsert('regress_drop.t', '{"id":17,"v":17}');
    BEGIN
        TRUNCATE regress_drop.t;
        RAISE EXCEPTION 'undone';
    EXCEPTION WHEN raise_exception THEN
        NULL;
    END;
END $$;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;
-- several tables, RESTART IDENTITY; a paused target
CREATE TABLE u (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('u', flush_interval => '0');
SELECT batchdedup.pause('u');
SELECT batchdedup.upsert('u', '{"id":1}'), batchdedup.upsert('t', '{"id":1}');
TRUNCATE TABLE ONLY t, u RESTART IDENTITY;
SELECT batchdedup.resume('u');
SELECT batchdedup.flush('t', 'u') >= 0 AS flushed;
SELECT count(*) FROM t;
SELECT count(*) FROM u;
-- COPY FREEZE after it, and rows that come later
BEGIN;
TRUNCATE t;
COPY t FROM STDIN (FREEZE);
20	20
21	21
\.
SELECT batchdedup.upsert('t', '{"id":21,"v":210}');
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;

--
-- DROP TABLE ends the registration
--
SELECT batchdedup.upsert('u', '{"id":2}');
SELECT targets AS before FROM batchdedup.stat_buffer \gset
DROP TABLE u;
SELECT count(*) FROM batchdedup.target;
SELECT (SELECT count(*) FROM batchdedup.target_option WHERE NOT own) AS options, (SELECT count(*) - 1 FROM batchdedup.mark) AS marks;
SELECT :before - targets AS fewer FROM batchdedup.stat_buffer;
CREATE TABLE u (id int PRIMARY KEY);
SELECT batchdedup.upsert('u', '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.create_target('u', flush_interval => '0');
SELECT batchdedup.flush('u') >= 0 AS flushed;
TABLE u;
-- rolled back: rows and all
SELECT batchdedup.upsert('u', '{"id":3}');
BEGIN;
SELECT batchdedup.upsert('u', '{"id":4}');
SAVEPOINT s;
SELECT batchdedup.upsert('u', '{"id":5}');
DROP TABLE u;
SELECT count(*) FROM batchdedup.target;
ROLLBACK TO s;
SELECT batchdedup.upsert('u', '{"id":6}');
COMMIT;
SELECT batchdedup.flush('u') >= 0 AS flushed;
SELECT * FROM u ORDER BY id;
SELECT batchdedup.upsert('u', '{"id":7}');
BEGIN;
DROP TABLE u;
ROLLBACK;
SELECT batchdedup.flush('u') >= 0 AS flushed;
SELECT count(*) FROM u;
-- another table of its name in the same transaction
SELECT batchdedup.upsert('u', '{"id":8}');
BEGIN;
SELECT batchdedup.upsert('u', '{"id":9}');
DROP TABLE u;
CREATE TABLE u (id int PRIMARY KEY, w int);
SELECT batchdedup.create_target('u', flush_interval => '0');
SELECT batchdedup.upsert('u', '{"id":10,"w":10}');
COMMIT;
SELECT batchdedup.flush('u') >= 0 AS flushed;
TABLE u;
-- committed with rows pending for it and for another
BEGIN;
SELECT batchdedup.upsert('u', '{"id":11}'), batchdedup.upsert('t', '{"id":30,"v":30}');
DROP TABLE u;
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT v FROM t WHERE id = 30;
DROP TABLE IF EXISTS u;
-- created, filled and dropped in one transaction
BEGIN;
CREATE TABLE u (id int PRIMARY KEY);
SELECT batchdedup.create_target('u');
SELECT batchdedup.upsert('u', '{"id":1}');
DROP TABLE u;
COMMIT;
-- DROP SCHEMA
CREATE SCHEMA regress_drop2;
CREATE TABLE regress_drop2.a (id int PRIMARY KEY);
CREATE TABLE regress_drop2.b (id int PRIMARY KEY);
SELECT batchdedup.create_target('regress_drop2.a', flush_interval => '0'), batchdedup.create_target('regress_drop2.b', flush_interval => '0');
SELECT batchdedup.upsert('regress_drop2.a', '{"id":1}'), batchdedup.upsert('regress_drop2.b', '{"id":1}');
BEGIN;
DROP SCHEMA regress_drop2 CASCADE;
ROLLBACK;
SELECT batchdedup.flush('regress_drop2.a', 'regress_drop2.b') >= 0 AS flushed;
SELECT batchdedup.upsert('regress_drop2.a', '{"id":2}'), batchdedup.upsert('regress_drop2.b', '{"id":2}');
DROP SCHEMA regress_drop2 CASCADE;
SELECT count(*) FROM batchdedup.target;
-- DROP OWNED
CREATE ROLE regress_bdd_owner;
GRANT ALL ON SCHEMA regress_drop TO regress_bdd_owner;
SET ROLE regress_bdd_owner;
CREATE TABLE owned (id int PRIMARY KEY);
SELECT batchdedup.create_target('owned', flush_interval => '0');
SELECT batchdedup.upsert('owned', '{"id":1}');
RESET ROLE;
DROP OWNED BY regress_bdd_owner;
DROP ROLE regress_bdd_owner;
SELECT count(*) FROM batchdedup.target;

--
-- drop_target, rolled back
--
SELECT batchdedup.upsert('t', '{"id":40,"v":40}');
BEGIN;
SELECT batchdedup.drop_target('t');
SELECT batchdedup.upsert('t', '{"id":41,"v":41}');
\echo :SQLSTATE
ROLLBACK;
SELECT batchdedup.upsert('t', '{"id":41,"v":41}');
SELECT batchdedup.flush('t') > 0 AS flushed;
SELECT count(*) FROM t WHERE id IN (40, 41);

--
-- DROP EXTENSION
--
SELECT batchdedup.upsert('t', '{"id":50,"v":50}');
BEGIN;
SELECT batchdedup.upsert('t', '{"id":51,"v":51}');
DROP EXTENSION batchdedup;
SELECT * FROM t WHERE id >= 50 ORDER BY id;
ROLLBACK;
SELECT batchdedup.get('t', '{"id":50}') -> 'v' AS v50, batchdedup.get('t', '{"id":51}') -> 'v' AS v51;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT batchdedup.upsert('t', '{"id":52,"v":52}');
-- other ways are refused
DROP SCHEMA batchdedup CASCADE;
\echo :SQLSTATE
DROP TABLE batchdedup.target_option;
\echo :SQLSTATE
SELECT batchdedup.pause('t');
BEGIN;
SELECT batchdedup.upsert('t', '{"id":53,"v":53}');
DROP EXTENSION batchdedup;
COMMIT;
SELECT * FROM t WHERE id >= 50 ORDER BY id;
SELECT batchdedup.upsert('t', '{"id":54,"v":54}');
\echo :SQLSTATE
-- what was a target is a table, and can be one again
ALTER TABLE t ADD w int;
TRUNCATE t;
CREATE EXTENSION batchdedup;
SELECT count(*) FROM batchdedup.target;
SELECT batchdedup.flush() >= 0 AS flushed;
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert('t', '{"id":1,"v":1,"w":1}');
SELECT batchdedup.flush('t') >= 0 AS flushed;
TABLE t;
-- dropped and made in one transaction
SELECT batchdedup.upsert('t', '{"id":2,"v":2}');
BEGIN;
DROP EXTENSION batchdedup;
CREATE EXTENSION batchdedup;
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert('t', '{"id":2,"w":2}');
COMMIT;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;

SET client_min_messages = warning;
DROP SCHEMA regress_drop CASCADE;
