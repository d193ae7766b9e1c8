-- Syncs: from a source to a target, with a watermark.
\set VERBOSITY terse
SET client_min_messages = notice;
CREATE SCHEMA syncs;
SET search_path = syncs, public;

CREATE TABLE staging (
    id integer PRIMARY KEY,
    price text,
    stock integer,
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX ON staging (updated_at, id);
CREATE TABLE product (
    id integer PRIMARY KEY,
    price numeric(10,2),
    stock integer,
    updated_at timestamptz,
    data_version text
);

-- What is done, of which kind the cursor is.
\set VERBOSITY default
SELECT batchdedup.create_sync('products', 'staging', 'product',
    cursor => 'updated_at, id',
    mapping => '{"price": "src.price::numeric"}',
    hash_exclude => 'updated_at',
    log_values => true);
\set VERBOSITY terse

CREATE VIEW run AS
SELECT slices, rows_read, inserted, updated, deleted, unchanged, refused, error
  FROM batchdedup.sync_run ORDER BY id DESC LIMIT 1;

-- ---------------------------------------------------------------------
-- New, changed, unchanged, refused
-- ---------------------------------------------------------------------

INSERT INTO staging SELECT i, i || '.5', i FROM generate_series(1, 25) i;
CALL batchdedup.run_sync('products', dry_run => true, slice_rows => 10);
SELECT count(*) FROM product;
TABLE batchdedup.sync_run;
CALL batchdedup.run_sync('products', slice_rows => 10);
TABLE run;
SELECT id, price, stock, data_version = batchdedup.data_version(p, '{updated_at,data_version}') AS version
  FROM product p WHERE id < 3 ORDER BY id;

-- Nothing new: no row in the history.
CALL batchdedup.run_sync('products');
SELECT count(*) FROM batchdedup.sync_run;

UPDATE staging SET stock = 0, updated_at = now() WHERE id <= 3;
UPDATE staging SET updated_at = now() WHERE id BETWEEN 4 AND 6;             -- touched only
UPDATE staging SET price = '7.50', updated_at = now() WHERE id = 7;         -- the same number
INSERT INTO staging VALUES (26, 'cheap', 1), (27, '123456789', 1), (28, '28', 28);
CALL batchdedup.run_sync('products', dry_run => true);
CALL batchdedup.run_sync('products');
TABLE run;
SELECT operation, key, changed_columns, old_values ->> 'stock' AS old, new_values ->> 'stock' AS new,
       old_version IS NULL AS no_old, old_version = new_version AS same
  FROM batchdedup.change_log WHERE run_id = (SELECT max(id) FROM batchdedup.sync_run) ORDER BY key;
SELECT key, row ->> 'price' AS price, sqlstate, message, attempts FROM batchdedup.sync_dead_letter ORDER BY key;
SELECT status, detail FROM batchdedup.health() WHERE check_name = 'syncs';

-- A later row of the key settles a letter; another one is tried again.
UPDATE staging SET price = '26', updated_at = now() WHERE id = 26;
CALL batchdedup.run_sync('products');
SELECT batchdedup.retry_sync_dead_letters('products');
UPDATE staging SET price = '27' WHERE id = 27;
SELECT batchdedup.retry_sync_dead_letters('products');
SELECT count(*) FROM batchdedup.sync_dead_letter;
SELECT count(*) FROM (SELECT id, price::numeric, stock FROM staging EXCEPT SELECT id, price, stock FROM product) x;

-- ---------------------------------------------------------------------
-- Limits, pause, watermark
-- ---------------------------------------------------------------------

SELECT batchdedup.reset_watermark('products');
CALL batchdedup.run_sync('products', max_slices => 2, slice_rows => 5);
TABLE run;
CALL batchdedup.run_sync('products', max_rows => 7, slice_rows => 5);
TABLE run;
SELECT lag_rows FROM batchdedup.sync_status;
SELECT batchdedup.pause_sync('products');
CALL batchdedup.run_sync('products');
SELECT paused FROM batchdedup.sync;
SELECT batchdedup.resume_sync('products');
CALL batchdedup.run_sync('products', max_seconds => 100);
TABLE run;
SELECT lag_rows, lag, dead_letters, last_error, held_back_by FROM batchdedup.sync_status;
SELECT batchdedup.reset_watermark('products', (SELECT max(updated_at)::text FROM staging));
CALL batchdedup.run_sync('products');
SELECT batchdedup.reset_watermark('products', (SELECT ARRAY[max(updated_at)::text, '0']::text FROM staging));
CALL batchdedup.run_sync('products');
TABLE run;
SELECT batchdedup.reset_watermark('products', 'some day');
SELECT batchdedup.reset_watermark('products', '{2026-01-01,1,2}');
SELECT batchdedup.drop_sync('products');
SELECT count(*) > 25 AS log_stays FROM batchdedup.change_log;

-- ---------------------------------------------------------------------
-- Cursor values that are equal, NULL, and in the future
-- ---------------------------------------------------------------------

CREATE TABLE late (id integer PRIMARY KEY, v text, at timestamptz DEFAULT now());
CREATE INDEX ON late (at);
CREATE TABLE late_copy (id integer PRIMARY KEY, v text, at timestamptz);
SELECT batchdedup.create_sync('late', 'late', 'late_copy', cursor => 'at', slice_rows => 3);
INSERT INTO late SELECT i, 'equal', '2026-01-01' FROM generate_series(1, 10) i;
INSERT INTO late VALUES (11, 'null', NULL), (12, 'future', now() + interval '2 hours'), (13, 'infinite', 'infinity');
INSERT INTO late SELECT i, 'null', NULL FROM generate_series(20, 26) i;
CALL batchdedup.run_sync('late');
SELECT v, count(*) FROM late_copy GROUP BY v ORDER BY v;
INSERT INTO late VALUES (14, 'after');
CALL batchdedup.run_sync('late');
SELECT v, count(*) FROM late_copy GROUP BY v ORDER BY v;
UPDATE late SET v = 'null, later' WHERE id = 20;
CALL batchdedup.run_sync('late');
SELECT v FROM late_copy WHERE id = 20;
SELECT count(*) AS runs FROM batchdedup.sync_run WHERE sync = 'late';
CALL batchdedup.run_sync('late');
SELECT count(*) AS runs FROM batchdedup.sync_run WHERE sync = 'late';
SELECT watermark[2] FROM batchdedup.sync_status;
-- As if the clock had been set back, and a row was written meanwhile.
UPDATE batchdedup.sync_row SET bound = now() + interval '1 hour';
INSERT INTO late VALUES (15, 'by a clock that was set back', '2025-12-31');
SET timezone = 'UTC';
SET datestyle = 'German';
\set VERBOSITY sqlstate
CALL batchdedup.run_sync('late');
\set VERBOSITY terse
RESET timezone;
RESET datestyle;
SELECT v FROM late_copy WHERE id = 15;
SELECT batchdedup.drop_sync('late');

-- Many rows for a key: the one that is read last counts.
CREATE TABLE history (key integer, n serial, v text, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE newest (key integer PRIMARY KEY, v text);
SELECT batchdedup.create_sync('newest', 'history', 'newest', cursor => 'n', cursor_kind => 'sequence');
INSERT INTO history (key, v) SELECT i % 3, 'v' || i FROM generate_series(1, 20) i;
CALL batchdedup.run_sync('newest', slice_rows => 7);
TABLE newest ORDER BY key;
TABLE run;
SELECT batchdedup.drop_sync('newest');

-- ---------------------------------------------------------------------
-- Rows that are gone
-- ---------------------------------------------------------------------

CREATE TABLE snapshot (brand text, sku integer, v text, PRIMARY KEY (brand, sku));
CREATE TABLE soft (brand text, sku integer, v text, gone boolean DEFAULT false, PRIMARY KEY (brand, sku));
CREATE TABLE hard (LIKE soft INCLUDING ALL);
SELECT batchdedup.create_sync('soft', 'snapshot', 'soft', delete_missing => 'soft', deleted_column => 'gone');
SELECT batchdedup.create_sync('hard', 'snapshot', 'hard', delete_missing => 'hard');
INSERT INTO snapshot SELECT 'b' || i % 2, i, 'v' FROM generate_series(1, 8) i;
CALL batchdedup.run_sync('soft');
CALL batchdedup.run_sync('hard');
DELETE FROM snapshot WHERE sku > 4;
CALL batchdedup.run_sync('soft', dry_run => true, slice_rows => 3);
CALL batchdedup.run_sync('soft', slice_rows => 3);
CALL batchdedup.run_sync('hard', slice_rows => 3);
TABLE run;
INSERT INTO snapshot VALUES ('b0', 8, 'v');
CALL batchdedup.run_sync('soft');
CALL batchdedup.run_sync('hard');
SELECT sku, gone FROM soft ORDER BY sku;
SELECT sku FROM hard ORDER BY sku;
SELECT sync, operation, count(*) FROM batchdedup.change_log WHERE sync IN ('soft', 'hard') GROUP BY 1, 2 ORDER BY 1, 2;
-- Nothing is new: no run is told of.
SELECT count(*) AS runs FROM batchdedup.sync_run WHERE sync = 'hard';
CALL batchdedup.run_sync('hard', slice_rows => 2);
SELECT count(*) AS runs FROM batchdedup.sync_run WHERE sync = 'hard';
UPDATE snapshot SET v = 'w' WHERE sku = 4;
CALL batchdedup.run_sync('hard', slice_rows => 2);
TABLE run;
-- An empty source is rather a load that has failed.
TRUNCATE snapshot;
CALL batchdedup.run_sync('hard');
SELECT last_error FROM batchdedup.sync_status WHERE name = 'hard';
SELECT count(*) FROM hard;
SELECT batchdedup.drop_sync('soft'), batchdedup.drop_sync('hard');

-- A column of the source says it.
CREATE TABLE feed (id integer PRIMARY KEY, v text, removed timestamptz, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE feed_copy (id integer PRIMARY KEY, v text);
SELECT batchdedup.create_sync('feed', 'feed', 'feed_copy', cursor => 'at, id', tombstone => 'removed');
INSERT INTO feed (id, v) SELECT i, 'v' FROM generate_series(1, 4) i;
INSERT INTO feed VALUES (5, 'never there', now());
CALL batchdedup.run_sync('feed');
UPDATE feed SET removed = now(), at = now() WHERE id = 2;
CALL batchdedup.run_sync('feed');
TABLE run;
SELECT id FROM feed_copy ORDER BY id;
SELECT batchdedup.drop_sync('feed');

-- ---------------------------------------------------------------------
-- Changes that a trigger has seen
-- ---------------------------------------------------------------------

CREATE TABLE device (id integer PRIMARY KEY, v text, at timestamptz);
CREATE TABLE device_copy (id integer PRIMARY KEY, v text, at timestamptz);
INSERT INTO device SELECT i, 'v', '2020-01-01' FROM generate_series(1, 9) i;
SELECT batchdedup.create_sync('devices', 'device', 'device_copy', capture => 'trigger');
UPDATE device SET v = 'early' WHERE id = 1;
CALL batchdedup.run_sync('devices', slice_rows => 4);
TABLE run;
INSERT INTO device VALUES (10, 'backdated', '1999-01-01');
DELETE FROM device WHERE id = 2;
UPDATE device SET id = 30 WHERE id = 3;
BEGIN;
DELETE FROM device WHERE id = 4;
ROLLBACK;
BEGIN;
UPDATE device SET v = 'kept' WHERE id = 5;
SAVEPOINT s;
DELETE FROM device WHERE id = 6;
ROLLBACK TO s;
COMMIT;
CALL batchdedup.run_sync('devices', dry_run => true);
CALL batchdedup.run_sync('devices', slice_rows => 2);
TABLE run;
SELECT operation, key FROM batchdedup.change_log WHERE run_id = (SELECT max(id) FROM batchdedup.sync_run) ORDER BY key;
SELECT count(*) FROM ((TABLE device EXCEPT TABLE device_copy) UNION ALL (TABLE device_copy EXCEPT TABLE device)) x;
TRUNCATE device;
INSERT INTO device VALUES (1, 'alone', NULL);
CALL batchdedup.run_sync('devices');
TABLE device_copy;
SELECT lag_rows FROM batchdedup.sync_status WHERE name = 'devices';
SELECT batchdedup.drop_sync('devices');
INSERT INTO device VALUES (2, 'nobody cares', NULL);
SELECT count(*) FROM pg_class WHERE relname LIKE 'captured%';

-- ---------------------------------------------------------------------
-- Other sources, other ways
-- ---------------------------------------------------------------------

-- A view, with a filter; types that an assignment makes, and lengths.
CREATE TABLE base (id bigint PRIMARY KEY, code text, at timestamptz NOT NULL DEFAULT now(), active boolean DEFAULT true);
CREATE VIEW source_view AS SELECT id, code, code AS label, at, active FROM base;
CREATE TABLE typed (id integer PRIMARY KEY, code varchar(3), label char(5));
SELECT batchdedup.create_sync('view', 'source_view', 'typed', cursor => 'at, id', cursor_kind => 'clock', filter => 'src.active');
INSERT INTO base (id, code, active)
VALUES (1, 'a', true), (2, 'abc', true), (3, 'abc  ', true), (4, 'abcd', true), (5, 'no', false), (3000000000, 'big', true);
CALL batchdedup.run_sync('view');
SELECT id, code, label FROM typed ORDER BY id;
SELECT key, sqlstate FROM batchdedup.sync_dead_letter ORDER BY position;
UPDATE base SET at = now();
CALL batchdedup.run_sync('view');
TABLE run;
SELECT batchdedup.discard_sync_dead_letters('view'), batchdedup.drop_sync('view');

-- A partitioned source and target; through the buffer; a chain of two.
CREATE TABLE parts (id integer, v text, at timestamptz NOT NULL DEFAULT now(), PRIMARY KEY (id)) PARTITION BY RANGE (id);
CREATE TABLE parts_1 PARTITION OF parts FOR VALUES FROM (0) TO (10);
CREATE TABLE parts_2 PARTITION OF parts FOR VALUES FROM (10) TO (100);
CREATE TABLE middle (id integer, v text, at timestamptz NOT NULL, PRIMARY KEY (id)) PARTITION BY HASH (id);
CREATE TABLE middle_1 PARTITION OF middle FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE middle_2 PARTITION OF middle FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE last (id integer PRIMARY KEY, v text, at timestamptz);
SELECT batchdedup.create_target('last', flush_interval => '0');
SELECT batchdedup.create_sync('one', 'parts', 'middle', cursor => 'at, id');
SELECT batchdedup.create_sync('two', 'middle', 'last', cursor => 'at, id', cursor_kind => 'clock', "into" => 'buffer');
SELECT batchdedup.create_sync('two', 'middle', 'last', capture => 'trigger', "into" => 'buffer');
INSERT INTO parts SELECT i, 'v' FROM generate_series(1, 20) i;
CALL batchdedup.run_sync('one', slice_rows => 6);
CALL batchdedup.run_sync('two', slice_rows => 6);
TABLE run;
SELECT count(*) FROM last;
CALL batchdedup.run_sync('two');
UPDATE parts SET v = 'w', at = now() WHERE id = 15;
CALL batchdedup.run_sync('one');
CALL batchdedup.run_sync('two');
TABLE run;
SELECT batchdedup.get('last', '{"id": 15}') ->> 'v' AS v;
SELECT batchdedup.flush('last') > 0 AS flushed;
SELECT count(*) FROM ((TABLE parts EXCEPT TABLE last) UNION ALL (TABLE last EXCEPT TABLE parts)) x;
SELECT batchdedup.drop_sync('one'), batchdedup.drop_sync('two'), batchdedup.drop_target('last');

-- A dry run leaves nothing behind, also in sequences.
CREATE TABLE numbered (n serial, id integer PRIMARY KEY);
SELECT batchdedup.create_sync('dry', 'base', 'numbered', cursor => 'at', cursor_kind => 'clock', filter => 'src.id < 100');
SELECT last_value AS runs FROM batchdedup.sync_run_row_id_seq \gset
SELECT md5(s::text) AS before FROM batchdedup.sync_row s \gset
CALL batchdedup.run_sync('dry', dry_run => true, slice_rows => 2);
SELECT is_called FROM numbered_n_seq;
SELECT last_value = :runs AS same_runs FROM batchdedup.sync_run_row_id_seq;
SELECT md5(s::text) = :'before' AS same_sync FROM batchdedup.sync_row s;
CALL batchdedup.run_sync('dry', slice_rows => 2);
TABLE run;
SELECT is_called FROM numbered_n_seq;
SELECT batchdedup.drop_sync('dry');

-- What others see of a run, seen from within.
CREATE FUNCTION seen() RETURNS text LANGUAGE sql VOLATILE AS $$
SELECT format('%s, %s %s, %s done', p.kind, p.phase, p.target, p.done)
       || (SELECT format(', run by %s, slices %s', CASE s.pid WHEN pg_backend_pid() THEN 'us' ELSE s.pid::text END,
                         (SELECT r.slices FROM batchdedup.sync_run_row r WHERE r.finished_at IS NULL))
             FROM batchdedup.sync_status s)
  FROM batchdedup.stat_progress p WHERE p.pid = pg_backend_pid()
$$;
CREATE TABLE watched (id integer PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE watching (id integer PRIMARY KEY, v text);
SELECT batchdedup.create_sync('watched', 'watched', 'watching', cursor => 'at', mapping => '{"v": "syncs.seen()"}');
INSERT INTO watched SELECT generate_series(1, 5);
CALL batchdedup.run_sync('watched', slice_rows => 2);
SELECT v, count(*) FROM watching GROUP BY v ORDER BY v;
SELECT count(*) FROM batchdedup.stat_progress;
SELECT pid IS NULL AS nobody, rate > 0 AS rate FROM batchdedup.sync_status;
SELECT batchdedup.drop_sync('watched');

-- ---------------------------------------------------------------------
-- The end
-- ---------------------------------------------------------------------

SELECT batchdedup.expire_syncs('0') > 0 AS expired, (SELECT count(*) FROM batchdedup.sync_run) AS runs;
SET client_min_messages = warning;
DROP SCHEMA syncs CASCADE;
