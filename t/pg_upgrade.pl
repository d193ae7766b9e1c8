# pg_upgrade, and dump and restore: targets, their options and dead letters come
# along; what is still buffered does not, and pg_upgrade is told so.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node $database new_server sql dump_and_restore);

$node = new_server('old');

# ---------- the old cluster ----------

$node->start;
sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE SCHEMA "Other";
CREATE TABLE dropped (id int PRIMARY KEY);
CREATE TABLE "Other"."T" (id int PRIMARY KEY, gone int, v int CHECK (v > 0), created int);
ALTER TABLE "Other"."T" DROP gone;
CREATE TABLE parted (id int PRIMARY KEY, v int) PARTITION BY HASH (id);
CREATE TABLE parted_0 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE redirected (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('dropped');
SELECT batchdedup.create_target('"Other"."T"', update_columns => 'v', flush_interval => '0', flush_rows => 100, guard => 'off');
SELECT batchdedup.create_target('parted', mode => 'direct', on_full => 'error');
SELECT batchdedup.create_target('redirected', flush_interval => '0');
SELECT batchdedup.create_view('parted');
SELECT batchdedup.create_redirect('redirected');
SELECT batchdedup.upsert('dropped', '{"id": 1}');
SELECT batchdedup.flush();
DROP TABLE dropped;
SELECT batchdedup.create_consumer('c');
SELECT batchdedup.publish_event('app.e', to_jsonb(i)) FROM generate_series(1, 3) i;
SELECT batchdedup.ack_events('c', min(id)) FROM batchdedup.poll_events('c');
SQL
for my $v (1 .. 3)
{
	sql(qq(SELECT batchdedup.upsert('"Other"."T"', '[{"id": 1, "v": $v, "created": $v}, {"id": 10$v, "v": -$v}]'); SELECT batchdedup.flush()));
}

# ---------- rows that are still buffered ----------

my $old = $node;
my $new = new_server('new');
my $bindir = $old->config_data('--bindir');
my @pg_upgrade = ('pg_upgrade', '--no-sync', '-d', $old->data_dir, '-D', $new->data_dir, '-b', $bindir, '-B', $bindir,
	'-s', $new->host, '-p', $old->port, '-P', $new->port);
chdir $PostgreSQL::Test::Utils::tmp_check or die;

sql(q(SELECT batchdedup.pause('"Other"."T"'); SELECT batchdedup.upsert('"Other"."T"', '{"id": 1, "v": 4}')));
$old->stop;
ok(-e $old->data_dir . '/batchdedup.buffer', 'a row is left in a file');
$old->command_fails([ @pg_upgrade, '--check' ], 'pg_upgrade does not leave it behind');
my ($log) = glob $new->data_dir . '/pg_upgrade_output.d/*/log/pg_upgrade_server.log';
like(slurp_file($log), qr/FATAL:  rows that batchdedup kept at the last shutdown are not upgraded.*HINT:  Start the old server/s, 'it says why');
ok(-e $old->data_dir . '/batchdedup.buffer', 'and the file is still there');
$old->start;
sql(q(SELECT batchdedup.resume('"Other"."T"'); SELECT batchdedup.flush()));

# ---------- pg_upgrade ----------

my %state = (
	targets => "SELECT target::oid, t FROM batchdedup.target t ORDER BY 1",
	letters => "SELECT l FROM batchdedup.dead_letter_row l ORDER BY id",
	marks => "SELECT target::oid, generation FROM batchdedup.target JOIN batchdedup.mark USING (target_id) ORDER BY 1",
	rows => 'SELECT t FROM "Other"."T" t ORDER BY id',
	members => "SELECT pg_describe_object(classid, objid, objsubid) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass"
	  . " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'batchdedup') AND deptype = 'e' ORDER BY 1");
my %before = map { $_ => sql($state{$_}) } keys %state;
isnt($before{$_}, '', "before: there are $_") for sort keys %state;
my $last_id = sql("SELECT last_value FROM batchdedup.target_option_target_id_seq");
my $mark = sql(q(SELECT generation FROM batchdedup.mark JOIN batchdedup.target USING (target_id) WHERE target = '"Other"."T"'::regclass));
$old->stop;
$old->command_ok([@pg_upgrade], 'pg_upgrade');
ok(!-e $new->data_dir . '/batchdedup.buffer', 'it makes no file');

$node = $new;
$new->start;
is(sql($state{$_}), $before{$_}, "upgraded: $_") for sort keys %state;

# What came before and what comes now are not mixed up.
sql(q(SELECT batchdedup.upsert('"Other"."T"', '[{"id": 1, "v": 5, "created": 5}, {"id": 2, "v": 5, "created": 5}]')));
is(sql(q(SELECT batchdedup.flush('"Other"."T"'))), 2, 'upgraded: rows are applied');
is(sql('SELECT * FROM "Other"."T" ORDER BY id'), "1|5|1\n2|5|5", 'upgraded: by the rules of the target');
is(sql(q(SELECT generation FROM batchdedup.mark JOIN batchdedup.target USING (target_id) WHERE target = '"Other"."T"'::regclass)),
	$mark + 1, 'upgraded: generations are counted on');
sql('ALTER TABLE "Other"."T" DROP CONSTRAINT "T_v_check"');
is(sql(q(SELECT batchdedup.retry_dead_letters('"Other"."T"'))), 3, 'upgraded: letters can be retried');
sql("INSERT INTO parted_buffered VALUES (1, 1), (2, 2); INSERT INTO redirected VALUES (1, 1)");
is(sql("SELECT count(*) FROM parted"), 2, 'upgraded: a view writes, in mode direct');
is(sql("SELECT count(*) FROM redirected"), 0, 'upgraded: a redirect takes rows');
is(sql("SELECT batchdedup.flush('redirected')"), 1, 'upgraded: to the buffer');
sql("CREATE TABLE later (id int PRIMARY KEY); SELECT batchdedup.create_target('later')");
cmp_ok(sql("SELECT target_id FROM batchdedup.target WHERE target = 'later'::regclass"), '>', $last_id, 'upgraded: ids of targets are used once');
sql("DROP TABLE later");
my $poll = "SELECT string_agg(payload::text, ' ' ORDER BY id) FROM batchdedup.poll_events('c')";
is(sql($poll), '2 3', 'upgraded: events that were not acknowledged');
sql("SELECT batchdedup.ack_events('c', max(id)) FROM batchdedup.event; SELECT batchdedup.publish_event('app.e', '4')");
is(sql($poll), '4', 'upgraded: and new ones');
is(sql("SELECT string_agg(status, ' ') FROM batchdedup.health() WHERE status <> 'ok'"), '', 'upgraded: health() has no complaint');

# ---------- dump and restore ----------

sql(q(ALTER TABLE "Other"."T" ADD CHECK (v < 100) NOT VALID; SELECT batchdedup.upsert('"Other"."T"', '{"id": 3, "v": 100}'); SELECT batchdedup.flush()));
$state{targets} =~ s/target::oid, //;
$last_id = sql("SELECT last_value FROM batchdedup.target_option_target_id_seq");
%before = map { $_ => sql($state{$_}) } keys %state;
dump_and_restore('postgres', 'restored');
$database = 'restored';
is(sql("SELECT count(*) FILTER (WHERE generation = 0 AND target_id IN (SELECT target_id FROM batchdedup.target_option)) = count(*) FROM batchdedup.mark"),
	't', 'restored: marks of their own');
is(sql($state{$_}), $before{$_}, "restored: $_") for qw(targets letters rows members);
is(sql(q(SELECT batchdedup.upsert('"Other"."T"', '{"id": 1, "v": 6}'); SELECT batchdedup.flush('"Other"."T"'))), "1\n1", 'restored: rows are applied');
sql("CREATE TABLE later (id int PRIMARY KEY); SELECT batchdedup.create_target('later')");
cmp_ok(sql("SELECT target_id FROM batchdedup.target WHERE target = 'later'::regclass"), '>', $last_id, 'restored: ids of targets are used once');

$node->stop;
done_testing();
