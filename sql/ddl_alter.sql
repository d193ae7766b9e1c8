-- ALTER of a target with rows in the buffer: they are brought into the table
-- first, in the statement's own transaction.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_ddl;
SET search_path = regress_ddl;
CREATE TABLE t (id int PRIMARY KEY, v int, w int);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);
CREATE FUNCTION waiting(t regclass DEFAULT 'regress_ddl.t') RETURNS bigint LANGUAGE sql AS
$$ SELECT buffered_rows FROM batchdedup.stat_target WHERE target = $1 $$;

--
-- Each change, with a row in the buffer
--
SELECT batchdedup.upsert('t', '{"id":1,"v":1}');
ALTER TABLE t ADD x int DEFAULT 5;
TABLE t;
SELECT batchdedup.upsert('t', '{"id":2,"v":2,"x":2}');
ALTER TABLE t ALTER v TYPE text USING 'was ' || v;
SELECT batchdedup.upsert('t', '{"id":3,"v":"three"}');
ALTER TABLE t ALTER x SET DEFAULT 6;
SELECT batchdedup.upsert('t', '{"id":4,"v":"four"}');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT * FROM t ORDER BY id;
-- a NOT NULL, a check, a unique constraint: rows that are there must obey
SELECT batchdedup.upsert('t', '{"id":5,"v":null}');
ALTER TABLE t ALTER v SET NOT NULL;
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":5,"v":"five"}');
ALTER TABLE t ALTER v SET NOT NULL;
SELECT batchdedup.upsert('t', '{"id":6,"v":null}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":6,"v":"six","x":-1}');
ALTER TABLE t ADD CHECK (x > 0);
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":6,"x":1}');
ALTER TABLE t ADD CHECK (x > 0);
SELECT batchdedup.upsert('t', '{"id":7,"v":"six"}');
ALTER TABLE t ADD UNIQUE (v);
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":7,"v":"seven"}');
ALTER TABLE t ADD UNIQUE (v);
SELECT * FROM t ORDER BY id;
-- a foreign key
CREATE TABLE parent (id int PRIMARY KEY);
INSERT INTO parent SELECT x FROM t GROUP BY x;
SELECT batchdedup.upsert('t', '{"id":8,"v":"eight","x":8}');
ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES parent;
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":8,"v":"eight","x":5}');
ALTER TABLE t ADD FOREIGN KEY (x) REFERENCES parent;
SELECT waiting();
-- columns go
SELECT batchdedup.upsert('t', '{"id":9,"v":"nine","w":9}');
ALTER TABLE t DROP w;
SELECT id, v FROM t WHERE id = 9;
SELECT batchdedup.upsert('t', '{"id":9,"w":9}');
\echo :SQLSTATE
-- several commands in one statement, and IF EXISTS
SELECT batchdedup.upsert('t', '{"id":10,"v":"ten"}');
ALTER TABLE IF EXISTS t ADD y int, ADD z int DEFAULT 3, DROP CONSTRAINT t_x_check;
SELECT * FROM t WHERE id = 10;
ALTER TABLE IF EXISTS nowhere ADD y int;
-- identity, generated columns
SELECT batchdedup.upsert('t', '{"id":11,"v":"eleven"}');
ALTER TABLE t ADD made text GENERATED ALWAYS AS (v || '!') STORED, ADD nr int GENERATED ALWAYS AS IDENTITY;
SELECT id, made, nr IS NOT NULL AS nr FROM t WHERE id = 11;
SELECT batchdedup.upsert('t', '{"id":12,"v":"twelve"}');
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT batchdedup.upsert('t', '{"id":12,"v":"douze"}');
ALTER TABLE t ALTER made DROP EXPRESSION, ALTER nr DROP IDENTITY;
SELECT id, made FROM t WHERE id = 12;
SELECT batchdedup.upsert('t', '{"id":12,"made":"given"}');
ALTER TABLE t DROP made, DROP nr;

--
-- Names: rows stay where they are
--
SELECT batchdedup.alter_target('t', update_columns => 'v');
SELECT batchdedup.upsert('t', '{"id":20,"v":"twenty"}');
ALTER TABLE t RENAME v TO "V v";
SELECT batchdedup.upsert('t', '{"id":21,"V v":"twenty-one"}');
ALTER TABLE t RENAME id TO key;
ALTER TABLE t RENAME TO "T t";
CREATE SCHEMA regress_ddl2;
ALTER TABLE "T t" SET SCHEMA regress_ddl2;
ALTER SCHEMA regress_ddl2 RENAME TO regress_ddl3;
SELECT waiting('regress_ddl3."T t"');
SELECT target, key, update_columns FROM batchdedup.target WHERE target = 'regress_ddl3."T t"'::regclass;
SELECT batchdedup.upsert('regress_ddl3."T t"', '{"key":21,"V v":"renamed"}');
SELECT batchdedup.get('regress_ddl3."T t"', '{"key":21}') ->> 'V v' AS "V v";
SELECT batchdedup.flush('regress_ddl3."T t"') >= 0 AS flushed;
SELECT key, "V v" FROM regress_ddl3."T t" WHERE key >= 20 ORDER BY key;
-- rolled back
BEGIN;
ALTER TABLE regress_ddl3."T t" RENAME key TO id;
SELECT key FROM batchdedup.target WHERE target = 'regress_ddl3."T t"'::regclass;
SELECT batchdedup.upsert('regress_ddl3."T t"', '{"id":22,"V v":"rolled back"}');
ROLLBACK;
SELECT key FROM batchdedup.target WHERE target = 'regress_ddl3."T t"'::regclass;
SELECT batchdedup.upsert('regress_ddl3."T t"', '{"key":22,"V v":"kept"}');
SELECT batchdedup.flush('regress_ddl3."T t"') >= 0 AS flushed;
-- two columns change their names, and so do their rows
ALTER TABLE regress_ddl3."T t" SET SCHEMA regress_ddl;
ALTER TABLE "T t" RENAME TO t;
ALTER TABLE t RENAME key TO id;
ALTER TABLE t RENAME "V v" TO v;
CREATE TABLE swap (id int PRIMARY KEY, a int, b int);
SELECT batchdedup.create_target('swap', update_columns => 'a', flush_interval => '0');
SELECT batchdedup.upsert('swap', '{"id":1,"a":1,"b":2}');
ALTER TABLE swap RENAME a TO c;
ALTER TABLE swap RENAME b TO a;
ALTER TABLE swap RENAME c TO b;
SELECT update_columns FROM batchdedup.target WHERE target = 'swap'::regclass;
SELECT batchdedup.upsert('swap', '{"id":1,"a":20,"b":10}');
SELECT batchdedup.flush('swap') >= 0 AS flushed;
TABLE swap;
-- two tables change theirs
CREATE TABLE swap2 (id int PRIMARY KEY, c text);
SELECT batchdedup.create_target('swap2', flush_interval => '0');
SELECT batchdedup.upsert('swap', '{"id":2,"a":2}'), batchdedup.upsert('swap2', '{"id":2,"c":"two"}');
ALTER TABLE swap RENAME TO swap3;
ALTER TABLE swap2 RENAME TO swap;
ALTER TABLE swap3 RENAME TO swap2;
SELECT batchdedup.flush('swap', 'swap2') >= 0 AS flushed;
TABLE swap;
SELECT * FROM swap2 ORDER BY id;

--
-- Rolled back, to a savepoint, with rows pending before and after
--
CREATE TABLE r (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('r', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.upsert('r', '{"id":1,"v":1}');
BEGIN;
ALTER TABLE r ADD w int;
TABLE r;
ROLLBACK;
SELECT batchdedup.get('r', '{"id":1}');
-- in a savepoint, with pending rows before, and after it
BEGIN;
SELECT batchdedup.upsert('r', '{"id":2,"v":2}');
SAVEPOINT s;
SELECT batchdedup.upsert('r', '{"id":3,"v":3}');
ALTER TABLE r ADD w int;
SELECT * FROM r ORDER BY id;
SELECT batchdedup.upsert('r', '{"id":4,"w":4}');
SELECT * FROM r ORDER BY id;
ROLLBACK TO s;
SELECT batchdedup.get('r', '{"id":2}') -> 'v' AS v2, batchdedup.get('r', '{"id":3}') -> 'v' AS v3;
SELECT batchdedup.upsert('r', '{"id":5,"v":5}');
COMMIT;
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT * FROM r ORDER BY id;
-- committed
SELECT batchdedup.upsert('r', '{"id":1,"v":10}');
BEGIN;
SELECT batchdedup.upsert('r', '{"id":1,"v":11}');
SELECT batchdedup.delete('r', '{"id":2}');
ALTER TABLE r ADD w int DEFAULT 0;
SELECT * FROM r ORDER BY id;
SELECT batchdedup.upsert('r', '{"id":1,"w":12}');
SELECT batchdedup.upsert('r', '{"id":6,"v":6}');
COMMIT;
SELECT waiting('r');
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT * FROM r ORDER BY id;
-- released, and rolled back further up
SELECT batchdedup.upsert('r', '{"id":7,"v":7}');
BEGIN;
SAVEPOINT a;
SAVEPOINT b;
ALTER TABLE r ALTER v TYPE bigint;
RELEASE b;
ROLLBACK TO a;
SELECT batchdedup.upsert('r', '{"id":7,"w":77}');
COMMIT;
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT * FROM r WHERE id = 7;
-- the statement fails after the rows were brought in
SELECT batchdedup.upsert('r', '{"id":8,"v":8}');
ALTER TABLE r ALTER v TYPE date USING v::text::date;
\echo :SQLSTATE
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT * FROM r WHERE id = 8;
-- twice in one transaction
SELECT batchdedup.upsert('r', '{"id":9,"v":9}');
BEGIN;
ALTER TABLE r ADD x int;
SELECT batchdedup.upsert('r', '{"id":9,"x":9}');
ALTER TABLE r ADD y int;
SELECT batchdedup.upsert('r', '{"id":9,"y":9}');
COMMIT;
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT * FROM r WHERE id = 9;
-- a paused target, too: the ALTER must have the rows
SELECT batchdedup.pause('r');
SELECT batchdedup.upsert('r', '{"id":10,"v":10}');
ALTER TABLE r DROP y;
SELECT * FROM r WHERE id = 10;
SELECT batchdedup.resume('r');
-- a row that the table refuses becomes a dead letter
SELECT batchdedup.alter_target('r', update_columns => 'v, w');
ALTER TABLE r ADD CONSTRAINT positive CHECK (v > 0);
SELECT batchdedup.upsert('r', '[{"id":11,"v":-11},{"id":12,"v":12}]');
ALTER TABLE r DROP x;
SELECT * FROM r WHERE id > 10;
SELECT key, sqlstate FROM batchdedup.dead_letter WHERE target = 'r'::regclass;
-- its own pending rows are refused at the statement
BEGIN;
SELECT batchdedup.upsert('r', '{"id":13,"v":-13}');
ALTER TABLE r ADD x int;
\echo :SQLSTATE
ROLLBACK;
-- prepared statements, and functions that know the table
PREPARE put AS SELECT batchdedup.upsert(ROW($1, $2, NULL)::r);
EXECUTE put(14, 14);
ALTER TABLE r ADD x int DEFAULT 1;
EXECUTE put(15, 15);
\echo :SQLSTATE
ALTER TABLE r DROP x;
EXECUTE put(15, 15);
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT * FROM r WHERE id > 13 ORDER BY id;

--
-- The key's index, columns of the lists
--
CREATE TABLE k (id int PRIMARY KEY, v text, x int NOT NULL DEFAULT 0);
SELECT batchdedup.create_target('k', flush_interval => '0', update_columns => 'v, x');
-- replaced while rows wait
SELECT batchdedup.upsert('k', '{"id":1,"v":"one"}');
CREATE UNIQUE INDEX k_other ON k (id);
ALTER TABLE k DROP CONSTRAINT k_pkey;
SELECT batchdedup.flush('k') >= 0 AS flushed;
SELECT batchdedup.upsert('k', '{"id":1,"v":"un"}');
ALTER TABLE k ADD CONSTRAINT k_pkey PRIMARY KEY USING INDEX k_other;
SELECT batchdedup.flush('k') >= 0 AS flushed;
REINDEX TABLE k;
SELECT batchdedup.upsert('k', '{"id":1,"v":"uno"}');
ALTER INDEX k_pkey RENAME TO k_renamed;
SELECT batchdedup.flush('k') >= 0 AS flushed;
TABLE k;
-- dropped while rows wait: they wait on
SELECT batchdedup.upsert('k', '{"id":2,"v":"two"}');
ALTER TABLE k DROP CONSTRAINT k_renamed;
SELECT batchdedup.upsert('k', '{"id":3,"v":"three"}');
\echo :SQLSTATE
SELECT batchdedup.flush('k') >= 0 AS flushed;
\echo :SQLSTATE
SELECT batchdedup.get('k', '{"id":2}');
\echo :SQLSTATE
SELECT batchdedup.flush() >= 0 AS flushed;
SELECT waiting('k');
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('k', '{"id":3,"v":"three"}');
\echo :SQLSTATE
RESET batchdedup.enabled;
CREATE UNIQUE INDEX ON k (id);
SELECT batchdedup.flush('k') >= 0 AS flushed;
SELECT * FROM k ORDER BY id;
-- no rows wait: other ways out
DROP INDEX k_id_idx;
UPDATE k SET x = id;
ALTER TABLE k ADD UNIQUE (x);
BEGIN;
SELECT batchdedup.alter_target('k', key => 'x', update_columns => 'v');
SELECT batchdedup.upsert('k', '{"id":70,"x":70,"v":"by x"}');
COMMIT;
SELECT batchdedup.flush('k') >= 0 AS flushed;
SELECT * FROM k ORDER BY id;
ALTER TABLE k DROP CONSTRAINT k_x_key;
SELECT batchdedup.drop_target('k');
SELECT count(*) FROM batchdedup.target WHERE target = 'k'::regclass;
-- a key column that can be null
ALTER TABLE k ADD UNIQUE (id);
SELECT batchdedup.create_target('k', key => 'id', flush_interval => '0', update_columns => 'v, x');
ALTER TABLE k ALTER id DROP NOT NULL;
SELECT batchdedup.upsert('k', '{"id":80,"v":"eighty"}');
SELECT batchdedup.upsert('k', '{"id":null,"v":"null"}');
\echo :SQLSTATE
SELECT batchdedup.flush('k') >= 0 AS flushed;
ALTER TABLE k ALTER id SET NOT NULL;
-- a column of the lists goes
SELECT batchdedup.upsert('k', '{"id":81,"v":"before"}');
ALTER TABLE k DROP x;
SELECT id, v FROM k WHERE id = 81;
SELECT batchdedup.upsert('k', '{"id":81,"v":"after"}');
\echo :SQLSTATE
SELECT batchdedup.flush('k') >= 0 AS flushed;
\echo :SQLSTATE
SELECT batchdedup.flush() >= 0 AS flushed;
ALTER TABLE k ADD y int;
SELECT batchdedup.pause('k');
SELECT batchdedup.resume('k');
BEGIN;
SELECT batchdedup.drop_target('k');
ROLLBACK;
SELECT batchdedup.alter_target('k', reset => 'update_columns');
SELECT batchdedup.upsert('k', '{"id":81,"v":"after","y":1}');
SELECT batchdedup.flush('k') >= 0 AS flushed;
SELECT * FROM k WHERE id = 81;
-- a column of the key goes, and its index with it
CREATE TABLE k2 (a int, b int, v int, PRIMARY KEY (a, b));
SELECT batchdedup.create_target('k2', flush_interval => '0');
SELECT batchdedup.upsert('k2', '{"a":1,"b":1,"v":1}');
ALTER TABLE k2 DROP b;
TABLE k2;
SELECT batchdedup.upsert('k2', '{"a":1,"v":2}');
\echo :SQLSTATE
ALTER TABLE k2 ADD PRIMARY KEY (a);
SELECT batchdedup.alter_target('k2', reset => 'key');
SELECT batchdedup.upsert('k2', '{"a":1,"v":2}');
SELECT batchdedup.flush('k2') >= 0 AS flushed;
TABLE k2;

--
-- What changes nothing for rows
--
SELECT batchdedup.upsert('r', '{"id":30,"v":30}');
ALTER TABLE r SET (fillfactor = 50);
ANALYZE r;
CREATE INDEX ON r (v);
CREATE INDEX CONCURRENTLY r_concurrently ON r (w);
REINDEX TABLE CONCURRENTLY r;
COMMENT ON TABLE r IS 'with rows in the buffer';
GRANT SELECT ON r TO PUBLIC;
ALTER TABLE r ENABLE ROW LEVEL SECURITY;
ALTER TABLE r DISABLE ROW LEVEL SECURITY;
ALTER TABLE r CLUSTER ON r_pkey;
VACUUM FULL r;
CLUSTER r;
ALTER TABLE r SET UNLOGGED;
ALTER TABLE r REPLICA IDENTITY FULL;
CREATE ROLE regress_bdd_owner;
GRANT ALL ON SCHEMA regress_ddl TO regress_bdd_owner;
ALTER TABLE r OWNER TO regress_bdd_owner;
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT * FROM r WHERE id = 30;
-- what is applied later is applied by the new owner
CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.w := length(current_user); RETURN NEW; END';
CREATE TRIGGER stamp BEFORE INSERT ON r FOR EACH ROW EXECUTE FUNCTION stamp();
SELECT batchdedup.upsert('r', '{"id":31,"v":31}');
SELECT batchdedup.flush('r') >= 0 AS flushed;
SELECT w = length('regress_bdd_owner') AS new_owner FROM r WHERE id = 31;
-- other tables are of no concern
CREATE TABLE other (id int);
ALTER TABLE other ADD v int;
DROP TABLE other;
-- who may not alter the table does not move its rows
CREATE ROLE regress_bdd_nobody;
GRANT USAGE ON SCHEMA regress_ddl TO regress_bdd_nobody;
SELECT batchdedup.upsert('r', '{"id":32,"v":32}');
SET ROLE regress_bdd_nobody;
ALTER TABLE r ADD x int;
\echo :SQLSTATE
TRUNCATE r;
\echo :SQLSTATE
DROP TABLE r;
\echo :SQLSTATE
RESET ROLE;
SELECT batchdedup.flush('r') >= 0 AS flushed;

--
-- Storage, sequences, owners
--
DROP FUNCTION waiting(regclass);
DROP TABLE t, r;
DROP FUNCTION stamp();
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
GRANT ALL ON SCHEMA regress_ddl TO regress_bdd_other;
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
SELECT count(*) FROM batchdedup.target WHERE target::text = 't';
ROLLBACK;
SELECT batchdedup.get('t', '{"id":5}') ->> 'id' AS id;
DROP OWNED BY regress_bdd_other;
SELECT count(*) FROM batchdedup.target WHERE target::text = 't';
DROP ROLE regress_bdd_other;

--
-- Event triggers that write to a target
--
CREATE TABLE audit (command text PRIMARY KEY, calls int);
SELECT batchdedup.create_target('audit', flush_interval => '0');
CREATE FUNCTION audit_command() RETURNS event_trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('regress_ddl.audit', jsonb_build_object('command', TG_EVENT || ' ' || TG_TAG, 'calls', 1));
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
DROP SCHEMA regress_ddl, regress_ddl3 CASCADE;
DROP ROLE regress_bdd_owner, regress_bdd_nobody;
