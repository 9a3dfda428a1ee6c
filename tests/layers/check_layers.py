#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks the include order of docs/architecture.md.

A module may include itself, the shared modules above it, and those above it in its own stack. Public headers may not show
types of the libraries that stay inside their module. Usage: check_layers.py SOURCE_DIRECTORY
"""
import pathlib
import re
import sys

SHARED = ["base", "crypto", "net", "protocol", "spec"]
HOST = ["config", "image", "host", "qemu", "usernet", "hostapi", "instance", "libvirt", "cli"]
GUEST = ["wasm", "agent"]
HIDDEN_LIBRARIES = ("yaml-cpp/", "nlohmann/", "CLI/", "toml++/", "httplib.h", "spdlog/", "archive.h", "openssl/", "slirp/",
                    "wasm.h", "wasmtime", "engine_ffi.h", "libvirt/", "pugixml")
INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^>"]+)[>"]', re.MULTILINE)


def allowed(module: str) -> set[str]:
    for stack in (HOST, GUEST):
        if module in stack:
            return set(SHARED) | set(stack[: stack.index(module) + 1])
    return set(SHARED[: SHARED.index(module) + 1])


def problems(root: pathlib.Path) -> list[str]:
    found = []
    for kind in ("include/host_runner", "src"):
        for folder in sorted((root / kind).iterdir()):
            if not folder.is_dir() or folder.name == "bin":
                continue
            if folder.name not in SHARED + HOST + GUEST:
                found.append(f"{kind}/{folder.name}: no such module in the design")
                continue
            for file in sorted(folder.rglob("*.[ch]pp")):
                for include in INCLUDE.findall(file.read_text()):
                    where = f"{file.relative_to(root)}: #include {include}"
                    if include.startswith("host_runner/"):
                        other = include.split("/")[1]
                        if other not in allowed(folder.name):
                            found.append(f"{where}: {folder.name} may not use {other}")
                    elif kind.startswith("include") and include.startswith(HIDDEN_LIBRARIES):
                        found.append(f"{where}: this library's types stay inside their module")
    return found


if __name__ == "__main__":
    lines = problems(pathlib.Path(sys.argv[1]))
    print("\n".join(lines) or "Every include keeps the order.")
    sys.exit(1 if lines else 0)
