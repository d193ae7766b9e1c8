-- src/canonical/canonical.sql
--
-- JSON in one spelling.

CREATE FUNCTION batchdedup.canonical_json(document jsonb, on_inexact text DEFAULT 'error') RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_canonical_json';
COMMENT ON FUNCTION batchdedup.canonical_json IS
'the document as RFC 8785 writes it; numbers that a double cannot say are an error, a string or rounded
on_inexact: a number that a double cannot say is an error; or written as a string; or round: as the nearest double';

CREATE FUNCTION batchdedup.data_version(document jsonb, exclude text[] DEFAULT '{}') RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_data_version_json';
COMMENT ON FUNCTION batchdedup.data_version(jsonb, text[]) IS
'sha256 of the document in canonical form with exact decimals, without some of its keys
exclude: keys of the outermost object that do not count';

CREATE FUNCTION batchdedup.data_version(document text, exclude text[] DEFAULT '{}') RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_data_version_text';
COMMENT ON FUNCTION batchdedup.data_version(text, text[]) IS
'the same of JSON that is given as text, or as a literal
exclude: keys of the outermost object that do not count';

CREATE FUNCTION batchdedup.data_version(row_value record, exclude text[] DEFAULT '{}') RETURNS text
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_data_version_row';
COMMENT ON FUNCTION batchdedup.data_version(record, text[]) IS
'sha256 of the row as a document, without some of its columns
exclude: columns that do not count';
