-- src/admin/admin.sql
--
-- Registering targets; statistics, health.

-- ---------------------------------------------------------------------
-- Targets
-- ---------------------------------------------------------------------

CREATE FUNCTION batchdedup.create_target(
    target regclass,
    key text DEFAULT NULL,
    update_columns text DEFAULT NULL,
    merge jsonb DEFAULT NULL,
    version_column text DEFAULT NULL,
    logged boolean DEFAULT true,
    mode text DEFAULT 'buffered',
    flush_interval interval DEFAULT NULL,
    flush_rows integer DEFAULT NULL,
    on_full text DEFAULT 'wait',
    guard text DEFAULT 'warn',
    flush_group text DEFAULT NULL,
    coalesce_rows boolean DEFAULT true,
    if_not_exists boolean DEFAULT false
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_create_target';
COMMENT ON FUNCTION batchdedup.create_target IS
'registers a table: upserts for it can go through the buffer
target: a table, or a partitioned table, of the caller
key: columns of a unique index, separated by commas; NULL: the primary key; empty: none, rows are only appended
update_columns: columns that an upsert overwrites in a row that exists; NULL: all outside the key
merge: rules of columns: {"column": "sum"}; last, first, coalesce, sum, min, max, concat, or a function f(old, new)
version_column: rows with an older value of it than the row that is there are ignored
logged: rows are in the WAL until they are applied; false: they are lost at a crash
mode: buffered; direct: every call writes to the table in the caller''s transaction
flush_interval: the age of the oldest row at which the target is flushed; NULL: the setting of that name; 0: never by time
flush_rows: the number of distinct keys at which it is flushed; NULL: the setting of that name; 0: never by rows
on_full: what a call does when there is no room: wait, for full_timeout; error; direct: it writes to the table itself
guard: what a plain writer of the table meets while rows are buffered: off, warn, flush (they are applied first), error
flush_group: targets of the same group are applied together, in one transaction
coalesce_rows: false: every row is kept and applied, in order
if_not_exists: true: nothing but a NOTICE if it is a target already';

CREATE FUNCTION batchdedup.alter_target(
    target regclass,
    key text DEFAULT NULL,
    update_columns text DEFAULT NULL,
    merge jsonb DEFAULT NULL,
    version_column text DEFAULT NULL,
    logged boolean DEFAULT NULL,
    mode text DEFAULT NULL,
    flush_interval interval DEFAULT NULL,
    flush_rows integer DEFAULT NULL,
    on_full text DEFAULT NULL,
    guard text DEFAULT NULL,
    flush_group text DEFAULT NULL,
    coalesce_rows boolean DEFAULT NULL,
    reset text DEFAULT NULL
) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_alter_target';
COMMENT ON FUNCTION batchdedup.alter_target IS
'changes options of a target; NULL: as it is; reset: options that go back to their default
key: this and the others: as in create_target
reset: names of options, separated by commas, that go back to their default';

CREATE FUNCTION batchdedup.drop_target(target regclass, if_exists boolean DEFAULT false)
RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_drop_target';
COMMENT ON FUNCTION batchdedup.drop_target IS
'brings what is buffered to the table and ends its registration
if_exists: true: nothing but a NOTICE if it is no target';

CREATE FUNCTION batchdedup.pause(target regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_pause';
COMMENT ON FUNCTION batchdedup.pause IS
    'stops applying rows to the target; the buffer goes on taking them';

CREATE FUNCTION batchdedup.resume(target regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_resume';
COMMENT ON FUNCTION batchdedup.resume IS
    'goes on applying rows to the target';

CREATE FUNCTION batchdedup.accept_loss(target regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_accept_loss';
COMMENT ON FUNCTION batchdedup.accept_loss IS
    'goes on without the part of the target''s journal that was missing when the server started';

-- ---------------------------------------------------------------------
-- Observing
-- ---------------------------------------------------------------------

CREATE FUNCTION batchdedup.stat_target_internal(
    OUT target_id integer, OUT target regclass,
    OUT received bigint, OUT coalesced bigint, OUT stale bigint,
    OUT inserted bigint, OUT updated bigint, OUT unchanged bigint, OUT deleted bigint,
    OUT dead_lettered bigint, OUT flushes bigint, OUT failed_flushes bigint,
    OUT buffered_rows bigint, OUT buffered_bytes bigint, OUT oldest_row_at timestamptz,
    OUT last_flush_at timestamptz, OUT last_flush_ms double precision, OUT generation bigint,
    OUT foreign_writes bigint, OUT error_passes boolean,
    OUT failures bigint, OUT last_error_at timestamptz,
    OUT last_error_sqlstate text, OUT last_error text
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_stat_target';
COMMENT ON FUNCTION batchdedup.stat_target_internal IS 'part of the view stat_target and of health';

CREATE VIEW batchdedup.stat_target AS
SELECT o.target,
       coalesce(s.received, 0) AS received, coalesce(s.coalesced, 0) AS coalesced, coalesce(s.stale, 0) AS stale,
       coalesce(s.inserted, 0) AS inserted, coalesce(s.updated, 0) AS updated,
       coalesce(s.unchanged, 0) AS unchanged, coalesce(s.deleted, 0) AS deleted,
       coalesce(s.dead_lettered, 0) AS dead_lettered,
       coalesce(s.flushes, 0) AS flushes, coalesce(s.failed_flushes, 0) AS failed_flushes,
       coalesce(s.buffered_rows, 0) AS buffered_rows, coalesce(s.buffered_bytes, 0) AS buffered_bytes,
       pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) s.oldest_row_at AS oldest_row_age,
       s.last_flush_at, s.last_flush_ms, s.generation, coalesce(s.foreign_writes, 0) AS foreign_writes,
       s.failures, s.last_error_at, s.last_error_sqlstate, s.last_error
  FROM batchdedup.target_option o
  LEFT JOIN batchdedup.stat_target_internal() s ON s.target_id OPERATOR(pg_catalog.=) o.target_id
 WHERE NOT o.own OR s.target_id IS NOT NULL;
COMMENT ON VIEW batchdedup.stat_target IS
    'for each target of this database, since the server started: what came, what was written, what waits, what failed';
COMMENT ON COLUMN batchdedup.stat_target.target IS 'the table';
COMMENT ON COLUMN batchdedup.stat_target.received IS 'rows that calls have given, and that were committed';
COMMENT ON COLUMN batchdedup.stat_target.coalesced IS
    'of these, rows that went into another one of their key in the buffer';
COMMENT ON COLUMN batchdedup.stat_target.stale IS 'rows that were ignored, because a newer version was there';
COMMENT ON COLUMN batchdedup.stat_target.inserted IS 'rows that an apply has inserted';
COMMENT ON COLUMN batchdedup.stat_target.updated IS 'rows that an apply has updated';
COMMENT ON COLUMN batchdedup.stat_target.unchanged IS
    'rows that were written to no avail: the table had them just so';
COMMENT ON COLUMN batchdedup.stat_target.deleted IS 'rows that an apply has deleted';
COMMENT ON COLUMN batchdedup.stat_target.dead_lettered IS
    'rows that the table refused, and that became dead letters';
COMMENT ON COLUMN batchdedup.stat_target.flushes IS 'transactions that have applied rows';
COMMENT ON COLUMN batchdedup.stat_target.failed_flushes IS 'transactions that failed to';
COMMENT ON COLUMN batchdedup.stat_target.buffered_rows IS 'keys that wait in the buffer';
COMMENT ON COLUMN batchdedup.stat_target.buffered_bytes IS 'memory that they take, in bytes';
COMMENT ON COLUMN batchdedup.stat_target.oldest_row_age IS
    'how long the oldest of them waits; NULL: none waits';
COMMENT ON COLUMN batchdedup.stat_target.last_flush_at IS 'when rows were applied last; NULL: never';
COMMENT ON COLUMN batchdedup.stat_target.last_flush_ms IS 'how long that took, in milliseconds; NULL: never';
COMMENT ON COLUMN batchdedup.stat_target.generation IS
    'generation up to which the target is applied; NULL: it was not used since the server started';
COMMENT ON COLUMN batchdedup.stat_target.foreign_writes IS
    'statements of others that wrote to the table while rows of it were buffered';
COMMENT ON COLUMN batchdedup.stat_target.failures IS
    'applies that failed in a row, up to now; NULL: the last one did not';
COMMENT ON COLUMN batchdedup.stat_target.last_error_at IS 'when the last of these failed; NULL: none';
COMMENT ON COLUMN batchdedup.stat_target.last_error_sqlstate IS 'SQLSTATE of its error; NULL: none';
COMMENT ON COLUMN batchdedup.stat_target.last_error IS
    'its message; NULL: none, or not for who may not read the table';

CREATE FUNCTION batchdedup.stat_buffer_internal(
    OUT total_bytes bigint, OUT used_bytes bigint, OUT targets integer, OUT max_targets integer,
    OUT launcher_running boolean, OUT worker_start_failed_at timestamptz
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_stat_buffer';
COMMENT ON FUNCTION batchdedup.stat_buffer_internal IS 'part of the view stat_buffer and of health';

CREATE VIEW batchdedup.stat_buffer AS
SELECT total_bytes, used_bytes, targets, max_targets FROM batchdedup.stat_buffer_internal();
COMMENT ON VIEW batchdedup.stat_buffer IS 'the shared memory of all targets of the server';
COMMENT ON COLUMN batchdedup.stat_buffer.total_bytes IS 'size of the buffer in bytes';
COMMENT ON COLUMN batchdedup.stat_buffer.used_bytes IS
    'memory that rows of all targets and databases take, in bytes';
COMMENT ON COLUMN batchdedup.stat_buffer.targets IS 'targets of all databases that have memory here';
COMMENT ON COLUMN batchdedup.stat_buffer.max_targets IS 'setting batchdedup.max_targets';

CREATE FUNCTION batchdedup.stat_worker_internal(
    OUT pid integer, OUT database_id oid, OUT state text, OUT started_at timestamptz,
    OUT target regclass, OUT generation bigint,
    OUT waits_since timestamptz, OUT waits_for integer[]
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_stat_worker';
COMMENT ON FUNCTION batchdedup.stat_worker_internal IS 'part of the view stat_worker and of health';

CREATE VIEW batchdedup.stat_worker AS
SELECT w.pid, d.datname AS database, w.state, w.started_at, w.target, w.generation,
       w.waits_since, w.waits_for
  FROM batchdedup.stat_worker_internal() w
  LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) w.database_id;
COMMENT ON VIEW batchdedup.stat_worker IS
    'the workers of the server, what each applies now, and the processes whose COMMIT one waits for';
COMMENT ON COLUMN batchdedup.stat_worker.pid IS 'process id; NULL: it is being started';
COMMENT ON COLUMN batchdedup.stat_worker.database IS 'database of the worker';
COMMENT ON COLUMN batchdedup.stat_worker.state IS
    'starting, idle, applying, or waiting: for transactions that are in their COMMIT';
COMMENT ON COLUMN batchdedup.stat_worker.started_at IS 'when it was started';
COMMENT ON COLUMN batchdedup.stat_worker.target IS
    'table that it applies now; NULL: none, or one of another database';
COMMENT ON COLUMN batchdedup.stat_worker.generation IS 'generation that it applies now; NULL: none';
COMMENT ON COLUMN batchdedup.stat_worker.waits_since IS
    'since when it waits for transactions that are in their COMMIT; NULL: it does not';
COMMENT ON COLUMN batchdedup.stat_worker.waits_for IS
    'processes of these transactions; NULL: it does not wait';

CREATE FUNCTION batchdedup.stat_journal_internal(
    OUT kept boolean, OUT problem text, OUT slot_lsn pg_lsn, OUT retained_bytes bigint,
    OUT oldest_unapplied_lsn pg_lsn, OUT read boolean, OUT replayed_rows bigint, OUT read_ms double precision,
    OUT read_from pg_lsn, OUT read_to pg_lsn, OUT missing_from pg_lsn, OUT missing_to pg_lsn
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_stat_journal';
COMMENT ON FUNCTION batchdedup.stat_journal_internal IS 'part of the view stat_journal and of health';

CREATE VIEW batchdedup.stat_journal AS
SELECT 'batchdedup' AS slot_name, j.kept, j.problem, j.slot_lsn, j.retained_bytes, j.oldest_unapplied_lsn,
       j.read, j.replayed_rows, j.read_ms, j.read_from, j.read_to,
       CASE WHEN a.affected THEN j.missing_from END AS missing_from,
       CASE WHEN a.affected THEN j.missing_to END AS missing_to
  FROM batchdedup.stat_journal_internal() j
 CROSS JOIN LATERAL (
       SELECT EXISTS (SELECT FROM batchdedup.mark m
                        JOIN batchdedup.target_option o ON o.target_id OPERATOR(pg_catalog.=) m.target_id AND o.logged
                       WHERE m.journal_from OPERATOR(pg_catalog.<) j.missing_to
                         AND m.system OPERATOR(pg_catalog.=)
                             (SELECT c.system_identifier FROM pg_catalog.pg_control_system() c))) AS a(affected);
COMMENT ON VIEW batchdedup.stat_journal IS
    'the WAL that is kept for rows that are not applied, and what was found in it when the server started';
COMMENT ON COLUMN batchdedup.stat_journal.slot_name IS 'name of the replication slot that keeps the WAL';
COMMENT ON COLUMN batchdedup.stat_journal.kept IS 'whether WAL is kept for rows that are not applied';
COMMENT ON COLUMN batchdedup.stat_journal.problem IS
    'why none can be kept, so that rows of logged targets are written by their callers; NULL: there is no problem';
COMMENT ON COLUMN batchdedup.stat_journal.slot_lsn IS
    'from where on the slot keeps WAL; NULL: there is no slot';
COMMENT ON COLUMN batchdedup.stat_journal.retained_bytes IS
    'size of the WAL that is kept, in bytes; NULL: there is no slot';
COMMENT ON COLUMN batchdedup.stat_journal.oldest_unapplied_lsn IS
    'from where on WAL is needed for rows that are not applied; NULL: none is needed';
COMMENT ON COLUMN batchdedup.stat_journal.read IS
    'whether the launcher has read the WAL since the server started';
COMMENT ON COLUMN batchdedup.stat_journal.replayed_rows IS
    'rows that were found there and taken back into the buffer';
COMMENT ON COLUMN batchdedup.stat_journal.read_ms IS 'how long reading took, in milliseconds';
COMMENT ON COLUMN batchdedup.stat_journal.read_from IS 'where reading began; NULL: nothing was read';
COMMENT ON COLUMN batchdedup.stat_journal.read_to IS 'where reading ended; NULL: nothing was read';
COMMENT ON COLUMN batchdedup.stat_journal.missing_from IS
    'begin of a part of the WAL that was missing and may have had rows of a target of this database; NULL: none';
COMMENT ON COLUMN batchdedup.stat_journal.missing_to IS 'end of that part; NULL: none';

CREATE FUNCTION batchdedup.stat_reset() RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_stat_reset';
COMMENT ON FUNCTION batchdedup.stat_reset IS
    'sets the counters of this database''s targets back to zero';

-- ---------------------------------------------------------------------
-- Health
-- ---------------------------------------------------------------------

-- A row for each check; a target is named where one is meant.
CREATE FUNCTION batchdedup.health(
    OUT check_name text, OUT target regclass, OUT status text, OUT detail text, OUT hint text
) RETURNS SETOF record
LANGUAGE sql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
SELECT 'processes', NULL::regclass,
       CASE WHEN NOT b.launcher_running OR b.worker_start_failed_at IS NOT NULL THEN 'fail' ELSE 'ok' END,
       CASE WHEN NOT b.launcher_running THEN 'the launcher is not running'
            WHEN b.worker_start_failed_at IS NOT NULL
            THEN 'no worker could be started: rows are written in their callers'' transactions' END,
       CASE WHEN NOT b.launcher_running OR b.worker_start_failed_at IS NOT NULL
            THEN 'Raise max_worker_processes; see the server log.' END
  FROM batchdedup.stat_buffer_internal() b
UNION ALL
SELECT 'buffer', NULL,
       CASE WHEN b.used_bytes >= 0.9 * b.total_bytes THEN 'fail'
            WHEN b.used_bytes >= 0.7 * b.total_bytes THEN 'warn' ELSE 'ok' END,
       format('%s of %s in use', pg_size_pretty(b.used_bytes), pg_size_pretty(b.total_bytes)),
       CASE WHEN b.used_bytes >= 0.7 * b.total_bytes
            THEN 'Look for a target that is paused or cannot be applied, or raise batchdedup.buffer_size.' END
  FROM batchdedup.stat_buffer_internal() b
UNION ALL
SELECT 'journal', NULL,
       CASE WHEN j.problem IS NOT NULL THEN 'fail' WHEN NOT j.read OR NOT j.kept THEN 'warn' ELSE 'ok' END,
       CASE WHEN j.problem IS NOT NULL
            THEN format('%s: rows for logged targets are written in their callers'' transactions', j.problem)
            WHEN NOT j.read THEN 'the launcher has not read the WAL yet'
            ELSE format('%s of WAL kept', pg_size_pretty(j.retained_bytes)) END,
       CASE WHEN j.problem IS NOT NULL THEN 'Set wal_level to replica, and max_replication_slots to one more.'
            WHEN NOT j.read THEN 'See the server log.' END
  FROM batchdedup.stat_journal_internal() j
UNION ALL
SELECT 'journal', o.target, 'fail',
       format('WAL from %s to %s was missing at the start, and may have had rows of it',
              j.missing_from, j.missing_to),
       'Go on without these rows with batchdedup.accept_loss.'
  FROM batchdedup.stat_journal_internal() j
  JOIN batchdedup.mark m ON m.journal_from < j.missing_to
                        AND m.system = (SELECT c.system_identifier FROM pg_control_system() c)
  JOIN batchdedup.target_option o ON o.target_id = m.target_id AND o.logged
   AND (NOT o.own OR EXISTS (SELECT FROM batchdedup.file))
UNION ALL
SELECT 'enabled', NULL,
       CASE WHEN current_setting('batchdedup.enabled')::boolean THEN 'ok' ELSE 'warn' END,
       CASE WHEN NOT current_setting('batchdedup.enabled')::boolean
            THEN 'batchdedup.enabled is off here: every call writes to its table' END,
       NULL
UNION ALL
SELECT 'apply', s.target,
       CASE WHEN s.failures IS NULL THEN 'ok' WHEN s.error_passes THEN 'warn' ELSE 'fail' END,
       CASE WHEN s.failures IS NOT NULL
            THEN format('%s failures in a row, SQLSTATE %s%s', s.failures, s.last_error_sqlstate,
                        coalesce(': ' || s.last_error, '')) END,
       CASE WHEN s.failures IS NOT NULL
            THEN 'Nothing is lost: the rows stay in the buffer and are tried again. Remove the cause.' END
  FROM batchdedup.stat_target_internal() s
  JOIN batchdedup.target_option o ON o.target_id = s.target_id
UNION ALL
SELECT 'age', s.target,
       CASE WHEN s.buffered_rows > 0 AND o.paused THEN 'warn'
            WHEN clock_timestamp() - s.oldest_row_at > interval '1 minute'
                 + 10 * coalesce(o.flush_interval, current_setting('batchdedup.flush_interval')::interval)
            THEN 'warn' ELSE 'ok' END,
       CASE WHEN s.buffered_rows > 0
            THEN format('%s rows, the oldest since %s%s', s.buffered_rows, s.oldest_row_at,
                        CASE WHEN o.paused THEN '; the target is paused' ELSE '' END) END,
       CASE WHEN s.buffered_rows > 0 AND o.paused THEN 'batchdedup.resume goes on.' END
  FROM batchdedup.stat_target_internal() s
  JOIN batchdedup.target_option o ON o.target_id = s.target_id
UNION ALL
SELECT 'commits', w.target,
       CASE WHEN w.pid IS NULL THEN 'ok' ELSE 'warn' END,
       CASE WHEN w.pid IS NOT NULL
            THEN format('the worker waits since %s for transactions that are in their COMMIT; processes %s',
                        w.waits_since, array_to_string(w.waits_for, ', ')) END,
       CASE WHEN w.pid IS NOT NULL
            THEN 'See their wait_event in pg_stat_activity: a synchronous standby that is gone, for instance.' END
  FROM (VALUES (1)) AS one (row)
  LEFT JOIN batchdedup.stat_worker_internal() w
    ON clock_timestamp() - w.waits_since > current_setting('batchdedup.full_timeout', true)::interval
   AND w.database_id = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())
UNION ALL
SELECT 'dead letters', o.target,
       CASE WHEN count(l.id) > 0 THEN 'warn' ELSE 'ok' END,
       CASE WHEN count(l.id) > 0 THEN format('%s rows were refused by their table', count(l.id)) END,
       CASE WHEN count(l.id) > 0
            THEN 'See batchdedup.dead_letter; then retry_dead_letters or discard_dead_letters.' END
  FROM batchdedup.target_option o
  LEFT JOIN batchdedup.dead_letter_row l ON l.target_id = o.target_id AND NOT l.superseded
 GROUP BY o.target, o.own
HAVING NOT o.own OR count(l.id) > 0
UNION ALL
SELECT 'consumers', NULL,
       CASE WHEN c.name IS NULL THEN 'ok' WHEN c.lost > 0 THEN 'fail' ELSE 'warn' END,
       CASE WHEN c.name IS NOT NULL
            THEN format('consumer "%s": %s', c.name, concat_ws(', ',
                 CASE WHEN c.lost > 0 THEN format('%s events were deleted before it acknowledged them', c.lost) END,
                 CASE WHEN c.letters > 0 THEN format('%s dead letters', c.letters) END,
                 CASE WHEN c.late THEN format('%s events wait, the oldest since %s', c.waiting, c.oldest) END)) END,
       CASE WHEN c.lost > 0 THEN 'Look for what has been missed; then batchdedup.accept_lost_events.'
            WHEN c.letters > 0
            THEN 'See batchdedup.event_dead_letter; then retry_event_dead_letters or discard_event_dead_letters.'
            WHEN c.late THEN 'See batchdedup.consumer. A consumer that is not needed any more: drop_consumer.' END
  FROM (VALUES (1)) AS one (row)
  LEFT JOIN (
       SELECT v.name, sum(v.lost_events) AS lost, sum(v.dead_letters) AS letters, sum(v.lag_events) AS waiting,
              min(v.oldest_at) AS oldest, min(v.oldest_at) < clock_timestamp() - interval '1 hour' AS late
         FROM batchdedup.consumer v GROUP BY v.name) c ON c.lost > 0 OR c.letters > 0 OR c.late
UNION ALL
SELECT 'syncs', s.target,
       CASE WHEN s.name IS NULL THEN 'ok' WHEN s.last_error_at IS NOT NULL THEN 'fail' ELSE 'warn' END,
       CASE WHEN s.name IS NOT NULL
            THEN format('sync "%s": %s', s.name, concat_ws(', ',
                 CASE WHEN s.last_error_at IS NOT NULL THEN format('failed at %s, SQLSTATE %s', s.last_error_at, s.last_error_sqlstate) END,
                 CASE WHEN s.letters > 0 THEN format('%s dead letters', s.letters) END,
                 CASE WHEN s.late THEN format('has not come to an end since %s', s.last_run_at) END,
                 CASE WHEN s.holders IS NOT NULL THEN format('is held back by %s', s.holders) END)) END,
       CASE WHEN s.last_error_at IS NOT NULL THEN 'See last_error in batchdedup.sync_status; the next run goes on where this one ended.'
            WHEN s.letters > 0
            THEN 'See batchdedup.sync_dead_letter; then retry_sync_dead_letters or discard_sync_dead_letters.'
            WHEN s.name IS NOT NULL THEN 'See batchdedup.sync_status. End the transaction, or let run_sync be called.' END
  FROM (VALUES (1)) AS one (row)
  LEFT JOIN (
       SELECT y.name, y.target, y.last_error_sqlstate, y.last_error_at, y.last_run_at, l.letters,
              NOT y.paused AND y.last_run_at < clock_timestamp() - interval '1 hour' AS late,
              CASE WHEN y.cursor_kind = 'sequence' OR (y.cursor_kind = 'clock' AND
                        coalesce(y.bound::timestamptz < clock_timestamp() - interval '10 minutes', true))
                   THEN batchdedup.sync_holders_internal(y.moment) END AS holders
         FROM batchdedup.sync_row y
        CROSS JOIN LATERAL (SELECT count(x.id) AS letters FROM batchdedup.sync_letter_row x WHERE x.sync_id = y.id) l
       ) s ON s.last_error_at IS NOT NULL OR s.letters > 0 OR s.late OR s.holders IS NOT NULL;
END;
COMMENT ON FUNCTION batchdedup.health IS
'a row for each check: ok, warn or fail, and what to do
check_name: what was looked at
target: NULL: the check is of the whole
status: ok, warn or fail
detail: what was seen
hint: what to do';

REVOKE ALL ON FUNCTION batchdedup.stat_reset FROM PUBLIC;
REVOKE ALL ON FUNCTION batchdedup.health,
    batchdedup.stat_target_internal, batchdedup.stat_buffer_internal,
    batchdedup.stat_worker_internal, batchdedup.stat_journal_internal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION batchdedup.health,
    batchdedup.stat_target_internal, batchdedup.stat_buffer_internal,
    batchdedup.stat_worker_internal, batchdedup.stat_journal_internal TO pg_monitor;
GRANT SELECT ON batchdedup.stat_target, batchdedup.stat_buffer, batchdedup.stat_worker, batchdedup.stat_journal
    TO pg_monitor;
