-- Every other file needs the extension; all share this database.
CREATE EXTENSION batchdedup;
\a
\pset footer off

-- What there is, as users see it.
SELECT p.proname AS function, pg_get_function_arguments(p.oid) AS arguments,
       pg_get_function_result(p.oid) AS result
  FROM pg_proc p
 WHERE p.pronamespace = 'batchdedup'::regnamespace AND p.proname NOT LIKE '%\_internal'
 ORDER BY p.proname COLLATE "C", pg_get_function_arguments(p.oid) COLLATE "C";

-- Every function has a comment, is volatile, parallel unsafe and not strict;
-- but for one in a generated column.
SELECT p.oid::regprocedure FROM pg_proc p
 WHERE p.pronamespace = 'batchdedup'::regnamespace
   AND (obj_description(p.oid, 'pg_proc') IS NULL OR p.provolatile <> 'v'
        OR p.proparallel <> 'u' OR p.proisstrict);

-- None runs with other rights than its caller's.
SELECT p.oid::regprocedure FROM pg_proc p
 WHERE p.pronamespace = 'batchdedup'::regnamespace AND p.prosecdef;

-- There is one upsert with two arguments, ever.
SELECT p.oid::regprocedure FROM pg_proc p
 WHERE p.pronamespace = 'batchdedup'::regnamespace AND p.proname = 'upsert' AND p.pronargs = 2;

-- Views and tables, each with a comment.
SELECT c.relname, c.relkind, obj_description(c.oid, 'pg_class') IS NOT NULL AS comment
  FROM pg_class c
 WHERE c.relnamespace = 'batchdedup'::regnamespace AND c.relkind IN ('r', 'v')
 ORDER BY c.relname COLLATE "C";

-- The settings.
SELECT name, boot_val, unit, context, vartype, short_desc <> '' AS described
  FROM pg_settings WHERE name LIKE 'batchdedup.%' ORDER BY name COLLATE "C";
SET batchdedup.no_such_setting = 1;

-- Settings of the server are not for sessions.
SET batchdedup.buffer_size = '1GB';
SET batchdedup.flush_interval = '1s';
SET batchdedup.full_timeout = '1s';
RESET batchdedup.full_timeout;

-- It has one schema, its own.
CREATE EXTENSION IF NOT EXISTS batchdedup;
ALTER EXTENSION batchdedup SET SCHEMA public;
SELECT count(*) FROM batchdedup.target;
