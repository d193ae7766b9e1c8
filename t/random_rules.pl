# Random programs as in random_programs.pl, on targets with merge rules, a version
# column, or coalesce_rows => false, with and without the buffer, logged or not,
# alone or in a flush_group: the tables must end as if plain statements had run that
# say in SQL what each rule means, and get() and the views must show what will be
# there. Where rows are refused, the table and the letters together must account for
# everything. A transaction of a group is never seen in part.
#
# The plug-in is Random::Rules, which names its variables of the environment.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Random::Rules;
use Random::Runner;
use Random::Suite;
use Test::More;

Random::Rules->use_shapes;
Random::Suite::run(
	runner => Random::Runner->new(node => Random::Suite::server('rules', 'max_prepared_transactions = 2')),
	generate => sub { Random::Rules->generate($_[0]) },
	to_text => \&Random::Sql::to_text,
	programs => 600,
	what => 'end as plain statements do',
	counts => $ENV{BDD_SHAPE} ? {} : { coalesced => qr/^[1-9]/, flushes => qr/^[1-9]/, stale => qr/^[1-9]/ });
done_testing();
