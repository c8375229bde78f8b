#!/bin/sh
# Health check of every container: probe.sh TIMEOUT FAILURES START_PERIOD TEST… --liveness [LIVENESS…]
#
# Docker marks a container unhealthy but leaves it running. So, when LIVENESS (TEST, where none is given) has failed
# FAILURES times in a row, this ends every process of the container; the init then ends too, and Docker's restart policy
# starts the container again. A container that was never healthy is left alone for START_PERIOD seconds, and so is one that is
# stopping: Docker goes on with health checks meanwhile, and what finishes its work answers no longer.
limit=$1
failures=$2
start_period=$3
shift 3

state=/tmp/.fba-probe
now=$(date +%s)
[ -f "$state.started" ] || echo "$now" > "$state.started"

# Splits the arguments at --liveness without a shell evaluating any of them
run() {
    wanted=$1
    shift
    part=test
    count=$#
    while [ "$count" -gt 0 ]; do
        argument=$1
        shift
        count=$((count - 1))
        if [ "$argument" = --liveness ]; then
            part=liveness
        elif [ "$part" = "$wanted" ]; then
            set -- "$@" "$argument"
        fi
    done
    [ $# -gt 0 ] || return 125
    timeout -k 1 "$limit" "$@"
}

if run test "$@"; then
    : > "$state.healthy"
    rm -f "$state.failures"
    exit 0
fi

[ ! -e /tmp/.fba-stopping ] || exit 1

run liveness "$@" > /dev/null 2>&1
liveness=$?
# 125: there is no liveness command, so the test that just failed is the word on that too
if [ "$liveness" -eq 0 ]; then
    rm -f "$state.failures"
    exit 1
fi
if [ ! -f "$state.healthy" ] && [ $((now - $(cat "$state.started"))) -lt "$start_period" ]; then
    exit 1
fi
count=$(($(cat "$state.failures" 2> /dev/null || echo 0) + 1))
echo "$count" > "$state.failures"
if [ "$count" -ge "$failures" ]; then
    echo "probe: no answer $count times in a row; ending the container so that it starts again" > /proc/1/fd/2 2> /dev/null
    kill -9 -1
fi
exit 1
