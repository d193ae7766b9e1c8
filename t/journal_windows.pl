# The end of the server in every window of the journal's protocol, on purpose:
# what was acknowledged is there afterwards, what was rolled back is not, and no
# row is applied twice.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use PowerLoss qw(start_with_small_segments power_loss crash await_end);
use Server qw($node sql wait_until start_session end_sessions);

start_with_small_segments('windows', $PowerLoss::lazy, "batchdedup.buffer_size = '16MB'");

sub sqlstate
{
	my ($statement) = @_;
	my ($out, $err) = ('', '');
	$node->psql('postgres', "\\set VERBOSITY verbose\n$statement", stdout => \$out, stderr => \$err);
	return $err =~ /(?:ERROR|FATAL):  (\w{5}):/ ? $1 : $err ? 'lost' : '';
}

# For the worker and the launcher, and with it the next server.
sub set_point
{
	my ($point) = @_;
	$node->adjust_conf('postgresql.conf', 'batchdedup.debug_point', "'$point'");
	return if !defined $node->{_pid};
	$node->reload;
	wait_until("current_setting('batchdedup.debug_point') = '$point'", 'set_point');
	return;
}

# Runs the statements up to a point at which the backend is killed.
sub run_to_kill
{
	my ($statements, $point) = @_;
	start_session($statements, "$point:kill");
	await_end($node);
	end_sessions();
	return;
}


# The same, and what it has written to the WAL is flushed by somebody else.
sub run_to_flush
{
	my ($statements, $point) = @_;
	start_session($statements, "$point:wait");
	await_at_point('client backend', $point);
	flush_wal();
	power_loss($node);
	end_sessions();
	return;
}

# Whoever has come to "point:wait": client backend, batchdedup worker or launcher.
sub await_at_point
{
	my ($type, $name, $count) = @_;
	$count //= 1;
	wait_until("count(*) = $count FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND backend_type = '$type'", $name);
	return;
}

# ---------- two targets that only flush() applies ----------

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE one (k int PRIMARY KEY, v int, w text);
CREATE TABLE total (k int PRIMARY KEY, v int NOT NULL, calls int NOT NULL DEFAULT 0);
CREATE TABLE plain (k int PRIMARY KEY);
CREATE TABLE forced (k int);
SELECT batchdedup.create_target('one', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_target('total', merge => '{"v": "sum", "calls": "sum"}', flush_interval => '0', flush_rows => 0);
CREATE FUNCTION notify_later() RETURNS trigger LANGUAGE plpgsql AS
  $$ BEGIN PERFORM pg_notify('channel', 'row ' || NEW.k); RETURN NULL; END $$;
CREATE TABLE notifying (k int);
CREATE CONSTRAINT TRIGGER notify_later AFTER INSERT ON notifying DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION notify_later();
SQL

# What is in the tables, or must be: the value of the one, the sum, the number
# of plain rows.
my %now = (v => 0, sum => 0, plain => 0);
my $last = 0;

# The next transaction's upserts.
sub upserts
{
	$last++;
	return "SELECT batchdedup.upsert(ROW(1, $last, 'w$last')::one), "
	  . "batchdedup.upsert('total', '{\"k\": 1, \"v\": 1}'), batchdedup.upsert('total', '{\"k\": 1, \"v\": 1000, \"calls\": 1}')";
}

# It counts.
sub happened
{
	my ($plain) = @_;
	$now{v} = $last;
	$now{sum}++;
	$now{plain}++ if $plain;
	return;
}

sub as_text { return "$_[0]{v} $_[0]{sum} $_[0]{plain}" }

sub found
{
	return sql("SELECT coalesce((SELECT v FROM one WHERE k = 1 AND w = 'w' || v), 0), "
		  . "coalesce((SELECT CASE WHEN v = calls * 1001 THEN calls ELSE -v END FROM total WHERE k = 1), 0), "
		  . "(SELECT count(*) FROM plain)") =~ tr/|/ /r;
}

sub check
{
	my ($name) = @_;
	sql("SELECT batchdedup.flush()");
	return is(found(), as_text(\%now), $name);
}

# All of the last transaction may be there, or nothing.
sub check_either
{
	my ($name, $plain) = @_;
	my %then = (v => $last, sum => $now{sum} + 1, plain => $now{plain} + ($plain ? 1 : 0));
	sql("SELECT batchdedup.flush()");
	my $found = found();
	%now = %then if $found eq as_text(\%then);
	return is($found, as_text(\%now), $name);
}

# Flushes the WAL, and so all commits before.
sub flush_wal { return sql("INSERT INTO forced VALUES (1)") }

# ---------- writers ----------

my %transactions = (
	'a statement' => [ sub { upserts() } ],
	'no xid' => [ sub { 'BEGIN; ' . upserts() . '; COMMIT' } ],
	'an xid before' => [ sub { 'BEGIN; INSERT INTO plain VALUES (' . ($last + 1) . '); ' . upserts() . '; COMMIT' }, 1, 1 ],
	'an xid after' => [ sub { 'BEGIN; ' . upserts() . "; INSERT INTO plain VALUES ($last); COMMIT" }, 1, 1 ],
	'subtransactions' => [
		sub {
			"BEGIN; SAVEPOINT undone; SELECT batchdedup.upsert(ROW(1, -1, 'undone')::one), "
			  . "batchdedup.upsert('total', '{\"k\": 1, \"v\": 7}'); ROLLBACK TO undone; SAVEPOINT kept; "
			  . upserts() . '; RELEASE kept; COMMIT';
		} ],
	'a subtransaction with an xid' => [
		sub {
			'BEGIN; SAVEPOINT undone; INSERT INTO plain VALUES (-1); ROLLBACK TO undone; SAVEPOINT kept; '
			  . upserts() . "; INSERT INTO plain VALUES ($last); RELEASE kept; COMMIT";
		}, 1, 1 ],
	'NOTIFY before' => [ sub { 'BEGIN; NOTIFY channel; ' . upserts() . '; COMMIT' }, 1 ],
	'NOTIFY after' => [ sub { 'BEGIN; ' . upserts() . '; NOTIFY channel; COMMIT' }, 1 ],
	'pg_notify' => [ sub { "BEGIN; SELECT pg_notify('channel', 'x'); " . upserts() . '; COMMIT' }, 1 ],
	'pg_notify in a deferred trigger' => [ sub { 'BEGIN; ' . upserts() . '; INSERT INTO notifying VALUES (1); COMMIT' }, 1 ],
	# Several messages; one of them would be a commit.
	'more than a message' => [
		sub {
			"BEGIN; SELECT count(batchdedup.upsert(ROW(k, k, repeat('large', 100000))::one)) FROM generate_series(11, 14) k; "
			  . upserts() . '; COMMIT';
		}, 1 ]);

sub check_large
{
	my ($name, $there) = @_;
	is(sql("SELECT count(*), sum(length(w)) FROM one WHERE k > 10"), $there ? '4|2000000' : '0|', "$name: the large rows as well");
	return sql("DELETE FROM one WHERE k > 10");
}

foreach my $name (sort keys %transactions)
{
	my ($statements, $xid, $plain) = @{ $transactions{$name} };

	# The commit record comes before "publish", a message without an xid after.
	foreach my $point ('reserved', 'pre-commit', 'publish', $xid ? () : ('journaled', 'flushed'))
	{
		my $there = $point eq 'flushed' || ($point eq 'publish' && $xid);
		$point eq 'pre-commit' ? run_to_flush($statements->(), $point) : run_to_kill($statements->(), $point);
		$node->start;
		if ($point eq 'journaled')
		{
			check_either("$name, killed at $point: all or nothing", $plain);
			next;
		}
		happened($plain) if $there;
		check("$name, killed at $point: " . ($there ? 'all' : 'nothing'));
		check_large("$name, killed at $point", $there) if $name =~ /message/;
	}
	sql($statements->());
	happened($plain);
	crash();
	check("$name, published");
	check_large($name, 1) if $name =~ /message/;
}

# Rolled back: by the client, by a deferred constraint, by an error.
sql(upserts());
happened();
sql('BEGIN; ' . upserts() . '; INSERT INTO plain VALUES (-1); ROLLBACK');
start_session(upserts(), 'pre-commit:error')->query_until(qr/finished/, "\n");
start_session('BEGIN; INSERT INTO plain VALUES (-1); ' . upserts() . '; COMMIT', 'pre-commit:error')->query_until(qr/finished/, "\n");
crash();
check('rolled back: nothing, also with a message in the WAL');
end_sessions();

# An error once the message is there: the client may not be told that it failed.
{
	my $psql = start_session(upserts(), 'journaled:error');
	ok(eval { await_end($node, 10); 1 }, 'an error after the message ends the server');
	crash() if defined $node->{_pid};
	end_sessions();
	$node->start if !defined $node->{_pid};
	check_either('an error after the message: all or nothing');
}

# ---------- generations ----------

sql(upserts());
happened();
crash();
crash();
crash();
check('published and not sealed; several times');

# Two are in the middle of their commit, one has been told, and the generation
# is sealed; a third is in the next.
foreach my $point ('journaled', 'flushed')
{
	sql(upserts());
	happened();
	start_session(upserts(), "$point:wait");
	await_at_point('client backend', 'sealed');
	# Nobody sees what may be gone after a crash.
	is(sql("SELECT batchdedup.get('one', '{\"k\": 1}') ->> 'v'"), $now{v}, "$point: not published yet");
	start_session('SELECT batchdedup.flush()');
	wait_until("count(*) = 1 FROM batchdedup.stat_worker WHERE waits_since IS NOT NULL", 'sealed');
	sql("SELECT batchdedup.upsert('total', '{\"k\": 2, \"v\": 1}')");
	power_loss($node);
	end_sessions();
	$node->start;
	if ($point eq 'flushed')
	{
		happened();
		check("sealed, and a publisher at $point");
	}
	else
	{
		check_either("sealed, and a publisher at $point");
	}
}
is(sql("SELECT v FROM total WHERE k = 2"), 2, 'sealed: what came after it');

# ---------- the apply ----------

# The worker of the target is at a point of its apply.
sub apply_to
{
	my ($point) = @_;
	set_point("$point:wait");
	start_session('SELECT batchdedup.flush()');
	await_at_point('batchdedup worker', "apply to $point");
	return;
}

foreach my $point ('quiet', 'apply', 'applied')
{
	# Its commit is asynchronous. Once it is flushed, and once it is not.
	foreach my $flushed (0, 1)
	{
		my $name = "worker at $point" . ($flushed ? ', then WAL is flushed' : '');
		sql(upserts());
		happened();
		apply_to($point);
		flush_wal() if $flushed;
		power_loss($node);
		end_sessions();
		set_point('');
		$node->start;
		check($name);
	}
}

# flush() has returned, and nobody has flushed the WAL.
sql(upserts());
happened();
sql("SELECT batchdedup.flush()");
crash();
check('applied, commit not flushed');

# Applied and kept in memory for an old snapshot.
sql(upserts());
happened();
start_session('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM one');
sql("SELECT batchdedup.flush()");
flush_wal();
crash();
end_sessions();
check('applied, not freed');

# The apply of what was found in the journal. The server starts, the worker
# applies at once, and that ends the server again.
foreach my $point ('apply', 'applied')
{
	sql(upserts());
	happened();
	power_loss($node);
	set_point("$point:kill");
	for (1 .. 2)
	{
		$node->start(fail_ok => 1);
		await_end($node);
	}
	set_point("$point:wait");
	$node->start;
	await_at_point('batchdedup worker', "replay to $point");
	sql(upserts());
	happened();
	flush_wal();
	power_loss($node);
	set_point('');
	$node->start;
	check("replay: the worker ends at $point");
}

# The reading of the journal.
foreach my $point ('replay', 'replayed')
{
	sql(upserts());
	happened();
	power_loss($node);
	set_point("$point:kill");
	$node->start(fail_ok => 1);
	await_end($node);
	set_point('');
	$node->start;
	check("replay: the launcher ends at $point");
}

# It is read again if the launcher fails, and calls wait for that.
sql(upserts());
happened();
power_loss($node);
set_point('replayed:error');
my $seen = -s $node->logfile;
$node->start;
$node->wait_for_log(qr/debug point "replayed" was hit/, $seen);
set_point('');
sql(upserts());
happened();
check('replay: the launcher fails');

# Numbers of generations are not used again.
foreach my $round (1 .. 6)
{
	sql(upserts());
	happened();
	sql("SELECT batchdedup.flush()") if $round % 3 == 0;
	flush_wal() if $round == 3;
	sql(upserts());
	happened();
	crash();
}
check('generations: their numbers go on');

# ---------- clean shutdowns ----------

# The file that spares reading the journal is of no use once the server has
# written again.
sql("SELECT batchdedup.pause('one'), batchdedup.pause('total')");
foreach my $point ('', 'started')
{
	sql(upserts());
	happened();
	# What is in files of a replay is not in memory, and not in the file, either.
	sql("SELECT batchdedup.resume('one'), batchdedup.resume('total')");
	check('clean shutdown: before');
	sql("SELECT batchdedup.pause('one'), batchdedup.pause('total')");
	sql(upserts());
	happened();
	$node->stop('fast');
	set_point("$point:wait") if $point;
	$node->start;
	await_at_point('batchdedup launcher', 'clean shutdown') if $point;
	sql(upserts());
	happened();
	power_loss($node);
	set_point('');
	$node->start;
	sql(upserts());
	happened();
	$node->stop('fast');
	$node->start;
	sql(upserts());
	happened();
}
sql("SELECT batchdedup.resume('one'), batchdedup.resume('total')");
check('clean shutdown: rows of its file, and of what came after, once');

# ---------- the slot ----------

my $slot_at = "(SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'batchdedup')";

# What the launcher finds worth while: all rows are applied.
sub apply_something
{
	sql(upserts());
	happened();
	my $lsn = sql("SELECT pg_current_wal_insert_lsn()");
	sql("SELECT batchdedup.flush()");
	return $lsn;
}

# The slot goes on only when the apply's commit is flushed.
my $lsn = apply_something();
wait_until("$slot_at >= '$lsn'", 'slot');
crash();
check('slot moved');

foreach my $point ('advance', 'horizon', 'advanced')
{
	foreach my $before (0, 1)
	{
		set_point("$point:wait");
		apply_something();
		await_at_point('batchdedup launcher', $point);
		if ($before)
		{
			# Rows that come meanwhile, and WAL that goes.
			sql(upserts());
			happened();
			flush_wal();
			sql("SELECT pg_switch_wal()");
			sql("CHECKPOINT");
		}
		power_loss($node);
		set_point('');
		$node->start;
		check("slot: the launcher ends at $point" . ($before ? ', after others' : ''));
	}
}

# A row that is published while the launcher looks for what is needed: it does
# so for what is to be copied, and then for the slot.
sql("CREATE FUNCTION release() RETURNS void LANGUAGE C AS 'batchdedup', 'bdd_debug_release'");
sql("SELECT batchdedup.flush()");
set_point('looked:wait');
await_at_point('batchdedup launcher', 'looked');
sql("SELECT release()");
sleep 0.2;
await_at_point('batchdedup launcher', 'looked again');
set_point('');
sql(upserts());
happened();
sql("SELECT release()");
# Time for the launcher to come by again.
sleep 2.5;
crash();
check('slot: a row that comes while the launcher looks');

$node->stop;
done_testing();
