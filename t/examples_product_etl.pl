# examples/product_etl on the data that is here: undisturbed, with clients and
# backends that are killed, and with a server that is.

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $run = "$FindBin::RealBin/../examples/product_etl/run";
my $node = PostgreSQL::Test::Cluster->new('product_etl');
$node->init;
$node->append_conf('postgresql.conf', "wal_level = replica\nshared_preload_libraries = 'batchdedup'\nrestart_after_crash = on");
$node->start;
%ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres');

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
