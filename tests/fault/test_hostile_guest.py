# SPDX-License-Identifier: Apache-2.0
"""A guest that attacks its runner: it can hurt itself, and neither the host's memory nor its disk nor its other VMs."""
import hashlib
import pathlib
import re
import subprocess

from harness import BOOT_SECONDS, HELLO, IMAGE, PROGRAM, STEP_SECONDS, SOURCE, copy_image, fetch

INIT = SOURCE / "tests/fault/hostile_init.sh"
# A supervisor needs 12 MiB; each of its threads may hold one request at its cap.
MAX_RUNNER_KIB = 24 << 10


def cpio_entry(name, mode, data):
    """One file of a "newc" archive. Source: linux Documentation/driver-api/early-userspace/buffer-format.rst"""
    path = name.encode() + b"\0"
    fields = [1, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(path), 0]
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    entry = header + path
    entry += b"\0" * (-len(entry) % 4) + data
    return entry + b"\0" * (-len(entry) % 4)


def hostile_image(target):
    """Our image with another first program. The kernel unpacks archive after archive; the later file counts."""
    image = copy_image(IMAGE, target)
    initramfs = image / "initramfs.cpio.gz"
    data = initramfs.read_bytes()
    data += b"\0" * (-len(data) % 4)
    data += cpio_entry("init", 0o100755, INIT.read_bytes()) + cpio_entry("TRAILER!!!", 0, b"")
    initramfs.write_bytes(data)
    sums = (image / "sha256sum.txt").read_text()
    digest = hashlib.sha256(data).hexdigest()
    sums = re.sub(r"^[0-9a-f]{64}(?=  initramfs)", digest, sums, flags=re.MULTILINE)
    (image / "sha256sum.txt").write_text(sums)
    (image / "digest.txt").write_text(hashlib.sha256(sums.encode()).hexdigest() + "\n")
    return image


def peak_memory_kib(pid):
    return int(re.search(r"VmHWM:\s+(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text())[1])


def test_a_hostile_guest_grows_neither_memory_nor_disk_and_holds_nobody_up(host, tmp_path):
    (host.folder / "second").mkdir()
    honest = host.start("-c", HELLO, "-p", "tcp::0:8080", cwd=host.folder / "second")
    honest.wait_for("ready")
    run = host.start(image=hostile_image(tmp_path / "image"))
    run.wait_for("started", STEP_SECONDS)
    with subprocess.Popen([str(PROGRAM), "logs", "-f", run.id, "serial"], env=host.environment, cwd=host.cwd,
                          stdout=subprocess.PIPE) as follower:
        said = []
        for line in follower.stdout:
            if b"hostile: " in line:
                said.append(line.decode().strip())
            if b"everything is sent" in line:
                break
        follower.terminate()
    assert len(said) == 9, said  # each attack was really sent

    assert {row["state"] for row in host.list()} == {"running", "starting"}
    host.json("inspect", run.id)  # its guest API answers without an end
    assert fetch(honest.port)
    assert peak_memory_kib(run.process.pid) < MAX_RUNNER_KIB
    folder = host.state / "instances" / run.id
    assert (folder / "serial.log.1").exists()  # 6 MB came, a part may have 4 MiB
    assert (folder / "events.jsonl").stat().st_size < 1 << 20
    assert len(run.events) < 500, len(run.events)

    host.command("stop", "--all", timeout=BOOT_SECONDS)
    run.wait()
    assert honest.wait() == 0
