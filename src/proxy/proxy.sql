-- src/proxy/proxy.sql
--
-- Views and redirects.

CREATE FUNCTION batchdedup.create_view(target regclass, name text DEFAULT NULL) RETURNS regclass
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_create_view';
COMMENT ON FUNCTION batchdedup.create_view IS
'makes a view, table_buffered, that writes to the buffer and shows the table as it will be; or makes it anew
name: NULL: the table''s with _buffered';

CREATE FUNCTION batchdedup.create_redirect(target regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_create_redirect';
COMMENT ON FUNCTION batchdedup.create_redirect IS
    'from here on plain INSERT and COPY of the table go to the buffer';

CREATE FUNCTION batchdedup.drop_redirect(target regclass) RETURNS void
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_drop_redirect';
COMMENT ON FUNCTION batchdedup.drop_redirect IS
    'brings what is buffered to the table and ends its redirect';

CREATE FUNCTION batchdedup.redirect() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_redirect';
COMMENT ON FUNCTION batchdedup.redirect IS
    'trigger of create_redirect: what is inserted goes to the buffer';

-- What the views of create_view consist of.
CREATE FUNCTION batchdedup.view_write() RETURNS trigger
LANGUAGE C VOLATILE PARALLEL UNSAFE
AS 'MODULE_PATHNAME', 'bdd_view_write';
COMMENT ON FUNCTION batchdedup.view_write IS
    'trigger of the views of create_view: what is written goes to the buffer';
