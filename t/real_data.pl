# Real rows through dev/replay and dev/replay-prices, which compare with what
# plain SQL makes of the same file.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server point_clients_at_server);

my $root = "$FindBin::RealBin/..";
my $data = "$root/examples/data";
start_server('real_data', 'restart_after_crash = on');
point_clients_at_server();
$ENV{CONNECTIONS} = 4;

# Runs the script; returns the number of each line that it prints.
sub replay
{
	my ($script, %settings) = @_;
	local %ENV = (%ENV, %settings);
	my $name = join ' ', $script, map { "$_=$settings{$_}" } grep { $_ ne 'DATA' } sort keys %settings;
	my ($out, $err) = run_command([ "$root/dev/$script" ]);
	is($?, 0, "$name: as plain SQL") or diag("$out\n$err");
	return $out =~ /^(.+?)  +(\d+)$/mg;
}

my %buses = (DATA => "$data/vehicle_positions.csv.xz", KEY => 'vehicle_id', LIMIT => 5000);
my %seen = replay('replay', %buses, SHUFFLE => 1, VERSION => 'timestamp', INTERVAL => '50 milliseconds');
cmp_ok($seen{'stale rows'}, '>', 1000, 'older positions came after newer ones');
cmp_ok($seen{'rows written'}, '>=', $seen{keys}, 'all keys were written');

# A column that most rows of a bus agree in: the last of them wins.
%seen = replay('replay', %buses, SHUFFLE => 1, VERSION => 'route_id', INTERVAL => '50 milliseconds');
cmp_ok($seen{'rows of equal version'}, '>', 1000, 'rows with equal versions');

# Somebody kills the server's processes; the clients resend what was not acknowledged.
%seen = replay('replay', %buses, LIMIT => 40_000, KILL_SERVER => 0.5);
cmp_ok($seen{'crashes of the server'}, '>', 0, 'the server crashed');

%seen = replay('replay-prices', DATA => "$data/stock_prices.csv.xz", INTERVAL => '5 milliseconds');
is($seen{stocks}, 12, 'all stocks');
cmp_ok($seen{coalesced}, '>', 0, 'rows were combined in the buffer');
cmp_ok($seen{flushes}, '>', 1, 'it was flushed in between');
cmp_ok($seen{'looks meanwhile'}, '>', 0, 'and looked at');

$node->stop;
done_testing();
