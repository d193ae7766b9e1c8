package RandomProgram;

# Random programs: what several sessions do to a few targets, one statement
# after the other. A program is plain data, made from its seed alone:
#
#   sessions => 3,
#   targets => [{shape, variant, update, how}, ...],
#   initial => [{t, row}, ...],          rows that are there at the start
#   steps => [{s, op, ...}, ...]         s is the session
#   overlap => 1                         some COMMITs stop in the middle
#   direct => 'off', 'mode' or 'mixed'   who writes without the buffer
#
# and a row {k => number of a key of the shape, v => {column => number of a
# value of its pool, or undef for NULL}}. Few keys, so that sessions meet.

use strict;
use warnings;
use List::Util qw(sum shuffle);
use RandomModel;
use RandomShapes qw(variants);
use RandomSql;

# ---- dice --------------------------------------------------------------

sub chance { return rand() < $_[0]; }
sub pick { return $_[ int rand @_ ]; }

# A key of a hash of weights.
sub weighted
{
	my ($weights) = @_;
	my $dice = rand() * sum(values %$weights);
	for my $name (sort keys %$weights)
	{
		return $name if ($dice -= $weights->{$name}) < 0;
	}
	return (sort keys %$weights)[-1];
}

# ---- rows --------------------------------------------------------------

sub random_value
{
	my ($col) = @_;
	my $null = ($col->{kind} // '') eq 'identity' ? 0.85 : $col->{notnull} ? 0 : 0.15;
	return chance($null) ? undef : int rand @{ $col->{values} };
}

sub value_columns
{
	my ($shape) = @_;
	return grep { $_->{values} && !$_->{iskey} } @{ $shape->{cols} };
}

sub typed_row
{
	my ($shape, $k) = @_;
	return { k => $k, v => { map { $_->{name} => random_value($_) } value_columns($shape) } };
}

# A row that names some of its columns, or those of another row. NULL for an
# identity column is left to typed rows.
sub named_row
{
	my ($shape, $k, $like) = @_;
	my $share = pick(0.2, 0.5, 1);
	my %v;
	for my $col (value_columns($shape))
	{
		my $name = $col->{name};
		next if $like ? !exists $like->{v}{$name} : !chance($share);
		next if !$like && ($col->{kind} // '') eq 'identity' && chance(0.8);
		$v{$name} = random_value({ %$col, notnull => $col->{notnull} || $col->{kind} });
		$v{$name} //= 0 if $col->{kind};
	}
	return { k => $k, v => \%v };
}

# ---- statements that write ---------------------------------------------

my %forms = (
	record => 4, record_many => 2, array => 3, json => 6, values => 3, unnest => 2,
	prepared_record => 2, prepared_array => 1, prepared_json => 2, $ENV{BDD_STANDIN} ? () : (view => 4, copy => 1, redirect => 3)
);
my %one_row = map { $_ => 1 } qw(record prepared_record);

# An identity's value does not overwrite through a redirect, and whoever writes
# directly gets the errors of a plain INSERT.
sub may_redirect
{
	my ($self, $t) = @_;
	return RandomShapes::has_redirect($self->{program}{targets}[$t]{variant}) && !$self->{program}{direct} &&
	  !grep { ($_->{kind} // '') eq 'identity' } @{ $self->{shapes}[$t]{cols} };
}

sub random_upsert
{
	my ($self) = @_;
	my $t = int rand @{ $self->{program}{targets} };
	my $shape = $self->{shapes}[$t];
	my $form = weighted(\%forms);
	$form = 'view' if $form eq 'redirect' && !$self->may_redirect($t);
	my $n = $one_row{$form} || chance(0.5) ? 1 : 1 + int rand($shape->{many} && chance(0.3) ? 100 : 4);
	my @rows;
	for (1 .. $n)
	{
		my $k = pick(@{ $self->{keys}[$t] });
		push @rows, RandomModel::is_typed($form) ? typed_row($shape, $k)
		  : named_row($shape, $k, $form =~ /^(values|unnest)$/ ? $rows[0] : undef);
	}
	my %step = (op => 'upsert', t => $t, form => $form, rows => \@rows);
	$step{bare} = 1 if $form eq 'redirect' && chance(0.5);
	$step{reverse} = 1 if chance(0.2);
	$step{strings} = 1 if chance(0.3);
	$step{wrap} = 1 if chance(0.2);
	return \%step;
}

sub random_delete
{
	my ($self) = @_;
	my $t = int rand @{ $self->{program}{targets} };
	my @rows = map { { k => pick(@{ $self->{keys}[$t] }) } } 1 .. (chance(0.8) ? 1 : 2);
	return { op => 'delete', t => $t, form => pick('json', 'record'), rows => \@rows };
}

# Statements on the view that look for rows first, where it is known which
# they find.
sub random_view_delete
{
	my ($self) = @_;
	return { %{ $self->random_delete }, form => 'view' };
}

sub random_update
{
	my ($self) = @_;
	my $t = int rand @{ $self->{program}{targets} };
	my $shape = $self->{shapes}[$t];
	my $k = pick(@{ $self->{keys}[$t] });
	my $old = $self->{model}->view(1, $t, $shape->{measured_keys}[$k]{class}) // {};
	my @cols = grep { $self->{model}{updates}[$t]{ $_->{name} } && !$_->{kind} && ($old->{ $_->{name} } // '') !~ /^\0/ } value_columns($shape);
	return $self->random_view_delete unless @cols;
	my %v = map { $_->{name} => random_value($_) } (shuffle(@cols))[ 0 .. int rand(@cols < 3 ? @cols : 3) ];
	return { op => 'update', t => $t, form => 'view', rows => [ { k => $k, v => \%v } ] };
}

# Make the last row of a statement one that is refused at the call; what the
# statement did before must vanish.
sub spoil
{
	my ($self, $step) = @_;
	my $shape = $self->{shapes}[ $step->{t} ];
	my $row = $step->{rows}[-1];
	return $step if $step->{op} eq 'delete' && $step->{form} eq 'view';
	my @bad = $step->{form} =~ /^(copy|redirect)$/ ? () : ('division');
	push @bad, 'unknown', 'null_key' if $step->{form} eq 'json';
	push @bad, 'null_key' if $step->{form} =~ /^(record|array|view|copy|redirect)/;
	push @bad, 'null_row' if $step->{form} eq 'record' && @{ $step->{rows} } == 1;
	if ($step->{op} eq 'upsert')
	{
		my @notnull = grep { $_->{notnull} && !$_->{kind} && exists $row->{v}{ $_->{name} } } value_columns($shape);
		my @typed = grep { $_->{type} =~ /^(int|num|double|time)/ && exists $row->{v}{ $_->{name} } } value_columns($shape);
		push @bad, "null_value:" . pick(@notnull)->{name} if @notnull && $step->{form} =~ /^(record|array|json|view|copy|redirect)/;
		push @bad, "bad_type:" . pick(@typed)->{name} if @typed && $step->{form} eq 'json';
	}
	my $bad = pick(@bad);
	$row->{bad} = $bad unless $bad eq 'division';
	($step->{bad}) = $bad =~ /^(\w+)/;
	return $step;
}

sub random_parts
{
	my ($self, $depth) = @_;
	my @parts;
	for (1 .. 1 + int rand 3)
	{
		push @parts, $depth < 2 && chance(0.4) ? { op => 'sub', raise => chance(0.5) ? 1 : 0, parts => $self->random_parts($depth + 1) }
		  : chance(0.8) ? $self->random_upsert : $self->random_delete;
		# a DO block has no parameters
		$parts[-1]{form} =~ s/^prepared_|^copy$/$& eq 'copy' ? 'view' : ''/e if $parts[-1]{form};
	}
	return \@parts;
}

# A DO block, or several statements in one query.
sub random_block
{
	my ($self) = @_;
	my $parts = $self->random_parts(0);
	return { op => 'block', parts => $parts, multi => 1 } if chance(0.5) && !grep { $_->{op} eq 'sub' } @$parts;
	return { op => 'block', parts => $parts };
}

# One key of every target, in one statement or transaction: for what must
# come out in the same order everywhere.
sub random_everywhere
{
	my ($self) = @_;
	my @parts;
	for my $t (0 .. $#{ $self->{shapes} })
	{
		my $row = typed_row($self->{shapes}[$t], $self->{keys}[$t][0]);
		push @parts, { op => 'upsert', t => $t, form => 'record', rows => [$row] };
	}
	return { op => 'block', parts => \@parts, multi => 1 };
}

# ---- the other steps ---------------------------------------------------

my %outside = (
	begin => 50, upsert => 24, delete => 7, block => 2, flush => 6, get => 6, buffered => 2, look => 5, update => 4, view_delete => 2,
	pause => 1.5, plain => 2, sleep => 0.3, reconnect => 0.15, kill_worker => 0.15, savepoint => 0.1, commit => 0.1
);
my %inside = (
	upsert => 34, delete => 9, block => 3, savepoint => 10, rollback_to => 15, release => 5, commit => 10,
	rollback => 3, get => 8, buffered => 2, look => 7, view_delete => 3, flush => 3, sleep => 0.3, reconnect => 0.15, kill_worker => 0.06,
	begin => 0.1, commit_chain => 0.5, rollback_chain => 0.3, prepare => 0.3
);
my %aborted = (
	rollback_to => 8, rollback => 4, commit => 2, upsert => 1, savepoint => 0.5, get => 0.5, commit_chain => 0.3,
	rollback_chain => 0.3, prepare => 0.2
);

sub some_targets
{
	my ($self) = @_;
	my $n = @{ $self->{program}{targets} };
	return [] if chance(0.2) && !%{ $self->{model}{paused} };
	my @ts = shuffle(0 .. $n - 1);
	return [ sort { $a <=> $b } @ts[ 0 .. int rand $n ] ];
}

# A savepoint's name: mostly one that exists.
sub savepoint_name
{
	my ($self, $session) = @_;
	my @known = map { $_->[0] } @{ $session->{tx} ? $session->{tx}{savepoints} : [] };
	return @known && chance(0.95) ? pick(@known) : pick('a', 'b', 'c');
}

sub random_plain
{
	my ($self) = @_;
	my $t = int rand @{ $self->{program}{targets} };
	return { op => 'sleep', ms => 1 } if $self->{model}{paused}{$t};
	my $k = pick(@{ $self->{keys}[$t] });
	return { op => 'plain', t => $t, k => $k } if chance(0.5);
	return { op => 'plain', t => $t, row => typed_row($self->{shapes}[$t], $k) };
}

# A pause is followed by its resume sooner or later.
sub random_pause
{
	my ($self) = @_;
	my @paused = sort { $a <=> $b } keys %{ $self->{model}{paused} };
	return { op => 'resume', t => pick(@paused) } if @paused;
	return { op => 'pause', t => int rand @{ $self->{program}{targets} } };
}

sub random_step_of
{
	my ($self, $op, $session) = @_;
	my $t = int rand @{ $self->{program}{targets} };
	my $upsert = "random_$op";
	return $self->random_everywhere if $op eq 'upsert' && $self->{program}{overlap} && chance(0.4);
	if ($op eq 'upsert' || $op eq 'delete')
	{
		my $step = $self->$upsert;
		return chance(0.05) ? $self->spoil($step) : $step;
	}
	return $self->random_block if $op eq 'block';
	return { op => 'flush', ts => $self->some_targets } if $op eq 'flush';
	return { op => 'get', t => $t, k => pick(@{ $self->{keys}[$t] }) } if $op eq 'get';
	return { op => 'buffered', t => $t } if $op eq 'buffered';
	return { op => 'look', t => $t, chance(0.6) ? (k => pick(@{ $self->{keys}[$t] })) : () } if $op eq 'look';
	return $self->random_update if $op eq 'update';
	return $self->random_view_delete if $op eq 'view_delete';
	return { op => 'begin', !$session->{tx} && chance(0.05) ? (iso => 'REPEATABLE READ') : () } if $op eq 'begin';
	return { op => 'savepoint', name => pick('a', 'b', 'c') } if $op eq 'savepoint';
	return { op => $op, name => $self->savepoint_name($session) } if $op eq 'rollback_to' || $op eq 'release';
	return { op => $op, point => pick('entered', 'reserved', 'pre-commit', 'publish') } if $op eq 'slow_commit';
	return $self->random_plain if $op eq 'plain';
	return $self->random_pause if $op eq 'pause';
	return { op => 'sleep', ms => pick(1, 5, 15) } if $op eq 'sleep';
	# without pending rows it would succeed, and nobody would finish it
	$op = 'commit' if $op eq 'prepare' && !$session->{aborted}
	  && (!@{ $session->{tx}{ops} } || %{ $session->{tx}{ever_direct} });
	return { op => $op };
}

# COMMITs that stop, others that overtake them, and time for the worker to
# seal a generation meanwhile.
sub overlap_weights
{
	my ($weights, $session, $busy) = @_;
	$weights->{slow_commit} = $busy ? 10 : 40 if $session->{tx};
	$weights->{commit} += 20 if $busy;
	$weights->{upsert} += 30 if $busy && !$session->{tx};
	$weights->{sleep} = 5 if $busy;
	delete @$weights{qw(flush plain)} if $busy;
	return;
}

sub random_step
{
	my ($self) = @_;
	my @free = grep { !$self->{model}->session($_)->{busy} } 1 .. $self->{program}{sessions};
	my $busy = $self->{model}->is_busy;
	return { s => 1, op => 'let_go' } if !@free || $busy && chance(0.08);
	my $s = pick(@free);
	my $session = $self->{model}->session($s);
	my %weights = %{ $session->{aborted} ? \%aborted : $session->{tx} ? \%inside : \%outside };
	# without a savepoint these only end the transaction
	my $savepoints = $session->{tx} ? @{ $session->{tx}{savepoints} } : 0;
	$_ && ($_ *= $savepoints ? 1 : 0.03) for @weights{qw(rollback_to release)};
	overlap_weights(\%weights, $session, $busy) if $self->{program}{overlap};
	delete @weights{qw(update view_delete)} if $self->{program}{overlap} || $session->{tx} && $session->{tx}{iso};
	delete @weights{qw(look update view_delete)} if $ENV{BDD_STANDIN};
	delete @weights{ grep { !$weights{$_} } keys %weights };
	$weights{pause} *= 15 if $weights{pause} && %{ $self->{model}{paused} };
	my $op = weighted(\%weights);
	return { s => $s, %{ $self->random_step_of($op, $session) } };
}

# ---- without the buffer ------------------------------------------------

# Everybody does without it, or it changes now and then.
sub set_out
{
	my ($self) = @_;
	my $program = $self->{program};
	for my $s ($program->{direct} eq 'off' ? (1 .. $program->{sessions}) : ())
	{
		$self->add_step({ s => $s, op => 'enabled', on => 0 });
	}
	for my $t ($program->{direct} eq 'mode' ? (0 .. $#{ $program->{targets} }) : ())
	{
		$self->add_step({ s => 1, op => 'mode', t => $t, mode => 'direct' });
	}
	return;
}

sub random_switch
{
	my ($self) = @_;
	my $s = 1 + int rand $self->{program}{sessions};
	my $session = $self->{model}->session($s);
	return $self->random_step if $session->{busy} || $session->{aborted};
	return { s => $s, op => 'enabled', on => pick(0, 1), $session->{tx} && chance(0.3) ? (local => 1) : () }
	  if $session->{tx} || chance(0.5);
	return { s => $s, op => 'mode', t => int rand @{ $self->{program}{targets} }, mode => pick('direct', 'buffered') };
}

# A step that does not wait for another session; others have their turn.
sub possible_step
{
	my ($self) = @_;
	return $self->random_step unless $self->{program}{direct};
	for (1 .. 20)
	{
		my $step = $self->{program}{direct} eq 'mixed' && chance(0.1) ? $self->random_switch : $self->random_step;
		return $step unless $self->{model}->direct_problem($self->{model}->session($step->{s}), $step);
	}
	return { s => 1, op => 'let_go' };
}

# ---- programs ----------------------------------------------------------

# Other update_columns than the shape's, now and then.
sub random_update_columns
{
	my ($shape) = @_;
	return () unless chance(0.08);
	my @cols = map { $_->{name} } value_columns($shape);
	return () unless @cols > 1;
	my @update = grep { chance(0.5) } @cols;
	return (update => @update ? \@update : [ $cols[0] ], how => pick('alter', 'create'));
}

sub random_targets
{
	my ($shapes, $overlap) = @_;
	my $n = weighted($overlap ? { 1 => 3, 2 => 7 } : { 1 => 6, 2 => 3, 3 => 1 });
	my @targets;
	for my $shape ((shuffle(@$shapes))[ 0 .. $n - 1 ])
	{
		push @targets, { shape => $shape->{name}, variant => pick(@{ variants() }), random_update_columns($shape) };
	}
	return \@targets;
}

# The keys that a program uses, and rows that exist under some of them.
sub choose_keys
{
	my ($self, $t) = @_;
	my $shape = $self->{shapes}[$t];
	my @all = shuffle(0 .. $#{ $shape->{measured_keys} });
	my $n = $shape->{many} ? @all : 1 + int rand(pick(2, @all < 4 ? scalar @all : 4));
	my @keys = @all[ 0 .. $n - 1 ];
	my %seen;
	for my $k (grep { !$seen{ $shape->{measured_keys}[$_]{class} }++ } @keys)
	{
		push @{ $self->{program}{initial} }, { t => $t, row => typed_row($shape, $k) } if chance(0.35);
	}
	return \@keys;
}

# Give the columns that a row needs where no row exists: what a table refuses
# is not the subject here.
sub repair
{
	my ($program, $shape_of) = @_;
	for (1 .. 1000)
	{
		my $model = check($program, $shape_of);
		my @bad = @{ $model->{violations} } or return $model;
		for my $bad (@bad)
		{
			my $step = $bad->{at}[2];
			$_->{v}{ $bad->{column} } //= 0 for @{ $step->{rows} };
		}
	}
	die 'could not repair the program';
}

# The model of a program that was run nowhere.
sub check
{
	my ($program, $shape_of) = @_;
	my $model = RandomModel->new($program, $shape_of);
	my $i = 0;
	for my $step (@{ $program->{steps} })
	{
		$model->step($i, $step, "now$i");
		$i++;
	}
	$model->finish;
	return $model;
}

# Whether a program says something about batchdedup, after steps were taken
# out of it.
sub is_valid
{
	my ($program, $shape_of) = @_;
	my $model = check($program, $shape_of);
	return !$model->{invalid} && !@{ $model->{violations} };
}

sub add_step
{
	my ($self, $step) = @_;
	my $i = @{ $self->{program}{steps} };
	push @{ $self->{program}{steps} }, $step;
	$self->{model}->step($i, $step, "now$i");
	return;
}

# Most transactions that are still open get their COMMIT.
sub close_sessions
{
	my ($self) = @_;
	$self->add_step({ s => 1, op => 'let_go' }) if $self->{model}->is_busy;
	my @open = grep { $self->{model}->session($_)->{tx} } 1 .. $self->{program}{sessions};
	for my $s (shuffle(@open))
	{
		my $session = $self->{model}->session($s);
		my $savepoint = $session->{tx}{savepoints}[0];
		$self->add_step({ s => $s, op => 'rollback_to', name => $savepoint->[0] })
		  if $session->{aborted} && $savepoint;
		my $commit = { s => $s, op => 'commit' };
		$self->add_step($commit) if chance(0.85) && !$self->{model}->direct_problem($session, $commit);
	}
	return;
}

sub generate
{
	my ($seed, $shapes, $shape_of, $direct) = @_;
	srand($seed);
	my $overlap = chance(0.25) ? 1 : 0;
	my $program = {
		seed => $seed, sessions => 2 + int rand 3, overlap => $overlap, targets => random_targets($shapes, $overlap),
		initial => [], steps => [], $direct ? (direct => pick('off', 'mode', 'mixed', 'mixed')) : ()
	};
	my $self = bless { program => $program, shapes => [ map { $shape_of->{ $_->{shape} } } @{ $program->{targets} } ] };
	$self->{keys} = [ map { $self->choose_keys($_) } 0 .. $#{ $program->{targets} } ];
	$self->{model} = RandomModel->new($program, $shape_of);
	$self->set_out if $direct;
	$self->add_step($self->possible_step) for 0 .. 5 + int rand pick(10, 25, 50);
	$self->close_sessions;
	repair($program, $shape_of);
	return $program;
}

# ---- printing ----------------------------------------------------------

sub parameter_sql
{
	my ($sql, $param) = @_;
	my $value = RandomShapes::literal($param);
	$sql =~ s/\$1/$value/;
	return "$sql  -- as a parameter";
}

sub step_sql
{
	my ($sql, $step) = @_;
	my ($statement, $param) = $sql->statement($step);
	$statement = parameter_sql($statement, $param) if defined $param;
	return "SET LOCAL batchdedup.debug_point = '$step->{point}:wait'; COMMIT; -- do not wait for it"
	  if $step->{op} eq 'slow_commit';
	return "$statement;" if $step->{op} ne 'plain' && !defined $param;
	return $statement =~ s/  --/;  --/r if defined $param;
	return $sql->flush_statement($step->{t}) . "; $statement;";
}

sub setup_text
{
	my ($program, $shape_of, $sql) = @_;
	my @text = 'CREATE EXTENSION batchdedup';
	push @text, RandomSql::debug_release_sql() if $program->{overlap};
	for my $target (@{ $program->{targets} })
	{
		my $shape = $shape_of->{ $target->{shape} };
		push @text, RandomShapes::needed_sql($shape), RandomShapes::table_sql($shape, $target->{variant});
		push @text, RandomShapes::create_target_sql($shape, $target->{variant}, $target->{update} // $shape->{update});
	}
	s/\s+/ /g for @text;
	push @text, map { $sql->plain_upsert($sql->target($_->{t}), $_->{t}, $_->{row}, 1) } @{ $program->{initial} };
	return map { "$_;" } @text;
}

# A program as SQL that can be run by hand, with the session of each line.
sub to_text
{
	my ($program, $shape_of) = @_;
	my $sql = RandomSql->new($program, $shape_of);
	my @lines = setup_text($program, $shape_of, $sql);
	my $i = 0;
	for my $step (@{ $program->{steps} })
	{
		push @lines, sprintf('/* step %d, session %d */ %s', $i++, $step->{s}, step_sql($sql, $step));
	}
	push @lines, $sql->statement({ op => 'let_go' }) . '; -- if a COMMIT still waits' if $program->{overlap};
	push @lines, $sql->flush_statement(0 .. $#{ $program->{targets} }) . '; -- sessions rolled back, targets resumed';
	push @lines, 'TABLE ' . $sql->target($_) . ';' for 0 .. $#{ $program->{targets} };
	return join('', map { "$_\n" } @lines);
}

1;
