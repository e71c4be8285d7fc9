#!/bin/bash
# Writes integration/costs.txt anew, from the lines RECORD of these logs (integration/crash/costs.rs); lines of other kinds of
# host stay.
set -euo pipefail
cd "$(dirname "$0")/.."

new=$(cat "$@" | tr -d '\r' | sed -n 's/.*RECORD //p' | sort)
[ -n "$new" ] || { echo "costs: no RECORD in $*" >&2; exit 1; }
old=$(grep -vFf <(cut -d' ' -f1 <<<"$new" | sort -u) integration/costs.txt || true)
{ grep '^#' <<<"$old"; { grep -v '^#' <<<"$old" || true; echo "$new"; } | sort; } >integration/costs.txt
