# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Finds a cargo that is new enough for the WebAssembly engine. Sourced, never run; needs common.sh.

# What wasmtime 48 needs (its Cargo.toml, rust-version). scripts/setup has rustup install exactly this where it has to.
rust_needed=1.95.0

# _cargo_is_new_enough CARGO
_cargo_is_new_enough() {
    local version
    version=$("$1" --version 2>/dev/null) || return 1
    version=${version#cargo }
    version=${version%% *}
    [ "$(printf '%s\n%s\n' "$rust_needed" "$version" | sort -V | head -n 1)" = "$rust_needed" ]
}

# find_rustup: prints the path of rustup; status 1 without one.
find_rustup() {
    command -v rustup || { [ -x "${CARGO_HOME:-${HOME:-}/.cargo}/bin/rustup" ] && echo "${CARGO_HOME:-$HOME/.cargo}/bin/rustup"; }
}

# try_find_cargo: prints the path of a cargo that is new enough; status 1 without one.
try_find_cargo() {
    local candidate rustup
    if [ -n "${HOST_RUNNER_CARGO:-}" ]; then
        _cargo_is_new_enough "$HOST_RUNNER_CARGO" && printf '%s\n' "$HOST_RUNNER_CARGO"
        return
    fi
    for candidate in "$(command -v cargo)" "${CARGO_HOME:-${HOME:-}/.cargo}/bin/cargo"; do
        if [ -n "$candidate" ] && _cargo_is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    rustup=$(find_rustup) || return 1
    candidate=$("$rustup" which --toolchain "$rust_needed" cargo 2>/dev/null) || return 1
    _cargo_is_new_enough "$candidate" && printf '%s\n' "$candidate"
}

# find_cargo: the same, or ends the script with what to do.
find_cargo() {
    try_find_cargo || die "there is no cargo of version $rust_needed or newer" \
        "looked at HOST_RUNNER_CARGO, PATH, ~/.cargo/bin and rustup's toolchains; the WebAssembly engine is written in Rust" \
        "run scripts/setup, or install Rust yourself (rustup, or a distribution's cargo that is new enough)"
}
