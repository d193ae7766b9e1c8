package Torture;

# Writers whose every statement is known beforehand, and what their rows must be
# when the server has ended in the middle of it.
#
# Operation n of writer w follows from the seed, w and n. A writer runs one after
# the other and notes in its log when it starts one and how it ended: told to be
# committed ("A"), refused ("E"), or unknown ("U": the connection was lost). So
# its rows are those of the operations that were told, with or without each one
# whose end is unknown: as a whole, in all tables.

use strict;
use warnings;
use DBD::Pg;
use DBI;
use POSIX ();
use Time::HiRes qw(sleep time);

use constant KEYS => 4; # of a writer in a table

our $setup = <<'SQL';
CREATE EXTENSION batchdedup;
-- The newest row of a key counts.
CREATE TABLE newest (k int PRIMARY KEY, v bigint NOT NULL, w text);
-- Sums: of keys of one writer, and of keys that all share, a column each.
CREATE TABLE totals (k int PRIMARY KEY, v bigint NOT NULL);
CREATE TABLE shared (k int PRIMARY KEY, c0 bigint NOT NULL DEFAULT 0, c1 bigint NOT NULL DEFAULT 0,
  c2 bigint NOT NULL DEFAULT 0, c3 bigint NOT NULL DEFAULT 0, c4 bigint NOT NULL DEFAULT 0,
  c5 bigint NOT NULL DEFAULT 0, c6 bigint NOT NULL DEFAULT 0, c7 bigint NOT NULL DEFAULT 0);
-- Rows of which a part is given, with a column that keeps its first value.
CREATE TABLE parts (k int PRIMARY KEY, a bigint, b bigint, c text, first bigint);
CREATE TABLE gone (k int PRIMARY KEY, v bigint NOT NULL);
-- Transactions that write to a plain table, too.
CREATE TABLE pairs (k int PRIMARY KEY, v bigint NOT NULL, calls bigint NOT NULL);
CREATE TABLE plain (w int, n bigint, PRIMARY KEY (w, n));
SELECT batchdedup.create_target('newest');
SELECT batchdedup.create_target('totals', merge => '{"v": "sum"}', flush_interval => '50 ms');
SELECT batchdedup.create_target('shared', merge => '{"c0": "sum", "c1": "sum", "c2": "sum", "c3": "sum", "c4": "sum",
  "c5": "sum", "c6": "sum", "c7": "sum"}', flush_interval => '300 ms');
SELECT batchdedup.create_target('parts', update_columns => 'a, b, c');
SELECT batchdedup.create_target('gone', flush_interval => '20 ms');
SELECT batchdedup.create_target('pairs', merge => '{"calls": "sum"}', flush_interval => '100 ms', flush_group => 'both');
SQL

# ---- operations --------------------------------------------------------

# Numbers that follow from the seed, the writer and the operation.
sub dice
{
	my @from = @_;
	my $state = 1;
	$state = (($state * 1103515245 + $_ * 12345 + 6789) & 0x7fffffff) ^ ($state >> 7) for @from, @from, 1;
	return sub {
		my ($sides) = @_;
		$state = ($state * 1103515245 + 12345) & 0x7fffffff;
		return ($state >> 8) % $sides;
	};
}

# A statement, and what it does to the writer's rows: [table, key, change].
sub upsert_newest
{
	my ($w, $n, $roll) = @_;
	my $k = $w * KEYS + $roll->(KEYS);
	return ("SELECT batchdedup.upsert(ROW($k, $n, 'w$n')::newest)", [ 'newest', $k, sub { "$n w$n" } ]);
}

sub upsert_many
{
	my ($w, $n) = @_;
	my $first = $w * KEYS;
	my $sql = "SELECT batchdedup.upsert(ARRAY(SELECT ROW($first + i, $n, 'w$n')::newest FROM generate_series(0, "
	  . (KEYS - 1) . ") i))";
	return ($sql, map { [ 'newest', $_, sub { "$n w$n" } ] } $first .. $first + KEYS - 1);
}

sub upsert_total
{
	my ($w, $n, $roll) = @_;
	my $k = $w * KEYS + $roll->(KEYS);
	my $v = 1 + $roll->(1000);
	return ("SELECT batchdedup.upsert('totals', '{\"k\": $k, \"v\": $v}')", [ 'totals', $k, sub { ($_[0] // 0) + $v } ]);
}

sub upsert_shared
{
	my ($w, $n, $roll) = @_;
	my $k = $roll->(3);
	my $v = 1 + $roll->(1000);
	return ("SELECT batchdedup.upsert('shared', '{\"k\": $k, \"c$w\": $v}')", [ 'shared', $k, sub { ($_[0] // 0) + $v } ]);
}

sub upsert_part
{
	my ($w, $n, $roll) = @_;
	my $k = $w * KEYS + $roll->(KEYS);
	my $column = $roll->(3);
	my $name = (qw(a b c))[$column];
	my $value = $column == 2 ? "\"c$n\"" : $n;
	my $change = sub {
		my @row = split / /, $_[0] // "- - - $n";
		$row[$column] = $column == 2 ? "c$n" : $n;
		return "@row";
	};
	return ("SELECT batchdedup.upsert('parts', '{\"k\": $k, \"$name\": $value, \"first\": $n}')", [ 'parts', $k, $change ]);
}

sub delete_part
{
	my ($w, $n, $roll) = @_;
	my $k = $w * KEYS + $roll->(KEYS);
	return ("SELECT batchdedup.delete('parts', '{\"k\": $k}')", [ 'parts', $k, sub { undef } ]);
}

sub upsert_gone
{
	my ($w, $n, $roll) = @_;
	my $k = $w * KEYS + $roll->(KEYS);
	return ("SELECT batchdedup.delete('gone', '{\"k\": $k}')", [ 'gone', $k, sub { undef } ]) if $roll->(2);
	return ("SELECT batchdedup.upsert(ROW($k, $n)::gone)", [ 'gone', $k, sub { $n } ]);
}

my @single = (\&upsert_newest, \&upsert_many, \&upsert_total, \&upsert_shared, \&upsert_part, \&delete_part, \&upsert_gone);

# What must never be seen.
sub undone
{
	my ($w, $roll) = @_;
	my $k = $w * KEYS + $roll->(KEYS);
	return "SELECT batchdedup.upsert(ROW($k, -1, 'undone')::newest), batchdedup.upsert('totals', '{\"k\": $k, \"v\": 1000000}'), "
	  . "batchdedup.upsert('shared', '{\"k\": 1, \"c$w\": 1000000}'), batchdedup.delete('parts', '{\"k\": $k}')";
}

sub some
{
	my ($w, $n, $roll, $count) = @_;
	my (@sql, @changes);
	for (1 .. $count)
	{
		my ($sql, @more) = $single[ $roll->(scalar @single) ]->($w, $n, $roll);
		push @sql, $sql;
		push @changes, @more;
	}
	return (\@sql, \@changes);
}

# With a row in a plain table: both are there, or none.
sub pair
{
	my ($w, $n, $roll) = @_;
	my @sql = (
		"INSERT INTO plain VALUES ($w, $n)",
		"SELECT batchdedup.upsert('pairs', '{\"k\": $w, \"v\": $n, \"calls\": 1}')");
	@sql = reverse @sql if $roll->(2);
	my $change = sub {
		my ($v, $calls) = split / /, $_[0] // '0 0';
		return "$n " . ($calls + 1);
	};
	return (\@sql, [ [ 'pairs', $w, $change ], [ 'plain', $w, sub { "$n " . (((split / /, $_[0] // '0 0')[1]) + 1) } ] ]);
}

# (statements, changes); without changes it is rolled back.
sub operation
{
	my ($seed, $w, $n) = @_;
	my $roll = dice($seed, $w, $n);
	my $kind = $roll->(100);
	my ($sql, $changes) = some($w, $n, $roll, 1);

	return ($sql, $changes) if $kind < 55;
	($sql, $changes) = some($w, $n, $roll, 2 + $roll->(4));
	return ([ 'BEGIN', @$sql, 'COMMIT' ], $changes) if $kind < 65;
	return ([ 'BEGIN', @$sql, 'ROLLBACK' ], []) if $kind < 68;
	return ([ 'BEGIN', undone($w, $roll), "INSERT INTO plain VALUES ($w, -$n)", 'ROLLBACK' ], []) if $kind < 72;
	return ([ 'BEGIN', 'SAVEPOINT s', undone($w, $roll), 'ROLLBACK TO s', 'SAVEPOINT t', @$sql, 'RELEASE t', 'COMMIT' ], $changes)
	  if $kind < 78;
	my ($pair, $both) = pair($w, $n, $roll);
	return ([ 'BEGIN', @$sql, 'NOTIFY channel', 'COMMIT' ], $changes) if $kind < 81;
	return ([ 'BEGIN', @$pair, 'COMMIT' ], $both) if $kind < 90;
	return ([ 'BEGIN', $pair->[0], @$sql, $pair->[1], 'COMMIT' ], [ @$changes, @$both ]) if $kind < 95;
	return ([ 'BEGIN', 'SAVEPOINT s', @$pair, 'RELEASE s', @$sql, 'COMMIT' ], [ @$changes, @$both ]) if $kind < 99;
	# More than a message holds.
	my $k = 1000 + $w;
	my $large = "SELECT batchdedup.upsert(ARRAY[ROW($k, $n, repeat('x', 700000))::newest, ROW($k + 8, $n, repeat('y', 700000))::newest])";
	my $show = sub { "$n 700000" };
	return ([ 'BEGIN', $large, @$sql, 'COMMIT' ], [ @$changes, [ 'newest', $k, $show ], [ 'newest', $k + 8, $show ] ]);
}

# ---- a writer ----------------------------------------------------------

# In a process of its own, until the connection is lost; from operation "n" on.
sub write_on
{
	my ($dsn, $log, $seed, $w, $n) = @_;
	my $dbh = eval {
		DBI->connect($dsn, undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1 });
	} or POSIX::_exit(0);
	eval { $dbh->do('SET client_min_messages = error; SET statement_timeout = 60000') } or POSIX::_exit(0);
	for (;; $n++)
	{
		my ($statements) = operation($seed, $w, $n);
		syswrite $log, "S $n\n";
		if (eval { $dbh->do($_) for @$statements; 1 })
		{
			syswrite $log, "A $n\n";
			next;
		}
		my $state = $dbh->state;
		# A server that goes says so, or nothing at all.
		if ($state =~ /^(?:08|57P|S8|22000$)/ || !$dbh->ping)
		{
			syswrite $log, "U $n $state\n";
			POSIX::_exit(0);
		}
		syswrite $log, "E $n $state " . ($dbh->errstr =~ s/\n.*//sr) . "\n";
		eval { $dbh->do('ROLLBACK') } if @$statements > 1;
	}
	return;
}

# ---- what must be there ------------------------------------------------

sub changed
{
	my ($rows, $changes) = @_;
	my %after = %$rows;
	foreach my $change (@$changes)
	{
		my ($table, $key, $what) = @$change;
		my $value = $what->($after{"$table $key"});
		defined $value ? ($after{"$table $key"} = $value) : delete $after{"$table $key"};
	}
	return \%after;
}

sub text_of
{
	my ($rows) = @_;
	return join "\n", map { "$_: $rows->{$_}" } sort keys %$rows;
}

# Takes the writer's log into what may be there: a list of sets of rows.
sub follow
{
	my ($writer, $log, $seed, $count) = @_;
	foreach my $line (split /\n/, $log)
	{
		my ($end, $n, $rest) = split / /, $line, 3;
		$writer->{next} = $n + 1;
		$count->{$end}++;
		$writer->{refused}{$rest}++ if $end eq 'E';
		next unless $end eq 'A' || $end eq 'U';
		my (undef, $changes) = operation($seed, $writer->{w}, $n);
		my @after = map { changed($_, $changes) } @{ $writer->{may_be} };
		@after = (@{ $writer->{may_be} }, @after) if $end eq 'U';
		my %once = map { text_of($_) => $_ } @after;
		$writer->{may_be} = [ values %once ];
	}
	return;
}

# The writers' rows as they are, by writer.
sub rows_there
{
	my ($dbh) = @_;
	my %there;
	my $add = sub {
		my ($table, $w_of, $sql) = @_;
		foreach my $row (@{ $dbh->selectall_arrayref($sql) })
		{
			my ($k, @values) = @$row;
			my $value = join ' ', map { $_ // '-' } @values;
			$there{ $w_of->($k) }{"$table $k"} = $value;
		}
	};
	my $owner = sub { $_[0] >= 1000 ? $_[0] % 8 : int($_[0] / KEYS) };
	$add->('newest', $owner, 'SELECT k, v, CASE WHEN k < 1000 THEN w ELSE length(w)::text END FROM newest');
	$add->('totals', $owner, 'SELECT k, v FROM totals');
	$add->('parts', $owner, 'SELECT k, a, b, c, first FROM parts');
	$add->('gone', $owner, 'SELECT k, v FROM gone');
	$add->('pairs', sub { $_[0] }, 'SELECT k, v, calls FROM pairs');
	$add->('plain', sub { $_[0] }, 'SELECT w, max(n), count(*) FROM plain GROUP BY w');
	foreach my $row (@{ $dbh->selectall_arrayref('SELECT * FROM shared') })
	{
		my ($k, @values) = @$row;
		$values[$_] and $there{$_}{"shared $k"} = $values[$_] for 0 .. 7;
	}
	return \%there;
}

# What is wrong with the writer's rows, or ''. From here on they are known.
sub difference
{
	my ($writer, $there) = @_;
	my $text = text_of($there);
	foreach my $rows (@{ $writer->{may_be} })
	{
		next if text_of($rows) ne $text;
		$writer->{may_be} = [$rows];
		return '';
	}
	my $says = '';
	foreach my $rows (@{ $writer->{may_be} })
	{
		my %keys = (%$rows, %$there);
		$says .= "writer $writer->{w}, one of " . @{ $writer->{may_be} } . " possibilities:\n";
		foreach my $key (sort keys %keys)
		{
			my ($is, $must) = map { $_->{$key} // 'none' } $there, $rows;
			$says .= "  $key is $is, must be $must\n" if $is ne $must;
		}
	}
	return $says;
}

1;
