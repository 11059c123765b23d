#!/bin/sh
# Everything that must hold before a change is taken: format, lints, tests, documentation, fuzzing.
#
#     ./scripts/test.sh
#
# Needs a Rust toolchain. What else is missing (a C compiler, rustfmt, clippy, the clients of put.io that the
# emulator is tested with) is installed. Tests run under cargo-nextest where it is installed, and under cargo's
# own runner otherwise.
set -eu
cd "$(dirname "$0")/.."
. scripts/tools.sh
need_rust
need_compiler
need_acl
need_component rustfmt cargo-fmt
need_component clippy cargo-clippy
need_foreign_clients
need_cxx

run() { printf '\n$ %s\n' "$*"; "$@"; }

run cargo fmt --all --check
run cargo fmt --manifest-path fuzz/Cargo.toml --check
run cargo clippy --locked --workspace --all-targets --all-features -- -D warnings
if command -v cargo-nextest > /dev/null; then
    run cargo nextest run --locked --workspace --all-features --no-fail-fast
else
    run cargo test --locked --workspace --all-features --no-fail-fast --lib --bins --tests
fi
run cargo test --locked --workspace --all-features --doc
run env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --all-features --no-deps --document-private-items
run ./scripts/fuzz.sh

printf '\nall checks passed\n'
