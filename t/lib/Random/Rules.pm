package Random::Rules;

# A plug-in of Random::Program: targets with merge rules, version columns, and rows
# that are not combined, logged or not, alone or in a flush_group. A target has
#
#   merge => {column => rule}, version, keep_all, logged, group
#
# and a shape also
#   version       columns that may be the version column
#   keep_all      rows are not combined
#   append        rows are only added; log: what happens to each is logged
#   refuses       some rows are refused; total: and only sums are compared
#   family        its place among tables with foreign keys; above: the number of
#                 the key above, for each key
#
# In a family every step keeps the keys in order: it upserts a row with all that it
# refers to, or deletes it with all that refer to it. So no row is ever refused,
# and what cascades is only seen where nothing is buffered ("cascade"). Those that
# refer to others combine their rows: of a row above that comes and goes nothing is
# left, so one that is kept would be refused.
#
#   BDD_SHAPE=cit      one table only
#   BDD_KIND=overlap   or direct, group, plain: one kind only

use strict;
use warnings;
use utf8;
use parent 'Random::Program';
use List::Util qw(shuffle);
use Random::Shapes qw(shape variants value_columns);
use Random::Text qw(chance pick weighted);

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

# A column is [name, type, options].
my @shapes = (
	{
		name => 'ints', key => ['id'], keys => [ [1], [2], [3] ], version => ['v'],
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
			[qw(a text)], [qw(b integer)], [qw(q integer required)], [qw(t text required)], [ 'g', 'integer', { kind => 'generated', pool => undef } ], [qw(o integer)],
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
		name => 'nums', key => ['k'], keys => [ ['1'], ['1.0'], ['1.00'], ['NaN'] ],
		version => [ 'v', 'n' ],
		ddl => 'k numeric PRIMARY KEY, n numeric, m numeric(8,2) DEFAULT 0, f float8 DEFAULT 0, r real, iv interval, v float8',
		cols => [
			[qw(k numeric)], [qw(n numeric)], [ 'm', 'numeric(8,2)' ], [ 'f', 'double precision' ], [qw(r real)], [qw(iv interval)],
			[ 'v', 'double precision' ]
		],
	},
	{
		name => 'cit', key => ['k'], keys => [ ['abc'], ['ABC'], ['aBc'], ['x'] ],
		version => [ 'v', 'ci' ],
		ddl => 'k citext PRIMARY KEY, n int DEFAULT 3, t text, ci citext, v int',
		cols => [ [qw(k citext)], [qw(n integer)], [qw(t text)], [qw(ci citext)], [qw(v integer)] ],
	},
	{
		name => 'icu', key => [ 'i', 'k' ], keys => [ [ 1, 'abc' ], [ 1, 'ABC' ], [ 2, 'abc' ] ],
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
		cols => [ [ 'n', 'bigint', { kind => 'always', pool => undef } ], [qw(kind text required)], [qw(doc jsonb)], [qw(a integer volatile)], [ 'at', 'timestamp with time zone' ] ],
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

for my $shape (@shapes)
{
	$shape->{rules} = 1;
	for my $col (@{ $shape->{cols} })
	{
		my ($name, $type, @options) = @$col;
		$col = { %{ $types{$type} }, name => $name, type => $type, map { ref $_ ? %$_ : ($_ => 1) } @options };
	}
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

sub use_shapes { return Random::Shapes::use_shapes(\@shapes, \@prelude); }

# ---- programs ----------------------------------------------------------

my %forms = (record => 4, array => 3, json => 7, values => 2, view => 1);
my %outside = (begin => 35, upsert => 35, delete => 9, flush => 8, get => 8, look => 4, pause => 0.5, kill_worker => 0.15, sleep => 0.5,
	alter => 0.7, restart => 0.02, crash => 0.03);
my %inside = (upsert => 45, delete => 10, savepoint => 10, rollback_to => 15, release => 5, commit => 11, rollback => 2, get => 8,
	look => 4, block => 4, sleep => 0.3);

sub forms { return \%forms; }
sub length_of { return 6 + int rand pick(8, 20, 40); }

sub features
{
	my $kind = $ENV{BDD_KIND} // weighted({ plain => 4, overlap => 2, direct => 2, $ENV{BDD_SHAPE} ? () : (group => 2) });
	$kind = 'plain' if $kind eq 'direct' && ($ENV{BDD_SHAPE} // '') =~ /^refused/;
	my $group = $kind eq 'group' ? 1 : 0;
	my $family = $group && chance(0.5) ? 1 : 0;
	return (kind => $kind, group => $group, family => $family, overlap => $kind eq 'overlap' || $group && chance(0.2) ? 1 : 0,
		$kind eq 'direct' ? (direct => pick('off', 'mode', 'mixed', 'mixed', 'mixed')) : ());
}

sub weights
{
	my ($self, $session) = @_;
	my $program = $self->{program};
	return $self->SUPER::weights($session) if $session->{aborted};
	return %inside if $session->{tx};
	return (%outside, $program->{overlap} ? (begin => 60) : (), $program->{group} ? (pause => 4, sleep => 3) : (),
		$program->{family} && Random::Shapes::cascades($program->{targets}[0]{variant}) ? (cascade => 2) : ());
}

# Rules for some columns. The version column has none, and a column outside
# of update_columns neither.
sub random_target
{
	my ($self, $shape) = @_;
	my $target = { shape => $shape->{name}, variant => pick(variants()), merge => { %{ $shape->{merge} // {} } }, complete => chance(0.6) ? 1 : 0 };
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

# Two or three targets of one flush_group.
sub random_group
{
	my ($self) = @_;
	my $n = pick(2, 3);
	my $family = $self->{program}{family};
	my @members = $family ? sort { $a->{family} <=> $b->{family} } grep { defined $_->{family} } @shapes
	  : shuffle(grep { !defined $_->{family} && !$_->{refuses} } @shapes);
	my @targets = map { $self->random_target($_) } @members[ 0 .. $n - 1 ];
	my $variant = pick(variants());
	@$_{qw(group complete)} = (1, 1) for @targets;
	$_->{variant} = $variant for $family ? @targets : ();
	return @targets;
}

sub random_targets
{
	my ($self) = @_;
	my $program = $self->{program};
	return $self->random_group if $program->{group};
	my @some = shuffle(grep { !defined $_->{family} && (!$program->{direct} || !$_->{refuses}) } @shapes);
	@some = grep { $_->{name} eq $ENV{BDD_SHAPE} } @some if $ENV{BDD_SHAPE};
	return map { $self->random_target($_) } @some > 1 && chance($program->{overlap} ? 0.7 : 0.3) ? @some[ 0, 1 ] : $some[0];
}

# Of the rows of a family that are there from the start, none without those above.
sub choose_keys
{
	my ($self, $t) = @_;
	my $shape = $self->shape_of($t);
	my @keys = 0 .. $#{ $shape->{keys} };
	if (!$self->{program}{family})
	{
		@keys = (shuffle(@keys))[ 0 .. int rand @keys ];
		$self->add_initial($t, 0.4, @keys);
		return \@keys;
	}
	my $initial = $self->{program}{initial};
	my %there = map { $_->{row}{k} => 1 } grep { $_->{t} == $t - 1 } @$initial;
	push @$initial, map { { t => $t, row => $self->typed_row($t, $_) } } grep { chance(0.5) && (!$t || $there{ $self->above($t, $_) }) } @keys;
	return \@keys;
}

# ---- steps -------------------------------------------------------------

# A version is always given, if it may be NULL.
sub is_needed
{
	my ($self, $target, $col) = @_;
	return grep({ $_ eq $col->{name} } @{ shape($target)->{version} }) || $self->SUPER::is_needed($target, $col);
}

sub deleted_row
{
	my ($self, $t) = @_;
	my ($target, $shape) = ($self->{state}{program}{targets}[$t], $self->shape_of($t));
	my $row = $self->SUPER::deleted_row($t);
	$row->{v}{ $target->{version} } = Random::Program::random_value($shape->{col}{ $target->{version} }) if defined $target->{version} && chance(0.7);
	return $row;
}

sub is_everywhere { my ($self) = @_; return ($self->{program}{overlap} || $self->{program}{group}) && chance(0.5); }

# A row of a target, in whole or in part; perhaps in a subtransaction that is undone.
sub random_part
{
	my ($self, $t, $k, $raise) = @_;
	my %how = chance(0.3) ? (form => 'record', rows => [ $self->typed_row($t, $k) ]) : (form => 'json', rows => [ $self->named_row($t, $k) ]);
	return { op => 'sub', raise => $raise, parts => [ { op => 'upsert', t => $t, %how } ] };
}

sub random_everywhere
{
	my ($self) = @_;
	return { op => 'block', parts => [ map { $self->random_part($_, $self->{keys}[$_][0], 0) } 0 .. $#{ $self->{program}{targets} } ] };
}

sub random_write
{
	my ($self, $op) = @_;
	return $self->SUPER::random_write($op) unless $self->{program}{family};
	return $op eq 'delete' ? $self->family_delete : $self->family_upsert;
}

# Several of a group may be paused at once.
sub random_pause
{
	my ($self) = @_;
	my $t = $self->any_target;
	return { op => 'pause', t => $t } if $self->{program}{group} && !$self->{state}{paused}{$t} && chance(0.3);
	return $self->SUPER::random_pause;
}

# The target with other options, under the same name.
sub other_rules
{
	my ($self, $target) = @_;
	return { %{ $self->random_target(shape($target)) }, map { $_ => $target->{$_} } qw(variant complete group) };
}

my %details;

sub details
{
	my ($self) = @_;
	%details = (
		%{ $self->SUPER::details },
		flush => sub { (ts => [ $_[2] ]) },
		cascade => sub { (t => $_[2], k => $_[0]->any_key($_[2])) },
		alter => sub { (t => $_[2], to => $_[0]->other_rules($_[0]{state}{program}{targets}[ $_[2] ])) }
	) unless %details;
	return \%details;
}

# ---- families ----------------------------------------------------------

sub above { my ($self, $t, $k) = @_; return $self->shape_of($t)->{above}[$k]; }

# A row and those that it refers to, in any order; the lowest may be undone.
sub family_upsert
{
	my ($self) = @_;
	my $t = $self->any_target;
	my $k = $self->any_key($t);
	my @parts;
	for (my $raise = chance(0.1) ? 1 : 0; $t >= 0; $raise = 0)
	{
		push @parts, $self->random_part($t, $k, $raise);
		$k = $self->above($t, $k) if $t > 0;
		$t--;
	}
	return { op => 'block', parts => [ shuffle(@parts) ] };
}

# A row and all that refer to it; its own deletion may be undone.
sub family_delete
{
	my ($self) = @_;
	my $t = $self->any_target;
	my @k = $self->any_key($t);
	my @parts;
	for (my $raise = chance(0.1) ? 1 : 0; ; $raise = 0)
	{
		push @parts, map { { op => 'sub', raise => $raise, parts => [ { op => 'delete', t => $t, form => pick('json', 'record'), rows => [ { k => $_, v => {} } ] } ] } } @k;
		last if ++$t == @{ $self->{program}{targets} };
		my %above = map { $_ => 1 } @k;
		@k = grep { $above{ $self->above($t, $_) } } @{ $self->{keys}[$t] };
	}
	return { op => 'block', parts => [ shuffle(@parts) ] };
}

1;
