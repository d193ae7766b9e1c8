-- Rows belong to the caller's transaction.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_xact;
SET search_path = regress_xact;
CREATE TABLE t (id int PRIMARY KEY, v text);
SELECT batchdedup.create_target('t', flush_interval => '0');

-- committed, rolled back
BEGIN;
SELECT batchdedup.upsert('t', '{"id":1,"v":"committed"}');
COMMIT;
BEGIN;
SELECT batchdedup.upsert('t', '{"id":2,"v":"rolled back"}');
SELECT batchdedup.upsert('t', '{"id":1,"v":"rolled back"}');
SELECT batchdedup.delete('t', '{"id":1}');
ROLLBACK;
SELECT batchdedup.flush('t');
TABLE t;

-- AND CHAIN
BEGIN;
SELECT batchdedup.upsert('t', '{"id":2,"v":"chain"}');
COMMIT AND CHAIN;
SELECT batchdedup.upsert('t', '{"id":3,"v":"rolled back"}');
ROLLBACK AND CHAIN;
SELECT batchdedup.upsert('t', '{"id":4,"v":"chain"}');
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

-- read only
BEGIN READ ONLY;
SELECT batchdedup.upsert('t', '{"id":5}');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT batchdedup.upsert(ROW(5, 'x')::t);
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT batchdedup.delete('t', '{"id":1}');
\echo :SQLSTATE
ROLLBACK;
-- reading and flushing are no writes of this transaction
BEGIN READ ONLY;
SELECT batchdedup.get('t', '{"id":1}');
SELECT count(*) FROM batchdedup.buffered(NULL::t);
SELECT batchdedup.flush('t');
COMMIT;

-- two-phase commit
BEGIN;
SELECT batchdedup.upsert('t', '{"id":5,"v":"prepared"}');
PREPARE TRANSACTION 'regress_bdd';
\echo :SQLSTATE
SELECT count(*) FROM pg_prepared_xacts WHERE gid = 'regress_bdd';
-- it is there if the row went to the table
ROLLBACK PREPARED 'regress_bdd';
BEGIN;
SAVEPOINT a;
SELECT batchdedup.upsert('t', '{"id":5,"v":"rolled back before"}');
ROLLBACK TO a;
INSERT INTO t VALUES (6, 'plain');
PREPARE TRANSACTION 'regress_bdd';
COMMIT PREPARED 'regress_bdd';
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

-- isolation levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT batchdedup.upsert('t', '{"id":7,"v":"repeatable read"}');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT batchdedup.upsert('t', '{"id":8,"v":"serializable"}');
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id IN (7, 8) ORDER BY id;

-- beside other changes of the same transaction, and notifications
BEGIN;
CREATE TABLE beside (id int);
INSERT INTO beside VALUES (1);
NOTIFY regress_bdd, 'x';
SELECT batchdedup.upsert('t', '{"id":9,"v":"beside"}');
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id = 9;

-- triggers that fire at commit
CREATE TABLE source (id int PRIMARY KEY, v text);
CREATE FUNCTION copy_to_t() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('regress_xact.t', jsonb_build_object('id', NEW.id + 100, 'v', NEW.v));
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER copy_to_t AFTER INSERT OR UPDATE ON source DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION copy_to_t();
BEGIN;
INSERT INTO source VALUES (1, 'deferred'), (2, 'deferred');
UPDATE source SET v = 'deferred again' WHERE id = 2;
SELECT batchdedup.get('t', '{"id":101}');
COMMIT;
BEGIN;
INSERT INTO source VALUES (3, 'rolled back');
ROLLBACK;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id > 100 ORDER BY id;
-- a cursor that is read to its end at commit
BEGIN;
DECLARE c CURSOR WITH HOLD FOR SELECT batchdedup.upsert(ROW(i, 'cursor')::t) FROM generate_series(201, 203) i;
FETCH 1 FROM c;
COMMIT;
CLOSE c;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id > 200 ORDER BY id;
-- a commit that fails: nothing is published
CREATE TABLE checks (id int UNIQUE DEFERRABLE INITIALLY DEFERRED);
INSERT INTO checks VALUES (1);
BEGIN;
SELECT batchdedup.upsert('t', '{"id":300,"v":"not committed"}');
INSERT INTO checks VALUES (1);
COMMIT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id = 300;

-- procedures that commit
CREATE PROCEDURE load(n int) LANGUAGE plpgsql AS $$
BEGIN
    FOR i IN 1..n LOOP
        PERFORM batchdedup.upsert('regress_xact.t', jsonb_build_object('id', 400 + i, 'v', 'procedure'));
        IF i % 3 = 0 THEN
            ROLLBACK;
        ELSE
            COMMIT;
        END IF;
    END LOOP;
    PERFORM batchdedup.upsert('regress_xact.t', jsonb_build_object('id', 400 + n + 1, 'v', 'last'));
END $$;
CALL load(6);
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id > 400 ORDER BY id;
-- and that flush what they have committed
CREATE PROCEDURE load_and_flush() LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('regress_xact.t', '{"id":500,"v":"flushed inside"}');
    COMMIT;
    RAISE NOTICE 'flushed %', batchdedup.flush('regress_xact.t');
    RAISE NOTICE 'found %', (SELECT v FROM regress_xact.t WHERE id = 500);
END $$;
CALL load_and_flush();

-- functions of every kind of caller
CREATE FUNCTION in_sql(int) RETURNS void LANGUAGE sql AS
$$ SELECT batchdedup.upsert('regress_xact.t', jsonb_build_object('id', $1, 'v', 'sql')) $$;
SELECT in_sql(600);
WITH w AS (SELECT batchdedup.upsert(ROW(601, 'cte')::t)) SELECT count(*) FROM w;
INSERT INTO source SELECT 602, batchdedup.upsert('t', '{"id":602,"v":"select list"}')::text;
COPY (SELECT batchdedup.upsert('t', '{"id":603,"v":"copy"}')) TO STDOUT;
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id >= 600 ORDER BY id;

SET client_min_messages = warning;
DROP SCHEMA regress_xact CASCADE;
