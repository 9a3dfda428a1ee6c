# SPDX-License-Identifier: Apache-2.0
"""The command of the golden case seed_complete_example, from the command line to the argv."""
import hashlib
import json
import os
import pathlib
import shutil
import subprocess

from harness import HELLO, IMAGE, SOURCE

GOLDEN = SOURCE / "tests/golden/argv/seed_complete_example/expected.argv"
GOLDEN_IMAGE = "/srv/images/dstack-nvidia-dev-0.3.3"
GOLDEN_INSTANCE = "/var/lib/host-runner/instances/5eedc0ffee00"


def make_old_image(folder):
    """An image of layout A whose metadata names no version; its files are not real."""
    folder.mkdir(parents=True)
    for name in ("bzImage", "initramfs.cpio.gz", "rootfs.iso", "ovmf.fd"):
        (folder / name).write_text(name)

    def digest(name):
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "metadata.json").write_text(json.dumps({
        "kernel": "bzImage", "initrd": "initramfs.cpio.gz", "cmdline": "console=ttyS0", "bios": "ovmf.fd",
        "rootfs": "rootfs.iso", "rootfs_hash": digest("rootfs.iso")}))
    names = ("ovmf.fd", "bzImage", "initramfs.cpio.gz", "rootfs.iso", "metadata.json")
    (folder / "sha256sum.txt").write_text("".join(f"{digest(name)}  {name}\n" for name in names))
    (folder / "digest.txt").write_text(digest("sha256sum.txt") + "\n")


def without_host_facts(argv):
    """Drops what depends on the machine: accelerator, and the guest's way to its runner."""
    kept = []
    skip = False
    for argument in argv[1:]:
        if skip or argument in ("-accel", "-cpu", "-run-with"):
            skip = not skip
            continue
        if "vhost-vsock-pci" in argument:
            kept.pop()
            continue
        kept.append(argument)
    return kept


def test_the_seed_command_gives_its_golden_argv(host):
    shutil.copytree(SOURCE / "configs", host.cwd / "configs")
    image = host.cwd / "images/dstack-nvidia-dev-0.3.3"
    make_old_image(image)
    result = host.command("run", "-c", "configs/runner.yaml", "-i", "images/dstack-nvidia-dev-0.3.3", "-u", "8", "-m",
                          "32G", "-d", "500G", "-p", "tcp:0.0.0.0:443:443,tcp::10024:22", "--dry-run", "--output", "json")
    document = json.loads(result.stdout)
    instance = str(pathlib.Path(document["directory"]))
    argv = [argument.replace(instance, GOLDEN_INSTANCE).replace(str(image), GOLDEN_IMAGE) for argument in document["argv"]]
    expected = GOLDEN.read_text().splitlines()
    assert without_host_facts(argv) == without_host_facts(expected)
    if os.path.exists("/dev/vhost-vsock"):
        assert any("vhost-vsock-pci" in argument for argument in argv)
    assert not host.state.exists()


def test_a_shell_runs_the_printed_command_as_it_is(host):
    """Only its folder must exist: QEMU makes its sockets and takes its disks there."""
    text = host.command("run", "-i", IMAGE, "--tee", "none", "-c", HELLO, "-u", "1", "-m", "256M", "-p", "tcp::0:8080",
                        "--append", "it's \"quoted\" $HOME", "--dry-run").stdout
    directory = host.state / "instances/000000000000"
    directory.mkdir(parents=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(directory / "disk.qcow2"), "64M"], check=True)
    (directory / "share.img").write_bytes(b"\0" * 1048576)
    process = subprocess.Popen(["sh", "-c", f"exec {text.strip()} -S -monitor stdio"], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=host.cwd)
    output, errors = process.communicate("info status\nquit\n", timeout=60)
    assert process.returncode == 0, errors
    assert "paused" in output
