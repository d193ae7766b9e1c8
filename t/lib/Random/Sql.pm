package Random::Sql;

# A step as SQL: once for batchdedup, once as the plain statements that it stands
# for. What a merge rule means is said here once more, and nowhere taken from src/.

use strict;
use warnings;
use Random::Shapes qw(shape value_columns target_name oracle_name view_name);
use Random::State;
use Random::Text qw(ident names literal json_string);

sub new { my ($class, $program) = @_; return bless { targets => $program->{targets} }, $class; }
sub target { return $_[0]{targets}[ $_[1] ]; }
sub shape_of { return shape($_[0]{targets}[ $_[1] ]); }
sub name { return target_name($_[0]{targets}[ $_[1] ]); }

# ---- values ------------------------------------------------------------

# A value of a row: text, {text, json}, or undef for NULL.
sub value
{
	my ($shape, $row, $name) = @_;
	for my $n (0 .. $#{ $shape->{key} })
	{
		return $shape->{keys}[ $row->{k} ][$n] if $shape->{key}[$n] eq $name;
	}
	my $index = $row->{v}{$name};
	return defined $index ? $shape->{col}{$name}{pool}[$index] : undef;
}

# What spoils a row makes it NULL.
sub is_null
{
	my ($shape, $row, $name) = @_;
	my $bad = $row->{bad} // '';
	return $bad eq "null_value:$name" || $bad eq 'null_key' && $name eq $shape->{key}[-1];
}

sub text_of
{
	my ($shape, $row, $name) = @_;
	return undef if is_null($shape, $row, $name);
	my $value = value($shape, $row, $name);
	return ref $value ? $value->{text} : $value;
}

sub value_sql { my ($shape, $row, $name) = @_; return literal(text_of($shape, $row, $name)) . "::$shape->{col}{$name}{type}"; }

# Numbers and arrays as JSON has them, the rest as strings, as clients do;
# $strings asks for strings wherever the type takes one.
sub value_json
{
	my ($shape, $row, $name, $strings) = @_;
	my $bad = $row->{bad} // '';
	return '"no such value"' if $bad eq "bad_type:$name";
	my ($value, $type) = (value($shape, $row, $name), $shape->{col}{$name}{type});
	return 'null' if !defined $value || is_null($shape, $row, $name);
	my $text = ref $value ? $value->{text} : $value;
	return $text if $type =~ /^json/;
	return json_string($text) if $strings;
	return $value->{json} if ref $value;
	return $text if $type =~ /^(small|big|amount|num|double|real|int)/ && $text =~ /^-?[0-9]+(\.[0-9]+)?$/ && $text ne '-0' && $type !~ /\[/;
	return $text =~ tr/{}/[]/r =~ s/NULL/null/gr if $type =~ /\[\]$/ && $text =~ /^\{/;
	return json_string($text);
}

# The columns that a row names: its key and what it gives, in table order,
# or the other way round.
sub named
{
	my ($shape, $row, $reverse) = @_;
	my @names = map { $_->{name} } grep { $_->{iskey} || exists $row->{v}{ $_->{name} } } @{ $shape->{cols} };
	return $reverse ? reverse @names : @names;
}

sub row_json
{
	my ($shape, $row, $step) = @_;
	my @pairs = map { json_string($_) . ': ' . value_json($shape, $row, $_, $step->{strings}) } named($shape, $row, $step->{reverse});
	push @pairs, '"no such column": 1' if ($row->{bad} // '') eq 'unknown';
	return '{' . join(', ', @pairs) . '}';
}

sub doc
{
	my ($shape, $step) = @_;
	my @docs = map { row_json($shape, $_, $step) } @{ $step->{rows} };
	return @docs == 1 && !$step->{wrap} ? $docs[0] : '[' . join(', ', @docs) . ']';
}

# ROW(...)::t with every column.
sub row_sql
{
	my ($self, $t, $row) = @_;
	my $shape = $self->shape_of($t);
	return 'NULL::' . $self->name($t) if ($row->{bad} // '') eq 'null_row';
	return 'ROW(' . join(', ', map { $_->{pool} || $_->{iskey} ? value_sql($shape, $row, $_->{name}) : 'NULL' } @{ $shape->{cols} }) . ')::' . $self->name($t);
}

sub rows_array
{
	my ($self, $t, @rows) = @_;
	return 'ARRAY[' . join(', ', map { $self->row_sql($t, $_) } @rows) . ']::' . $self->name($t) . '[]';
}

# A row in the text format of composite types: a parameter.
sub row_text
{
	my ($shape, $row) = @_;
	my @fields = map { text_of($shape, $row, $_->{name}) } @{ $shape->{cols} };
	return '(' . join(',', map { defined $_ ? '"' . s/(["\\])/$1$1/gr . '"' : '' } @fields) . ')';
}

sub array_text
{
	my ($shape, $step) = @_;
	return '{' . join(',', map { '"' . row_text($shape, $_) =~ s/(["\\])/\\$1/gr . '"' } @{ $step->{rows} }) . '}';
}

# ---- upserts and deletes -----------------------------------------------

sub values_source
{
	my ($shape, $step) = @_;
	my @names = named($shape, $step->{rows}[0], $step->{reverse});
	my @rows = map { my $row = $_; '(' . join(', ', map { value_sql($shape, $row, $_) } @names) . ')' } @{ $step->{rows} };
	return '(VALUES ' . join(', ', @rows) . ') AS new_row(' . names(@names) . ')';
}

# The form of the documentation; unnest() takes arrays of arrays and of
# composites apart, so these go the other way.
sub unnest_source
{
	my ($shape, $step) = @_;
	my @names = named($shape, $step->{rows}[0], $step->{reverse});
	my $col = $shape->{col};
	return values_source($shape, $step) if @names == 1 || grep { $col->{$_}{type} =~ /\[\]|^pair$/ } @names;
	my @arrays = map { my $name = $_; 'ARRAY[' . join(', ', map { literal(text_of($shape, $_, $name)) } @{ $step->{rows} }) . "]::$col->{$name}{type}\[]" } @names;
	return 'unnest(' . join(', ', @arrays) . ') AS new_row(' . names(@names) . ')';
}

# A call and what it reads from: (call, FROM clause, parameter or undef).
sub upsert_call
{
	my ($self, $step) = @_;
	my ($t, $form, @rows) = (@$step{qw(t form)}, @{ $step->{rows} });
	my ($shape, $target) = ($self->shape_of($t), $self->name($t));
	my $name = literal($target);
	return ('batchdedup.upsert(' . $self->row_sql($t, $rows[0]) . ')', '') if $form eq 'record';
	return ('batchdedup.upsert(new_row)', ' FROM unnest(' . $self->rows_array($t, @rows) . ') AS new_row') if $form eq 'record_many';
	return ('batchdedup.upsert(' . $self->rows_array($t, @rows) . ')', '') if $form eq 'array';
	return ("batchdedup.upsert($name, " . literal(doc($shape, $step)) . ')', '') if $form eq 'json';
	return ("batchdedup.upsert_record($name, new_row)", ' FROM ' . values_source($shape, $step)) if $form eq 'values';
	return ("batchdedup.upsert_record($name, new_row)", ' FROM ' . unnest_source($shape, $step)) if $form eq 'unnest';
	return ("batchdedup.upsert(\$1::$target)", '', row_text($shape, $rows[0])) if $form eq 'prepared_record';
	return ("batchdedup.upsert(\$1::$target\[])", '', array_text($shape, $step)) if $form eq 'prepared_array';
	return ("batchdedup.upsert($name, \$1::jsonb)", '', doc($shape, $step)) if $form eq 'prepared_json';
	die "unknown form $form";
}

sub delete_call
{
	my ($self, $step) = @_;
	my ($t, @rows) = ($step->{t}, @{ $step->{rows} });
	my $name = literal($self->name($t));
	my @docs = map { literal(row_json($self->shape_of($t), $_, $step)) } @rows;
	return ('batchdedup.delete(' . $self->row_sql($t, $rows[0]) . ')', '') if $step->{form} eq 'record' && @rows == 1;
	return ('batchdedup.delete(new_row)', ' FROM unnest(' . $self->rows_array($t, @rows) . ') AS new_row') if $step->{form} eq 'record';
	return ("batchdedup.delete($name, $docs[0])", '') if @docs == 1;
	return ("batchdedup.delete($name, d)", ' FROM unnest(ARRAY[' . join(', ', @docs) . ']::jsonb[]) AS d');
}

sub call { my ($self, $step) = @_; return $step->{op} eq 'delete' ? $self->delete_call($step) : $self->upsert_call($step); }

# ---- the view, and the redirected table --------------------------------

# Columns that INSERT may name.
sub insert_columns { my ($shape) = @_; return grep { ($_->{kind} // '') ne 'generated' } @{ $shape->{cols} }; }

sub insert_rows
{
	my ($self, $step, $relation) = @_;
	my $shape = $self->shape_of($step->{t});
	my @cols = insert_columns($shape);
	my @rows;
	for my $row (@{ $step->{rows} })
	{
		my @values = map { $_->{kind} && !defined $row->{v}{ $_->{name} } ? 'DEFAULT' : value_sql($shape, $row, $_->{name}) } @cols;
		push @rows, '(' . join(', ', @values) . ')';
	}
	return "INSERT INTO $relation (" . names(map { $_->{name} } @cols) . ') VALUES ' . join(', ', @rows);
}

# Of the table itself, row by row, or without ON CONFLICT.
sub redirected_insert
{
	my ($self, $step) = @_;
	my $name = $self->name($step->{t});
	return $self->insert_rows($step, $name) if $step->{bare} || $step->{bad};
	return join('; ', map { $self->plain_upsert($name, $step->{t}, $_, 1) } @{ $step->{rows} });
}

sub view_update
{
	my ($self, $step) = @_;
	return $self->plain_update(view_name($self->target($step->{t})), $step) . ' RETURNING now()::text';
}

sub view_write
{
	my ($self, $step) = @_;
	my $view = view_name($self->target($step->{t}));
	return $self->redirected_insert($step) if $step->{form} eq 'redirect';
	return $self->insert_rows($step, $view) if $step->{op} ne 'delete';
	return "DELETE FROM $view WHERE " . join(' OR ', map { '(' . $self->key_condition($step->{t}, $_->{k}) . ')' } @{ $step->{rows} });
}

# COPY and its lines.
sub copy_statement
{
	my ($self, $step) = @_;
	my $shape = $self->shape_of($step->{t});
	my @cols = insert_columns($shape);
	my $field = sub { defined $_[0] ? $_[0] =~ s/([\\\n\t\r])/\\$1/gr : '\N' };
	my @lines = map { my $row = $_; join("\t", map { $field->(text_of($shape, $row, $_->{name})) } @cols) } @{ $step->{rows} };
	return ('COPY ' . view_name($self->target($step->{t})) . ' (' . names(map { $_->{name} } @cols) . ') FROM STDIN', @lines);
}

# ---- steps -------------------------------------------------------------

# A DO block cannot return anything: it leaves its now() in a setting.
sub block_statement
{
	my ($self, $step) = @_;
	my $now = q{set_config('test.now', now()::text, false)};
	return "DO \$do\$ BEGIN PERFORM $now;" . $self->block_sql($step->{parts}) . ' END $do$' unless $step->{multi};
	my @calls = map { $_->{form} =~ /^(view|redirect)$/ ? $self->view_write($_) : join('', 'SELECT ', ($self->call($_))[ 0, 1 ]) } @{ $step->{parts} };
	return join('; ', @calls, "SELECT $now");
}

sub block_sql
{
	my ($self, $parts) = @_;
	my $sql = '';
	for my $part (@$parts)
	{
		$sql .= ' BEGIN' . $self->block_sql($part->{parts}) . ($part->{raise} ? " RAISE 'undo';" : '') . ' EXCEPTION WHEN raise_exception THEN NULL; END;' if $part->{parts};
		next if $part->{parts};
		my ($call, $from) = $part->{form} =~ /^(view|redirect)$/ ? () : $self->call($part);
		$sql .= $call ? " PERFORM $call$from;" : ' ' . $self->view_write($part) . ';';
	}
	return $sql;
}

# Writers return now(), since defaults are taken at the call.
sub write_statement
{
	my ($self, $step) = @_;
	# a row that is taken, and then the statement fails
	my $late = ($step->{bad} // '') eq 'division' ? ', 1 / (random() * 0)::int' : '';
	return $self->view_write($step) . " RETURNING now()::text$late" if $step->{form} eq 'view';
	return $self->view_write($step) . '; SELECT now()::text' if $step->{form} eq 'redirect';
	return join('; ', $self->copy_statement($step)) if $step->{form} eq 'copy';
	my ($call, $from, $param) = $self->call($step);
	return ("SELECT now()::text, $call$late$from", defined $param ? $param : ());
}

# The text of every column. Through jsonb, as get() has it, it may be another.
sub cells { my ($shape, $alias) = @_; return join(', ', map { "$alias." . ident($_->{name}) . '::text' } @{ $shape->{cols} }); }

sub get_statement
{
	my ($self, $step) = @_;
	my ($t, $name) = ($step->{t}, $self->name($step->{t}));
	my $doc = literal(row_json($self->shape_of($t), { k => $step->{k}, v => {} }, {}));
	return $self->document_cells($t, $step->{k}, $name, 'SELECT batchdedup.get(' . literal($name) . ", $doc) AS doc");
}

# The cells of a document, whether its key is the one, and how many fields it has.
sub document_cells
{
	my ($self, $t, $k, $name, $query) = @_;
	my $shape = $self->shape_of($t);
	my $equal = join(' AND ', map { 'result.' . ident($_) . ' = ' . value_sql($shape, { k => $k, v => {} }, $_) } @{ $shape->{key} });
	return 'SELECT ' . cells($shape, 'result') . ", $equal, (SELECT count(*) FROM jsonb_object_keys(got.doc))"
	  . " FROM ($query) AS got, LATERAL jsonb_populate_record(NULL::$name, got.doc) AS result WHERE got.doc IS NOT NULL";
}

sub look_statement
{
	my ($self, $step) = @_;
	my $where = defined $step->{k} ? ' WHERE ' . $self->key_condition($step->{t}, $step->{k}) : '';
	return 'SELECT ' . cells($self->shape_of($step->{t}), 'x') . ' FROM ' . view_name($self->target($step->{t})) . " AS x$where";
}

sub buffered_statement
{
	my ($self, $step) = @_;
	my ($shape, $name) = ($self->shape_of($step->{t}), $self->name($step->{t}));
	return "SELECT 'buffer', " . cells($shape, 'b') . " FROM batchdedup.buffered(NULL::$name) AS b"
	  . " UNION ALL SELECT 'table', " . cells($shape, 'x') . " FROM $name AS x";
}

sub calls_of_name { my ($self, $function, @names) = @_; return "SELECT batchdedup.$function(" . join(', ', map { literal($_) } @names) . ')'; }
sub calls_of { my ($self, $function, @ts) = @_; return $self->calls_of_name($function, map { $self->name($_) } @ts); }
sub mode_statement { my ($self, $t, $mode) = @_; return 'SELECT batchdedup.alter_target(' . literal($self->name($t)) . ", mode => '$mode')"; }

my %statement = (
	begin => sub { $_[1]{iso} ? "BEGIN ISOLATION LEVEL $_[1]{iso}" : 'BEGIN' },
	commit => sub { 'COMMIT' },
	rollback => sub { 'ROLLBACK' },
	savepoint => sub { "SAVEPOINT $_[1]{name}" },
	rollback_to => sub { "ROLLBACK TO $_[1]{name}" },
	release => sub { "RELEASE $_[1]{name}" },
	slow_commit => sub { "COMMIT" },
	let_go => sub { 'SELECT bdd_debug_release()' },
	commit_chain => sub { 'COMMIT AND CHAIN' },
	rollback_chain => sub { 'ROLLBACK AND CHAIN' },
	prepare => sub { "PREPARE TRANSACTION 'refused'" },
	kill_worker => sub { Random::Server::kill_worker_sql() },
	sleep => sub { "SELECT pg_sleep($_[1]{ms} / 1000.0)" },
	reconnect => sub { '-- disconnect and connect' },
	restart => sub { '-- pause the targets, restart the server, resume them' },
	crash => sub { '-- the server crashes' },
	cascade => sub { my ($self, $step) = @_; '-- flush, delete, flush: ' . ($self->delete_call({ %$step, form => 'json', rows => [ { k => $step->{k}, v => {} } ] }))[0] },
	enabled => sub { 'SET ' . ($_[1]{local} ? 'LOCAL ' : '') . 'batchdedup.enabled = ' . ($_[1]{on} ? 'on' : 'off') },
	upsert => \&write_statement,
	delete => \&write_statement,
	update => \&view_update,
	block => \&block_statement,
	plain => sub { my ($self, $step) = @_; $self->plain_statement($step, $self->name($step->{t})) },
	flush => sub { $_[0]->calls_of('flush', @{ $_[1]{ts} }) },
	pause => sub { $_[0]->calls_of('pause', $_[1]{t}) },
	resume => sub { $_[0]->calls_of('resume', $_[1]{t}) },
	mode => sub { $_[0]->mode_statement(@{ $_[1] }{qw(t mode)}) },
	alter => sub { Random::Shapes::alter_target_sql($_[1]{to}) },
	get => \&get_statement,
	look => \&look_statement,
	buffered => \&buffered_statement,
);

# The statement of a step, and its parameter if it has one.
sub statement { my ($self, $step) = @_; return $statement{ $step->{op} }->($self, $step); }

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
	my %updated = map { $_ => 1 } @{ $target->{update} // shape($target)->{update} };
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

# The columns that a row gives. In a typed row that is every column, except NULL
# for an identity column.
sub given
{
	my ($shape, $row, $typed) = @_;
	return grep { my $col = $shape->{col}{$_}; $col->{iskey} || $col->{pool} && ($typed ? !$col->{kind} || defined $row->{v}{$_} : exists $row->{v}{$_}) }
	  map { $_->{name} } @{ $shape->{cols} };
}

# Where all is given that an insert needs, an INSERT ... ON CONFLICT; else an
# UPDATE of the row that is there.
sub plain_upsert
{
	my ($self, $table, $t, $row, $typed) = @_;
	my ($target, $shape) = ($self->target($t), $self->shape_of($t));
	my @given = given($shape, $row, $typed);
	my $columns = names(@given);
	my $values = join(', ', map { value_sql($shape, $row, $_) } @given);
	return "INSERT INTO $table ($columns) VALUES ($values)" if $shape->{append};
	my %given = map { $_ => 1 } @given;
	my @names = grep { !$shape->{col}{$_}{iskey} } @given;
	my $lacks = grep { $_->{required} && !$given{ $_->{name} } } @{ $shape->{cols} };
	my $new = $lacks ? 'n' : 'EXCLUDED';
	my $set = assignments($target, $new, @names);
	my @where = not_older($target, $new);
	return "INSERT INTO $table AS t ($columns) VALUES ($values) ON CONFLICT (" . names(@{ $shape->{key} }) . ') DO '
	  . ($set ne '' ? "UPDATE SET $set" . (@where ? " WHERE @where" : '') : 'NOTHING')
	  unless $lacks;
	return () if $set eq '';
	return "UPDATE $table AS t SET $set FROM (VALUES ($values)) AS n ($columns) WHERE "
	  . join(' AND ', @where, map { 't.' . ident($_) . ' = n.' . ident($_) } @{ $shape->{key} });
}

sub key_condition
{
	my ($self, $t, $k) = @_;
	my $shape = $self->shape_of($t);
	return join(' AND ', map { ident($_) . ' = ' . value_sql($shape, { k => $k, v => {} }, $_) } @{ $shape->{key} });
}

sub plain_update
{
	my ($self, $table, $step) = @_;
	my ($shape, $row) = ($self->shape_of($step->{t}), $step->{rows}[0]);
	return "UPDATE $table SET " . join(', ', map { ident($_) . ' = ' . value_sql($shape, $row, $_) } sort keys %{ $row->{v} })
	  . ' WHERE ' . $self->key_condition($step->{t}, $row->{k});
}

sub plain_delete
{
	my ($self, $table, $t, $row) = @_;
	my $sql = "DELETE FROM $table AS t WHERE " . $self->key_condition($t, $row->{k});
	my $version = $self->target($t)->{version};
	return $sql unless defined $version && defined $row->{v}{$version};
	return "$sql AND (" . ident($version) . ' IS NULL OR ' . value_sql($self->shape_of($t), $row, $version) . ' >= ' . ident($version) . ')';
}

# For the step that writes beside the buffer.
sub plain_statement
{
	my ($self, $step, $table) = @_;
	my ($row) = @{ $step->{rows} };
	return $step->{delete} ? $self->plain_delete($table, $step->{t}, $row) : $self->plain_upsert($table, $step->{t}, $row, 1);
}

# The plain statements of one row of a step, in the oracle's table.
sub oracle_writes
{
	my ($self, $step, $row) = @_;
	my ($t, $shape) = ($step->{t}, $self->shape_of($step->{t}));
	my $table = oracle_name($self->target($t));
	my @sql = $step->{op} eq 'delete' ? $self->plain_delete($table, $t, $row)
	  : $step->{op} eq 'plain' ? $self->plain_statement($step, $table)
	  : $step->{op} eq 'update' ? $self->plain_update($table, $step)
	  : $self->plain_upsert($table, $t, $row, Random::State::is_typed($step->{form}));
	return @sql if !$shape->{refuses} || $shape->{total};
	return map { 'DO ' . literal("BEGIN $_; EXCEPTION WHEN check_violation THEN NULL; END") } @sql;
}

# ---- whole tables ------------------------------------------------------

# Empty tables with the first rows of the program, targets' and oracle's; of a
# family those that refer to others are emptied before these.
sub reset_statements
{
	my ($self, $program, @names) = @_;
	my @targets = @{ $self->{targets} };
	my @emptied = defined shape($targets[0])->{family} ? map { { %{ $targets[0] }, shape => $_ } } qw(leaf branch tree) : reverse @targets;
	my @sql = map { my $target = $_; map { 'DELETE FROM ' . $_->($target) } @names } @emptied;
	for my $t (0 .. $#targets)
	{
		for my $table (map { $_->($targets[$t]) } @names)
		{
			push @sql, map { $self->plain_upsert($table, $t, $_->{row}, 1) } grep { $_->{t} == $t } @{ $program->{initial} };
			push @sql, "DELETE FROM ${table}_log" if $self->shape_of($t)->{log};
		}
	}
	return @sql;
}

# The rows of a table; where only totals are compared, these.
sub rows_statement
{
	my ($self, $t, $table, $is_oracle) = @_;
	my $shape = $self->shape_of($t);
	return totals_sql($table, $is_oracle) if $shape->{total};
	return 'SELECT ' . cells($shape, 'x') . " FROM $table AS x" unless $shape->{append};
	return 'SELECT ' . cells({ cols => [ grep { $_->{pool} } @{ $shape->{cols} } ] }, 'x') . " FROM $table AS x ORDER BY n";
}

# The totals of the table and of the letters.
sub totals_sql
{
	my ($name, $is_oracle) = @_;
	my $letters = $is_oracle ? '' : q{ UNION ALL SELECT (key ->> 'id')::int, coalesce((row ->> 'n')::int, 0), coalesce((row ->> 'm')::int, 0) FROM batchdedup.dead_letter}
	  . " WHERE target = '$name'::regclass";
	return "SELECT id, sum(n), sum(m) FROM (SELECT id, coalesce(n, 0) AS n, coalesce(m, 0) AS m FROM $name$letters) AS a GROUP BY id ORDER BY 1";
}

sub log_statement { my ($table) = @_; return "SELECT id || ' ' || op || ' ' || doc::text FROM ${table}_log ORDER BY id, n"; }

# All tables of a program, as one moment shows them. "name" says which tables.
sub state_statement
{
	my ($self, $name) = @_;
	my @queries = map { my $table = $name->($_); (table_text_sql(shape($_), $table), shape($_)->{log} ? log_statement($table) : ()) } @{ $self->{targets} };
	return 'SELECT ' . join(q( || E'\n  --\n' || ), map { qq{array_to_string(ARRAY($_), E'\n')} } @queries);
}

sub table_text_sql
{
	my ($shape, $table) = @_;
	return "SELECT (to_jsonb(one_row) - 'n')::text FROM $table AS one_row ORDER BY n" if $shape->{append};
	return "SELECT id || ': ' || coalesce(n, 0) || ', ' || coalesce(m, 0) FROM $table ORDER BY 1" if $shape->{total};
	my $without = join('', map { ' - ' . literal($_->{name}) } @{ $shape->{unknown} });
	return "SELECT (to_jsonb(one_row)$without)::text FROM $table AS one_row ORDER BY 1";
}

# ---- printing ----------------------------------------------------------

sub printed_step
{
	my ($self, $step) = @_;
	my ($sql, $param) = $self->statement($step);
	return "SET LOCAL batchdedup.debug_point = '$step->{point}:wait'; COMMIT; -- do not wait for it" if $step->{op} eq 'slow_commit';
	return $self->calls_of('flush', $step->{t}) . "; $sql;" if $step->{op} eq 'plain';
	return "$sql;" unless defined $param;
	my $value = literal($param);
	return $sql =~ s/\$1/$value/r . '; -- as a parameter';
}

# A program as SQL that can be run by hand, with the session of each line. Steps
# that say nothing where they stand are left out when it runs.
sub to_text
{
	my ($program) = @_;
	my $self = Random::Sql->new($program);
	my @lines = ('CREATE EXTENSION batchdedup', Random::Server::release_sql(), Random::Shapes::prelude());
	for my $target (@{ $program->{targets} })
	{
		my $shape = shape($target);
		push @lines, Random::Shapes::table_sql($shape, target_name($target)), Random::Shapes::create_target_sql($target), Random::Shapes::alter_target_sql($target),
		  Random::Shapes::foreign_key_sql($shape, 't_', "_$target->{variant}", Random::Shapes::action_of($target->{variant}));
	}
	push @lines, 'SET batchdedup.enabled = off', (grep { !/^DELETE/ } $self->reset_statements($program, \&target_name)), 'RESET batchdedup.enabled';
	$_ = s/\s+/ /gr . ';' for @lines;
	my $i = 0;
	push @lines, map { sprintf('/* step %d, session %d */ %s', $i++, $_->{s}, $self->printed_step($_)) } @{ $program->{steps} };
	push @lines, $self->calls_of('flush', 0 .. $#{ $program->{targets} }) . '; -- sessions rolled back, targets resumed';
	return join('', map { "$_\n" } @lines);
}

1;
