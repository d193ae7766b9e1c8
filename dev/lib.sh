# shellcheck shell=bash
# What the scripts here share. Sourced, not run.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PG_CONFIG=${PG_CONFIG:-pg_config}

# make exports its own flags, and DATA=… of `make replay` would reach the
# makes that we start.
unset MAKEFLAGS MFLAGS MAKEOVERRIDES MAKELEVEL

# What is built by a script has the functions of src/testing.
export TESTING=1

die()
{
	echo "${0##*/}: $*" >&2
	exit 1
}

# A server refuses to run as root, so root borrows the account that the
# PostgreSQL packages create.
if [ "$(id -u)" -eq 0 ]; then
	server_user=postgres
	id -u "$server_user" >/dev/null 2>&1 || server_user=nobody
else
	server_user=$(id -un)
fi

as_server_user()
{
	if [ "$(id -u)" -eq 0 ]; then
		setpriv --reuid="$server_user" --regid="$(id -g "$server_user")" \
			--init-groups "$@"
	else
		"$@"
	fi
}

# The locale of the servers that we make, whatever that of the caller is.
server_locale()
{
	if locale -a 2>/dev/null | grep -qiE '^C\.UTF-?8$'; then
		echo C.UTF-8
	else
		echo C
	fi
}

# Sets scratch: a fresh directory that the server's user owns. The path of a
# Unix socket has room for about 100 bytes, and a TMPDIR of root's is closed
# to others, hence the way out to /tmp.
make_scratch()
{
	local base=${TMPDIR:-/tmp}
	if [ "${#base}" -gt 60 ] || ! as_server_user test -x "$base"; then
		base=/tmp
	fi
	scratch=$(mktemp -d "$base/batchdedup.XXXXXX")
	if [ "$(id -u)" -eq 0 ]; then
		chown "$server_user:" "$scratch"
	fi
}

# Stops servers that a killed test left behind in $scratch, and removes it.
# Known by the pid files in it, so no other server is touched.
remove_scratch()
{
	local pidfile pid
	[ -n "${scratch:-}" ] && [ -d "$scratch" ] || return 0
	find "$scratch" -name postmaster.pid 2>/dev/null |
	while read -r pidfile; do
		pid=$(head -n 1 "$pidfile" 2>/dev/null) || continue
		kill -QUIT "$pid" 2>/dev/null || continue
		for _ in {1..50}; do
			kill -0 "$pid" 2>/dev/null || break
			sleep 0.1
		done
	done
	rm -rf "$scratch" || { sleep 1; rm -rf "$scratch"; }
}

# Copies the sources to $1, without what a build or test left among them, so
# that a build there neither disturbs the checkout nor is disturbed by it.
copy_sources()
{
	mkdir -p "$1"
	tar -C "$root" -cf - --exclude=./.git --exclude='*.o' --exclude='*.so' \
		--exclude='*.bc' --exclude='./batchdedup--[0-9].[0-9].sql' --exclude=./results --exclude=./output_iso \
		--exclude=./tmp_check --exclude=./tmp_check_iso --exclude=./log \
		--exclude=./regression.diffs --exclude=./regression.out . |
		tar -C "$1" -xf - --no-same-owner
	if [ "$(id -u)" -eq 0 ]; then
		chown -R "$server_user:" "$1"
	fi
}

# Runs make for the installation of $PG_CONFIG.
pg_make()
{
	make -s --no-print-directory PG_CONFIG="$PG_CONFIG" "$@"
}

# Builds in the scratch copy $1 and installs from there.
build_and_install()
{
	local libdir
	(cd "$1" && as_server_user make -s --no-print-directory \
		PG_CONFIG="$PG_CONFIG" -j"$(nproc)" all) || return 1
	libdir=$("$PG_CONFIG" --pkglibdir)
	[ -w "$libdir" ] || die "may not write to $libdir: run this as root," \
		"or set PG_CONFIG to an installation of yours"
	(cd "$1" && pg_make install) || return 1
}

# The same from a scratch copy of its own, with all that it needs.
build_and_install_here()
{
	"$root/dev/install-deps"
	make_scratch
	trap remove_scratch EXIT
	copy_sources "$scratch/batchdedup"
	build_and_install "$scratch/batchdedup"
	remove_scratch
	trap - EXIT
}

# Installs, and runs a command beside a server of its own: the arguments of
# dev/with-server. Does not return.
on_own_server()
{
	build_and_install_here
	exec "$root/dev/with-server" "$@"
}
