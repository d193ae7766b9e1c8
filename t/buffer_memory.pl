# Memory: what rows take, that rewriting takes nothing, and what happens when it
# runs out.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql fails await start_session end_session);

# Runs each statement in a session of its own, all at once.
sub at_once
{
	my @sessions = map { start_session($_) } @_;
	foreach my $psql (@sessions)
	{
		$psql->query_until(qr/finished/, "
");
		end_session($psql);
	}
	return;
}

sub stat_of
{
	my ($table, $columns) = @_;
	return sql("SELECT $columns FROM batchdedup.stat_target WHERE target = '$table'::regclass");
}

start_server('roomy');

# ---------- ten keys, ten million times ----------

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE hot (k int PRIMARY KEY, v bigint, w text, first bigint);
CREATE TABLE hot_first (LIKE hot INCLUDING ALL);
SELECT batchdedup.create_target('hot', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_target('hot_first', update_columns => 'v, w', flush_interval => '0', flush_rows => 0);

-- n transactions of 10 calls for each of 10 keys
CREATE PROCEDURE rewrite(target regclass, n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    EXECUTE format('WITH r AS MATERIALIZED (SELECT array_agg(ROW(k, %s, repeat(''x'', %s %% 50), %1$s)::%3$s) AS rows FROM generate_series(1, 10) k) '
                   'SELECT count(batchdedup.upsert(rows)) FROM r, generate_series(1, 10)', i, i, target);
    COMMIT;
  END LOOP;
END $$;
-- n transactions of one call for each of 10 keys: two columns in turn
CREATE PROCEDURE rewrite_part(target regclass, n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    IF i % 2 = 0 THEN
      PERFORM batchdedup.upsert_record(target, r) FROM (SELECT k, i AS v FROM generate_series(1, 10) k) r;
    ELSE
      PERFORM batchdedup.upsert_record(target, r) FROM (SELECT k, repeat('y', i % 50) AS w FROM generate_series(1, 10) k) r;
    END IF;
    COMMIT;
  END LOOP;
END $$;
-- n transactions of one call for each of 10 keys
CREATE PROCEDURE rewrite_full(target regclass, n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    EXECUTE format('SELECT count(batchdedup.upsert(ROW(k, $1, ''z'', $1)::%s)) FROM generate_series(1, 10) k', target) USING i;
    COMMIT;
  END LOOP;
END $$;
SQL

at_once(("CALL rewrite('hot', 25000)") x 4);
is(stat_of('hot', 'received, buffered_rows, flushes'), '10000000|10|0', 'ten keys were given ten million times, in one generation');
cmp_ok(stat_of('hot', 'buffered_bytes'), '<=', 1048576, 'they stay within 1 MB');
at_once("CALL rewrite_full('hot', 3000)", "CALL rewrite_part('hot', 3000)", "CALL rewrite_part('hot', 3000)", "CALL rewrite('hot', 3000)");
is(stat_of('hot', 'buffered_rows, flushes'), '10|0', 'rows given in part: still one generation');
cmp_ok(stat_of('hot', 'buffered_bytes'), '<=', 1048576, 'rows given in part stay within 1 MB');
at_once("CALL rewrite('hot_first', 3000)", "CALL rewrite_full('hot_first', 3000)", "CALL rewrite_part('hot_first', 3000)", "CALL rewrite_full('hot_first', 3000)");
is(stat_of('hot_first', 'buffered_rows, flushes'), '10|0', 'first-kept columns: still one generation');
cmp_ok(stat_of('hot_first', 'buffered_bytes'), '<=', 1048576, 'first-kept columns stay within 1 MB');
is(sql("SELECT batchdedup.flush('hot', 'hot_first')"), 20, 'twenty rows are applied');
is(sql("SELECT count(*), count(v), count(w) FROM hot"), '10|10|10', 'they are in the table');
is(sql("SELECT count(*), count(v), count(w) FROM hot_first"), '10|10|10', 'all of them');

# ---------- what a row takes ----------

my %shapes = (
	narrow => [ 'k int PRIMARY KEY, v int', 'i, i' ],
	wide => [ 'k bigint PRIMARY KEY, a text, b timestamptz, c numeric, d text', "i, repeat('a', 60), now(), i / 7.0, repeat('d', i % 100)" ],
	named => [ 'k text PRIMARY KEY, v float8, w text', "'device number ' || i, i, NULL" ],
	two => [ 'a uuid, b int, v jsonb, PRIMARY KEY (a, b)', "md5(i::text)::uuid, i, jsonb_build_object('n', i)" ]);
foreach my $name (sort keys %shapes)
{
	my ($columns, $values) = @{ $shapes{$name} };
	my $key = $name eq 'two' ? 'pg_column_size(a) + pg_column_size(b)' : 'pg_column_size(k)';
	sql("CREATE TABLE $name ($columns); CREATE TABLE ${name}_rows AS TABLE $name");
	sql("SELECT batchdedup.create_target('$name', flush_interval => '0', flush_rows => 0)");
	sql("INSERT INTO ${name}_rows SELECT $values FROM generate_series(1, 60000) i");
	sql("SELECT count(batchdedup.upsert(r)) FROM (SELECT s::text::$name AS r FROM ${name}_rows s) s");
	is(stat_of($name, 'buffered_rows, flushes'), '60000|0', "$name: 60,000 rows");
	my $bytes = stat_of($name, 'buffered_bytes');
	my $values_take = sql("SELECT sum(pg_column_size(s.*) + $key) FROM ${name}_rows s");
	cmp_ok($bytes, '<=', $values_take + 60000 * 64, "$name: at most 64 bytes of bookkeeping for each");
	note(sprintf '%s: %.1f bytes of bookkeeping', $name, ($bytes - $values_take) / 60000);
	is(sql("SELECT batchdedup.flush('$name')"), 60000, "$name: applied");
	is(sql("SELECT count(*) FROM (TABLE $name EXCEPT TABLE ${name}_rows) d"), 0, "$name: as given");
}
await("used_bytes = 0 FROM batchdedup.stat_buffer", 'all memory is given back');
$node->stop;

# ---------- a small buffer ----------

start_server('tight', <<'CONF');
batchdedup.buffer_size = 4MB
CONF
sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE other (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target(t, flush_interval => '0', flush_rows => 0, guard => 'off') FROM unnest('{t,other}'::regclass[]) t;
CREATE PROCEDURE fill(name regclass, from_k int, n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 0 .. n / 20 - 1 LOOP
    EXECUTE format('SELECT count(batchdedup.upsert(ROW(k, rpad(k::text, 1000, ''x''))::%s)) FROM generate_series(%s, %s) k',
                   name, from_k + i * 20, from_k + i * 20 + 19);
    COMMIT;
  END LOOP;
END $$;
SQL

at_once(map { "CALL fill('t', " . (1 + $_ * 4000) . ", 4000)" } 0 .. 3);
sql("SELECT batchdedup.flush('t')");
is(sql("SELECT count(*), count(*) FILTER (WHERE v = rpad(k::text, 1000, 'x')) FROM t"),
	'16000|16000', 'writers faster than the worker: 16 MB went through 2 MB');
cmp_ok(stat_of('t', 'flushes'), '>', 4, 'in many flushes');
is(stat_of('t', 'inserted'), 16000, 'none of it directly');

# Nobody makes room.
sql("TRUNCATE t");
sql("SELECT batchdedup.pause('t')");
my $paused = start_session("SET batchdedup.full_timeout = '1h'; CALL fill('t', 1, 4000)");
await("count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND query LIKE '%CALL fill%' AND pid <> pg_backend_pid()",
	'paused: a writer waits');
fails("SET batchdedup.full_timeout = '50ms'; SELECT batchdedup.upsert(ROW(0, 'x')::t)",
	qr/ERROR:  53200: the buffer of "t" is full\nDETAIL: .*full_timeout \(50 ms\).*\nHINT:/, 'paused: another one gives up after full_timeout');
fails("SET statement_timeout = '50ms'; SELECT batchdedup.upsert(ROW(0, 'x')::t)", qr/ERROR:  57014/, 'paused: one can be cancelled');
isnt(sql("SELECT status FROM batchdedup.health() WHERE check_name = 'age' AND target = 't'::regclass"), 'ok', 'paused: health() shows it');
sql("SELECT batchdedup.upsert(ROW(1, 'x')::other)");
is(sql("SELECT batchdedup.flush('other')"), 1, 'paused: other targets have their share');
sql("SET batchdedup.full_timeout = '1h'; SELECT batchdedup.alter_target('t', on_full => 'error')");
fails("SET batchdedup.full_timeout = '1h'; SELECT batchdedup.upsert(ROW(0, 'x')::t)", qr/ERROR:  53200: the buffer of "t" is full\nHINT:/, 'on_full error: at once');
sql("SELECT batchdedup.alter_target('t', on_full => 'direct')");
fails("SET batchdedup.full_timeout = '1h'; SELECT batchdedup.upsert(ROW(0, 'x')::t)", qr/ERROR:  55000: target "t" is paused/, 'on_full direct: not on top of rows that are paused');
my $waiting = stat_of('t', 'buffered_rows');
cmp_ok($waiting, '>', 500, 'paused: rows are in the buffer');
sql("SELECT batchdedup.alter_target('t', on_full => 'wait')");
sql("SELECT batchdedup.resume('t')");
$paused->query_until(qr/finished/, "\n");
$paused->quit;
sql("SELECT batchdedup.flush('t')");
is(sql("SELECT count(*), count(*) FILTER (WHERE v = rpad(k::text, 1000, 'x')) FROM t"),
	'4000|4000', 'resumed: the writer has gone on, and every row is there');

# One target has all the memory, and another one none.
sql("ALTER SYSTEM SET batchdedup.max_target_share = 1");
sql("SELECT pg_reload_conf()");
await("current_setting('batchdedup.max_target_share') = '1'", 'no limit');
sql("SELECT batchdedup.pause('t')");
$node->psql('postgres', "SET batchdedup.full_timeout = '50ms'; CALL fill('t', 1, 4000)");
isnt(sql("SELECT status FROM batchdedup.health() WHERE check_name = 'buffer'"), 'ok', 'no limit: health() shows it');
fails("SET batchdedup.full_timeout = '50ms'; SELECT batchdedup.upsert(ROW(2, 'x')::other)", qr/ERROR:  53200/, 'no limit: on_full wait');
sql("SELECT batchdedup.alter_target('other', on_full => 'direct')");
sql("SELECT batchdedup.upsert(ROW(2, 'direct')::other)");
is(sql("SELECT v FROM other WHERE k = 2"), 'direct', 'no limit: on_full direct');
is(sql("BEGIN; SELECT FROM batchdedup.upsert(ROW(2, 'undone')::other); ROLLBACK; SELECT v FROM other WHERE k = 2"), 'direct', 'no limit: in the transaction of the caller');
sql("SELECT batchdedup.resume('t'); SELECT batchdedup.flush('t')");
sql("ALTER SYSTEM RESET batchdedup.max_target_share");
sql("SELECT pg_reload_conf()");

# ---------- a transaction larger than the buffer ----------

my $rows = "(SELECT k, rpad(k::text, 1000, %s) AS v FROM generate_series(%d, %d) k) r";

sub upserts { return "SELECT count(batchdedup.upsert_record('t', r)) FROM " . sprintf($rows, "'$_[0]'", $_[1], $_[2]) . ";\n" }

my $result = "SELECT string_agg(c || ':' || n, ' ' ORDER BY c) FROM (SELECT right(v, 1) AS c, count(*) AS n FROM t GROUP BY 1) s";

foreach my $case (
	[ 'as a whole', upserts('a', 1001, 6000), 'a:5000' ],
	[ 'undone before it is large', "SAVEPOINT s;\n" . upserts('b', 1001, 1300) . "ROLLBACK TO s;\n" . upserts('a', 1001, 6000), 'a:5000' ],
	[ 'undone while it is large', upserts('a', 1001, 1300) . "SAVEPOINT s;\n" . upserts('b', 1001, 6000) . "ROLLBACK TO s;\n" . upserts('c', 1301, 1500), 'a:300 c:200' ],
	[ 'undone when it was large', upserts('a', 1001, 4000) . "SAVEPOINT s;\n" . upserts('b', 1001, 6000) . "ROLLBACK TO s;\n" . upserts('c', 4001, 4100), 'a:3000 c:100' ],
	[ 'large twice', "SAVEPOINT s;\n" . upserts('a', 1001, 4000) . "ROLLBACK TO s;\n" . upserts('b', 1001, 1300) . "SAVEPOINT s;\n" . upserts('c', 1101, 4000) . "RELEASE s;\n", 'b:100 c:2900' ])
{
	my ($name, $statements, $expected) = @$case;
	sql("TRUNCATE t");
	# Others' rows come first.
	sql("SELECT batchdedup.upsert(ROW(1001, 'older o')::t)");
	sql("BEGIN;\n${statements}COMMIT");
	sql("SELECT batchdedup.flush('t')");
	is(sql($result), $expected, "large transaction, $name");
	sql("BEGIN;\n${statements}ROLLBACK");
	sql("SELECT batchdedup.flush('t')");
	is(sql($result), $expected, "large transaction, $name: rolled back it leaves nothing");
}
fails("SELECT batchdedup.upsert(ROW(1, repeat(md5(random()::text), 100000))::t)", qr/ERROR:  54000: .*\nDETAIL: .*\nHINT:  Raise batchdedup.buffer_size/, 'a row that can never fit');
await("used_bytes = 0 FROM batchdedup.stat_buffer", 'all memory is given back');

$node->stop;
done_testing();
