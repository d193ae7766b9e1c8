# Events under load: publishers that begin, wait, commit and roll back as it
# comes, instances that die, a server that crashes. Every consumer is given every
# committed event, in the order of its key. Then dump and restore.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use PowerLoss qw(start_with_small_segments power_loss);
use Server qw($node $database new_server sql dump_and_restore);

start_with_small_segments('events');

# ---------- at least once, in order, nothing skipped ----------

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE flag (publish boolean, consume boolean);
INSERT INTO flag VALUES (true, true);
-- What is published for a key is counted under its lock.
CREATE TABLE counter (key text PRIMARY KEY, n int NOT NULL);
INSERT INTO counter SELECT 'key ' || i, 0 FROM generate_series(1, 12) i;
CREATE TABLE got (position bigint GENERATED ALWAYS AS IDENTITY, consumer text, instance text, shard int, id bigint, key text, n int, attempts int);
CREATE TABLE lost_lease (consumer text, instance text);

CREATE PROCEDURE publish() LANGUAGE plpgsql AS $$
DECLARE
	k text;
	i int;
BEGIN
	WHILE (SELECT f.publish FROM flag f) LOOP
		-- An early xid, or one that comes with the lock.
		IF random() < 0.5 THEN
			PERFORM pg_current_xact_id();
			PERFORM pg_sleep(random() * 0.02);
		END IF;
		k := 'key ' || 1 + floor(random() * 12);
		FOR j IN 1 .. 1 + floor(random() * 3) LOOP
			UPDATE counter SET n = n + 1 WHERE key = k RETURNING n INTO i;
			PERFORM batchdedup.publish_event(CASE i % 3 WHEN 0 THEN 'app.third' ELSE 'app.e' END,
				jsonb_build_object('n', i), k || ' ' || i, k);
		END LOOP;
		PERFORM pg_sleep(random() * 0.01);
		IF random() < 0.2 THEN
			ROLLBACK;
		ELSE
			COMMIT;
		END IF;
	END LOOP;
END $$;

CREATE PROCEDURE consume(consumer text, instance text) LANGUAGE plpgsql AS $$
DECLARE
	given bigint[];
BEGIN
	WHILE (SELECT f.consume FROM flag f) LOOP
		WITH p AS (INSERT INTO got (consumer, instance, shard, id, key, n, attempts)
			SELECT $1, $2, e.shard, e.id, e.ordering_key, (e.payload->>'n')::int, e.attempts
			  FROM batchdedup.poll_events($1, 1 + floor(random() * 30)::int, instance => $2, lease => '200 milliseconds') e
			 ORDER BY e.id
			RETURNING id)
		SELECT array_agg(id ORDER BY id) FROM p INTO given;
		COMMIT;
		PERFORM pg_sleep(CASE WHEN random() < 0.02 THEN 0.3 ELSE random() * 0.02 END);
		BEGIN
			IF random() < 0.1 THEN
				-- Not enough of them to give an event up.
				PERFORM batchdedup.nack_event($1, given[1], instance, instance => $2) WHERE given IS NOT NULL;
			ELSE
				PERFORM batchdedup.ack_events($1, given[1 + floor(random() * cardinality(given))], instance => $2) WHERE given IS NOT NULL;
			END IF;
		EXCEPTION WHEN object_not_in_prerequisite_state THEN
			INSERT INTO lost_lease VALUES ($1, $2);
		END;
		COMMIT;
		IF given IS NULL AND NOT (SELECT f.publish FROM flag f)
			AND NOT EXISTS (SELECT FROM batchdedup.consumer c WHERE c.name = $1 AND c.lag_events > 0) THEN
			EXIT;
		END IF;
	END LOOP;
END $$;
SELECT batchdedup.create_consumer('one', max_attempts => 1000),
	batchdedup.create_consumer('four', shards => 4, max_attempts => 1000),
	batchdedup.create_consumer('third', kinds => '{app.third}', shards => 2, max_attempts => 1000);
SQL

my %running;

# Each under a name of its own, also when it is started anew.
my $started = 0;

sub run
{
	my ($what, $call) = @_;
	my $name = $what . ' ' . ++$started;
	$call =~ s/\?/'$name'/;
	my $err = '';
	$running{$name} = { err => \$err };
	$running{$name}{run} = IPC::Run::start(
		[ 'psql', '-qXAt', '-d', $node->connstr($database) . " application_name='$name'", '-c', $call ],
		'<', '/dev/null', '>', '/dev/null', '2>', \$err);
	return;
}

sub run_publishers { run('publisher', 'CALL publish()') for 1 .. 16; return }

sub run_consumers
{
	my ($count) = @_;
	foreach my $consumer (qw(one four third))
	{
		run($consumer, "CALL consume('$consumer', ?)") for 1 .. $count;
	}
	return;
}

# Waits for all of them; those that were killed have an error, others none.
sub finish
{
	my ($killed) = @_;
	my @wrong;
	foreach my $name (sort keys %running)
	{
		my $session = delete $running{$name};
		eval { $session->{run}->finish };
		push @wrong, "$name: ${$session->{err}}" if ${ $session->{err} } ne '' && ${ $session->{err} } !~ $killed;
	}
	is("@wrong", '', 'no other errors');
	return;
}

sub kill_some
{
	sql("SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity "
		  . "WHERE application_name ~ '^(one|four|third) ' ORDER BY random() LIMIT 3) a");
	run_consumers(1);
	return;
}

run_publishers();
run_consumers(2);
for (1 .. 6)
{
	sleep 0.5;
	kill_some();
}
power_loss($node);
finish(qr/terminating connection|connection to server|server closed|shutting down|Connection refused/);
$node->start;

run_publishers();
run_consumers(2);
for (1 .. 4)
{
	sleep 0.5;
	kill_some();
}
sql('UPDATE flag SET publish = false');
finish(qr/terminating connection/);
# All who were left may have been killed.
run_consumers(1);
finish(qr/^$/);

note(sql("SELECT count(*) || ' events, ' || (SELECT count(*) FROM got) || ' given, ' "
	  . "|| (SELECT count(*) FROM lost_lease) || ' leases lost' FROM batchdedup.event"));
cmp_ok(sql("SELECT count(*) FROM batchdedup.event"), '>', 200, 'there were events');
is(sql("SELECT c.key, c.n, e.count FROM counter c JOIN (SELECT ordering_key AS key, count(*) FROM batchdedup.event GROUP BY 1) e USING (key) WHERE c.n <> e.count"),
	'', 'as many as are committed');
is(sql("SELECT c.name, count(*) FROM batchdedup.event e JOIN batchdedup.consumer_row c ON c.kinds IS NULL OR e.kind = ANY (c.kinds) "
		  . "WHERE NOT EXISTS (SELECT FROM got g WHERE g.consumer = c.name AND g.id = e.id) GROUP BY 1"),
	'', 'each consumer was given each of them');
is(sql("SELECT g.consumer, g.id FROM got g LEFT JOIN batchdedup.event e USING (id) WHERE e.id IS NULL OR g.consumer = 'third' AND e.kind <> 'app.third'"),
	'', 'and nothing else');
is(sql("SELECT consumer, key, n FROM (SELECT consumer, key, n, lag(n) OVER (PARTITION BY consumer, key ORDER BY first) AS before "
		  . "FROM (SELECT consumer, key, n, min(position) AS first FROM got GROUP BY 1, 2, 3) f) o WHERE n < before"),
	'', 'in the order of each key');
is(sql("SELECT consumer, key FROM got GROUP BY 1, 2 HAVING count(DISTINCT shard) > 1"), '', 'each key in one shard');
cmp_ok(sql("SELECT count(DISTINCT shard) FROM got WHERE consumer = 'four'"), '>', 1, 'in several shards');
cmp_ok(sql("SELECT count(DISTINCT instance) FROM got"), '>', 6, 'by several instances');
cmp_ok(sql("SELECT count(*) FROM got WHERE attempts > 0"), '>', 0, 'some failed once');
is(sql("SELECT sum(lag_events), sum(dead_letters), sum(lost_events) FROM batchdedup.consumer"), '0|0|0', 'nothing is left');
is(sql("SELECT count(*) - batchdedup.expire_events('0', '0') FROM batchdedup.event"), 0, 'and so all may expire');
is(sql("SELECT count(*) FROM batchdedup.event_attempt"), 0, 'no attempts are left');
sql("SELECT count(batchdedup.drop_consumer(name)) FROM batchdedup.consumer_row");

# ---------- a worker that applies: as the owner, in a restricted context ----------

sql(<<'SQL');
CREATE TABLE t (k int PRIMARY KEY, v text);
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM batchdedup.publish_event('app.t', to_jsonb(NEW));
	RETURN NULL;
END $$;
CREATE TRIGGER tell AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION tell();
SELECT batchdedup.create_target('t', flush_interval => '0', logged => false);
SQL
my ($in, $out) = ('', '');
my $listener = IPC::Run::start([ 'psql', '-qXAt', '-d', $node->connstr($database) ], '<', \$in, '>', \$out, '2>&1');
$in .= "LISTEN batchdedup_event;\nSELECT batchdedup.upsert(ROW(1, 'a')::t);\nSELECT batchdedup.flush('t') >= 0;\n";
my $until = time + 60;
while ($out !~ /notification/ && time < $until)
{
	$in .= "SELECT pg_sleep(0.01);\n";
	$listener->pump_nb;
	sleep 0.02;
}
$in .= "\\q\n";
$listener->finish;
like($out, qr/notification "batchdedup_event"/, 'what the worker publishes is told');
is(sql("SELECT payload->>'v' FROM batchdedup.event"), 'a', 'and is there');
sql("SELECT batchdedup.drop_target('t'); DROP TABLE t; SELECT batchdedup.expire_events('0')");

# ---------- dump and restore ----------

# What each consumer is still to be given, and is.
my $pending = "SELECT string_agg(consumer || ' ' || id, ', ' ORDER BY consumer, id) FROM batchdedup.event_pending";

sub poll_all
{
	my ($consumer, $shard) = @_;
	my @got;
	$shard //= 'NULL';
	while ((my $ids = sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM batchdedup.poll_events('$consumer', 3, $shard, 'x')")) ne '')
	{
		push @got, split / /, $ids;
		sql("SELECT batchdedup.ack_events('$consumer', $got[-1], instance => 'x')");
	}
	return join ' ', @got;
}

# One session stays in its transaction, with a low id.
sql(<<'SQL');
SELECT batchdedup.create_consumer('late'), batchdedup.create_consumer('part'), batchdedup.create_consumer('none'),
	batchdedup.create_consumer('done', shards => 2), batchdedup.create_consumer('picky', max_attempts => 1);
SQL
my $open = $node->background_psql($database);
$open->query_until(qr/published/, "BEGIN; SELECT batchdedup.publish_event('app.d', '0');\n\\echo published\n");
sql("SELECT batchdedup.publish_event('app.d', to_jsonb(i), 'key ' || i, 'order ' || i) FROM generate_series(1, 8) i");
my ($first, $last) = split /\|/, sql("SELECT min(id), max(id) FROM batchdedup.event");
poll_all($_) for qw(late done);
sql("SELECT count(*) FROM batchdedup.poll_events('part', 6, instance => 'x'); SELECT batchdedup.ack_events('part', $first + 2, instance => 'x')");
sql("SELECT count(*) FROM batchdedup.poll_events('picky'); SELECT batchdedup.nack_event('picky', $first, 'no'); SELECT batchdedup.ack_events('picky', $last)");
$open->query_until(qr/committed/, "COMMIT;\n\\echo committed\n");
$open->quit;
poll_all('done');
my %before = map { $_ => sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM batchdedup.event_pending WHERE consumer = '$_'") } qw(late part none done picky);
my $late = $first - 1;
is($before{late}, $late, 'before: one event came late');
is($before{part}, join(' ', $late, $first + 3 .. $last), 'before: acknowledged in part');
is($before{done}, '', 'before: all done');

# In another cluster the xids of the dump are still to come; or they are taken.
my $other = new_server('restored', "batchdedup.retry_backoff = '10ms'");
$other->start;

sub restore
{
	my ($from, $name) = @_;
	dump_and_restore($from, $name, $other);
	($node, $other, $database) = ($other, $node, $name);
	return;
}

sub check_restored
{
	my ($name) = @_;
	is(sql("SELECT count(*) FROM batchdedup.event WHERE dumped_xid IS NULL OR xid >= pg_snapshot_xmax(pg_current_snapshot())"), 0, "$name: xids are of this server");
	is(sql("SELECT batchdedup.expire_events('0')"), 0, "$name: nothing expires before consumers have said how far they are");
	# From the oldest on that was not acknowledged.
	is(poll_all('late'), join(' ', $late .. $last), "$name: from the late one on");
	is(poll_all('part'), join(' ', $late .. $last), "$name: from the first on that is missing");
	is(poll_all('none'), join(' ', $late .. $last), "$name: all");
	is(poll_all('done'), '', "$name: none");
	is(sql("SELECT event_id, error FROM batchdedup.event_dead_letter"), "$first|no", "$name: letters");
	# It goes on.
	my $id = sql("SELECT batchdedup.publish_event('app.d', '9')");
	cmp_ok($id, '>', $last, "$name: ids go on");
	is(sql("SELECT batchdedup.publish_event('app.d', '1', 'key 1', 'order 1')"), $first, "$name: so do keys");
	is(poll_all($_), $id, "$name: what comes now is given to $_") for qw(late part none done);
	sql("SELECT batchdedup.create_consumer('new')");
	is(poll_all('new'), join(' ', $late .. $last, $id), "$name: a new consumer is given all");
	sql("SELECT batchdedup.retry_event_dead_letters('picky')");
	is(sql("SELECT id FROM batchdedup.poll_events('picky')"), $first, "$name: letters are given again");
	sql("SELECT batchdedup.ack_events('picky', $first)");
	poll_all('picky');
	is(sql("SELECT sum(lag_events) FROM batchdedup.consumer"), 0, "$name: nothing is left");
	is(sql("SELECT count(*) - batchdedup.expire_events('0') FROM batchdedup.event"), 0, "$name: and so all may expire");
	return;
}

cmp_ok(sql('SELECT pg_snapshot_xmax(pg_current_snapshot())'), '>', $other->safe_psql('postgres', 'SELECT pg_snapshot_xmax(pg_current_snapshot())'),
	'the other server has lower xids');
restore('postgres', 'second');
# A dump of what was restored and not yet used, into the first server.
restore('second', 'third');
is(sql("SELECT string_agg(consumer || shard, ' ') FROM batchdedup.consumer_shard WHERE NOT restored"), '', 'third: it is known');
isnt(sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM batchdedup.event_pending WHERE consumer = 'done'"), '', 'third: and seen');
{
	my @both = map { sql("SELECT string_agg(id::text, ' ' ORDER BY id) FROM batchdedup.event_pending WHERE consumer = 'done' AND shard = $_") } 0 .. 1;
	my $all = join ' ', sort { $a <=> $b } split / /, "@both";
	is($all, join(' ', $late .. $last), 'third: all of them');
	is(poll_all('done', 0), $both[0], 'third: of one shard');
	is(poll_all('done', 1), $both[1], 'third: and of the other');
}
check_restored('third');
# One that was used in between.
($node, $other, $database) = ($other, $node, 'second');
is(poll_all('late'), join(' ', $late .. $last), 'second: from the late one on');
sql("SELECT count(*) FROM batchdedup.poll_events('part', 6, instance => 'x'); SELECT batchdedup.ack_events('part', $first, instance => 'x')");
restore('second', 'fourth');
is(poll_all('late'), '', 'fourth: what was acknowledged in between');
is(poll_all('part'), join(' ', $first + 1 .. $last), 'fourth: in part');
is(poll_all('none'), join(' ', $late .. $last), 'fourth: all');
($node, $other, $database) = ($other, $node, 'second');
sql("SELECT batchdedup.drop_consumer(c), batchdedup.create_consumer(c) FROM unnest('{late,part}'::text[]) c");
check_restored('second');

# A dump has the very xid of the transaction that restores it.
sql("SELECT count(batchdedup.drop_consumer(name)) FROM batchdedup.consumer_row; SELECT batchdedup.create_consumer('c')");
sql(<<'SQL');
BEGIN;
INSERT INTO batchdedup.event (id, xid, kind, dumped_xid) VALUES (1000001, pg_current_xact_id(), 'app.d', NULL), (1000002, '100', 'app.d', '5'),
	(1000003, pg_current_xact_id(), 'app.d', '5'), (1000004, '102', 'app.d', NULL);
DELETE FROM batchdedup.consumer_shard;
INSERT INTO batchdedup.consumer_shard (consumer, shard, done) SELECT 'c', 0, ('1:' || (pg_current_xact_id()::text::bigint + 10) || ':102')::pg_snapshot;
COMMIT;
SQL
is(sql("SELECT string_agg((id - 1000000) || ' ' || coalesce((dumped_xid = xid)::text, 'null'), ', ' ORDER BY id) FROM batchdedup.event"), '1 null, 2 false, 3 true, 4 false',
	'what its xid was is kept');
is(poll_all('c'), '1000001 1000002 1000003 1000004', 'one that cannot be told from a new one is given');

$node->stop;
$other->stop;
done_testing();
