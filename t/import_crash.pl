# Imports: parallel writers, the end of the server at each step, what is seen of
# the progress, and what is left behind.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run qw(start finish);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use PowerLoss qw(start_with_small_segments power_loss await_end);
use Server qw($node sql await wait_until);

start_with_small_segments('imports', "batchdedup.debug_point = ''", 'autovacuum = off');

sub staging
{
	return sql("SELECT count(*) FROM pg_class WHERE relnamespace = 'batchdedup'::regnamespace AND relname ~ '^import_[0-9a-f]{16}'");
}

# Files of relations that no table has any more. The server itself leaves those
# of tables that a transaction has made that it did not see the end of.
sub stray_files
{
	return sql(<<'SQL');
SELECT count(*) FROM pg_ls_dir('base/' || (SELECT oid FROM pg_database WHERE datname = 'postgres')) AS f (name)
 WHERE name ~ '^[0-9]+$' AND pg_stat_file_size(name) > 0
   AND NOT EXISTS (SELECT FROM pg_class c WHERE pg_relation_filenode(c.oid)::text = name)
SQL
}

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE FUNCTION debug_release() RETURNS void LANGUAGE C AS 'batchdedup', 'bdd_debug_release';
CREATE FUNCTION pg_stat_file_size(name text) RETURNS bigint LANGUAGE sql AS
  $$ SELECT size FROM pg_stat_file('base/' || (SELECT oid FROM pg_database WHERE datname = 'postgres') || '/' || name) $$;
CREATE TABLE bar (symbol text, day int, close numeric, volume bigint, PRIMARY KEY (symbol, day));
CREATE TABLE expected (LIKE bar INCLUDING ALL);
CREATE TABLE before AS SELECT 's' || s AS symbol, d AS day, 1.5 AS close, 1000000::bigint AS volume
  FROM generate_series(1, 3) s, generate_series(1, 300) d;
CREATE TABLE part (symbol text, day int, close numeric, volume bigint, PRIMARY KEY (symbol, day)) PARTITION BY LIST (symbol);
SELECT batchdedup.create_target(t, merge => '{"volume": "sum"}') FROM unnest('{bar,part}'::regclass[]) t;
-- Rows of a writer: by COPY, and in chunks 1 and 2. Days repeat.
CREATE FUNCTION copied(w int) RETURNS SETOF bar LANGUAGE sql AS
  $$ SELECT 's' || w, 1 + i % 500, i, 1 FROM generate_series(1, 1200) i $$;
CREATE FUNCTION chunk(w int, no int) RETURNS bar[] LANGUAGE sql AS
  $$ SELECT array_agg(ROW('s' || (w % 4 + 1), i, no * 1000 + i, 10)::bar) FROM generate_series(1, 50) i $$;
SQL

my $strays = 0;

sub start_again
{
	$node->start;
	$strays = stray_files();
	return;
}

# ---------- the program of a client, which may be repeated from anywhere ----------

sub writer_program
{
	my ($w, $attach) = @_;
	my $bound = $attach ? "'FOR VALUES IN (''s$w'')'" : 'NULL';
	my $rows = $attach ? "SELECT * FROM copied($w) LIMIT 500" : "SELECT * FROM copied($w)";
	my $chunk = $attach
	  ? "SELECT batchdedup.write_chunk(:'batch', 'w$w', 1, ARRAY(SELECT ROW('s$w', 1000 + i, i, i)::part FROM generate_series(1, 50) i))"
	  : "SELECT batchdedup.write_chunk(:'batch', 'w$w', 2, chunk($w, 2)), batchdedup.write_chunk(:'batch', 'w$w', 1, chunk($w, 1))";
	return <<"SQL";
SELECT coalesce((SELECT status = 'finalized' FROM batchdedup.import_instance WHERE batch_id = :'batch' AND instance = 'w$w'), false) AS done \\gset
\\if :done
\\else
SELECT batchdedup.create_writer(:'batch', 'w$w', $bound, restart => true) AS writer \\gset
INSERT INTO :writer $rows;
$chunk;
SELECT batchdedup.finalize_instance(:'batch', 'w$w');
\\endif
SQL
}

sub prepare_program
{
	my ($name, $attach, $point) = @_;
	my ($table, $publish) = $attach ? ('part', 'attach') : ('bar', 'upsert');
	return "\\set ON_ERROR_STOP 1\nSET batchdedup.debug_point = '" . ($point // '') . "';\n"
	  . "SELECT batchdedup.prepare_import('$name', '$table', 4, '$publish') AS batch \\gset\n";
}

sub program
{
	my ($name, $attach, $point) = @_;
	return prepare_program($name, $attach, $point) . join('', map { writer_program($_, $attach) } 1 .. 4)
	  . "SELECT batchdedup.finalize_batch(:'batch');\n";
}

# 'ok', 'lost' or what was wrong.
sub run_program
{
	my ($program) = @_;
	my ($out, $err) = ('', '');
	my $code = $node->psql('postgres', $program, stdout => \$out, stderr => \$err);
	return 'ok' if $code == 0 && $err eq '';
	return $code == 2 || $err =~ /server closed the connection|terminating connection|crash of another/ ? 'lost' : $err;
}

# ---------- what must be there ----------

# By plain SQL: instances in the order w1 ... w4, COPY first, then chunks.
sub expect_upserts
{
	sql(<<'SQL');
TRUNCATE expected;
INSERT INTO expected SELECT * FROM before;
DO $$
DECLARE r bar;
BEGIN
  FOR w IN 1..4 LOOP
    FOR r IN SELECT * FROM copied(w) UNION ALL SELECT * FROM unnest(chunk(w, 1)) UNION ALL SELECT * FROM unnest(chunk(w, 2)) LOOP
      INSERT INTO expected VALUES (r.*) ON CONFLICT (symbol, day)
        DO UPDATE SET close = EXCLUDED.close, volume = expected.volume + EXCLUDED.volume;
    END LOOP;
  END LOOP;
END $$;
SQL
	return;
}

sub begin_anew
{
	sql("SELECT batchdedup.flush(); TRUNCATE bar; INSERT INTO bar SELECT * FROM before");
	sql("DROP TABLE IF EXISTS part_w1, part_w2, part_w3, part_w4");
	return;
}

sub differences
{
	return sql("SELECT count(*) FROM ((TABLE bar EXCEPT ALL TABLE expected) UNION ALL (TABLE expected EXCEPT ALL TABLE bar)) d");
}

sub check
{
	my ($name, $import, $attach) = @_;
	my $rows = $attach ? 4 * 550 : 4 * 1300;
	is(sql("SELECT count(*), max(rows) FROM batchdedup.import_completed WHERE name = '$import'"), "1|$rows", "$name: one record");
	$attach
	  ? is(sql('SELECT count(*), count(DISTINCT (symbol, day)), count(DISTINCT tableoid) FROM part'), "$rows|$rows|4", "$name: all rows once")
	  : is(differences(), 0, "$name: every row as by plain SQL");
	is(staging() . ' ' . stray_files(), "0 $strays", "$name: nothing is left behind");
	is(sql("SELECT status FROM batchdedup.batch_row WHERE name = '$import'"), 'completed', "$name: the batch is completed");
	return;
}

sub nothing_is_seen
{
	my ($name, $attach) = @_;
	return $attach
	  ? is(sql('SELECT count(*) FROM part'), 0, "$name: nothing is seen")
	  : is(sql('SELECT count(*) FROM ((TABLE bar EXCEPT ALL TABLE before) UNION ALL (TABLE before EXCEPT ALL TABLE bar)) d'),
		0, "$name: nothing is seen");
}

# ---------- the end at each step ----------

expect_upserts();
for my $attach (0, 1)
{
	my $kind = $attach ? 'attach' : 'upsert';
	for my $point (qw(prepared writer chunk closed finalized sorted part written published))
	{
		next if $attach && $point !~ /closed|written|published/;
		my $name = "$kind, $point";
		begin_anew();
		is(run_program(program($name, $attach, "import-$point:kill")), 'lost', "$name: the server ends");
		await_end($node);
		start_again();
		nothing_is_seen($name, $attach) if $point ne 'published';
		is(run_program(program($name, $attach)), 'ok', "$name: repeated");
		is(run_program(program($name, $attach)), 'ok', "$name: and once more");
		check($name, $name, $attach);
	}
	# An answer that nobody got, and a server without power.
	begin_anew();
	is(run_program(program("$kind, power", $attach)), 'ok', "$kind: published");
	power_loss($node);
	start_again();
	check("$kind, power", "$kind, power", $attach);
}

# Aborted: rolled back by the end of the server, and repeated.
begin_anew();
my $half = prepare_program('aborted', 0) . writer_program(1, 0) . writer_program(2, 0);
is(run_program($half), 'ok', 'half an import');
is(staging(), 4, 'has tables');
my $abort = "SELECT batchdedup.abort_batch(id) FROM batchdedup.batch_row WHERE name = 'aborted'";
is(run_program("SET batchdedup.debug_point = 'import-aborted:kill';\n$abort"), 'lost', 'the server ends in abort_batch');
await_end($node);
start_again();
is(staging(), 4, 'nothing has happened');
is(run_program($abort), 'ok', 'aborted');
is(run_program($abort), 'ok', 'aborted once more');
is(staging() . ' ' . stray_files(), "0 $strays", 'nothing is left behind');
nothing_is_seen('aborted');

# ---------- parallel writers, and ends at any time ----------

# From a file, and to files: it goes on while nobody looks.
my $runs = 0;

sub psql_start
{
	my ($program) = @_;
	my $file = "$PostgreSQL::Test::Utils::tmp_check/run" . ++$runs;
	append_to_file("$file.sql", $program);
	return start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-f', "$file.sql" ],
		'<', '/dev/null', '>', "$file.out", '2>', "$file.err");
}

sub run_writers
{
	my ($name) = @_;
	my @runs = map { psql_start(prepare_program($name, 0) . writer_program($_, 0)) } 1 .. 4;
	return scalar grep { !finish($_) } @runs;
}

# The order of instances is not known here, and so neither is who is last: only
# the sums are compared.
sub sums
{
	my ($table) = @_;
	return sql("SELECT count(*), sum(volume), min(volume), max(volume) FROM $table");
}

begin_anew();
is(run_writers('parallel'), 0, 'four writers at once');
is(run_program(program('parallel', 0)), 'ok', 'their rows are published');
is(sums('bar'), sums('expected'), 'the sums are right');
is(staging() . ' ' . stray_files(), "0 $strays", 'nothing is left behind');

srand(my $seed = $ENV{SEED} // 42);
for my $round (1 .. 2)
{
	begin_anew();
	for my $try (1 .. 4)
	{
		my @runs = map { psql_start(prepare_program("random $round", 0) . writer_program($_, 0)) } 1 .. 4;
		sleep rand 0.3;
		power_loss($node);
		finish($_) for @runs;
		start_again();
	}
	my @runs = map { psql_start(prepare_program("random $round", 0) . writer_program($_, 0)) } 1 .. 4;
	finish($_) for @runs;
	my $run = psql_start(program("random $round", 0));
	sleep rand 0.2;
	power_loss($node);
	finish($run);
	start_again();
	is(run_program(program("random $round", 0)), 'ok', "round $round (SEED=$seed): published in the end");
	is(sums('bar'), sums('expected'), "round $round: the sums are right");
	is(staging() . ' ' . stray_files(), "0 $strays", "round $round: nothing is left behind");
}

# ---------- progress ----------

begin_anew();
sub progress { return [ split /\|/, sql("SELECT phase, instances_done, rows, bytes, done, total, rate > 0, eta IS NOT NULL FROM batchdedup.stat_progress WHERE name = 'progress'") ] }
sql("SELECT batchdedup.prepare_import('progress', 'bar', 2)");
my @seen = (progress());
my $call = sub { sql("SELECT batchdedup.$_[0](id$_[1]) FROM batchdedup.batch_row WHERE name = 'progress'") };
$call->('create_writer', ", 'a'");
my $writer = sql("SELECT writer FROM batchdedup.import_instance n JOIN batchdedup.batch_row b ON b.id = n.batch_id WHERE b.name = 'progress'");
my $copy = $node->background_psql('postgres');
$copy->query_until(qr/copied/, "BEGIN;\nINSERT INTO $writer SELECT * FROM copied(1);\n\\echo copied\n");
push @seen, progress();
is($seen[1][3] > 0, 1, 'bytes that are not committed are seen');
$copy->query_until(qr/committed/, "COMMIT;\n\\echo committed\n");
$copy->quit;
push @seen, progress();
$call->('write_chunk', ", 'b', $_, chunk(1, $_)"), push @seen, progress() for 1 .. 2;
$call->('finalize_instance', ", '$_'"), push @seen, progress() for qw(a b);
is("@{$seen[-1]}[0 .. 2]", 'loading 2 1300', 'all is loaded');
for my $point (qw(sorted part written))
{
	my $run = psql_start("SET batchdedup.debug_point = 'import-$point:wait';\nBEGIN;\n"
		  . "SELECT batchdedup.finalize_batch(id) FROM batchdedup.batch_row WHERE name = 'progress';\n"
		  . ($point eq 'written' ? 'COMMIT' : 'ROLLBACK'));
	wait_until("count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
	my $now = progress();
	is("@$now[0, 2, 5, 6]", 'publishing 1300 2600 t', "$point: publishing is seen") if $point ne 'written';
	is($now->[4], $point eq 'sorted' ? 1950 : 2600, "$point: so far") if $point ne 'written';
	push @seen, $now if $point ne 'written';
	sql('SELECT debug_release()');
	is(finish($run), 1, "$point: it goes on");
	is(sql("SELECT count(*) FROM batchdedup.stat_progress_internal() WHERE kind = 'import'"), 0, "$point: and is not seen any more");
}
is(sql("SELECT count(*) FROM batchdedup.stat_progress WHERE kind = 'import'"), 0, 'nothing is going on');
for my $column (1 .. 4)
{
	my @values = map { $_->[$column] } @seen;
	is("@values", join(' ', sort { $a <=> $b } @values), "column $column never goes back");
}

# A flush that waits for a row.
begin_anew();
my $lock = $node->background_psql('postgres');
$lock->query_until(qr/locked/, "BEGIN;\nSELECT count(*) FROM (SELECT FROM bar WHERE symbol = 's1' AND day = 1 FOR UPDATE) l;\n\\echo locked\n");
sql("SELECT batchdedup.upsert(ARRAY[ROW('s1', 1, 1, 1), ROW('s1', 2, 1, 1)]::bar[])");
my $flush = psql_start("SELECT batchdedup.flush('bar')");
await("count(*) = 1 FROM batchdedup.stat_progress WHERE (kind, phase, target, done, total) = ('flush', 'applying', 'bar'::regclass, 0, 2)",
	'a flush is seen');
$lock->quit;
is(finish($flush), 1, 'it goes on');
wait_until("count(*) = 0 FROM batchdedup.stat_progress WHERE kind = 'flush'");

# A process that is ended, and an error, leave nothing.
begin_anew();
is(run_program(prepare_program('ended', 0) . join('', map { writer_program($_, 0) } 1 .. 4)), 'ok', 'another import');
is(run_program("SET batchdedup.debug_point = 'import-part:exit';\nSELECT batchdedup.finalize_batch(id) FROM batchdedup.batch_row WHERE name = 'ended'"),
	'lost', 'its process ends');
like(run_program("SET batchdedup.debug_point = 'import-part:error';\nSELECT batchdedup.finalize_batch(id) FROM batchdedup.batch_row WHERE name = 'ended'"),
	qr/debug point/, 'its publication fails');
wait_until("count(*) = 0 FROM batchdedup.stat_progress_internal() WHERE kind = 'import'");
nothing_is_seen('ended');
is(run_program("SELECT batchdedup.finalize_batch(id) FROM batchdedup.batch_row WHERE name = 'ended'"), 'ok', 'and then succeeds');
is(differences(), 0, 'every row as by plain SQL');

# ---------- age ----------

sql("SELECT batchdedup.prepare_import('old', 'bar', 1)");
is(sql("SELECT batchdedup.expire_imports('1 hour')"), 0, 'too young');
sql("SELECT batchdedup.create_writer(id, 'a') FROM batchdedup.batch_row WHERE name = 'old'");
$writer = sql("SELECT writer FROM batchdedup.import_instance n JOIN batchdedup.batch_row b ON b.id = n.batch_id WHERE b.name = 'old'");
$copy = $node->background_psql('postgres');
$copy->query_until(qr/copied/, "BEGIN;\nINSERT INTO $writer SELECT * FROM copied(1);\n\\echo copied\n");
is(sql("SELECT batchdedup.expire_imports('-1 second')"), 0, 'somebody is loading');
$copy->query_until(qr/committed/, "COMMIT;\n\\echo committed\n");
$copy->quit;
is(staging(), 2, 'its tables are there');
is(sql("SELECT batchdedup.expire_imports('-1 second')"), 1, 'expired');
is(staging() . ' ' . stray_files(), "0 $strays", 'nothing is left behind');

# ---------- a dump ----------

sql("SELECT batchdedup.prepare_import('dumped', 'bar', 1)");
sql("SELECT batchdedup.create_writer(id, 'a') FROM batchdedup.batch_row WHERE name = 'dumped'");
$writer = sql("SELECT writer FROM batchdedup.import_instance n JOIN batchdedup.batch_row b ON b.id = n.batch_id WHERE b.name = 'dumped'");
sql("INSERT INTO $writer VALUES ('dump', 1, 1, 1)");
sql("SELECT batchdedup.write_chunk(id, 'a', 1, ARRAY[ROW('dump', 1, 2, 2)]::bar[]) FROM batchdedup.batch_row WHERE name = 'dumped'");
my $dump = $node->data_dir . '/dump.sql';
$node->command_ok([ 'pg_dump', '-f', $dump, $node->connstr('postgres') ], 'dumped');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-f', $dump, $node->connstr('restored') ], 'restored');
is($node->safe_psql('restored', <<'SQL'), "t\n2\n2|3", 'an import goes on after a restore');
SELECT batchdedup.finalize_instance(id, 'a') FROM batchdedup.batch_row WHERE name = 'dumped';
SELECT batchdedup.finalize_batch(id) FROM batchdedup.batch_row WHERE name = 'dumped';
SELECT close, volume FROM bar WHERE symbol = 'dump';
SQL

done_testing();
