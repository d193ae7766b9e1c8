package RandomModel;

# What should come out, on strings in memory: what each step of a program must
# return, which error it must raise, and what the tables hold at the end.
#
# The model takes any sequence of steps, sensible or not (ROLLBACK outside of a
# transaction, a savepoint that is not there). So a program stays a program
# when steps are taken out of it, which is all that the shrinker does.
#
# Where COMMITs overlap (slow_commit and let_go, in programs with "overlap") no
# single order is expected: such a program is compared at its end only, with
# every order that the contract allows.
#
# Transactions become visible in the order of their COMMITs. RandomOracle asks
# the same fold() for the other orders that the contract allows.

use strict;
use warnings;

# Cells that are known only by the server; no text starts with a zero byte.
use constant VOLATILE => "\0volatile";
use constant GENERATED => "\0generated";
use constant LEARNED => "\0learned";

sub new
{
	my ($class, $program, $shape_of) = @_;
	my $self = bless {
		program => $program,
		shapes => [ map { $shape_of->{ $_->{shape} } } @{ $program->{targets} } ],
		updates => [],
		state => [ map { {} } @{ $program->{targets} } ],
		plain_only => [ map { {} } @{ $program->{targets} } ],
		paused => {},
		direct => {},
		since => {},
		committed => [],
		violations => [],
		sessions => [],
		invalid => undef,
	}, $class;
	for my $t (0 .. $#{ $self->{shapes} })
	{
		my $update = $program->{targets}[$t]{update} // $self->{shapes}[$t]{update};
		$self->{updates}[$t] = { map { $_ => 1 } @$update };
	}
	$self->session($_) for 1 .. $program->{sessions};
	my $n = 0;
	for my $init (@{ $program->{initial} })
	{
		my $op = $self->upsert_op($init->{t}, $init->{row}, 1, undef, [ 'initial', $n++ ]);
		$self->apply($self->{state}, $op);
	}
	$self->{initial} = [ map { { %$_ } } @{ $self->{state} } ];
	return $self;
}

sub session
{
	my ($self, $s) = @_;
	return $self->{sessions}[$s] //= { tx => undef, aborted => 0, off => 0 };
}

sub shape { return $_[0]{shapes}[ $_[1] ]; }

# ---- rows --------------------------------------------------------------

# One row of an upsert as the model sees it. In a typed row every column is
# given, except NULL for an identity column; otherwise the named ones are.
sub upsert_op
{
	my ($self, $t, $row, $typed, $now, $at) = @_;
	my $shape = $self->shape($t);
	my $key = $shape->{measured_keys}[ $row->{k} ];
	my %given;
	my $full = 1;
	for my $col (grep { !$_->{iskey} && ($_->{kind} // '') !~ /^(generated|always)$/ } @{ $shape->{cols} })
	{
		my $name = $col->{name};
		my $named = exists $row->{v}{$name};
		my $value = $row->{v}{$name};
		if ($typed ? ($col->{kind} // '') eq 'identity' && !defined $value : !$named)
		{
			$full = 0 unless $typed;
			next;
		}
		$given{$name} = defined $value ? $col->{values}[$value]{text} : undef;
		push @{ $self->{violations} }, { at => $at, column => $name } if $col->{notnull} && !defined $value;
	}
	$self->check_complete($shape, \%given, $at) if $self->{program}{overlap};
	return {
		t => $t, kind => 'upsert', class => $key->{class}, given => \%given, full => $full,
		key => [ map { $_->{text} } @{ $key->{parts} } ], now => $now, at => $at
	};
}

# With several legal orders nobody knows whether the row will be there.
sub check_complete
{
	my ($self, $shape, $given, $at) = @_;
	for my $col (grep { $_->{notnull} && !$_->{iskey} && !$_->{kind} && !defined $_->{default} } @{ $shape->{cols} })
	{
		push @{ $self->{violations} }, { at => $at, column => $col->{name} } unless defined $given->{ $col->{name} };
	}
	return;
}

sub delete_op
{
	my ($self, $t, $k, $at) = @_;
	my $key = $self->shape($t)->{measured_keys}[$k];
	return { t => $t, kind => 'delete', class => $key->{class}, at => $at };
}

sub default_cell
{
	my ($col, $now) = @_;
	my $default = $col->{default};
	my $kind = $col->{kind} // '';
	return GENERATED if $kind eq 'generated';
	return VOLATILE if $kind eq 'identity' || $kind eq 'always';
	return undef unless defined $default;
	return $$default if ref $default;
	return $default eq 'now' ? $now : VOLATILE;
}

sub new_row
{
	my ($self, $op) = @_;
	my $shape = $self->shape($op->{t});
	my %row;
	for my $col (grep { !$_->{iskey} } @{ $shape->{cols} })
	{
		my $name = $col->{name};
		$row{$name} = exists $op->{given}{$name} ? $op->{given}{$name} : default_cell($col, $op->{now});
		push @{ $self->{violations} }, { at => $op->{at}, column => $name }
		  if $col->{notnull} && !defined $row{$name};
	}
	@row{ @{ $shape->{key} } } = @{ $op->{key} };
	return \%row;
}

# What one operation makes of a row, or of no row.
sub changed
{
	my ($self, $row, $op) = @_;
	return undef if $op->{kind} eq 'delete';
	return $self->new_row($op) unless $row;
	my %new = %$row;
	for my $name (grep { $self->{updates}[ $op->{t} ]{$_} } keys %{ $op->{given} })
	{
		$new{$name} = $op->{given}{$name};
	}
	return \%new;
}

sub apply
{
	my ($self, $state, $op) = @_;
	my $rows = $state->[ $op->{t} ];
	my $new = $self->changed($rows->{ $op->{class} }, $op);
	delete $rows->{ $op->{class} };
	$rows->{ $op->{class} } = $new if $new;
	return;
}

# The tables after some operations: what the oracle compares orders with.
sub fold
{
	my ($self, $state, @ops) = @_;
	my @new = map { { %$_ } } @$state;
	$self->apply(\@new, $_) for @ops;
	return \@new;
}

# A row as a session sees it: what is committed, then its own operations.
sub view
{
	my ($self, $s, $t, $class) = @_;
	my $tx = $self->session($s)->{tx};
	return $self->view_ops($tx ? $tx->{ops} : [], $t, $class);
}

sub view_ops
{
	my ($self, $ops, $t, $class) = @_;
	my $row = $self->{state}[$t]{$class};
	for my $op (grep { $_->{t} == $t && $_->{class} == $class } @$ops)
	{
		$row = $self->changed($row, $op);
	}
	return $row;
}

# ---- steps -------------------------------------------------------------

# What works in a transaction that has failed.
my $always_runs = qr/^(commit|slow_commit|let_go|rollback|commit_chain|rollback_chain|rollback_to|prepare|reconnect)$/;

# Take a step. $now is now() in the session, as far as the caller knows it.
# Returns {error => pattern} or what the step must return.
sub step
{
	my ($self, $i, $step, $now) = @_;
	my $session = $self->session($step->{s});
	my $method = "step_$step->{op}";
	$self->{invalid} = 'a session that waits in COMMIT' if $session->{busy};
	$self->{invalid} = 'a flush waits for the session in COMMIT' if $self->is_busy && $step->{op} =~ /^(flush|plain)$/;
	return { error => '25P02' } if $session->{aborted} && $step->{op} !~ /$always_runs/;
	my $problem = $self->direct_problem($session, $step);
	$self->{invalid} = $problem if $problem;
	my $expect = $self->$method($i, $step, $session, $now);
	$self->fail_statement($session) if $expect->{error};
	return $expect;
}

sub fail_statement
{
	my ($self, $session) = @_;
	$session->{aborted} = 1 if $session->{tx};
	return;
}

sub note_step
{
	my ($self, $session, $i, $step, $now) = @_;
	push @{ $session->{tx}{steps} }, [ $i, $step, $now ];
	return;
}

sub new_tx
{
	my ($i, $step) = @_;
	return {
		s => $step->{s}, start => $i, iso => $step->{iso}, ops => [], log => [], savepoints => [], steps => [],
		direct => {}, ever_direct => {}, first => {}, touched => {}
	};
}

# SET is undone with its transaction, SET LOCAL ends with it.
sub open_tx
{
	my ($i, $step, $session) = @_;
	$session->{tx} = new_tx($i, $step);
	@{ $session->{tx} }{qw(was_off keep_off)} = ($session->{off}) x 2;
	return;
}

sub step_begin
{
	my ($self, $i, $step, $session) = @_;
	$self->{invalid} = 'an isolation level in the middle of a transaction' if $session->{tx} && $step->{iso};
	open_tx($i, $step, $session) unless $session->{tx};
	return {};
}

sub step_commit
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx};
	return $self->step_rollback($i, $step, $session) if !$tx || $session->{aborted};
	$self->publish($i, $tx);
	@$session{qw(tx aborted off)} = (undef, 0, $tx->{keep_off});
	$self->{since} = {} unless $self->direct_txs;
	return {};
}

# COMMIT is sent, and stops in the middle until let_go.
sub step_slow_commit
{
	my ($self, $i, $step, $session) = @_;
	$self->{invalid} = 'a COMMIT that stops needs "overlap"' unless $self->{program}{overlap};
	return $self->step_commit($i, $step, $session) unless $self->will_wait($step);
	$session->{busy} = 1;
	return { busy => 1 };
}

# Whether there is something to commit.
sub will_wait
{
	my ($self, $step) = @_;
	my $session = $self->session($step->{s});
	return $session->{tx} && !$session->{aborted};
}

sub is_busy { return scalar grep { $_ && $_->{busy} } @{ $_[0]{sessions} }; }

sub step_let_go
{
	my ($self, $i) = @_;
	for my $session (grep { $_ && $_->{busy} } @{ $self->{sessions} })
	{
		delete $session->{busy};
		$self->step_commit($i, undef, $session);
	}
	return {};
}

sub step_rollback
{
	my ($self, $i, $step, $session) = @_;
	$session->{off} = $session->{tx}{was_off} if $session->{tx};
	@$session{qw(tx aborted)} = (undef, 0);
	$self->{since} = {} unless $self->direct_txs;
	return {};
}

sub step_reconnect
{
	my ($self, $i, $step, $session) = @_;
	$self->step_rollback($i, $step, $session);
	$session->{off} = 0;
	return {};
}

sub step_sleep { return {}; }

# Sooner or later another worker goes on.
sub step_kill_worker { return {}; }

sub step_commit_chain
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	$self->step_commit($i, $step, $session);
	open_tx($i, $tx, $session);
	return {};
}

sub step_rollback_chain
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	$self->step_rollback($i, $step, $session);
	open_tx($i, $tx, $session);
	return {};
}

# PREPARE TRANSACTION with pending rows is refused, which ends the transaction
# as any failure of it does. Of a failed transaction it is a ROLLBACK.
sub step_prepare
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx};
	my $refused = $tx && !$session->{aborted};
	$self->{invalid} = 'PREPARE TRANSACTION without pending rows'
	  if $refused && (!@{ $tx->{ops} } || %{ $tx->{ever_direct} });
	$self->step_rollback($i, $step, $session);
	return $refused ? { error => '0A000' } : {};
}

sub step_savepoint
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	push @{ $tx->{savepoints} }, [ $step->{name}, scalar @{ $tx->{ops} }, $session->{off}, $tx->{keep_off} ];
	$self->note_step($session, $i, $step);
	return {};
}

# The newest savepoint of that name, or -1.
sub find_savepoint
{
	my ($tx, $name) = @_;
	my $n = $#{ $tx->{savepoints} };
	$n-- while $n >= 0 && $tx->{savepoints}[$n][0] ne $name;
	return $n;
}

sub step_rollback_to
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	my $n = find_savepoint($tx, $step->{name});
	return { error => '3B001' } if $n < 0;
	$#{ $tx->{savepoints} } = $n;
	undo_ops($tx, $tx->{savepoints}[$n][1]);
	($session->{off}, $tx->{keep_off}) = @{ $tx->{savepoints}[$n] }[ 2, 3 ];
	$session->{aborted} = 0;
	$self->note_step($session, $i, $step);
	return {};
}

sub step_release
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	my $n = find_savepoint($tx, $step->{name});
	return { error => '3B001' } if $n < 0;
	$#{ $tx->{savepoints} } = $n - 1;
	$self->note_step($session, $i, $step);
	return {};
}

sub publish
{
	my ($self, $i, $tx) = @_;
	$self->check_log($tx);
	$tx->{commit} = $i;
	push @{ $self->{committed} }, $tx;
	for my $op (@{ $tx->{ops} })
	{
		$self->note_published($tx, $op);
		$self->apply($self->{state}, $op);
		$self->{plain_only}[ $op->{t} ]{ $op->{class} } = 'no' unless $op->{full};
		$self->{plain_only}[ $op->{t} ]{ $op->{class} } //= 'yes';
	}
	return;
}

# Run code that adds operations to the session's transaction, or makes one.
sub in_tx
{
	my ($self, $i, $step, $session, $now, $code) = @_;
	my $auto = !$session->{tx};
	open_tx($i, $step, $session) if $auto;
	$code->($session->{tx});
	$self->note_step($session, $i, $step, $now);
	$self->step_commit($i, $step, $session) if $auto;
	return {};
}

# Operations of a transaction. Each is looked at right away, since a plain
# table would refuse it right away, even if it is rolled back later.
sub add_ops
{
	my ($self, $tx, @ops) = @_;
	for my $op (@ops)
	{
		$self->note_direct($tx, $op);
		push @{ $tx->{ops} }, $op;
		push @{ $tx->{log} }, { op => $op };
		$self->view_ops($tx->{ops}, $op->{t}, $op->{class});
	}
	return;
}

# Keep the first $n operations.
sub undo_ops
{
	my ($tx, $n) = @_;
	$#{ $tx->{ops} } = $n - 1;
	delete @{ $tx->{direct} }{ grep { $tx->{direct}{$_} >= $n } keys %{ $tx->{direct} } };
	push @{ $tx->{log} }, { keep => $n };
	return;
}

# The plain statements run at the time of the COMMIT, also those that are
# rolled back in between: look at them once more.
sub check_log
{
	my ($self, $tx) = @_;
	my @ops;
	for my $entry (@{ $tx->{log} })
	{
		$#ops = $entry->{keep} - 1 unless $entry->{op};
		next unless $entry->{op};
		push @ops, $entry->{op};
		$self->view_ops(\@ops, $entry->{op}{t}, $entry->{op}{class});
	}
	return;
}

my %typed = map { $_ => 1 } qw(record record_many array prepared_record prepared_array view copy redirect);
sub is_typed { return $typed{ $_[0] }; }

my %error_of = (
	unknown => '42703',
	null_key => '23502|22004',
	null_value => '23502',
	bad_type => '22P02|22007',
	null_row => '22004',
	division => '22012',
);

sub ops_of
{
	my ($self, $i, $step, $now) = @_;
	my @ops;
	my $n = 0;
	for my $row (@{ $step->{rows} })
	{
		my $at = [ $i, $n++, $step ];
		push @ops, $step->{op} eq 'delete'
		  ? $self->delete_op($step->{t}, $row->{k}, $at)
		  : $self->upsert_op($step->{t}, $row, is_typed($step->{form}), $now, $at);
	}
	return @ops;
}

sub step_upsert
{
	my ($self, $i, $step, $session, $now) = @_;
	my @errors = $self->is_held_up($session, $step) ? ('55000') : ();
	return { error => join('|', @errors, $self->errors_of($session, $step)) } if $step->{bad};
	return { error => '55000' } if @errors;
	return $self->in_tx($i, $step, $session, $now, sub { $self->add_ops($_[0], $self->ops_of($i, $step, $now)) });
}

# A row before the bad one may be refused by the table itself, if it is
# written at once: nobody has repaired these rows.
sub errors_of
{
	my ($self, $session, $step) = @_;
	return ($error_of{ $step->{bad} }, $self->writes_directly($session, $step->{t}) ? '23502' : ());
}

# Through the view only a row that is there is deleted.
sub step_delete
{
	my ($self, $i, $step, $session, $now) = @_;
	return $self->step_upsert($i, $step, $session, $now) if $step->{form} ne 'view';
	return {} unless $step = $self->visible_part($i, $step, $session);
	return $self->step_upsert($i, $step, $session, $now);
}

# The rows of a statement on the view that it finds, or undef.
sub visible_part
{
	my ($self, $i, $step, $session) = @_;
	$self->{invalid} = 'what a statement on the view finds is not known'
	  if $self->{program}{overlap} || $session->{tx} && $session->{tx}{iso};
	my $shape = $self->shape($step->{t});
	my @rows = grep { $self->view($step->{s}, $step->{t}, $shape->{measured_keys}[ $_->{k} ]{class}) } @{ $step->{rows} };
	return @rows ? { %$step, rows => \@rows } : undef;
}

# UPDATE of the view: the columns that differ, of a row that is there. Within
# a transaction somebody else might take the row away before its COMMIT.
sub step_update
{
	my ($self, $i, $step, $session, $now) = @_;
	$self->{invalid} = 'UPDATE in a transaction' if $session->{tx};
	return {} unless $step = $self->visible_part($i, $step, $session);
	my ($t, $row) = ($step->{t}, $step->{rows}[0]);
	my $shape = $self->shape($t);
	my $old = $self->view($step->{s}, $t, $shape->{measured_keys}[ $row->{k} ]{class});
	my %changed;
	for my $name (keys %{ $row->{v} })
	{
		$self->{invalid} = 'UPDATE of a column that keeps its first value' unless $self->{updates}[$t]{$name};
		my $value = $row->{v}{$name};
		my $text = defined $value ? $shape->{col}{$name}{values}[$value]{text} : undef;
		$self->{invalid} = 'whether a column differs is not known' if defined $old->{$name} && $old->{$name} =~ /^\0/;
		$changed{$name} = $value if cell_differs($old->{$name}, $text);
		return { error => '55000|23502' } if !defined $text && $shape->{col}{$name}{notnull};
	}
	return {} unless %changed;
	# columns by name: not every column is given
	return $self->step_upsert($i, { %$step, form => 'json', rows => [ { k => $row->{k}, v => \%changed } ] }, $session, $now);
}

# A DO block: parts in subtransactions, some of which fail and are caught.
sub add_parts
{
	my ($self, $tx, $i, $parts, $now) = @_;
	for my $part (@$parts)
	{
		my $before = @{ $tx->{ops} };
		$part->{op} eq 'sub'
		  ? $self->add_parts($tx, $i, $part->{parts}, $now)
		  : $self->add_ops($tx, $self->ops_of($i, $part, $now));
		undo_ops($tx, $before) if $part->{raise};
	}
	return;
}

sub step_block
{
	my ($self, $i, $step, $session, $now) = @_;
	return { error => '55000' } if $self->is_held_up($session, $step);
	return $self->in_tx($i, $step, $session, $now, sub { $self->add_parts($_[0], $i, $step->{parts}, $now) });
}

sub step_flush
{
	my ($self, $i, $step, $session) = @_;
	my @ts = @{ $step->{ts} };
	if (!@ts && %{ $self->{paused} })
	{
		$self->{invalid} = 'the contract does not say what flush() does beside a paused target';
	}
	return { error => '55000' } if grep { $self->{paused}{$_} } @ts;
	@ts = 0 .. $#{ $self->{shapes} } unless @ts;
	return { tables => \@ts };
}

sub step_pause
{
	my ($self, $i, $step, $session) = @_;
	$self->{invalid} = "$step->{op} in a transaction" if $session->{tx};
	$self->{paused}{ $step->{t} } = 1;
	return {};
}

sub step_resume
{
	my ($self, $i, $step, $session) = @_;
	$self->{invalid} = "$step->{op} in a transaction" if $session->{tx};
	delete $self->{paused}{ $step->{t} };
	return {};
}

# A plain writer beside the buffer, right after a flush: ordered with it.
sub step_plain
{
	my ($self, $i, $step, $session, $now) = @_;
	$self->{invalid} = 'a plain statement in a transaction' if $session->{tx};
	$self->{invalid} = 'a plain statement on a paused target' if $self->{paused}{ $step->{t} };
	my $at = [ $i, 0, $step ];
	my $op = $step->{row}
	  ? $self->upsert_op($step->{t}, $step->{row}, 1, $now, $at)
	  : $self->delete_op($step->{t}, $step->{k}, $at);
	return $self->in_tx($i, $step, $session, $now, sub { $self->add_ops($_[0], $op) });
}

sub step_get
{
	my ($self, $i, $step, $session) = @_;
	# below READ COMMITTED nobody said how old the answer may be
	return {} if $session->{tx} && $session->{tx}{iso};
	my $class = $self->shape($step->{t})->{measured_keys}[ $step->{k} ]{class};
	return { row => $self->view($step->{s}, $step->{t}, $class), class => $class, get => 1 };
}

# The view, or one row of it by key.
sub step_look
{
	my ($self, $i, $step, $session) = @_;
	return {} if $session->{tx} && $session->{tx}{iso};
	my $t = $step->{t};
	my $shape = $self->shape($t);
	my %classes = map { $_->{class} => 1 } @{ $shape->{measured_keys} };
	%classes = ($shape->{measured_keys}[ $step->{k} ]{class} => 1) if defined $step->{k};
	return { view => { map { $_ => $self->view($step->{s}, $t, $_) } keys %classes } };
}

# The table overlaid with buffered() is the truth for keys that were written
# by full rows only, where every column takes the newest value.
sub step_buffered
{
	my ($self, $i, $step, $session) = @_;
	return {} if $session->{tx} && $session->{tx}{iso};
	my $t = $step->{t};
	my %exact;
	my $tx = $session->{tx};
	my $own_rows = $tx && $tx->{ever_direct}{$t};
	for my $class (grep { !$own_rows || !$tx->{touched}{"$t:$_"} } keys %{ $self->{state}[$t] })
	{
		my $history = $self->{plain_only}[$t]{$class} // 'untouched';
		$exact{$class} = $self->{state}[$t]{$class} if $history ne 'no';
	}
	return { exact => \%exact };
}

sub finish
{
	my ($self) = @_;
	$self->step_let_go(scalar @{ $self->{program}{steps} });
	$self->step_rollback(0, undef, $_) for grep { $_ } @{ $self->{sessions} };
	$self->{paused} = {};
	return;
}

# ---- writing without the buffer ----------------------------------------

# With batchdedup.enabled = off or mode "direct" rows are written at the call,
# and their locks are held until the COMMIT. Sessions are driven by one
# process, so nobody may wait for a lock, or for a worker who waits for one:
# while a transaction has written directly nobody else does, and nobody waits
# for a flush that others' rows of the same keys could hold up.

sub step_enabled
{
	my ($self, $i, $step, $session) = @_;
	$self->{invalid} = 'SET LOCAL outside of a transaction' if $step->{local} && !$session->{tx};
	$session->{off} = $step->{on} ? 0 : 1;
	$session->{tx}{keep_off} = $session->{off} if $session->{tx} && !$step->{local};
	return {};
}

sub step_mode
{
	my ($self, $i, $step, $session) = @_;
	$self->{direct}{ $step->{t} } = $step->{mode} eq 'direct' ? 1 : 0;
	return {};
}

sub writes_directly
{
	my ($self, $session, $t) = @_;
	return $session->{off} || $self->{direct}{$t} || $session->{tx} && defined $session->{tx}{direct}{$t};
}

# Open transactions that have written directly, also if it was undone.
sub direct_txs
{
	my ($self, $except) = @_;
	return grep { %{ $_->{ever_direct} } && (!$except || $_ != $except) }
	  map { $_ && $_->{tx} ? $_->{tx} : () } @{ $self->{sessions} };
}

sub note_direct
{
	my ($self, $tx, $op) = @_;
	my $t = $op->{t};
	$tx->{first}{$t} //= $op->{at}[0];
	$tx->{touched}{"$t:$op->{class}"} = 1;
	return unless $self->writes_directly($self->session($tx->{s}), $t);
	$tx->{direct}{$t} //= @{ $tx->{ops} };
	$tx->{ever_direct}{$t} = 1;
	return;
}

sub note_published
{
	my ($self, $tx, $op) = @_;
	my $t = $op->{t};
	return if defined $tx->{direct}{$t};
	$self->{paused}{$t} = 'rows' if $self->{paused}{$t};
	$self->{since}{"$t:$op->{class}"} = 1 if $self->direct_txs($tx);
	return;
}

# The statements of a step that write, also inside of blocks.
sub writers { return map { $_->{parts} ? writers(@{ $_->{parts} }) : $_->{rows} ? $_ : () } @_; }

sub keys_of_step
{
	my ($self, $step) = @_;
	my %keys;
	for my $writer (writers($step))
	{
		my $shape = $self->shape($writer->{t});
		$keys{"$writer->{t}:$shape->{measured_keys}[ $_->{k} ]{class}"} = 1 for @{ $writer->{rows} };
	}
	return keys %keys;
}

# Targets to which a step is the first of its transaction to write directly.
sub direct_begins
{
	my ($self, $session, $step) = @_;
	my %ts = map { $_->{t} => 1 } writers($step);
	return grep { $self->writes_directly($session, $_) && !($session->{tx} && defined $session->{tx}{direct}{$_}) }
	  sort keys %ts;
}

# A direct write of a paused target for which others have rows buffered.
sub is_held_up
{
	my ($self, $session, $step) = @_;
	return scalar grep { ($self->{paused}{$_} // '') eq 'rows' } $self->direct_begins($session, $step);
}

# Why a step says nothing: undef, or a reason. The generator asks, too.
sub direct_problem
{
	my ($self, $session, $step) = @_;
	return undef unless $self->{program}{direct};
	return $self->mode_problem($step) if $step->{op} eq 'mode';
	my @others = $self->direct_txs($session->{tx});
	return 'a plain statement may wait for a row' if $step->{op} eq 'plain' && $self->direct_txs;
	return 'a flush may wait for a row' if $step->{op} eq 'flush' && %{ $self->{since} };
	return $self->write_problem($session, $step, @others) || $self->publish_problem($session, $step, @others);
}

# Everybody who has called for the target has locked it.
sub mode_problem
{
	my ($self, $step) = @_;
	my @open = grep { $_ } map { $_ && $_->{tx} } @{ $self->{sessions} };
	return 'a mode cannot change under an open transaction'
	  if $self->is_busy || $self->direct_txs || grep { exists $_->{first}{ $step->{t} } } @open;
	return 'the mode of a paused target' if $self->{paused}{ $step->{t} };
	return undef;
}

sub write_problem
{
	my ($self, $session, $step, @others) = @_;
	my @begins = $self->direct_begins($session, $step);
	my @direct = grep { $self->writes_directly($session, (split /:/)[0]) } $self->keys_of_step($step);
	return undef unless @direct;
	return 'a direct write may wait for a row' if @others;
	return 'a direct write in an old snapshot' if $session->{tx} && $session->{tx}{iso};
	return 'a direct write waits for a flush' if @begins && ($self->is_busy || %{ $self->{since} });
	return 'whether rows are buffered is not known' if grep { ($self->{paused}{$_} // '') eq '1' } @begins;
	return 'another order is right, too' if !$self->{program}{overlap} && grep { $self->{since}{$_} } @direct;
	return undef;
}

# What is published beside an open direct write of the key may end on top.
sub publish_problem
{
	my ($self, $session, $step, @others) = @_;
	return undef if $self->{program}{overlap} || !@others;
	my $tx = $session->{tx};
	my $ends = $step->{op} =~ /commit/;
	return undef if $tx ? !$ends : 0;
	my @keys = $tx ? keys %{ $tx->{touched} } : $self->keys_of_step($step);
	return 'another order is right, too' if grep { my $key = $_; grep { $_->{touched}{$key} } @others } @keys;
	return undef;
}

# ---- comparing ---------------------------------------------------------

sub cell_differs
{
	my ($expected, $actual) = @_;
	return defined $actual unless defined $expected;
	return !defined $actual if $expected eq VOLATILE;
	return 0 if $expected eq GENERATED;
	$expected = substr($expected, length LEARNED) if index($expected, LEARNED) == 0;
	return !defined $actual || $expected ne $actual;
}

# Whether the server's and the plain table's value of a cell can be compared.
sub is_exact
{
	my ($expected) = @_;
	return !defined $expected || $expected ne VOLATILE && index($expected, LEARNED) != 0;
}

# Remember a value that a sequence gave: from now on it must stay.
sub learn
{
	my ($self, $t, $class, $name, $actual) = @_;
	my $row = $self->{state}[$t]{$class};
	return unless defined $row->{$name} && $row->{$name} eq VOLATILE;
	# a row of the state may be shared with an older state
	$self->{state}[$t]{$class} = { %$row, $name => LEARNED . $actual };
	return;
}

1;
