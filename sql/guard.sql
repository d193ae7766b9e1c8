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

-- emptied and filled again: what was buffered is gone, also for the guard
SELECT batchdedup.alter_target('t', guard => 'flush');
SELECT batchdedup.upsert('t', '{"id":9,"v":9}');
BEGIN;
TRUNCATE t;
COPY t FROM stdin WITH (FREEZE);
1	1
2	2
\.
UPDATE t SET v = 11 WHERE id = 1;
COMMIT;
SELECT batchdedup.alter_target('t', guard => 'error');
SELECT batchdedup.upsert('t', '{"id":9,"v":9}');
-- paused: TRUNCATE seals, and the worker may be there first
SELECT batchdedup.pause('t');
BEGIN;
TRUNCATE t;
INSERT INTO t VALUES (3, 3);
SAVEPOINT s;
ROLLBACK;
BEGIN;
SAVEPOINT s;
TRUNCATE t;
ROLLBACK TO s;
INSERT INTO t VALUES (3, 3);
ROLLBACK;
SELECT batchdedup.resume('t');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;

--
-- Tables that share rows with a target
--
-- partitions of a target
CREATE TABLE whole (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF whole FOR VALUES FROM (0) TO (100) PARTITION BY RANGE (id);
CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (10);
CREATE TABLE high PARTITION OF whole FOR VALUES FROM (100) TO (200);
INSERT INTO whole VALUES (1, 1), (101, 1);
SELECT batchdedup.create_target('whole', flush_interval => '0', guard => 'error');
INSERT INTO lowest VALUES (2, 2);
SELECT batchdedup.upsert('whole', '{"id":101,"v":2}');
INSERT INTO lowest VALUES (3, 3);
UPDATE low SET v = 4;
DELETE FROM high;
COPY high FROM '/dev/null';
MERGE INTO lowest USING (VALUES (1, 33)) AS s(id, v) ON lowest.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v;
SELECT batchdedup.alter_target('whole', guard => 'warn');
UPDATE whole SET v = 5 WHERE id = 1;
UPDATE lowest SET v = 6 WHERE id = 1;
SELECT foreign_writes FROM batchdedup.stat_target WHERE target = 'whole'::regclass;
SELECT batchdedup.alter_target('whole', guard => 'flush');
UPDATE high SET v = v + 1 RETURNING v;
-- a target that is a partition, written by way of the whole; where INSERT
-- sends its rows is not known before
CREATE TABLE parent (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parent FOR VALUES FROM (0) TO (100);
CREATE TABLE beside PARTITION OF parent FOR VALUES FROM (100) TO (200);
SELECT batchdedup.create_target('part', flush_interval => '0', guard => 'error');
SELECT batchdedup.upsert('part', '{"id":1,"v":1}');
UPDATE parent SET v = 2;
UPDATE parent SET v = 2 WHERE id > 100;
DELETE FROM parent WHERE id = 1;
MERGE INTO parent USING (VALUES (1, 33)) AS s(id, v) ON parent.id = s.id WHEN MATCHED THEN UPDATE SET v = s.v;
INSERT INTO beside VALUES (101, 1);
INSERT INTO parent VALUES (2, 2);
-- tables that inherit
CREATE TABLE base (id int PRIMARY KEY, v int);
CREATE TABLE derived (PRIMARY KEY (id)) INHERITS (base);
SELECT batchdedup.create_target('derived', flush_interval => '0', guard => 'error');
SELECT batchdedup.upsert('derived', '{"id":1,"v":1}');
UPDATE base SET v = 1;
UPDATE ONLY base SET v = 1;
INSERT INTO base VALUES (2, 2);
SELECT batchdedup.flush('part', 'derived') >= 0 AS flushed;
-- views
CREATE VIEW v AS SELECT * FROM t;
SELECT batchdedup.upsert('t', '{"id":9,"v":10}');
UPDATE v SET v = 0;
SELECT batchdedup.flush('t') >= 0 AS flushed;

--
-- Rows that a foreign key deletes
--
CREATE TABLE owner (id int PRIMARY KEY);
CREATE TABLE owned (id int PRIMARY KEY, o int REFERENCES owner ON DELETE CASCADE);
INSERT INTO owner VALUES (1), (2);
SELECT batchdedup.create_target('owned', flush_interval => '0', guard => 'error');
INSERT INTO owned VALUES (1, 1);
SELECT batchdedup.upsert('owned', '{"id":2,"o":2}');
DELETE FROM owner WHERE id = 1;
SELECT batchdedup.alter_target('owned', guard => 'flush');
DELETE FROM owner WHERE id = 1;
TABLE owned;
-- it cannot be waited for rows that wait for what is deleted
SELECT batchdedup.upsert('owned', '{"id":3,"o":2}');
\set VERBOSITY terse
DELETE FROM owner WHERE id = 2;
\set VERBOSITY default
SELECT batchdedup.flush('owned') >= 0 AS flushed;
DELETE FROM owner WHERE id = 2;
TABLE owned;

DROP SCHEMA regress_guard CASCADE;
