package RandomOracle;

# The yardstick: the tables end as if the same statements had run one after
# the other, T1 before T2 whenever T1's COMMIT returned before T2's first
# upsert of the key.
#
# Sessions are driven from one process, so COMMITs do not overlap and the
# order of COMMITs is what we expect. legal_order() looks for another order
# that the contract would allow, and plain_script() runs any order as plain
# statements, so that the model cannot be wrong in the same way as the buffer.

use strict;
use warnings;
use RandomModel;

# ---- orders ------------------------------------------------------------

sub key_of { return "$_[0]{t}:$_[0]{class}"; }

# The first step at which a transaction touches each key, or, where it writes
# directly, the target.
sub first_touch
{
	my ($tx) = @_;
	my %first;
	for my $op (@{ $tx->{ops} })
	{
		$first{ key_of($op) } //= $tx->{ever_direct}{ $op->{t} } ? $tx->{first}{ $op->{t} } : $op->{at}[0];
	}
	return \%first;
}

# The transactions that can matter for some keys: those that touch them, and
# those that are tied to these by other keys.
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
	return map { $txs->[$_] } sort { $a <=> $b } keys %in;
}

sub must_precede
{
	my ($first, $second) = @_;
	my ($f, $s) = (first_touch($first), first_touch($second));
	return scalar grep { exists $f->{$_} && $first->{commit} < $s->{$_} } keys %$s;
}

# Whether other orders than that of the COMMITs would be legal and different:
# programs in which sessions really meet.
sub has_choice
{
	my ($model) = @_;
	my @txs = @{ $model->{committed} };
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

# Rows of some keys as a string, to know a state again.
sub state_text
{
	my ($state, @keys) = @_;
	my @text;
	for my $key (@keys)
	{
		my ($t, $class) = split(/:/, $key);
		my $row = $state->[$t]{$class};
		push @text, $row ? join("\1", map { $_ . (defined $row->{$_} ? "=$row->{$_}" : '') } sort keys %$row) : '-';
	}
	return join("\2", @text);
}

# Find a legal order of some transactions that ends in a state that is
# accepted. After the same transactions the same state comes up again and
# again, and is looked at once.
sub find_order
{
	my ($model, $txs, $keys, $accept) = @_;
	my @before = map { my $n = $_; [ grep { $_ != $n && must_precede($txs->[$_], $txs->[$n]) } 0 .. $#$txs ] } 0 .. $#$txs;
	my (@order, %used, %seen);
	my $walk;
	$walk = sub {
		my ($state) = @_;
		return $accept->($state) ? [ map { $txs->[$_] } @order ] : undef if @order == @$txs;
		return undef if $seen{ join(',', sort keys %used) . '/' . state_text($state, @$keys) }++;
		for my $n (grep { !$used{$_} } 0 .. $#$txs)
		{
			next if grep { !$used{$_} } @{ $before[$n] };
			$used{$n} = 1;
			push @order, $n;
			my $found = $walk->($model->fold($state, @{ $txs->[$n]{ops} }));
			return $found if $found;
			pop @order;
			delete $used{$n};
		}
		return undef;
	};
	my $found = $walk->($model->{initial});
	undef $walk;
	return $found;
}

# All keys that the transactions touch.
sub keys_of
{
	my %keys = map { %{ first_touch($_) } } @_;
	return sort keys %keys;
}

# A legal order that ends with the rows that were read, or undef. $rows is a
# list per target of {class => {column => text}}, @keys are the keys that do
# not end as in the order of the COMMITs. What is tied to them by a common
# transaction must come out right, too.
sub legal_order
{
	my ($model, $rows, @keys) = @_;
	my @txs = related($model->{committed}, @keys);
	my @all = keys_of(@txs);
	my $order = find_order($model, \@txs, \@all, sub { my $s = $_[0]; !grep { row_differs($s, $rows, $_) } @keys, @all });
	return undef unless $order;
	# those that touch none of these keys stay in order of their COMMITs
	my %in = map { $_ => 1 } @$order;
	return [ @$order, grep { !$in{$_} } @{ $model->{committed} } ];
}

sub row_differs
{
	my ($state, $rows, $key) = @_;
	my ($t, $class) = split(/:/, $key);
	my ($expected, $actual) = ($state->[$t]{$class}, $rows->[$t]{$class});
	return !!$expected ne !!$actual unless $expected && $actual;
	return scalar grep { RandomModel::cell_differs($expected->{$_}, $actual->{$_}) } keys %$expected;
}

sub order_text
{
	my ($order) = @_;
	return join(', ', map { "session $_->{s} committed at step $_->{commit}" } @$order);
}

# ---- plain statements --------------------------------------------------

# What the sessions did, in plain statements and one transaction after the
# other. Statements that were refused left no trace and are left out.
sub plain_script
{
	my ($sql, $order) = @_;
	my @script;
	for my $tx (@$order)
	{
		push @script, 'BEGIN';
		push @script, $sql->oracle_statements($_->[1], $_->[2]) for @{ $tx->{steps} };
		push @script, 'COMMIT';
	}
	return @script;
}

1;
