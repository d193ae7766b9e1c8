-- Changes that reach a target by another name than its own: through a parent,
-- a partition, a type.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_ddl_parents;
SET search_path = regress_ddl_parents;
CREATE FUNCTION waiting(regclass) RETURNS bigint LANGUAGE sql AS
  'SELECT coalesce(sum(buffered_rows), 0) FROM batchdedup.stat_target WHERE target = $1';

--
-- A partition that is a target for itself
--
CREATE TABLE parent (id int NOT NULL, v int) PARTITION BY RANGE (id);
CREATE TABLE part PARTITION OF parent (PRIMARY KEY (id)) FOR VALUES FROM (0) TO (100);
SELECT batchdedup.create_target('part', flush_interval => '0', update_columns => 'v');
SELECT batchdedup.upsert('part', '{"id":1,"v":1}');
ALTER TABLE parent ADD x int;
TABLE part;
SELECT batchdedup.upsert('part', '{"id":2,"v":2,"x":2}');
ALTER TABLE parent ALTER v TYPE text;
SELECT batchdedup.upsert('part', '{"id":3,"v":"three"}');
ALTER TABLE parent RENAME v TO vv;
ALTER TABLE parent RENAME id TO key;
SELECT key, update_columns FROM batchdedup.target WHERE target = 'part'::regclass;
SELECT batchdedup.upsert('part', '{"key":4,"vv":"four"}');
SELECT batchdedup.flush('part') >= 0 AS flushed;
SELECT * FROM parent ORDER BY key;
SELECT batchdedup.upsert('part', '{"key":5,"x":5}');
ALTER TABLE parent DROP x;
SELECT * FROM parent ORDER BY key;
SELECT batchdedup.upsert('part', '{"key":6}');
BEGIN;
TRUNCATE parent;
SELECT count(*) FROM batchdedup.buffered(NULL::part);
ROLLBACK;
SELECT batchdedup.flush('part') >= 0 AS flushed;
SELECT batchdedup.upsert('part', '{"key":7}');
TRUNCATE parent;
SELECT batchdedup.flush('part') >= 0 AS flushed;
TABLE parent;
SELECT batchdedup.upsert('part', '{"key":8}');
BEGIN;
DROP TABLE parent;
SELECT count(*) FROM batchdedup.target;
ROLLBACK;
SELECT batchdedup.flush('part') >= 0 AS flushed;
TABLE parent;
SELECT batchdedup.upsert('part', '{"key":9}');
ALTER TABLE parent DETACH PARTITION part;
TABLE part;
SELECT batchdedup.upsert('part', '{"key":10}');
ALTER TABLE parent ATTACH PARTITION part FOR VALUES FROM (0) TO (100);
SELECT batchdedup.flush('part') >= 0 AS flushed;
SELECT * FROM parent ORDER BY key;
-- a bound that is narrower: rows must obey when it is attached
ALTER TABLE parent DETACH PARTITION part;
SELECT batchdedup.upsert('part', '{"key":200}');
ALTER TABLE parent ATTACH PARTITION part FOR VALUES FROM (0) TO (100);
\echo :SQLSTATE
SELECT batchdedup.delete('part', '{"key":200}');
ALTER TABLE parent ATTACH PARTITION part FOR VALUES FROM (0) TO (100);
SELECT batchdedup.upsert('part', '{"key":11}');
DROP TABLE parent;
SELECT count(*) FROM batchdedup.target;

--
-- Partitions of a target
--
CREATE TABLE whole (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE whole_1 PARTITION OF whole FOR VALUES FROM (0) TO (100);
CREATE TABLE whole_2 PARTITION OF whole FOR VALUES FROM (100) TO (200);
SELECT batchdedup.create_target('whole', flush_interval => '0');
-- rows go with the partition that they belong to
SELECT batchdedup.upsert('whole', '[{"id":1,"v":1},{"id":101,"v":1}]');
ALTER TABLE whole DETACH PARTITION whole_1;
TABLE whole_1;
TABLE whole;
SELECT batchdedup.upsert('whole', '{"id":102,"v":2}');
ALTER TABLE whole ATTACH PARTITION whole_1 FOR VALUES FROM (0) TO (100);
SELECT batchdedup.upsert('whole', '{"id":2,"v":2}');
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole ORDER BY id;
-- rolled back
SELECT batchdedup.upsert('whole', '{"id":3,"v":3}');
BEGIN;
SELECT batchdedup.upsert('whole', '{"id":4,"v":4}');
SAVEPOINT s;
ALTER TABLE whole DETACH PARTITION whole_1;
SELECT * FROM whole_1 ORDER BY id;
ROLLBACK TO s;
SELECT batchdedup.upsert('whole', '{"id":5,"v":5}');
COMMIT;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole WHERE id < 100 ORDER BY id;
-- a new partition, and rows that waited for it
SELECT batchdedup.upsert('whole', '{"id":201,"v":1}');
CREATE TABLE whole_3 PARTITION OF whole FOR VALUES FROM (200) TO (300);
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole WHERE id > 200;
-- TRUNCATE of a partition takes its rows, in the buffer too, and no others
SELECT batchdedup.upsert('whole', '[{"id":6,"v":6},{"id":103,"v":3}]');
TRUNCATE whole_1;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole ORDER BY id;
SELECT batchdedup.upsert('whole', '[{"id":7,"v":7},{"id":104,"v":4}]');
BEGIN;
TRUNCATE whole_2;
SELECT batchdedup.upsert('whole', '{"id":105,"v":5}');
ROLLBACK;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole ORDER BY id;
-- DROP of a partition does, too
SELECT batchdedup.upsert('whole', '[{"id":8,"v":8},{"id":106,"v":6}]');
DROP TABLE whole_1;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole ORDER BY id;
SELECT key, sqlstate FROM batchdedup.dead_letter WHERE target = 'whole'::regclass;
SELECT batchdedup.discard_dead_letters('whole') >= 0 AS discarded;
-- TRUNCATE of the whole
SELECT batchdedup.upsert('whole', '{"id":107,"v":7}');
TRUNCATE whole;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
TABLE whole;
-- TRUNCATE by CASCADE
CREATE TABLE ref (id int PRIMARY KEY, v int);
CREATE TABLE refers (id int PRIMARY KEY, r int REFERENCES ref);
SELECT batchdedup.create_target('refers', flush_interval => '0');
-- (paused: a worker that applies would hold a lock that TRUNCATE wants)
SELECT batchdedup.pause('refers');
INSERT INTO ref VALUES (1);
SELECT batchdedup.upsert('refers', '{"id":1,"r":1}');
BEGIN;
TRUNCATE ref CASCADE;
SELECT batchdedup.upsert('refers', '{"id":2}');
ROLLBACK;
SELECT batchdedup.get('refers', '{"id":1}');
TRUNCATE ref CASCADE;
SELECT batchdedup.resume('refers');
SELECT batchdedup.flush('refers') >= 0 AS flushed;
TABLE refers;
-- a partition's own changes
SELECT batchdedup.upsert('whole', '{"id":108,"v":-8}');
ALTER TABLE whole_2 ADD CHECK (v > 0);
\echo :SQLSTATE
SELECT batchdedup.flush('whole') >= 0 AS flushed;
TABLE whole;
DROP TABLE whole, ref, refers;

--
-- Partitions that leave and come, one after the other
--
CREATE TABLE whole (id int PRIMARY KEY, v int) PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF whole FOR VALUES FROM (0) TO (100);
CREATE TABLE high PARTITION OF whole FOR VALUES FROM (100) TO (200);
SELECT batchdedup.create_target('whole', flush_interval => '0');
-- CONCURRENTLY: rows that were there before go with the partition
SELECT batchdedup.upsert('whole', '[{"id":1,"v":1},{"id":101,"v":1}]');
ALTER TABLE whole DETACH PARTITION low CONCURRENTLY;
TABLE low;
TABLE whole;
-- what comes for it afterwards is refused, as by the table
SELECT batchdedup.upsert('whole', '{"id":2,"v":2}');
SELECT batchdedup.flush('whole');
SELECT key, sqlstate FROM batchdedup.dead_letter WHERE target = 'whole'::regclass;
-- it comes back, with rows that wait for it
SELECT batchdedup.upsert('whole', '{"id":3,"v":3}');
ALTER TABLE whole ATTACH PARTITION low FOR VALUES FROM (0) TO (100);
SELECT batchdedup.flush('whole');
SELECT batchdedup.retry_dead_letters('whole');
SELECT tableoid::regclass, * FROM whole ORDER BY id;
-- paused: rows cannot get there
SELECT batchdedup.pause('whole');
SELECT batchdedup.upsert('whole', '{"id":4,"v":4}');
ALTER TABLE whole DETACH PARTITION low CONCURRENTLY;
\echo :SQLSTATE
SELECT batchdedup.resume('whole');
ALTER TABLE whole DETACH PARTITION low CONCURRENTLY;
SELECT * FROM low ORDER BY id;
-- a partition that is a target for itself
SELECT batchdedup.create_target('low', flush_interval => '0');
ALTER TABLE whole ATTACH PARTITION low FOR VALUES FROM (0) TO (100);
SELECT batchdedup.upsert('low', '{"id":5,"v":5}');
ALTER TABLE whole DETACH PARTITION low CONCURRENTLY;
SELECT batchdedup.flush('low') >= 0 AS flushed;
SELECT batchdedup.upsert('low', '{"id":6,"v":6}');
SELECT batchdedup.flush('low') >= 0 AS flushed;
SELECT * FROM low WHERE id > 4 ORDER BY id;
-- not the owner
CREATE ROLE regress_bdd_owner;
GRANT ALL ON SCHEMA regress_ddl_parents TO regress_bdd_owner;
SELECT batchdedup.upsert('whole', '{"id":102,"v":2}');
SET ROLE regress_bdd_owner;
ALTER TABLE whole DETACH PARTITION high CONCURRENTLY;
\echo :SQLSTATE
RESET ROLE;
SELECT waiting('whole');
DROP TABLE whole, low;

--
-- TRUNCATE ... CASCADE that reaches a partition of a target
--
CREATE TABLE ref (id int PRIMARY KEY);
CREATE TABLE whole (id int PRIMARY KEY, r int) PARTITION BY RANGE (id);
CREATE TABLE low PARTITION OF whole FOR VALUES FROM (0) TO (100);
CREATE TABLE high PARTITION OF whole FOR VALUES FROM (100) TO (200);
ALTER TABLE low ADD FOREIGN KEY (r) REFERENCES ref;
INSERT INTO ref VALUES (1);
SELECT batchdedup.create_target('whole', flush_interval => '0');
SELECT batchdedup.upsert('whole', '[{"id":1,"r":1},{"id":2},{"id":101}]');
BEGIN;
TRUNCATE ref CASCADE;
TABLE whole;
ROLLBACK;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole ORDER BY id;
SELECT batchdedup.upsert('whole', '[{"id":1,"r":1},{"id":3},{"id":102}]');
TRUNCATE ref CASCADE;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
SELECT tableoid::regclass, * FROM whole ORDER BY id;
SELECT count(*) FROM batchdedup.dead_letter WHERE target = 'whole'::regclass;
-- the whole refers
ALTER TABLE whole ADD FOREIGN KEY (r) REFERENCES ref;
SELECT batchdedup.upsert('whole', '{"id":4}');
TRUNCATE ref CASCADE;
SELECT batchdedup.flush('whole') >= 0 AS flushed;
TABLE whole;
DROP TABLE whole, ref;

--
-- Inheritance
--
CREATE TABLE base (id int PRIMARY KEY, v int);
CREATE TABLE derived (PRIMARY KEY (id)) INHERITS (base);
SELECT batchdedup.create_target('derived', flush_interval => '0', update_columns => 'v');
SELECT batchdedup.upsert('derived', '{"id":1,"v":1}');
ALTER TABLE base RENAME v TO vv;
ALTER TABLE base RENAME id TO key;
SELECT key, update_columns FROM batchdedup.target WHERE target = 'derived'::regclass;
SELECT batchdedup.upsert('derived', '{"key":2,"vv":2}');
ALTER TABLE base ALTER vv TYPE text;
SELECT * FROM derived ORDER BY key;
SELECT batchdedup.upsert('derived', '{"key":3,"vv":"three"}');
ALTER TABLE base ADD w int;
SELECT batchdedup.upsert('derived', '{"key":3,"w":3}');
ALTER TABLE derived NO INHERIT base;
SELECT * FROM derived ORDER BY key;
SELECT batchdedup.upsert('derived', '{"key":4,"w":4}');
ALTER TABLE derived INHERIT base;
SELECT * FROM base ORDER BY key;

--
-- Types
--
-- a table of a composite type
CREATE TYPE row_of AS (id int, v int);
CREATE TABLE of_type OF row_of (PRIMARY KEY (id));
SELECT batchdedup.create_target('of_type', flush_interval => '0', update_columns => 'v');
SELECT batchdedup.upsert('of_type', '{"id":1,"v":1}');
ALTER TYPE row_of ADD ATTRIBUTE w int CASCADE;
TABLE of_type;
SELECT batchdedup.upsert('of_type', '{"id":2,"v":2}');
ALTER TYPE row_of ALTER ATTRIBUTE v TYPE text CASCADE;
SELECT batchdedup.upsert('of_type', '{"id":3,"v":"three"}');
ALTER TYPE row_of RENAME ATTRIBUTE v TO vv CASCADE;
SELECT key, update_columns FROM batchdedup.target WHERE target = 'of_type'::regclass;
SELECT batchdedup.upsert('of_type', '{"id":4,"vv":"four","w":4}');
ALTER TYPE row_of DROP ATTRIBUTE w CASCADE;
SELECT * FROM of_type ORDER BY id;
SELECT batchdedup.upsert('of_type', '{"id":5,"vv":"five"}');
BEGIN;
ALTER TYPE row_of ADD ATTRIBUTE x int CASCADE;
SELECT batchdedup.upsert('of_type', '{"id":6,"x":6}');
ROLLBACK;
SELECT batchdedup.flush('of_type') >= 0 AS flushed;
ALTER TABLE of_type NOT OF;
SELECT batchdedup.upsert('of_type', '{"id":7,"vv":"seven"}');
ALTER TABLE of_type OF row_of;
SELECT * FROM of_type ORDER BY id;
-- columns that go with their type
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE moody (id int PRIMARY KEY, m mood, v int);
SELECT batchdedup.create_target('moody', flush_interval => '0');
SELECT batchdedup.upsert('moody', '{"id":1,"m":"sad","v":1}');
DROP TYPE mood CASCADE;
\echo :SQLSTATE
ALTER TYPE mood RENAME VALUE 'sad' TO 'unhappy';
ALTER TYPE mood ADD VALUE 'ok';
ALTER TYPE mood RENAME TO mood2;
SELECT batchdedup.flush('moody') >= 0 AS flushed;
TABLE moody;
DROP TYPE mood2 CASCADE;
SELECT batchdedup.upsert('moody', '{"id":1,"v":2}');
SELECT batchdedup.flush('moody') >= 0 AS flushed;
TABLE moody;
-- composite values in the buffer stay valid
CREATE TYPE pair AS (x int, y int);
CREATE TABLE typed (id int PRIMARY KEY, p pair, ps pair[]);
SELECT batchdedup.create_target('typed', flush_interval => '0');
SELECT batchdedup.upsert('typed', '{"id":1,"p":{"x":1,"y":2},"ps":[{"x":3,"y":4}]}');
ALTER TYPE pair ADD ATTRIBUTE z int;
ALTER TYPE pair RENAME ATTRIBUTE x TO xx;
SELECT batchdedup.upsert('typed', '{"id":2,"p":{"xx":1,"y":2,"z":3}}');
SELECT batchdedup.flush('typed') >= 0 AS flushed;
SELECT id, (p).xx, (p).y, (p).z, ps FROM typed ORDER BY id;
SELECT batchdedup.upsert('typed', '{"id":3,"p":{"xx":1,"y":2,"z":3}}');
ALTER TYPE pair DROP ATTRIBUTE y;
SELECT batchdedup.flush('typed') >= 0 AS flushed;
SELECT id, (p).xx, (p).z FROM typed ORDER BY id;
DROP TABLE typed;
DROP TYPE pair;
-- domains: what a column's domain comes to demand, rows in the buffer must obey
CREATE DOMAIN small AS int;
CREATE DOMAIN smaller AS small;
CREATE TABLE domains (id int PRIMARY KEY, s small, t smaller);
SELECT batchdedup.create_target('domains', flush_interval => '0');
SELECT batchdedup.upsert('domains', '{"id":1,"s":100}');
ALTER DOMAIN small ADD CONSTRAINT small CHECK (VALUE < 10);
\echo :SQLSTATE
SELECT batchdedup.upsert('domains', '{"id":1,"s":1}');
ALTER DOMAIN small ADD CONSTRAINT small CHECK (VALUE < 10);
SELECT * FROM domains;
SELECT batchdedup.upsert('domains', '{"id":1,"s":100}');
\echo :SQLSTATE
SELECT batchdedup.upsert('domains', '{"id":2,"t":2}');
ALTER DOMAIN smaller ADD CHECK (VALUE > 5);
\echo :SQLSTATE
SELECT batchdedup.upsert('domains', '[{"id":2,"t":6},{"id":3,"s":3}]');
ALTER DOMAIN smaller ADD CHECK (VALUE > 5);
SELECT * FROM domains ORDER BY id;
SELECT batchdedup.upsert('domains', '{"id":4,"s":null,"t":7}');
ALTER DOMAIN small SET NOT NULL;
\echo :SQLSTATE
ALTER DOMAIN small DROP CONSTRAINT small;
SELECT batchdedup.flush('domains') >= 0 AS flushed;
SELECT * FROM domains ORDER BY id;
-- in a transaction that is rolled back
SELECT batchdedup.upsert('domains', '{"id":5,"s":500}');
BEGIN;
SAVEPOINT a;
ALTER DOMAIN small ADD CONSTRAINT small CHECK (VALUE < 1000);
SELECT count(*) FROM domains WHERE id = 5;
ROLLBACK TO a;
COMMIT;
SELECT batchdedup.flush('domains') >= 0 AS flushed;
-- who does not own the domain does not reach the tables
CREATE ROLE regress_bdd_nobody;
GRANT USAGE ON SCHEMA regress_ddl_parents TO regress_bdd_nobody;
SELECT batchdedup.upsert('domains', '{"id":6,"s":6}');
SET ROLE regress_bdd_nobody;
ALTER DOMAIN small ADD CHECK (VALUE < 1000);
\echo :SQLSTATE
RESET ROLE;
SELECT batchdedup.flush('domains') >= 0 AS flushed;

--
-- Types and collations of the key
--
CREATE COLLATION german (provider = libc, locale = 'C');
CREATE TABLE c (k text COLLATE german PRIMARY KEY, v int);
SELECT batchdedup.create_target('c', flush_interval => '0');
SELECT batchdedup.upsert('c', '{"k":"a","v":1}');
ALTER COLLATION german RENAME TO saxon;
SELECT batchdedup.upsert('c', '{"k":"a","v":2}');
SELECT batchdedup.flush('c') >= 0 AS flushed;
TABLE c;
SELECT batchdedup.upsert('c', '{"k":"b","v":1}');
SET batchdedup.enabled = on;
SELECT batchdedup.upsert('c', '{"k":"b","v":2}');
DROP COLLATION saxon CASCADE;
\echo :SQLSTATE
SELECT batchdedup.flush('c') >= 0 AS flushed;
DROP COLLATION saxon CASCADE;
SELECT batchdedup.upsert('c', '{"k":"c","v":3}');
\echo :SQLSTATE
RESET batchdedup.enabled;
SELECT v FROM c ORDER BY v;
DROP TABLE c;
-- an operator class, and the index with it
CREATE FUNCTION backwards_cmp(int, int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT btint4cmp($2, $1)';
CREATE OPERATOR CLASS backwards FOR TYPE int USING btree AS
    OPERATOR 1 >, OPERATOR 2 >=, OPERATOR 3 =, OPERATOR 4 <=, OPERATOR 5 <, FUNCTION 1 backwards_cmp(int, int);
CREATE TABLE o (k int NOT NULL, v int);
CREATE UNIQUE INDEX o_k ON o (k backwards);
SELECT batchdedup.create_target('o', key => 'k', flush_interval => '0');
SELECT batchdedup.upsert('o', '[{"k":1,"v":1},{"k":2,"v":2},{"k":1,"v":3}]');
SET client_min_messages = warning;
DROP OPERATOR FAMILY backwards USING btree CASCADE;
RESET client_min_messages;
SELECT batchdedup.upsert('o', '{"k":2,"v":4}');
\echo :SQLSTATE
CREATE UNIQUE INDEX ON o (k);
SELECT batchdedup.upsert('o', '{"k":2,"v":4}');
SELECT batchdedup.flush('o') >= 0 AS flushed;
SELECT * FROM o ORDER BY k;
-- an enum that grows, and is renamed, under its rows
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE TABLE moods (m mood PRIMARY KEY, v int);
SELECT batchdedup.create_target('moods', flush_interval => '0');
SELECT batchdedup.upsert('moods', '[{"m":"sad","v":1},{"m":"happy","v":2}]');
ALTER TYPE mood ADD VALUE 'fine' AFTER 'sad';
ALTER TYPE mood RENAME VALUE 'happy' TO 'glad';
SELECT batchdedup.upsert('moods', '[{"m":"fine","v":3},{"m":"glad","v":4}]');
SELECT batchdedup.flush('moods') >= 0 AS flushed;
SELECT * FROM moods ORDER BY m;
-- a composite type in the row
CREATE TYPE pair AS (x int, y int);
CREATE TABLE pairs (id int PRIMARY KEY, p pair);
SELECT batchdedup.create_target('pairs', flush_interval => '0');
SELECT batchdedup.upsert('pairs', '{"id":1,"p":{"x":1,"y":2}}');
ALTER TYPE pair RENAME ATTRIBUTE x TO z;
ALTER TYPE pair ADD ATTRIBUTE t text;
SELECT batchdedup.upsert('pairs', '{"id":2,"p":{"z":3,"y":4,"t":"new"}}');
SELECT batchdedup.flush('pairs') >= 0 AS flushed;
SELECT id, (p).z, (p).y, (p).t FROM pairs ORDER BY id;

SET client_min_messages = warning;
DROP SCHEMA regress_ddl_parents CASCADE;
DROP ROLE regress_bdd_owner, regress_bdd_nobody;
