-- Logged and unlogged targets, stat_journal, accept_loss. Crashes are in t/.
\a
\pset footer off
\pset null (null)
CREATE SCHEMA regress_journal;
SET search_path = regress_journal, batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE u (k int PRIMARY KEY, v text);

SELECT create_target('t', flush_interval => '0', flush_rows => 0);
SELECT create_target('u', flush_interval => '0', flush_rows => 0, logged => false);
SELECT target, logged FROM target WHERE target IN ('t'::regclass, 'u'::regclass) ORDER BY target::text;

-- Only rows of logged targets, and only those that are committed, are WAL.
CREATE PROCEDURE show_journalled(statement text) LANGUAGE plpgsql AS $$
DECLARE before pg_lsn;
BEGIN
    COMMIT;
    before := pg_current_wal_insert_lsn();
    EXECUTE statement;
    COMMIT;
    RAISE NOTICE 'journalled: %', pg_current_wal_insert_lsn() - before > 500;
END $$;
CALL show_journalled($$SELECT upsert(ROW(1, repeat('x', 1000))::t)$$);
CALL show_journalled($$SELECT upsert(ROW(1, repeat('x', 1000))::u)$$);
CALL show_journalled($$SELECT upsert('t', '{"k": 1}'), delete('t', jsonb_build_object('k', 2)), upsert('t', jsonb_build_object('k', 3, 'v', repeat('y', 600)))$$);
BEGIN;
SELECT pg_current_wal_insert_lsn() AS before \gset
SELECT upsert(ROW(1, repeat('x', 1000))::t);
ROLLBACK;
SELECT pg_current_wal_insert_lsn() - :'before' < 500 AS rolled_back_costs_nothing;

-- A change of it is a change of what an upsert means: what is buffered is applied first.
SELECT alter_target('u', logged => true);
SELECT count(*) FROM u;
CALL show_journalled($$SELECT upsert(ROW(2, repeat('x', 1000))::u)$$);
SELECT alter_target('u', logged => false);
SELECT count(*) FROM u;
CALL show_journalled($$SELECT upsert(ROW(3, repeat('x', 1000))::u)$$);
SELECT alter_target('u', reset => 'logged');
SELECT count(*), (SELECT logged FROM target WHERE target = 'u'::regclass) FROM u;
SELECT alter_target('u', logged => false, reset => 'logged');

CREATE UNLOGGED TABLE unlogged (k int PRIMARY KEY);
SELECT create_target('unlogged', logged => false);
SELECT alter_target('unlogged', logged => true);
\echo :SQLSTATE

SELECT flush('t');
SELECT slot_name, kept, problem, slot_lsn IS NOT NULL AS slot_lsn, retained_bytes >= 0 AS retained,
       oldest_unapplied_lsn IS NOT NULL AS oldest, read, missing_to IS NULL OR missing_from < missing_to AS missing
  FROM stat_journal;

-- Messages with an xid: NOTIFY takes one after our work is done.
BEGIN;
SELECT upsert(ROW(10, 'notify')::t);
NOTIFY regress_journal;
COMMIT;
BEGIN;
SELECT pg_notify('regress_journal', 'x');
SELECT upsert(ROW(11, 'pg_notify')::t);
COMMIT;
BEGIN;
CREATE TABLE other (n int);
SELECT upsert(ROW(12, 'xid')::t);
SAVEPOINT s;
SELECT upsert(ROW(13, 'rolled back')::t);
ROLLBACK TO s;
COMMIT;
SELECT flush('t');
SELECT k, v FROM t WHERE k >= 10 ORDER BY k;

-- accept_loss is for owners of targets.
SELECT accept_loss('t');
SELECT accept_loss('other');
\echo :SQLSTATE
SELECT accept_loss(NULL);
\echo :SQLSTATE
CREATE ROLE regress_journal_other;
GRANT USAGE ON SCHEMA regress_journal TO regress_journal_other;
SET ROLE regress_journal_other;
SELECT accept_loss('t');
\echo :SQLSTATE
SELECT * FROM stat_journal;
\echo :SQLSTATE
RESET ROLE;
GRANT pg_monitor TO regress_journal_other;
SET ROLE regress_journal_other;
SELECT count(*) FROM stat_journal;
SELECT status FROM health() WHERE check_name = 'journal' AND target IS NULL;
RESET ROLE;

SET client_min_messages = warning;
DROP SCHEMA regress_journal CASCADE;
DROP ROLE regress_journal_other;
