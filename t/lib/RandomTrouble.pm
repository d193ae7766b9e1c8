package RandomTrouble;

# Random programs in which things go wrong: DDL in the middle of everything,
# rows that the table refuses, restarts, killed sessions and workers.
#
# A program is {seed, kind, sessions, explicit, variant, steps}. Columns are
# meant by number, not by name, and values are made for the type that a column
# has when the step comes. plan() turns a step into SQL, or says that it does
# not apply now (it would wait for another session, its column is not there):
# then it is left out. So every subset of the steps is a program, too.
#
# kind "ddl": no row is refused. The oracle is a database of its own with the
# same tables: a transaction is repeated there, in plain statements, once it
# has committed.
#
# kind "bad": rows are refused when they are applied. What the table sees is
# the combined row of each key and generation; generations end where a flush
# or a restart ends them.

use strict;
use warnings;
use List::Util qw(first);
use Storable qw(dclone);

# BDD_ALL: also what is known not to work yet.
my $all = $ENV{BDD_ALL};
my @how_to_index = ('index', 'constraint');

sub chance { return rand() < $_[0]; }
sub pick { return $_[ int rand @_ ]; }

# ---- the world ---------------------------------------------------------

my %worlds = (
	ddl => [
		{ id => 0, name => 'k', type => 'int', key => 1 },
		{ id => 1, name => 'a', type => 'int', upd => 1 },
		{ id => 2, name => 'b', type => 'text', upd => 1 },
		{ id => 3, name => 'first', type => 'int', upd => 0 },
		{ id => 4, name => 'd', type => 'int', upd => 1, default => 7, notnull => 1 },
	],
	bad => [
		{ id => 0, name => 'k', type => 'int', key => 1 },
		{ id => 1, name => 'checked', type => 'int', upd => 1, values => [ 1, 2, -1 ] },
		{ id => 2, name => 'single', type => 'int', upd => 1, values => [ undef, 1, 2, 3, 4, 5 ] },
		{ id => 3, name => 'first', type => 'int', upd => 0, values => [ 1, 2, 3 ] },
		{ id => 4, name => 'trigger', type => 'int', upd => 1, values => [ 1, 2, 3, 13 ] },
		{ id => 5, name => 'parent', type => 'int', upd => 1, values => [ undef, 1, 2, 3 ] },
		{ id => 6, name => 'needed', type => 'int', upd => 1, notnull => 1, values => [ 1, 2 ] },
	],
);

my %tables = (
	ddl => ['CREATE TABLE t (k int PRIMARY KEY, a int, b text, first int, d int NOT NULL DEFAULT 7)'],
	bad => [
		'CREATE TABLE parent (k int PRIMARY KEY)',
		'INSERT INTO parent VALUES (1)',
		q{CREATE TABLE t (k int PRIMARY KEY, checked int CONSTRAINT positive CHECK (checked >= 0), single int UNIQUE,
			first int, trigger int, parent int REFERENCES parent, needed int NOT NULL)},
		q{CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN
			IF NEW.trigger = 13 THEN RAISE ''no''; END IF; RETURN NEW; END'},
		'CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()',
	],
);

my %variants = (
	slow => "flush_interval => '0', flush_rows => 0",
	fast => "flush_interval => '10 ms', flush_rows => 0",
	rows => "flush_interval => '0', flush_rows => 2",
);

sub tables_sql { return @{ $tables{ $_[0]{program}{kind} } }; }
sub tables { return table($_[0]{world}); }

sub target_sql
{
	my ($self) = @_;
	my $program = $self->{program};
	my @update = map { $_->{name} } grep { $_->{upd} } @{ $worlds{ $program->{kind} } };
	return "SELECT batchdedup.create_target('t', "
	  . ($program->{explicit} ? "update_columns => '" . join(', ', @update) . "', " : '')
	  . "$variants{$program->{variant}}, guard => 'off')";
}

# Steps after which everything can be flushed.
sub ending { return ({ s => 1, op => 'resume' }, { s => 1, op => 'create_index', how => 'index' }); }

sub model_of { my ($program) = @_; return $program->{kind} eq 'foreign' ? RandomForeign->new($program) : RandomTrouble->new($program); }

sub new
{
	my ($class, $program) = @_;
	my $world = { schema => 'public', name => 't', cols => dclone($worlds{ $program->{kind} }), index => 'constraint', paused => 0, mode => 'buffered' };
	$_->{upd} = 1 for grep { !$_->{key} && !$program->{explicit} } @{ $world->{cols} };
	return bless {
		program => $program, world => $world, sessions => [],
		active => [], sealed => [], generation => 0, letters => []
	}, $class;
}

sub session { return $_[0]{sessions}[ $_[1] ] //= { tx => undef, aborted => 0 }; }

# The table as a session sees it.
sub world
{
	my ($self, $session) = @_;
	return $session->{tx} && $session->{tx}{world} || $self->{world};
}

sub table { return "$_[0]{schema}.$_[0]{name}"; }

sub others
{
	my ($self, $session) = @_;
	return map { $_->{tx} } grep { $_ && $_ != $session && $_->{tx} } @{ $self->{sessions} };
}

sub anybody
{
	my ($self, $what) = @_;
	return scalar grep { $_ && $_->{tx} && $_->{tx}{$what} } @{ $self->{sessions} };
}

# ---- rows --------------------------------------------------------------

sub value_for
{
	my ($col, $dice) = @_;
	return $col->{values}[ $dice % @{ $col->{values} } ] if $col->{values};
	return undef if $dice % 7 == 0 && !$col->{notnull};
	return $col->{type} eq 'text' ? "v$dice" : $dice;
}

sub literal { my ($v) = @_; return defined $v ? "'$v'" : 'NULL'; }
sub json { my ($v) = @_; return !defined $v ? 'null' : $v =~ /^-?\d+$/ ? $v : qq{"$v"}; }

# A row of a step as {column name => value}: all columns, or those that the
# step names.
sub row_of
{
	my ($world, $step, $row) = @_;
	my %values;
	for my $col (@{ $world->{cols} })
	{
		my $dice = $row->{v}{ $col->{id} };
		$values{ $col->{name} } = $col->{key} ? $row->{k} : value_for($col, $dice // $col->{id} + 1)
		  if $col->{key} || defined $dice || $step->{form} =~ /^(row|array|prepared_row)$/;
	}
	return \%values;
}

sub document
{
	my ($row) = @_;
	return '{' . join(', ', map { qq{"$_": } . json($row->{$_}) } sort keys %$row) . '}';
}

sub call
{
	my ($world, $step, @rows) = @_;
	my $table = table($world);
	my @names = map { $_->{name} } @{ $world->{cols} };
	my ($key) = map { $_->{name} } grep { $_->{key} } @{ $world->{cols} };
	my @docs = map { document($_) } @rows;
	my $docs = '[' . join(', ', @docs) . ']';
	my @typed = map { my $r = $_; 'ROW(' . join(', ', map { literal($r->{$_}) } @names) . ")::$table" } @rows;
	my $form = $step->{form};
	return "SELECT batchdedup.delete('$table', d) FROM unnest(ARRAY["
	  . join(', ', map { qq{'{"$key": $_->{$key}}'} } @rows) . "]::jsonb[]) AS d" if $step->{op} eq 'delete';
	return "SELECT batchdedup.upsert('$table', '$docs')" if $form eq 'json';
	return ("SELECT batchdedup.upsert(\$1::regclass, \$2::jsonb)", $table, $docs) if $form eq 'prepared';
	return ("SELECT batchdedup.upsert(\$1::$table)", '(' . join(',', map { $_ // '' } @{ $rows[0] }{@names}) . ')')
	  if $form eq 'prepared_row';
	return 'SELECT batchdedup.upsert(ARRAY[' . join(', ', @typed) . '])' if $form eq 'array';
	return join('; ', map { "SELECT batchdedup.upsert($_)" } @typed);
}

# ---- combined rows -----------------------------------------------------

# {op, ins => {name => value}, upd => {name => 1}}
sub operation
{
	my ($world, $step, $row) = @_;
	my ($key) = map { $_->{name} } grep { $_->{key} } @{ $world->{cols} };
	my %op = (op => $step->{op}, key => $row->{$key}, ins => {}, upd => {});
	return \%op if $step->{op} eq 'delete';
	for my $col (grep { !$_->{key} } @{ $world->{cols} })
	{
		my ($name, $given) = ($col->{name}, exists $row->{ $col->{name} });
		$op{upd}{$name} = 1 if $given && $col->{upd};
		$op{ins}{$name} = $row->{$name} if $given;
		$op{ins}{$name} = $col->{default} if !$given && !($col->{notnull} && !defined $col->{default});
	}
	return \%op;
}

sub combine
{
	my ($old, $new) = @_;
	return $new if !$old || $new->{op} eq 'delete';
	my %both = (%$new, op => $old->{op} eq 'upsert' ? 'upsert' : 'replace', ins => { %{ $new->{ins} } }, upd => { %{ $new->{upd} } });
	return \%both if $old->{op} eq 'delete';
	for my $name (grep { !$new->{upd}{$_} } keys %{ $old->{ins} })
	{
		$both{ins}{$name} = $old->{ins}{$name};
		$both{upd}{$name} = 1 if $old->{upd}{$name};
	}
	return \%both;
}

# One operation in plain statements.
sub plain_sql
{
	my ($world, $op) = @_;
	my $table = table($world);
	my ($key) = map { $_->{name} } grep { $_->{key} } @{ $world->{cols} };
	my $delete = "DELETE FROM $table WHERE $key = $op->{key}";
	return $delete if $op->{op} eq 'delete';
	my @names = sort keys %{ $op->{ins} };
	my $columns = join(', ', $key, @names);
	my $values = join(', ', $op->{key}, map { literal($op->{ins}{$_}) } @names);
	return "$delete; INSERT INTO $table ($columns) VALUES ($values)" if $op->{op} eq 'replace';
	my @set = map { "$_ = " . literal($op->{ins}{$_}) } grep { $op->{upd}{$_} } @names;
	my $update = @set ? "UPDATE $table SET " . join(', ', @set) . " WHERE $key = $op->{key}; " : '';
	return "${update}INSERT INTO $table ($columns) SELECT $values WHERE NOT EXISTS (SELECT FROM $table WHERE $key = $op->{key})";
}

# ---- steps -------------------------------------------------------------

# plan() returns undef (the step does not apply now), or
#   {sql, params, error, check, after}
# check: what to look at after it (flushed, letters, count, get)
sub plan
{
	my ($self, $step) = @_;
	my $session = $self->session($step->{s});
	my $op = $step->{op};
	return undef if $session->{aborted} && $op !~ /^(rollback|rollback_to|commit|restart|kill_writer|kill_worker|reconnect)$/;
	my $method = "plan_$op";
	return $self->$method($session, $step);
}

sub add_script { my ($session, @sql) = @_; push @{ $session->{tx}{script} }, @sql; return; }

sub plan_begin
{
	my ($self, $session) = @_;
	return undef if $session->{tx};
	$session->{tx} = { script => [], ops => [], savepoints => [] };
	return { sql => 'BEGIN' };
}

sub plan_commit
{
	my ($self, $session) = @_;
	my $tx = $session->{tx} or return undef;
	my $ok = !$session->{aborted};
	@$session{qw(tx aborted)} = (undef, 0);
	return { sql => 'COMMIT', $ok ? $self->committed($tx) : () };
}

# What the oracle has to do, and what comes into the buffer.
sub committed
{
	my ($self, $tx) = @_;
	$self->{world} = $tx->{world} if $tx->{world};
	push @{ $self->{active} }, @{ $tx->{ops} };
	return $self->{program}{kind} eq 'ddl' ? (oracle => $tx->{script}) : ();
}

sub plan_rollback
{
	my ($self, $session) = @_;
	return undef unless $session->{tx};
	@$session{qw(tx aborted)} = (undef, 0);
	return { sql => 'ROLLBACK' };
}

sub plan_savepoint
{
	my ($self, $session, $step) = @_;
	my $tx = $session->{tx} or return undef;
	push @{ $tx->{savepoints} }, [ $step->{name}, scalar @{ $tx->{ops} }, $tx->{world} ? dclone($tx->{world}) : undef ];
	add_script($session, "SAVEPOINT $step->{name}");
	return { sql => "SAVEPOINT $step->{name}" };
}

sub find_savepoint
{
	my ($tx, $name) = @_;
	return first { $tx->{savepoints}[$_][0] eq $name } reverse 0 .. $#{ $tx->{savepoints} };
}

sub plan_rollback_to
{
	my ($self, $session, $step) = @_;
	my $tx = $session->{tx} or return undef;
	my $n = find_savepoint($tx, $step->{name}) // return undef;
	$#{ $tx->{savepoints} } = $n;
	$#{ $tx->{ops} } = $tx->{savepoints}[$n][1] - 1;
	$tx->{world} = $tx->{savepoints}[$n][2] ? dclone($tx->{savepoints}[$n][2]) : undef;
	$session->{aborted} = 0;
	add_script($session, "ROLLBACK TO $step->{name}");
	return { sql => "ROLLBACK TO $step->{name}" };
}

sub plan_release
{
	my ($self, $session, $step) = @_;
	my $tx = $session->{tx} or return undef;
	my $n = find_savepoint($tx, $step->{name}) // return undef;
	$#{ $tx->{savepoints} } = $n - 1;
	add_script($session, "RELEASE $step->{name}");
	return { sql => "RELEASE $step->{name}" };
}

# A statement that ends in an error.
sub plan_fail
{
	my ($self, $session) = @_;
	my $tx = $session->{tx} or return undef;
	$session->{aborted} = 1;
	return { sql => 'SELECT 1 / 0', error => '22012' };
}

sub plan_upsert
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	return undef if grep { $_->{alone} } $self->others($session);
	my $direct = $world->{mode} eq 'direct' || $session->{off};
	return undef if $direct && (grep { $_->{used} } $self->others($session) or $world->{paused} || $self->{world}{paused});
	return undef if $direct && $self->{program}{kind} eq 'bad' && ($session->{tx} || !$self->may_flush);
	# a direct write of a table that its own transaction has altered
	return $self->plan_without_index($session, $world, $step) unless $world->{index};
	my @rows = map { row_of($world, $step, $_) } @{ $step->{rows} };
	@rows = @rows[ 0 .. 0 ] if ($step->{form} // '') eq 'prepared_row';
	my ($sql, @params) = call($world, $step, @rows);
	my @ops = map { operation($world, $step, $_) } @rows;
	# what it does depends on the rows that are there
	return { flush => 1, sql => $sql, params => \@params, check => 'direct', ops => \@ops } if $direct && $self->{program}{kind} eq 'bad';
	my $tx = $session->{tx} // { ops => [], script => [] };
	# the server itself looks at a row type as it was when the transaction
	# began, until the table is locked
	my @before = $session->{tx} && !$tx->{used} && $sql =~ /::/ ? 'SELECT FROM ' . table($world) . ' LIMIT 0' : ();
	push @{ $tx->{ops} }, @ops;
	push @{ $tx->{script} }, map { plain_sql($world, $_) } @ops;
	$tx->{used} = 1;
	$tx->{alone} = 1 if $direct;
	return { before => \@before, sql => $sql, params => \@params, $session->{tx} ? () : $self->committed($tx) };
}

sub plan_delete { goto &plan_upsert; }

sub plan_without_index
{
	my ($self, $session, $world, $step) = @_;
	my $plain = { %$step, form => 'json' };
	my ($sql, @params) = call($world, $plain, row_of($world, $plain, $step->{rows}[0]));
	$session->{tx}{used} = $session->{aborted} = 1 if $session->{tx};
	return { sql => $sql, params => \@params, error => '55000|42P10|42704' };
}

# Everything that the worker, or a lock, could be kept from by an open
# transaction.
sub may_flush
{
	my ($self) = @_;
	return $self->{world}{index} && !$self->{world}{paused} && !$self->anybody('alone') && !$self->anybody('option');
}

sub plan_flush
{
	my ($self, $session, $step) = @_;
	return undef unless $self->may_flush && $self->world($session)->{index};
	$session->{tx}{used} = 1 if $session->{tx};
	return { sql => "SELECT batchdedup.flush('" . table($self->world($session)) . "')", check => 'flushed', $session->{tx} ? () : (point => $step->{point}) };
}

sub plan_get
{
	my ($self, $session, $step) = @_;
	my $world = $self->{world};
	return undef if $session->{tx} || $self->{program}{kind} ne 'ddl' || !$world->{index} || $self->anybody('alone');
	my ($key) = map { $_->{name} } grep { $_->{key} } @{ $world->{cols} };
	my $table = table($world);
	return { sql => qq{SELECT batchdedup.get('$table', '{"$key": $step->{k}}')::text},
		check => 'get', oracle_sql => "SELECT to_jsonb(x)::text FROM $table AS x WHERE $key = $step->{k}" };
}

# ---- DDL ---------------------------------------------------------------

# Run a statement that keeps everybody away from the table, here and there.
sub alone
{
	my ($self, $session, $change, @sql) = @_;
	return undef if grep { $_->{used} || $_->{option} } $self->others($session);
	my $tx = $session->{tx} // { ops => [], script => [] };
	$tx->{world} = dclone($self->world($session));
	$change->($tx->{world}) if $change;
	@$tx{qw(used alone)} = (1, 1);
	push @{ $tx->{script} }, @sql;
	my %plan = (sql => join('; ', @sql), $session->{tx} ? () : $self->committed($tx));
	$plan{oracle} = \@sql if $self->{program}{kind} eq 'bad';
	return \%plan;
}

sub column { my ($world, $id) = @_; return first { $_->{id} == $id } @{ $world->{cols} }; }

sub plan_add_column
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	return undef if !$world->{index} || column($world, $step->{id});
	my $default = defined $step->{default} ? " NOT NULL DEFAULT '$step->{default}'" : '';
	my $name = "n$step->{id}";
	my $upd = $self->{program}{explicit} ? 0 : 1;
	my %col = (id => $step->{id}, name => $name, type => $step->{type}, upd => $upd, default => $step->{default}, notnull => $default ? 1 : 0);
	return $self->alone($session, sub { push @{ $_[0]{cols} }, \%col }, 'ALTER TABLE ' . table($world) . " ADD COLUMN $name $step->{type}$default");
}

# A column that is to be overwritten by name cannot just go.
sub plan_drop_column
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	my $col = column($world, $step->{id});
	return undef if !$col || !$world->{index} || $col->{key} || $self->{program}{explicit} && $col->{upd};
	return $self->alone($session, sub { $_[0]{cols} = [ grep { $_->{id} != $step->{id} } @{ $_[0]{cols} } ] },
		'ALTER TABLE ' . table($world) . " DROP COLUMN $col->{name}");
}

sub plan_rename_column
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	my $col = column($world, $step->{id}) or return undef;
	my $name = "r$step->{id}_$step->{n}";
	return undef if $col->{name} eq $name;
	return $self->alone($session, sub { column($_[0], $step->{id})->{name} = $name },
		'ALTER TABLE ' . table($world) . " RENAME COLUMN $col->{name} TO $name");
}

my %conversions = (
	text => { int => q{'x' || %s}, bigint => q{'y' || %s} },
	int => { text => 'length(%s)', bigint => '%s::int' },
	bigint => { int => '%s * 10' },
);

sub plan_retype
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	my $col = column($world, $step->{id});
	return undef if !$col || !$world->{index} || defined $col->{default};
	my $using = $conversions{ $step->{type} }{ $col->{type} } or return undef;
	return undef if $col->{key} && $step->{type} eq 'text';
	$using = '%s' if $col->{key};
	return $self->alone($session, sub { column($_[0], $step->{id})->{type} = $step->{type} },
		'ALTER TABLE ' . table($world) . " ALTER $col->{name} TYPE $step->{type} USING " . sprintf($using, $col->{name}));
}

sub plan_set_default
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	my $col = column($world, $step->{id});
	return undef if !$col || !defined $col->{default};
	return $self->alone($session, sub { column($_[0], $step->{id})->{default} = $step->{value} },
		'ALTER TABLE ' . table($world) . " ALTER $col->{name} SET DEFAULT '$step->{value}'");
}

sub plan_rename_table
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	return undef if $world->{name} eq "t$step->{n}";
	return $self->alone($session, sub { $_[0]{name} = "t$step->{n}" }, 'ALTER TABLE ' . table($world) . " RENAME TO t$step->{n}");
}

sub plan_set_schema
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	my $to = $world->{schema} eq 'public' ? 'other' : 'public';
	return $self->alone($session, sub { $_[0]{schema} = $to }, 'ALTER TABLE ' . table($world) . " SET SCHEMA $to");
}

sub plan_truncate
{
	my ($self, $session) = @_;
	return undef if $self->{program}{kind} eq 'bad' && $session->{tx};
	my $plan = $self->alone($session, undef, 'TRUNCATE ' . table($self->world($session)));
	if ($plan && $self->{program}{kind} eq 'bad')
	{
		$self->{generation} += @{ $self->{active} } ? 1 : 0;
		@$self{qw(active sealed)} = ([], []);
	}
	return $plan;
}

sub plan_drop_index
{
	my ($self, $session) = @_;
	my $world = $self->world($session);
	return undef unless $world->{index};
	return $self->alone($session, sub { $_[0]{index} = 0 }, $world->{index} eq 'constraint'
		? 'ALTER TABLE ' . table($world) . ' DROP CONSTRAINT t_pkey' : "DROP INDEX $world->{schema}.t_pkey");
}

sub plan_create_index
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	return undef if $world->{index};
	my ($key) = map { $_->{name} } grep { $_->{key} } @{ $world->{cols} };
	return $self->alone($session, sub { $_[0]{index} = $step->{how} }, $step->{how} eq 'constraint'
		? 'ALTER TABLE ' . table($world) . " ADD CONSTRAINT t_pkey PRIMARY KEY ($key)"
		: 'CREATE UNIQUE INDEX t_pkey ON ' . table($world) . " ($key)");
}

# ---- options -----------------------------------------------------------

# The row of the options is locked until the COMMIT.
sub plan_pause
{
	my ($self, $session, $step) = @_;
	return undef if grep { $_->{option} || $_->{alone} } $self->others($session);
	my $world = $self->world($session);
	my $tx = $session->{tx} // { ops => [], script => [] };
	$tx->{world} = dclone($world);
	$tx->{world}{paused} = $step->{op} eq 'pause' ? 1 : 0;
	$tx->{option} = 1;
	return { sql => "SELECT batchdedup.$step->{op}('" . table($world) . "')", $session->{tx} ? () : $self->committed($tx) };
}

sub plan_resume { goto &plan_pause; }

sub plan_mode
{
	my ($self, $session, $step) = @_;
	my $world = $self->world($session);
	return undef if $world->{paused} || !$world->{index} || $session->{tx} || !$self->may_flush;
	my $plan = $self->alone($session, sub { $_[0]{mode} = $step->{mode} }) or return undef;
	$plan->{sql} = "SELECT batchdedup.alter_target('" . table($world) . "', mode => '$step->{mode}')";
	$plan->{flush} = 1 if $self->{program}{kind} eq 'bad';
	return $plan;
}

sub plan_enabled
{
	my ($self, $session, $step) = @_;
	return undef if $session->{tx};
	$session->{off} = $step->{on} ? 0 : 1;
	return { sql => 'SET batchdedup.enabled = ' . ($step->{on} ? 'on' : 'off') };
}

# ---- ends --------------------------------------------------------------

sub forget_session { my ($self, $s) = @_; $self->{sessions}[$s] = undef; return; }

sub plan_restart
{
	my ($self, $session, $step) = @_;
	my $locked = $step->{locked} && !grep { $_ && $_->{tx} && $_->{tx}{used} } @{ $self->{sessions} };
	$self->{sessions} = [];
	$self->seal;
	# What a paused or broken target holds cannot be read after a crash.
	my $crash = $step->{crash} && !$self->{world}{paused} && $self->{world}{index};
	return { action => 'restart', crash => $crash, locked => $locked && !$crash ? table($self->{world}) : undef };
}

sub plan_kill_writer
{
	my ($self, $session, $step) = @_;
	$self->forget_session($step->{s});
	return { action => 'kill_writer' };
}

sub plan_reconnect
{
	my ($self, $session, $step) = @_;
	$self->forget_session($step->{s});
	return { action => 'reconnect' };
}

sub plan_kill_worker { return { action => 'kill_worker' }; }

# ---- dead letters ------------------------------------------------------

sub plan_retry
{
	my ($self, $session, $step) = @_;
	return undef if $session->{tx} || !$self->may_flush;
	return { flush => 1, check => 'retried', force => $step->{force}, sql =>
		  "SELECT batchdedup.retry_dead_letters('" . table($self->{world}) . "', force => " . ($step->{force} ? 'true' : 'false') . ')' };
}

sub plan_discard
{
	my ($self, $session) = @_;
	return undef if $session->{tx};
	return { check => 'discarded', sql => "SELECT batchdedup.discard_dead_letters('" . table($self->{world}) . "')" };
}

# Remove a cause, here and there.
sub plan_mend
{
	my ($self, $session, $step) = @_;
	return undef if $session->{tx};
	return $self->alone($session, undef, "INSERT INTO parent VALUES ($step->{k}) ON CONFLICT DO NOTHING") if $step->{what} eq 'parent';
	my %sql = (check => 'DROP CONSTRAINT IF EXISTS positive', trigger => 'DISABLE TRIGGER refuse');
	return undef unless $self->may_flush;
	my $plan = $self->alone($session, undef, 'ALTER TABLE ' . table($self->{world}) . " $sql{$step->{what}}") or return undef;
	return { %$plan, flush => 1, check => 'mended' };
}

sub seal
{
	my ($self) = @_;
	return unless @{ $self->{active} };
	push @{ $self->{sealed} }, { number => ++$self->{generation}, ops => $self->{active} };
	$self->{active} = [];
	return;
}

# Letters that these rows, just applied, make needless.
sub supersede
{
	my ($self, @rows) = @_;
	for my $row (@rows)
	{
		for my $letter (grep { $_->{key} == $row->{key} } @{ $self->{letters} })
		{
			$letter->{superseded} = 1 if $row->{op} ne 'upsert' || !grep { !$row->{upd}{$_} } keys %{ $letter->{upd} };
		}
	}
	return;
}

# A letter that a retry has written.
sub accepted
{
	my ($self, $letter) = @_;
	$self->{letters} = [ grep { $_ != $letter } @{ $self->{letters} } ];
	for my $older (grep { $_->{key} == $letter->{key} && $_->{generation} < $letter->{generation} } @{ $self->{letters} })
	{
		$older->{superseded} = 1 if $letter->{op} ne 'upsert' || !grep { !$letter->{upd}{$_} } keys %{ $older->{upd} };
	}
	return;
}

# The rows of a generation, one per key.
sub combined
{
	my (@ops) = @_;
	my %rows;
	$rows{ $_->{key} } = combine($rows{ $_->{key} }, $_) for @ops;
	return \%rows;
}

# ---- the generator -----------------------------------------------------

my %weights = (
	ddl => {
		begin => 30, commit => 22, rollback => 4, savepoint => 12, rollback_to => 14, release => 4, fail => 2, upsert => 60, delete => 12,
		flush => 8, get => 6, add_column => 5, drop_column => 3, rename_column => 4, retype => 4, set_default => 2, rename_table => 2,
		set_schema => 2, truncate => 6, drop_index => 2, create_index => 4, pause => 2, resume => 5, mode => 2, enabled => 2,
		kill_worker => 0.3, kill_writer => 0.5, reconnect => 0.5, restart => 0.12
	},
	bad => {
		begin => 20, commit => 20, rollback => 3, savepoint => 6, rollback_to => 6, release => 2, upsert => 70, delete => 15, flush => 14,
		retry => 4, discard => 0.5, mend => 3, pause => 1, resume => 4, mode => 1.5, enabled => 3, truncate => 0.7,
		kill_worker => 0.3, kill_writer => 0.3, restart => 0.15
	},
);

sub weighted
{
	my ($table) = @_;
	my $sum = 0;
	$sum += $_ for values %$table;
	my $dice = rand() * $sum;
	for my $name (sort keys %$table)
	{
		return $name if ($dice -= $table->{$name}) < 0;
	}
	return 'begin';
}

sub random_row
{
	my ($program) = @_;
	my $share = pick(0.3, 0.7, 1);
	# what a new row needs is given, or no plain statement could run
	my @ids = $program->{kind} eq 'bad' ? (1 .. 6) : (1 .. 12);
	my %v = map { $_ => 1 + int rand 60 } grep { chance($share) } @ids;
	return { k => 1 + int rand 4, v => \%v };
}

sub random_point { return pick('quiet', 'apply', 'applied') . ':' . pick('exit', 'error'); }

my %details = (
	upsert => sub { (form => pick(qw(json json json prepared prepared_row row row array)), rows => [ map { random_row($_[0]) } 1 .. pick(1, 1, 2, 3) ]) },
	delete => sub { (form => 'json', rows => [ map { random_row($_[0]) } 1 .. pick(1, 1, 2) ]) },
	savepoint => sub { (name => pick('a', 'b')) },
	rollback_to => sub { (name => pick('a', 'b')) },
	release => sub { (name => pick('a', 'b')) },
	flush => sub { chance(0.03) ? (point => random_point()) : () },
	get => sub { (k => 1 + int rand 4) },
	add_column => sub { (id => 5 + int rand 7, type => pick('int', 'text'), chance(0.5) ? (default => pick(5, 6)) : ()) },
	drop_column => sub { (id => 1 + int rand 11) },
	rename_column => sub { (id => int rand 11, n => 1 + int rand 3) },
	retype => sub { (id => int rand 11, type => pick('int', 'text', 'bigint')) },
	set_default => sub { (id => pick(4, 5 .. 11), value => 20 + int rand 10) },
	create_index => sub { (how => pick(@how_to_index)) },
	rename_table => sub { (n => 1 + int rand 3) },
	mode => sub { (mode => pick('direct', 'buffered', 'buffered')) },
	enabled => sub { (on => pick(0, 1, 1)) },
	restart => sub { (locked => chance(0.3) ? 1 : 0, crash => chance(0.6) ? 1 : 0) },
	retry => sub { (force => chance(0.3) ? 1 : 0) },
	mend => sub { (what => pick('parent', 'parent', 'check', 'trigger'), k => pick(2, 3)) },
);

sub generate
{
	my ($seed, $kind) = @_;
	srand($seed);
	$kind //= pick('ddl', 'bad', 'foreign');
	my $program = {
		seed => $seed, kind => $kind, sessions => 1 + int rand 3, explicit => chance(0.5) || $kind eq 'bad' ? 1 : 0,
		variant => $kind eq 'bad' ? 'slow' : pick('slow', 'slow', 'fast', 'rows'), steps => []
	};
	return RandomForeign::generate($program) if $kind eq 'foreign';
	my $model = __PACKAGE__->new($program);
	my $wanted = 8 + int rand pick(15, 40, 60);
	for (1 .. 6 * $wanted)
	{
		last if @{ $program->{steps} } >= $wanted;
		my $op = weighted($weights{$kind});
		my $step = { s => 1 + int rand $program->{sessions}, op => $op, $details{$op} ? $details{$op}->($program) : () };
		push @{ $program->{steps} }, $step if $model->plan($step);
		$model->seal if $op eq 'flush';
	}
	return $program;
}

sub to_text
{
	my ($program) = @_;
	my $model = model_of($program);
	my @lines = map { s/\s+/ /gr . ';' } 'CREATE EXTENSION batchdedup', 'CREATE SCHEMA other', $model->tables_sql, $model->target_sql;
	my $i = -1;
	for my $step (@{ $program->{steps} })
	{
		$i++;
		my $plan = $model->plan($step) or next;
		my $sql = $plan->{sql} // "-- $plan->{action}" . ($plan->{locked} ? " while a session holds LOCK TABLE $plan->{locked} IN SHARE MODE" : '');
		my $params = @{ $plan->{params} // [] } ? '  -- as prepared statement: ' . join(', ', @{ $plan->{params} }) : '';
		my $point = $plan->{point} ? "  -- with the worker's batchdedup.debug_point = '$plan->{point}'" : '';
		push @lines, "/* step $i, session $step->{s} */ " . join('', map { "$_; " } $plan->{flush} ? 'SELECT batchdedup.flush()' : (), @{ $plan->{before} // [] }) . "$sql;$params$point";
		$model->seal if ($plan->{check} // '') eq 'flushed' || $plan->{flush};
	}
	return join("\n", @lines, '');
}

1;
