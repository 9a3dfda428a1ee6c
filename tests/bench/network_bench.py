#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures who makes the user network: the program user_network, and passt where it is fit, against QEMU's own libslirp.

    tests/bench/network_bench.py [--rounds N] [--out DIRECTORY]

Writes DIRECTORY/network.json: the throughput of a download through a forwarded port for each of them, from VMs that run side by side
and are asked in turn, with the ratio to QEMU's own; and host_runner's own time before QEMU's exec with a host service and
without. Nothing is judged here. Needs images/out/native-dev.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

import bench

DEV_IMAGE = pathlib.Path(os.environ.get("HOST_RUNNER_DEV_IMAGE", bench.SOURCE / "images/out/native-dev"))
MEBIBYTES = 64
GUEST_PORT = 9000
SERVE = (f"mkdir -p /tmp/www && dd if=/dev/zero of=/tmp/www/blob bs=1M count={MEBIBYTES} 2>/dev/null && "
         f"busybox httpd -p {GUEST_PORT} -h /tmp/www")


class Vm:
    def __init__(self, place, network):
        egress = ["--egress", "on"] if network == "passt" else []
        self.run = place.run("-i", str(DEV_IMAGE), "--net", f"user={network}", *egress, "-p", f"tcp::0:{GUEST_PORT}")
        for line in self.run.stdout:
            event = json.loads(line)
            if event["event"] == "created":
                self.id = event["text"]
            elif event["event"] == "port":
                self.port = int(event["text"].split(":")[2])
            elif event["event"] == "ready":
                break
        place.command("exec", self.id, "--", "/bin/sh", "-c", SERVE)

    def throughput(self):
        """MB/s of one download."""
        begin, received = time.monotonic(), 0
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/blob", timeout=120) as answer:
            while data := answer.read(1 << 20):
                received += len(data)
        if received != MEBIBYTES * 2**20:
            raise SystemExit(f"{received} bytes came instead of {MEBIBYTES} MiB")
        return received / 1e6 / (time.monotonic() - begin)


def throughput(place, networks, rounds):
    vms = {network: Vm(place, network) for network in networks}
    values = {network: [] for network in networks}
    for number in range(rounds + 1):
        for network, vm in vms.items():
            value = vm.throughput()
            if number:
                values[network].append(value)
    place.command("stop", "--all", "--force")
    for vm in vms.values():
        vm.run.stdout.read()
        vm.run.wait()
    return {network: {"MB_per_s": bench.summary(numbers),
                      "ratio_to_qemu": bench.summary([own / qemu for own, qemu in zip(numbers, values["qemu"])])}
            for network, numbers in values.items()}


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
