-- src/buffer/buffer.sql
--
-- Progress of long work, from shared memory.

CREATE FUNCTION batchdedup.stat_progress_internal(
    OUT pid integer, OUT kind text, OUT target oid, OUT batch_id uuid, OUT started_at timestamptz,
    OUT done bigint, OUT total bigint
) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_stat_progress';
COMMENT ON FUNCTION batchdedup.stat_progress_internal IS
    'part of the view stat_progress: long work of this database';

REVOKE ALL ON FUNCTION batchdedup.stat_progress_internal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION batchdedup.stat_progress_internal TO pg_monitor;
