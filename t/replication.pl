# Logical replication. What is applied to a target is replicated like every
# other write. A subscription writes to its tables as they are, beside targets,
# guards and redirects: it cannot ask, nor wait for whom it would ask.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql_in await_in);

start_server('replication', { allows_streaming => 'logical' }, 'wal_level = logical');

for my $database ('source', 'copy')
{
	sql_in('postgres', "CREATE DATABASE $database");
	sql_in($database, <<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE redirected (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target('t', flush_interval => '0', guard => 'error');
SELECT batchdedup.create_target('redirected', flush_interval => '0');
SQL
}
sql_in('copy', "SELECT batchdedup.create_redirect('redirected')");
sql_in('source', "CREATE PUBLICATION p FOR TABLE t, redirected; SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
sql_in('copy', "CREATE SUBSCRIPTION s CONNECTION 'host=" . $node->host . ' port=' . $node->port . " dbname=source' PUBLICATION p WITH (create_slot = false, slot_name = 's', copy_data = false)");

sql_in('source', q(SELECT batchdedup.upsert('t', '[{"k": 1, "v": "first"}, {"k": 1, "v": "source"}]')));
is(sql_in('copy', "SELECT count(*) FROM t"), 0, 'rows in the buffer are not replicated');
sql_in('source', "SELECT batchdedup.flush('t')");
await_in('copy', "(SELECT v = 'source' FROM t WHERE k = 1)", 'those that are applied are');

# A row waits in the subscriber's buffer; its guard is "error".
sql_in('copy', q(SELECT batchdedup.upsert('t', '[{"k": 1, "v": "copy"}, {"k": 2, "v": "copy"}]')));
sql_in('source', "UPDATE t SET v = 'source again'; INSERT INTO t VALUES (2, 'source'), (3, 'source'); DELETE FROM t WHERE k = 3");
sql_in('source', "INSERT INTO redirected VALUES (1, 'source')");
await_in('copy', "(SELECT v = 'source' FROM t WHERE k = 2)", 'a subscription is not kept from a target that has rows');
await_in('copy', "(SELECT v = 'source' FROM redirected)", 'nor redirected');
is(sql_in('copy', "SELECT string_agg(v, ', ' ORDER BY k) FROM t"), 'source again, source', 'it writes to the table');
is(sql_in('copy', "SELECT foreign_writes, buffered_rows FROM batchdedup.stat_target WHERE target = 't'::regclass"), '0|2', 'and is not counted');
is(sql_in('copy', "SELECT batchdedup.flush('t')"), 2, 'the buffered rows are applied');
is(sql_in('copy', "SELECT string_agg(v, ', ' ORDER BY k) FROM t"), 'copy, copy', 'on top of what it wrote');
unlike(slurp_file($node->logfile), qr/(logical replication|subscription).*ERROR/, 'the subscription met no error');

sql_in('copy', "DROP SUBSCRIPTION s");
$node->stop;
done_testing();
