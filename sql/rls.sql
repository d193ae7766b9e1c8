-- Row-level security: whom it binds writes directly, and reads nothing from
-- the buffer.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_rls;
SET search_path = regress_rls;
CREATE ROLE regress_bdd_owner;
CREATE ROLE regress_bdd_writer;
CREATE ROLE regress_bdd_other;
GRANT USAGE, CREATE ON SCHEMA regress_rls TO regress_bdd_owner;
GRANT USAGE ON SCHEMA regress_rls TO regress_bdd_writer, regress_bdd_other;
SET ROLE regress_bdd_owner;
CREATE TABLE t (id int PRIMARY KEY, who name DEFAULT current_user, v int);
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON t USING (who = current_user);
GRANT ALL ON t TO regress_bdd_writer, regress_bdd_other;
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);

-- the owner is not bound: buffered
SELECT batchdedup.upsert('t', '{"id":1,"v":1}');
SELECT count(*) FROM t;
SELECT batchdedup.get('t', '{"id":1}');
SELECT count(*) FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.flush('t');

-- others are: their rows are in the table at once
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":2,"v":2}');
TABLE t;
SELECT batchdedup.upsert(ROW(3, 'regress_bdd_writer', 3)::t);
SELECT batchdedup.upsert(ARRAY[ROW(3, 'regress_bdd_writer', 33), ROW(4, 'regress_bdd_writer', 4)]::t[]);
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (4, 44)) AS s(id, v);
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.delete(ROW(3, NULL, NULL)::t);
TABLE t;
-- in his transaction
BEGIN;
SELECT batchdedup.upsert('t', '{"id":5,"v":5}');
SAVEPOINT s;
SELECT batchdedup.upsert('t', '{"id":5,"v":6}');
ROLLBACK TO s;
TABLE t;
ROLLBACK;
TABLE t;
-- not past the policy: neither new rows, nor rows of others
SELECT batchdedup.upsert('t', '{"id":6,"who":"regress_bdd_other","v":6}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":1,"v":666}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(1, 'regress_bdd_writer', 666)::t);
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":4,"who":"regress_bdd_other"}');
\echo :SQLSTATE
-- a row that he cannot see is not there to delete
SELECT batchdedup.delete('t', '{"id":1}');
-- nothing is read from the buffer
SELECT batchdedup.get('t', '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":4}');
\echo :SQLSTATE
SELECT * FROM batchdedup.buffered(NULL::t);
\echo :SQLSTATE
-- he may flush what others have buffered, and does not see it by that
RESET ROLE;
SELECT batchdedup.upsert('t', '{"id":7,"who":"regress_bdd_other","v":7}');
SET ROLE regress_bdd_writer;
SELECT batchdedup.flush('t');
TABLE t;
-- rows that were buffered before come first
RESET ROLE;
SELECT batchdedup.upsert('t', '{"id":8,"who":"regress_bdd_writer","v":8}');
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":8,"v":88}');
SELECT * FROM t WHERE id = 8;
-- row_security = off is an error, as for every statement
SET row_security = off;
SELECT batchdedup.upsert('t', '{"id":9,"v":9}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":9}');
\echo :SQLSTATE
RESET row_security;
-- with pending rows of another role in the transaction: each by its own rules
RESET ROLE;
CREATE FUNCTION put(int, name) RETURNS void LANGUAGE sql SECURITY DEFINER AS
$$ SELECT batchdedup.upsert('regress_rls.t', jsonb_build_object('id', $1, 'who', $2, 'v', 0)) $$;
SET ROLE regress_bdd_writer;
BEGIN;
SELECT put(10, 'regress_bdd_other');
SELECT batchdedup.upsert('t', '{"id":11,"v":11}');
COMMIT;
SELECT id, v FROM t WHERE id >= 10 ORDER BY id;
RESET ROLE;
SELECT batchdedup.flush('t') >= 0 AS flushed;
SELECT id, who, v FROM t WHERE id >= 10 ORDER BY id;
-- a policy of one command
SET ROLE regress_bdd_owner;
DROP POLICY mine ON t;
CREATE POLICY see ON t FOR SELECT USING (true);
CREATE POLICY new ON t FOR INSERT WITH CHECK (v > 0);
CREATE POLICY change ON t FOR UPDATE USING (v < 100) WITH CHECK (v < 100);
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":20,"v":20}');
SELECT batchdedup.upsert('t', '{"id":20,"v":21}');
SELECT batchdedup.upsert('t', '{"id":21,"v":-21}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":20,"v":200}');
\echo :SQLSTATE
SELECT batchdedup.delete('t', '{"id":20}');
SELECT id, v FROM t WHERE id >= 20 ORDER BY id;
SELECT batchdedup.get('t', '{"id":20}');
\echo :SQLSTATE
-- a restrictive policy
SET ROLE regress_bdd_owner;
CREATE POLICY never ON t AS RESTRICTIVE FOR INSERT WITH CHECK (id <> 22);
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":22,"v":22}');
\echo :SQLSTATE
-- enabled = off and mode direct: no other
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('t', '{"id":22,"v":22}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":20}');
\echo :SQLSTATE
RESET batchdedup.enabled;
SET ROLE regress_bdd_owner;
DROP POLICY see ON t;
DROP POLICY new ON t;
DROP POLICY change ON t;
DROP POLICY never ON t;
CREATE POLICY mine ON t USING (who = current_user);

-- FORCE ROW LEVEL SECURITY binds the owner, too
SELECT batchdedup.upsert('t', '{"id":30,"who":"somebody","v":30}');
ALTER TABLE t FORCE ROW LEVEL SECURITY;
SELECT batchdedup.upsert('t', '{"id":31,"v":31}');
SELECT id, who, v FROM t WHERE id >= 30 ORDER BY id;
SELECT batchdedup.upsert('t', '{"id":32,"who":"somebody","v":32}');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":31}');
\echo :SQLSTATE
SELECT * FROM batchdedup.buffered(NULL::t);
\echo :SQLSTATE
-- but what is buffered is applied all the same
RESET ROLE;
SELECT batchdedup.upsert('t', '{"id":33,"who":"superuser","v":33}');
SELECT batchdedup.flush('t');
SELECT id, who, v FROM t WHERE id >= 30 ORDER BY id;
-- so are dead letters, which the owner cannot see
ALTER TABLE t ADD CONSTRAINT positive CHECK (v > 0) NOT VALID;
SELECT batchdedup.upsert('t', '{"id":34,"who":"somebody","v":-34}');
SELECT batchdedup.flush('t');
SELECT key FROM batchdedup.dead_letter WHERE target = 't'::regclass;
ALTER TABLE t DROP CONSTRAINT positive;
SET ROLE regress_bdd_owner;
SELECT count(*) FROM batchdedup.dead_letter WHERE target = 't'::regclass;
SELECT batchdedup.retry_dead_letters('t');
RESET ROLE;
SELECT id, who, v FROM t WHERE id = 34;
SET ROLE regress_bdd_owner;
ALTER TABLE t NO FORCE ROW LEVEL SECURITY;

-- enabled while rows are buffered, in mid-transaction: the pending rows stay
SET ROLE regress_bdd_owner;
ALTER TABLE t DISABLE ROW LEVEL SECURITY;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":40,"who":"regress_bdd_other","v":40}');
SELECT count(*) FROM t WHERE id = 40;
SET ROLE regress_bdd_owner;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
SET ROLE regress_bdd_writer;
SELECT batchdedup.get('t', '{"id":40}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":41,"v":41}');
SELECT id, v FROM t WHERE id >= 40 ORDER BY id;
RESET ROLE;
SELECT id, v FROM t WHERE id >= 40 ORDER BY id;

-- BYPASSRLS
ALTER ROLE regress_bdd_writer BYPASSRLS;
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":50,"who":"bypass","v":50}');
SELECT count(*) FROM t WHERE id = 50;
SELECT batchdedup.get('t', '{"id":50}') -> 'v' AS v;
RESET ROLE;
ALTER ROLE regress_bdd_writer NOBYPASSRLS;
SET ROLE regress_bdd_writer;
SELECT batchdedup.get('t', '{"id":50}') -> 'v' AS v;
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":51,"v":51}');
SELECT count(*) FROM t WHERE id = 51;
RESET ROLE;
-- a policy for some roles binds the others, too: to nothing
DROP POLICY mine ON t;
CREATE POLICY other ON t TO regress_bdd_other USING (true);
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":60,"v":60}');
\echo :SQLSTATE
SET ROLE regress_bdd_other;
SELECT batchdedup.upsert('t', '{"id":60,"v":60}');
SELECT count(*) FROM t WHERE id = 60;

-- partitions: the policies of the table that is named count
RESET ROLE;
CREATE TABLE parted (id int PRIMARY KEY, who name, v int) PARTITION BY HASH (id);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
ALTER TABLE parted ENABLE ROW LEVEL SECURITY;
CREATE POLICY mine ON parted USING (who = current_user);
GRANT ALL ON parted TO regress_bdd_writer;
SELECT batchdedup.create_target('parted', flush_interval => '0');
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('parted', '{"id":1,"who":"regress_bdd_writer","v":1}');
SELECT batchdedup.upsert('parted', '{"id":2,"who":"regress_bdd_other","v":1}');
\echo :SQLSTATE
TABLE parted;
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA regress_rls CASCADE;
DROP ROLE regress_bdd_owner, regress_bdd_writer, regress_bdd_other;
