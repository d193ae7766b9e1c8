# Errors, cancellations and terminations at every step of a commit, of an apply
# and of DDL that applies: what was committed gets into the table, once; what
# was rolled back does not; memory is given back; nobody waits for who is gone.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep);
use Server qw($node start_server start_session end_session);

start_server('steps', <<'CONF');
batchdedup.retry_backoff = '10ms'
batchdedup.worker_idle_timeout = '10min'
autovacuum = off
CONF

my $admin = $node->background_psql('postgres');

sub sql { return $admin->query_safe($_[0]) }

sub await
{
	my ($condition, $name) = @_;
	sql("SELECT await(\$\$SELECT $condition\$\$)") eq 't' or die "$name: not true in the end: $condition";
	return;
}

# Only flush() applies. Every row that an apply writes leaves a line in "log".
sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE FUNCTION await(query text) RETURNS bool LANGUAGE plpgsql AS $$
DECLARE
  met bool;
BEGIN
  FOR i IN 1 .. 6000 LOOP
    EXECUTE query INTO met;
    EXIT WHEN met;
    PERFORM pg_stat_clear_snapshot(), pg_sleep(0.01);
  END LOOP;
  RETURN met;
END $$;
CREATE TABLE log (target text, k int, v int, w text);
CREATE FUNCTION log_it() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.log VALUES (TG_TABLE_NAME, NEW.k, NEW.v, NEW.w); RETURN NULL; END';
CREATE TABLE a (k int PRIMARY KEY, v int, w text);
CREATE TABLE b (k int PRIMARY KEY, v int, w text DEFAULT 'default');
CREATE TRIGGER log_it AFTER INSERT OR UPDATE ON a FOR EACH ROW EXECUTE FUNCTION log_it();
CREATE TRIGGER log_it AFTER INSERT OR UPDATE ON b FOR EACH ROW EXECUTE FUNCTION log_it();
SELECT batchdedup.create_target(t, flush_interval => '0', flush_rows => 0) FROM unnest('{a,b}'::regclass[]) t;
SQL

# The rows of others before, the transaction that gets into trouble, and the
# rows of others while it is there.
my $before = <<'SQL';
SELECT count(batchdedup.upsert(ROW(k, 1, 'before')::a)) FROM generate_series(1, 10) k;
SELECT count(batchdedup.upsert(ROW(k, 1, 'before')::b)) FROM generate_series(1, 3) k;
SQL
my $transaction = <<'SQL';
BEGIN;
SELECT count(batchdedup.upsert(ROW(k, 2, 'his')::a)) FROM generate_series(6, 20) k;
SELECT batchdedup.upsert('b', '{"k": 1, "v": 2}');
SELECT batchdedup.delete('b', '{"k": 2}');
SAVEPOINT undone;
SELECT batchdedup.upsert(ROW(4, 4, 'undone')::b);
ROLLBACK TO undone;
SAVEPOINT kept;
SELECT batchdedup.upsert(ROW(5, 2, repeat('his', 5000))::b);
RELEASE kept;
COMMIT;
SQL
my $beside = "SELECT batchdedup.upsert(ROW(30, 3, 'beside')::a), batchdedup.upsert('b', '{\"k\": 3, \"w\": \"beside\"}')";

# What must be in the tables: key:v:first letters of w
my $rolled_back = join(' ', map { "$_:1:bef" } 1 .. 10);
my $committed = join(' ', (map { "$_:1:bef" } 1 .. 5), map { "$_:2:his" } 6 .. 20);
my %expected = (
	before => [ $rolled_back, '1:1:bef 2:1:bef 3:1:bef' ],
	rolled_back => [ "$rolled_back 30:3:bes", '1:1:bef 2:1:bef 3:1:bes' ],
	committed => [ "$committed 30:3:bes", '1:2:bef 3:1:bes 5:2:his' ]);

sub content
{
	my ($table) = @_;
	return sql("SELECT string_agg(k || ':' || v || ':' || left(w, 3), ' ' ORDER BY k) FROM $table");
}

sub check
{
	my ($name, $what) = @_;
	sql("SELECT batchdedup.flush()");
	is(content('a') . ' / ' . content('b'), join(' / ', @{ $expected{$what} }), "$name: $what");
	is(sql("SELECT count(*) FROM (SELECT FROM log GROUP BY target, k, v, w HAVING count(*) > 1) twice"), 0, "$name: no row twice");
	is(sql("SELECT sum(buffered_rows) FROM batchdedup.stat_target"), 0, "$name: nothing is left in the buffer");
	is(sql("SELECT count(*) FROM batchdedup.dead_letter"), 0, "$name: no row was refused");
	sql("TRUNCATE a, b, log");
	return;
}

# After a second at the latest: until then old snapshots may need it.
sub check_memory
{
	my ($name) = @_;
	await('used_bytes = 0 FROM batchdedup.stat_buffer', $name);
	return pass("$name: memory is given back");
}

# ---------- processes that wait at a step ----------

# Whoever comes to "point:lock" waits while this session has the lock.
my $gate = $node->background_psql('postgres');

sub close_gate { return $gate->query_safe("SELECT pg_advisory_lock(7243)") }
sub open_gate { return $gate->query_safe("SELECT pg_advisory_unlock(7243)") }

my $waiting = "FROM pg_locks WHERE locktype = 'advisory' AND objid = 7243 AND NOT granted";

sub await_at_gate
{
	my ($name) = @_;
	await("count(*) = 1 $waiting", $name);
	return sql("SELECT pid $waiting");
}

sub gone
{
	my ($pid, $name) = @_;
	return await("count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", "$name: the process is gone");
}

# ---------- writers ----------

foreach my $point ('entered', 'reserved', 'pre-commit')
{
	foreach my $action ('error', 'exit')
	{
		my $name = "writer, $point:$action";
		sql($before);
		my ($out, $err) = ('', '');
		$node->psql('postgres', "SET batchdedup.debug_point = '$point:$action';\n$transaction", stdout => \$out, stderr => \$err);
		like($err, $action eq 'error' ? qr/debug point "$point" was hit/ : qr/connection/, $name);
		sql($beside);
		check($name, 'rolled_back');
	}
}
foreach my $point ('entered', 'reserved', 'pre-commit', 'publish')
{
	foreach my $action ('cancel', 'terminate')
	{
		my $name = "writer, $action at $point";
		sql($before);
		close_gate();
		my $writer = start_session($transaction, "$point:lock");
		my $pid = await_at_gate($name);
		sql($beside);
		# Somebody waits for him in a flush.
		my $flush = start_session("SELECT batchdedup.flush()");
		sql("SELECT pg_${action}_backend($pid)");
		await("count(*) = 0 $waiting", $name) if $point ne 'publish';
		open_gate();
		$action eq 'cancel' ? $writer->query_until(qr/finished/, "\n") : gone($pid, $name);
		$flush->query_until(qr/finished/, "\n");
		end_session($_) for $writer, $flush;
		check($name, $point eq 'publish' ? 'committed' : 'rolled_back');
	}
}

check_memory('writers');

# ---------- the worker ----------

sub set_worker_point
{
	my ($point) = @_;
	my $old = sql("SELECT max(pid) FROM batchdedup.stat_worker");
	sql($point ? "ALTER SYSTEM SET batchdedup.debug_point = '$point'" : "ALTER SYSTEM RESET batchdedup.debug_point");
	sql("SELECT pg_reload_conf()");
	# Between two statements a session reads its settings anew.
	sleep 0.01 until sql("SHOW batchdedup.debug_point") eq $point;
	sql("SELECT pg_terminate_backend($old, 60000)") if $old && $point;
	return;
}

foreach my $point ('quiet', 'apply', 'applied')
{
	foreach my $action ('error', 'exit', 'cancel', 'terminate')
	{
		my $name = "worker, $action at $point";
		my $waits = $action eq 'cancel' || $action eq 'terminate';
		close_gate() if $waits;
		set_worker_point($point . ':' . ($waits ? 'lock' : $action));
		sql($before . $transaction);
		my $seen = -s $node->logfile;
		my $flush = start_session("SELECT batchdedup.flush()");
		if ($waits)
		{
			my $pid = await_at_gate($name);
			sql($beside);
			set_worker_point('');
			sql("SELECT pg_${action}_backend($pid)");
			if ($action eq 'cancel')
			{
				ok($node->wait_for_log(qr/canceling statement|could not apply rows of public.*57014/, $seen), "$name: it happens");
			}
			elsif ($point ne 'quiet') # where a worker is only asked to leave
			{
				gone($pid, $name);
			}
			open_gate();
			gone($pid, $name) if $action eq 'terminate';
		}
		else
		{
			my $trace = $action eq 'exit' ? qr/background worker "batchdedup worker.*exited with exit code 1/ :
			  $point eq 'quiet' ? qr/debug point "quiet" was hit/ : qr/could not apply rows of public.*XX000/;
			ok($node->wait_for_log($trace, $seen), "$name: it happens");
			sql($beside);
			set_worker_point('');
		}
		$flush->query_until(qr/finished/, "\n");
		end_session($flush);
		check($name, 'committed');
	}
}

check_memory('worker');

# Who waits in flush() may go.
foreach my $action ('cancel', 'terminate')
{
	my $name = "flush(), $action";
	close_gate();
	set_worker_point('apply:lock');
	sql($before . $transaction . $beside);
	my $flush = start_session("SELECT batchdedup.flush()");
	await_at_gate($name);
	my $pid = sql("SELECT pid FROM pg_stat_activity WHERE query LIKE 'SELECT batchdedup.flush()%' AND state = 'active' AND pid <> pg_backend_pid()");
	sql("SELECT pg_${action}_backend($pid)");
	$action eq 'cancel' ? $flush->query_until(qr/finished/, "\n") : gone($pid, $name);
	end_session($flush);
	set_worker_point('');
	open_gate();
	check($name, 'committed');
}

# ---------- statements that apply what is buffered themselves ----------

my %statements = (
	'ALTER TABLE' => [ 'ALTER TABLE a ADD x int', 'ALTER TABLE a DROP IF EXISTS x' ],
	'alter_target' => [ "SELECT batchdedup.alter_target('a', update_columns => 'v, w')", "SELECT batchdedup.alter_target('a', reset => 'update_columns')" ],
	'drop_target' => [ "SELECT batchdedup.drop_target('a')", "SELECT batchdedup.create_target('a', flush_interval => '0', flush_rows => 0, if_not_exists => true)" ]);
foreach my $statement (sort keys %statements)
{
	foreach my $action ('error', 'exit', 'cancel', 'terminate')
	{
		my $name = "$statement, $action";
		my $waits = $action eq 'cancel' || $action eq 'terminate';
		sql("SELECT batchdedup.pause('a')");
		sql($before);
		close_gate() if $waits;
		my $psql = start_session($statements{$statement}[0], 'apply:' . ($waits ? 'lock' : $action));
		if ($waits)
		{
			my $pid = await_at_gate($name);
			sql("SELECT pg_${action}_backend($pid)");
			await("count(*) = 0 $waiting", $name);
			gone($pid, $name) if $action eq 'terminate';
			open_gate();
		}
		$psql->query_until(qr/finished/, "\n") if $action eq 'error' || $action eq 'cancel';
		end_session($psql);
		is(content('a'), '', "$name: nothing is in the table");
		is(sql("SELECT count(*) FROM batchdedup.buffered(NULL::a)"), 10, "$name: the rows are in the buffer");
		sql($statements{$statement}[0]);
		is(content('a'), $expected{before}[0], "$name: now they are in the table");
		sql($_) for "SELECT batchdedup.flush('b')", $statements{$statement}[1], "SELECT batchdedup.resume('a')";
		check($name, 'before');
	}
}

check_memory('in the end');

# ---------- afterwards ----------

# Nobody left a floor behind below which rows given in part are not combined.
my $parts = "DO \$\$ BEGIN FOR i IN 1 .. 300 LOOP PERFORM batchdedup.upsert_record('b', r) FROM (SELECT 1 AS k, i AS v) r; COMMIT;"
  . " PERFORM batchdedup.upsert_record('b', r) FROM (SELECT 1 AS k, 'w' AS w) r; COMMIT; END LOOP; END \$\$";
sql($parts);
my $bytes = "SELECT buffered_bytes FROM batchdedup.stat_target WHERE target = 'b'::regclass";
my $once = sql($bytes);
sql($parts) for 1 .. 10;
is(sql($bytes), $once, 'rows given in part are still combined');
sql("SELECT batchdedup.flush('b')");
is(content('b'), '1:300:w', 'in order');

$_->quit for $gate, $admin;
$node->stop;
done_testing();
