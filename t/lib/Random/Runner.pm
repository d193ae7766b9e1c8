package Random::Runner;

# Runs one program after the other on one server: every step on the targets, and
# what has committed as plain statements on the oracle's tables, in the order of
# the COMMITs. Says what was not as expected: undef, or {kind, step, text}.
#
# kind: error       a step failed, or did not fail as it should have; with the
#                   SQLSTATE that came
#       get, look   get() or the view showed something else than the oracle's table
#                   with the session's own rows
#       buffered    the table overlaid with buffered() is something else
#       flushed     after flush() the table is something else
#       final       at the end it is
#       letters     a row was refused
#       in part     a watcher saw a transaction of a group in part
#       crash       the connection or the server was lost
#       test        the plain statements fail: our own fault
#
# Where COMMITs stop and are overtaken ("overlap") the tables are compared at the
# end, with every order that the contract allows: see Random::Orders.
#
# While targets of one group are written, a watcher reads them: what it sees is what
# they were after one of the COMMITs, with all of it.

use strict;
use warnings;
use utf8;
use parent 'Random::Server';
use DBD::Pg qw(:async);
use POSIX ();
use Random::Orders;
use Random::Server qw(failure);
use Random::Shapes qw(shape target_name oracle_name);
use Random::Sql;
use Random::State;
use Random::Text qw(literal ident);
use Time::HiRes qw(usleep);

use constant { WATCHER => 9, HANG_SECONDS => 60 };

sub new
{
	my ($class, @args) = @_;
	my $self = Random::Server::new($class, @args);
	Random::Shapes::measure_classes($self->dbh(0));
	return $self;
}

sub databases
{
	my ($self) = @_;
	$self->{options} = {};
	return [ 'random_', 'CREATE EXTENSION batchdedup', Random::Shapes::setup_sql(), Random::Server::release_sql(), watch_sql() ];
}

sub target { return $_[0]{sql}->target($_[1]); }
sub all { my ($self) = @_; return 0 .. $#{ $self->{sql}{targets} }; }
sub any_order { my ($self) = @_; return $self->{program}{overlap} || $ENV{BDD_ANY_ORDER}; }

# The rows of a statement that must not fail.
sub execute
{
	my ($self, $s, $sql, @params) = @_;
	my $result = $self->try($self->dbh($s), $sql, @params);
	failure($result->{lost} ? 'crash' : "error $result->{state}", "$result->{state}: $result->{message}", $sql) unless $result->{rows};
	return $result->{rows};
}

# ---- the oracle --------------------------------------------------------

# Plain statements wait until the oracle's tables are read.
sub oracle_do { my ($self, @sql) = @_; push @{ $self->{todo} }, @sql; return; }

sub oracle_now
{
	my ($self) = @_;
	my @todo = splice @{ $self->{todo} };
	return $self->run_plainly($self->dbh(0), @todo);
}

sub statements { my ($tx) = @_; return map { @{ $_->{sql} } } @{ $tx->{ops} }; }

# What code finds in the oracle's tables with the session's own rows in them.
sub with_own_rows
{
	my ($self, $s, $code) = @_;
	my $tx = $self->{state}->session($s)->{tx};
	my @own = $tx ? statements($tx) : ();
	$self->oracle_do('BEGIN', @own) if @own;
	$self->oracle_now;
	my $result = $code->();
	$self->dbh(0)->do('ROLLBACK') if @own;
	return $result;
}

# Transactions that have committed since.
sub publish_new
{
	my ($self) = @_;
	my @new = @{ $self->{state}{committed} };
	for my $tx (splice @new, $self->{published})
	{
		$self->{published}++;
		next if $self->any_order;
		$self->oracle_do('BEGIN', statements($tx), 'COMMIT');
		$self->note_state(map { $_->{t} } @{ $tx->{ops} });
	}
	return;
}

# ---- rows --------------------------------------------------------------

sub key_text { my ($shape, $cells) = @_; return join("\0", map { $cells->[ $shape->{at}{$_} ] // '' } @{ $shape->{key} }); }

# {class => cells} of rows, and what is wrong with them as such. Rows of a table
# without a key are known by their number.
sub by_class
{
	my ($shape, $rows) = @_;
	my (%rows, @wrong);
	return { map { $_ => $rows->[$_] } 0 .. $#$rows } if $shape->{append};
	return { map { $_->[0] => $_ } @$rows } if $shape->{total};
	for my $cells (@$rows)
	{
		my $class = $shape->{class_of}{ key_text($shape, $cells) };
		push @wrong, 'unknown key: ' . row_text($shape, $cells) unless defined $class;
		push @wrong, 'two rows of one key: ' . row_text($shape, $cells) if defined $class && $rows{$class};
		$rows{$class} = $cells if defined $class;
	}
	return (\%rows, @wrong);
}

sub cell_text { my ($cell) = @_; return !defined $cell ? 'NULL' : length $cell > 60 ? literal(substr($cell, 0, 40)) . '… (' . length($cell) . ')' : literal($cell); }
sub row_text { my ($shape, $cells) = @_; return $cells ? join(', ', map { cell_text($_) } @$cells) : 'no row'; }

# The cells that differ. What the server alone knows is not known until the
# oracle's row has been told.
sub differing_cells
{
	my ($shape, $expected, $actual, %skip) = @_;
	my @cols = $shape->{append} || $shape->{total} ? () : @{ $shape->{cols} };
	return grep {
		my ($e, $a, $col) = ($expected->[$_], $actual->[$_], $cols[$_]);
		my $unknown = $col && defined $col->{unknown} && defined $e && $e eq $col->{unknown} && ($skip{unknown} || defined $a);
		!$unknown && !($col && $skip{ $col->{name} }) && (defined $e ? !defined $a || $e ne $a : defined $a);
	} 0 .. $#$expected;
}

# The classes that differ, with the text of how.
sub differing_rows
{
	my ($shape, $expected, $actual, %skip) = @_;
	my %classes = (%$expected, %$actual);
	my %wrong;
	for my $class (keys %classes)
	{
		my ($e, $a) = ($expected->{$class}, $actual->{$class});
		next if $e && $a && !differing_cells($shape, $e, $a, %skip);
		$wrong{$class} = "$shape->{name}\n  expected: " . row_text($shape, $e) . "\n  is:       " . row_text($shape, $a);
	}
	return %wrong;
}

# Tells the oracle what the server has given: from now on it must stay.
sub learn
{
	my ($self, $t, $expected, $actual) = @_;
	my $shape = shape($self->target($t));
	for my $class (@{ $shape->{unknown} } ? sort keys %$expected : ())
	{
		my ($e, $a) = ($expected->{$class}, $actual->{$class});
		my @new = grep { my $n = $shape->{at}{ $_->{name} }; defined $e->[$n] && $e->[$n] eq $_->{unknown} } @{ $shape->{unknown} };
		next unless @new;
		my $typed = sub { my ($name, $cells) = @_; ident($name) . ' = ' . literal($cells->[ $shape->{at}{$name} ]) . "::$shape->{col}{$name}{type}" };
		$self->oracle_do('UPDATE ' . oracle_name($self->target($t)) . ' SET ' . join(', ', map { $typed->($_->{name}, $a) } @new)
			  . ' WHERE ' . join(' AND ', map { $typed->($_, $e) } @{ $shape->{key} }));
	}
	return;
}

# ---- whole tables ------------------------------------------------------

sub read_table
{
	my ($self, $t, $name, $is_oracle) = @_;
	return $self->dbh(0)->selectall_arrayref($self->{sql}->rows_statement($t, $name->($self->target($t)), $is_oracle));
}

# What is wrong with a target's table: {class => text}.
sub table_differences
{
	my ($self, $t, $learn) = @_;
	my $shape = shape($self->target($t));
	my ($expected) = by_class($shape, $self->read_table($t, \&oracle_name, 1));
	my ($actual, @wrong) = by_class($shape, $self->read_table($t, \&target_name, 0));
	my %wrong = (differing_rows($shape, $expected, $actual), map { $_ => $_ } @wrong);
	if ($shape->{log})
	{
		my ($e, $a) = map { $self->lines($self->dbh(0), Random::Sql::log_statement($_->($self->target($t)))) } \&oracle_name, \&target_name;
		$wrong{log} = "the log, expected:\n$e\nis:\n$a" if $e ne $a;
	}
	$self->learn($t, $expected, $actual) if $learn && !%wrong;
	return %wrong;
}

sub compare_tables
{
	my ($self, $what, @ts) = @_;
	$self->oracle_now;
	for my $t (@ts)
	{
		my %wrong = $self->table_differences($t, 1);
		failure($what, map { $wrong{$_} } sort keys %wrong) if %wrong;
	}
	return;
}

# ---- the watcher -------------------------------------------------------

# Notes what a query says, as often as that changes, until it is stopped.
sub watch_sql
{
	return ('CREATE TABLE watching (on_duty boolean)', 'INSERT INTO watching VALUES (false)', q{
CREATE PROCEDURE watch(query text, INOUT seen text[]) LANGUAGE plpgsql AS $$
DECLARE
	state text;
BEGIN
	seen := '{}';
	WHILE on_duty FROM watching LOOP
		EXECUTE query INTO state;
		IF seen = '{}' OR seen[cardinality(seen)] <> state THEN
			seen := seen || state;
		END IF;
		COMMIT;
	END LOOP;
END $$});
}

sub is_watched { my ($self) = @_; return $self->{program}{group} && !$self->{program}{overlap}; }
sub state_of { my ($self, $name) = @_; return $self->value($self->dbh(0), $self->{sql}->state_statement($name)); }

# What the plain tables are after a COMMIT that wrote these targets.
sub note_state
{
	my ($self, @written) = @_;
	return unless $self->is_watched;
	$self->oracle_now;
	push @{ $self->{states} }, { text => $self->state_of(\&oracle_name), written => { map { $_ => 1 } @written } };
	return;
}

sub start_watching
{
	my ($self) = @_;
	return unless $self->is_watched;
	$self->dbh(0)->do('UPDATE watching SET on_duty = true');
	my $query = $self->{sql}->state_statement(\&target_name);
	$self->{watch} = $self->dbh(WATCHER)->prepare('CALL watch(' . literal($query) . ', NULL)', { pg_async => PG_ASYNC, pg_direct => 1 });
	$self->{watch}->execute;
	return;
}

# All that was seen, one after the other, and nothing else.
sub stop_watching
{
	my ($self) = @_;
	return unless $self->{watch};
	$self->dbh(0)->do('UPDATE watching SET on_duty = false');
	my $watch = delete $self->{watch};
	$watch->pg_result;
	my ($seen) = @{ $watch->fetchall_arrayref->[0] };
	my @states = map { $_->{text} } @{ $self->{states} };
	my $n = 0;
	for my $state (@$seen)
	{
		$n++ while $n < @states && $states[$n] ne $state;
		failure('in part', 'what was seen is in no order what the COMMITs have made:', @$seen, 'they have made:', @states) if $n == @states;
	}
	$self->{count}{'states seen'} += @$seen;
	return;
}

# Nothing of a paused target has been applied since.
sub check_held
{
	my ($self, $t) = @_;
	my $held = delete $self->{held}{$t};
	return unless $self->is_watched && defined $held;
	my $state = $self->state_of(\&target_name);
	my $written = 0;
	for my $n (0 .. $#{ $self->{states} })
	{
		$written ||= $n >= $held && $self->{states}[$n]{written}{$t};
		return if !$written && $self->{states}[$n]{text} eq $state;
	}
	return failure('held', "target $t is paused, and its rows are applied:", $state);
}

# ---- steps that are more than a statement ------------------------------

# COMMIT is sent and stops in the middle. It needs a moment to get there; should
# it be late, that is another legal order.
sub run_slow_commit
{
	my ($self, $step) = @_;
	my $s = $step->{s};
	return $self->try($self->dbh($s), 'COMMIT') unless $self->{state}->will_wait($self->{state}->session($s));
	$self->execute($s, "SET LOCAL batchdedup.debug_point = '$step->{point}:wait'");
	$self->send($self->dbh($s), 'COMMIT');
	$self->{waiting}{$s} = 1;
	usleep(1000);
	return { rows => [] };
}

# A session that has not yet reached its debug point would miss a single release.
sub run_let_go
{
	my ($self) = @_;
	my $result = { rows => [] };
	for my $s (sort keys %{ $self->{waiting} })
	{
		my $dbh = $self->dbh($s);
		while (!$dbh->pg_ready)
		{
			$self->dbh(0)->do('SELECT bdd_debug_release()');
			usleep(500);
		}
		delete $self->{waiting}{$s};
		eval { $dbh->pg_result; 1 } or $result = { state => $dbh->state, message => $dbh->errstr, lost => !$dbh->ping };
	}
	return $result;
}

sub run_reconnect
{
	my ($self, $step) = @_;
	$self->dbh($step->{s})->disconnect;
	$self->{sessions}[ $step->{s} ] = undef;
	return { rows => [] };
}

# A plain writer beside the buffer, right after a flush: ordered with it.
sub run_plain
{
	my ($self, $step) = @_;
	my $result = $self->try($self->dbh($step->{s}), $self->{sql}->calls_of('flush', $step->{t}));
	return $result->{rows} ? $self->try($self->dbh($step->{s}), $self->{sql}->statement($step)) : $result;
}

# A paused one makes its group wait; an apply that has begun is finished.
sub run_pause
{
	my ($self, $step) = @_;
	my $result = $self->try($self->dbh($step->{s}), $self->{sql}->statement($step));
	$self->{held}{ $step->{t} } = @{ $self->{states} };
	usleep(2000) if $self->{program}{group};
	return $result;
}

sub run_resume
{
	my ($self, $step) = @_;
	$self->check_held($step->{t});
	return $self->try($self->dbh($step->{s}), $self->{sql}->statement($step));
}

sub resume_all
{
	my ($self) = @_;
	my @paused = sort keys %{ $self->{state}{paused} };
	$self->check_held($_) for @paused;
	$self->execute(0, $self->{sql}->calls_of('resume', $_)) for @paused;
	$self->{state}{paused} = {};
	return;
}

sub flush_all { my ($self) = @_; return $self->execute(0, $self->{sql}->calls_of('flush', $self->all)); }

# A row is deleted, and its foreign keys do the rest: as plainly only while
# nothing is buffered.
sub run_cascade
{
	my ($self, $step) = @_;
	$self->flush_all;
	$self->run_step($self->{i}, { s => $step->{s}, op => 'delete', t => $step->{t}, form => 'json', rows => [ { k => $step->{k}, v => {} } ] });
	$self->flush_all;
	$self->compare_tables('cascade', $self->all);
	return { rows => [] };
}

# The rules change; what was said before keeps the old ones. That brings in the
# rows of this target without those of its group.
sub run_alter
{
	my ($self, $step) = @_;
	$self->flush_all if $self->{program}{group};
	my $sql = $self->{sql}->statement($step);
	$self->{options}{ target_name($step->{to}) } = $sql;
	return $self->try($self->dbh($step->{s}), $sql);
}

sub end_server
{
	my ($self, $how) = @_;
	$self->stop_watching;
	$self->disconnect;
	$how eq 'crash' ? $self->{node}->stop('immediate') : $self->{node}->stop;
	$self->{node}->start;
	$self->start_watching;
	return;
}

# What was committed is in the journal.
sub run_crash
{
	my ($self) = @_;
	$self->end_server('crash');
	return { rows => [] };
}

# The rows of a paused target outlive a restart in a file, or in the journal.
sub run_restart
{
	my ($self) = @_;
	$self->resume_all;
	$self->execute(0, $self->{sql}->calls_of('pause', $_)) for $self->all;
	$self->end_server('restart');
	$self->execute(0, $self->{sql}->calls_of('resume', $_)) for $self->all;
	return { rows => [] };
}

# A DO block tells in a setting what now() was.
sub run_block
{
	my ($self, $step) = @_;
	my $result = $self->try($self->dbh($step->{s}), $self->{sql}->statement($step));
	return $result if $step->{multi} || !$result->{rows};
	return $self->try($self->dbh($step->{s}), "SELECT current_setting('test.now')");
}

# ---- reading -----------------------------------------------------------

# What cannot be said before it is applied: a function of the owner's, what a
# domain accepts, a volatile default.
sub may_be_unknown
{
	my ($target) = @_;
	my $shape = shape($target);
	for my $name (keys %{ $target->{merge} })
	{
		my $col = $shape->{col}{$name};
		my $rule = $target->{merge}{$name};
		return 1 if $rule =~ /strict|loose|capped/;
		return 1 if ($col->{volatile} || $col->{type} =~ /^(amount|phrase)$/) && $rule =~ /^(sum|concat|min|max)$/;
	}
	return 0;
}

# In a subtransaction, if it may say that it does not know.
sub run_read
{
	my ($self, $step) = @_;
	my ($s, $sql) = ($step->{s}, $self->{sql}->statement($step));
	my $session = $self->{state}->session($s);
	my $may_fail = !$session->{aborted} && may_be_unknown($self->target($step->{t}));
	my $apart = $may_fail && $session->{tx};
	$self->execute($s, 'SAVEPOINT reading') if $apart;
	my $result = $self->try($self->dbh($s), $sql);
	$self->execute($s, ($result->{rows} ? 'RELEASE' : 'ROLLBACK TO') . ' reading') if $apart;
	return $result unless $may_fail && ($result->{state} // '') eq '0A000' && $result->{message} =~ /not known before it is applied/;
	$self->{count}{unknown}++;
	return { rows => undef };
}

sub run_get { goto &run_read; }
sub run_look { goto &run_read; }

# Columns of which nothing is said before they are applied, or that may be spelled
# in another way.
sub not_compared
{
	my ($target, $spelled) = @_;
	my $shape = shape($target);
	return (unknown => 1, map { $_ => 1 } $spelled && $shape->{spelled} ? @{ $shape->{key} } : (), map { $_->{name} } grep { $_->{volatile} } @{ $shape->{cols} });
}

sub check_get
{
	my ($self, $step, $result) = @_;
	my ($t, $k, $target) = (@$step{qw(t k)}, $self->target($step->{t}));
	my $table = oracle_name($target);
	my $query = "SELECT to_jsonb(one_row) AS doc FROM $table AS one_row WHERE " . $self->{sql}->key_condition($t, $k);
	my $expected = $self->with_own_rows($step->{s}, sub { $self->dbh(0)->selectall_arrayref($self->{sql}->document_cells($t, $k, $table, $query)) });
	my %wrong = differing_rows(shape($target), map({ $_->[0] ? { 0 => $_->[0] } : {} } $expected, $result->{rows}), not_compared($target, 1));
	failure('get', values %wrong) if %wrong;
	return;
}

sub check_look
{
	my ($self, $step, $result) = @_;
	my ($t, $target) = ($step->{t}, $self->target($step->{t}));
	my $shape = shape($target);
	my $sql = $self->{sql}->rows_statement($t, oracle_name($target), 1) . (defined $step->{k} ? ' WHERE ' . $self->{sql}->key_condition($t, $step->{k}) : '');
	my ($expected) = by_class($shape, $self->with_own_rows($step->{s}, sub { $self->dbh(0)->selectall_arrayref($sql) }));
	my ($actual, @wrong) = by_class($shape, $result->{rows});
	my %wrong = differing_rows($shape, $expected, $actual, not_compared($target, $shape->{rules}));
	failure('look', @wrong, values %wrong) if @wrong || %wrong;
	return;
}

# The table overlaid with buffered() is the truth for keys that were written by
# full rows only, where every column takes the newest value. Spellings of one key
# may be two entries: then one of them must be right.
sub check_buffered
{
	my ($self, $step, $result) = @_;
	my ($t, $target) = ($step->{t}, $self->target($step->{t}));
	my $shape = shape($target);
	my $tx = $self->{state}->session($step->{s})->{tx};
	my %rows;
	for my $line (@{ $result->{rows} })
	{
		my ($where, @cells) = @$line;
		push @{ $rows{$where}{ $shape->{class_of}{ key_text($shape, \@cells) } // -1 } }, \@cells;
	}
	$self->oracle_now;
	my ($expected) = by_class($shape, $self->read_table($t, \&oracle_name, 1));
	my %update = map { $_ => 1 } @{ $target->{update} // $shape->{update} };
	my %skip = (unknown => 1, map { $_->{name} => 1 } grep { !$update{ $_->{name} } || $_->{kind} } @{ $shape->{cols} });
	for my $class (sort keys %$expected)
	{
		next if ($self->{state}{plain_only}{"$t:$class"} // 'yes') eq 'no' || $tx && $tx->{ever_direct}{$t} && $tx->{touched}{"$t:$class"};
		my @actual = @{ $rows{buffer}{$class} // $rows{table}{$class} // [] };
		next if grep { !differing_cells($shape, $expected->{$class}, $_, %skip) } @actual;
		my %wrong = differing_rows($shape, { $class => $expected->{$class} }, { $class => $actual[0] }, %skip);
		failure('buffered', values %wrong);
	}
	return;
}

# What flush() promises: what was committed before it is in the table.
sub check_flush { my ($self, $step) = @_; return $self->compare_tables('flushed', @{ $step->{ts} } ? @{ $step->{ts} } : $self->all); }

# ---- steps -------------------------------------------------------------

sub check_error
{
	my ($result, $expect) = @_;
	my $got = $result->{state};
	failure('crash', $result->{message}) if $result->{lost};
	return if defined $got ? $expect->{error} && $got =~ /^($expect->{error})$/ : !$expect->{error} || $expect->{maybe};
	failure('error none', "expected an error ($expect->{error}), there was none") unless defined $got;
	return failure("error $got", ($expect->{error} ? "expected $expect->{error}, " : '') . "$got: $result->{message}");
}

sub run_statement
{
	my ($self, $step) = @_;
	my ($method, $dbh) = ("run_$step->{op}", $self->dbh($step->{s}));
	return $self->$method($step) if $self->can($method);
	return $self->copy($dbh, $self->{sql}->copy_statement($step)) if ($step->{form} // '') eq 'copy';
	return $self->try($dbh, $self->{sql}->statement($step));
}

# The rows of a statement on the view that it finds.
sub visible_part
{
	my ($self, $step) = @_;
	return $step if $step->{op} ne 'delete' || $step->{form} ne 'view' || $self->{state}->session($step->{s})->{aborted};
	my $t = $step->{t};
	my $is_there = sub { 'EXISTS (SELECT FROM ' . oracle_name($self->target($t)) . ' WHERE ' . $self->{sql}->key_condition($t, $_[0]{k}) . ')' };
	my $sql = 'SELECT ' . join(', ', map { $is_there->($_) } @{ $step->{rows} });
	my $found = $self->with_own_rows($step->{s}, sub { $self->dbh(0)->selectrow_arrayref($sql) });
	my @found = @$found;
	return { %$step, rows => [ grep { shift @found } @{ $step->{rows} } ] };
}

sub run_step
{
	my ($self, $i, $step) = @_;
	my $state = $self->{state};
	return if $state->problem($step);
	$self->{i} = $i;
	$self->{count}{ $step->{op} }++;
	my $written = $self->visible_part($step);
	my $session = $state->session($step->{s});
	my $readable = !$session->{aborted} && !($session->{tx} && $session->{tx}{iso}) && !$self->any_order;
	my $result = $self->run_statement($step);
	my $now = $step->{op} =~ /^(upsert|delete|update|block)$/ && $result->{rows} && @{ $result->{rows} } ? $result->{rows}[0][0] : undef;
	my $set = 'SET LOCAL oracle.now = ' . literal($now // 'none');
	my $expect = $state->take($i, $written, sub { ($set, $self->{sql}->oracle_writes(@_)) });
	$self->{sql} = Random::Sql->new($self->{program} = $state->{program}) if $step->{op} eq 'alter';
	check_error($result, $expect);
	$self->publish_new;
	my $check = "check_$step->{op}";
	return $readable && $result->{rows} && $self->can($check) ? $self->$check($step, $result) : ();
}

# ---- programs ----------------------------------------------------------

# Registers the targets as the program wants them, with its first rows.
sub prepare
{
	my ($self, $program) = @_;
	for my $target (@{ $program->{targets} })
	{
		my $name = target_name($target);
		my $alter = Random::Shapes::alter_target_sql($target);
		next if ($self->{options}{$name} // '') eq $alter;
		my ($create, undef, @redirect) = Random::Shapes::create_target_sql($target);
		$self->execute(0, $_) for ($target->{how} // '') eq 'create' ? ($self->{sql}->calls_of_name('drop_target', $name), $create, @redirect) : (), $alter;
		$self->{options}{$name} = $alter;
	}
	$self->oracle_do('SET batchdedup.enabled = off', $self->{sql}->reset_statements($program, \&target_name, \&oracle_name), 'RESET batchdedup.enabled');
	$self->oracle_now;
	return;
}

# Rolls back what is open, resumes what is paused, and flushes.
sub settle
{
	my ($self) = @_;
	my ($state, $program) = @$self{qw(state program)};
	check_error($self->run_let_go, {});
	$state->take_let_go(scalar @{ $program->{steps} });
	$self->publish_new;
	for my $s (1 .. $program->{sessions})
	{
		$self->execute($s, 'ROLLBACK') if $state->session($s)->{tx};
		$self->execute($s, 'RESET batchdedup.enabled') if $program->{direct};
		$state->take_rollback(0, undef, $state->session($s));
	}
	$self->resume_all;
	$self->execute(0, $self->{sql}->mode_statement($_, 'buffered')) for grep { $state->{direct}{$_} } sort keys %{ $state->{direct} };
	$self->flush_all;
	$self->stop_watching;
	return;
}

sub check_letters
{
	my ($self) = @_;
	my $letters = $self->lines($self->dbh(0), "SELECT target || ': ' || row::text || ' ' || sqlstate || ' ' || message FROM batchdedup.dead_letter"
		  . " WHERE target::regclass::text NOT LIKE 't_refused%' ORDER BY id");
	failure('letters', 'rows were refused:', $letters) if $letters ne '';
	return;
}

# Some order of the transactions that the contract allows must end in what is there.
sub check_orders
{
	my ($self) = @_;
	my @txs = @{ $self->{state}{committed} };
	$self->{count}{'overlapping'}++ if Random::Orders::has_choice(@txs);
	$self->run_plainly($self->dbh(0), 'BEGIN', map({ statements($_) } @txs));
	my %wrong = map { my $t = $_; my %w = $self->table_differences($t); map { ("$t:$_" => $w{$_}) } keys %w } $self->all;
	$self->dbh(0)->do('ROLLBACK');
	return unless %wrong;
	# a table without keys, or with a log, depends on all that wrote it
	my %whole = map { /^(\d+):/ ? ($1 => 1) : () } grep { my ($t) = split /:/; my $shape = shape($self->target($t)); $shape->{append} || $shape->{log} || $shape->{total} } keys %wrong;
	my @keys = (keys %wrong, map { my $t = $_; grep { /^$t:/ } map { keys %{ Random::Orders::first_touch($_) } } @txs } keys %whole);
	my ($related, $rest) = Random::Orders::related(\@txs, @keys);
	my $dbh = $self->dbh(0);
	$self->run_plainly($dbh, 'BEGIN', map { statements($_) } @$rest);
	my ($found, $nodes) = Random::Orders::find($related,
		write => sub { my ($n, $tx) = @_; $self->run_plainly($dbh, "SAVEPOINT s$n", statements($tx)) },
		undo => sub { $self->run_plainly($dbh, "ROLLBACK TO s$_[0]", "RELEASE s$_[0]") },
		state => sub { $self->state_of(\&oracle_name) },
		accept => sub { !grep { my %w = $self->table_differences($_); %w } $self->all });
	$dbh->do('ROLLBACK');
	$self->{count}{'orders looked at'} += $nodes;
	$self->{count}{'orders given up'}++ unless defined $found;
	failure('final', 'no order of transactions that the contract allows ends like this; in the order of the COMMITs:', map { $wrong{$_} } sort keys %wrong)
	  if defined $found && !$found;
	return;
}

# Sums of which one is too much may be applied later, as far as there is room.
sub retry_refused
{
	my ($self) = @_;
	for my $t (grep { shape($self->target($_))->{refuses} } $self->all)
	{
		my $name = target_name($self->target($t));
		$self->{count}{letters} += $self->value($self->dbh(0), "SELECT count(*) FROM batchdedup.dead_letter WHERE target = '$name'::regclass");
		if (shape($self->target($t))->{total})
		{
			$self->execute(0, "SELECT batchdedup.retry_dead_letters('$name')");
			$self->compare_tables('retried', $t) unless $self->any_order;
		}
		$self->execute(0, "SELECT batchdedup.discard_dead_letters('$name')");
	}
	return;
}

sub run_all
{
	my ($self, $program) = @_;
	$self->prepare($program);
	$self->note_state;
	$self->start_watching;
	my $i = 0;
	$self->run_step($i++, $_) for @{ $program->{steps} };
	$self->{i} = undef;
	$self->settle;
	$self->check_letters;
	$self->any_order ? $self->check_orders : $self->compare_tables('final', $self->all);
	$self->retry_refused;
	return;
}

# A server that does not answer cannot be asked: stop it, and the waiting call
# returns with an error. undef, or the failure.
sub with_watchdog
{
	my ($self, $code) = @_;
	my $node = $self->{node};
	my $action = POSIX::SigAction->new(sub { $node->stop('immediate', fail_ok => 1) });
	$action->safe(0);
	POSIX::sigaction(POSIX::SIGALRM, $action);
	alarm HANG_SECONDS;
	my $ok = eval { $code->(); 1 };
	my $error = $@;
	alarm 0;
	return $ok ? undef : ref $error ? $error : { kind => "error " . ($DBI::state // ''), text => $error };
}

# Back to where the next program can start, or everything anew.
sub recover
{
	my ($self, $kind) = @_;
	@$self{qw(todo held)} = ([], {});
	my $lost = $kind =~ /^(crash|error 57014)$/ || grep { $_ && !$_->ping } @{ $self->{sessions} };
	return if !$lost && !$self->with_watchdog(sub {
			$self->run_let_go;
			$_->do('ROLLBACK') for grep { $_ } map { $self->{sessions}[$_] } 0 .. $self->{program}{sessions};
			$self->dbh(0)->do("ROLLBACK PREPARED 'refused'") if $self->value($self->dbh(0), 'SELECT count(*) FROM pg_prepared_xacts');
			$_->{tx} = undef for @{ $self->{state}{sessions} };
			$self->settle;
			$self->dbh(0)->do('DELETE FROM batchdedup.dead_letter_row');
	});
	delete $self->{watch};
	$self->{waiting} = {};
	$self->new_databases;
	return;
}

sub run
{
	my ($self, $program) = @_;
	@$self{qw(program sql state)} = ($program, Random::Sql->new($program), Random::State->new($program));
	@$self{qw(published held states todo waiting i)} = (0, {}, [], [], {}, undef);
	my $failure = $self->with_watchdog(sub { $self->run_all($program) });
	return undef unless $failure;
	$failure->{step} = $self->{i};
	$failure->{kind} = 'crash' if grep { $_ && !$_->ping } @{ $self->{sessions} };
	$self->recover($failure->{kind});
	return $failure;
}

1;
