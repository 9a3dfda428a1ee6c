# SPDX-License-Identifier: Apache-2.0
"""`doctor` on this machine: what it says is what `run` does."""
import json
import os
import pathlib
import resource
import socket
import subprocess

import pytest

from harness import HELLO, IMAGE, PROGRAM, STEP_SECONDS

SMALL = ("-u", "1", "-m", "256M", "-d", "1G")


def findings(host, *arguments, code=0):
    result = host.command("doctor", *arguments, "--output", "json", check=False)
    assert result.returncode == code, result
    document = json.loads(result.stdout)
    assert document["passed"] == (code == 0)
    return {finding["name"]: finding for finding in document["requirements"]}


def test_a_run_that_works_fails_nothing_and_nothing_is_left(host):
    seen = findings(host, "-i", IMAGE, "-c", HELLO, "--tee", "none", "-p", "tcp::0:8080", *SMALL)
    assert {finding["verdict"] for finding in seen.values()} <= {"pass", "warn", "not_needed"}
    assert {seen[name]["verdict"] for name in ("image", "compose", "port", "qemu", "memory", "disk")} == {"pass"}
    assert not host.state.exists()


def test_what_fails_here_is_what_run_refuses(host):
    if pathlib.Path("/sys/module/kvm_intel/parameters/tdx").exists():
        pytest.skip("this host has TDX")
    seen = findings(host, code=1)
    missing = seen["tdx-parameter"]
    assert missing["verdict"] == "fail" and "kvm_intel.tdx=1" in missing["remedy"]
    refused = host.command("run", "-i", IMAGE, *SMALL, check=False)
    assert refused.returncode == 6 and missing["found"] in refused.stderr
    table = host.command("doctor", "--tee", "none").stdout
    assert "REQUIREMENT" in table and "not needed" in table and "tdx-parameter" in table


def test_each_part_of_a_planned_run_is_looked_at(host, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        seen = findings(host, "-i", IMAGE, "--tee", "none", "-p", f"tcp::{port}:80", *SMALL, code=1)
    assert str(os.getpid()) in seen["port"]["found"]
    assert findings(host, "-i", tmp_path, "--tee", "none", code=1)["image"]["verdict"] == "fail"
    compose = tmp_path / "compose.yaml"
    compose.write_text("services: {x: {image: ./missing.wasm}}\n")
    seen = findings(host, "-i", IMAGE, "-c", compose, "--tee", "none", *SMALL, code=1)
    assert seen["compose"]["verdict"] == "fail" and "missing.wasm" in seen["compose"]["found"]
    seen = findings(host, "--tee", "none", "--qemu", "/no/such/qemu", code=1)
    assert seen["qemu"]["verdict"] == "fail"
    assert findings(host, "-i", IMAGE, "--tee", "none", "-m", "900G", "-d", "900T")["disk"]["verdict"] == "warn"


def test_services_and_limits_are_found_where_they_are(host):
    def quote_service():
        result = host.command("doctor", "--qgs", f"unix:{path}", "--output", "json", check=False)
        return next(one for one in json.loads(result.stdout)["requirements"] if one["name"] == "quote-service")
    path = host.cwd / "qgs"
    with socket.socket(socket.AF_UNIX) as service:
        service.bind(str(path))
        service.listen()
        assert quote_service()["verdict"] == "pass"
    assert quote_service()["verdict"] == "warn" and "qgsd" in quote_service()["remedy"]
    low = subprocess.run([PROGRAM, "doctor", "--tee", "none"], env=host.environment, capture_output=True, text=True,
                         timeout=STEP_SECONDS, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, 200)))
    assert "ulimit -n 1024" in low.stdout
