# Every way a server, a worker or a database comes to an end: what was committed
# is in the table afterwards, or still in the buffer.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql await wait_until dump_and_restore);

start_server('ends', <<'CONF');
batchdedup.shutdown_timeout = '1s'
max_prepared_transactions = 2
CONF

my $file = $node->data_dir . '/batchdedup.buffer';

# Targets that only flush() or a shutdown applies.
sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE free (k int PRIMARY KEY, v text, calls int DEFAULT 0);
CREATE TABLE locked (k int PRIMARY KEY, v text);
CREATE TABLE paused (k text PRIMARY KEY, v text, w numeric, first_seen int);
SELECT batchdedup.create_target(t, flush_interval => '0')
  FROM unnest('{free,locked}'::regclass[]) t;
SELECT batchdedup.create_target('paused', flush_interval => '0', update_columns => 'v, w');
SELECT batchdedup.pause('paused');
CREATE TABLE unlogged (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target('unlogged', flush_interval => '0', flush_rows => 0, logged => false);
SELECT batchdedup.pause('unlogged');
SQL

sub fill
{
	my ($n) = @_;
	sql(<<"SQL");
SELECT count(batchdedup.upsert_record('free', s)) FROM (SELECT i AS k, 'free $n' AS v FROM generate_series(1, 500) i) s;
SELECT count(batchdedup.upsert_record('locked', s)) FROM (SELECT i AS k, 'locked $n' AS v FROM generate_series(1, 500) i) s;
SELECT count(batchdedup.upsert_record('unlogged', s)) FROM (SELECT i AS k, 'unlogged $n' AS v FROM generate_series(1, 500) i) s;
SELECT count(batchdedup.upsert_record('paused', s)) FROM (SELECT 'key ' || i AS k, repeat('long', 3000) || '$n' AS v, i::numeric AS w, $n AS first_seen FROM generate_series(1, 100) i) s;
SELECT batchdedup.upsert('paused', '{"k": "key 1", "w": 1.50}'), batchdedup.delete('paused', '{"k": "key 2"}');
SELECT batchdedup.delete('paused', '{"k": "key 3"}'), batchdedup.upsert('paused', '{"k": "key 3", "v": "anew $n", "first_seen": 77}');
SQL
}

my $paused_rows = "SELECT count(*), min(v) FILTER (WHERE k = 'key 3'), min(w) FILTER (WHERE k = 'key 1'), "
  . "count(*) FILTER (WHERE k = 'key 2'), min(first_seen), max(length(v)) FROM paused";

# A worker that has read its settings anew.
sub restart_worker
{
	my $pid = sql("SELECT max(pid) FROM batchdedup.stat_worker");
	sql("SELECT pg_terminate_backend(pid) FROM batchdedup.stat_worker");
	wait_until('count(*) = 0 FROM batchdedup.stat_worker WHERE pid = ' . ($pid || 0));
	return;
}

# ---------- clean shutdowns ----------

my $round = 0;
foreach my $mode ('fast', 'smart')
{
	$round++;
	sql("TRUNCATE paused");
	fill($round);
	$node->stop($mode);
	ok(-e $file, "$mode: what a paused target holds is kept");
	$node->start;
	# the launcher removes the file when the server takes connections
	await("(pg_stat_file('batchdedup.buffer', true)).size IS NULL", "$mode: and taken back");
	is(sql("SELECT count(*) FROM free WHERE v = 'free $round'"), 500, "$mode: the rest was applied");
	is(sql("SELECT count(*) FROM locked WHERE v = 'locked $round'"), 500, "$mode: of every target");
	is(sql("SELECT buffered_rows FROM batchdedup.stat_target WHERE target = 'paused'::regclass"),
		100, "$mode: rows are in the buffer again");
	is(sql("SELECT batchdedup.get('paused', '{\"k\": \"key 3\"}') ->> 'v'"), "anew $round", "$mode: and can be read");
	sql("SELECT batchdedup.resume('paused')");
	sql("SELECT batchdedup.flush('paused')");
	is(sql($paused_rows), "99|anew $round|1.50|0|$round|12001", "$mode: every row and operation is there");
	sql("SELECT batchdedup.pause('paused')");
}

# A table that somebody keeps locked until the server is gone.
{
	$round++;
	fill($round);
	my $psql = $node->background_psql('postgres');
	$psql->query_safe("BEGIN; LOCK TABLE locked IN ACCESS EXCLUSIVE MODE;");
	$node->stop('fast');
	eval { $psql->{run}->finish };
	$node->start;
	sql("SELECT batchdedup.flush('locked')");
	is(sql("SELECT count(*) FROM locked WHERE v = 'locked $round'"), 500, 'locked: nothing is lost');
	sql("SELECT batchdedup.resume('paused')");
	sql("SELECT batchdedup.flush('paused')");
	sql("SELECT batchdedup.pause('paused')");
}

# A shutdown right after another one keeps the file's rows, too.
fill(++$round);
$node->restart;
$node->restart;
is(sql("SELECT buffered_rows FROM batchdedup.stat_target WHERE target = 'paused'::regclass"),
	100, 'two restarts: rows are still there');

# A row that a foreign key refused before the restart.
sql(<<'SQL');
CREATE TABLE parent (k int PRIMARY KEY);
CREATE TABLE child (k int PRIMARY KEY, p int REFERENCES parent);
SELECT batchdedup.create_target(t, flush_interval => '0') FROM unnest('{parent,child}'::regclass[]) t;
SELECT batchdedup.upsert('child', '{"k": 1, "p": 1}');
SELECT batchdedup.flush('child');
SQL
is(sql("SELECT key FROM batchdedup.dead_letter"), '{"k": 1}', 'refused before a restart');
$node->restart;
sql("SELECT batchdedup.upsert('parent', '{\"k\": 1}'); SELECT batchdedup.flush('parent')");
is(sql("SELECT p FROM child"), 1, 'and accepted afterwards, when its parent is there');
sql("DROP TABLE child, parent");

# ---------- a file that cannot be believed ----------

$node->stop('fast');
{
	open my $handle, '+<', $file or die "$file: $!";
	binmode $handle;
	seek $handle, 100, 0;
	print $handle 'x';
	close $handle;
}
$node->start;
ok(-e "$file.bad", 'damaged file: set aside');
like(slurp_file($node->logfile), qr/is damaged or of another version/, 'damaged file: the log says so');
is(sql("SELECT buffered_rows FROM batchdedup.stat_target WHERE target = 'unlogged'::regclass"), 0, 'damaged file: none of it is used');
sql("SELECT batchdedup.resume('paused'); SELECT batchdedup.flush('paused')");
is(sql($paused_rows), "99|anew $round|1.50|0|2|12001", 'damaged file: logged rows come from the journal');
sql("SELECT batchdedup.pause('paused')");

# ---------- immediate stop and crash ----------

fill(++$round);
$node->stop('immediate');
ok(!-e $file, 'immediate: no file');
$node->start;
is(sql("SELECT buffered_rows FROM batchdedup.stat_target WHERE target = 'unlogged'::regclass"), 0, 'immediate: unlogged rows are gone');
sql("SELECT batchdedup.flush('free', 'locked')");
is(sql("SELECT count(*) FROM free WHERE v = 'free $round'"), 500, 'immediate: logged rows are not');
is(sql("SELECT count(*) FROM locked WHERE v = 'locked $round'"), 500, 'immediate: of every target');
fill(++$round);
is(sql("SELECT batchdedup.flush('free')"), 500, 'immediate: the target works');

# ---------- the worker and the launcher ----------

sql("CREATE FUNCTION count_call() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.calls := OLD.calls + 1; RETURN NEW; END'");
sql("CREATE TRIGGER count_call BEFORE UPDATE ON free FOR EACH ROW EXECUTE FUNCTION count_call()");
sql("UPDATE free SET calls = 0");
sql("ALTER TABLE free DISABLE TRIGGER count_call");
sql("UPDATE free SET calls = 0");
sql("ALTER TABLE free ENABLE TRIGGER count_call");

sql("ALTER SYSTEM SET batchdedup.debug_point = 'apply:wait'");
sql("SELECT pg_reload_conf()");
restart_worker();
fill(++$round);
sql("SET batchdedup.debug_point = ''; SELECT batchdedup.alter_target('free', flush_interval => '10 ms')");
fill($round);
wait_until("count(*) = 1 FROM batchdedup.stat_worker WHERE state = 'applying'");
sql("ALTER SYSTEM RESET batchdedup.debug_point");
sql("SELECT pg_reload_conf()");
sql("SELECT pg_terminate_backend(pid) FROM batchdedup.stat_worker");
sql("CREATE FUNCTION release() RETURNS void LANGUAGE C AS 'batchdedup', 'bdd_debug_release'");
sql("SELECT release()");
wait_until("count(*) = 500 FROM free WHERE v = 'free $round'", 'rows are applied');
is(sql("SELECT max(calls) <= 2 FROM free"), 't', 'worker terminated in an apply: rows are applied once a generation');

sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'batchdedup launcher'");
sql("SELECT pg_terminate_backend(pid) FROM batchdedup.stat_worker");
fill(++$round);
wait_until("count(*) = 500 FROM free WHERE v = 'free $round'", 'a worker comes');
pass('launcher terminated: it comes back, and a worker with it');

# ---------- databases ----------

sql("SELECT batchdedup.drop_target('free')");
$node->safe_psql('postgres', "CREATE DATABASE one");
my $setup = "CREATE EXTENSION batchdedup; CREATE TABLE t (k int PRIMARY KEY, v int);"
  . "SELECT batchdedup.create_target('t', flush_interval => '10 ms'); SELECT batchdedup.upsert(ROW(1, 1)::t); SELECT batchdedup.flush('t')";
$node->safe_psql('one', $setup);
$node->safe_psql('postgres', "CREATE DATABASE two TEMPLATE one");
pass('CREATE DATABASE TEMPLATE while a worker is there');
$node->safe_psql('two', "SELECT batchdedup.upsert(ROW(1, 2)::t); SELECT batchdedup.flush('t')");
is($node->safe_psql('two', "SELECT v FROM t"), 2, 'the copy has targets of its own');
$node->poll_query_until('one', "SELECT v = 1 FROM t") or die;
$node->safe_psql('one', "SELECT batchdedup.upsert(ROW(1, 3)::t)");
$node->poll_query_until('one', "SELECT v = 3 FROM t") or die 'the original does not go on';
pass('and the original goes on');
$node->safe_psql('one', "SELECT batchdedup.pause('t'); SELECT batchdedup.upsert(ROW(5, 5)::t)");
$node->safe_psql('postgres', "DROP DATABASE one");
$node->safe_psql('postgres', "DROP DATABASE two WITH (FORCE)");
is(sql("SELECT count(*) FROM batchdedup.stat_worker WHERE database IS NULL"), 0, 'DROP DATABASE while workers are there');

# ---------- dump and restore ----------

sql("SELECT batchdedup.resume('paused')");
sql("SELECT batchdedup.flush()");
my $before = sql("SELECT md5(string_agg(p::text, '' ORDER BY k)) FROM paused p");
dump_and_restore('postgres', 'restored');
is($node->safe_psql('restored', "SELECT md5(string_agg(p::text, '' ORDER BY k)) FROM paused p"), $before, 'tables are the same');
is($node->safe_psql('restored', "SELECT string_agg(target::text || ':' || key, ' ' ORDER BY target::text) FROM batchdedup.target"),
	'locked:k paused:k unlogged:k', 'targets are registered');
$node->safe_psql('restored', "SELECT batchdedup.upsert('locked', '{\"k\": 1000, \"v\": \"new\"}'); SELECT batchdedup.flush('locked')");
is($node->safe_psql('restored', "SELECT v FROM locked WHERE k = 1000"), 'new', 'and work');

$node->stop;
done_testing();
