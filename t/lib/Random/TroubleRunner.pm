package Random::TroubleRunner;

# Runs the programs of Random::Trouble: every step here, and what committed in
# the oracle's database, where there is no buffer. Says what was not as
# expected: undef, or {kind, step, text}.

use strict;
use warnings;
use parent 'Random::Server';
use Random::Foreign;
use Random::Server qw(failure);
use Random::Trouble;
use Time::HiRes qw(sleep);

sub databases
{
	my @schema = 'CREATE SCHEMA other';
	return ([ 'trouble_', 'CREATE EXTENSION batchdedup', @schema ], [ 'oracle_', @schema ]);
}

sub admin { return $_[0]->dbh(0); }
sub oracle { my ($self) = @_; return $self->{oracle} //= $self->connect_to("oracle_$self->{made}"); }

sub disconnect
{
	my ($self) = @_;
	eval { $self->{oracle}->disconnect } if $self->{oracle};
	$self->{oracle} = undef;
	return $self->SUPER::disconnect;
}

# ---- looking -----------------------------------------------------------

sub rows_text
{
	my ($self, $dbh, $table) = @_;
	return $self->lines($dbh, "SELECT to_jsonb(x)::text FROM $table AS x ORDER BY 1");
}

sub check_table
{
	my ($self, $model, $what) = @_;
	my $table = Random::Trouble::table($model->{world});
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
sub try_plainly
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
			my $error = $self->try_plainly(Random::Trouble::plain_sql($world, $row), 1) or next;
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
	my $error = $self->try_plainly(Random::Trouble::plain_sql($world, $row), 0)
	  or failure('refused', 'a good row is in a dead letter', $text);
	my $unordered = qr/^23(503|505)$/;
	failure('letter', 'SQLSTATE', $text, "expected: $error->{state} $error->{message}")
	  if $letter->{sqlstate} ne $error->{state} && !($letter->{sqlstate} =~ $unordered && $error->{state} =~ $unordered);
	failure('letter', 'operation', $text, "expected: $row->{op}, is: $letter->{operation}") if $letter->{operation} ne $row->{op};
	return if $row->{op} eq 'delete';
	my $doc = Random::Trouble::document({ %{ $row->{ins} }, k => $row->{key} });
	failure('letter', 'row', $text, "expected: $doc", "is: $letter->{row}")
	  unless $self->value($self->admin, "SELECT '$doc'::jsonb = '$letter->{row}'::jsonb");
	return;
}

sub apply_generation
{
	my ($self, $model, $generation, @letters) = @_;
	my $world = $model->{world};
	my $rows = Random::Trouble::combined(@{ $generation->{ops} });
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
	return $model->check_flushed($self, @tables) if $model->can('check_flushed');
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
		next if $self->try_plainly(Random::Trouble::plain_sql($model->{world}, $letter), 1);
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
		last if $error = $self->try_plainly(Random::Trouble::plain_sql($model->{worlds} ? $model->{worlds}{ $op->{table} } : $model->{world}, $op), 1);
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
	$self->send($dbh, $sql);
	sleep 0.05;
	$set->();
	my $ok = eval { $dbh->pg_result; 1 };
	$self->{count}{point}++;
	return $ok ? { rows => [] } : { state => $dbh->state, message => $dbh->errstr } if $ok || $dbh->errstr !~ /debug point/;
	# An error that does not pass by itself: it says so, and is over as soon as the
	# worker has read its settings anew.
	my $result;
	for (1 .. 200)
	{
		$result = $self->try($dbh, $sql);
		last unless ($result->{message} // '') =~ /debug point/;
		sleep 0.05;
	}
	return $result;
}

sub flush
{
	my ($self, $model, @tables) = @_;
	return $model->flush($self, @tables) if $model->can('flush');
	my $result = $self->try($self->admin, "SELECT batchdedup.flush('" . Random::Trouble::table($model->{world}) . "')");
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
		$self->forget_sessions(grep { $_ } $self->{oracle}, $locker);
		$self->{oracle} = undef;
		$self->flush($model) if $model->{worlds} || $model->{program}{kind} eq 'bad' && $model->may_flush;
		return;
	}
	if ($action eq 'kill_worker')
	{
		$self->admin->do(Random::Server::kill_worker_sql());
		return;
	}
	my $dbh = $self->dbh($step->{s});
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
	my $dbh = $self->dbh($step->{s});
	$dbh->do($_) for @{ $plan->{before} // [] };
	my $result = $plan->{point} ? $self->flush_in_trouble($dbh, $plan->{sql}, $plan->{point}) :
	  $self->try($dbh, $plan->{sql}, @{ $plan->{params} // [] });
	return $self->check_direct($model, $plan, $result) if ($plan->{check} // '') eq 'direct';
	my $state = $result->{state};
	my $wanted = $plan->{error} // 'none';
	failure("error $state", "$plan->{sql}: $result->{message}") if defined $state && $state !~ /^($wanted)$/;
	failure('error none', "expected an error ($plan->{error})") if $plan->{error} && !defined $state;
	return if defined $state;
	$self->run_plainly($self->oracle, 'BEGIN', @{ $plan->{oracle} }, 'COMMIT') if $plan->{oracle} && @{ $plan->{oracle} };
	return $self->look($model, $step, $plan, $result, @tried);
}

sub look
{
	my ($self, $model, $step, $plan, $result, @tried) = @_;
	my $check = $plan->{check} // '';
	my $value = @{ $result->{rows} } ? $result->{rows}[0][0] : undef;
	return $self->flush($model, @{ $plan->{flushed} }) if $plan->{resumed};
	return $self->check_flushed($model, @{ $plan->{flushed} // [] }) if $check eq 'flushed';
	return $model->check_retried($self, $plan, $value) if $check eq 'retried' && $model->can('check_retried');
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
	$_->do('SET batchdedup.enabled = on') for grep { $_ } @{ $self->{sessions} };
	return;
}

sub run
{
	my ($self, $program) = @_;
	my $model = Random::Trouble::model_of($program);
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
