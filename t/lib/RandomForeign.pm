package RandomForeign;

# Random programs with two targets and a foreign key between them: parents and
# children come in any order, in one transaction and in several, through the
# buffer and directly; parents are deleted, too.
#
# The model is that of RandomTrouble's kind "bad", for two tables: it knows
# which operations are in which generation of each. The functions at the end
# are given the runner and follow in the oracle's database what each flush
# does: parents before children; rows that are refused, with those of the
# generation in any order; then, once more, what a foreign key had refused in
# the other table.

use strict;
use warnings;
use parent -norequire, 'RandomTrouble';
use List::Util qw(first);

my @tables = ('parent', 'child');
my %other = (parent => 'child', child => 'parent');

my %columns = (
	parent => [
		{ id => 0, name => 'k', type => 'int', key => 1 },
		{ id => 1, name => 'v', type => 'int', upd => 1 },
	],
	child => [
		{ id => 0, name => 'k', type => 'int', key => 1 },
		{ id => 1, name => 'p', type => 'int', upd => 1, values => [ undef, 1, 2, 3, 4 ] },
		{ id => 2, name => 'v', type => 'int', upd => 1 },
	],
);

sub chance { return rand() < $_[0]; }
sub pick { return $_[ int rand @_ ]; }

sub tables { return reverse @tables; }

sub tables_sql
{
	my ($self) = @_;
	return ('CREATE TABLE parent (k int PRIMARY KEY, v int)',
		"CREATE TABLE child (k int PRIMARY KEY, p int REFERENCES parent $self->{program}{reference}, v int)");
}

sub target_sql
{
	return map { ; "SELECT batchdedup.create_target('$_', flush_interval => '0', flush_rows => 0, guard => 'off')" } @tables;
}

sub ending { return map { +{ s => 1, op => 'resume', table => $_ } } @tables; }

sub new
{
	my ($class, $program) = @_;
	my $self = bless { program => $program, sessions => [], letters => [] }, $class;
	for my $table (@tables)
	{
		$self->{worlds}{$table} = { schema => 'public', name => $table, cols => $columns{$table}, index => 'constraint', paused => 0, mode => 'buffered' };
		@{ $self->{$_} }{$table} = [] for qw(active sealed);
		$self->{generation}{$table} = 0;
	}
	return $self;
}

# ---- steps -------------------------------------------------------------

sub committed
{
	my ($self, $tx) = @_;
	push @{ $self->{active}{ $_->{table} } }, $_ for @{ $tx->{ops} };
	return ();
}

sub used { my ($self, $table) = @_; return scalar grep { $_ && $_->{tx} && $_->{tx}{used}{$table} } @{ $self->{sessions} }; }

sub plan_upsert
{
	my ($self, $session, $step) = @_;
	my $table = $step->{table};
	my $world = $self->{worlds}{$table};
	my @rows = map { RandomTrouble::row_of($world, $step, $_) } @{ $step->{rows} };
	my ($sql, @params) = RandomTrouble::call($world, $step, @rows);
	my @ops = map { { %{ RandomTrouble::operation($world, $step, $_) }, table => $table } } @rows;
	if ($world->{mode} eq 'direct' || $session->{off})
	{
		# what waits comes before it; and who writes directly holds row locks
		return undef if $session->{tx} || $world->{paused} || $self->{program}{reference} =~ /DEFERRED/;
		return { flush => [$table], sql => $sql, params => \@params, check => 'direct', ops => \@ops };
	}
	my $tx = $session->{tx} // { ops => [] };
	push @{ $tx->{ops} }, @ops;
	$tx->{used}{$table} = 1;
	return { sql => $sql, params => \@params, $session->{tx} ? () : $self->committed($tx) };
}

sub plan_delete { goto &plan_upsert; }

# In RandomTrouble a savepoint keeps the world, too.
sub world { return {}; }

sub plan_flush
{
	my ($self, $session, $step) = @_;
	my @flushed = grep { !$self->{worlds}{$_}{paused} } @{ $step->{tables} } or return undef;
	return undef if @flushed < @{ $step->{tables} } && @{ $step->{tables} } == 1;
	my $names = @{ $step->{tables} } == 1 ? "'$step->{tables}[0]'" : '';
	return { sql => "SELECT batchdedup.flush($names)", check => 'flushed', flushed => \@flushed, $session->{tx} ? () : (point => $step->{point}) };
}

sub plan_pause
{
	my ($self, $session, $step) = @_;
	my $paused = $step->{op} eq 'pause' ? 1 : 0;
	my $world = $self->{worlds}{ $step->{table} };
	return undef if $session->{tx} || $world->{paused} == $paused;
	$world->{paused} = $paused;
	return { sql => "SELECT batchdedup.$step->{op}('$step->{table}')", $paused ? () : (check => 'flushed', flushed => [ $step->{table} ], resumed => 1) };
}

sub plan_resume { goto &plan_pause; }

sub plan_mode
{
	my ($self, $session, $step) = @_;
	my $world = $self->{worlds}{ $step->{table} };
	return undef if $world->{paused} || $session->{tx} || $self->used($step->{table});
	$world->{mode} = $step->{mode};
	return { flush => [ $step->{table} ], sql => "SELECT batchdedup.alter_target('$step->{table}', mode => '$step->{mode}')" };
}

# Letters are looked at with both tables up to date.
sub plan_retry
{
	my ($self, $session, $step) = @_;
	return undef if $session->{tx} || grep { $_->{paused} } values %{ $self->{worlds} };
	return { flush => \@tables, check => 'retried', table => $step->{table}, force => $step->{force}, sql =>
		  "SELECT batchdedup.retry_dead_letters('$step->{table}', force => " . ($step->{force} ? 'true' : 'false') . ')' };
}

sub plan_restart
{
	my ($self, $session, $step) = @_;
	$self->{sessions} = [];
	$self->seal($_) for @tables;
	return { action => 'restart', crash => $step->{crash} && !grep { $_->{paused} } values %{ $self->{worlds} } };
}

sub seal
{
	my ($self, $table) = @_;
	return unless $table && @{ $self->{active}{$table} };
	push @{ $self->{sealed}{$table} }, { number => ++$self->{generation}{$table}, ops => $self->{active}{$table} };
	$self->{active}{$table} = [];
	return;
}

# ---- letters -----------------------------------------------------------

sub covers
{
	my ($row, $letter) = @_;
	return $row->{op} ne 'upsert' || !grep { !$row->{upd}{$_} } keys %{ $letter->{upd} };
}

sub letters_of { my ($self, $table) = @_; return sort { $a->{generation} <=> $b->{generation} || $a->{n} <=> $b->{n} } grep { $_->{table} eq $table } @{ $self->{letters} }; }

sub supersede
{
	my ($self, @rows) = @_;
	for my $row (@rows)
	{
		$_->{superseded} = 1 for grep { $_->{key} == $row->{key} && covers($row, $_) } $self->letters_of($row->{table});
	}
	return;
}

sub accepted
{
	my ($self, $letter) = @_;
	for my $older ($self->letters_of($letter->{table}))
	{
		last if $older == $letter;
		$older->{superseded} = 1 if $older->{key} == $letter->{key} && covers($letter, $older);
	}
	$self->{letters} = [ grep { $_ != $letter } @{ $self->{letters} } ];
	return;
}

# ---- the runner's part -------------------------------------------------

sub letters_there
{
	my ($runner) = @_;
	return $runner->admin->selectall_arrayref(
		q{SELECT target::text AS table, generation, sequence, (key ->> 'k')::int AS key, operation, sqlstate, superseded, waits, row::text AS row, message
		FROM batchdedup.dead_letter_row ORDER BY target::text, generation, sequence, id}, { Slice => {} });
}

sub letters_text
{
	return join("\n", sort map {
			"  $_->{table}, generation $_->{generation}, key $_->{key}, " . ($_->{op} // $_->{operation}) . ($_->{waits} ? ', waits' : '') . ($_->{superseded} ? ', superseded' : '')
	} @_);
}

sub compare
{
	my ($runner, $model, $what) = @_;
	for my $table (@tables)
	{
		my ($actual, $expected) = map { $runner->rows_text($_, $table) } $runner->admin, $runner->oracle;
		RandomTroubleRunner::failure($what, "$table, expected:", $expected, 'is:', $actual) if $actual ne $expected;
	}
	my ($expected, $actual) = (letters_text(@{ $model->{letters} }), letters_text(@{ letters_there($runner) }));
	RandomTroubleRunner::failure('letters', "$what: dead letters, expected:", $expected, 'are:', $actual) if $expected ne $actual;
	return;
}

sub in_oracle
{
	my ($runner, $code) = @_;
	$runner->oracle->do('BEGIN; SET CONSTRAINTS ALL IMMEDIATE');
	my $result = $code->();
	$runner->oracle->do('COMMIT');
	return $result;
}

# What a foreign key had refused, once more; not in a paused target.
sub retry_waiting
{
	my ($runner, $model, $table) = @_;
	return if $model->{worlds}{$table}{paused};
	for my $letter (grep { $_->{waits} && !$_->{superseded} } $model->letters_of($table))
	{
		$letter->{waits} = 0;
		$model->accepted($letter) unless $runner->try(RandomTrouble::plain_sql($model->{worlds}{$table}, $letter), 1);
	}
	return;
}

sub apply_generation
{
	my ($runner, $model, $table, $generation) = @_;
	my $rows = RandomTrouble::combined(@{ $generation->{ops} });
	my $world = $model->{worlds}{$table};
	# A letter that waited may be gone by now, or superseded: what was refused
	# is found out here.
	in_oracle($runner, sub {
			my @todo = ((grep { $_->{op} eq 'delete' } map { $rows->{$_} } sort keys %$rows), (grep { $_->{op} ne 'delete' } map { $rows->{$_} } sort keys %$rows));
			my $progress = 1;
			while ($progress)
			{
				my @left = grep { $runner->try(RandomTrouble::plain_sql($world, $_), 1) } @todo;
				$progress = @left && @left < @todo;
				@todo = @left;
			}
			my %refused = map { $_->{key} => 1 } @todo;
			$model->supersede(map { $rows->{$_} } grep { !$refused{$_} } keys %$rows);
			my $n = 0;
			push @{ $model->{letters} }, map { { %$_, generation => $generation->{number}, n => $n++, waits => 1 } } sort { order_of($generation, $a) <=> order_of($generation, $b) } @todo;
			retry_waiting($runner, $model, $other{$table});
			return;
	});
	return;
}

# A combined row has the place of its key's last operation.
sub order_of
{
	my ($generation, $row) = @_;
	return first { $generation->{ops}[$_]{key} == $row->{key} } reverse 0 .. $#{ $generation->{ops} };
}

sub apply_table
{
	my ($runner, $model, $table) = @_;
	return if $model->{worlds}{$table}{paused};
	$model->seal($table);
	apply_generation($runner, $model, $table, $_) for @{ $model->{sealed}{$table} };
	$model->{sealed}{$table} = [];
	return;
}

# What flush() of the tables promises: parents come before children that wait.
sub check_flushed
{
	my ($runner, $model, @flushed) = @_;
	my %flushed = map { $_ => 1 } @flushed;
	apply_table($runner, $model, 'parent') if $flushed{parent} || $flushed{child} && (@{ $model->{active}{child} } || @{ $model->{sealed}{child} });
	apply_table($runner, $model, 'child') if $flushed{child};
	return compare($runner, $model, 'flushed');
}

sub flush
{
	my ($runner, $model, @flushed) = @_;
	@flushed = grep { !$model->{worlds}{$_}{paused} } @flushed ? @flushed : @tables or return;
	my $result = $runner->execute($runner->admin, 'SELECT batchdedup.flush(' . join(', ', map { "'$_'" } @flushed) . ')');
	RandomTroubleRunner::failure("error $result->{state}", "flush(): $result->{message}") if defined $result->{state};
	return check_flushed($runner, $model, @flushed);
}

sub check_retried
{
	my ($runner, $model, $plan, $count) = @_;
	my $accepted = in_oracle($runner, sub {
			my $n = 0;
			for my $letter (grep { $plan->{force} || !$_->{superseded} } $model->letters_of($plan->{table}))
			{
				$letter->{waits} = 0;
				next if $runner->try(RandomTrouble::plain_sql($model->{worlds}{ $plan->{table} }, $letter), 1);
				$model->accepted($letter);
				$n++;
			}
			return $n;
	});
	RandomTroubleRunner::failure('retry', "retry_dead_letters(): expected $accepted, returned $count") if $count != $accepted;
	return compare($runner, $model, 'retried');
}

# ---- the generator -----------------------------------------------------

my %weights = (
	begin => 20, commit => 22, rollback => 3, savepoint => 6, rollback_to => 6, release => 2, fail => 1, upsert => 70, delete => 12, flush => 18,
	retry => 3, pause => 1.5, resume => 6, mode => 1, enabled => 1.5, kill_worker => 0.3, kill_writer => 0.3, restart => 0.15
);

my %details = (
	savepoint => sub { (name => pick('a', 'b')) },
	rollback_to => sub { (name => pick('a', 'b')) },
	release => sub { (name => pick('a', 'b')) },
	flush => sub { (tables => pick(['parent'], ['child'], \@tables, \@tables), chance(0.02) ? (point => RandomTrouble::random_point()) : ()) },
	retry => sub { (table => pick(@tables), force => chance(0.3) ? 1 : 0) },
	pause => sub { (table => pick(@tables)) },
	resume => sub { (table => pick(@tables)) },
	mode => sub { (table => pick(@tables), mode => pick('direct', 'buffered', 'buffered')) },
	enabled => sub { (on => pick(0, 1, 1)) },
);

sub random_rows
{
	my ($table) = @_;
	return map {
		my $share = pick(0.5, 1);
		{ k => 1 + int rand($table eq 'parent' ? 4 : 5), v => { map { $_ => 1 + int rand 60 } grep { chance($share) } 1 .. $#{ $columns{$table} } } };
	} 1 .. pick(1, 1, 2, 3);
}

sub details
{
	my ($op) = @_;
	return $details{$op} ? $details{$op}->() : () unless $op eq 'upsert' || $op eq 'delete';
	my $table = pick(@tables);
	return (table => $table, form => $op eq 'delete' ? 'json' : pick(qw(json json prepared row array)), rows => [ random_rows($table) ]);
}

sub generate
{
	my ($program) = @_;
	$program->{reference} = pick('', 'ON DELETE RESTRICT', 'ON DELETE CASCADE', 'ON DELETE SET NULL', 'DEFERRABLE INITIALLY DEFERRED');
	my $model = __PACKAGE__->new($program);
	my $wanted = 8 + int rand pick(15, 40, 60);
	for (1 .. 6 * $wanted)
	{
		last if @{ $program->{steps} } >= $wanted;
		my $op = RandomTrouble::weighted(\%weights);
		my $step = { s => 1 + int rand $program->{sessions}, op => $op, details($op) };
		push @{ $program->{steps} }, $step if $model->plan($step);
	}
	return $program;
}

1;
