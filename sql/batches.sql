-- Batches of files: steps, counts, the barrier; ways around it, and into a corner.
\a
\pset footer off
CREATE SCHEMA regress_batches;
SET search_path = regress_batches, batchdedup, public;

-- What a batch is, and what has happened to it; without ids and times.
CREATE VIEW state AS
SELECT name, status, total_files AS total, processed_files AS processed, failed_files AS failed, reopened_files AS reopened
  FROM batch ORDER BY name;
CREATE VIEW history AS
SELECT b.name, e.kind, f.filename, e.payload - '{size,location,checksum}'::text[] AS payload
  FROM event e JOIN batch b ON b.id = e.batch_id LEFT JOIN file f ON f.id = e.file_id ORDER BY e.id;

-- ---------- from the first file to the last step ----------

SELECT create_batch('b', source => 'ftp', metadata => '{"day": 1}') AS b \gset
SELECT create_batch('b') = :'b' AS same, create_batch('b', source => 'ftp') = :'b' AS same_source,
       create_batch('b', metadata => '{"day": 1}', on_file_failure => 'fail', max_attempts => 5) = :'b' AS same_all;
SELECT create_batch('b', source => 'http');
\echo :SQLSTATE
SELECT name, source, kind, status, expected_files, metadata, on_file_failure, max_attempts, error FROM batch;

SELECT add_file(:'b', 'one', 10, 's3://x/one', 'c1') AS one \gset
SELECT add_file(:'b', 'two', 20) AS two \gset
-- twice: the same file
SELECT add_file(:'b', 'one') = :'one' AS same, add_file(:'b', 'one', 10, 's3://y/one', 'c1') = :'one' AS moved;
SELECT filename, size, location, checksum, version, status, attempts FROM file ORDER BY filename;
-- counts are right while files are added, also before anybody has counted
TABLE state;

-- done before the list is final: counted, and no barrier
SELECT complete_file(:'b', :'one', '{"rows": 5}'), complete_file(:'b', :'one');
SELECT flush('file') IS NOT NULL AS flushed;
SELECT complete_file(:'b', :'one');
TABLE state;

SELECT add_file(:'b', 'three') AS three \gset
SELECT complete_upload(:'b');
TABLE state;
-- twice; and too late
SELECT complete_upload(:'b');
SELECT add_file(:'b', 'four');
\echo :SQLSTATE
SELECT add_file(:'b', 'two', 20) = :'two' AS known;

-- the barrier is not to be passed by hand
SELECT advance_batch(:'b', 'scattered');
\echo :SQLSTATE
SELECT advance_batch(:'b', 'gathering');
\echo :SQLSTATE

-- the last ones, in one transaction, one of them rolled back first
BEGIN;
SAVEPOINT s;
SELECT complete_file(:'b', :'two');
ROLLBACK TO s;
SELECT complete_file(:'b', :'two'), complete_file(:'b', :'two'), complete_file(:'b', :'three');
-- own completions are not counted before the end
SELECT wait_batch(:'b', 'scattered', '1 s');
\echo :SQLSTATE
ROLLBACK;
SELECT complete_file(:'b', :'two'), complete_file(:'b', :'three');
SELECT wait_batch(:'b', 'scattered', '1 min'), wait_batch(:'b', 'uploaded', '0');
TABLE state;
SELECT all_files_done_at IS NOT NULL AS done FROM batch;

-- the steps behind it
SELECT wait_batch(:'b', 'gathered', '10 ms');
SELECT name, status, claimed_by, attempts FROM claim_batch('g1', 'scattered', 'gathering', '1 hour');
SELECT claim_batch('g2', 'scattered', 'gathering', '1 hour') IS NULL AS none;
-- a dead gatherer's lease returns the batch
UPDATE batch_row SET lease_until = now() - interval '1 s';
SELECT name, status, claimed_by, attempts FROM claim_batch('g2', 'scattered', 'gathering', '1 hour');
SELECT advance_batch(:'b', 'gathered');
SELECT advance_batch(:'b', 'gathered');
SELECT claimed_by, lease_until FROM batch;
SELECT advance_batch(:'b', 'completed');
TABLE state;
TABLE history;

-- after the end
SELECT advance_batch(:'b', 'cancelled');
\echo :SQLSTATE
SELECT complete_file(:'b', :'one');
SELECT add_file(:'b', 'one', NULL, NULL, 'c2');
\echo :SQLSTATE
SELECT complete_upload(:'b');
SELECT wait_batch(:'b', 'failed', '1 min');

-- ---------- wrong ----------

SELECT create_batch(NULL);
\echo :SQLSTATE
SELECT create_batch('');
\echo :SQLSTATE
SELECT create_batch('x', metadata => NULL);
SELECT create_batch('x', expected_files => -1);
\echo :SQLSTATE
SELECT create_batch('x', on_file_failure => 'shrug');
\echo :SQLSTATE
SELECT create_batch('x', max_attempts => 0);
\echo :SQLSTATE
SELECT add_file(NULL, 'x');
SELECT add_file(:'b', NULL);
SELECT add_file(:'b', '');
SELECT add_file('00000000-0000-0000-0000-000000000000', 'x');
\echo :SQLSTATE
SELECT complete_upload('00000000-0000-0000-0000-000000000000');
\echo :SQLSTATE
SELECT complete_upload(NULL);
SELECT advance_batch(:'b', NULL);
SELECT complete_file(:'b', '00000000-0000-0000-0000-000000000000');
\echo :SQLSTATE
SELECT complete_file(NULL, :'one');
SELECT complete_file(:'b', NULL);
SELECT fail_file(:'b', :'one', NULL, true);
SELECT fail_file(:'b', :'one', 'x', NULL);
SELECT wait_batch(:'b', 'done', NULL);
SELECT wait_batch('00000000-0000-0000-0000-000000000000', 'failed', '1 s');
\echo :SQLSTATE
SELECT * FROM claim_files(NULL, 1, '1 s');
SELECT * FROM claim_files('w', 0, '1 s');
\echo :SQLSTATE
SELECT * FROM claim_files('w', 1, '0');
\echo :SQLSTATE
SELECT * FROM claim_files('w', 1, NULL);
SELECT claim_batch('w', 'a', 'b', '-1 s');
\echo :SQLSTATE
-- a file of another batch
SELECT create_batch('other') AS other \gset
\set VERBOSITY terse
SELECT complete_file(:'other', :'one');
\echo :SQLSTATE
\set VERBOSITY default
BEGIN READ ONLY;
SELECT create_batch('x');
\echo :SQLSTATE
ROLLBACK;
BEGIN READ ONLY;
SELECT complete_file(:'b', :'one');
\echo :SQLSTATE
ROLLBACK;
-- every writer takes legal steps only
UPDATE batch_row SET status = 'gathered' WHERE name = 'other';
\echo :SQLSTATE
\set VERBOSITY terse
UPDATE batch_row SET processed_files = 1 WHERE name = 'other';
\echo :SQLSTATE
\set VERBOSITY default

-- ---------- no files; a number that was announced ----------

SELECT create_batch('empty') AS empty \gset
SELECT complete_upload(:'empty');
SELECT status, total_files, all_files_done_at IS NOT NULL AS done FROM batch WHERE name = 'empty';
SELECT kind, payload FROM history WHERE name = 'empty';

SELECT create_batch('announced', expected_files => 2) AS announced \gset
SELECT count(add_file(:'announced', 'a'));
SELECT complete_upload(:'announced');
\echo :SQLSTATE
SELECT count(add_file(:'announced', 'b'));
SELECT complete_upload(:'announced');
SELECT advance_batch(:'announced', 'cancelled');
SELECT complete_file(:'announced', id) FROM file WHERE batch_id = :'announced' AND filename = 'a';
\echo :SQLSTATE
SELECT status, total_files FROM batch WHERE name = 'announced';

-- ---------- claims ----------

SELECT create_batch('c1', max_attempts => 2, on_file_failure => 'continue') AS c1 \gset
SELECT create_batch('c2') AS c2 \gset
SELECT count(add_file(:'c1', 'f' || i)) FROM generate_series(1, 6) i;
SELECT count(add_file(:'c2', 'g' || i)) FROM generate_series(1, 2) i;
-- not before the list is final
SELECT count(*) FROM claim_files('w', 10, '1 hour');
SELECT complete_upload(:'c1'), complete_upload(:'c2');
-- fair: of each batch some
SELECT b.name, count(*) FROM claim_files('w1', 4, '1 hour') f JOIN batch b ON b.id = f.batch_id GROUP BY 1 ORDER BY 1;
SELECT name, status FROM batch WHERE name IN ('c1', 'c2') ORDER BY 1;
SELECT count(*) FROM claim_files('w2', 10, '1 hour', :'c2');
SELECT filename, status, attempts, claimed_by, lease_until > now() AS leased FROM claim_files('w2', 1, '1 hour', :'c1');
SELECT count(*) FROM claim_files('w2', 10, '1 hour');
SELECT count(*) FROM claim_files('w3', 10, '1 hour');
-- done, and only in the buffer: not handed out, though the lease is over
SELECT id AS f1 FROM file WHERE filename = 'f1' \gset
SELECT id AS f2 FROM file WHERE filename = 'f2' \gset
SELECT pause('file');
UPDATE file SET lease_until = now() - interval '1 s' WHERE batch_id = :'c1' AND filename IN ('f1', 'f2');
SELECT complete_file(:'c1', :'f1');
SELECT filename, attempts FROM claim_files('w3', 10, '1 hour');
SELECT resume('file');
-- leases
SELECT renew_lease(:'f2', 'w1', '2 hours') AS not_his, renew_lease(:'f2', 'w3', '2 hours') AS his;
SELECT lease_until > now() + interval '1 hour 59 min' FROM file WHERE id = :'f2';
-- the second attempt was the last one
UPDATE file SET lease_until = now() - interval '1 s' WHERE id = :'f2';
SELECT count(*) FROM claim_files('w4', 10, '1 hour');
SELECT filename, status, attempts, regexp_replace(error, 'w\d', 'w') AS error FROM file WHERE id = :'f2';
SELECT target, key ->> 'id' = :'f2' AS key, operation, sqlstate, regexp_replace(message, 'w\d', 'w') AS message, attempts
  FROM dead_letter;
-- failed: to be tried again, for good
SELECT id AS f3 FROM file WHERE filename = 'f3' \gset
SELECT fail_file(:'c1', :'f3', 'no luck', true, worker => 'somebody') AS not_his, fail_file(:'c1', :'f3', 'no luck', true);
SELECT status, attempts, error, lease_until > clock_timestamp() - interval '1 min' AS backoff FROM file WHERE id = :'f3';
SELECT fail_file(:'c1', :'f3', 'not open', true);
UPDATE file SET lease_until = NULL WHERE id = :'f3';
SELECT filename, attempts FROM claim_files('w5', 1, '1 hour');
SELECT fail_file(:'c1', :'f3', 'once more', true);
SELECT flush('file') IS NOT NULL AS flushed;
SELECT status, attempts, error FROM file WHERE id = :'f3';
SELECT message FROM dead_letter ORDER BY id DESC LIMIT 1;
-- a failed file that is done after all
SELECT complete_file(:'c1', :'f3');
SELECT fail_file(:'c1', :'f3', 'too late', false);
SELECT flush('file') IS NOT NULL AS flushed;
SELECT status, error FROM file WHERE id = :'f3';
SELECT count(*) FROM dead_letter;
-- the others; the batch goes on with one failed
SELECT count(*) FILTER (WHERE complete_file(:'c1', id)) FROM file WHERE batch_id = :'c1' AND filename > 'f3';
SELECT wait_batch(:'c1', 'scattered', '1 min');
SELECT status, total_files, processed_files, failed_files FROM batch WHERE id = :'c1';
SELECT kind, filename, payload FROM history WHERE name = 'c1' AND kind IN ('file_failed', 'all_files_done');

-- a file that fails for good ends its batch, unless it continues
SELECT id AS g1 FROM file WHERE filename = 'g1' \gset
SELECT fail_file(:'c2', :'g1', 'broken', false);
SELECT wait_batch(:'c2', 'scattered', '1 min'), wait_batch(:'c2', 'failed', '1 min');
SELECT status, processed_files, failed_files, error FROM batch WHERE id = :'c2';
SELECT count(*) FROM claim_files('w', 10, '1 hour', :'c2');
-- what others have done meanwhile counts
SELECT complete_file(:'c2', id) FROM file WHERE filename = 'g2';
SELECT flush('file') IS NOT NULL AS flushed;
SELECT status, processed_files, failed_files, error FROM batch WHERE id = :'c2';
-- and may be repaired
SELECT retry_files(:'c2'), retry_files(:'c2');
SELECT status, processed_files, failed_files, error FROM batch WHERE id = :'c2';
SELECT filename FROM claim_files('w', 10, '1 hour', :'c2');
SELECT complete_file(:'c2', :'g1');
SELECT wait_batch(:'c2', 'scattered', '1 min');
SELECT kind, payload FROM history WHERE name = 'c2' AND kind NOT LIKE 'file%';
SELECT count(*) FROM dead_letter WHERE NOT superseded;

-- ---------- delivered again ----------

SELECT create_batch('again') AS again \gset
SELECT add_file(:'again', 'a', 1, NULL, 'v1') AS a \gset
SELECT add_file(:'again', 'b', 1, NULL, 'v1') AS b2 \gset
SELECT complete_upload(:'again');
SELECT complete_file(:'again', :'a', '{"n": 1}');
SELECT flush('file') IS NOT NULL AS flushed;
SELECT add_file(:'again', 'a', 2, NULL, 'v2') = :'a' AS same;
SELECT status, version, size, checksum, attempts, result FROM file WHERE id = :'a';
SELECT version, size, checksum, status, result FROM file_version WHERE file_id = :'a';
SELECT status, total, processed, reopened FROM state WHERE name = 'again';
-- somebody who worked on the first delivery
SELECT complete_file(:'again', :'a', version => 1) AS stale;
SELECT complete_file(:'again', :'a');
\echo :SQLSTATE
SELECT complete_file(:'again', :'a', version => 2);
-- delivered a third time, while that is in the buffer
SELECT add_file(:'again', 'a', 2, NULL, 'v3') = :'a' AS same;
SELECT flush('file') IS NOT NULL AS flushed;
SELECT status, version FROM file WHERE id = :'a';
SELECT version, status FROM file_version WHERE file_id = :'a' ORDER BY 1;
SELECT stale FROM stat_target WHERE target = 'file'::regclass AND stale > 0;
SELECT status, total, processed, reopened FROM state WHERE name = 'again';
SELECT filename, version FROM claim_files('w', 10, '1 hour', :'again') ORDER BY 1;
SELECT complete_file(:'again', :'a', '{"n": 3}'), complete_file(:'again', :'b2');
SELECT wait_batch(:'again', 'scattered', '1 min');
-- after the barrier: open again, and the barrier does not fire twice
SELECT add_file(:'again', 'b', 1, NULL, 'v2') = :'b2' AS same;
SELECT status, total, processed, reopened FROM state WHERE name = 'again';
SELECT complete_file(:'again', :'b2', version => 2);
SELECT flush('file') IS NOT NULL AS flushed;
SELECT status, total, processed, reopened FROM state WHERE name = 'again';
SELECT kind, filename, payload FROM history WHERE name = 'again' AND kind <> 'file_added';

-- ---------- workers of a step ----------

SELECT expect_workers(:'again', 'index', 2), expect_workers(:'again', 'thumbs', 1);
SELECT workers FROM batch WHERE id = :'again';
SELECT complete_worker(:'again', 'index', 'w1'), complete_worker(:'again', 'index', 'w1'), complete_worker(:'again', 'thumbs', 'w1');
SELECT complete_worker(:'again', 'index', 'w2');
SELECT complete_worker(:'again', 'index', 'w3');
\echo :SQLSTATE
SELECT complete_worker(:'again', 'audio', 'w3');
\echo :SQLSTATE
SELECT expect_workers(:'again', 'index', -1);
\echo :SQLSTATE
SELECT expect_workers(:'again', 'index', 1);
\echo :SQLSTATE
SELECT workers FROM batch WHERE id = :'again';
SELECT kind, payload FROM history WHERE name = 'again' AND kind = 'workers_done';
SELECT advance_batch(:'again', 'gathering');
SELECT workers FROM batch WHERE id = :'again';

-- ---------- reconciliation ----------

SELECT reconcile_batches();
SELECT create_batch('broken') AS broken \gset
SELECT count(add_file(:'broken', 'f' || i)) FROM generate_series(1, 3) i;
SELECT complete_upload(:'broken');
UPDATE batch_row SET processed_files = 3 WHERE name = 'broken';
SELECT reconcile_batches(), reconcile_batches();
SELECT * FROM state WHERE name = 'broken';
-- broken counts do not keep the files of others from being counted
UPDATE batch_row SET processed_files = 3 WHERE name = 'broken';
SELECT complete_file(:'broken', id) FROM file WHERE batch_id = :'broken' AND filename = 'f1';
SELECT flush('file') IS NOT NULL AS flushed;
SELECT * FROM state WHERE name = 'broken';
-- a file that is gone was the last one
SELECT complete_file(:'broken', id) FROM file WHERE batch_id = :'broken' AND filename = 'f2';
SELECT flush('file') IS NOT NULL AS flushed;
DELETE FROM file WHERE batch_id = :'broken' AND filename = 'f3';
SELECT reconcile_batches();
SELECT * FROM state WHERE name = 'broken';
SELECT * FROM reconcile_files(:'broken', '{f1,f2}');
SELECT * FROM reconcile_files(:'broken', '{f2,f4,f4,NULL}');
SELECT * FROM reconcile_files(:'broken', '{}');
SELECT * FROM reconcile_files(:'broken', NULL);
\echo :SQLSTATE

-- ---------- who may ----------

CREATE ROLE regress_bdd_batch;
GRANT USAGE, CREATE ON SCHEMA regress_batches TO regress_bdd_batch;
SET ROLE regress_bdd_batch;
SELECT create_batch('no');
\echo :SQLSTATE
SELECT * FROM batch;
SELECT grant_batches('regress_bdd_batch');
RESET ROLE;
SELECT grant_batches(NULL);
SELECT grant_batches('regress_bdd_batch');
SET ROLE regress_bdd_batch;
SELECT create_batch('mine') AS mine \gset
SELECT add_file(:'mine', 'm', checksum => 'old') AS m \gset
SELECT complete_upload(:'mine');
SELECT filename FROM claim_files('w', 1, '1 min', :'mine');
SELECT complete_file(:'mine', :'m');
SELECT wait_batch(:'mine', 'scattered', '1 min');
SELECT status, processed_files FROM batch WHERE name = 'mine';
UPDATE batch_row SET status = 'failed';
\echo :SQLSTATE
UPDATE file SET status = 'pending';
SELECT upsert('file', format('{"id": "%s", "version": 1, "status": "failed"}', :'m')::jsonb);
\echo :SQLSTATE
RESET ROLE;
-- search_path is not trusted
CREATE FUNCTION regress_batches.evil(a text, b text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'as %', current_user; END$$;
CREATE OPERATOR regress_batches.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_batches.evil);
SET search_path = regress_batches, pg_catalog, batchdedup;
SELECT batchdedup.add_file(batchdedup.create_batch('mine'), 'm', NULL, NULL, 'new') = :'m' AS same;
SELECT batchdedup.complete_file(batchdedup.create_batch('mine'), :'m', version => 2);
SELECT batchdedup.advance_batch(batchdedup.create_batch('mine'), 'gathering');
SET search_path = regress_batches, batchdedup, public;
DROP OPERATOR regress_batches.<> (text, text);

-- ---------- the target of the files ----------

SELECT drop_target('file');
\echo :SQLSTATE
SELECT alter_target('file', key => 'filename');
SELECT alter_target('file', logged => false);
SELECT alter_target('file', flush_interval => '3 seconds');
SELECT alter_target('file', reset => 'flush_interval');
SELECT count(*) FROM target WHERE target = 'file'::regclass;

-- ---------- what is old goes ----------

SELECT expire_batches('1 hour');
SELECT flush('file') IS NOT NULL AS flushed;
UPDATE batch_row SET updated_at = now() - interval '2 hours' WHERE name IN ('b', 'announced', 'c1');
SELECT expire_batches('1 hour');
SELECT name FROM batch ORDER BY 1;
SELECT expire_batches(NULL);

SELECT discard_dead_letters('file') >= 0 AS discarded;
DELETE FROM batch_row;
SELECT count(*) FROM file;
DELETE FROM event;

CREATE VIEW progress AS
SELECT name, status, total_files AS total, processed_files AS processed, failed_files AS failed, all_files_done_at IS NOT NULL AS barrier
  FROM batch ORDER BY name;

-- ---------- nobody else may use our triggers: their plans are kept ----------

SELECT create_batch('poison') AS b \gset
SELECT add_file(:'b', 'f') AS f \gset
SELECT complete_upload(:'b');
CREATE ROLE regress_bdd_other;
CREATE SCHEMA regress_other;
GRANT USAGE, CREATE ON SCHEMA regress_other TO regress_bdd_other;
SET ROLE regress_bdd_other;
CREATE TABLE regress_other.t (id int PRIMARY KEY, batch_id uuid, status int);
CREATE TRIGGER t AFTER UPDATE ON regress_other.t REFERENCING OLD TABLE AS old_files NEW TABLE AS new_files
FOR EACH STATEMENT EXECUTE FUNCTION batchdedup.file_changed_internal();
\echo :SQLSTATE
RESET ROLE;
-- nor does it work where somebody may
CREATE TRIGGER t AFTER UPDATE ON regress_other.t REFERENCING OLD TABLE AS old_files NEW TABLE AS new_files
FOR EACH STATEMENT EXECUTE FUNCTION batchdedup.file_changed_internal();
UPDATE regress_other.t SET id = 1;
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
SELECT * FROM progress WHERE name = 'late';
SELECT retry_files(:'b');
SELECT * FROM progress WHERE name = 'late';

-- by hand
SELECT create_batch('hand') AS b \gset
SELECT add_file(:'b', 'f') AS f \gset
SELECT complete_upload(:'b'), advance_batch(:'b', 'failed');
SELECT complete_file(:'b', :'f');
SELECT flush('file') IS NOT NULL AS flushed;
SELECT advance_batch(:'b', 'scattering');
SELECT * FROM progress WHERE name = 'hand';
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
SELECT * FROM progress WHERE name = 'letters';
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
SELECT * FROM progress WHERE name = 'exhausted';

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
REVOKE ALL ON ALL TABLES IN SCHEMA batchdedup FROM regress_bdd_batch;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA batchdedup FROM regress_bdd_batch;
SET client_min_messages = warning;
DROP SCHEMA regress_batches, regress_other CASCADE;
DROP ROLE regress_bdd_batch, regress_bdd_other;
