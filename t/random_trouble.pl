# Random programs in which things go wrong: DDL, also in transactions that are
# rolled back, between the statements of other sessions; rows that the table
# refuses; targets that are paused, direct, or lack their index; workers and
# writers that are terminated; restarts. Nothing that was committed may be
# missing: it is in the table, superseded, or in batchdedup.dead_letter.
#
#   BDD_KIND=ddl   or bad, foreign: one kind only
#
# The plug-ins are Random::Trouble (the generator, and what each step does) and
# Random::Foreign (the same for two tables with a foreign key), with
# Random::TroubleRunner (what must come out).

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Random::Suite;
use Random::TroubleRunner;
use Test::More;

Random::Suite::run(
	runner => Random::TroubleRunner->new(node => Random::Suite::server('trouble', 'batchdedup.retry_limit = 1000')),
	generate => sub { Random::Trouble::generate($_[0], $ENV{BDD_KIND}) },
	to_text => \&Random::Trouble::to_text,
	programs => 250,
	what => 'lose nothing');
done_testing();
