# What settings of others do to the worker (nothing), and how it gets along with
# locks and faults: one target waits, the others go on, health() knows.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql fails await);

start_server('settings', <<'CONF');
batchdedup.flush_interval = '20ms'
batchdedup.lock_timeout = '100ms'
deadlock_timeout = '50ms'
batchdedup.retry_backoff = '20ms'
CONF

sub health
{
	my ($check, $target) = @_;
	return sql("SELECT status FROM batchdedup.health() WHERE check_name = '$check'" . ($target ? " AND target = '$target'::regclass" : ''));
}

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE a (k int PRIMARY KEY, v int);
CREATE TABLE b (k int PRIMARY KEY, v int);
CREATE TABLE c (k int PRIMARY KEY, v int CHECK (v < 1000000), at timestamptz, d date);
CREATE FUNCTION slowly() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN PERFORM pg_catalog.pg_sleep(0.05); RETURN NEW; END';
CREATE TRIGGER slowly BEFORE INSERT ON c FOR EACH ROW EXECUTE FUNCTION slowly();
SELECT batchdedup.create_target(t, guard => 'off') FROM unnest('{a,b,c}'::regclass[]) t;
SQL

# ---------- contexts of our own settings ----------

is( sql("SELECT string_agg(name, ' ' ORDER BY name) FROM pg_settings WHERE name LIKE 'batchdedup.%' AND context = 'postmaster'"),
	'batchdedup.buffer_size batchdedup.max_targets', 'settings at start');
fails("SET batchdedup.buffer_size = '8MB'", '55P02', 'they cannot be set later');
fails("SET batchdedup.flush_interval = '1s'", '55P02', 'what the worker reads cannot be set in a session');
fails("SET batchdedup.no_such_setting = 1", '42602', 'unknown settings are an error');
sql("CREATE ROLE alice");
fails("SET ROLE alice; SET batchdedup.debug_point = 'apply:exit'", '42501', 'debug points are for superusers');
is(sql("SET ROLE alice; SET batchdedup.enabled = off; SHOW batchdedup.enabled"), 'off', 'the kill switch is for everybody');
fails("SET ROLE alice; SELECT * FROM batchdedup.health()", '42501', 'health() is not for everybody');
sql("GRANT pg_monitor TO alice");
is(sql("SET ROLE alice; SELECT count(*) > 0 FROM batchdedup.health()"), 't', 'health() is for pg_monitor');

# ---------- settings of the database and of roles ----------

# since 17
my $has_transaction_timeout = sql("SELECT count(*) FROM pg_settings WHERE name = 'transaction_timeout'");

sub other_settings
{
	my ($action) = @_;
	for my $setting (
		"statement_timeout = '1ms'",
		"idle_in_transaction_session_timeout = '1ms'",
		$has_transaction_timeout ? "transaction_timeout = '1ms'" : (),
		"lock_timeout = '1ms'",
		"default_transaction_read_only = on",
		"default_transaction_isolation = 'serializable'",
		"session_replication_role = 'replica'",
		"row_security = off",
		"search_path = 'nowhere'",
		"datestyle = 'german'",
		"timezone = 'Asia/Tokyo'",
		"batchdedup.enabled = off",
		"application_name = 'something else'",
		"client_encoding = 'LATIN1'",
		"role = 'alice'",
		"work_mem = '64kB'")
	{
		my ($name) = split / /, $setting;
		$node->command_ok(
			[
				'psql', '-XAtq', '-d', $node->connstr('template1'), '-c',
				$action eq 'SET' ? "ALTER DATABASE postgres SET $setting" : "ALTER DATABASE postgres RESET $name"
			],
			"$action $name");
	}
	return;
}
my $worker = sql("SELECT batchdedup.upsert(ROW(0, 0)::a); SELECT batchdedup.flush('a'); SELECT pid FROM batchdedup.stat_worker");
($worker) = $worker =~ /(\d+)$/;
{
	my $before = $node->background_psql('postgres');
	$before->query_safe("SELECT 1");
	other_settings('SET');
	$before->query_safe("SELECT pg_terminate_backend($worker, 60000)");
	$before->query_safe("SELECT batchdedup.upsert(ROW(1, 1)::a); SELECT batchdedup.upsert(ROW(i, 1, '2026-03-04 05:06:07+00', '2026-03-04')::c) FROM generate_series(1, 5) i");
	is($before->query_safe("SELECT batchdedup.flush('c', 'a') >= 0"), 't', "the database's settings are not for the worker");
	is($before->query_safe("SELECT count(*), min(at AT TIME ZONE 'UTC'), min(d) FROM c"),
		'5|2026-03-04 05:06:07|2026-03-04', 'rows are there');
	is($before->query_safe("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'batchdedup worker'"), 1, 'it keeps its name');
	is($before->query_safe("SELECT sum(failed_flushes) FROM batchdedup.stat_target"), 0, 'nothing failed on the way');
	$before->quit;
	other_settings('RESET');
	sql("SELECT pg_terminate_backend(pid, 60000) FROM batchdedup.stat_worker");
}

# ---------- a lock ----------

{
	my $holder = $node->background_psql('postgres');
	$holder->query_safe("BEGIN; UPDATE a SET v = v WHERE k = 1");
	sql("SELECT batchdedup.upsert(ROW(1, 2)::a)");
	await("(SELECT failures > 0 FROM batchdedup.stat_target WHERE target = 'a'::regclass)", 'lock: the apply gives up');
	is(sql("SELECT last_error_sqlstate FROM batchdedup.stat_target WHERE target = 'a'::regclass"), '55P03', 'lock: stat_target says why');
	is(health('apply', 'a'), 'warn', 'lock: so does health()');
	sql("SELECT batchdedup.upsert(ROW(1, 2)::b)");
	await("(SELECT v = 2 FROM b WHERE k = 1)", 'lock: other targets go on');
	await("(SELECT failures > 2 FROM batchdedup.stat_target WHERE target = 'a'::regclass)", 'lock: it is tried again');
	$holder->query_safe("COMMIT");
	await("(SELECT v = 2 FROM a WHERE k = 1)", 'lock: and again, until the lock is gone');
	await("(SELECT failures IS NULL FROM batchdedup.stat_target WHERE target = 'a'::regclass)", 'lock: that is the end of it');
	is(health('apply', 'a'), 'ok', 'lock: also for health()');
	is(sql("SELECT count(*) FROM batchdedup.dead_letter"), 0, 'lock: no dead letter');
	$holder->quit;
}

# ---------- a fault that hits every row ----------

sql(<<'SQL');
CREATE FUNCTION miss() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.missing VALUES (NEW.k); RETURN NEW; END';
CREATE TRIGGER miss AFTER INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION miss();
SQL
sql("SELECT count(batchdedup.upsert(ROW(i, 3)::a)) FROM generate_series(1, 10) i");
await("(SELECT failures > 2 FROM batchdedup.stat_target WHERE target = 'a'::regclass)", 'fault: it is tried again and again');
is(sql("SELECT last_error_sqlstate FROM batchdedup.stat_target WHERE target = 'a'::regclass"), '42P01', 'fault: stat_target says why');
is(health('apply', 'a'), 'fail', 'fault: so does health()');
is(health('apply', 'b'), 'ok', 'fault: not of others');
is(sql("SET ROLE alice; SELECT last_error_sqlstate, last_error IS NULL FROM batchdedup.stat_target WHERE target = 'a'::regclass"),
	'42P01|t', 'fault: the message is for those who may read the table');
is(sql("SELECT buffered_rows FROM batchdedup.stat_target WHERE target = 'a'::regclass"), 10, 'fault: every row stays');
fails("SELECT batchdedup.flush('a')", '55000', 'fault: flush() reports it');
sql("SELECT batchdedup.upsert(ROW(1, 3)::b)");
await("(SELECT v = 3 FROM b WHERE k = 1)", 'fault: other targets go on');
sql("SELECT batchdedup.upsert(ROW(11, 3)::a)");
is(sql("SELECT v FROM batchdedup.buffered(NULL::a) WHERE k = 11"), 3, 'fault: the buffer goes on taking rows');
sql("SELECT pg_terminate_backend(pid, 60000) FROM batchdedup.stat_worker");
sql("CREATE TABLE missing (k int)");
await("(SELECT count(*) = 11 FROM a WHERE v = 3)", 'fault: once its cause is gone all rows are applied');
is(sql("SELECT count(*), count(DISTINCT k) FROM missing"), '11|11', 'fault: once');
is(sql("SELECT count(*) FROM batchdedup.dead_letter"), 0, 'fault: no dead letter');
await("(SELECT failures IS NULL FROM batchdedup.stat_target WHERE target = 'a'::regclass)", 'fault: forgotten');
is(health('apply', 'a'), 'ok', 'fault: also for health()');
like(slurp_file($node->logfile), qr/batchdedup could not apply rows of public\.a: SQLSTATE 42P01/, 'fault: the log names it');

# ---------- a row that waits for another, and an apply that is broken off ----------

sql(<<'SQL');
CREATE TABLE parent (k int PRIMARY KEY);
CREATE TABLE child (k int PRIMARY KEY, p int REFERENCES parent);
SELECT batchdedup.create_target(t) FROM unnest('{parent,child}'::regclass[]) t;
SELECT batchdedup.upsert('child', '[{"k": 1, "p": 1}, {"k": 2, "p": 2}]');
SQL
await("(SELECT count(*) = 2 FROM batchdedup.dead_letter)", 'waiting: both rows lack their parent');
sql("SELECT batchdedup.upsert('parent', '{\"k\": 1}')");
await("(SELECT count(*) = 1 FROM child)", 'waiting: the parent comes, and the row with it');
is(sql("SELECT attempts FROM batchdedup.dead_letter WHERE target = 'child'::regclass"), 2, 'waiting: the other one is refused once more');
sql("SELECT batchdedup.discard_dead_letters('child'); SELECT batchdedup.upsert('child', '{\"k\": 3, \"p\": 3}')");
await("(SELECT count(*) = 1 FROM batchdedup.dead_letter)", 'waiting: one lacks its parent');
sql(<<'SQL');
CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN RAISE 'again' USING ERRCODE = 'serialization_failure'; END$$;
CREATE TRIGGER again AFTER INSERT ON parent FOR EACH STATEMENT EXECUTE FUNCTION again();
SELECT batchdedup.upsert('parent', '{"k": 3}');
SQL
await("(SELECT failures > 7 FROM batchdedup.stat_target WHERE target = 'parent'::regclass)", 'waiting: the apply is broken off each time');
is(sql("SELECT attempts FROM batchdedup.dead_letter WHERE target = 'child'::regclass"), 6, 'waiting: attempts are counted all the same, up to retry_limit');
sql("DROP TRIGGER again ON parent");
await("(SELECT count(*) = 1 FROM parent WHERE k = 3)", 'waiting: the parent is applied');
is(sql("SELECT count(*) FROM child"), 1, 'waiting: the row has been given up by then');
is(sql("SELECT batchdedup.retry_dead_letters('child')"), 1, 'waiting: but it is not lost');

# ---------- a COMMIT that hangs ----------

{
	my $gate = $node->background_psql('postgres');
	$gate->query_safe("SELECT pg_advisory_lock(7243)");
	my $writer = $node->background_psql('postgres');
	my $pid = $writer->query_safe("SELECT pg_backend_pid()");
	sql("SELECT batchdedup.upsert(ROW(1, 3)::b)");
	$writer->query_until(qr/started/, "\\echo started\nSET batchdedup.debug_point = 'publish:lock';\nSELECT batchdedup.upsert(ROW(2, 3)::b);\n");
	await("(SELECT count(*) = 1 FROM pg_locks WHERE pid = $pid AND NOT granted)", 'commit: it hangs');
	sql("SELECT batchdedup.upsert(ROW(3, 3)::b)");
	await("(SELECT waits_for = ARRAY[$pid] FROM batchdedup.stat_worker)", 'commit: the worker waits for it');
	is(sql("SET batchdedup.full_timeout = '1h'; SELECT status FROM batchdedup.health() WHERE check_name = 'commits'"), 'ok', 'commit: that is normal for a while');
	like(sql("SET batchdedup.full_timeout = 0; SELECT status, target, detail FROM batchdedup.health() WHERE check_name = 'commits'"),
		qr/^warn\|b\|.*processes $pid$/, 'commit: then health() names it');
	$gate->quit;
	$writer->quit;
	await("(SELECT count(*) = 2 FROM b WHERE k IN (2, 3))", 'commit: it ends, and the worker goes on');
	is(health('commits'), 'ok', 'commit: health() is well');
}

# ---------- health() ----------

is(sql("SELECT count(*) FROM batchdedup.health() WHERE status <> 'ok'"), 0, 'health(): all is well');
is(sql("SET batchdedup.enabled = off; SELECT status FROM batchdedup.health() WHERE check_name = 'enabled'"), 'warn', 'health(): switched off');
sql("SELECT batchdedup.pause('b'); SELECT batchdedup.upsert(ROW(1, 4)::b)");
is(health('age', 'b'), 'warn', 'health(): paused');
sql("SELECT batchdedup.resume('b'); SELECT batchdedup.flush('b')");
is(health('age', 'b'), 'ok', 'health(): resumed');
sql("SELECT batchdedup.upsert(ROW(1, 1000000, now(), now())::c); SELECT batchdedup.upsert(ROW(2, 2, now(), now())::c)");
sql("SELECT batchdedup.flush('c')");
is(health('dead letters', 'c'), 'warn', 'health(): dead letters');
sql("SELECT batchdedup.discard_dead_letters('c')");
is(sql("SELECT count(*) FROM batchdedup.health() WHERE status <> 'ok'"), 0, 'health(): all is well again');
is(sql("SELECT count(*) FROM batchdedup.health() WHERE status <> 'ok' AND hint IS NULL"), 0, 'health(): says what to do');
sql("SELECT batchdedup.stat_reset()");
is(sql("SELECT sum(received + coalesced + inserted + updated + flushes + failed_flushes) FROM batchdedup.stat_target"), 0, 'stat_reset()');

$node->stop;
done_testing();
