#!/bin/bash
# Unpacks packages of Debian sid, and what they need, into DIRECTORY/root. Nothing of the system is touched.
# usage: scripts/sid.sh DIRECTORY PACKAGE...      (root; needs mmdebstrap and debian-archive-keyring)
set -euo pipefail
work=$1
shift
mmdebstrap --quiet --mode=root --variant=extract --include="$(IFS=,; echo "$*")" --aptopt='Acquire::Check-Valid-Until "false"' sid \
    "$work/root.tar" "${GUEST_MIRROR:-http://deb.debian.org/debian}" 2> "$work/log" || { tail -n 3 "$work/log" >&2; exit 1; }
mkdir "$work/root"
tar -xf "$work/root.tar" -C "$work/root"
rm "$work/root.tar"
