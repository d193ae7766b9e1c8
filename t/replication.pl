# Logical replication. What is applied to a target is replicated like every
# other write. A subscription writes to its tables as they are, beside targets,
# guards and redirects: it cannot ask, nor wait for whom it would ask.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('replication');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'");
$node->start;

sub in { my ($database, $statement) = @_; return $node->safe_psql($database, $statement) }

sub await
{
	my ($database, $condition, $name) = @_;
	return ok($node->poll_query_until($database, "SELECT $condition"), $name);
}

for my $database ('source', 'copy')
{
	in('postgres', "CREATE DATABASE $database");
	in($database, <<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE redirected (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target('t', flush_interval => '0', guard => 'error');
SELECT batchdedup.create_target('redirected', flush_interval => '0');
SQL
}
in('copy', "SELECT batchdedup.create_redirect('redirected')");
in('source', "CREATE PUBLICATION p FOR TABLE t, redirected; SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
in('copy', "CREATE SUBSCRIPTION s CONNECTION 'host=" . $node->host . ' port=' . $node->port . " dbname=source' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)");

in('source', q(SELECT batchdedup.upsert('t', '[{"k": 1, "v": "first"}, {"k": 1, "v": "source"}]')));
is(in('copy', "SELECT count(*) FROM t"), 0, 'rows in the buffer are not replicated');
in('source', "SELECT batchdedup.flush('t')");
await('copy', "(SELECT v = 'source' FROM t WHERE k = 1)", 'those that are applied are');

# A row waits in the subscriber's buffer; its guard is "error".
in('copy', q(SELECT batchdedup.upsert('t', '[{"k": 1, "v": "copy"}, {"k": 2, "v": "copy"}]')));
in('source', "UPDATE t SET v = 'source again'; INSERT INTO t VALUES (2, 'source'), (3, 'source'); DELETE FROM t WHERE k = 3");
in('source', "INSERT INTO redirected VALUES (1, 'source')");
await('copy', "(SELECT v = 'source' FROM t WHERE k = 2)", 'a subscription is not kept from a target that has rows');
await('copy', "(SELECT v = 'source' FROM redirected)", 'nor redirected');
is(in('copy', "SELECT string_agg(v, ', ' ORDER BY k) FROM t"), 'source again, source', 'it writes to the table');
is(in('copy', "SELECT foreign_writes, buffered_rows FROM batchdedup.stat_target WHERE target = 't'::regclass"), '0|2', 'and is not counted');
is(in('copy', "SELECT batchdedup.flush('t')"), 2, 'the buffered rows are applied');
is(in('copy', "SELECT string_agg(v, ', ' ORDER BY k) FROM t"), 'copy, copy', 'on top of what it wrote');
unlike(slurp_file($node->logfile), qr/(logical replication|subscription).*ERROR/, 'the subscription met no error');

in('copy', "DROP SUBSCRIPTION s");
$node->stop;
done_testing();
