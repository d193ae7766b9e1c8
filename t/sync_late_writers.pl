# Syncs beside 16 writers that take the values of the cursor early and commit
# them late, or never: after the last run the target is what the source is, with
# no lag. The query that everybody writes first loses rows under the same load.
#
# SYNC_RUNS=n does n runs of a second or so, SYNC_SEED=n repeats what the writers
# do, as far as it is not a matter of timing.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);
use Server qw($node start_server);

use constant { WRITERS => 16, TRANSACTIONS => 14 };

my $runs = $ENV{SYNC_RUNS} || 8;
my $seed = $ENV{SYNC_SEED} || time % 1_000_000 + $$ * 7 | 0;
diag("SYNC_SEED=$seed, $runs runs");
srand($seed);

start_server('sync_writers', <<'CONF');
wal_level = minimal
max_prepared_transactions = 40
max_connections = 60
deadlock_timeout = '20ms'
autovacuum = off
log_statement = none
CONF

my $admin = $node->background_psql('postgres');
$admin->set_query_timer_restart;
sub sql { return $admin->query_safe($_[0]) }

# Kinds of cursors: the column, and what a writer sets it to; of a source whose
# changes are captured by a trigger that is any time.
my %cursor = (
	now      => 'now()',
	clock    => 'clock_timestamp()',
	sequence => "nextval('source_sequence_at_seq')",
	trigger  => "now() - random() * interval '10 days'");
my @kinds = sort keys %cursor;

# Kinds that a transaction may write: a captured source not in one that is prepared.
our @writable = @kinds;

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE flag (run int);
INSERT INTO flag VALUES (0);
CREATE TABLE source_now (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v int NOT NULL);
CREATE TABLE source_clock (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), v int NOT NULL);
CREATE TABLE source_sequence (id int PRIMARY KEY, at bigserial, v int NOT NULL);
CREATE TABLE source_trigger (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now() - random() * interval '10 days', v int NOT NULL);
-- The naive pipeline: what is behind the last row that was read.
CREATE PROCEDURE naive(kind text, run int) LANGUAGE plpgsql AS $$
DECLARE
	watermark text;
	stopped bool;
	found int;
	next text;
BEGIN
	LOOP
		stopped := (SELECT f.run <> $2 FROM flag f);
		LOOP
			EXECUTE format('WITH slice AS (SELECT * FROM source_%1$s WHERE $1 IS NULL OR at > $1::%2$s ORDER BY at LIMIT 7), '
				'written AS (INSERT INTO naive_%1$s SELECT DISTINCT ON (id) * FROM slice ORDER BY id, at DESC '
				'ON CONFLICT (id) DO UPDATE SET at = EXCLUDED.at, v = EXCLUDED.v) '
				'SELECT count(*), max(at)::text FROM slice', kind, CASE kind WHEN 'sequence' THEN 'bigint' ELSE 'timestamptz' END)
				INTO found, next USING watermark;
			watermark := coalesce(next, watermark);
			COMMIT;
			EXIT WHEN found = 0;
		END LOOP;
		EXIT WHEN stopped;
	END LOOP;
END $$;
SQL
foreach my $kind (@kinds)
{
	my $cursor = $kind eq 'trigger' ? "capture => 'trigger'" :
	  sprintf("cursor => 'at', cursor_kind => '%s'", $kind eq 'sequence' ? 'sequence' : 'clock');
	sql("CREATE INDEX ON source_$kind (at, id); CREATE TABLE target_$kind (LIKE source_$kind INCLUDING INDEXES); "
		  . "CREATE TABLE naive_$kind (LIKE source_$kind INCLUDING INDEXES); "
		  . "SET client_min_messages = warning; "
		  . "SELECT batchdedup.create_sync('$kind', 'source_$kind', 'target_$kind', $cursor)");
}

# ---------- what a writer does ----------

sub pick { return $_[ int rand @_ ] }

sub nap { return sprintf 'SELECT pg_sleep(%.4f)', rand() * 0.03 }

# Rows of an update are mostly the writer's own: others' may be locked for long.
sub write_rows
{
	my ($w, $next) = @_;
	my $kind = pick(@writable);
	my $rows = 1 + int rand 5;
	my $v = int rand 1_000_000;
	if (rand() < 0.6 || $$next == 0)
	{
		my $first = $w * 1000 + $$next;
		$$next += $rows;
		return "INSERT INTO source_$kind (id, v) SELECT i, $v FROM generate_series($first, $first + $rows - 1) i";
	}
	my $of = rand() < 0.9 ? $w : int rand WRITERS;
	my $first = $of * 1000 + int rand $$next;
	return "DELETE FROM source_$kind WHERE id BETWEEN $first AND $first + $rows - 1" if $kind eq 'trigger' && rand() < 0.3;
	return "UPDATE source_$kind SET at = $cursor{$kind}, v = $v WHERE id BETWEEN $first AND $first + $rows - 1";
}

# The body of a transaction, as a list of statements.
sub body
{
	my ($w, $next) = @_;
	my @statements;
	push @statements, nap() if rand() < 0.3;
	foreach my $part (0 .. int rand 3)
	{
		my @rows = (write_rows($w, $next), (rand() < 0.5 ? nap() : ()));
		@rows = ("SAVEPOINT s", @rows, rand() < 0.3 ? 'ROLLBACK TO s' : 'RELEASE s') if rand() < 0.2;
		push @statements, @rows;
	}
	push @statements, nap() if rand() < 0.7;
	return @statements;
}

# A transaction; its statements come in messages of their own, or in one with
# those of the next one.
sub transaction
{
	my ($w, $next, $gid) = @_;
	my $roll = rand;
	my $last = rand() < 0.15 ? 'ROLLBACK' : 'COMMIT';
	if ($roll < 0.1)
	{
		local @writable = grep { $_ ne 'trigger' } @kinds;
		return join(";\n", 'BEGIN', body($w, $next), "PREPARE TRANSACTION '$gid'", nap(), "$last PREPARED '$gid'") . ";\n";
	}
	return join(" \\;\n", map { ('BEGIN', body($w, $next), $_) } $last, 'COMMIT') . ";\n" if $roll < 0.3;
	return join(" \\;\n", write_rows($w, $next), nap(), write_rows($w, $next)) . ";\n" if $roll < 0.4;
	return write_rows($w, $next) . ";\n" if $roll < 0.5;
	return join(";\n", 'BEGIN', body($w, $next), $last) . ";\n";
}

sub script_of_writer
{
	my ($w) = @_;
	my $next = 0;
	return join '', map { transaction($w, \$next, "$w $_") } 1 .. TRANSACTIONS;
}

# ---------- runs ----------

my $directory = PostgreSQL::Test::Utils::tempdir();
my $started = 0;

# A session that does what a script says, beside others.
sub start
{
	my ($script) = @_;
	my $file = "$directory/" . ++$started;
	my %session = (file => $file, err => '', out => '');
	append_to_file($file, $script);
	$session{run} = IPC::Run::start([ 'psql', '-qXAt', '-v', 'VERBOSITY=sqlstate', '-d', $node->connstr('postgres'), '-f', $file ],
		'<', '/dev/null', '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# Returns errors other than these.
sub finish
{
	my ($allowed, @sessions) = @_;
	$_->{run}->finish, unlink $_->{file} for @sessions;
	return grep { /ERROR|FATAL/ && !/$allowed/ } map { split /\n/, $_->{err} } @sessions;
}

sub run_until_stopped
{
	my ($kind, $run) = @_;
	return "SET client_min_messages = warning;\n"
	  . "CALL batchdedup.run_sync('$kind', slice_rows => 7);\nSELECT run <> $run AS stopped FROM flag \\gset\n\\if :stopped\n\\q\n\\endif\n" x 2000;
}

sub different
{
	my ($kind, $other) = @_;
	return sql("SELECT count(*) FROM ((TABLE source_$kind EXCEPT TABLE ${other}_$kind) UNION ALL (TABLE ${other}_$kind EXCEPT TABLE source_$kind)) d");
}

my (%rows, %lost, %losing, %wrong);
my @errors;
my ($cursors, $slices) = (0, 0);

sub do_run
{
	my ($run) = @_;
	sql("UPDATE flag SET run = $run; TRUNCATE source_$_, target_$_, naive_$_") for @kinds;
	my @readers = map { start(run_until_stopped($_, $run)), start("CALL naive('$_', $run);\n") } @kinds;
	my @writers = map { start(script_of_writer($_)) } 0 .. WRITERS - 1;
	# A deadlock, and what follows from it.
	push @errors, finish(qr/40P01|25P02|42704/, @writers);
	is(sql("SELECT count(*) FROM pg_prepared_xacts"), 0, "run $run: no transaction is left") if $run == 1;
	sql("UPDATE flag SET run = 0");
	push @errors, finish(qr/^$/, @readers);
	foreach my $kind (@kinds)
	{
		sql("CALL batchdedup.run_sync('$kind', slice_rows => 7)");
		my $different = different($kind, 'target');
		$wrong{$kind}++ if $different > 0;
		diag("run $run, $kind: $different rows differ") if $different > 0;
		$rows{$kind} += sql("SELECT count(*) FROM source_$kind");
		my $lost = sql("SELECT count(*) FROM (TABLE source_$kind EXCEPT TABLE naive_$kind) l");
		$lost{$kind} += $lost;
		$losing{$kind}++ if $lost > 0;
	}
	return;
}

do_run($_) for 1 .. $runs;

is(join("\n", @errors), '', 'no errors');
foreach my $kind (@kinds)
{
	$lost{$kind} //= 0;
	note("$kind: $rows{$kind} rows; naive lost $lost{$kind} in " . ($losing{$kind} // 0) . ' runs');
	is($wrong{$kind} // 0, 0, "$kind: the target is what the source is, in each run");
	cmp_ok($rows{$kind}, '>', 50 * $runs, "$kind: there were rows");
	cmp_ok($lost{$kind}, '>', 0, "$kind: the naive query loses rows");
}
note(sql("SELECT string_agg(format('%s: %s runs, %s slices, %s rows read', sync, n, s, r), '; ' ORDER BY sync) "
	  . "FROM (SELECT sync, count(*) AS n, sum(slices) AS s, sum(rows_read) AS r FROM batchdedup.sync_run GROUP BY 1) x"));
# All the while there was something to read that was complete.
is(sql("SELECT count(*) FROM (SELECT sync FROM batchdedup.sync_run GROUP BY 1 HAVING count(*) > 3 * $runs) x"), 4, 'there were runs beside the writers');
is(sql("SELECT count(*) FROM batchdedup.sync_dead_letter"), 0, 'no row was refused');
is(sql("SELECT count(*) FROM batchdedup.sync_run WHERE error IS NOT NULL OR finished_at IS NULL"), 0, 'no run failed');

$admin->quit;
$node->stop;
done_testing();
