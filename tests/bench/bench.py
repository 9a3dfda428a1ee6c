#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures host_runner against the bare QEMU command line on this machine.

    tests/bench/bench.py [--rounds N] [--out DIRECTORY]

Writes DIRECTORY/bench.json (medians and spread of every figure, with the budgets) and DIRECTORY/bench.svg. What is compared
runs in turn in one go, so that the machine's speed cancels out of the ratios. Nothing is judged here: the budgets are written
beside the figures. Needs a release build and images/out/native (scripts/quickstart makes both).
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("HOST_RUNNER_BIN", SOURCE / "build/release/bin/host_runner"))
IMAGE = pathlib.Path(os.environ.get("HOST_RUNNER_IMAGE", SOURCE / "images/out/native"))
HELLO = SOURCE / "configs/hello.yaml"
SMALL = ["-i", str(IMAGE), "--tee", "none", "-u", "1", "-m", "256M", "-d", "1G"]
READY_LINE = b"guest_agent: done"


class Place:
    """A state folder, a current folder, and host_runner with QEMU's exec stamped."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.cwd = self.folder / "cwd"
        self.cwd.mkdir()
        self.stamp_file = self.folder / "stamps"
        self.stand_in = self.folder / "qemu-stamped"
        subprocess.run(["cc", "-O2", "-o", self.stand_in, SOURCE / "tests/bench/exec_stamp.c"], check=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("HOST_RUNNER_")}
        self.environment |= {"HOST_RUNNER_HOME": str(self.folder / "state"), "XDG_CONFIG_HOME": str(self.folder),
                             "BENCH_QEMU": shutil.which("qemu-system-x86_64"), "BENCH_STAMP": str(self.stamp_file)}

    def run(self, *arguments, **options):
        return subprocess.Popen([str(PROGRAM), "run", *SMALL, "--output", "json", *arguments], cwd=self.cwd,
                                env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, **options)

    def command(self, *arguments):
        return subprocess.run([str(PROGRAM), *arguments], cwd=self.cwd, env=self.environment, check=True,
                              capture_output=True, text=True).stdout


def until(run, kind):
    """The first event of this kind and the monotonic time at which its line was read."""
    for line in run.stdout:
        event = json.loads(line)
        if event["event"] == kind:
            return event, time.monotonic_ns()
    raise SystemExit(f"the run ended before {kind}")


def end(place, run):
    place.command("stop", "--all", "--force")
    run.stdout.read()
    run.wait()


def summary(values):
    ordered = sorted(values)
    return {"median": statistics.median(ordered), "min": ordered[0], "max": ordered[-1], "rounds": len(ordered)}


def own_time_ms(place, rounds):
    """From just before our exec to QEMU's exec; the first round warms the probe cache and is not counted."""
    values = []
    for number in range(rounds + 1):
        place.stamp_file.write_text("")
        begin = time.monotonic_ns()
        run = place.run("-c", str(HELLO), "-p", "tcp::0:8080", "--qemu", str(place.stand_in))
        until(run, "started")
        stamp = int(place.stamp_file.read_text().split()[-1])
        end(place, run)
        if number:
            values.append((stamp - begin) / 1e6)
    return values


def serial_time_of(path, needle, timeout=120):
    """When the file first held the needle, to the millisecond."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if needle in path.read_bytes():
                return time.monotonic_ns()
        except OSError:
            pass
        time.sleep(0.001)
    raise SystemExit(f"{path} never held {needle}")


def boots(place, rounds):
    """One boot by us and one by the bare command line, in turn: (ours ms, bare ms, ready delay ms, memory bytes)."""
    rows = []
    for _ in range(rounds):
        begin = time.monotonic_ns()
        run = place.run()
        created, _ = until(run, "created")
        instance = place.folder / "state/instances" / created["text"]
        agent_ready = serial_time_of(instance / "serial.log", READY_LINE)
        _, printed = until(run, "ready")
        memory = resident_bytes(run.pid)
        argv = json.loads(place.command("inspect", created["text"], "--output", "json"))["argv"]
        ours = (agent_ready - begin) / 1e6
        # The bare twin: the same arguments, its files in a folder of its own.
        bare = place.folder / "bare"
        bare.mkdir()
        for name in ("share.img", "disk.qcow2"):
            shutil.copyfile(instance / name, bare / name)
        end(place, run)
        argv = [argument.replace(str(instance), str(bare)) for argument in argv]
        begin = time.monotonic_ns()
        twin = subprocess.Popen(argv, cwd=bare, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)
        bare_ready = serial_time_of(bare / "serial.log", READY_LINE)
        twin.send_signal(signal.SIGKILL)
        twin.wait()
        shutil.rmtree(bare)
        rows.append((ours, (bare_ready - begin) / 1e6, (printed - agent_ready) / 1e6, memory))
    return rows


def ready_times_ms(place, rounds):
    """From our exec to `ready`, in turn: without services, with a component, and with the component when its disk has the
    compiled code of an earlier boot already."""
    component = ["-c", str(SOURCE / "configs/http.yaml"), "-p", "tcp::0:8080"]
    ways = {"no services": [], "a component, first boot": component, "a component, later boots": [*component, "--name", "kept"]}
    values = {way: [] for way in ways}
    for number in range(rounds + 1):
        for way, arguments in ways.items():
            begin = time.monotonic_ns()
            run = place.run(*arguments)
            until(run, "ready")
            if number:  # the first of the kept one compiles
                values[way].append((time.monotonic_ns() - begin) / 1e6)
            # In order: the disk is kept.
            place.command("stop", "--all")
            run.stdout.read()
            run.wait()
    place.command("rm", "kept")
    return values


def resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("no Rss in smaps_rollup")


def list_time_ms(place, rounds, total=200, alive=5):
    """`list --all` over real folders: a few living VMs, booted and idle, and the records of ended ones."""
    runs = [place.run() for _ in range(alive)]
    for run in runs:
        until(run, "ready")
    instances = place.folder / "state/instances"
    pattern = next(path for path in instances.iterdir() if (path / "instance.json").exists())
    record = json.loads((pattern / "instance.json").read_text())
    for number in range(total - alive):
        name = f"{number:012x}"
        (instances / name).mkdir(mode=0o700)
        record.update(id=name, name="", end={"time_ms": 0, "reason": "guest_shutdown", "exit_code": 0, "detail": ""})
        (instances / name / "instance.json").write_text(json.dumps(record))
        (instances / name / "lock").touch(mode=0o600)
    values = []
    for number in range(rounds + 1):
        begin = time.monotonic_ns()
        output = place.command("list", "--all", "--output", "json")
        if number:
            values.append((time.monotonic_ns() - begin) / 1e6)
    rows = json.loads(output)["instances"]
    if len(rows) != total:
        raise SystemExit(f"list shows {len(rows)} instances, not {total}")
    end(place, runs[0])
    for run in runs[1:]:
        run.stdout.read()
        run.wait()
    return values


def plot(path, figures):
    """A bar per figure: its median as a share of its budget, with the spread; plain SVG."""
    width, row, left = 760, 34, 340
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{row * len(figures) + 30}" '
             'font-family="sans-serif" font-size="13">', f'<rect width="{width}" height="100%" fill="white"/>']
    scale = (width - left - 30) / 1.5
    for index, (name, figure) in enumerate(figures.items()):
        y = 14 + index * row
        share = [min(figure[key] / figure["budget"], 1.45) for key in ("min", "median", "max")]
        lines.append(f'<text x="8" y="{y + 14}">{name}: {figure["median"]:.1f} of {figure["budget"]} {figure["unit"]}</text>')
        lines.append(f'<rect x="{left}" y="{y}" width="{share[1] * scale:.1f}" height="18" fill="#4a7db5"/>')
        lines.append(f'<line x1="{left + share[0] * scale:.1f}" x2="{left + share[2] * scale:.1f}" y1="{y + 9}" '
                     f'y2="{y + 9}" stroke="black"/>')
    x = left + scale
    lines.append(f'<line x1="{x}" x2="{x}" y1="6" y2="{row * len(figures) + 10}" stroke="#b33" stroke-dasharray="4"/>')
    lines.append(f'<text x="{x - 20}" y="{row * len(figures) + 24}" fill="#b33">budget</text></svg>')
    path.write_text("\n".join(lines))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=pathlib.Path, default=SOURCE / "build/bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="hr-bench-") as folder:
        place = Place(folder)
        own = own_time_ms(place, options.rounds * 3)
        rows = boots(place, options.rounds)
        ready = ready_times_ms(place, options.rounds)
        listing = list_time_ms(place, options.rounds * 3)
    way = [statistics.median(own) + row[2] for row in rows]
    figures = {
        "own time before QEMU's exec": summary(own) | {"unit": "ms", "budget": 25},
        "own time on the way to ready": summary(way) | {"unit": "ms", "budget": 60},
        "supervisor's resident memory": summary([row[3] / 2**20 for row in rows]) | {"unit": "MiB", "budget": 12},
        "list with 200 instances": summary(listing) | {"unit": "ms", "budget": 30},
    }
    report = {
        "schema_version": 1,
        "figures": figures,
        "boot to agent": {"ours_ms": summary([row[0] for row in rows]), "bare_ms": summary([row[1] for row in rows]),
                          "ratio": summary([row[0] / row[1] for row in rows])},
        "run to ready, ms": {way: summary(values) for way, values in ready.items()},
        "qemu": subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True).stdout.splitlines()[0],
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "bench.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(options.out / "bench.svg", figures)
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
