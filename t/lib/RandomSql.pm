package RandomSql;

# A step as SQL: once for batchdedup, once as the plain statements that it
# stands for.

use strict;
use warnings;
use RandomModel;
use RandomShapes qw(ident literal table_name view_name);

sub new
{
	my ($class, $program, $shape_of) = @_;
	my @targets = map { { shape => $shape_of->{ $_->{shape} }, variant => $_->{variant},
				update => $_->{update} // $shape_of->{ $_->{shape} }{update} } } @{ $program->{targets} };
	return bless { targets => \@targets }, $class;
}

sub shape { return $_[0]{targets}[ $_[1] ]{shape}; }

sub target
{
	my ($self, $t) = @_;
	return table_name($self->shape($t), $self->{targets}[$t]{variant});
}

sub view
{
	my ($self, $t) = @_;
	return view_name($self->shape($t), $self->{targets}[$t]{variant});
}

sub oracle { my ($self, $t) = @_; return table_name($self->shape($t), ''); }

# ---- values ------------------------------------------------------------

# A value of a row by column name: {lit, text, json, ...}, or undef for NULL.
sub value
{
	my ($self, $t, $row, $name) = @_;
	my $shape = $self->shape($t);
	my $key = $shape->{measured_keys}[ $row->{k} ]{parts};
	for my $n (0 .. $#{ $shape->{key} })
	{
		return $key->[$n] if $shape->{key}[$n] eq $name;
	}
	my $index = $row->{v}{$name};
	return defined $index ? $shape->{col}{$name}{values}[$index] : undef;
}

sub value_sql
{
	my ($value) = @_;
	return defined $value ? RandomShapes::value_sql($value) : 'NULL';
}

sub json_string
{
	my ($text) = @_;
	$text =~ s/(["\\])/\\$1/g;
	$text =~ s/\n/\\n/g;
	return qq{"$text"};
}

# Numbers and arrays as JSON has them, the rest as strings, as clients do;
# $strings asks for strings wherever the type takes one.
sub value_json
{
	my ($value, $type, $strings) = @_;
	return 'null' unless defined $value;
	my $lossless = defined $value->{json};
	return $value->{json} if $type =~ /^json/;
	return $value->{json} if $lossless && !($strings && !ref $value->{lit});
	return json_string(ref $value->{lit} ? $value->{text} : $value->{lit});
}

# The columns that a row names: its key and what it gives, in table order,
# or the other way round.
sub named_columns
{
	my ($self, $t, $row, $reverse) = @_;
	my @cols = grep { $_->{iskey} || exists $row->{v}{ $_->{name} } } @{ $self->shape($t)->{cols} };
	return map { $_->{name} } $reverse ? reverse @cols : @cols;
}

sub row_json
{
	my ($self, $t, $row, $step) = @_;
	my $bad = $row->{bad} // '';
	my $shape = $self->shape($t);
	my @pairs;
	for my $name ($self->named_columns($t, $row, $step->{reverse}))
	{
		my $value = value_json($self->value($t, $row, $name), $shape->{col}{$name}{type}, $step->{strings});
		$value = 'null' if $bad eq 'null_key' && $name eq $shape->{key}[-1];
		$value = '"no such value"' if $bad eq "bad_type:$name";
		$value = 'null' if $bad eq "null_value:$name";
		push @pairs, json_string($name) . ": $value";
	}
	push @pairs, '"no such column": 1' if $bad eq 'unknown';
	return '{' . join(', ', @pairs) . '}';
}

sub doc_sql
{
	my ($self, $step) = @_;
	my @docs = map { $self->row_json($step->{t}, $_, $step) } @{ $step->{rows} };
	return @docs == 1 && !$step->{wrap} ? $docs[0] : '[' . join(', ', @docs) . ']';
}

# ROW(...)::t with every column.
sub row_sql
{
	my ($self, $t, $row) = @_;
	my $shape = $self->shape($t);
	my $bad = $row->{bad} // '';
	return 'NULL::' . $self->target($t) if $bad eq 'null_row';
	my @values;
	for my $col (@{ $shape->{cols} })
	{
		my $name = $col->{name};
		my $value = value_sql($self->value($t, $row, $name));
		$value = 'NULL' if $bad eq 'null_key' && $name eq $shape->{key}[-1];
		$value = 'NULL' if $bad eq "null_value:$name";
		push @values, $value;
	}
	return 'ROW(' . join(', ', @values) . ')::' . $self->target($t);
}

# A row in the text format of composite types: a parameter.
sub row_text
{
	my ($self, $t, $row) = @_;
	my @fields;
	for my $col (@{ $self->shape($t)->{cols} })
	{
		my $value = $self->value($t, $row, $col->{name});
		my $text = defined $value ? $value->{text} : undef;
		$text =~ s/(["\\])/$1$1/g if defined $text;
		push @fields, defined $text ? qq{"$text"} : '';
	}
	return '(' . join(',', @fields) . ')';
}

sub array_text
{
	my ($self, $step) = @_;
	my @rows = map { $self->row_text($step->{t}, $_) } @{ $step->{rows} };
	s/(["\\])/\\$1/g for @rows;
	return '{' . join(',', map { qq{"$_"} } @rows) . '}';
}

# ---- batchdedup --------------------------------------------------------

sub values_source
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my @names = $self->named_columns($t, $step->{rows}[0], $step->{reverse});
	my $col = $self->shape($t)->{col};
	my @rows;
	for my $row (@{ $step->{rows} })
	{
		my @values = map { value_sql($self->value($t, $row, $_)) . "::$col->{$_}{type}" } @names;
		push @rows, '(' . join(', ', @values) . ')';
	}
	return '(VALUES ' . join(', ', @rows) . ') AS new_row(' . join(', ', map { ident($_) } @names) . ')';
}

# The form of the documentation; unnest() takes arrays of arrays and of
# composites apart, so these go the other way.
sub unnest_source
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my @names = $self->named_columns($t, $step->{rows}[0], $step->{reverse});
	my $col = $self->shape($t)->{col};
	return $self->values_source($step) if @names == 1 || grep { $col->{$_}{type} =~ /\[\]|^pair$/ } @names;
	my @arrays;
	for my $name (@names)
	{
		my @values = map { value_sql($self->value($t, $_, $name)) } @{ $step->{rows} };
		push @arrays, 'ARRAY[' . join(', ', @values) . "]::$col->{$name}{type}\[]";
	}
	return 'unnest(' . join(', ', @arrays) . ') AS new_row(' . join(', ', map { ident($_) } @names) . ')';
}

sub rows_array
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	return 'ARRAY[' . join(', ', map { $self->row_sql($t, $_) } @{ $step->{rows} }) . ']::' . $self->target($t) . '[]';
}

# ---- the view ----------------------------------------------------------

# Columns that INSERT may name.
sub view_columns { my ($self, $t) = @_; return grep { ($_->{kind} // '') ne 'generated' } @{ $self->shape($t)->{cols} }; }

sub is_null
{
	my ($self, $row, $name, $t) = @_;
	my $bad = $row->{bad} // '';
	return $bad eq "null_value:$name" || $bad eq 'null_key' && $name eq $self->shape($t)->{key}[-1];
}

sub insert_rows
{
	my ($self, $step, $relation) = @_;
	my $t = $step->{t};
	my @cols = $self->view_columns($t);
	my @rows;
	for my $row (@{ $step->{rows} })
	{
		my @values = map { $self->is_null($row, $_->{name}, $t) ? 'NULL'
			  : $_->{kind} && !defined $row->{v}{ $_->{name} } ? 'DEFAULT'
			  : value_sql($self->value($t, $row, $_->{name})) . "::$_->{type}" } @cols;
		push @rows, '(' . join(', ', @values) . ')';
	}
	return "INSERT INTO $relation (" . join(', ', map { ident($_->{name}) } @cols) . ') VALUES ' . join(', ', @rows);
}

# Of the table itself, row by row, or without ON CONFLICT.
sub redirected_insert
{
	my ($self, $step) = @_;
	my $target = $self->target($step->{t});
	return $self->insert_rows($step, $target) if $step->{bare} || $step->{bad};
	return join('; ', map { $self->plain_upsert($target, $step->{t}, $_, 1) } @{ $step->{rows} });
}

sub view_delete
{
	my ($self, $step) = @_;
	my @conditions = map { '(' . $self->key_condition($step->{t}, { k => $_->{k}, v => {} }) . ')' } @{ $step->{rows} };
	return 'DELETE FROM ' . $self->view($step->{t}) . ' WHERE ' . join(' OR ', @conditions);
}

sub view_update
{
	my ($self, $step) = @_;
	my ($t, $row) = ($step->{t}, $step->{rows}[0]);
	my $col = $self->shape($t)->{col};
	my @set = map { ident($_) . ' = ' . value_sql($self->value($t, $row, $_)) . "::$col->{$_}{type}" } sort keys %{ $row->{v} };
	return 'UPDATE ' . $self->view($t) . ' SET ' . join(', ', @set) . ' WHERE ' . $self->key_condition($t, $row) . ' RETURNING now()::text';
}

sub view_write
{
	my ($self, $step) = @_;
	return $self->redirected_insert($step) if $step->{form} eq 'redirect';
	return $step->{op} eq 'delete' ? $self->view_delete($step) : $self->insert_rows($step, $self->view($step->{t}));
}

# COPY and its lines.
sub copy_statement
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my @cols = $self->view_columns($t);
	my @lines;
	for my $row (@{ $step->{rows} })
	{
		my @fields;
		for my $col (@cols)
		{
			my $value = $self->is_null($row, $col->{name}, $t) ? undef : $self->value($t, $row, $col->{name});
			my $text = defined $value ? $value->{text} : undef;
			$text =~ s/([\\\n\t\r])/\\$1/g if defined $text;
			push @fields, $text // '\N';
		}
		push @lines, join("\t", @fields);
	}
	return ('COPY ' . $self->view($t) . ' (' . join(', ', map { ident($_->{name}) } @cols) . ') FROM STDIN', @lines);
}

sub look_statement
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	return 'SELECT ' . $self->text_columns($t, 'x') . ' FROM ' . $self->view($t) . ' AS x'
	  . (defined $step->{k} ? ' WHERE ' . $self->key_condition($t, { k => $step->{k}, v => {} }) : '');
}

# A call and what it reads from: (call, FROM clause, parameter or undef).
sub upsert_call
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my $target = $self->target($t);
	my $name = literal($target);
	my $form = $step->{form};
	return ('batchdedup.upsert(' . $self->row_sql($t, $step->{rows}[0]) . ')', '') if $form eq 'record';
	return ('batchdedup.upsert(new_row)', ' FROM unnest(' . $self->rows_array($step) . ') AS new_row') if $form eq 'record_many';
	return ('batchdedup.upsert(' . $self->rows_array($step) . ')', '') if $form eq 'array';
	return ("batchdedup.upsert($name, " . literal($self->doc_sql($step)) . ')', '') if $form eq 'json';
	return ("batchdedup.upsert_record($name, new_row)", ' FROM ' . $self->values_source($step)) if $form eq 'values';
	return ("batchdedup.upsert_record($name, new_row)", ' FROM ' . $self->unnest_source($step)) if $form eq 'unnest';
	return ("batchdedup.upsert(\$1::$target)", '', $self->row_text($t, $step->{rows}[0])) if $form eq 'prepared_record';
	return ("batchdedup.upsert(\$1::$target\[])", '', $self->array_text($step)) if $form eq 'prepared_array';
	return ("batchdedup.upsert($name, \$1::jsonb)", '', $self->doc_sql($step)) if $form eq 'prepared_json';
	die "unknown form $form";
}

sub delete_call
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my $name = literal($self->target($t));
	my @rows = map { { k => $_->{k}, v => {}, bad => $_->{bad} } } @{ $step->{rows} };
	my @docs = map { literal($self->row_json($t, $_, $step)) } @rows;
	return ('batchdedup.delete(' . $self->row_sql($t, $rows[0]) . ')', '') if $step->{form} eq 'record' && @docs == 1;
	return ('batchdedup.delete(new_row)', ' FROM unnest(' . $self->rows_array({ t => $t, rows => \@rows }) . ') AS new_row')
	  if $step->{form} eq 'record';
	return ("batchdedup.delete($name, $docs[0])", '') if @docs == 1;
	return ("batchdedup.delete($name, d)", ' FROM unnest(ARRAY[' . join(', ', @docs) . ']::jsonb[]) AS d');
}

sub write_call
{
	my ($self, $step) = @_;
	return $step->{op} eq 'delete' ? $self->delete_call($step) : $self->upsert_call($step);
}

# A DO block cannot return anything: it leaves its now() in a setting.
sub block_statement
{
	my ($self, $step) = @_;
	my $now = q{set_config('test.now', now()::text, false)};
	return "DO \$do\$ BEGIN PERFORM $now;" . $self->block_sql($step->{parts}) . ' END $do$' unless $step->{multi};
	my @calls = map { $_->{form} =~ /^(view|redirect)$/ ? $self->view_write($_) : join('', 'SELECT ', $self->write_call($_)) } @{ $step->{parts} };
	return join('; ', @calls, "SELECT $now");
}

sub block_sql
{
	my ($self, $parts) = @_;
	my $sql = '';
	for my $part (@$parts)
	{
		if ($part->{op} eq 'sub')
		{
			$sql .= ' BEGIN' . $self->block_sql($part->{parts});
			$sql .= " RAISE 'undo';" if $part->{raise};
			$sql .= ' EXCEPTION WHEN raise_exception THEN NULL; END;';
			next;
		}
		if ($part->{form} =~ /^(view|redirect)$/)
		{
			$sql .= ' ' . $self->view_write($part) . ';';
			next;
		}
		my ($call, $from) = $self->write_call($part);
		$sql .= " PERFORM $call$from;";
	}
	return $sql;
}

sub get_sql
{
	my ($self, $t, $k) = @_;
	my $target = $self->target($t);
	my $doc = literal($self->row_json($t, { k => $k, v => {} }, {}));
	return "batchdedup.get(" . literal($target) . ", $doc)";
}

sub text_columns
{
	my ($self, $t, $alias) = @_;
	return join(', ', map { "$alias." . ident($_->{name}) . '::text' } @{ $self->shape($t)->{cols} });
}

# Part of the library, but of no script: for tests only.
sub debug_release_sql
{
	return "CREATE FUNCTION bdd_debug_release() RETURNS void LANGUAGE C AS '\$libdir/batchdedup'";
}

my %control = (
	begin => sub { $_[0]{iso} ? "BEGIN ISOLATION LEVEL $_[0]{iso}" : 'BEGIN' },
	commit => sub { 'COMMIT' },
	rollback => sub { 'ROLLBACK' },
	savepoint => sub { "SAVEPOINT $_[0]{name}" },
	rollback_to => sub { "ROLLBACK TO $_[0]{name}" },
	release => sub { "RELEASE $_[0]{name}" },
	slow_commit => sub { "COMMIT" },
	let_go => sub { 'SELECT bdd_debug_release()' },
	commit_chain => sub { 'COMMIT AND CHAIN' },
	rollback_chain => sub { 'ROLLBACK AND CHAIN' },
	prepare => sub { "PREPARE TRANSACTION 'refused'" },
	kill_worker => sub {
		"SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
		  . " WHERE backend_type LIKE 'batchdedup%' AND datname = current_database()"
	},
	sleep => sub { "SELECT pg_sleep($_[0]{ms} / 1000.0)" },
	reconnect => sub { '-- disconnect and connect' },
	enabled => sub { 'SET ' . ($_[0]{local} ? 'LOCAL ' : '') . 'batchdedup.enabled = ' . ($_[0]{on} ? 'on' : 'off') },
);

# The statement of a step, and its parameter if it has one. Writers return
# now(), since defaults are taken at the call.
sub statement
{
	my ($self, $step) = @_;
	my $op = $step->{op};
	return $control{$op}->($step) if $control{$op};
	return $self->write_statement($step) if $op eq 'upsert' || $op eq 'delete';
	return $self->plain_statement($step) if $op eq 'plain';
	return $self->flush_statement(@{ $step->{ts} }) if $op eq 'flush';
	return $self->get_statement($step) if $op eq 'get';
	return $self->buffered_statement($step) if $op eq 'buffered';
	return $self->look_statement($step) if $op eq 'look';
	return $self->view_update($step) if $op eq 'update';
	return $self->block_statement($step) if $op eq 'block';
	return $self->mode_statement(@$step{qw(t mode)}) if $op eq 'mode';
	return "SELECT batchdedup.$op(" . literal($self->target($step->{t})) . ')';
}

sub mode_statement
{
	my ($self, $t, $mode) = @_;
	return 'SELECT batchdedup.alter_target(' . literal($self->target($t)) . ", mode => '$mode')";
}

sub write_statement
{
	my ($self, $step) = @_;
	# a row that is taken, and then the statement fails
	my $late = ($step->{bad} // '') eq 'division' ? ', 1 / (random() * 0)::int' : '';
	return $self->view_write($step) . " RETURNING now()::text$late" if $step->{form} eq 'view';
	return $self->view_write($step) . '; SELECT now()::text' if $step->{form} eq 'redirect';
	return join('; ', $self->copy_statement($step)) if $step->{form} eq 'copy';
	my ($call, $from, $param) = $self->write_call($step);
	my $sql = "SELECT now()::text, $call$late$from";
	return defined $param ? ($sql, $param) : $sql;
}

sub flush_statement
{
	my ($self, @ts) = @_;
	return 'SELECT batchdedup.flush(' . join(', ', map { literal($self->target($_)) } @ts) . ')';
}

sub get_statement
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my $target = $self->target($t);
	return 'SELECT got.doc IS NULL, ' . $self->text_columns($t, 'result') . ' FROM (SELECT '
	  . $self->get_sql($t, $step->{k}) . " AS doc) AS got, LATERAL jsonb_populate_record(NULL::$target, got.doc) AS result";
}

sub buffered_statement
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my $target = $self->target($t);
	return "SELECT 'buffer', " . $self->text_columns($t, 'b') . " FROM batchdedup.buffered(NULL::$target) AS b"
	  . " UNION ALL SELECT 'table', " . $self->text_columns($t, 'x') . " FROM $target AS x";
}

# ---- plain statements --------------------------------------------------

sub key_condition
{
	my ($self, $t, $row) = @_;
	my $shape = $self->shape($t);
	return join(' AND ', map { ident($_) . ' = ' . value_sql($self->value($t, $row, $_)) . "::$shape->{col}{$_}{type}" }
		  @{ $shape->{key} });
}

# The columns that a statement gives, as the model decides it.
sub given_columns
{
	my ($self, $t, $row, $typed) = @_;
	my @given;
	for my $col (@{ $self->shape($t)->{cols} })
	{
		my ($name, $kind) = ($col->{name}, $col->{kind} // '');
		next if $kind =~ /^(generated|always)$/;
		next if !$col->{iskey} && !$typed && !exists $row->{v}{$name};
		next if $kind eq 'identity' && $typed && !defined $row->{v}{$name};
		push @given, $name;
	}
	return @given;
}

# A typed row is an INSERT … ON CONFLICT; a row that names some columns is an
# UPDATE and, if that finds nothing, an INSERT.
sub plain_upsert
{
	my ($self, $table, $t, $row, $typed) = @_;
	my %update = map { $_ => 1 } @{ $self->{targets}[$t]{update} };
	my @given = $self->given_columns($t, $row, $typed);
	my @set = grep { $update{$_} } @given;
	my $columns = join(', ', map { ident($_) } @given);
	my $key = join(', ', map { ident($_) } @{ $self->shape($t)->{key} });
	my $col = $self->shape($t)->{col};
	my %sql = map { $_ => value_sql($self->value($t, $row, $_)) . "::$col->{$_}{type}" } @given;
	my $values = join(', ', @sql{@given});
	my $insert = "INSERT INTO $table ($columns)";
	my $condition = $self->key_condition($t, $row);
	return "$insert VALUES ($values) ON CONFLICT ($key) DO "
	  . (@set ? 'UPDATE SET ' . join(', ', map { ident($_) . ' = EXCLUDED.' . ident($_) } @set) : 'NOTHING')
	  if $typed;
	return "$insert SELECT $values WHERE NOT EXISTS (SELECT FROM $table WHERE $condition)" unless @set;
	return "WITH updated AS (UPDATE $table SET " . join(', ', map { ident($_) . " = $sql{$_}" } @set)
	  . " WHERE $condition RETURNING 1) $insert SELECT $values WHERE NOT EXISTS (SELECT FROM updated)";
}

sub plain_delete
{
	my ($self, $table, $t, $k) = @_;
	return "DELETE FROM $table WHERE " . $self->key_condition($t, { k => $k, v => {} });
}

# For the step that writes beside the buffer.
sub plain_statement
{
	my ($self, $step, $table) = @_;
	$table //= $self->target($step->{t});
	return $step->{row}
	  ? $self->plain_upsert($table, $step->{t}, $step->{row}, 1)
	  : $self->plain_delete($table, $step->{t}, $step->{k});
}

sub oracle_writes
{
	my ($self, $step) = @_;
	my $t = $step->{t};
	my $table = $self->oracle($t);
	return map { $self->plain_delete($table, $t, $_->{k}) } @{ $step->{rows} } if $step->{op} eq 'delete';
	my $typed = RandomModel::is_typed($step->{form});
	return map { $self->plain_upsert($table, $t, $_, $typed) } @{ $step->{rows} };
}

sub oracle_parts
{
	my ($self, $parts) = @_;
	my @sql;
	for my $part (@$parts)
	{
		push @sql, $self->oracle_writes($part) if $part->{op} ne 'sub';
		push @sql, 'SAVEPOINT sub', $self->oracle_parts($part->{parts}),
		  $part->{raise} ? 'ROLLBACK TO sub' : (), 'RELEASE sub'
		  if $part->{op} eq 'sub';
	}
	return @sql;
}

# The plain statements of a step, in the oracle's tables.
sub oracle_statements
{
	my ($self, $step, $now) = @_;
	my $op = $step->{op};
	return $control{$op}->($step) if $op =~ /^(savepoint|rollback_to|release)$/;
	my @sql = $op eq 'block' ? $self->oracle_parts($step->{parts})
	  : $op eq 'plain' ? $self->plain_statement($step, $self->oracle($step->{t}))
	  : $self->oracle_writes($step);
	# the setting is rolled back with a savepoint, so every step sets it again
	return ('SET oracle.now = ' . literal($now // 'none'), @sql);
}

# ---- whole tables ------------------------------------------------------

# Empty tables with the first rows of the program: the targets', or the
# oracle's.
sub reset_statements
{
	my ($self, $initial, $oracle) = @_;
	my @sql;
	for my $t (0 .. $#{ $self->{targets} })
	{
		my $table = $oracle ? $self->oracle($t) : $self->target($t);
		my @rows = map { $_->{row} } grep { $_->{t} == $t } @$initial;
		push @sql, "DELETE FROM $table", map { $self->plain_upsert($table, $t, $_, 1) } @rows;
	}
	return @sql;
}

sub table_statement
{
	my ($self, $t, $table) = @_;
	return 'SELECT ' . $self->text_columns($t, 'x') . " FROM $table AS x";
}

1;
