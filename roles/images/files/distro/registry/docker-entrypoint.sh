#!/bin/sh
# As the official image: the one argument is the configuration
set -eu
exec registry serve "$@"
