# Rows that were kept at a shutdown and do not fit into what the server is given
# at the next start: it does not start without them, and keeps the file.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql await);

start_server('smaller');

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE a (k int PRIMARY KEY, v text);
CREATE TABLE b (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target(t, logged => false), batchdedup.pause(t) FROM unnest('{a,b}'::regclass[]) t;
SELECT count(batchdedup.upsert(ROW(k, rpad(k::text, 1000, 'a'))::a)) FROM generate_series(1, 8000) k;
SELECT count(batchdedup.upsert(ROW(k, rpad(k::text, 1000, 'b'))::b)) FROM generate_series(1, 8000) k;
SQL
$node->stop('fast');

foreach my $setting ('batchdedup.buffer_size = 4MB')
{
	my $offset = -s $node->logfile;
	$node->append_conf('postgresql.conf', $setting);
	is($node->start(fail_ok => 1), 0, "$setting: the server does not start");
	like(substr(slurp_file($node->logfile), $offset),
		qr/FATAL:  rows that batchdedup kept at the last shutdown do not fit into its buffer\n.*HINT:  Raise batchdedup.buffer_size and batchdedup.max_targets/,
		"$setting: and says why");
	$node->adjust_conf('postgresql.conf', (split / /, $setting)[0], undef);
}

$node->start;
sql("SELECT batchdedup.resume(t) FROM unnest('{a,b}'::regclass[]) t");
sql('SELECT batchdedup.flush()');
is(sql("SELECT count(*) FROM a WHERE v = rpad(k::text, 1000, 'a')"), 8000, 'with the settings as they were no row is missing');
is(sql("SELECT count(*) FROM b WHERE v = rpad(k::text, 1000, 'b')"), 8000, 'of either target');

# Rows of logged targets are in the journal as well: they need no room.
sql(<<'SQL');
SELECT batchdedup.alter_target(t, logged => true), batchdedup.pause(t) FROM unnest('{a,b}'::regclass[]) t;
SELECT count(batchdedup.upsert(ROW(k, rpad(k::text, 1000, 'c'))::a)) FROM generate_series(1, 8000) k;
SELECT count(batchdedup.upsert(ROW(k, rpad(k::text, 1000, 'd'))::b)) FROM generate_series(1, 8000) k;
SQL
$node->append_conf('postgresql.conf', 'batchdedup.buffer_size = 4MB');
$node->restart;
await("sum(buffered_rows) = 16000 FROM batchdedup.stat_target", 'logged rows are there with less memory');
sql("SELECT batchdedup.resume(t) FROM unnest('{a,b}'::regclass[]) t");
sql('SELECT batchdedup.flush()');
is(sql("SELECT count(*) FROM a WHERE v = rpad(k::text, 1000, 'c')"), 8000, 'and every one of them is applied');
is(sql("SELECT count(*) FROM b WHERE v = rpad(k::text, 1000, 'd')"), 8000, 'of either target');

$node->stop;
done_testing();
