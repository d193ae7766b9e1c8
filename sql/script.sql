-- The extension's script: what its parts in src/*/*.sql must not forget, and
-- that it is of the library's version.
CREATE SCHEMA regress_script;
SET search_path = regress_script;
SET client_min_messages = warning;
CREATE ROLE regress_bdd_script;
\a
\pset footer off

-- From 18 on a table's row type and the arrays of types are members, too.
CREATE VIEW member AS
SELECT d.classid, d.objid FROM pg_depend d
 WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
   AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'batchdedup')
   AND NOT (d.classid = 'pg_type'::regclass AND EXISTS (
       SELECT FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
        WHERE t.oid = d.objid AND (c.relkind <> 'c' OR t.typcategory = 'A')));

-- Comments: functions, tables, views, types, and each column of these.
SELECT pg_describe_object(m.classid, m.objid, 0) AS without_comment FROM member m
 WHERE coalesce(obj_description(m.objid, m.classid::regclass::name), '') = ''
   AND NOT (m.classid = 'pg_class'::regclass AND EXISTS (SELECT FROM pg_class c WHERE c.oid = m.objid AND c.relkind = 'S'))
   AND m.classid <> 'pg_namespace'::regclass
 ORDER BY 1;
SELECT pg_describe_object('pg_class'::regclass, a.attrelid, a.attnum) AS without_comment
  FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
 WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'c')
   AND (EXISTS (SELECT FROM member m WHERE m.classid = 'pg_class'::regclass AND m.objid = c.oid) OR
        EXISTS (SELECT FROM member m WHERE m.classid = 'pg_type'::regclass AND m.objid = c.reltype))
   AND coalesce(col_description(a.attrelid, a.attnum), '') = ''
 ORDER BY 1;
-- Those of functions that users do not call say whose they are.
SELECT p.oid::regprocedure AS whose, obj_description(p.oid, 'pg_proc')
  FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
 WHERE p.proname LIKE '%\_internal' AND obj_description(p.oid, 'pg_proc') !~ '^(part of |trigger of |internal: )'
 ORDER BY 1;

-- Privileges: what grant_batches does not grant of the functions that are not
-- everybody's. Each part has its own list of those that it does.
SELECT batchdedup.grant_batches('regress_bdd_script');
SELECT p.oid::regprocedure AS not_granted
  FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
 WHERE NOT has_function_privilege('regress_bdd_script', p.oid, 'EXECUTE')
 ORDER BY p.proname COLLATE "C";

-- Versions: calls of any kind say that they differ.
CREATE TABLE t (id int PRIMARY KEY, v text);
CREATE TABLE s (id int PRIMARY KEY, v text);
SELECT batchdedup.create_target('t');
SELECT batchdedup.create_view('t');
SELECT batchdedup.upsert(ROW(1, 'before')::t);
SELECT batchdedup.flush('t');
UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'batchdedup';
\c -
SET search_path = regress_script;
\pset footer off
\a
SELECT batchdedup.upsert(ROW(2, 'two')::t);
\set VERBOSITY sqlstate
SELECT batchdedup.upsert('t', '{"id": 2}');
SELECT batchdedup.flush();
SELECT batchdedup.get('t', '{"id": 1}');
INSERT INTO t_buffered VALUES (2, 'two');
SELECT batchdedup.create_target('s');
SELECT count(*) FROM batchdedup.stat_target;
SELECT count(*) FROM batchdedup.health();
SELECT batchdedup.create_batch('regress_script');
SELECT batchdedup.publish_event('regress_script');
SELECT batchdedup.create_consumer('regress_script');
SELECT batchdedup.create_sync('regress_script', 't', 's');
SELECT batchdedup.pause_sync('regress_script');
\set VERBOSITY default
-- What has nothing to do with the buffer goes on.
INSERT INTO s VALUES (1, 'plain');
ALTER TABLE s ADD COLUMN w int;
SELECT target FROM batchdedup.target WHERE target = 't'::regclass;
SELECT batchdedup.canonical_json('{"b": 1, "a": 2}');
-- No call, no error: the versions are the same again.
UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'batchdedup')
 WHERE extname = 'batchdedup';
SELECT batchdedup.upsert(ROW(2, 'two')::t);
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
-- ALTER EXTENSION tells all sessions to look again.
UPDATE pg_extension SET extversion = '0.9' WHERE extname = 'batchdedup';
BEGIN;
ALTER EXTENSION batchdedup UPDATE TO '0.9';
SELECT batchdedup.upsert(ROW(3, 'three')::t);
ROLLBACK;
UPDATE pg_extension SET extversion = (SELECT default_version FROM pg_available_extensions WHERE name = 'batchdedup')
 WHERE extname = 'batchdedup';
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

SELECT batchdedup.drop_target('t');
SET client_min_messages = warning;
DROP SCHEMA regress_script CASCADE;
DROP OWNED BY regress_bdd_script;
DROP ROLE regress_bdd_script;
