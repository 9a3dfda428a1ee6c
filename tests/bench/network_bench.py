#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures who makes the user network: the program user_network, and passt where it is fit, against QEMU's own libslirp.

    tests/bench/network_bench.py [--rounds N] [--out DIRECTORY]

Writes DIRECTORY/network.json: the throughput of a forwarded port in both directions for each of them, in VMs that run side by
side and are asked in turn, with the ratio to QEMU's own; and host_runner's own time before QEMU's exec with a host service and
without. Nothing is judged here. Needs images/out/native-dev.
"""
import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

import bench

DEV_IMAGE = pathlib.Path(os.environ.get("HOST_RUNNER_DEV_IMAGE", bench.SOURCE / "images/out/native-dev"))
BYTES = 64 * 2**20
SOURCE_PORT, SINK_PORT = 9000, 9001
# One connection after the other; nc ends with its connection.
SERVE = (f"(while true; do dd if=/dev/zero bs=64k count={BYTES // 65536} 2>/dev/null | nc -l -p {SOURCE_PORT}; done) "
         f">/dev/null 2>&1 </dev/null & (while true; do nc -l -p {SINK_PORT} | wc -c | nc -l -p {SINK_PORT + 1}; done) "
         ">/dev/null 2>&1 </dev/null &")


class Vm:
    def __init__(self, place, network):
        forwards = [word for port in (SOURCE_PORT, SINK_PORT, SINK_PORT + 1) for word in ("-p", f"tcp::0:{port}")]
        egress = ["--egress", "on"] if network == "passt" else []
        self.run = place.run("-i", str(DEV_IMAGE), "--net", f"user={network}", *egress, *forwards)
        self.ports = {}
        self.id = ""
        for line in self.run.stdout:
            event = json.loads(line)
            if event["event"] == "created":
                self.id = event["text"]
            elif event["event"] == "port":
                _, _, host_port, guest_port = event["text"].split(":")
                self.ports[int(guest_port)] = int(host_port)
            elif event["event"] == "ready":
                break
        place.command("exec", self.id, "--", "/bin/sh", "-c", SERVE)

    def connect(self, port):
        """The network takes the connection before the guest does, so only a byte shows that the guest has it."""
        return socket.create_connection(("127.0.0.1", self.ports[port]), timeout=60)

    def from_guest(self):
        """MB/s"""
        while True:
            begin, received = time.monotonic(), 0
            with self.connect(SOURCE_PORT) as connection:
                while data := connection.recv(1 << 20):
                    received += len(data)
            if received == BYTES:
                return BYTES / 1e6 / (time.monotonic() - begin)
            time.sleep(0.1)

    def to_guest(self):
        """MB/s, up to the guest's own count of what it got."""
        chunk = bytes(1 << 20)
        while True:
            begin = time.monotonic()
            try:
                with self.connect(SINK_PORT) as connection:
                    for _ in range(BYTES // len(chunk)):
                        connection.sendall(chunk)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(1):
                        pass
                elapsed = time.monotonic() - begin
            except OSError:
                time.sleep(0.1)
                continue
            count = b""
            while not count:
                with self.connect(SINK_PORT + 1) as connection:
                    count = connection.recv(64)
                time.sleep(0.05)
            if int(count) == BYTES:
                return BYTES / 1e6 / elapsed


def throughput(place, networks, rounds):
    vms = {network: Vm(place, network) for network in networks}
    values = {network: {"from_guest": [], "to_guest": []} for network in networks}
    for number in range(rounds + 1):
        for network, vm in vms.items():
            for way, measure in (("from_guest", vm.from_guest), ("to_guest", vm.to_guest)):
                value = measure()
                if number:
                    values[network][way].append(value)
    place.command("stop", "--all", "--force")
    for vm in vms.values():
        vm.run.stdout.read()
        vm.run.wait()
    report = {}
    for network, ways in values.items():
        report[network] = {}
        for way, numbers in ways.items():
            ratios = [ours / qemu for ours, qemu in zip(numbers, values["qemu"][way])]
            report[network][way] = {"MB_per_s": bench.summary(numbers), "ratio_to_qemu": bench.summary(ratios)}
    return report


def own_times(place, rounds):
    ways = {"without": [], "with a host service": ["--host-service", "tcp:9"]}
    values = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, arguments in ways.items():
            place.stamp_file.write_text("")
            begin = time.monotonic_ns()
            run = place.run("-c", str(bench.HELLO), "-p", "tcp::0:8080", "--qemu", str(place.stand_in), *arguments)
            bench.until(run, "started")
            stamp = int(place.stamp_file.read_text().split()[-1])
            bench.end(place, run)
            if number:
                values[way].append((stamp - begin) / 1e6)
    differences = [after - before for before, after in zip(*values.values())]
    return {way: bench.summary(numbers) for way, numbers in values.items()} | {"difference": bench.summary(differences)}


def passt_is_fit():
    try:
        text = subprocess.run(["passt", "--help"], capture_output=True, text=True).stdout
    except OSError:
        return False
    return "--map-host-loopback" in text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path, default=bench.SOURCE / "build/bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as folder:
        place = bench.Place(folder)
        report = {
            "schema_version": 1,
            "throughput of a forwarded port": throughput(place, ["qemu", "slirp"] + ["passt"] * passt_is_fit(), options.rounds),
            "own time before QEMU's exec, ms": own_times(place, options.rounds * 3),
            "qemu": subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.splitlines()[0],
        }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "network.json").write_text(json.dumps(report, indent=2) + "\n")
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
