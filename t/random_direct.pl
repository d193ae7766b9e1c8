# Random programs as in random_programs.pl, with and without the buffer: sessions
# with batchdedup.enabled = off, targets in mode "direct", and both switched in the
# middle of sessions and transactions. The calls and their rules are the same,
# so the tables must end in the same way.
#
# A direct write keeps row locks until its COMMIT. As one process
# drives all sessions, these programs leave out what would have to wait: see
# "writing without the buffer" in Random::State.

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
	generate => sub { Random::Program->generate($_[0], 'direct') },
	to_text => \&Random::Sql::to_text,
	programs => 600,
	what => 'end as plain statements do',
	counts => { coalesced => qr/^[1-9]/, flushes => qr/^[1-9]/, failed_flushes => qr/^0$/ });
done_testing();
