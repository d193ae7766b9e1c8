package RandomRulesRunner;

# Runs the programs of RandomRules: every step on the targets, and what has
# committed as plain statements on the oracle's tables, in the order of the
# COMMITs. Says what was not as expected: undef, or {kind, step, text}.
#
# Steps that make no sense where they stand are left out (ROLLBACK TO without a
# savepoint, a call that would wait for another session), so a program stays
# one when steps are taken out of it.
#
# Where COMMITs stop and are overtaken ("overlap") the tables are compared at
# the end, with every order that the contract allows: T1 before T2 whenever
# T1's COMMIT returned before T2's first upsert of a key.
#
# While targets of one group are written, somebody watches: whatever he sees is
# what they were after one of the COMMITs, with all of it.

use strict;
use warnings;
use DBD::Pg qw(:async);
use DBI;
use Time::HiRes qw(usleep);
use RandomRules;

use constant MAX_ORDERS => 3000;
use constant WATCHER => 9;

sub new
{
	my ($class, %args) = @_;
	my $self = bless { %args, databases => 0, count => {}, sessions => [] }, $class;
	$self->new_database;
	return $self;
}

# ---- server ------------------------------------------------------------

sub connect_to
{
	my ($self) = @_;
	my $node = $self->{node};
	my $dbh = DBI->connect("dbi:Pg:dbname=$self->{dbname};host=" . $node->host . ';port=' . $node->port,
		undef, undef, { RaiseError => 1, PrintError => 0, PrintWarn => 0, AutoCommit => 1, AutoInactiveDestroy => 1 });
	$dbh->{pg_placeholder_dollaronly} = 1;
	$dbh->do("SET client_min_messages = error; SET timezone = 'UTC'; SET oracle.now = 'none'; SET statement_timeout = '20s'");
	return $dbh;
}

# Session 0 looks at tables and writes the oracle's.
sub dbh { my ($self, $s) = @_; return $self->{sessions}[$s] //= $self->connect_to; }

sub disconnect
{
	my ($self) = @_;
	$_->disconnect for grep { $_ } @{ $self->{sessions} };
	$self->{sessions} = [];
	return;
}

# After a failure: whatever the server is in, the next program starts afresh.
sub new_database
{
	my ($self) = @_;
	my $node = $self->{node};
	$self->disconnect;
	if ($self->{dbname})
	{
		$node->stop('immediate', fail_ok => 1);
		$node->start;
		$node->safe_psql('postgres', "DROP DATABASE $self->{dbname} WITH (FORCE)");
	}
	$self->{dbname} = 'rules_' . ++$self->{databases};
	$node->safe_psql('postgres', "CREATE DATABASE $self->{dbname}");
	$self->dbh(0)->do($_) for 'CREATE EXTENSION batchdedup', RandomRules::setup_sql(),
	  "CREATE FUNCTION bdd_debug_release() RETURNS void LANGUAGE C AS '\$libdir/batchdedup'", watch_sql();
	return;
}

sub failure { my ($kind, @text) = @_; die { kind => $kind, text => join("\n", @text) }; }

# The rows of the last statement, or {state, message}.
sub try
{
	my ($self, $s, $sql) = @_;
	my $dbh = $self->dbh($s);
	my ($first, $last) = $sql =~ /^((?:INSERT|DO) .*); (SELECT [^;]*)$/s ? ($1, $2) : (undef, $sql);
	my $rows = eval {
		$dbh->do($first) if defined $first;
		my $sth = $dbh->prepare($last, { pg_direct => 1 });
		$sth->execute;
		$sth->{NUM_OF_FIELDS} ? $sth->fetchall_arrayref : [];
	};
	return { rows => $rows } if $rows;
	return { state => $dbh->state, message => $dbh->errstr // $@ };
}

sub execute
{
	my ($self, $s, $sql) = @_;
	my $result = $self->try($s, $sql);
	failure("error $result->{state}", "$result->{state}: $result->{message}", $sql) unless $result->{rows};
	return $result->{rows};
}

sub lines { my ($self, $sql) = @_; return join("\n", map { "  $_->[0]" } @{ $self->dbh(0)->selectall_arrayref($sql) }); }

# ---- the oracle --------------------------------------------------------

sub oracle_do
{
	my ($self, @sql) = @_;
	return unless @sql;
	return if eval { $self->dbh(0)->do(join('; ', @sql)); 1 };
	my $error = $@;
	eval { $self->dbh(0)->do('ROLLBACK') };
	return failure('test', 'the plain statements fail', $error, @sql);
}

sub oracle_text
{
	my ($self) = @_;
	return join("\n--\n", map { $self->table_text($_, RandomRules::oracle_name($_)) } @{ $self->{program}{targets} });
}

sub targets_text
{
	my ($self) = @_;
	return join("\n--\n", map { $self->table_text($_, RandomRules::target_name($_)) } @{ $self->{program}{targets} });
}

sub table_text
{
	my ($self, $target, $table) = @_;
	my $shape = RandomRules::shape($target);
	return $self->lines(RandomRules::totals_sql($table)) if $shape->{total} && $table =~ /^t_/;
	my $text = $self->lines(RandomRules::table_rows_sql($shape, $table));
	return $text unless $shape->{log};
	return "$text\n  log\n" . $self->lines(RandomRules::log_sql($table));
}

sub statements { return map { @{ $_->{sql} } } @{ $_[0]{ops} }; }

# ---- orders ------------------------------------------------------------

sub must_precede
{
	my ($first, $second) = @_;
	return scalar grep { exists $first->{first}{$_} && $first->{commit} < $second->{first}{$_} } keys %{ $second->{first} };
}

# Looks for an order that ends with these tables. After the same transactions
# the same state comes up again and again, and is looked at once.
sub find_order
{
	my ($self, $wanted) = @_;
	my @txs = @{ $self->{committed} };
	my @before = map { my $n = $_; [ grep { $_ != $n && must_precede($txs[$_], $txs[$n]) } 0 .. $#txs ] } 0 .. $#txs;
	my (%used, %seen);
	my $nodes = 0;
	my $walk;
	$walk = sub {
		my $state = $self->oracle_text;
		return $state eq $wanted if keys %used == @txs;
		return 0 if $seen{ join(',', sort keys %used) . "/$state" }++;
		for my $n (grep { !$used{$_} } 0 .. $#txs)
		{
			next if grep { !$used{$_} } @{ $before[$n] };
			return 1 if ++$nodes > MAX_ORDERS;
			$used{$n} = 1;
			$self->oracle_do("SAVEPOINT s$nodes", statements($txs[$n]));
			my $at = $nodes;
			return 1 if $walk->();
			$self->oracle_do("ROLLBACK TO s$at", "RELEASE s$at");
			delete $used{$n};
		}
		return 0;
	};
	$self->oracle_do('BEGIN', grep { /\bo_/ } RandomRules::reset_sql($self->{program}));
	my $found = $walk->();
	undef $walk;
	$self->{count}{'orders given up'}++ if $nodes > MAX_ORDERS;
	$self->{count}{'orders looked at'} += $nodes;
	my $last = $self->oracle_text;
	$self->oracle_do('ROLLBACK');
	return ($found, $last);
}

# ---- the watcher -------------------------------------------------------

# Notes what a query says, as often as that changes, until somebody stops it.
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

sub state_of { my ($self, $name) = @_; return $self->dbh(0)->selectrow_array(RandomRules::state_sql($self->{program}, $name)); }

# What the plain tables are after a COMMIT that wrote these targets.
sub note_state
{
	my ($self, @written) = @_;
	push @{ $self->{states} }, { text => $self->state_of(\&RandomRules::oracle_name), written => { map { $_ => 1 } @written } } if $self->is_watched;
	return;
}

sub start_watching
{
	my ($self) = @_;
	return unless $self->is_watched;
	$self->dbh(0)->do('UPDATE watching SET on_duty = true');
	my $query = RandomRules::state_sql($self->{program}, \&RandomRules::target_name);
	$self->{watch} = $self->dbh(WATCHER)->prepare('CALL watch(' . RandomRules::literal($query) . ', NULL)', { pg_async => PG_ASYNC, pg_direct => 1 });
	$self->{watch}->execute;
	return;
}

# All that was seen, one after the other, and nothing else.
sub stop_watching
{
	my ($self) = @_;
	return unless $self->is_watched;
	$self->dbh(0)->do('UPDATE watching SET on_duty = false');
	$self->{watch}->pg_result;
	my ($seen) = @{ delete($self->{watch})->fetchall_arrayref->[0] };
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

# ---- sessions ----------------------------------------------------------

sub open_tx { my ($self, $s) = @_; return $self->{state}[$s]{tx} = { s => $s, ops => [], savepoints => [], first => {} }; }

sub open_txs { my ($self) = @_; return grep { $_ } map { $_->{tx} } @{ $self->{state} }; }

sub is_busy { my ($self) = @_; return scalar grep { $_->{busy} } @{ $self->{state} }; }

sub is_direct { my ($self, $s, $t) = @_; return $self->{state}[$s]{off} || $self->{direct}{$t} || ($self->{state}[$s]{tx} && $self->{state}[$s]{tx}{direct}); }

# Row locks that a direct writer holds would stop others, and the worker; and
# what is published meanwhile may end on top, or below.
sub must_wait { my ($self, $s) = @_; return scalar grep { $_->{direct} && $_->{s} != $s } $self->open_txs; }

sub publish
{
	my ($self, $i, $s) = @_;
	my $tx = delete $self->{state}[$s]{tx};
	$self->{state}[$s]{off} = 0 if $tx->{local};
	$tx->{commit} = $i;
	push @{ $self->{committed} }, $tx if @{ $tx->{ops} };
	return if !@{ $tx->{ops} } || $self->{program}{overlap};
	$self->oracle_do('BEGIN', statements($tx), 'COMMIT');
	$self->note_state(map { @{ $_->{t} } } @{ $tx->{ops} });
	return;
}

# ---- steps -------------------------------------------------------------

# Each step_... returns false if it makes no sense here.

sub step_write
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->must_wait($s);
	my $program = $self->{program};
	my @all = $step->{parts} ? @{ $step->{parts} } : $step;
	my $auto = !$self->{state}[$s]{tx};
	my $tx = $self->{state}[$s]{tx} // $self->open_tx($s);
	$tx->{direct} = 1 if grep { $self->is_direct($s, $_->{t}) } @all;
	for my $part (@all)
	{
		my $classes = RandomRules::shape($program->{targets}[ $part->{t} ])->{class};
		$tx->{first}{"$part->{t}:$classes->[$_->{k}]"} //= $i for @{ $part->{rows} };
	}
	my $rows = $self->execute($s, RandomRules::step_sql($program, $step));
	my @sql = map { RandomRules::plain_writes($program, $_) } RandomRules::writers($step);
	push @{ $tx->{ops} }, { t => [ map { $_->{t} } RandomRules::writers($step) ], sql => [ 'SET LOCAL oracle.now = ' . RandomRules::literal($rows->[0][0]), @sql ] };
	$self->publish($i, $s) if $auto;
	return 1;
}

sub step_begin
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->{state}[$s]{tx};
	$self->execute($s, 'BEGIN');
	$self->open_tx($s);
	return 1;
}

sub step_commit
{
	my ($self, $i, $step, $s) = @_;
	return 0 if !$self->{state}[$s]{tx} || $self->must_wait($s);
	$self->execute($s, 'COMMIT');
	$self->publish($i, $s);
	return 1;
}

# COMMIT is sent and stops in the middle. It needs a moment to get there;
# should it be late, that is another legal order.
sub step_slow_commit
{
	my ($self, $i, $step, $s) = @_;
	return 0 unless $self->{state}[$s]{tx} && @{ $self->{state}[$s]{tx}{ops} };
	$self->execute($s, "SET LOCAL batchdedup.debug_point = '$step->{point}:wait'");
	$self->dbh($s)->do('COMMIT', { pg_async => PG_ASYNC });
	$self->{state}[$s]{busy} = 1;
	usleep(1000);
	return 1;
}

sub step_let_go
{
	my ($self, $i) = @_;
	for my $s (grep { $self->{state}[$_]{busy} } 1 .. $self->{program}{sessions})
	{
		my $dbh = $self->dbh($s);
		while (!$dbh->pg_ready)
		{
			$self->dbh(0)->do('SELECT bdd_debug_release()');
			usleep(500);
		}
		eval { $dbh->pg_result; 1 } or failure('error ' . $dbh->state, 'COMMIT: ' . $dbh->errstr);
		delete $self->{state}[$s]{busy};
		$self->publish($i, $s);
	}
	return 1;
}

sub step_rollback
{
	my ($self, $i, $step, $s) = @_;
	my $tx = delete $self->{state}[$s]{tx} or return 0;
	$self->{state}[$s]{off} = 0 if $tx->{local};
	$self->execute($s, 'ROLLBACK');
	return 1;
}

sub step_savepoint
{
	my ($self, $i, $step, $s) = @_;
	my $tx = $self->{state}[$s]{tx} or return 0;
	$self->execute($s, "SAVEPOINT $step->{name}");
	push @{ $tx->{savepoints} }, [ $step->{name}, scalar @{ $tx->{ops} }, $self->{state}[$s]{off} ];
	return 1;
}

sub find_savepoint
{
	my ($tx, $name) = @_;
	my $n = $tx ? $#{ $tx->{savepoints} } : -1;
	$n-- while $n >= 0 && $tx->{savepoints}[$n][0] ne $name;
	return $n;
}

sub step_rollback_to
{
	my ($self, $i, $step, $s) = @_;
	my $tx = $self->{state}[$s]{tx};
	my $n = find_savepoint($tx, $step->{name});
	return 0 if $n < 0;
	$self->execute($s, "ROLLBACK TO $step->{name}");
	$#{ $tx->{savepoints} } = $n;
	$#{ $tx->{ops} } = $tx->{savepoints}[$n][1] - 1;
	$self->{state}[$s]{off} = $tx->{savepoints}[$n][2];
	return 1;
}

sub step_release
{
	my ($self, $i, $step, $s) = @_;
	my $tx = $self->{state}[$s]{tx};
	my $n = find_savepoint($tx, $step->{name});
	return 0 if $n < 0;
	$self->execute($s, "RELEASE $step->{name}");
	$#{ $tx->{savepoints} } = $n - 1;
	return 1;
}

# SET LOCAL inside of a transaction, so that it ends with it.
sub step_enabled
{
	my ($self, $i, $step, $s) = @_;
	my $tx = $self->{state}[$s]{tx};
	return 0 if $tx && $self->{state}[$s]{off} && !$tx->{local};
	$self->execute($s, RandomRules::step_sql($self->{program}, { %$step, local => $tx ? 1 : 0 }));
	$tx->{local} = 1 if $tx;
	$self->{state}[$s]{off} = $step->{on} ? 0 : 1;
	return 1;
}

sub step_mode
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->open_txs;
	$self->execute($s, RandomRules::step_sql($self->{program}, $step));
	$self->{direct}{ $step->{t} } = $step->{mode} eq 'direct' ? 1 : 0;
	return 1;
}

sub step_flush
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->is_busy || $self->must_wait($s) || $self->{state}[$s]{tx};
	my $result = $self->try($s, RandomRules::step_sql($self->{program}, $step));
	return 1 if ($result->{state} // '') eq '55000' && $self->is_held;
	failure("error $result->{state}", "$result->{state}: $result->{message}", 'flush') unless $result->{rows};
	return 1 if $self->{program}{overlap};
	my $target = $self->{program}{targets}[ $step->{t} ];
	$self->compare_tables('flushed', $target);
	return 1;
}

# One of a group is paused: then all wait, as far as it has rows.
sub step_hold
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->{state}[$s]{tx} || $self->{held}{ $step->{t} };
	$self->execute($s, RandomRules::step_sql($self->{program}, $step));
	$self->{held}{ $step->{t} } = @{ $self->{states} };
	usleep(2000); # an apply that has begun is finished
	return 1;
}

# Nothing of it has been applied since.
sub check_held
{
	my ($self, $t) = @_;
	my $state = $self->state_of(\&RandomRules::target_name);
	my $written = 0;
	for my $n (0 .. $#{ $self->{states} })
	{
		$written ||= $n >= $self->{held}{$t} && $self->{states}[$n]{written}{$t};
		return if !$written && $self->{states}[$n]{text} eq $state;
	}
	return failure('held', "target $t is paused, and its rows are applied:", $state);
}

sub is_held { my ($self) = @_; return scalar %{ $self->{held} }; }

sub step_unhold
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->{state}[$s]{tx} || !$self->is_held;
	$self->resume_all($s);
	return 1;
}

sub resume_all
{
	my ($self, $s) = @_;
	$self->check_held($_) for $self->is_watched ? sort keys %{ $self->{held} } : ();
	$self->execute($s, "SELECT batchdedup.resume('" . RandomRules::target_name($self->{program}{targets}[$_]) . "')") for sort keys %{ $self->{held} };
	$self->{held} = {};
	return;
}

sub flush_all
{
	my ($self, $s) = @_;
	$self->execute($s, 'SELECT batchdedup.flush(' . join(', ', map { "'" . RandomRules::target_name($_) . "'" } @{ $self->{program}{targets} }) . ')');
	return;
}

# A row is deleted, and its foreign keys do the rest: as plainly only while
# nothing is buffered.
sub step_cascade
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->{program}{overlap} || $self->{state}[$s]{tx} || $self->is_busy || $self->is_held;
	$self->flush_all($s);
	$self->step_write($i, { op => 'delete', t => $step->{t}, form => 'json', rows => [ { k => $step->{k}, v => {} } ] }, $s);
	$self->flush_all($s);
	$self->compare_tables('cascade', @{ $self->{program}{targets} });
	return 1;
}

# Paused, and resumed at once.
sub step_pause
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->{program}{direct} || $self->is_busy || $self->{held}{ $step->{t} };
	$self->execute($s, RandomRules::step_sql($self->{program}, $step));
	$self->execute($s, RandomRules::step_sql($self->{program}, { %$step, op => 'resume' }));
	return 1;
}

# The rules change; what was said before keeps the old ones. That brings in the
# rows of this target without those of its group.
sub step_alter
{
	my ($self, $i, $step, $s) = @_;
	my $program = $self->{program};
	return 0 if $program->{overlap} || $self->open_txs || $self->is_held;
	$self->flush_all($s) if $program->{group};
	my @targets = @{ $program->{targets} };
	$targets[ $step->{t} ] = $step->{to};
	$self->{program} = { %$program, targets => \@targets };
	$self->execute($s, $_) for RandomRules::alter_target_sql($step->{to});
	return 1;
}

# What was committed is in the journal.
sub step_crash
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->open_txs || $self->is_busy || grep { !$_->{logged} } @{ $self->{program}{targets} };
	$self->stop_watching;
	$self->disconnect;
	$_->{off} = 0 for @{ $self->{state} };
	$self->{node}->stop('immediate');
	$self->{node}->start;
	$self->start_watching;
	return 1;
}

# The rows of a paused target outlive a restart in a file, or in the journal.
sub step_restart
{
	my ($self, $i, $step, $s) = @_;
	return 0 if $self->open_txs || $self->is_busy;
	my @names = map { RandomRules::target_name($_) } @{ $self->{program}{targets} };
	$self->resume_all(0);
	$self->execute(0, "SELECT batchdedup.pause('$_')") for @names;
	$self->stop_watching;
	$self->disconnect;
	$_->{off} = 0 for @{ $self->{state} };
	$self->{node}->restart;
	$self->start_watching;
	$self->execute(0, "SELECT batchdedup.resume('$_')") for @names;
	return 1;
}

sub step_plainly { my ($self, $i, $step, $s) = @_; $self->execute($s, RandomRules::step_sql($self->{program}, $step)); return 1; }

# What the session should see: all that is committed, and its own rows.
sub expected_lines
{
	my ($self, $s, $sql) = @_;
	my $tx = $self->{state}[$s]{tx};
	$self->oracle_do('BEGIN', $tx ? statements($tx) : ());
	my $text = $self->lines($sql);
	$self->oracle_do('ROLLBACK');
	return $text;
}

# In a subtransaction, as it may say that it does not know.
sub read_lines
{
	my ($self, $s, $target, $sql) = @_;
	my $tx = $self->{state}[$s]{tx};
	$self->execute($s, 'SAVEPOINT reading') if $tx;
	my $result = $self->try($s, $sql);
	$self->execute($s, ($result->{rows} ? 'RELEASE' : 'ROLLBACK TO') . ' reading') if $tx;
	return join("\n", map { "  $_->[0]" } @{ $result->{rows} }) if $result->{rows};
	failure("error $result->{state}", "$result->{state}: $result->{message}", $sql)
	  unless $result->{state} eq '0A000' && $result->{message} =~ /not known before it is applied/ && RandomRules::may_be_unknown($target);
	$self->{count}{unknown}++;
	return undef;
}

sub step_read
{
	my ($self, $i, $step, $s) = @_;
	my $target = $self->{program}{targets}[ $step->{t} ];
	my $shape = RandomRules::shape($target);
	return 0 if $self->{program}{overlap} || $shape->{append} || $shape->{refuses};
	my @without = ($shape->{spelled} ? @{ $shape->{key} } : (), RandomRules::volatile_columns($shape));
	my $one = $step->{op} eq 'get' || !$step->{all};
	my $where = $one ? 'WHERE ' . RandomRules::key_condition($shape, $step->{k}) : '';
	my $expected = $self->expected_lines($s, 'SELECT (' . RandomRules::shown_sql($shape, 'one_row', @without) . ')::text FROM '
		  . RandomRules::oracle_name($target) . " AS one_row $where ORDER BY 1");
	my $call = RandomRules::step_sql($self->{program}, $step) =~ s/^SELECT //r;
	my $actual = $self->read_lines($s, $target, $step->{op} eq 'get'
		? 'SELECT (' . join(' - ', 'doc', map { RandomRules::literal($_) } @without) . ")::text FROM $call AS doc WHERE doc IS NOT NULL"
		: 'SELECT (' . RandomRules::shown_sql($shape, 'one_row', @without) . ')::text FROM ' . RandomRules::target_name($target) . "_buffered AS one_row $where ORDER BY 1");
	failure($step->{op}, 'expected:', $expected, 'is:', $actual) if defined $actual && $actual ne $expected;
	return 1;
}

my %method = (upsert => 'write', delete => 'write', block => 'write', get => 'read', view => 'read', sleep => 'plainly', kill_worker => 'plainly');

sub run_step
{
	my ($self, $i, $step) = @_;
	return if $self->{state}[ $step->{s} ]{busy} && $step->{op} ne 'let_go';
	my $method = 'step_' . ($method{ $step->{op} } // $step->{op});
	$self->{count}{ $step->{op} }++ if $self->$method($i, $step, $step->{s});
	return;
}

# ---- programs ----------------------------------------------------------

sub compare_tables
{
	my ($self, $what, @targets) = @_;
	for my $target (@targets)
	{
		my ($expected, $actual) = map { $self->table_text($target, $_) } RandomRules::oracle_name($target), RandomRules::target_name($target);
		failure($what, "$target->{shape}, expected:", $expected, 'is:', $actual) if $actual ne $expected;
	}
	return;
}

sub letters
{
	my ($self) = @_;
	return $self->lines("SELECT target || ': ' || row::text || ' ' || sqlstate || ' ' || message FROM batchdedup.dead_letter"
		  . " WHERE target::regclass::text NOT LIKE 't_refused%' ORDER BY id");
}

# Sums of which one is too much may be applied later, as far as there is room.
sub retry_refused
{
	my ($self) = @_;
	for my $target (grep { RandomRules::shape($_)->{refuses} } @{ $self->{program}{targets} })
	{
		my $name = RandomRules::target_name($target);
		my ($letters) = $self->dbh(0)->selectrow_array("SELECT count(*) FROM batchdedup.dead_letter WHERE target = '$name'::regclass");
		$self->{count}{letters} += $letters;
		if (RandomRules::shape($target)->{total})
		{
			$self->execute(0, "SELECT batchdedup.retry_dead_letters('$name')");
			$self->compare_tables('retried', $target) unless $self->{program}{overlap};
		}
		$self->execute(0, "SELECT batchdedup.discard_dead_letters('$name')");
	}
	return;
}

sub settle
{
	my ($self) = @_;
	my $program = $self->{program};
	$self->step_let_go(scalar @{ $program->{steps} });
	for my $s (1 .. $program->{sessions})
	{
		$self->step_rollback(undef, undef, $s);
		$self->execute($s, 'RESET batchdedup.enabled') if $program->{direct};
	}
	for my $t (grep { $self->{direct}{$_} } keys %{ $self->{direct} })
	{
		$self->execute(0, RandomRules::step_sql($program, { op => 'mode', t => $t, mode => 'buffered' }));
	}
	$self->resume_all(0);
	$self->flush_all(0);
	$self->stop_watching;
	return;
}

sub check_end
{
	my ($self) = @_;
	my $program = $self->{program};
	my $letters = $self->letters;
	failure('letters', 'rows were refused:', $letters) if $letters ne '';
	if ($program->{overlap})
	{
		my $actual = $self->targets_text;
		my ($found, $last) = $self->find_order($actual);
		failure('final', 'no order of transactions that the contract allows ends like this:', $actual, 'the order of the COMMITs:', $last) unless $found;
	}
	else
	{
		$self->compare_tables('final', @{ $program->{targets} });
	}
	$self->retry_refused;
	return;
}

sub run
{
	my ($self, $program) = @_;
	@$self{qw(program state committed direct held states)} = ($program, [ map { {} } 0 .. $program->{sessions} ], [], {}, {}, []);
	my $i = 0;
	my $ok = eval {
		$self->oracle_do(map { RandomRules::alter_target_sql($_) } @{ $program->{targets} });
		$self->oracle_do(RandomRules::reset_sql($program));
		$self->note_state;
		$self->start_watching;
		$self->run_step($i++, $_) for @{ $program->{steps} };
		$i = undef;
		$self->settle;
		$self->check_end;
		1;
	};
	return undef if $ok;
	my $failure = ref $@ ? $@ : { kind => 'test', text => $@ };
	$failure->{step} = $i - 1 if defined $i;
	$self->new_database;
	return $failure;
}

1;
