# What the scripts beside this one need, installed where it is missing. To be sourced, from the root of the source.

fail() {
    printf '%s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo > /dev/null; then
        sudo "$@"
    else
        fail "this has to be done as root first: $*"
    fi
}

apt_install() {
    command -v apt-get > /dev/null || fail "please install: $*"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "$@"
}

need_rust() {
    if ! command -v cargo > /dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
        PATH=$HOME/.cargo/bin:$PATH
    fi
    command -v cargo > /dev/null || fail "please install Rust $(rust_version) or newer: https://rustup.rs"
}

# The oldest toolchain that builds this; cargo itself refuses older ones.
rust_version() {
    sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml
}

# zstd and the cipher of the default build are partly C and assembly.
need_compiler() {
    command -v cc > /dev/null || apt_install gcc libc6-dev
}

# need_component COMPONENT PROGRAM: a part of the Rust toolchain.
need_component() {
    if command -v "$2" > /dev/null && "$2" --version > /dev/null 2>&1; then
        return
    fi
    if command -v rustup > /dev/null; then
        rustup component add "$1"
    else
        case $1 in
            clippy) apt_install rust-clippy ;;
            *) apt_install "$1" ;;
        esac
    fi
}

# Where cargo builds: a configuration or CARGO_TARGET_DIR may have moved it.
cargo_target_folder() {
    cargo metadata --format-version 1 --no-deps | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p'
}
