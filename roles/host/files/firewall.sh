#!/bin/sh
# Load the packet filter that fba.stack.firewall keeps: firewall.sh RULES_FILE
#
# For the time before Docker starts, and so publishes ports. It is one transaction, so what is there already is never
# missing in between; a second run changes nothing.
set -eu
rules=$1

# Docker takes the chain as it is when it starts
iptables -w -N DOCKER-USER 2>/dev/null || iptables -w -S DOCKER-USER >/dev/null

jump=$(sed -n 's/^-I DOCKER-USER 1 //p' "$rules")
# shellcheck disable=SC2086 # the rule's words
if iptables -w -C DOCKER-USER $jump 2>/dev/null; then
    sed '/^-I DOCKER-USER 1 /d' "$rules" | iptables-restore --noflush --wait
else
    iptables-restore --noflush --wait <"$rules"
fi
