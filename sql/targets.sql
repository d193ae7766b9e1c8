-- Which tables can be targets, and by which key.
\a
\pset footer off
CREATE SCHEMA regress_targets;
SET search_path = regress_targets;
CREATE ROLE regress_bdd_alice;
GRANT USAGE, CREATE ON SCHEMA regress_targets TO regress_bdd_alice;
\pset null '(null)'

--
-- Options: what later versions bring is refused today, never accepted and ignored
--

CREATE TABLE t (id int PRIMARY KEY, n int, at timestamptz);

SELECT batchdedup.create_target('t', mode => 'shadow');
\echo :SQLSTATE
SELECT count(*) FROM batchdedup.target;

-- The values that there are can be named.
SELECT batchdedup.create_target('t', merge => NULL, version_column => NULL, logged => false, mode => 'buffered',
    on_full => 'wait', guard => 'off', flush_group => NULL, coalesce_rows => true);

-- alter_target is no way around.
SELECT batchdedup.alter_target('t', mode => 'shadow');
\echo :SQLSTATE
SELECT batchdedup.alter_target('t', logged => false, mode => 'buffered', on_full => 'wait', guard => 'off', coalesce_rows => true);
SELECT merge, version_column, logged, mode, on_full, guard, flush_group, coalesce_rows FROM batchdedup.target;
DROP TABLE t;

--
-- Choice of the key
--

CREATE TABLE pk (id int PRIMARY KEY, v text, w text);
SELECT batchdedup.create_target('pk');
SELECT target, key, update_columns, merge, version_column, logged, mode, flush_interval, flush_rows, on_full, guard,
       flush_group, coalesce_rows, paused
  FROM batchdedup.target WHERE target = 'pk'::regclass \gx
CREATE TABLE two (a int NOT NULL, b text NOT NULL, c int, UNIQUE (a, b));
SELECT batchdedup.create_target('two');
\echo :SQLSTATE
SELECT batchdedup.create_target('two', key => 'b, a');
SELECT target, key FROM batchdedup.target WHERE target = 'two'::regclass;
SELECT batchdedup.drop_target('two');
-- an array literal is a list, too
SELECT batchdedup.create_target('two', '{a,b}', update_columns => '{c}');
SELECT target, key, update_columns FROM batchdedup.target WHERE target = 'two'::regclass;
SELECT batchdedup.drop_target('two');

-- a unique index that is no constraint, with columns beside the key
CREATE TABLE idx (a int NOT NULL, b int NOT NULL, c int);
CREATE UNIQUE INDEX idx_a ON idx (a) INCLUDE (b);
SELECT batchdedup.create_target('idx', key => 'a');
SELECT batchdedup.drop_target('idx');
-- NULLS NOT DISTINCT, DESC make no difference
DROP INDEX idx_a;
CREATE UNIQUE INDEX ON idx (b DESC NULLS LAST) NULLS NOT DISTINCT;
SELECT batchdedup.create_target('idx', key => 'b');
SELECT batchdedup.drop_target('idx');

-- a list of columns is read as SQL reads names
CREATE TABLE "Quoted" ("Id" int PRIMARY KEY, "with ""quote" int, "a,b" int, plain int);
SELECT batchdedup.create_target('"Quoted"', update_columns => ' "with ""quote" ,"a,b", PLAIN ');
SELECT target, key, update_columns FROM batchdedup.target WHERE target = '"Quoted"'::regclass;
SELECT batchdedup.alter_target('"Quoted"', key => 'Id');
\echo :SQLSTATE

-- no unique index on just these columns: says what to run
CREATE TABLE noidx (a int NOT NULL, "B" int NOT NULL, c int NOT NULL, d int NOT NULL);
SELECT batchdedup.create_target('noidx', key => 'a, "B"');
\echo :SQLSTATE
CREATE UNIQUE INDEX noidx_partial ON noidx (a, "B") WHERE a > 0;
CREATE UNIQUE INDEX noidx_expression ON noidx ((a + 0), "B");
CREATE UNIQUE INDEX noidx_more ON noidx (a, "B", c);
CREATE INDEX noidx_not_unique ON noidx (a, "B");
ALTER TABLE noidx ADD CONSTRAINT noidx_deferrable UNIQUE (a, "B") DEFERRABLE;
ALTER TABLE noidx ADD CONSTRAINT noidx_exclude EXCLUDE USING btree (a WITH =, "B" WITH =);
SELECT batchdedup.create_target('noidx', key => 'a, "B"');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', key => 'a');
SELECT batchdedup.create_target('noidx', key => 'd, c, "B", a');

-- a deferrable primary key is none
CREATE TABLE deferrable_pk (id int PRIMARY KEY DEFERRABLE);
SELECT batchdedup.create_target('deferrable_pk');
\echo :SQLSTATE

-- a key column that can be null: says what to run
CREATE TABLE "Nullable" (a int UNIQUE, v int);
SELECT batchdedup.create_target('"Nullable"', key => 'a');
\echo :SQLSTATE

-- lists with mistakes
SELECT batchdedup.create_target('noidx', key => 'a, nope');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', key => 'a, b');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', key => 'a, a');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', key => 'a,,b');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', key => '{a,NULL}');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', key => '{a');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', key => 'ctid');
\echo :SQLSTATE
ALTER TABLE noidx ADD PRIMARY KEY (a);
SELECT batchdedup.create_target('noidx', update_columns => 'c, nope');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', update_columns => 'c, c');
\echo :SQLSTATE
SELECT batchdedup.create_target('noidx', update_columns => 'a, c');
\echo :SQLSTATE
SELECT batchdedup.create_target(NULL);
\echo :SQLSTATE
SELECT batchdedup.create_target('no_such_table');
\echo :SQLSTATE

--
-- What is no target
--

CREATE VIEW a_view AS SELECT * FROM pk;
SELECT batchdedup.create_target('a_view');
\echo :SQLSTATE
CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM pk;
CREATE UNIQUE INDEX ON a_matview (id);
SELECT batchdedup.create_target('a_matview', key => 'id');
\echo :SQLSTATE
CREATE SEQUENCE a_sequence;
SELECT batchdedup.create_target('a_sequence');
\echo :SQLSTATE
SELECT batchdedup.create_target('pk_pkey');
\echo :SQLSTATE
CREATE TYPE a_type AS (a int);
SELECT batchdedup.create_target('a_type');
\echo :SQLSTATE
CREATE FOREIGN DATA WRAPPER regress_bdd_fdw;
CREATE SERVER regress_bdd_server FOREIGN DATA WRAPPER regress_bdd_fdw;
CREATE FOREIGN TABLE a_foreign (id int NOT NULL) SERVER regress_bdd_server;
SELECT batchdedup.create_target('a_foreign', key => 'id');
\echo :SQLSTATE
CREATE TEMP TABLE a_temp (id int PRIMARY KEY);
SELECT batchdedup.create_target('a_temp');
\echo :SQLSTATE
SELECT batchdedup.create_target('pg_class', key => 'oid');
\echo :SQLSTATE
SELECT batchdedup.create_target('batchdedup.target_option', key => 'target_id');
\echo :SQLSTATE
CREATE TABLE ruled (id int PRIMARY KEY, v int);
CREATE RULE ruled AS ON INSERT TO ruled DO ALSO NOTHING;
SELECT batchdedup.create_target('ruled');
\echo :SQLSTATE
SET ROLE regress_bdd_alice;
SELECT batchdedup.create_target('noidx');
\echo :SQLSTATE
CREATE TABLE hers (id int PRIMARY KEY);
SELECT batchdedup.create_target('hers');
RESET ROLE;
SELECT batchdedup.drop_target('hers');

-- a second registration
SELECT batchdedup.create_target('pk');
\echo :SQLSTATE
SELECT batchdedup.create_target('pk', if_not_exists => true);
SELECT batchdedup.create_target('idx', key => 'b', if_not_exists => true);

-- not in a read-only transaction
BEGIN READ ONLY;
SELECT batchdedup.create_target('noidx');
\echo :SQLSTATE
ROLLBACK;

--
-- Other unique indexes
--

CREATE TABLE other (id int PRIMARY KEY, code text UNIQUE);
SELECT batchdedup.create_target('other');
-- an identity column can hardly find a row
CREATE TABLE identity_key (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    a int NOT NULL, "B" int NOT NULL, v int, UNIQUE (a, "B"));
SELECT batchdedup.create_target('identity_key');
SELECT batchdedup.drop_target('identity_key');
SELECT batchdedup.create_target('identity_key', key => 'a, "B"');
-- and cannot be overwritten
SELECT batchdedup.alter_target('identity_key', update_columns => 'id');
\echo :SQLSTATE

--
-- Columns of all kinds
--

CREATE TABLE generated (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED UNIQUE NOT NULL);
SELECT batchdedup.create_target('generated', key => 'twice');
\echo :SQLSTATE
SELECT batchdedup.create_target('generated', update_columns => 'a, twice');
\echo :SQLSTATE
SELECT batchdedup.create_target('generated');

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (x int, y text);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE TABLE kinds (id positive PRIMARY KEY, dropped int, m mood, p pair, a int[], ps pair[], j jsonb, js json,
    n numeric(6,2), "Mixed Case" text, gone text);
ALTER TABLE kinds DROP dropped, DROP gone;
SELECT batchdedup.create_target('kinds', flush_interval => '0');
SELECT batchdedup.upsert('kinds', '{"id":1,"m":"ok","p":{"x":1,"y":"one"},"a":[1,2],"ps":[{"x":2,"y":"two"},null],"j":{"k":[1]},"js":{"b":1,"a":2},"n":1.005,"Mixed Case":"M"}');
SELECT batchdedup.upsert(ROW(2,'sad',(1,'x'),'{3}','{"(4,y)"}','1','2',7,'T')::kinds);
SELECT batchdedup.flush('kinds');
SELECT * FROM kinds ORDER BY id \gx
SELECT batchdedup.upsert('kinds', '{"id":3,"dropped":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('kinds', '{"id":3,"........pg.dropped.2........":1}');
\echo :SQLSTATE

-- another schema, whatever its name
CREATE SCHEMA "Regress ""Other";
CREATE TABLE "Regress ""Other"."T'1" ("k 1" int, "K""2" text, "V" int, PRIMARY KEY ("k 1", "K""2"));
SELECT batchdedup.upsert('"Regress ""Other"."T''1"', '{"k 1":1,"K\"2":"a","V":5}');
\echo :SQLSTATE
SELECT batchdedup.create_target('"Regress ""Other"."T''1"', flush_interval => '0');
SELECT batchdedup.upsert('"Regress ""Other"."T''1"', '{"k 1":1,"K\"2":"a","V":5}');
SELECT batchdedup.upsert(ROW(1, 'a', 6)::"Regress ""Other"."T'1");
SELECT batchdedup.get('"Regress ""Other"."T''1"', '{"k 1":1,"K\"2":"a"}');
SELECT batchdedup.delete('"Regress ""Other"."T''1"', '{"k 1":2,"K\"2":"a"}');
SELECT batchdedup.flush('"Regress ""Other"."T''1"');
TABLE "Regress ""Other"."T'1";

-- partitioned tables: the parent, or a partition for itself
CREATE TABLE parted (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE parted_n PARTITION OF parted FOR VALUES IN ('n');
-- with columns in another order
CREATE TABLE parted_s (v int, region text NOT NULL, id int NOT NULL);
ALTER TABLE parted ATTACH PARTITION parted_s FOR VALUES IN ('s');
CREATE TABLE parted_rest PARTITION OF parted DEFAULT PARTITION BY RANGE (id);
CREATE TABLE parted_rest_1 PARTITION OF parted_rest FOR VALUES FROM (0) TO (100);
SELECT batchdedup.create_target('parted', flush_interval => '0');
SELECT batchdedup.upsert('parted', '[{"id":1,"region":"n","v":1},{"id":1,"region":"s","v":2},{"id":1,"region":"w","v":3}]');
SELECT batchdedup.flush('parted');
SELECT batchdedup.upsert('parted', '[{"id":1,"region":"n","v":10},{"id":1,"region":"s"},{"id":2,"region":"s","v":20}]');
SELECT batchdedup.delete('parted', '{"id":1,"region":"w"}');
SELECT batchdedup.flush('parted');
SELECT tableoid::regclass, id, region, v FROM parted ORDER BY id, region;
SELECT batchdedup.create_target('parted_s', key => 'id, region', flush_interval => '0');
SELECT batchdedup.upsert(ROW(30, 's', 3)::parted_s);
SELECT batchdedup.flush('parted_s');
SELECT tableoid::regclass, id, region, v FROM parted ORDER BY id, region;

-- an inheritance parent: its own rows only, as INSERT
CREATE TABLE parent (id int PRIMARY KEY, v int);
CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent);
INSERT INTO child VALUES (1, 100);
SELECT batchdedup.create_target('parent', flush_interval => '0');
SELECT batchdedup.upsert('parent', '{"id":1,"v":1}');
SELECT batchdedup.get('parent', '{"id":1}');
SELECT batchdedup.flush('parent');
SELECT batchdedup.delete('parent', '{"id":1}');
SELECT batchdedup.get('parent', '{"id":1}');
SELECT batchdedup.flush('parent');
SELECT tableoid::regclass, * FROM parent;

-- unlogged
CREATE UNLOGGED TABLE unlogged (id int PRIMARY KEY);
SELECT batchdedup.create_target('unlogged');
\echo :SQLSTATE
SELECT batchdedup.create_target('unlogged', logged => false);

-- all columns are the key
CREATE TABLE only_key (a int, b int, PRIMARY KEY (a, b));
SELECT batchdedup.create_target('only_key', flush_interval => '0');
SELECT batchdedup.upsert('only_key', '[{"a":1,"b":1},{"a":1,"b":1},{"a":1,"b":2}]');
SELECT batchdedup.flush('only_key');
SELECT batchdedup.upsert('only_key', '{"a":1,"b":1}');
SELECT batchdedup.flush('only_key');
TABLE only_key;

--
-- alter_target
--

CREATE TABLE alt (id int PRIMARY KEY, code text NOT NULL UNIQUE, v int, w int);
SELECT batchdedup.create_target('alt', flush_interval => '1 minute', flush_rows => 5);
SELECT target, key, update_columns, flush_interval, flush_rows, paused FROM batchdedup.target WHERE target = 'alt'::regclass;
SELECT batchdedup.alter_target('alt', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.alter_target('alt', update_columns => 'v');
SELECT target, key, update_columns, flush_interval, flush_rows FROM batchdedup.target WHERE target = 'alt'::regclass;
-- what is buffered is applied by the old rules
SELECT batchdedup.upsert('alt', '{"id":1,"code":"a","v":1,"w":1}');
SELECT batchdedup.upsert('alt', '{"id":1,"code":"b","v":2,"w":2}');
SELECT batchdedup.alter_target('alt', update_columns => 'w');
TABLE alt;
SELECT batchdedup.upsert('alt', '{"id":1,"code":"c","v":3,"w":3}');
SELECT batchdedup.alter_target('alt', key => 'code', update_columns => '');
TABLE alt;
SELECT target, key, update_columns FROM batchdedup.target WHERE target = 'alt'::regclass;
SELECT batchdedup.upsert('alt', '{"code":"a","id":7,"v":7}');
SELECT batchdedup.upsert('alt', '{"code":"z","id":8,"v":8}');
SELECT batchdedup.flush('alt');
SELECT * FROM alt ORDER BY id;
SELECT batchdedup.alter_target('alt', reset => 'key, update_columns, flush_interval');
SELECT target, key, update_columns, flush_interval, flush_rows FROM batchdedup.target WHERE target = 'alt'::regclass;
SELECT batchdedup.alter_target('alt', reset => '{flush_rows}');
-- options of which there is one value only so far
SELECT batchdedup.alter_target('alt', reset => 'merge, version_column, logged, mode, on_full, guard, flush_group, coalesce_rows');
-- nothing to do is no error
SELECT batchdedup.alter_target('alt');
SELECT target, key, update_columns, flush_interval, flush_rows FROM batchdedup.target WHERE target = 'alt'::regclass;

-- mistakes
SELECT batchdedup.alter_target('alt', reset => 'nope');
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', reset => 'flush_rows, flush_rows');
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', flush_rows => 1, reset => 'flush_rows');
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', key => 'code', reset => 'key');
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', flush_interval => '-1 second');
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', flush_interval => '1 day -25 hours');
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', flush_rows => -1);
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', key => 'v');
\echo :SQLSTATE
-- update columns that stay must fit the new key
SELECT batchdedup.alter_target('alt', update_columns => 'code, v');
SELECT batchdedup.alter_target('alt', key => 'code');
\echo :SQLSTATE
SELECT batchdedup.alter_target('alt', key => 'code', update_columns => 'v');
SELECT batchdedup.alter_target('noidx', flush_rows => 1);
\echo :SQLSTATE
SELECT batchdedup.alter_target(NULL, flush_rows => 1);
\echo :SQLSTATE
SET ROLE regress_bdd_alice;
SELECT batchdedup.alter_target('alt', flush_rows => 1);
\echo :SQLSTATE
RESET ROLE;

-- it belongs to the transaction
BEGIN;
SELECT batchdedup.alter_target('alt', flush_rows => 99);
ROLLBACK;
SELECT target, key, update_columns, flush_interval, flush_rows FROM batchdedup.target WHERE target = 'alt'::regclass;
-- not with pending rows of its own
BEGIN;
SELECT batchdedup.upsert('alt', '{"code":"p","id":9}');
SELECT batchdedup.alter_target('alt', update_columns => 'w');
\echo :SQLSTATE
ROLLBACK;

--
-- drop_target
--

SELECT batchdedup.alter_target('alt', reset => 'update_columns', flush_interval => '0');
SELECT batchdedup.upsert('alt', '{"code":"dropped","id":10}');
SELECT batchdedup.drop_target('alt');
SELECT * FROM alt WHERE code = 'dropped';
SELECT count(*) FROM batchdedup.target WHERE target = 'alt'::regclass;
SELECT batchdedup.upsert('alt', '{"code":"late","id":11}');
\echo :SQLSTATE
SELECT batchdedup.drop_target('alt');
\echo :SQLSTATE
SELECT batchdedup.drop_target('alt', if_exists => true);
SELECT batchdedup.drop_target(NULL);
\echo :SQLSTATE
SET ROLE regress_bdd_alice;
SELECT batchdedup.drop_target('pk');
\echo :SQLSTATE
RESET ROLE;
-- rolled back: still a target, and what was buffered is in the table or in the buffer
SELECT batchdedup.alter_target('pk', flush_interval => '0');
SELECT batchdedup.upsert('pk', '{"id":1,"v":"kept"}');
BEGIN;
SELECT batchdedup.drop_target('pk');
ROLLBACK;
SELECT batchdedup.upsert('pk', '{"id":2,"v":"after"}');
SELECT batchdedup.flush('pk') >= 1 AS flushed;
SELECT * FROM pk ORDER BY id;
-- dropped and created again at once
BEGIN;
SELECT batchdedup.drop_target('pk');
SELECT batchdedup.create_target('pk', flush_interval => '0', update_columns => 'w');
SELECT batchdedup.upsert('pk', '{"id":2,"v":"ignored","w":"new"}');
COMMIT;
SELECT batchdedup.flush('pk');
SELECT * FROM pk ORDER BY id;

-- a table, its registration and rows in one transaction
BEGIN;
CREATE TABLE fresh (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('fresh', flush_interval => '0');
SELECT batchdedup.upsert(ROW(1, 1)::fresh);
COMMIT;
SELECT batchdedup.flush('fresh');
TABLE fresh;
-- rolled back: nothing is left, nor is memory for it
SELECT targets FROM batchdedup.stat_buffer \gset before_
BEGIN;
CREATE TABLE fresh2 (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('fresh2', flush_interval => '0');
SELECT batchdedup.upsert(ROW(1, 1)::fresh2);
ROLLBACK;
BEGIN;
SELECT batchdedup.create_target('only_key');
ROLLBACK;
SELECT targets - :before_targets AS more FROM batchdedup.stat_buffer;

-- a value that this version does not know is not taken for another one
BEGIN;
ALTER TABLE batchdedup.target_option DROP CONSTRAINT target_option_mode_check;
CREATE TABLE fresh3 (id int PRIMARY KEY);
SELECT batchdedup.create_target('fresh3');
UPDATE batchdedup.target_option SET mode = 'shadow' WHERE target = 'fresh3'::regclass;
SELECT batchdedup.upsert(ROW(1)::fresh3);
\echo :SQLSTATE
ROLLBACK;

DROP SCHEMA "Regress ""Other" CASCADE;
SET client_min_messages = warning;
DROP SCHEMA regress_targets CASCADE;
DROP FOREIGN DATA WRAPPER regress_bdd_fdw CASCADE;
DROP ROLE regress_bdd_alice;
-- with the tables the registrations went
SELECT count(*) FROM batchdedup.target;
SELECT count(*) FROM batchdedup.target_option WHERE NOT own;
