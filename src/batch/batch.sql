-- src/batch/batch.sql
--
-- Batches of files.

-- The steps that a batch may take. Rows may be added.
CREATE TABLE batchdedup.batch_transition (
    from_status text NOT NULL,
    to_status text NOT NULL,
    own boolean NOT NULL DEFAULT false,
    PRIMARY KEY (from_status, to_status)
);
COMMENT ON TABLE batchdedup.batch_transition IS
    'the legal steps from one status of a batch to the next';
COMMENT ON COLUMN batchdedup.batch_transition.from_status IS 'status that a batch is in';
COMMENT ON COLUMN batchdedup.batch_transition.to_status IS 'status that it may go to';
COMMENT ON COLUMN batchdedup.batch_transition.own IS
    'whether the step came with the extension; such a step cannot be changed or removed';
INSERT INTO batchdedup.batch_transition VALUES
    ('pending', 'uploaded', true),
    ('uploaded', 'scattering', true),
    ('scattering', 'scattered', true),
    ('scattered', 'gathering', true),
    ('gathering', 'gathered', true),
    ('gathered', 'completed', true),
    ('pending', 'failed', true), ('pending', 'cancelled', true),
    ('uploaded', 'failed', true), ('uploaded', 'cancelled', true),
    ('scattering', 'failed', true), ('scattering', 'cancelled', true),
    ('scattered', 'failed', true), ('scattered', 'cancelled', true),
    ('gathering', 'failed', true), ('gathering', 'cancelled', true),
    ('gathered', 'failed', true), ('gathered', 'cancelled', true),
    ('failed', 'scattering', true);         -- retry_files
SELECT pg_catalog.pg_extension_config_dump('batchdedup.batch_transition', 'WHERE NOT own');

-- While files are still added total_files is not kept here: that would be one
-- row for all who add files to wait for. The view batch counts them.
CREATE TABLE batchdedup.batch_row (
    id uuid PRIMARY KEY,
    name text NOT NULL CONSTRAINT batch_row_name_key UNIQUE,
    source text,
    kind text NOT NULL DEFAULT 'files' CHECK (kind IN ('files', 'import')),
    status text NOT NULL DEFAULT 'pending',
    expected_files integer CHECK (expected_files >= 0),
    total_files integer NOT NULL DEFAULT 0,
    processed_files integer NOT NULL DEFAULT 0 CHECK (processed_files >= 0),
    failed_files integer NOT NULL DEFAULT 0 CHECK (failed_files >= 0),
    reopened_files integer NOT NULL DEFAULT 0,
    metadata jsonb NOT NULL DEFAULT '{}',
    on_file_failure text NOT NULL DEFAULT 'fail' CHECK (on_file_failure IN ('fail', 'continue')),
    max_attempts integer NOT NULL DEFAULT 5 CHECK (max_attempts > 0),
    upload_completed_at timestamptz,
    all_files_done_at timestamptz,
    reached text[] NOT NULL DEFAULT '{pending}',
    claimed_by text,
    lease_until timestamptz,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CONSTRAINT batch_row_counts CHECK (processed_files + failed_files <= total_files)
) WITH (fillfactor = 50);
CREATE INDEX batch_row_source ON batchdedup.batch_row (source, created_at);
CREATE INDEX batch_row_status ON batchdedup.batch_row (status, created_at);
CREATE INDEX batch_row_created_at ON batchdedup.batch_row (created_at);
COMMENT ON TABLE batchdedup.batch_row IS 'batches; see the view batch';
COMMENT ON COLUMN batchdedup.batch_row.id IS 'id of the batch';
COMMENT ON COLUMN batchdedup.batch_row.name IS 'name of the batch; there is one of a name';
COMMENT ON COLUMN batchdedup.batch_row.source IS
    'where the files come from, as create_batch was told; NULL: not told';
COMMENT ON COLUMN batchdedup.batch_row.kind IS 'files, or import: the batch of prepare_import';
COMMENT ON COLUMN batchdedup.batch_row.status IS
    'status of the batch; the legal steps are in batch_transition';
COMMENT ON COLUMN batchdedup.batch_row.expected_files IS
    'number of files without which complete_upload refuses; NULL: any';
COMMENT ON COLUMN batchdedup.batch_row.total_files IS
    'number of files; 0 until complete_upload, the view batch counts them';
COMMENT ON COLUMN batchdedup.batch_row.processed_files IS 'files that are done';
COMMENT ON COLUMN batchdedup.batch_row.failed_files IS 'files that have failed for good';
COMMENT ON COLUMN batchdedup.batch_row.reopened_files IS
    'how often a file was opened again, because it came with another checksum';
COMMENT ON COLUMN batchdedup.batch_row.metadata IS
    'what create_batch or prepare_import was told, for your own use';
COMMENT ON COLUMN batchdedup.batch_row.on_file_failure IS
    'what a file that has failed for good means for the batch';
COMMENT ON COLUMN batchdedup.batch_row.max_attempts IS 'claims of a file before it has failed';
COMMENT ON COLUMN batchdedup.batch_row.upload_completed_at IS
    'when the list of files was final; NULL: it is not yet';
COMMENT ON COLUMN batchdedup.batch_row.all_files_done_at IS
    'when the last file was done or had failed: the barrier; NULL: not yet';
COMMENT ON COLUMN batchdedup.batch_row.reached IS 'every status that the batch has been in, in order';
COMMENT ON COLUMN batchdedup.batch_row.claimed_by IS 'worker that has claimed the step; NULL: none';
COMMENT ON COLUMN batchdedup.batch_row.lease_until IS 'until when the step is the worker''s; NULL: nobody''s';
COMMENT ON COLUMN batchdedup.batch_row.attempts IS 'how often the step was claimed';
COMMENT ON COLUMN batchdedup.batch_row.error IS 'why the batch has failed; NULL: it has not';
COMMENT ON COLUMN batchdedup.batch_row.created_at IS 'when the batch was created';
COMMENT ON COLUMN batchdedup.batch_row.updated_at IS 'when the batch changed last';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.batch_row', '');

CREATE TABLE batchdedup.file (
    id uuid PRIMARY KEY,
    batch_id uuid NOT NULL REFERENCES batchdedup.batch_row ON DELETE CASCADE,
    filename text NOT NULL,
    size bigint CHECK (size >= 0),
    location text,
    checksum text,
    version integer NOT NULL DEFAULT 1,
    status text NOT NULL DEFAULT 'pending'
        CHECK (status IN ('pending', 'processing', 'done', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    claimed_by text,
    lease_until timestamptz,
    result jsonb,
    error text,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    completed_at timestamptz,
    CONSTRAINT file_batch_id_filename_key UNIQUE (batch_id, filename)
) WITH (fillfactor = 70);
CREATE INDEX file_open ON batchdedup.file (batch_id, coalesce(lease_until, '-infinity'))
    WHERE status IN ('pending', 'processing');
COMMENT ON TABLE batchdedup.file IS
    'the files of batches; what workers say of one comes here through the buffer';
COMMENT ON COLUMN batchdedup.file.id IS 'id of the file';
COMMENT ON COLUMN batchdedup.file.batch_id IS 'its batch';
COMMENT ON COLUMN batchdedup.file.filename IS 'its name; there is one of a name in a batch';
COMMENT ON COLUMN batchdedup.file.size IS 'in bytes; NULL: not told';
COMMENT ON COLUMN batchdedup.file.location IS 'where the file is, as add_file was told; NULL: not told';
COMMENT ON COLUMN batchdedup.file.checksum IS 'checksum of this version; NULL: not told';
COMMENT ON COLUMN batchdedup.file.version IS
    'counts deliveries of the file: 1, and one more for each with another checksum';
COMMENT ON COLUMN batchdedup.file.status IS 'what is known of the file';
COMMENT ON COLUMN batchdedup.file.attempts IS 'how often this version was claimed';
COMMENT ON COLUMN batchdedup.file.claimed_by IS 'worker that has claimed the file last; NULL: none';
COMMENT ON COLUMN batchdedup.file.lease_until IS 'until when the file is the worker''s; NULL: nobody''s';
COMMENT ON COLUMN batchdedup.file.result IS 'what complete_file was told; NULL: nothing';
COMMENT ON COLUMN batchdedup.file.error IS 'what fail_file was told last; NULL: nothing';
COMMENT ON COLUMN batchdedup.file.created_at IS 'when the file was added';
COMMENT ON COLUMN batchdedup.file.completed_at IS 'when it was done, or had failed for good; NULL: not yet';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.file', '');
-- A target of the extension's own: see src/batch/batch.c.
INSERT INTO batchdedup.target_option (target, key_columns, update_columns, version_column, guard, own)
VALUES ('batchdedup.file', '{id}', '{version,status,result,error,completed_at}', 'version', 'off', true);

CREATE TABLE batchdedup.file_version (
    file_id uuid NOT NULL REFERENCES batchdedup.file ON DELETE CASCADE,
    version integer NOT NULL,
    size bigint,
    location text,
    checksum text,
    status text NOT NULL,
    attempts integer NOT NULL,
    claimed_by text,
    result jsonb,
    error text,
    completed_at timestamptz,
    replaced_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (file_id, version)
);
COMMENT ON TABLE batchdedup.file_version IS
    'what there was of a file before it was delivered again';
COMMENT ON COLUMN batchdedup.file_version.file_id IS 'the file';
COMMENT ON COLUMN batchdedup.file_version.version IS 'the version that was replaced';
COMMENT ON COLUMN batchdedup.file_version.size IS 'its size in bytes; NULL: not told';
COMMENT ON COLUMN batchdedup.file_version.location IS 'where it was; NULL: not told';
COMMENT ON COLUMN batchdedup.file_version.checksum IS 'its checksum; NULL: not told';
COMMENT ON COLUMN batchdedup.file_version.status IS 'its status when it was replaced';
COMMENT ON COLUMN batchdedup.file_version.attempts IS 'how often it was claimed';
COMMENT ON COLUMN batchdedup.file_version.claimed_by IS 'worker that had claimed it last; NULL: none';
COMMENT ON COLUMN batchdedup.file_version.result IS 'what complete_file was told of it; NULL: nothing';
COMMENT ON COLUMN batchdedup.file_version.error IS 'what fail_file was told of it last; NULL: nothing';
COMMENT ON COLUMN batchdedup.file_version.completed_at IS
    'when it was done, or had failed for good; NULL: it was not';
COMMENT ON COLUMN batchdedup.file_version.replaced_at IS 'when it was replaced';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.file_version', '');

-- Several kinds of workers may have to be done before a step is over.
CREATE TABLE batchdedup.batch_worker_count (
    batch_id uuid NOT NULL REFERENCES batchdedup.batch_row ON DELETE CASCADE,
    status text NOT NULL,
    kind text NOT NULL,
    expected_workers integer NOT NULL CHECK (expected_workers >= 0),
    completed_workers integer NOT NULL DEFAULT 0,
    PRIMARY KEY (batch_id, status, kind),
    CHECK (completed_workers BETWEEN 0 AND expected_workers)
);
COMMENT ON TABLE batchdedup.batch_worker_count IS
    'how many workers of each kind have to be done in a step of a batch, and how many are';
COMMENT ON COLUMN batchdedup.batch_worker_count.batch_id IS 'the batch';
COMMENT ON COLUMN batchdedup.batch_worker_count.status IS 'the step: a status of the batch';
COMMENT ON COLUMN batchdedup.batch_worker_count.kind IS 'kind of worker, a name of your own';
COMMENT ON COLUMN batchdedup.batch_worker_count.expected_workers IS
    'how many have to be done before the step is over';
COMMENT ON COLUMN batchdedup.batch_worker_count.completed_workers IS 'how many are done';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.batch_worker_count', '');

CREATE TABLE batchdedup.batch_worker (
    batch_id uuid NOT NULL,
    status text NOT NULL,
    kind text NOT NULL,
    worker text NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (batch_id, status, kind, worker),
    FOREIGN KEY (batch_id) REFERENCES batchdedup.batch_row ON DELETE CASCADE
);
COMMENT ON TABLE batchdedup.batch_worker IS 'which workers are done in a step of a batch';
COMMENT ON COLUMN batchdedup.batch_worker.batch_id IS 'the batch';
COMMENT ON COLUMN batchdedup.batch_worker.status IS 'the step: a status of the batch';
COMMENT ON COLUMN batchdedup.batch_worker.kind IS 'kind of worker';
COMMENT ON COLUMN batchdedup.batch_worker.worker IS 'name of the worker';
COMMENT ON COLUMN batchdedup.batch_worker.completed_at IS 'when the worker said that it is done';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.batch_worker', '');

CREATE VIEW batchdedup.batch AS
SELECT b.id, b.name, b.source, b.kind, b.status, b.expected_files,
       CASE WHEN b.upload_completed_at IS NULL AND b.kind OPERATOR(pg_catalog.=) 'files'
            THEN (SELECT pg_catalog.count(*)::integer FROM batchdedup.file f
                   WHERE f.batch_id OPERATOR(pg_catalog.=) b.id)
            ELSE b.total_files END AS total_files,
       b.processed_files, b.failed_files, b.reopened_files,
       (SELECT pg_catalog.jsonb_object_agg(w.kind, pg_catalog.jsonb_build_object(
                   'expected_workers', w.expected_workers, 'completed_workers', w.completed_workers))
          FROM batchdedup.batch_worker_count w
         WHERE w.batch_id OPERATOR(pg_catalog.=) b.id AND w.status OPERATOR(pg_catalog.=) b.status) AS workers,
       b.metadata, b.on_file_failure, b.max_attempts, b.error,
       b.claimed_by, b.lease_until, b.attempts,
       b.created_at, b.updated_at, b.upload_completed_at, b.all_files_done_at
  FROM batchdedup.batch_row b;
COMMENT ON VIEW batchdedup.batch IS 'batches of files, and how far they are';
COMMENT ON COLUMN batchdedup.batch.id IS 'id of the batch';
COMMENT ON COLUMN batchdedup.batch.name IS 'name of the batch; there is one of a name';
COMMENT ON COLUMN batchdedup.batch.source IS
    'where the files come from, as create_batch was told; NULL: not told';
COMMENT ON COLUMN batchdedup.batch.kind IS 'files, or import: the batch of prepare_import';
COMMENT ON COLUMN batchdedup.batch.status IS 'status of the batch; the legal steps are in batch_transition';
COMMENT ON COLUMN batchdedup.batch.expected_files IS
    'number of files without which complete_upload refuses; NULL: any';
COMMENT ON COLUMN batchdedup.batch.total_files IS 'number of files';
COMMENT ON COLUMN batchdedup.batch.processed_files IS 'files that are done';
COMMENT ON COLUMN batchdedup.batch.failed_files IS 'files that have failed for good';
COMMENT ON COLUMN batchdedup.batch.reopened_files IS
    'how often a file was opened again, because it came with another checksum';
COMMENT ON COLUMN batchdedup.batch.workers IS
    'an object with the expected and the completed workers of each kind, in the step that the batch is in; NULL: none are expected';
COMMENT ON COLUMN batchdedup.batch.metadata IS
    'what create_batch or prepare_import was told, for your own use';
COMMENT ON COLUMN batchdedup.batch.on_file_failure IS
    'what a file that has failed for good means for the batch';
COMMENT ON COLUMN batchdedup.batch.max_attempts IS 'claims of a file before it has failed';
COMMENT ON COLUMN batchdedup.batch.error IS 'why the batch has failed; NULL: it has not';
COMMENT ON COLUMN batchdedup.batch.claimed_by IS 'worker that has claimed the step; NULL: none';
COMMENT ON COLUMN batchdedup.batch.lease_until IS 'until when the step is the worker''s; NULL: nobody''s';
COMMENT ON COLUMN batchdedup.batch.attempts IS 'how often the step was claimed';
COMMENT ON COLUMN batchdedup.batch.created_at IS 'when the batch was created';
COMMENT ON COLUMN batchdedup.batch.updated_at IS 'when the batch changed last';
COMMENT ON COLUMN batchdedup.batch.upload_completed_at IS
    'when the list of files was final; NULL: it is not yet';
COMMENT ON COLUMN batchdedup.batch.all_files_done_at IS
    'when the last file was done or had failed: the barrier; NULL: not yet';

-- Our own functions rely on the steps that came with the extension.
CREATE FUNCTION batchdedup.own_step_internal() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE EXCEPTION 'steps that came with batchdedup cannot be changed or removed'
        USING ERRCODE = 'insufficient_privilege', HINT = 'Others can be added.';
END $$;
COMMENT ON FUNCTION batchdedup.own_step_internal IS 'trigger of batch_transition: keeps what came with the extension';
CREATE TRIGGER own BEFORE UPDATE OR DELETE ON batchdedup.batch_transition
FOR EACH ROW WHEN (OLD.own) EXECUTE FUNCTION batchdedup.own_step_internal();
CREATE TRIGGER own_all BEFORE TRUNCATE ON batchdedup.batch_transition
FOR EACH STATEMENT EXECUTE FUNCTION batchdedup.own_step_internal();

-- Legal steps only, whoever writes.
CREATE FUNCTION batchdedup.batch_step_internal() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF NOT EXISTS (SELECT FROM batchdedup.batch_transition t
                    WHERE t.from_status = OLD.status AND t.to_status = NEW.status) THEN
        RAISE EXCEPTION 'batch "%" cannot go from % to %', OLD.name, OLD.status, NEW.status
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  DETAIL = coalesce((SELECT format('Legal steps from %s: %s.', OLD.status,
                                                   string_agg(t.to_status, ', ' ORDER BY t.to_status))
                                       FROM batchdedup.batch_transition t
                                      WHERE t.from_status = OLD.status
                                     HAVING count(*) > 0),
                                    format('There is no step from %s.', OLD.status)),
                  HINT = 'See batchdedup.batch_transition.';
    END IF;
    NEW.reached := NEW.reached || NEW.status;
    NEW.updated_at := clock_timestamp();
    RETURN NEW;
END $$;
COMMENT ON FUNCTION batchdedup.batch_step_internal IS 'trigger of batch_row: legal steps only';
CREATE TRIGGER step BEFORE UPDATE ON batchdedup.batch_row
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
EXECUTE FUNCTION batchdedup.batch_step_internal();

CREATE FUNCTION batchdedup.batch_event_internal() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM batchdedup.event_emit_internal('status_changed', NEW.id, NULL,
                                           jsonb_build_object('from', OLD.status, 'to', NEW.status));
    IF NEW.status = 'failed' THEN
        PERFORM batchdedup.event_emit_internal('batch_failed', NEW.id, NULL,
                                               jsonb_build_object('error', NEW.error));
    ELSIF OLD.all_files_done_at IS NULL AND NEW.all_files_done_at IS NOT NULL THEN
        PERFORM batchdedup.event_emit_internal('all_files_done', NEW.id, NULL,
                                               jsonb_build_object('processed_files', NEW.processed_files,
                                                                  'failed_files', NEW.failed_files));
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION batchdedup.batch_event_internal IS 'trigger of batch_row: events of steps, and the barrier''s';
CREATE TRIGGER event AFTER UPDATE ON batchdedup.batch_row
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
EXECUTE FUNCTION batchdedup.batch_event_internal();

CREATE FUNCTION batchdedup.batch_changed_internal() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_batch_changed';
COMMENT ON FUNCTION batchdedup.batch_changed_internal IS 'trigger of batch_row: wakes who waits for a status';
CREATE TRIGGER wake AFTER UPDATE ON batchdedup.batch_row
FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
EXECUTE FUNCTION batchdedup.batch_changed_internal();

CREATE FUNCTION batchdedup.file_changed_internal() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS 'MODULE_PATHNAME', 'bdd_file_changed';
COMMENT ON FUNCTION batchdedup.file_changed_internal IS 'trigger of file: counts, events, barrier';
CREATE TRIGGER changed AFTER UPDATE ON batchdedup.file
REFERENCING OLD TABLE AS old_files NEW TABLE AS new_files
FOR EACH STATEMENT EXECUTE FUNCTION batchdedup.file_changed_internal();

CREATE FUNCTION batchdedup.create_batch(
    name text,
    source text DEFAULT NULL,
    expected_files integer DEFAULT NULL,
    metadata jsonb DEFAULT '{}',
    on_file_failure text DEFAULT NULL,
    max_attempts integer DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_create_batch';
COMMENT ON FUNCTION batchdedup.create_batch IS
'begins a batch of files, and returns its id; that of the batch with this name if there is one
name: there is one batch of a name
source: where the files come from; for your own use
expected_files: complete_upload refuses another number of files; NULL: any
metadata: for your own use
on_file_failure: what a file that has failed for good means for the batch: fail, and it has failed; continue, and its last file is done without it; NULL: fail
max_attempts: claims of a file before it has failed; NULL: 5';

CREATE FUNCTION batchdedup.add_file(
    batch uuid,
    filename text,
    size bigint DEFAULT NULL,
    location text DEFAULT NULL,
    checksum text DEFAULT NULL
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_add_file';
COMMENT ON FUNCTION batchdedup.add_file IS
'adds a file to a batch, and returns its id; a known one with another checksum is opened again
filename: there is one file of a name in a batch
size: in bytes
location: where it is; for your own use
checksum: another one, for a name that is known, is a new version of the file';

CREATE FUNCTION batchdedup.complete_upload(batch uuid) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_complete_upload';
COMMENT ON FUNCTION batchdedup.complete_upload IS
    'says that the list of the batch''s files is final';

CREATE FUNCTION batchdedup.claim_files(
    worker text,
    max_files integer,
    lease interval,
    batch uuid DEFAULT NULL
) RETURNS SETOF batchdedup.file
LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 10
AS 'MODULE_PATHNAME', 'bdd_claim_files';
COMMENT ON FUNCTION batchdedup.claim_files IS
'hands open files to a worker, of one batch or fairly of all, until the lease ends
worker: a name for the caller
max_files: so many at most
lease: how long they are the worker''s
batch: NULL: of all open batches, in fair shares';

CREATE FUNCTION batchdedup.renew_lease(file uuid, worker text, lease interval) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_renew_lease';
COMMENT ON FUNCTION batchdedup.renew_lease IS
'says that the worker still works on the file; false: it is not his any more
worker: who claimed the file
lease: from now on';

CREATE FUNCTION batchdedup.complete_file(
    batch uuid,
    file uuid,
    result jsonb DEFAULT NULL,
    version integer DEFAULT NULL
) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_complete_file';
COMMENT ON FUNCTION batchdedup.complete_file IS
'says that a file is done; true: it was not before
result: kept with the file
version: of the file, as it was claimed; NULL: what it is now, which must have been claimed since';

CREATE FUNCTION batchdedup.fail_file(
    batch uuid,
    file uuid,
    error text,
    retry boolean,
    version integer DEFAULT NULL,
    worker text DEFAULT NULL
) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_fail_file';
COMMENT ON FUNCTION batchdedup.fail_file IS
'says that a file could not be processed: now, or with retry => false for good; false: it was not open
error: kept with the file, and in its dead letter
retry: false: it has failed for good
version: as in complete_file
worker: only while this one holds the file; NULL: whoever does';

CREATE FUNCTION batchdedup.retry_files(batch uuid) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_retry_files';
COMMENT ON FUNCTION batchdedup.retry_files IS
    'opens the failed files of a batch again, and the batch if it has failed because of them; returns their number';

CREATE FUNCTION batchdedup.claim_batch(
    worker text,
    from_status text,
    to_status text,
    lease interval
) RETURNS batchdedup.batch
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_claim_batch';
COMMENT ON FUNCTION batchdedup.claim_batch IS
'hands the next step of a batch to a worker, until the lease ends; null: there is none
worker: a name for the caller
from_status: of the batches that are asked for
to_status: the status that the batch gets
lease: how long the batch is the worker''s';

CREATE FUNCTION batchdedup.advance_batch(batch uuid, to_status text) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_advance_batch';
COMMENT ON FUNCTION batchdedup.advance_batch IS
    'takes a batch to its next status; legal steps only, see batch_transition';

CREATE FUNCTION batchdedup.expect_workers(batch uuid, kind text, expected integer) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_expect_workers';
COMMENT ON FUNCTION batchdedup.expect_workers IS
'says how many workers of a kind have to be done in the step that the batch is in
kind: a name of your own
expected: their number';

CREATE FUNCTION batchdedup.complete_worker(batch uuid, kind text, worker text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_complete_worker';
COMMENT ON FUNCTION batchdedup.complete_worker IS
'says that a worker is done with the step that the batch is in; true: he was not before
kind: as it was expected
worker: its name; each counts once';

CREATE FUNCTION batchdedup.wait_batch(batch uuid, status text, timeout interval) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_wait_batch';
COMMENT ON FUNCTION batchdedup.wait_batch IS
'waits until a batch has come to a status; false: time is over, or it will not
status: one that the batch has been in counts, too
timeout: how long at most';

CREATE FUNCTION batchdedup.reconcile_batches() RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_reconcile_batches';
COMMENT ON FUNCTION batchdedup.reconcile_batches IS
    'compares the counts of batches with their files, repairs what differs, and returns how many batches that were';

CREATE FUNCTION batchdedup.reconcile_files(batch uuid, listing text[])
RETURNS TABLE (filename text, problem text)
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_reconcile_files';
COMMENT ON FUNCTION batchdedup.reconcile_files IS
'compares a batch with the names that the object store lists
listing: the names that are stored
problem: not stored, or no row';

CREATE FUNCTION batchdedup.expire_batches(keep interval) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_expire_batches';
COMMENT ON FUNCTION batchdedup.expire_batches IS
'removes batches that have ended, with their files, after so long; returns their number
keep: how long after their end they stay';

CREATE FUNCTION batchdedup.file_is_closed_internal(file uuid, version integer) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_file_is_closed';
COMMENT ON FUNCTION batchdedup.file_is_closed_internal IS
    'part of claim_files: whether the buffer says that a file is done';

GRANT SELECT (id) ON batchdedup.file TO pg_monitor;
REVOKE ALL ON FUNCTION
    batchdedup.own_step_internal, batchdedup.batch_step_internal, batchdedup.batch_event_internal,
    batchdedup.batch_changed_internal, batchdedup.file_changed_internal, batchdedup.file_is_closed_internal
FROM PUBLIC;

-- Part of grant_batches. A function that is added here is added to both lists.
REVOKE ALL ON FUNCTION
    batchdedup.create_batch, batchdedup.add_file, batchdedup.complete_upload, batchdedup.claim_files,
    batchdedup.renew_lease, batchdedup.complete_file, batchdedup.fail_file, batchdedup.retry_files,
    batchdedup.claim_batch, batchdedup.advance_batch, batchdedup.expect_workers, batchdedup.complete_worker,
    batchdedup.wait_batch, batchdedup.reconcile_batches, batchdedup.reconcile_files,
    batchdedup.expire_batches
FROM PUBLIC;
CREATE FUNCTION batchdedup.grant_files_internal(grantee regrole) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format($grant$ GRANT EXECUTE ON FUNCTION
        batchdedup.create_batch, batchdedup.add_file, batchdedup.complete_upload, batchdedup.claim_files,
        batchdedup.renew_lease, batchdedup.complete_file, batchdedup.fail_file, batchdedup.retry_files,
        batchdedup.claim_batch, batchdedup.advance_batch, batchdedup.expect_workers,
        batchdedup.complete_worker, batchdedup.wait_batch, batchdedup.reconcile_batches,
        batchdedup.reconcile_files, batchdedup.expire_batches
    TO %s $grant$, grantee);
    EXECUTE format($grant$ GRANT SELECT ON
        batchdedup.batch, batchdedup.file, batchdedup.file_version,
        batchdedup.batch_transition, batchdedup.batch_worker_count, batchdedup.batch_worker
    TO %s $grant$, grantee);
END $$;
COMMENT ON FUNCTION batchdedup.grant_files_internal IS 'part of grant_batches: batches and files';
REVOKE ALL ON FUNCTION batchdedup.grant_files_internal FROM PUBLIC;
