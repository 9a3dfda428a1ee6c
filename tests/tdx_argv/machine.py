# SPDX-License-Identifier: Apache-2.0
"""Runs the unpacked QEMU where every path and port of a command line is free: in a root folder of its own, without a
network. The process must already be in its own mount and network namespaces (scripts/test-tdx-argv sees to it)."""
import array
import fcntl
import json
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import time

ROOT = pathlib.Path("/mnt")  # hidden from all others by the mount namespace
START_SECONDS = 120


class QemuFailed(Exception):
    """QEMU ended, or answered a command with an error."""


def make_root(qemu_root: pathlib.Path) -> None:
    def mount(*arguments: str) -> None:
        subprocess.run(["mount", *arguments], check=True)
    mount("-t", "tmpfs", "none", str(ROOT))
    (ROOT / "usr").mkdir()
    mount("--bind", str(qemu_root / "usr"), str(ROOT / "usr"))
    for folder in ("bin", "lib", "lib64"):
        (ROOT / folder).symlink_to(f"usr/{folder}")
    # What QEMU looks at to lock disks, and to leave memory unreserved.
    for file in ("dev/null", "proc/sys/vm/overcommit_memory"):
        (ROOT / file).parent.mkdir(parents=True)
        (ROOT / file).touch()
        mount("--bind", f"/{file}", str(ROOT / file))


def clear_root() -> None:
    """Leaves only what make_root() put there."""
    for entry in ROOT.iterdir():
        if entry.name in ("usr", "bin", "lib", "lib64", "proc") or entry.is_symlink():
            continue
        if entry.name == "dev":
            for file in entry.iterdir():
                if file.name != "null":
                    remove(file)
        else:
            remove(entry)


def remove(path: pathlib.Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _set_interface(request: int, name: str, payload: bytes) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, request, struct.pack("16s24s", name.encode(), payload))


def add_address(address: str, number: int) -> None:
    """Gives the loopback interface one more address (netdevice(7): SIOCSIFADDR on an alias)."""
    siocsifaddr = 0x8916
    _set_interface(siocsifaddr, f"lo:{number}", struct.pack("HH4s", socket.AF_INET, 0, socket.inet_aton(address)))


def raise_loopback() -> None:
    siocsifflags, up, running = 0x8914, 0x1, 0x40
    _set_interface(siocsifflags, "lo", struct.pack("H", up | running))


class Machine:
    """A QEMU that waits before its first instruction."""

    def __init__(self, argv: list[str], qmp_socket: str):
        self._log = open(ROOT / "qemu.log", "w+b")
        self._process = subprocess.Popen([*argv, "-S"], stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log,
                                         preexec_fn=lambda: (os.chroot(ROOT), os.chdir("/")))
        self._qmp = socket.socket(socket.AF_UNIX)
        self._qmp.settimeout(START_SECONDS)
        try:
            self._connect(ROOT / qmp_socket.lstrip("/"))
            self._lines = self._qmp.makefile("r")
            self._lines.readline()
            self.command("qmp_capabilities")
        except ConnectionError:
            self._process.wait(START_SECONDS)
            failure = QemuFailed(f"QEMU ended: {self.log()}")
            self.stop()
            raise failure from None
        except BaseException:
            self.stop()
            raise

    def _connect(self, path: pathlib.Path) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                return self._qmp.connect(str(path))
            except (FileNotFoundError, ConnectionRefusedError):
                if self._process.poll() is not None:
                    raise QemuFailed(f"QEMU ended: {self.log()}") from None
                if time.monotonic() > deadline:
                    raise QemuFailed(f"QEMU made no socket {path}: {self.log()}") from None
                time.sleep(0.02)

    def command(self, name: str, **arguments):
        message = {"execute": name, "arguments": arguments}
        self._qmp.sendall(json.dumps(message).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise QemuFailed(f"{name}: {answer['error']['desc']}")
        raise QemuFailed(f"QEMU ended at {name}: {self.log()}")

    def monitor(self, line: str) -> str:
        return self.command("human-monitor-command", **{"command-line": line})

    def log(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace").strip()

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._qmp.close()
        self._log.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


# --- files that QEMU takes -------------------------------------------------------------------------

def write_kernel(path: pathlib.Path) -> None:
    """A header that QEMU's loader takes for a Linux kernel (Linux Documentation/arch/x86/boot.rst)."""
    image = bytearray(16 * 1024)
    image[0x1f1] = 1                                       # setup_sects
    image[0x1fe:0x200] = b"\x55\xaa"
    image[0x202:0x206] = b"HdrS"
    image[0x206:0x208] = struct.pack("<H", 0x020f)         # protocol version
    image[0x211] = 1                                       # loadflags: LOADED_HIGH
    image[0x22c:0x230] = struct.pack("<I", 0x7fffffff)     # initrd_addr_max
    image[0x238:0x23c] = struct.pack("<I", 2047)           # cmdline_size
    path.write_bytes(image)


def write_qcow2(path: pathlib.Path) -> None:
    """An empty disk of 1 MiB (QEMU docs/interop/qcow2.rst, version 2): header, refcounts, empty L1 table."""
    cluster = 65536
    header = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 2, 0, 0, 16, 1 << 20, 0, 1, 3 * cluster, cluster, 1, 0, 0)
    refcount_block = array.array("H", [1] * 4)
    refcount_block.byteswap()
    path.write_bytes(b"".join(part.ljust(cluster, b"\0") for part in (
        header, struct.pack(">Q", 2 * cluster), refcount_block.tobytes(), b"")))
