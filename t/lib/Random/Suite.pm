package Random::Suite;

# Runs one random program after the other, and reports those that fail, made as
# small as possible. A runner has run(program), which returns undef or {kind,
# step, text}, and counts of steps in {count}.
#
#   BDD_SEED=4711          one program again; 100000-199999: many others
#   BDD_PROGRAMS=n         how many programs, from seed 1
#   BDD_MAX_FAILURES=n     stop after so many (3)
#   BDD_SHRINK_SECONDS=n   how long to look for a smaller program (60)
#   BDD_PRINT=1            print the programs before they run

use strict;
use warnings;
use Encode qw(encode_utf8);
use Random::Shrink;
use Server qw($node start_server);
use Test::More;
use Time::HiRes qw(time);

my $max_failures = $ENV{BDD_MAX_FAILURES} // 3;
my $shrink_seconds = $ENV{BDD_SHRINK_SECONDS} // 60;

# The handles of Test::Utils take bytes only.
sub say_it { return diag(encode_utf8(join('', @_))); }

# A server of the tests' own, with these settings besides.
sub server
{
	my ($name, @settings) = @_;
	return start_server($name, "autovacuum_naptime = 5s\nbatchdedup.retry_backoff = 20ms", @settings);
}

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
	return () unless $shrink_seconds;
	$runner->set_patience(2) if $kind eq 'error 57014';
	my $slow = $kind =~ /^(crash|error 57014)$/;
	my $runs = runs_to_fail($runner, $program, $kind, $slow ? 2 : 10) or return ();
	my ($last, %other);
	my $small = Random::Shrink::shrink(
		$program,
		seconds => $shrink_seconds * ($slow ? 4 : 1),
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
	$runner->set_patience(20) if $kind eq 'error 57014';
	return ($small, $last, values %other);
}

sub report
{
	my ($runner, $program, $failure, $to_text) = @_;
	my $where = sub { defined $_[0]{step} ? "$_[0]{kind} at step $_[0]{step}" : $_[0]{kind} };
	say_it("seed $program->{seed} ($program->{kind}): " . $where->($failure) . "\n$failure->{text}");
	my ($small, $last, @others) = smaller_program($runner, $program, $failure->{kind});
	say_it($small ? 'the smallest program found:' : 'it does not fail alone; the program:');
	say_it($to_text->($small // $program));
	say_it($where->($last) . "\n$last->{text}") if $last;
	say_it("again: BDD_SEED=$program->{seed}");
	say_it('on the way this failed in another way: ' . $where->($_->[1]) . "\n$_->[1]{text}\n" . $to_text->($_->[0])) for @others;
	say_it($runner->log_tail) if $failure->{kind} eq 'crash';
	return;
}

# ---- the run -----------------------------------------------------------

sub first_and_last_seed
{
	my ($programs) = @_;
	my ($first, $last) = ($ENV{BDD_SEED} // '1-' . ($ENV{BDD_PROGRAMS} // $programs)) =~ /^(\d+)(?:-(\d+))?$/
	  or BAIL_OUT('BDD_SEED: a number, or two with a hyphen');
	return ($first, $last // $first);
}

# runner, generate => code that gets a seed, to_text => code that gets a program,
# programs => how many, what => the test's name, counts => {column of
# stat_target => pattern of what its sum must be}. Stops the server in the end.
sub run
{
	my (%args) = @_;
	my $runner = $args{runner};
	my ($first, $last) = first_and_last_seed($args{programs});
	my ($failures, $ran) = (0, 0);
	my $start = time();
	for my $seed ($first .. $last)
	{
		my $program = $args{generate}->($seed);
		say_it("seed $seed\n" . $args{to_text}->($program)) if $ENV{BDD_PRINT};
		my $failure = $runner->run($program);
		$ran++;
		next unless $failure;
		report($runner, $program, $failure, $args{to_text});
		last if ++$failures >= $max_failures;
	}
	my ($count, $seconds) = ($runner->{count}, time() - $start);
	note(sprintf('%d programs in %.0f s, %.0f per second', $ran, $seconds, $ran / $seconds));
	note(join(', ', map { "$_ $count->{$_}" } sort keys %$count));
	is($failures, 0, "$ran random programs (seeds $first to $last) $args{what}");
	check_counts($runner, %{ $args{counts} // {} }) unless $failures || $ran < 100;
	$runner->disconnect;
	$node->stop;
	return;
}

# Programs that never met the buffer would pass, too.
sub check_counts
{
	my ($runner, %counts) = @_;
	for my $column (sort keys %counts)
	{
		my $sum = $runner->value($runner->dbh(0), "SELECT sum($column) FROM batchdedup.stat_target");
		like($sum, $counts{$column}, "$column: $sum");
	}
	return;
}

1;
