#!/bin/bash
# The command in the guest with systemd, whose second disk has a Debian with the engines: runs one of their scripts.
# usage: /callers/guest.sh RUNTIME SCRIPT [WORD...]
set -euo pipefail
runtime=$1
shift
mkdir -p /engines /results
mount -o ro /dev/vdb /engines
CALLERS_BOX=guest exec unshare --mount --propagation private /callers/box.sh /engines "$runtime" /results "$@"
