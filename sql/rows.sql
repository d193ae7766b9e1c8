-- The calls that take rows, and what they refuse at once.
\a
\pset footer off
\set SHOW_CONTEXT never
\pset null '(null)'
CREATE SCHEMA regress_rows;
SET search_path = regress_rows;
CREATE TABLE t (id int PRIMARY KEY, v text, n numeric);
SELECT batchdedup.create_target('t', flush_interval => '0');

--
-- upsert
--
SELECT batchdedup.upsert(ROW(1, 'record', 1.10)::t);
SELECT batchdedup.upsert(ARRAY[ROW(2, 'array', 2), ROW(3, 'array', NULL)]::t[]);
SELECT batchdedup.upsert('t', '{"id":4,"v":"object"}');
SELECT batchdedup.upsert('t', '[{"id":5,"v":"objects"},{"id":6,"n":6.00}]');
SELECT batchdedup.upsert_record('t', ROW(7, 'x', 1)::t);
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (8, 'by name'), (9, NULL)) AS s(id, v);
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY id;

-- a row of the table itself
SELECT count(batchdedup.upsert(t)) FROM t WHERE id < 3;
SELECT batchdedup.upsert(array_agg(t)) FROM t WHERE id < 3;
-- a domain over the row type
CREATE DOMAIN t_domain AS t CHECK ((VALUE).id < 100);
SELECT batchdedup.upsert(ROW(10, 'domain', 1)::t_domain);
SELECT batchdedup.upsert(ARRAY[ROW(11, 'domains', 1)]::t_domain[]);
-- arrays of no rows, of several dimensions
SELECT batchdedup.upsert('{}'::t[]);
SELECT batchdedup.upsert('t', '[]');
SELECT batchdedup.upsert(ARRAY[[ROW(12, 'a', 1)::t, ROW(13, 'b', 1)::t], [ROW(12, 'c', 1)::t, ROW(14, 'd', 1)::t]]);
-- a key repeated: the last counts
SELECT batchdedup.upsert('t', '[{"id":15,"v":"first"},{"id":15,"v":"last"}]');
-- one document may name a key twice, as jsonb sees it
SELECT batchdedup.upsert('t', '{"id":16,"id":17,"v":"x"}');
SELECT batchdedup.flush('t');
SELECT * FROM t WHERE id >= 10 ORDER BY id;

-- unknown literals
SELECT batchdedup.upsert('t', '{}');
\echo :SQLSTATE
PREPARE unknown AS SELECT batchdedup.upsert($1, $2);
SELECT parameter_types FROM pg_prepared_statements WHERE name = 'unknown';
EXECUTE unknown('t', '{"id":18}');

-- NULL
SELECT batchdedup.upsert(NULL::t);
\echo :SQLSTATE
SELECT batchdedup.upsert(NULL::t[]);
\echo :SQLSTATE
SELECT batchdedup.upsert(NULL, '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', NULL);
\echo :SQLSTATE
SELECT batchdedup.upsert_record(NULL, ROW(1)::t);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('t', NULL::t);
\echo :SQLSTATE
SELECT batchdedup.delete(NULL::t);
\echo :SQLSTATE
SELECT batchdedup.delete('t', NULL);
\echo :SQLSTATE
SELECT batchdedup.delete(NULL, '{"id":1}');
\echo :SQLSTATE
-- a row in an array: none of them is taken
SELECT batchdedup.upsert(ARRAY[ROW(20, 'x', 1)::t, NULL]);
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '[{"id":20},null]');
\echo :SQLSTATE
SELECT batchdedup.get('t', '{"id":20}');

-- documents that are no rows
SELECT batchdedup.upsert('t', '5');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '"text"');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', 'null');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '[[{"id":1}]]');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":1');
\echo :SQLSTATE

-- keys that are missing or NULL
SELECT batchdedup.upsert('t', '{"v":"x"}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":null,"v":"x"}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(NULL, 'x', 1)::t);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('t', s) FROM (VALUES ('x')) AS s(v);
\echo :SQLSTATE
SELECT batchdedup.delete('t', '{}');
\echo :SQLSTATE
SELECT batchdedup.delete(ROW(NULL, 'x', 1)::t);
\echo :SQLSTATE

-- columns that are not there
SELECT batchdedup.upsert('t', '{"id":1,"nope":2}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"ID":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":1,"ctid":"(0,1)"}');
\echo :SQLSTATE
SELECT batchdedup.upsert('t', '{"id":1,"":"x"}');
\echo :SQLSTATE
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (1, 2)) AS s(id, nope);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('t', ROW(1, 'x'));
\echo :SQLSTATE
SELECT batchdedup.upsert_record('t', s) FROM (VALUES (1, 2, 3)) AS s(id, n, n);
\echo :SQLSTATE

-- tables and rows that are no targets
CREATE TABLE plain (id int PRIMARY KEY);
SELECT batchdedup.upsert('plain', '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(1)::plain);
\echo :SQLSTATE
SELECT batchdedup.upsert('no_such_table', '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert(0::regclass, '{"id":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(1, 'x', 1));
\echo :SQLSTATE
CREATE TYPE composite AS (id int);
SELECT batchdedup.upsert(ROW(1)::composite);
\echo :SQLSTATE
SELECT batchdedup.upsert(ARRAY[1, 2]);
\echo :SQLSTATE
SELECT batchdedup.upsert(ARRAY[ROW(1)::composite]);
\echo :SQLSTATE
SELECT batchdedup.upsert(ARRAY[ROW(1, 'x')]);
\echo :SQLSTATE
SELECT batchdedup.delete(ROW(1)::composite);
\echo :SQLSTATE

--
-- delete
--
SELECT batchdedup.delete('t', '{"id":1}');
SELECT batchdedup.delete('t', '[{"id":2},{"id":3},{"id":2},{"id":99}]');
SELECT batchdedup.delete(ROW(4, NULL, NULL)::t);
SELECT batchdedup.delete(t) FROM t WHERE id = 5;
-- the other columns of a row do not matter, and need not be valid
SELECT batchdedup.delete(ROW(6, 'other', 99)::t);
SELECT batchdedup.delete('t', '{"id":7,"v":"x"}');
\echo :SQLSTATE
SELECT batchdedup.delete('t', '{"id":7,"nope":"x"}');
\echo :SQLSTATE
SELECT batchdedup.flush('t') > 0 AS flushed;
SELECT id FROM t ORDER BY id;

--
-- Checks of values
--
CREATE TYPE mood AS ENUM ('sad', 'happy');
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN required AS int NOT NULL;
CREATE TABLE checked (id int PRIMARY KEY, nn int NOT NULL, p positive, r required DEFAULT 1,
    c varchar(3), n numeric(4,2), m mood, ch char(2), b bit(3), at timestamptz, ps positive[]);
SELECT batchdedup.create_target('checked', flush_interval => '0');
SELECT batchdedup.upsert('checked', '{"id":1,"nn":null}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(1, NULL, 1, 1, 'x', 1, 'sad', 'x', B'101', now(), NULL)::checked);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (1, NULL::int)) AS s(id, nn);
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"p":0}');
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"r":null}');
\echo :SQLSTATE
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (1, 1, -1)) AS s(id, nn, p);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (1, 1, NULL::int)) AS s(id, nn, r);
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"ps":[1,-1]}');
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"c":"four"}');
\echo :SQLSTATE
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (1, 1, 'four')) AS s(id, nn, c);
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"n":100}');
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"m":"angry"}');
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"b":"11"}');
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":"one","nn":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":3000000000,"nn":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":1,"nn":1,"at":"yesterdayish"}');
\echo :SQLSTATE
-- records are assigned as INSERT assigns
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (1::bigint, 2.6::numeric, 'happy'::mood, 'x'::text, 'ok '::varchar, 9.999, B'110', now()))
    AS s(id, nn, m, ch, c, n, b, at);
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (1, now())) AS s(id, nn);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (1, 1, 'x'::text)) AS s(id, nn, m);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('checked', s) FROM (VALUES (3000000000, 1)) AS s(id, nn);
\echo :SQLSTATE
SELECT batchdedup.upsert('checked', '{"id":2,"nn":2,"ch":"y","c":"abc   "}');
SELECT batchdedup.flush('checked');
SELECT id, nn, p, r, '<' || c || '>' AS c, n, m, '<' || ch::text || '>' AS ch, octet_length(ch) AS length, b FROM checked ORDER BY id;
-- what is refused leaves nothing: an array is taken as a whole
SELECT batchdedup.upsert('checked', '[{"id":3,"nn":1},{"id":4,"nn":null}]');
\echo :SQLSTATE
SELECT batchdedup.flush('checked');

-- generated and identity columns
CREATE TABLE made (id int PRIMARY KEY, a int, twice int GENERATED ALWAYS AS (a * 2) STORED,
    nr int GENERATED ALWAYS AS IDENTITY, nr2 int GENERATED BY DEFAULT AS IDENTITY (START 100));
SELECT batchdedup.create_target('made', flush_interval => '0');
SELECT batchdedup.upsert('made', '{"id":1,"a":1,"twice":5}');
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(1, 1, 5, NULL, NULL)::made);
\echo :SQLSTATE
SELECT batchdedup.upsert_record('made', s) FROM (VALUES (1, 1, 5)) AS s(id, a, twice);
\echo :SQLSTATE
SELECT batchdedup.upsert(ROW(1, 1, NULL, NULL, NULL)::made);
SELECT batchdedup.upsert('made', '{"id":2,"a":2,"twice":null,"nr":null,"nr2":null}');
SELECT batchdedup.upsert('made', '{"id":3,"a":3,"nr2":7}');
SELECT batchdedup.flush('made');
SELECT * FROM made ORDER BY id;
-- as NULL is not given, an update leaves them alone
SELECT batchdedup.upsert(ROW(1, 10, NULL, NULL, NULL)::made);
SELECT batchdedup.upsert('made', '{"id":3,"nr2":8}');
SELECT batchdedup.flush('made');
SELECT * FROM made ORDER BY id;
-- what was read can be written back
SELECT batchdedup.upsert('made', to_jsonb(m) - 'twice') FROM made m WHERE id = 2;
SELECT batchdedup.upsert(ARRAY[ROW(2, 20, NULL, 2, 101)::made]);
SELECT batchdedup.flush('made');
SELECT * FROM made ORDER BY id;
-- an identity key has to be given
CREATE TABLE identity_key (id int GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v int);
SELECT batchdedup.create_target('identity_key', flush_interval => '0');
SELECT batchdedup.upsert(ROW(NULL, 1)::identity_key);
\echo :SQLSTATE
SELECT batchdedup.upsert('identity_key', '{"v":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('identity_key', '{"id":null,"v":1}');
\echo :SQLSTATE
SELECT batchdedup.upsert('identity_key', '{"id":5,"v":1}');
SELECT batchdedup.flush('identity_key');
CREATE TABLE identity_always (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v int);
SELECT batchdedup.create_target('identity_always', flush_interval => '0');
SELECT batchdedup.upsert(ROW(5, 1)::identity_always);
SELECT batchdedup.upsert('identity_always', '{"id":5,"v":2}');
SELECT batchdedup.flush('identity_always');
TABLE identity_always;

-- keys that no index can hold
CREATE TABLE long_key (k text PRIMARY KEY, v int);
SELECT batchdedup.create_target('long_key', flush_interval => '0');
SET default_toast_compression = pglz;  -- the error tells the size
SELECT batchdedup.upsert('long_key', jsonb_build_object('k', string_agg(md5(i::text), ''), 'v', 1)) FROM generate_series(1, 1000) i;
\echo :SQLSTATE
-- the longest ones that it can
SELECT batchdedup.upsert('long_key', jsonb_build_object('k', string_agg(md5(i::text), ''), 'v', 1)) FROM generate_series(1, 80) i;
SELECT batchdedup.flush('long_key');
SELECT length(k), v FROM long_key;
-- one that shrinks when compressed
SELECT batchdedup.upsert('long_key', jsonb_build_object('k', repeat('x', 100000), 'v', 1));
SELECT batchdedup.upsert('long_key', jsonb_build_object('k', repeat('x', 100000), 'v', 2));
SELECT batchdedup.flush('long_key');
SELECT length(k), v FROM long_key ORDER BY 1;

--
-- Tables that change under a session's feet
--
CREATE TABLE grown (id int PRIMARY KEY, v text);
SELECT batchdedup.create_target('grown', flush_interval => '0');
SET plan_cache_mode = force_generic_plan;
PREPARE const AS SELECT batchdedup.upsert('(1,prepared)'::grown);
PREPARE from_text(grown) AS SELECT batchdedup.upsert($1);
PREPARE document(jsonb) AS SELECT batchdedup.upsert('grown', $1);
EXECUTE const;
EXECUTE from_text('(2,prepared)');
EXECUTE document('{"id":3}');
SELECT batchdedup.flush('grown');
ALTER TABLE grown ADD w text DEFAULT 'default', ADD z int NOT NULL DEFAULT 7;
UPDATE grown SET w = 'kept', z = 8;
-- the row has no such columns: not given
EXECUTE const;
EXECUTE document('{"id":3,"v":"x"}');
EXECUTE document('{"id":4,"w":"given"}');
SELECT batchdedup.flush('grown');
SELECT * FROM grown ORDER BY id;
DELETE FROM grown;
EXECUTE const;
SELECT batchdedup.flush('grown');
SELECT * FROM grown ORDER BY id;
ALTER TABLE grown DROP v;
EXECUTE document('{"id":5,"v":"x"}');
\echo :SQLSTATE
EXECUTE document('{"id":5,"w":"x"}');
SELECT batchdedup.upsert(ROW(6, 'w', 9)::grown);
SELECT batchdedup.flush('grown');
SELECT * FROM grown ORDER BY id;

SET client_min_messages = warning;
DROP SCHEMA regress_rows CASCADE;
