#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures our worker that serves a component beside `wasmtime serve` of the same version, on this machine.

    tests/bench/wasm_http_bench.py [--agent PROGRAM] [--out DIRECTORY] [--rounds N] [--seconds S] [--connections N]

Both serve tests/fixtures/wasm_http/service.wasm, with a fresh instance for each request, and wrk asks for "/": as fast as it
can ("full"), and with a pause before each request, so that processors are free ("steady"). wasmtime serves twice: without a
time limit, and with one (-W timeout), which makes its guests look at their deadline as ours always do. A round has each of
them in turn and then in the opposite order, so that what else the machine does falls on all; the ratios are those of one
round. Writes DIRECTORY/wasm_http.json and DIRECTORY/wasm_http.svg. Budgets stand beside the figures; nothing is judged here.
Needs wrk (scripts/setup --dev) and builds wasmtime once into the cache.
"""
import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(SOURCE / "tests/wasmtime"))
import native_worker  # noqa: E402: the path has to be known first

COMPONENT = SOURCE / "tests/fixtures/wasm_http/service.wasm"
PATIENCE_S = 60
GREETING = "good morning"
BUDGETS = {"full: requests_per_s of the worker by those of wasmtime serve, at least": 1.0,
           "steady: p99 by p50 of the worker, at most": 3.0}
STEADY_PAUSE_MS = 4
LOADS = {"full": 0, "steady": STEADY_PAUSE_MS}
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    def __init__(self, name, process, port):
        self.name, self.process, self.port = name, process, port

    def processor_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def waited_seconds(self):
        """For a processor, all threads together. Source: linux Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat"""
        tasks = pathlib.Path(f"/proc/{self.process.pid}/task").glob("*/schedstat")
        return sum(int(task.read_text().split()[1]) for task in tasks) / 1e9

    def resident_kib(self):
        return int(re.search(r"^VmRSS:\s+(\d+)", pathlib.Path(f"/proc/{self.process.pid}/status").read_text(), re.M)[1])

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()


def until_open(process, port):
    """Its listener is open before it says anything on a pipe that nobody else holds, so it is asked."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), PATIENCE_S):
            return
        time.sleep(0.02)
    raise SystemExit(f"nobody listens on port {port}: exit code {process.poll()}")


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def start_worker(agent, artifact):
    port = free_port()
    request = native_worker.request_of(["service.wasm"], world="wasi-http", ports=[port], timeout_ms=30000)
    process = native_worker.start(agent, artifact, request, {"GREETING": GREETING})
    until_open(process, port)
    return Server("worker", process, port)


def start_wasmtime(program, name, options):
    port = free_port()
    process = subprocess.Popen([program, "serve", "-S", "cli", "--env", f"GREETING={GREETING}", "--addr", f"127.0.0.1:{port}",
                                *options, COMPONENT], env={}, stderr=subprocess.DEVNULL)
    until_open(process, port)
    return Server(name, process, port)


def machine_seconds():
    """Of all processors since the start: busy, and in all. Source: proc(5), /proc/stat"""
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, pathlib.Path("/proc/stat").read_text().split()[1:9])
    busy = user + nice + system + irq + softirq + steal
    return busy / TICKS, (busy + idle + iowait) / TICKS


def own_seconds(server):
    """Of the server, and of the wrk that have ended."""
    children = os.times()
    return server.processor_seconds() + children.children_user + children.children_system


def load(server, seconds, connections, pause_ms):
    before = server.processor_seconds(), server.waited_seconds(), own_seconds(server), *machine_seconds()
    output = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", SOURCE / "tests/bench/wrk_report.lua",
                             f"http://127.0.0.1:{server.port}/", "--", str(pause_ms)], check=True, stdout=subprocess.PIPE,
                            text=True).stdout
    after = server.processor_seconds(), server.waited_seconds(), own_seconds(server), *machine_seconds()
    used, waited, own, busy, everything = (now - then for now, then in zip(after, before))
    report = json.loads(re.search(r"^REPORT (.*)$", output, re.M)[1])
    if report["errors"] or not report["requests"]:
        raise SystemExit(f"{server.name}: {output}")
    return {"requests_per_s": report["requests"] / report["seconds"], "p50_us": report["p50_us"], "p99_us": report["p99_us"],
            "p99_by_p50": report["p99_us"] / report["p50_us"], "max_us": report["max_us"],
            "processor_us_per_request": used / report["requests"] * 1e6,
            "waited_us_per_request": waited / report["requests"] * 1e6,
            "share_of_others": max(0.0, busy - own) / everything}


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def measure(servers, rounds, seconds, connections):
    """{load: {server: [figures]}}, two for each round."""
    runs = {name: {server.name: [] for server in servers} for name in LOADS}
    for number in range(rounds):
        for name, pause_ms in LOADS.items():
            for server in [*servers, *reversed(servers)]:
                runs[name][server.name].append(load(server, seconds, connections, pause_ms))
        print(f"round {number + 1} of {rounds}: " + ", ".join(
            f"{name} {sum(run['requests_per_s'] for run in done[-2:]) / 2:.0f}/s" for name, done in runs["full"].items()),
            file=sys.stderr)
    return runs


def summarize(runs):
    """Of one load: the figures of each server, those of the run in which others used the processors least, and the worker's
    by those of the other servers."""
    figures = {name: {figure: spread([run[figure] for run in done]) for figure in done[0]} for name, done in runs.items()}
    ratios = {}
    for name in list(runs)[1:]:
        both = list(zip(runs["worker"], runs[name]))
        pairs = [both[at:at + 2] for at in range(0, len(both), 2)]
        ratios[name] = {figure: spread([sum(one[figure] for one, _ in pair) / sum(other[figure] for _, other in pair)
                                        for pair in pairs])
                        for figure in ("requests_per_s", "processor_us_per_request", "p50_us", "p99_us")}
    quietest = {name: min(done, key=lambda run: run["share_of_others"]) for name, done in runs.items()}
    return {"servers": figures, "quietest": quietest, "worker_by": ratios}


def plot(path, report):
    """A bar per server and figure: the median, with a line from the smallest to the largest."""
    width, row, left = 760, 26, 300
    lines, y = [], 0
    for title, load_name, figure in (("Full load: requests a second", "full", "requests_per_s"),
                                     ("Full load: processor time of the server per request, in us", "full",
                                      "processor_us_per_request"),
                                     ("Steady load: latency, median, in us", "steady", "p50_us"),
                                     ("Steady load: latency, 99th percentile, in us", "steady", "p99_us")):
        servers = report["loads"][load_name]["servers"]
        lines.append(f'<text x="8" y="{y + 18}" font-weight="bold">{title}</text>')
        y += row
        scale = (width - left - 20) / max(figures[figure]["max"] for figures in servers.values())
        for name, figures in servers.items():
            values = figures[figure]
            lines.append(f'<text x="8" y="{y + 14}">{name}: {values["median"]:.0f}</text>')
            lines.append(f'<rect x="{left}" y="{y}" width="{values["median"] * scale:.1f}" height="16" fill="#4a7db5"/>')
            lines.append(f'<line x1="{left + values["min"] * scale:.1f}" x2="{left + values["max"] * scale:.1f}" y1="{y + 8}" '
                         f'y2="{y + 8}" stroke="black"/>')
            y += row
        y += row // 2
    path.write_text(f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" font-family="sans-serif" '
                    'font-size="13">\n<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(lines) + "\n</svg>\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", type=pathlib.Path, default=SOURCE / "build/release/bin/guest_agent")
    parser.add_argument("--out", type=pathlib.Path, default=SOURCE / "build/bench")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=2, help="of each load")
    parser.add_argument("--connections", type=int, default=8)
    options = parser.parse_args()
    program = native_worker.wasmtime()
    with tempfile.TemporaryDirectory(prefix="host-runner-bench-") as place, contextlib.ExitStack() as running:
        artifact = pathlib.Path(place) / "service"
        if not native_worker.compile_module(options.agent, COMPONENT, artifact):
            raise SystemExit(f"{COMPONENT} cannot be compiled")
        servers = []
        for start in (lambda: start_worker(options.agent, artifact),
                      lambda: start_wasmtime(program, "wasmtime serve", []),
                      lambda: start_wasmtime(program, "wasmtime serve, time limit", ["-W", "timeout=30s"])):
            servers.append(start())
            running.callback(servers[-1].stop)
        measure(servers, 1, 1, options.connections)  # the first requests are not typical of any
        runs = measure(servers, options.rounds, options.seconds, options.connections)
        resident = {server.name: server.resident_kib() for server in servers}
    report = {"schema_version": 1, "wasmtime": subprocess.run([program, "--version"], check=True, stdout=subprocess.PIPE,
                                                              text=True).stdout.strip(),
              "processors": os.cpu_count(), "rounds": options.rounds, "seconds_of_each_load": options.seconds,
              "connections": options.connections, "steady_pause_ms": STEADY_PAUSE_MS,
              "budgets": BUDGETS, "loads": {name: summarize(done) for name, done in runs.items()}, "resident_kib": resident}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "wasm_http.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(options.out / "wasm_http.svg", report)
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
