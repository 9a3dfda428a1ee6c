# SPDX-License-Identifier: Apache-2.0
"""The main job: run, list, look at and stop real VMs."""
import hashlib
import os
import re
import signal
import subprocess

from harness import DEV_IMAGE, HELLO, PROGRAM, STEP_SECONDS, fetch, is_gone


def start_hello(host, *arguments, **options):
    return host.start("-c", HELLO, "-p", "tcp::0:8080", *arguments, **options)


def test_run_serves_is_listed_and_stops_without_a_trace(host):
    run = start_hello(host)
    ready = run.wait_for("ready")
    assert ready["elapsed_ms"] > 0
    answer = fetch(run.port)

    (row,) = host.list()
    assert (row["id"], row["state"], row["tee"]) == (run.id, "running", "none")
    assert row["ports"] == [f"tcp:127.0.0.1:{run.port}:8080"]

    # The answer comes from this boot of this guest and from the program that inspect names.
    inspected = host.json("inspect", run.id)
    assert inspected["guest"]["boot_id"] in answer
    (service,) = inspected["services"]
    assert service["name"] == "web" and service["state"] in ("running", "healthy")
    assert re.fullmatch("[0-9a-f]{64}", service["program_sha256"])
    assert service["program_sha256"] in answer

    qemu = run.qemu_pid
    stopped = host.command("stop", "-i", run.id[:6])
    assert run.id in stopped.stdout
    assert run.wait() == 0
    assert is_gone(qemu)
    assert host.list() == []
    # stop removes what a temporary instance leaves.
    assert list((host.state / "instances").iterdir()) == []


def test_list_prints_a_table_for_people(host):
    run = start_hello(host)
    run.wait_for("ready")
    lines = host.command("list").stdout.splitlines()
    assert lines[0].split()[:3] == ["ID", "NAME", "STATE"]
    assert run.id in lines[1] and "running" in lines[1]


def test_two_vms_run_at_once_and_stop_all_stops_both(host):
    (host.folder / "second").mkdir()
    runs = [start_hello(host), start_hello(host, cwd=host.folder / "second")]
    answers = []
    for run in runs:
        run.wait_for("ready")
        answers.append(fetch(run.port))
    assert answers[0] != answers[1]
    assert len(host.list()) == 2
    output = host.command("stop", "--all").stdout
    assert all(run.id in output for run in runs)
    assert [run.wait() for run in runs] == [0, 0]


def test_run_without_a_compose_file_boots_with_no_services_and_says_so(host):
    run = host.start()
    run.wait_for("notice", STEP_SECONDS, text="no services")
    run.wait_for("ready")
    host.command("stop", "--all")
    assert run.wait() == 0


def test_net_none_boots_and_is_reachable_by_the_channel(host):
    run = host.start("--net", "none")
    run.wait_for("ready")
    assert host.json("inspect", run.id)["guest"]["boot_id"]
    host.command("stop", "--all")
    assert run.wait() == 0


def test_a_guest_that_powers_off_ends_the_run_with_success(host):
    run = host.start(image=DEV_IMAGE)
    run.wait_for("ready")
    host.command("exec", run.id, "--", "/bin/sh", "-c", "kill -TERM 1", check=False)
    assert run.wait() == 0
    assert run.wait_for("ended")["reason"] == "guest_shutdown"


def test_exec_passes_output_and_exit_code(host):
    run = host.start(image=DEV_IMAGE)
    run.wait_for("ready")
    result = host.command("exec", run.id, "--", "/bin/sh", "-c", "echo to-out; echo to-err >&2; exit 7", check=False)
    assert (result.returncode, result.stdout, result.stderr.strip()) == (7, "to-out\n", "to-err")


def test_exec_is_refused_by_the_release_flavour(host):
    run = host.start()
    run.wait_for("ready")
    result = host.command("exec", run.id, "--", "/bin/true", check=False)
    assert result.returncode != 0
    assert "dev" in result.stderr


def test_sigterm_stops_the_guest_in_order(host):
    run = start_hello(host)
    run.wait_for("ready")
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert run.wait_for("ended")["reason"] == "stop_requested"
    assert "powering off" in str(run.events)


def test_a_run_under_nohup_outlives_its_terminal(host):
    run = start_hello(host, prefix=["nohup"])
    run.wait_for("ready")
    run.signal(signal.SIGHUP)
    assert fetch(run.port)
    host.command("stop", "--all")
    assert run.wait() == 0


def test_detach_returns_when_ready_and_prints_what_can_be_used(host):
    result = host.command("run", "-i", DEV_IMAGE, "--tee", "none", "-u", "1", "-m", "256M", "-d", "1G", "-c", HELLO,
                          "-p", "tcp::0:8080", "--detach", "--wait", "ready", timeout=180)
    (row,) = host.list()
    assert row["id"] in result.stdout and row["ports"][0] in result.stdout
    assert fetch(int(row["ports"][0].split(":")[2]))
    host.command("stop", "--all")
    assert host.list() == []


def test_a_named_instance_keeps_its_disk_and_identity(host):
    marker = "kept across two runs"
    for boot in (1, 2):
        run = host.start("--name", "keeper", image=DEV_IMAGE)
        run.wait_for("ready")
        identity = host.json("inspect", "keeper")["guest"]["instance_id"]
        if boot == 1:
            first_identity = identity
            host.command("exec", "keeper", "--", "/bin/sh", "-c", f"echo '{marker}' > /data/marker; sync")
        else:
            assert identity == first_identity != ""
            assert marker in host.command("exec", "keeper", "--", "/bin/cat", "/data/marker").stdout
        stopped = host.command("stop", "-i", "keeper").stdout
        assert "host_runner rm keeper" in stopped
        assert run.wait() == 0
    (row,) = host.list("--all")
    assert (row["name"], row["state"]) == ("keeper", "stopped")
    host.command("rm", "keeper")
    assert host.list("--all") == []


def test_qemu_logs_stand_in_the_current_folder(host):
    (host.cwd / "qemu_stderr.log").write_text("from an earlier boot\n")
    run = host.start()
    run.wait_for("started", STEP_SECONDS)
    second = host.start()
    second.wait_for("started", STEP_SECONDS)
    host.command("stop", "--all", "--force")
    run.wait()
    second.wait()
    text = (host.cwd / "qemu_stderr.log").read_text()
    assert text.startswith("from an earlier boot\n") and "===== boot @" in text
    assert (host.cwd / f"qemu_stderr.{second.id}.log").exists()


def test_console_shows_the_serial_line_and_detaches(host):
    run = host.start(image=DEV_IMAGE)
    run.wait_for("ready")
    script = f"{PROGRAM} console {run.id}"
    console = subprocess.Popen(["script", "-qec", script, "/dev/null"], env=host.environment, cwd=host.cwd,
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    console.stdin.write(b"\necho 4$((1+1))2\n")
    console.stdin.flush()
    seen = b""
    while b"422" not in seen:
        byte = os.read(console.stdout.fileno(), 4096)
        assert byte, seen
        seen += byte
    console.stdin.write(b"\x1d")
    console.stdin.flush()
    assert console.wait(STEP_SECONDS) == 0
    host.command("stop", "--all")
    assert run.wait() == 0


def test_logs_and_stats_of_a_running_vm(host):
    run = start_hello(host)
    run.wait_for("ready")
    assert "Linux version" in host.command("logs", run.id, "serial").stdout
    events = host.command("logs", run.id, "events").stdout
    assert '"ready"' in events
    assert len(host.command("logs", run.id, "--tail", "1", "events").stdout.splitlines()) == 1
    (row,) = host.json("stats", run.id)["instances"]
    assert row["memory_bytes"] > 0 and row["cpu_seconds"] > 0
    host.command("stop", "--all")
    assert run.wait() == 0


def test_wait_returns_the_exit_of_an_instance(host):
    run = host.start("--name", "waited")
    host.command("wait", run.id, "--for", "ready", timeout=180)
    waiter = subprocess.Popen([str(PROGRAM), "wait", run.id], env=host.environment, cwd=host.cwd)
    host.command("stop", "-i", "waited")
    assert waiter.wait(STEP_SECONDS) == 0
    assert run.wait() == 0


def test_the_delivered_compose_is_what_inspect_and_dry_run_say(host):
    run = start_hello(host)
    run.wait_for("ready")
    inspected = host.json("inspect", run.id)
    delivered = (host.state / "instances" / run.id / "app/app-compose.json").read_bytes()
    assert inspected["compose_hash"] == hashlib.sha256(delivered).hexdigest()
    assert inspected["guest"]["compose_hash"] == inspected["compose_hash"]
    host.command("stop", "--all")
    assert run.wait() == 0


def test_firmware_boots_too(host):
    run = start_hello(host, "--firmware")
    run.wait_for("ready")
    assert fetch(run.port)
    host.command("stop", "--all")
    assert run.wait() == 0
