# Up to where a sync's cursor may be read: nobody who is still open, or comes late,
# writes below that. One kind of latecomer after the other, then all at once.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IO::Socket::UNIX;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use PowerLoss qw(start_with_small_segments);
use Server qw($node $database sql await);

start_with_small_segments('bound', 'max_prepared_transactions = 20', 'wal_level = logical', 'max_wal_senders = 4', 'max_connections = 60');

my $functions = <<'SQL';
CREATE EXTENSION batchdedup;
CREATE FUNCTION take(sequence regclass DEFAULT NULL) RETURNS text LANGUAGE C AS 'batchdedup', 'bdd_moment_take_sql';
CREATE FUNCTION later(moment text, ms int) RETURNS text STRICT LANGUAGE C AS 'batchdedup', 'bdd_moment_wait_sql';
CREATE FUNCTION bound(moment text) RETURNS timestamptz STRICT LANGUAGE C AS 'batchdedup', 'bdd_moment_bound_sql';
CREATE FUNCTION is_over(moment text) RETURNS boolean LANGUAGE sql AS $$ SELECT split_part(moment, ' ', 8) = '0' $$;
SQL
sql($functions);
sql(<<'SQL');
CREATE TABLE ev (id bigint GENERATED ALWAYS AS IDENTITY (CACHE 1), at timestamptz DEFAULT now(), what text);
CREATE PROCEDURE write_often(n int, pause float8) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. n LOOP
		INSERT INTO ev (what) VALUES ('procedure');
		PERFORM pg_sleep(random() * pause);
		COMMIT;
	END LOOP;
END $$;
SQL

# ---------- one after the other ----------

# A session that is open while others are looked at.
sub session
{
	my ($options, $database) = @_;
	local $ENV{PGOPTIONS} = $options // '';
	return $node->background_psql($database // 'postgres', on_error_stop => 0);
}

# psql with one message; it may be given what it reads.
sub message
{
	my ($text, $options) = @_;
	local $ENV{PGOPTIONS} = $options // '';
	my %psql = (in => '', out => '', err => '');
	$psql{run} = IPC::Run::start([ 'psql', '-qXAt', '-d', $node->connstr('postgres') . " application_name='message'", '-c', $text ],
		'<', \$psql{in}, '>', \$psql{out}, '2>', \$psql{err}, IPC::Run::timeout(180));
	return \%psql;
}

sub is_done
{
	my ($psql, $name) = @_;
	ok($psql->{run}->finish, $name) or diag($psql->{err});
	return;
}

sub later { my ($moment, $ms) = @_; return sql("SELECT later('$moment', $ms)") }
sub is_over { my ($moment) = @_; return sql("SELECT is_over('$moment')") eq 't' }

# The moment goes on; its bound, if any, is below "at".
sub goes_on
{
	my ($moment, $at, $name) = @_;
	my $now = later($moment, 100);
	ok(!is_over($now), "$name: not over");
	my $allowed = $at ? "bound('$now') < '$at'::timestamptz" : "bound('$now') IS NULL";
	is(sql("SELECT coalesce($allowed, false)"), 't', "$name: " . ($at ? 'the bound is below it' : 'no bound')) if defined $at;
	return $now;
}

# It is over soon, and its bound is beyond "at".
sub gets_over
{
	my ($moment, $at, $name) = @_;
	my $now = later($moment, 30000);
	ok(is_over($now), "$name: over") or diag(sql("SELECT batchdedup.sync_holders_internal('$moment')") . "\n$now");
	is(sql("SELECT bound('$now') >= '$at'::timestamptz"), 't', "$name: the bound has passed it") if $at;
	return;
}

sub holders { my ($moment) = @_; return sql("SELECT batchdedup.sync_holders_internal('$moment')") }
sub gate { my ($n) = @_; my $gate = session(); $gate->query_safe("SELECT pg_advisory_lock($n)"); return $gate }
sub waits_at { my ($n) = @_; await("EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = $n AND NOT granted)", "it waits at $n"); return }

gets_over(sql('SELECT take()'), '', 'nobody');
{
	my $idle = session();
	my $silent = session('-c track_activities=off');
	gets_over(sql('SELECT take()'), '', 'idle sessions');
	is(holders(sql('SELECT later(take(), 10000)')), '', 'idle sessions: no holders');

	foreach my $kind ([ 'idle in transaction', $idle ], [ 'track_activities off', $silent ])
	{
		my ($name, $writer) = @$kind;
		my $pid = $writer->query_safe('SELECT pg_backend_pid()');
		my $at = $writer->query_safe("BEGIN; INSERT INTO ev (what) VALUES ('$name') RETURNING at");
		my $moment = goes_on(sql('SELECT take()'), $at, $name);
		$writer->query_safe('SAVEPOINT a; SELECT count(*) FROM ev; ROLLBACK TO a');
		$moment = goes_on($moment, $at, "$name, a while later");
		like(holders($moment), $writer == $idle ? qr/^pid $pid \(idle in transaction since 2.*\)$/ : qr/^pid $pid$/, "$name: holders");
		$writer->query_safe('COMMIT');
		gets_over($moment, $at, $name);
		is(holders($moment), '', "$name: no holders");
	}
	$_->quit foreach $idle, $silent;
}

# It waits for transactions as if they were all there is to wait for.
sub all_transactions_of
{
	my ($vxids) = @_;
	await("NOT EXISTS (SELECT FROM pg_locks WHERE virtualxid = ANY('{$vxids}'))", 'the transactions of that moment have ended');
	return;
}

foreach my $options ('', '-c track_activities=off')
{
	my $name = "one message $options";
	my @gate = map { gate($_) } 0 .. 2;
	my $psql = message("INSERT INTO ev (what) VALUES ('first'); SELECT pg_advisory_xact_lock_shared(1); COMMIT; "
		  . "BEGIN; INSERT INTO ev (what) VALUES ('second'); SELECT pg_advisory_xact_lock_shared(2); COMMIT", $options);
	waits_at(1);
	my $moment = sql('SELECT take()');
	my $vxids = sql("SELECT string_agg(virtualxid, ',') FROM pg_locks WHERE locktype = 'virtualxid' AND pid <> pg_backend_pid()");
	$gate[1]->quit;
	all_transactions_of($vxids);
	waits_at(2);
	my $at = sql("SELECT at FROM ev WHERE what = 'first' ORDER BY at DESC LIMIT 1");
	$moment = goes_on($moment, $at, $name);
	$gate[2]->quit;
	is_done($psql, "$name: written");
	gets_over($moment, $at, $name);
	is(sql("SELECT count(DISTINCT at) FROM ev WHERE at = '$at'::timestamptz"), 1, "$name: both have one now()");
	$gate[0]->quit;
}

# Reading from the client in the middle of a message is no sign.
foreach my $options ('', '-c track_activities=off')
{
	my $name = "COPY in a message $options";
	my $gate = gate(3);
	my $psql = message("COPY ev (what) FROM STDIN; COMMIT; BEGIN; INSERT INTO ev (what) VALUES ('after COPY'); SELECT pg_advisory_xact_lock_shared(3); COMMIT", $options);
	await("EXISTS (SELECT FROM pg_locks WHERE relation = 'ev'::regclass AND mode = 'RowExclusiveLock' AND granted)", "$name: begun");
	sleep(0.1);
	my $moment = sql('SELECT take()');
	$moment = goes_on($moment, undef, "$name, reading");
	$psql->{in} .= "copied\n\\.\n";
	$psql->{run}->pump until $psql->{in} eq '';
	waits_at(3);
	my $at = sql("SELECT max(at) FROM ev WHERE what = 'copied'");
	$moment = goes_on($moment, $at, $name);
	$gate->quit;
	is_done($psql, "$name: written");
	gets_over($moment, $at, $name);
}

# A procedure that never ends, each of whose transactions does.
{
	my $psql = message('CALL write_often(1000000, 0.01)');
	await("EXISTS (SELECT FROM ev WHERE what = 'procedure')", 'a procedure writes');
	gets_over(sql('SELECT take()'), '', 'a procedure with COMMIT');
	sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'message'");
	$psql->{run}->finish;
}

# ---------- who has not come yet ----------

# A client that has not given its password has read the clock, and may write by it
# (an event trigger may, at its login). It is in no database.
{
	my $hba = $node->data_dir . '/pg_hba.conf';
	my $before = slurp_file($hba);
	unlink($hba);
	append_to_file($hba, "local all slow scram-sha-256\n$before");
	sql("CREATE ROLE slow LOGIN PASSWORD 'x'");
	$node->reload;
	my $socket = IO::Socket::UNIX->new(Type => SOCK_STREAM, Peer => $node->host . '/.s.PGSQL.' . $node->port)
	  or die "no socket: $!";
	my $startup = pack('N', 196608) . join("\0", qw(user slow database postgres), '', '');
	syswrite($socket, pack('N', 4 + length $startup) . $startup);
	sysread($socket, my $answer, 1);
	is($answer, 'R', 'a client is asked for its password');
	my $moment = goes_on(sql('SELECT take()'), undef, 'a client without a password');
	like(holders($moment), qr/^pid \d+$/, 'a client without a password: holders');
	close($socket);
	gets_over($moment, '', 'a client without a password');
}

# ---------- prepared transactions ----------

{
	my $writer = session();
	my $at = $writer->query_safe("BEGIN; INSERT INTO ev (what) VALUES ('before') RETURNING at; PREPARE TRANSACTION 'be\"fore'");
	my $moment = goes_on(sql('SELECT take()'), '', 'prepared before');
	is(holders($moment), 'prepared transaction "be"fore"', 'prepared before: holders');
	sql("COMMIT PREPARED 'be\"fore'");
	gets_over($moment, $at, 'prepared before');

	$at = $writer->query_safe("BEGIN; INSERT INTO ev (what) VALUES ('between') RETURNING at");
	$moment = goes_on(sql('SELECT take()'), $at, 'prepared between, before that');
	$writer->query_safe("PREPARE TRANSACTION 'between'");
	$moment = goes_on($moment, $at, 'prepared between');
	is(holders($moment), 'prepared transaction "between"', 'prepared between: holders');
	$writer->query_safe("BEGIN; INSERT INTO ev (what) VALUES ('after')");
	sql("ROLLBACK PREPARED 'between'");
	gets_over($moment, $at, 'prepared between');

	$moment = sql('SELECT take()');
	$writer->query_safe('COMMIT');
	gets_over($moment, '', 'ended');
	$writer->query_safe("BEGIN; INSERT INTO ev (what) VALUES ('after'); PREPARE TRANSACTION 'after'");
	gets_over($moment, '', 'prepared after');
	$writer->query_safe("ROLLBACK PREPARED 'after'");
	$writer->quit;
}

# ---------- sequences ----------

{
	my $take = "SELECT take(pg_get_serial_sequence('ev', 'id')::regclass)";
	my $last = sub { return (split / /, $_[0])[6] };
	my $writer = session();
	my $reader = session();
	$reader->query_safe('BEGIN; SELECT last_value FROM ev_id_seq');
	my $id = $writer->query_safe("BEGIN; INSERT INTO ev (what) VALUES ('sequence') RETURNING id");
	my $other = sql("INSERT INTO ev (what) VALUES ('sequence') RETURNING id");
	my $moment = goes_on(sql($take), '', 'sequence');
	is($last->($moment), $other, 'sequence: last value');
	like(holders($moment), qr/^pid \d+ \(idle in transaction since 2.*\)$/, 'sequence: holders');
	$writer->query_safe('COMMIT');
	gets_over($moment, '', 'sequence');

	$writer->query_safe("BEGIN; SAVEPOINT a; INSERT INTO ev (what) VALUES ('undone'); ROLLBACK TO a");
	$moment = goes_on(sql($take), '', 'sequence, rolled back in part');
	$writer->query_safe('ROLLBACK');
	gets_over($moment, '', 'sequence, rolled back');

	$writer->query_safe("BEGIN; INSERT INTO ev (what) VALUES ('prepared'); PREPARE TRANSACTION 'of sequence'");
	$moment = goes_on(sql($take), '', 'sequence, prepared');
	is(holders($moment), 'prepared transaction "of sequence"', 'sequence, prepared: holders');
	sql("COMMIT PREPARED 'of sequence'");
	gets_over($moment, '', 'sequence, prepared');
	is(sql("CREATE SEQUENCE fresh; SELECT split_part(take('fresh'), ' ', 6)"), 0, 'sequence: never called');
	$_->quit foreach $writer, $reader;
}

# ---------- who does not count ----------

$node->safe_psql('template1', 'CREATE DATABASE other');
$node->safe_psql('other', $functions);
{
	my $foreign = session('', 'other');
	my $at = $foreign->query_safe('CREATE TABLE ev (); BEGIN; INSERT INTO ev DEFAULT VALUES; SELECT now()');
	my $moment = sql('SELECT take()');
	gets_over($moment, $at, 'another database');
	is($node->safe_psql('other', "SELECT later('$moment', 0) IS NULL"), 't', 'a moment of another database');
	ok($node->safe_psql('other', 'SELECT is_over(later(take(), 100))') eq 'f', 'the other database waits for it');
	$foreign->quit;
}
{
	sql('CREATE TABLE big AS SELECT i, repeat(\'x\', 500) FROM generate_series(1, 20000) i');
	my $psql = message('VACUUM big', '-c vacuum_cost_delay=100ms -c vacuum_cost_limit=1');
	await("EXISTS (SELECT FROM pg_stat_progress_vacuum WHERE heap_blks_scanned > 0)", 'VACUUM goes on');
	gets_over(sql('SELECT take()'), '', 'VACUUM');
	is(sql('SELECT count(*) FROM pg_stat_progress_vacuum'), 1, 'VACUUM goes on still');
	sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'message'");
	$psql->{run}->finish;
}
{
	sql("CREATE PUBLICATION p FOR TABLE ev; SELECT pg_create_logical_replication_slot('s', 'pgoutput')");
	my $out = '';
	my $receiver = IPC::Run::start([ 'pg_recvlogical', '-d', $node->connstr('postgres'), '--slot', 's', '--start', '-o', 'proto_version=1', '-o', 'publication_names=p', '-f', '-' ],
		'>', \$out, '2>', '/dev/null');
	await("EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming')", 'a walsender sends');
	gets_over(sql('SELECT take()'), '', 'a walsender');
	$receiver->signal('TERM');
	$receiver->finish;
	await("EXISTS (SELECT pg_drop_replication_slot('s'))", 'the walsender has gone');
}

# ---------- texts ----------

{
	my @writers = map { session() } 1 .. 7;
	$_->query_safe('BEGIN; SELECT now()') foreach @writers;
	my $moment = goes_on(sql('SELECT take()'), undef, 'many');
	like(holders($moment), qr/^(pid \d+ \(idle in transaction since [^()]+\), ){4}pid \d+ \([^()]+\) and 2 more$/, 'many: holders');
	$writers[$_]->query_safe('COMMIT') foreach 0 .. 4;
	like(holders($moment), qr/^pid \d+ \([^()]+\), pid \d+ \([^()]+\)$/, 'two: holders');
	$_->quit foreach @writers;

	foreach my $text ('', 'x', '1', '1 2', $moment . ' 1', $moment . 'x')
	{
		my ($out, $err) = ('', '');
		my $ok = $node->psql('postgres', "SELECT later('$text', 0)", stdout => \$out, stderr => \$err);
		ok($out eq '' && ($err eq '' || $err =~ /not a moment/), "malformed: '" . substr($text, -10) . "'");
	}
	is(sql("SELECT batchdedup.sync_holders_internal(NULL) IS NULL"), 't', 'NULL has no holders');

	# Since when somebody is idle may be seen by who sees it in pg_stat_activity.
	sql('CREATE ROLE monitor LOGIN; GRANT pg_monitor TO monitor; CREATE ROLE nobody LOGIN');
	my $writer = session();
	$writer->query_safe('BEGIN; SELECT now()');
	my $held = goes_on(sql('SELECT take()'), undef, 'one more');
	my %seen = map { $_ => $node->safe_psql('postgres', "SELECT batchdedup.sync_holders_internal('$held')",
			connstr => $node->connstr('postgres') . " user=$_") } qw(monitor nobody);
	like($seen{monitor}, qr/^pid \d+ \(idle in transaction since/, 'a monitor sees since when');
	like($seen{nobody}, qr/^pid \d+$/, 'others do not');
	$writer->quit;

	$node->stop('immediate');
	$node->start;
	is(sql("SELECT later('$moment', 0) IS NULL"), 't', 'a moment of before a crash');
	is(holders($moment), '', 'a moment of before a crash: no holders');
}

# ---------- all at once ----------

my %script = (
	plain => [ 'simple', "INSERT INTO ev (what) VALUES ('plain');" ],
	extended => [ 'prepared', "INSERT INTO ev (what) VALUES ('extended');" ],
	waiting => [ 'extended', "BEGIN;\nINSERT INTO ev (what) VALUES ('waiting');\n\\sleep 3 ms\nINSERT INTO ev (at, what) VALUES (clock_timestamp(), 'clock');\nEND;" ],
	message => [ 'simple', "INSERT INTO ev (what) VALUES ('message 1') \\; SELECT pg_sleep(random() * 0.01) \\; COMMIT \\; BEGIN \\; SELECT pg_sleep(random() * 0.01) \\; INSERT INTO ev (what) VALUES ('message 2') \\; COMMIT;" ],
	procedure => [ 'simple', "CALL write_often(20, 0.003);" ],
	undone => [ 'simple', "BEGIN;\nSAVEPOINT a;\nINSERT INTO ev (what) VALUES ('undone');\nROLLBACK TO a;\nINSERT INTO ev (what) VALUES ('kept');\n\\sleep 1 ms\nEND;" ],
	prepared => [ 'simple', "BEGIN;\nINSERT INTO ev (what) VALUES ('prepared');\n\\sleep 1 ms\nPREPARE TRANSACTION 'p:client_id';\n\\sleep 2 ms\nCOMMIT PREPARED 'p:client_id';" ],
	short => [ 'simple', "INSERT INTO ev (what) VALUES ('short');" ],
	silent => [ 'simple', "INSERT INTO ev (what) VALUES ('silent 1') \\; COMMIT \\; BEGIN \\; SELECT pg_sleep(random() * 0.003) \\; INSERT INTO ev (what) VALUES ('silent 2') \\; COMMIT;" ]);

my $seconds = 15;
my @writers;
foreach my $name (sort keys %script)
{
	my ($protocol, $script) = @{ $script{$name} };
	my $file = "$PostgreSQL::Test::Utils::tmp_check/$name.sql";
	append_to_file($file, "$script\n");
	local $ENV{PGOPTIONS} = $name eq 'silent' ? '-c track_activities=off' : '';
	my $err = '';
	push @writers, { name => $name, err => \$err,
		run => IPC::Run::start([ 'pgbench', '-n', '-c', $name eq 'prepared' ? 1 : 3, '-T', $seconds, '-M', $protocol, '-f', $file, ($name eq 'short' ? '-C' : ()), $node->connstr('postgres') ],
			'>', '/dev/null', '2>', \$err) };
}

sql(<<'SQL');
CREATE TABLE seen (bound timestamptz, over boolean, ms float8, rows bigint, sum numeric);
CREATE TABLE seen_id (last bigint, ms float8, rows bigint, sum numeric);
CREATE PROCEDURE look(seconds float8) LANGUAGE plpgsql AS $$
DECLARE
	until timestamptz := clock_timestamp() + make_interval(secs => seconds);
	began timestamptz;
	moment text;
BEGIN
	WHILE clock_timestamp() < until LOOP
		began := clock_timestamp();
		moment := later(take(), CASE WHEN random() < 0.4 THEN 5000 ELSE 1 + floor(random() * 30)::int END);
		INSERT INTO seen SELECT bound(moment), is_over(moment), extract(epoch FROM clock_timestamp() - began) * 1000,
			count(*), sum(id) FROM ev WHERE at <= bound(moment);
		COMMIT;
		began := clock_timestamp();
		moment := later(take('ev_id_seq'), 5000);
		IF is_over(moment) THEN
			INSERT INTO seen_id SELECT split_part(moment, ' ', 7)::bigint, extract(epoch FROM clock_timestamp() - began) * 1000,
				count(*), sum(id) FROM ev WHERE id <= split_part(moment, ' ', 7)::bigint;
		END IF;
		COMMIT;
		PERFORM pg_sleep(random() * 0.02);
	END LOOP;
END $$;
SQL
my @looking = map { message("CALL look($seconds - 2)") } 1 .. 2;
is_done($_, 'looked') foreach @looking;
foreach my $writer (@writers)
{
	ok($writer->{run}->finish, "$writer->{name} has written") or diag(${ $writer->{err} });
}
cmp_ok(sql('SELECT count(*) FROM seen WHERE over'), '>', 0, 'some moments were over');
cmp_ok(sql('SELECT count(*) FROM seen_id'), '>', 0, 'some moments of the sequence were over');
is(sql(<<'SQL'), '', 'nobody came late, by the clock');
SELECT s.bound, s.rows, e.rows FROM seen s CROSS JOIN LATERAL (SELECT count(*) AS rows, sum(id) FROM ev WHERE at <= s.bound) e
 WHERE (s.rows, s.sum) IS DISTINCT FROM (e.rows, e.sum) LIMIT 5
SQL
is(sql(<<'SQL'), '', 'nobody came late, by the sequence');
SELECT s.last, s.rows, e.rows FROM seen_id s CROSS JOIN LATERAL (SELECT count(*) AS rows, sum(id) FROM ev WHERE id <= s.last) e
 WHERE (s.rows, s.sum) IS DISTINCT FROM (e.rows, e.sum) LIMIT 5
SQL
note(sql("SELECT 'clock: ' || count(*) || ' moments, over: ' || count(*) FILTER (WHERE over) || ', with a bound: ' || count(bound) || ', ms: ' || (percentile_cont(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY ms) FILTER (WHERE over))::numeric(9,1)[]::text FROM seen"));
note(sql("SELECT 'sequence: ' || count(*) || ' moments, ms: ' || (percentile_cont(ARRAY[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY ms))::numeric(9,1)[]::text FROM seen_id"));
note(sql("SELECT count(*) || ' rows' FROM ev"));

$node->stop;
done_testing();
