#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures the WebAssembly engine on this machine.

    tests/bench/wasm_bench.py [--program PROGRAM] [--out DIRECTORY]

Runs the program wasm_bench of a release build and writes DIRECTORY/wasm.json and DIRECTORY/wasm.svg: the time of single calls
in fresh instances, calls a second, and memory with 1, 100 and 1000 instances alive. Nothing is judged here.
"""
import argparse
import json
import pathlib
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def plot(path, report):
    """A bar per kind of call: its median, with a line up to the 99th percentile; below it what an instance costs."""
    calls = report["call_us"]
    width, row, left = 760, 30, 340
    height = row * (len(calls) + len(report["concurrent"]) + 2) + 20
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif" '
             'font-size="13">', f'<rect width="{width}" height="100%" fill="white"/>',
             '<text x="8" y="20" font-weight="bold">One call in a fresh instance: median and 99th percentile, in us</text>']
    scale = (width - left - 70) / max(figure["p99"] for figure in calls.values())
    y = row
    for name, figure in calls.items():
        lines.append(f'<text x="8" y="{y + 14}">{name}: {figure["median"]:.1f}, {figure["p99"]:.1f}</text>')
        lines.append(f'<rect x="{left}" y="{y}" width="{figure["median"] * scale:.1f}" height="16" fill="#4a7db5"/>')
        lines.append(f'<line x1="{left}" x2="{left + figure["p99"] * scale:.1f}" y1="{y + 8}" y2="{y + 8}" stroke="black"/>')
        y += row
    lines.append(f'<text x="8" y="{y + 16}" font-weight="bold">Resident memory that an instance of one page adds, in KiB</text>')
    y += row
    scale = (width - left - 70) / max(1.0, *(figure["kib_per_instance"] for figure in report["concurrent"]))
    for figure in report["concurrent"]:
        lines.append(f'<text x="8" y="{y + 14}">{figure["instances"]} at a time: {figure["kib_per_instance"]:.1f}</text>')
        lines.append(f'<rect x="{left}" y="{y}" width="{max(0, figure["kib_per_instance"]) * scale:.1f}" height="16" '
                     'fill="#4a7db5"/>')
        y += row
    lines.append("</svg>")
    path.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build/release/bin/wasm_bench")
    parser.add_argument("--out", type=pathlib.Path, default=SOURCE / "build/bench")
    options = parser.parse_args()
    report = json.loads(subprocess.run([options.program], check=True, stdout=subprocess.PIPE, text=True).stdout)
    report = {"schema_version": 1, **report}
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "wasm.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(options.out / "wasm.svg", report)
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
