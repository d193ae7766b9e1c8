# dev/layers, which `make lint` calls, refuses what breaks a rule of the house:
# one violation of each rule is planted in a copy of the sources.

use strict;
use warnings;
use FindBin;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my $copy = PostgreSQL::Test::Utils::tempdir();

sub run_layers
{
	my (@rules) = @_;
	my $says = `$root/dev/layers $copy @rules 2>&1`;
	return ($? >> 8, $says);
}

# A file of the copy, changed for the time of one look.
sub planted
{
	my ($rule, $file, $change, $expected, $name) = @_;
	my $path = "$copy/$file";
	my $before = -e $path ? slurp_file($path) : undef;
	my $after = $change->($before // '');
	isnt($after, $before // '', "$name: the file is changed");
	open my $out, '>', $path or die "$path: $!";
	print $out $after;
	close $out;
	my ($status, $says) = run_layers($rule);
	is($status, 1, "$name: refused");
	like($says, $expected, "$name: and named");
	if (defined $before)
	{
		open $out, '>', $path or die "$path: $!";
		print $out $before;
		close $out;
	}
	else
	{
		unlink $path;
	}
}

sub appending { my ($text) = @_; return sub { $_[0] . $text } }

sub including
{
	my ($header) = @_;
	return sub { $_[0] =~ s/\n\n(?=#include)/\n\n#include "$header"\n/r };
}

system_or_bail('tar', '-C', $root, '-cf', "$copy.tar", qw(src t bench dev examples));
system_or_bail('tar', '-C', $copy, '-xf', "$copy.tar");

my ($status, $says) = run_layers();
is($says, '', 'the sources break no rule');
is($status, 0, 'and dev/layers says so');

planted('order', 'src/row/rule.c', including('buffer/arena.h'),
	qr{^src/row/rule\.c:\d+: row may not include buffer/arena\.h}m, 'an include upward');
planted('order', 'src/LAYERS', sub { $_[0] =~ s/^watch\n//mr },
	qr{src/LAYERS does not name watch}, 'a folder without a place');
planted('circle', 'src/base/base.h', including('base/guc.h'),
	qr{needs base/base}, 'a circle of files');
planted('header', 'src/row/rule.c', appending("\nvoid\nbdd_planted(void)\n{\n}\n"),
	qr{bdd_planted is not static}, 'an external function without a declaration');
planted('header', 'src/row/rule.c', appending("\nextern int bdd_planted;\n"),
	qr{declares what another file has}, 'a declaration in a .c');
planted('header', 'src/row/rule.h', sub { $_[0] =~ s/\n#endif(?!.*#endif)/\nextern void bdd_planted(void);\n\n#endif/sr },
	qr{bdd_planted is not defined in src/row/rule\.c}, 'a declaration in the wrong header');
planted('alone', 'src/row/planted.h', appending("extern void bdd_planted(BddUnknown *unknown);\n"),
	qr{src/row/planted\.h: does not compile}, 'a header that needs another one before it');
planted('spi', 'src/buffer/arena.c', including('executor/spi.h'),
	qr{^src/buffer/arena\.c:\d+: SQL runs in}m, 'SPI below sql');
planted('version', 'src/buffer/arena.c', appending("#if PG_VERSION_NUM >= 170000\n#endif\n"),
	qr{versions of the server}, 'PG_VERSION_NUM outside of compat.h');
planted('event', 'src/batch/barrier.c', appending("static const char planted[] = \"INSERT INTO batchdedup.event (kind)\";\n"),
	qr{^src/batch/barrier\.c:\d+: events are written}m, 'an event from outside');
planted('length', 'src/buffer/arena.c', appending("\n" x 800),
	qr{^src/buffer/arena\.c: has \d+ lines}m, 'a long file');
planted('length', 'src/buffer/arena.c', appending("\nstatic void\nplanted(void)\n{\n" . "\tCHECK_FOR_INTERRUPTS();\n" x 60 . "}\n"),
	qr{planted has 61 lines}, 'a long function');
planted('type', 'src/buffer/arena.c', appending("\ntypedef struct BddRule\n{\n\tint planted;\n} BddRule;\n"),
	qr{BddRule is a type in}, 'a type of another file\'s name');
foreach my $enum (qw(BddRuleKind BddOp BddPhase))
{
	# the first constant that the enum has, so that a renamed one does no harm
	my ($file) = grep { slurp_file($_) =~ /typedef enum $enum\b/ } glob "$copy/src/*/*.[ch]";
	my ($constant) = slurp_file($file) =~ /typedef enum $enum\n\{\s*(\w+)/;
	planted('default', 'src/buffer/arena.c',
		appending("\nstatic void\nplanted(int kind)\n{\n\tswitch (kind)\n\t{\n\t\tcase $constant:\n\t\t\tbreak;\n\t\tdefault:\n\t\t\tbreak;\n\t}\n}\n"),
		qr{a switch over $enum has a default}, "a default for $enum");
}
planted('perl', 't/lib/Planted.pm', appending("package Planted;\nuse strict;\nuse warnings;\nmy \$planted = ;\n1;\n"),
	qr{^t/lib/Planted\.pm: perl -wc says}m, 'Perl that does not compile');

done_testing();
