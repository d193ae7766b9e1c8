-- src/base/base.sql
--
-- The schema. Each folder of src/ has a part of the extension script: its tables,
-- functions and views, with their comments and privileges. The Makefile puts the
-- parts together in the order of src/LAYERS.
--
-- Functions are open to PUBLIC unless a part says otherwise: they check the caller
-- themselves. Names that end in _internal are not for users.

\echo Use "CREATE EXTENSION batchdedup" to load this file. \quit

CREATE SCHEMA batchdedup;

GRANT USAGE ON SCHEMA batchdedup TO PUBLIC;
