# Random programs in which things go wrong: DDL, also in transactions that are
# rolled back, between the statements of other sessions; rows that the table
# refuses; targets that are paused, direct, or lack their index; workers and
# writers that are terminated; restarts. Nothing that was committed may be
# missing: it is in the table, superseded, or in batchdedup.dead_letter.
#
#   BDD_SEED=4711 prove ... t/012_random_trouble.pl      one program again
#   BDD_SEED=100000-199999 prove ...                     many others
#   BDD_KIND=ddl                                        or bad, foreign: one kind only
#   BDD_ALL=1                                           also what is known to fail
#   BDD_PROGRAMS, BDD_MAX_FAILURES, BDD_SHRINK_SECONDS, BDD_PRINT as in 010
#
# The parts: RandomTrouble (the generator, and what each step does), RandomForeign
# (the same for two tables with a foreign key) and RandomTroubleRunner (the
# server, and what must come out).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Storable qw(dclone);
use Time::HiRes qw(time);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RandomShrink;
use RandomTrouble;
use RandomTroubleRunner;

my $max_failures = $ENV{BDD_MAX_FAILURES} // 3;
my $shrink_seconds = $ENV{BDD_SHRINK_SECONDS} // 60;
my $programs = $ENV{BDD_PROGRAMS} // 250;
my ($first, $last) = ($ENV{BDD_SEED} // "1-$programs") =~ /^(\d+)(?:-(\d+))?$/ or BAIL_OUT('BDD_SEED: a number, or two with a hyphen');
$last //= $first;

my $node = PostgreSQL::Test::Cluster->new('trouble');
$node->init;
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'\nautovacuum_naptime = 5s\nbatchdedup.retry_backoff = 20ms\nbatchdedup.retry_limit = 1000");
$node->start;
my $runner = RandomTroubleRunner->new(node => $node);

# Rows and columns that are not needed go, one by one.
sub smaller_rows
{
	my ($program, $accept, $deadline) = @_;
	for my $i (0 .. $#{ $program->{steps} })
	{
		for my $r (reverse 0 .. $#{ $program->{steps}[$i]{rows} // [] })
		{
			for my $what ('row', sort keys %{ $program->{steps}[$i]{rows}[$r]{v} // {} })
			{
				last if time() > $deadline;
				my $copy = dclone($program);
				my $rows = $copy->{steps}[$i]{rows};
				next if $what eq 'row' && @$rows == 1;
				$what eq 'row' ? splice(@$rows, $r, 1) : delete $rows->[$r]{v}{$what};
				next unless $accept->($copy);
				$program = $copy;
				last if $what eq 'row';
			}
		}
	}
	return $program;
}

sub smaller_program
{
	my ($program, $kind) = @_;
	my $deadline = time() + $shrink_seconds;
	my $last;
	my $accept = sub {
		for (1 .. 3)
		{
			my $failure = $runner->run($_[0]) or next;
			return $last = $failure if $failure->{kind} eq $kind;
		}
		return 0;
	};
	return (undef, undef) unless $accept->($program);
	$program = RandomShrink::drop_steps($program, $accept, $deadline);
	$program = smaller_rows($program, $accept, $deadline);
	return ($program, $last);
}

sub report
{
	my ($program, $failure) = @_;
	my $where = sub { $_[0]{kind} . (defined $_[0]{step} ? " at step $_[0]{step}" : '') };
	diag("seed $program->{seed} ($program->{kind}): " . $where->($failure) . "\n$failure->{text}");
	my ($small, $last) = smaller_program($program, $failure->{kind});
	diag($small ? 'the smallest program found:' : 'it does not fail again; the program:');
	diag(RandomTrouble::to_text($small // $program));
	diag($where->($last) . "\n$last->{text}") if $last;
	diag("again: BDD_SEED=$program->{seed}");
	return;
}

my ($failures, $ran) = (0, 0);
my $start = time();
for my $seed ($first .. $last)
{
	my $program = RandomTrouble::generate($seed, $ENV{BDD_KIND});
	diag("seed $seed\n" . RandomTrouble::to_text($program)) if $ENV{BDD_PRINT};
	my $failure = $runner->run($program);
	$ran++;
	next unless $failure;
	report($program, $failure);
	last if ++$failures >= $max_failures;
}
my $count = $runner->{count};
note(sprintf('%d programs in %.0f s', $ran, time() - $start));
note(join(', ', map { "$_ $count->{$_}" } sort keys %$count));
is($failures, 0, "$ran random programs (seeds $first to $last) lose nothing");

$runner->disconnect;
$node->stop;
done_testing();
