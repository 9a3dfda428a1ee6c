# SPDX-License-Identifier: Apache-2.0
"""The examples in configs/, each run in a real VM: what their comments promise is what happens."""
import json

from harness import DEV_IMAGE, SOURCE, STEP_SECONDS, fetch, wait_until

CONFIGS = SOURCE / "configs"


def services(host, run):
    return {service["name"]: service for service in host.json("inspect", run.id)["services"]}


def stop(host, run):
    host.command("stop", "--all")
    assert run.wait() == 0


def test_a_batch_job_powers_its_vm_off_and_the_run_ends_with_success(host):
    run = host.start("-c", CONFIGS / "batch.yaml", "--name", "batch")
    assert run.wait_for("ended")["reason"] == "guest_shutdown"
    assert run.wait() == 0
    assert "6 times 7 is 42" in host.command("logs", "batch", "serial").stdout


def test_dependencies_start_in_order(host):
    run = host.start("-c", CONFIGS / "dependencies.yaml", "-p", "tcp::0:8080")
    run.wait_for("ready")
    assert fetch(run.port).strip() == "prepared"
    seen = services(host, run)
    assert seen["store"]["state"] == "healthy"
    assert (seen["prepare"]["state"], seen["prepare"]["exit_code"]) == ("exited", 0)
    assert seen["web"]["state"] == "running"
    stop(host, run)


def test_restart_policies_are_kept(host):
    run = host.start("-c", CONFIGS / "restart.yaml")
    run.wait_for("ready")
    # One try and three more, with a growing pause; no event of the run announces a service's restart.
    gave_up = wait_until(lambda: services(host, run)["unlucky"]["restarts"] == 3, STEP_SECONDS)
    assert gave_up, services(host, run)
    assert wait_until(lambda: services(host, run)["unlucky"]["state"] == "exited", STEP_SECONDS)
    assert host.command("logs", run.id, "--service", "unlucky").stdout.count("failing") == 4
    assert services(host, run)["steady"]["state"] in ("running", "restarting")
    stop(host, run)


def test_a_volume_outlives_the_vm_and_a_delivered_file_is_read_only(host):
    for boot in (1, 2):
        run = host.start("-c", CONFIGS / "volume.yaml", "--name", "notes", "-p", "tcp::0:8080", image=DEV_IMAGE)
        run.wait_for("ready")
        page = wait_until(lambda: answer_of(run.port), STEP_SECONDS)
        assert page.startswith((CONFIGS / "frame.txt").read_text())
        assert len(page.splitlines()) - len((CONFIGS / "frame.txt").read_text().splitlines()) == boot
        stop(host, run)
    host.command("rm", "notes")


def answer_of(port):
    """The page, or nothing while the service is still starting (volume.yaml has no health check)."""
    try:
        return fetch(port)
    except OSError:
        return None


def test_a_service_with_a_user_of_its_own_writes_to_its_volume_and_nowhere_else(host, tmp_path):
    compose = tmp_path / "compose.yaml"
    compose.write_text(json.dumps({
        "name": "user",
        "x-power-off": True,
        "services": {"job": {
            "user": "1000:1000",
            "command": ["/bin/sh", "-c",
                        "id -u; echo kept >/data/file && cat /data/file; echo no >/etc/file || echo read-only"],
            "volumes": ["data:/data"],
        }},
        "volumes": {"data": {}},
    }))
    run = host.start("-c", compose, "--name", "user")
    assert run.wait() == 0
    serial = host.command("logs", "user", "serial").stdout
    for line in ("1000", "kept", "read-only"):
        assert f"job | {line}" in serial or f"job: {line}" in serial, serial[-3000:]
