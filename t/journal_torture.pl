# Eight writers, and a server that is killed again and again: all of it, one of
# its processes, while rows are published, applied, or replayed. After a while
# each row of each writer must be as that writer knows it: see Torture.pm.
#
# TORTURE_MINUTES=n goes on for n minutes (make torture MINUTES=n), and
# TORTURE_SEED=n repeats a run, as far as it is not a matter of timing. TORTURE_REPORT
# names a file for what happened.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use Torture;
use PowerLoss qw(start_with_small_segments power_loss children_of);
use Server qw($node sql);

use constant WRITERS => 8;

my $seed = $ENV{TORTURE_SEED} || time % 1_000_000 + $$ * 7 | 0;
my $seconds = ($ENV{TORTURE_MINUTES} || 0) * 60 || 30;
my $roll = Torture::dice($seed, 4711);
diag("TORTURE_SEED=$seed, $seconds seconds");

start_with_small_segments('torture', <<'CONF');
batchdedup.buffer_size = '32MB'
batchdedup.flush_interval = '200ms'
restart_after_crash = on
max_wal_size = '8MB'
checkpoint_timeout = '30s'
CONF

sql($Torture::setup);

my $dsn = 'dbi:Pg:dbname=postgres;host=' . $node->host . ';port=' . $node->port;
my @writers = map { { w => $_, next => 1, may_be => [ {} ] } } 0 .. WRITERS - 1;
my (%kills, %ends);
my $log_directory = PostgreSQL::Test::Utils::tempdir();

# ---------- writers ----------

my @pids;

sub start_writers
{
	foreach my $writer (@writers)
	{
		my $file = "$log_directory/$writer->{w}";
		unlink $file;
		open my $log, '>>', $file or die "$file: $!";
		my $pid = fork // die "fork: $!";
		if ($pid == 0)
		{
			eval { Torture::write_on($dsn, $log, $seed, $writer->{w}, $writer->{next}) };
			syswrite $log, "X 0 $@\n";
			POSIX::_exit(1);
		}
		push @pids, $pid;
	}
	return;
}

# They end when they lose their connection.
sub await_writers
{
	my $until = time + 90;
	foreach my $pid (splice @pids)
	{
		while (waitpid($pid, POSIX::WNOHANG()) == 0)
		{
			BAIL_OUT("writer $pid does not end") if time > $until;
			sleep 0.01;
		}
	}
	foreach my $writer (@writers)
	{
		my $log = slurp_file("$log_directory/$writer->{w}");
		BAIL_OUT("writer $writer->{w}: $1") if $log =~ /^X 0 (.*)/m;
		Torture::follow($writer, $log, $seed, \%ends);
	}
	return;
}

# ---------- kills ----------

# A process whose title is like that; undef: there is none.
sub find_process
{
	my ($title) = @_;
	my %children = children_of($node->{_pid});
	my @found = sort { $a <=> $b } grep { $children{$_} =~ $title } keys %children;
	return @found ? $found[ $roll->(scalar @found) ] : undef;
}

sub kill_process
{
	my ($title) = @_;
	my $pid = find_process($title) or return 0;
	return kill 'KILL', $pid;
}

my %ways = (
	'power loss' => [ 8, sub { power_loss($node); $node->start; 1 } ],
	'immediate' => [ 2, sub { $node->stop('immediate'); $node->start; 1 } ],
	'fast' => [ 1, sub { $node->stop('fast'); $node->start; 1 } ],
	'backend' => [ 3, sub { kill_process(qr/postgres: .*(?:SELECT|COMMIT|idle|INSERT|BEGIN)/) } ],
	'worker' => [ 4, sub { kill_process(qr/batchdedup worker/) } ],
	'launcher' => [ 2, sub { kill_process(qr/batchdedup launcher/) } ],
	'checkpointer' => [ 1, sub { kill_process(qr/checkpointer/) } ],
	'walwriter' => [ 1, sub { kill_process(qr/walwriter/) } ]);

sub kill_something
{
	my @choices = map { ($_) x $ways{$_}[0] } sort keys %ways;
	for (;;)
	{
		my $way = $choices[ $roll->(scalar @choices) ];
		next unless $ways{$way}[1]->();
		$kills{$way}++;
		return;
	}
}

# Until the server takes connections again.
sub connect_again
{
	my $until = time + 60;
	while (time < $until)
	{
		my $dbh = eval { DBI->connect($dsn, undef, undef, { RaiseError => 1, PrintError => 0, AutoCommit => 1 }) };
		return $dbh if $dbh;
		sleep 0.02;
	}
	return BAIL_OUT('the server does not come back');
}

# What goes on beside the writers.
sub disturb
{
	my @statements = (
		'CHECKPOINT', 'SELECT pg_switch_wal()', "SELECT batchdedup.flush('totals', 'shared')",
		"SELECT batchdedup.pause('newest')", "SELECT batchdedup.resume('newest')",
		"SELECT batchdedup.pause('totals')", "SELECT batchdedup.resume('totals')",
		'ALTER TABLE totals ADD COLUMN IF NOT EXISTS x int', 'ALTER TABLE totals DROP COLUMN IF EXISTS x',
		'SELECT pg_terminate_backend(pid) FROM batchdedup.stat_worker',
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'batchdedup launcher'");
	my $dbh = eval { DBI->connect($dsn, undef, undef, { RaiseError => 1, PrintError => 0, AutoCommit => 1 }) } or return;
	eval {
		$dbh->do("SET statement_timeout = '5s'; SET client_min_messages = error");
		$dbh->do($statements[ $roll->(scalar @statements) ]);
	};
	return eval { $dbh->disconnect };
}

# ---------- rounds ----------

sub compare
{
	my ($round) = @_;
	my $dbh = connect_again();
	$dbh->do("SET client_min_messages = error; SELECT batchdedup.resume('newest'); SELECT batchdedup.resume('totals')");
	$dbh->do('SELECT batchdedup.flush()');
	my $there = Torture::rows_there($dbh);
	my $wrong = join '', map { Torture::difference($_, $there->{ $_->{w} } // {}) } @writers;
	my $letters = $dbh->selectrow_array('SELECT count(*) FROM batchdedup.dead_letter');
	$dbh->disconnect;
	return 1 if $wrong eq '' && $letters == 0;
	fail("round $round");
	diag("$letters dead letters\n", substr($wrong, 0, 3000));
	return 0;
}

my $end = time + $seconds;
my $rounds = 0;
my $right = 1;
while ($right && time < $end)
{
	$rounds++;
	# Up to three kills; after the first, journals of several lives are replayed.
	for my $kill (0 .. $roll->(3))
	{
		connect_again()->disconnect;
		start_writers();
		# Sometimes while the journal is read, or what was in it is applied.
		sleep $kill && $roll->(2) ? $roll->(300) / 1000 : 0.2 + $roll->(1000) / 1000;
		disturb() if $roll->(2) == 0;
		sleep $roll->(100) / 1000;
		kill_something();
		await_writers();
	}
	$right = compare($rounds);
}
my $killed = "$rounds rounds: " . join ', ', map { "$_ $kills{$_}" } sort keys %kills;
my $written = "$ends{A} transactions committed, " . ($ends{U} // 0) . ' with an unknown end, ' . ($ends{E} // 0) . ' refused';
ok($right, $killed);
ok($ends{A} > 1000, $written);
append_to_file($ENV{TORTURE_REPORT}, "seed $seed\n$killed\n$written\n") if $ENV{TORTURE_REPORT};
foreach my $writer (@writers)
{
	note("refused: $_: $writer->{refused}{$_}") for sort keys %{ $writer->{refused} // {} };
}
unlike(slurp_file($node->logfile), qr/TRAP:|PANIC:/, 'no assertion failed, no panic');

$node->stop;
done_testing();
