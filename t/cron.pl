# batchdedup with pg_cron: the examples of docs/cron.md, and what that page says of
# jobs that overlap, fail, commit, and work in another database; with background
# workers, and with connections. dev/install-deps drivers installs pg_cron; where
# it is missing that is a failure. PostgreSQL 19 is too new for its packages: there
# the page's jobs are run by hand.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use DocExamples qw(examples run_example);
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use Server qw(new_server);

my $page = slurp_file("$FindBin::RealBin/../docs/cron.md");

sub start
{
	my ($name, $settings) = @_;
	my $node = new_server($name, <<'CONF');
shared_preload_libraries = 'batchdedup, pg_cron'
max_worker_processes = 40
batchdedup.buffer_size = 16MB
CONF
	$node->append_conf('postgresql.conf', $settings->($node));
	$node->start;
	return $node;
}

my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
chomp(my $libraries = `$pg_config --pkglibdir`);
if (!-e "$libraries/pg_cron.so" && `$pg_config --version` =~ /^PostgreSQL 19/)
{
	my $node = start('by_hand', sub { "shared_preload_libraries = 'batchdedup'" });
	$node->safe_psql('postgres', 'CREATE EXTENSION batchdedup');
	my ($sql) = map { $_->[0] } grep { $_->[0] =~ /^CREATE TABLE price/ } examples($page);
	$sql =~ s/^SELECT cron.*//m;
	$node->safe_psql('postgres', "$sql SELECT batchdedup.upsert('price', '{\"item\": 1}')");
	foreach my $job (grep { !/quote|items|DELETE FROM cron/ } $page =~ /\$\$(.*?)\$\$/g)
	{
		is($node->psql('postgres', $job), 0, $job);
	}
	is($node->safe_psql('postgres', 'SELECT count(*) FROM price'), '1', 'the row is in the table');
	$node->stop;
	done_testing();
	exit;
}

# In the first one the jobs are in the database of the extension, in the second one
# in another.
my $workers = start('workers', sub { 'cron.use_background_workers = on' });
my $connections = start('connections',
	sub { "cron.database_name = 'jobs'\ncron.host = '" . $_[0]->host . "'" });
$workers->safe_psql('postgres', 'CREATE DATABASE app');
$connections->safe_psql('postgres', "CREATE DATABASE $_") for qw(jobs app);

# A procedure that commits, as run_sync does, and goes on for as long as it is told to.
my $schema = <<'SQL';
CREATE EXTENSION batchdedup;
CREATE TABLE held (held boolean);
INSERT INTO held VALUES (true);
CREATE TABLE run (n int GENERATED ALWAYS AS IDENTITY, started timestamptz DEFAULT clock_timestamp(), ended timestamptz);
CREATE TABLE tick (at timestamptz DEFAULT clock_timestamp());
CREATE PROCEDURE slow() LANGUAGE plpgsql AS $$
DECLARE
	this int;
BEGIN
	INSERT INTO run DEFAULT VALUES RETURNING n INTO this;
	COMMIT;
	WHILE (SELECT h.held FROM held h) LOOP
		PERFORM pg_sleep(0.05);
		COMMIT;
	END LOOP;
	UPDATE run SET ended = clock_timestamp() WHERE n = this;
END $$;
CREATE PROCEDURE commits_and_fails() LANGUAGE plpgsql AS $$
BEGIN
	INSERT INTO tick DEFAULT VALUES;
	COMMIT;
	RAISE 'no source today';
END $$;
SQL
my $target = <<'SQL';
CREATE TABLE price (item int PRIMARY KEY, price numeric, changed_at timestamptz DEFAULT now());
SELECT batchdedup.create_target('price', flush_interval => '0', flush_rows => 0);
SQL
my $sync = <<'SQL';
CREATE TABLE item (id int PRIMARY KEY, name text, updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE item_copy (id int PRIMARY KEY, name text);
SELECT batchdedup.create_sync('items', 'item', 'item_copy', key => 'id', cursor => 'updated_at', slice_rows => 100);
SQL
my $row = q{SELECT batchdedup.upsert('price', '{"item": 1, "price": 2.50}')};
my $items = q{INSERT INTO item SELECT i, 'item ' || i FROM generate_series(1, 1000) i};

$workers->safe_psql('postgres', $schema);
$workers->safe_psql('app', "CREATE EXTENSION batchdedup; $target $sync");
$connections->safe_psql('jobs', 'CREATE EXTENSION pg_cron');
$connections->safe_psql('app', "$schema $target $sync");
# A sync beside pg_cron's scheduler, which does not say when it waits.
$connections->safe_psql('jobs', "CREATE EXTENSION batchdedup; $sync $items");

# Since 1.5 pg_cron knows schedules of seconds, which save us minutes.
my $version = $connections->safe_psql('jobs', "SELECT extversion FROM pg_extension WHERE extname = 'pg_cron'");
my ($major, $minor) = $version =~ /^(\d+)\.(\d+)/ or die "pg_cron $version";
my $every = '* * * * *';
# Before that, a background worker held up all jobs but its own.
my $at_once = 'false';
if ($major > 1 || $minor >= 5)
{
	$every = '2 seconds';
	$at_once = 'true';
	$page =~ s/'\Q* * * * *\E'/'$every'/g;
}
note("pg_cron $version, jobs run at '$every'");

# ---------- all jobs ----------

sleep 61 - time % 60 if $every eq '* * * * *' && time % 60 > 45;
my $minute = int(time / 60);

# What comes after these words are the results.
my ($jobs, $results) = split /^After a minute:$/m, $page;
my $at = 0;
foreach my $example (examples($jobs))
{
	$at++;
	run_example($workers, 'postgres', "docs/cron.md: example $at", @$example);
}
$workers->safe_psql($_, $row) for qw(postgres app);
$connections->safe_psql('app', $row);
$workers->safe_psql('app', $items);
$connections->safe_psql('app', $items);

# What the page has at night is tried now.
$workers->safe_psql('postgres', <<"SQL");
SELECT cron.schedule(jobname || ' (now)', '$every', command) FROM cron.job WHERE schedule <> '$every';
SELECT cron.schedule('slow', '$every', 'CALL slow()') WHERE $at_once;
SELECT cron.schedule('tick', '$every', 'INSERT INTO tick DEFAULT VALUES');
SELECT cron.schedule('fails later', '$every', 'CALL commits_and_fails()');
SELECT cron.schedule('not alone', '$every', 'CALL commits_and_fails(); SELECT 1');
SELECT cron.schedule_in_database('two syncs', '$every', 'CALL batchdedup.run_sync(''items''); CALL batchdedup.run_sync(''items'')', 'app');
SELECT cron.schedule('two', '$every', 'CREATE TABLE left_over (); SELECT 1 / 0');
SQL
$connections->safe_psql('jobs', <<"SQL");
SELECT cron.schedule_in_database(name, '$every', command, 'app')
  FROM (VALUES ('flush', 'SELECT batchdedup.flush(''price'')'), ('slow', 'CALL slow()'),
               ('tick', 'INSERT INTO tick DEFAULT VALUES'), ('fails later', 'CALL commits_and_fails()'),
               ('sync', 'CALL batchdedup.run_sync(''items'')'), ('not alone', 'CALL commits_and_fails(); SELECT 1'), ('nothing', 'SELECT batchdedup.flush(''nothing'')'),
               ('endless', 'SELECT pg_sleep(600)'))
       AS j (name, command);
SELECT cron.schedule('sync here', '$every', 'CALL batchdedup.run_sync(''items'')');
SQL

# Until the job has run they wait, which is seen if there was time before the minute
# was over.
sub rows
{
	my ($node, $database) = @_;
	return $node->safe_psql($database, 'SELECT (SELECT count(*) FROM price), (SELECT count(*) FROM batchdedup.buffered(NULL::price))');
}
if ($every eq '* * * * *')
{
	sleep 3;
	my @waiting = (rows($workers, 'postgres'), rows($connections, 'app'));
	is("@waiting", '0|1 0|1', 'before the job has run the rows are in the buffer') if int(time / 60) == $minute;
}

# ---------- the first runs ----------

sub wait_for
{
	my ($node, $database, $query, $name) = @_;
	ok($node->poll_query_until($database, $query), $name);
	return;
}

my $runs = 'FROM cron.job_run_details JOIN cron.job USING (jobid)';
wait_for($workers, 'postgres', "SELECT count(DISTINCT jobname) = (SELECT count(*) FROM cron.job WHERE jobname <> 'slow' AND schedule = '$every')
	$runs WHERE status IN ('succeeded', 'failed') AND jobname <> 'slow'", 'all jobs have run');
wait_for($connections, 'jobs', "SELECT count(DISTINCT jobname) = 7 $runs WHERE status IN ('succeeded', 'failed')", 'all jobs have run through connections');

is(rows($workers, 'postgres'), '1|0', 'the job has flushed the row');
is(rows($workers, 'app'), '1|0', 'that in the other database, too');
is(rows($connections, 'app'), '1|0', 'and through a connection');
is($workers->safe_psql('postgres', "SELECT string_agg(DISTINCT jobname, ', ' ORDER BY jobname) $runs WHERE status = 'failed'"),
	'fails later, flush quotes, not alone, two, two syncs', 'what was to fail has failed, and nothing else');

# The first run may have come before the rows.
my $synced = 'SELECT (SELECT count(*) FROM item_copy) = 1000 AND (SELECT count(DISTINCT xmin::text) FROM item_copy) = 10';
wait_for($workers, 'app', $synced, 'a sync has run, in transactions of its own');
wait_for($connections, 'app', $synced, 'also through a connection');
is($connections->safe_psql('jobs', 'SELECT count(*) FROM item_copy'), '1000', 'also where the scheduler is');

sub message
{
	my ($node, $database, $job) = @_;
	return $node->safe_psql($database, "SELECT DISTINCT status, return_message $runs WHERE jobname = '$job'");
}
foreach ([ $workers, 'postgres' ], [ $connections, 'jobs' ])
{
	my ($node, $database) = @$_;
	like(message($node, $database, 'fails later'), qr/^failed\|ERROR: +no source today/, 'a failure after commits: ' . $node->name);
	like(message($node, $database, 'not alone'), qr/^failed\|ERROR: +invalid transaction termination/,
		'a procedure that commits must be alone: ' . $node->name);
}
like(message($connections, 'jobs', 'nothing'), qr/^failed\|ERROR: +relation "nothing" does not exist/, 'a flush that fails');
like(message($workers, 'postgres', 'two syncs'), qr/^failed\|ERROR: +run_sync cannot be called inside a transaction block/,
	'two syncs in one job');
like(message($workers, 'postgres', 'two'), qr/^failed\|ERROR: +division by zero/, 'the second statement fails');
is($workers->safe_psql('postgres', "SELECT to_regclass('left_over') IS NULL"), 't', 'and the first one is undone');

# ---------- the page ----------

$workers->safe_psql('postgres', "SELECT cron.unschedule(jobname) FROM cron.job WHERE jobname IN ('fails later', 'not alone', 'two', 'two syncs')");

foreach my $example (examples($results))
{
	$at++;
	run_example($workers, 'postgres', "docs/cron.md: example $at", @$example);
}

# ---------- overlap ----------

# Others have come again, this one waits for itself.
my @nodes = [ $connections, 'app', 'jobs' ];
push @nodes, [ $workers, 'postgres', 'postgres' ] if $at_once eq 'true';
foreach (@nodes)
{
	my ($node, $database, $cron) = @$_;
	my $name = $node->name;
	wait_for($node, $cron, "SELECT count(*) >= 2 $runs WHERE jobname = 'tick' AND status = 'succeeded'", "other jobs run again: $name");
	sleep 0.5;
	is($node->safe_psql($database, 'SELECT count(*), count(ended) FROM run'), '1|0', "one run of the slow job, which goes on: $name");
	is($node->safe_psql($cron, "SELECT count(*) $runs WHERE jobname = 'slow' AND status = 'running'"), '1', "pg_cron says so, too: $name");
	my $released = time;
	$node->safe_psql($database, 'UPDATE held SET held = false');
	wait_for($node, $database, 'SELECT count(ended) >= 2 FROM run', "then the run that was due comes: $name");
	cmp_ok(time - $released, '<', 30, "at once: $name");
	is($node->safe_psql($database, 'SELECT count(*) FROM run a JOIN run b ON a.n < b.n AND b.started < a.ended'),
		'0', "never two at a time: $name");
}

# ---------- a crash ----------

wait_for($connections, 'jobs', "SELECT count(*) = 1 $runs WHERE jobname = 'endless' AND status = 'running'", 'a job runs');
$connections->stop('immediate');
$connections->start;
wait_for($connections, 'jobs', "SELECT count(*) = 1 $runs WHERE jobname = 'endless' AND status = 'failed' AND return_message = 'server restarted'",
	'a run that the server took along has failed');

$workers->stop;
$connections->stop;
done_testing();
