# SPDX-License-Identifier: Apache-2.0
"""What goes wrong, made to go wrong: nothing may be left behind and every message must say what to do."""
import hashlib
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess

import pytest
from harness import BOOT_SECONDS, DEV_IMAGE, HELLO, IMAGE, PROGRAM, SOURCE, STEP_SECONDS, copy_image, fetch, is_gone, wait_until


def start_hello(host, *arguments, **options):
    return host.start("-c", HELLO, "-p", "tcp::0:8080", *arguments, **options)


def assert_usable_again(host):
    """After whatever happened: list is right, and the next run starts, stops and leaves nothing."""
    assert [row for row in host.list() if row["state"] in ("starting", "running", "stopping")] == []
    run = host.start()
    run.wait_for("started", STEP_SECONDS)
    host.command("stop", "--all", "--force")
    run.wait()


@pytest.mark.parametrize("stage", ["created", "started", "progress", "ready", "stop_step"])
def test_qemu_dies_with_a_killed_runner(host, stage):
    run = start_hello(host)
    if stage == "stop_step":
        run.wait_for("ready")
        run.signal(signal.SIGTERM)
    run.wait_for(stage)
    run.signal(signal.SIGKILL)
    run.wait()
    assert wait_until(lambda: not host_processes(host), STEP_SECONDS)
    rows = host.list("--all")
    if rows:  # killed at the very end of a stop, nothing may be left
        assert rows[0]["end"]["reason"] == "runner_died"
        host.command("rm", rows[0]["id"])
    assert_usable_again(host)


def host_processes(host):
    from harness import processes_of
    return processes_of(host.state)


def test_the_run_ends_when_qemu_is_killed(host):
    run = start_hello(host)
    run.wait_for("ready")
    os.kill(run.qemu_pid, signal.SIGKILL)
    assert run.wait() == 11
    ended = run.wait_for("ended")
    assert ended["reason"] == "qemu_died" and "signal 9" in ended["text"]


def test_a_guest_reset_has_its_own_exit_code(host):
    run = host.start(image=DEV_IMAGE)
    run.wait_for("ready")
    host.command("exec", run.id, "--", "/bin/sh", "-c", "echo b > /proc/sysrq-trigger", check=False)
    assert run.wait() == 14
    assert run.wait_for("ended")["reason"] == "guest_reset"


def test_a_guest_panic_has_its_own_exit_code(host):
    run = host.start(image=DEV_IMAGE)
    run.wait_for("ready")
    host.command("exec", run.id, "--", "/bin/sh", "-c", "echo c > /proc/sysrq-trigger", check=False)
    # Without a pvpanic device QEMU sees only the reset that panic=-1 makes.
    assert run.wait() in (13, 14)


def test_restart_on_failure_starts_the_vm_again_and_is_bounded(host):
    run = start_hello(host, "--restart", "on-failure:1", image=DEV_IMAGE)
    run.wait_for("ready")
    port = run.port
    os.kill(run.qemu_pid, signal.SIGKILL)
    run.wait_for("restart", STEP_SECONDS)
    second = None
    while second is None:
        event = run._queue.get(timeout=BOOT_SECONDS)
        run.events.append(event)
        if event["event"] == "ready":
            second = event
    assert fetch(port)
    (row,) = host.list()
    os.kill(row["pid"], signal.SIGKILL)
    assert run.wait() == 11


def test_sigterm_during_boot_stops_at_once(host):
    run = start_hello(host)
    run.wait_for("started", STEP_SECONDS)
    run.signal(signal.SIGTERM)
    assert run.wait() in (0, 15)
    assert_usable_again(host)


def test_a_second_signal_shortens_the_ladder(host):
    run = start_hello(host, image=DEV_IMAGE)
    run.wait_for("ready")
    host.command("exec", run.id, "--", "/bin/sh", "-c", "kill -STOP 1", check=False)
    run.signal(signal.SIGINT)
    run.wait_for("stop_step", STEP_SECONDS)
    for _ in range(5):
        if run.process.poll() is None:
            run.signal(signal.SIGINT)
    assert run.wait(STEP_SECONDS) in (0, 15)


def test_the_power_button_stops_a_guest_whose_api_does_not_answer(host):
    run = start_hello(host)
    run.wait_for("ready")
    with socket.socket(socket.AF_UNIX) as holder:
        # QEMU serves one client of a port at a time: the runner's request now waits behind this one.
        holder.connect(str(host.state / "instances" / run.id / "ch2.sock"))
        run.signal(signal.SIGTERM)
        assert run.wait() == 0
    steps = [event["text"] for event in run.events if event["event"] == "stop_step"]
    assert len(steps) == 2 and "system_powerdown" in steps[1], run.story()
    assert "powering off" in str(run.events)


def test_a_taken_port_is_named_with_its_owner(host):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        run = host.start("-p", f"tcp::{port}:8080")
        assert run.wait() == 4
    assert str(port) in run.stderr and str(os.getpid()) in run.stderr
    assert not (host.state / "instances").exists() or list((host.state / "instances").iterdir()) == []


def test_two_runs_cannot_claim_one_port(host):
    first = host.start("-p", "tcp::0:8080")
    first.wait_for("started", STEP_SECONDS)
    second = host.start("-p", f"tcp::{first.port}:8080")
    assert second.wait() == 4
    assert first.id in second.stderr
    host.command("stop", "--all", "--force")
    first.wait()


def test_a_name_can_be_used_by_one_run_at_a_time(host):
    first = host.start("--name", "only")
    first.wait_for("started", STEP_SECONDS)
    second = host.start("--name", "only")
    assert second.wait() == 4
    assert "only" in second.stderr
    host.command("stop", "--all", "--force")
    first.wait()


def test_a_host_without_tdx_gets_an_exact_error_and_no_vm(host):
    if pathlib.Path("/sys/module/kvm_intel/parameters/tdx").exists():
        pytest.skip("this host has TDX")
    run = host.start("--tee", "tdx")
    assert run.wait() == 6
    assert "TDX" in run.stderr and "--tee none" in run.stderr and "6.16" in run.stderr
    assert not (host.state / "instances").exists() or list((host.state / "instances").iterdir()) == []


def damaged(path, position=None):
    data = bytearray(path.read_bytes())
    data[len(data) // 2 if position is None else position] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("name", ["bzImage", "initramfs.cpio.gz", "ovmf.fd", "metadata.json", "sha256sum.txt", "digest.txt"])
def test_a_damaged_image_file_is_refused_and_named(host, tmp_path, name):
    image = copy_image(IMAGE, tmp_path / "image")
    damaged(image / name)
    run = host.start(image=image)
    assert run.wait() in (2, 9)
    assert name.split(".")[0] in run.stderr or "metadata" in run.stderr
    assert run.events == [] or run.events[-1]["event"] != "started"


@pytest.mark.parametrize("name", ["bzImage", "initramfs.cpio.gz", "rootfs.img.verity", "metadata.json"])
def test_a_missing_image_file_is_refused_and_named(host, tmp_path, name):
    image = copy_image(IMAGE, tmp_path / "image")
    (image / name).unlink()
    run = host.start(image=image)
    assert run.wait() in (3, 9)
    assert name in run.stderr


def test_a_damaged_root_file_system_is_refused_by_the_guest(host, tmp_path):
    image = copy_image(IMAGE, tmp_path / "image")
    # The first block, which every boot reads: dm-verity checks blocks when they are read.
    damaged(image / "rootfs.img.verity", position=8)
    run = host.start(image=image)
    assert run.wait(BOOT_SECONDS) == 14
    assert run.events[-1]["reason"] == "guest_reset"


def test_a_module_that_the_host_changed_is_refused_by_the_guest(host, tmp_path):
    # A host that changes the share disk after the runner wrote it: QEMU's stand-in does, and then becomes QEMU.
    module = SOURCE / "tests/fixtures/wasm_http/service.wasm"
    other = tmp_path / "other.wasm"
    other.write_bytes(module.read_bytes())
    damaged(other)
    named, found = (hashlib.sha256(file.read_bytes()).hexdigest() for file in (module, other))
    stand_in = tmp_path / "qemu"
    stand_in.write_text(f"""#!/bin/sh
for argument; do
    share=${{argument#file=}} share=${{share%%,*}}
    case $share in */share.img) mcopy -o -i "$share" {other} ::files/{named} || exit 1 ;; esac
done
exec {shutil.which("qemu-system-x86_64")} "$@"
""")
    stand_in.chmod(0o755)
    run = host.start("-c", SOURCE / "configs/http.yaml", "--qemu", stand_in)
    error = run.wait_for("boot_error")
    assert named in error["text"] and found in error["text"] and "service.wasm" in error["text"]
    assert not any(event["event"] == "ready" for event in run.events)
    host.command("stop", "--all", "--force")
    run.wait()


def test_run_wasm_whose_vm_dies_while_nobody_reads_its_output_says_so_and_leaves_nothing(host, tmp_path):
    environment = host.environment | {"TMPDIR": str(tmp_path)}
    module = SOURCE / "tests/fixtures/wasm/calls.wasm"
    with subprocess.Popen([PROGRAM, "run-wasm", "-i", IMAGE, "--tee", "none", module, "--", "write", "10000000"], cwd=host.cwd,
                          env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as runner:
        # The module has begun, and is held up by us.
        assert runner.stdout.read(1) == b"x"
        instance = host.list()[0]["id"]
        os.kill(host.json("inspect", instance)["pid"], signal.SIGKILL)
        assert wait_until(lambda: not host.list(), STEP_SECONDS)
        _, errors = runner.communicate(timeout=STEP_SECONDS)
    assert runner.returncode == 1 and b"the VM has ended" in errors, (runner.returncode, errors)
    assert not list(tmp_path.glob("host-runner-module*"))


def test_a_full_disk_under_the_instance_folder_is_a_clear_error(host):
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    host.state.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", str(host.state)], check=True)
    try:
        run = host.start()
        assert run.wait() == 7
        assert "space" in run.stderr.lower()
        left = list((host.state / "instances").glob("*")) if (host.state / "instances").exists() else []
        assert left == []
    finally:
        subprocess.run(["umount", str(host.state)], check=True)


def test_an_unwritable_current_folder_is_a_warning(host):
    if os.geteuid() != 0:
        pytest.skip("mounting a read-only file system needs root")
    place = host.folder / "read-only"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)], check=True)
    try:
        run = host.start(cwd=place)
        run.wait_for("warning", STEP_SECONDS, text="qemu_st")
        run.wait_for("started", STEP_SECONDS)
        host.command("stop", "--all", "--force")
        run.wait()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_dry_run_takes_and_leaves_nothing(host):
    result = host.command("run", "--dry-run", "-i", IMAGE, "--tee", "none", "-c", HELLO, "-p", "tcp::0:8080")
    assert result.stdout.startswith(("qemu-system-x86_64", "/")) and "virtio-blk-pci" in result.stdout
    assert not host.state.exists() and list(host.cwd.iterdir()) == []
    document = json.loads(host.command("run", "--dry-run", "-i", IMAGE, "--tee", "none", "-c", HELLO, "--output",
                                       "json").stdout)
    assert document["schema_version"] == 1 and document["argv"][0].endswith("qemu-system-x86_64")


@pytest.mark.parametrize("arguments, words", [
    (["-m", "lots"], ["memory", "lots", "32G"]),
    (["-p", "tcp:80"], ["ports", "tcp:80"]),
    (["-p", "tcp::70000:80"], ["70000", "65535"]),
    (["-g", "nonsense"], ["gpus", "nonsense"]),
    (["-c", "missing.yaml"], ["missing.yaml"]),
    (["--tee", "sgx"], ["tee", "sgx", "tdx"]),
    (["--net", "none", "-p", "tcp::1234:80"], ["net", "none"]),
])
def test_bad_input_is_one_line_and_exit_code_2(host, arguments, words):
    run = host.start(*arguments)
    assert run.wait() in ((2,) if "missing.yaml" not in arguments else (2, 3))
    for word in words:
        assert word in run.stderr
    assert not (host.state / "instances").exists()


def test_stop_works_on_a_vm_that_never_gets_ready(host, tmp_path):
    image = tmp_path / "image"
    shutil.copytree(IMAGE, image)
    run = host.start("-c", HELLO, image=image)
    run.wait_for("started", STEP_SECONDS)
    assert run.id in host.command("stop", "-i", run.id).stdout
    assert run.wait() in (0, 15)
