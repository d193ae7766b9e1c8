-- Batches: ways around the barrier, and into a corner.
\a
\pset footer off
SET search_path = batchdedup, public;
CREATE VIEW regress_state AS
SELECT name, status, total_files AS total, processed_files AS processed, failed_files AS failed, all_files_done_at IS NOT NULL AS barrier
  FROM batch ORDER BY name;

-- ---------- nobody else may use our triggers: their plans are kept ----------

SELECT create_batch('poison') AS b \gset
SELECT add_file(:'b', 'f') AS f \gset
SELECT complete_upload(:'b');
CREATE ROLE regress_bdd_odd;
CREATE SCHEMA regress_odd;
GRANT USAGE, CREATE ON SCHEMA regress_odd TO regress_bdd_odd;
SET ROLE regress_bdd_odd;
CREATE TABLE regress_odd.t (id int PRIMARY KEY, batch_id uuid, status int);
CREATE TRIGGER t AFTER UPDATE ON regress_odd.t REFERENCING OLD TABLE AS old_files NEW TABLE AS new_files
FOR EACH STATEMENT EXECUTE FUNCTION batchdedup.file_changed_internal();
\echo :SQLSTATE
RESET ROLE;
-- nor does it work where somebody may
CREATE TRIGGER t AFTER UPDATE ON regress_odd.t REFERENCING OLD TABLE AS old_files NEW TABLE AS new_files
FOR EACH STATEMENT EXECUTE FUNCTION batchdedup.file_changed_internal();
UPDATE regress_odd.t SET id = 1;
\echo :SQLSTATE
SELECT complete_file(:'b', :'f');
SELECT wait_batch(:'b', 'scattered', '10 s');

-- ---------- a claim does not pass the barrier, nor end the upload ----------

SELECT create_batch('claims') AS b \gset
SELECT add_file(:'b', 'f') AS f \gset
SELECT claim_batch('w', 'pending', 'uploaded', '1 min');
\echo :SQLSTATE
SELECT complete_upload(:'b');
SELECT count(*) FROM claim_files('w', 1, '1 hour', :'b');
SELECT claim_batch('w', 'scattering', 'scattered', '1 min');
\echo :SQLSTATE
SELECT claim_batch('w', 'gathering', 'gathering', '1 min');
\echo :SQLSTATE
SELECT complete_file(:'b', :'f');
SELECT wait_batch(:'b', 'scattered', '10 s');

-- ---------- a batch that failed, and whose file was done after all ----------

SELECT create_batch('late') AS b \gset
SELECT add_file(:'b', 'f') AS f \gset
SELECT complete_upload(:'b');
SELECT fail_file(:'b', :'f', 'x', false);
SELECT flush('file') IS NOT NULL AS flushed;
SELECT complete_file(:'b', :'f');
SELECT flush('file') IS NOT NULL AS flushed;
SELECT * FROM regress_state WHERE name = 'late';
SELECT retry_files(:'b');
SELECT * FROM regress_state WHERE name = 'late';

-- by hand
SELECT create_batch('hand') AS b \gset
SELECT add_file(:'b', 'f') AS f \gset
SELECT complete_upload(:'b'), advance_batch(:'b', 'failed');
SELECT complete_file(:'b', :'f');
SELECT flush('file') IS NOT NULL AS flushed;
SELECT advance_batch(:'b', 'scattering');
SELECT * FROM regress_state WHERE name = 'hand';
SELECT create_batch('early') AS b \gset
SELECT add_file(:'b', 'f') IS NOT NULL AS added;
SELECT advance_batch(:'b', 'failed');
SELECT advance_batch(:'b', 'scattering');
\echo :SQLSTATE

-- ---------- dead letters of failed files ----------

SELECT create_batch('letters', max_attempts => 1) AS b \gset
SELECT add_file(:'b', 'f') AS f \gset
SELECT complete_upload(:'b');
SELECT count(*) FROM claim_files('w', 1, '1 hour', :'b');
SELECT fail_file(:'b', :'f', 'x', true);
SELECT flush('file') IS NOT NULL AS flushed;
SELECT retry_dead_letters('file');
SELECT * FROM regress_state WHERE name = 'letters';
SELECT filename, attempts FROM claim_files('w2', 1, '1 hour', :'b');
SELECT count(*) FROM dead_letter;
SELECT complete_file(:'b', :'f');
SELECT wait_batch(:'b', 'scattered', '10 s');

-- a claim that fails a batch hands out none of its files
SELECT create_batch('exhausted', max_attempts => 1) AS b \gset
SELECT count(add_file(:'b', 'f' || i)) FROM generate_series(1, 3) i;
SELECT complete_upload(:'b');
SELECT count(*) FROM claim_files('w', 1, '1 ms', :'b');
SELECT pg_sleep(0.01);
SELECT count(*) FROM claim_files('w2', 10, '1 hour', :'b');
SELECT * FROM regress_state WHERE name = 'exhausted';

-- ---------- completed files of a batch that is gone ----------

SELECT create_batch('gone') AS b \gset
SELECT count(add_file(:'b', 'f' || i)) FROM generate_series(1, 3) i;
SELECT complete_upload(:'b');
SELECT pause('file');
SELECT count(complete_file(:'b', id)) FROM file WHERE batch_id = :'b';
DELETE FROM batch_row WHERE id = :'b';
SELECT resume('file');
SELECT flush('file') IS NOT NULL AS flushed;
SELECT count(*) FROM dead_letter WHERE sqlstate <> 'P0001';

-- ---------- what was buffered of a version that is replaced ----------

SELECT create_batch('replaced') AS b \gset
SELECT add_file(:'b', 'f', checksum => '1') AS f \gset
SELECT pause('file');
SELECT complete_file(:'b', :'f', '{"rows": 5}');
SELECT add_file(:'b', 'f', checksum => '2') = :'f' AS same;
SELECT version, status, result, completed_at IS NOT NULL AS at FROM file_version;
SELECT resume('file');

-- ---------- waiting after a rollback, and for what was written directly ----------

BEGIN;
SAVEPOINT s;
SELECT complete_file(:'b', :'f', version => 2);
ROLLBACK TO s;
SELECT wait_batch(:'b', 'pending', '0');
ROLLBACK;
SELECT complete_upload(:'b');
BEGIN;
SET LOCAL batchdedup.enabled = off;
SELECT complete_file(:'b', :'f', version => 2);
SELECT wait_batch(:'b', 'scattered', '0');
COMMIT;

-- ---------- workers: the event comes once, also if fewer are expected in the end ----------

SELECT create_batch('workers') AS b \gset
SELECT expect_workers(:'b', 'k', 3), complete_worker(:'b', 'k', '1'), complete_worker(:'b', 'k', '2');
SELECT expect_workers(:'b', 'k', 2), expect_workers(:'b', 'k', 2);
SELECT kind, payload FROM event WHERE batch_id = :'b' AND kind = 'workers_done';
SELECT expect_workers(:'b', 'k', 3);
\echo :SQLSTATE

-- ---------- the steps that came with the extension ----------

DELETE FROM batchdedup.batch_transition WHERE to_status = 'failed';
\echo :SQLSTATE
UPDATE batchdedup.batch_transition SET to_status = 'gathered' WHERE to_status = 'failed';
TRUNCATE batchdedup.batch_transition;
INSERT INTO batchdedup.batch_transition VALUES ('scattered', 'checked'), ('checked', 'completed');
SELECT batchdedup.wait_batch(batchdedup.create_batch('steps'), 'chekced', '1 hour');
\echo :SQLSTATE
SELECT batchdedup.complete_upload(batchdedup.create_batch('steps'));
SELECT batchdedup.advance_batch(batchdedup.create_batch('steps'), 'checked');
SELECT batchdedup.wait_batch(batchdedup.create_batch('steps'), 'checked', '1 hour');
DELETE FROM batchdedup.batch_transition WHERE 'checked' IN (from_status, to_status);
SELECT * FROM batchdedup.claim_files('w', 1, '1 s', '00000000-0000-0000-0000-000000000000');
\echo :SQLSTATE

-- ---------- opened again behind the barrier: claimed as before ----------

SELECT batchdedup.create_batch('behind', on_file_failure => 'continue') AS behind \gset
SELECT batchdedup.add_file(:'behind', 'f' || i, 10, 'place', 'c') IS NOT NULL AS added FROM generate_series(1, 2) i;
SELECT batchdedup.complete_upload(:'behind');
SELECT batchdedup.complete_file(:'behind', id) FROM batchdedup.file WHERE batch_id = :'behind' AND filename = 'f1';
SELECT batchdedup.fail_file(:'behind', id, 'broken', false) FROM batchdedup.file WHERE batch_id = :'behind' AND filename = 'f2';
SELECT batchdedup.wait_batch(:'behind', 'scattered', '1 min');
-- what was said just before counts, too
SELECT batchdedup.retry_files(:'behind');
SELECT filename FROM batchdedup.claim_files('w', 5, '1 min', :'behind');
SELECT batchdedup.fail_file(:'behind', id, 'broken', false) FROM batchdedup.file WHERE batch_id = :'behind' AND filename = 'f2';
SELECT batchdedup.retry_files(:'behind');
SELECT filename, attempts FROM batchdedup.claim_files('w', 5, '1 min');
SELECT batchdedup.add_file(:'behind', 'f1', 12, NULL, 'd') IS NOT NULL AS again;
SELECT filename, size, location, checksum, version FROM batchdedup.claim_files('w', 5, '1 min');

-- ---------- what makes a delivery another one ----------

SELECT batchdedup.create_batch('same') AS same \gset
SELECT batchdedup.add_file(:'same', 'f') IS NOT NULL AS added;
-- what was not known is not another one
SELECT batchdedup.add_file(:'same', 'f', 10) IS NOT NULL AS added;
SELECT batchdedup.add_file(:'same', 'f', 10, 'here', 'c') IS NOT NULL AS added;
SELECT batchdedup.add_file(:'same', 'f', 11, 'there', 'c') IS NOT NULL AS added;
SELECT size, location, checksum, version FROM batchdedup.file WHERE batch_id = :'same';
SELECT batchdedup.add_file(:'same', 'f', 11) IS NOT NULL AS another_size;
SELECT batchdedup.add_file(:'same', 'f', 11, checksum => 'e') IS NOT NULL AS filled_in;
SELECT batchdedup.add_file(:'same', 'f', 11, checksum => 'g') IS NOT NULL AS another_checksum;
SELECT size, location, checksum, version FROM batchdedup.file WHERE batch_id = :'same';


SELECT discard_dead_letters('file') >= 0 AS discarded;
DELETE FROM batch_row;
DELETE FROM event;
DROP VIEW regress_state;
SET client_min_messages = warning;
DROP SCHEMA regress_odd CASCADE;
DROP ROLE regress_bdd_odd;
