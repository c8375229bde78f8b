#!/bin/sh
set -eu

fail() {
    echo "docker-entrypoint: $1" >&2
    exit 1
}

# $1 is the variable's name, $2 its default. NAME_FILE in place of NAME keeps a secret out of the environment.
setting() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    [ -z "$value" ] || [ -z "$file" ] || fail "$1 and $1_FILE are both set: give one of them"
    [ -z "$file" ] || value=$(cat "$file") || fail "$1_FILE: cannot read $file"
    printf '%s' "${value:-$2}"
}

starts_server() {
    [ "$1" = postgres ] || return 1
    for option; do
        case $option in -'?' | --help | --describe-config | -V | --version) return 1 ;; esac
    done
}

run_init_scripts() {
    for script in /docker-entrypoint-initdb.d/*; do
        case $script in
            *.sh) if [ -x "$script" ]; then "$script"; else sh "$script"; fi ;;
            *.sql) psql --no-psqlrc --set=ON_ERROR_STOP=1 --file="$script" ;;
            *.sql.gz) gunzip --stdout "$script" | psql --no-psqlrc --set=ON_ERROR_STOP=1 ;;
        esac
    done
}

# A subshell, so that nothing it exports reaches the server which stays.
initialise() (
    export PGDATA="$1"
    shift
    POSTGRES_PASSWORD=$(setting POSTGRES_PASSWORD '')
    POSTGRES_USER=$(setting POSTGRES_USER postgres)
    POSTGRES_DB=$(setting POSTGRES_DB "$POSTGRES_USER")
    initdb_args=$(setting POSTGRES_INITDB_ARGS '')
    method=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
    if [ -n "$POSTGRES_PASSWORD" ]; then
        initdb_args="--pwfile=/dev/stdin $initdb_args"
    elif [ "$method" != trust ]; then
        fail 'the first start needs POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE, the password of the superuser'
    fi

    # shellcheck disable=SC2086  # the arguments arrive as one string
    printf '%s\n' "$POSTGRES_PASSWORD" \
        | initdb --username="$POSTGRES_USER" --auth-local=trust --auth-host="$method" \
            --set=listen_addresses='*' $initdb_args
    printf '\nhost all all all %s\n' "$method" >> "$PGDATA/pg_hba.conf"

    # The socket is where no health check looks: this server is about to stop.
    PGHOST=$(mktemp -d)
    export PGHOST PGUSER="$POSTGRES_USER" PGDATABASE=postgres POSTGRES_PASSWORD POSTGRES_USER POSTGRES_DB
    "$@" -D "$PGDATA" -c data_directory="$PGDATA" -c hba_file="$PGDATA/pg_hba.conf" \
        -c listen_addresses= -c unix_socket_directories="$PGHOST" -c port=5432 &
    server=$!
    until pg_isready --quiet --port=5432; do
        kill -0 "$server" 2> /dev/null || fail 'the server for the first initialisation did not start'
        sleep 0.2
    done

    [ "$POSTGRES_DB" = postgres ] \
        || echo 'CREATE DATABASE :"name"' | psql --no-psqlrc --set=ON_ERROR_STOP=1 --set=name="$POSTGRES_DB"
    export PGDATABASE="$POSTGRES_DB"
    run_init_scripts

    kill -INT "$server"
    wait "$server"
    rmdir "$PGHOST"
)

# Everything is made in a directory beside, which is renamed when it is whole, and PG_VERSION, by which the server knows
# a data directory, moves last: whatever interrupts the first start, the next one begins again or carries on.
provide_data() {
    new=$PGDATA/.new ready=$PGDATA/.ready
    if [ ! -s "$PGDATA/PG_VERSION" ] && [ ! -d "$ready" ]; then
        chmod 0700 "$PGDATA"
        rm -rf "$new"
        initialise "$new" "$@"
        mv "$new" "$ready"
    fi
    if [ -d "$ready" ]; then
        find "$ready" -mindepth 1 -maxdepth 1 ! -name PG_VERSION -exec mv --target-directory="$PGDATA" {} +
        find "$ready" -mindepth 1 -maxdepth 1 -exec mv --target-directory="$PGDATA" {} +
        rmdir "$ready"
    fi
}

case ${1:-} in '' | -*) set -- postgres "$@" ;; esac

if starts_server "$@"; then
    mkdir -p "$PGDATA" /var/run/postgresql
    if [ "$(id -u)" = 0 ]; then
        find "$PGDATA" /var/run/postgresql ! -user postgres -exec chown postgres:postgres {} +
        exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
    fi
    provide_data "$@"
    unset POSTGRES_PASSWORD
fi
exec "$@"
