#!/bin/sh
# Makes fuzz/corpus anew: of the seeds that crates/putback-format/examples/fuzz_seeds.rs writes, of the corpus
# that is there and of the inputs in FOLDER/TARGET, few that together reach all that these reach.
#
#     ./scripts/fuzz-corpus.sh [FOLDER]
#
# FOLDER is what PUTBACK_FUZZ_CORPUS named in longer runs of scripts/fuzz.sh.
set -eu
cd "$(dirname "$0")/.."
. scripts/tools.sh
need_rust
need_cxx

more=${1:-}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM

PUTBACK_FUZZ_BUILD_ONLY=1 ./scripts/fuzz.sh
binaries=$(cd fuzz && cargo_target_folder)/$(rustc -vV | sed -n 's/^host: //p')/release
cargo run --quiet --locked --package putback-format --example fuzz_seeds -- "$scratch/seeds"
for target in $(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"$/\1/p' fuzz/Cargo.toml); do
    mkdir -p "$scratch/merged" "fuzz/corpus/$target"
    set -- "$scratch/merged" "$scratch/seeds/$target" "fuzz/corpus/$target"
    [ ! -d "$more/$target" ] || set -- "$@" "$more/$target"
    "$binaries/$target" -set_cover_merge=1 -max_len=16384 "$@" > "$scratch/log" 2>&1 || { tail "$scratch/log"; exit 1; }
    rm -rf "fuzz/corpus/$target"
    mv "$scratch/merged" "fuzz/corpus/$target"
    printf '%-16s %5s inputs\n' "$target" "$(find "fuzz/corpus/$target" -type f | wc -l)"
done
du -sh --apparent-size fuzz/corpus
