# What becomes of a sync when its server or its process is gone at any step, when
# source, target or owner change between runs, and of its log when a database is
# dumped and restored. Then sources of all kinds.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(sleep time);
use PowerLoss qw(start_with_small_segments power_loss await_end);
use Server qw($node $database sql fails wait_until start_session end_session);

start_with_small_segments('sync_crash', <<'CONF');
autovacuum = off
client_min_messages = warning
CONF

# ---------- interrupted runs ----------

# Rows 1 to 10 are to be updated, the others to be inserted; one of each slice's
# rows is there already.
use constant { ROWS => 30, SLICE => 4, UNCHANGED => 5 };

sql(<<'SQL');
CREATE EXTENSION batchdedup;
CREATE TABLE s (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v text);
CREATE INDEX ON s (at, id);
CREATE TABLE t (id int PRIMARY KEY, v text);
SQL

sub fresh
{
	sql("SELECT batchdedup.drop_sync('c', if_exists => true); SELECT batchdedup.expire_syncs('0'); DELETE FROM batchdedup.sync_run_row; "
		  . "DELETE FROM batchdedup.change_log_row; TRUNCATE s, t; "
		  . "INSERT INTO s SELECT i, now() - '1 hour'::interval + i / 3 * '1 second'::interval, 'new ' || i FROM generate_series(1, " . ROWS . ") i; "
		  . "INSERT INTO t SELECT i, CASE WHEN i % 2 = 0 THEN 'new ' || i ELSE 'old' END FROM generate_series(1, 10) i; "
		  . "SELECT batchdedup.create_sync('c', 's', 't', cursor => 'at', slice_rows => " . SLICE . ')');
	return;
}

# Counts of runs and log are of what is in the table, and each of it once.
sub check_counts
{
	my ($name) = @_;
	is(sql("SELECT count(*) FROM batchdedup.sync_run r WHERE inserted + updated + deleted <> "
			  . "(SELECT count(*) FROM batchdedup.change_log l WHERE l.run_id = r.id) OR rows_read <> inserted + updated + deleted + unchanged + refused"),
		0, "$name: runs count what they have logged");
	is(sql("SELECT count(*) - count(DISTINCT key) FROM batchdedup.change_log"), 0, "$name: nothing is logged twice");
	is(sql("SELECT coalesce(sum(rows_read), 0) FROM batchdedup.sync_run"),
		sql("SELECT count(*) FROM s, batchdedup.sync_row c WHERE (s.at, s.id) <= (c.watermark[1]::timestamptz, c.watermark[2]::int)"),
		"$name: what is behind the watermark was read once");
	is(sql("SELECT count(*) FROM s JOIN t USING (id, v)"),
		sql("SELECT count(*) FROM batchdedup.change_log") + UNCHANGED, "$name: what is logged is in the table");
	return;
}

sub check_done
{
	my ($name) = @_;
	check_counts($name);
	sql("CALL batchdedup.run_sync('c')");
	is(sql("SELECT count(*) FROM s FULL JOIN t USING (id) WHERE s.v IS DISTINCT FROM t.v"), 0, "$name: in the end the target is the source");
	check_counts("$name, in the end");
	is(sql("SELECT sum(rows_read), sum(inserted), sum(updated), sum(unchanged), sum(refused) FROM batchdedup.sync_run"),
		join('|', ROWS, ROWS - 10, 5, UNCHANGED, 0), "$name: counts add up");
	is(sql("SELECT last_error FROM batchdedup.sync_row"), '', "$name: the error is over");
	is(sql("SELECT error FROM batchdedup.sync_run WHERE finished_at IS NULL OR error !~ '^[0-9A-Z]{5}: '"), '', "$name: no run seems to go on");
	return;
}

my $run = "CALL batchdedup.run_sync('c')";
my $waits = "FROM pg_locks WHERE locktype = 'advisory' AND objid = 7243 AND NOT granted";

# In what way the second slice of a sync ends, and what is said of it.
my %ways = (
	error => sub { fails("SET batchdedup.debug_point = '$_[0]:error'; $run", qr/debug point "$_[0]" was hit/, $_[1]) },
	exit => sub { fails("SET batchdedup.debug_point = '$_[0]:exit'; $run", qr/server closed the connection/, $_[1]) },
	kill => sub {
		fails("SET batchdedup.debug_point = '$_[0]:kill'; $run", qr/server closed the connection/, $_[1]);
		await_end($node);
		$node->start;
	},
	power_loss => sub {
		my $psql = start_session("SET batchdedup.debug_point = '$_[0]:wait'; $run");
		wait_until("count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'CALL%'", $_[1]);
		power_loss($node);
		end_session($psql);
		$node->start;
	});
sql("CREATE FUNCTION release() RETURNS void LANGUAGE C AS 'batchdedup', 'bdd_debug_release'");
foreach my $action ('cancel', 'terminate')
{
	$ways{$action} = sub {
		my ($point, $name) = @_;
		my $gate = $node->background_psql($database);
		# Amid a slice it is heard at once, and between two by the next one.
		my $how = $point eq 'sync-committed' ? 'wait' : 'lock';
		my $who = $how eq 'lock' ? $waits : "FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND query LIKE 'CALL%'";
		$gate->query_safe('SELECT pg_advisory_lock(7243)');
		my $psql = start_session("SET batchdedup.debug_point = '$point:$how'; $run");
		wait_until("count(*) = 1 $who", $name);
		my $pid = sql("SELECT pid $who");
		sql("SELECT pg_${action}_backend($pid)");
		sql('SELECT release()') if $how eq 'wait';
		$psql->query_until(qr/finished/, "\n") if $action eq 'cancel';
		wait_until("count(*) = 0 FROM pg_stat_activity WHERE pid = $pid", $name) if $action eq 'terminate';
		end_session($_) for $psql, $gate;
	};
}

foreach my $point ('sync-read', 'sync-written', 'sync-marked', 'sync-committed')
{
	foreach my $way (sort keys %ways)
	{
		my $name = "$point, $way";
		fresh();
		sql("CALL batchdedup.run_sync('c', max_slices => 1)");
		$ways{$way}->($point, $name);
		is(sql("SELECT count(*) FROM s, batchdedup.sync_row c WHERE (s.at, s.id) <= (c.watermark[1]::timestamptz, c.watermark[2]::int)"),
			$point eq 'sync-committed' ? 2 * SLICE : SLICE, "$name: so many are done");
		like(sql("SELECT last_error_sqlstate || ': ' || last_error FROM batchdedup.sync_row"), $way eq 'error' ? qr/^XX000: debug point/ : qr/^57014: canceling/, "$name: it is said why")
			  if $way eq 'cancel' || ($way eq 'error' && $point ne 'sync-committed');
		check_done($name);
	}
}

# ---------- at random ----------

sub check_random
{
	my ($name) = @_;
	is(sql("SELECT count(*) FROM s FULL JOIN t USING (id) WHERE s.v IS DISTINCT FROM t.v"), 0, "$name: the target is the source");
	is(sql("SELECT count(*) - count(DISTINCT (key, new_version)) FROM batchdedup.change_log"), 0, "$name: each change once");
	is(sql("SELECT count(*) FROM batchdedup.sync_run r WHERE inserted + updated <> (SELECT count(*) FROM batchdedup.change_log l WHERE l.run_id = r.id)"),
		0, "$name: runs count what they have logged");
	is(sql("SELECT sum(inserted) FROM batchdedup.sync_run"), sql('SELECT count(*) FROM s'), "$name: as many as there are");
	return;
}

my $seed = $ENV{SYNC_SEED} || time % 1_000_000 | 0;
srand($seed);
note("SYNC_SEED=$seed");
fresh();
sql('TRUNCATE t');
my $next = 1000;
for (1 .. 6)
{
	# Some are changed before they have been read, and some afterwards.
	sql("INSERT INTO s (id, v) SELECT i, 'new' FROM generate_series($next, $next + 299) i; "
		  . "UPDATE s SET at = now(), v = v || '+' WHERE random() < 0.3");
	$next += 300;
	my $psql = start_session("CALL batchdedup.run_sync('c', slice_rows => 3)");
	sleep rand() * 0.15;
	if (rand() < 0.5)
	{
		power_loss($node);
		$node->start;
	}
	else
	{
		sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL batchdedup%' AND pid <> pg_backend_pid()");
	}
	end_session($psql);
}
wait_until("count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'CALL batchdedup%' AND pid <> pg_backend_pid() AND state <> 'idle'", 'random');
sql("$run");
check_random('at random');
note(sql("SELECT count(*) || ' runs, ' || sum(slices) || ' slices, ' || sum(rows_read) || ' rows' FROM batchdedup.sync_run"));

# ---------- between runs ----------

fresh();
sql("CALL batchdedup.run_sync('c', max_slices => 1)");
sql("ALTER TABLE s ADD w int DEFAULT 7; ALTER TABLE t ADD w int; ALTER TABLE t ADD x text DEFAULT 'x'");
sql("CALL batchdedup.run_sync('c', max_slices => 1)");
is(sql("SELECT count(*), count(w), count(x) FROM t WHERE id > 3 AND v LIKE 'new%' AND id < 8"), '4|0|4', 'columns that came later are not in the mapping');
sql("ALTER TABLE s RENAME v TO u");
fails($run, qr/42703: .*column src\.v does not exist/, 'a column of the mapping is gone');
is(sql("SELECT last_error_sqlstate || ': ' || last_error FROM batchdedup.sync_row"), '42703: column src.v does not exist', 'the sync says so');
is(sql("SELECT sum(rows_read) FROM batchdedup.sync_run"), 2 * SLICE, 'and has read no further');
is(sql("SELECT batchdedup.sync_lag_internal(id, 100) FROM batchdedup.sync_row"), ROWS - 2 * SLICE, 'how many rows are left is still known');
sql("ALTER TABLE s RENAME u TO v; ALTER TABLE s ALTER at TYPE timestamp");
fails($run, qr/42804: .*column "at" of "s" is of type timestamp without time zone, and was/, 'the cursor is of another type');
is(sql("SELECT batchdedup.sync_lag_internal(id, 100) FROM batchdedup.sync_row"), '', 'how many rows are left is not known');
sql("ALTER TABLE s ALTER at TYPE timestamptz");
sql("ALTER TABLE s ALTER id TYPE bigint");
check_done('after DDL');
sql("ALTER TABLE t DROP w, DROP x; ALTER TABLE s DROP w, ALTER id TYPE int");

sql(<<'SQL');
CREATE ROLE gone SUPERUSER;
SET ROLE gone;
SELECT batchdedup.create_sync('of nobody', 's', 't', cursor => 'at', cursor_kind => 'clock');
SELECT batchdedup.create_sync('full', 's', 't');
RESET ROLE;
DROP ROLE gone;
SQL
foreach my $sync ('of nobody', 'full')
{
	fails("CALL batchdedup.run_sync('$sync')", qr/42704: .*the owner of sync "$sync" does not exist any more/, "$sync: its owner is gone");
	sql("SELECT batchdedup.drop_sync('$sync')");
}
sql(<<'SQL');
CREATE TABLE other (n bigserial PRIMARY KEY, at timestamptz DEFAULT now(), v text);
CREATE TABLE copy (n bigint PRIMARY KEY, v text);
SELECT batchdedup.create_sync('clock', 'other', 'copy', cursor => 'at'), batchdedup.create_sync('sequence', 'other', 'copy', cursor => 'n', cursor_kind => 'sequence'),
	batchdedup.create_sync('other', 'other', 'copy', cursor => 'n', cursor_kind => 'other', lag => '1s'), batchdedup.create_sync('full', 'other', 'copy'),
	batchdedup.create_sync('target', 's', 'copy', mapping => '{"n": "src.id"}');
SQL
sql('DROP TABLE other');
fails("CALL batchdedup.run_sync('$_')", qr/42P01: .*the source of sync "$_" does not exist any more/, "$_: its source is gone") for qw(clock sequence other full);
sql('DROP TABLE copy');
fails("CALL batchdedup.run_sync('target')", qr/42P01: .*the target of sync "target" does not exist any more/, 'its target is gone');
sql("SELECT batchdedup.drop_sync(name) FROM batchdedup.sync_row");

# ---------- dump and restore ----------

fresh();
sql(<<'SQL');
CREATE TABLE n (n bigserial PRIMARY KEY, v int);
CREATE TABLE m (n bigint PRIMARY KEY, v int CHECK (v < 10));
INSERT INTO n (v) SELECT generate_series(1, 12);
SELECT batchdedup.create_sync('n', 'n', 'm', cursor => 'n', cursor_kind => 'sequence', slice_rows => 5, log_values => true);
SQL
sql("CALL batchdedup.run_sync('n')");
# A transaction is open, which is remembered, and means nothing elsewhere.
my $open = $node->background_psql($database);
$open->query_safe("BEGIN; INSERT INTO s VALUES (100, now(), 'open')");
sql("CALL batchdedup.run_sync('c', max_slices => 2)");
isnt(sql("SELECT moment FROM batchdedup.sync_row WHERE name = 'c'"), '', 'a transaction holds up a sync');

my @contents = (
	"SELECT name, source, target, watermark, bound, last_error FROM batchdedup.sync_row ORDER BY name",
	"SELECT * FROM batchdedup.sync ORDER BY name", "SELECT * FROM batchdedup.sync_run ORDER BY id",
	"SELECT * FROM batchdedup.change_log ORDER BY sync, key", "SELECT * FROM batchdedup.sync_dead_letter ORDER BY id",
	"SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = 'batchdedup.change_log_row'::regclass ORDER BY 1");
my %before = map { $_ => sql("SET timezone = 'UTC'; $_") } @contents;
is(sql("SELECT count(*) FROM batchdedup.sync_dead_letter"), 3, 'there are dead letters');
my $dump = $node->basedir . '/dump';
foreach my $format ('plain', 'custom', 'clean')
{
	my $name = "restored_$format";
	$database = 'postgres';
	$node->command_ok([ 'pg_dump', '-f', "$dump.$format", '-d', $node->connstr($database), $format eq 'custom' ? '-Fc' : $format eq 'clean' ? ('-c', '--if-exists') : () ], "$format: pg_dump");
	sql("CREATE DATABASE $name");
	my @restore = $format eq 'custom' ? ('pg_restore', '-e', '-j', 2, '-d', $node->connstr($name), "$dump.$format")
	  : ('psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr($name), '-f', "$dump.$format");
	$node->command_ok(\@restore, "$format: restore");
	# Into a database that has all that already.
	$node->command_ok(\@restore, "$format: restore once more") if $format eq 'clean';
	$database = $name;
	is(sql("SET timezone = 'UTC'; $_"), $before{$_}, "$format: " . substr $_, 0, 60) for @contents;
	# They go on where they were.
	sql("INSERT INTO n (v) VALUES (3), (30)");
	sql("CALL batchdedup.run_sync('$_')") for 'c', 'n';
	is(sql("SELECT count(*) FROM s FULL JOIN t USING (id) WHERE s.v IS DISTINCT FROM t.v"), 0, "$format: c goes on");
	is(sql("SELECT count(*) FROM n LEFT JOIN m USING (n) WHERE m.n IS NULL"), 4, "$format: n goes on");
	is(sql("SELECT rows_read, inserted, refused FROM batchdedup.sync_run WHERE sync = 'n' ORDER BY id DESC LIMIT 1"), '2|1|1', "$format: with what is new");
	is(sql("SELECT count(*) - count(DISTINCT (sync, key)) FROM batchdedup.change_log"), 0, "$format: nothing is logged twice");
	sql("ALTER TABLE m DROP CONSTRAINT m_v_check");
	is(sql("SELECT batchdedup.retry_sync_dead_letters('n')"), 4, "$format: dead letters can be tried again");
	is(sql("SELECT count(*) FROM n FULL JOIN m USING (n, v) WHERE m.n IS NULL OR n.n IS NULL"), 0, "$format: then all is there");
	sql("DROP EXTENSION batchdedup");
	is(sql("SELECT count(*) FROM pg_class WHERE relname LIKE 'change_log%'"), 0, "$format: DROP EXTENSION leaves nothing of the log");
	is(sql("SELECT count(*) FROM pg_namespace WHERE nspname = 'batchdedup'"), 0, "$format: nor the schema");
	sql("CREATE EXTENSION batchdedup; TRUNCATE t; SELECT batchdedup.create_sync('c', 's', 't', cursor => 'at')");
	sql($run);
	is(sql("SELECT count(*) FROM batchdedup.change_log"), ROWS, "$format: it can be made anew");
}
$database = 'postgres';
$open->query_safe('COMMIT');
$open->quit;
sql($run);
is(sql("SELECT v FROM t WHERE id = 100"), 'open', 'the transaction that was open is read');

# ---------- sources of all kinds ----------

sub same
{
	my ($source, $target, $name) = @_;
	my $different = sql("SELECT count(*) FROM (($source EXCEPT $target) UNION ALL ($target EXCEPT $source)) d");
	return is($different, 0, $name);
}

# Partitions, on both sides, by different columns.
sql(<<'SQL');
CREATE TABLE ps (id int, region text, at timestamptz NOT NULL DEFAULT now(), v int, PRIMARY KEY (id, region)) PARTITION BY LIST (region);
CREATE TABLE ps_a PARTITION OF ps FOR VALUES IN ('a');
CREATE TABLE ps_b PARTITION OF ps FOR VALUES IN ('b');
CREATE INDEX ON ps (at);
CREATE TABLE pt (id int, region text, v int, PRIMARY KEY (id, region)) PARTITION BY RANGE (id);
CREATE TABLE pt_1 PARTITION OF pt FOR VALUES FROM (1) TO (50);
CREATE TABLE pt_2 PARTITION OF pt FOR VALUES FROM (50) TO (1000);
INSERT INTO ps (id, region, v) SELECT i, CASE WHEN i % 3 = 0 THEN 'b' ELSE 'a' END, i FROM generate_series(1, 100) i;
SELECT batchdedup.create_sync('p', 'ps', 'pt', cursor => 'at', slice_rows => 7, delete_missing => 'hard');
SQL
sql("CALL batchdedup.run_sync('p')");
same('SELECT id, region, v FROM ps', 'SELECT id, region, v FROM pt', 'partitions: all');
sql("UPDATE ps SET at = now(), region = 'a', v = -v WHERE id % 9 = 0; DELETE FROM ps WHERE id % 10 = 0; INSERT INTO ps (id, region, v) VALUES (200, 'b', 1)");
sql("CALL batchdedup.run_sync('p')");
same('SELECT id, region, v FROM ps', 'SELECT id, region, v FROM pt', 'partitions: changes');
sql("CREATE TABLE ps_c PARTITION OF ps FOR VALUES IN ('c'); INSERT INTO ps (id, region, v) VALUES (300, 'c', 1)");
sql("CALL batchdedup.run_sync('p')");
same('SELECT id, region, v FROM ps', 'SELECT id, region, v FROM pt', 'partitions: a new one');

# A view that joins, with the later one of two times.
sql(<<'SQL');
CREATE TABLE product (id int PRIMARY KEY, name text, at timestamptz NOT NULL DEFAULT now());
CREATE TABLE price (id int PRIMARY KEY REFERENCES product, price numeric, at timestamptz NOT NULL DEFAULT now());
INSERT INTO product SELECT i, 'product ' || i FROM generate_series(1, 40) i;
INSERT INTO price SELECT i, i FROM generate_series(1, 40) i;
CREATE VIEW offer AS SELECT p.id, p.name, r.price, greatest(p.at, r.at) AS at FROM product p JOIN price r USING (id);
CREATE TABLE offers (id int PRIMARY KEY, name text, price numeric, at timestamptz);
SQL
fails("SELECT batchdedup.create_sync('v', 'offer', 'offers', cursor => 'at')", qr/22023: .*it is not known where column "at" takes its values from/, 'view: the kind must be said');
sql("SELECT batchdedup.create_sync('v', 'offer', 'offers', cursor => 'at', cursor_kind => 'clock', slice_rows => 6)");
sql("CALL batchdedup.run_sync('v')");
same('TABLE offer', 'SELECT id, name, price, at FROM offers', 'view: all');
sql("UPDATE price SET price = 0, at = now() WHERE id % 4 = 0; UPDATE product SET name = upper(name), at = clock_timestamp() WHERE id % 5 = 0");
sql("CALL batchdedup.run_sync('v')");
same('TABLE offer', 'SELECT id, name, price, at FROM offers', 'view: changes');

# A chain: the target of one is the source of the next.
sql(<<'SQL');
CREATE TABLE c1 (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v int);
CREATE TABLE c2 (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v int);
CREATE TABLE c3 (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v int);
INSERT INTO c1 (id, v) SELECT i, i FROM generate_series(1, 30) i;
SELECT batchdedup.create_sync('first', 'c1', 'c2', cursor => 'at', mapping => '{"at": "clock_timestamp()"}', hash_exclude => 'at', slice_rows => 4),
	batchdedup.create_sync('second', 'c2', 'c3', cursor => 'at', mapping => '{"at": "clock_timestamp()"}', hash_exclude => 'at', slice_rows => 5);
SQL
my @both = map { start_session(join ";\n", ("CALL batchdedup.run_sync('$_')") x 40) } 'first', 'second';
for my $i (1 .. 20)
{
	sql("UPDATE c1 SET v = v + 100, at = now() WHERE id % 5 = $i % 5; INSERT INTO c1 (id, v) VALUES (1000 + $i, $i)");
}
$_->query_until(qr/finished/, "\n"), end_session($_) for @both;
sql("CALL batchdedup.run_sync('$_')") for 'first', 'second';
same('SELECT id, v FROM c1', 'SELECT id, v FROM c3', 'a chain: all comes through');
sql("CALL batchdedup.run_sync('$_')") for 'first', 'second';
my $runs = sql('SELECT max(id) FROM batchdedup.sync_run');
sql("CALL batchdedup.run_sync('$_')") for 'first', 'second';
is(sql('SELECT max(id) FROM batchdedup.sync_run'), $runs, 'a chain: nothing is read when nothing changes');

# A source that is written through the buffer.
sql(<<'SQL');
CREATE TABLE bs (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v int);
CREATE TABLE bt (id int PRIMARY KEY, v int);
SELECT batchdedup.create_target('bs', flush_interval => '0', flush_rows => 0);
SELECT batchdedup.create_sync('b', 'bs', 'bt', cursor => 'at', slice_rows => 3);
SELECT count(batchdedup.upsert(ROW(i, now(), i)::bs)) FROM generate_series(1, 10) i;
SQL
is(sql('SELECT count(*) FROM bs'), 0, 'buffer: the rows are not in the source yet');
sql("CALL batchdedup.run_sync('b')");
same('SELECT id, v FROM bs', 'SELECT id, v FROM bt', 'buffer: they are flushed');
is(sql('SELECT count(*) FROM bt'), 10, 'buffer: all of them');
# What is paused stays in the buffer, and is not passed by.
sql("SELECT batchdedup.pause('bs'); SELECT batchdedup.upsert(ROW(11, now(), 11)::bs); SELECT batchdedup.upsert(ROW(1, now(), 12)::bs)");
sql("INSERT INTO bs VALUES (20, now(), 20)");
sql("CALL batchdedup.run_sync('b')");
is(sql('SELECT count(*) FROM bt WHERE id IN (11, 20) OR v = 12'), 0, 'buffer: nothing is read while the source is paused');
sql("SELECT batchdedup.resume('bs')");
sql("CALL batchdedup.run_sync('b')");
same('SELECT id, v FROM bs', 'SELECT id, v FROM bt', 'buffer: then all');
is(sql("SELECT string_agg(id || ':' || v, ' ' ORDER BY id) FROM bt WHERE id IN (1, 11, 20)"), '1:12 11:11 20:20', 'buffer: with what has waited');

# A target that is written through the buffer, and a commit that fails there.
sql(<<'SQL');
CREATE TABLE bs2 (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v int);
INSERT INTO bs2 SELECT i, now(), i FROM generate_series(1, 10) i;
SELECT batchdedup.create_sync('into', 'bs2', 'bs', cursor => 'at', mapping => '{"at": "clock_timestamp()"}', hash_exclude => 'at', "into" => 'buffer', slice_rows => 3);
TRUNCATE bs;
SQL
sql('CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b)); CREATE TABLE pairs (a int, b int, at timestamptz DEFAULT now()); SELECT batchdedup.create_target(\'pair\', key => \'b, a\')');
sql("SELECT batchdedup.create_sync('pair', 'pairs', 'pair', cursor => 'at', \"into\" => 'buffer')");
sql('ALTER TABLE bs ALTER v SET NOT NULL; CREATE UNIQUE INDEX ON bs (v)');
fails("SELECT batchdedup.create_sync('key', 'bs2', 'bs', key => 'v', cursor => 'at', \"into\" => 'buffer')", qr/22023: .*key of the sync is not the key of target/, 'into the buffer: by another key');
sql("CALL batchdedup.run_sync('into', max_slices => 1)");
fails("SET batchdedup.debug_point = 'pre-commit:error'; CALL batchdedup.run_sync('into')", qr/debug point "pre-commit" was hit/, 'into the buffer: a commit fails');
like(sql("SELECT last_error_sqlstate || ': ' || last_error FROM batchdedup.sync_row WHERE name = 'into'"), qr/^XX000: debug point "pre-commit"/, 'into the buffer: it is said why');
is(sql("SELECT sum(rows_read), count(*) FROM batchdedup.sync_run WHERE sync = 'into'"), '3|1', 'into the buffer: what was committed counts');
sql("CALL batchdedup.run_sync('into'); SELECT batchdedup.flush('bs')");
same('SELECT id, v FROM bs2', 'SELECT id, v FROM bs', 'into the buffer: all');
is(sql("SELECT sum(rows_read), sum(inserted), count(*) - count(finished_at) FROM batchdedup.sync_run WHERE sync = 'into'"), '10|10|0', 'into the buffer: counts add up');
is(sql("SELECT count(*), count(DISTINCT key) FROM batchdedup.change_log WHERE sync = 'into'"), '10|10', 'into the buffer: each change is logged once');

# Another server: nobody here knows who has a transaction open there.
SKIP:
{
	skip 'no postgres_fdw', 8 if sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgres_fdw'") == 0;
	my ($host, $port, $user) = ($node->host, $node->port, sql('SELECT current_user'));
	sql('CREATE DATABASE far');
	$node->safe_psql('far', "CREATE TABLE f (id int PRIMARY KEY, at timestamptz NOT NULL DEFAULT now(), v text); "
		  . "INSERT INTO f SELECT i, now() - '2 hours'::interval + i * '1 second'::interval, 'old' FROM generate_series(1, 20) i; INSERT INTO f SELECT i, now(), 'young' FROM generate_series(21, 25) i");
	sql("CREATE EXTENSION postgres_fdw; CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '$host', port '$port', dbname 'far'); "
		  . "CREATE USER MAPPING FOR CURRENT_USER SERVER far OPTIONS (user '$user'); "
		  . "CREATE FOREIGN TABLE f (id int, at timestamptz NOT NULL, v text) SERVER far; CREATE TABLE g (id int PRIMARY KEY, v text); CREATE VIEW fv AS TABLE f");
	fails("SELECT batchdedup.create_sync('f', '$_', 'g', cursor => 'at', cursor_kind => 'clock')", qr/22023: .*cannot be of kind "clock"/, "$_: no clock of another server") for 'f', 'fv';
	fails("SELECT batchdedup.create_sync('f', 'f', 'g', cursor => 'at', cursor_kind => 'other')", qr/22023: .*needs a lag/, 'foreign table: a lag must be given');
	sql("SELECT batchdedup.create_sync('f', 'f', 'g', cursor => 'at', lag => '1 hour', slice_rows => 6)");
	is(sql("SELECT cursor_kind FROM batchdedup.sync WHERE name = 'f'"), 'other', 'foreign table: of kind other');
	sql("CALL batchdedup.run_sync('f')");
	is(sql('SELECT count(*), min(v), max(v) FROM g'), '20|old|old', 'foreign table: what is older than the lag');
	$node->safe_psql('far', "UPDATE f SET at = at - '61 minutes'::interval WHERE id > 22");
	sql("CALL batchdedup.run_sync('f')");
	is(sql("SELECT count(*), count(*) FILTER (WHERE v = 'young') FROM g"), '23|3', 'foreign table: and what is so by now');
	# The connection is lost amid a run: the next one goes on.
	sql("SELECT batchdedup.reset_watermark('f'); UPDATE g SET v = 'other'");
	my $gate = $node->background_psql($database);
	$gate->query_safe('SELECT pg_advisory_lock(7243)');
	my $psql = start_session("SET batchdedup.debug_point = 'sync-committed:lock'; CALL batchdedup.run_sync('f')");
	wait_until("count(*) = 1 $waits", 'foreign table');
	sql("SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE datname = 'far' AND application_name = 'postgres_fdw'");
	$gate->query_safe('SELECT pg_advisory_unlock(7243)');
	$psql->query_until(qr/finished/, "\n");
	end_session($_) for $psql, $gate;
	sql("CALL batchdedup.run_sync('f')");
	is(sql("SELECT count(*) FROM g WHERE v = 'other'"), 0, 'foreign table: after a lost connection');
	$node->safe_psql('far', 'DROP TABLE f');
	fails("CALL batchdedup.run_sync('f')", qr/42P01: .*relation "public\.f" does not exist/, 'foreign table: what is gone there');
}

is(sql("SELECT count(*) FROM batchdedup.sync_dead_letter WHERE sync <> 'n'"), 0, 'no row was refused');
sql("SELECT batchdedup.drop_sync('n')");
is(sql('SELECT count(*) FROM batchdedup.sync_letter_row'), 0, 'dead letters go with their sync');
$node->stop;
done_testing();
