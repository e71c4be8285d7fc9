#!/bin/bash
# Builds the fuzz target of the seccomp programs with the coverage that libFuzzer wants, and runs it. No nightly compiler
# and no cargo-fuzz: these flags are all that it takes. What is found stays in .cache/seccomp-fuzz/.
# usage: scripts/seccomp-fuzz.sh SECONDS [LIBFUZZER_OPTION...]
set -euo pipefail

seconds=${1:?usage: $0 SECONDS [LIBFUZZER_OPTION...]}
shift
top=$(cd "$(dirname "$0")/.." && pwd)
target=$(rustc -vV | sed -n 's/^host: //p')
work=$top/.cache/seccomp-fuzz
mkdir -p "$work/corpus" "$work/found"

cd "$top/integration/seccomp/fuzz"
# In place of those of .cargo/config.toml: libFuzzer's C++ library is not there as a static one everywhere.
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
 -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1 --cfg fuzzing"
cargo build --release --locked --target "$target" --target-dir "$work/target"
exec "$work/target/$target/release/seccomp-fuzz" "$work/corpus" -artifact_prefix="$work/found/" -max_total_time="$seconds" \
    -timeout=30 -max_len=2048 -print_final_stats=1 "$@"
