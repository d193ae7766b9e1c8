package Random::Orders;

# Which orders of transactions the contract allows: T1 before T2 whenever T1's
# COMMIT returned before T2's first upsert of a key that both write.

use strict;
use warnings;

use constant MAX_NODES => 3000;

# The first step at which a transaction touches each key, or, where it writes
# directly, the target.
sub first_touch
{
	my ($tx) = @_;
	my %first;
	for my $op (@{ $tx->{ops} })
	{
		$first{"$op->{t}:$op->{class}"} //= $tx->{ever_direct}{ $op->{t} } ? $tx->{first}{ $op->{t} } : $op->{at};
	}
	return \%first;
}

sub must_precede
{
	my ($first, $second) = @_;
	my ($f, $s) = (first_touch($first), first_touch($second));
	return scalar grep { exists $f->{$_} && $first->{commit} < $s->{$_} } keys %$s;
}

# The transactions that can matter for some keys, those that touch them and those
# that are tied to these by other keys; and the rest.
sub related
{
	my ($txs, @keys) = @_;
	my %keys = map { $_ => 1 } @keys;
	my %in;
	my $before = -1;
	while (keys %in != $before)
	{
		$before = keys %in;
		for my $n (grep { !$in{$_} } 0 .. $#$txs)
		{
			my @touched = keys %{ first_touch($txs->[$n]) };
			next unless grep { $keys{$_} } @touched;
			$in{$n} = 1;
			$keys{$_} = 1 for @touched;
		}
	}
	return ([ map { $txs->[$_] } grep { $in{$_} } 0 .. $#$txs ], [ map { $txs->[$_] } grep { !$in{$_} } 0 .. $#$txs ]);
}

# Whether other orders than that of the COMMITs would be legal and different:
# programs in which sessions really meet.
sub has_choice
{
	my (@txs) = @_;
	for my $n (1 .. $#txs)
	{
		my $touched = first_touch($txs[$n]);
		for my $before (@txs[ 0 .. $n - 1 ])
		{
			my $first = first_touch($before);
			return 1 if !must_precede($before, $txs[$n]) && grep { exists $touched->{$_} } keys %$first;
		}
	}
	return 0;
}

# Looks for an order that ends in what accept() takes. write(n, tx) writes one on
# top of the others, and undo(n) takes back all from the n-th on; state() tells
# states apart. After the same transactions the same state comes up again and
# again, and is looked at once. Returns (found, number of nodes); found is undef
# if there are too many.
sub find
{
	my ($txs, %do) = @_;
	my @before = map { my $n = $_; [ grep { $_ != $n && must_precede($txs->[$_], $txs->[$n]) } 0 .. $#$txs ] } 0 .. $#$txs;
	my (%used, %seen);
	my $nodes = 0;
	my $walk;
	$walk = sub {
		return $do{accept}->() if keys %used == @$txs;
		return 0 if $seen{ join(',', sort keys %used) . '/' . $do{state}->() }++;
		for my $n (grep { !$used{$_} } 0 .. $#$txs)
		{
			next if grep { !$used{$_} } @{ $before[$n] };
			return undef if ++$nodes > MAX_NODES;
			my $at = $nodes;
			$used{$n} = 1;
			$do{write}->($at, $txs->[$n]);
			my $found = $walk->();
			return $found if $found || !defined $found;
			$do{undo}->($at);
			delete $used{$n};
		}
		return 0;
	};
	my $found = $walk->();
	undef $walk;
	return ($found, $nodes);
}

1;
