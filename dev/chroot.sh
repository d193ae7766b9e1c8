# shellcheck shell=bash
# What dev/check-version and dev/check-install share: chroots with a Debian
# suite in them, and running something there. Sourced, not run, after lib.sh.
#
# What runs in a chroot has mounts and process ids of its own: both are gone
# when it ends, however it ends.

suites='bookworm trixie forky sid experimental'
version='' suite='' mirror='' security=''
child=

# Runs a function of the script in namespaces of its own: what it needs of the
# script must be exported.
isolated()
{
	local status=0
	setsid setpriv --pdeathsig KILL \
		unshare --mount --pid --ipc --fork --kill-child bash -c \
		'set -euo pipefail; "$@"' "${0##*/}" "$@" </dev/null &
	child=$!
	wait "$child" || status=$?
	child=
	return "$status"
}

# Ends what isolated started, and removes $scratch. Nothing runs there any more,
# and the pids in its files mean other processes out here.
end_isolated()
{
	if [ -n "$child" ]; then
		kill -KILL "$child" 2>/dev/null || true
		wait "$child" 2>/dev/null || true
	fi
	rm -rf "$scratch" || { sleep 1; rm -rf "$scratch"; }
}

# Makes the directory $1 fit to run something in; within isolated only. Its
# /tmp is our $scratch.
mount_chroot()
{
	mount -t proc proc "$1/proc"
	mount -t tmpfs tmpfs "$1/dev/shm"
	mount --bind "$scratch" "$1/tmp"
	# npm is to trust whom this machine trusts
	cp /etc/ssl/certs/ca-certificates.crt "$scratch/" 2>/dev/null || true
}

# Runs a command in the chroot $1, without what the script exports.
in_chroot()
{
	local dir=$1
	shift
	env -u LANG -u LANGUAGE -u LC_ALL -u root -u scratch -u version -u suite \
		-u mirror -u security -u chroot -u fresh HOME=/root TMPDIR=/tmp \
		NODE_EXTRA_CA_CERTS=/tmp/ca-certificates.crt \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		chroot "$dir" "$@"
}

# Whether the archive $1 has PostgreSQL $version in the suite $2.
has_server()
{
	local packages
	packages=$1/dists/$2/main/binary-$(dpkg --print-architecture)/Packages.xz
	wget -qO- "$packages" | xz -dc 2>/dev/null |
		grep -x "Package: postgresql-server-dev-$version" >/dev/null
}

# Sets suite, the oldest that has PostgreSQL $version, its mirror, and security,
# which has them too, or nothing. The machine's own sources come first.
find_suite()
{
	local mirrors m
	mirrors=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null |
		sed -n 's,^\(https\?://.*[^/]\)/*$,\1,p' | sort -u)
	mirrors+=' http://deb.debian.org/debian http://deb.debian.org/debian-security'
	for suite in $suites; do
		for mirror in $mirrors; do
			has_server "$mirror" "$suite" || continue
			for m in $mirrors; do
				[ -n "$security" ] || ! has_server "$m" "$suite-security" || security=$m
			done
			return
		done
	done
	die "none of Debian's suites ($suites) has PostgreSQL $version;" \
		"use PG_CONFIG=... make check-all with an installation of your own"
}

# Debian's minimal system in $1. Its experimental is an addition to sid.
bootstrap_suite()
{
	local dir=$1 base=${suite/experimental/sid}
	local list=$dir/etc/apt/sources.list.d/batchdedup.list
	debootstrap --variant=minbase --include=ca-certificates \
		"$base" "$dir" "$mirror" /usr/share/debootstrap/scripts/sid
	# The archive may be a stored one, whose lists have expired.
	echo 'Acquire::Check-Valid-Until "false";' >"$dir/etc/apt/apt.conf.d/80batchdedup"
	# Nothing here need survive a crash of the machine, nor be read by people.
	printf '%s\n' force-unsafe-io path-exclude=/usr/share/{doc,man,locale}/'*' \
		>"$dir/etc/dpkg/dpkg.cfg.d/batchdedup"
	[ -z "$security" ] || echo "deb $security $suite-security main" >"$list"
	if [ "$suite" != "$base" ]; then
		echo "deb $mirror $suite main" >"$list"
		printf '%s\n' "Package: src:postgresql-$version" \
			"Pin: release a=$suite" "Pin-Priority: 990" \
			>"$dir/etc/apt/preferences.d/batchdedup"
	fi
}

# make_chroot DIR FUNCTION: makes DIR, which must not be there yet, for
# PostgreSQL $version. FUNCTION makes it, isolated, given the name that DIR has
# until it is complete.
make_chroot()
{
	local new=$1.new
	command -v debootstrap >/dev/null && command -v xz >/dev/null || {
		apt-get -qq update
		DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
			debootstrap debian-archive-keyring wget xz-utils
	} >"$scratch/log" 2>&1 || { cat "$scratch/log" >&2; die "could not install debootstrap"; }
	find_suite
	echo "making $1 from $mirror $suite${security:+ and $security}"
	rm -rf --one-file-system "$new"
	mkdir -p "$new"
	export suite mirror security
	isolated "$2" "$new" >"$scratch/log" 2>&1 || {
		tail -n 40 "$scratch/log" >&2
		die "could not make $1"
	}
	# into its place whole or not at all
	mv "$new" "$1"
}

# Called first: sets scratch, and waits for other runs with the chroot $1.
start_chroot()
{
	[ "$(id -u)" -eq 0 ] || die "please run this as root: it needs chroot and mount"
	command -v apt-get >/dev/null || die "knows only Debian and Ubuntu"
	mkdir -p "$(dirname "$1")"
	make_scratch
	trap finish EXIT
	trap 'exit 129' HUP
	trap 'exit 130' INT
	trap 'exit 143' TERM
	chmod 1777 "$scratch"
	exec 9>"$1.lock"
	flock -n 9 || {
		echo "waiting for another run with $1"
		flock 9
	}
	export root scratch version
	export -f die mount_chroot in_chroot bootstrap_suite
}
