# The examples under examples/, on the data that is here.

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $node = PostgreSQL::Test::Cluster->new('examples');
$node->init;
$node->append_conf('postgresql.conf', "wal_level = replica\nshared_preload_libraries = 'batchdedup'");
$node->start;
%ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');

my ($out, $err) = run_command([ "$root/examples/daily_reports/run" ]);
is($?, 0, 'daily_reports: as plain SQL') or diag("$out\n$err");
my %seen = $out =~ /^(.+?)  +(\d+)$/mg;
is($seen{deliveries}, 21, 'all deliveries');
is($seen{'rows in the table'}, 8135, 'all rows');
cmp_ok($seen{'workers killed'}, '>', 0, 'workers were killed');
is($seen{barriers}, $seen{batches}, 'a barrier for each batch');

$node->stop;
done_testing();
