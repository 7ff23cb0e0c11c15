#!/bin/sh
# Install the servers that the tests start for themselves, where that can be done; else say what is missing.
# A missing server is a counted skip, or a failure with CACHEMW_TEST_REQUIRE=all.
set -eu

want() { # want COMMAND PACKAGE
    command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ] || ls /usr/lib/postgresql/*/bin/"$1" >/dev/null 2>&1 || missing="$missing $2"
}

missing=
want redis-server redis-server
want memcached memcached
want initdb postgresql
want mariadbd mariadb-server
want nginx nginx
want curl curl
want varnishd varnish
want chromium chromium
want node nodejs
[ -e /usr/include/libmemcached/memcached.h ] || missing="$missing libmemcached-dev"

[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    apt-get update -qq
    # shellcheck disable=SC2086
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
else
    echo "The tests that need these Debian packages are left out; install them:$missing" >&2
fi
