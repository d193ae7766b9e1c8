package Server;

# A server with batchdedup, and what most tests say to it. sql(), fails(), await()
# and the sessions speak to $node and $database; a test sets these to others when
# it goes on elsewhere.

use strict;
use warnings;
use Exporter qw(import);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT_OK = qw($node $database new_server start_server point_clients_at_server
  sql sql_in fails fails_in await await_in wait_until dump_and_restore start_session end_session end_sessions);

our $node;
our $database = 'postgres';

# ---- servers -----------------------------------------------------------

# A server that is not started yet. The first of the settings may be a reference
# to options of init().
sub new_server
{
	my ($name, @settings) = @_;
	my $server = PostgreSQL::Test::Cluster->new($name);
	$server->init(ref $settings[0] ? %{ shift @settings } : ());
	$server->append_conf('postgresql.conf', $_) for "wal_level = replica\nshared_preload_libraries = 'batchdedup'", @settings;
	return $server;
}

# From here on the server of this test.
sub start_server
{
	$node = new_server(@_);
	$database = 'postgres';
	$node->start;
	return $node;
}

# The server that client programs connect to if they are told nothing else.
sub point_clients_at_server
{
	@ENV{qw(PGHOST PGPORT PGDATABASE)} = ($node->host, $node->port, 'postgres');
	return;
}

# ---- statements --------------------------------------------------------

sub sql { return $node->safe_psql($database, $_[0]) }

# The same in a database that is named.
sub sql_in { local $database = shift; return sql(@_) }
sub fails_in { local $database = shift; return fails(@_) }
sub await_in { local $database = shift; return await(@_) }

# The statement ends in an error: a SQLSTATE, or a pattern of the message.
sub fails
{
	my ($statement, $error, $name) = @_;
	my ($out, $err) = ('', '');
	$node->psql($database, "\\set VERBOSITY verbose\n$statement", stdout => \$out, stderr => \$err);
	return like($err, ref $error ? $error : qr/(?:ERROR|FATAL):  $error:/, $name);
}

# Sooner or later it is true.
sub await
{
	my ($condition, $name) = @_;
	return ok($node->poll_query_until($database, "SELECT $condition"), $name);
}

# The same for what is no test by itself.
sub wait_until
{
	my ($condition, $name) = @_;
	$node->poll_query_until($database, "SELECT $condition") or die +($name // 'wait_until') . ": not true in the end: $condition";
	return;
}

# Dumps one database, and restores it as another one, perhaps on another server.
sub dump_and_restore
{
	my ($from, $to, $other) = @_;
	$other //= $node;
	my $dump = $node->basedir . "/$to.sql";
	$node->command_ok([ 'pg_dump', '-f', $dump, '-d', $node->connstr($from) ], "pg_dump for $to");
	$other->safe_psql('postgres', "CREATE DATABASE $to");
	$other->command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', $dump, '-d', $other->connstr($to) ], "restore $to");
	return;
}

# ---- sessions ----------------------------------------------------------

my @sessions;

# A session that has begun with these statements, and says "finished" after the
# last one; with "until" it has already. The point is where its backend stops.
sub start_session
{
	my ($statements, $point, $until) = @_;
	$until //= 'started';
	my $psql = $node->background_psql($database, on_error_stop => 0);
	$point //= '';
	$psql->query_until(qr/$until/, "\\echo started\nSET batchdedup.debug_point = '$point';\n$statements;\n\\echo finished\n");
	push @sessions, $psql;
	return $psql;
}

# Also one whose backend is gone.
sub end_session
{
	my ($psql) = @_;
	eval { $psql->quit };
	eval { $psql->{run}->finish };
	@sessions = grep { $_ != $psql } @sessions;
	return;
}

sub end_sessions
{
	end_session($_) for @sessions;
	return;
}

1;
