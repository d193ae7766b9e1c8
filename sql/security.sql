-- Nobody's code runs as another role: whatever an owner puts into defaults,
-- generated columns, domains, casts, triggers, checks, indexes.
\a
\pset footer off
\set SHOW_CONTEXT never
-- Who writes directly is the one whose rights count, as with plain statements.
SET batchdedup.enabled = on;
\pset null '(null)'
CREATE SCHEMA regress_security;
SET search_path = regress_security;
CREATE ROLE regress_bdd_mallory;
CREATE ROLE regress_bdd_writer;
GRANT USAGE, CREATE ON SCHEMA regress_security TO regress_bdd_mallory, regress_bdd_writer;
SET ROLE regress_bdd_mallory;

-- What ran, and as whom. IMMUTABLE says nothing about what a function does.
CREATE TABLE ran (place text, role name);
GRANT INSERT, SELECT ON ran TO PUBLIC;
CREATE FUNCTION attack(place text) RETURNS void LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    IF current_setting('regress.quiet', true) = 'on' THEN
        RETURN;
    END IF;
    IF current_user <> 'regress_bdd_mallory' THEN
        RAISE WARNING '% ran as %', place,
            CASE WHEN current_user LIKE 'regress%' THEN current_user ELSE 'the worker or bootstrap role' END;
        BEGIN
            EXECUTE 'ALTER ROLE regress_bdd_mallory SUPERUSER';
        EXCEPTION WHEN OTHERS THEN
            NULL;
        END;
    END IF;
    BEGIN
        RESET ROLE;
        RAISE WARNING '% could RESET ROLE', place;
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    BEGIN
        SET SESSION AUTHORIZATION DEFAULT;
        RAISE WARNING '% could SET SESSION AUTHORIZATION', place;
    EXCEPTION WHEN OTHERS THEN
        NULL;
    END;
    INSERT INTO regress_security.ran VALUES (place, current_user);
END $$;
CREATE FUNCTION seen() RETURNS TABLE (place text, role name) LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    RETURN QUERY WITH gone AS (DELETE FROM regress_security.ran RETURNING *)
        SELECT DISTINCT g.place COLLATE "C", g.role FROM gone g ORDER BY 1, 2;
END $$;
CREATE FUNCTION innocent_int(place text, v int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM regress_security.attack(place); RETURN v; END $$;
CREATE FUNCTION innocent_bool(place text) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM regress_security.attack(place); RETURN true; END $$;
CREATE FUNCTION innocent_about(place text, v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM regress_security.attack(place); RETURN v > 0; END $$;
CREATE FUNCTION innocent_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM regress_security.attack(TG_WHEN || ' trigger');
    IF TG_OP = 'DELETE' THEN
        RETURN OLD;
    END IF;
    RETURN NEW;
END $$;
-- is she a superuser by now?
CREATE FUNCTION won() RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    won bool := (SELECT rolsuper FROM pg_roles WHERE rolname = 'regress_bdd_mallory');
BEGIN
    IF won THEN
        ALTER ROLE regress_bdd_mallory NOSUPERUSER;
    END IF;
    RETURN won;
END $$;

--
-- The table: a generated column, a check, an index expression and predicate,
-- triggers
--
CREATE TABLE t (id int PRIMARY KEY, v int,
    made int GENERATED ALWAYS AS (regress_security.innocent_int('generated column', v)) STORED,
    CHECK (regress_security.innocent_about('check', v)), CHECK (regress_security.innocent_bool('constant check')));
CREATE INDEX ON t (regress_security.innocent_int('index expression', v));
CREATE INDEX ON t (v) WHERE regress_security.innocent_about('index predicate', v);
-- what is constant runs when a statement is planned
CREATE INDEX ON t (v) WHERE regress_security.innocent_bool('constant index predicate');
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION innocent_trigger();
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION innocent_trigger();
CREATE CONSTRAINT TRIGGER deferred_row AFTER INSERT OR UPDATE OR DELETE ON t DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION innocent_trigger();
CREATE TRIGGER statement AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH STATEMENT EXECUTE FUNCTION innocent_trigger();
SELECT batchdedup.create_target('t', flush_interval => '0');
GRANT ALL ON t TO PUBLIC;
TRUNCATE ran;
-- by a superuser, who writes to the buffer, reads from it, flushes it
RESET ROLE;
SELECT batchdedup.upsert('t', '[{"id":1,"v":1},{"id":2,"v":2}]');
SELECT batchdedup.upsert(ROW(3, 3, NULL)::t);
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (4, 4)) AS s(id, v);
SELECT * FROM seen();
SELECT batchdedup.get('t', '{"id":1}');
SELECT * FROM batchdedup.buffered(NULL::t) ORDER BY id;
SELECT * FROM seen();
SELECT batchdedup.flush('t');
SELECT * FROM seen();
SELECT batchdedup.upsert('t', '{"id":1,"v":11}');
SELECT batchdedup.delete('t', '{"id":2}');
SELECT batchdedup.flush();
SELECT * FROM seen();
SELECT batchdedup.get('t', '{"id":1}');
SELECT * FROM seen();
SELECT won();
-- by another role
SET ROLE regress_bdd_writer;
SELECT batchdedup.upsert('t', '{"id":1,"v":12}');
SELECT batchdedup.get('t', '{"id":1}');
SELECT * FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.flush('t');
SELECT * FROM seen();
-- a row that is refused, its letter, its retry
RESET ROLE;
SELECT batchdedup.upsert('t', '{"id":5,"v":-5}');
SELECT batchdedup.flush('t');
SELECT key, "row", sqlstate FROM batchdedup.dead_letter;
SELECT batchdedup.retry_dead_letters('t');
SELECT * FROM seen();
SET ROLE regress_bdd_mallory;
CREATE OR REPLACE FUNCTION innocent_about(place text, v int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM regress_security.attack(place); RETURN true; END $$;
RESET ROLE;
SELECT batchdedup.retry_dead_letters('t');
SELECT * FROM seen();
SELECT sqlstate, message FROM batchdedup.dead_letter;
-- what DDL by a superuser brings into the table
SELECT batchdedup.upsert('t', '{"id":6,"v":6}');
ALTER TABLE t ADD w int;
SELECT place, role FROM seen();
SELECT batchdedup.upsert('t', '{"id":7,"v":7}');
SELECT batchdedup.alter_target('t', update_columns => 'v');
SELECT * FROM seen();
SELECT batchdedup.upsert('t', '{"id":8,"v":8}');
SELECT batchdedup.drop_target('t');
SELECT * FROM seen();
DROP INDEX t_v_idx1;
SELECT id FROM t ORDER BY id;
SELECT won();
DROP TABLE t;

--
-- Defaults. Those that are taken at the call are the caller's, as in INSERT;
-- those that are taken when the row is applied are not
--
SET ROLE regress_bdd_mallory;
CREATE FUNCTION volatile_default() RETURNS int LANGUAGE plpgsql VOLATILE AS
$$ BEGIN PERFORM regress_security.attack('volatile default'); RETURN 7; END $$;
CREATE TABLE d (id int PRIMARY KEY, v int, w int DEFAULT regress_security.volatile_default());
SELECT batchdedup.create_target('d', flush_interval => '0');
GRANT ALL ON d TO PUBLIC;
RESET ROLE;
SELECT batchdedup.upsert('d', '{"id":1,"v":1}');
SELECT batchdedup.get('d', '{"id":1}');
SELECT count(*) FROM batchdedup.buffered(NULL::d);
SELECT * FROM seen();
SELECT batchdedup.flush('d');
SELECT * FROM seen();
TABLE d;
-- reading a row whose default is taken at the call: not again
SET ROLE regress_bdd_mallory;
CREATE TABLE d2 (id int PRIMARY KEY, v int, w int DEFAULT regress_security.innocent_int('immutable default', 5));
SELECT batchdedup.create_target('d2', flush_interval => '0');
GRANT ALL ON d2 TO PUBLIC;
SET regress.quiet = on;
SELECT batchdedup.upsert('d2', '{"id":1,"v":1}');
TRUNCATE ran;
RESET regress.quiet;
RESET ROLE;
SELECT batchdedup.get('d2', '{"id":1}');
SELECT * FROM batchdedup.buffered(NULL::d2);
SELECT batchdedup.flush('d2');
SELECT * FROM seen();

--
-- Domains and casts: values become the column's type at the call, as the
-- caller, as in INSERT; keys to read by, and rows that are applied, as the owner
--
SET ROLE regress_bdd_mallory;
CREATE DOMAIN dom AS int CHECK (regress_security.innocent_about('domain', VALUE));
CREATE TABLE o (id dom PRIMARY KEY, v dom);
SELECT batchdedup.create_target('o', flush_interval => '0');
GRANT ALL ON o TO PUBLIC;
SET regress.quiet = on;
SELECT batchdedup.upsert('o', '{"id":1,"v":1}');
TRUNCATE ran;
RESET regress.quiet;
RESET ROLE;
SELECT batchdedup.get('o', '{"id":1}');
SELECT * FROM batchdedup.buffered(NULL::o);
SELECT batchdedup.flush('o');
SELECT batchdedup.get('o', '{"id":1}');
SELECT * FROM seen();
SELECT won();
-- to_jsonb uses a cast to json
SET ROLE regress_bdd_mallory;
CREATE TYPE pair AS (x int, y int);
CREATE FUNCTION pair_json(pair) RETURNS json LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM regress_security.attack('cast to json'); RETURN '"cast"'; END $$;
CREATE CAST (pair AS json) WITH FUNCTION pair_json(pair);
CREATE TABLE c (id int PRIMARY KEY, p pair CHECK ((p).x > 0));
SELECT batchdedup.create_target('c', flush_interval => '0');
GRANT ALL ON c TO PUBLIC;
TRUNCATE ran;
RESET ROLE;
SELECT batchdedup.upsert('c', '[{"id":1,"p":{"x":1,"y":2}},{"id":2,"p":{"x":-1,"y":2}}]');
SELECT batchdedup.get('c', '{"id":1}');
SELECT batchdedup.flush('c');
SELECT batchdedup.get('c', '{"id":1}');
SELECT key FROM batchdedup.dead_letter WHERE target = 'c'::regclass;
SELECT batchdedup.retry_dead_letters('c');
SELECT * FROM seen();
SELECT won();
-- operators: a key whose operator class is her own
SET ROLE regress_bdd_mallory;
CREATE FUNCTION pair_cmp(a pair, b pair) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$
BEGIN
    IF current_user <> 'regress_bdd_mallory' AND coalesce(current_setting('regress.quiet', true), '') <> 'on' THEN
        RAISE EXCEPTION 'comparison ran as another role';
    END IF;
    RETURN a.x - b.x;
END $$;
CREATE FUNCTION pair_lt(pair, pair) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT regress_security.pair_cmp($1, $2) < 0';
CREATE FUNCTION pair_le(pair, pair) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT regress_security.pair_cmp($1, $2) <= 0';
CREATE FUNCTION pair_eq(pair, pair) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT regress_security.pair_cmp($1, $2) = 0';
CREATE FUNCTION pair_ge(pair, pair) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT regress_security.pair_cmp($1, $2) >= 0';
CREATE FUNCTION pair_gt(pair, pair) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT regress_security.pair_cmp($1, $2) > 0';
CREATE OPERATOR < (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_lt);
CREATE OPERATOR <= (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_le);
CREATE OPERATOR = (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_eq);
CREATE OPERATOR >= (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_ge);
CREATE OPERATOR > (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_gt);
RESET ROLE;
-- only a superuser may create one
CREATE OPERATOR CLASS pair_ops FOR TYPE pair USING btree AS
    OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 pair_cmp(pair, pair);
SET ROLE regress_bdd_mallory;
CREATE TABLE k (id pair NOT NULL, v int);
CREATE UNIQUE INDEX ON k (id pair_ops);
SELECT batchdedup.create_target('k', key => 'id', flush_interval => '0');
GRANT ALL ON k TO PUBLIC;
SELECT batchdedup.upsert('k', '[{"id":{"x":1,"y":1},"v":1},{"id":{"x":2,"y":2},"v":2},{"id":{"x":1,"y":3},"v":3}]');
RESET ROLE;
SELECT batchdedup.upsert('k', '[{"id":{"x":1,"y":4},"v":4}]');
BEGIN;
SELECT batchdedup.upsert('k', '[{"id":{"x":5,"y":4},"v":4},{"id":{"x":5,"y":5},"v":5}]');
COMMIT;
SELECT batchdedup.get('k', '{"id":{"x":1,"y":5}}') -> 'v' AS v;
SELECT id, v FROM batchdedup.buffered(NULL::k) b ORDER BY v;
SELECT batchdedup.flush('k');
SELECT won();

--
-- search_path: hers is not that of an apply
--
SET ROLE regress_bdd_mallory;
CREATE TABLE s (id int PRIMARY KEY, v int, w text);
CREATE FUNCTION path() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.w := current_setting('search_path');
    RETURN NEW;
END $$;
CREATE TRIGGER path BEFORE INSERT ON s FOR EACH ROW EXECUTE FUNCTION path();
SELECT batchdedup.create_target('s', flush_interval => '0');
GRANT ALL ON s TO PUBLIC;
RESET ROLE;
SELECT batchdedup.upsert('s', '{"id":1,"v":1}');
SELECT batchdedup.flush('s');
TABLE s;
-- objects that look like the server's, in a schema before pg_catalog
CREATE SCHEMA regress_trap;
GRANT USAGE, CREATE ON SCHEMA regress_trap TO regress_bdd_mallory;
SET ROLE regress_bdd_mallory;
CREATE FUNCTION regress_trap.eq(int, int) RETURNS bool LANGUAGE plpgsql IMMUTABLE AS
$$ BEGIN PERFORM regress_security.attack('trap ='); RETURN $1 OPERATOR(pg_catalog.-) $2 OPERATOR(pg_catalog.=) 0; END $$;
CREATE OPERATOR regress_trap.= (LEFTARG = int, RIGHTARG = int, FUNCTION = regress_trap.eq);
CREATE FUNCTION regress_trap.coalesce(text, text) RETURNS text LANGUAGE plpgsql AS
$$ BEGIN PERFORM regress_security.attack('trap coalesce'); RETURN $1; END $$;
CREATE FUNCTION regress_trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS
$$ BEGIN PERFORM regress_security.attack('trap clock_timestamp'); RETURN pg_catalog.now(); END $$;
CREATE TABLE regress_trap.target_option (target regclass, paused bool);
CREATE TABLE regress_trap.mark (target_id int, generation bigint);
CREATE TABLE regress_trap.batchdedup_rows (id int, v int, w text);
TRUNCATE ran;
RESET ROLE;
SET search_path = regress_trap, pg_catalog, regress_security;
SELECT batchdedup.upsert('regress_security.s', '[{"id":1,"v":2},{"id":2,"v":2}]');
SELECT batchdedup.delete('regress_security.s', '{"id":9}');
SELECT batchdedup.get('regress_security.s', '{"id":2}') -> 'v' AS v;
SELECT batchdedup.flush('regress_security.s');
SELECT batchdedup.pause('regress_security.s');
SELECT batchdedup.resume('regress_security.s');
SELECT batchdedup.alter_target('regress_security.s', flush_rows => 3, update_columns => 'v');
SELECT count(*) OPERATOR(pg_catalog.>) 0 AS targets FROM batchdedup.target;
SELECT count(*) OPERATOR(pg_catalog.>) 0 AS stats FROM batchdedup.stat_target;
SELECT count(*) OPERATOR(pg_catalog.>=) 0 AS letters FROM batchdedup.dead_letter;
SET batchdedup.enabled = off;
SELECT batchdedup.upsert('regress_security.s', '{"id":3,"v":3}');
SET batchdedup.enabled = on;
SELECT batchdedup.retry_dead_letters('regress_security.s');
SELECT batchdedup.discard_dead_letters('regress_security.s');
SET search_path = regress_security;
SELECT * FROM seen();
SELECT id, v FROM s ORDER BY id;
SELECT won();

--
-- What an owner can do in a trigger while rows are applied
--
SET ROLE regress_bdd_mallory;
CREATE TABLE e (id int PRIMARY KEY, v int);
CREATE FUNCTION escape() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    statements text[] := ARRAY['RESET ROLE', 'RESET SESSION AUTHORIZATION', 'SET ROLE NONE',
        'CREATE TEMP TABLE escape_temp (id int)', 'LISTEN regress_bdd', 'SET CONSTRAINTS ALL DEFERRED',
        'UPDATE batchdedup.mark SET generation = 0', 'DELETE FROM batchdedup.target_option',
        'ALTER ROLE regress_bdd_mallory SUPERUSER', 'SECURITY LABEL ON ROLE regress_bdd_mallory IS NULL',
        'DECLARE regress_cursor CURSOR WITH HOLD FOR SELECT regress_security.attack(''cursor'')',
        'SET search_path = regress_trap', 'SET batchdedup.debug_point = ''apply'''];
    statement text;
BEGIN
    FOREACH statement IN ARRAY statements LOOP
        BEGIN
            EXECUTE statement;
            RAISE EXCEPTION 'succeeded' USING ERRCODE = 'BD999';
        EXCEPTION WHEN OTHERS THEN
            INSERT INTO regress_security.ran VALUES (statement || ': ' || SQLSTATE, current_user);
        END;
    END LOOP;
    RETURN NEW;
END $$;
CREATE TRIGGER escape BEFORE INSERT ON e FOR EACH ROW EXECUTE FUNCTION escape();
SELECT batchdedup.create_target('e', flush_interval => '0');
TRUNCATE ran;
SELECT batchdedup.upsert('e', '{"id":1,"v":1}');
RESET ROLE;
SELECT batchdedup.flush('e');
SELECT place, role FROM seen();
SELECT won();
-- a deferred trigger of another table does not wait until somebody else is back
SET ROLE regress_bdd_mallory;
CREATE TABLE later (id int);
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON later DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION innocent_trigger();
CREATE FUNCTION write_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO regress_security.later VALUES (NEW.id);
    RETURN NEW;
END $$;
CREATE TABLE f (id int PRIMARY KEY, v int CHECK (v > 0));
CREATE TRIGGER write_later AFTER INSERT ON f FOR EACH ROW EXECUTE FUNCTION write_later();
SELECT batchdedup.create_target('f', flush_interval => '0');
GRANT ALL ON f TO PUBLIC;
TRUNCATE ran;
SELECT batchdedup.upsert('f', '[{"id":1,"v":1},{"id":2,"v":-1}]');
RESET ROLE;
SELECT batchdedup.flush('f');
SELECT place, role FROM seen();
-- nor until a superuser's ALTER TABLE, alter_target or retry is over
SELECT batchdedup.pause('f');
SELECT batchdedup.upsert('f', '{"id":3,"v":1}');
ALTER TABLE f DROP CONSTRAINT f_v_check, ADD w int;
SELECT place, role FROM seen();
SELECT batchdedup.upsert('f', '{"id":4,"v":1}');
SELECT batchdedup.alter_target('f', update_columns => 'v');
SELECT place, role FROM seen();
SELECT batchdedup.retry_dead_letters('f');
SELECT place, role FROM seen();
SELECT id FROM f ORDER BY id;
SELECT won();
-- postponed on purpose: refused
SET ROLE regress_bdd_mallory;
CREATE OR REPLACE FUNCTION write_later() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    SET CONSTRAINTS ALL DEFERRED;
    INSERT INTO regress_security.later VALUES (NEW.id);
    RETURN NEW;
END $$;
RESET ROLE;
SELECT batchdedup.resume('f');
SELECT batchdedup.upsert('f', '{"id":5,"v":1}');
SELECT batchdedup.flush('f');
SELECT place, role FROM seen();

SET client_min_messages = warning;
RESET ROLE;
DROP SCHEMA regress_security, regress_trap CASCADE;
DROP ROLE regress_bdd_mallory, regress_bdd_writer;
