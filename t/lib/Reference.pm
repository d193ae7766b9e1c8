package Reference;

# docs/reference.md, made of what the catalog and the settings of a server say:
# signatures, comments, columns, values that a CHECK allows. Nothing of it is
# written here but the order of things.
#
# The comment of a function is a paragraph, and then, where there is more to say
# of them, a line for each argument (or column of its result): "name: text".

use strict;
use warnings;
use utf8;
use Exporter 'import';
use JSON::PP;

our @EXPORT_OK = qw(reference_query reference_page);

# Title, page to read, what to say first, and the names in their order. Every
# function, view and table of the extension stands in one of these lists; those
# whose name ends in _internal are not for users.
my @sections = (
	[
		'Targets', 'targets.md',
		'', qw(create_target alter_target drop_target pause resume accept_loss target)
	],
	[ 'Rows', 'rows.md', '', qw(upsert upsert_record delete flush) ],
	[ 'Reading', 'rows.md#reading', '', qw(get buffered) ],
	[
		'Views', 'views.md',
		'',
		qw(create_view create_redirect drop_redirect overlaid overlay_rows view_write redirect)
	],
	[
		'Rules', 'rules.md',
		'Rules are the words of the argument `merge` of `create_target`: they have no functions of their own.'
	],
	[
		'Dead letters', 'operations.md#rows-that-were-refused',
		'', qw(dead_letter retry_dead_letters discard_dead_letters)
	],
	[
		'Batches',
		'batches.md',
		'',
		qw(create_batch add_file complete_upload claim_files renew_lease complete_file fail_file
		  retry_files claim_batch advance_batch expect_workers complete_worker wait_batch
		  reconcile_batches reconcile_files expire_batches grant_batches
		  batch file file_version batch_transition batch_worker_count batch_worker)
	],
	[
		'Events',
		'events.md',
		'',
		qw(publish_event create_consumer drop_consumer poll_events ack_events nack_event
		  retry_event_dead_letters discard_event_dead_letters expire_events accept_lost_events
		  event event_pending consumer event_dead_letter polled_event)
	],
	[
		'Imports',
		'imports.md',
		'',
		qw(prepare_import create_writer write_chunk finalize_instance finalize_batch abort_batch
		  expire_imports import import_instance import_completed)
	],
	[
		'Syncs',
		'syncs.md',
		'',
		qw(create_sync run_sync pause_sync resume_sync reset_watermark drop_sync
		  retry_sync_dead_letters discard_sync_dead_letters expire_syncs
		  sync sync_status sync_run change_log sync_dead_letter)
	],
	[ 'Canonical JSON', 'canonical.md', '', qw(canonical_json data_version) ],
	[
		'Observing', 'operations.md#monitoring',
		'',
		qw(health stat_target stat_buffer stat_worker stat_journal stat_progress stat_reset)
	],
	[
		'Tables behind the views',
		undef,
		'These are read through the views above. They are no interface: they may change with any version.',
		qw(target_option mark dead_letter_row batch_row consumer_row consumer_shard event_attempt
		  import_chunk sync_row sync_run_row change_log_row sync_letter_row)
	]);

# Everything in one document, from a transaction that leaves nothing behind.
# What belongs to the extension is asked for, not what is in its schema, where
# imports and syncs make tables, too.
my $query = <<'SQL';
BEGIN;
SET LOCAL client_min_messages = warning;
SET LOCAL client_encoding = 'UTF8';
CREATE EXTENSION IF NOT EXISTS batchdedup;
SET LOCAL search_path = pg_catalog;
SET LOCAL IntervalStyle = postgres;
WITH member AS (
    SELECT classid, objid FROM pg_depend
     WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
       AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'batchdedup')
), function AS (
    SELECT p.oid, p.proname AS name, p.prokind AS kind, obj_description(p.oid, 'pg_proc') AS comment,
           pg_get_function_result(p.oid) AS result,
           p.oid::regprocedure::text AS signature,
           (SELECT json_agg(json_build_object(
                       'name', p.proargnames[n], 'quoted', quote_ident(p.proargnames[n]), 'mode', coalesce(p.proargmodes[n], 'i'),
                       'type', format_type(t.type, NULL),
                       'default', pg_get_function_arg_default(p.oid, n::integer)) ORDER BY n)
              FROM unnest(coalesce(p.proallargtypes, p.proargtypes::oid[])) WITH ORDINALITY AS t(type, n)) AS arguments
      FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
), allowed AS (      -- the values that a CHECK of a column allows
    SELECT c.conrelid, c.conkey[1] AS attnum,
           (SELECT json_agg(v[1] ORDER BY n)
              FROM regexp_matches(pg_get_constraintdef(c.oid), '''(\w+)''::text', 'g') WITH ORDINALITY AS x(v, n)) AS list
      FROM pg_constraint c
     WHERE c.contype = 'c' AND array_length(c.conkey, 1) = 1 AND pg_get_constraintdef(c.oid) ~ '= ANY '
), relation AS (
    SELECT c.oid, c.relname AS name, c.relkind AS kind, obj_description(c.oid, 'pg_class') AS comment,
           (SELECT json_agg(json_build_object(
                       'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                       'comment', col_description(c.oid, a.attnum),
                       'values', coalesce(
                           (SELECT l.list FROM allowed l WHERE l.conrelid = c.oid AND l.attnum = a.attnum),
                           -- of the column of that name of a table that the view reads
                           (SELECT l.list FROM pg_rewrite r
                              JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                                              AND d.refclassid = 'pg_class'::regclass
                              JOIN pg_attribute b ON b.attrelid = d.refobjid AND b.attnum = d.refobjsubid
                              JOIN allowed l ON l.conrelid = b.attrelid AND l.attnum = b.attnum
                             WHERE r.ev_class = c.oid AND b.attname = a.attname
                             ORDER BY l.conrelid::regclass::text LIMIT 1))) ORDER BY a.attnum)
              FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns
      FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
    UNION ALL
    SELECT c.oid, c.relname, c.relkind, obj_description(t.oid, 'pg_type'),
           (SELECT json_agg(json_build_object(
                       'name', a.attname, 'type', format_type(a.atttypid, a.atttypmod),
                       'comment', col_description(c.oid, a.attnum)) ORDER BY a.attnum)
              FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)
      FROM member m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
      JOIN pg_class c ON c.oid = t.typrelid AND c.relkind = 'c'
), setting AS (
    SELECT name, boot_val, unit, vartype, context, min_val, max_val, short_desc, extra_desc
      FROM pg_settings WHERE name LIKE 'batchdedup.%'
)
SELECT json_build_object(
    'version', (SELECT extversion FROM pg_extension WHERE extname = 'batchdedup'),
    'functions', (SELECT json_agg(f ORDER BY name COLLATE "C", signature COLLATE "C") FROM function f),
    'relations', (SELECT json_agg(r ORDER BY name COLLATE "C") FROM relation r),
    'settings', (SELECT json_agg(s ORDER BY name COLLATE "C") FROM setting s),
    'steps', (SELECT json_agg(json_build_object('from', from_status, 'to', to_status)
                              ORDER BY ctid)
                FROM batchdedup.batch_transition),
    'kinds', (SELECT json_agg(json_build_object('kind', kind, 'description', description) ORDER BY n)
                FROM batchdedup.event_kinds_internal() WITH ORDINALITY AS k(kind, description, n)));
ROLLBACK;
SQL

sub reference_query
{
	return $query;
}

# What psql printed for the query -> the page, and a list of what is wrong: of
# what has no comment, or no place in the page.
sub reference_page
{
	my ($json) = @_;
	my $catalog = JSON::PP->new->utf8->decode($json);
	my %named;
	push @{ $named{ $_->{name} } }, $_
	  foreach @{ $catalog->{relations} }, grep { !internal($_) } @{ $catalog->{functions} };
	my @wrong = (lacking($catalog), misplaced(\%named));

	my $page = head($catalog);
	foreach my $section (@sections)
	{
		my ($title, $see, $intro, @names) = @$section;
		$page .= "## $title\n\n";
		$page .= 'See [' . $see =~ s/#.*//r . "]($see).\n\n" if $see;
		$page .= "$intro\n\n" if $intro;
		foreach my $name (grep { $named{$_} } @names)
		{
			$page .= "### $name\n\n" . join('', map { described($_) } @{ $named{$name} });
		}
		$page .= batch_steps($catalog) if $title eq 'Batches';
		$page .= event_kinds($catalog) if $title eq 'Events';
	}
	$page .= settings($catalog);
	$page =~ s/\n+\z/\n/;
	return ($page, @wrong);
}

sub internal
{
	my ($function) = @_;
	return $function->{name} =~ /_internal$/;
}

sub head
{
	my ($catalog) = @_;
	my @titles = ((map { $_->[0] } @sections), 'Settings');
	return
	    "# Reference\n\n"
	  . "Every function, view, table, event, status and setting of batchdedup $catalog->{version}, in the schema\n"
	  . "`batchdedup`. Made by `make reference` of what the extension itself says (psql shows the same with\n"
	  . "`\\df+ batchdedup.*` and `\\d+ batchdedup.*`): do not edit it. Arguments with a default can be left out; NULL\n"
	  . "as a default stands for what the text says.\n\n"
	  . join(' · ', map { "[$_](#" . anchor($_) . ')' } @titles) . "\n\n";
}

sub anchor
{
	my ($title) = @_;
	return lc $title =~ tr/ /-/r;
}

# ---------------------------------------------------------------------
# What is wrong
# ---------------------------------------------------------------------

sub lacking
{
	my ($catalog) = @_;
	my @lacking;
	foreach my $function (@{ $catalog->{functions} })
	{
		push @lacking, "function $function->{signature} has no comment" unless $function->{comment};
		push @lacking, map { "function $function->{signature} has no argument \"$_\", of which its comment speaks" }
		  strangers($function);
	}
	foreach my $relation (@{ $catalog->{relations} })
	{
		push @lacking, "$relation->{name} has no comment" unless $relation->{comment};
		push @lacking, map { "column $relation->{name}.$_->{name} has no comment" }
		  grep { !$_->{comment} } @{ $relation->{columns} };
	}
	push @lacking, map { "setting $_->{name} has no description" }
	  grep { !$_->{short_desc} } @{ $catalog->{settings} };
	return @lacking;
}

sub misplaced
{
	my ($named) = @_;
	my %place;
	foreach my $section (@sections)
	{
		my ($title, undef, undef, @names) = @$section;
		push @{ $place{$_} }, $title foreach @names;
	}
	return (
		(map { "$_ is in no section of t/lib/Reference.pm" } sort grep { !$place{$_} } keys %$named),
		(map { "$_ is in a section of t/lib/Reference.pm and does not exist" }
			  sort grep { !$named->{$_} } keys %place),
		(map { "$_ is in several sections of t/lib/Reference.pm" }
			  sort grep { @{ $place{$_} } > 1 } keys %place));
}

# ---------------------------------------------------------------------
# Functions
# ---------------------------------------------------------------------

sub described
{
	my ($object) = @_;
	return exists $object->{signature} ? function($object) : relation($object);
}

sub function
{
	my ($function) = @_;
	my ($summary, $said) = parts($function);
	my $text = "```\n" . signature($function) . "\n```\n\n" . sentence($summary) . "\n\n";
	my @arguments = grep { defined $_->{name} && $said->{ $_->{name} } } @{ $function->{arguments} // [] };
	return $text unless @arguments;
	return $text . join('', map { "- `$_->{name}`: $said->{$_->{name}}\n" } @arguments) . "\n";
}

# The comment: its first paragraph, and what it says of single arguments.
sub parts
{
	my ($function) = @_;
	my ($summary, @lines) = split /\n/, $function->{comment} // '';
	my %said;
	foreach my $line (@lines)
	{
		if ($line =~ /^(\w+): +(.*)/) { $said{$1} = $2; }
		else { $summary .= " $line"; }
	}
	return ($summary // '', \%said);
}

sub strangers
{
	my ($function) = @_;
	my (undef, $said) = parts($function);
	my %known = map { ($_->{name} // '') => 1 } @{ $function->{arguments} // [] };
	return sort grep { !$known{$_} } keys %$said;
}

my %mode = (v => 'VARIADIC ');

sub signature
{
	my ($function) = @_;
	my @arguments =
	  map { ($mode{ $_->{mode} } // '') . "$_->{quoted} $_->{type}" . default($_->{default}) }
	  grep { $_->{mode} =~ /[ibv]/ } @{ $function->{arguments} // [] };
	my $call = $function->{kind} eq 'p' ? "CALL $function->{name}" : $function->{name};
	my $result = $function->{kind} eq 'p' ? '' : ' → ' . result($function);
	my $line = "$call(" . join(', ', @arguments) . ")$result";
	return $line if length $line <= 100;
	return "$call(\n    " . join(",\n    ", @arguments) . ")$result";
}

sub default
{
	my ($default) = @_;
	return '' unless defined $default;
	$default =~ s/::[\w\. ]+(\[\])?//g;
	return " = $default";
}

sub result
{
	my ($function) = @_;
	my @columns = grep { $_->{mode} =~ /[ot]/ } @{ $function->{arguments} // [] };
	return $function->{result} unless @columns;
	my $row = join ', ', map { "$_->{quoted} $_->{type}" } @columns;
	return ($function->{result} =~ /^(SETOF|TABLE)/ ? 'TABLE' : 'ROW') . " ($row)";
}

# Comments are written as in psql: without a capital, without a full stop.
sub sentence
{
	my ($text) = @_;
	return $text =~ /[.:]$/ ? ucfirst $text : ucfirst "$text.";
}

# ---------------------------------------------------------------------
# Views and tables
# ---------------------------------------------------------------------

my %kind = (v => 'View', m => 'Materialized view', c => 'Type', r => 'Table', p => 'Table', f => 'Foreign table');

sub relation
{
	my ($relation) = @_;
	my $text = "$kind{$relation->{kind}}: " . ($relation->{comment} // '') . ".\n\n";
	return $text
	  . table(
		[ 'column', 'type', '' ],
		map { [ "`$_->{name}`", $_->{type}, joined('; ', $_->{comment}, one_of($_->{values})) ] }
		  @{ $relation->{columns} });
}

sub one_of
{
	my ($values) = @_;
	return unless $values;
	return 'one of ' . join(', ', map { "`$_`" } @$values);
}

sub joined
{
	my ($between, @parts) = @_;
	return join $between, grep { defined && length } @parts;
}

sub table
{
	my ($head, @rows) = @_;
	my $line = sub { '|' . join('|', map { length ? " $_ " : ' ' } @_) . "|\n" };
	my $text = $line->(@$head) . $line->(map { '---' } @$head);
	foreach my $row (@rows)
	{
		$text .= $line->(map { s/\|/\\|/gr } map { s/\s+/ /gr } @$row);
	}
	return "$text\n";
}

# ---------------------------------------------------------------------
# Statuses, kinds of events, settings
# ---------------------------------------------------------------------

# In the order in which the script of the extension has them.
sub batch_steps
{
	my ($catalog) = @_;
	my (@statuses, %to);
	foreach my $step (@{ $catalog->{steps} })
	{
		push @{ $to{ $step->{from} } }, $step->{to};
		foreach my $status (@$step{qw(from to)})
		{
			push @statuses, $status unless grep { $_ eq $status } @statuses;
		}
	}
	return "### Statuses of a batch\n\n"
	  . table([ 'status', 'legal steps' ],
		map { [ "`$_`", join(', ', map { "`$_`" } @{ $to{$_} // [] }) || 'none' ] } @statuses);
}

sub event_kinds
{
	my ($catalog) = @_;
	return "### Kinds of events\n\n"
	  . "Those that batchdedup writes itself; applications add their own with other names.\n\n"
	  . table([ 'kind', '' ], map { [ "`$_->{kind}`", $_->{description} ] } @{ $catalog->{kinds} });
}

# pg_settings.context, in words.
my %context = (
	postmaster => 'start of the server',
	sighup => 'reload of the configuration',
	superuser => 'superusers, at any time',
	user => 'anybody, at any time');

sub settings
{
	my ($catalog) = @_;
	return "## Settings\n\n"
	  . "See [operations.md](operations.md#settings).\n\n"
	  . table(
		[ 'setting', 'default', 'range', 'context: changed by', '' ],
		map {
			[
				"`$_->{name}`", amount($_, $_->{boot_val}),
				range($_), "$_->{context}: $context{$_->{context}}",
				joined(' ', $_->{short_desc}, $_->{extra_desc})
			]
		} @{ $catalog->{settings} });
}

my %units = (
	ms => [ [ 'd', 86400000 ], [ 'h', 3600000 ], [ 'min', 60000 ], [ 's', 1000 ], [ 'ms', 1 ] ],
	kB => [ [ 'TB', 1 << 30 ], [ 'GB', 1 << 20 ], [ 'MB', 1 << 10 ], [ 'kB', 1 ] ],
	MB => [ [ 'TB', 1 << 20 ], [ 'GB', 1 << 10 ], [ 'MB', 1 ] ]);

# As SHOW says it.
sub amount
{
	my ($setting, $value) = @_;
	foreach my $unit (@{ $units{ $setting->{unit} // '' } // [] })
	{
		return $value / $unit->[1] . $unit->[0] if $value > 0 && $value % $unit->[1] == 0;
	}
	return $value;
}

sub range
{
	my ($setting) = @_;
	return '' unless defined $setting->{min_val};
	# the greatest integer, of any unit, is no limit that somebody chose
	my $upper = $setting->{max_val} =~ /^2147483647$/ ? '' : amount($setting, $setting->{max_val});
	return amount($setting, $setting->{min_val}) . ' – ' . $upper if $upper ne '';
	return 'from ' . amount($setting, $setting->{min_val});
}

1;
