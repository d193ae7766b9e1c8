package RandomHunt;

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
use Storable qw(dclone);
use Time::HiRes qw(time);
use Test::More;

use RandomShrink;

my $max_failures = $ENV{BDD_MAX_FAILURES} // 3;
my $shrink_seconds = $ENV{BDD_SHRINK_SECONDS} // 60;

# The handles of Test::Utils take bytes only.
sub say_it { return diag(encode_utf8(join('', @_))); }

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
	my ($runner, $program, $kind) = @_;
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
	my ($runner, $program, $failure, $to_text) = @_;
	my $where = sub { $_[0]{kind} . (defined $_[0]{step} ? " at step $_[0]{step}" : '') };
	say_it("seed $program->{seed} ($program->{kind}): " . $where->($failure) . "\n$failure->{text}");
	my ($small, $last) = smaller_program($runner, $program, $failure->{kind});
	say_it($small ? 'the smallest program found:' : 'it does not fail again; the program:');
	say_it($to_text->($small // $program));
	say_it($where->($last) . "\n$last->{text}") if $last;
	say_it("again: BDD_SEED=$program->{seed}");
	return;
}

# runner, generate => code that gets a seed, to_text => code that gets a
# program, programs => how many, what => the test's name. Returns how many ran.
sub hunt
{
	my (%args) = @_;
	my $runner = $args{runner};
	my $programs = $ENV{BDD_PROGRAMS} // $args{programs};
	my ($first, $last) = ($ENV{BDD_SEED} // "1-$programs") =~ /^(\d+)(?:-(\d+))?$/ or BAIL_OUT('BDD_SEED: a number, or two with a hyphen');
	$last //= $first;
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
	my $count = $runner->{count};
	note(sprintf('%d programs in %.0f s', $ran, time() - $start));
	note(join(', ', map { "$_ $count->{$_}" } sort keys %$count));
	is($failures, 0, "$ran random programs (seeds $first to $last) $args{what}");
	return $ran;
}

1;
