# Views and redirects beyond one session: dump and restore, standbys, a server
# without the library, transactions that are larger than the buffer.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql_in);

start_server('views', { allows_streaming => 1 }, <<'CONF');
batchdedup.buffer_size = 4MB
batchdedup.flush_interval = 0
CONF

sub run_tool { return $node->command_ok([@_], "$_[0] $_[1]") }

$node->safe_psql('postgres', 'CREATE DATABASE source');
sql_in('source', <<'SQL');
CREATE EXTENSION batchdedup;
CREATE SCHEMA app;
CREATE DOMAIN app.name AS text CHECK (VALUE <> '');
CREATE TABLE app.orders (gone int, id int GENERATED ALWAYS AS IDENTITY, "order No" app.name NOT NULL UNIQUE, status text DEFAULT 'new',
    total numeric(12,2), at timestamptz NOT NULL DEFAULT now(), nr serial, made text GENERATED ALWAYS AS (status || '!') STORED);
ALTER TABLE app.orders DROP gone;
SELECT batchdedup.create_target('app.orders', key => '"order No"', update_columns => 'status, total');
SELECT batchdedup.create_view('app.orders', 'book');
ALTER TABLE app.orders RENAME status TO state;
CREATE TABLE app.parts (k int, r int, v text, PRIMARY KEY (k, r)) PARTITION BY LIST (r);
CREATE TABLE app.parts_1 PARTITION OF app.parts FOR VALUES IN (1);
CREATE TABLE app.parts_2 (v text, r int NOT NULL, k int NOT NULL);
ALTER TABLE app.parts ATTACH PARTITION app.parts_2 FOR VALUES IN (2);
SELECT batchdedup.create_target('app.parts');
SELECT batchdedup.create_view('app.parts');
SELECT batchdedup.create_redirect('app.parts');
INSERT INTO app.book ("order No", total) VALUES ('A', 1), ('B', 2);
INSERT INTO app.parts VALUES (1, 1, 'one'), (1, 2, 'two');
SELECT batchdedup.flush();
SQL

# ---------- dump and restore ----------

my $orders = q{SELECT id, "order No", status, total, nr, made FROM app.book ORDER BY 2};
my $parts = q{SELECT tableoid::regclass, k, r, v FROM app.parts ORDER BY k, r};

# All that views and redirects do, in a database that was restored.
sub works
{
	my ($database, $name) = @_;
	is(sql_in($database, $orders), "1|A|new|1.00|1|new!\n2|B|new|2.00|2|new!", "$name: the view shows the table");
	is( sql_in($database, q{INSERT INTO app.book ("order No", total) VALUES ('C', 3) RETURNING id, status, at = now(), nr, made}),
		'3|new|t|3|new!', "$name: defaults, identity and sequence");
	sql_in($database, q{UPDATE app.book SET status = 'paid' WHERE "order No" = 'A'});
	sql_in($database, q{DELETE FROM app.book WHERE "order No" = 'B'});
	is(sql_in($database, $orders), "1|A|paid|1.00|1|paid!\n3|C|new|3.00|3|new!", "$name: through the view");
	is( sql_in($database, "SET batchdedup.debug_point = 'overlay:error'; SELECT total FROM app.book WHERE \"order No\" = 'C'"),
		'3.00', "$name: a lookup");
	is(sql_in($database, 'SELECT count(*) FROM app.orders'), 2, "$name: not in the table yet");
	is(sql_in($database, q{INSERT INTO app.parts VALUES (1, 2, 'new'), (2, 1, 'new') RETURNING k}), '', "$name: redirected");
	is(sql_in($database, 'SELECT count(*) FROM app.parts'), 2, "$name: redirected rows are not in the table yet");
	is(sql_in($database, 'SELECT batchdedup.flush()'), 5, "$name: flush");
	is(sql_in($database, 'SELECT id, "order No", state, total FROM app.orders ORDER BY 2'), "1|A|paid|1.00\n3|C|new|3.00", "$name: applied");
	is(sql_in($database, $parts), "app.parts_1|1|1|one\napp.parts_2|1|2|new\napp.parts_1|2|1|new", "$name: applied to partitions");
	return;
}

my $dir = PostgreSQL::Test::Utils::tempdir;
run_tool('pg_dump', '-Fc', '-f', "$dir/source.dump", $node->connstr('source'));
run_tool('pg_dump', '-f', "$dir/source.sql", $node->connstr('source'));
$node->safe_psql('postgres', 'CREATE DATABASE custom; CREATE DATABASE plain; CREATE DATABASE parts');
run_tool('pg_restore', '--exit-on-error', '-d', $node->connstr('custom'), "$dir/source.dump");
works('custom', 'pg_restore');
run_tool('psql', '-qX', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('plain'), '-f', "$dir/source.sql");
works('plain', 'psql');

# A dump of a dump is the same.
run_tool('pg_dump', '-f', "$dir/again.sql", $node->connstr('source'));
is(slurp_file("$dir/again.sql") =~ s/^\\(un)?restrict .*$//mgr, slurp_file("$dir/source.sql") =~ s/^\\(un)?restrict .*$//mgr, 'dumping again');

# Schema first, then data: triggers are there while the rows come in.
run_tool('pg_restore', '--exit-on-error', '--schema-only', '-d', $node->connstr('parts'), "$dir/source.dump");
run_tool('pg_restore', '--exit-on-error', '--data-only', '--disable-triggers', '-d', $node->connstr('parts'), "$dir/source.dump");
works('parts', 'data only');
sql_in('parts', 'TRUNCATE app.parts');
run_tool('pg_restore', '--exit-on-error', '--data-only', '-n', 'app', '-t', 'parts_1', '-t', 'parts_2', '-d', $node->connstr('parts'), "$dir/source.dump");
is(sql_in('parts', 'SELECT count(*) FROM app.parts'), 0, 'data only, with triggers: rows are in the buffer');
is(sql_in('parts', 'SELECT batchdedup.flush()'), 2, 'data only, with triggers: and flushed from there');
is(sql_in('parts', $parts), "app.parts_1|1|1|one\napp.parts_2|1|2|two", 'data only, with triggers: as they were');
works('source', 'the source');

# ---------- on a standby ----------

$node->backup('b');
my $standby = PostgreSQL::Test::Cluster->new('views_standby');
$standby->init_from_backup($node, 'b', has_streaming => 1);
$standby->start;
sql_in('source', q{INSERT INTO app.book ("order No", total) VALUES ('D', 4)});
sql_in('source', q{CREATE TABLE marker ()});
$node->wait_for_catchup($standby, 'replay', $node->lsn('insert'));
is($standby->safe_psql('source', $orders), "1|A|paid|1.00|1|paid!\n3|C|new|3.00|3|new!", 'a standby shows the table through the view');
is($standby->safe_psql('source', q{SELECT total FROM app.book WHERE "order No" = 'A'}), '1.00', 'a standby: by key');
my ($ret, $out, $err) = $standby->psql('source', q{INSERT INTO app.book ("order No") VALUES ('E')});
like($err, qr/read-only transaction/, 'a standby: no writing');
($ret, $out, $err) = $standby->psql('source', q{SELECT batchdedup.create_view('app.orders')});
like($err, qr/during recovery/, 'a standby: no views are made');
$standby->stop;

# ---------- larger than the buffer ----------

sql_in('source', <<'SQL');
CREATE TABLE big (k int PRIMARY KEY, v text);
INSERT INTO big SELECT i, 'old' FROM generate_series(1, 10000, 2) i;
SELECT batchdedup.create_target('big', flush_rows => 0);
SELECT batchdedup.create_view('big');
SQL
my $big = 'SELECT count(*), count(DISTINCT k), min(length(v)), max(length(v)) FROM';
# What the statement reads changes under it, from pending to written.
is( sql_in('source', "BEGIN; UPDATE big_buffered SET v = rpad(k::text, 1000); INSERT INTO big_buffered SELECT k + 1, rpad(v, 2000) FROM big_buffered; $big big_buffered; COMMIT"),
	'10000|10000|1000|2000', 'larger than the buffer: in its own transaction');
is(sql_in('source', "$big big_buffered"), '10000|10000|1000|2000', 'larger than the buffer: afterwards');
sql_in('source', 'SELECT batchdedup.flush()');
is(sql_in('source', "$big big"), '10000|10000|1000|2000', 'larger than the buffer: in the table');
sql_in('source', 'TRUNCATE big');
sql_in('source', "COPY (SELECT i, rpad('x', 1000) FROM generate_series(1, 10000) i) TO '$dir/rows'");
sql_in('source', "COPY big_buffered FROM '$dir/rows'");
is(sql_in('source', "$big big_buffered"), '10000|10000|1000|1000', 'larger than the buffer: COPY into the view');
sql_in('source', "SELECT batchdedup.create_redirect('big'); TRUNCATE big; COPY big FROM '$dir/rows'");
is(sql_in('source', "$big big_buffered"), '10000|10000|1000|1000', 'larger than the buffer: COPY, redirected');
sql_in('source', 'SELECT batchdedup.flush()');
is(sql_in('source', "$big big"), '10000|10000|1000|1000', 'larger than the buffer: COPY, in the table');

# ---------- several readers and writers, and the worker ----------

# Each statement shows every key once, whatever is published and applied.
sql_in('source', <<'SQL');
CREATE TABLE busy (k int PRIMARY KEY, v int NOT NULL);
INSERT INTO busy SELECT i, 0 FROM generate_series(1, 200, 2) i;
SELECT batchdedup.create_target('busy', flush_interval => '5 milliseconds', guard => 'off');
SELECT batchdedup.create_view('busy');
CREATE TABLE found (what text);
CREATE PROCEDURE write(n int) LANGUAGE plpgsql AS $$
BEGIN
  FOR i IN 1 .. n LOOP
    CASE i % 4
      WHEN 0 THEN INSERT INTO busy_buffered SELECT 1 + (random() * 199)::int, i FROM generate_series(1, 20);
      WHEN 1 THEN UPDATE busy_buffered SET v = v + 1 WHERE k % 10 = i % 10;
      WHEN 2 THEN UPDATE busy_buffered SET v = v + 1 WHERE k = 1 + (i * 7) % 200;
      ELSE INSERT INTO busy VALUES (1 + (random() * 199)::int, i) ON CONFLICT (k) DO UPDATE SET v = EXCLUDED.v;
    END CASE;
    COMMIT;
  END LOOP;
END $$;
CREATE PROCEDURE read(n int) LANGUAGE plpgsql AS $$
DECLARE
  problem text;
BEGIN
  FOR i IN 1 .. n LOOP
    SELECT format('%s rows, %s keys, %s odd', count(*), count(DISTINCT k), count(*) FILTER (WHERE k % 2 = 1)) INTO problem
      FROM busy_buffered HAVING count(*) <> count(DISTINCT k) OR count(*) FILTER (WHERE k % 2 = 1) <> 100;
    INSERT INTO found SELECT problem WHERE problem IS NOT NULL;
    SELECT format('%s of 10 by key', count(*)) INTO problem
      FROM busy_buffered WHERE k IN (1, 3, 5, 7, 9, 11, 13, 15, 17, 19) HAVING count(*) <> 10;
    INSERT INTO found SELECT problem WHERE problem IS NOT NULL;
    SELECT format('%s of 100 joined', count(b.v)) INTO problem
      FROM generate_series(1, 200, 2) o(k) LEFT JOIN busy_buffered b USING (k) HAVING count(b.v) <> 100 OR count(*) <> 100;
    INSERT INTO found SELECT problem WHERE problem IS NOT NULL;
    COMMIT;
  END LOOP;
END $$;
SELECT batchdedup.create_redirect('busy');
SQL
my @sessions;
foreach my $call (('CALL write(1500)') x 2, ('CALL read(600)') x 2)
{
	my $session = { in => '', out => '', err => '' };
	$session->{run} = IPC::Run::start([ 'psql', '-qXAt', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('source'), '-c', $call ],
		'<', \$session->{in}, '>', \$session->{out}, '2>', \$session->{err});
	push @sessions, $session;
}
foreach my $session (@sessions)
{
	ok($session->{run}->finish, 'busy: a session ends well') or diag($session->{err});
}
is(sql_in('source', 'SELECT DISTINCT what FROM found'), '', 'busy: every statement shows each key once');
cmp_ok(sql_in('source', "SELECT flushes FROM batchdedup.stat_target WHERE target = 'busy'::regclass"), '>', 5, 'busy: the worker was busy, too');

# ---------- without the library ----------

sql_in('source', 'SELECT batchdedup.flush()');
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
($ret, $out, $err) = $node->psql('source', $orders);
like($err, qr/not loaded at server start/, 'not loaded: the view says why');
($ret, $out, $err) = $node->psql('source', q{INSERT INTO app.book ("order No") VALUES ('E')});
like($err, qr/not loaded at server start/, 'not loaded: so does an INSERT into it');
is(sql_in('source', q{INSERT INTO app.parts VALUES (7, 1, 'plain') RETURNING v}), 'plain', 'not loaded: a redirect lets rows pass');
$node->stop;

done_testing();
