# Transactions that each find room when they upsert, but not all of them when
# they commit: COMMIT waits, and holds nothing while it does.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql await);

start_server('tight', <<'CONF');
batchdedup.buffer_size = 4MB
batchdedup.full_timeout = '1h'
CONF

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE other (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target(t, flush_interval => '0', flush_rows => 0) FROM unnest('{t,other}'::regclass[]) t;
SELECT batchdedup.pause('t');
SQL

# A transaction with a row of "other" and 500 kB for "t", which take a third of its share.
sub start_transaction
{
	my ($from, $settings) = @_;
	my $psql = $node->background_psql('postgres', on_error_stop => 0);
	$psql->query_until(qr/started/, <<"SQL");
$settings;
BEGIN;
SELECT batchdedup.upsert(ROW($from, 'x')::other);
SELECT count(batchdedup.upsert(ROW(k, rpad(k::text, 1000, 'x'))::t)) FROM generate_series($from, $from + 499) k;
\\echo started
SQL
	return $psql;
}

sub commit { $_[0]->query_until(qr/ended/, "COMMIT;\n\\echo ended\n"); $_[0]->quit; return }

sub await_commit
{
	my ($name) = @_;
	await("count(*) = 1 FROM pg_stat_activity WHERE query = 'COMMIT;' AND wait_event_type = 'Extension'", $name);
	return;
}

my @sessions = map { start_transaction(1000 * $_, 'SET batchdedup.enabled = on') } 1 .. 3;
my $impatient = start_transaction(4000, "SET batchdedup.full_timeout = '50ms'");
commit($_) foreach @sessions[ 0, 1 ];
is(sql("SELECT count(*) FROM batchdedup.buffered(NULL::t)"), 1000, 'two transactions fit');

$sessions[2]->query_until(qr/asked/, "\\echo asked\nCOMMIT;\n\\echo ended\n");
await_commit('the third waits at COMMIT');
sql("SELECT batchdedup.flush('other')");
is(sql("SELECT count(*) FROM other"), 2, 'flush() does not wait for it meanwhile');
is(sql("SELECT count(*) FROM batchdedup.buffered(NULL::t)"), 1000, 'and nothing of it is visible');

commit($impatient);
like(slurp_file($node->logfile), qr/ERROR:  the buffer of "t" is full\n.*DETAIL: .*full_timeout \(50 ms\)/, 'another one gives up after full_timeout');

sql("SELECT batchdedup.resume('t')");
$sessions[2]->query_until(qr/ended/, "\n");
$sessions[2]->quit;
sql("SELECT batchdedup.flush()");
is(sql("SELECT k / 1000, count(*), count(*) FILTER (WHERE v = rpad(k::text, 1000, 'x')) FROM t GROUP BY 1 ORDER BY 1"),
	join("\n", map { "$_|500|500" } 1 .. 3), 'with room it goes on, and its rows arrive');
is(sql("SELECT string_agg(k::text, ' ' ORDER BY k) FROM other"), '1000 2000 3000',
	'those of the other target, too; nothing of the transaction that failed');
await("used_bytes = 0 FROM batchdedup.stat_buffer", 'all memory is given back');

$node->stop;
done_testing();
