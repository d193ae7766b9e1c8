# shellcheck shell=bash
# Rows of a CSV file as statements of several clients. Sourced by replay,
# replay-prices and demo, which set: work (a schema of ours), key (array of the
# key columns), scratch, connections.

export PGCLIENTENCODING=UTF8 PGAPPNAME=batchdedup-replay
export PGOPTIONS="${PGOPTIONS:-} -c client_min_messages=warning"

# The column that tells the newest row of a key, if replay sets it. Not that of
# the environment.
version=

# The process that a script may have in the background, the schema and the
# files go when it ends, however it ends.
helper=
clean_up_at_exit()
{
	trap finish EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
}

finish()
{
	status=$?
	trap '' INT TERM
	[ -z "$helper" ] || kill "$helper" 2>/dev/null || true
	sql -c "DROP SCHEMA IF EXISTS $work CASCADE" >/dev/null 2>&1 || true
	rm -rf "$scratch"
	exit "$status"
}

# psql that stops at an error and prints bare values
sql()
{
	psql -X -q -A -t -v ON_ERROR_STOP=1 "$@"
}

# An archive is one of CSV files that all begin with the same header.
unpack()
{
	case $1 in
		*.tar.* | *.tar) tar -xOf "$1" | awk 'NR == 1 { header = $0; print } $0 != header' ;;
		*.xz) xz -dc -- "$1" ;;
		*.gz) gzip -dc -- "$1" ;;
		*) cat -- "$1" ;;
	esac
}

# Loads $1 (first ${2:-all} rows) into $work.source: the CSV's columns with
# types that fit every value, and "batchdedup line", the row's place in the
# file. The header is read here since COPY would take any names on trust.
load_csv()
{
	local columns
	# head ends early, and the program before it then dies of SIGPIPE
	columns=$( (unpack "$1" 2>/dev/null || true) | head -n 1 | perl -ne '
		s/^\xEF\xBB\xBF//; s/\r?\n\z//;
		while (/\G(?:"((?:[^"]|"")*)"|([^,"]*))(,|\z)/g) {
			my ($name, $end) = (defined $1 ? $1 : $2, $3 eq "");
			push @c, "\"$name\"";	# a quote is doubled in CSV as in SQL
			last if $end;
		}
		print join(",", @c);')
	[ -n "$columns" ] || die "$1: no header line"

	sql -c "DROP SCHEMA IF EXISTS $work CASCADE" -c "CREATE SCHEMA $work"
	sql -c "CREATE UNLOGGED TABLE $work.csv
			(\"batchdedup line\" bigint GENERATED ALWAYS AS IDENTITY,
			${columns//\",\"/\" text, \"} text)"
	unpack "$1" | sql -c "COPY $work.csv ($columns) FROM STDIN (FORMAT csv, HEADER)"
	if [ -n "${2:-}" ]; then
		sql -c "DELETE FROM $work.csv WHERE \"batchdedup line\" > $2"
	fi

	# The narrowest type that every value of a column is written in. Leading
	# zeros make a text ("00501"), and so does what only looks like a time.
	sql <<-SQL
		SET search_path = $work;
		DO \$\$
		DECLARE
			c record;
			t text;
			list text := '"batchdedup line"';
			line text := '';
		BEGIN
			FOR c IN SELECT quote_ident(attname) AS name FROM pg_attribute
				WHERE attrelid = 'csv'::regclass AND attnum > 1 ORDER BY attnum
			LOOP
				EXECUTE format(\$q\$
					SELECT CASE
						WHEN count(v) = 0 THEN 'text'
						WHEN bool_and(v ~ '^(0|-?[1-9][0-9]{0,8})\$') THEN 'int'
						WHEN bool_and(v ~ '^(0|-?[1-9][0-9]{0,17})\$') THEN 'bigint'
						WHEN bool_and(v ~ '^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]{1,2})?\$') THEN 'numeric'
						WHEN bool_and(v ~* '^(true|false|t|f)\$') THEN 'boolean'
						WHEN bool_and(v ~ '^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?( ?(Z|[-+][0-9]{2}(:?[0-9]{2})?))?\$')
							THEN 'timestamptz'
						ELSE 'text' END
					FROM (SELECT %s AS v FROM csv) AS s\$q\$, c.name) INTO t;
				IF t = 'timestamptz' THEN
					BEGIN
						EXECUTE format('SELECT count(%s::timestamptz) FROM csv', c.name);
					EXCEPTION WHEN data_exception THEN
						t := 'text';
					END;
				END IF;
				list := list || format(', %s::%s', c.name, t);
			END LOOP;
			EXECUTE 'CREATE TABLE source AS SELECT ' || list || ' FROM csv';
		END
		\$\$;
		DROP TABLE csv;
		ANALYZE source;
	SQL
}

# The file's column $2, quoted; $1 is the setting that names it.
column()
{
	local there
	there=$(sql -v c="$2" <<-SQL
		SELECT 1 FROM pg_attribute WHERE attrelid = '$work.source'::regclass
		AND attnum > 1 AND attname = :'c'
	SQL
	)
	[ -n "$there" ] || die "$1: the file has no column \"$2\""
	echo "\"${2//\"/\"\"}\""
}

# Sets key_list ("a", "b") from the array key; refuses a key that is not there.
check_key()
{
	local k bad
	key_list=
	for k in "${key[@]}"; do
		k=$(column KEY "$k")
		bad=$(sql -c "SELECT count(*) || ' rows, the first is row ' || min(\"batchdedup line\")
			FROM $work.source WHERE $k IS NULL OR $k::text = '' HAVING count(*) > 0")
		[ -z "$bad" ] || die "KEY: column $k is empty in $bad"
		key_list=${key_list:+$key_list, }$k
	done
}

# Creates table $1 like the source, with the key.
create_table()
{
	# the columns, in order: as names, as literals, as text
	columns=$(column_list '%1$I')
	literals=$(column_list 'quote_nullable(%1$I::text)')
	texts=$(column_list '%1$I::text')
	sql -c "CREATE TABLE $1 AS SELECT $columns FROM $work.source WITH NO DATA" \
		-c "ALTER TABLE $1 ADD PRIMARY KEY ($key_list)"
}

# The columns of the source, each in the format $1.
column_list()
{
	sql -v t="$work.source" -v f="$1" <<-'SQL'
		SELECT string_agg(format(:'f', attname), ', ' ORDER BY attnum)
		FROM pg_attribute WHERE attrelid = :'t'::regclass AND attnum > 1
	SQL
}

# Writes a file of statements per client, $scratch/$1.<n>: format string $2
# gets the row's columns as literals, joined by commas, for its one %s. All
# rows that agree in the columns $together, of a key unless set, go to one
# client, and each client sends them in the order of $send_order, that of the
# file unless set.
write_statements()
{
	local n pids=()
	for ((n = 0; n < connections; n++)); do
		sql -v f="$2" -o "$scratch/$1.$n" <<-SQL &
			SELECT format(:'f', concat_ws(', ', $literals))
			FROM $work.source
			WHERE abs(hash_record_extended(ROW(${together:-$key_list}), 0) % $connections) = $n
			ORDER BY ${send_order:+$send_order,} "batchdedup line";
		SQL
		pids+=($!)
	done
	for n in "${pids[@]}"; do wait "$n"; done
}

# Runs a file of statements, each of which prints one line. When the connection
# is lost it goes on behind the last line that was printed: what was acknowledged
# is not sent again.
run_stubbornly()
{
	local file=$1 sent=0 lines
	lines=$(wc -l <"$file")
	while [ "$sent" -lt "$lines" ]; do
		tail -n "+$((sent + 1))" "$file" | sql -o "$file.out" -f - 2>/dev/null || sleep 0.1
		[ ! -e "$file.out" ] || sent=$((sent + $(wc -l <"$file.out")))
		rm -f "$file.out"
	done
}

# Runs the files of $1, a connection each, and waits for all of them. Every
# statement is a transaction of its own. With "stubborn" it survives crashes of
# the server. Sets seconds.
run_clients()
{
	local n start pids=() failed=0
	start=${EPOCHREALTIME/,/.}
	for ((n = 0; n < connections; n++)); do
		if [ -n "${stubborn:-}" ]; then
			run_stubbornly "$scratch/$1.$n" &
		else
			sql -o /dev/null -f "$scratch/$1.$n" &
		fi
		pids+=($!)
	done
	for n in "${pids[@]}"; do wait "$n" || failed=1; done
	seconds=$(LC_ALL=C awk "BEGIN { printf \"%.1f\", ${EPOCHREALTIME/,/.} - $start }")
	[ "$failed" -eq 0 ] || die "a client failed"
}

# How many rows of $1 are not the ones that plain SQL ends with, or the other
# way round: the last row of each key, or the last one of its newest $version,
# if that is set. Compared as text, since 1.0 = 1.00.
differences()
{
	sql <<-SQL
		CREATE TEMP TABLE want AS
			SELECT DISTINCT ON ($key_list) $columns FROM $work.source
			ORDER BY $key_list, ${version:+$version DESC NULLS LAST,} "batchdedup line" DESC;
		SELECT (SELECT count(*) FROM (SELECT $texts FROM want EXCEPT ALL SELECT $texts FROM $1) AS a)
			+ (SELECT count(*) FROM (SELECT $texts FROM $1 EXCEPT ALL SELECT $texts FROM want) AS b);
	SQL
}
