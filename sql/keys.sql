-- Keys that are equal end as one row, however they are spelled; the row has
-- the spelling that came first, as with INSERT ... ON CONFLICT.
\a
\pset footer off
\pset null '(null)'
CREATE SCHEMA regress_keys;
SET search_path = regress_keys, public;
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS citext SCHEMA public;
RESET client_min_messages;

-- Writes each spelling with its number to a plain table, and through
-- batchdedup to three more: as whole rows in one transaction, as rows given
-- in part in one transaction, and as whole rows in a transaction each.
CREATE PROCEDURE write_keys(type text, spellings text[], indexed_as text DEFAULT '') LANGUAGE plpgsql AS $$
BEGIN
    SET LOCAL client_min_messages = warning;
    DROP TABLE IF EXISTS plain, whole, part, apart;
    EXECUTE format('CREATE TABLE plain (k %s NOT NULL, n int, w int)', type);
    EXECUTE format('CREATE UNIQUE INDEX ON plain (k %s)', indexed_as);
    CREATE TABLE whole (LIKE plain INCLUDING ALL);
    CREATE TABLE part (LIKE plain INCLUDING ALL);
    CREATE TABLE apart (LIKE plain INCLUDING ALL);
    PERFORM batchdedup.create_target(t::regclass, key => 'k', flush_interval => '0')
       FROM unnest('{whole,part,apart}'::text[]) t;
    COMMIT;
    FOR i IN 1..cardinality(spellings) LOOP
        EXECUTE format('INSERT INTO plain VALUES ($1::text::%s, $2)
            ON CONFLICT (k) DO UPDATE SET n = EXCLUDED.n', type) USING spellings[i], i;
        EXECUTE format('SELECT batchdedup.upsert(ROW($1::text::%s, $2, NULL)::whole)', type)
          USING spellings[i], i;
        EXECUTE format('SELECT batchdedup.upsert_record(''part'', s) FROM (SELECT $1::text::%s, $2) AS s(k, n)', type)
          USING spellings[i], i;
    END LOOP;
    COMMIT;
    FOR i IN 1..cardinality(spellings) LOOP
        EXECUTE format('SELECT batchdedup.upsert(ROW($1::text::%s, $2, NULL)::apart)', type)
          USING spellings[i], i;
        COMMIT;
    END LOOP;
    -- what is read, from the buffer and then from the table
    FOR i IN 1..2 LOOP
        FOR s IN 1..cardinality(spellings) LOOP
            CALL compare_get(type, spellings[s]);
        END LOOP;
        EXECUTE 'SELECT batchdedup.flush(''whole'', ''part'', ''apart'')';
    END LOOP;
END $$;

CREATE PROCEDURE compare_get(type text, spelling text) LANGUAGE plpgsql AS $$
DECLARE
    target text;
    expected int;
    found jsonb;
BEGIN
    EXECUTE format('SELECT n FROM plain WHERE k = $1::text::%s', type) INTO expected USING spelling;
    FOREACH target IN ARRAY '{whole,part,apart}'::text[] LOOP
        EXECUTE format('SELECT batchdedup.get($2::regclass, jsonb_build_object(''k'', $1::text::%s))', type)
           INTO found USING spelling, target;
        IF (found ->> 'n')::int IS DISTINCT FROM expected THEN
            RAISE WARNING '%: get of % gives % where the table has %', target, spelling, found, expected;
        END IF;
    END LOOP;
END $$;

-- What plain SQL has made of it, and whether ours is the same to the byte.
CREATE FUNCTION outcome() RETURNS TABLE (k text, n int, whole bool, part bool, apart bool) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY SELECT p.k::text, p.n,
        EXISTS (SELECT FROM whole o WHERE o *= p) AND (SELECT count(*) FROM whole) = (SELECT count(*) FROM plain),
        EXISTS (SELECT FROM part o WHERE o *= p) AND (SELECT count(*) FROM part) = (SELECT count(*) FROM plain),
        EXISTS (SELECT FROM apart o WHERE o *= p) AND (SELECT count(*) FROM apart) = (SELECT count(*) FROM plain)
      FROM plain p ORDER BY p.n;
END $$;

CALL write_keys('numeric', '{1,1.0,1.00,2.50,2.5,0,-0.0,0.000,1e3,1000,NaN,Infinity,-Infinity,inf,12345678901234567890.10,12345678901234567890.1}');
SELECT * FROM outcome();
CALL write_keys('numeric(6,2)', '{1,1.0,1.001,2.5}');
SELECT * FROM outcome();
CALL write_keys('char(5)', '{a,"a  ","a ",b,"","   "}');
SELECT * FROM outcome();
-- bpchar: a char without a length keeps its blanks
CALL write_keys('bpchar', '{a,"a  ","a ",b,"","   "}');
SELECT '<' || k || '>' AS k, n, whole, part, apart FROM (SELECT k, n, whole, part, apart FROM outcome()) o;
CALL write_keys('bpchar', '{a,"a  ",b,A}', 'bpchar_pattern_ops');
SELECT '<' || k || '>' AS k, n, whole, part, apart FROM (SELECT k, n, whole, part, apart FROM outcome()) o;
CALL write_keys('varchar(5)', '{a,"a ",A}');
SELECT '<' || k || '>' AS k, n, whole, part, apart FROM outcome();
CALL write_keys('text', '{a,"a ",A,á,""}');
SELECT '<' || k || '>' AS k, n, whole, part, apart FROM outcome();
CALL write_keys('citext', '{abc,ABC,aBc,abd,ABD}');
SELECT * FROM outcome();
CALL write_keys('name', '{a,A,b,a}');
SELECT * FROM outcome();
CALL write_keys('float8', '{0,-0,1,1.0,NaN,nan,Infinity,inf,1e-320}');
SELECT * FROM outcome();
CALL write_keys('float4', '{-0,0,1.5,NaN,1.50}');
SELECT * FROM outcome();
CALL write_keys('interval', '{1 month,30 days,720 hours,24 hours,1 day,1 year,360 days,-1 month,"-1 month -30 days","1 month -30 days",0}');
SELECT * FROM outcome();
CALL write_keys('timestamptz', '{2026-01-01 00:00+00,2026-01-01 01:00+01,infinity,-infinity,2026-01-01 00:00:00.000001+00}');
SELECT k::timestamptz AT TIME ZONE 'UTC' AS k, n, whole, part, apart FROM outcome();
CALL write_keys('timetz', '{00:00+00,01:00+01,00:00+00}');
SELECT * FROM outcome();
CALL write_keys('date', '{2026-01-01,2026-01-02,"Jan 1 2026"}');
SELECT * FROM outcome();
CALL write_keys('bool', '{t,f,true}');
SELECT * FROM outcome();
CALL write_keys('"char"', '{a,b,a}');
SELECT * FROM outcome();
CALL write_keys('smallint', '{1,-1,01}');
SELECT * FROM outcome();
CALL write_keys('oid', '{1,4294967295,1}');
SELECT * FROM outcome();
CALL write_keys('money', '{1,1.00,2}');
SELECT n, whole, part, apart FROM outcome();
CALL write_keys('uuid', '{00000000-0000-0000-0000-00000000000a,"{0000000000000000000000000000000A}",00000000-0000-0000-0000-00000000000b}');
SELECT * FROM outcome();
CALL write_keys('bytea', E'{"\\\\x00","\\\\x0000","\\\\000",""}');
SELECT * FROM outcome();
CALL write_keys('bit varying', '{1,10,1}');
SELECT * FROM outcome();
CALL write_keys('inet', '{10.0.0.1,10.0.0.1/32,10.0.0.0/8}');
SELECT * FROM outcome();
CALL write_keys('macaddr', '{08:00:2b:01:02:03,08-00-2b-01-02-03}');
SELECT * FROM outcome();
CALL write_keys('int[]', '{"{1,2}","{ 1, 2 }","{}","{1,NULL}","{{1,2}}"}');
SELECT * FROM outcome();
CALL write_keys('numeric[]', '{"{1,2}","{1.0,2.00}","{1.0}"}');
SELECT * FROM outcome();
CALL write_keys('jsonb', '{"{\"a\":1,\"b\":2}","{\"b\":2,\"a\":1.00}","1","1.0","\"1\"","[1]"}');
SELECT * FROM outcome();
CALL write_keys('int4range', '{"[1,3]","[1,4)","(0,3]","empty","(5,5)"}');
SELECT * FROM outcome();
CALL write_keys('numrange', '{"[1,3]","[1.0,3.00]","[1,3)"}');
SELECT * FROM outcome();
CALL write_keys('int4multirange', '{"{[1,3),[3,5)}","{[1,5)}","{}"}');
SELECT * FROM outcome();
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CALL write_keys('mood', '{happy,sad,happy}');
SELECT * FROM outcome();
CREATE TYPE pair AS (x numeric, y text);
CALL write_keys('pair', '{"(1,a)","(1.0,a)","(1,A)","(,a)"}');
SELECT * FROM outcome();
CREATE DOMAIN code AS numeric CHECK (VALUE > 0);
CALL write_keys('code', '{1,1.0,2}');
SELECT * FROM outcome();
CREATE DOMAIN code2 AS citext;
CALL write_keys('code2', '{a,A,b}');
SELECT * FROM outcome();
-- operator classes and collations of the index count, not those of the type
CALL write_keys('text', '{a,b,A,a}', 'text_pattern_ops');
SELECT * FROM outcome();
CALL write_keys('text', '{a,b,A,a}', 'COLLATE "C" DESC');
SELECT * FROM outcome();
CALL write_keys('jsonb', '{"1","1.00","2"}', 'DESC');
SELECT * FROM outcome();

-- keys of several columns
SET client_min_messages = warning;
DROP TABLE plain, whole, part, apart;
RESET client_min_messages;
CREATE TABLE several (a text, b text, n int, PRIMARY KEY (a, b));
SELECT batchdedup.create_target('several', flush_interval => '0');
SELECT batchdedup.upsert(ARRAY[ROW('a','bc',1), ROW('ab','c',2), ROW('abc','',3), ROW('','abc',4), ROW('a','bc',5)]::several[]);
SELECT batchdedup.get('several', '{"a":"ab","b":"c"}'), batchdedup.get('several', '{"b":"bc","a":"a"}');
SELECT batchdedup.flush('several');
SELECT * FROM several ORDER BY n;
CREATE TABLE mixed (a numeric, b citext, c int, d float8, n int, PRIMARY KEY (a, b, c, d));
SELECT batchdedup.create_target('mixed', key => 'd, c, b, a', flush_interval => '0');
SELECT batchdedup.upsert('mixed', '[{"a":1,"b":"x","c":1,"d":0,"n":1},{"a":1.0,"b":"X","c":1,"d":"-0","n":2},{"a":1.0,"b":"X","c":2,"d":"-0","n":3}]');
SELECT batchdedup.upsert('mixed', '{"a":1.00,"b":"X","c":1,"d":0.0,"n":4}');
SELECT batchdedup.delete('mixed', '{"a":"1.000","b":"x","c":2,"d":0}');
SELECT batchdedup.get('mixed', '{"a":1.00,"b":"X","c":1,"d":0.0}'), batchdedup.get('mixed', '{"a":1.00,"b":"X","c":2,"d":0.0}');
SELECT batchdedup.flush('mixed');
TABLE mixed;

-- deletes and savepoints with keys that only their type can compare
CREATE TABLE spelled (k citext PRIMARY KEY, v int, w int);
SELECT batchdedup.create_target('spelled', flush_interval => '0');
BEGIN;
SELECT batchdedup.upsert('spelled', '{"k":"Key","v":1}');
SAVEPOINT a;
SELECT batchdedup.delete('spelled', '{"k":"KEY"}');
SELECT batchdedup.get('spelled', '{"k":"key"}');
ROLLBACK TO a;
SELECT batchdedup.upsert('spelled', '{"k":"KEY","w":2}');
SELECT batchdedup.get('spelled', '{"k":"key"}');
SELECT batchdedup.upsert('spelled', '{"k":"Other","v":1,"w":1}');
COMMIT;
SELECT batchdedup.delete('spelled', '{"k":"other"}');
SELECT batchdedup.upsert('spelled', '{"k":"OTHER","v":3}');
SELECT k, v, w FROM batchdedup.buffered(NULL::spelled) ORDER BY k;
SELECT batchdedup.flush('spelled');
SELECT * FROM spelled ORDER BY k;
SELECT batchdedup.upsert(ROW('KEY', 5, 5)::spelled);
SELECT batchdedup.delete('spelled', '{"k":"oTHER"}');
SELECT batchdedup.flush('spelled');
SELECT * FROM spelled ORDER BY k;

SET client_min_messages = warning;
DROP SCHEMA regress_keys CASCADE;
