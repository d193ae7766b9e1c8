# examples/product_etl on the data that is here: undisturbed, with clients and
# backends that are killed, and with a server that is.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server point_clients_at_server);

my $run = "$FindBin::RealBin/../examples/product_etl/run";
start_server('product_etl', 'restart_after_crash = on');
point_clients_at_server();

sub run_example
{
	my ($name, %environment) = @_;
	local @ENV{ keys %environment } = values %environment;
	my ($out, $err) = run_command([$run]);
	is($?, 0, "$name: it is what the manifest says") or diag("$out\n$err");
	my %seen = $out =~ /^(.+?)  +(\d+)$/mg;
	is($seen{snapshots}, 12, "$name: all snapshots");
	is($seen{products}, 5670, "$name: all products");
	is($seen{"wrong: $_"}, 0, "$name: $_") for 'plain SQL', 'dry run', 'change log';
	return %seen;
}

my %seen = run_example('undisturbed');
is($seen{'attempts repeated'}, 0, 'undisturbed: nothing was killed');
%seen = run_example('clients and backends killed', KILL => 1);
cmp_ok($seen{'attempts repeated'}, '>', 0, 'they were');
%seen = run_example('the server killed', KILL_SERVER => 1);
cmp_ok($seen{'attempts repeated'}, '>', 0, 'it was');

$node->stop;
done_testing();
