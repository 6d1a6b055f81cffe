#!/bin/bash
# Builds a fuzz target with a stable compiler and runs it: fuzz/run.sh datagrams|endpoint|frames [seconds [libFuzzer's options]]
set -euo pipefail
cd "$(dirname "$0")"
target=$1 seconds=${2:-60} host=$(rustc -vV | sed -n 's/^host: //p')
shift "$(($# < 2 ? $# : 2))"
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=3
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares)
# --target: what runs while building (build scripts) is not to be instrumented
RUSTFLAGS="--cfg fuzzing ${coverage[*]}" cargo build --release --target "$host" --bin "$target"
mkdir -p "corpus/$target"
words=()
[[ -e $target.dict ]] && words=(-dict="$target.dict")
exec "${CARGO_TARGET_DIR:-target}/$host/release/$target" "corpus/$target" \
  "${words[@]}" -max_total_time="$seconds" -max_len=4096 -len_control=10 -timeout=20 -rss_limit_mb=2048 "$@"
