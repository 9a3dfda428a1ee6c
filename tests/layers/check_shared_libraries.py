#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Compares the shared libraries that host_runner names (DT_NEEDED) with a golden list.

Names are compared without their version, which differs between Debian releases. What only one verb needs may not appear:
the process that `run` starts would pay for it. HOST_RUNNER_UPDATE_GOLDEN=1 rewrites the list.
Usage: check_shared_libraries.py PROGRAM GOLDEN
"""
import os
import re
import subprocess
import sys


def needed(program: str) -> list[str]:
    dynamic = subprocess.run(["readelf", "-d", program], check=True, capture_output=True, text=True).stdout
    names = re.findall(r"\(NEEDED\).*\[(.+?)\]", dynamic)
    return sorted(re.sub(r"\.so.*$", "", name) for name in names)


if __name__ == "__main__":
    program, golden = sys.argv[1:3]
    found = needed(program)
    if os.environ.get("HOST_RUNNER_UPDATE_GOLDEN") == "1" and os.path.exists(golden):
        with open(golden, "w") as file:
            file.write("\n".join(found) + "\n")
    with open(golden) as file:
        expected = file.read().split()
    if found != expected:
        print(f"{program} needs other shared libraries than {golden} says.")
        print("  more:", *sorted(set(found) - set(expected)))
        print("  fewer:", *sorted(set(expected) - set(found)))
        sys.exit(1)
