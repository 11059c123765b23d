#!/bin/sh
# Builds putback, then backs up a folder of this machine into a repository on local disk, restores it and
# compares. Everything but the build is kept in a temporary folder, which is deleted at the end.
#
#     ./scripts/demo.sh [FOLDER]
#
# Needs a Rust toolchain. A C compiler is installed with apt-get if there is none.
set -eu
cd "$(dirname "$0")/.."
. scripts/tools.sh
need_rust
need_compiler

source=${1:-/usr/share/doc}
[ -d "$source" ] || source=docs
source=$(cd "$source" && pwd)

step() { printf '\n== %s\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

step "build"
run cargo build --release --locked --bin putback
PATH=$(cargo_target_folder)/release:$PATH

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
# Another putback of this user must not lend its settings, nor be given ours.
for variable in $(env | sed -n 's/^\(PUTBACK_[A-Z_]*\)=.*/\1/p'); do unset "$variable"; done
: > "$scratch/putback.toml"
export PUTBACK_CONFIG="$scratch/putback.toml"
export PUTBACK_REPO="$scratch/repository"
export PUTBACK_CACHE_DIR="$scratch/cache"
export PUTBACK_STATE_DIR="$scratch/state"
export PUTBACK_PASSWORD="a password for this demonstration"

step "make a repository"
run putback init

step "back up $source"
run putback backup "$source"

step "back it up again: nothing has changed, so nothing is read"
run putback backup "$source" > "$scratch/second"
cat "$scratch/second"
grep -q '; 0 B read$' "$scratch/second" || { echo "the second backup has read files" >&2; exit 1; }

step "look"
run putback snapshots
run putback stats latest
run putback repo info

step "check every stored byte"
run putback check --read-data

step "restore, and compare with the original"
# Only root can give files to others.
owner=
[ "$(id -u)" = 0 ] || owner=--no-owner
run putback restore "latest:$source" --target "$scratch/restored" $owner
run diff -r --no-dereference "$source" "$scratch/restored"

step "no difference: every file came back"
