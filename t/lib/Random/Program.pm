package Random::Program;

# Random programs: what several sessions do to a few targets, one statement
# after the other. A program is plain data, made from its seed alone:
#
#   sessions => 3,
#   targets => [{shape, variant, update, how, complete, logged, ...}, ...],
#   initial => [{t, row}, ...],          rows that are there at the start
#   steps => [{s, op, ...}, ...]         s is the session
#   overlap => 1                         some COMMITs stop in the middle
#   direct => 'off', 'mode' or 'mixed'   which writes go past the buffer
#   group => 1                           the targets are of one flush_group
#
# and a row {k => number of a key of the shape, v => {column => number of a
# value of its pool, or undef for NULL}}. Few keys, so that sessions meet.
#
# "complete": rows in part always give what an insert needs; else every key is
# there from the start, and is never deleted.
#
# A plug-in is a class that inherits from this one, and has other tables, targets
# and steps: see Random::Rules.

use strict;
use warnings;
use List::Util qw(shuffle);
use Random::Shapes qw(shape variants value_columns);
use Random::State;
use Random::Text qw(chance pick weighted);

# ---- what plug-ins have otherwise --------------------------------------

sub use_shapes { return Random::Shapes::use_shapes(Random::Shapes::plain_shapes()); }

my %forms = (
	record => 4, record_many => 2, array => 3, json => 6, values => 3, unnest => 2,
	prepared_record => 2, prepared_array => 1, prepared_json => 2, view => 4, copy => 1, redirect => 3
);
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

sub forms { return \%forms; }
sub weights { my ($self, $session) = @_; return $session->{aborted} ? %aborted : $session->{tx} ? %inside : %outside; }

# What every program is like: which COMMITs stop, and which writes are direct.
sub features
{
	my ($class, $direct) = @_;
	return (kind => 'plain', overlap => chance(0.25) ? 1 : 0, $direct ? (direct => pick('off', 'mode', 'mixed', 'mixed')) : ());
}

# Other update_columns than the shape's, now and then.
sub random_target
{
	my ($self, $shape) = @_;
	my $target = { shape => $shape->{name}, variant => pick(variants()), logged => 1, merge => {}, complete => chance(0.6) ? 1 : 0 };
	my @cols = map { $_->{name} } value_columns($shape);
	return $target unless chance(0.08) && @cols > 1;
	my @update = grep { chance(0.5) } @cols;
	return { %$target, update => @update ? \@update : [ $cols[0] ], how => pick('alter', 'create') };
}

sub random_targets
{
	my ($self) = @_;
	my $n = weighted($self->{program}{overlap} ? { 1 => 3, 2 => 7 } : { 1 => 6, 2 => 3, 3 => 1 });
	return map { $self->random_target($_) } (shuffle(Random::Shapes::shapes()))[ 0 .. $n - 1 ];
}

# The keys that a program uses, and rows that exist under some of them.
sub choose_keys
{
	my ($self, $t) = @_;
	my $shape = $self->shape_of($t);
	my @all = shuffle(0 .. $#{ $shape->{keys} });
	my $n = $shape->{many} ? @all : 1 + int rand(pick(2, @all < 4 ? scalar @all : 4));
	my @keys = @all[ 0 .. $n - 1 ];
	$self->add_initial($t, 0.35, @keys);
	return \@keys;
}

sub add_initial
{
	my ($self, $t, $share, @keys) = @_;
	my $target = $self->{program}{targets}[$t];
	my $shape = shape($target);
	my %seen;
	for my $k (grep { !$seen{ $shape->{class}[$_] }++ } @keys)
	{
		push @{ $self->{program}{initial} }, { t => $t, row => $self->typed_row($t, $k) }
		  if !$shape->{append} && !$shape->{total} && (!$target->{complete} && $self->needs_rows($shape) || chance($share));
	}
	return;
}

# A row in part may lack what an insert needs.
sub needs_rows { my ($self, $shape) = @_; return scalar grep { $_->{required} } @{ $shape->{cols} }; }

# ---- rows --------------------------------------------------------------

sub shape_of { my ($self, $t) = @_; return shape($self->{program}{targets}[$t]); }
sub any_target { my ($self) = @_; return int rand @{ $self->{program}{targets} }; }
sub any_key { my ($self, $t) = @_; return pick(@{ $self->{keys}[$t] }); }

sub random_value
{
	my ($col) = @_;
	my $null = ($col->{kind} // '') eq 'identity' ? 0.85 : $col->{notnull} || $col->{required} ? 0 : 0.15;
	return chance($null) ? undef : int rand @{ $col->{pool} };
}

sub typed_row
{
	my ($self, $t, $k) = @_;
	return { k => $k, v => { map { $_->{name} => random_value($_) } value_columns($self->shape_of($t)) } };
}

# A row that names some of its columns, or those of another row. NULL for an
# identity column is left to typed rows.
sub named_row
{
	my ($self, $t, $k, $like) = @_;
	my $target = $self->{program}{targets}[$t];
	my $share = pick(0.2, 0.5, 1);
	my %v;
	for my $col (value_columns(shape($target)))
	{
		my $name = $col->{name};
		my $needed = $self->is_needed($target, $col);
		next if $like ? !exists $like->{v}{$name} : !$needed && !chance($share);
		next if !$like && $col->{kind} && chance(0.8);
		$v{$name} = $col->{kind} ? int rand @{ $col->{pool} } : random_value($col);
	}
	return { k => $k, v => \%v };
}

sub is_needed
{
	my ($self, $target, $col) = @_;
	return $col->{required} && ($target->{complete} || $self->{program}{overlap});
}

# ---- statements that write ---------------------------------------------

# An identity's value does not overwrite through a redirect, and whoever writes
# directly gets the errors of a plain INSERT.
sub may_redirect
{
	my ($self, $t) = @_;
	return Random::Shapes::has_redirect($self->{program}{targets}[$t]) && !$self->{program}{direct} &&
	  !grep { ($_->{kind} // '') eq 'identity' } @{ $self->shape_of($t)->{cols} };
}

sub random_upsert
{
	my ($self) = @_;
	my $t = $self->any_target;
	my $shape = $self->shape_of($t);
	my $form = weighted($self->forms);
	$form = 'view' if $form eq 'redirect' && !$self->may_redirect($t);
	$form = 'json' if $form =~ /^(view|copy)$/ && $shape->{append};
	my $n = $form =~ /record$/ || chance(0.5) ? 1 : 1 + int rand($shape->{many} && chance(0.3) ? 100 : 4);
	my @rows;
	for (1 .. $n)
	{
		my $k = $self->any_key($t);
		push @rows, Random::State::is_typed($form) ? $self->typed_row($t, $k)
		  : $self->named_row($t, $k, $form =~ /^(values|unnest)$/ ? $rows[0] : undef);
	}
	my %step = (op => 'upsert', t => $t, form => $form, rows => \@rows);
	$step{bare} = 1 if $form eq 'redirect' && chance(0.5);
	$step{reverse} = 1 if chance(0.2);
	$step{strings} = 1 if chance(0.3);
	$step{wrap} = 1 if chance(0.2);
	return \%step;
}

# Rows that can be deleted: they need not be there for what comes next.
sub may_delete
{
	my ($self, $t) = @_;
	my ($target, $shape) = ($self->{program}{targets}[$t], $self->shape_of($t));
	return !$shape->{append} && !$shape->{total} && ($target->{complete} || $self->{program}{overlap} || !$self->needs_rows($shape));
}

sub deleted_row { my ($self, $t) = @_; return { k => $self->any_key($t), v => {} }; }

sub random_delete
{
	my ($self) = @_;
	my $t = $self->any_target;
	return $self->random_upsert unless $self->may_delete($t);
	my @rows = map { $self->deleted_row($t) } 1 .. (chance(0.8) ? 1 : 2);
	return { op => 'delete', t => $t, form => pick('json', 'record'), rows => \@rows };
}

# Statements on the view that look for rows first, where it is known which they
# find.
sub random_view_delete
{
	my ($self) = @_;
	my $step = $self->random_delete;
	return $step->{op} eq 'delete' ? { %$step, form => 'view' } : $step;
}

sub random_update
{
	my ($self) = @_;
	my $t = $self->any_target;
	my ($target, $shape) = ($self->{program}{targets}[$t], $self->shape_of($t));
	my %updated = map { $_ => 1 } @{ $target->{update} // $shape->{update} };
	my @cols = grep { $updated{ $_->{name} } && !$_->{kind} && !defined $_->{unknown} } value_columns($shape);
	return $self->random_view_delete unless @cols;
	my %v = map { $_->{name} => random_value($_) } (shuffle(@cols))[ 0 .. int rand(@cols < 3 ? @cols : 3) ];
	return { op => 'update', t => $t, form => 'update', rows => [ { k => $self->any_key($t), v => \%v } ] };
}

# Make the last row of a statement one that is refused at the call; what the
# statement did before must vanish.
sub spoil
{
	my ($self, $step) = @_;
	my $shape = $self->shape_of($step->{t});
	my $row = $step->{rows}[-1];
	return $step if $step->{op} eq 'delete' && $step->{form} eq 'view';
	my @bad = $step->{form} =~ /^(copy|redirect)$/ ? () : ('division');
	push @bad, 'unknown' if $step->{form} eq 'json';
	push @bad, 'null_key' if $step->{form} =~ /^(json|record|array|view|copy|redirect)/ && @{ $shape->{key} };
	push @bad, 'null_row' if $step->{form} eq 'record' && @{ $step->{rows} } == 1;
	if ($step->{op} eq 'upsert')
	{
		my @given = grep { exists $row->{v}{ $_->{name} } } value_columns($shape);
		my @notnull = grep { ($_->{notnull} || $_->{required}) && !$_->{kind} } @given;
		my @typed = grep { $_->{type} =~ /^(int|num|double|time)/ } @given;
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
	return { op => 'block', parts => $parts, chance(0.5) && !grep({ $_->{parts} } @$parts) ? (multi => 1) : () };
}

# One key of every target, in one statement or transaction: for what must come
# out in the same order everywhere.
sub random_everywhere
{
	my ($self) = @_;
	my @parts = map { { op => 'upsert', t => $_, form => 'record', rows => [ $self->typed_row($_, $self->{keys}[$_][0]) ] } }
	  0 .. $#{ $self->{program}{targets} };
	return { op => 'block', parts => \@parts, multi => 1 };
}

# Whether an upsert is one of all targets.
sub is_everywhere { my ($self) = @_; return $self->{program}{overlap} && chance(0.4); }

sub random_write
{
	my ($self, $op) = @_;
	return $self->random_block if $op eq 'block';
	return $self->random_everywhere if $op eq 'upsert' && $self->is_everywhere;
	my $step = $op eq 'upsert' ? $self->random_upsert : $self->random_delete;
	return chance(0.05) ? $self->spoil($step) : $step;
}

# ---- the other steps ---------------------------------------------------

sub some_targets
{
	my ($self) = @_;
	my $n = @{ $self->{program}{targets} };
	return [] if chance(0.2) && !%{ $self->{state}{paused} };
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
	my $t = $self->any_target;
	my %step = (op => 'plain', t => $t, form => 'record');
	return { %step, delete => 1, rows => [ { k => $self->any_key($t), v => {} } ] } if chance(0.5) && $self->may_delete($t);
	return { %step, rows => [ $self->typed_row($t, $self->any_key($t)) ] };
}

# A pause is followed by its resume sooner or later.
sub random_pause
{
	my ($self) = @_;
	my @paused = sort { $a <=> $b } keys %{ $self->{state}{paused} };
	return @paused ? { op => 'resume', t => pick(@paused) } : { op => 'pause', t => $self->any_target };
}

# Steps that are more than their name.
my %details = (
	flush => sub { (ts => $_[0]->some_targets) },
	get => sub { (t => $_[2], k => $_[0]->any_key($_[2])) },
	buffered => sub { (t => $_[2]) },
	look => sub { (t => $_[2], chance(0.6) ? (k => $_[0]->any_key($_[2])) : ()) },
	update => sub { %{ $_[0]->random_update } },
	view_delete => sub { %{ $_[0]->random_view_delete } },
	begin => sub { !$_[1]{tx} && chance(0.05) ? (iso => 'REPEATABLE READ') : () },
	savepoint => sub { (name => pick('a', 'b', 'c')) },
	rollback_to => sub { (name => $_[0]->savepoint_name($_[1])) },
	release => sub { (name => $_[0]->savepoint_name($_[1])) },
	slow_commit => sub { (point => pick('entered', 'reserved', 'pre-commit', 'publish')) },
	plain => sub { %{ $_[0]->random_plain } },
	pause => sub { %{ $_[0]->random_pause } },
	sleep => sub { (ms => pick(1, 5, 15)) },
);

sub details { return \%details; }

# COMMITs that stop, others that overtake them, and time for the worker to
# seal a generation meanwhile.
sub overlap_weights
{
	my ($weights, $session, $busy) = @_;
	$weights->{slow_commit} = $busy ? 10 : 40 if $session->{tx};
	$weights->{commit} += 20 if $busy;
	$weights->{upsert} += 30 if $busy && !$session->{tx};
	$weights->{sleep} = 5 if $busy;
	return;
}

sub random_step
{
	my ($self) = @_;
	my ($program, $state) = @$self{qw(program state)};
	my @free = grep { !$state->session($_)->{busy} } 1 .. $program->{sessions};
	return { s => 1, op => 'let_go' } if !@free || $state->is_busy && chance(0.08);
	my $s = pick(@free);
	my $session = $state->session($s);
	my %weights = $self->weights($session);
	# without a savepoint these only end the transaction
	my $savepoints = $session->{tx} ? @{ $session->{tx}{savepoints} } : 0;
	$_ && ($_ *= $savepoints ? 1 : 0.03) for @weights{qw(rollback_to release)};
	overlap_weights(\%weights, $session, $state->is_busy) if $program->{overlap};
	$weights{pause} *= 15 if $weights{pause} && %{ $state->{paused} };
	delete @weights{ grep { !$weights{$_} } keys %weights };
	my $op = weighted(\%weights);
	return { s => $s, %{ $self->random_write($op) } } if $op =~ /^(upsert|delete|block)$/;
	my $details = $self->details->{$op};
	return { s => $s, op => $op, $details ? $details->($self, $session, $self->any_target) : () };
}

# ---- without the buffer ------------------------------------------------

# All sessions or targets do without it, or that changes now and then.
sub set_out
{
	my ($self) = @_;
	my $program = $self->{program};
	$self->add_step({ s => $_, op => 'enabled', on => 0 }) for $program->{direct} eq 'off' ? (1 .. $program->{sessions}) : ();
	$self->add_step({ s => 1, op => 'mode', t => $_, mode => 'direct' }) for $program->{direct} eq 'mode' ? (0 .. $#{ $program->{targets} }) : ();
	return;
}

sub random_switch
{
	my ($self) = @_;
	my $s = 1 + int rand $self->{program}{sessions};
	my $session = $self->{state}->session($s);
	return $self->random_step if $session->{busy} || $session->{aborted};
	return { s => $s, op => 'enabled', on => pick(0, 1), $session->{tx} && chance(0.3) ? (local => 1) : () }
	  if $session->{tx} || chance(0.5);
	return { s => $s, op => 'mode', t => $self->any_target, mode => pick('direct', 'buffered') };
}

# A step that says something; others have their turn.
sub possible_step
{
	my ($self) = @_;
	for (1 .. 20)
	{
		my $step = ($self->{program}{direct} // '') eq 'mixed' && chance(0.1) ? $self->random_switch : $self->random_step;
		return $step unless $self->{state}->problem($step);
	}
	return { s => 1, op => 'let_go' };
}

# ---- programs ----------------------------------------------------------

sub add_step
{
	my ($self, $step) = @_;
	$self->{state}->take(scalar @{ $self->{program}{steps} }, $step);
	push @{ $self->{program}{steps} }, $step;
	return;
}

# Most transactions that are still open get their COMMIT.
sub close_sessions
{
	my ($self) = @_;
	my $state = $self->{state};
	$self->add_step({ s => 1, op => 'let_go' }) if $state->is_busy;
	for my $s (shuffle(grep { $state->session($_)->{tx} } 1 .. $self->{program}{sessions}))
	{
		my $session = $state->session($s);
		my $savepoint = $session->{tx}{savepoints}[0];
		$self->add_step({ s => $s, op => 'rollback_to', name => $savepoint->[0] }) if $session->{aborted} && $savepoint;
		my $commit = { s => $s, op => 'commit' };
		$self->add_step($commit) if chance(0.85) && !$state->problem($commit);
	}
	return;
}

sub length_of { return 6 + int rand pick(10, 25, 50); }

sub generate
{
	my ($class, $seed, @features) = @_;
	srand($seed);
	my $program = { seed => $seed, $class->features(@features), sessions => 2 + int rand 3, initial => [], steps => [] };
	my $self = bless { program => $program }, $class;
	$program->{targets} = [ $self->random_targets ];
	$self->{keys} = [ map { $self->choose_keys($_) } 0 .. $#{ $program->{targets} } ];
	$self->{state} = Random::State->new($program);
	$self->set_out if $program->{direct};
	$self->add_step($self->possible_step) for 1 .. $self->length_of;
	$self->close_sessions;
	return $program;
}

1;
