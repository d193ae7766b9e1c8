# Runs the programs of t/drivers, the examples of docs/drivers.md, each against
# the table of that page, and looks at the table. What the page shows must be
# what the programs say, and what it says does not work must have been refused.
# dev/install-deps drivers installs what is needed; a driver that is missing is
# a failure.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server sql);

my $root = "$FindBin::RealBin/..";
my $programs = "$FindBin::RealBin/drivers";
my $installed = $ENV{DRIVER_CACHE} || '/var/cache/batchdedup/drivers';    # by dev/install-deps
my $page = slurp_file("$root/docs/drivers.md");
my $work = PostgreSQL::Test::Utils::tempdir_short();

# JDBC knows no Unix sockets.
start_server('drivers', <<'CONF');
listen_addresses = '127.0.0.1'
CONF

$ENV{PGUSER} = getpwuid($<);
$ENV{PGDATABASE} = 'postgres';
$ENV{NODE_PATH} = "$installed/node_modules";

sub start
{
	my ($command, $out, $err) = @_;
	return IPC::Run::start($command, '<', '/dev/null', '>', $out, '2>', $err,
		init => sub { chdir $work or die "$work: $!" }, IPC::Run::timeout(180));
}

# Output of a command that must succeed.
sub output_of
{
	my ($name, $command, %environment) = @_;
	my ($out, $err) = ('', '');
	local @ENV{ keys %environment } = values %environment;
	ok(eval { start($command, \$out, \$err)->finish }, "$name runs") or diag($@ || $err);
	return $out;
}

sub pg_config
{
	my ($option) = @_;
	my $program = $ENV{PG_CONFIG} || 'pg_config';
	chomp(my $value = `$program --$option`);
	return $value;
}

# ---------- the programs ----------

my $libpq = "$work/libpq";
output_of('the compiler for libpq.c',
	[ 'gcc', '-Wall', '-o', $libpq, "$programs/libpq.c", '-I' . pg_config('includedir'),
	  '-L' . pg_config('libdir'), '-Wl,-rpath,' . pg_config('libdir'), '-lpq' ]);

my $url = 'jdbc:postgresql://127.0.0.1:' . $node->port . "/postgres?reWriteBatchedInserts=true&user=$ENV{PGUSER}";
my %command = (
	'psql.sql' => [ 'psql', '-qAtX', '-f', "$programs/psql.sql" ],
	'libpq.c' => [$libpq],
	'node-pg.js' => [ 'node', "$programs/node-pg.js" ],
	'python-psycopg3.py' => [ '/usr/bin/python3', "$programs/python-psycopg3.py" ],
	'python-psycopg2.py' => [ '/usr/bin/python3', "$programs/python-psycopg2.py" ],
	'python-asyncpg.py' => [ '/usr/bin/python3', "$programs/python-asyncpg.py" ],
	'Jdbc.java' => [ 'java', '-cp', '/usr/share/java/postgresql.jar', "$programs/Jdbc.java", $url ]);

my @all = grep { !/json$/ } map { m{([^/]+)$} } glob "$programs/*";
is_deeply([ sort @all ], [ sort keys %command ], 'every program is run');

# What psql copies from.
append_to_file("$work/readings.csv",
	join('', map { sprintf "batch-%d,ok,%d,2026-01-01 12:00+00\n", $_ % 10, $_ } 0 .. 99));

# ---------- the page ----------

# Sections of the page by the program that they are about.
my %section = map { m{\(\.\./t/drivers/([^)]+)\)} ? ($1 => $_) : () } split /^## /m, $page;
is_deeply([ sort keys %section ], [ sort keys %command ], 'the page has a section for each program');

sub without_indent { my ($text) = @_; $text =~ s/^[ \t]+//mg; return $text }
sub squeezed { my ($text) = @_; $text =~ s/\s+/ /g; return $text }

# Pairs of a form and the error that it gets.
sub refusals
{
	my ($section) = @_;
	return map { /^\| `(.+?)` \| `(.+?)` \| / ? [ $1, $2 ] : () } split /\n/, $section;
}

foreach my $file (sort keys %section)
{
	my $text = slurp_file("$programs/$file");
	my @blocks = $section{$file} =~ /^```\w+\n(.*?)^```$/msg;
	cmp_ok(scalar(@blocks), '>', 0, "$file: there are examples");
	ok(index("\n" . without_indent($text), "\n" . without_indent($_)) >= 0, "$file: has the example")
	  or diag($_)
	  foreach @blocks;
	foreach (refusals($section{$file}))
	{
		my ($form) = @$_;
		ok(index(squeezed($text), squeezed($form)) >= 0, "$file: tries $form");
	}
}

# ---------- the table ----------

my ($create) = $page =~ /^```sql\n(.*?)^```$/ms;
sql('CREATE EXTENSION batchdedup');
sql($create);
sql("SELECT batchdedup.alter_target('device_state', flush_interval => '0', flush_rows => 0)");

my $expected = join "\n", (map { "batch-$_|ok|9$_|t|" } 0 .. 9),
  'copy-1|ok|12.5|t|', 'copy-2|low||t|', 'json|ok||t|{"rpm": 1450, "parts": ["a", "b"]}',
  'many-1|ok|12.5|f|', 'many-2|low||f|', 'many-3|ok|12.5|f|',
  'many-4|low||f|', 'many-5|ok|12.5|t|', 'many-6|low||t|', 'null||9.5|f|', 'one|ok|11.8|t|',
  'view-1|ok|12.5|t|', 'view-2|low||t|';

sub check_table
{
	my ($name) = @_;
	is(sql('SELECT count(*) FROM device_state'), 0, "$name: nothing is in the table yet");
	is(sql('SELECT count(*) FROM batchdedup.buffered(NULL::device_state)'), scalar(split /\n/, $expected),
		"$name: all of it is in the buffer");
	sql("SELECT batchdedup.flush('device_state')");
	is(sql(<<~'SQL'), $expected, "$name: the table");
		SELECT device, status, volts, seen_at = '2026-01-01 12:00+00', extra
		  FROM device_state ORDER BY device COLLATE "C"
		SQL
	sql('TRUNCATE device_state');
	return;
}

foreach my $file (sort keys %command)
{
	my $out = output_of($file, $command{$file}, PGHOST => $node->host, PGPORT => $node->port);
	like($out, qr/^get: ok 11\.8$/m, "$file: reads what is not in the table yet");
	is_deeply([ $out =~ /^refused: (.*)$/mg ], [ map { $$_[1] } refusals($section{$file}) ],
		"$file: what does not work is what the page says");
	check_table($file);
}

# ---------- pgbouncer ----------

# Two programs at a time share one connection, transaction by transaction.
my $pgbouncer = "$installed/pgbouncer";
append_to_file("$work/pgbouncer.ini", <<"INI");
[databases]
postgres = host=@{[ $node->host ]} port=@{[ $node->port ]} user=$ENV{PGUSER} pool_size=1
[pgbouncer]
pool_mode = transaction
auth_type = any
listen_port = 6432
unix_socket_dir = $work
logfile = $work/pgbouncer.log
INI
my $pooler = IPC::Run::start([ $pgbouncer, '-q', "$work/pgbouncer.ini" ], '<', '/dev/null', '>&', "$work/pgbouncer.out");
my $pooled = "host=$work port=6432 dbname=postgres";
my $up = 0;
for (1 .. 600)
{
	last if $up = IPC::Run::run([ 'psql', '-qAtXc', 'SELECT 1', $pooled ], '>&', '/dev/null');
	select undef, undef, undef, 0.1;
}
ok($up, 'pgbouncer is up') or diag(slurp_file("$work/pgbouncer.out"));

foreach my $file ('psql.sql', 'python-psycopg2.py')
{
	local @ENV{ 'PGHOST', 'PGPORT' } = ($work, 6432);
	my ($out1, $out2, $err) = ('', '', '');
	my @both = map { start($command{$file}, $_, \$err) } \$out1, \$out2;
	ok((grep { eval { $_->finish } } @both) == 2, "$file: two of them through pgbouncer") or diag($err);
	is(scalar(grep { $_ eq 'get: ok 11.8' } split /\n/, $out1 . $out2), 2, "$file: both read");
	check_table("$file through pgbouncer");
}
$pooler->signal('TERM');
$pooler->finish;

done_testing();
