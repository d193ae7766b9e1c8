package Random::Text;

# Dice, and texts as SQL and JSON want them.

use strict;
use warnings;
use Exporter qw(import);
use List::Util qw(sum);

our @EXPORT_OK = qw(chance pick weighted ident names literal json_string);

# ---- dice --------------------------------------------------------------

sub chance { return rand() < $_[0]; }
sub pick { return $_[ int rand @_ ]; }

# A key of a hash of weights.
sub weighted
{
	my ($weights) = @_;
	my $dice = rand() * sum(values %$weights);
	for my $name (sort keys %$weights)
	{
		return $name if ($dice -= $weights->{$name}) < 0;
	}
	return (sort keys %$weights)[-1];
}

# ---- texts -------------------------------------------------------------

sub ident
{
	my ($name) = @_;
	return $name if $name =~ /^[a-z_][a-z_0-9]*$/;
	$name =~ s/"/""/g;
	return qq{"$name"};
}

sub names { return join(', ', map { ident($_) } @_); }

# A quoted literal that means the same whatever standard_conforming_strings is.
sub literal
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return $text =~ s/\\/\\\\/g ? "E'$text'" : "'$text'";
}

sub json_string
{
	my ($text) = @_;
	$text =~ s/(["\\])/\\$1/g;
	$text =~ s/\n/\\n/g;
	return qq{"$text"};
}

1;
