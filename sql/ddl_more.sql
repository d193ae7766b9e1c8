-- Less common changes while rows are buffered.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_ddl_more;
SET search_path = regress_ddl_more;
CREATE FUNCTION waiting(regclass) RETURNS bigint LANGUAGE sql AS
  'SELECT coalesce(sum(buffered_rows), 0) FROM batchdedup.stat_target WHERE target = $1';

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
GRANT ALL ON SCHEMA regress_ddl_more TO regress_bdd_owner;
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
-- Storage, sequences, owners
--
CREATE TABLE t (id serial PRIMARY KEY, v text, nr int);
CREATE SEQUENCE numbers OWNED BY t.nr;
ALTER TABLE t ALTER nr SET DEFAULT nextval('numbers');
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert('t', '{"id":1,"v":"logged"}');
ALTER TABLE t SET UNLOGGED;
ALTER TABLE t SET LOGGED;
ALTER TABLE t SET (autovacuum_enabled = off);
ALTER TABLE t ALTER v SET STORAGE EXTERNAL, ALTER v SET STATISTICS 10, ALTER v SET COMPRESSION pglz;
REINDEX TABLE t;
CLUSTER t USING t_pkey;
VACUUM FULL t;
SELECT count(*) <= 1 AS rows FROM t;
-- the number is taken when the row is applied
ALTER SEQUENCE numbers RESTART 100 INCREMENT 10;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT id, v, nr >= 1 AS nr FROM t;
SELECT batchdedup.upsert('t', '{"id":2,"v":"two"}');
ALTER SEQUENCE numbers OWNED BY NONE;
ALTER SEQUENCE numbers RENAME TO numbers_of_t;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT id, v, nr % 10 AS nr FROM t WHERE id = 2;
DROP SEQUENCE numbers_of_t CASCADE;
SELECT batchdedup.upsert('t', '{"id":3,"v":"no default"}');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t WHERE id = 3;
-- a new owner applies what waits
CREATE ROLE regress_bdd_other;
GRANT ALL ON SCHEMA regress_ddl_more TO regress_bdd_other;
ALTER TABLE t OWNER TO regress_bdd_owner;
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.v := current_user; RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION stamp();
SELECT batchdedup.upsert('t', '{"id":4}');
REASSIGN OWNED BY regress_bdd_owner TO regress_bdd_other;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT v FROM t WHERE id = 4;
-- its rights go, its table with them
SELECT batchdedup.upsert('t', '{"id":5}');
BEGIN;
DROP OWNED BY regress_bdd_other;
SELECT count(*) FROM batchdedup.target;
ROLLBACK;
SELECT batchdedup.get('t', '{"id":5}') ->> 'id' AS id;
DROP OWNED BY regress_bdd_other;
SELECT count(*) FROM batchdedup.target;
DROP ROLE regress_bdd_other;

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

--
-- Event triggers that write to a target
--
CREATE TABLE audit (command text PRIMARY KEY, calls int);
SELECT batchdedup.create_target('audit', flush_interval => '0');
CREATE FUNCTION audit_command() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('regress_ddl_more.audit', jsonb_build_object('command', TG_EVENT || ' ' || TG_TAG, 'calls', 1));
END $$;
CREATE TABLE watched (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('watched', flush_interval => '0');
CREATE EVENT TRIGGER regress_bdd_start ON ddl_command_start EXECUTE FUNCTION audit_command();
CREATE EVENT TRIGGER regress_bdd_end ON ddl_command_end EXECUTE FUNCTION audit_command();
CREATE EVENT TRIGGER regress_bdd_drop ON sql_drop EXECUTE FUNCTION audit_command();
CREATE EVENT TRIGGER regress_bdd_rewrite ON table_rewrite EXECUTE FUNCTION audit_command();
SELECT batchdedup.upsert('watched', '{"id":1,"v":1}');
ALTER TABLE watched ADD w int, ALTER v TYPE bigint;
SELECT batchdedup.upsert('watched', '{"id":2,"v":2}');
BEGIN;
ALTER TABLE watched DROP w;
ROLLBACK;
SELECT batchdedup.upsert('watched', '{"id":3,"w":3}');
ALTER TABLE audit ADD x int;
SELECT batchdedup.flush('watched') >= 0 AS flushed;
SELECT * FROM watched ORDER BY id;
DROP TABLE watched;
SELECT batchdedup.flush('audit') >= 0 AS flushed;
DROP EVENT TRIGGER regress_bdd_start, regress_bdd_end, regress_bdd_drop, regress_bdd_rewrite;
SELECT batchdedup.flush('audit') >= 0 AS flushed;
SELECT command, calls FROM audit ORDER BY command COLLATE "C";

SET client_min_messages = warning;
DROP SCHEMA regress_ddl_more CASCADE;
DROP ROLE regress_bdd_owner;
