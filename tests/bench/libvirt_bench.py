#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures starts by host_runner itself against starts by libvirt, on this machine.

    tests/bench/libvirt_bench.py [--rounds N] [--out DIRECTORY]

In turn, so that the machine's speed cancels out of the ratios: `run` (until QEMU runs), `run --backend libvirt` (until QEMU
runs), and `virsh create` of the same domain with copies of its disks (until it returns, which is when QEMU runs). Then the
resident memory of what watches over the VM: the runner, and libvirt's daemon. The daemon is one of the bench's own
(tests/vm/libvirt_daemon.py). Writes DIRECTORY/libvirt_bench.json: medians and spread. Needs root for a system daemon, a
release build and images/out/native.
"""
import argparse
import json
import pathlib
import shutil
import sys
import tempfile
import time

import bench

sys.path.insert(0, str(bench.SOURCE / "tests/vm"))

from libvirt_daemon import LibvirtDaemon, missing  # noqa: E402


def timed_run(place, *arguments):
    """(ms from just before our exec to `started`, the run, its instance folder)"""
    begin = time.monotonic_ns()
    run = place.run(*arguments)
    created, _ = bench.until(run, "created")
    _, started = bench.until(run, "started")
    return (started - begin) / 1e6, run, place.folder / "state/instances" / created["text"]


def make_twin(place, xml, instance):
    """A folder with copies of the instance's disks, and a domain of its own for them."""
    twin = place.folder / "twin"
    twin.mkdir()
    for name in ("share.img", "disk.qcow2"):
        shutil.copyfile(instance / name, twin / name)
    text = xml.replace(str(instance), str(twin)).replace(f"host-runner-{instance.name}", "host-runner-twin")
    (twin / "domain.xml").write_text(text)
    return twin


def timed_create(daemon, twin):
    begin = time.monotonic_ns()
    daemon.virsh("create", str(twin / "domain.xml"))
    took = (time.monotonic_ns() - begin) / 1e6
    daemon.virsh("destroy", "host-runner-twin")
    return took


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=pathlib.Path, default=bench.SOURCE / "build/bench")
    options = parser.parse_args()
    if missing():
        raise SystemExit(f"libvirt_bench.py: {missing()}")
    rows = {"direct": [], "by libvirt": [], "virsh create": []}
    memory = {"runner": [], "runner with --backend libvirt": [], "libvirt's daemon": []}
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as folder:
        place = bench.Place(folder)
        daemon = LibvirtDaemon(place.folder / "lv")
        try:
            backend = ["--backend", f"libvirt={daemon.uri}"]
            for number in range(options.rounds + 1):  # the first warms both sides' probes of QEMU
                direct, run, _ = timed_run(place)
                bench.until(run, "ready")
                memory["runner"].append(bench.resident_bytes(run.pid) / 2**20)
                bench.end(place, run)

                by_libvirt, run, instance = timed_run(place, *backend)
                bench.until(run, "ready")
                memory["runner with --backend libvirt"].append(bench.resident_bytes(run.pid) / 2**20)
                memory["libvirt's daemon"].append(bench.resident_bytes(daemon.pid) / 2**20)
                xml = json.loads(place.command("inspect", instance.name, "--output", "json"))["libvirt_xml"]
                twin = make_twin(place, xml, instance)
                bench.end(place, run)
                created = timed_create(daemon, twin)
                shutil.rmtree(twin)
                if number:
                    rows["direct"].append(direct)
                    rows["by libvirt"].append(by_libvirt)
                    rows["virsh create"].append(created)
        finally:
            daemon.close()
    report = {
        "schema_version": 1,
        "start, ms": {name: bench.summary(values) for name, values in rows.items()},
        "start, ratio to virsh create": {
            name: bench.summary([a / b for a, b in zip(rows[name], rows["virsh create"])])
            for name in ("direct", "by libvirt")},
        "resident memory, MiB": {name: bench.summary(values) for name, values in memory.items()},
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "libvirt_bench.json").write_text(json.dumps(report, indent=2) + "\n")
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
