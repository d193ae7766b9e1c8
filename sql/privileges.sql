-- Who may do what.
\a
\pset footer off
\pset null '(null)'
CREATE SCHEMA regress_privileges;
SET search_path = regress_privileges;
CREATE ROLE regress_bdd_owner;
CREATE ROLE regress_bdd_writer;
CREATE ROLE regress_bdd_member IN ROLE regress_bdd_writer;
CREATE ROLE regress_bdd_reader;
CREATE ROLE regress_bdd_nobody;
CREATE ROLE regress_bdd_monitor IN ROLE pg_monitor;
GRANT USAGE ON SCHEMA regress_privileges TO PUBLIC;
GRANT CREATE ON SCHEMA regress_privileges TO regress_bdd_owner;
SET ROLE regress_bdd_owner;
CREATE TABLE t (id int PRIMARY KEY, a int, b int, c int DEFAULT 1);
SELECT batchdedup.create_target('t', flush_interval => '0');
GRANT INSERT, UPDATE ON t TO regress_bdd_writer;
GRANT SELECT ON t TO regress_bdd_reader;

--
-- Writing: INSERT and UPDATE
--
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":1,"a":1}');
SELECT batchdedup.upsert(ROW(2, 2, 2, 2)::t);
SELECT batchdedup.upsert(ARRAY[ROW(3, 3, 3, 3)]::t[]);
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (4, 4)) AS s(id, a);
SELECT batchdedup.flush('t');
-- a member of the role
SET ROLE regress_bdd_member;
SELECT batchdedup.upsert('t', '{"id":1,"a":10}');
SELECT batchdedup.flush('t');
-- deleting takes DELETE, reading SELECT
SET ROLE regress_bdd_writer;
SELECT batchdedup.delete('t', '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.delete(ROW(1, 1, 1, 1)::t);
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":1}');
\echo :SQLSTATE
SELECT * FROM batchdedup.buffered(NULL::t);
\echo :SQLSTATE
-- an error of the table is told without its values
SET ROLE regress_bdd_owner;
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- not the row's fault, it says: the row stays in the buffer
    RAISE EXCEPTION 'value % is secret', NEW.a USING ERRCODE = 'undefined_column';
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse();
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":5,"a":12345}');
SELECT batchdedup.flush('t');
\echo :SQLSTATE
RESET ROLE;
SET ROLE regress_bdd_monitor;
SELECT target, buffered_rows, failures > 0 AS failing, last_error_at IS NOT NULL AS at, last_error_sqlstate, last_error FROM batchdedup.stat_target;
RESET ROLE;
SELECT target, buffered_rows, failures > 0 AS failing, last_error_at IS NOT NULL AS at, last_error_sqlstate, last_error FROM batchdedup.stat_target;
GRANT SELECT ON t TO regress_bdd_monitor;
SET ROLE regress_bdd_monitor;
SELECT last_error FROM batchdedup.stat_target;
RESET ROLE;
CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT batchdedup.flush('t');
DROP FUNCTION refuse CASCADE;

-- somebody without privileges
SET ROLE regress_bdd_nobody;
SELECT batchdedup.upsert('t', '{"id":1,"a":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(1, 1, 1, 1)::t);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (4, 4)) AS s(id, a);
\echo :SQLSTATE
SELECT batchdedup.delete('t', '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":1}');
\echo :SQLSTATE
SELECT * FROM batchdedup.buffered(NULL::t);
\echo :SQLSTATE
SELECT batchdedup.flush('t');
\echo :SQLSTATE
-- of all targets he may flush: none
SELECT batchdedup.flush();
SELECT batchdedup.create_target('t');
\echo :SQLSTATE
SELECT batchdedup.alter_target('t', flush_rows => 1);
\echo :SQLSTATE
SELECT batchdedup.drop_target('t');
\echo :SQLSTATE
SELECT batchdedup.pause('t');
\echo :SQLSTATE
SELECT batchdedup.resume('t');
\echo :SQLSTATE
-- not even from privileges that he had a moment ago
SET ROLE regress_bdd_owner;
REVOKE UPDATE ON t FROM regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert(ROW(2, 2, 2, 2)::t);
\echo :SQLSTATE
SET ROLE regress_bdd_owner;
GRANT UPDATE ON t TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert(ROW(2, 2, 2, 2)::t);
SET ROLE regress_bdd_member;
SELECT batchdedup.upsert(ROW(2, 2, 2, 2)::t);
RESET ROLE;
REVOKE regress_bdd_writer FROM regress_bdd_member;
SET ROLE regress_bdd_member;
SELECT batchdedup.upsert(ROW(2, 2, 2, 2)::t);
\echo :SQLSTATE
RESET ROLE;
-- who may do the one and not the other
SET ROLE regress_bdd_reader;
SELECT batchdedup.get('t', '{"id":2}');
SELECT * FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.upsert('t', '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.flush('t');
\echo :SQLSTATE
SET ROLE regress_bdd_owner;
GRANT INSERT ON t TO regress_bdd_reader;
SET ROLE regress_bdd_reader;
SELECT batchdedup.upsert('t', '{"id":1,"a":1}');
\echo :SQLSTATE
SET ROLE regress_bdd_owner;
GRANT DELETE ON t TO regress_bdd_reader;
SET ROLE regress_bdd_reader;
SELECT batchdedup.delete('t', '{"id":2}');
SET ROLE regress_bdd_owner;
SELECT batchdedup.flush('t');
REVOKE ALL ON t FROM regress_bdd_reader, regress_bdd_writer, regress_bdd_monitor;

-- columns
GRANT INSERT (id, a, b), UPDATE (a) ON t TO regress_bdd_writer;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":6,"a":6}');
SELECT batchdedup.upsert('t', '{"id":6,"a":6,"b":6}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":6,"c":6}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(6, 6, 6, 6)::t);
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":6}');
SELECT batchdedup.flush('t');
-- what is not overwritten needs no UPDATE
SET ROLE regress_bdd_owner;
SELECT batchdedup.alter_target('t', update_columns => 'a');
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":7,"a":7,"b":7}');
SELECT batchdedup.flush('t');
-- reading takes SELECT on the whole row
SET ROLE regress_bdd_owner;
GRANT SELECT (id, a) ON t TO regress_bdd_reader;
SET ROLE regress_bdd_reader;
SELECT batchdedup.get('t', '{"id":7}');
\echo :SQLSTATE
SET ROLE regress_bdd_owner;
GRANT SELECT (b, c) ON t TO regress_bdd_reader;
SET ROLE regress_bdd_reader;
SELECT batchdedup.get('t', '{"id":7}');
RESET ROLE;
-- schemas: without USAGE no name is found
REVOKE USAGE ON SCHEMA regress_privileges FROM PUBLIC;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('regress_privileges.t', '{"id":7,"a":7}');
\echo :SQLSTATE
RESET ROLE;
GRANT USAGE ON SCHEMA regress_privileges TO PUBLIC;

-- a function that runs as its owner
SET ROLE regress_bdd_owner;
CREATE FUNCTION put(int) RETURNS void LANGUAGE sql SECURITY DEFINER AS
$$ SELECT batchdedup.upsert('regress_privileges.t', jsonb_build_object('id', $1, 'a', $1)) $$;
SET ROLE regress_bdd_nobody;
SELECT put(8);
RESET ROLE;
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

--
-- What everybody may see, and what nobody may change
--
SET ROLE regress_bdd_nobody;
SELECT target, key FROM batchdedup.target ORDER BY target::text;
SELECT * FROM batchdedup.target_option;
\echo :SQLSTATE
SELECT * FROM batchdedup.mark;
\echo :SQLSTATE
SELECT * FROM batchdedup.stat_target;
\echo :SQLSTATE
SELECT * FROM batchdedup.stat_buffer;
\echo :SQLSTATE
SELECT * FROM batchdedup.stat_worker;
\echo :SQLSTATE
SELECT * FROM batchdedup.stat_target_internal();
\echo :SQLSTATE
DELETE FROM batchdedup.target;
\echo :SQLSTATE
UPDATE batchdedup.target_option SET paused = true;
\echo :SQLSTATE
INSERT INTO batchdedup.mark VALUES (1, 1);
\echo :SQLSTATE
SET ROLE regress_bdd_owner;
UPDATE batchdedup.target_option SET paused = true;
\echo :SQLSTATE
CREATE TABLE batchdedup.intruder (id int);
\echo :SQLSTATE
SET ROLE regress_bdd_monitor;
SELECT count(*) > 0 AS some FROM batchdedup.stat_target;
SELECT count(*) FROM batchdedup.stat_buffer;
SELECT count(*) > 0 AS some FROM batchdedup.stat_worker;
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA regress_privileges CASCADE;
DROP ROLE regress_bdd_owner, regress_bdd_writer, regress_bdd_member, regress_bdd_reader, regress_bdd_nobody, regress_bdd_monitor;
