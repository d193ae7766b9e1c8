# Random programs: several sessions upsert, delete, roll back, flush and read,
# on a few targets and few keys. Whatever they do, the tables must end as if
# the same statements had run on plain tables one transaction after the other.
# In some programs a COMMIT stops at a debug point while other sessions go on;
# there every order that the contract allows is right, elsewhere only that of
# the COMMITs.
#
# Seeds are fixed. What fails is made as small as possible and printed as SQL,
# with the seed:
#
#   BDD_SEED=4711 prove … t/random_programs.pl      one program again
#   BDD_SEED=100000-199999 prove …                  many others
#   BDD_ANY_ORDER=1        take every order of transactions that the contract
#                          allows, not only that of the COMMITs
#
# The engine, of which this and the other tests t/random_*.pl are the plug-ins:
# Random::Suite (runs and reports; its variables of the environment),
# Random::Shapes (tables and values), Random::Program (the generator), Random::State
# (where each session stands), Random::Sql (steps as SQL, and as plain statements),
# Random::Runner and Random::Server (the server, and what must come out),
# Random::Orders (what the contract allows) and Random::Shrink.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Random::Program;
use Random::Runner;
use Random::Suite;
use Test::More;

Random::Program->use_shapes;
Random::Suite::run(
	runner => Random::Runner->new(node => Random::Suite::server('random', 'max_prepared_transactions = 2')),
	generate => sub { Random::Program->generate($_[0]) },
	to_text => \&Random::Sql::to_text,
	programs => 6000,
	what => 'end as plain statements do',
	counts => { coalesced => qr/^[1-9]/, flushes => qr/^[1-9]/, failed_flushes => qr/^0$/ });
done_testing();
