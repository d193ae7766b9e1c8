-- src/read/read.sql
--
-- Reading what is in the buffer, alone or on top of the table.

CREATE FUNCTION batchdedup.read_support_internal(internal) RETURNS internal
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_read_support';
COMMENT ON FUNCTION batchdedup.read_support_internal(internal) IS
    'part of get and buffered: lets the planner wait for rows that are replayed after a crash';

CREATE FUNCTION batchdedup.get(target regclass, key jsonb) RETURNS jsonb
LANGUAGE C VOLATILE PARALLEL UNSAFE SUPPORT batchdedup.read_support_internal
AS 'MODULE_PATHNAME', 'bdd_get';
COMMENT ON FUNCTION batchdedup.get IS
'the row of a key, from table, buffer and own pending rows; NULL: there is none
key: an object with the key''s columns';

CREATE FUNCTION batchdedup.buffered(row_type anyelement) RETURNS SETOF anyelement
LANGUAGE C VOLATILE PARALLEL UNSAFE SUPPORT batchdedup.read_support_internal
AS 'MODULE_PATHNAME', 'bdd_buffered';
COMMENT ON FUNCTION batchdedup.buffered IS
'what is published and not yet in the table: buffered(NULL::my_table)
row_type: NULL of the table''s type';

CREATE FUNCTION batchdedup.overlaid(target regclass, VARIADIC key "any") RETURNS boolean
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10
AS 'MODULE_PATHNAME', 'bdd_overlaid';
COMMENT ON FUNCTION batchdedup.overlaid IS
    'part of the views of create_view: whether the buffer says more of a key than the table';

CREATE FUNCTION batchdedup.overlay_support_internal(internal) RETURNS internal
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_overlay_support';
COMMENT ON FUNCTION batchdedup.overlay_support_internal IS
    'part of overlay_rows: tells the planner how many rows it returns';

CREATE FUNCTION batchdedup.overlay_rows(target regclass) RETURNS SETOF record
LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100 SUPPORT batchdedup.overlay_support_internal
AS 'MODULE_PATHNAME', 'bdd_overlay_rows';
COMMENT ON FUNCTION batchdedup.overlay_rows IS
    'part of the views of create_view: a row for each key that is buffered or pending, on top of the table';
