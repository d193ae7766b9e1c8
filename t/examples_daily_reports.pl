# The examples under examples/, on the data that is here.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server point_clients_at_server);

my $root = "$FindBin::RealBin/..";
start_server('examples');
point_clients_at_server();

my ($out, $err) = run_command([ "$root/examples/daily_reports/run" ]);
is($?, 0, 'daily_reports: as plain SQL') or diag("$out\n$err");
my %seen = $out =~ /^(.+?)  +(\d+)$/mg;
is($seen{deliveries}, 21, 'all deliveries');
is($seen{'rows in the table'}, 8135, 'all rows');
cmp_ok($seen{'workers killed'}, '>', 0, 'workers were killed');
is($seen{barriers}, $seen{batches}, 'a barrier for each batch');

$node->stop;
done_testing();
