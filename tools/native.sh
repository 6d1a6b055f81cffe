#!/bin/bash
# The native QUIC engine (quic/), built into .venv where Rust is there: once for each state of its sources. Where it
# can't be built, one line says why, and Warren runs on aioquic.
#
#   tools/native.sh               build and install it, if that was not done yet
#   tools/native.sh controller    the crate's lint and its own tests in release mode, the controller's table among them
#                                 (minutes)
#
# WARREN_REQUIRE_NATIVE=1: fail where it can't be built.
set -euo pipefail
cd "$(dirname "$0")/.."

OLDEST_RUST=1.88
STAMP=.venv/.native
CACHE=$PWD/.venv/cache
BUILD_TOOLS=tools/native-requirements.txt
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$CACHE/cargo}

say() { printf '== the native QUIC engine: %s\n' "$*"; }

give_up() { # the reason
    if [ "${WARREN_REQUIRE_NATIVE:-0}" = 1 ]; then
        say "$*" >&2
        exit 1
    fi
    say "$*; Warren runs on aioquic"
    exit 0
}

find_rust() { # puts cargo on the path, also where only rustup's own folder has it
    command -v cargo >/dev/null || PATH=$PATH:${CARGO_HOME:-${HOME:-/root}/.cargo}/bin
    command -v cargo >/dev/null || give_up "not built, as there is no cargo (Rust $OLDEST_RUST or newer)"
    local version
    version=$(cargo --version 2>/dev/null | cut -d' ' -f2) || true
    [ "$(printf '%s\n' "$OLDEST_RUST" "${version:-0}" | sort -V | head -n 1)" = "$OLDEST_RUST" ] ||
        give_up "not built, as cargo is ${version:-broken}, and Rust $OLDEST_RUST or newer is needed"
    command -v cc >/dev/null || give_up "not built, as there is no C compiler (cc)"
}

state_of_sources() {
    {
        find quic \( -name target -o -path quic/fuzz -o -path quic/tests \) -prune -o -type f \
            \( -name '*.rs' -o -name '*.toml' -o -name Cargo.lock -o -name '*.pyi' -o -name py.typed -o -name README.md \) \
            -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
        sha256sum "$BUILD_TOOLS" tools/native.sh
        .venv/bin/python --version
    } | sha256sum | cut -d' ' -f1
}

works() { .venv/bin/python -I -c 'from warren_quic import Connection' 2>/dev/null; }

build() {
    local wheels=$CACHE/wheels
    rm -rf "$wheels"
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --require-hashes -r "$BUILD_TOOLS" || return
    .venv/bin/python -m maturin build --quiet --release --locked --manifest-path quic/Cargo.toml \
        --interpreter .venv/bin/python --out "$wheels" || return
    .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps --no-index --force-reinstall "$wheels"/*.whl
}

install() {
    local wanted
    wanted=$(state_of_sources)
    if [ "$(cat "$STAMP" 2>/dev/null)" = "$wanted" ] && works; then return; fi
    if [ -e "$STAMP" ]; then # an engine of other sources would be worse than none
        .venv/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes warren-quic
        rm -f "$STAMP"
    fi
    find_rust
    say "building it with $(cargo --version | cut -d' ' -f1-2) (minutes the first time)"
    build || give_up "not built: see above"
    works || give_up "built, but it can't be loaded"
    printf '%s\n' "$wanted" >"$STAMP"
    say "installed"
}

case "${1:-}" in
"") install ;;
controller)
    WARREN_REQUIRE_NATIVE=1 find_rust
    export PYO3_PYTHON=$PWD/.venv/bin/python
    cd quic
    if cargo clippy --version >/dev/null 2>&1; then
        cargo clippy --quiet --locked --all-targets -- --deny warnings
    else
        say "not linted, as there is no cargo-clippy"
    fi
    exec cargo test --quiet --release --locked --no-default-features
    ;;
*)
    printf "native: unknown word '%s': there is only controller\n" "$1" >&2
    exit 1
    ;;
esac
