--
-- health() and stat_reset()
--
\pset format unaligned
\pset null (null)
\pset footer off
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA regress_health;
SET search_path = regress_health;
CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v > 0));
SELECT batchdedup.create_target('t', flush_interval => '0');
CREATE VIEW health AS
  SELECT check_name, target, status, hint FROM batchdedup.health()
   WHERE target IS NULL OR target = 'regress_health.t'::regclass ORDER BY check_name;

SELECT * FROM health;
-- a paused target with rows
SELECT batchdedup.pause('t');
SELECT batchdedup.upsert('t', '[{"id":1,"v":1},{"id":2,"v":-2}]');
SELECT check_name, status FROM health WHERE status <> 'ok';
-- a refused row
SELECT batchdedup.resume('t');
SELECT batchdedup.flush('t');
SELECT check_name, status FROM health WHERE status <> 'ok';
SELECT batchdedup.discard_dead_letters('t');
-- a fault that hits every row
CREATE FUNCTION broken() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.nothing := 1; RETURN NEW; END';
CREATE TRIGGER broken BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION broken();
SELECT batchdedup.upsert('t', '{"id":3,"v":3}');
SELECT batchdedup.flush('t');
\echo :SQLSTATE
SELECT check_name, status FROM health WHERE status <> 'ok';
SELECT count(*) FROM batchdedup.dead_letter WHERE target = 't'::regclass;
DROP TRIGGER broken ON t;
SELECT batchdedup.flush('t');
SELECT check_name, status FROM health WHERE status <> 'ok';
-- the kill switch
SET batchdedup.enabled = off;
SELECT check_name, status FROM health WHERE status <> 'ok';
RESET batchdedup.enabled;

SELECT received, inserted, dead_lettered, failed_flushes > 0 AS failed FROM batchdedup.stat_target WHERE target = 't'::regclass;
SELECT batchdedup.stat_reset();
SELECT received, inserted, dead_lettered, failed_flushes > 0 AS failed FROM batchdedup.stat_target WHERE target = 't'::regclass;
-- who may
CREATE ROLE regress_bdd_nobody;
CREATE ROLE regress_bdd_monitor IN ROLE pg_monitor;
SET ROLE regress_bdd_nobody;
SELECT count(*) FROM batchdedup.health();
SELECT batchdedup.stat_reset();
SET ROLE regress_bdd_monitor;
SELECT count(*) > 0 FROM batchdedup.health();
SELECT batchdedup.stat_reset();
RESET ROLE;
DROP ROLE regress_bdd_nobody, regress_bdd_monitor;
DROP SCHEMA regress_health CASCADE;
