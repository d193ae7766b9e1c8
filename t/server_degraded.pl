# Servers that lack something: the library, the right to write, a slot, a worker
# process, or what was in shared memory.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node $database start_server sql fails await);

my $setup = <<'SQL';
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);
SQL

# ---------- without the library ----------

start_server('bare');
sql($setup);
sql("SELECT batchdedup.upsert(ROW(1, 'kept')::t); SELECT batchdedup.pause('t')");
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;

my %calls = (
	create_target => ["'t'"],
	alter_target => ["'t'"],
	drop_target => ["'t'"],
	pause => ["'t'"],
	resume => ["'t'"],
	upsert => [ "ROW(1, 'x')::t", "ARRAY[ROW(1, 'x')]::t[]", "'t', '{\"k\": 1}'" ],
	upsert_record => ["'t', ROW(1, 'x')::t"],
	delete => [ "ROW(1, 'x')::t", "'t', '{\"k\": 1}'" ],
	flush => [ '', "'t'" ],
	get => ["'t', '{\"k\": 1}'"],
	buffered => ['NULL::t'],
	create_view => ["'t'"],
	overlaid => ["'t', 1"],
	overlay_rows => ["'t') AS r(k int, v text"],
	create_redirect => ["'t'"],
	drop_redirect => ["'t'"],
	retry_dead_letters => ["'t'"],
	discard_dead_letters => ["'t'"],
	stat_target_internal => [''],
	stat_buffer_internal => [''],
	stat_worker_internal => [''],
	stat_journal_internal => [''],
	stat_progress_internal => [''],
	sync_holders_internal => ["'m'"],
	accept_loss => ["'t'"],
	stat_reset => [''],
	health => [''],
	create_batch => ["'b'"],
	add_file => ['gen_random_uuid(), \'f\''],
	complete_upload => ['gen_random_uuid()'],
	claim_files => ["'w', 1, '1 s'"],
	renew_lease => ["gen_random_uuid(), 'w', '1 s'"],
	complete_file => ['gen_random_uuid(), gen_random_uuid()'],
	fail_file => ["gen_random_uuid(), gen_random_uuid(), 'e', true"],
	retry_files => ['gen_random_uuid()'],
	claim_batch => ["'w', 'a', 'b', '1 s'"],
	advance_batch => ["gen_random_uuid(), 'failed'"],
	expect_workers => ["gen_random_uuid(), 'k', 1"],
	complete_worker => ["gen_random_uuid(), 'k', 'w'"],
	wait_batch => ["gen_random_uuid(), 'scattered', '1 s'"],
	reconcile_batches => [''],
	reconcile_files => ["gen_random_uuid(), '{}'"],
	expire_batches => ["'1 day'"],
	file_is_closed_internal => ['gen_random_uuid(), 1'],
	prepare_import => ["'i', 't', 1"],
	create_writer => ["gen_random_uuid(), 'i'"],
	write_chunk => [ "gen_random_uuid(), 'i', 1, '[]'::jsonb", "gen_random_uuid(), 'i', 1, ARRAY[ROW(1, 'x')]::t[]", "gen_random_uuid(), 'i', 1, '[]'" ],
	finalize_instance => ["gen_random_uuid(), 'i'"],
	finalize_batch => ['gen_random_uuid()'],
	abort_batch => ['gen_random_uuid()'],
	expire_imports => [''],
	create_sync => ["'s', 't', 't'"],
	retry_sync_dead_letters => ["'s'"],
	sync_lag_internal => ['1, 1']);
# Events need no shared memory, nor do some that are SQL alone, or change a row of ours.
my $others = join ', ', map { "'$_'" } qw(publish_event create_consumer drop_consumer poll_events ack_events nack_event
  event_emit_internal event_kinds_internal retry_event_dead_letters discard_event_dead_letters expire_events accept_lost_events
  pause_sync resume_sync drop_sync reset_watermark discard_sync_dead_letters expire_syncs run_sync
  grant_batches grant_files_internal grant_events_internal grant_imports_internal import_order_internal canonical_json data_version);
is( sql("SELECT string_agg(DISTINCT proname, ' ' ORDER BY proname) FROM pg_proc WHERE pronamespace = 'batchdedup'::regnamespace AND prorettype NOT IN ('trigger'::regtype, 'internal'::regtype) AND proname NOT IN ($others)"),
	join(' ', sort keys %calls), 'every function is tried');
foreach my $name (sort keys %calls)
{
	fails("SELECT * FROM batchdedup.$name($_)",
		qr/ERROR:  55000: batchdedup is not loaded at server start\nHINT:  Add batchdedup to shared_preload_libraries/,
		"not preloaded: $name($_)")
	  for @{ $calls{$name} };
}
fails("CALL batchdedup.run_sync('s')", qr/ERROR:  55000: .*not loaded/, 'not preloaded: run_sync');
fails("TABLE batchdedup.$_", qr/ERROR:  55000: .*not loaded/, "not preloaded: $_") for qw(stat_target stat_buffer stat_worker);
is(sql("SELECT target FROM batchdedup.target"), 't', 'not preloaded: targets can be read');
sql("SELECT batchdedup.create_consumer('c'), batchdedup.publish_event('app.e')");
is(sql("SELECT kind FROM batchdedup.poll_events('c')"), 'app.e', 'not preloaded: events go on');
sql("CREATE TABLE plain (k int); INSERT INTO plain VALUES (1); ALTER TABLE plain ADD w int; INSERT INTO t VALUES (2, 'plain'); DROP TABLE plain");
is(sql("SELECT count(*) FROM t"), 1, 'not preloaded: everything else works');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'");
$node->restart;
sql("SELECT batchdedup.resume('t'); SELECT batchdedup.flush('t')");
is(sql("SELECT string_agg(k || v, ' ' ORDER BY k) FROM t"), '1kept 2plain', 'preloaded again: what was buffered is there');
$node->stop;

# ---------- a standby ----------

my $primary = start_server('primary', { allows_streaming => 1 });
$primary->safe_psql('postgres', $setup);
$primary->safe_psql('postgres', "SELECT batchdedup.upsert(ROW(1, 'applied')::t); SELECT batchdedup.flush('t')");
$primary->safe_psql('postgres', <<'SQL');
CREATE TABLE source (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE copied (id int PRIMARY KEY);
SELECT batchdedup.create_sync('s', 'source', 'copied', cursor => 'at');
INSERT INTO source VALUES (1);
SQL
$primary->safe_psql('postgres', "CALL batchdedup.run_sync('s')");
$primary->safe_psql('postgres', 'INSERT INTO source VALUES (2)');
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
$primary->safe_psql('postgres', "SELECT batchdedup.upsert(ROW(1, 'buffered')::t)");
# What a base backup has of the journal begins with the last checkpoint.
ok($primary->poll_query_until('postgres', "SELECT slot_lsn >= (SELECT redo_lsn FROM pg_control_checkpoint()) FROM batchdedup.stat_journal"), 'primary: has said from where on its journal is needed');
$primary->wait_for_catchup($standby, 'replay', $primary->lsn('insert'));

$node = $standby;
foreach my $name (qw(create_target alter_target drop_target pause resume upsert upsert_record delete flush retry_dead_letters discard_dead_letters create_view create_redirect drop_redirect))
{
	fails("SELECT batchdedup.$name($_)", qr/ERROR:  25006:/, "standby: $name($_)") for @{ $calls{$name} };
}
is(sql("SELECT v FROM t"), 'applied', 'standby: sees what is applied');
is(sql("SELECT target FROM batchdedup.target"), 't', 'standby: sees targets');
is(sql("SELECT count(*) FROM batchdedup.stat_worker"), 0, 'standby: no worker');
is(sql("SELECT sum(received) FROM batchdedup.stat_target"), 0, 'standby: no rows of the primary');
is(sql("SELECT name, lag_rows, last_error IS NULL FROM batchdedup.sync_status"), 's|1|t', 'standby: how far a sync is can be seen');
fails("CALL batchdedup.run_sync('s')", qr/ERROR:  25006:/, 'standby: run_sync');
fails("SELECT batchdedup.$_", qr/ERROR:  25006:/, "standby: $_")
  for "create_sync('x', 'source', 'copied')", "pause_sync('s')", "reset_watermark('s')", "drop_sync('s')", "retry_sync_dead_letters('s')", 'expire_syncs()';
$primary->stop('immediate');
$standby->promote;
sql("SELECT batchdedup.upsert(ROW(2, 'promoted')::t)");
is(sql("SELECT batchdedup.flush('t')"), 1, 'promoted: works');
sql("CALL batchdedup.run_sync('s')");
is(sql("SELECT array_agg(id ORDER BY id) FROM copied"), '{1,2}', 'promoted: a sync goes on from where it was');
is(sql("SELECT string_agg(v, ' ' ORDER BY k) FROM t"), 'buffered promoted', 'promoted: rows are in the table, and what was buffered comes from the journal');
fails("SET default_transaction_read_only = on; SELECT batchdedup.upsert(ROW(2, 'x')::t)", qr/ERROR:  25006:/, 'read-only transaction');
$standby->stop;

# ---------- no slot, no worker process ----------

# One for the launcher, one for the worker of a single database.
start_server('small', <<'CONF');
max_logical_replication_workers = 0
max_worker_processes = 2
max_parallel_workers = 0
batchdedup.max_targets = 3
CONF
$node->safe_psql('postgres', "CREATE DATABASE other");
$node->safe_psql($_, $setup) for qw(postgres other);

$database = 'postgres';
sql("SELECT batchdedup.upsert(ROW(1, 'a')::t); SELECT batchdedup.flush('t')");
is(sql("SELECT string_agg(status, ' ') FROM batchdedup.health() WHERE check_name = 'processes'"), 'ok', 'processes: enough for one');
$database = 'other';
sql("SELECT batchdedup.upsert(ROW(1, 'buffered')::t)");
await("(SELECT status = 'fail' FROM batchdedup.health() WHERE check_name = 'processes')", 'processes: not for two: health() says so');
like(sql("SELECT hint FROM batchdedup.health() WHERE check_name = 'processes'"), qr/max_worker_processes/, 'processes: and what to do');
like(slurp_file($node->logfile), qr/cannot start a worker for database.*no worker process is free/, 'processes: so does the log');
fails("SELECT batchdedup.flush('t')", qr/ERROR:  53400: no worker process could be started/, 'processes: flush() does not wait for ever');
fails("BEGIN; SELECT batchdedup.alter_target('t', guard => 'flush'); COMMIT; UPDATE t SET v = 'x'", qr/ERROR:  53400: no worker process could be started/, 'processes: nor does a guarded statement');
sql("BEGIN; SELECT batchdedup.alter_target('t', mode => 'direct'); ROLLBACK; SELECT batchdedup.alter_target('t', reset => 'guard')");
is(sql("SELECT count(*) FROM t"), 0, 'processes: alter_target applies rows itself, in its transaction');
{
	my $writer = $node->background_psql('other');
	$writer->query_safe("BEGIN; SELECT batchdedup.upsert(ROW(2, 'direct')::t)");
	is($writer->query_safe("SELECT string_agg(v, ' ' ORDER BY k) FROM t"), 'buffered direct', 'processes: rows are written directly, after what was buffered');
	$writer->query_safe("ROLLBACK");
	$writer->quit;
}
is(sql("SELECT count(*) FROM t"), 0, 'processes: in the transaction of the caller');
is(sql("SELECT buffered_rows FROM batchdedup.stat_target"), 1, 'processes: the other row is still in the buffer');
sql("SELECT batchdedup.upsert(ROW(2, 'direct')::t)");
is(sql("SELECT string_agg(v, ' ' ORDER BY k) FROM t"), 'buffered direct', 'processes: committed');
is(sql("SELECT buffered_rows FROM batchdedup.stat_target"), 0, 'processes: the buffer is empty');
sql("SELECT batchdedup.delete('t', '{\"k\": 2}')");
is(sql("SELECT count(*) FROM t"), 1, 'processes: deletes as well');
is($node->safe_psql('postgres', "SELECT batchdedup.upsert(ROW(2, 'a')::t); SELECT batchdedup.flush('t')"), "\n1", 'processes: the database with a worker goes on');

# The other database's worker leaves.
sql("ALTER SYSTEM SET batchdedup.worker_idle_timeout = '100ms'");
sql("SELECT pg_reload_conf()");
await("(SELECT count(*) = 0 FROM batchdedup.stat_worker)", 'processes: a worker leaves');
sql("SELECT batchdedup.upsert(ROW(3, 'x')::t)");
# Somebody goes on writing.
my $recovered = 0;
for my $i (1 .. 100)
{
	sql("SELECT batchdedup.upsert(ROW(3, 'x$i')::t)");
	$recovered = sql("SELECT status = 'ok' FROM batchdedup.health() WHERE check_name = 'processes'") eq 't';
	last if $recovered;
	select undef, undef, undef, 0.1;
}
ok($recovered, 'processes: then one comes for this database, and health() is well again');
sql("SELECT batchdedup.upsert(ROW(4, 'buffered again')::t)");
is(sql("SELECT count(*) FROM batchdedup.buffered(NULL::t) WHERE k = 4"), 1, 'processes: rows are buffered again');
sql("SELECT batchdedup.flush('t')");
is(sql("SELECT count(*) FROM t"), 3, 'processes: and applied');
$node->stop;

# ---------- a backend is killed ----------

start_server('crash', 'restart_after_crash = on');
sql($setup);
sql("SELECT batchdedup.alter_target('t', logged => false)");
sql("SELECT batchdedup.upsert(ROW(i, 'applied')::t) FROM generate_series(1, 100) i");
sql("SELECT batchdedup.flush('t')");

sub crash
{
	my ($name, $victim) = @_;
	my $seen = -s $node->logfile;
	kill 'KILL', $victim;
	# The server starts anew by itself.
	$node->wait_for_log(qr/database system is ready to accept connections/, $seen);
	await('true', "$name: the server is back");
	is(sql("SELECT count(*) FROM batchdedup.stat_target_internal()"), 0, "$name: nothing is in shared memory");
	is(sql("SELECT used_bytes, targets FROM batchdedup.stat_buffer"), '0|0', "$name: nor is memory in use");
	is(sql("SELECT count(*) FROM batchdedup.buffered(NULL::t)"), 0, "$name: unlogged rows are gone");
	is(sql("SELECT count(*) FROM t WHERE v = 'applied'"), 100, "$name: the table is as it was");
	sql("SELECT batchdedup.upsert(ROW(1, '$name')::t)");
	is(sql("SELECT batchdedup.flush('t') >= 0"), 't', "$name: the target works");
	is(sql("SELECT v FROM t WHERE k = 1"), $name, "$name: and rows come to the table");
	sql("UPDATE t SET v = 'applied' WHERE k = 1");
	return;
}

sub wait_for_crash
{
	my ($psql) = @_;
	eval { $psql->{run}->finish };
	return;
}

foreach my $point ('entered', 'reserved', 'pre-commit', 'publish')
{
	my $gate = $node->background_psql('postgres', on_error_stop => 0);
	$gate->query_safe("SELECT pg_advisory_lock(7243)");
	my $writer = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $writer->query_safe("SELECT pg_backend_pid()");
	sql("SELECT count(batchdedup.upsert(ROW(i, 'lost')::t)) FROM generate_series(50, 200) i");
	$writer->query_until(qr/started/, "\\echo started\nSET batchdedup.debug_point = '$point:lock';\nSELECT batchdedup.upsert(ROW(3, 'lost')::t);\n");
	await("(SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND NOT granted)", "killed at $point: he is there");
	crash("killed at $point", $pid);
	wait_for_crash($_) for $writer, $gate;
}
{
	# The worker, in an apply.
	my $holder = $node->background_psql('postgres', on_error_stop => 0);
	$holder->query_safe("BEGIN; UPDATE t SET v = 'held' WHERE k = 50");
	sql("SELECT batchdedup.upsert(ROW(50, 'lost')::t); SELECT batchdedup.alter_target('t', flush_interval => '10 ms')");
	await("(SELECT count(*) = 1 FROM batchdedup.stat_worker WHERE state = 'applying')", 'worker: it applies');
	my $pid = sql("SELECT pid FROM batchdedup.stat_worker");
	crash('worker killed', $pid);
	wait_for_crash($holder);
}
$node->stop;
done_testing();
