# SPDX-License-Identifier: Apache-2.0
"""Starts `guest_agent worker` on this machine as `guest_agent launch` does in a VM, and finds the wasmtime to compare it with.

Only what the guest's kernel gives a service is missing: a user, a cgroup and mounts of its own.
"""
import json
import os
import pathlib
import subprocess
import sys

SOURCE = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = SOURCE / "tests/fixtures"
# Of the agent's child that compiles, as in include/host_runner/wasm/compile.hpp: module, artifact, memory, seconds.
COMPILE_LIMITS = ["67108864", "536870912", "2147483648", "60"]
# Without root a user namespace stands in.
ENTER_AS = [] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user"]


def wasmtime():
    """The program of the engine's version; built when it is not in the cache."""
    script = str(SOURCE / "scripts/build-wasmtime")
    subprocess.run([script], check=True, stdout=sys.stderr)
    return subprocess.run([script, "--where"], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def compile_module(agent, module, artifact):
    """Writes the native code of a module or component to `artifact`. False: the agent says that it is none it can run."""
    with open(module, "rb") as source, open(artifact, "wb") as target:
        # The child writes to descriptor 3.
        done = subprocess.run(["sh", "-c", 'exec "$@" 3>&1 >&2', "sh", agent, "compile", *COMPILE_LIMITS], stdin=source,
                              stdout=target, env={})
    return done.returncode == 0


def request_of(arguments, ports=(), **changes):
    """What a worker is told, as encode_request() in src/wasm/worker/request.cpp writes it. `ports` are numbers."""
    return {"world": "command", "is_component": False, "artifact_fd": -1, "report_fd": -1, "tls_fd": -1, "channel_fd": -1,
            "arguments": arguments, "has_files": False,
            "ports": [{"number": port, "address": "", "listen_port": 0} for port in ports], "shares_ports": False,
            "memory_bytes": 64 << 20, "timeout_ms": 0, "calls": 1, "output_bytes": 0, "grace_ms": 0, "outgoing": [], **changes}


def start(agent, artifact, request, environment, root=None, **options):
    """A worker, as a Popen. With `root` that folder is its root, and so the module's "/"."""
    program = os.open(agent, os.O_RDONLY)
    code = os.open(artifact, os.O_RDONLY)
    try:
        spec = {"program": program, "root": str(root) if root else None, "environment": environment,
                "request": json.dumps({**request, "artifact_fd": code})}
        # Started by descriptor, so that its root need not hold it.
        return subprocess.Popen([*(ENTER_AS if root else []), sys.executable, "-I", __file__, json.dumps(spec)],
                                pass_fds=[program, code], **options)
    finally:
        os.close(program)
        os.close(code)


def become_worker(spec):
    if spec["root"]:
        os.chroot(spec["root"])
        os.chdir("/")
    os.set_inheritable(spec["program"], False)
    os.execve(spec["program"], ["guest_agent", "worker", spec["request"]], spec["environment"])


if __name__ == "__main__":
    become_worker(json.loads(sys.argv[1]))
