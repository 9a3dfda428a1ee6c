# shellcheck shell=bash
# SPDX-License-Identifier: Apache-2.0
#
# Shows what a long step does and how long it takes. Sourced, never run:
#
#     step "Building the programs" 480 cmake --build build
#
# On a terminal one line counts up beside the typical time; elsewhere there is a line at the start, one a minute, and one
# at the end. The command's own output goes to a log file, whose end is shown when the command fails.
#
#     HOST_RUNNER_STEP_LOGS    folder for the logs, instead of one in the cache
#     HOST_RUNNER_STEP_LINES   lines of the log to show on failure (40)

# shellcheck source=scripts/lib/common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

_step_count=0
_step_folder=

# Prints the text for SECONDS: "7 s", "3 min 05 s".
_step_time() {
    if [ "$1" -lt 60 ]; then
        printf '%d s' "$1"
    else
        printf '%d min %02d s' $(($1 / 60)) $(($1 % 60))
    fi
}

# Makes the folder for this script's logs, once; logs of a week ago go.
_step_make_folder() {
    [ -z "$_step_folder" ] || return 0
    if [ -n "${HOST_RUNNER_STEP_LOGS:-}" ]; then
        _step_folder=$HOST_RUNNER_STEP_LOGS
    else
        local logs
        logs=$(cache_folder)/logs
        _step_folder=$logs/${0##*/}-$$
        [ ! -d "$logs" ] || find "$logs" -mindepth 1 -maxdepth 1 -type d -mtime +7 -exec rm -rf -- {} + 2>/dev/null || true
    fi
    mkdir -p -- "$_step_folder" || die "can't make the log folder $_step_folder" "see above" "set HOST_RUNNER_STEP_LOGS to a writable folder"
}

# Runs beside the command and counts: step_ticker SCRIPT_PID WHAT TYPICAL TERMINAL
_step_ticker() {
    local started=$SECONDS line
    while sleep 1 && kill -0 "$1" 2>/dev/null; do
        line="$(_step_time $((SECONDS - started))) of typically $(_step_time "$3")"
        if [ "$4" = yes ]; then
            printf '\r\033[K... %s: %s' "$2" "$line"
        elif [ $(((SECONDS - started) % 60)) -eq 0 ]; then
            printf '... %s: %s\n' "$2" "$line"
        fi
    done
}

# step WHAT TYPICAL_SECONDS COMMAND...
#
# Returns the command's status. The command runs in a subshell with errexit: a shell function may be given, but what it
# sets is lost. It stays in the foreground (the counter is what runs in the background), so that Ctrl-C reaches it: a
# shell without job control starts background commands with SIGINT ignored. Give a shell function only to a plain `step`:
# in `step ... || x` and `if step ...` bash switches errexit off for everything inside, whatever the function sets.
step() {
    local what=$1 typical=$2 status started=$SECONDS terminal=no ticker log slug had_errexit=no
    shift 2
    _step_make_folder
    _step_count=$((_step_count + 1))
    slug=$(printf '%s' "$what" | LC_ALL=C tr -cs 'A-Za-z0-9.\n' '-' | cut -c 1-60)
    log=$(printf '%s/%02d-%s.log' "$_step_folder" "$_step_count" "$slug")
    if [ -t 1 ] && [ "${TERM:-dumb}" != dumb ]; then
        terminal=yes
        printf '... %s: typically %s' "$what" "$(_step_time "$typical")"
    else
        printf '... %s: typically %s\n' "$what" "$(_step_time "$typical")"
    fi
    case $- in *e*) had_errexit=yes ;; esac
    set +e
    _step_ticker $$ "$what" "$typical" "$terminal" 2>/dev/null &
    ticker=$!
    (
        set -e
        "$@"
    ) >"$log" 2>&1 </dev/null
    status=$?
    { kill "$ticker" && wait "$ticker"; } 2>/dev/null
    [ "$had_errexit" = no ] || set -e
    [ "$terminal" = no ] || printf '\r\033[K'
    if [ "$status" -eq 0 ]; then
        printf 'ok  %s: %s (typically %s)\n' "$what" "$(_step_time $((SECONDS - started)))" "$(_step_time "$typical")"
        return 0
    fi
    printf 'FAILED  %s: status %d after %s\n' "$what" "$status" "$(_step_time $((SECONDS - started)))"
    {
        printf -- '--- the end of %s\n' "$log"
        tail -n "${HOST_RUNNER_STEP_LINES:-40}" -- "$log"
        printf -- '--- the whole of it: %s\n' "$log"
    } >&2
    return "$status"
}
