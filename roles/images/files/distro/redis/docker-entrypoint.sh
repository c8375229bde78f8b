#!/bin/sh
set -eu

case ${1:-} in -* | *.conf) set -- redis-server "$@" ;; esac

if [ "$1" = redis-server ]; then
    if [ "$(id -u)" = 0 ]; then
        find /data ! -user redis -exec chown redis:redis {} +
        exec setpriv --reuid=redis --regid=redis --init-groups "$0" "$@"
    fi
    # What Redis saves is for no one else.
    umask 0077
fi
exec "$@"
