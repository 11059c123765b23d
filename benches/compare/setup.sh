#!/bin/sh
# Installs the programs that compare.py compares putback with into one folder:
#
#   DIR/bin/restic            restic 0.19, the program of a newer Debian suite (it needs only libc)
#   DIR/bin/rustic            rustic 0.11.4, built with cargo
#   DIR/borgvenv/bin/borg     BorgBackup 1.4.5, built by pip in a virtual environment
#
# What is there in the right version is kept, so a second call does nothing.
# The machine's own package sources and installed packages are never changed; only when a library
# that BorgBackup is built against is missing, the script says what to install and stops.
#
# Needs Debian 12 or newer, cargo, python3 with venv, a C compiler.

set -eu

RESTIC_VERSION=0.19
RUSTIC_VERSION=0.11.4
BORG_VERSION=1.4.5
# Suites to look for restic in, in this order.
RESTIC_SUITES="${RESTIC_SUITES:-sid forky}"

if [ $# -ne 1 ]; then
    echo "usage: $0 DIR" >&2
    exit 2
fi
mkdir -p "$1/bin"
DIR=$(cd "$1" && pwd)

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# The mirror that this machine takes Debian's main component from.
debian_mirror() {
    apt-get indextargets --format '$(CREATED_BY)|$(ORIGIN)|$(LABEL)|$(COMPONENT)|$(REPO_URI)' |
        awk -F'|' '$1 == "Packages" && $2 == "Debian" && $3 == "Debian" && $4 == "main" { print $5; exit }'
}

# download_restic SUITE FOLDER: leaves the .deb of that suite in FOLDER.
# A private apt folder holds sources, lists and cache: the machine's own stay as they are.
download_restic() (
    suite=$1
    private=$2
    mkdir -p "$private/lists/partial" "$private/cache/archives/partial"
    : >"$private/status"
    keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    echo "deb [signed-by=$keyring] $mirror $suite main" >"$private/sources.list"
    set -- \
        -o Dir::Etc::sourcelist="$private/sources.list" -o Dir::Etc::sourceparts=- \
        -o Dir::State="$private" -o Dir::State::lists="$private/lists" \
        -o Dir::State::status="$private/status" -o Dir::Cache="$private/cache" \
        -o Acquire::Languages=none -o APT::Sandbox::User="$(id -un)" -o Debug::NoLocking=1
    cd "$private"
    apt-get "$@" -qq update || return 1
    apt-get "$@" -qq download restic
)

install_restic() {
    if "$DIR/bin/restic" version 2>/dev/null | grep -q "^restic $RESTIC_VERSION\."; then
        say "restic: kept"
        return
    fi
    mirror=$(debian_mirror)
    [ -n "$mirror" ] || fail "apt names no Debian mirror; run 'apt-get update' first"
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    for suite in $RESTIC_SUITES; do
        say "restic: looking in $suite"
        download_restic "$suite" "$scratch/$suite" || continue
        dpkg-deb -x "$scratch/$suite"/restic_*.deb "$scratch/$suite/root"
        if "$scratch/$suite/root/usr/bin/restic" version | grep -q "^restic $RESTIC_VERSION\."; then
            install -m 755 "$scratch/$suite/root/usr/bin/restic" "$DIR/bin/restic"
            rm -rf "$scratch"
            trap - EXIT
            return
        fi
    done
    fail "no suite of '$RESTIC_SUITES' carries restic $RESTIC_VERSION"
}

install_rustic() {
    if "$DIR/bin/rustic" --version 2>/dev/null | grep -qx "rustic $RUSTIC_VERSION"; then
        say "rustic: kept"
        return
    fi
    say "rustic: building"
    CARGO_TARGET_DIR="$DIR/target" cargo install rustic-rs \
        --version "$RUSTIC_VERSION" --locked --force --root "$DIR"
}

install_borg() {
    if "$DIR/borgvenv/bin/borg" --version 2>/dev/null | grep -qx "borg $BORG_VERSION"; then
        say "borg: kept"
        return
    fi
    missing=
    for package in libacl1-dev libssl-dev pkg-config liblz4-dev libzstd-dev libxxhash-dev; do
        dpkg-query -W -f '${Status}\n' "$package" 2>/dev/null | grep -q ' installed$' ||
            missing="$missing $package"
    done
    [ -z "$missing" ] || fail "BorgBackup needs these packages, install them first:$missing"
    say "borg: building"
    python3 -m venv "$DIR/borgvenv"
    "$DIR/borgvenv/bin/pip" install --quiet "borgbackup==$BORG_VERSION"
}

install_restic
install_rustic
install_borg

"$DIR/bin/restic" version
"$DIR/bin/rustic" --version
"$DIR/borgvenv/bin/borg" --version
