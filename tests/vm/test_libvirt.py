# SPDX-License-Identifier: Apache-2.0
"""--backend libvirt: the same VM, started, watched and stopped by a real daemon of libvirt's, which these tests start
themselves (libvirt_daemon.py)."""
import os
import signal
import subprocess

import pytest
from harness import BOOT_SECONDS, DEV_IMAGE, HELLO, STEP_SECONDS, fetch, is_gone, wait_until
from libvirt_daemon import LibvirtDaemon, missing

pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


@pytest.fixture
def daemon(host):
    libvirt = LibvirtDaemon(host.folder / "lv")
    yield libvirt
    for run in host.runs:
        if run.process.poll() is None:
            run.signal(signal.SIGKILL)
            run.process.wait(STEP_SECONDS)
    libvirt.close()


def start(host, daemon, *arguments, **options):
    return host.start("--backend", f"libvirt={daemon.uri}", *arguments, **options)


def ended(run):
    (event,) = [event for event in run.events if event["event"] == "ended"]
    return f"{event['reason']}: {event['text']}"


def test_run_serves_is_listed_and_stops_without_a_trace(host, daemon):
    run = start(host, daemon, "-c", HELLO, "-p", "tcp::0:8080")
    run.wait_for("notice", STEP_SECONDS, text="QEMU is started by libvirt")
    run.wait_for("ready")
    answer = fetch(run.port)
    domain = f"host-runner-{run.id}"
    assert daemon.domains() == [domain]

    (row,) = host.list()
    assert (row["id"], row["state"], row["tee"]) == (run.id, "running", "none")
    inspected = host.json("inspect", run.id)
    assert inspected["guest"]["boot_id"] in answer
    assert (inspected["backend"], inspected["libvirt_uri"]) == ("libvirt", daemon.uri)
    assert inspected["libvirt_domain"] == domain
    assert inspected["argv"] == []
    assert inspected["pid"] == run.qemu_pid > 0
    assert domain in host.command("inspect", run.id).stdout

    assert "Linux version" in host.command("logs", run.id, "serial").stdout

    stopped = host.command("stop", "-i", run.id)
    assert run.id in stopped.stdout
    assert run.wait() == 0
    steps = [event["text"] for event in run.events if event["event"] == "stop_step"]
    assert steps == ["guest API Shutdown"]
    assert is_gone(run.qemu_pid)
    assert daemon.domains() == []
    assert list((host.state / "instances").iterdir()) == []


def test_the_same_ladder_stops_a_guest_that_does_not_listen(host, daemon):
    run = start(host, daemon)
    run.wait_for("ready")
    # Neither the guest API nor the power button: the guest stands still.
    daemon.virsh("suspend", f"host-runner-{run.id}")
    assert wait_until(lambda: host.json("inspect", run.id)["qmp_status"] == "paused", STEP_SECONDS)
    host.command("stop", "--all", "--timeout", "30s")
    assert run.wait() == 0
    steps = [event["text"] for event in run.events if event["event"] == "stop_step"]
    assert steps == ["guest API Shutdown", "QMP system_powerdown", "SIGTERM"]
    assert daemon.domains() == []


def test_force_kills_at_once(host, daemon):
    run = start(host, daemon)
    run.wait_for("ready")
    host.command("stop", "--all", "--force")
    assert run.wait() == 15
    assert ended(run).startswith("killed_by_force")
    assert daemon.domains() == []


def test_exec_and_the_guests_own_poweroff(host, daemon):
    run = start(host, daemon, image=DEV_IMAGE)
    run.wait_for("ready")
    result = host.command("exec", run.id, "--", "sh", "-c", "ls /dev/vd*; cat /sys/class/block/vda/device/../address "
                          "2>/dev/null; readlink /sys/class/block/vdb")
    assert "/dev/vda\n/dev/vdb\n/dev/vdc" in result.stdout
    assert "0000:00:02.0" in result.stdout  # the data disk's slot, as without libvirt
    host.command("exec", run.id, "--", "poweroff", check=False)
    assert run.wait(BOOT_SECONDS) == 0
    assert ended(run).startswith("guest_shutdown")
    assert daemon.domains() == []


def test_a_guests_reset_is_told_from_a_poweroff(host, daemon):
    run = start(host, daemon, image=DEV_IMAGE)
    run.wait_for("ready")
    host.command("exec", run.id, "--", "sh", "-c", "echo b > /proc/sysrq-trigger", check=False)
    assert run.wait(BOOT_SECONDS) == 14
    assert ended(run).startswith("guest_reset")
    assert daemon.domains() == []


def test_somebody_elses_destroy_is_an_end_with_its_reason(host, daemon):
    run = start(host, daemon)
    run.wait_for("started")
    daemon.virsh("destroy", f"host-runner-{run.id}")
    assert run.wait() != 0
    assert "another process told QEMU to end" in ended(run)


def test_kill_of_the_runner_leaves_no_domain(host, daemon):
    run = start(host, daemon)
    run.wait_for("ready")
    qemu = run.qemu_pid
    run.signal(signal.SIGKILL)
    run.process.wait(STEP_SECONDS)
    assert wait_until(lambda: daemon.domains() == [], STEP_SECONDS)
    assert wait_until(lambda: is_gone(qemu), STEP_SECONDS)
    (row,) = host.list("--all")
    assert row["state"] != "running"


def test_death_of_the_daemon_is_an_end_that_says_so_and_leaves_no_qemu(host, daemon):
    run = start(host, daemon)
    run.wait_for("ready")
    qemu = run.qemu_pid
    daemon.kill()
    assert run.wait() != 0
    assert "the connection to libvirt" in ended(run)
    assert wait_until(lambda: is_gone(qemu), STEP_SECONDS)


def test_a_daemon_that_hangs_is_found_out(host, daemon):
    run = start(host, daemon)
    run.wait_for("ready")
    os.kill(daemon.pid, signal.SIGSTOP)
    try:
        assert run.wait(STEP_SECONDS) != 0  # after three calls without an answer, 5 s apart
    finally:
        os.kill(daemon.pid, signal.SIGCONT)
    assert "the daemon does not answer" in ended(run)
    assert is_gone(run.qemu_pid)


def test_a_td_names_the_version_that_libvirt_needs(host, daemon):
    if tuple(map(int, daemon.version.split("."))) >= (11, 6, 0):
        pytest.skip(f"libvirt {daemon.version} knows TDX")
    run = start(host, daemon, "--tee", "tdx")
    assert run.wait() == 6
    assert f"A TD needs libvirt 11.6.0 or newer, this one is {daemon.version}" in run.stderr
    # What it would be given can be seen all the same.
    shown = host.command("run", "--dry-run", "--format", "libvirt-xml", "-i", DEV_IMAGE, "-m", "1G", "-u", "1").stdout
    assert '<launchSecurity type="tdx">' in shown
    assert '<quoteGenerationService path="/var/run/tdx-qgs/qgs.socket"' in shown


def test_where_no_daemon_is_the_error_says_what_to_do(host, tmp_path):
    kind = "system" if os.geteuid() == 0 else "session"
    uri = f"qemu:///{kind}?socket={tmp_path}/none"
    run = host.start("--backend", f"libvirt={uri}")
    assert run.wait() != 0
    assert f"{tmp_path}/none" in run.stderr
    assert "apt install libvirt-daemon-system" in run.stderr
    assert not list((host.state / "instances").glob("*")) if (host.state / "instances").exists() else True
    doctor = host.command("doctor", "--tee", "none", "--backend", f"libvirt={uri}", check=False)
    assert doctor.returncode != 0 and "apt install libvirt-daemon-system" in doctor.stdout


def test_doctor_says_which_libvirt_answers(host, daemon):
    findings = host.command("doctor", "--tee", "none", "--backend", f"libvirt={daemon.uri}", check=False).stdout
    (line,) = [line for line in findings.splitlines() if line.startswith("libvirt ")]
    assert "pass" in line and f"libvirt {daemon.version}" in line


def test_a_run_without_libvirt_loads_nothing_of_it(host):
    run = host.start()
    run.wait_for("ready")
    with open(f"/proc/{run.process.pid}/maps") as maps:
        assert "libvirt.so" not in maps.read()
    host.command("stop", "--all", "--force")
    run.wait()


def test_the_dry_runs_xml_is_what_the_daemon_takes(host, daemon):
    shown = host.command("run", "--dry-run", "--format", "libvirt-xml", "-i", DEV_IMAGE, "--tee", "none", "-m", "256M",
                         "-u", "1").stdout
    path = host.folder / "domain.xml"
    path.write_text(shown)
    argv = daemon.virsh("domxml-to-native", "qemu-argv", str(path)).stdout
    assert "host-runner.8" in argv and "restrict" in argv
    assert subprocess.run(["virsh", "-c", "test:///default", f"define {path}"], capture_output=True).returncode == 0
