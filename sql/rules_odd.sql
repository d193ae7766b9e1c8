--
-- Rules and versions where one may not expect them
--
\a
\pset footer off
\pset null (null)
\set SHOW_CONTEXT never
SET client_min_messages = warning;
CREATE SCHEMA regress_rules_odd;
SET search_path = regress_rules_odd;

--
-- A composite value of NULLs is not NULL, though "IS NULL" says so
--
CREATE TYPE revision AS (major int, minor int);
CREATE TABLE revised (id int PRIMARY KEY, rev revision, best revision);
CREATE FUNCTION second(revision, revision) RETURNS revision LANGUAGE sql STRICT AS 'SELECT ($1.minor, $2.minor)::regress_rules_odd.revision';
SELECT batchdedup.create_target('revised', flush_interval => '0', version_column => 'rev', merge => '{"best": "second"}');
INSERT INTO revised VALUES (1, (NULL, NULL), (1, 1)), (2, (1, 1), (NULL, NULL));
SELECT batchdedup.upsert(ARRAY[ROW(1, (1, 2), (2, 2)), ROW(2, (1, 2), (2, 2))]::revised[]);
SELECT batchdedup.get('revised', '{"id": 1}');
SELECT batchdedup.flush('revised') > 0 AS flushed;
SELECT * FROM revised ORDER BY id;

--
-- A function that goes while rows wait for it
--
CREATE FUNCTION twice(int, int) RETURNS int LANGUAGE sql AS 'SELECT $1 + 2 * $2';
CREATE TABLE doubled (id int PRIMARY KEY, n int);
INSERT INTO doubled VALUES (1, 0);
SELECT batchdedup.create_target('doubled', flush_interval => '0', merge => '{"n": "twice"}');
SELECT batchdedup.upsert('doubled', '[{"id": 1, "n": 1}, {"id": 1, "n": 2}]');
ALTER FUNCTION twice(int, int) RENAME TO thrice;
SELECT batchdedup.upsert('doubled', '{"id": 1, "n": 3}');
SELECT batchdedup.flush('doubled');
SELECT batchdedup.alter_target('doubled', reset => 'merge');
ALTER FUNCTION thrice(int, int) RENAME TO twice;
SELECT batchdedup.flush('doubled') > 0 AS flushed;
SELECT * FROM doubled;
-- or TRUNCATE, for whom the rows do not matter
SELECT batchdedup.upsert('doubled', '{"id": 1, "n": 1}');
DROP FUNCTION twice(int, int);
TRUNCATE doubled;
SELECT batchdedup.alter_target('doubled', reset => 'merge');
SELECT batchdedup.upsert('doubled', '{"id": 1, "n": 1}');
SELECT batchdedup.flush('doubled') > 0 AS flushed;
SELECT * FROM doubled;

--
-- Values at the edge of their types: as a direct write
--
CREATE TABLE edge (id int PRIMARY KEY, most float8, least float8, sum float8, exact numeric, text text COLLATE "C", span interval, at timestamp, till timestamptz,
    list text[], doc jsonb, money money, real real, short numeric(6,2), day date);
CREATE TABLE direct (LIKE edge INCLUDING ALL);
SELECT batchdedup.create_target(t, flush_interval => '0', guard => 'off', mode => CASE t WHEN 'direct'::regclass THEN 'direct' ELSE 'buffered' END,
    merge => '{"most": "max", "least": "min", "sum": "sum", "exact": "max", "text": "min", "span": "max", "at": "max", "till": "min", "list": "concat", "doc": "concat",
               "money": "max", "real": "sum", "short": "sum", "day": "max"}')
  FROM unnest('{edge,direct}'::regclass[]) t;
CREATE PROCEDURE send(doc jsonb) LANGUAGE plpgsql AS $$
BEGIN
    PERFORM batchdedup.upsert('edge', doc);
    PERFORM batchdedup.upsert('direct', doc);
END$$;
CALL send('{"id": 1, "most": "-0", "least": "0", "sum": "-0", "exact": "1.0", "text": "b", "span": "1 mon", "at": "infinity", "till": "-infinity", "list": ["a"], "doc": [1],
            "money": "1", "real": 1e38, "short": 1.111, "day": "infinity"}');
CALL send('{"id": 1, "most": "0", "least": "-0", "sum": "-0", "exact": "1.00", "text": "a", "span": "30 days", "at": "2024-01-01", "till": "2024-01-01", "list": [], "doc": {"a": 1},
            "money": "2", "real": 1e38, "short": 1.118, "day": "2024-01-01"}');
SELECT batchdedup.get('edge', '{"id": 1}') = to_jsonb(direct) AS same FROM direct;
CALL send('{"id": 1, "most": "NaN", "least": "NaN", "sum": "Infinity", "exact": "NaN", "text": "B", "list": ["b", "c"], "doc": [2]}');
CALL send('{"id": 1, "most": "Infinity", "least": "-Infinity", "sum": "-Infinity", "exact": "Infinity", "list": null, "doc": null}');
CALL send('{"id": 2, "list": [["a"]]}');
CALL send('{"id": 2, "list": ["b"]}');
CALL send('{"id": 2, "list": [["c"]]}');
SELECT batchdedup.flush('edge') > 0 AS flushed;
SELECT count(*) AS different FROM edge JOIN direct USING (id) WHERE edge::text <> direct::text;
SELECT most, least, sum, exact, text, list FROM edge ORDER BY id;

--
-- Combined rows are accepted or refused together
--
CREATE TABLE limited (id int PRIMARY KEY, n int CHECK (n <= 100), w text);
SELECT batchdedup.create_target('limited', flush_interval => '0', merge => '{"n": "sum"}');
INSERT INTO limited VALUES (1, 60, 'table');
SELECT batchdedup.upsert('limited', '[{"id": 1, "n": 30, "w": "fits"}, {"id": 1, "n": 30, "w": "does not"}]');
SELECT batchdedup.flush('limited') > 0 AS flushed;
SELECT * FROM limited;
SELECT "row" FROM batchdedup.dead_letter WHERE target = 'limited'::regclass;
-- only a delete makes the letter needless; retried, it counts on top of what came since
SELECT batchdedup.upsert(ROW(1, -50, 'since')::limited);
SELECT batchdedup.flush('limited') > 0 AS flushed;
SELECT superseded FROM batchdedup.dead_letter WHERE target = 'limited'::regclass;
SELECT batchdedup.retry_dead_letters('limited');
SELECT * FROM limited;
SELECT batchdedup.upsert('limited', '{"id": 1, "n": 90}');
SELECT batchdedup.flush('limited') > 0 AS flushed;
SELECT batchdedup.delete('limited', '{"id": 1}');
SELECT batchdedup.flush('limited') > 0 AS flushed;
SELECT superseded FROM batchdedup.dead_letter WHERE target = 'limited'::regclass;

DROP SCHEMA regress_rules_odd CASCADE;
