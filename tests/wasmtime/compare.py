#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs the fixtures as our worker does and as `wasmtime run` of the same version does, and compares what can be seen.

    tests/wasmtime/compare.py --agent build/ci/bin/guest_agent [--show] [CASE...]

Compared are stdout (line by line where the lines have names), what the guest wrote to stderr, the exit code, and the files it
left. differences.py lists what may differ, with both values and a reason; a difference that is not there fails, and so does
one that is there and does not happen. --show prints all differences in the form of that list and judges nothing.
"""
import argparse
import collections
import os
import pathlib
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile

import differences
import native_worker

PATIENCE_S = 120
NOT_RUNNABLE = 126

Ran = collections.namedtuple("Ran", "out err code files")
Case = collections.namedtuple("Case", "name module arguments environment input files timeout_ms memory_bytes port",
                              defaults=[[], {}, b"", False, 0, 64 << 20, False])


def cases():
    for arguments in (["arguments", "two words", "", "grüß"], ["environment"], ["echo"], ["flood"], ["time"], ["random"],
                      ["both"], ["exit", "0"], ["exit", "7"], ["exit", "125"], ["exit", "126"], ["exit", "255"],
                      ["exit", "256"], ["exit", "-1"], ["fail"], ["panic"], ["recurse"], ["thread"], ["nonsense"]):
        yield Case(" ".join(["rust_process", *arguments[:2]]), "rust_process", arguments, {"GREETING": "hello = world", "EMPTY": ""})
    yield Case("rust_process echo, with an input", "rust_process", ["echo"], input=b"some\ninput\n")
    yield Case("rust_files", "rust_files", files=True)
    for part in ("process", "descriptors", "opening", "paths", "waiting", "outside", "unaligned"):
        yield Case(f"rust_calls {part}", "rust_calls", [part], files=True)
    for what in ("clock", "advice", "whence", "flags", "times", "lookup", "way", "rights", "clock_to_wait_for",
                 "flag_to_wait_with", "kind_to_wait_for"):
        yield Case(f"rust_calls unknown {what}", "rust_calls", ["unknown", what], files=True)
    yield Case("rust_listener", "rust_listener", ["1"], port=True)
    for arguments in (["arguments", "a"], ["input"], ["complain"], ["flood"], ["trap"], ["exit", "3"], ["copy", "/given"],
                      ["copy", "/to_given"], ["copy", "/out"], ["copy", "/nothing"], ["append", "/given", "more"],
                      ["append", "/new", "text"], ["append", "/odd", "text"], ["list", "/odd"], ["list", "/given"]):
        yield Case(" ".join(["deeds_wasi", *arguments]), "deeds_wasi", arguments, files=True)
    yield Case("deeds_wasi spin", "deeds_wasi", ["spin"], timeout_ms=300)
    yield Case("deeds_wasi sleep", "deeds_wasi", ["sleep"], timeout_ms=300)
    yield Case("deeds_wasi exhaust", "deeds_wasi", ["exhaust"], memory_bytes=8 << 20)
    yield Case("site", "site")
    for module in sorted(path.stem for path in (native_worker.FIXTURES / "wasm").glob("*.wat")):
        yield Case(module, module, timeout_ms=300)


def make_files(folder):
    """What rust_files and rust_calls expect."""
    (folder / "given").write_text("given\n")
    (folder / "odd").mkdir()
    (folder / "odd/plain").touch()
    os.close(os.open(os.fsencode(folder) + b"/odd/\xff", os.O_CREAT | os.O_WRONLY))
    os.mkfifo(folder / "fifo")
    for name, target in {"to_given": "given", "out": "../out", "absolute": "/given", "circle": "circle"}.items():
        (folder / name).symlink_to(target)


def look(folder):
    """All that is in a folder, one line each."""
    found = []
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        name = os.fsencode(path.relative_to(folder)).decode("utf-8", "backslashreplace")
        if stat.S_ISLNK(mode):
            found.append(f"{name} -> {os.readlink(path)}")
        elif stat.S_ISREG(mode):
            found.append(f"{name}: {path.read_bytes()!r}")
        else:
            found.append(f"{name}, {stat.filemode(mode)[0]}")
    return sorted(found)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def converse(process, port):
    """Waits for the first line of a guest that listens and is its client. What was read of its stdout."""
    first = process.stdout.readline()
    if first:
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as client:
            client.sendall(b"hello\nworld\n")
            client.shutdown(socket.SHUT_WR)
            answer = client.makefile("rb").read()
        first += b"the client got: " + answer.replace(b"\n", b" ") + b"\n"
    return first


def finish(process, case, port, own_words):
    try:
        first = converse(process, port) if case.port else b""
        out, err = process.communicate(case.input, PATIENCE_S)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.communicate()
    # What the host says is its own way; what the guest says is not.
    return (first + out).decode("utf-8", "backslashreplace"), own_words.split(err.decode(), 1)[0].strip(), process.returncode


def run_worker(agent, case, folder, artifact):
    port = free_port() if case.port else 0
    request = native_worker.request_of([case.module + ".wasm", *case.arguments], has_files=case.files,
                                       timeout_ms=case.timeout_ms, memory_bytes=case.memory_bytes,
                                       ports=[port] if port else [])
    process = native_worker.start(agent, artifact, request, case.environment, folder if case.files else None,
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return finish(process, case, port, re.compile(r"^guest_agent: ", re.MULTILINE))


def run_wasmtime(program, case, folder):
    module = native_worker.FIXTURES / "wasm" / (case.module + ".wasm")
    options = ["-W", f"max-memory-size={case.memory_bytes}"]
    options += ["-W", f"timeout={case.timeout_ms}ms"] if case.timeout_ms else []
    options += ["--dir", f"{folder}::/"] if case.files else []
    for name, value in case.environment.items():
        options += ["--env", f"{name}={value}"]
    process = subprocess.Popen([program, "run", *options, module, *case.arguments], env={}, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return finish(process, case, 0, re.compile(r"^Error: ", re.MULTILINE))


def seen(run, place):
    """`run(folder)` in a new folder."""
    folder = place / "root"
    folder.mkdir(mode=0o755)
    try:
        make_files(folder)
        return Ran(*run(folder), look(folder))
    finally:
        shutil.rmtree(folder)


def lines_of(out):
    """A dictionary of the lines by what stands before the colon; None where they have no such names."""
    lines = {}
    for line in out.splitlines():
        name, colon, value = line.partition(": ")
        if not colon:
            return None
        while name in lines:
            name += " (again)"
        lines[name] = value
    return lines


def compare(ours, theirs):
    """{aspect: (ours, theirs)} of all that differs."""
    found = {}
    lines = lines_of(ours.out), lines_of(theirs.out)
    if None in lines:
        pairs = {"stdout": (ours.out, theirs.out)}
    else:
        pairs = {name: (lines[0].get(name), lines[1].get(name)) for name in {**lines[0], **lines[1]}}
    pairs |= {"stderr": (ours.err, theirs.err), "exit code": (ours.code, theirs.code)}
    for name in sorted({*ours.files, *theirs.files}):
        pairs[f"file {name}"] = (name in ours.files, name in theirs.files)
    for aspect, (one, other) in pairs.items():
        if one != other:
            found[aspect] = (one, other)
    return found


def judge(name, found):
    """Complaints about the differences of one case."""
    listed = {}
    for reason, by_case in differences.DIFFERENCES.items():
        for aspect, values in by_case.get(name, {}).items():
            listed[aspect] = values
    for aspect in {**found, **listed}:
        if aspect not in listed:
            yield f"{name}, {aspect}: ours {found[aspect][0]!r}, wasmtime's {found[aspect][1]!r}: not in differences.py"
        elif aspect not in found:
            yield f"{name}, {aspect}: in differences.py, but both are the same"
        elif found[aspect] != listed[aspect]:
            yield f"{name}, {aspect}: ours and wasmtime's are {found[aspect]!r}, not {listed[aspect]!r} as in differences.py"


def judge_lists(all_names):
    """Complaints about the list itself."""
    document = (native_worker.SOURCE / "docs/wasi.md").read_text()
    table = document.partition("## Beside `wasmtime run`")[2].partition("\n## ")[0]
    rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")][1:]
    for reason in sorted({*rows} ^ {*differences.DIFFERENCES}):
        yield f"'{reason}' is not both in differences.py and in the table of docs/wasi.md"
    for reason, by_case in differences.DIFFERENCES.items():
        for name in by_case.keys() - all_names:
            yield f"differences.py, '{reason}': there is no case {name}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agent", required=True)
    parser.add_argument("--show", action="store_true")
    parser.add_argument("case", nargs="*")
    options = parser.parse_args()
    program = native_worker.wasmtime()
    complaints, count, artifacts = [], 0, {}
    with tempfile.TemporaryDirectory(prefix="host-runner-wasmtime-") as place:
        place = pathlib.Path(place)
        for case in cases():
            if options.case and case.name not in options.case:
                continue
            count += 1
            if case.module not in artifacts:
                artifact = place / case.module
                source = native_worker.FIXTURES / "wasm" / (case.module + ".wasm")
                artifacts[case.module] = artifact if native_worker.compile_module(options.agent, source, artifact) else None
            artifact = artifacts[case.module]
            # Without native code there is no worker: `guest_agent launch` ends with this code.
            ours = seen(lambda folder: run_worker(options.agent, case, folder, artifact) if artifact else ("", "", NOT_RUNNABLE),
                        place)
            theirs = seen(lambda folder: run_wasmtime(program, case, folder), place)
            found = compare(ours, theirs)
            if options.show and found:
                print(f"        {case.name!r}: {{")
                for aspect, values in found.items():
                    print(f"            {aspect!r}: {values!r},")
                print("        },")
            complaints += judge(case.name, found)
    if options.show:
        return 0
    if not options.case:
        complaints += judge_lists({case.name for case in cases()})
    listed = sum(len(aspects) for by_case in differences.DIFFERENCES.values() for aspects in by_case.values())
    print(f"{count} runs of fixtures beside wasmtime; {listed} differences are known, for {len(differences.DIFFERENCES)} reasons")
    for complaint in complaints:
        print(complaint)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
