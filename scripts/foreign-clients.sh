#!/bin/sh
# Runs clients of put.io that nobody of this project wrote against the emulator: rclone, putio.py and
# @putdotio/api-client. What the emulator gets wrong about put.io, they find.
#
#     ./scripts/foreign-clients.sh [NAME...]
#
# NAMEs choose tests, as `cargo test` takes them. The clients are installed into PUTBACK_TOOLS, by default
# ${XDG_CACHE_HOME:-$HOME/.cache}/putback-tools, and only there; after that the tests use no network but this
# machine's own.
set -eu
cd "$(dirname "$0")/.."
. scripts/tools.sh
need_rust
need_compiler
need_foreign_clients

if command -v cargo-nextest > /dev/null; then
    exec cargo nextest run --locked --package putio-emulator --test foreign "$@"
else
    exec cargo test --locked --package putio-emulator --test foreign -- "$@"
fi
