# Random programs as in random_programs.pl, with and without the buffer: sessions with
# batchdedup.enabled = off, targets in mode "direct", and both switched in the
# middle of sessions and transactions. The calls and their rules are the same,
# so the tables must end in the same way.
#
# Whoever writes directly keeps row locks until he commits. As one process
# drives all sessions, these programs leave out what would have to wait: see
# "writing without the buffer" in RandomModel.
#
# The environment variables are those of random_programs.pl.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use Test::More;
use RandomSuite;

RandomSuite::run(programs => 600, direct => 1);
done_testing();
