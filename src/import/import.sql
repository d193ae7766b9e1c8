-- src/import/import.sql
--
-- Imports: batches whose rows many writers load side by side.

CREATE TABLE batchdedup.import (
    batch_id uuid PRIMARY KEY REFERENCES batchdedup.batch_row ON DELETE CASCADE,
    target regclass NOT NULL,
    publish text NOT NULL CHECK (publish IN ('upsert', 'attach')),
    expected_instances integer NOT NULL CHECK (expected_instances > 0),
    instances text[],
    shape bigint NOT NULL
);
COMMENT ON TABLE batchdedup.import IS
    'batches whose rows many writers load side by side, and which are published at once';
COMMENT ON COLUMN batchdedup.import.batch_id IS 'id of the import, a batch';
COMMENT ON COLUMN batchdedup.import.target IS 'table whose rows it brings';
COMMENT ON COLUMN batchdedup.import.publish IS
    'whether rows are upserted or the writers'' tables become partitions';
COMMENT ON COLUMN batchdedup.import.expected_instances IS 'number of writers';
COMMENT ON COLUMN batchdedup.import.instances IS 'names of the writers; NULL: any';
COMMENT ON COLUMN batchdedup.import.shape IS
    'hash of the table''s columns when the import began, to notice that they have changed';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.import', '');

CREATE TABLE batchdedup.import_instance (
    batch_id uuid NOT NULL REFERENCES batchdedup.import ON DELETE CASCADE,
    instance text NOT NULL CHECK (instance <> ''),
    status text NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'finalized')),
    writer regclass,
    chunks regclass,
    bound text,
    position integer,
    rows bigint,
    bytes bigint,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    finalized_at timestamptz,
    PRIMARY KEY (batch_id, instance)
);
COMMENT ON TABLE batchdedup.import_instance IS 'the writers of imports';
COMMENT ON COLUMN batchdedup.import_instance.batch_id IS 'the import';
COMMENT ON COLUMN batchdedup.import_instance.instance IS 'name of the writer';
COMMENT ON COLUMN batchdedup.import_instance.status IS
    'whether it still loads rows, or has said that it has loaded them all';
COMMENT ON COLUMN batchdedup.import_instance.writer IS
    'table to COPY into; NULL: it has none, or it is gone because the import is published';
COMMENT ON COLUMN batchdedup.import_instance.chunks IS
    'table with rows that came in chunks; NULL: none came, or they are in the writer''s table';
COMMENT ON COLUMN batchdedup.import_instance.bound IS
    'bound of the partition that its table becomes; NULL: it becomes none';
COMMENT ON COLUMN batchdedup.import_instance.position IS
    'its place in the order of finalize_instance, in which rows are published; NULL: it is not finalized';
COMMENT ON COLUMN batchdedup.import_instance.rows IS 'rows that it has loaded; NULL: it is not finalized';
COMMENT ON COLUMN batchdedup.import_instance.bytes IS 'their size in bytes; NULL: it is not finalized';
COMMENT ON COLUMN batchdedup.import_instance.created_at IS
    'when create_writer or write_chunk was called first';
COMMENT ON COLUMN batchdedup.import_instance.finalized_at IS 'when it was finalized; NULL: it is not';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.import_instance', '');

CREATE TABLE batchdedup.import_chunk (
    batch_id uuid NOT NULL,
    instance text NOT NULL,
    chunk_no integer NOT NULL CHECK (chunk_no >= 0),
    content bytea NOT NULL,
    rows bigint NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (batch_id, instance, chunk_no),
    FOREIGN KEY (batch_id, instance) REFERENCES batchdedup.import_instance ON DELETE CASCADE
);
COMMENT ON TABLE batchdedup.import_chunk IS
    'the chunks that writers have delivered; their rows are elsewhere';
COMMENT ON COLUMN batchdedup.import_chunk.batch_id IS 'the import';
COMMENT ON COLUMN batchdedup.import_chunk.instance IS 'name of the writer';
COMMENT ON COLUMN batchdedup.import_chunk.chunk_no IS 'number of the chunk';
COMMENT ON COLUMN batchdedup.import_chunk.content IS
    'sha256 of what came, to refuse another chunk of the same number';
COMMENT ON COLUMN batchdedup.import_chunk.rows IS 'number of its rows';
COMMENT ON COLUMN batchdedup.import_chunk.created_at IS 'when it came';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.import_chunk', '');

-- Without references: the record stays.
CREATE TABLE batchdedup.import_completed (
    batch_id uuid PRIMARY KEY,
    name text NOT NULL,
    target regclass NOT NULL,
    publish text NOT NULL,
    instances integer NOT NULL,
    rows bigint NOT NULL,
    inserted bigint NOT NULL,
    updated bigint NOT NULL,
    started_at timestamptz NOT NULL,
    completed_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp()
);
COMMENT ON TABLE batchdedup.import_completed IS
    'imports that are published, each written in the transaction that publishes';
COMMENT ON COLUMN batchdedup.import_completed.batch_id IS 'id of the import, a batch';
COMMENT ON COLUMN batchdedup.import_completed.name IS 'name of the import';
COMMENT ON COLUMN batchdedup.import_completed.target IS 'table whose rows it brought';
COMMENT ON COLUMN batchdedup.import_completed.publish IS
    'whether rows were upserted or the writers'' tables became partitions';
COMMENT ON COLUMN batchdedup.import_completed.instances IS 'number of its writers';
COMMENT ON COLUMN batchdedup.import_completed.rows IS 'rows that all writers have loaded';
COMMENT ON COLUMN batchdedup.import_completed.inserted IS 'rows that were inserted';
COMMENT ON COLUMN batchdedup.import_completed.updated IS 'rows that were updated';
COMMENT ON COLUMN batchdedup.import_completed.started_at IS 'when the import was created';
COMMENT ON COLUMN batchdedup.import_completed.completed_at IS 'when it was published';
SELECT pg_catalog.pg_extension_config_dump('batchdedup.import_completed', '');

CREATE FUNCTION batchdedup.prepare_import(
    name text,
    target regclass,
    expected_instances integer,
    publish text DEFAULT 'upsert',
    instances text[] DEFAULT NULL,
    metadata jsonb DEFAULT '{}'
) RETURNS uuid
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_prepare_import';
COMMENT ON FUNCTION batchdedup.prepare_import IS
'begins an import, or finds the one of that name; publish: upsert or attach; instances: names of all its writers
name: there is one import of a name
target: the rows are written by its rules
expected_instances: the number of writers
publish: upsert; attach: each writer''s table becomes a partition of the target
instances: the names of the writers; NULL: any
metadata: for your own use';

CREATE FUNCTION batchdedup.create_writer(
    batch uuid,
    instance text,
    bound text DEFAULT NULL,
    restart boolean DEFAULT false
) RETURNS regclass
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_create_writer';
COMMENT ON FUNCTION batchdedup.create_writer IS
'a table to COPY into, the same one each time; bound: of the partition that it becomes; restart: without what it has loaded
instance: the writer''s name
bound: of its partition, as CREATE TABLE ... PARTITION OF says it: FOR VALUES ...; for publish => attach
restart: true: empties what the writer has loaded';

CREATE FUNCTION batchdedup.write_chunk(batch uuid, instance text, chunk_no integer, rows jsonb) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_write_chunk_json';
COMMENT ON FUNCTION batchdedup.write_chunk(uuid, text, integer, jsonb) IS
'loads a numbered chunk of rows, an object or an array of objects; false: it was there already
instance: the writer''s name
chunk_no: a number, from 0 on; it is written once
rows: an object with columns by name, or an array of such';

CREATE FUNCTION batchdedup.write_chunk(batch uuid, instance text, chunk_no integer, rows anyarray) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_write_chunk_rows';
COMMENT ON FUNCTION batchdedup.write_chunk(uuid, text, integer, anyarray) IS
'loads a numbered chunk of rows of the target''s row type; false: it was there already
rows: rows of the target''s type';

-- For literals and parameters without a type, which fit both of the others.
CREATE FUNCTION batchdedup.write_chunk(batch uuid, instance text, chunk_no integer, rows text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_write_chunk_text';
COMMENT ON FUNCTION batchdedup.write_chunk(uuid, text, integer, text) IS
    'loads a numbered chunk of rows, as the text of a jsonb; false: it was there already';

CREATE FUNCTION batchdedup.finalize_instance(batch uuid, instance text) RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_finalize_instance';
COMMENT ON FUNCTION batchdedup.finalize_instance IS
'says that a writer has loaded all its rows; false: it was said before
instance: the writer''s name';

CREATE FUNCTION batchdedup.finalize_batch(batch uuid) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_finalize_batch';
COMMENT ON FUNCTION batchdedup.finalize_batch IS
    'publishes all rows of an import at once; returns their number, each time';

CREATE FUNCTION batchdedup.abort_batch(batch uuid) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_abort_batch';
COMMENT ON FUNCTION batchdedup.abort_batch IS
    'ends an import without publishing anything';

CREATE FUNCTION batchdedup.expire_imports(older_than interval DEFAULT '1 day') RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_expire_imports';
COMMENT ON FUNCTION batchdedup.expire_imports IS
'aborts imports into which nobody has written for so long, and drops tables that no import knows; returns their number
older_than: nobody has written for so long';

CREATE FUNCTION batchdedup.refuse_writer_internal() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_refuse_writer';
COMMENT ON FUNCTION batchdedup.refuse_writer_internal IS
    'trigger of the tables of writers that are finalized';

-- Immutable by name only: see src/import/import_table.c.
CREATE FUNCTION batchdedup.import_order_internal(oid) RETURNS bigint
LANGUAGE C IMMUTABLE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_import_order';
COMMENT ON FUNCTION batchdedup.import_order_internal IS
    'part of the tables of writers: numbers their rows in the order in which they come';

-- Rows of an import are counted twice: when they are loaded and when they are
-- published. So "done" never goes back.
CREATE VIEW batchdedup.stat_progress AS
WITH loaded AS (
    SELECT i.batch_id, i.target, i.expected_instances, b.name, b.created_at,
           count(n.instance) FILTER (WHERE n.status OPERATOR(pg_catalog.=) 'finalized') AS instances,
           coalesce(sum(coalesce(n.rows, (SELECT sum(c.rows) FROM batchdedup.import_chunk c
                                           WHERE c.batch_id OPERATOR(pg_catalog.=) n.batch_id
                                             AND c.instance OPERATOR(pg_catalog.=) n.instance))), 0)::bigint AS rows,
           coalesce(sum(coalesce(n.bytes, coalesce(pg_catalog.pg_relation_size(n.writer), 0)
                                          OPERATOR(pg_catalog.+) coalesce(pg_catalog.pg_relation_size(n.chunks), 0))), 0)::bigint AS bytes
      FROM batchdedup.import i
      JOIN batchdedup.batch_row b ON b.id OPERATOR(pg_catalog.=) i.batch_id
      LEFT JOIN batchdedup.import_instance n ON n.batch_id OPERATOR(pg_catalog.=) i.batch_id
     WHERE NOT b.status OPERATOR(pg_catalog.=) ANY ('{completed,failed,cancelled}'::text[])
     GROUP BY i.batch_id, i.target, i.expected_instances, b.name, b.created_at
), work AS (
    SELECT 'import' AS kind, CASE WHEN p.pid IS NULL THEN 'loading' ELSE 'publishing' END AS phase,
           l.target, l.batch_id, l.name, p.pid,
           l.instances::integer AS instances_done, l.expected_instances AS instances_total, l.rows, l.bytes,
           l.rows OPERATOR(pg_catalog.+) coalesce(p.done, 0) AS done,
           CASE WHEN l.instances OPERATOR(pg_catalog.>=) l.expected_instances
                THEN 2 OPERATOR(pg_catalog.*) l.rows END AS total,
           coalesce(p.started_at, l.created_at) AS started_at,
           coalesce(p.done, l.rows) AS since_then,
           CASE WHEN p.pid IS NOT NULL THEN p.total OPERATOR(pg_catalog.-) p.done END AS to_do,
           CASE WHEN l.instances OPERATOR(pg_catalog.>) 0
                THEN (l.expected_instances OPERATOR(pg_catalog.-) l.instances)::double precision
                     OPERATOR(pg_catalog./) l.instances::double precision END AS share_to_do
      FROM loaded l
      LEFT JOIN batchdedup.stat_progress_internal() p ON p.batch_id OPERATOR(pg_catalog.=) l.batch_id
    UNION ALL
    SELECT p.kind, CASE p.kind WHEN 'flush' THEN 'applying' WHEN 'sync' THEN 'syncing' ELSE 'reading' END, p.target::regclass, NULL, NULL, p.pid, NULL, NULL, p.total, NULL,
           p.done, p.total, p.started_at, p.done, p.total OPERATOR(pg_catalog.-) p.done, NULL
      FROM batchdedup.stat_progress_internal() p
     WHERE p.batch_id IS NULL
)
SELECT w.kind, w.phase, w.target, w.batch_id, w.name, w.pid,
       w.instances_done, w.instances_total, w.rows, w.bytes, w.done, w.total, w.started_at,
       w.since_then::double precision OPERATOR(pg_catalog./) s.seconds AS rate,
       CASE WHEN w.to_do IS NULL THEN pg_catalog.make_interval(secs => s.seconds OPERATOR(pg_catalog.*) w.share_to_do)
            WHEN w.since_then OPERATOR(pg_catalog.>) 0
            THEN pg_catalog.make_interval(secs => s.seconds OPERATOR(pg_catalog.*) w.to_do::double precision
                                                  OPERATOR(pg_catalog./) w.since_then::double precision) END AS eta
  FROM work w
 CROSS JOIN LATERAL (
       SELECT greatest(extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) w.started_at), 0.001)::double precision) AS s (seconds);
COMMENT ON VIEW batchdedup.stat_progress IS
    'imports that are not finished, and long work of this database: done, total, rows per second, time left';
COMMENT ON COLUMN batchdedup.stat_progress.kind IS
    'import, flush, sync, or replay: of rows that were found in the WAL';
COMMENT ON COLUMN batchdedup.stat_progress.phase IS
    'what it does now: loading, publishing; applying; syncing; reading';
COMMENT ON COLUMN batchdedup.stat_progress.target IS 'table that is written';
COMMENT ON COLUMN batchdedup.stat_progress.batch_id IS 'the import; NULL: it is none';
COMMENT ON COLUMN batchdedup.stat_progress.name IS 'name of the import; NULL: it is none';
COMMENT ON COLUMN batchdedup.stat_progress.pid IS
    'process that works; NULL: none, the writers of an import load';
COMMENT ON COLUMN batchdedup.stat_progress.instances_done IS
    'writers that are finalized; NULL: it is no import';
COMMENT ON COLUMN batchdedup.stat_progress.instances_total IS
    'writers that are expected; NULL: it is no import';
COMMENT ON COLUMN batchdedup.stat_progress.rows IS 'rows that writers have loaded, or that there are in all';
COMMENT ON COLUMN batchdedup.stat_progress.bytes IS 'their size in bytes; NULL: it is no import';
COMMENT ON COLUMN batchdedup.stat_progress.done IS
    'rows that are done; those of an import count twice, when they are loaded and when they are published';
COMMENT ON COLUMN batchdedup.stat_progress.total IS
    'rows that are to be done; NULL: not known while writers still load';
COMMENT ON COLUMN batchdedup.stat_progress.started_at IS 'when it began';
COMMENT ON COLUMN batchdedup.stat_progress.rate IS 'rows per second, since then';
COMMENT ON COLUMN batchdedup.stat_progress.eta IS 'how long it will take from now; NULL: nothing can be said';

GRANT SELECT ON batchdedup.stat_progress TO pg_monitor;

-- Part of grant_batches. A function that is added here is added to both lists.
REVOKE ALL ON FUNCTION
    batchdedup.prepare_import, batchdedup.create_writer, batchdedup.write_chunk(uuid,text,integer,jsonb),
    batchdedup.write_chunk(uuid,text,integer,anyarray), batchdedup.write_chunk(uuid,text,integer,text),
    batchdedup.finalize_instance, batchdedup.finalize_batch, batchdedup.abort_batch,
    batchdedup.expire_imports
FROM PUBLIC;
CREATE FUNCTION batchdedup.grant_imports_internal(grantee regrole) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    EXECUTE format($grant$ GRANT EXECUTE ON FUNCTION
        batchdedup.prepare_import, batchdedup.create_writer, batchdedup.write_chunk(uuid,text,integer,jsonb),
        batchdedup.write_chunk(uuid,text,integer,anyarray), batchdedup.write_chunk(uuid,text,integer,text),
        batchdedup.finalize_instance, batchdedup.finalize_batch, batchdedup.abort_batch,
        batchdedup.expire_imports,
        batchdedup.stat_progress_internal
    TO %s $grant$, grantee);
    EXECUTE format($grant$ GRANT SELECT ON
        batchdedup.import, batchdedup.import_instance, batchdedup.import_completed, batchdedup.stat_progress
    TO %s $grant$, grantee);
END $$;
COMMENT ON FUNCTION batchdedup.grant_imports_internal IS 'part of grant_batches: imports, and their progress';
REVOKE ALL ON FUNCTION batchdedup.grant_imports_internal FROM PUBLIC;

-- Batches are everybody's who may call their functions.
CREATE FUNCTION batchdedup.grant_batches(grantee regrole) RETURNS void
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF grantee IS NULL THEN
        RAISE EXCEPTION 'role must not be null' USING ERRCODE = 'null_value_not_allowed';
    END IF;
    PERFORM batchdedup.grant_files_internal(grantee);
    PERFORM batchdedup.grant_events_internal(grantee);
    PERFORM batchdedup.grant_imports_internal(grantee);
END $$;
COMMENT ON FUNCTION batchdedup.grant_batches IS
'lets a role work with batches, events and imports
grantee: a role';
REVOKE ALL ON FUNCTION batchdedup.grant_batches FROM PUBLIC;
