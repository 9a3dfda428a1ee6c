# SPDX-License-Identifier: Apache-2.0
"""What a QEMU may do on its host: its user, its seccomp filter, its descriptors and its cgroup, as the kernel shows them."""
import json
import os
import pathlib
import pwd
import signal
import subprocess

import pytest

from harness import HELLO, IMAGE, STEP_SECONDS, fetch, is_gone, wait_until

ACCOUNT = "nobody"  # every system has it, and it owns nothing
CGROUP2 = [pathlib.Path(fields[1]) for fields in (line.split() for line in open("/proc/self/mounts", encoding="utf-8"))
           if fields[2] == "cgroup2"]


def status_of(pid):
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.split() for name, value in (line.split(":", 1) for line in lines)}


def open_files(pid):
    return {os.readlink(link) for link in pathlib.Path(f"/proc/{pid}/fd").iterdir() if link.is_symlink()}


@pytest.fixture
def account():
    if os.geteuid() != 0:
        pytest.skip("only root can run QEMU as another account")
    return pwd.getpwnam(ACCOUNT)


def test_qemu_is_sandboxed_and_may_gain_nothing(host):
    run = host.start("-c", HELLO, "-p", "tcp::0:8080")
    run.wait_for("started")
    status = status_of(run.qemu_pid)
    assert status["Seccomp"] == ["2"]
    assert status["NoNewPrivs"] == ["1"]
    # Everything of the runner's stays the runner's: what QEMU has open lies in the instance, the image or the kernel.
    folder = str(pathlib.Path(host.json("inspect", run.id)["directory"]))
    allowed = (folder, str(IMAGE), str(host.cwd), "socket:", "pipe:", "anon_inode:", "/dev/", "/memfd:")
    assert [name for name in open_files(run.qemu_pid) if not name.startswith(allowed)] == []
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


def test_qemu_of_another_account_serves_and_keeps_its_disk_without_a_right_to_the_instance(host, account):
    arguments = ("-c", HELLO, "-p", "tcp::0:8080", "--name", "confined", "--user", ACCOUNT)
    run = host.start(*arguments)
    run.wait_for("ready")
    assert "Hello" in fetch(run.port)
    status = status_of(run.qemu_pid)
    assert status["Uid"] == [str(account.pw_uid)] * 4 and status["Gid"] == [str(account.pw_gid)] * 4
    assert set(status["Groups"]) <= {str(os.stat("/dev/kvm").st_gid)} if os.path.exists("/dev/kvm") else not status["Groups"]
    assert status["CapEff"] == ["0000000000000000"] and status["Seccomp"] == ["2"]
    inspected = host.json("inspect", run.id)
    assert inspected["qemu_user"] == ACCOUNT
    folder = pathlib.Path(inspected["directory"])
    assert folder.stat().st_mode & 0o777 == 0o700
    owners = {path.name: path.lstat().st_uid for path in folder.iterdir()}
    assert set(owners.values()) == {0}, owners
    assert (folder / "serial.log").stat().st_size > 0
    first_boot = inspected["guest"]["boot_id"]
    run.signal(signal.SIGTERM)
    assert run.wait() == 0

    again = host.start(*arguments)  # the same disk, opened anew
    again.wait_for("ready")
    assert host.json("inspect", again.id)["guest"]["boot_id"] != first_boot
    again.signal(signal.SIGTERM)
    assert again.wait() == 0


def test_a_qemu_of_another_account_dies_with_its_runner(host, account):
    run = host.start("-c", HELLO, "--user", ACCOUNT)
    run.wait_for("started")
    qemu = run.qemu_pid
    run.signal(signal.SIGKILL)
    run.process.wait()
    assert wait_until(lambda: is_gone(qemu), STEP_SECONDS)


def test_an_image_that_the_account_may_not_read_is_named_before_anything_is_taken(host, account, tmp_path):
    image = tmp_path / "image"
    subprocess.run(["cp", "-r", "--reflink=auto", IMAGE, image], check=True)
    kernel = image / json.loads((image / "metadata.json").read_text())["kernel"]
    kernel.chmod(0o600)
    refused = host.command("run", "-i", image, "--tee", "none", "-m", "256M", "-d", "1G", "--user", ACCOUNT, check=False)
    assert refused.returncode == 5, refused
    assert f"cannot read {kernel}" in refused.stderr and "chmod o+r" in refused.stderr
    assert host.list("--all") == []


@pytest.mark.skipif(not CGROUP2 or os.geteuid() != 0 or os.path.exists("/run/systemd/system"),
                    reason="needs a cgroup v2 that is this machine's own")
def test_qemu_has_a_cgroup_of_its_own_and_it_goes_with_the_run(host):
    run = host.start("-c", HELLO)
    run.wait_for("started")
    folder = pathlib.Path(host.json("inspect", run.id)["cgroup"])
    assert folder.name == f"vm-{run.id}"
    assert (folder / "cgroup.procs").read_text().split() == [str(run.qemu_pid)]
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert not folder.exists()


@pytest.mark.skipif(not CGROUP2 or os.geteuid() != 0 or os.path.exists("/run/systemd/system"),
                    reason="needs a cgroup v2 that is this machine's own")
def test_the_next_run_removes_the_cgroup_of_a_killed_runner(host):
    run = host.start("-c", HELLO)
    run.wait_for("started")
    folder, qemu = pathlib.Path(host.json("inspect", run.id)["cgroup"]), run.qemu_pid
    run.signal(signal.SIGKILL)
    run.process.wait()
    assert wait_until(lambda: is_gone(qemu), STEP_SECONDS)
    assert folder.exists()
    after = host.start("-c", HELLO)
    after.wait_for("started")
    assert not folder.exists()
    after.signal(signal.SIGTERM)
    assert after.wait() == 0
