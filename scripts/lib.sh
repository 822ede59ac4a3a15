# shellcheck shell=bash
# Set-up that the scripts share: what is missing on a fresh Debian 12 is installed, what is there is left alone.
# Sourced, never run. Everything here speaks on stderr, so that a script's stdout is its result.

set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"

VENV=$ROOT/.venv
CACHE=$ROOT/.cache
CARGO_DENY_VERSION=0.20.2
CARGO_DEB_VERSION=3.8.0
LIBLIVEMEDIA_VERSION=1.0.5
# The next two are read by the scripts that source this file.
# shellcheck disable=SC2034
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
# shellcheck disable=SC2034
PACKAGES=(
    build-essential pkg-config ca-certificates git
    libgstreamer1.0-dev libgstreamer-plugins-base1.0-dev libgstrtspserver-1.0-dev
    gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly
    gstreamer1.0-libav gstreamer1.0-tools glib-networking
    python3 python3-venv systemd iproute2 nftables strace libfaketime libopencv-core-dev spin
)

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# as_root COMMAND...: runs it as root, or says what to type.
as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@" </dev/null >&2
    elif sudo -n true 2>/dev/null; then
        sudo -n "$@" </dev/null >&2
    else
        die "this needs root: run \`sudo $*\` and start again"
    fi
}

has_package() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

# need_packages NAME...: Debian packages; does nothing when all are there.
need_packages() {
    command -v dpkg-query >/dev/null || die "this set-up knows Debian only; install the equivalents of: $*"
    local missing=() name
    for name; do
        has_package "$name" || missing+=("$name")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    say "installing Debian packages: ${missing[*]}"
    as_root apt-get update -q
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 "${missing[@]}"
}

# version_at_least FOUND WANTED
version_at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

rust_wanted() { sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1; }

rust_is_new_enough() {
    local found
    found=$(cargo --version 2>/dev/null | awk '{ print $2 }') || return 1
    [ -n "$found" ] && version_at_least "$found" "$(rust_wanted)"
}

# need_rust: a compiler that is new enough, else Debian's.
need_rust() {
    rust_is_new_enough && return
    say "no Rust $(rust_wanted) or newer here; taking Debian's"
    need_packages cargo-web rustc-web rustfmt-web rust-web-clippy
    # An older toolchain of the user's own may come first in PATH.
    export PATH="/usr/bin:$PATH"
    hash -r
    rust_is_new_enough || die "Debian has no Rust $(rust_wanted) either; install a newer toolchain"
}

# find_python: a Python that the wheel supports and that can make virtual environments.
find_python() {
    local name
    for name in python3 /usr/bin/python3 python3.14 python3.13 python3.12 python3.11; do
        if "$name" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    die "no Python 3.11 or newer with the module venv; install python3 and python3-venv"
}

# need_venv: .venv with exactly what python/requirements-dev.txt names; does nothing when that has not changed.
need_venv() {
    local python wanted
    python=$(find_python)
    wanted=$({ "$python" --version; cat python/requirements-dev.txt; } | sha256sum)
    [ "$(cat "$VENV/.requirements" 2>/dev/null)" = "$wanted" ] && return
    say "making the Python environment .venv"
    "$python" -m venv --clear "$VENV" >&2
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check -r python/requirements-dev.txt >&2
    printf '%s\n' "$wanted" >"$VENV/.requirements"
}

# need_wheel: the Python package, built and installed in .venv; does nothing when its sources have not changed.
need_wheel() {
    local wanted
    wanted=$(find Cargo.toml Cargo.lock ring/Cargo.toml ring/src python -type f \
        -not -path '*/dist/*' -not -path '*/tests/*' -not -name '*.pyc' -not -name '*.so' -not -path '*/.pytest_cache/*' \
        -print0 | sort -z | xargs -0 sha256sum | sha256sum)
    if [ "$(cat "$VENV/.wheel" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    say "building the Python package"
    rm -rf python/dist
    "$VENV/bin/maturin" build --release --locked --manifest-path python/Cargo.toml --out python/dist >&2
    "$VENV/bin/python" -m pip install -q --disable-pip-version-check --force-reinstall --no-deps python/dist/*.whl >&2
    printf '%s\n' "$wanted" >"$VENV/.wheel"
}

# need_cargo_deny: the pinned version, compiled once into .cache.
need_cargo_deny() {
    local bin=$CACHE/cargo-deny-$CARGO_DENY_VERSION
    if [ ! -x "$bin/bin/cargo-deny" ]; then
        say "compiling cargo-deny $CARGO_DENY_VERSION (once)"
        cargo install --quiet --locked cargo-deny --version "$CARGO_DENY_VERSION" \
            --root "$bin" --target-dir "$CACHE/cargo-deny-build" >&2
        rm -rf "$CACHE/cargo-deny-build"
    fi
    export PATH="$bin/bin:$PATH"
}

# need_cargo_deb: the pinned version, compiled once into .cache.
need_cargo_deb() {
    local bin=$CACHE/cargo-deb-$CARGO_DEB_VERSION
    if [ ! -x "$bin/bin/cargo-deb" ]; then
        say "compiling cargo-deb $CARGO_DEB_VERSION (once)"
        cargo install --quiet --locked cargo-deb --version "$CARGO_DEB_VERSION" \
            --root "$bin" --target-dir "$CACHE/cargo-deb-build" >&2
        rm -rf "$CACHE/cargo-deb-build"
    fi
    export PATH="$bin/bin:$PATH"
}

# need_live555: the Python module of PyPI's source package liblivemedia, which holds live555 and its RTSP proxy, in
# .cache/live555 for Debian's Python. Built by its own CMake file and not by its setup.py, which goes on when CMake
# fails, and leaves a wheel without the module that pip then keeps.
need_live555() {
    local folder=$CACHE/live555 work
    [ "$(cat "$folder/version" 2>/dev/null)" = "$LIBLIVEMEDIA_VERSION" ] && return
    need_packages build-essential cmake python3-dev
    need_venv
    say "compiling live555 from liblivemedia $LIBLIVEMEDIA_VERSION (once, some minutes)"
    rm -rf "$folder"
    work=$folder/build
    mkdir -p "$work/source"
    "$VENV/bin/python" -m pip download -q --disable-pip-version-check --no-deps --no-binary liblivemedia --dest "$work" \
        "liblivemedia==$LIBLIVEMEDIA_VERSION" >&2
    tar -xzf "$work/liblivemedia-$LIBLIVEMEDIA_VERSION.tar.gz" -C "$work/source" --strip-components=1
    cmake -S "$work/source" -B "$work/made" -Wno-dev -DCMAKE_BUILD_TYPE=Release -DPYTHON_EXECUTABLE=/usr/bin/python3 \
        -DCMAKE_LIBRARY_OUTPUT_DIRECTORY="$folder" >&2
    cmake --build "$work/made" --parallel 2 >&2
    PYTHONPATH=$folder /usr/bin/python3 -c 'import liblivemedia; liblivemedia.ProxyServer' ||
        die "liblivemedia was compiled and cannot be used; remove $folder and try again"
    rm -rf "$work"
    printf '%s\n' "$LIBLIVEMEDIA_VERSION" >"$folder/version"
}
