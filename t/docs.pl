# Runs every SQL example of README.md and docs/*.md, file by file and from top
# to bottom in a fresh database. A block that is followed by a ```text block
# must end with that output: white space and the row counts of psql aside.
# Links of all pages lead somewhere.
# docs/cron.md wants another server: t/cron.pl runs its examples.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use DocExamples qw(examples run_example broken_links);
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server);

my $root = "$FindBin::RealBin/..";
# a worker for the database of each page
start_server('docs', 'max_worker_processes = 32', "batchdedup.flush_interval = '1min'");

my $number = 0;
foreach my $file ("$root/README.md", sort glob "$root/docs/*.md")
{
	my ($name) = $file =~ m{([^/]+)$};
	next if $name eq 'cron.md';
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
		$at++;
		run_example($node, $database, "$name: example $at", @$example);
	}
}

# ---------- links ----------

foreach my $file (glob "$root/{,docs/,src/,src/*/,examples/data/}*.md")
{
	my $name = $file =~ s/^\Q$root\E\///r;
	is(join(', ', broken_links($file)), '', "$name: links lead somewhere");
}

done_testing();
