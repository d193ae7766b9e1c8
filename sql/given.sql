-- Columns that are given and columns that are not.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_given;
SET search_path = regress_given;

--
-- Not given: untouched on update, the default on insert
--
CREATE DOMAIN with_default AS text DEFAULT 'of the domain';
CREATE TABLE t (id int PRIMARY KEY, a int, b int DEFAULT 7, c text DEFAULT 'c' || 'onst', d with_default);
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert('t', '{"id":1,"a":1}');
SELECT batchdedup.upsert('t', '{"id":2,"b":null,"c":"given"}');
-- a typed row gives every column, NULL is NULL
SELECT batchdedup.upsert(ROW(3, NULL, NULL, NULL, NULL)::t);
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
SELECT batchdedup.upsert('t', '[{"id":1,"b":8},{"id":2},{"id":3,"c":"new"}]');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
SELECT batchdedup.upsert(ROW(2, NULL, NULL, NULL, NULL)::t);
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

-- partial rows of one key combine: in one transaction, in several, and with the table
TRUNCATE t;
BEGIN;
SELECT batchdedup.upsert('t', '{"id":1,"a":1}');
SELECT batchdedup.upsert('t', '{"id":1,"b":2}');
COMMIT;
SELECT batchdedup.upsert('t', '{"id":1,"c":"third"}');
SELECT batchdedup.flush('t');
TABLE t;
SELECT batchdedup.upsert('t', '{"id":1,"a":10}');
SELECT batchdedup.upsert('t', '{"id":1,"a":null,"d":"d"}');
SELECT batchdedup.upsert('t', '{"id":1,"b":20}');
SELECT batchdedup.flush('t');
TABLE t;
-- a whole row replaces what partial rows said; a partial one changes a whole one
SELECT batchdedup.upsert('t', '{"id":1,"c":"lost"}');
SELECT batchdedup.upsert(ROW(1, 5, 5, 'five', 'five')::t);
SELECT batchdedup.upsert('t', '{"id":1,"a":6}');
SELECT batchdedup.flush('t');
TABLE t;
-- the default of the first row counts, as if it had been inserted
TRUNCATE t;
SELECT batchdedup.upsert('t', '{"id":1,"a":1}');
SELECT batchdedup.upsert('t', '{"id":1,"b":null}');
SELECT batchdedup.upsert('t', '{"id":2,"b":null}');
SELECT batchdedup.upsert('t', '{"id":2,"a":1}');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

--
-- Delete, then upsert: a new row
--
SELECT batchdedup.delete('t', '{"id":1}');
SELECT batchdedup.upsert('t', '{"id":1,"d":"new"}');
BEGIN;
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.upsert('t', '{"id":2,"d":"new"}');
SELECT batchdedup.upsert('t', '{"id":2,"c":"too"}');
COMMIT;
-- and one that was never there
SELECT batchdedup.delete('t', '{"id":3}');
SELECT batchdedup.upsert('t', '{"id":3}');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
-- the other way round nothing is left
SELECT batchdedup.upsert('t', '{"id":1,"a":1}');
SELECT batchdedup.delete('t', '{"id":1}');
SELECT batchdedup.upsert('t', '{"id":4,"a":1}');
SELECT batchdedup.delete('t', '{"id":4}');
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.upsert('t', '{"id":2}');
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

--
-- Stable defaults are taken at the call, volatile ones when a row is inserted
--
CREATE TABLE moments (id int PRIMARY KEY, v int, created_at timestamptz NOT NULL DEFAULT now(),
    nr bigserial, unique_id uuid DEFAULT gen_random_uuid(), made_by text DEFAULT current_user);
SELECT batchdedup.create_target('moments', flush_interval => '0');
BEGIN;
SELECT now() AS first \gset
SELECT batchdedup.upsert('moments', '{"id":1,"v":1}');
COMMIT;
SELECT pg_sleep(0.01);
BEGIN;
SELECT now() AS second \gset
SELECT batchdedup.upsert('moments', '{"id":1,"v":2}');
SELECT batchdedup.upsert('moments', '{"id":2,"v":2}');
COMMIT;
SELECT batchdedup.flush('moments');
SELECT id, v, created_at = :'first' AS first, created_at = :'second' AS second, nr, unique_id IS NOT NULL AS unique_id,
       made_by = current_user AS me FROM moments ORDER BY id;
-- rows that are there take no number
SELECT batchdedup.upsert('moments', '[{"id":1,"v":3},{"id":2,"v":3},{"id":3,"v":3}]');
SELECT batchdedup.upsert('moments', '[{"id":1,"v":4},{"id":3,"v":4}]');
SELECT batchdedup.flush('moments');
SELECT id, v, created_at = :'first' AS first, nr FROM moments ORDER BY id;
SELECT last_value FROM moments_nr_seq;
-- a new row gets new values of both
SELECT created_at AS old_at FROM moments WHERE id = 1 \gset
SELECT batchdedup.delete('moments', '{"id":1}');
SELECT batchdedup.upsert('moments', '{"id":1,"v":5}');
SELECT batchdedup.flush('moments');
SELECT id, v, created_at > :'old_at' AS newer, nr FROM moments WHERE id = 1;
-- the caller's default, not the owner's
CREATE ROLE regress_bdd_caller;
GRANT USAGE ON SCHEMA regress_given TO regress_bdd_caller;
GRANT INSERT, UPDATE ON moments TO regress_bdd_caller;
SET ROLE regress_bdd_caller;
SELECT batchdedup.upsert('moments', '{"id":4,"v":1}');
RESET ROLE;
SELECT batchdedup.flush('moments');
SELECT id, made_by FROM moments WHERE id = 4;

--
-- update_columns: the others keep their first value
--
CREATE TABLE firsts (id int PRIMARY KEY, v int, created_at text NOT NULL, note text DEFAULT 'none');
SELECT batchdedup.create_target('firsts', update_columns => 'v', flush_interval => '0');
SELECT batchdedup.upsert(ROW(1, 1, 'first', 'a')::firsts);
SELECT batchdedup.upsert(ROW(1, 2, 'second', 'b')::firsts);
BEGIN;
SELECT batchdedup.upsert(ROW(2, 1, 'first', 'a')::firsts);
SELECT batchdedup.upsert(ROW(2, 2, 'second', 'b')::firsts);
COMMIT;
SELECT batchdedup.flush('firsts');
SELECT * FROM firsts ORDER BY id;
SELECT batchdedup.upsert(ROW(1, 3, 'third', 'c')::firsts);
SELECT batchdedup.upsert('firsts', '{"id":2,"created_at":"fourth"}');
SELECT batchdedup.upsert('firsts', '{"id":3,"v":1,"created_at":"first"}');
SELECT batchdedup.upsert('firsts', '{"id":3,"v":2,"note":"ignored"}');
SELECT batchdedup.flush('firsts');
SELECT * FROM firsts ORDER BY id;
-- a row that is new after a delete begins anew
SELECT batchdedup.delete('firsts', '{"id":1}');
SELECT batchdedup.upsert(ROW(1, 9, 'after delete', 'd')::firsts);
SELECT batchdedup.upsert(ROW(1, 10, 'ignored', 'e')::firsts);
SELECT batchdedup.flush('firsts');
SELECT * FROM firsts ORDER BY id;
-- nothing is overwritten: only new rows are written
SELECT batchdedup.alter_target('firsts', update_columns => '');
SELECT batchdedup.upsert(ROW(1, 99, 'x', 'x')::firsts);
SELECT batchdedup.upsert(ROW(4, 4, 'new', 'x')::firsts);
SELECT batchdedup.flush('firsts');
SELECT * FROM firsts ORDER BY id;

--
-- A NOT NULL column that was never given
--
CREATE TABLE strict (id int PRIMARY KEY, a int NOT NULL, b int);
SELECT batchdedup.create_target('strict', flush_interval => '0');
INSERT INTO strict VALUES (1, 1, 1);
-- no matter for a row that is there, or that gets it in time
SELECT batchdedup.upsert('strict', '{"id":1,"b":2}');
SELECT batchdedup.upsert('strict', '{"id":2,"b":2}');
SELECT batchdedup.upsert('strict', '{"id":2,"a":2}');
SELECT batchdedup.flush('strict');
SELECT * FROM strict ORDER BY id;
-- else the table refuses it
SELECT batchdedup.upsert('strict', '{"id":3,"b":3}');
SELECT batchdedup.flush('strict');
SELECT "row", sqlstate, message FROM batchdedup.dead_letter WHERE target = 'strict'::regclass;
INSERT INTO strict VALUES (3, 0, 0);
SELECT batchdedup.retry_dead_letters('strict');
SELECT * FROM strict ORDER BY id;
-- a domain may say NOT NULL, too
CREATE DOMAIN required AS int NOT NULL;
CREATE TABLE domains (id int PRIMARY KEY, r required, v int);
SELECT batchdedup.create_target('domains', flush_interval => '0');
INSERT INTO domains VALUES (1, 1, 1);
SELECT batchdedup.upsert('domains', '{"id":1,"v":2}');
SELECT batchdedup.flush('domains');
INSERT INTO domains (id) VALUES (2);
SELECT batchdedup.upsert('domains', '{"id":2,"v":2}');
SELECT batchdedup.flush('domains');
SELECT "row", sqlstate, message FROM batchdedup.dead_letter WHERE target = 'domains'::regclass;
INSERT INTO domains VALUES (2, 0, 0) ON CONFLICT (id) DO UPDATE SET r = 0;
SELECT batchdedup.retry_dead_letters('domains');
SELECT * FROM domains ORDER BY id;

SET client_min_messages = warning;
DROP SCHEMA regress_given CASCADE;
DROP ROLE regress_bdd_caller;
