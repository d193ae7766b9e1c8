# A Redis of one's own, beside the server that is measured.

package Redis;

use strict;
use warnings;
use Exporter 'import';
use File::Temp qw(tempdir);
use Time::HiRes qw(usleep);

our @EXPORT = qw(have_redis start_redis run_redis);

my $directory = tempdir(CLEANUP => 1);
my %redis;    # name => pid

# Debian's redis-tools has the server, too, under the name of another of its jobs.
sub redis_program
{
	for my $name (qw(redis-server redis-check-rdb))
	{
		my ($program) = grep { -x } map { "$_/$name" } split /:/, $ENV{PATH};
		return $program if $program;
	}
	return;
}

sub have_redis
{
	return 1 if redis_program() && qx(redis-benchmark --version 2>&1);
	print "Redis is not installed (dev/install-deps bench): measured without\n";
	return 0;
}

sub start_redis
{
	my ($name, @settings) = @_;
	my $program = redis_program();
	mkdir "$directory/$name" or die "$directory/$name: $!\n";
	my $pid = fork // die "fork: $!\n";
	if ($pid == 0)
	{
		open STDOUT, '>', "$directory/$name/log";
		exec { $program } 'redis-server', '--port', 0, '--unixsocket', "$directory/$name/socket",
		  '--dir', "$directory/$name", '--save', '', @settings;
	}
	$redis{$name} = $pid;
	for (1 .. 100)
	{
		return if -S "$directory/$name/socket";
		usleep(50_000);
	}
	die "Redis did not start\n";
}

END
{
	my $status = $?;
	for my $pid (values %redis)
	{
		kill TERM => $pid;
		waitpid $pid, 0;
	}
	$? = $status;
}

# Runs a command so often, as pgbench does: one at a time for each connection,
# over a Unix socket. __rand_int__ in it is below $range. Returns how many per
# second.
sub run_redis
{
	my ($name, $clients, $count, $range, @command) = @_;
	open my $benchmark, '-|', 'redis-benchmark', '-s', "$directory/$name/socket", '-c', $clients, '-n', $count,
	  '-P', 1, '--threads', 2, '-r', $range, '--csv', @command
	  or die "redis-benchmark: $!\n";
	my @results = <$benchmark>;
	close $benchmark;
	my ($rate) = ($results[-1] // '') =~ /","([\d.]+)"/;
	die "redis-benchmark failed:\n@results\n" if $? != 0 || !$rate;
	return $rate;
}

1;
