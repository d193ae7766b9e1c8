# Several databases: targets with the same names, OIDs and numbers do not meet,
# and come and go with their databases.

use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('databases');
$node->init;
$node->append_conf('postgresql.conf', 'wal_level = replica');
$node->append_conf('postgresql.conf', <<'CONF');
shared_preload_libraries = 'batchdedup'
batchdedup.max_targets = 8
CONF
$node->start;

sub in
{
	my ($database, $sql) = @_;
	return $node->safe_psql($database, $sql);
}

# "t" is flushed on request, "u" by itself.
sub fails
{
	my ($database, $sql, $state, $name) = @_;
	my ($out, $err) = ('', '');
	$node->psql($database, "\\set VERBOSITY sqlstate\n$sql", stdout => \$out, stderr => \$err);
	like($err, qr/\b$state\b/, $name);
	return;
}

sub buffered
{
	my ($database, $table) = @_;
	return in($database, "SELECT coalesce(sum(buffered_rows), 0) FROM batchdedup.stat_target WHERE target = '$table'::regclass");
}

in('postgres', "CREATE DATABASE one");
in('one', <<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE u (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_target('u', flush_interval => '10 ms');
SQL
# Some generations of each are history.
for my $i (1 .. 5)
{
	in('one', "SELECT batchdedup.upsert(ROW(1, 'template $i')::t); SELECT batchdedup.upsert(ROW(1, 'template $i')::u)");
	in('one', "SELECT batchdedup.flush()");
}

# ---------- copies ----------

in('one', "SELECT batchdedup.upsert(ROW(2, 'buffered in one')::t)");
in('postgres', "CREATE DATABASE two TEMPLATE one");
in('postgres', "CREATE DATABASE three TEMPLATE two");
my @databases = qw(one two three);

is(in($_, "SELECT count(*) FROM batchdedup.target"), 2, "$_: has its targets") for @databases;
is( join(' ', map { in($_, "SELECT target::oid || ':' || target_id FROM batchdedup.target WHERE target = 't'::regclass") } qw(two three)),
	join(' ', (in('one', "SELECT target::oid || ':' || target_id FROM batchdedup.target WHERE target = 't'::regclass")) x 2),
	'they have the same OIDs and numbers');
is(buffered('one', 't'), 1, 'one: its rows stay in the buffer');
is(buffered($_, 't'), 0, "$_: what is buffered was not copied") for qw(two three);
is(in('two', "SELECT count(*) FROM batchdedup.buffered(NULL::t)"), 0, 'two: and cannot be seen');
is(in('two', "SELECT batchdedup.get('t', '{\"k\": 2}') IS NULL"), 't', 'two: by key neither');

# ---------- side by side ----------

in($_, "SELECT batchdedup.upsert(ROW(2, 'of $_')::t); SELECT batchdedup.upsert(ROW(3, 'of $_')::t)") for qw(three two one);
in($_, "SELECT batchdedup.upsert(ROW(1, 'of $_')::u)") for @databases;
for my $database (@databases)
{
	is(in($database, "SELECT string_agg(k || v, ' ' ORDER BY k) FROM batchdedup.buffered(NULL::t)"),
		"2of $database 3of $database", "$database: sees its own rows in the buffer");
	is(buffered($database, 't'), 2, "$database: and counts them");
}
ok($node->poll_query_until($_, "SELECT v = 'of $_' FROM u WHERE k = 1"), "$_: its worker applies them") for @databases;
is(in('postgres', "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'batchdedup worker'"),
	'one three two', 'each has a worker');
is(in('two', "SELECT batchdedup.flush('t')"), 2, 'two: flush()');
is(in('two', "SELECT string_agg(v, ' ' ORDER BY k) FROM t"), 'template 5 of two of two', 'two: its rows are in its table');
is(buffered('one', 't') . buffered('three', 't'), '22', 'the others are not flushed');
in('three', "SELECT batchdedup.pause('t')");
is(in('one', "SELECT batchdedup.flush('t')"), 2, 'one: a target of another database that is paused does not matter');
in('two', "SELECT batchdedup.upsert(ROW(9, 'x')::t); SELECT batchdedup.drop_target('t')");
is(buffered('three', 't'), 2, 'three: nor one that is dropped');
in('two', "SELECT batchdedup.create_target('t', flush_interval => '0'); SELECT batchdedup.upsert(ROW(9, 'y')::t)");

# ---------- renamed ----------

in('postgres', "ALTER DATABASE three RENAME TO third");
in('third', "SELECT batchdedup.resume('t')");
is(in('third', "SELECT batchdedup.flush('t')"), 2, 'renamed: its rows stay');
is(in('third', "SELECT string_agg(v, ' ' ORDER BY k) FROM t"), 'template 5 of three of three', 'renamed: they are applied');
is(in('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'batchdedup worker' AND datname = 'third'"),
	1, 'renamed: its worker knows the name');

# ---------- moved ----------

my $elsewhere = PostgreSQL::Test::Utils::tempdir();
in('postgres', "CREATE TABLESPACE elsewhere LOCATION '$elsewhere'");
in('third', "SELECT batchdedup.upsert(ROW(4, 'on the way')::t)");
in('postgres', "ALTER DATABASE third SET TABLESPACE elsewhere");
is(buffered('third', 't'), 1, 'moved: its rows stay, and its worker was not in the way');
is(in('third', "SELECT batchdedup.flush('t')"), 1, 'moved: they are applied');

# ---------- dropped ----------

in('third', "SELECT batchdedup.pause('t'); SELECT count(batchdedup.upsert(ROW(i, repeat('x', 1000))::t)) FROM generate_series(1, 1000) i");
{
	my $writer = $node->background_psql('third', on_error_stop => 0);
	$writer->query_safe("BEGIN; SELECT batchdedup.upsert(ROW(5000, 'pending')::t)");
	in('postgres', "DROP DATABASE third WITH (FORCE)");
	eval { $writer->{run}->finish };
}
is( in('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'batchdedup worker' AND datname = 'third'"),
	0, 'DROP DATABASE FORCE: the worker is gone');
in('one', "SELECT batchdedup.flush()");
in('two', "SELECT batchdedup.flush()");
is(in('one', "SELECT targets FROM batchdedup.stat_buffer"), 4, 'DROP DATABASE: its targets are gone');
ok($node->poll_query_until('one', "SELECT used_bytes = 0 FROM batchdedup.stat_buffer"), 'DROP DATABASE: and their memory');

in('postgres', "CREATE DATABASE third");
in('third', "CREATE EXTENSION batchdedup; CREATE TABLE t (k int PRIMARY KEY, v text); SELECT batchdedup.create_target('t')");
is(in('third', "SELECT count(*) FROM batchdedup.buffered(NULL::t)"), 0, 'a new database of that name has nothing of the old one');
in('third', "SELECT batchdedup.upsert(ROW(1, 'new')::t); SELECT batchdedup.flush('t')");
is(in('third', "SELECT v FROM t"), 'new', 'and works');

# ---------- max_targets ----------

in('third', <<'SQL');
CREATE TABLE many1 (k int PRIMARY KEY, v text);
CREATE TABLE many2 (LIKE many1 INCLUDING ALL);
CREATE TABLE many3 (LIKE many1 INCLUDING ALL);
CREATE TABLE many4 (LIKE many1 INCLUDING ALL);
SELECT batchdedup.create_target('many' || i) FROM generate_series(1, 4) i;
SQL
for my $i (1 .. 3)
{
	in('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many$i)");
}
fails('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many4)", '53400', 'max_targets: the ninth is one too many');
is(in('third', "SELECT count(*) FROM batchdedup.target WHERE target = 'many4'::regclass"), 1, 'max_targets: it stays registered');
in('third', "SET batchdedup.enabled = off; SELECT batchdedup.upsert(ROW(7, 'direct')::many4)");
is(in('third', "SELECT v FROM many4"), 'direct', 'max_targets: the kill switch needs none');
in('third', "SELECT batchdedup.pause('many4'); SELECT batchdedup.resume('many4'); SELECT batchdedup.alter_target('many4', mode => 'direct'); SELECT batchdedup.upsert(ROW(8, 'direct')::many4); SELECT batchdedup.alter_target('many4', mode => 'buffered', guard => 'flush')");
is(in('third', "UPDATE many4 SET v = 'x' RETURNING batchdedup.flush('many4')"), "0\n0", 'max_targets: nor do pause, alter_target, mode direct, the guard, flush');
in('third', "SELECT batchdedup.drop_target('many4'); SELECT batchdedup.create_target('many4')");
like(in('third', "SELECT batchdedup.flush() >= 0"), qr/^t$/, 'max_targets: nor drop_target, or flush() of all');
is(in('third', "SELECT batchdedup.flush('many1', 'many2', 'many3')"), 0, 'max_targets: the others go on');
in('third', "SELECT batchdedup.drop_target('many1')");
in('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many4); SELECT batchdedup.flush('many4')");
is(in('third', "SELECT v FROM many4 WHERE k = 1"), 'x', 'max_targets: drop_target makes room');
in('third', "DROP TABLE many2");
in('third', "SELECT batchdedup.create_target('many1'); SELECT batchdedup.upsert(ROW(2, 'y')::many1); SELECT batchdedup.flush('many1')");
is(in('third', "SELECT string_agg(v, ' ' ORDER BY k) FROM many1"), 'x y', 'max_targets: so does DROP TABLE');
in('third', "CREATE TABLE many5 (LIKE many4 INCLUDING ALL); SELECT batchdedup.create_target('many5')");
fails('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many5)",
	'53400', 'max_targets: all are in use again');
in('postgres', "DROP DATABASE two");
in('third', "SELECT batchdedup.upsert(ROW(1, 'z')::many5); SELECT batchdedup.flush('many5')");
is(in('third', "SELECT v FROM many5"), 'z', 'max_targets: so does DROP DATABASE');
is(in('one', "SELECT targets, max_targets FROM batchdedup.stat_buffer"), '7|8', 'stat_buffer counts them');

$node->stop;
done_testing();
