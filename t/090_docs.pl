# Runs every SQL example of README.md and docs/*.md, file by file and from top
# to bottom in a fresh database. A block that is followed by a ```text block
# must end with that output: white space and the row counts of psql aside.

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $node = PostgreSQL::Test::Cluster->new('docs');
$node->init;
$node->append_conf('postgresql.conf', 'wal_level = replica');
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'batchdedup'");
$node->start;

# Pairs of SQL and the output expected of it (or undef).
sub examples
{
	my ($text) = @_;
	my @examples;
	while ($text =~ /^```(\w*)\n(.*?)^```$/msg)
	{
		my ($kind, $body) = ($1, $2);
		push @examples, [ $body, undef ] if $kind eq 'sql';
		$examples[-1][1] = $body if $kind eq 'text' && @examples;
	}
	return @examples;
}

sub squeeze
{
	my ($output) = @_;
	$output =~ s/^\(\d+ rows?\)$//mg;
	$output =~ s/-+/-/g;
	$output =~ s/\s+/ /g;
	$output =~ s/^ | $//g;
	return $output;
}

my $number = 0;
foreach my $file ("$root/README.md", sort glob "$root/docs/*.md")
{
	my ($name) = $file =~ m{([^/]+)$};
	my @examples = examples(slurp_file($file));
	next unless @examples;
	my $database = 'docs' . $number++;
	$node->safe_psql('postgres', "CREATE DATABASE $database");
	if ($name ne 'README.md')
	{
		$node->safe_psql($database, 'CREATE EXTENSION batchdedup');
	}
	my $at = 0;
	foreach my $example (@examples)
	{
		my ($sql, $expected) = @$example;
		my ($out, $err) = ('', '');
		$at++;
		my $status = $node->psql(
			$database, $sql,
			stdout => \$out,
			stderr => \$err,
			on_error_stop => 1,
			extra_params => [ '-P', 'tuples_only=off', '-P', 'format=aligned' ]);
		is($status, 0, "$name: example $at runs") or diag($err);
		next unless defined $expected;
		my $want = squeeze($expected);
		my $got = squeeze($out);
		is(substr($got, -length $want), $want, "$name: example $at shows what it says");
	}
}

done_testing();
