#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measures calls of a function on this machine, without a VM.

    tests/bench/function_bench.py [--program PROGRAM] [--agent GUEST_AGENT] [--out DIRECTORY]

The host's session, the agent's relay and a real worker on one side; the same module, called directly in one process, on the
other; in turns. Writes DIRECTORY/function.json and DIRECTORY/function.svg. Nothing is judged here.
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[2]


def plot(path, report):
    """A bar for each way and number of calls side by side: the median of the rounds, with a line from least to most."""
    bars = [(f'{way}, {result["side_by_side"]} at a time', result[way]["calls_per_second"], colour)
            for result in report["results"] for way, colour in (("bare", "#8a8a8a"), ("function", "#4a7db5"))]
    width, row, left = 760, 30, 300
    scale = (width - left - 40) / max(figure["max"] for _, figure, _ in bars)
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{row * (len(bars) + 2)}" '
             'font-family="sans-serif" font-size="13">', '<rect width="100%" height="100%" fill="white"/>',
             '<text x="8" y="20" font-weight="bold">Calls a second: median, least and most of the rounds</text>']
    for index, (name, figure, colour) in enumerate(bars):
        y = row * (index + 1)
        lines.append(f'<text x="8" y="{y + 14}">{name}: {figure["median"]:.0f}</text>')
        lines.append(f'<rect x="{left}" y="{y}" width="{figure["median"] * scale:.1f}" height="16" fill="{colour}"/>')
        lines.append(f'<line x1="{left + figure["min"] * scale:.1f}" x2="{left + figure["max"] * scale:.1f}" y1="{y + 8}" '
                     f'y2="{y + 8}" stroke="black"/>')
    path.write_text("\n".join([*lines, "</svg>"]) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=pathlib.Path, default=SOURCE / "build/release/bin/function_bench")
    parser.add_argument("--agent", type=pathlib.Path, default=SOURCE / "build/release/bin/guest_agent")
    parser.add_argument("--out", type=pathlib.Path, default=SOURCE / "build/bench")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        printed = subprocess.run(
            [options.program, options.agent, SOURCE / "tests/fixtures/wasm/sum.wasm", pathlib.Path(folder) / "port"],
            check=True, stdout=subprocess.PIPE, text=True).stdout
    report = {"schema_version": 1, **json.loads(printed)}
    for result in report["results"]:
        result["ratio"] = round(result["function"]["calls_per_second"]["median"] / result["bare"]["calls_per_second"]["median"], 3)
        times = result["function"]
        result["p99_over_p50"] = round(times["p99_us"]["median"] / times["p50_us"]["median"], 2)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "function.json").write_text(json.dumps(report, indent=2) + "\n")
    plot(options.out / "function.svg", report)
    json.dump(report, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
