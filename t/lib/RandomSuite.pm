package RandomSuite;

# Runs many random programs and reports those that fail, made as small as
# possible. The environment says which and how many: see random_programs.pl.

use strict;
use warnings;
use Encode qw(encode_utf8);
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RandomProgram;
use RandomRunner;
use RandomShapes qw(shapes);
use RandomShrink;

my $standin = $ENV{BDD_STANDIN};
my $max_failures = $ENV{BDD_MAX_FAILURES} // 3;
my $shrink_seconds = $ENV{BDD_SHRINK_SECONDS} // 60;

sub first_and_last_seed
{
	my $seeds = $ENV{BDD_SEED};
	return (1, $ENV{BDD_PROGRAMS} // $_[0]) unless defined $seeds;
	my ($first, $last) = $seeds =~ /^(\d+)(?:-(\d+))?$/ or BAIL_OUT("BDD_SEED: a number, or two with a hyphen");
	return ($first, $last // $first);
}

sub start_server
{
	my $node = PostgreSQL::Test::Cluster->new('random');
	$node->init;
	$node->append_conf('postgresql.conf', 'wal_level = replica');
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'") unless $standin;
	$node->append_conf('postgresql.conf', "autovacuum_naptime = 5s\nmax_prepared_transactions = 2");
	$node->start;
	return $node;
}

# The handles of Test::Utils take bytes only.
sub say_it { return diag(encode_utf8(join('', @_))); }

# ---- failures ----------------------------------------------------------

# How often a program must run to fail: not every time if a worker's timing
# matters, never if an earlier program is at fault.
sub runs_to_fail
{
	my ($runner, $program, $kind, $tries) = @_;
	my @fails = grep { my $f = $runner->run($program); $f && $f->{kind} eq $kind } 1 .. $tries;
	return @fails == $tries ? 1 : @fails ? 3 * $tries / @fails : 0;
}

sub smaller_program
{
	my ($runner, $program, $kind) = @_;
	$runner->set_patience(2);
	my $slow = $kind =~ /^(crash|error 57014)$/;
	my $runs = runs_to_fail($runner, $program, $kind, $slow ? 2 : 25);
	return (undef, undef) unless $runs;
	my ($last, %other);
	my $small = RandomShrink::shrink(
		$program,
		seconds => $shrink_seconds * ($slow ? 4 : 1),
		is_valid => sub { RandomProgram::is_valid($_[0], $runner->{shape_of}) },
		test => sub {
			my ($candidate) = @_;
			for (1 .. $runs)
			{
				my $failure = $runner->run($candidate) or next;
				return $last = $failure if $failure->{kind} eq $kind;
				$other{ $failure->{kind} } //= [ $candidate, $failure ];
			}
			return 0;
		});
	$runner->set_patience(20);
	return ($small, $last, values %other);
}

sub report
{
	my ($runner, $program, $failure) = @_;
	my $text = sub { RandomProgram::to_text($_[0], $runner->{shape_of}) };
	my $where = sub { defined $_[0]{step} ? "$_[0]{kind} at step $_[0]{step}" : $_[0]{kind} };
	say_it("seed $program->{seed}: " . $where->($failure) . "\n$failure->{text}");
	my ($small, $last, @others) = smaller_program($runner, $program, $failure->{kind});
	say_it($small ? 'the smallest program found:' : 'it does not fail alone; the program:');
	say_it($text->($small // $program));
	say_it($where->($last) . "\n$last->{text}") if $last;
	say_it("again: BDD_SEED=$program->{seed}");
	say_it('on the way this failed in another way: ' . $where->($_->[1]) . "\n$_->[1]{text}\n" . $text->($_->[0])) for @others;
	say_it(log_tail($runner->{node})) if $failure->{kind} eq 'crash';
	return;
}

# What the server said when it went down.
sub log_tail
{
	my ($node) = @_;
	my @lines = grep { /PANIC|TRAP|FATAL|terminated by signal/ } split(/\n/, slurp_file($node->logfile));
	return join("\n", @lines > 10 ? @lines[ -10 .. -1 ] : @lines);
}

# ---- the run -----------------------------------------------------------

sub run_programs
{
	my ($runner, $first, $last, $direct) = @_;
	my ($failures, $ran) = (0, 0);
	for my $seed ($first .. $last)
	{
		my $program = RandomProgram::generate($seed, shapes(), $runner->{shape_of}, $direct);
		say_it("seed $seed\n" . RandomProgram::to_text($program, $runner->{shape_of})) if $ENV{BDD_PRINT};
		my $failure = $runner->run($program);
		$ran++;
		next unless $failure;
		report($runner, $program, $failure);
		last if ++$failures >= $max_failures;
	}
	return ($ran, $failures);
}

# Programs that never met the buffer would pass, too.
sub check_buffer_was_used
{
	my ($dbh) = @_;
	my ($received, $coalesced, $flushes, $failed) = $dbh->selectrow_array(
		'SELECT sum(received), sum(coalesced), sum(flushes), sum(failed_flushes) FROM batchdedup.stat_target');
	note("rows received $received, coalesced $coalesced, flushes $flushes, failed flushes $failed");
	ok($coalesced > 0 && $flushes > 0, 'rows went through the buffer');
	is($failed, 0, 'no flush failed');
	return;
}

# programs: how many by default; direct: also without the buffer.
sub run
{
	my (%args) = @_;
	my ($first, $last) = first_and_last_seed($args{programs});
	my $node = start_server();
	my $runner = RandomRunner->new(
		node => $node,
		any_order => $ENV{BDD_ANY_ORDER},
		standin => $standin,
		extension_sql => $standin ? slurp_file($standin) : 'CREATE EXTENSION batchdedup');

	my $start = time();
	my ($ran, $failures) = run_programs($runner, $first, $last, $args{direct});
	my $seconds = time() - $start;

	my $count = $runner->{count};
	note(sprintf('%d programs in %.0f s, %.0f per second; in %d of them transactions overlap on a key',
		$ran, $seconds, $ran / $seconds, $runner->{overlapping} // 0));
	note(join(', ', map { "$_ $count->{$_}" } sort keys %$count));
	check_buffer_was_used($runner->{sessions}[0]) unless $standin || $failures || $ran < 100;
	is($failures, 0, "$ran random programs (seeds $first to $last) end as plain statements do");

	$runner->disconnect;
	$node->stop;
	return;
}

1;
