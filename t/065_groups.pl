# Targets of a flush_group: a reader never sees the rows of one without those
# that were written with them in the others, whatever happens to the worker.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('groups');
$node->init;
$node->append_conf('postgresql.conf', 'wal_level = replica');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'batchdedup'
batchdedup.flush_interval = '5ms'
batchdedup.retry_backoff = '10ms'
CONF
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]) }

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE position (id int PRIMARY KEY, n int NOT NULL);
CREATE TABLE "order" (id int PRIMARY KEY, n int NOT NULL, position int REFERENCES position);
CREATE TABLE hedge (id int PRIMARY KEY, n int NOT NULL);
SELECT batchdedup.create_target(t, flush_group => 'g', guard => 'off', merge => '{"n": "sum"}')
  FROM unnest('{position,"order",hedge}'::regclass[]) t;
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
	$psql->query_until(qr/started/, "\\echo started\nDO \$\$ BEGIN FOR i IN 1 .. 20000 LOOP $body; COMMIT; END LOOP; END \$\$;\n");
	push @writers, $psql;
}

my $apart = 0;
my %seen;
my $reader = $node->background_psql('postgres');
for my $i (1 .. 300)
{
	my ($p, $o, $h) = split /\|/, $reader->query_safe(
		'SELECT (SELECT coalesce(sum(n), 0) FROM position), (SELECT coalesce(sum(n), 0) FROM "order"), (SELECT coalesce(sum(n), 0) FROM hedge)');
	$apart++ if $p != $o || $p != $h;
	$seen{$p} = 1;
	$reader->query_safe('SELECT pg_sleep(0.01)');
	sql("SELECT pg_terminate_backend(pid, 10000) FROM batchdedup.stat_worker") if $i % 100 == 0;
}
is($apart, 0, 'no reader sees one without the others');
cmp_ok(scalar keys %seen, '>', 10, 'while they change');
$_->quit for $reader, @writers;
sql("SELECT batchdedup.flush()");
is(sql('SELECT (SELECT sum(n) FROM position), (SELECT sum(n) FROM "order"), (SELECT sum(n) FROM hedge)'), '60000|60000|60000', 'and all is there');
is(sql('SELECT count(*) FROM batchdedup.dead_letter'), 0, 'no row was refused');

# What remains at a shutdown comes as a whole, too.
sql(q{SELECT batchdedup.pause('position'); BEGIN; SELECT batchdedup.upsert('position', '{"id": 100, "n": 1}'), batchdedup.upsert('"order"', '{"id": 100, "n": 1, "position": 100}'), batchdedup.upsert('hedge', '{"id": 100, "n": 1}'); COMMIT});
$node->restart;
is(sql('SELECT count(*) FROM hedge WHERE id = 100'), 0, 'restart: it waits for the paused one');
sql("SELECT batchdedup.resume('position'); SELECT batchdedup.flush('hedge')");
is(sql('SELECT (SELECT count(*) FROM position WHERE id = 100), (SELECT count(*) FROM "order" WHERE id = 100), (SELECT count(*) FROM hedge WHERE id = 100)'), '1|1|1', 'restart: then all come');

$node->stop;
done_testing();
