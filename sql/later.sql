-- What later versions bring is refused today, never accepted and ignored.
\a
\pset footer off
CREATE SCHEMA regress_later;
SET search_path = regress_later;
CREATE TABLE t (id int PRIMARY KEY, n int, at timestamptz);

SELECT batchdedup.create_target('t', mode => 'shadow');
\echo :SQLSTATE
SELECT count(*) FROM batchdedup.target;

-- The values that there are can be named.
SELECT batchdedup.create_target('t', merge => NULL, version_column => NULL, logged => false, mode => 'buffered',
    on_full => 'wait', guard => 'off', flush_group => NULL, coalesce_rows => true);

-- alter_target is no way around.
SELECT batchdedup.alter_target('t', mode => 'shadow');
\echo :SQLSTATE
SELECT batchdedup.alter_target('t', logged => false, mode => 'buffered', on_full => 'wait', guard => 'off', coalesce_rows => true);
SELECT merge, version_column, logged, mode, on_full, guard, flush_group, coalesce_rows FROM batchdedup.target;

SET client_min_messages = warning;
DROP SCHEMA regress_later CASCADE;
