# The worker: when it starts, seals, applies and leaves; and that it applies
# each generation exactly once, whoever dies and whenever.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql await wait_until);

start_server('worker', <<'CONF');
batchdedup.buffer_size = 4MB
batchdedup.flush_interval = '1h'
batchdedup.retry_backoff = '50ms'
CONF

my $pid = "(SELECT max(pid) FROM batchdedup.stat_worker)";

# Every row that an apply writes leaves a line in "log".
sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE log (target text, k int, v int);
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.log VALUES (TG_TABLE_NAME, NEW.k, NEW.v); RETURN NULL; END';
DO $$
DECLARE
  name text;
BEGIN
  FOREACH name IN ARRAY '{manual,aged,counted,big,plain}'::text[] LOOP
    EXECUTE format('CREATE TABLE %I (k int PRIMARY KEY, v int, pad text)', name);
    EXECUTE format('CREATE TRIGGER log_it AFTER INSERT OR UPDATE ON %I FOR EACH ROW EXECUTE FUNCTION log_it()', name);
  END LOOP;
END $$;
SELECT batchdedup.create_target('manual', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_target('aged', flush_interval => '20 ms', flush_rows => 0);
SELECT batchdedup.create_target('counted', flush_interval => '0', flush_rows => 100);
SELECT batchdedup.create_target('big', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_target('plain');
SQL

# Another target has been applied since: the worker has looked at all of them.
my $turn = 0;

sub let_worker_pass
{
	$turn++;
	sql("SELECT batchdedup.upsert(ROW(0, $turn, '')::aged)");
	return $node->poll_query_until('postgres', "SELECT v = $turn FROM aged WHERE k = 0");
}

# ---------- on demand ----------

is(sql("SELECT count(*) FROM batchdedup.stat_worker"), 0, 'no worker without rows');
sql("SELECT batchdedup.upsert(ROW(1, 1, 'x')::aged)");
await("(SELECT count(*) = 1 FROM aged)", 'one comes with the first row, which is flushed by its age');
is(sql("SELECT database FROM batchdedup.stat_worker"), 'postgres', 'it is in stat_worker');
is( sql("SELECT datname, application_name FROM pg_stat_activity WHERE backend_type = 'batchdedup worker' AND pid = $pid"),
	'postgres|batchdedup worker', 'and in pg_stat_activity');
is(sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'batchdedup launcher'"), 1, 'so is the launcher');

# ---------- by distinct keys ----------

sql("SELECT count(batchdedup.upsert(ROW(1 + i % 99, i, '')::counted)) FROM generate_series(1, 1000) i");
ok(let_worker_pass(), 'by rows: the worker has passed');
is(sql("SELECT buffered_rows, flushes, received FROM batchdedup.stat_target WHERE target = 'counted'::regclass"),
	'99|0|1000', 'by rows: calls do not count');
sql("SELECT batchdedup.upsert(ROW(100, 100, '')::counted)");
await("(SELECT count(*) = 100 FROM counted)", 'by rows: keys do');

# ---------- by memory ----------

for my $i (0 .. 19)
{
	sql("SELECT count(batchdedup.upsert(ROW(i, i, repeat('x', 1000))::big)) FROM generate_series($i * 100 + 1, $i * 100 + 100) i");
}
await("(SELECT flushes > 0 AND buffered_rows < 2000 FROM batchdedup.stat_target WHERE target = 'big'::regclass)",
	'by memory: nobody asked for it');
sql("SELECT batchdedup.flush('big')");
is(sql("SELECT count(*), sum(v), max(length(pad)) FROM big"), '2000|2001000|1000', 'by memory: every row is there');

# ---------- on request ----------

sql("SELECT count(batchdedup.upsert(ROW(i, 1, '')::manual)) FROM generate_series(1, 10) i");
ok(let_worker_pass(), 'by flush(): the worker has passed');
is(sql("SELECT count(*) FROM manual"), 0, 'by flush(): not before');
is(sql("SELECT batchdedup.flush('manual')"), 10, 'by flush(): its result');
is(sql("SELECT count(*) FROM manual"), 10, 'by flush(): rows are there when it returns');
is(sql("SELECT batchdedup.flush('manual')"), 0, 'by flush(): nothing left');

# ---------- settings that change ----------

sql("SELECT batchdedup.upsert(ROW(1, 1, '')::plain)");
ok(let_worker_pass(), 'reload: the worker has passed');
is(sql("SELECT count(*) FROM plain"), 0, 'reload: not due yet');
sql("ALTER SYSTEM SET batchdedup.flush_interval = '20ms'");
sql("SELECT pg_reload_conf()");
await("(SELECT count(*) = 1 FROM plain)", 'reload: rows that wait are looked at anew');
sql("ALTER SYSTEM RESET batchdedup.flush_interval");
sql("ALTER SYSTEM SET batchdedup.flush_rows = 3");
sql("SELECT pg_reload_conf()");
sql("SELECT count(batchdedup.upsert(ROW(i, 2, '')::plain)) FROM generate_series(1, 3) i");
await("(SELECT count(*) = 3 FROM plain WHERE v = 2)", 'reload: flush_rows');
sql("ALTER SYSTEM RESET batchdedup.flush_rows");
sql("SELECT pg_reload_conf()");
sql("SELECT batchdedup.upsert(ROW(11, 1, '')::manual)");
sql("SELECT batchdedup.alter_target('manual', flush_interval => '20 ms')");
await("(SELECT count(*) = 11 FROM manual)", 'alter_target: the same for one target');
sql("SELECT batchdedup.alter_target('manual', flush_interval => '0')");

# ---------- leaving and coming back ----------

{
	my $reader = $node->background_psql('postgres');
	$reader->query_safe("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM manual");
	sql("SELECT batchdedup.upsert(ROW(1, 2, '')::manual); SELECT batchdedup.flush('manual')");
	sql("ALTER SYSTEM SET batchdedup.worker_idle_timeout = '50ms'");
	sql("SELECT pg_reload_conf()");
	await("(SELECT count(*) = 0 FROM batchdedup.stat_worker)", 'idle: it leaves, also if somebody has an old snapshot');
	sql("SELECT batchdedup.upsert(ROW(1, 3, '')::manual)");
	is(sql("SELECT batchdedup.flush('manual')"), 1, 'idle: another one comes');
	is($reader->query_safe("SELECT v FROM manual WHERE k = 1"), 1, 'idle: the old snapshot holds');
	$reader->query_safe("COMMIT");
	$reader->quit;
	for my $i (1 .. 5)
	{
		await("(SELECT count(*) = 0 FROM batchdedup.stat_worker)", "idle: gone, round $i") if $i > 2;
		sql("SELECT batchdedup.upsert(ROW(1, 10 + $i, '')::aged)");
		await("(SELECT v = 10 + $i FROM aged WHERE k = 1)", "idle: and back, round $i");
	}
	sql("ALTER SYSTEM RESET batchdedup.worker_idle_timeout");
	sql("SELECT pg_reload_conf()");
}

# ---------- a worker that dies ----------

sub set_debug_point
{
	my ($point) = @_;
	my $old = sql("SELECT coalesce($pid, 0)");
	sql($point ? "ALTER SYSTEM SET batchdedup.debug_point = '$point'" : "ALTER SYSTEM RESET batchdedup.debug_point");
	sql("SELECT pg_reload_conf()");
	sql("SELECT pg_terminate_backend($old, 60000)") if $old && $point;
	return;
}

my $value = 100;

foreach my $point ('quiet:exit', 'apply:exit', 'applied:exit', 'apply:error', 'applied:error')
{
	$value++;
	my $before = sql("SELECT flushes + failed_flushes FROM batchdedup.stat_target WHERE target = 'manual'::regclass");
	set_debug_point($point);
	sql("SELECT count(batchdedup.upsert(ROW(i, $value, '')::manual)) FROM generate_series(1, 10) i");
	# Somebody waits for it, and is not told of what the worker goes through.
	my $flush = $node->background_psql('postgres', on_error_stop => 0);
	$flush->query_until(qr/started/, "\\echo started\nSELECT batchdedup.flush('manual');\n");
	if ($point =~ /^applied/)
	{
		await("(SELECT count(*) = 10 FROM manual WHERE v = $value)", "$point: the apply has committed");
	}
	elsif ($point =~ /error/)
	{
		await("(SELECT failed_flushes > 0 FROM batchdedup.stat_target WHERE target = 'manual'::regclass)",
			"$point: the apply has failed");
	}
	else
	{
		# Newer rows come while it is gone.
		sql("SELECT batchdedup.upsert(ROW(11, $value, '')::manual)");
		is(sql("SELECT count(*) FROM manual WHERE v = $value"), 0, "$point: the apply did not commit");
	}
	set_debug_point('');
	await("(SELECT buffered_rows = 0 OR batchdedup.flush('manual') >= 0 FROM batchdedup.stat_target WHERE target = 'manual'::regclass)",
		"$point: and then it goes on");
	$flush->quit;
	is(sql("SELECT count(*) FROM manual WHERE v = $value AND k <= 10"), 10, "$point: rows are in the table");
	is(sql("SELECT count(*), count(DISTINCT k) FROM log WHERE target = 'manual' AND v = $value AND k <= 10"),
		'10|10', "$point: exactly once");
}

# ---------- again and again, while writers write ----------

{
	my @writers;
	sql("SELECT batchdedup.alter_target('aged', flush_interval => '5 ms')");
	for my $w (1 .. 3)
	{
		my $psql = $node->background_psql('postgres');
		$psql->query_until(qr/started/, <<"SQL");
\\echo started
DO \$\$
BEGIN
  FOR n IN 1 .. 4000 LOOP
    PERFORM batchdedup.upsert(ROW($w * 1000 + n % 7, n, '')::aged);
    COMMIT;
    IF n % 20 = 0 THEN PERFORM pg_sleep(0.01); END IF;
  END LOOP;
END \$\$;
\\echo finished
SQL
		push @writers, $psql;
	}
	my $killed = 0;
	for my $i (1 .. 12)
	{
		$killed += sql("SELECT count(pg_terminate_backend(pid, 60000)) FROM batchdedup.stat_worker");
		sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'batchdedup launcher'") if $i % 6 == 3;
		sql("SELECT batchdedup.flush('aged')");
	}
	$_->query_until(qr/finished/, "\n") for @writers;
	$_->quit for @writers;
	cmp_ok($killed, '>', 0, 'workers were terminated on the way');
	sql("SELECT batchdedup.flush('aged')");
	is(sql("SELECT string_agg(v::text, ' ' ORDER BY v) FROM (SELECT DISTINCT v FROM aged WHERE k >= 1000) d"),
		'3994 3995 3996 3997 3998 3999 4000', 'every key has its last value');
	is(sql("SELECT count(*) FROM aged WHERE k >= 1000"), 21, 'in every key');
	is(sql("SELECT count(*) FROM (SELECT FROM log WHERE target = 'aged' AND k >= 1000 GROUP BY k, v HAVING count(*) > 1) twice"),
		0, 'no value was applied twice');
}

# ---------- the launcher ----------

wait_until("count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'batchdedup launcher'");
my $launcher = sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'batchdedup launcher'");
sql("SELECT pg_terminate_backend($launcher, 60000)");
sql("SELECT pg_terminate_backend($pid, 60000)");
sql("SELECT batchdedup.upsert(ROW(1, 777, '')::manual)");
is(sql("SELECT batchdedup.flush('manual')"), 1, 'launcher: a flush waits for the next one');
is( sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'batchdedup launcher' AND pid <> $launcher"),
	1, 'launcher: it is there');
is(sql("SELECT status FROM batchdedup.health() WHERE check_name = 'processes'"), 'ok', 'launcher: health() agrees');

# ---------- writers that die ----------

foreach my $point ('entered', 'reserved', 'pre-commit')
{
	$value++;
	my ($out, $err) = ('', '');
	$node->psql('postgres',
		"SET batchdedup.debug_point = '$point:exit'; SELECT count(batchdedup.upsert(ROW(i, $value, '')::manual)) FROM generate_series(1, 20) i",
		stdout => \$out, stderr => \$err);
	like($err, qr/server closed the connection|connection to server was lost/, "writer dies at $point");
	is(sql("SELECT count(*) FROM batchdedup.buffered(NULL::manual) WHERE v = $value"), 0, "writer dies at $point: no row of his");
	sql("SELECT batchdedup.upsert(ROW(1, $value, '')::manual)");
	is(sql("SELECT batchdedup.flush('manual')"), 1, "writer dies at $point: nobody waits for him");
	is(sql("SELECT count(*) FROM manual WHERE v = $value"), 1, "writer dies at $point: others go on");
}
{
	my $writer = $node->background_psql('postgres', on_error_stop => 0);
	$writer->query_safe("BEGIN; SELECT batchdedup.upsert(ROW(2, 4711, '')::manual)");
	my $writer_pid = $writer->query_safe("SELECT pg_backend_pid()");
	sql("SELECT pg_terminate_backend($writer_pid, 60000)");
	eval { $writer->{run}->finish };
	is(sql("SELECT batchdedup.flush('manual')"), 0, 'writer terminated in a transaction: no row of his');
}
await("(SELECT sum(buffered_rows) = 0 FROM batchdedup.stat_target)", 'nothing is left in the end');

$node->stop;
done_testing();
