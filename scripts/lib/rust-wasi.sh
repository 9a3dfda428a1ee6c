# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Debian 12's Rust for wasm32-wasi, unpacked into the cache and not installed: the fixtures of the tests are made with it.
# It is older than the Rust that builds the engine, and it is the one that comes with a standard library for WASI preview 1
# through a package manager, signed, by hash, and the same for as long as there are mirrors of Debian 12. Sourced, never run.

# shellcheck source=scripts/lib/apt.sh
. "$(dirname "${BASH_SOURCE[0]}")/apt.sh"

# fetch_rust_wasi: prints the folder that the packages are unpacked in; what apt says goes to stderr.
fetch_rust_wasi() {
    local lock=$_apt_lib/rust-wasi.lock cache target scratch package version sha256
    cache=$(cache_folder)
    sha256=$(sha256_of "$lock")
    target=$cache/rust-wasi/${sha256:0:16}
    if [ ! -x "$target/usr/bin/rustc" ]; then
        need_tools apt-get apt-cache dpkg-deb flock
        apt_root_make "$cache/apt-rust-wasi" amd64 deb bookworm
        apt_root_update "$cache/apt-rust-wasi" >&2
        mkdir -p -- "$cache/rust-wasi"
        scratch=$(mktemp -d -- "$cache/rust-wasi/.unpack.XXXXXX")
        while read -r package version sha256; do
            [ "$package" != "#" ] || continue
            apt_root_download "$cache/apt-rust-wasi" "$package" "$version" "$sha256" "$cache/packages" >&2
            dpkg-deb -x "$cache/packages/$sha256.deb" "$scratch"
        done <"$lock"
        # Another build at the same time may have been first: then its folder stays, it is the same.
        mv -T -- "$scratch" "$target" 2>/dev/null || [ -x "$target/usr/bin/rustc" ] || die "can't make $target" "" "check its folder"
        rm -rf -- "$scratch"
    fi
    printf '%s\n' "$target"
}

# rust_wasi FOLDER ARGUMENT...: its compiler, for wasm32-wasi.
rust_wasi() {
    local folder=$1
    shift
    LD_LIBRARY_PATH=$folder/usr/lib/x86_64-linux-gnu "$folder/usr/bin/rustc" --sysroot "$folder/usr" --target wasm32-wasi \
        -C linker=wasm-ld-14 "$@"
}
