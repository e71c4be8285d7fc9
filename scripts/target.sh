#!/bin/bash
# Prints the target triple that release binaries are built for: musl's, whose start costs a tenth of glibc's, or the host's
# own where the standard library for it is not installed (scripts/setup.sh asks rustup for it).
set -euo pipefail
# rustc would warn that the jobserver of make is closed.
unset MAKEFLAGS MFLAGS
musl=$(uname -m)-unknown-linux-musl
if [ -n "${CARGO_BUILD_TARGET:-}" ]; then
    echo "$CARGO_BUILD_TARGET"
elif [ -d "$(rustc --print sysroot)/lib/rustlib/$musl/lib" ]; then
    echo "$musl"
else
    rustc -vV | sed -n 's/^host: //p'
fi
