# What a crash finds beside rows and applies: DDL, targets and databases that are
# gone, more rows than the buffer holds, a smaller buffer, paused targets, clean
# shutdowns, asynchronous commits.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use PowerLoss qw(start_with_small_segments power_loss crash);
use Server qw($node sql fails wait_until start_session end_sessions);

start_with_small_segments('after', $PowerLoss::lazy, <<'CONF');
batchdedup.buffer_size = '4MB'
batchdedup.flush_interval = 0
batchdedup.flush_rows = 0
CONF

sub flush { return sql("SELECT batchdedup.flush()") }

# What stays open while the server ends.
sub leave_open { my ($statements) = @_; return start_session($statements, undef, 'finished') }

# The files of the replay; the launcher removes those that it does not need.
sub replay_files { return scalar(() = glob($node->data_dir . '/batchdedup_replay/*')) }

sub await_no_files
{
	my ($name) = @_;
	my $until = time + 10;
	sleep 0.05 while replay_files() > 0 && time < $until;
	return is(replay_files(), 0, "$name: no file of the replay is left");
}

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v int);
CREATE TABLE total (k int PRIMARY KEY, v bigint NOT NULL, filler text);
SELECT batchdedup.create_target('t');
SELECT batchdedup.create_target('total', merge => '{"v": "sum"}');
SQL

my $content = "SELECT coalesce(string_agg(k || ':' || v, ' ' ORDER BY k), 'empty') FROM t";

# ---------- DDL ----------

# Statements with rows buffered; the rows that come after their commit; what the
# table has if they were committed, and a statement that undoes them.
my @statements = (
	[ 'TRUNCATE', 'TRUNCATE t', '3:3' ],
	[ 'ALTER TABLE ADD COLUMN', 'ALTER TABLE t ADD x int DEFAULT 7', '1:1 2:2 3:3', 'ALTER TABLE t DROP x' ],
	[ 'ALTER TABLE TYPE', 'ALTER TABLE t ALTER v TYPE bigint', '1:1 2:2 3:3', 'ALTER TABLE t ALTER v TYPE int' ],
	[ 'alter_target', "SELECT batchdedup.alter_target('t', merge => '{\"v\": \"max\"}')", '1:1 2:2 3:3',
		"SELECT batchdedup.alter_target('t', reset => 'merge')" ]);
foreach my $case (@statements)
{
	my ($name, $statement, $after, $undo) = @$case;
	foreach my $sync ('on', 'off')
	{
		sql("SELECT batchdedup.upsert('t', '{\"k\": 1, \"v\": 1}'), batchdedup.upsert('t', '{\"k\": 2, \"v\": 2}')");
		leave_open("BEGIN; $statement");
		crash();
		end_sessions();
		flush();
		is(sql($content), '1:1 2:2', "$name: crash before its commit");
		sql("TRUNCATE t");

		sql("SELECT batchdedup.upsert('t', '{\"k\": 1, \"v\": 1}'), batchdedup.upsert('t', '{\"k\": 2, \"v\": 2}')");
		# What comes after an asynchronous commit takes it along.
		sql("SET synchronous_commit = $sync; $statement; SET synchronous_commit = on; "
			  . "SELECT batchdedup.upsert('t', '{\"k\": 3, \"v\": 3}')");
		crash();
		flush();
		is(sql($content), $after, "$name, synchronous_commit = $sync: crash after its commit");
		sql($undo) if $undo;
		sql("TRUNCATE t");
	}
	# Nothing flushes the commit: then it did not happen, and the rows are there.
	sql("SELECT batchdedup.upsert('t', '{\"k\": 1, \"v\": 1}'), batchdedup.upsert('t', '{\"k\": 2, \"v\": 2}')");
	sql("SET synchronous_commit = off; $statement");
	crash();
	flush();
	my $found = sql($content);
	# Some of them flush at their commit whatever the setting is.
	ok($found eq '1:1 2:2' || ($name eq 'TRUNCATE' && $found eq 'empty'), "$name: its commit is lost, or not: $found");
	sql($undo) if $undo && eval { sql($undo =~ /DROP x/ ? 'SELECT x FROM t' : 'SELECT 1'); 1 };
	sql("TRUNCATE t");
}

# Targets that are gone, or never were.
sql(<<'SQL');
CREATE TABLE dropped (k int PRIMARY KEY, v int);
CREATE TABLE unregistered (k int PRIMARY KEY, v int);
SELECT batchdedup.create_target(r) FROM unnest('{dropped,unregistered}'::regclass[]) r;
SELECT batchdedup.upsert(ROW(1, 1)::dropped), batchdedup.upsert(ROW(1, 1)::unregistered);
DROP TABLE dropped;
SELECT batchdedup.drop_target('unregistered');
CREATE TABLE rolled_back (k int PRIMARY KEY, v int);
BEGIN;
SELECT batchdedup.create_target('rolled_back');
SELECT batchdedup.upsert(ROW(1, 1)::rolled_back);
ROLLBACK;
CREATE TABLE created (k int PRIMARY KEY, v int);
BEGIN;
SELECT batchdedup.create_target('created');
SELECT batchdedup.upsert(ROW(1, 1)::created);
COMMIT;
SQL
leave_open("BEGIN; SELECT batchdedup.create_target('rolled_back'); SELECT batchdedup.upsert(ROW(2, 2)::rolled_back)");
leave_open("BEGIN; SELECT batchdedup.drop_target('created')");
crash();
end_sessions();
flush();
is(sql("SELECT v FROM unregistered"), 1, 'drop_target: its rows are there');
is(sql("SELECT v FROM created"), 1, 'drop_target is not committed: rows are there');
is(sql("SELECT count(*) FROM rolled_back"), 0, 'create_target was rolled back');
await_no_files('targets that are gone');
sql("SELECT batchdedup.create_target('rolled_back'); SELECT batchdedup.upsert(ROW(3, 3)::rolled_back)");
crash();
flush();
is(sql("SELECT string_agg(k::text, ' ') FROM rolled_back"), '3', 'create_target after a rolled back one');

# Databases that are gone, and an extension.
my $setup = "CREATE EXTENSION batchdedup; CREATE TABLE t (k int PRIMARY KEY, v int); SELECT batchdedup.create_target('t');"
  . "SELECT batchdedup.upsert(ROW(1, 1)::t)";
foreach my $name ('gone', 'without')
{
	sql("CREATE DATABASE $name");
	$node->safe_psql($name, $setup);
}
sql("DROP DATABASE gone");
$node->safe_psql('without', 'DROP EXTENSION batchdedup CASCADE');
my $seen = -s $node->logfile;
crash();
flush();
await_no_files('databases that are gone');
is($node->safe_psql('without', 'SELECT k, v FROM t'), '1|1', 'DROP EXTENSION: the row is there');
sleep 1.5;
unlike(slurp_file($node->logfile, $seen), qr/(?:ERROR|FATAL|PANIC):/, 'nobody fails because of what is gone');
$node->safe_psql('without', "DROP TABLE t; $setup");
crash();
$node->safe_psql('without', 'SELECT batchdedup.flush()');
is($node->safe_psql('without', 'SELECT k, v FROM t'), '1|1', 'CREATE EXTENSION anew');
sql("DROP DATABASE without");

# ---------- paused targets, and clean shutdowns ----------

sql("SELECT batchdedup.pause('t'); SELECT batchdedup.pause('total')");
sql("SELECT batchdedup.upsert(ROW(1, 1)::t), batchdedup.upsert(ROW(2, 2)::t), batchdedup.upsert('total', '{\"k\": 1, \"v\": 1}')");
my $in_memory = 1;
foreach my $way ('fast', 'smart', 'immediate', 'crash', 'fast')
{
	if ($way eq 'crash')
	{
		crash();
	}
	else
	{
		$node->stop($way);
		$node->start;
	}
	sql("SELECT batchdedup.upsert('t', '{\"k\": 1, \"v\": 2}'), batchdedup.delete('t', '{\"k\": 2}'), batchdedup.upsert(ROW(2, 3)::t), "
		  . "batchdedup.upsert('total', '{\"k\": 1, \"v\": 1}')");
	is(sql($content), 'empty', "paused, $way: writers go on, and nothing is applied");
	# What was found in the journal is read from the table; a clean shutdown has brought it back to memory.
	my $get = "SELECT batchdedup.get('t', '{\"k\": 1}') ->> 'v'";
	$in_memory = 0 if $way eq 'immediate' || $way eq 'crash';
	$in_memory ? is(sql($get), 2, "paused, $way: it can be read") : fails($get, '55000', "paused, $way: a read says that it cannot be done");
	fails("SELECT batchdedup.flush('t')", '55000', "paused, $way: flush() says so, too");
}
sql("SELECT batchdedup.resume('t'); SELECT batchdedup.resume('total')");
flush();
is(sql($content), '1:2 2:3', 'resumed: all is applied, in order');
is(sql("SELECT v FROM total"), 6, 'resumed: each sum once');
sql("TRUNCATE t, total");

# ---------- more than the buffer holds ----------

# Ten keys, rewritten: 12 MB of WAL for a few kB of buffer.
sql(<<'SQL');
CREATE PROCEDURE rewrite(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    PERFORM batchdedup.upsert_record('total', r) FROM (SELECT k, i AS v, repeat('x', 400) AS filler FROM generate_series(1, 10) k) r;
    COMMIT;
  END LOOP;
END $$;
SET synchronous_commit = off;
CALL rewrite(3000);
SET synchronous_commit = on;
CALL rewrite(1);
SQL
crash();
flush();
my $sums = "SELECT count(*), min(v), max(v) FROM total";
is(sql($sums), join('|', 10, (3000 * 3001 / 2 + 1) x 2), 'hot keys: more WAL than buffer');
sql("SELECT batchdedup.pause('total'); SET synchronous_commit = off; CALL rewrite(3000); SET synchronous_commit = on; CALL rewrite(1)");
crash();
sql("CALL rewrite(100)");
crash();
sql("CALL rewrite(100); SELECT batchdedup.resume('total')");
flush();
is(sql($sums), join('|', 10, (3000 * 3001 + 2 + 100 * 101) x 2), 'hot keys of a paused target, crash after crash');

# Many rows and many targets in a large buffer, and then a small one.
$node->adjust_conf('postgresql.conf', 'batchdedup.buffer_size', "'192MB'");
$node->restart;
sql(<<'SQL');
CREATE TABLE many (k int PRIMARY KEY, v int, w text);
SELECT batchdedup.create_target('many', coalesce_rows => false);
CREATE PROCEDURE fill(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    PERFORM batchdedup.upsert(ARRAY(SELECT ROW(i * 1000 + k, i, repeat('y', 700))::many FROM generate_series(1, 1000) k));
    COMMIT;
  END LOOP;
END $$;
SET synchronous_commit = off;
CALL fill(100);
DO $$
BEGIN
  FOR i IN 1 .. 200 LOOP
    EXECUTE format('CREATE TABLE small_%s (k int PRIMARY KEY, v int)', i);
    PERFORM batchdedup.create_target(format('small_%s', i)::regclass);
  END LOOP;
END $$;
SET synchronous_commit = on;
SELECT count(batchdedup.upsert(format('small_%s', i)::regclass, '{"k": 1, "v": 1}')) FROM generate_series(1, 200) i;
SQL
power_loss($node);
$node->adjust_conf('postgresql.conf', 'batchdedup.buffer_size', "'4MB'");
$node->start;
flush();
is(sql("SELECT count(*), sum(v), min(length(w)) FROM many"), '100000|5050000|700', 'a smaller buffer: all rows of a large target');
is(sql('SELECT sum(v) FROM (' . join(' UNION ALL ', map { "SELECT v FROM small_$_" } 1 .. 200) . ') s'),
	200, 'a smaller buffer: the rows of 200 targets');
await_no_files('a smaller buffer');

# ---------- asynchronous commits ----------

$node->adjust_conf('postgresql.conf', 'wal_writer_delay', "'100ms'");
$node->restart;
sql("TRUNCATE t");
foreach my $round (1 .. 3)
{
	# The launcher has nothing else to do by then.
	sleep 1.2;
	sql("SET synchronous_commit = off; SELECT batchdedup.upsert(ROW($round, $round)::t)");
	sleep 0.5;
	crash();
	flush();
	is(sql("SELECT v FROM t WHERE k = $round"), $round, "asynchronous, the only one, round $round");
}

# ---------- WAL of others at the start ----------

# What is flushed may end in the middle of a record when the launcher looks.
sql(<<'SQL');
TRUNCATE t;
CREATE TABLE bulk (w text);
CREATE FUNCTION release() RETURNS void LANGUAGE C AS 'batchdedup', 'bdd_debug_release';
SELECT batchdedup.upsert(ROW(1, 42)::t);
SQL
power_loss($node);
$node->adjust_conf('postgresql.conf', 'batchdedup.debug_point', "'replay:wait'");
$node->start;
leave_open("BEGIN; INSERT INTO bulk SELECT repeat('z', 1000) FROM generate_series(1, 3000)");
# The walwriter flushes whole pages.
wait_until('pg_current_wal_flush_lsn() > pg_current_wal_insert_lsn() - 10000');
$node->adjust_conf('postgresql.conf', 'batchdedup.debug_point', "''");
sql("SELECT release()");
flush();
is(sql($content), '1:42', 'WAL of others at the start is no gap');
is(sql("SELECT missing_to IS NULL FROM batchdedup.stat_journal"), 't', 'and nothing is missing');

$node->stop;
end_sessions();
done_testing();
