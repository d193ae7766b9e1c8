# A library meets a script of another version: the worker waits, and says so;
# nothing is lost.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('main');
$node->init;
$node->append_conf('postgresql.conf', "wal_level = replica\nmax_wal_senders = 2\nshared_preload_libraries = 'batchdedup'\nbatchdedup.flush_interval = '200ms'\n");
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{CREATE EXTENSION batchdedup; CREATE TABLE t (id int PRIMARY KEY, v text); SELECT batchdedup.create_target('t')});
my $version = sql(q{SELECT extversion FROM pg_extension WHERE extname = 'batchdedup'});
my $set = q{UPDATE pg_extension SET extversion = '%s' WHERE extname = 'batchdedup'};

# In one transaction: the worker must meet the rows and the other version.
sql(q{BEGIN; SELECT batchdedup.upsert(ROW(1, 'one')::t); } . sprintf($set, '0.9') . '; COMMIT');
$node->wait_for_log(qr/batchdedup's library and the extension in this database are of different versions/);
pass('the worker says so in the log');
is(sql('SELECT count(*) FROM t'), '0', 'it applies nothing');
my ($result, $out, $err) = $node->psql('postgres', 'SELECT * FROM batchdedup.health()');
like($err, qr/ERROR:  batchdedup's library and the extension in this database are of different versions/, 'health() says so, too');
like($err, qr/DETAIL:  The library is of version \Q$version\E, the extension of version 0\.9\./, 'which versions');
like($err, qr/HINT:  Run ALTER EXTENSION batchdedup UPDATE, or install the library of version 0\.9 and restart the server\./, 'what to do');

sql(sprintf($set, $version));
ok($node->poll_query_until('postgres', q{SELECT v = 'one' FROM t}), 'the rows are applied once the versions are the same');
is(sql('SELECT inserted FROM batchdedup.stat_target'), '1', 'once');

# Over a restart.
sql(q{SELECT batchdedup.upsert(ROW(2, 'two')::t); } . sprintf($set, '0.9'));
$node->stop('immediate');
$node->start;
($result, $out, $err) = $node->psql('postgres', q{SELECT batchdedup.flush('t')});
like($err, qr/are of different versions/, 'after a crash calls say so');
sql(sprintf($set, $version));
is(sql(q{SELECT batchdedup.flush('t') >= 0}), 't', 'flush()');
is(sql('SELECT v FROM t ORDER BY id'), "one\ntwo", 'nothing was lost');

$node->stop;
done_testing();
