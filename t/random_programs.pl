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
#   BDD_SEED=4711 prove … t/random_programs.pl       one program again
#   BDD_SEED=100000-199999 prove …                       many others
#
# and
#   BDD_PROGRAMS=n         how many programs (6000), from seed 1
#   BDD_MAX_FAILURES=n     stop after so many (3)
#   BDD_SHRINK_SECONDS=n   how long to look for a smaller program (60)
#   BDD_ANY_ORDER=1        take every order of transactions that the contract
#                          allows, not only that of the COMMITs
#   BDD_PRINT=1            print the programs before they run
#   BDD_STANDIN=file.sql   test the test: SQL that makes the schema batchdedup
#                          with functions of its own, instead of the extension
#
# The parts: RandomSuite (runs and reports), RandomShapes (tables and values),
# RandomProgram (the generator), RandomSql (steps as SQL), RandomModel and
# RandomOracle (what must come out), RandomRunner (the server) and RandomShrink.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use RandomSuite;

RandomSuite::run(programs => 6000);
done_testing();
