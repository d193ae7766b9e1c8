-- src/ingest/ingest.sql
--
-- Writing rows.

CREATE FUNCTION batchdedup.upsert(row_value record) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_upsert_row';
COMMENT ON FUNCTION batchdedup.upsert(record) IS
'upserts a row; its type says which table
row_value: a row of the table''s type: ROW(...)::my_table';

CREATE FUNCTION batchdedup.upsert(row_values anyarray) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_upsert_rows';
COMMENT ON FUNCTION batchdedup.upsert(anyarray) IS
'upserts rows, one after the other; returns their number
row_values: rows of the table''s type: my_table[]';

CREATE FUNCTION batchdedup.upsert(target regclass, document jsonb) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_upsert_json';
COMMENT ON FUNCTION batchdedup.upsert(regclass, jsonb) IS
'upserts an object, or an array of objects; columns that are absent are not given; returns the number of rows
document: an object with columns by name, or an array of such';

CREATE FUNCTION batchdedup.upsert_record(target regclass, row_value record) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_upsert_record';
COMMENT ON FUNCTION batchdedup.upsert_record IS
'upserts a record; its fields are matched to columns by name
row_value: a row of any query';

CREATE FUNCTION batchdedup.delete(row_value record) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_delete_row';
COMMENT ON FUNCTION batchdedup.delete(record) IS
'deletes the row with the key of the given one; its type says which table
row_value: a row of the table''s type, of which the key counts, and the version if the target has a version column';

CREATE FUNCTION batchdedup.delete(target regclass, document jsonb) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_delete_json';
COMMENT ON FUNCTION batchdedup.delete(regclass, jsonb) IS
'deletes by key: an object, or an array of objects; returns their number
document: an object with the key''s columns, or an array of such';

CREATE FUNCTION batchdedup.flush(VARIADIC targets regclass[] DEFAULT '{}') RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_flush';
COMMENT ON FUNCTION batchdedup.flush IS
'returns, with the number of rows applied, once all that was committed before is in the tables; without targets: all that the caller may write
targets: none: all that the caller may write';
