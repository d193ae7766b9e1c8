package DocExamples;

# The SQL examples and the links of a page in Markdown.

use strict;
use warnings;
use Exporter 'import';
use File::Basename qw(dirname);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT_OK = qw(examples run_example broken_links);

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

# Runs one of them: it must end with the output expected, white space and the
# row counts of psql aside.
sub run_example
{
	my ($node, $database, $name, $sql, $expected) = @_;
	my ($out, $err) = ('', '');
	my $status = $node->psql(
		$database, $sql,
		stdout => \$out,
		stderr => \$err,
		on_error_stop => 1,
		extra_params => [ '-P', 'tuples_only=off', '-P', 'format=aligned' ]);
	is($status, 0, "$name runs") or diag($err);
	return unless defined $expected;
	my $want = squeeze($expected);
	my $got = squeeze($out);
	is(substr($got, -length $want), $want, "$name shows what it says");
	return;
}

# Links of a file that lead to no file, or to no heading of it.
sub broken_links
{
	my ($file) = @_;
	my @broken;
	foreach my $link (prose($file) =~ /\]\(([^)\s]+)\)/g)
	{
		next if $link =~ /^\w+:/;
		my ($path, $heading) = split /#/, $link, 2;
		$path = $path eq '' ? $file : dirname($file) . "/$path";
		push @broken, $link
		  unless -e $path && (!defined $heading || grep { $_ eq $heading } headings($path));
	}
	return @broken;
}

# The page without its examples, in which there are no links.
sub prose
{
	my ($file) = @_;
	return slurp_file($file) =~ s/^```.*?^```$//msgr;
}

# As GitHub names them.
sub headings
{
	my ($file) = @_;
	return map { lc(s/[^\w\s-]//gr) =~ tr/ /-/r } prose($file) =~ /^#+ +(.+?)$/mg;
}

1;
