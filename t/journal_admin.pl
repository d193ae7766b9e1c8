# The journal as its administrator meets it: servers that cannot have one, a slot
# that is lost, WAL that is missing, targets that keep WAL, a dead standby.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use PowerLoss qw(await_end);
use Server qw($node start_server sql fails await);

sub start_node
{
	my ($name, $conf) = @_;
	$node->stop('immediate') if $node;
	start_server($name, "max_wal_senders = 2
$conf");
	sql('CREATE EXTENSION batchdedup; CREATE TABLE filler (x text)');
	return;
}

# Some MB of WAL.
sub write_wal
{
	my ($mb) = @_;
	sql("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, $mb * 1000); SELECT pg_switch_wal()");
	return;
}

sub journal { return sql("SELECT $_[0] FROM batchdedup.stat_journal") }

my $health = "SELECT string_agg(coalesce(target::text, '-') || ' ' || status, ', ' ORDER BY target NULLS FIRST) "
  . "FROM batchdedup.health() WHERE check_name = 'journal'";

my $targets = <<'SQL';
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE TABLE c (k int PRIMARY KEY, n bigint);
SELECT batchdedup.create_target('t', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_target('c', flush_interval => '0', flush_rows => 0, merge => '{"n": "sum"}');
SQL

# ---------- with a journal ----------

start_node('journal', "batchdedup.max_journal = '1GB'");
sql($targets);
is(sql("SELECT slot_type || ' ' || active FROM pg_replication_slots WHERE slot_name = 'batchdedup'"), 'physical true', 'a slot is held');
is(sql($health), '- ok', 'health: ok');
is(sql("SELECT string_agg(target || ' ' || logged, ', ' ORDER BY target) FROM batchdedup.target"), 't true, c true', 'logged by default');
fails("SELECT pg_drop_replication_slot('batchdedup')", qr/ERROR:  55006: replication slot "batchdedup" is active/, 'nobody drops the slot');

# Nothing is kept for targets without rows, whatever else is written.
my $before = journal('slot_lsn');
write_wal(20);
await("slot_lsn > '$before'::pg_lsn + 16 * 1024 * 1024 FROM batchdedup.stat_journal", 'the slot follows if nothing is buffered');

# A row costs its bytes and no more than 100 others, and neither xid nor commit record.
{
	my $row = "'" . ('x' x 100) . "'";
	sql("SELECT batchdedup.upsert(ROW(0, 'x')::t)");
	my $xid = sql('SELECT pg_snapshot_xmax(pg_current_snapshot())');
	my $bytes = sql(<<"SQL");
SELECT pg_current_wal_insert_lsn() AS before \\gset
DO \$\$ BEGIN FOR i IN 1..100 LOOP PERFORM batchdedup.upsert(ROW(i, $row)::t); COMMIT; END LOOP; END \$\$;
SELECT ((pg_current_wal_insert_lsn() - :'before') / 100 - pg_column_size(ROW(1, $row)::t))::int;
SQL
	cmp_ok($bytes, '<=', 100, "a row's message is at most its bytes and 100 more ($bytes)");
	is(sql('SELECT pg_snapshot_xmax(pg_current_snapshot())'), $xid, 'no xid is used');
	sql("SELECT batchdedup.flush()");
}

# ---------- a target that keeps WAL ----------

$node->append_conf('postgresql.conf', "batchdedup.max_journal = '4MB'");
$node->reload;
sql(<<'SQL');
SELECT batchdedup.pause('t'), batchdedup.pause('c');
SELECT count(batchdedup.upsert(ROW(i, repeat('v', 200) || i)::t)) FROM generate_series(1, 1000) i;
SELECT batchdedup.upsert('t', '{"k": 1, "v": "changed"}'), batchdedup.delete('t', '{"k": 2}');
SELECT count(batchdedup.upsert(ROW(i % 10, 1)::c)) FROM generate_series(1, 1000) i;
SQL
$before = sql('SELECT pg_current_wal_insert_lsn()');
write_wal(8);
await("slot_lsn > '$before' FROM batchdedup.stat_journal", 'rows that keep too much WAL are written anew');
sql("SELECT count(batchdedup.upsert(ROW(i % 10, 1)::c)) FROM generate_series(1, 1000) i");
$node->stop('immediate');
$node->start;
sql("SELECT count(batchdedup.upsert(ROW(i % 10, 1)::c)) FROM generate_series(1, 1000) i");
$before = sql('SELECT pg_current_wal_insert_lsn()');
write_wal(8);
await("slot_lsn > '$before' FROM batchdedup.stat_journal", 'also those that were found in the journal before');
$node->stop('immediate');
$node->start;
sql("SELECT batchdedup.resume('t'), batchdedup.resume('c'); SELECT batchdedup.flush()");
is(sql("SELECT count(*), min(v) FILTER (WHERE k = 1), count(*) FILTER (WHERE k = 2) FROM t WHERE k BETWEEN 1 AND 1000"), '999|changed|0', 'each row is there after two crashes');
is(sql("SELECT min(n) || ' ' || max(n) FROM c"), '300 300', 'and each sum counts once');

# A copy that a crash interrupts does not count, and what it was to replace does.
sql("SELECT batchdedup.pause('t'), batchdedup.pause('c')");
sql("SELECT count(batchdedup.upsert(ROW(i, 'whole')::t)) FROM generate_series(1, 1000) i");
sql("SELECT count(batchdedup.upsert(ROW(i % 10, 1)::c)) FROM generate_series(1, 1000) i");
$node->append_conf('postgresql.conf', "batchdedup.debug_point = 'copied:kill'");
$node->reload;
eval { write_wal(8) };
await_end($node);
ok(1, 'the server crashes in a copy');
$node->append_conf('postgresql.conf', "batchdedup.debug_point = ''");
$node->start;
sql("SELECT batchdedup.resume('t'), batchdedup.resume('c'); SELECT batchdedup.flush()");
is(sql("SELECT count(*) FROM t WHERE v = 'whole'"), 1000, 'a copy in part: no row is missing');
is(sql("SELECT min(n) || ' ' || max(n) FROM c"), '400 400', 'and none counts twice');

# ---------- the server takes WAL away ----------

$node->append_conf('postgresql.conf', "batchdedup.max_journal = -1\nmax_slot_wal_keep_size = '16MB'\nmax_wal_size = '32MB'");
$node->reload;
sql("SELECT batchdedup.pause('t'), batchdedup.pause('c')");
sql("SELECT count(batchdedup.upsert(ROW(i, 'kept')::t)) FROM generate_series(1, 1000) i");
sql("SELECT count(batchdedup.upsert(ROW(i % 10, 1)::c)) FROM generate_series(1, 1000) i");
write_wal(20) for 1 .. 4;
sql('CHECKPOINT');
$node->wait_for_log(qr/has invalidated the replication slot of batchdedup/);
pass('the log says that the slot was invalidated');
# The server may do that again before the launcher has noticed; then "kept" is of the slot before.
await("kept AND needed AND wal_status <> 'lost' FROM (SELECT kept, oldest_unapplied_lsn >= slot_lsn AS needed FROM batchdedup.stat_journal) j, "
	  . "pg_replication_slots WHERE slot_name = 'batchdedup'",
	'there is a new slot, and the rows are behind it');
$node->stop('immediate');
$node->start;
sql("SELECT batchdedup.resume('t'), batchdedup.resume('c'); SELECT batchdedup.flush()");
is(sql("SELECT count(*) FROM t WHERE v = 'kept' AND k BETWEEN 1 AND 1000"), 1000, 'no row is lost');
is(sql("SELECT min(n) || ' ' || max(n) FROM c"), '500 500', 'and none counts twice');
is(sql($health), '- ok', 'health: ok again');

# ---------- the slot is dropped while the library is away ----------

sql("SELECT count(batchdedup.upsert(ROW(i, 'lost')::t)) FROM generate_series(1, 10) i; SELECT batchdedup.pause('t')");
$node->stop('immediate');
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->start;
sql("SELECT pg_drop_replication_slot('batchdedup')");
write_wal(20) for 1 .. 3;
sql('CHECKPOINT');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'");
$node->restart;
fails("SELECT batchdedup.upsert(ROW(1, 'x')::t)", qr/ERROR:  XX001: part of the journal of "t" is missing.*\n.*There is no WAL from.*\n.*accept_loss\('public.t'\)/s, 'missing WAL: rows are refused');
is(sql($health), '- ok, t fail, c fail', 'missing WAL: health says so');
$node->restart;
$node->stop('immediate');
$node->start;
fails("SELECT batchdedup.upsert(ROW(1, 'x')::t)", qr/part of the journal of "t" is missing/, 'missing WAL: still so after other starts');
sql("SELECT batchdedup.resume('t'), batchdedup.accept_loss('t')");
sql("SELECT batchdedup.upsert(ROW(1, 'after')::t); SELECT batchdedup.flush('t')");
is(sql("SELECT v FROM t WHERE k = 1"), 'after', 'accept_loss: the target works');
is(sql("SELECT count(*) FROM t WHERE v = 'lost'"), 0, 'without what was lost');
fails("SELECT batchdedup.upsert(ROW(1, 1)::c)", qr/part of the journal of "c" is missing/, 'others wait for their owner');
sql("CREATE ROLE other; GRANT USAGE ON SCHEMA public TO other");
fails("SET ROLE other; SELECT batchdedup.accept_loss('c')", qr/ERROR:  42501/, 'accept_loss: the owner only');
sql("SELECT batchdedup.accept_loss('c'); SELECT batchdedup.upsert(ROW(1, 1)::c); SELECT batchdedup.flush()");
is(sql("SELECT n FROM c WHERE k = 1"), 501, 'accept_loss: the other one, too');

# ---------- a standby that is gone ----------

$node->append_conf('postgresql.conf', "synchronous_standby_names = 'nobody'");
$node->reload;
await("current_setting('synchronous_standby_names') = 'nobody'", 'a standby that is not there');
my $writer = $node->background_psql('postgres');
$writer->query_until(qr/sent/, "\\echo sent\nSELECT batchdedup.upsert(ROW(5, 'waiting')::t);\n");
await("EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')", 'the writer waits for it');
$node->safe_psql('postgres', "SET synchronous_commit = local; SELECT batchdedup.flush('t')");
is(sql("SELECT v FROM t WHERE k = 5"), 'waiting', 'and its row is flushed all the same');
$node->append_conf('postgresql.conf', "synchronous_standby_names = ''");
$node->reload;
await("NOT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep')", 'the writer goes on');
$writer->quit;

# ---------- a segment of WAL is gone ----------

start_node('segment', '');
sql($targets);
sql("CREATE TABLE u (k int PRIMARY KEY, v text); SELECT batchdedup.create_target('u', logged => false, flush_interval => '0')");
sql("SELECT batchdedup.pause('t'); SELECT count(batchdedup.upsert(ROW(i, 'x')::t)) FROM generate_series(1, 10) i");
my $segment = sql("SELECT pg_walfile_name(slot_lsn) FROM batchdedup.stat_journal");
sql('SELECT pg_switch_wal(); CHECKPOINT');
$node->stop('immediate');
my $wal = $node->data_dir . '/pg_wal';
unlink "$wal/$segment" or die;
$node->start;
fails("SELECT batchdedup.upsert(ROW(1, 'y')::t)", qr/part of the journal of "t" is missing/, 'a segment is gone: its rows are missed');
sql("SELECT batchdedup.upsert(ROW(1, 'y')::u)");
is(sql("SELECT batchdedup.flush('u')"), 1, 'unlogged targets work');
sql("SELECT batchdedup.accept_loss('t'), batchdedup.accept_loss('c'), batchdedup.resume('t')");

# ---------- the launcher cannot read, and the server is stopped ----------

sql("SELECT batchdedup.pause('t'); SELECT count(batchdedup.upsert(ROW(i, 'kept')::t)) FROM generate_series(1, 10) i");
$node->append_conf('postgresql.conf', "batchdedup.debug_point = 'replay:error'");
$node->stop('immediate');
$node->start;
is(sql("SELECT status FROM batchdedup.health() WHERE check_name = 'journal' AND target IS NULL"), 'warn', 'the launcher fails: health says so');
fails("SET batchdedup.full_timeout = '200ms'; SELECT batchdedup.upsert(ROW(1, 'x')::t)", qr/ERROR:  57P03: batchdedup has not read its journal yet/, 'calls wait for it, and not for ever');
$node->stop('fast');
$node->append_conf('postgresql.conf', "batchdedup.debug_point = ''");
$node->start;
sql("SELECT batchdedup.resume('t'); SELECT batchdedup.flush('t')");
is(sql("SELECT count(*) FROM t WHERE v = 'kept'"), 10, 'a clean stop meanwhile: no row is lost');

# ---------- messages of others ----------

sql("CREATE ROLE forger LOGIN; SELECT batchdedup.upsert(ROW(1, 'mine')::t)");
my $forged = join ';', map { "SELECT pg_logical_emit_message($_->[0], 'batchdedup', $_->[1])" } map { my $m = $_; map { [ $_, $m ] } 'false', 'true' }
  "'\\x0172'::bytea", "'\\xff'::bytea", "''", "'\\x0161ffffff'::bytea", "'\\x0168ffffffffffffffff'::bytea", "'\\x0163'::bytea", "repeat('r', 1000)";
$node->safe_psql('postgres', $forged, extra_params => [ '-U', 'forger' ]);
sql("SELECT batchdedup.upsert(ROW(2, 'mine')::t)");
$node->stop('immediate');
$node->start;
sql("SELECT batchdedup.flush('t')");
is(sql("SELECT count(*) FROM t WHERE v = 'mine'"), 2, 'messages that others write with our prefix mean nothing');
is(sql($health), '- ok', 'and stop nothing');

# ---------- the table is altered while the library is away ----------

for my $how ('immediate', 'fast')
{
	start_node("altered_$how", '');
	sql(<<'SQL');
CREATE TABLE a (k int PRIMARY KEY, gone int, n int, v varchar(20), at timestamptz DEFAULT '2026-01-01', s bigint);
SELECT batchdedup.create_target('a', flush_interval => '0', flush_rows => 0, merge => '{"s": "sum"}');
INSERT INTO a VALUES (3, 0, 30, 'table', now(), 1);
SELECT batchdedup.upsert('a', '{"k": 3, "s": 5}'); SELECT batchdedup.flush('a');
SELECT batchdedup.pause('a');
SELECT batchdedup.upsert(ROW(1, 7, 10, 'full', '2026-02-02', 100)::a);
SELECT batchdedup.upsert('a', '{"k": 2, "v": "part"}');
SELECT batchdedup.upsert('a', '{"k": 3, "n": 33, "s": 10}');
SELECT batchdedup.upsert('a', '{"k": 4, "n": 4}'), batchdedup.delete('a', '{"k": 4}');
SQL
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->stop($how);
	$node->start;
	sql(<<'SQL');
INSERT INTO a VALUES (4);
ALTER TABLE a DROP COLUMN gone, ALTER n TYPE bigint, ALTER v TYPE text, ADD extra text DEFAULT 'new', ADD other int;
SQL
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'");
	$node->restart;
	sql("SELECT batchdedup.upsert('a', '{\"k\": 3, \"extra\": \"later\", \"s\": 1000}')");
	sql("SELECT batchdedup.resume('a'); SELECT batchdedup.flush('a')");
	is(sql("SELECT k, n, v, at::date, s, extra, other FROM a ORDER BY k"),
		"1|10|full|2026-02-02|100|new|\n2||part|2026-01-01||new|\n3|33|table|" . sql('SELECT current_date') . "|1016|later|",
		"altered without the library, stopped $how: rows are brought into the new columns");
	sql("SELECT batchdedup.pause('a'); SELECT batchdedup.upsert('a', '{\"k\": 1, \"v\": \"much longer than it may be\"}')");
	$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
	$node->stop($how);
	$node->start;
	sql("ALTER TABLE a ALTER v TYPE varchar(9)");
	$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'");
	$node->restart;
	sql("SELECT batchdedup.resume('a')");
	fails("SELECT batchdedup.flush('a')", qr/SQLSTATE 22001: value too long/, "stopped $how: a value that does not fit is an error");
	sql("TRUNCATE a; SELECT batchdedup.flush('a')");
}

# ---------- somebody tidies up ----------

start_node('tidy', '');
sql($targets);
sql("SELECT batchdedup.pause('t'); SELECT count(batchdedup.upsert(ROW(i, 'x')::t)) FROM generate_series(1, 10) i");
$node->stop('immediate');
$node->start;
await("read FROM batchdedup.stat_journal", 'the journal is read');
unlink glob($node->data_dir . '/batchdedup_replay/*') or die;
sql("SELECT batchdedup.resume('t')");
fails("SELECT batchdedup.flush('t')", qr/rows of "t" could not be applied\nDETAIL:  SQLSTATE XX001: rows are missing in file/, 'a file of the replay is gone: nothing is applied');
is(sql('SELECT count(*) FROM t'), 0, 'and nothing is said to be');
$node->stop('immediate');
$node->start;
sql("SELECT batchdedup.flush('t')");
is(sql('SELECT count(*) FROM t'), 10, 'after another start the rows are there');

# ---------- more targets than there are slots ----------

start_node('many', "batchdedup.max_targets = 3\nbatchdedup.flush_interval = 0");
sql('CREATE TABLE kept (k int PRIMARY KEY, v text)');
sql("SELECT batchdedup.create_target('kept'), batchdedup.pause('kept')");
sql("SELECT batchdedup.upsert(ROW(1, 'x')::kept)");
for my $i (1 .. 5)
{
	sql("CREATE TABLE t$i (k int PRIMARY KEY, v text); SELECT batchdedup.create_target('t$i', flush_interval => '0')");
	sql("SELECT batchdedup.upsert(ROW(1, 'x')::t$i)");
	sql($i % 2 ? "DROP TABLE t$i" : "SELECT batchdedup.drop_target('t$i')");
}
sql("CREATE DATABASE other");
$node->safe_psql('other', $_) for ("CREATE EXTENSION batchdedup; $targets", "SELECT batchdedup.upsert(ROW(1, 'x')::t)", "SELECT batchdedup.upsert(ROW(1, 1)::c)");
sql("DROP DATABASE other");
$node->stop('immediate');
$node->start;
await("read AND replayed_rows >= 1 FROM batchdedup.stat_journal", 'targets and databases that are gone need no slot after a crash');
sql("SELECT batchdedup.resume('kept'); SELECT batchdedup.flush()");
is(sql("SELECT v FROM kept"), 'x', 'and the row of the one that is there is applied');

# ---------- servers that cannot have a journal ----------

start_node('minimal', "wal_level = minimal\nmax_wal_senders = 0");
sql('CREATE TABLE t (k int PRIMARY KEY, v text)');
fails("SELECT batchdedup.create_target('t')",
	qr/ERROR:  55000: a logged target needs a journal, and there is none: wal_level is minimal\nHINT:  Set wal_level to replica or logical/,
	'wal_level = minimal: refused, with what to set');
is(sql($health), '- fail', 'wal_level = minimal: health says so');
sql("SELECT batchdedup.create_target('t', logged => false, flush_interval => '0')");
sql("SELECT batchdedup.upsert(ROW(1, 'x')::t)");
is(sql("SELECT buffered_rows FROM batchdedup.stat_target"), 1, 'wal_level = minimal: unlogged targets work');
fails("SELECT batchdedup.alter_target('t', logged => true)", qr/ERROR:  55000: a logged target needs a journal/, 'alter_target: the same');

start_node('slots', "max_replication_slots = 1\nbatchdedup.flush_interval = 0");
sql($targets);
sql("SELECT count(batchdedup.upsert(ROW(i, 'x')::t)) FROM generate_series(1, 10) i");
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
sql("SELECT pg_drop_replication_slot('batchdedup'), pg_create_physical_replication_slot('other')");
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'");
$node->restart;
await("problem = 'no replication slot is free' FROM batchdedup.stat_journal", 'all slots in use: the reason is shown');
is(sql("SELECT status FROM batchdedup.health() WHERE check_name = 'journal' AND target IS NULL"), 'fail', 'all slots in use: health says so');
sql("SELECT batchdedup.upsert(ROW(11, 'direct')::t)");
is(sql("SELECT count(*) FROM t WHERE v = 'direct'"), 1, 'rows go to the table at once');
sql("SELECT pg_drop_replication_slot('other')");
await("kept FROM batchdedup.stat_journal", 'a slot is free again: it is taken');
sql("SELECT batchdedup.upsert(ROW(12, 'buffered')::t)");
is(sql("SELECT count(*) FROM t WHERE v = 'buffered'"), 0, 'and rows go to the buffer');
$node->stop('immediate');
$node->start;
sql("SELECT batchdedup.flush('t')");
is(sql("SELECT count(*) FROM t WHERE v = 'buffered'"), 1, 'and to the journal');

$node->stop;
done_testing();
