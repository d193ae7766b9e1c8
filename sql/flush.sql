-- flush(), pause() and resume().
\a
\pset footer off
\pset null '(null)'
CREATE SCHEMA regress_flush;
SET search_path = regress_flush;
CREATE TABLE a (id int PRIMARY KEY, v int);
CREATE TABLE b (id int PRIMARY KEY, v int);
CREATE TABLE c (id int PRIMARY KEY, v int);
SELECT count(batchdedup.create_target(t, flush_interval => '0')) FROM unnest('{a,b,c}'::regclass[]) t;

-- rows applied: distinct keys, not calls
SELECT batchdedup.flush('a');
SELECT count(batchdedup.upsert(ROW(i % 3, i)::a)) FROM generate_series(1, 100) i;
SELECT batchdedup.flush('a');
SELECT * FROM a ORDER BY id;
SELECT batchdedup.flush('a');
-- rows that change nothing are applied, too
SELECT batchdedup.upsert(ROW(0, 99)::a);
SELECT batchdedup.flush('a');
-- several, each once
SELECT batchdedup.upsert(ROW(1, 1)::a), batchdedup.upsert(ROW(1, 1)::b), batchdedup.upsert(ROW(1, 1)::c);
SELECT batchdedup.flush('a', 'b');
SELECT count(*) FROM c;
SELECT batchdedup.upsert(ROW(2, 2)::a), batchdedup.upsert(ROW(2, 2)::b);
SELECT batchdedup.flush('a', 'a', 'b');
-- all
SELECT batchdedup.upsert(ROW(3, 3)::a);
SELECT batchdedup.flush();
SELECT count(*) FROM c;
SELECT batchdedup.flush();
SELECT batchdedup.flush(VARIADIC '{}');
SELECT batchdedup.flush(VARIADIC '{a,b}');

-- what the transaction has pending is not flushed, and flush() says so
BEGIN;
SELECT batchdedup.upsert(ROW(4, 4)::a);
SELECT batchdedup.flush('a');
SELECT count(*) FROM a WHERE id = 4;
SAVEPOINT s;
SELECT batchdedup.flush('b');
COMMIT;
SELECT batchdedup.flush('a');
SELECT count(*) FROM a WHERE id = 4;
-- in a transaction: it is not undone by a rollback
SELECT batchdedup.upsert(ROW(5, 5)::a);
BEGIN;
SELECT batchdedup.flush('a');
SELECT * FROM a WHERE id = 5;
ROLLBACK;
SELECT * FROM a WHERE id = 5;

-- mistakes
SELECT batchdedup.flush(NULL);
\echo :SQLSTATE
SELECT batchdedup.flush('a', NULL);
\echo :SQLSTATE
SELECT batchdedup.flush(VARIADIC NULL);
\echo :SQLSTATE
SELECT batchdedup.flush('no_such_table');
\echo :SQLSTATE
CREATE TABLE no_target (id int PRIMARY KEY);
SELECT batchdedup.flush('no_target');
\echo :SQLSTATE
SELECT batchdedup.flush('a', 'no_target');
\echo :SQLSTATE

--
-- By time and by rows
--
CREATE FUNCTION wait_for(query text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
    done bool;
BEGIN
    FOR i IN 1..1000 LOOP
        EXECUTE query INTO done;
        IF done THEN
            RETURN true;
        END IF;
        PERFORM pg_sleep(0.01);
    END LOOP;
    RETURN false;
END $$;
SELECT batchdedup.alter_target('a', flush_interval => '50 ms');
SELECT batchdedup.upsert(ROW(10, 10)::a);
SELECT wait_for('SELECT EXISTS (SELECT FROM regress_flush.a WHERE id = 10)');
SELECT batchdedup.alter_target('a', flush_interval => '0', flush_rows => 5);
SELECT batchdedup.upsert(ARRAY[ROW(20, 1), ROW(21, 1), ROW(22, 1), ROW(23, 1)]::a[]);
SELECT batchdedup.upsert(ARRAY[ROW(20, 2), ROW(21, 2), ROW(22, 2), ROW(23, 2)]::a[]);
SELECT pg_sleep(0.2);
SELECT count(*) FROM a WHERE id >= 20;
SELECT batchdedup.upsert(ROW(24, 1)::a);
SELECT wait_for('SELECT count(*) = 5 FROM regress_flush.a WHERE id >= 20');
-- an option that is changed counts at once
SELECT batchdedup.alter_target('a', flush_rows => 0);
SELECT batchdedup.upsert(ROW(30, 1)::a);
SELECT batchdedup.alter_target('a', flush_interval => '1 ms');
SELECT wait_for('SELECT EXISTS (SELECT FROM regress_flush.a WHERE id = 30)');
SELECT batchdedup.alter_target('a', flush_interval => '0');

--
-- pause and resume
--
SELECT batchdedup.pause('a');
SELECT target, paused FROM batchdedup.target ORDER BY target::text;
SELECT batchdedup.upsert(ROW(40, 1)::a);
SELECT batchdedup.flush('a');
\echo :SQLSTATE
-- flush() of all leaves it out
SELECT batchdedup.upsert(ROW(40, 1)::b);
SELECT batchdedup.flush();
SELECT batchdedup.get('a', '{"id":40}');
SELECT count(*) FROM a WHERE id = 40;
-- again: no matter
SELECT batchdedup.pause('a');
SELECT batchdedup.resume('a');
SELECT batchdedup.resume('a');
SELECT batchdedup.flush('a');
SELECT count(*) FROM a WHERE id = 40;
-- neither by time nor by rows
SELECT batchdedup.alter_target('a', flush_interval => '1 ms', flush_rows => 1);
SELECT batchdedup.pause('a');
SELECT batchdedup.upsert(ARRAY[ROW(50, 1), ROW(51, 1)]::a[]);
SELECT pg_sleep(0.2);
SELECT count(*) FROM a WHERE id >= 50;
-- what waited goes once it is resumed
SELECT batchdedup.resume('a');
SELECT wait_for('SELECT count(*) = 2 FROM regress_flush.a WHERE id >= 50');
-- it belongs to the transaction
BEGIN;
SELECT batchdedup.pause('b');
ROLLBACK;
SELECT batchdedup.upsert(ROW(60, 1)::b);
SELECT batchdedup.flush('b');
-- a paused target can be dropped
SELECT batchdedup.pause('c');
SELECT batchdedup.upsert(ROW(70, 1)::c);
SELECT batchdedup.drop_target('c');
SELECT * FROM c WHERE id = 70;
-- mistakes
SELECT batchdedup.pause(NULL);
\echo :SQLSTATE
SELECT batchdedup.resume(NULL);
\echo :SQLSTATE
SELECT batchdedup.pause('c');
\echo :SQLSTATE
SELECT batchdedup.resume('no_target');
\echo :SQLSTATE

-- a trigger cannot wait for a flush while rows are applied
CREATE FUNCTION flush_there() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.flush('regress_flush.b');
    RETURN NEW;
END $$;
CREATE TRIGGER flush_there BEFORE INSERT ON a FOR EACH ROW EXECUTE FUNCTION flush_there();
SELECT batchdedup.alter_target('a', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.upsert(ROW(80, 1)::a);
SELECT batchdedup.flush('a');
CREATE OR REPLACE FUNCTION flush_there() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
SELECT batchdedup.flush('a');
SELECT * FROM a WHERE id = 80;

SET client_min_messages = warning;
DROP SCHEMA regress_flush CASCADE;
