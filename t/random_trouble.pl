# Random programs in which things go wrong: DDL, also in transactions that are
# rolled back, between the statements of other sessions; rows that the table
# refuses; targets that are paused, direct, or lack their index; workers and
# writers that are terminated; restarts. Nothing that was committed may be
# missing: it is in the table, superseded, or in batchdedup.dead_letter.
#
#   BDD_KIND=ddl   or bad, foreign: one kind only
#   BDD_ALL=1      also what is known to fail
#
# and the environment variables of RandomHunt. The parts: RandomTrouble (the
# generator, and what each step does), RandomForeign (the same for two tables
# with a foreign key) and RandomTroubleRunner (the server, and what must come
# out).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use RandomHunt;
use RandomTrouble;
use RandomTroubleRunner;

my $node = PostgreSQL::Test::Cluster->new('trouble');
$node->init;
$node->append_conf('postgresql.conf', 'wal_level = replica');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'\nautovacuum_naptime = 5s\nbatchdedup.retry_backoff = 20ms\nbatchdedup.retry_limit = 1000");
$node->start;
my $runner = RandomTroubleRunner->new(node => $node);

RandomHunt::hunt(
	runner => $runner,
	generate => sub { RandomTrouble::generate($_[0], $ENV{BDD_KIND}) },
	to_text => \&RandomTrouble::to_text,
	programs => 250,
	what => 'lose nothing');

$runner->disconnect;
$node->stop;
done_testing();
