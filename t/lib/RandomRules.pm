package RandomRules;

# Random programs for targets with merge rules, version columns, and rows that
# are not combined: the tables, the generator, and each step as SQL, once for
# batchdedup and once as the plain statements that it stands for. What a rule
# means is said here once more, in plain SQL, and nowhere taken from src/.
#
# A program is plain data, made from its seed alone:
#
#   sessions => 3, overlap => 1 or 0, direct => 1 or 0, group => 1 or 0,
#   targets => [{shape, variant, merge => {column => rule}, version, keep_all,
#                update, complete, logged, group}, ...]
#   initial => [{t, row}, ...], steps => [{s, op, ...}, ...]
#
# and a row {k => number of a key, v => {column => number of a value, or undef
# for NULL}}. "complete": rows in part always give what an insert needs; else
# every key is there from the start, and is never deleted.
#
# In a family of tables with foreign keys every step keeps the keys in order: it
# upserts a row with all that it refers to, or deletes it with all that refer to
# it. So no row is ever refused, and what cascades is only seen where nothing is
# buffered ("cascade"). Those that refer to others combine their rows: of a row
# above that comes and goes nothing is left, so one that is kept would be refused.

use strict;
use warnings;
use utf8;
use List::Util qw(sum shuffle);

# ---- dice --------------------------------------------------------------

sub chance { return rand() < $_[0]; }
sub pick { return $_[ int rand @_ ]; }

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

# ---- types -------------------------------------------------------------

my @number = (qw(sum sum min max coalesce first last));
my @ordered = (qw(min max coalesce first last));
my @text = (qw(concat concat min max coalesce first last), 'loose_text');

# Sums of doubles are exact here, so it does not matter which two meet first.
my %types = (
	'smallint' => { pool => [ 1, 2, -3, 0 ], rules => \@number },
	'integer' => { pool => [ 1, 2, -3, 10, 0 ], rules => [ @number, 'strict_int', 'loose_int', '"Odd one".strict_int' ] },
	'bigint' => { pool => [ 1, 5_000_000_000, -2, 0 ], rules => \@number },
	'small' => { pool => [ 1, 2, -3 ], rules => [qw(sum sum last max)] },
	'amount' => { pool => [ 1, 2, -3 ], rules => [ @number, 'strict_int' ] },
	'numeric' => { pool => [ '1', '1.0', '1.00', '-2.5', '0.0', 'NaN', 'Infinity' ], rules => \@number },
	'numeric(8,2)' => { pool => [ '1', '2.25', '-3.5' ], rules => \@number },
	'double precision' => { pool => [ '0.5', '-0.25', '2', '0', '-0', 'NaN', 'Infinity' ], rules => \@number },
	'real' => { pool => [ '0.5', '-0.25', '-0', '3' ], rules => \@number },
	'interval' => { pool => [ '1 day', '24:00:00', '-1 mon', '00:00:01.5' ], rules => \@number },
	'text' => { pool => [ 'a', 'b', '', 'ab', "it's \"\\", 'ä' ], rules => \@text },
	'phrase' => { pool => [ 'p', 'q ', '' ], rules => \@text },
	'character varying(2000)' => { pool => [ 'a', 'b ', '' ], rules => [ qw(concat min max coalesce last) ] },
	'text COLLATE ignore_case' => { pool => [ 'v', 'V', 'w' ], rules => [ qw(min max concat coalesce last) ] },
	'citext' => { pool => [ 'v', 'V', 'w' ], rules => \@ordered },
	'bytea' => { pool => [ '\\x', '\\x00ff', '\\x41' ], rules => [ 'concat', @ordered ] },
	'integer[]' => { pool => [ '{1}', '{}', '{2,NULL}', '[0:1]={7,8}' ], rules => [ 'concat', 'concat', @ordered ] },
	'jsonb' => { pool => [ '{"a": 1}', '{"b": {"c": 2.0}}', '[1]', '"s"', '{"a": null}' ], rules => [ 'concat', 'concat', @ordered ] },
	'date' => { pool => [ '2024-02-29', '2001-01-01', 'infinity', '-infinity' ], rules => \@ordered },
	'timestamp with time zone' => {
		pool => [ '2024-02-29 12:00:00.000001+00', '2024-02-29 12:00:00+00', 'infinity', '2001-01-01 00:00:00+01' ],
		rules => \@ordered
	},
);

# ---- tables ------------------------------------------------------------

# A column is [name, type, options]: "required" (NOT NULL without a default),
# "notnull", "volatile" (its default is known only when the row is applied).
# "version": may be the version column. The oracle's table has now() from a
# setting.
my @shapes = (
	{
		name => 'ints', key => ['id'], keys => [ [1], [2], [3] ], spelled => 0, version => ['v'],
		ddl => 'id int PRIMARY KEY, a int, b int DEFAULT 5, c bigint NOT NULL DEFAULT 0, w text, v int',
		cols => [ [qw(id integer)], [qw(a integer)], [qw(b integer)], [qw(c bigint notnull)], [qw(w text)], [qw(v integer)] ],
	},
	{
		name => 'defaults', key => ['k'], keys => [ ['a'], ['b'], [''] ], version => [ 'v', 'at' ],
		ddl => q{k text PRIMARY KEY, a int DEFAULT 7 + (random() * 0)::int, b text DEFAULT 'd', c numeric DEFAULT 1.50,
			at timestamptz DEFAULT now(), s smallint DEFAULT -3, v numeric DEFAULT 1},
		cols => [
			[qw(k text)], [qw(a integer volatile)], [qw(b text)], [qw(c numeric)], [ 'at', 'timestamp with time zone' ],
			[qw(s smallint)], [qw(v numeric)]
		],
	},
	{
		name => 'required', key => [ 'b', 'a' ], keys => [ [ 1, 'x' ], [ 1, 'y' ], [ 2, 'x' ] ], version => ['v'],
		ddl => q{a text, b int, q int NOT NULL, t text NOT NULL, g int GENERATED ALWAYS AS (q + 1) STORED, o int,
			created timestamptz DEFAULT now(), v timestamptz, UNIQUE (b, a)},
		not_null => [ 'a', 'b' ],
		cols => [
			[qw(a text)], [qw(b integer)], [qw(q integer required)], [qw(t text required)], [qw(o integer)],
			[ 'created', 'timestamp with time zone' ], [ 'v', 'timestamp with time zone' ]
		],
	},
	{
		name => 'texts', key => ['k'], keys => [ [1], [2] ], version => ['v'],
		ddl => q{k int PRIMARY KEY, t text, vc varchar(2000) DEFAULT 'v', raw bytea, arr int[] DEFAULT '{9}', doc jsonb, v date},
		cols => [
			[qw(k integer)], [ 't', 'text', { pool => [ 'a', '', 'b' x 5000, 'ab' ] } ], [ 'vc', 'character varying(2000)' ], [qw(raw bytea)], [ 'arr', 'integer[]' ],
			[qw(doc jsonb)], [qw(v date)]
		],
	},
	{
		name => 'nums', key => ['k'], keys => [ ['1'], ['1.0'], ['1.00'], ['NaN'] ], class => [ 0, 0, 0, 3 ], spelled => 1,
		version => [ 'v', 'n' ],
		ddl => 'k numeric PRIMARY KEY, n numeric, m numeric(8,2) DEFAULT 0, f float8 DEFAULT 0, r real, iv interval, v float8',
		cols => [
			[qw(k numeric)], [qw(n numeric)], [ 'm', 'numeric(8,2)' ], [ 'f', 'double precision' ], [qw(r real)], [qw(iv interval)],
			[ 'v', 'double precision' ]
		],
	},
	{
		name => 'cit', key => ['k'], keys => [ ['abc'], ['ABC'], ['aBc'], ['x'] ], class => [ 0, 0, 0, 3 ], spelled => 1,
		version => [ 'v', 'ci' ],
		ddl => 'k citext PRIMARY KEY, n int DEFAULT 3, t text, ci citext, v int',
		cols => [ [qw(k citext)], [qw(n integer)], [qw(t text)], [qw(ci citext)], [qw(v integer)] ],
	},
	{
		name => 'icu', key => [ 'i', 'k' ], keys => [ [ 1, 'abc' ], [ 1, 'ABC' ], [ 2, 'abc' ] ], class => [ 0, 0, 2 ], spelled => 1,
		version => ['v'],
		ddl => q{k text COLLATE ignore_case, i int, x text COLLATE ignore_case, n bigint NOT NULL DEFAULT 0, v numeric, PRIMARY KEY (i, k)},
		cols => [
			[ 'k', 'text COLLATE ignore_case' ], [qw(i integer)], [ 'x', 'text COLLATE ignore_case' ], [qw(n bigint notnull)],
			[qw(v numeric)]
		],
	},
	{
		name => 'domains', key => ['id'], keys => [ [1], [2] ], version => ['v'],
		ddl => 'id int PRIMARY KEY, d amount, e amount DEFAULT NULL, p phrase, n int, v amount DEFAULT NULL',
		cols => [ [qw(id integer)], [qw(d amount)], [qw(e amount)], [qw(p phrase)], [qw(n integer)], [qw(v amount)] ],
	},
	{
		name => 'parts', key => [ 'k', 'r' ], keys => [ [ 1, 'a' ], [ 2, 'a' ], [ 3, 'b' ] ], version => ['v'],
		ddl => 'k int, r text, n int, m text DEFAULT now()::date - now()::date, q int NOT NULL, v bigint, PRIMARY KEY (k, r)',
		by => 'PARTITION BY HASH (k)',
		more => [ 'CREATE TABLE %1$s_p1 PARTITION OF %1$s FOR VALUES WITH (MODULUS 2, REMAINDER 0)',
			'CREATE TABLE %1$s_p2 PARTITION OF %1$s FOR VALUES WITH (MODULUS 2, REMAINDER 1)' ],
		cols => [ [qw(k integer)], [qw(r text)], [qw(n integer)], [qw(m text)], [qw(q integer required)], [qw(v bigint)] ],
	},
	{
		# dropped columns, names that need quotes, and a trigger that forbids the quick ways
		name => 'odd', key => ['key "1'], keys => [ [1], [2] ], version => ['v'],
		ddl => q{gone int, "Val" int, "key ""1" int PRIMARY KEY, gone2 text, "x,y" text, v smallint},
		more => [ 'ALTER TABLE %1$s DROP COLUMN gone, DROP COLUMN gone2', 'ALTER TABLE %1$s ADD COLUMN late int NOT NULL DEFAULT 11',
			'CREATE TRIGGER same BEFORE INSERT OR UPDATE ON %1$s FOR EACH ROW EXECUTE FUNCTION return_new()' ],
		cols => [ [qw(Val integer)], [ 'key "1', 'integer' ], [ 'x,y', 'text' ], [qw(v smallint)], [qw(late integer notnull)] ],
	},
	{
		# a log of what happens to each row
		name => 'audit', key => ['id'], keys => [ [1], [2] ], version => ['v'], keep_all => 1, log => 1,
		ddl => 'id int PRIMARY KEY, a int DEFAULT 2, w text, v int',
		more => [ 'CREATE TABLE %1$s_log (n bigint GENERATED ALWAYS AS IDENTITY, op text, id int, doc jsonb)',
			q{CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON %1$s FOR EACH ROW EXECUTE FUNCTION audit('%1$s_log')} ],
		cols => [ [qw(id integer)], [qw(a integer)], [qw(w text)], [qw(v integer)] ],
	},
	{
		name => 'events', key => [], keys => [ [] ], append => 1, keep_all => 1,
		ddl => q{n bigint GENERATED ALWAYS AS IDENTITY, kind text NOT NULL, doc jsonb DEFAULT '{}', a int DEFAULT 7 + (random() * 0)::int,
			at timestamptz DEFAULT now()},
		cols => [ [qw(kind text required)], [qw(doc jsonb)], [qw(a integer volatile)], [ 'at', 'timestamp with time zone' ] ],
	},
	{
		# some rows are refused: what is in the table and in the letters must be all
		name => 'refused', key => ['id'], keys => [ [1], [2] ], refuses => 1, total => 1, merge => { n => 'sum', m => 'capped' },
		ddl => 'id int PRIMARY KEY, n smallint, m int, w text',
		cols => [ [qw(id integer)], [ 'n', 'smallint', { pool => [ 30000, -30000, 10000, 1 ] } ],
			[ 'm', 'integer', { pool => [ 15, -4, 3 ] } ], [qw(w text)] ],
	},
);

# Tables that refer to each other, in groups only. They are created in this
# order; "above": the number of the key above in the family, for each key.
push @shapes,
  {
	name => 'branch', family => 1, key => [ 'p', 'i' ], keys => [ [ 1, 1 ], [ 1, 2 ], [ 2, 1 ] ], above => [ 0, 0, 1 ], version => ['v'],
	ddl => 'p int, i int, n int DEFAULT 4, w text, v int, PRIMARY KEY (p, i)', foreign => '(p) REFERENCES %stree%s',
	cols => [ [qw(p integer)], [qw(i integer)], [qw(n integer)], [qw(w text)], [qw(v integer)] ],
  },
  {
	name => 'tree', family => 0, key => ['id'], keys => [ [1], [2] ], version => ['v'],
	ddl => 'id int PRIMARY KEY, a int, c bigint NOT NULL DEFAULT 0, w text, v int',
	cols => [ [qw(id integer)], [qw(a integer)], [qw(c bigint notnull)], [qw(w text)], [qw(v integer)] ],
  },
  {
	name => 'leaf', family => 2, key => [ 'p', 'i', 'j' ], keys => [ [ 1, 1, 1 ], [ 1, 2, 1 ], [ 2, 1, 1 ], [ 2, 1, 2 ] ], above => [ 0, 1, 2, 2 ], version => ['v'],
	ddl => 'p int, i int, j int, n numeric, v int, PRIMARY KEY (j, i, p)', foreign => '(p, i) REFERENCES %sbranch%s',
	cols => [ [qw(p integer)], [qw(i integer)], [qw(j integer)], [qw(n numeric)], [qw(v integer)] ],
  };

# With rows that are not combined, what is refused is refused alone.
push @shapes, {
	name => 'refused_alone', key => ['id'], keys => [ [1], [2] ], keep_all => 1, refuses => 1, version => ['v'],
	ddl => 'id int PRIMARY KEY, n int CHECK (n < 12), w text, d small DEFAULT 1, v int',
	cols => [ [qw(id integer)], [qw(n integer)], [qw(w text)], [qw(d small)], [qw(v integer)] ],
};

my %variants = (
	slow => "flush_interval => '1 hour', flush_rows => 1000000",
	fast => "flush_interval => '10 ms', flush_rows => 1000000",
	rows => "flush_interval => '1 hour', flush_rows => 2",
);

my %shape_of;
for my $shape (@shapes)
{
	$shape_of{ $shape->{name} } = $shape;
	my %iskey = map { $_ => 1 } @{ $shape->{key} };
	for my $col (@{ $shape->{cols} })
	{
		my ($name, $type, @options) = @$col;
		my %options = map { ref $_ ? %$_ : ($_ => 1) } @options;
		$col = { %{ $types{$type} }, name => $name, type => $type, iskey => $iskey{$name}, %options };
		$shape->{col}{$name} = $col;
	}
	$shape->{class} //= [ 0 .. $#{ $shape->{keys} } ];
}

my @prelude = (
	'CREATE EXTENSION citext',
	"CREATE COLLATION ignore_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
	'CREATE DOMAIN amount AS int CHECK (VALUE < 1000000)',
	"CREATE DOMAIN phrase AS text DEFAULT 'p' CHECK (length(VALUE) < 100000)",
	'CREATE DOMAIN small AS int CHECK (VALUE < 5)',
	'CREATE SCHEMA "Odd one"',
	'CREATE FUNCTION strict_int(int, int) RETURNS int LANGUAGE sql STRICT AS $$SELECT ($1 * 3 + $2) % 1009$$',
	'CREATE FUNCTION "Odd one".strict_int(int, int) RETURNS int LANGUAGE plpgsql STRICT AS $$BEGIN RETURN ($1 * 5 - $2) % 1009; END$$',
	'CREATE FUNCTION loose_int(int, int) RETURNS int LANGUAGE sql AS $$SELECT (coalesce($1, 100) * 2 - coalesce($2, 7)) % 1009$$',
	q{CREATE FUNCTION loose_text(text, text) RETURNS text LANGUAGE sql AS $$SELECT CASE WHEN $2 = '' THEN NULL ELSE concat(right($1, 20), '+', $2) END$$},
	q{CREATE FUNCTION capped(int, int) RETURNS int LANGUAGE plpgsql STRICT AS
		$$BEGIN IF $1 + $2 > 40 THEN RAISE 'too much' USING ERRCODE = '22000'; END IF; RETURN $1 + $2; END$$},
	"CREATE FUNCTION return_new() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
	q{CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			EXECUTE format('INSERT INTO public.%I (op, id, doc) VALUES ($1, $2, $3)', TG_ARGV[0])
				USING TG_OP, CASE TG_OP WHEN 'DELETE' THEN OLD.id ELSE NEW.id END, CASE TG_OP WHEN 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
			RETURN NULL;
		END$$},
);

sub shapes { return \@shapes; }
sub shape { return $shape_of{ $_[0]{shape} }; }

sub ident
{
	my ($name) = @_;
	return $name if $name =~ /^[a-z_][a-z_0-9]*$/;
	$name =~ s/"/""/g;
	return qq{"$name"};
}

sub literal
{
	my ($text) = @_;
	return 'NULL' unless defined $text;
	$text =~ s/'/''/g;
	return $text =~ s/\\/\\\\/g ? "E'$text'" : "'$text'";
}

sub names { return join(', ', map { ident($_) } @_); }
sub target_name { my ($target) = @_; return "t_$target->{shape}_$target->{variant}"; }
sub oracle_name { return "o_$_[0]{shape}"; }

sub table_sql
{
	my ($shape, $name) = @_;
	my @more = map { sprintf($_, $name) } @{ $shape->{more} // [] };
	return ("CREATE TABLE $name ($shape->{ddl})" . ($shape->{by} ? " $shape->{by}" : ''),
		(map { "ALTER TABLE $name ALTER $_ SET NOT NULL" } @{ $shape->{not_null} // [] }), @more);
}

# A plain table with wider columns where only totals are compared.
sub oracle_sql
{
	my ($shape) = @_;
	my $name = "o_$shape->{name}";
	my @sql = table_sql($shape, $name);
	s/DEFAULT now\(\)(?!:)/DEFAULT current_setting('oracle.now')::timestamptz/g for @sql;
	s/n smallint, m int/n bigint, m bigint/ for $shape->{total} ? @sql : ();
	return @sql;
}

sub create_target_sql
{
	my ($shape, $variant) = @_;
	my $name = "t_$shape->{name}_$variant";
	my @args = "key => " . literal(names(@{ $shape->{key} }));
	push @args, 'coalesce_rows => false' if $shape->{keep_all};
	push @args, $variants{$variant}, "guard => 'off'";
	return ("SELECT batchdedup.create_target('$name', " . join(', ', @args) . ')',
		$shape->{append} ? () : "SELECT batchdedup.create_view('$name')");
}

# Plain statements may come in any order before their COMMIT.
sub foreign_key_sql
{
	my ($shape, $before, $after, $action) = @_;
	return () unless $shape->{foreign};
	return "ALTER TABLE $before$shape->{name}$after ADD FOREIGN KEY " . sprintf($shape->{foreign}, $before, $after) . " $action";
}

# Where nothing cascades, the order of deletes matters.
sub cascades { return $_[0] ne 'rows'; }
sub action_of { return cascades($_[0]) ? 'ON DELETE CASCADE' : ''; }

sub setup_sql
{
	my @sql = @prelude;
	for my $shape (@shapes)
	{
		push @sql, oracle_sql($shape);
		push @sql, table_sql($shape, "t_$shape->{name}_$_"), create_target_sql($shape, $_) for sort keys %variants;
	}
	for my $shape (@shapes)
	{
		push @sql, foreign_key_sql($shape, 'o_', '', 'ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED');
		push @sql, foreign_key_sql($shape, 't_', "_$_", action_of($_)) for sort keys %variants;
	}
	return @sql;
}

# The options of a program's target.
sub alter_target_sql
{
	my ($target) = @_;
	my $shape = shape($target);
	my (@args, @reset);
	my %merge = map { json_string($_) => json_string($target->{merge}{$_}) } keys %{ $target->{merge} };
	%merge ? push(@args, 'merge => ' . literal('{' . join(', ', map { "$_: $merge{$_}" } sort keys %merge) . '}')) : push(@reset, 'merge');
	defined $target->{version} ? push(@args, 'version_column => ' . literal(ident($target->{version}))) : push(@reset, 'version_column');
	$target->{update} ? push(@args, 'update_columns => ' . literal(names(@{ $target->{update} }))) : push(@reset, 'update_columns');
	push @args, 'coalesce_rows => ' . ($target->{keep_all} ? 'false' : 'true') unless $shape->{append};
	@reset = () if $shape->{append};
	push @args, 'logged => ' . ($target->{logged} ? 'true' : 'false');
	$target->{group} ? push(@args, "flush_group => 'one group'") : push(@reset, 'flush_group');
	push @args, 'reset => ' . literal(join(', ', @reset)) if @reset;
	return "SELECT batchdedup.alter_target('" . target_name($target) . "', " . join(', ', @args) . ')';
}

# ---- values ------------------------------------------------------------

sub json_string
{
	my ($text) = @_;
	$text =~ s/(["\\])/\\$1/g;
	$text =~ s/\n/\\n/g;
	return qq{"$text"};
}

sub key_text
{
	my ($shape, $k, $name) = @_;
	my ($n) = grep { $shape->{key}[$_] eq $name } 0 .. $#{ $shape->{key} };
	return $shape->{keys}[$k][$n];
}

# The text of a column's value, or undef for NULL.
sub text_of
{
	my ($shape, $row, $name) = @_;
	my $col = $shape->{col}{$name};
	return key_text($shape, $row->{k}, $name) if $col->{iskey};
	my $value = $row->{v}{$name};
	return defined $value ? $col->{pool}[$value] : undef;
}

sub value_sql { my ($shape, $row, $name) = @_; return literal(text_of($shape, $row, $name)) . "::$shape->{col}{$name}{type}"; }

sub value_json
{
	my ($shape, $row, $name) = @_;
	my $text = text_of($shape, $row, $name);
	return 'null' unless defined $text;
	return $text if $shape->{col}{$name}{type} eq 'jsonb' || $text =~ /^-?\d+$/ && $shape->{col}{$name}{type} =~ /int|num/;
	return json_string($text);
}

# The columns that a row names, its key among them.
sub named { my ($shape, $row) = @_; return map { $_->{name} } grep { $_->{iskey} || exists $row->{v}{ $_->{name} } } @{ $shape->{cols} }; }

sub row_json
{
	my ($shape, $row) = @_;
	return '{' . join(', ', map { json_string($_) . ': ' . value_json($shape, $row, $_) } named($shape, $row)) . '}';
}

# The columns of the table in their order; what is generated is no column of ours.
my %order = (required => [qw(a b q t g o created v)], events => [qw(n kind doc a at)]);

sub row_sql
{
	my ($target, $row) = @_;
	my $shape = shape($target);
	my @names = @{ $order{ $shape->{name} } // [ map { $_->{name} } @{ $shape->{cols} } ] };
	return 'ROW(' . join(', ', map { $shape->{col}{$_} ? value_sql($shape, $row, $_) : 'NULL' } @names) . ')::' . target_name($target);
}

# ---- the generator -----------------------------------------------------

sub value_columns { return grep { !$_->{iskey} } @{ $_[0]{cols} }; }

sub random_value
{
	my ($col) = @_;
	return chance($col->{required} || $col->{notnull} ? 0 : 0.15) ? undef : int rand @{ $col->{pool} };
}

# Rules for some columns. The version column has none, and a column outside
# of update_columns neither.
sub random_target
{
	my ($shape, $direct) = @_;
	my $target = { shape => $shape->{name}, variant => pick(sort keys %variants), merge => { %{ $shape->{merge} // {} } }, complete => chance(0.6) ? 1 : 0 };
	$target->{keep_all} = $shape->{keep_all} || chance(0.1) && !$shape->{above} ? 1 : 0;
	$target->{logged} = chance(0.6) ? 1 : 0;
	$target->{complete} = 1 if $shape->{append};
	return $target if $shape->{append} || $shape->{total};
	my @cols = value_columns($shape);
	$target->{version} = pick(@{ $shape->{version} }) if chance(0.4);
	my $version = $target->{version} // '';
	if (chance(0.1))
	{
		my @update = grep { chance(0.6) } map { $_->{name} } @cols;
		push @update, $version if $version ne '' && !grep { $_ eq $version } @update;
		$target->{update} = \@update if @update;
	}
	my %updated = map { $_ => 1 } $target->{update} ? @{ $target->{update} } : map { $_->{name} } @cols;
	my $share = pick(0, 0.4, 0.8, 1);
	for my $col (grep { $_->{name} ne $version && $updated{ $_->{name} } } @cols)
	{
		my @rules = grep { !$col->{required} || $_ ne 'loose_text' } @{ $col->{rules} };
		$target->{merge}{ $col->{name} } = pick(@rules) if chance($share);
	}
	return $target;
}

# The target with other options, under the same name.
sub other_rules
{
	my ($target) = @_;
	return { %{ random_target(shape($target)) }, map { $_ => $target->{$_} } qw(variant complete group) };
}

sub typed_row { my ($shape, $k) = @_; return { k => $k, v => { map { $_->{name} => random_value($_) } value_columns($shape) } }; }

# A row that names some columns, or those of another row.
sub named_row
{
	my ($self, $t, $k, $like) = @_;
	my $target = $self->{targets}[$t];
	my $share = pick(0.2, 0.5, 1);
	my %v;
	for my $col (value_columns(shape($target)))
	{
		my $name = $col->{name};
		my $needed = grep({ $_ eq $name } @{ shape($target)->{version} }) || $col->{required} && ($target->{complete} || $self->{overlap});
		next unless $like ? exists $like->{v}{$name} : $needed || chance($share);
		$v{$name} = random_value($col);
	}
	return { k => $k, v => \%v };
}

my %forms = (record => 4, array => 3, json => 7, values => 2, view => 1);

# An INSERT into the view gives every column, too.
sub is_typed { return $_[0] =~ /^(record|array|view)$/; }

sub random_upsert
{
	my ($self) = @_;
	my $t = int rand @{ $self->{targets} };
	my $shape = shape($self->{targets}[$t]);
	my $form = weighted(\%forms);
	$form = 'json' if $form eq 'view' && $shape->{append};
	my $n = $form eq 'record' || chance(0.5) ? 1 : 1 + int rand 4;
	my @rows;
	for (1 .. $n)
	{
		my $k = pick(@{ $self->{keys}[$t] });
		push @rows, is_typed($form) ? typed_row($shape, $k) : named_row($self, $t, $k, $form eq 'values' ? $rows[0] : undef);
	}
	return { op => 'upsert', t => $t, form => $form, rows => \@rows };
}

sub random_delete
{
	my ($self) = @_;
	my $t = int rand @{ $self->{targets} };
	my $target = $self->{targets}[$t];
	my $shape = shape($target);
	return random_upsert($self) if $shape->{append} || $shape->{total} || !$target->{complete} && !$self->{overlap} && grep { $_->{required} } @{ $shape->{cols} };
	my $row = { k => pick(@{ $self->{keys}[$t] }), v => {} };
	$row->{v}{ $target->{version} } = random_value($shape->{col}{ $target->{version} }) if defined $target->{version} && chance(0.7);
	return { op => 'delete', t => $t, form => pick('json', 'record'), rows => [$row] };
}

my %outside = (begin => 35, upsert => 35, delete => 9, flush => 8, get => 8, view => 4, pause => 0.5, kill_worker => 0.15, sleep => 0.5,
	alter => 0.7, restart => 0.02, crash => 0.03);
my %inside = (upsert => 45, delete => 10, savepoint => 10, rollback_to => 15, release => 5, commit => 11, rollback => 2, get => 8,
	view => 4, block => 4, sleep => 0.3);

sub random_block
{
	my ($self) = @_;
	my @parts = map { { %{ chance(0.8) ? random_upsert($self) : random_delete($self) }, raise => chance(0.4) ? 1 : 0 } } 1 .. 1 + int rand 3;
	return { op => 'block', parts => \@parts };
}

# Mostly one that is there.
sub savepoint_name
{
	my ($op, $known) = @_;
	push @$known, pick('a', 'b', 'c') if $op eq 'savepoint' || !@$known;
	return $op eq 'savepoint' ? $known->[-1] : pick(@$known);
}

# One key of every target, for what must come out in the same order everywhere.
sub random_everywhere
{
	my ($self) = @_;
	my @parts;
	for my $t (0 .. $#{ $self->{targets} })
	{
		my $k = $self->{keys}[$t][0];
		push @parts, chance(0.3)
		  ? { op => 'upsert', t => $t, form => 'record', rows => [ typed_row(shape($self->{targets}[$t]), $k) ] }
		  : { op => 'upsert', t => $t, form => 'json', rows => [ named_row($self, $t, $k) ] };
	}
	return { op => 'block', parts => \@parts };
}

# ---- families ----------------------------------------------------------

sub above { my ($self, $t, $k) = @_; return shape($self->{targets}[$t])->{above}[$k]; }

# A row and those that it refers to, in any order; the lowest may be undone.
sub family_upsert
{
	my ($self) = @_;
	my $t = int rand @{ $self->{targets} };
	my $k = pick(@{ $self->{keys}[$t] });
	my @parts;
	for (my $raise = chance(0.1) ? 1 : 0; $t >= 0; $raise = 0)
	{
		my %part = chance(0.3) ? (form => 'record', rows => [ typed_row(shape($self->{targets}[$t]), $k) ]) :
		  (form => 'json', rows => [ named_row($self, $t, $k) ]);
		push @parts, { op => 'upsert', t => $t, raise => $raise, %part };
		$k = above($self, $t, $k) if $t > 0;
		$t--;
	}
	return { op => 'block', parts => [ shuffle(@parts) ] };
}

# A row and all that refer to it; its own deletion may be undone.
sub family_delete
{
	my ($self) = @_;
	my $t = int rand @{ $self->{targets} };
	my @k = pick(@{ $self->{keys}[$t] });
	my @parts;
	for (my $raise = chance(0.1) ? 1 : 0; $t < @{ $self->{targets} }; $raise = 0)
	{
		push @parts, map { { op => 'delete', t => $t, form => pick('json', 'record'), raise => $raise, rows => [ { k => $_, v => {} } ] } } @k;
		last if ++$t == @{ $self->{targets} };
		my %above = map { $_ => 1 } @k;
		@k = grep { $above{ above($self, $t, $_) } } @{ $self->{keys}[$t] };
	}
	return { op => 'block', parts => [ shuffle(@parts) ] };
}

sub random_write
{
	my ($self, $op) = @_;
	return $op eq 'delete' ? family_delete($self) : family_upsert($self) if $self->{family};
	return $op eq 'upsert' ? random_upsert($self) : $op eq 'delete' ? random_delete($self) : random_block($self);
}

# ---- steps -------------------------------------------------------------

sub random_step
{
	my ($self) = @_;
	my @free = grep { !$self->{busy}{$_} } 1 .. $self->{sessions};
	if (!@free || %{ $self->{busy} // {} } && chance(0.08))
	{
		$self->{busy} = {};
		return { s => 1, op => 'let_go' };
	}
	my $s = pick(@free);
	# Whether a transaction is open is known only roughly: the runner leaves out what makes no sense.
	my %weights = %{ $self->{open}{$s} ? \%inside : \%outside };
	$weights{rollback_to} = $weights{release} = 0.5 if $self->{open}{$s} && !@{ $self->{open}{$s} };
	$weights{ $self->{open}{$s} ? 'slow_commit' : 'begin' } = 60 if $self->{overlap};
	@weights{qw(hold unhold sleep)} = (4, 15, 3) if $self->{group} && !$self->{open}{$s};
	$weights{cascade} = 2 if $self->{family} && cascades($self->{targets}[0]{variant}) && !$self->{open}{$s};
	@weights{qw(enabled mode)} = (5, $self->{open}{$s} ? 0 : 4) if $self->{direct};
	delete @weights{ grep { !$weights{$_} } keys %weights };
	my $op = weighted(\%weights);
	$self->{open}{$s} = [] if $op eq 'begin';
	delete $self->{open}{$s} if $op =~ /^(commit|rollback|slow_commit)$/;
	$self->{busy}{$s} = 1 if $op eq 'slow_commit';
	my $t = int rand @{ $self->{targets} };
	my %step = (s => $s, op => $op);
	return { s => $s, %{ random_everywhere($self) } } if $op eq 'upsert' && !$self->{family} && ($self->{overlap} || $self->{group}) && chance(0.5);
	return { s => $s, %{ random_write($self, $op) } } if $op =~ /^(upsert|delete|block)$/;
	$step{name} = savepoint_name($op, $self->{open}{$s}) if $op =~ /savepoint|rollback_to|release/;
	@step{qw(t k)} = ($t, pick(@{ $self->{keys}[$t] })) if $op =~ /^(get|view|cascade)$/;
	$step{all} = chance(0.5) ? 1 : 0 if $op eq 'view';
	$step{t} = $t if $op =~ /^(pause|hold|mode|flush|alter|restart)$/;
	$step{to} = other_rules($self->{targets}[$t]) if $op eq 'alter';
	$step{mode} = pick('direct', 'buffered') if $op eq 'mode';
	$step{on} = pick(0, 1) if $op eq 'enabled';
	$step{ms} = pick(1, 5, 15) if $op eq 'sleep';
	$step{point} = pick('entered', 'reserved', 'pre-commit', 'publish') if $op eq 'slow_commit';
	return \%step;
}

# Who begins without the buffer.
sub set_out
{
	my ($self) = @_;
	my @modes = map { { s => 1, op => 'mode', t => $_, mode => 'direct' } } grep { chance(0.4) } 0 .. $#{ $self->{targets} };
	return (@modes, map { { s => $_, op => 'enabled', on => 0 } } grep { chance(0.3) } 1 .. $self->{sessions});
}

sub choose_keys
{
	my ($self, $t) = @_;
	my $target = $self->{targets}[$t];
	my $shape = shape($target);
	return choose_family_keys($self, $t) if $self->{family};
	my @all = shuffle(0 .. $#{ $shape->{keys} });
	my @keys = @all[ 0 .. int rand @all ];
	my %seen;
	for my $k (grep { !$seen{ $shape->{class}[$_] }++ } @keys)
	{
		push @{ $self->{initial} }, { t => $t, row => typed_row($shape, $k) }
		  if !$shape->{append} && !$shape->{total} && (!$target->{complete} || chance(0.4));
	}
	return \@keys;
}

# Of the rows that are there from the start, none without those above.
sub choose_family_keys
{
	my ($self, $t) = @_;
	my $shape = shape($self->{targets}[$t]);
	my @keys = 0 .. $#{ $shape->{keys} };
	my %there = map { $_->{row}{k} => 1 } grep { $_->{t} == $t - 1 } @{ $self->{initial} };
	push @{ $self->{initial} }, map { { t => $t, row => typed_row($shape, $_) } } grep { chance(0.5) && (!$t || $there{ above($self, $t, $_) }) } @keys;
	return \@keys;
}

# Two or three targets of one flush_group.
sub random_group
{
	my ($self) = @_;
	my $n = pick(2, 3);
	$self->{family} = chance(0.5) ? 1 : 0;
	my @members = $self->{family} ? sort { $a->{family} <=> $b->{family} } grep { defined $_->{family} } @shapes
	  : shuffle(grep { !defined $_->{family} && !$_->{refuses} } @shapes);
	my @targets = map { random_target($_) } @members[ 0 .. $n - 1 ];
	my $variant = pick(sort keys %variants);
	@$_{qw(group complete)} = (1, 1) for @targets;
	$_->{variant} = $variant for $self->{family} ? @targets : ();
	return \@targets;
}

sub random_targets
{
	my ($self) = @_;
	return random_group($self) if $self->{group};
	my @shapes = shuffle(grep { !defined $_->{family} && (!$self->{direct} || !$_->{refuses}) } @shapes);
	@shapes = grep { $_->{name} eq $ENV{BDD_SHAPE} } @shapes if $ENV{BDD_SHAPE};
	return [ map { random_target($_) } @shapes > 1 && chance($self->{overlap} ? 0.7 : 0.3) ? @shapes[ 0, 1 ] : $shapes[0] ];
}

sub generate
{
	my ($seed) = @_;
	srand($seed);
	my $kind = $ENV{BDD_KIND} // weighted({ plain => 4, overlap => 2, direct => 2, $ENV{BDD_SHAPE} ? () : (group => 2) });
	$kind = 'plain' if $kind eq 'direct' && ($ENV{BDD_SHAPE} // '') =~ /^refused/;
	my $self = { sessions => 2 + int rand 3, initial => [], map { $_ => $kind eq $_ ? 1 : 0 } qw(overlap direct group) };
	$self->{overlap} = 1 if $self->{group} && chance(0.2);
	$self->{targets} = random_targets($self);
	$self->{keys} = [ map { choose_keys($self, $_) } 0 .. $#{ $self->{targets} } ];
	my @steps = $self->{direct} ? set_out($self) : ();
	push @steps, map { random_step($self) } 0 .. 5 + int rand pick(8, 20, 40);
	push @steps, { s => 1, op => 'let_go' }, map { { s => $_, op => 'commit' } } shuffle(grep { chance(0.85) } 1 .. $self->{sessions});
	return { seed => $seed, kind => $kind, steps => \@steps, map { $_ => $self->{$_} } qw(sessions overlap direct group targets initial) };
}

# ---- batchdedup --------------------------------------------------------

sub upsert_sql
{
	my ($target, $step) = @_;
	my $shape = shape($target);
	my $name = target_name($target);
	my @rows = @{ $step->{rows} };
	return 'SELECT now()::text, batchdedup.upsert(' . row_sql($target, $rows[0]) . ')' if $step->{form} eq 'record';
	return 'SELECT now()::text, batchdedup.upsert(ARRAY[' . join(', ', map { row_sql($target, $_) } @rows) . "]::${name}[])" if $step->{form} eq 'array';
	my @docs = map { row_json($shape, $_) } @rows;
	return "SELECT now()::text, batchdedup.upsert('$name', " . literal(@docs == 1 ? $docs[0] : '[' . join(', ', @docs) . ']') . ')' if $step->{form} eq 'json';
	my @names = named($shape, $rows[0]);
	my $values = 'VALUES ' . join(', ', map { my $row = $_; '(' . join(', ', map { value_sql($shape, $row, $_) } @names) . ')' } @rows);
	return "INSERT INTO ${name}_buffered (" . names(@names) . ") $values; SELECT now()::text" if $step->{form} eq 'view';
	return "SELECT now()::text, batchdedup.upsert_record('$name', new_row) FROM ($values) AS new_row (" . names(@names) . ')';
}

sub delete_sql
{
	my ($target, $step) = @_;
	my $shape = shape($target);
	my %v = %{ $step->{rows}[0]{v} };
	my $row = { k => $step->{rows}[0]{k}, v => { map { exists $v{$_} ? ($_ => $v{$_}) : () } $target->{version} // () } };
	return 'SELECT now()::text, batchdedup.delete(' . row_sql($target, $row) . ')' if $step->{form} eq 'record';
	return "SELECT now()::text, batchdedup.delete('" . target_name($target) . "', " . literal(row_json($shape, $row)) . ')';
}

sub write_sql { my ($target, $step) = @_; return $step->{op} eq 'delete' ? delete_sql($target, $step) : upsert_sql($target, $step); }

# Parts in subtransactions, some of which are undone.
sub block_sql
{
	my ($program, $step) = @_;
	my $sql = '';
	for my $part (@{ $step->{parts} })
	{
		my $call = write_sql($program->{targets}[ $part->{t} ], $part);
		$call = join('', map { s/^\s*SELECT now\(\)::text,?//r =~ s/^(?=\s*batchdedup)/PERFORM/r . ';' } split(/; (?=SELECT now)/, $call));
		$call =~ s/;;*$/;/;
		$sql .= ' BEGIN ' . $call . ($part->{raise} ? " RAISE 'undo';" : '') . ' EXCEPTION WHEN raise_exception THEN NULL; END;';
	}
	return "DO \$do\$ BEGIN PERFORM set_config('test.now', now()::text, false);$sql END \$do\$; SELECT current_setting('test.now')";
}

# ---- plain statements --------------------------------------------------

sub merged
{
	my ($rule, $old, $new) = @_;
	return $new if $rule eq 'last';
	return "CASE WHEN $new IS NULL THEN $old ELSE $new END" if $rule eq 'coalesce';
	return "CASE WHEN $old IS NULL OR $new < $old THEN $new ELSE $old END" if $rule eq 'min';
	return "CASE WHEN $old IS NULL OR $new > $old THEN $new ELSE $old END" if $rule eq 'max';
	return "$rule($old, $new)" if $rule =~ /loose/;
	my $both = $rule eq 'sum' || $rule eq 'capped' ? "$old + $new" : $rule eq 'concat' ? "$old || $new" : "$rule($old, $new)";
	return "CASE WHEN $old IS NULL THEN $new WHEN $new IS NULL THEN $old ELSE $both END";
}

sub rule_of { my ($target, $name) = @_; return $target->{merge}{$name} // 'last'; }

sub assignments
{
	my ($target, $new, @given) = @_;
	my %updated = map { $_ => 1 } @{ $target->{update} // [ map { $_->{name} } value_columns(shape($target)) ] };
	return join(', ', map { ident($_) . ' = ' . merged(rule_of($target, $_), 't.' . ident($_), "$new." . ident($_)) }
		  grep { $updated{$_} && rule_of($target, $_) ne 'first' } @given);
}

sub not_older
{
	my ($target, $new) = @_;
	return () unless defined $target->{version};
	my $name = ident($target->{version});
	return "(t.$name IS NULL OR $new.$name >= t.$name)";
}

# Where all is given that an insert needs, an INSERT ... ON CONFLICT; else an
# UPDATE of the row that is there.
sub plain_upsert
{
	my ($target, $table, $row) = @_;
	my $shape = shape($target);
	my @given = named($shape, $row);
	my $columns = names(@given);
	my $values = join(', ', map { value_sql($shape, $row, $_) } @given);
	return "INSERT INTO $table ($columns) VALUES ($values)" if $shape->{append};
	my %given = map { $_ => 1 } @given;
	my @names = grep { !$shape->{col}{$_}{iskey} } @given;
	my $lacks = grep { $_->{required} && !$given{ $_->{name} } } @{ $shape->{cols} };
	my $set = assignments($target, $lacks ? 'n' : 'EXCLUDED', @names);
	my @where = not_older($target, $lacks ? 'n' : 'EXCLUDED');
	return "INSERT INTO $table AS t ($columns) VALUES ($values) ON CONFLICT (" . names(@{ $shape->{key} }) . ') DO '
	  . ($set ne '' ? "UPDATE SET $set" . (@where ? " WHERE @where" : '') : 'NOTHING')
	  unless $lacks;
	return () if $set eq '';
	return "UPDATE $table AS t SET $set FROM (VALUES ($values)) AS n ($columns) WHERE "
	  . join(' AND ', @where, map { 't.' . ident($_) . ' = n.' . ident($_) } @{ $shape->{key} });
}

sub key_condition
{
	my ($shape, $k) = @_;
	return join(' AND ', map { ident($_) . ' = ' . value_sql($shape, { k => $k, v => {} }, $_) } @{ $shape->{key} });
}

sub plain_delete
{
	my ($target, $table, $row) = @_;
	my $shape = shape($target);
	my $sql = "DELETE FROM $table AS t WHERE " . key_condition($shape, $row->{k});
	my $version = $target->{version};
	return $sql unless defined $version && defined $row->{v}{$version};
	return "$sql AND (" . ident($version) . ' IS NULL OR ' . value_sql($shape, $row, $version) . ' >= ' . ident($version) . ')';
}

sub plain_writes
{
	my ($program, $step) = @_;
	my $target = $program->{targets}[ $step->{t} ];
	my $table = oracle_name($target);
	my @sql = map { $step->{op} eq 'delete' ? plain_delete($target, $table, $_) : plain_upsert($target, $table, $_) } @{ $step->{rows} };
	return @sql if !shape($target)->{refuses} || shape($target)->{total};
	return map { 'DO ' . literal("BEGIN $_; EXCEPTION WHEN check_violation THEN NULL; END") } @sql;
}

# The rows of a step, in blocks only of what is not undone.
sub writers { my ($step) = @_; return $step->{parts} ? grep { !$_->{raise} } @{ $step->{parts} } : $step; }

# ---- reading -----------------------------------------------------------

# What cannot be said before it is applied: a function of the owner's, what a
# domain accepts, a volatile default.
sub may_be_unknown
{
	my ($target) = @_;
	my $shape = shape($target);
	for my $name (keys %{ $target->{merge} })
	{
		my $col = $shape->{col}{$name};
		my $rule = $target->{merge}{$name};
		return 1 if $rule =~ /strict|loose|capped/;
		return 1 if ($col->{volatile} || $col->{type} =~ /^(amount|phrase)$/) && $rule =~ /^(sum|concat|min|max)$/;
	}
	return 0;
}

sub volatile_columns { return map { $_->{name} } grep { $_->{volatile} } @{ $_[0]{cols} }; }

# The row without what may be spelled in another way, or is not known yet.
sub shown_sql
{
	my ($shape, $alias, @without) = @_;
	return join(' - ', "to_jsonb($alias)", map { literal($_) } @without);
}

sub table_rows_sql
{
	my ($shape, $table) = @_;
	return "SELECT (to_jsonb(one_row) - 'n')::text FROM $table AS one_row ORDER BY n" if $shape->{append};
	return "SELECT to_jsonb(one_row)::text FROM $table AS one_row ORDER BY 1" unless $shape->{total};
	return "SELECT id || ': ' || coalesce(n, 0) || ', ' || coalesce(m, 0) FROM $table ORDER BY 1";
}

# The totals of the table and of the letters.
sub totals_sql
{
	my ($name) = @_;
	return "SELECT id || ': ' || sum(n) || ', ' || sum(m) FROM (SELECT id, coalesce(n, 0) AS n, coalesce(m, 0) AS m FROM $name"
	  . q{ UNION ALL SELECT (key ->> 'id')::int, coalesce((row ->> 'n')::int, 0), coalesce((row ->> 'm')::int, 0) FROM batchdedup.dead_letter}
	  . " WHERE target = '$name'::regclass) AS a GROUP BY id ORDER BY 1";
}

# All tables of a program, as one moment shows them. "name" says which tables.
sub state_sql
{
	my ($program, $name) = @_;
	my @queries = map { my $table = $name->($_); (table_rows_sql(shape($_), $table), shape($_)->{log} ? log_sql($table) : ()) } @{ $program->{targets} };
	return 'SELECT ' . join(q( || E'\n  --\n' || ), map { qq{array_to_string(ARRAY($_), E'\n')} } @queries);
}

sub log_sql { my ($table) = @_; return "SELECT id || ' ' || op || ' ' || doc::text FROM ${table}_log ORDER BY id, n"; }

# ---- printing ----------------------------------------------------------

# The tables that are emptied first, what refers to others before those.
sub emptied
{
	my ($program) = @_;
	my @targets = @{ $program->{targets} };
	return reverse(@targets) unless defined shape($targets[0])->{family};
	return map { { %{ $targets[0] }, shape => $_ } } qw(leaf branch tree);
}

sub reset_sql
{
	my ($program) = @_;
	my @sql = map { ('DELETE FROM ' . target_name($_), 'DELETE FROM ' . oracle_name($_)) } emptied($program);
	for my $t (0 .. $#{ $program->{targets} })
	{
		my $target = $program->{targets}[$t];
		my $shape = shape($target);
		for my $table (target_name($target), oracle_name($target))
		{
			push @sql, map { plain_upsert($target, $table, $_->{row}) } grep { $_->{t} == $t } @{ $program->{initial} };
			push @sql, "DELETE FROM ${table}_log" if $shape->{log};
		}
	}
	return @sql;
}

my %control = (
	begin => 'BEGIN', commit => 'COMMIT', rollback => 'ROLLBACK', savepoint => 'SAVEPOINT %s', rollback_to => 'ROLLBACK TO %s', release => 'RELEASE %s'
);

sub step_sql
{
	my ($program, $step) = @_;
	my $op = $step->{op};
	my $target = defined $step->{t} ? $program->{targets}[ $step->{t} ] : undef;
	my $name = $target ? target_name($target) : undef;
	no warnings 'redundant';
	return sprintf($control{$op}, $step->{name} // '') if $control{$op};
	return write_sql($target, $step) if $op eq 'upsert' || $op eq 'delete';
	return block_sql($program, $step) if $op eq 'block';
	return "SELECT batchdedup.get('$name', " . literal(row_json(shape($target), { k => $step->{k}, v => {} })) . ')' if $op eq 'get';
	return "SELECT * FROM ${name}_buffered" . ($step->{all} ? '' : ' WHERE ' . key_condition(shape($target), $step->{k})) if $op eq 'view';
	return 'SET ' . ($step->{local} ? 'LOCAL ' : '') . 'batchdedup.enabled = ' . ($step->{on} ? 'on' : 'off') if $op eq 'enabled';
	return "SELECT batchdedup.alter_target('$name', mode => '$step->{mode}')" if $op eq 'mode';
	return alter_target_sql($step->{to}) if $op eq 'alter';
	return "SELECT batchdedup.pause('$name')" if $op eq 'hold';
	return 'SELECT batchdedup.resume(target) FROM batchdedup.target WHERE paused' if $op eq 'unhold';
	return "SELECT batchdedup.flush(), batchdedup.delete('$name', " . literal(row_json(shape($target), { k => $step->{k}, v => {} })) . ') -- one after the other'
	  if $op eq 'cascade';
	return "SELECT batchdedup.pause('$name') -- restart the server, then resume" if $op eq 'restart';
	return 'SELECT -- the server crashes' if $op eq 'crash';
	return "SELECT pg_sleep($step->{ms} / 1000.0)" if $op eq 'sleep';
	return "SET LOCAL batchdedup.debug_point = '$step->{point}:wait'; COMMIT -- do not wait for it" if $op eq 'slow_commit';
	return 'SELECT bdd_debug_release()' if $op eq 'let_go';
	return 'SELECT pg_terminate_backend(pid) FROM pg_stat_activity' . " WHERE backend_type LIKE 'batchdedup%' AND datname = current_database()"
	  if $op eq 'kill_worker';
	return "SELECT batchdedup.$op('$name')";
}

sub to_text
{
	my ($program) = @_;
	my @lines;
	for my $target (@{ $program->{targets} })
	{
		my $shape = shape($target);
		push @lines, table_sql($shape, target_name($target)), create_target_sql($shape, $target->{variant}), alter_target_sql($target);
		push @lines, foreign_key_sql($shape, 't_', "_$target->{variant}", action_of($target->{variant}));
	}
	push @lines, grep { !/\bo_/ && !/^DELETE/ } reset_sql($program);
	my $i = 0;
	push @lines, map { sprintf('/* step %d, session %d */ %s', $i++, $_->{s}, step_sql($program, $_)) } @{ $program->{steps} };
	s/\s+/ /g for @lines;
	return join('', map { "$_;\n" } @prelude, @lines);
}

1;
