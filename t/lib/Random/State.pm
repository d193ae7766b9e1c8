package Random::State;

# Where each session of a program stands: transactions, savepoints, what is
# paused, and which writes go past the buffer. It knows which error a statement
# must end in, and which steps say nothing where they stand: those are left out,
# so a program stays one when steps are taken out of it. The generator asks it,
# too. What is in the tables is not its business.
#
# A transaction keeps its operations, {t, class, full, at, sql}: "sql" are the
# plain statements that an operation stands for.

use strict;
use warnings;
use Random::Shapes qw(shape);

sub new
{
	my ($class, $program) = @_;
	return bless {
		program => $program, sessions => [ map { { tx => undef, aborted => 0, off => 0 } } 0 .. $program->{sessions} ],
		paused => {}, direct => {}, since => {}, committed => [], plain_only => {}
	}, $class;
}

sub session { return $_[0]{sessions}[ $_[1] ]; }
sub is_busy { return scalar grep { $_->{busy} } @{ $_[0]{sessions} }; }
sub open_txs { return grep { $_ } map { $_->{tx} } @{ $_[0]{sessions} }; }
sub classes { my ($self, $t) = @_; return shape($self->{program}{targets}[$t])->{class}; }

# The statements of a step that write, also inside of blocks.
sub writers { return map { $_->{parts} ? writers(@{ $_->{parts} }) : $_->{rows} ? $_ : () } @_; }

# ---- steps that say nothing --------------------------------------------

# Steps that want no open transaction.
my $alone = qr/^(alter|crash|restart|cascade)$/;

# Why a step is left out, or undef.
sub problem
{
	my ($self, $step) = @_;
	my $session = $self->session($step->{s});
	my ($op, $tx) = ($step->{op}, $session->{tx});
	my $overlap = $self->{program}{overlap};
	return undef if $op eq 'let_go';
	return 'the session waits in COMMIT' if $session->{busy};
	return 'it waits for who is in COMMIT' if $op =~ /^(flush|plain|restart|crash|alter|cascade)$/ && $self->is_busy;
	return 'somebody is in a transaction' if $op =~ $alone && $self->open_txs;
	return 'an unlogged target would lose rows' if $op eq 'crash' && grep { !$_->{logged} } @{ $self->{program}{targets} };
	return 'something is paused' if $op =~ /^(alter|cascade)$/ && %{ $self->{paused} };
	return 'what is seen of rows that are refused, or have no key, is not known'
	  if $op =~ /^(get|look)$/ && grep { $_->{append} || $_->{refuses} } shape($self->{program}{targets}[ $step->{t} ]);
	return undef if $session->{aborted};
	return 'not in a transaction' if $tx && ($op =~ /^(update|pause|resume|plain)$/ || $op eq 'begin' && $step->{iso});
	return 'only in a transaction' if !$tx && $op eq 'enabled' && $step->{local};
	return 'a plain writer beside what is paused' if $op eq 'plain' && $self->{paused}{ $step->{t} };
	return 'what a statement on the view finds is not known'
	  if ($overlap || $tx && $tx->{iso}) && ($op eq 'update' || $op eq 'delete' && $step->{form} eq 'view');
	return 'not where COMMITs overlap' if $overlap && $op =~ /^(alter|cascade)$/ || !$overlap && $op eq 'slow_commit';
	return 'nobody would finish it' if $op eq 'prepare' && $tx && (!@{ $tx->{ops} } || %{ $tx->{ever_direct} });
	return 'what flush() does beside a paused target is not said' if $op eq 'flush' && !@{ $step->{ts} } && %{ $self->{paused} };
	return $self->direct_problem($session, $step);
}

# ---- transactions ------------------------------------------------------

# SET is undone with its transaction, SET LOCAL ends with it.
sub open_tx
{
	my ($step, $session) = @_;
	$session->{tx} = {
		s => $step->{s}, iso => $step->{iso}, ops => [], savepoints => [], was_off => $session->{off}, keep_off => $session->{off},
		direct => {}, ever_direct => {}, first => {}, touched => {}
	};
	return;
}

# What works in a transaction that has failed.
my $always_runs = qr/^(commit|slow_commit|let_go|rollback|commit_chain|rollback_chain|rollback_to|prepare|reconnect)$/;

# Takes a step; $now is now() in the session. {error => pattern}, which must come
# unless it only may; {busy}; or {}. What was published since is in "committed".
sub take
{
	my ($self, $i, $step, @plain) = @_;
	my $session = $self->session($step->{s});
	my $method = $step->{parts} || $step->{rows} ? 'take_write' : "take_$step->{op}";
	my $expect = $session->{aborted} && $step->{op} !~ $always_runs ? { error => '25P02' }
	  : $self->can($method) ? $self->$method($i, $step, $session, @plain) : {};
	$session->{aborted} = 1 if $expect->{error} && !$expect->{maybe} && $session->{tx};
	return $expect;
}

sub take_begin
{
	my ($self, $i, $step, $session) = @_;
	open_tx($step, $session) unless $session->{tx};
	return {};
}

sub take_commit
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx};
	return $self->take_rollback($i, $step, $session) if !$tx || $session->{aborted};
	$self->publish($i, $tx);
	@$session{qw(tx aborted off)} = (undef, 0, $tx->{keep_off});
	$self->{since} = {} unless $self->direct_txs;
	return {};
}

sub publish
{
	my ($self, $i, $tx) = @_;
	$tx->{commit} = $i;
	push @{ $self->{committed} }, $tx if @{ $tx->{ops} };
	for my $op (@{ $tx->{ops} })
	{
		my $key = "$op->{t}:$op->{class}";
		$self->{plain_only}{$key} = $op->{full} ? $self->{plain_only}{$key} // 'yes' : 'no';
		next if defined $tx->{direct}{ $op->{t} };
		$self->{paused}{ $op->{t} } = 'rows' if $self->{paused}{ $op->{t} };
		$self->{since}{$key} = 1 if $self->direct_txs($tx);
	}
	return;
}

# COMMIT is sent, and stops in the middle until let_go.
sub take_slow_commit
{
	my ($self, $i, $step, $session) = @_;
	return $self->take_commit($i, $step, $session) unless $self->will_wait($session);
	$session->{busy} = 1;
	return { busy => 1 };
}

# Whether there is something to commit.
sub will_wait { my ($self, $session) = @_; return $session->{tx} && !$session->{aborted}; }

sub take_let_go
{
	my ($self, $i) = @_;
	for my $session (grep { $_->{busy} } @{ $self->{sessions} })
	{
		delete $session->{busy};
		$self->take_commit($i, undef, $session);
	}
	return {};
}

sub take_rollback
{
	my ($self, $i, $step, $session) = @_;
	$session->{off} = $session->{tx}{was_off} if $session->{tx};
	@$session{qw(tx aborted)} = (undef, 0);
	$self->{since} = {} unless $self->direct_txs;
	return {};
}

sub take_reconnect
{
	my ($self, $i, $step, $session) = @_;
	$self->take_rollback($i, $step, $session);
	$session->{off} = 0;
	return {};
}

# All connections are new.
sub take_restart { my ($self) = @_; $_->{off} = 0 for @{ $self->{sessions} }; $self->{paused} = {}; return {}; }
sub take_crash { my ($self) = @_; $_->{off} = 0 for @{ $self->{sessions} }; return {}; }

sub take_commit_chain { return shift->take_chain('take_commit', @_); }
sub take_rollback_chain { return shift->take_chain('take_rollback', @_); }

sub take_chain
{
	my ($self, $ends, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	$self->$ends($i, $step, $session);
	open_tx($tx, $session);
	return {};
}

# PREPARE TRANSACTION with pending rows is refused, which ends the transaction
# as any failure of it does. Of a failed transaction it is a ROLLBACK.
sub take_prepare
{
	my ($self, $i, $step, $session) = @_;
	my $refused = $session->{tx} && !$session->{aborted};
	$self->take_rollback($i, $step, $session);
	return $refused ? { error => '0A000' } : {};
}

sub take_savepoint
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	push @{ $tx->{savepoints} }, [ $step->{name}, scalar @{ $tx->{ops} }, $session->{off}, $tx->{keep_off} ];
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

# Keeps the first $n operations.
sub undo_ops
{
	my ($tx, $n) = @_;
	$#{ $tx->{ops} } = $n - 1;
	delete @{ $tx->{direct} }{ grep { $tx->{direct}{$_} >= $n } keys %{ $tx->{direct} } };
	return;
}

sub take_rollback_to
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	my $n = find_savepoint($tx, $step->{name});
	return { error => '3B001' } if $n < 0;
	$#{ $tx->{savepoints} } = $n;
	undo_ops($tx, $tx->{savepoints}[$n][1]);
	($session->{off}, $tx->{keep_off}) = @{ $tx->{savepoints}[$n] }[ 2, 3 ];
	$session->{aborted} = 0;
	return {};
}

sub take_release
{
	my ($self, $i, $step, $session) = @_;
	my $tx = $session->{tx} or return { error => '25P01' };
	my $n = find_savepoint($tx, $step->{name});
	return { error => '3B001' } if $n < 0;
	$#{ $tx->{savepoints} } = $n - 1;
	return {};
}

# ---- writing -----------------------------------------------------------

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

# $plain makes the plain statements of one row.
sub take_write
{
	my ($self, $i, $step, $session, $plain) = @_;
	my @errors = $self->is_held_up($session, $step) ? ('55000') : ();
	# A row before the bad one may be refused by the table itself, if it is
	# written at once.
	push @errors, $error_of{ $step->{bad} }, $self->writes_directly($session, $step->{t}) ? '23502' : () if $step->{bad};
	return { error => join('|', @errors) } if @errors;
	my $auto = !$session->{tx};
	open_tx($step, $session) if $auto;
	$self->add_parts($session->{tx}, $i, $plain // sub { () }, $step->{parts} ? @{ $step->{parts} } : $step);
	$self->take_commit($i, $step, $session) if $auto;
	return {};
}

# Parts of a DO block are in subtransactions, some of which fail and are caught.
sub add_parts
{
	my ($self, $tx, $i, $plain, @parts) = @_;
	for my $part (@parts)
	{
		my $before = @{ $tx->{ops} };
		$part->{parts} ? $self->add_parts($tx, $i, $plain, @{ $part->{parts} }) : $self->add_rows($tx, $i, $plain, $part);
		undo_ops($tx, $before) if $part->{raise};
	}
	return;
}

sub add_rows
{
	my ($self, $tx, $i, $plain, $step) = @_;
	my $t = $step->{t};
	for my $row (@{ $step->{rows} })
	{
		my $class = $self->classes($t)->[ $row->{k} ];
		my $op = { t => $t, class => $class, at => $i, full => $step->{op} eq 'delete' || is_typed($step->{form}), sql => [ $plain->($step, $row) ] };
		$tx->{first}{$t} //= $i;
		$tx->{touched}{"$t:$class"} = 1;
		if ($self->writes_directly($self->session($tx->{s}), $t))
		{
			$tx->{direct}{$t} //= @{ $tx->{ops} };
			$tx->{ever_direct}{$t} = 1;
		}
		push @{ $tx->{ops} }, $op;
	}
	return;
}

# ---- flushing, pausing -------------------------------------------------

# Of a group all are flushed, if rows of one that is paused do not forbid it.
sub take_flush
{
	my ($self, $i, $step, $session) = @_;
	return { error => '55000' } if grep { $self->{paused}{$_} } @{ $step->{ts} };
	return { error => '55000', maybe => 1 } if $self->{program}{group} && %{ $self->{paused} };
	return {};
}

sub take_pause { my ($self, $i, $step) = @_; $self->{paused}{ $step->{t} } //= 1; return {}; }
sub take_resume { my ($self, $i, $step) = @_; delete $self->{paused}{ $step->{t} }; return {}; }
sub take_alter { my ($self, $i, $step) = @_; $self->{program} = { %{ $self->{program} }, targets => [ @{ $self->{program}{targets} } ] };
	$self->{program}{targets}[ $step->{t} ] = $step->{to}; return {}; }

# ---- writing without the buffer ----------------------------------------

# With batchdedup.enabled = off or mode "direct" rows are written at the call,
# and their locks are held until the COMMIT. Sessions are driven by one
# process, so no session may wait for a lock, or for a worker that waits for one:
# while a transaction has written directly no other does, and no session waits
# for a flush that others' rows of the same keys could hold up.

sub take_enabled
{
	my ($self, $i, $step, $session) = @_;
	$session->{off} = $step->{on} ? 0 : 1;
	$session->{tx}{keep_off} = $session->{off} if $session->{tx} && !$step->{local};
	return {};
}

sub take_mode
{
	my ($self, $i, $step) = @_;
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
	return grep { %{ $_->{ever_direct} } && (!$except || $_ != $except) } $self->open_txs;
}

sub keys_of_step
{
	my ($self, $step) = @_;
	my %keys;
	for my $writer (writers($step))
	{
		my $classes = $self->classes($writer->{t});
		$keys{"$writer->{t}:$classes->[ $_->{k} ]"} = 1 for @{ $writer->{rows} };
	}
	return sort keys %keys;
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

# Every transaction that has called for the target has locked it.
sub mode_problem
{
	my ($self, $step) = @_;
	return 'a mode cannot change under an open transaction'
	  if $self->is_busy || $self->direct_txs || grep { exists $_->{first}{ $step->{t} } } $self->open_txs;
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
	return undef if $tx && $step->{op} !~ /commit/;
	my @keys = $tx ? keys %{ $tx->{touched} } : $self->keys_of_step($step);
	return 'another order is right, too' if grep { my $key = $_; grep { $_->{touched}{$key} } @others } @keys;
	return undef;
}

1;
