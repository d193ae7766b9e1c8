-- Savepoints and exceptions: what is rolled back never happened.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_subxacts;
SET search_path = regress_subxacts;
CREATE TABLE t (id int PRIMARY KEY, v text, w text);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);

BEGIN;
SELECT batchdedup.upsert('t', '{"id":1,"v":"kept"}');
SELECT batchdedup.upsert('t', '{"id":2,"v":"older","w":"older"}');
SAVEPOINT a;
SELECT batchdedup.upsert('t', '{"id":2,"v":"rolled back"}');
SELECT batchdedup.upsert('t', '{"id":3,"v":"rolled back"}');
SELECT batchdedup.delete('t', '{"id":1}');
SELECT batchdedup.get('t', '{"id":1}'), batchdedup.get('t', '{"id":2}'), batchdedup.get('t', '{"id":3}');
ROLLBACK TO a;
SELECT batchdedup.get('t', '{"id":1}'), batchdedup.get('t', '{"id":2}'), batchdedup.get('t', '{"id":3}');
-- the savepoint is still there
SELECT batchdedup.upsert('t', '{"id":4,"v":"after rollback"}');
SAVEPOINT b;
SELECT batchdedup.upsert('t', '{"id":4,"w":"released"}');
RELEASE b;
SAVEPOINT c;
SELECT batchdedup.upsert('t', '{"id":4,"v":"released, then rolled back"}');
SAVEPOINT d;
SELECT batchdedup.upsert('t', '{"id":4,"v":"released, then rolled back"}');
SELECT batchdedup.upsert('t', '{"id":5,"v":"released, then rolled back"}');
RELEASE d;
ROLLBACK TO c;
RELEASE a;
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

-- several levels at once
BEGIN;
SAVEPOINT a;
SELECT batchdedup.upsert('t', '{"id":10,"v":"a"}');
SAVEPOINT b;
SAVEPOINT c;
SELECT batchdedup.upsert('t', '{"id":10,"v":"c"}');
SAVEPOINT d;
SELECT batchdedup.delete('t', '{"id":10}');
SAVEPOINT e;
SELECT batchdedup.upsert('t', '{"id":10,"w":"e"}');
SELECT batchdedup.get('t', '{"id":10}');
ROLLBACK TO e;
SELECT batchdedup.get('t', '{"id":10}');
ROLLBACK TO d;
SELECT batchdedup.get('t', '{"id":10}');
ROLLBACK TO b;
SELECT batchdedup.get('t', '{"id":10}');
SAVEPOINT same;
SELECT batchdedup.upsert('t', '{"id":11,"v":"first"}');
SAVEPOINT same;
SELECT batchdedup.upsert('t', '{"id":11,"v":"second"}');
ROLLBACK TO same;
RELEASE same;
ROLLBACK TO same;
SELECT batchdedup.upsert('t', '{"id":12,"v":"kept"}');
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id >= 10 ORDER BY id;

-- an error outside a savepoint takes all of them
BEGIN;
SELECT batchdedup.upsert('t', '{"id":20}');
SAVEPOINT a;
SELECT batchdedup.upsert('t', '{"id":21}');
SELECT 1 / 0;
ROLLBACK TO a;
SELECT batchdedup.upsert('t', '{"id":22}');
ROLLBACK;
BEGIN;
SELECT batchdedup.upsert('t', '{"id":23}');
SELECT batchdedup.upsert('t', '{"id":null}');
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id >= 20;

-- a call that is refused leaves the transaction usable
BEGIN;
SELECT batchdedup.upsert('t', '{"id":24,"v":"before"}');
SAVEPOINT a;
SELECT batchdedup.upsert('t', '[{"id":24,"v":"lost"},{"id":25},{"id":null}]');
ROLLBACK TO a;
SELECT batchdedup.upsert('t', '{"id":24,"w":"after"}');
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id >= 20 ORDER BY id;
TRUNCATE t;

-- functions that catch exceptions
CREATE FUNCTION try_upsert(id int, v text, fail bool) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('regress_subxacts.t', jsonb_build_object('id', id, 'v', v));
    IF fail THEN
        RAISE EXCEPTION 'refused';
    END IF;
    RETURN 'taken';
EXCEPTION WHEN OTHERS THEN
    PERFORM batchdedup.upsert('regress_subxacts.t', jsonb_build_object('id', id, 'w', SQLERRM));
    RETURN SQLERRM;
END $$;
SELECT try_upsert(1, 'one', false), try_upsert(2, 'two', true), try_upsert(1, 'again', true);
-- batchdedup's own errors can be caught, too
SELECT try_upsert(NULL, 'null', false);
DO $$
BEGIN
    FOR i IN 3..6 LOOP
        BEGIN
            PERFORM batchdedup.upsert('regress_subxacts.t', jsonb_build_object('id', i, 'v', 'loop'));
            IF i % 2 = 0 THEN
                PERFORM 1 / 0;
            END IF;
        EXCEPTION WHEN division_by_zero THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;
TRUNCATE t;

-- A hundred thousand rows in one loop, each in a subtransaction, half of them
-- rolled back: memory is bounded by keys, not by calls. (Written directly, each
-- would be a version of one of ten rows, which the next has to pass.)
BEGIN;
DO $$
DECLARE
    many int := CASE current_setting('batchdedup.enabled') WHEN 'on' THEN 100000 ELSE 1000 END;
BEGIN
    FOR i IN 1..many LOOP
        BEGIN
            PERFORM batchdedup.upsert(ROW(i % 10, i::text, NULL)::regress_subxacts.t);
            IF i % 20 >= 10 THEN
                RAISE EXCEPTION 'undone';
            END IF;
        EXCEPTION WHEN raise_exception THEN
            NULL;
        END;
    END LOOP;
END $$;
SELECT total_bytes < 65536 AS small FROM pg_backend_memory_contexts WHERE name = 'batchdedup pending rows';
COMMIT;
SELECT batchdedup.flush('t');
SELECT id, v::int % 1000 AS v FROM t ORDER BY id;
TRUNCATE t;
-- with distinct keys, by rows
BEGIN;
DO $$
BEGIN
    FOR i IN 1..100000 LOOP
        BEGIN
            PERFORM batchdedup.upsert(ROW(i, i::text, NULL)::regress_subxacts.t);
        EXCEPTION WHEN OTHERS THEN
            RAISE;
        END;
    END LOOP;
END $$;
SELECT total_bytes / 100000 < 512 AS small FROM pg_backend_memory_contexts WHERE name = 'batchdedup pending rows';
SAVEPOINT all_again;
SELECT count(batchdedup.upsert(ROW(i, 'undone', NULL)::t)) FROM generate_series(1, 100000) i;
ROLLBACK TO all_again;
COMMIT;
-- after the transaction nothing is held
SELECT coalesce(sum(total_bytes), 0) < 65536 AS small FROM pg_backend_memory_contexts WHERE name = 'batchdedup pending rows';
SELECT batchdedup.flush('t');
SELECT count(*), count(*) FILTER (WHERE v = id::text AND w IS NULL) AS right FROM t;

SET client_min_messages = warning;
DROP SCHEMA regress_subxacts CASCADE;
