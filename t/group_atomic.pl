# Targets of a flush_group: a reader never sees the rows of one without those
# that were written with them in the others, whatever happens to the worker.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql wait_until);

start_server('groups', <<'CONF');
batchdedup.flush_rows = 1
batchdedup.retry_backoff = '10ms'
CONF

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE position (id int PRIMARY KEY, n int NOT NULL);
CREATE TABLE "order" (id int PRIMARY KEY, n int NOT NULL, position int REFERENCES position);
CREATE TABLE hedge (id int PRIMARY KEY, n int NOT NULL);
SELECT batchdedup.create_target(t, flush_group => 'g', guard => 'off', merge => '{"n": "sum"}')
  FROM unnest('{position,"order",hedge}'::regclass[]) t;

CREATE TABLE looking (on_duty boolean);
INSERT INTO looking VALUES (true);
CREATE PROCEDURE look(INOUT apart int, INOUT seen int) LANGUAGE plpgsql AS $$
DECLARE
    sums bigint[];
    before bigint[];
BEGIN
    WHILE on_duty FROM looking LOOP
        SELECT ARRAY[(SELECT sum(n) FROM position), (SELECT sum(n) FROM "order"), (SELECT sum(n) FROM hedge)] INTO sums;
        apart := apart + (sums[1] IS DISTINCT FROM sums[2] OR sums[1] IS DISTINCT FROM sums[3])::int;
        seen := seen + (sums IS DISTINCT FROM before)::int;
        before := sums;
        COMMIT;
    END LOOP;
END $$;
SQL

# One transaction writes the three, in changing order.
my @orders = ('1 2 3', '3 1 2', '2 3 1');
my @writers;
for my $w (0 .. 2)
{
	my @part = (
		"PERFORM batchdedup.upsert('position', format('{\"id\": %s, \"n\": 1}', i % 20)::jsonb)",
		"PERFORM batchdedup.upsert('\"order\"', format('{\"id\": %s, \"n\": 1, \"position\": %s}', i % 20, i % 20)::jsonb)",
		"PERFORM batchdedup.upsert('hedge', format('{\"id\": %s, \"n\": 1}', i % 20)::jsonb)");
	my $body = join('; ', map { $part[ $_ - 1 ] } split / /, $orders[$w]);
	my $psql = $node->background_psql('postgres');
	$psql->query_until(qr/started/, "\\echo started\nDO \$\$ BEGIN FOR i IN 1 .. 30000 LOOP $body; COMMIT; END LOOP; END \$\$;\n");
	push @writers, $psql;
}

# Somebody looks all the time, while workers come and go.
my $reader = $node->background_psql('postgres');
$reader->query_until(qr/started/, "\\echo started\nCALL look(0, 0);\n");
for (1 .. 3)
{
	sleep 1;
	sql('SELECT pg_terminate_backend(pid, 10000) FROM batchdedup.stat_worker WHERE pid IS NOT NULL');
}
sql('UPDATE looking SET on_duty = false');
my ($apart, $seen) = split /\|/, $reader->query_safe('SELECT');
is($apart, 0, 'no reader sees one without the others');
cmp_ok($seen, '>', 100, 'while they change');
$_->quit for $reader, @writers;
sql("SELECT batchdedup.flush()");
is(sql('SELECT (SELECT sum(n) FROM position), (SELECT sum(n) FROM "order"), (SELECT sum(n) FROM hedge)'), '90000|90000|90000', 'and all is there');
is(sql('SELECT count(*) FROM batchdedup.dead_letter'), 0, 'no row was refused');

# A target that is found without rows has some when the others are sealed.
sub upsert_all
{
	my ($id) = @_;
	return sql(qq{BEGIN; SELECT batchdedup.upsert('position', '{"id": $id, "n": 1}'), batchdedup.upsert('"order"', '{"id": $id, "n": 1, "position": $id}'),
		batchdedup.upsert('hedge', '{"id": $id, "n": 1}'); COMMIT});
}

sub count_all { my ($id) = @_; return sql(join(' UNION ALL ', map { "SELECT count(*) FROM $_ WHERE id = $id" } 'position', '"order"', 'hedge')); }

sql(q{SELECT batchdedup.pause('position')});
my $holder = $node->background_psql('postgres');
$holder->query_safe('SELECT pg_advisory_lock(7243)');
sql($_) for "ALTER SYSTEM SET batchdedup.debug_point = 'seal:lock'", 'SELECT pg_reload_conf()', 'SELECT pg_sleep(0.1)';
sql(q{SELECT batchdedup.upsert('hedge', '{"id": 101, "n": 1}')});
wait_until(q{count(*) > 0 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted});
upsert_all(102);
sql($_) for 'ALTER SYSTEM RESET batchdedup.debug_point', 'SELECT pg_reload_conf()';
$holder->quit;
sql('SELECT pg_sleep(0.3)');
is(count_all(102), "0\n0\n0", 'a late one is paused: nothing of its transaction is applied');
sql(q{SELECT batchdedup.resume('position'); SELECT batchdedup.flush('hedge')});
is(count_all(102), "1\n1\n1", 'then all of it is');

# What remains at a shutdown comes as a whole, too.
sql(q{SELECT batchdedup.pause('position')});
upsert_all(100);
$node->restart;
is(sql('SELECT count(*) FROM hedge WHERE id = 100'), 0, 'restart: it waits for the paused one');
sql("SELECT batchdedup.resume('position'); SELECT batchdedup.flush('hedge')");
is(count_all(100), "1\n1\n1", 'restart: then all come');

$node->stop;
done_testing();
