#!/bin/bash
# Runs fuzz targets (integration/fuzz/targets.rs), two side by side, each from its corpus there and what earlier runs have
# found, which is kept in .cache/fuzz/. No nightly compiler and no cargo-fuzz: the flags below are all that it takes.
# usage: scripts/fuzz.sh [--save] SECONDS TARGET...     (--save: small inputs that cover as much go to integration/fuzz/corpus/,
#        of targets whose input is no JSON; the target seccomp-equal is the comparison with libseccomp)
set -euo pipefail

save=
[ "${1:-}" != --save ] || { save=1; shift; }
seconds=${1:-}
[[ $seconds =~ ^[1-9][0-9]*$ ]] && [ $# -gt 1 ] || { sed -n 's/^# \(usage:.*\)/\1/p' "$0" >&2; exit 2; }
shift
top=$(cd "$(dirname "$0")/.." && pwd)
target=$(rustc -vV | sed -n 's/^host: //p')
work=$top/.cache/fuzz
seeds=$top/integration/fuzz/corpus
mkdir -p "$work/found"
# One target writes files: not to a disk.
TMPDIR=$(mktemp -d -p /dev/shm)
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT

# crate TARGET: where its program is built.
crate() { if [ "$1" = seccomp-equal ]; then echo "$top/integration/seccomp/fuzz"; else echo "$top/integration/fuzz"; fi; }

# In place of the flags of .cargo/config.toml: libFuzzer's C++ library is not there as a static one everywhere.
build() {
    cd "$1"
    RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing" \
        cargo build --release --locked --target "$target" --target-dir "$work/target"
    cd "$top"
}

# fuzzer TARGET ARGUMENT...
fuzzer() {
    local name=$1 program=fuzz dictionary=$top/integration/fuzz/$1.dict
    shift
    if [ "$name" = seccomp-equal ]; then program=seccomp-fuzz; fi
    if [ -f "$dictionary" ]; then set -- "$@" -dict="$dictionary"; fi
    FUZZ_TARGET=$name "$work/target/$target/release/$program" -timeout=10 -rss_limit_mb=256 -max_len=8192 "$@"
}

run() { # run TARGET
    local log=$work/$1.log corpus=("$work/corpus/$1")
    mkdir -p "${corpus[0]}"
    if [ -d "$seeds/$1" ]; then corpus+=("$seeds/$1"); fi
    fuzzer "$1" "${corpus[@]}" -artifact_prefix="$work/found/$1-" -max_total_time="$seconds" -print_final_stats=1 \
        > "$log" 2>&1 || { tail -n 40 "$log" >&2; echo "fuzz: $1 failed: $log" >&2; return 1; }
    perl -ne '$edges = $1 if /cov: (\d+)/; $inputs = $1 if /corp: (\d+)/; $runs = $1 if /number_of_executed_units: (\d+)/;
              $rss = $1 if /peak_rss_mb: +(\d+)/;
              END { printf "%-14s %9d executions, %5d edges, %4d inputs, %3d MiB\n", "'"$1"'", $runs, $edges, $inputs, $rss }' "$log"
}

# Those that are written by hand have names; of the others, small ones, and only for edges that none before has reached.
minimise() { # minimise TARGET
    local kept=$TMPDIR/$1.kept small=$TMPDIR/$1.small
    mkdir -p "$kept" "$small" "$seeds/$1"
    find "$seeds/$1" -type f ! -regex '.*/[0-9a-f]*' -exec cp -t "$kept" {} +
    find "$work/corpus/$1" -type f -size -97c -exec cp -t "$small" {} +
    fuzzer "$1" -set_cover_merge=1 -use_counters=0 -use_cmp=0 "$kept" "$small" > "$work/$1.merge.log" 2>&1
    rm -rf "${seeds:?}/$1"
    cp -r "$kept" "$seeds/$1"
}

while read -r directory; do build "$directory"; done < <(for name in "$@"; do crate "$name"; done | sort -u)

failed=0
for name in "$@"; do
    # Of two that run, one has to end.
    [ "$(jobs -rp | wc -l)" -lt 2 ] || wait -n || failed=1
    run "$name" &
done
while [ -n "$(jobs -rp)" ]; do wait -n || failed=1; done
[ -z "$save" ] || for name in "$@"; do minimise "$name"; done
exit $failed
