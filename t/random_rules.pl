# Random programs as in random_programs.pl, on targets with merge rules, a version column, or
# coalesce_rows => false, with and without the buffer, logged or not, alone or in
# a flush_group: the tables must end as if plain statements had run that say in
# SQL what each rule means, and get() and the views must show what will be there.
# Where rows are refused, the table and the letters together must account for
# everything. Of a group nobody ever sees a transaction in part.
#
#   BDD_SHAPE=cit      one table only
#   BDD_KIND=overlap   or direct, group, plain: one kind only
#
# and the environment variables of RandomHunt. The parts: RandomRules
# (tables, generator, SQL) and RandomRulesRunner (the server, and the oracle).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RandomHunt;
use RandomRules;
use RandomRulesRunner;

my $node = PostgreSQL::Test::Cluster->new('rules');
$node->init;
$node->append_conf('postgresql.conf', 'wal_level = replica');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'\nautovacuum_naptime = 5s\nbatchdedup.retry_backoff = 20ms");
$node->start;
my $runner = RandomRulesRunner->new(node => $node);

my $ran = RandomHunt::hunt(
	runner => $runner,
	generate => \&RandomRules::generate,
	to_text => \&RandomRules::to_text,
	programs => 600,
	what => 'end as plain statements do');

# Programs that never met the buffer would pass, too.
my ($coalesced, $flushes, $stale, $failed) = $runner->dbh(0)->selectrow_array(
	'SELECT sum(coalesced), sum(flushes), sum(stale), sum(failed_flushes) FROM batchdedup.stat_target');
note("coalesced $coalesced, flushes $flushes, stale $stale, failed flushes $failed");
ok($coalesced > 0 && $flushes > 0 && $stale > 0, 'rows went through the buffer') if $ran >= 100 && !$ENV{BDD_SHAPE};

$runner->disconnect;
$node->stop;
done_testing();
