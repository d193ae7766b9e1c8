--
-- Plain writers beside us: the option guard
--
\pset format unaligned
\pset null (null)
\pset footer off
SET client_min_messages = warning;
CREATE SCHEMA regress_guard;
SET search_path = regress_guard;
CREATE TABLE t (id int PRIMARY KEY, v int);
CREATE TABLE other (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('t', flush_interval => '0');
CREATE FUNCTION foreign_writes() RETURNS bigint LANGUAGE sql AS
  $$SELECT foreign_writes FROM batchdedup.stat_target WHERE target = 't'::regclass$$;

-- warn is the default; with nothing in the buffer there is nothing to say
INSERT INTO t VALUES (1, 1);
SELECT batchdedup.upsert('t', '{"id":1,"v":2}');
INSERT INTO t VALUES (2, 2);
UPDATE t SET v = v + 1;
DELETE FROM t WHERE id = 2;
WITH w AS (INSERT INTO t VALUES (3, 3) RETURNING id) SELECT id FROM w;
MERGE INTO t USING (VALUES (3, 33)) AS s(id, v) ON t.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v;
COPY t FROM stdin;
4	4
\.
SELECT foreign_writes();
-- reading is no writing, nor is a statement that is only explained
SELECT count(*) FROM t;
SELECT id FROM t ORDER BY id FOR UPDATE;
EXPLAIN (COSTS OFF) UPDATE other SET v = 1;
INSERT INTO other VALUES (1, 1);
SELECT foreign_writes();

-- off
SELECT batchdedup.alter_target('t', guard => 'off');
UPDATE t SET v = 0 WHERE id = 4;
SELECT foreign_writes();

-- error
SELECT batchdedup.alter_target('t', guard => 'error');
UPDATE t SET v = 0 WHERE id = 4;
\echo :SQLSTATE
COPY t FROM '/dev/null';
\echo :SQLSTATE
-- what batchdedup itself writes is meant
SELECT batchdedup.flush('t');
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":6,"v":6}');
RESET batchdedup.enabled;
UPDATE t SET v = 44 WHERE id = 4;
SELECT * FROM t ORDER BY id;

-- flush: the statement sees what was buffered, also new rows
SELECT batchdedup.alter_target('t', guard => 'flush');
SELECT batchdedup.upsert('t', '[{"id":1,"v":10},{"id":7,"v":70}]');
UPDATE t SET v = v + 1 WHERE id IN (1, 7) RETURNING id, v;
PREPARE change AS UPDATE t SET v = v + 1 WHERE id = $1 RETURNING v;
EXECUTE change(7);
SELECT batchdedup.upsert('t', '{"id":7,"v":700}');
EXECUTE change(7);
-- rows of the same transaction, too
BEGIN;
SELECT batchdedup.upsert('t', '{"id":8,"v":80}');
UPDATE t SET v = v + 1 WHERE id = 8 RETURNING v;
ROLLBACK;
-- a plain statement in a trigger or function
CREATE FUNCTION plain() RETURNS int LANGUAGE plpgsql AS
  $$DECLARE r int; BEGIN UPDATE t SET v = v + 1 WHERE id = 7 RETURNING v INTO r; RETURN r; END$$;
SELECT batchdedup.upsert('t', '{"id":7,"v":7000}');
SELECT plain();
-- an old snapshot does not see what was flushed for it
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT count(*) FROM t;
SELECT batchdedup.alter_target('t', reset => 'guard');
ROLLBACK;
SELECT guard FROM batchdedup.target WHERE target = 't'::regclass;
SELECT batchdedup.alter_target('t', guard => 'sometimes');

DROP SCHEMA regress_guard CASCADE;
