#!/bin/busybox sh
# shellcheck shell=dash
# SPDX-License-Identifier: Apache-2.0
#
# A guest that means harm: it takes the place of the initramfs' first program and sends its runner what no honest guest
# would. One attack after another on the host API, an endless answer to whatever the host asks, and at last a flood of text
# on the serial line. It says on that line how far it is.

export PATH=/bin LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/console >/dev/console 2>&1

port_of() {
    for entry in /sys/class/virtio-ports/*; do
        [ "$(cat "$entry/name")" != "$1" ] || echo "/dev/${entry##*/}"
    done
}

say() {
    printf '\nhostile: %s\n' "$*"
}

until [ -n "$(port_of host-runner.2)" ]; do sleep 0.1; done
host_api=$(port_of host-runner.1)
guest_api=$(port_of host-runner.2)

# Every request to this guest gets an answer without an end.
(
    exec 4<>"$guest_api"
    read -r _ <&4
    printf 'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n' >&4
    while :; do
        printf '8\r\nendless \r\n' >&4
    done
) &

# attack NAME: sends its input to the host API, which may close the port at any byte. What it answers is taken away, or its
# deadline for writing an answer would slow the attack down; a read ends whenever it hangs up.
attack() {
    (
        while :; do
            cat
            sleep 0.05
        done <&3 >/dev/null &
        timeout 60 dd bs=65536 >&3 2>/dev/null
        kill $!
    ) 3<>"$host_api"
    say "$1: sent"
}
request() {
    printf 'POST /api/Notify?json HTTP/1.1\r\nx-request-id: 0123456789abcdef\r\n%s\r\n\r\n' "$1"
}

{ printf 'POST /'; yes a | tr -d '\n' | head -c 3000000; } | attack "a request line of 3 MB"
{ printf 'POST /api/Notify?json HTTP/1.1\r\n'; yes 'x-more: 1' | head -c 3000000; } | attack "headers of 3 MB"
{ request 'content-length: 4000000000'; head -c 3000000 /dev/zero; } | attack "a body that claims 4 GB"
{ request 'transfer-encoding: chunked'; yes '8
12345678' | head -c 3000000; } | attack "chunks of 3 MB"
{ request 'content-length: 100000'; yes '[' | tr -d '\n' | head -c 100000; } | attack "JSON 100000 deep"
{ request 'content-length: 1000000'; printf '{"event":"boot.progress","payload":"'; yes x | tr -d '\n' | head -c 1000000; } | attack "an event of 1 MB"
head -c 3000000 /dev/urandom | attack "3 MB of noise"

body='{"event":"boot.progress","payload":"the same again"}'
notify=$(printf 'POST /api/Notify?json HTTP/1.1\r\nx-request-id: 0123456789abcdef\r\ncontent-length: %s\r\n\r\n%s' "${#body}" "$body")
yes "$notify" | head -c 5000000 | attack "thousands of events"

yes 'a line of the serial flood, long enough to fill a disk if nobody bounds the log of it' | head -c 6000000
say "everything is sent"
sleep 1000000
