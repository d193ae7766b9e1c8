# docs/reference.md is what `make reference` would write, and everything in the
# extension has a comment and a place there.

use strict;
use warnings;
use FindBin;
use lib "$FindBin::RealBin/lib";
use PostgreSQL::Test::Utils;
use Test::More;
use Server qw($node start_server);

my $root = "$FindBin::RealBin/..";
start_server('reference');

my ($status, $page, $complaints) = page('postgres');
is($complaints, '', 'everything has a comment and a place');
is($status, 0, 'dev/reference --page says so');
ok($page eq slurp_file("$root/docs/reference.md"), 'docs/reference.md is up to date')
  or diag("run: make reference\n" . differences($page));

# ---------- what is missing is told ----------

$node->safe_psql('postgres', 'CREATE DATABASE bare');
$node->safe_psql('bare', <<'SQL');
CREATE EXTENSION batchdedup;
COMMENT ON FUNCTION batchdedup.pause(regclass) IS NULL;
COMMENT ON FUNCTION batchdedup.resume(regclass) IS E'goes on\ntargets: there is no such argument';
COMMENT ON VIEW batchdedup.target IS NULL;
COMMENT ON COLUMN batchdedup.event.payload IS NULL;
CREATE FUNCTION batchdedup.stray() RETURNS void LANGUAGE sql AS '';
COMMENT ON FUNCTION batchdedup.stray() IS 'of nobody';
ALTER EXTENSION batchdedup ADD FUNCTION batchdedup.stray();
SQL
($status, $page, $complaints) = page('bare');
is($status, 1, 'something is missing: the status says so');
is($complaints, <<'TEXT', 'something is missing: each is named');
reference: function batchdedup.pause(regclass) has no comment
reference: function batchdedup.resume(regclass) has no argument "targets", of which its comment speaks
reference: column event.payload has no comment
reference: target has no comment
reference: stray is in no section of t/lib/Reference.pm
TEXT

done_testing();

sub page
{
	my ($database) = @_;
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = $database;
	my ($out, $err) = ('', '');
	IPC::Run::run([ "$root/dev/reference", '--page' ], '>', \$out, '2>', \$err);
	return ($? >> 8, $out, $err);
}

sub differences
{
	my ($new) = @_;
	my $file = PostgreSQL::Test::Utils::tempdir() . '/reference.md';
	append_to_file($file, $new);
	my $out = '';
	IPC::Run::run([ 'diff', "$root/docs/reference.md", $file ], '>', \$out);
	return $out;
}
