#!/bin/sh
set -eu

case ${1:-} in
    rabbitmq*)
        # The cookie belongs to the server, whichever command is the first to need it.
        if [ "$(id -u)" = 0 ]; then
            find "$HOME" ! -user rabbitmq -exec chown rabbitmq:rabbitmq {} +
            exec setpriv --reuid=rabbitmq --regid=rabbitmq --init-groups "$0" "$@"
        fi
        # Erlang would make one, of twenty letters from a weak generator.
        cookie=$HOME/.erlang.cookie
        [ -e "$cookie" ] || (umask 0377 && openssl rand -base64 42 > "$cookie")
        ;;
esac
exec "$@"
