package PowerLoss;

# The sudden end of a server: of all its processes at once, or of one of them.

use strict;
use warnings;
use Exporter 'import';
use PostgreSQL::Test::Utils;
use Time::HiRes qw(sleep time);

use Server qw($node start_server);

our @EXPORT_OK = qw(start_with_small_segments power_loss crash await_end children_of);

# For start_with_small_segments: what nobody flushes is not flushed by itself.
our $lazy = <<'CONF';
wal_writer_delay = '10s'
wal_writer_flush_after = '1GB'
bgwriter_delay = '10s'
autovacuum = off
batchdedup.debug_point = ''
CONF

# The test's server, with small segments, so that WAL that is not needed goes soon.
sub start_with_small_segments
{
	my ($name, @settings) = @_;
	return start_server($name, { extra => ['--wal-segsize=1'] }, <<'CONF', @settings);
batchdedup.retry_backoff = '10ms'
min_wal_size = '2MB'
max_wal_size = '10MB'
log_statement = none
CONF
}

# pid => title of the server's processes
sub children_of
{
	my ($postmaster) = @_;
	my %children;
	foreach my $stat (glob '/proc/[0-9]*/stat')
	{
		my $line = eval { slurp_file($stat) } // next;
		my ($pid, $parent) = $line =~ /^(\d+) \(.*\) \w (\d+)/s or next;
		next if $parent != $postmaster;
		my $title = eval { slurp_file("/proc/$pid/cmdline") } // '';
		$title =~ tr/\0/ /;
		$children{$pid} = $title;
	}
	return %children;
}

# Also true of a process that nobody has waited for yet.
sub has_ended
{
	my ($pid) = @_;
	my $line = eval { slurp_file("/proc/$pid/stat") } // return 1;
	return $line =~ /^\d+ \(.*\) [ZX] /s;
}

sub await_all
{
	my ($seconds, @pids) = @_;
	my $until = time + $seconds;
	foreach my $pid (@pids)
	{
		while (!has_ended($pid))
		{
			die "process $pid does not end" if time > $until;
			sleep 0.005;
		}
	}
	return;
}

# A dead postmaster that nobody has waited for yet looks alive to the next one.
sub forget
{
	my ($node) = @_;
	unlink $node->data_dir . '/postmaster.pid', $node->host . '/.s.PGSQL.' . $node->port . '.lock';
	$node->{_pid} = undef;
	return;
}

# All of the server's processes are gone at once; what they had in memory, too.
# The postmaster is stopped first so that it starts nothing meanwhile.
sub power_loss
{
	my ($node) = @_;
	my $postmaster = $node->{_pid} or return;
	kill 'STOP', $postmaster;
	my @children = keys %{ { children_of($postmaster) } };
	kill 'KILL', @children, $postmaster;
	await_all(60, @children, $postmaster);
	return forget($node);
}

# The test's server, back after a power loss.
sub crash
{
	power_loss($node);
	$node->start;
	return;
}

# Waits until a server without restart_after_crash has ended by itself.
sub await_end
{
	my ($node, $seconds) = @_;
	my $postmaster = $node->{_pid} or return;
	await_all($seconds // 60, $postmaster);
	return forget($node);
}

1;
