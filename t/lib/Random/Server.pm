package Random::Server;

# What the runners of random programs have in common: sessions of a server, a
# fresh database after each failure, and statements that fail.
#
# A runner has databases() => [name, [statements that set it up]], ... The first
# one is that of its sessions. Session 0 belongs to the runner itself.

use strict;
use warnings;
use DBD::Pg qw(:async);
use DBI;
use Exporter qw(import);
use Time::HiRes qw(usleep);

our @EXPORT_OK = qw(failure);

sub new
{
	my ($class, %args) = @_;
	my $self = bless { patience => 20, %args, made => 0, count => {}, sessions => [] }, $class;
	$self->new_databases;
	return $self;
}

sub failure { my ($kind, @text) = @_; die { kind => $kind, text => join("\n", @text) }; }

# ---- sessions ----------------------------------------------------------

sub connect_to
{
	my ($self, $dbname) = @_;
	my $node = $self->{node};
	my $dbh = DBI->connect("dbi:Pg:dbname=$dbname;host=" . $node->host . ';port=' . $node->port,
		undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, AutoInactiveDestroy => 1 });
	$dbh->{pg_placeholder_dollaronly} = 1;
	$dbh->do("SET client_min_messages = error; SET timezone = 'UTC'; SET datestyle = 'ISO'; SET oracle.now = 'none'");
	$dbh->do("SET statement_timeout = '$self->{patience}s'");
	return $dbh;
}

sub dbh { my ($self, $s) = @_; return $self->{sessions}[$s] //= $self->connect_to($self->{dbname}); }

sub disconnect
{
	my ($self) = @_;
	eval { $_->disconnect } for grep { $_ } @{ $self->{sessions} };
	$self->{sessions} = [];
	return;
}

# The server has ended these connections: their statements have nobody to say
# goodbye to.
sub forget_sessions
{
	my ($self, @others) = @_;
	for my $dbh (grep { $_ } @{ $self->{sessions} }, @others)
	{
		$_->{InactiveDestroy} = 1 for grep { $_ } @{ $dbh->{ChildHandles} };
		$dbh->{Warn} = 0;
		eval { $dbh->disconnect };
	}
	$self->{sessions} = [];
	return;
}

# After a failure: whatever the server is in, the next program starts afresh.
sub new_databases
{
	my ($self) = @_;
	my $node = $self->{node};
	$self->disconnect;
	if ($self->{made}++)
	{
		$node->stop('immediate', fail_ok => 1);
		$node->start;
	}
	my @databases = $self->databases;
	$self->{dbname} = $databases[0][0] . $self->{made};
	for my $database (@databases)
	{
		my ($name, @statements) = @$database;
		$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $name" . ($self->{made} - 1) . ' WITH (FORCE)');
		$node->safe_psql('postgres', "CREATE DATABASE $name$self->{made}");
		my $dbh = $self->connect_to("$name$self->{made}");
		$dbh->do($_) for @statements;
		$dbh->disconnect;
	}
	return;
}

# How long a statement may take.
sub set_patience
{
	my ($self, $seconds) = @_;
	$self->{patience} = $seconds;
	$self->disconnect;
	return;
}

# What the server said when it went down.
sub log_tail
{
	my ($self) = @_;
	open my $log, '<', $self->{node}->logfile or return '';
	my @lines = grep { /PANIC|TRAP|FATAL|terminated by signal/ } <$log>;
	close $log;
	return join('', @lines > 10 ? @lines[ -10 .. -1 ] : @lines);
}

# ---- statements --------------------------------------------------------

# {rows} or {state, message, lost}; several statements at once have the rows of
# the last one.
sub try
{
	my ($self, $dbh, $sql, @params) = @_;
	my $rows = eval {
		my $sth = @params ? $dbh->prepare_cached($sql, { pg_server_prepare => 1 }) : $dbh->prepare($sql, { pg_direct => 1 });
		$sth->execute(@params);
		$sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : [];
	};
	return { rows => $rows } if $rows;
	my ($state, $message) = ($dbh->state, $dbh->errstr // $@);
	return { state => $state, message => $message, lost => $state =~ /^(57P|08)/ || !$dbh->ping ? 1 : 0 };
}

sub value { my ($self, $dbh, $sql) = @_; my ($value) = $dbh->selectrow_array($sql); return $value; }

sub lines { my ($self, $dbh, $sql) = @_; return join("\n", map { "  $_->[0]" } @{ $dbh->selectall_arrayref($sql) }); }

# COPY FROM STDIN.
sub copy
{
	my ($self, $dbh, $statement, @lines) = @_;
	my $ok = eval {
		$dbh->do($statement);
		$dbh->pg_putcopydata("$_\n") for @lines;
		$dbh->pg_putcopyend;
		1;
	};
	return { rows => [] } if $ok;
	my ($state, $message) = ($dbh->state, $dbh->errstr // $@);
	eval { $dbh->pg_putcopyend };
	return { state => $state, message => $message, lost => !$dbh->ping ? 1 : 0 };
}

# Sent, but not waited for.
sub send { my ($self, $dbh, $sql) = @_; $dbh->do($sql, { pg_async => PG_ASYNC }); return; }

# Plain statements. That they run is up to us.
sub run_plainly
{
	my ($self, $dbh, @sql) = @_;
	return if !@sql || eval { $dbh->do(join('; ', @sql)); 1 };
	my $error = $@;
	eval { $dbh->do('ROLLBACK') };
	return failure('test', 'the plain statements fail', $error, @sql);
}

# Part of the library, but of no script: for tests only.
sub release_sql { return "CREATE FUNCTION bdd_debug_release() RETURNS void LANGUAGE C AS '\$libdir/batchdedup'"; }

sub kill_worker_sql
{
	return "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type LIKE 'batchdedup%' AND datname = current_database()";
}

1;
