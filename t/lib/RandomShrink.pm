package RandomShrink;

# Makes a failing program small: takes out steps as long as it fails in the
# same way, then rows, columns and everything else that is not needed.
#
# test($program) runs a program and says whether it fails as the first one
# did; is_valid($program) whether it still is one. Some failures depend on
# when a worker wakes up; then test() has to try more than once.

use strict;
use warnings;
use List::Util qw(first uniq);
use Storable qw(dclone);
use Time::HiRes qw(time);

# ---- candidates --------------------------------------------------------

# A copy with a change made by code that gets the copy.
sub variant
{
	my ($program, $change) = @_;
	my $copy = dclone($program);
	$change->($copy);
	return $copy;
}

sub without_steps
{
	my ($program, %drop) = @_;
	return variant($program, sub {
			my ($p) = @_;
			$p->{steps} = [ map { $p->{steps}[$_] } grep { !$drop{$_} } 0 .. $#{ $p->{steps} } ];
	});
}

# Pairs such as BEGIN and COMMIT cannot be taken out one by one.
sub pair_candidates
{
	my ($program) = @_;
	my $last = $#{ $program->{steps} };
	return () if $last > 20;
	my @all;
	for my $i (0 .. $last)
	{
		for my $j ($i + 1 .. $last)
		{
			push @all, sub { without_steps($program, $i => 1, $j => 1) };
		}
	}
	return @all;
}

# Lists in the program from which elements can go: paths as code references,
# because the candidates are copies.
sub part_lists
{
	my ($parts, $reach) = @_;
	my @lists = ([ $reach, scalar @$parts ]);
	for my $n (0 .. $#$parts)
	{
		my $part = $parts->[$n];
		my $get = sub { $reach->(@_)->[$n] };
		push @lists, $part->{op} eq 'sub'
		  ? part_lists($part->{parts}, sub { $get->(@_)->{parts} })
		  : [ sub { $get->(@_)->{rows} }, scalar @{ $part->{rows} } ];
	}
	return @lists;
}

sub lists
{
	my ($program) = @_;
	my @lists = ([ sub { $_[0]{initial} }, scalar @{ $program->{initial} } ]);
	for my $n (0 .. $#{ $program->{steps} })
	{
		my $step = $program->{steps}[$n];
		push @lists, [ sub { $_[0]{steps}[$n]{rows} }, scalar @{ $step->{rows} } ] if $step->{rows};
		push @lists, part_lists($step->{parts}, sub { $_[0]{steps}[$n]{parts} }) if $step->{parts};
	}
	return @lists;
}

# A spoiled statement needs the row that spoils it: is_valid() cannot know.
sub element_candidates
{
	my ($program) = @_;
	my @all;
	for my $list (lists($program))
	{
		my ($reach, $n) = @$list;
		for my $i (reverse 0 .. $n - 1)
		{
			next if $n == 1 && $reach->($program) != $program->{initial};
			next if $reach->($program)->[$i]{bad};
			push @all, sub { variant($program, sub { splice(@{ $reach->(@_) }, $i, 1) }) };
		}
	}
	return @all;
}

# Every statement that writes rows, also inside of blocks.
sub writers
{
	my @found;
	for my $step (@_)
	{
		push @found, $step->{parts} ? writers(@{ $step->{parts} }) : $step->{rows} ? $step : ();
	}
	return @found;
}

sub column_candidates
{
	my ($program) = @_;
	my @all;
	my $n = 0;
	for my $writer (writers(@{ $program->{steps} }))
	{
		my $w = $n++;
		my $find = sub { (writers(@{ $_[0]{steps} }))[$w] };
		next if $writer->{op} eq 'delete' || $writer->{bad};
		my $typed = RandomModel::is_typed($writer->{form});
		for my $name (uniq map { sort keys %{ $_->{v} } } @{ $writer->{rows} })
		{
			# a typed row has every column, but it may be NULL
			push @all, sub { variant($program, sub {
					for my $row (@{ $find->(@_)->{rows} })
					{
						$typed ? ($row->{v}{$name} = undef) : delete $row->{v}{$name};
					}
			}) } if !$typed || grep { defined $_->{v}{$name} } @{ $writer->{rows} };
		}
	}
	return @all;
}

my %simpler = (
	record_many => 'record', array => 'record', prepared_record => 'record', prepared_array => 'record',
	prepared_json => 'json', values => 'json', unnest => 'json', record => 'json', copy => 'view', view => 'record', redirect => 'view'
);

# NULL of an identity column means something else outside of typed rows.
sub set_form
{
	my ($writer, $form) = @_;
	$writer->{form} = $form;
	return if RandomModel::is_typed($form);
	for my $v (map { $_->{v} } @{ $writer->{rows} })
	{
		delete @$v{ grep { !defined $v->{$_} } keys %$v };
	}
	return;
}

sub form_candidates
{
	my ($program) = @_;
	my @all;
	my $n = 0;
	for my $writer (writers(@{ $program->{steps} }))
	{
		my $w = $n++;
		my $find = sub { (writers(@{ $_[0]{steps} }))[$w] };
		my $form = $simpler{ $writer->{form} };
		push @all, sub { variant($program, sub { set_form($find->(@_), $form) }) }
		  if $form && !$writer->{bad} && ($form ne 'record' || @{ $writer->{rows} } == 1);
		push @all, sub { variant($program, sub { delete @{ $find->(@_) }{qw(reverse strings wrap)} }) }
		  if grep { $writer->{$_} } qw(reverse strings wrap);
	}
	return @all;
}

# A block of one statement is that statement.
sub block_candidates
{
	my ($program) = @_;
	my @all;
	for my $n (0 .. $#{ $program->{steps} })
	{
		my $step = $program->{steps}[$n];
		my @parts = @{ $step->{parts} // [] };
		next unless @parts == 1;
		push @all, sub { variant($program, sub { $_[0]{steps}[$n]{parts} = $_[0]{steps}[$n]{parts}[0]{parts} }) }
		  if $parts[0]{op} eq 'sub';
		push @all, sub { variant($program, sub { $_[0]{steps}[$n] = { s => $step->{s}, %{ $_[0]{steps}[$n]{parts}[0] } } }) }
		  if $parts[0]{op} ne 'sub';
	}
	return @all;
}

# Fewer sessions, targets that nothing uses, plain options.
sub frame_candidates
{
	my ($program) = @_;
	my @all;
	my @used = uniq map { $_->{s} } @{ $program->{steps} };
	for my $from (@used)
	{
		for my $to (grep { $_ < $from } @used, 1)
		{
			push @all, sub { variant($program, sub { $_->{s} = $to for grep { $_->{s} == $from } @{ $_[0]{steps} } }) };
		}
	}
	for my $t (0 .. $#{ $program->{targets} })
	{
		push @all, sub { without_target($program, $t) } if @{ $program->{targets} } > 1;
		push @all, sub { variant($program, sub { delete @{ $_[0]{targets}[$t] }{qw(update how)} }) }
		  if $program->{targets}[$t]{update};
		push @all, sub { variant($program, sub { $_[0]{overlap} = 0 }) } if $program->{overlap} && !$t;
		push @all, sub { variant($program, sub { delete $_[0]{direct} }) } if $program->{direct} && !$t;
		push @all, sub { variant($program, sub { $_[0]{targets}[$t]{variant} = 'slow' }) }
		  if $program->{targets}[$t]{variant} ne 'slow';
	}
	return @all;
}

# Without a target and everything that names it.
sub without_target
{
	my ($program, $t) = @_;
	my $shift = sub { my ($n) = @_; return $n > $t ? $n - 1 : $n; };
	return variant($program, sub {
			my ($p) = @_;
			splice(@{ $p->{targets} }, $t, 1);
			$p->{initial} = [ grep { $_->{t} != $t } @{ $p->{initial} } ];
			$p->{steps} = [ grep { !uses_target($_, $t) } @{ $p->{steps} } ];
			for my $step (@{ $p->{steps} })
			{
				next unless $step->{ts} && @{ $step->{ts} };
				$step->{ts} = [ map { $shift->($_) } grep { $_ != $t } @{ $step->{ts} } ];
				@$step{qw(op ms)} = ('sleep', 0) unless @{ $step->{ts} };
			}
			$_->{t} = $shift->($_->{t}) for grep { defined $_->{t} } @{ $p->{initial} }, flat(@{ $p->{steps} });
	});
}

sub flat { return map { ($_, flat(@{ $_->{parts} // [] })) } @_; }
sub uses_target { my ($step, $t) = @_; return scalar grep { defined $_->{t} && $_->{t} == $t } flat($step); }

# ---- the search --------------------------------------------------------

# Delta debugging: drop chunks of steps, from halves to single ones.
sub drop_steps
{
	my ($program, $accept, $deadline) = @_;
	my $size = int((@{ $program->{steps} } + 1) / 2);
	while ($size >= 1 && time() < $deadline)
	{
		my $dropped = 0;
		my $at = @{ $program->{steps} } - $size;
		while ($at > -$size && time() < $deadline)
		{
			my $from = $at < 0 ? 0 : $at;
			my $candidate = without_steps($program, map { $_ => 1 } $from .. $at + $size - 1);
			($program, $dropped) = ($candidate, 1) if @{ $candidate->{steps} } < @{ $program->{steps} } && $accept->($candidate);
			$at -= $size;
		}
		$size = $size == 1 && $dropped ? 1 : int($size / 2);
	}
	return $program;
}

# Take the first simplification that still fails, until none does.
sub simplify
{
	my ($program, $accept, $deadline) = @_;
	for my $source (\&frame_candidates, \&element_candidates, \&block_candidates, \&pair_candidates,
		\&column_candidates, \&form_candidates)
	{
		my $n = 0;
		while (time() < $deadline)
		{
			my @candidates = $source->($program);
			my $better;
			while ($n < @candidates && time() < $deadline)
			{
				my $candidate = $candidates[ $n ]->();
				($better = $candidate), last if $accept->($candidate);
				$n++;
			}
			last unless $better;
			$program = $better;
		}
	}
	return $program;
}

sub shrink
{
	my ($program, %args) = @_;
	my $deadline = time() + $args{seconds};
	my $accept = sub { $args{is_valid}->($_[0]) && $args{test}->($_[0]) };
	my $before = '';
	local $Storable::canonical = 1;
	while (time() < $deadline && $before ne Storable::freeze($program))
	{
		$before = Storable::freeze($program);
		$program = drop_steps($program, $accept, $deadline);
		$program = simplify($program, $accept, $deadline);
	}
	return $program;
}

1;
