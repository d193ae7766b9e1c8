# Batches of files beside crashes: no completed file is lost, none is counted
# twice, every barrier fires once.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use PowerLoss qw(start_with_small_segments power_loss await_end);
use Server qw($node sql wait_until dump_and_restore);

start_with_small_segments('batches', "restart_after_crash = off\nmax_connections = 60\nmax_wal_size = 200MB\n");

sub set
{
	my ($point) = @_;
	$node->append_conf('postgresql.conf', "batchdedup.debug_point = '$point'");
	return;
}

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE acknowledged (file uuid);
CREATE VIEW wrong AS
SELECT b.name, b.status, b.total_files, b.processed_files, b.failed_files, f.*, e.*
  FROM batchdedup.batch b,
       LATERAL (SELECT count(*) AS files, count(*) FILTER (WHERE status = 'done') AS done,
                       count(*) FILTER (WHERE status = 'failed') AS failed
                  FROM batchdedup.file WHERE batch_id = b.id) f,
       LATERAL (SELECT count(*) FILTER (WHERE kind = 'file_done') AS done_events,
                       count(DISTINCT file_id) FILTER (WHERE kind = 'file_done') AS done_files,
                       count(*) FILTER (WHERE kind = 'all_files_done') AS barriers
                  FROM batchdedup.event WHERE batch_id = b.id) e
 WHERE (b.status, b.total_files, b.processed_files, b.failed_files, e.done_events, e.done_files, e.barriers)
       IS DISTINCT FROM ('scattered', f.files, f.done, f.failed, f.done, f.done, 1);
SQL

# ---------- a crash at each step of the last completion ----------

foreach my $point (qw(entered reserved publish journaled flushed seal quiet apply counted barrier applied))
{
	sql(<<"SQL");
SELECT batchdedup.add_file(batchdedup.create_batch('$point'), 'f' || i) FROM generate_series(1, 3) i;
SELECT batchdedup.complete_upload(id) FROM batchdedup.batch WHERE name = '$point';
SELECT batchdedup.complete_file(batch_id, f.id) FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id
 WHERE name = '$point' AND filename <> 'f3';
SELECT batchdedup.flush();
SQL
	set("$point:kill");
	$node->reload;
	sleep 0.3;
	$node->psql('postgres', <<"SQL");
SELECT batchdedup.complete_file(batch_id, f.id) FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id
 WHERE name = '$point' AND filename = 'f3';
SELECT batchdedup.flush();
SQL
	await_end($node);
	set('');
	$node->start;
	# The client has had no answer, or the apply was not: he asks once more.
	sql(<<"SQL");
SELECT batchdedup.complete_file(batch_id, f.id) FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id
 WHERE name = '$point' AND filename = 'f3';
SQL
	is(sql("SELECT batchdedup.wait_batch(id, 'scattered', '1 min') FROM batchdedup.batch WHERE name = '$point'"),
		't', "$point: the barrier fires after the crash");
	is(sql("SELECT * FROM wrong WHERE name = '$point'"), '', "$point: counts and events are right");
}

# ---------- workers that are killed, and a server that is ----------

my ($batches, $files) = (20, 500);

# A worker: claims, completes, fails, forgets; what it knows to be committed it
# writes down in a transaction of its own.
sql(<<"SQL");
CREATE PROCEDURE work(worker text) LANGUAGE plpgsql AS \$\$
DECLARE
    f batchdedup.file;
    files batchdedup.file[];
    dice float;
BEGIN
    LOOP
        files := ARRAY(SELECT c FROM batchdedup.claim_files(worker, 5, '500 ms') c);
        COMMIT;
        IF files = '{}' THEN
            EXIT WHEN NOT EXISTS (SELECT FROM batchdedup.batch WHERE status IN ('pending', 'uploaded', 'scattering'));
            PERFORM pg_sleep(0.02);
        END IF;
        FOREACH f IN ARRAY files LOOP
            dice := random();
            PERFORM pg_sleep(0.004);
            CONTINUE WHEN dice < 0.05;
            IF dice < 0.1 THEN
                PERFORM batchdedup.fail_file(f.batch_id, f.id, 'bad luck', dice < 0.09);
                COMMIT;
            ELSIF dice < 0.15 THEN
                PERFORM batchdedup.complete_file(f.batch_id, f.id);
                ROLLBACK;
            ELSE
                PERFORM batchdedup.complete_file(f.batch_id, f.id, jsonb_build_object('by', worker));
                IF dice < 0.4 THEN
                    INSERT INTO acknowledged VALUES (f.id);
                    COMMIT;
                ELSE
                    COMMIT;
                    INSERT INTO acknowledged VALUES (f.id);
                    COMMIT;
                END IF;
            END IF;
        END LOOP;
    END LOOP;
END \$\$;
SELECT batchdedup.create_batch('t' || i, on_file_failure => 'continue', max_attempts => 100) FROM generate_series(1, $batches) i;
SQL

# Files come while others are worked on.
sql(<<"SQL");
SELECT batchdedup.add_file(id, 'f' || i) FROM batchdedup.batch, generate_series(1, $files) i WHERE name LIKE 't%';
SELECT batchdedup.complete_upload(id) FROM batchdedup.batch WHERE name LIKE 't%' AND name <> 't1';
SQL

my @workers;

sub start_workers
{
	@workers = map {
		my ($in, $out) = ('', '');
		IPC::Run::start(
			[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', "CALL work('w$_')" ],
			'<', \$in, '>', \$out, '2>', \$out)
	} 1 .. 8;
	return;
}

foreach my $round (1 .. 4)
{
	start_workers();
	sleep 0.2 + rand 0.4;
	$_->kill_kill foreach @workers[ 0 .. 2 ];
	sql("SELECT batchdedup.complete_upload(batchdedup.create_batch('t1'))") if $round == 2;
	sleep rand 0.3;
	power_loss($node);
	eval { $_->finish } foreach @workers;
	$node->start;
	cmp_ok(sql("SELECT count(*) FROM batchdedup.batch WHERE status <> 'scattered'"), '>', 0, "round $round: there was work left");
	is( sql(<<'SQL'), '0', "round $round: what was acknowledged is done");
DO 'BEGIN PERFORM batchdedup.flush(); END';
SELECT count(*) FROM (SELECT DISTINCT file FROM acknowledged) a JOIN batchdedup.file f ON f.id = a.file WHERE status <> 'done';
SQL
}
start_workers();
foreach my $worker (@workers)
{
	$worker->finish;
}
is(sql("SELECT count(*) FROM batchdedup.batch WHERE name LIKE 't%' AND NOT batchdedup.wait_batch(id, 'scattered', '1 min')"),
	'0', 'every batch comes to its barrier');
is(sql("SELECT batchdedup.flush() IS NOT NULL"), 't', 'flushed');
is(sql('SELECT * FROM wrong'), '', 'counts and events are right');
is(sql('SELECT batchdedup.reconcile_batches()'), '0', 'there is nothing to repair');
is(sql("SELECT count(*) FROM (SELECT DISTINCT file FROM acknowledged) a JOIN batchdedup.file f ON f.id = a.file WHERE status <> 'done'"),
	'0', 'what was acknowledged is done');
cmp_ok(sql('SELECT count(*) FROM acknowledged'), '>', $batches * $files / 3, 'and much was');

# ---------- nothing but the last file asks for a flush ----------

$node->append_conf('postgresql.conf', "batchdedup.flush_interval = 0\nbatchdedup.flush_rows = 0");
$node->reload;

# The ids of a batch of so many files, and the statement that completes some.
sub batch_of
{
	my ($name, $count) = @_;
	sql("SELECT batchdedup.add_file(batchdedup.create_batch('$name'), 'f' || i) FROM generate_series(1, $count) i");
	return;
}

sub upload { return sql("SELECT batchdedup.complete_upload(id) FROM batchdedup.batch WHERE name = '$_[0]'") }

sub complete
{
	my ($name, $condition) = @_;
	return sql(<<"SQL");
SELECT count(*) FILTER (WHERE batchdedup.complete_file(batch_id, f.id))
  FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id WHERE name = '$name' AND $condition
SQL
}

sub reaches
{
	my ($name, $what) = @_;
	return is(sql("SELECT batchdedup.wait_batch(id, 'scattered', '30 s') FROM batchdedup.batch WHERE name = '$name'"), 't', $what);
}

batch_of('many calls', 30);
upload('many calls');
complete('many calls', "filename = 'f$_'") foreach 1 .. 29;
is(sql("SELECT status, processed_files FROM batchdedup.batch WHERE name = 'many calls'"), 'uploaded|0', 'not before the last one');
complete('many calls', "filename = 'f30'");
reaches('many calls', 'the last of many calls');

batch_of('at once', 30);
upload('at once');
complete('at once', 'true');
reaches('at once', 'all in one transaction');

batch_of('early', 3);
complete('early', 'true');
upload('early');
reaches('early', 'done before the list was final');

# Some are applied while the others come: the worker looks for those.
batch_of('two generations', 30);
upload('two generations');
complete('two generations', "filename <= 'f2'");
{
	my $holder = $node->background_psql('postgres');
	$holder->query_safe(q{BEGIN; SELECT 1 FROM batchdedup.batch_row WHERE name = 'two generations' FOR UPDATE});
	my ($in, $out) = ('', '');
	my $flush = IPC::Run::start(
		[ 'psql', '-XqAt', '-d', $node->connstr('postgres'), '-c', 'SELECT batchdedup.flush()' ],
		'<', \$in, '>', \$out, '2>', \$out);
	wait_until('EXISTS (SELECT FROM pg_locks l JOIN batchdedup.stat_worker w ON w.pid = l.pid WHERE NOT l.granted)', 'the worker waits');
	complete('two generations', "filename > 'f2'");
	$holder->query_safe('COMMIT');
	$holder->quit;
	$flush->finish;
}
reaches('two generations', 'what came while a part was applied');

# A file that another target's transaction has completed, and one that failed.
batch_of('failed', 2);
upload('failed');
complete('failed', "filename = 'f1'");
sql(<<'SQL');
SELECT batchdedup.fail_file(batch_id, f.id, 'broken', false) FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id
 WHERE name = 'failed' AND filename = 'f2';
SQL
is(sql("SELECT batchdedup.wait_batch(id, 'failed', '30 s') FROM batchdedup.batch WHERE name = 'failed'"), 't', 'the last one fails');

$node->append_conf('postgresql.conf', "batchdedup.flush_interval = '2s'\nbatchdedup.flush_rows = 10000");
$node->reload;

# ---------- a clean end ----------

sql(<<'SQL');
SELECT batchdedup.add_file(batchdedup.create_batch('clean'), 'f1'), batchdedup.add_file(batchdedup.create_batch('clean'), 'f2');
SELECT batchdedup.complete_upload(id) FROM batchdedup.batch WHERE name = 'clean';
SELECT batchdedup.complete_file(batch_id, f.id) FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id
 WHERE name = 'clean' AND filename = 'f1';
SQL
$node->stop;
$node->start;
is(sql("SELECT processed_files FROM batchdedup.batch WHERE name = 'clean'"), '1', 'a clean end counts what was done');

# ---------- dump and restore ----------

sql(<<'SQL');
SELECT batchdedup.complete_file(batch_id, f.id) FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id
 WHERE name = 'clean' AND filename = 'f2';
SELECT batchdedup.flush();
INSERT INTO batchdedup.batch_transition VALUES ('scattered', 'completed');
SQL
dump_and_restore('postgres', 'restored');
my $all = "SELECT md5(string_agg(b::text, '' ORDER BY b.id)) FROM batchdedup.batch b";
is($node->safe_psql('restored', $all), sql($all), 'batches come back as they were');
$all = "SELECT md5(string_agg(f::text, '' ORDER BY f.id)) FROM batchdedup.file f";
is($node->safe_psql('restored', $all), sql($all), 'files, too');
is($node->safe_psql('restored', <<'SQL'), "scattered\nt\ncompleted", 'and go on');
SELECT batchdedup.create_batch('new') IS NOT NULL \g /dev/null
SELECT batchdedup.complete_upload(batchdedup.create_batch('new')) \g /dev/null
SELECT status FROM batchdedup.batch WHERE name = 'new';
SELECT batchdedup.complete_file(batch_id, f.id, version => 1) IS NOT NULL FROM batchdedup.file f JOIN batchdedup.batch b ON b.id = batch_id
 WHERE name = 'clean' AND filename = 'f2';
SELECT batchdedup.advance_batch(id, 'completed') FROM batchdedup.batch WHERE name = 'clean' \g /dev/null
SELECT status FROM batchdedup.batch WHERE name = 'clean';
SQL

$node->stop;
done_testing();
