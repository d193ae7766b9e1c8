package RandomRunner;

# Runs one program after the other on one server, and says what was not as
# expected: undef, or {kind, step, text}.
#
# kind: error       a step failed, or did not fail as it should have; with
#                   the SQLSTATE that came
#       get         get() returned something else
#       view        the view showed something else
#       buffered    the table overlaid with buffered() is something else
#       flushed     after flush() the table is something else
#       final       at the end it is
#       crash       the connection or the server was lost
#       test        the model and the plain statements disagree: our own fault

use strict;
use warnings;
use utf8;
use DBD::Pg qw(:async);
use DBI;
use POSIX ();
use Time::HiRes qw(usleep);
use RandomModel;
use RandomOracle;
use RandomShapes qw(shapes variants table_name setup_sql create_target_sql);
use RandomSql;

use constant MAX_SESSIONS => 4;
use constant HANG_SECONDS => 60;

sub new
{
	my ($class, %args) = @_;
	my $self = bless { patience => 20, %args, databases => 0, count => {} }, $class;
	$self->{shape_of} = { map { $_->{name} => $_ } @{ shapes() } };
	$self->setup;
	return $self;
}

# ---- server ------------------------------------------------------------

sub connect_session
{
	my ($self) = @_;
	my $node = $self->{node};
	my $dbh = DBI->connect(
		"dbi:Pg:dbname=$self->{dbname};host=" . $node->host . ';port=' . $node->port,
		undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, AutoInactiveDestroy => 1 });
	$dbh->{pg_placeholder_dollaronly} = 1;
	$dbh->{pg_switch_prepared} = 1;
	$dbh->do("SET client_min_messages = error; SET timezone = 'UTC'; SET datestyle = 'ISO'");
	$dbh->do("SET statement_timeout = '$self->{patience}s'");
	return $dbh;
}

# A database of its own, with every table and target.
sub setup
{
	my ($self) = @_;
	my $node = $self->{node};
	$self->{dbname} = 'random_' . ++$self->{databases};
	$node->safe_psql('postgres', "CREATE DATABASE $self->{dbname}");
	$self->{sessions} = [ map { $self->connect_session } 0 .. MAX_SESSIONS ];
	my $dbh = $self->{sessions}[0];
	$dbh->do($self->{extension_sql});
	$dbh->do($_) for RandomShapes::prelude_sql();
	$dbh->do(RandomSql::debug_release_sql()) unless $self->{standin};
	for my $shape (@{ shapes() })
	{
		$dbh->do($_) for setup_sql($shape, '');
	}
	RandomShapes::measure($dbh) unless $self->{databases} > 1;
	for my $shape (@{ shapes() })
	{
		$self->setup_target($shape, $_) for @{ variants() };
	}
	return;
}

sub setup_target
{
	my ($self, $shape, $variant) = @_;
	my $dbh = $self->{sessions}[0];
	$dbh->do($_) for setup_sql($shape, $variant), create_target_sql($shape, $variant, $shape->{update});
	$self->{registered}{ table_name($shape, $variant) } = "@{ $shape->{update} }";
	return if $self->{standin};
	$dbh->do($_) for RandomShapes::create_view_sql($shape, $variant), RandomShapes::create_redirect_sql($shape, $variant);
	return;
}

sub disconnect
{
	my ($self) = @_;
	$self->{waiting} = {};
	$_->disconnect for @{ $self->{sessions} };
	$self->{sessions} = [];
	return;
}

# After something that may have broken the server's state: start it again,
# which empties the buffers of unlogged targets, and take a new database.
sub restart
{
	my ($self) = @_;
	$self->disconnect;
	$self->{node}->stop('immediate', fail_ok => 1);
	$self->{node}->start;
	$self->{node}->safe_psql('postgres', "DROP DATABASE $self->{dbname} WITH (FORCE)");
	$self->setup;
	return;
}

# ---- statements --------------------------------------------------------

# Run a statement: {rows} or {state, message, lost}.
sub execute
{
	my ($self, $s, $statement, $param) = @_;
	my $dbh = $self->{sessions}[$s];
	my $rows = eval {
		my $sth = defined $param
		  ? $dbh->prepare_cached($statement, { pg_server_prepare => 1 })
		  : $dbh->prepare($statement, { pg_direct => 1 });
		defined $param ? $sth->execute($param) : $sth->execute;
		$sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : [];
	};
	return { rows => $rows } if $rows;
	my ($state, $message) = ($dbh->state, $dbh->errstr // $@);
	return { state => $state, message => $message, lost => !$dbh->ping || $state =~ /^(57P|08)/ ? 1 : 0 };
}

# COPY FROM STDIN.
sub copy
{
	my ($self, $s, $statement, @lines) = @_;
	my $dbh = $self->{sessions}[$s];
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

# How long a statement may take.
sub set_patience
{
	my ($self, $seconds) = @_;
	$self->{patience} = $seconds;
	$_->do("SET statement_timeout = '${seconds}s'") for @{ $self->{sessions} };
	return;
}

# Several statements at once, or die.
sub run_script
{
	my ($self, @statements) = @_;
	$self->{sessions}[0]->do(join('; ', @statements));
	return;
}

# The plain statements. That they run is up to us.
sub run_oracle
{
	my ($self, $program, $sql, $order) = @_;
	my @script = ($sql->reset_statements($program->{initial}, 'oracle'), RandomOracle::plain_script($sql, $order));
	return undef if eval { $self->run_script(@script); 1 };
	my $error = $@;
	$self->{sessions}[0]->do('ROLLBACK');
	return failure('test', undef, 'the plain statements fail', $error);
}

sub read_table
{
	my ($self, $sql, $t, $table) = @_;
	return $self->{sessions}[0]->selectall_arrayref($sql->table_statement($t, $table));
}

# ---- rows --------------------------------------------------------------

sub key_text
{
	my ($shape, $row) = @_;
	return join("\0", map { $row->{$_} // '' } @{ $shape->{key} });
}

sub row_class { my ($shape, $row) = @_; return $shape->{class_of}{ key_text($shape, $row) }; }

sub row_hash
{
	my ($shape, @values) = @_;
	my %row;
	@row{ map { $_->{name} } @{ $shape->{cols} } } = @values;
	return \%row;
}

# {class => row}, and what is wrong with the rows as such.
sub index_rows
{
	my ($shape, $rows) = @_;
	my (%by_class, @wrong);
	for my $values (@$rows)
	{
		my $row = row_hash($shape, @$values);
		my $class = row_class($shape, $row);
		push @wrong, 'unknown key: ' . row_text($shape, $row) unless defined $class;
		next unless defined $class;
		push @wrong, 'two rows of one key: ' . row_text($shape, $row) if $by_class{$class};
		$by_class{$class} = $row;
	}
	return (\%by_class, @wrong);
}

sub cell_text
{
	my ($cell) = @_;
	return 'NULL' unless defined $cell;
	$cell = substr($cell, length RandomModel::LEARNED) if index($cell, RandomModel::LEARNED) == 0;
	return "<$cell>" if $cell =~ s/^\0//;
	return length $cell > 60 ? RandomShapes::literal(substr($cell, 0, 40)) . '… (' . length($cell) . ')' : RandomShapes::literal($cell);
}

sub row_text
{
	my ($shape, $row) = @_;
	return 'no row' unless $row;
	return join(', ', map { "$_->{name} = " . cell_text($row->{ $_->{name} }) } @{ $shape->{cols} });
}

sub difference
{
	my ($shape, $what, $expected, $actual) = @_;
	return "$what\n  expected: " . row_text($shape, $expected) . "\n  is:       " . row_text($shape, $actual);
}

# Every difference between the rows of a table and what the model expects.
sub compare_table
{
	my ($self, $model, $t, $rows) = @_;
	my $shape = $model->shape($t);
	my ($actual, @wrong) = index_rows($shape, $rows);
	my @keys;
	my $expected = $model->{state}[$t];
	my %classes = (%$expected, %$actual);
	for my $class (sort { $a <=> $b } keys %classes)
	{
		my ($e, $a) = ($expected->{$class}, $actual->{$class});
		my $same = $e && $a && !grep { RandomModel::cell_differs($e->{$_}, $a->{$_}) } keys %$e;
		next if $same;
		push @keys, "$t:$class";
		push @wrong, difference($shape, "table of $shape->{name}", $e, $a);
	}
	return { wrong => \@wrong, keys => \@keys, rows => $actual };
}

# Values that the table's sequences gave must not change from now on.
sub learn_table
{
	my ($self, $model, $t, $rows) = @_;
	for my $class (keys %$rows)
	{
		$model->learn($t, $class, $_, $rows->{$class}{$_}) for sort keys %{ $rows->{$class} };
	}
	return;
}

# ---- steps -------------------------------------------------------------

sub failure
{
	my ($kind, $step, @text) = @_;
	return { kind => $kind, step => $step, text => join("\n", @text) };
}

sub check_error
{
	my ($i, $result, $expect) = @_;
	my $got = $result->{state};
	return failure('crash', $i, $result->{message}) if $result->{lost};
	return undef if !defined $got && !$expect->{error};
	return failure('error none', $i, "expected an error ($expect->{error}), there was none") unless defined $got;
	return failure("error $got", $i, "$got: $result->{message}") unless $expect->{error};
	return undef if $got =~ /^($expect->{error})$/;
	return failure("error $got", $i, "expected $expect->{error}, got $got: $result->{message}");
}

# get() goes through jsonb, and cannot know what a sequence will give.
sub check_get
{
	my ($i, $shape, $expect, $result) = @_;
	my ($is_null, @values) = @{ $result->{rows}[0] };
	my ($row, $actual) = ($expect->{row}, $is_null ? undef : row_hash($shape, @values));
	my @wrong = !!$row ne !!$actual ? 'row' : ();
	for my $col ($row && $actual ? @{ $shape->{cols} } : ())
	{
		my ($e, $a) = ($row->{ $col->{name} }, $actual->{ $col->{name} });
		next if defined $e && ($e eq RandomModel::VOLATILE || $e eq RandomModel::GENERATED);
		$e = $col->{jtext}{$e} if defined $e && $col->{jtext} && exists $col->{jtext}{$e};
		push @wrong, $col->{name} if !$col->{iskey} && RandomModel::cell_differs($e, $a);
	}
	push @wrong, 'key' if $row && $actual && !$shape->{is_key_text}{ $expect->{class} }{ key_text($shape, $actual) };
	return undef unless @wrong;
	return failure('get', $i, difference($shape, "get() differs in @wrong", $row, $actual));
}

# Buffered rows win over the table's. Spellings of one key may be two entries:
# then one of them must be right.
sub check_buffered
{
	my ($i, $shape, $update, $expect, $result) = @_;
	my %rows;
	for my $line (@{ $result->{rows} })
	{
		my ($where, @values) = @$line;
		my $row = row_hash($shape, @values);
		push @{ $rows{$where}{ row_class($shape, $row) // -1 } }, $row;
	}
	for my $class (sort { $a <=> $b } keys %{ $expect->{exact} })
	{
		my $e = $expect->{exact}{$class};
		my @actual = @{ $rows{buffer}{$class} // $rows{table}{$class} // [] };
		my @names = grep { !$shape->{col}{$_}{kind} } sort keys %$update;
		my @right = grep { my $a = $_; !grep { RandomModel::cell_differs($e->{$_}, $a->{$_}) } @names } @actual;
		return failure('buffered', $i, difference($shape, 'table and buffered()', $e, $actual[0])) unless @right;
	}
	return undef;
}

# The view shows what get() returns, but for what a sequence will give.
sub check_view
{
	my ($i, $shape, $expect, $result) = @_;
	my ($actual, @wrong) = index_rows($shape, $result->{rows});
	for my $class (sort { $a <=> $b } keys %{ $expect->{view} })
	{
		my ($e, $a) = ($expect->{view}{$class}, delete $actual->{$class});
		my $same = !$e == !$a;
		for my $name ($e && $a ? sort keys %$e : ())
		{
			next if defined $e->{$name} && $e->{$name} eq RandomModel::VOLATILE;
			$same = 0 if RandomModel::cell_differs($e->{$name}, $a->{$name});
		}
		push @wrong, difference($shape, 'the view', $e, $a) unless $same;
	}
	push @wrong, map { 'the view has also: ' . row_text($shape, $_) } values %$actual;
	return @wrong ? failure('view', $i, @wrong) : undef;
}

# What flush() promises: what was committed before it is in the table.
sub check_flushed
{
	my ($self, $i, $model, $sql, $expect) = @_;
	for my $t (@{ $expect->{tables} })
	{
		my $found = $self->compare_table($model, $t, $self->read_table($sql, $t, $sql->target($t)));
		return failure('flushed', $i, 'after flush()', @{ $found->{wrong} }) if @{ $found->{wrong} };
		$self->learn_table($model, $t, $found->{rows});
	}
	return undef;
}

sub check_step
{
	my ($self, $i, $model, $sql, $step, $expect, $result) = @_;
	my $failure = check_error($i, $result, $expect);
	return $failure if $failure || $expect->{error};
	return undef if $self->{any_order} || $model->{program}{overlap};
	my $shape = defined $step->{t} ? $model->shape($step->{t}) : undef;
	return check_get($i, $shape, $expect, $result) if $expect->{get};
	return check_view($i, $shape, $expect, $result) if $expect->{view};
	return check_buffered($i, $shape, $model->{updates}[ $step->{t} ], $expect, $result) if $expect->{exact};
	return $self->check_flushed($i, $model, $sql, $expect) if $expect->{tables};
	return undef;
}

sub reconnect
{
	my ($self, $s) = @_;
	$self->{sessions}[$s]->disconnect;
	$self->{sessions}[$s] = $self->connect_session;
	return { rows => [] };
}

# A COMMIT that stops at a debug point: sent, but not waited for. It needs a
# moment to get there; should it be late, that is another legal order.
sub slow_commit
{
	my ($self, $s, $point) = @_;
	my $result = $self->execute($s, "SET LOCAL batchdedup.debug_point = '$point:wait'");
	return $self->execute($s, 'COMMIT') if defined $result->{state};
	$self->{sessions}[$s]->do('COMMIT', { pg_async => PG_ASYNC });
	$self->{waiting}{$s} = 1;
	usleep(1000);
	return { rows => [] };
}

# Who has not yet reached his debug point would miss a single release.
sub let_go
{
	my ($self) = @_;
	my $result = { rows => [] };
	for my $s (sort keys %{ $self->{waiting} })
	{
		my $dbh = $self->{sessions}[$s];
		while (!$dbh->pg_ready)
		{
			$self->run_script('SELECT bdd_debug_release()');
			usleep(500);
		}
		delete $self->{waiting}{$s};
		eval { $dbh->pg_result; 1 } or $result = { state => $dbh->state, message => $dbh->errstr, lost => !$dbh->ping };
	}
	return $result;
}

sub execute_step
{
	my ($self, $model, $sql, $step) = @_;
	return $self->slow_commit($step->{s}, $step->{point}) if $step->{op} eq 'slow_commit' && $model->will_wait($step) && !$self->{standin};
	return $self->let_go if $step->{op} eq 'let_go';
	return $self->reconnect($step->{s}) if $step->{op} eq 'reconnect';
	if ($step->{op} eq 'plain')
	{
		my $result = $self->execute($step->{s}, $sql->flush_statement($step->{t}));
		return $result if defined $result->{state};
	}
	return $self->copy($step->{s}, $sql->copy_statement($step)) if ($step->{form} // '') eq 'copy';
	my $result = $self->execute($step->{s}, $sql->statement($step));
	return $result if $step->{op} ne 'block' || $step->{multi} || defined $result->{state};
	return $self->execute($step->{s}, "SELECT current_setting('test.now')");
}

sub run_step
{
	my ($self, $i, $model, $sql, $step) = @_;
	$self->{count}{ $step->{op} }++;
	my $result = $self->execute_step($model, $sql, $step);
	my $now = $step->{op} =~ /^(upsert|delete|update|block)$/ && $result->{rows} && @{ $result->{rows} } ? $result->{rows}[0][0] : undef;
	my $expect = $model->step($i, $step, $now);
	return $self->check_step($i, $model, $sql, $step, $expect, $result);
}

# ---- programs ----------------------------------------------------------

# Register the targets as the program wants them.
sub prepare_targets
{
	my ($self, $program) = @_;
	for my $target (@{ $program->{targets} })
	{
		my $shape = $self->{shape_of}{ $target->{shape} };
		my $name = table_name($shape, $target->{variant});
		my $update = $target->{update} // $shape->{update};
		next if $self->{registered}{$name} eq "@$update";
		my $alter = ($target->{how} // 'alter') eq 'alter';
		$self->run_script(
			$alter ? () : "SELECT batchdedup.drop_target(" . RandomShapes::literal($name) . ")",
			create_target_sql($shape, $target->{variant}, $update, $alter ? 'alter_target' : 'create_target'),
			$alter || $self->{standin} ? () : RandomShapes::create_redirect_sql($shape, $target->{variant}));
		$self->{registered}{$name} = "@$update";
	}
	return;
}

# Roll back what is open, resume what is paused, and flush.
sub settle
{
	my ($self, $model, $sql) = @_;
	$self->let_go;
	for my $s (1 .. MAX_SESSIONS)
	{
		$self->{sessions}[$s]->do('ROLLBACK') if $model->session($s)->{tx};
	}
	$self->run_script("SELECT batchdedup.resume(" . RandomShapes::literal($sql->target($_)) . ")")
	  for sort keys %{ $model->{paused} };
	$self->run_script($sql->mode_statement($_, 'buffered')) for grep { $model->{direct}{$_} } sort keys %{ $model->{direct} };
	$_->do('RESET batchdedup.enabled') for $model->{program}{direct} ? @{ $self->{sessions} } : ();
	$model->finish;
	$self->run_script($sql->flush_statement(0 .. $#{ $model->{shapes} }));
	return;
}

# The same program as plain statements in the oracle's tables: what is wrong
# with the model, and what is wrong with batchdedup.
sub check_plain
{
	my ($self, $program, $model, $sql, $order, $targets) = @_;
	my $failure = $self->run_oracle($program, $sql, $order);
	return $failure if $failure;
	for my $t (0 .. $#{ $model->{shapes} })
	{
		my $shape = $model->shape($t);
		my ($plain) = index_rows($shape, $self->read_table($sql, $t, $sql->oracle($t)));
		for my $class (sort { $a <=> $b } keys %$plain)
		{
			my ($p, $a, $e) = ($plain->{$class}, $targets->[$t]{$class}, $model->{state}[$t]{$class});
			my @names = grep { !$e || RandomModel::is_exact($e->{$_}) } sort keys %$p;
			return failure('final', undef, difference($shape, 'plain statements', $p, $a))
			  if !$a || grep { RandomModel::cell_differs($p->{$_}, $a->{$_}) } @names;
		}
		return failure('final', undef, "$shape->{name}: plain statements leave fewer rows")
		  if keys %$plain != keys %{ $targets->[$t] };
	}
	return undef;
}

# The model against the oracle's tables, whatever batchdedup did.
sub check_model
{
	my ($self, $program, $model, $sql) = @_;
	my $failure = $self->run_oracle($program, $sql, $model->{committed});
	return $failure if $failure;
	for my $t (0 .. $#{ $model->{shapes} })
	{
		my $found = $self->compare_table(in_order($model, $model->{committed}), $t, $self->read_table($sql, $t, $sql->oracle($t)));
		return failure('test', undef, 'the model and plain statements disagree', @{ $found->{wrong} }) if @{ $found->{wrong} };
	}
	return undef;
}

# The model at the end of some order; what sequences gave is not known yet.
sub in_order
{
	my ($model, $order) = @_;
	my $state = $model->fold($model->{initial}, map { @{ $_->{ops} } } @$order);
	return bless { %$model, state => $state }, ref $model;
}

sub check_end
{
	my ($self, $program, $model, $sql) = @_;
	my (@wrong, @keys, @rows);
	for my $t (0 .. $#{ $model->{shapes} })
	{
		my $found = $self->compare_table($model, $t, $self->read_table($sql, $t, $sql->target($t)));
		push @wrong, @{ $found->{wrong} };
		push @keys, @{ $found->{keys} };
		push @rows, $found->{rows};
	}
	return $self->check_plain($program, $model, $sql, $model->{committed}, \@rows) unless @wrong;
	my $own_fault = $self->check_model($program, $model, $sql);
	return $own_fault if $own_fault;
	my $order = RandomOracle::legal_order($model, \@rows, @keys);
	return failure('final', undef, @wrong, 'no order of transactions that the contract allows ends like this') unless $order;
	return $self->check_plain($program, in_order($model, $order), $sql, $order, \@rows) if $self->{any_order} || $program->{overlap};
	return failure('final', undef, @wrong,
		'the contract allows it, but it is not the order of the COMMITs: ' . RandomOracle::order_text($order));
}

sub run_all
{
	my ($self, $program, $model, $sql) = @_;
	$self->prepare_targets($program);
	$self->run_script(
		$self->{standin} ? $sql->reset_statements($program->{initial})
		: ('SET batchdedup.enabled = off', $sql->reset_statements($program->{initial}), 'RESET batchdedup.enabled'));
	my $i = 0;
	for my $step (@{ $program->{steps} })
	{
		my $failure = $self->run_step($i++, $model, $sql, $step);
		return $failure if $failure;
	}
	$self->settle($model, $sql);
	$self->{overlapping}++ if RandomOracle::has_choice($model);
	return $self->check_end($program, $model, $sql);
}

# A server that does not answer cannot be asked: stop it, and the waiting
# call returns with an error.
sub with_watchdog
{
	my ($self, $code) = @_;
	my $node = $self->{node};
	my $action = POSIX::SigAction->new(sub { $node->stop('immediate', fail_ok => 1) });
	$action->safe(0);
	POSIX::sigaction(POSIX::SIGALRM, $action);
	alarm HANG_SECONDS;
	my $result = eval { $code->() };
	my ($error, $state) = ($@, $DBI::state);
	alarm 0;
	return $error ? failure("error $state", undef, $error) : $result;
}

# Bring the server back to where the next program can start.
sub recover
{
	my ($self, $model, $sql) = @_;
	my $ok = $self->with_watchdog(sub {
			$self->let_go;
			$_->do('ROLLBACK') for @{ $self->{sessions} };
			$self->run_script("ROLLBACK PREPARED 'refused'")
			  if $self->{sessions}[0]->selectrow_array("SELECT gid FROM pg_prepared_xacts");
			$self->settle($model, $sql);
			return undef;
	});
	return unless $ok;
	$self->restart;
	return;
}

sub run
{
	my ($self, $program) = @_;
	my $model = RandomModel->new($program, $self->{shape_of});
	my $sql = RandomSql->new($program, $self->{shape_of});
	my $failure = $self->with_watchdog(sub { $self->run_all($program, $model, $sql) });
	if ($failure)
	{
		my $lost = grep { !$_->ping } @{ $self->{sessions} };
		$failure->{kind} = 'crash' if $lost;
		# what hangs once hangs again
		$lost || $failure->{kind} eq 'error 57014' ? $self->restart : $self->recover($model, $sql);
	}
	return $failure;
}

1;
