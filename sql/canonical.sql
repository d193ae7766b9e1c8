-- canonical_json and data_version.
\a
\pset footer off
CREATE SCHEMA regress_canonical;
SET search_path = regress_canonical, batchdedup, public;

-- ---------- the examples of RFC 8785 ----------

SELECT canonical_json($${
  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}$$, 'round') = $${"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}$$ AS appendix;
-- keys by their UTF-16 code units: the emoji before the Hebrew letter
SELECT string_agg(value, ', ' ORDER BY n) FROM json_each_text(canonical_json($${
  "\u20ac": "Euro Sign", "\r": "Carriage Return", "\ufb33": "Hebrew Letter Dalet With Dagesh", "1": "One",
  "\ud83d\ude00": "Emoji: Grinning Face", "\u0080": "Control", "\u00f6": "Latin Small Letter O With Diaeresis"
}$$)::json) WITH ORDINALITY AS k(key, value, n);
-- its table of doubles
CREATE TABLE vector (number text, canonical text);
INSERT INTO vector VALUES ('0', '0'), ('-0', '0'), ('5e-324', '5e-324'), ('-5e-324', '-5e-324'),
    ('1.7976931348623157e+308', '1.7976931348623157e+308'), ('-1.7976931348623157e+308', '-1.7976931348623157e+308'),
    ('9007199254740992', '9007199254740992'), ('-9007199254740992', '-9007199254740992'),
    ('295147905179352830000', '295147905179352830000'), ('9.999999999999997e+22', '9.999999999999997e+22'),
    ('1e+23', '1e+23'), ('1.0000000000000001e+23', '1.0000000000000001e+23'),
    ('999999999999999700000', '999999999999999700000'), ('999999999999999900000', '999999999999999900000'),
    ('1e+21', '1e+21'), ('9.999999999999997e-7', '9.999999999999997e-7'), ('0.000001', '0.000001'),
    ('333333333.3333332', '333333333.3333332'), ('333333333.33333325', '333333333.33333325'),
    ('333333333.3333333', '333333333.3333333'), ('333333333.3333334', '333333333.3333334'),
    ('333333333.33333343', '333333333.33333343'), ('-0.0000033333333333333333', '-0.0000033333333333333333'),
    ('1424953923781206.2', '1424953923781206.2'), ('0.1', '0.1'), ('1.10', '1.1'), ('100', '100'), ('1e2', '100'),
    ('123456789012345680000', '123456789012345680000'), ('0.00001', '0.00001'), ('1e-7', '1e-7');
SELECT number, canonical_json(number::jsonb) FROM vector WHERE canonical_json(number::jsonb) <> canonical;
-- twice is once
SELECT count(*) FROM vector WHERE canonical_json(canonical_json(number::jsonb)::jsonb) <> canonical;

-- ---------- numbers that a double cannot say ----------

SELECT canonical_json('9007199254740993');
\echo :SQLSTATE
SELECT canonical_json('{"a": [1, 333333333.33333329]}');
SELECT canonical_json('1e400');
SELECT canonical_json('1e400', 'round');
\echo :SQLSTATE
SELECT canonical_json('1e-400', 'round') AS rounded, canonical_json('1e-400', 'string') = '"0.' || repeat('0', 399) || '1"' AS string;
SELECT canonical_json('[9007199254740993, -333333333.33333329, 1e400]', 'string') = '["9007199254740993","-333333333.33333329","1' || repeat('0', 400) || '"]' AS strings;
SELECT canonical_json('9007199254740993', 'round');
SELECT canonical_json('1', 'shrug');
\echo :SQLSTATE
SELECT canonical_json(NULL);
\echo :SQLSTATE
SELECT canonical_json('1', NULL);

-- ---------- strings, shapes ----------

SELECT canonical_json('"\b\t\n\f\r\u0001\u001f\u007f/\\\""');
SELECT canonical_json('{}'), canonical_json('[]'), canonical_json('null'), canonical_json('"x"'), canonical_json('[[], {}, [[1]]]');
SELECT canonical_json('{"b": {"d": 1, "c": [{"f": 1, "e": 2}]}, "a": null, "aa": 1, "": 0}');
SELECT length(canonical_json((repeat('[', 1000) || repeat(']', 1000))::jsonb));
SELECT canonical_json((repeat('[', 100000) || repeat(']', 100000))::jsonb) IS NULL;
\echo :SQLSTATE

-- ---------- data_version ----------

SELECT data_version('{"price": 1.10, "name": "x"}');
SELECT data_version('{"price": 1.10, "name": "x"}') = encode(sha256('{"name":"x","price":1.1}'), 'hex') AS as_documented;
-- the same content, whatever the spelling
SELECT data_version('{"a": 1, "b": 2.50}') = data_version('{ "b":2.5, "a": 1.000 }') AS keys_and_scale,
       data_version('1e2') = data_version('100') AS exponent;
-- different content
SELECT data_version('9007199254740993') <> data_version('9007199254740992') AS beyond_doubles,
       data_version('0.1') <> data_version('0.1000000000000000001') AS small_change,
       data_version('{"a": null}') <> data_version('{}') AS null_and_absent,
       data_version('{"a": "1"}') <> data_version('{"a": 1}') AS string_and_number,
       data_version('{"a": "x "}') <> data_version('{"a": "x"}') AS blanks,
       data_version('[1, 2]') <> data_version('[2, 1]') AS order_of_elements;
-- what does not count; only in the outermost object
SELECT data_version('{"a": 1, "at": 5}', '{at}') = data_version('{"a": 1}') AS excluded,
       data_version('{"a": {"at": 1}}', '{at}') <> data_version('{"a": {}}') AS not_inside,
       data_version('{"a": 1}', '{b,NULL}') = data_version('{"a": 1}') AS unknown;
SELECT data_version(NULL::jsonb);
\echo :SQLSTATE
SELECT data_version('{}'::jsonb, NULL);

-- rows: as documents, whatever the order of columns and the settings of the session
CREATE TABLE r (id int, price numeric, at timestamptz, day date, raw bytea, f float8, tags text[], doc jsonb, span interval, gone int);
ALTER TABLE r DROP gone;
INSERT INTO r VALUES (1, 1.50, '2026-03-01 12:00+01', '2026-03-01', '\x00ff', 0.1, '{a,"b c",NULL}', '{"z": 1, "y": 2.0}', '1 day 02:00');
INSERT INTO r SELECT 1, 1.5, '2026-03-01 12:00+01', '2026-03-01', '\x00ff', 0.1, '{a,"b c",NULL}', '{"y": 2, "z": 1}', '1 day 02:00';
CREATE TABLE other AS SELECT span, doc, tags, f, raw, day, at, price, id FROM r LIMIT 1;
CREATE TABLE seen AS SELECT data_version(r) AS version FROM r;
SELECT count(DISTINCT version) AS versions FROM seen;
SELECT data_version(o) = (SELECT version FROM seen LIMIT 1) AS other_order FROM other o;
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SET bytea_output = 'escape';
SET extra_float_digits = -5;
SET intervalstyle = 'iso_8601';
SELECT data_version(r) = (SELECT version FROM seen LIMIT 1) AS other_settings FROM r LIMIT 1;
SHOW timezone;
RESET ALL;
SET intervalstyle = postgres;
SET search_path = regress_canonical, batchdedup, public;
SELECT data_version(ROW(1, 2)) = data_version('{"f1": 1, "f2": 2}'::jsonb) AS unnamed,
       data_version(r, '{id,at}') = data_version(to_jsonb(r) - '{id,at}'::text[]) AS excluded FROM r LIMIT 1;
SELECT data_version(NULL::r);
\echo :SQLSTATE

-- columns of any type are as row_to_json has them
CREATE TYPE mood AS ENUM ('fine', '"so so"');
CREATE TYPE part AS (a int, "B" timestamptz);
CREATE DOMAIN short AS varchar(9);
CREATE TABLE kinds ("z" bool, U&"\FB33 \+01F600" int2, i4 int4, i8 int8, f4 float4, f8 float8, f float8, n numeric, nan numeric,
    t text, v short, c char(5), "na""me" name, u uuid, d date, ts timestamp, tz timestamptz, inf timestamptz, b bytea, j json, jb jsonb, jn jsonb,
    e mood, p part, ta text[], tza timestamptz[], ma mood[], span interval, m money, net inet, nothing text);
INSERT INTO kinds VALUES (true, -1, -2147483648, '-9223372036854775808', 0.1, 1e300, '-Infinity', 1.50, 'NaN',
    E'a"b\\c\n\u0001 and a text that is longer than eight', 'v', 'c', 'n"', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2026-03-01',
    '2026-03-01 12:00:00.5', '2026-03-01 12:00+05', 'infinity', '\x00ff', '{"b": 1.0, "a": [1, 2], "b": 2.0}', '{"bb": 1.0, "a": []}', '12.30',
    '"so so"', ROW(1, '2026-01-01 00:00+00'), '{a,NULL}', '{2026-01-01 00:00+00}', '{fine}', '1 day', 2, '10.0.0.1/8', NULL);
SET timezone = 'UTC';
SET lc_monetary = 'C';
SELECT data_version(k) = data_version(row_to_json(k)::text) AS every_type FROM kinds k;
SELECT data_version(k, '{z,t}') = data_version(row_to_json(k)::text, '{t,z}') AS without FROM kinds k;
CREATE TABLE kinds_seen AS SELECT data_version(k) AS version FROM kinds k;
SET timezone = 'Asia/Tokyo';
SET datestyle = 'German';
SET bytea_output = 'escape';
SET extra_float_digits = -5;
SET intervalstyle = 'iso_8601';
SELECT data_version(k) = version AS other_settings FROM kinds k, kinds_seen;
SHOW datestyle;
RESET ALL;
SET intervalstyle = postgres;
SET search_path = regress_canonical, batchdedup, public;
-- a cast to json decides what a value is
CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS 'SELECT json_build_object(''mood'', $1::text)';
CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
SELECT data_version(ROW('fine'::mood)) = data_version('{"f1": {"mood": "fine"}}') AS by_cast;
-- of two columns of one name the last counts, as in jsonb
SELECT data_version(s) = data_version('{"a": 3, "b": 2}') AS same_names FROM (SELECT 1 AS a, 2 AS b, 3 AS a) AS s;
-- one call, rows of several types, a table that changes
CREATE TABLE one (a int, b text);
CREATE TABLE two (b text, a int);
INSERT INTO one VALUES (1, 'x'), (2, 'y');
INSERT INTO two VALUES ('x', 1), ('y', 2);
SELECT count(DISTINCT data_version(r)) AS versions
FROM (SELECT ROW(one.*) FROM one UNION ALL SELECT ROW(one.*, 1) FROM one UNION ALL SELECT ROW(two.*) FROM two) AS s(r);
SELECT count(DISTINCT data_version(one, CASE a WHEN 1 THEN '{b}'::text[] ELSE '{a}' END)) AS versions FROM one;
DO $$
DECLARE
    r one;
    was text;
BEGIN
    FOR i IN 1 .. 2 LOOP
        SELECT * INTO r FROM one WHERE a = 1;
        ASSERT data_version(r) IS DISTINCT FROM was;
        was := data_version(r);
        IF i = 1 THEN
            EXECUTE 'ALTER TABLE one RENAME b TO c';
        END IF;
    END LOOP;
END $$;
ALTER TABLE one ADD d timestamptz DEFAULT '2026-01-01 00:00+00', DROP a;
SELECT data_version(one) = data_version('{"c": "x", "d": "2026-01-01T00:00:00+00:00"}') AS missing_value FROM one LIMIT 1;

-- fixed for ever: another value here means that all versions that anybody has stored change
SELECT data_version('{"a": [1, 2.50, -0.0, 1e30, "\u20ac\ud83d\ude00\u0001"], "\ufb33": null, "\ud83d\ude00": {"b": true}}');

SET client_min_messages = warning;
DROP SCHEMA regress_canonical CASCADE;
