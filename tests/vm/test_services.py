# SPDX-License-Identifier: Apache-2.0
"""The examples in configs/, each run in a real VM: what their comments promise is what happens."""
import hashlib
import http.client
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from harness import BOOT_SECONDS, DEV_IMAGE, IMAGE, PROGRAM, SOURCE, STEP_SECONDS, fetch, wait_until

CONFIGS = SOURCE / "configs"
MODULES = SOURCE / "tests" / "fixtures" / "wasm"
COMPONENT = SOURCE / "tests" / "fixtures" / "wasm_http" / "service.wasm"


def services(host, run):
    return {service["name"]: service for service in host.json("inspect", run.id)["services"] or []}


def answer_to(port, path):
    """Status and body, of an error too."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=BOOT_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


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
    assert host.command("logs", run.id, "unlucky").stdout.count("failing") == 4
    # A service's name is one of the logs; -f ends with the VM.
    following = subprocess.Popen([str(PROGRAM), "logs", run.id, "steady", "-f"], env=host.environment, cwd=host.cwd,
                                 stdout=subprocess.PIPE, text=True)
    assert following.stdout.readline() == "working\n"
    refused = host.command("logs", run.id, "stedy", check=False)
    assert refused.returncode != 0 and "no service 'stedy'" in refused.stderr and "steady" in refused.stderr
    assert services(host, run)["steady"]["state"] in ("running", "restarting")
    stop(host, run)
    assert following.wait(STEP_SECONDS) == 0


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


def test_a_webassembly_service_serves_and_its_volume_outlives_the_vm(host):
    for boot in (1, 2):
        run = host.start("-c", CONFIGS / "wasm.yaml", "--name", "wasm", "-p", "tcp::0:8080")
        run.wait_for("ready")
        # Its port is open when it counts as running: no second try.
        assert fetch(run.port) == f"Hello from WebAssembly\nVisits: {boot}\n"
        site = services(host, run)["site"]
        assert site["state"] == "running"
        told = host.json("compose", "check", CONFIGS / "wasm.yaml")
        assert told["compose_hash"] == host.json("inspect", "wasm")["compose_hash"]
        assert site["program_sha256"] == hashlib.sha256((MODULES / "site.wasm").read_bytes()).hexdigest()
        assert host.command("logs", "wasm", "site").stdout == "Listening on descriptor 4\n"
        assert host.command("logs", "wasm", "--service", "site").stdout == "Listening on descriptor 4\n"
        wrong = host.command("logs", "wasm", "sight", check=False)
        assert wrong.returncode == 3 and "it has: site" in wrong.stderr
        stop(host, run)
    host.command("rm", "wasm")


def test_a_webassembly_service_speaks_tls_with_the_certificate_that_inspect_names(host):
    fingerprints = set()
    for _ in range(2):
        run = host.start("-c", CONFIGS / "tls.yaml", "--name", "tls", "-p", "tcp::0:8443")
        run.wait_for("ready")
        # Who knows the fingerprint needs no authority.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with socket.create_connection(("127.0.0.1", run.port), timeout=STEP_SECONDS) as plain:
            with context.wrap_socket(plain) as secure:
                fingerprint = hashlib.sha256(secure.getpeercert(binary_form=True)).hexdigest()
                assert secure.version() == "TLSv1.3"
                secure.sendall(b"GET / HTTP/1.1\r\nHost: tls\r\n\r\n")
                answer = b""
                while chunk := secure.recv(4096):
                    answer += chunk
        assert answer.endswith(b"Hello over TLS\nVisits: 1\n")
        assert services(host, run)["site"]["certificate_sha256"] == fingerprint
        fingerprints.add(fingerprint)
        stop(host, run)
    assert len(fingerprints) == 1
    host.command("rm", "tls")


def test_a_component_answers_http_and_survives_what_its_requests_do(host):
    run = host.start("-c", CONFIGS / "http.yaml", "-p", "tcp::0:8080")
    run.wait_for("ready")
    boot_id = host.json("inspect", run.id)["guest"]["boot_id"]
    program = services(host, run)["hello"]["program_sha256"]
    greeting = f"hello\nHello from WebAssembly in a VM of host_runner\nboot id: {boot_id}\nprogram: {program}\n"
    assert answer_to(run.port, "/") == (200, greeting.encode())
    assert [answer_to(run.port, path)[0] for path in ("/trap", "/spin", "/memory")] == [500, 504, 503]
    assert answer_to(run.port, "/fetch?10.0.2.2:80")[1].startswith(b"error")
    assert len(answer_to(run.port, "/big")[1]) == 8 << 20
    assert answer_to(run.port, "/")[0] == 200
    hello = services(host, run)["hello"]
    assert hello["restarts"] == 0
    expected = {"request": 7, "trapped": 1, "timed_out": 1, "out_of_memory": 1, "outgoing_denied": 1, "rejected": 0}
    assert expected.items() <= hello["counters"].items()
    assert "trapped 1" in host.command("inspect", run.id).stdout
    follow = subprocess.Popen([PROGRAM, "logs", "-f", run.id, "hello"], env=host.environment, stdout=subprocess.PIPE, text=True)
    while "outgoing_denied" not in follow.stdout.readline():
        pass
    assert answer_to(run.port, "/log")[0] == 200
    while "a line of the log" not in follow.stdout.readline():
        pass
    follow.send_signal(signal.SIGINT)
    follow.communicate(timeout=STEP_SECONDS)
    log = host.command("logs", run.id, "--service", "hello").stdout
    assert "outgoing_denied: 10.0.2.2:80" in log and "trapped: " in log and "timed_out: " in log
    stop(host, run)


def test_replicas_share_a_port_and_a_certificate_and_are_waited_for(host, tmp_path):
    compose = tmp_path / "compose.yaml"
    compose.write_text(json.dumps({
        "name": "many",
        "services": {
            "hello": {"image": str(MODULES.parent / "wasm_http" / "service.wasm"), "ports": ["8080:80"],
                      "x-tls": "self-signed", "deploy": {"replicas": 3}, "pids_limit": 40},
            "job": {"command": ["/bin/sh", "-c", "echo done"], "scale": 2},
            "after": {"command": ["/bin/sh", "-c", "echo after; exec sleep 1000"],
                      "depends_on": {"job": {"condition": "service_completed_successfully"}}},
        },
    }))
    run = host.start("-c", compose, "--name", "many", "-p", "tcp::0:80")
    run.wait_for("ready")
    seen = services(host, run)
    assert list(seen) == ["hello-1", "hello-2", "hello-3", "job-1", "job-2", "after"]
    assert len({seen[name]["pid"] for name in ("hello-1", "hello-2", "hello-3")}) == 3
    assert len({seen[name]["certificate_sha256"] for name in ("hello-1", "hello-2", "hello-3")}) == 1
    assert [seen[name]["replica_of"] for name in ("hello-1", "job-2", "after")] == ["hello", "job", None]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    requests = 24
    for _ in range(requests):
        address = f"https://127.0.0.1:{run.port}/"
        assert urllib.request.urlopen(address, timeout=STEP_SECONDS, context=context).status == 200
    assert sorted(host.command("logs", "many", "--service", "job").stdout.splitlines()) == \
        ["job-1 | done", "job-2 | done"]
    assert host.command("logs", "many", "--service", "job-2").stdout == "done\n"
    # Each connection went to one of them, and not all to the same one.
    answered = [one["counters"]["request"] for name, one in services(host, run).items() if name.startswith("hello-")]
    assert sum(answered) == requests and sum(count > 0 for count in answered) > 1, answered
    stop(host, run)
    host.command("rm", "many")


def test_webassembly_services_that_misbehave_end_each_in_its_way_and_disturb_nobody(host, tmp_path):
    def deed(*arguments, **more):
        return {"image": str(MODULES / "deeds_wasi.wasm"), "command": list(arguments), **more}

    # Only the guest's engine knows all that it offers.
    stranger = tmp_path / "stranger.wasm"
    stranger.write_bytes(COMPONENT.read_bytes().replace(b"wasi:cli/stderr@", b"wasi:cli/absent@"))
    compose = tmp_path / "compose.yaml"
    compose.write_text(json.dumps({
        "name": "deeds",
        "services": {
            "site": {"image": str(MODULES / "site.wasm"), "ports": ["8080:80"]},
            "done": deed("exit", "0"),
            "code": deed("exit", "7"),
            "trap": deed("trap", restart="on-failure:1"),
            "loop": deed("spin", **{"x-limits": {"timeout": "2s"}}),
            "wait": deed("sleep", **{"x-limits": {"timeout": "2s"}}),
            "memory": deed("exhaust", **{"x-limits": {"memory": "8m"}}),
            "thief": deed("copy", "/etc/passwd"),
            "endless": deed("spin"),
            # What the kernel's limits end: a program, its children, and a module that is allowed more than its worker.
            "hog": {"command": ["/bin/busybox", "tail", "/dev/zero"], "mem_limit": "16m"},
            "forks": {"command": ["/bin/sh", "-c", "for i in 1 2 3 4 5 6; do sleep 1000 & done; wait"], "pids_limit": 4},
            "worker": deed("exhaust", mem_limit="40m", **{"x-limits": {"memory": "1g"}}),
            "stranger": {"image": str(stranger), "ports": ["8081:81"]},
        },
    }))
    run = host.start("-c", compose, "-p", "tcp::0:80")
    codes = {"done": 0, "code": 7, "trap": 134, "loop": 124, "wait": 124, "memory": 137, "thief": 1,
             "hog": 137, "forks": 2, "worker": 137}

    def ended():
        seen = services(host, run)
        return seen and all(seen[name]["state"] == "exited" for name in codes)

    # Not "ready": services that fail keep the run from it.
    run.wait_for("progress", text="starting services")
    assert wait_until(ended, BOOT_SECONDS), services(host, run)
    seen = services(host, run)
    assert {name: seen[name]["exit_code"] for name in codes} == codes
    assert seen["trap"]["restarts"] == 1
    assert seen["endless"]["state"] == "running"
    assert seen["stranger"]["state"] == "failed"
    assert fetch(run.port).startswith("Hello from WebAssembly")
    logs = {name: host.command("logs", run.id, "--service", name).stdout for name in codes}
    assert logs["trap"].count("The module trapped: ") == 2
    assert "time-out of 2000 ms" in logs["loop"] and "time-out of 2000 ms" in logs["wait"]
    assert "ran out of memory" in logs["memory"]
    # The kernel ended the whole worker, which therefore says nothing.
    assert logs["worker"] == ""
    assert "can't fork" in logs["forks"]
    assert "wasi:cli/absent@0.2" in host.command("logs", run.id, "serial").stdout
    stop(host, run)


def test_a_storm_of_traps_or_a_killed_worker_harms_only_its_own_service(host, tmp_path):
    compose = tmp_path / "compose.yaml"
    compose.write_text(json.dumps({
        "name": "neighbours",
        "services": {
            "stormy": {"image": str(COMPONENT), "ports": ["8080:80"], "restart": "on-failure"},
            "quiet": {"image": str(COMPONENT), "ports": ["8081:81"], "restart": "on-failure"},
        },
    }))
    run = host.start("-c", compose, "-p", "tcp::0:80", "-p", "tcp::0:81", image=DEV_IMAGE)
    run.wait_for("ready")
    stormy, quiet = (int(event["text"].split(":")[2]) for event in run.events if event["event"] == "port")

    def slowest(count):
        """The 99th percentile of the quiet service's latencies."""
        times = []
        for _ in range(count):
            start = time.monotonic()
            assert fetch(quiet).startswith("hello\n")
            times.append(time.monotonic() - start)
        return sorted(times)[len(times) * 99 // 100]

    traps, over = [], threading.Event()

    def trap():
        while not over.is_set():
            traps.append(answer_to(stormy, "/trap")[0])

    before = slowest(50)
    storm = [threading.Thread(target=trap) for _ in range(4)]
    for thread in storm:
        thread.start()
    during = slowest(100)
    over.set()
    for thread in storm:
        thread.join(STEP_SECONDS)
    assert len(traps) > 100 and set(traps) == {500}
    # One emulated processor serves five clients now: what matters is that nobody waits for a time limit.
    assert during < max(20 * before, 2), (before, during)
    seen = services(host, run)
    assert seen["stormy"]["restarts"] == seen["quiet"]["restarts"] == 0
    assert seen["stormy"]["counters"]["trapped"] == len(traps) and seen["quiet"]["counters"]["trapped"] == 0

    # A request that lives through its neighbour's death, and one that does not.
    with socket.create_connection(("127.0.0.1", quiet), STEP_SECONDS) as half:
        half.sendall(b"POST /echo HTTP/1.1\r\nHost: quiet\r\nConnection: close\r\nContent-Length: 8\r\n\r\nhalf")
        lost = urllib.request.urlopen(f"http://127.0.0.1:{stormy}/pause", timeout=STEP_SECONDS)
        assert lost.readline() == b"pausing\n"
        host.command("exec", run.id, "--", "/bin/kill", "-9", seen["stormy"]["pid"])
        with pytest.raises((http.client.HTTPException, ConnectionError)):
            lost.read()
        half.sendall(b"done")
        answer = b""
        while chunk := half.recv(4096):
            answer += chunk
        assert answer.startswith(b"HTTP/1.1 200 ") and b"halfdone" in answer.replace(b"\r\n", b"").replace(b"4", b"")
    assert wait_until(lambda: services(host, run)["stormy"]["restarts"] == 1 and
                      services(host, run)["stormy"]["state"] == "running", STEP_SECONDS), services(host, run)
    assert fetch(stormy).startswith("hello\n")
    now = services(host, run)
    assert {**now["quiet"], "counters": None} == {**seen["quiet"], "counters": None}
    # The numbers outlive the worker.
    assert now["stormy"]["counters"]["trapped"] == len(traps)
    assert now["stormy"]["counters"]["request"] == len(traps) + 2
    stop(host, run)


def test_the_example_of_a_function_takes_json_and_gives_json(host):
    run = host.start("-c", CONFIGS / "function.yaml")
    run.wait_for("ready")
    answer = host.command("invoke", run.id, "sum", "--data", "[1, 2.5, 4]", "--env", "UNIT=kg").stdout
    assert json.loads(answer) == {"count": 3, "sum": 7.5, "smallest": 1, "largest": 4, "unit": "kg"}
    stop(host, run)


def test_a_function_answers_each_call_in_a_fresh_instance(host, tmp_path):
    compose = tmp_path / "compose.yaml"
    compose.write_text(json.dumps({
        "name": "functions",
        "services": {
            "sum": {"image": str(MODULES / "sum.wasm"), "x-world": "function"},
            "calls": {"image": str(MODULES / "calls.wasm"), "x-world": "function", "restart": "always",
                      "x-limits": {"output": "none", "calls": 2}},
            "deeds": {"image": str(MODULES / "deeds_wasi.wasm"), "x-world": "function",
                      "environment": {"WHO": "service"}, "volumes": ["data:/data"],
                      "x-limits": {"memory": "16m", "timeout": "20s"}},
            "component": {"image": str(SOURCE / "tests/fixtures/wasm_http/service.wasm"), "x-world": "function"},
        },
        "volumes": {"data": {}},
    }))
    run = host.start("-c", compose, "--name", "functions", image=DEV_IMAGE)
    run.wait_for("ready")

    def invoke(*arguments, code=0, data=None):
        done = subprocess.run([PROGRAM, "invoke", "functions", *map(str, arguments)], env=host.environment,
                              input=data, capture_output=True, timeout=STEP_SECONDS)
        assert done.returncode == code, (arguments, done)
        return done

    assert b"no number" in invoke("sum", "--data", "[1,", code=2).stderr
    assert b"there are: sum, calls, deeds, component" in invoke("nobody", code=2).stderr
    assert invoke("component", "--data", "a body", "--", "/echo").stdout == b"a body"
    assert b"unreachable" in invoke("component", "--", "/trap", code=134).stderr
    # Files, the environment, and both outputs in their order.
    invoke("deeds", "--", "append", "/data/notes", "kept")
    assert invoke("deeds", "--", "copy", "/data/notes").stdout == b"kept"
    assert b"WHO=call\n" in invoke("deeds", "--env", "WHO=call", "--", "environment").stdout
    told = json.loads(invoke("calls", "--output", "json", "--", "turns").stdout)
    assert told["combined"] == "line 0\nline 1\nline 2\nline 3\n"
    assert (told["status"], told["exit_code"], told["stdout"]) == ("exit", 0, "line 0\nline 2\n")
    # More than fits anywhere at once, there and back.
    much = bytes(range(256)) * 16384
    assert invoke("calls", "--data", "@-", "--", "echo", data=much).stdout == much
    # Each way to end is told apart, and the next call is none the wiser.
    assert b"The module trapped: Unreachable" in invoke("deeds", "--", "trap", code=134).stderr
    invoke("deeds", "--timeout", "300ms", "--", "spin", code=124)
    invoke("deeds", "--", "exhaust", code=137)
    invoke("deeds", "--", "exit", "9", code=9)
    # Two run at a time. The third waits, which counts; another function does not wait for them, and Ctrl-C ends them.
    def talk():
        caller = subprocess.Popen([PROGRAM, "invoke", "functions", "calls", "--data", "@-", "--", "echo"],
                                  env=host.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                  stderr=subprocess.PIPE)
        caller.stdin.write(b"before ")
        caller.stdin.flush()
        assert caller.stdout.read(7) == b"before "
        return caller
    callers = [talk(), talk()]
    assert b"time was over before it began" in invoke("calls", "--timeout", "500ms", "--", "turns", code=124).stderr
    assert json.loads(invoke("sum", "--data", "[1]").stdout)["sum"] == 1
    for caller in callers:
        caller.send_signal(signal.SIGINT)
        assert b"cancelled" in caller.communicate(timeout=STEP_SECONDS)[1] and caller.returncode == 143
    # A worker that dies takes its own calls with it, and comes back.
    lost = talk()
    host.command("exec", "functions", "--", "/bin/kill", "-9", services(host, run)["calls"]["pid"])
    assert b"lost" in lost.communicate(timeout=STEP_SECONDS)[1] and lost.returncode == 1
    assert json.loads(invoke("sum", "--data", "[1]").stdout)["sum"] == 1
    assert wait_until(lambda: services(host, run)["calls"]["restarts"] == 1 and
                      services(host, run)["calls"]["state"] == "running", STEP_SECONDS)
    assert invoke("calls", "--", "turns").stdout == b"line 0\nline 2\n"
    counted = {name: {what: times for what, times in one["counters"].items() if times > 0}
               for name, one in services(host, run).items()}
    assert counted == {
        "sum": {"call": 3, "ok": 2, "exit": 1},
        "calls": {"call": 7, "ok": 3, "timeout": 1, "cancelled": 2, "lost": 1},
        "deeds": {"call": 7, "ok": 3, "trap": 1, "timeout": 1, "oom": 1, "exit": 1},
        "component": {"call": 2, "ok": 1, "trap": 1},
    }
    stop(host, run)
    host.command("rm", "functions")


def test_run_wasm_is_one_module_with_our_descriptors_and_exit_code(host, tmp_path):
    def run_wasm(*arguments, data=b""):
        return subprocess.run([PROGRAM, "run-wasm", "-i", IMAGE, "--tee", "none", *map(str, arguments)], cwd=tmp_path,
                              env=host.environment, input=data, capture_output=True, timeout=BOOT_SECONDS)
    done = run_wasm(MODULES / "calls.wasm", "--", "echo", data=b"hello\n")
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done
    assert b"6 bytes\n" in done.stderr
    done = run_wasm("--env", "GREETING=hi", MODULES / "deeds_wasi.wasm", "--", "trap")
    assert done.returncode == 134 and b"Unreachable" in done.stderr, done
    done = run_wasm(MODULES / "missing_imports.wasm")
    assert done.returncode == 6 and b"env.note" in done.stderr, done
    assert not host.list()


@pytest.mark.parametrize("service, place, words, code", [
    ({"image": "MODULE", "x-world": "wasi-keyvalue"}, ":5:", "'wasi-keyvalue' is not a world", 2),
    ({"image": "imports.wasm"}, ":4:", "No world offers the import env.", 6),
])
def test_what_no_vm_could_run_is_refused_before_there_is_one(host, tmp_path, service, place, words, code):
    (tmp_path / "imports.wasm").write_bytes((MODULES / "hosted.wasm").read_bytes())
    (tmp_path / "MODULE").write_bytes(COMPONENT.read_bytes())
    compose = tmp_path / "compose.yaml"
    compose.write_text("services:\n  site:\n    platform: wasi/wasm\n" +
                       "".join(f"    {key}: {value}\n" for key, value in service.items()))
    run = host.start("-c", compose)
    assert run.wait() == code
    checked = host.command("compose", "check", compose, check=False)
    assert checked.returncode == code
    for text in (run.stderr, checked.stderr):
        assert f"compose.yaml{place}" in text and words in text
    assert run.events == [] or run.events[-1]["event"] == "error"
    assert not (host.state / "instances").exists() or list((host.state / "instances").iterdir()) == []
