package RandomTroubleRunner;

# Runs the programs of RandomTrouble: every step here, and what committed in
# the oracle's database, where there is no buffer. Says what was not as
# expected: undef, or {kind, step, text}.

use strict;
use warnings;
use DBI;
use DBD::Pg qw(:async);
use RandomForeign;
use RandomTrouble;
use Time::HiRes qw(sleep);

sub new
{
	my ($class, %args) = @_;
	my $self = bless { %args, databases => 0, count => {} }, $class;
	$self->new_databases;
	return $self;
}

# ---- server ------------------------------------------------------------

sub connect_to
{
	my ($self, $dbname) = @_;
	my $node = $self->{node};
	my $dbh = DBI->connect("dbi:Pg:dbname=$dbname;host=" . $node->host . ';port=' . $node->port,
		undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, AutoInactiveDestroy => 1 });
	$dbh->{pg_placeholder_dollaronly} = 1;
	$dbh->do("SET client_min_messages = error; SET statement_timeout = '20s'");
	return $dbh;
}

sub session { my ($self, $s) = @_; return $self->{sessions}[$s] //= $self->connect_to($self->{dbname}); }
sub admin { return $_[0]->session(0); }
sub oracle { my ($self) = @_; return $self->{oracle} //= $self->connect_to($self->{oraclename}); }

sub disconnect
{
	my ($self) = @_;
	$_->disconnect for grep { $_ } @{ $self->{sessions} // [] }, $self->{oracle};
	@$self{qw(sessions oracle)} = ([], undef);
	return;
}

# The server has ended the connection: its statements have nobody to say
# goodbye to.
sub forget
{
	my ($dbh) = @_;
	$_->{InactiveDestroy} = 1 for grep { $_ } @{ $dbh->{ChildHandles} };
	$dbh->{Warn} = 0;
	eval { $dbh->disconnect };
	return;
}

# After a failure: whatever the server is in, the next program starts afresh.
sub new_databases
{
	my ($self) = @_;
	my $node = $self->{node};
	$self->disconnect;
	if ($self->{dbname})
	{
		$node->stop('immediate', fail_ok => 1);
		$node->start;
		$node->safe_psql('postgres', "DROP DATABASE $_ WITH (FORCE)") for @$self{qw(dbname oraclename)};
	}
	my $n = ++$self->{databases};
	@$self{qw(dbname oraclename)} = ("trouble_$n", "oracle_$n");
	$node->safe_psql('postgres', "CREATE DATABASE $_") for @$self{qw(dbname oraclename)};
	$self->admin->do('CREATE EXTENSION batchdedup');
	$_->do('CREATE SCHEMA other') for $self->admin, $self->oracle;
	return;
}

sub failure { my ($kind, @text) = @_; die { kind => $kind, text => join("\n", @text) }; }

# ---- statements --------------------------------------------------------

# {rows} or {state, message}
sub execute
{
	my ($self, $dbh, $sql, @params) = @_;
	my $rows = eval {
		my $sth = @params ? $dbh->prepare_cached($sql, { pg_server_prepare => 1 }) : $dbh->prepare($sql, { pg_direct => 1 });
		$sth->execute(@params);
		$sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : [];
	};
	return $rows ? { rows => $rows } : { state => $dbh->state, message => $dbh->errstr // $@ };
}

sub value { my ($self, $dbh, $sql) = @_; my ($value) = $dbh->selectrow_array($sql); return $value; }

sub run_oracle
{
	my ($self, @sql) = @_;
	return if eval { $self->oracle->do(join('; ', 'BEGIN', @sql, 'COMMIT')); 1 };
	my $error = $@;
	$self->oracle->do('ROLLBACK');
	return failure('test', 'the plain statements fail', $error, @sql);
}

# ---- looking -----------------------------------------------------------

sub rows_text
{
	my ($self, $dbh, $table) = @_;
	return join("\n", map { "  $_->[0]" } @{ $dbh->selectall_arrayref("SELECT to_jsonb(x)::text FROM $table AS x ORDER BY 1") });
}

sub check_table
{
	my ($self, $model, $what) = @_;
	my $table = RandomTrouble::table($model->{world});
	my ($actual, $expected) = map { $self->rows_text($_, $table) } $self->admin, $self->oracle;
	failure($what, "$table, expected:", $expected, 'is:', $actual) if $actual ne $expected;
	my $letters = $self->letters;
	failure('letters', "$what: a row was refused", map { "  $_->{row}: $_->{sqlstate} $_->{message}" } @$letters)
	  if @$letters && $model->{program}{kind} eq 'ddl';
	return;
}

# ---- rows that are refused ---------------------------------------------

sub letters
{
	my ($self) = @_;
	return $self->admin->selectall_arrayref(
		q{SELECT generation, key ->> 'k' AS key, operation, sqlstate, superseded, row::text AS row, message
		FROM batchdedup.dead_letter ORDER BY generation, sequence, id}, { Slice => {} });
}

# Try something in the oracle's database: its error, or undef.
sub try
{
	my ($self, $sql, $keep) = @_;
	my $oracle = $self->oracle;
	$oracle->do('SAVEPOINT try');
	my $ok = eval { $oracle->do($sql); 1 };
	my $error = $ok ? undef : { state => $oracle->state, message => $oracle->errstr };
	$oracle->do('ROLLBACK TO try') unless $ok && $keep;
	$oracle->do('RELEASE try');
	return $error;
}

# All rows that are no letters must be possible, in some order.
sub apply_good_rows
{
	my ($self, $world, @rows) = @_;
	my @todo = ((grep { $_->{op} eq 'delete' } @rows), (grep { $_->{op} ne 'delete' } @rows));
	my $last;
	while (@todo)
	{
		my @left;
		for my $row (@todo)
		{
			my $error = $self->try(RandomTrouble::plain_sql($world, $row), 1) or next;
			push @left, $row;
			$last = "key $row->{key}: $error->{message}";
		}
		failure('not refused', 'a row that the table refuses is in no dead letter', $last) if @left == @todo;
		@todo = @left;
	}
	return;
}

sub check_letter
{
	my ($self, $world, $letter, $row) = @_;
	my $text = "key $row->{key}, generation $letter->{generation}, $letter->{sqlstate} $letter->{message}";
	my $error = $self->try(RandomTrouble::plain_sql($world, $row), 0)
	  or failure('refused', 'a good row is in a dead letter', $text);
	my $unordered = qr/^23(503|505)$/;
	failure('letter', 'SQLSTATE', $text, "expected: $error->{state} $error->{message}")
	  if $letter->{sqlstate} ne $error->{state} && !($letter->{sqlstate} =~ $unordered && $error->{state} =~ $unordered);
	failure('letter', 'operation', $text, "expected: $row->{op}, is: $letter->{operation}") if $letter->{operation} ne $row->{op};
	return if $row->{op} eq 'delete';
	my $doc = RandomTrouble::document({ %{ $row->{ins} }, k => $row->{key} });
	failure('letter', 'row', $text, "expected: $doc", "is: $letter->{row}")
	  unless $self->value($self->admin, "SELECT '$doc'::jsonb = '$letter->{row}'::jsonb");
	return;
}

sub apply_generation
{
	my ($self, $model, $generation, @letters) = @_;
	my $world = $model->{world};
	my $rows = RandomTrouble::combined(@{ $generation->{ops} });
	my %refused = map { $_->{key} => $_ } @letters;
	failure('letter', 'a letter of no row', "key $_") for grep { !$rows->{$_} } sort keys %refused;
	$self->oracle->do('BEGIN');
	$self->apply_good_rows($world, map { $rows->{$_} } grep { !$refused{$_} } sort keys %$rows);
	$self->check_letter($world, $refused{$_}, $rows->{$_}) for sort keys %refused;
	$self->oracle->do('COMMIT');
	$model->supersede(map { $rows->{$_} } grep { !$refused{$_} } keys %$rows);
	push @{ $model->{letters} }, map { { %{ $rows->{$_} }, generation => $generation->{number} } } sort keys %refused;
	return;
}

sub check_letters
{
	my ($self, $model) = @_;
	my $text = sub { join("\n", sort map { "  generation $_->{generation}, key $_->{key}, " . ($_->{op} // $_->{operation})
				  . ($_->{superseded} ? ', superseded' : '') } @_) };
	my ($expected, $actual) = ($text->(@{ $model->{letters} }), $text->(@{ $self->letters }));
	failure('letters', 'dead letters, expected:', $expected, 'are:', $actual) if $expected ne $actual;
	return;
}

# What flush() promises.
sub check_flushed
{
	my ($self, $model, @tables) = @_;
	return RandomForeign::check_flushed($self, $model, @tables) if $model->{worlds};
	if ($model->{program}{kind} eq 'bad')
	{
		$model->seal;
		my %letters;
		push @{ $letters{ $_->{generation} } }, $_ for @{ $self->letters };
		$self->apply_generation($model, $_, @{ $letters{ $_->{number} } // [] }) for @{ $model->{sealed} };
		$model->{sealed} = [];
		$self->check_letters($model);
	}
	return $self->check_table($model, 'flushed');
}

sub letters_to_retry
{
	my ($self, $model, $force) = @_;
	my %known = map { ("$_->{generation} $_->{key}" => $_) } @{ $model->{letters} };
	return grep { $force || !$_->{superseded} } map { $known{"$_->{generation} $_->{key}"} } @{ $self->letters };
}

sub check_retried
{
	my ($self, $model, $count, @tried) = @_;
	my $expected = 0;
	$self->oracle->do('BEGIN');
	for my $letter (@tried)
	{
		next if $self->try(RandomTrouble::plain_sql($model->{world}, $letter), 1);
		$expected++;
		$model->accepted($letter);
	}
	$self->oracle->do('COMMIT');
	failure('retry', "retry_dead_letters(): expected $expected, returned $count") if $count != $expected;
	$self->check_letters($model);
	return $self->check_table($model, 'retried');
}

# ---- rows that are written directly ------------------------------------

# The same statements in the oracle's database succeed, or fail alike.
sub check_direct
{
	my ($self, $model, $plan, $result) = @_;
	my ($error, $op);
	$self->oracle->do('BEGIN');
	for my $next (@{ $plan->{ops} })
	{
		$op = $next;
		last if $error = $self->try(RandomTrouble::plain_sql($model->{worlds} ? $model->{worlds}{ $op->{table} } : $model->{world}, $op), 1);
	}
	$self->oracle->do($error ? 'ROLLBACK' : 'COMMIT');
	my ($expected, $actual) = map { $_ && $_->{state} || 'none' } $error, $result;
	my $unordered = qr/^23(503|505)$/;
	failure("error $actual", "$plan->{sql}: expected $expected " . ($error->{message} // ''), 'is: ' . ($result->{message} // ''))
	  if $expected ne $actual && !($expected =~ $unordered && $actual =~ $unordered);
	$model->supersede(@{ $plan->{ops} }) unless $error;
	return $self->check_flushed($model, ref $plan->{flush} ? @{ $plan->{flush} } : ());
}

# ---- steps -------------------------------------------------------------

# A flush in which the worker may end at a debug point.
sub flush_in_trouble
{
	my ($self, $dbh, $sql, $point) = @_;
	my $worker = q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'batchdedup worker' AND datname = current_database()};
	my $admin = $self->admin;
	my $set = sub { $admin->do($_) for 'ALTER SYSTEM ' . ($_[0] ? "SET batchdedup.debug_point = '$_[0]'" : 'RESET batchdedup.debug_point'), 'SELECT pg_reload_conf()', $worker; };
	$set->($point);
	$dbh = $self->connect_to($self->{dbname}) if $dbh == $admin;
	$dbh->do($sql, { pg_async => PG_ASYNC });
	sleep 0.05;
	$set->();
	my $ok = eval { $dbh->pg_result; 1 };
	$self->{count}{point}++;
	# an error that does not pass by itself: it says so, and is over now
	return $self->execute($dbh, $sql) if !$ok && $dbh->errstr =~ /debug point/;
	return $ok ? { rows => [] } : { state => $dbh->state, message => $dbh->errstr };
}

sub flush
{
	my ($self, $model, @tables) = @_;
	return RandomForeign::flush($self, $model, @tables) if $model->{worlds};
	my $result = $self->execute($self->admin, "SELECT batchdedup.flush('" . RandomTrouble::table($model->{world}) . "')");
	failure("error $result->{state}", "flush(): $result->{message}") if defined $result->{state};
	return $self->check_flushed($model);
}

# What was committed is in the journal.
sub crash
{
	my ($node) = @_;
	$node->stop('immediate');
	$node->start;
	return;
}

sub act
{
	my ($self, $model, $step, $plan) = @_;
	my $action = $plan->{action};
	if ($action eq 'restart')
	{
		my $locker = $plan->{locked} ? $self->connect_to($self->{dbname}) : undef;
		$locker->do("BEGIN; LOCK TABLE $plan->{locked} IN SHARE MODE") if $locker;
		$plan->{crash} ? crash($self->{node}) : $self->{node}->restart;
		forget($_) for grep { $_ } @{ $self->{sessions} }, $self->{oracle}, $locker;
		@$self{qw(sessions oracle)} = ([], undef);
		$self->flush($model) if $model->{worlds} || $model->{program}{kind} eq 'bad' && $model->may_flush;
		return;
	}
	if ($action eq 'kill_worker')
	{
		$self->admin->do(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE backend_type LIKE 'batchdedup%' AND datname = current_database()});
		return;
	}
	my $dbh = $self->session($step->{s});
	$self->admin->do("SELECT pg_terminate_backend($dbh->{pg_pid}, 5000)") if $action eq 'kill_writer';
	eval { $dbh->disconnect };
	$self->{sessions}[ $step->{s} ] = undef;
	return;
}

sub run_step
{
	my ($self, $model, $step) = @_;
	my $plan = $model->plan($step) or return;
	$self->{count}{ $step->{op} }++;
	return $self->act($model, $step, $plan) if $plan->{action};
	$self->flush($model, ref $plan->{flush} ? @{ $plan->{flush} } : ()) if $plan->{flush};
	my @tried = ($plan->{check} // '') eq 'retried' && !$model->{worlds} ? $self->letters_to_retry($model, $plan->{force}) : ();
	my $dbh = $self->session($step->{s});
	$dbh->do($_) for @{ $plan->{before} // [] };
	my $result = $plan->{point} ? $self->flush_in_trouble($dbh, $plan->{sql}, $plan->{point}) :
	  $self->execute($dbh, $plan->{sql}, @{ $plan->{params} // [] });
	return $self->check_direct($model, $plan, $result) if ($plan->{check} // '') eq 'direct';
	my $state = $result->{state};
	my $wanted = $plan->{error} // 'none';
	failure("error $state", "$plan->{sql}: $result->{message}") if defined $state && $state !~ /^($wanted)$/;
	failure('error none', "expected an error ($plan->{error})") if $plan->{error} && !defined $state;
	return if defined $state;
	$self->run_oracle(@{ $plan->{oracle} }) if $plan->{oracle} && @{ $plan->{oracle} };
	return $self->look($model, $step, $plan, $result, @tried);
}

sub look
{
	my ($self, $model, $step, $plan, $result, @tried) = @_;
	my $check = $plan->{check} // '';
	my $value = @{ $result->{rows} } ? $result->{rows}[0][0] : undef;
	return $self->flush($model, @{ $plan->{flushed} }) if $plan->{resumed};
	return $self->check_flushed($model, @{ $plan->{flushed} // [] }) if $check eq 'flushed';
	return RandomForeign::check_retried($self, $model, $plan, $value) if $check eq 'retried' && $model->{worlds};
	return $self->check_retried($model, $value, @tried) if $check eq 'retried';
	if ($check eq 'get')
	{
		my $expected = $self->value($self->oracle, $plan->{oracle_sql});
		failure('get', 'expected: ' . ($expected // 'no row'), 'is: ' . ($value // 'no row')) if ($expected // '') ne ($value // '');
	}
	if ($check eq 'discarded')
	{
		my $expected = @{ $model->{letters} };
		failure('discard', "expected $expected, returned $value") if $value != $expected;
		$model->{letters} = [];
	}
	# what was held up is applied right away
	return $self->flush($model) if $step->{op} eq 'resume' && $model->{program}{kind} eq 'bad' && $model->may_flush;
	return;
}

# ---- programs ----------------------------------------------------------

sub finish
{
	my ($self, $model) = @_;
	my @ends = map { my $s = $_; $model->session($s)->{tx} ? { s => $s, op => 'rollback' } : () } 1 .. $model->{program}{sessions};
	$self->run_step($model, $_) for @ends, $model->ending;
	$self->flush($model);
	$_->do(join('; ', map { "DROP TABLE IF EXISTS $_" } $model->tables, 'parent') . '; DROP FUNCTION IF EXISTS refuse') for $self->admin, $self->oracle;
	# a statement prepared with the type of a table that is gone is of no use
	%{ $_->{CachedKids} } = () for grep { $_ } @{ $self->{sessions} };
	$_->do('RESET ALL; SET client_min_messages = error; SET statement_timeout = \'20s\'') for grep { $_ } @{ $self->{sessions} };
	return;
}

sub run
{
	my ($self, $program) = @_;
	my $model = RandomTrouble::model_of($program);
	my $i;
	my $ok = eval {
		$_->do(join('; ', $model->tables_sql)) for $self->admin, $self->oracle;
		$self->admin->do(join('; ', $model->target_sql));
		for my $step (@{ $program->{steps} })
		{
			$i = defined $i ? $i + 1 : 0;
			$self->run_step($model, $step);
		}
		$i = undef;
		$self->finish($model);
		1;
	};
	return undef if $ok;
	my $failure = ref $@ eq 'HASH' ? $@ : { kind => 'crash', text => $@ };
	$failure->{step} = $i;
	$self->new_databases;
	return $failure;
}

1;
