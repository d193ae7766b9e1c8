package Bench;

# What the benchmarks share: the table, rounds, medians, and the output.
#
# Each round takes every variant once, in an order that changes from round to
# round, so that a machine whose speed drifts drifts for all. A ratio is that
# of two variants in the same round; of the ratios of all rounds the median
# is told.
#
# Environment: QUICK=1 for all of it; BENCH_ROUNDS; BENCH_SECONDS, or BENCH_ROWS
# for runs of so many rows; CLIENTS, KEYS (hot, uniform), VARIANTS take some
# only; OUT: JSON file, where results of other benchmarks stay. libpq's
# variables say where the server is; it must run on this machine, for its CPU
# time to be seen.

use strict;
use warnings;
use DBD::Pg;
use DBI;
use Exporter qw(import);
use JSON::PP;
use File::Temp qw(tempdir);
use FindBin;
use POSIX ();
use Time::HiRes qw(time usleep);

our @EXPORT = qw(quick rounds seconds clients key_sets wanted sql value connect_to_server use_connection
  prepare_database create_table columns assignments compare run_pgbench run_client measure set_title
  row_of parameters_list on_conflict finish);

use constant ZIPFIAN => 1.1;    # exponent of the hot keys

# ---- how much ----------------------------------------------------------

sub quick   { return $ENV{QUICK} }
sub rounds  { return $ENV{BENCH_ROUNDS} || $_[0] }
sub seconds { return $ENV{BENCH_SECONDS} || (quick() ? 1 : 5) }
sub clients { return split ' ', $ENV{CLIENTS} // '1 8 32' }
sub wanted  { return !$ENV{VARIANTS} || grep { $_ eq $_[0] } split ' ', $ENV{VARIANTS} }

# name => number of keys
sub key_sets
{
	my %all = (hot => 10_000, uniform => 1_000_000);
	return map { [ $_ => $all{$_} // die "KEYS: hot, uniform\n" ] } split ' ', $ENV{KEYS} // 'hot uniform';
}

# ---- server ------------------------------------------------------------

my $dbh;

sub connect_to_server
{
	my $new = DBI->connect('dbi:Pg:', undef, undef,
		{ RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, AutoInactiveDestroy => 1 });
	$new->{pg_placeholder_dollaronly} = 1;
	$new->do('SET client_min_messages = warning');
	return $new;
}

sub sql
{
	my (@statements) = @_;
	$dbh->do($_) for @statements;
	return;
}

sub value { return $dbh->selectrow_array($_[0]) }

# After a crash of the server.
sub use_connection { $dbh = $_[0]; return }

sub prepare_database
{
	$dbh = connect_to_server();
	sql('DROP SCHEMA IF EXISTS bench CASCADE',
		'CREATE SCHEMA bench',
		'CREATE EXTENSION IF NOT EXISTS batchdedup',
		"CREATE FUNCTION bench.noop(record) RETURNS void LANGUAGE C AS 'batchdedup', 'bdd_noop'");
	return;
}

# ---- table -------------------------------------------------------------

sub columns { return qw(id name status price at attributes) }

# ($1, $2, ...), ($7, ...), ...: parameters for the values of 100 rows
sub parameters_list
{
	my $n = 0;
	return join ', ', map { '(' . join(', ', map { '$' . ++$n } columns()) . ')' } 1 .. 100;
}

sub on_conflict { return 'ON CONFLICT (id) DO UPDATE SET ' . assignments('EXCLUDED') }

# "a = EXCLUDED.a, ..." of all but the key
sub assignments
{
	my ($source) = @_;
	my (undef, @others) = columns();
	return join ', ', map { "$_ = $source.$_" } @others;
}


# The SQL expressions of a row's columns, for a key and a number.
sub row_of
{
	my ($key, $number) = @_;
	return ($key, "'device ' || $key", "$number % 10", "$number / 100.0", 'now()', '\'{"model": "T-1000", "tags": ["blue", "fast"], "seen": 17}\'::jsonb');
}

# A table with keys step, 2 * step, ...: primary key, three more indexes, a
# jsonb column; "plain": the primary key alone.
sub create_table
{
	my ($name, $rows, %option) = @_;
	my $key = 'i * ' . ($option{step} // 1);
	sql("DROP TABLE IF EXISTS $name CASCADE",
		"CREATE TABLE $name (id bigint PRIMARY KEY, name text NOT NULL, status int NOT NULL, "
		  . 'price numeric(12,2), at timestamptz NOT NULL, attributes jsonb)',
		"INSERT INTO $name SELECT " . join(', ', row_of($key, 'i')) . " FROM generate_series(1, $rows) AS i");
	sql("CREATE INDEX ON $name (name)", "CREATE INDEX ON $name (status)", "CREATE INDEX ON $name (at)")
	  unless $option{plain};
	sql("VACUUM ANALYZE $name");
	return;
}

# ---- measuring ---------------------------------------------------------

# CPU seconds of the server so far: of its processes, in nanoseconds where the
# kernel tells them, and of those that have ended, in ticks.
sub server_cpu
{
	my ($postmaster) = value("SELECT split_part(pg_read_file('postmaster.pid'), E'\\n', 1)");
	my $second = POSIX::sysconf(&POSIX::_SC_CLK_TCK);
	my $seconds = 0;
	usleep(50_000);    # for the postmaster to count those that just ended
	for my $stat (glob '/proc/[0-9]*/stat')
	{
		my ($pid, $fields) = slurp($stat) =~ /^(\d+) \(.*\) (.*)/ or next;
		my ($parent, $user, $system, $ended_user, $ended_system) = (split ' ', $fields)[ 1, 11, 12, 13, 14 ];
		next unless $pid == $postmaster || $parent == $postmaster;
		my ($exact) = split ' ', slurp("/proc/$pid/schedstat");
		$seconds += $exact ? $exact / 1e9 : ($user + $system) / $second;
		$seconds += ($ended_user + $ended_system) / $second if $pid == $postmaster;
	}
	return $seconds;
}

my $scratch = tempdir(CLEANUP => 1);

# Builds bench/client.c; returns the program.
sub client
{
	my $pg_config = $ENV{PG_CONFIG} // 'pg_config';
	my ($include, $lib) = map { chomp; $_ } `$pg_config --includedir --libdir`;
	my $program = "$scratch/client";
	system('cc', '-O2', '-o', $program, "$FindBin::RealBin/client.c",
		"-I$include", "-L$lib", "-Wl,-rpath,$lib", '-lpq', '-lpthread', '-lm') == 0
	  or die "bench/client.c was not built\n" unless -x $program;
	return $program;
}

# 100 rows per call: returns the rows sent and the seconds they took. Without
# a number of rows it goes on for seconds().
sub run_client
{
	my ($format, $statement, $clients, $set, $keys, $commit, $rows) = @_;
	$rows //= $ENV{BENCH_ROWS};
	local $ENV{PGOPTIONS} = "-c client_min_messages=warning -c synchronous_commit=$commit";
	open my $client, '-|', client(), $format, $statement, $clients, $rows ? 0 : seconds(), $rows // 0, $keys,
	  $set eq 'hot' ? ZIPFIAN : 0
	  or die "client: $!\n";
	my ($sent, $elapsed) = split ' ', <$client> // '';
	close $client or die "the client failed\n";
	return ($sent, $elapsed);
}

# Runs the code, which returns how many rows it has sent: rows per second, and
# the server's CPU microseconds per row.
sub measure
{
	my ($code) = @_;
	my $cpu = server_cpu();
	my $start = time;
	my ($rows, $elapsed) = $code->();
	$elapsed //= time - $start;
	return { rate => $rows / $elapsed, cpu => 1e6 * (server_cpu() - $cpu) / $rows };
}

# pgbench, one row per transaction: returns the rows and the seconds.
sub run_pgbench
{
	my ($statement, $clients, $set, $keys, $commit, $rows) = @_;
	$rows //= $ENV{BENCH_ROWS};
	my $random = $set eq 'hot' ? "random_zipfian(1, $keys, @{[ZIPFIAN]})" : "random(1, $keys)";
	my $limit = $rows ? '-t ' . int($rows / $clients) : '-T ' . seconds();
	my $file = "$scratch/pgbench.sql";
	spew($file, "\\set id $random\n\\set number random(1, 100000)\n$statement;\n");
	local $ENV{PGOPTIONS} = "-c client_min_messages=warning -c synchronous_commit=$commit";
	my $jobs = $clients < 2 ? 1 : 2;
	my $output = `pgbench -n -M prepared -c $clients -j $jobs $limit -f $file 2>&1`;
	my ($count) = $output =~ /transactions actually processed: (\d+)/;
	my ($rate) = $output =~ /^tps = ([\d.]+)/m;
	die "pgbench failed:\n$output" if $? != 0 || !$count;
	return ($count, $count / $rate);
}

# ---- results -----------------------------------------------------------

my @records;
my $title;

sub median
{
	my @sorted = sort { $a <=> $b } @_;
	return ($sorted[ $#sorted / 2 ] + $sorted[ @sorted / 2 ]) / 2;
}

sub number
{
	my ($n) = @_;
	return sprintf '%.2f', $n if $n < 10;
	my $text = sprintf '%.0f', $n;
	1 while $text =~ s/^(\d+)(\d{3})/$1,$2/;
	return $text;
}

sub set_title
{
	($title) = @_;
	print "\n$title\n";
	return;
}

# The best of some variants in a round.
sub reference
{
	my ($names, $values, $round) = @_;
	my ($best) = sort { $b <=> $a } map { $values->{$_}[$round]{rate} } grep { $values->{$_} } @$names;
	return $best;
}

sub summarize
{
	my ($setting, $name, $values, $references) = @_;
	my %record = (setting => $setting, variant => $name);
	for my $metric (sort keys %{ $values->{$name}[0] })
	{
		my @all = map { $_->{$metric} } @{ $values->{$name} };
		my ($lowest, $highest) = (sort { $a <=> $b } @all)[ 0, -1 ];
		$record{$metric} = { median => median(@all), lowest => $lowest, highest => $highest, rounds => \@all };
	}
	for my $label (sort keys %$references)
	{
		next unless grep { $values->{$_} } @{ $references->{$label} };
		my @ratios = map { $values->{$name}[$_]{rate} / reference($references->{$label}, $values, $_) }
		  0 .. $#{ $values->{$name} };
		$record{ratio}{$label} = { median => median(@ratios), rounds => \@ratios };
	}
	return \%record;
}

sub print_record
{
	my ($record) = @_;
	my ($rate, $cpu) = @$record{qw(rate cpu)};
	my $line = sprintf '  %-11s %9s/s (%s-%s)', $record->{variant}, map { number($_) } @$rate{qw(median lowest highest)};
	$line = sprintf '%-46s', $line;
	$line .= sprintf ' %6s us (%s-%s)', map { number($_) } @$cpu{qw(median lowest highest)} if $cpu;
	$line = sprintf '%-68s', $line;
	$line .= "  $_: " . number($record->{$_}{median})
	  for sort grep { !/^(setting|variant|rate|cpu|ratio)$/ } keys %$record;
	$line .= "  /$_: " . number($record->{ratio}{$_}{median}) for sort keys %{ $record->{ratio} };
	print "$line\n";
	return;
}

# Runs variants (pairs of name and code, which returns a hash of metrics) in
# interleaved rounds. References: label => names of the variants of which the
# best is 1.
sub compare
{
	my ($setting, $rounds, $variants, $references) = @_;
	my @variants = grep { wanted($_->[0]) } @$variants;
	my %values;
	for my $round (0 .. $rounds - 1)
	{
		for my $i (0 .. $#variants)
		{
			my ($name, $code) = @{ $variants[ ($i + $round) % @variants ] };
			$values{$name}[$round] = $code->();
		}
	}
	my %all = (benchmark => $title, %$setting);
	print '  -- ', join(', ', map { "$_ $setting->{$_}" } sort keys %$setting), "\n";
	for my $variant (@variants)
	{
		my $record = summarize(\%all, $variant->[0], \%values, $references);
		push @records, $record;
		print_record($record);
	}
	return;
}

sub spew
{
	my ($name, $text) = @_;
	open my $file, '>', $name or die "$name: $!\n";
	print $file $text;
	close $file or die "$name: $!\n";
	return;
}

sub slurp
{
	my ($name) = @_;
	open my $file, '<', $name or return '';
	local $/ = undef;
	return <$file> // '';
}

sub machine
{
	my @models = slurp('/proc/cpuinfo') =~ /^model name\s*: (.*)$/mg;
	my ($load) = split ' ', slurp('/proc/loadavg');
	return { model => $models[0], cpus => scalar @models, load => $load };
}

# Writes what compare() has found under the benchmark's name.
sub finish
{
	my ($name) = @_;
	my $file = $ENV{OUT} // ($0 =~ s{[^/]*$}{}r) . 'results.json';
	my $json = JSON::PP->new->canonical->pretty;
	my $all = $json->decode(slurp($file) || '{}');
	$all->{$name} = {
		at      => POSIX::strftime('%Y-%m-%dT%H:%M:%SZ', gmtime),
		server  => (value('SHOW server_version'))[0],
		machine => machine(),
		results => \@records,
	};
	spew($file, $json->encode($all));
	sql('DROP SCHEMA bench CASCADE');
	return;
}

1;
