#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the guest agent in a root that holds nothing but the agent itself: it must need no library, loader or file.

Usage: agent_chroot.py GUEST_AGENT. Without root a user namespace stands in (unshare).
"""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="host-runner-chroot-") as folder:
        shutil.copy(sys.argv[1], pathlib.Path(folder) / "guest_agent")
        enter = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]
        for arguments, expected in ((["--version"], "guest_agent "), (["--help"], "Usage:")):
            result = subprocess.run([*enter, "chroot", folder, "/guest_agent", *arguments], capture_output=True, text=True,
                                    timeout=30)
            if result.returncode != 0 or expected not in result.stdout:
                print(f"guest_agent {' '.join(arguments)} in an empty root: exit code {result.returncode}, expected 0 and "
                      f"'{expected}'\n{result.stdout}{result.stderr}")
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
