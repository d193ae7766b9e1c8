# The benchmarks run, with a few rows each, and write what they found.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw(start_server point_clients_at_server);

my $bench = "$FindBin::RealBin/../bench";
start_server('bench', 'restart_after_crash = on');

point_clients_at_server();
local %ENV = (
	%ENV,
	QUICK => 1,
	BENCH_ROUNDS => 2,
	BENCH_ROWS => 400,
	CLIENTS => '1 4',
	KEYS => 'hot',
	TABLE_ROWS => 2000,
	SIZES => 1000,
	COUNT => 1000,
	REPLAY_ROWS => 1000,
	FILES => 2000,
	IMPORT_ROWS => 4000,
	OUT => "$PostgreSQL::Test::Utils::tmp_check/bench.json");
delete @ENV{qw(VARIANTS TABLES ROWS BENCH_SECONDS DATA WRITERS)};

# benchmark => number of comparisons and of variants in each
my %expected = (
	enqueue => [ 2, 10 ], batches => [ 2, 7 ], apply => [ 6, 5 ], cost => [ 1, 4 ], replay => [ 1, 2 ],
	barrier => [ 2, 4 ], claims => [ 4, 2 ], import => [ 1, 7 ]);
for my $name (sort keys %expected)
{
	# Redis may not be there.
	local $ENV{VARIANTS} = 'complete complete_off update update_off' if $name eq 'barrier';
	my ($out, $err) = run_command([ $^X, "$bench/$name" ]);
	is($err, '', "$name runs");
	like($out, qr/\d\/s /, "$name prints a table");
}

my $all = decode_json(slurp_file($ENV{OUT}));
for my $name (sort keys %expected)
{
	my ($comparisons, $variants) = @{ $expected{$name} };
	my @results = @{ $all->{$name}{results} };
	is(@results, $comparisons * $variants, "$name: all results are in the JSON file");
	is(scalar(grep { $_->{rate}{median} > 0 && @{ $_->{rate}{rounds} } == 2 } @results),
		scalar @results, "$name: each has a rate of two rounds");
	my %ratio = map { $_->{variant} => $_->{ratio} } @results;
	is($ratio{direct}{direct}{median}, 1, "$name: the reference is 1") if $name eq 'cost';
}

done_testing();
