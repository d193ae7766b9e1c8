-- Keys under a collation that takes different strings for equal.
SELECT getdatabaseencoding() <> 'UTF8' OR
       NOT EXISTS (SELECT FROM pg_collation WHERE collprovider = 'i') AS skip \gset
\if :skip
\quit
\endif
\a
\pset footer off
\pset null '(null)'
CREATE SCHEMA regress_keys_icu;
SET search_path = regress_keys_icu;
CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE COLLATION ignore_accents (provider = icu, locale = 'und-u-kc-ks-level1', deterministic = false);

CREATE TABLE t (k text COLLATE ignore_case PRIMARY KEY, v int, w int);
SELECT batchdedup.create_target('t', flush_interval => '0');
SELECT batchdedup.upsert('t', '{"k":"Key","v":1}');
SELECT batchdedup.upsert('t', '{"k":"KEY","w":2}');
SELECT batchdedup.upsert('t', '{"k":"kéy","w":3}');
SELECT batchdedup.get('t', '{"k":"key"}');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY k;
SELECT batchdedup.upsert(ROW('kEY', 5, 5)::t);
SELECT batchdedup.delete('t', '{"k":"KÉY"}');
SELECT batchdedup.flush('t');
SELECT * FROM t ORDER BY k;

-- char(n): blanks do not count, and case does not either
CREATE TABLE blanks (k bpchar COLLATE ignore_case PRIMARY KEY, v int);
SELECT batchdedup.create_target('blanks', flush_interval => '0');
SELECT batchdedup.upsert('blanks', '[{"k":"a ","v":1},{"k":"A","v":2},{"k":"a   ","v":3}]');
SELECT batchdedup.flush('blanks');
SELECT '<' || k::text || '>' AS k, octet_length(k) AS length, v FROM blanks;

-- the column compares bytes, the index does not: the index decides
CREATE TABLE by_index (k text COLLATE "C" NOT NULL, v int);
CREATE UNIQUE INDEX ON by_index (k COLLATE ignore_accents);
SELECT batchdedup.create_target('by_index', key => 'k', flush_interval => '0');
SELECT batchdedup.upsert('by_index', '[{"k":"resume","v":1},{"k":"résumé","v":2},{"k":"other","v":3}]');
SELECT batchdedup.get('by_index', '{"k":"resumé"}');
SELECT batchdedup.flush('by_index');
SELECT * FROM by_index ORDER BY v;
SELECT batchdedup.upsert('by_index', '{"k":"résume","v":4}');
SELECT batchdedup.flush('by_index');
SELECT * FROM by_index ORDER BY v;
-- the other way round
CREATE TABLE by_index_too (k text COLLATE ignore_case NOT NULL, v int);
CREATE UNIQUE INDEX ON by_index_too (k COLLATE "C");
SELECT batchdedup.create_target('by_index_too', key => 'k', flush_interval => '0');
SELECT batchdedup.upsert('by_index_too', '[{"k":"a","v":1},{"k":"A","v":2},{"k":"a","v":3}]');
SELECT batchdedup.flush('by_index_too');
SELECT batchdedup.get('by_index_too', '{"k":"A"}');
SELECT * FROM by_index_too ORDER BY v;

-- outside the key, too, another spelling is a change
CREATE TABLE spelled (k int PRIMARY KEY, v text COLLATE ignore_case);
SELECT batchdedup.create_target('spelled', flush_interval => '0');
INSERT INTO spelled VALUES (1, 'a');
SELECT batchdedup.upsert(ROW(1, 'A')::spelled);
SELECT batchdedup.flush('spelled');
SELECT * FROM spelled;

SET client_min_messages = warning;
DROP SCHEMA regress_keys_icu CASCADE;
