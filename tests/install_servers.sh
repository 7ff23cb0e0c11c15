#!/bin/sh
# Install the servers that the tests start for themselves, where that can be done; else say what is missing.
# A missing server is a counted skip, or a failure with CACHEMW_TEST_REQUIRE=all.
set -eu

has() { # has COMMAND
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1
}

want() { # want COMMAND PACKAGE
    has "$1" || missing="$missing $2"
}

install() { # install PACKAGE...
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}

# Debian 12 has Valkey in its backports alone; where those cannot be had, Valkey's tests are skipped. The source is
# that of the updates, under another name, for as long as it takes.
install_from_backports() { # install_from_backports PACKAGE
    updates=$(grep -ls -- -updates /etc/apt/sources.list.d/*.sources | head -n 1)
    [ -n "$updates" ] || return 1
    backports=/etc/apt/sources.list.d/cachemw-backports.sources
    sed -E 's/^Suites:.* ([a-z]+)-updates.*$/Suites: \1-backports/' "$updates" |
        awk 'BEGIN { RS = ""; ORS = "\n\n" } /-backports/' >"$backports"
    trap 'rm -f "$backports"' EXIT
    apt-get update -qq && install "$1"
}

missing=
want redis-server redis-server
want memcached memcached
want initdb postgresql
want pgbouncer pgbouncer
want mariadbd mariadb-server
want nginx nginx
want curl curl
want varnishd varnish
want chromium chromium
want node nodejs
[ -e /usr/include/libmemcached/memcached.h ] || missing="$missing libmemcached-dev"

if has valkey-server && [ -z "$missing" ]; then
    exit 0
elif [ "$(id -u)" != 0 ] || ! has apt-get; then
    echo "The tests that need these Debian packages are left out; install them:$missing valkey-server" >&2
    exit 0
fi
if [ -n "$missing" ]; then
    apt-get update -qq
    # shellcheck disable=SC2086
    install $missing
fi
has valkey-server || install valkey-server 2>/dev/null || install_from_backports valkey-server ||
    echo "The tests with Valkey are left out; no package of it was found." >&2
