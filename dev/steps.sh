# shellcheck shell=bash
# The steps of dev/check-all. Sourced there, each step in a shell of its own,
# with $copy (the sources) and $scratch set.

step_build()
{
	cd "$copy"
	as_server_user make -s --no-print-directory PG_CONFIG="$PG_CONFIG" \
		WERROR=1 -j"$(nproc)" all
}

step_install()
{
	local libdir
	libdir=$("$PG_CONFIG" --pkglibdir)
	[ -w "$libdir" ] || die "may not write to $libdir: run this as root," \
		"or set PG_CONFIG to an installation of yours"
	cd "$copy"
	make -s --no-print-directory PG_CONFIG="$PG_CONFIG" WERROR=1 install
}

step_regress()
{
	local tests
	cd "$copy"
	tests=$(names REGRESS)
	regress_like REGRESS="$tests" ISOLATION=
}

# The same files with the kill switch on. What is expected differs: errors come
# at the call, and nothing is ever in the buffer.
step_regress-direct()
{
	local tests
	cd "$copy"
	tests=$(names REGRESS_DIRECT)
	as_server_user mkdir -p direct
	as_server_user ln -sfn ../sql direct/sql
	as_server_user ln -sfn ../expected/direct direct/expected
	server_settings=(-c batchdedup.enabled=off)
	# Since 16 what is expected has a directory of its own.
	local options="--inputdir=direct --outputdir=direct"
	"$(dirname "$("$PG_CONFIG" --pgxs)")/../test/regress/pg_regress" --help | grep -q expecteddir &&
		options+=" --expecteddir=direct"
	regress_like REGRESS="$tests" ISOLATION= EXTRA_REGRESS_OPTS="$options"
}

step_isolation()
{
	local tests
	cd "$copy"
	tests=$(names ISOLATION)
	regress_like REGRESS= ISOLATION="$tests"
}

# The tests in list $1 of the Makefile. REGRESS and ISOLATION narrow it down.
names()
{
	dev/check-names >&2 || return
	make -s --no-print-directory PG_CONFIG="$PG_CONFIG" \
		${REGRESS:+REGRESS="$REGRESS"} ${ISOLATION:+ISOLATION="$ISOLATION"} "show-$1"
}

server_settings=()

regress_like()
{
	local status=0 dir
	if [[ "$*" != *[A-Z]=[a-zA-Z0-9]* ]]; then
		echo "no such tests yet"
		return 0
	fi
	[ -z "${ACCEPT:-}" ] || expect_something
	rm -f {.,output_iso,direct}/regression.diffs
	(unset REGRESS ISOLATION
	as_server_user env HOME="$scratch" PG_CONFIG="$PG_CONFIG" "$copy/dev/with-server" \
		${server_settings[@]+"${server_settings[@]}"} -- \
		make -s --no-print-directory PG_CONFIG="$PG_CONFIG" "$@" installcheck) || status=$?
	for dir in . output_iso direct; do
		if [ "$status" -ne 0 ] && [ -s "$dir/regression.diffs" ]; then
			cat "$dir/regression.diffs"
			[ -z "${ACCEPT:-}" ] || { accept "$dir" && status=0; }
		fi
	done
	return "$status"
}

# pg_regress wants a file to compare with, also for a test that is new.
expect_something()
{
	local f
	for f in sql/*.sql specs/*.spec; do
		f=$(basename "${f%.*}").out
		as_server_user touch -a "expected/$f" "expected/direct/$f"
	done
}

# With ACCEPT=1: takes the results below $1 for what is to be expected.
accept()
{
	local expected=expected name result
	[ "$1" != direct ] || expected=expected/direct
	sed -n 's,^diff .*/\([^/ ]*\.out\) \([^ ]*\)$,\1 \2,p' "$1/regression.diffs" |
	while read -r name result; do
		cp "$result" "$root/$expected/$name"
	done
}

step_tap()
{
	local pgxs tests status=0
	cd "$copy"
	tests=${PROVE_TESTS:-$(LC_ALL=C ls t/*.pl 2>/dev/null || true)}
	if [ -z "$tests" ]; then
		echo "no such tests yet"
		return 0
	fi
	# shellcheck disable=SC2086 # PROVE_TESTS may be a list and a pattern
	set -- $tests
	echo "Running $# TAP files"
	pgxs=$(dirname "$("$PG_CONFIG" --pgxs)")/../..
	as_server_user mkdir -p tmp_check
	# TESTDIR is for PostgreSQL 15 and older, the other two for its successors.
	# Only prove's own lines may stand in the output that is counted, so what
	# the tests say on the side is shown afterwards, and only if it matters.
	# shellcheck disable=SC2086
	as_server_user env -u LC_ALL -u LC_CTYPE HOME="$scratch" LANG="$(server_locale)" \
		PATH="$("$PG_CONFIG" --bindir):$PATH" \
		PERL5LIB="$pgxs/src/test/perl:$copy/t${PERL5LIB:+:$PERL5LIB}" \
		PG_REGRESS="$pgxs/src/test/regress/pg_regress" \
		PG_CONFIG="$PG_CONFIG" PGPORT=65432 TESTDIR="$copy" \
		TESTDATADIR="$copy/tmp_check" TESTLOGDIR="$copy/tmp_check/log" \
		prove ${PROVE_FLAGS:-} "$@" 2>"$scratch/tap.stderr" || status=$?
	if [ "$status" -ne 0 ]; then
		cat "$scratch/tap.stderr"
		show_tap_logs "$@"
	fi
	return "$status"
}

# The end of each failed test's log, and of its servers'.
show_tap_logs()
{
	local t log
	for t in "$@"; do
		log=tmp_check/log/regress_log_$(basename "$t" .pl)
		grep -qE '^(\[[^]]*\](\([^)]*\))? )?not ok |^# Looks like|Bail out|died' "$log" 2>/dev/null || continue
		for log in "$log" "tmp_check/log/$(basename "$t" .pl)"_*.log; do
			[ -s "$log" ] || continue
			echo "--- $log ends with ---"
			tail -n 40 "$log"
		done
	done
}
