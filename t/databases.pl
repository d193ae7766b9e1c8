# Several databases: targets with the same names, OIDs and numbers do not meet,
# and come and go with their databases.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql_in fails_in await_in);

start_server('databases', <<'CONF');
batchdedup.max_targets = 8
CONF

sub buffered
{
	my ($database, $table) = @_;
	return sql_in($database, "SELECT coalesce(sum(buffered_rows), 0) FROM batchdedup.stat_target WHERE target = '$table'::regclass");
}

# "t" is flushed on request, "u" by itself.
sql_in('postgres', "CREATE DATABASE one");
sql_in('one', <<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE u (k int PRIMARY KEY, v text);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_target('u', flush_interval => '10 ms');
SQL
# Some generations of each are history.
for my $i (1 .. 5)
{
	sql_in('one', "SELECT batchdedup.upsert(ROW(1, 'template $i')::t); SELECT batchdedup.upsert(ROW(1, 'template $i')::u)");
	sql_in('one', "SELECT batchdedup.flush()");
}

# ---------- copies ----------

sql_in('one', "SELECT batchdedup.upsert(ROW(2, 'buffered in one')::t)");
sql_in('postgres', "CREATE DATABASE two TEMPLATE one");
sql_in('postgres', "CREATE DATABASE three TEMPLATE two");
my @databases = qw(one two three);

is(sql_in($_, "SELECT count(*) FROM batchdedup.target"), 2, "$_: has its targets") for @databases;
is( join(' ', map { sql_in($_, "SELECT target::oid || ':' || target_id FROM batchdedup.target WHERE target = 't'::regclass") } qw(two three)),
	join(' ', (sql_in('one', "SELECT target::oid || ':' || target_id FROM batchdedup.target WHERE target = 't'::regclass")) x 2),
	'they have the same OIDs and numbers');
is(buffered('one', 't'), 1, 'one: its rows stay in the buffer');
is(buffered($_, 't'), 0, "$_: what is buffered was not copied") for qw(two three);
is(sql_in('two', "SELECT count(*) FROM batchdedup.buffered(NULL::t)"), 0, 'two: and cannot be seen');
is(sql_in('two', "SELECT batchdedup.get('t', '{\"k\": 2}') IS NULL"), 't', 'two: by key neither');

# ---------- side by side ----------

sql_in($_, "SELECT batchdedup.upsert(ROW(2, 'of $_')::t); SELECT batchdedup.upsert(ROW(3, 'of $_')::t)") for qw(three two one);
sql_in($_, "SELECT batchdedup.upsert(ROW(1, 'of $_')::u)") for @databases;
for my $database (@databases)
{
	is(sql_in($database, "SELECT string_agg(k || v, ' ' ORDER BY k) FROM batchdedup.buffered(NULL::t)"),
		"2of $database 3of $database", "$database: sees its own rows in the buffer");
	is(buffered($database, 't'), 2, "$database: and counts them");
}
await_in($_, "v = 'of $_' FROM u WHERE k = 1", "$_: its worker applies them") for @databases;
is(sql_in('postgres', "SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_stat_activity WHERE backend_type = 'batchdedup worker'"),
	'one three two', 'each has a worker');
is(sql_in('two', "SELECT batchdedup.flush('t')"), 2, 'two: flush()');
is(sql_in('two', "SELECT string_agg(v, ' ' ORDER BY k) FROM t"), 'template 5 of two of two', 'two: its rows are in its table');
is(buffered('one', 't') . buffered('three', 't'), '22', 'the others are not flushed');
sql_in('three', "SELECT batchdedup.pause('t')");
is(sql_in('one', "SELECT batchdedup.flush('t')"), 2, 'one: a target of another database that is paused does not matter');
sql_in('two', "SELECT batchdedup.upsert(ROW(9, 'x')::t); SELECT batchdedup.drop_target('t')");
is(buffered('three', 't'), 2, 'three: nor one that is dropped');
sql_in('two', "SELECT batchdedup.create_target('t', flush_interval => '0'); SELECT batchdedup.upsert(ROW(9, 'y')::t)");

# ---------- renamed ----------

sql_in('postgres', "ALTER DATABASE three RENAME TO third");
sql_in('third', "SELECT batchdedup.resume('t')");
is(sql_in('third', "SELECT batchdedup.flush('t')"), 2, 'renamed: its rows stay');
is(sql_in('third', "SELECT string_agg(v, ' ' ORDER BY k) FROM t"), 'template 5 of three of three', 'renamed: they are applied');
is(sql_in('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'batchdedup worker' AND datname = 'third'"),
	1, 'renamed: its worker knows the name');

# ---------- moved ----------

my $elsewhere = PostgreSQL::Test::Utils::tempdir();
sql_in('postgres', "CREATE TABLESPACE elsewhere LOCATION '$elsewhere'");
sql_in('third', "SELECT batchdedup.upsert(ROW(4, 'on the way')::t)");
sql_in('postgres', "ALTER DATABASE third SET TABLESPACE elsewhere");
is(buffered('third', 't'), 1, 'moved: its rows stay, and its worker was not in the way');
is(sql_in('third', "SELECT batchdedup.flush('t')"), 1, 'moved: they are applied');

# ---------- dropped ----------

sql_in('third', "SELECT batchdedup.pause('t'); SELECT count(batchdedup.upsert(ROW(i, repeat('x', 1000))::t)) FROM generate_series(1, 1000) i");
{
	my $writer = $node->background_psql('third', on_error_stop => 0);
	$writer->query_safe("BEGIN; SELECT batchdedup.upsert(ROW(5000, 'pending')::t)");
	sql_in('postgres', "DROP DATABASE third WITH (FORCE)");
	eval { $writer->{run}->finish };
}
is( sql_in('postgres', "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'batchdedup worker' AND datname = 'third'"),
	0, 'DROP DATABASE FORCE: the worker is gone');
sql_in('one', "SELECT batchdedup.flush()");
sql_in('two', "SELECT batchdedup.flush()");
is(sql_in('one', "SELECT targets FROM batchdedup.stat_buffer"), 4, 'DROP DATABASE: its targets are gone');
await_in('one', 'used_bytes = 0 FROM batchdedup.stat_buffer', 'DROP DATABASE: and their memory');

sql_in('postgres', "CREATE DATABASE third");
sql_in('third', "CREATE EXTENSION batchdedup; CREATE TABLE t (k int PRIMARY KEY, v text); SELECT batchdedup.create_target('t')");
is(sql_in('third', "SELECT count(*) FROM batchdedup.buffered(NULL::t)"), 0, 'a new database of that name has nothing of the old one');
sql_in('third', "SELECT batchdedup.upsert(ROW(1, 'new')::t); SELECT batchdedup.flush('t')");
is(sql_in('third', "SELECT v FROM t"), 'new', 'and works');

# ---------- max_targets ----------

sql_in('third', <<'SQL');
CREATE TABLE many1 (k int PRIMARY KEY, v text);
CREATE TABLE many2 (LIKE many1 INCLUDING ALL);
CREATE TABLE many3 (LIKE many1 INCLUDING ALL);
CREATE TABLE many4 (LIKE many1 INCLUDING ALL);
SELECT batchdedup.create_target('many' || i) FROM generate_series(1, 4) i;
SQL
for my $i (1 .. 3)
{
	sql_in('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many$i)");
}
fails_in('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many4)", '53400', 'max_targets: the ninth is one too many');
is(sql_in('third', "SELECT count(*) FROM batchdedup.target WHERE target = 'many4'::regclass"), 1, 'max_targets: it stays registered');
sql_in('third', "SET batchdedup.enabled = off; SELECT batchdedup.upsert(ROW(7, 'direct')::many4)");
is(sql_in('third', "SELECT v FROM many4"), 'direct', 'max_targets: the kill switch needs none');
sql_in('third', "SELECT batchdedup.pause('many4'); SELECT batchdedup.resume('many4'); SELECT batchdedup.alter_target('many4', mode => 'direct'); SELECT batchdedup.upsert(ROW(8, 'direct')::many4); SELECT batchdedup.alter_target('many4', mode => 'buffered', guard => 'flush')");
is(sql_in('third', "UPDATE many4 SET v = 'x' RETURNING batchdedup.flush('many4')"), "0\n0", 'max_targets: nor do pause, alter_target, mode direct, the guard, flush');
sql_in('third', "SELECT batchdedup.drop_target('many4'); SELECT batchdedup.create_target('many4')");
like(sql_in('third', "SELECT batchdedup.flush() >= 0"), qr/^t$/, 'max_targets: nor drop_target, or flush() of all');
is(sql_in('third', "SELECT batchdedup.flush('many1', 'many2', 'many3')"), 0, 'max_targets: the others go on');
sql_in('third', "SELECT batchdedup.drop_target('many1')");
sql_in('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many4); SELECT batchdedup.flush('many4')");
is(sql_in('third', "SELECT v FROM many4 WHERE k = 1"), 'x', 'max_targets: drop_target makes room');
sql_in('third', "DROP TABLE many2");
sql_in('third', "SELECT batchdedup.create_target('many1'); SELECT batchdedup.upsert(ROW(2, 'y')::many1); SELECT batchdedup.flush('many1')");
is(sql_in('third', "SELECT string_agg(v, ' ' ORDER BY k) FROM many1"), 'x y', 'max_targets: so does DROP TABLE');
sql_in('third', "CREATE TABLE many5 (LIKE many4 INCLUDING ALL); SELECT batchdedup.create_target('many5')");
fails_in('third', "SELECT batchdedup.upsert(ROW(1, 'x')::many5)",
	'53400', 'max_targets: all are in use again');
sql_in('postgres', "DROP DATABASE two");
sql_in('third', "SELECT batchdedup.upsert(ROW(1, 'z')::many5); SELECT batchdedup.flush('many5')");
is(sql_in('third', "SELECT v FROM many5"), 'z', 'max_targets: so does DROP DATABASE');
is(sql_in('one', "SELECT targets, max_targets FROM batchdedup.stat_buffer"), '7|8', 'stat_buffer counts them');

$node->stop;
done_testing();
