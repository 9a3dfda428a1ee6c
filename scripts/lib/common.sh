# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# What every script of this project needs: one way to fail, one place for the cache. Sourced, never run.

# die WHAT [WHY [REMEDY]]: ends the script with one message that names the thing, the cause and what to do about it.
die() {
    printf '%s: error: %s\n' "${0##*/}" "$1" >&2
    [ -z "${2:-}" ] || printf '    cause:  %s\n' "$2" >&2
    [ -z "${3:-}" ] || printf '    remedy: %s\n' "$3" >&2
    exit 1
}

# note TEXT: a plain remark for the user, kept apart from a script's own output.
note() {
    printf '%s: note: %s\n' "${0##*/}" "$1" >&2
}

# cache_folder: prints the folder for everything that can be made again. cmake/FindHttplib.cmake follows the same rule.
cache_folder() {
    if [ -n "${HOST_RUNNER_CACHE:-}" ]; then
        printf '%s\n' "$HOST_RUNNER_CACHE"
    elif [ -n "${XDG_CACHE_HOME:-}" ]; then
        printf '%s/host-runner\n' "$XDG_CACHE_HOME"
    elif [ -n "${HOME:-}" ]; then
        printf '%s/.cache/host-runner\n' "$HOME"
    else
        die "no folder for the cache" "neither HOST_RUNNER_CACHE, XDG_CACHE_HOME nor HOME is set" "set HOST_RUNNER_CACHE"
    fi
}

# need_tools TOOL...: every missing tool in one message, before any work is done.
need_tools() {
    local tool missing=()
    for tool in "$@"; do
        command -v "$tool" >/dev/null || missing+=("$tool")
    done
    [ ${#missing[@]} -eq 0 ] || die "missing tools: ${missing[*]}" "they are not on PATH ($PATH)" "run scripts/setup once"
}

# sha256_of FILE: prints the digest alone.
sha256_of() {
    local line
    line=$(sha256sum -- "$1")
    # sha256sum marks a name with odd characters by a leading backslash.
    line=${line#\\}
    printf '%s\n' "${line%% *}"
}
