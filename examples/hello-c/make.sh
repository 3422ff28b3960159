#!/bin/sh
# Does what the Makefile does, for machines that have a compiler but no make.
#   sh make.sh [all|check]
set -eu
cd "$(dirname "$0")"
setting() { sed -n "s/^$1 = //p" config.mk; }
CC=$(setting CC) CFLAGS=$(setting CFLAGS) LDFLAGS=$(setting LDFLAGS)
run() { echo "$*"; "$@"; }

mkdir -p build
for source in src/*.c; do
    object=build/$(basename "$source" .c).o
    run $CC $CFLAGS -I. -c -o "$object" "$source"
done
run $CC $CFLAGS $LDFLAGS -o build/wordfreq build/*.o
if [ "${1:-all}" = check ]; then run sh tests/run.sh build/wordfreq; fi
