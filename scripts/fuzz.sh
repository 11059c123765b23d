#!/bin/sh
# Builds the fuzz targets once, with coverage feedback and without a sanitizer, and runs each of them, two at a
# time. Fails if any of them finds something; its input is then in fuzz/artifacts/TARGET.
#
#     ./scripts/fuzz.sh [TARGET...]
#
# PUTBACK_FUZZ_SECONDS says how long each target runs (60), PUTBACK_FUZZ_JOBS how many at a time (2). What they
# discover beside the corpus in fuzz/corpus goes to a temporary folder, or to the one that PUTBACK_FUZZ_CORPUS
# names, which later runs then begin with. Works on a stable toolchain; docs/testing.md says more.
set -eu
cd "$(dirname "$0")/.."
. scripts/tools.sh
need_rust
need_cxx

seconds=${PUTBACK_FUZZ_SECONDS:-60}
jobs=${PUTBACK_FUZZ_JOBS:-2}
known=$(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml)
targets=${*:-$known}
for target in $targets; do
    printf '%s\n' "$known" | grep -qx "$target" || fail "there is no target $target, but:" $known
done

# What cargo-fuzz sets for `-s none`; given a target triple, cargo keeps it away from build scripts.
host=$(rustc -vV | sed -n 's/^host: //p')
coverage="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-simplifycfg-branch-fold-threshold=0"
# shellcheck disable=SC2086 # options without blanks
coverage=$(printf '%s ' --cfg fuzzing $coverage)
RUSTFLAGS="${RUSTFLAGS:-} $coverage" \
    cargo build --locked --release --manifest-path fuzz/Cargo.toml --bins --target "$host"
binaries=$(cd fuzz && cargo_target_folder)/$host/release
[ -z "${PUTBACK_FUZZ_BUILD_ONLY:-}" ] || exit 0

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
found=${PUTBACK_FUZZ_CORPUS:-$scratch/corpus}

# run_target TARGET: one run; a line with its figures.
run_target() {
    mkdir -p "$found/$1" "fuzz/artifacts/$1"
    dictionary=
    [ ! -f "fuzz/dictionaries/$1" ] || dictionary=-dict=fuzz/dictionaries/$1
    status=0
    # An input that takes 10 s or 1 GiB is a finding, too.
    "$binaries/$1" "$found/$1" "fuzz/corpus/$1" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 \
        -artifact_prefix="fuzz/artifacts/$1/" -print_final_stats=1 $dictionary > "$scratch/$1.log" 2>&1 || status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$scratch/$1.log")
    if [ "$status" = 0 ]; then
        printf '%-16s %12s executions\n' "$1" "$executions"
        rmdir "fuzz/artifacts/$1" 2> /dev/null || true
    else
        tail -n 60 "$scratch/$1.log"
        printf '%-16s FAILED; to see it again: %s fuzz/artifacts/%s/*\n' "$1" "$binaries/$1" "$1"
        : > "$scratch/failed"
    fi
}

running=
count=0
for target in $targets; do
    run_target "$target" &
    running="$running $!"
    count=$((count + 1))
    if [ "$count" -ge "$jobs" ]; then
        # The oldest one ends first: all run equally long.
        # shellcheck disable=SC2086
        set -- $running
        wait "$1"
        shift
        running=$*
        count=$((count - 1))
    fi
done
wait
rmdir fuzz/artifacts 2> /dev/null || true
[ ! -e "$scratch/failed" ] || fail "fuzzing has found something"
