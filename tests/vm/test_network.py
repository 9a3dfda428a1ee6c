# SPDX-License-Identifier: Apache-2.0
"""What a guest reaches in each kind of network, seen from inside it. The networks lie in namespaces that the tests make."""
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest

import harness

# Answers each connection with what it sent, or with "reached" where that is nothing; says its port first.
SERVER = """
import socket, sys, threading
def serve(connection):
    with connection:
        received = b""
        while data := connection.recv(1 << 20):
            received += data
        connection.sendall(received or b"reached")
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=256)
print(listener.getsockname()[1], flush=True)
while True:
    threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="makes network namespaces: needs root")


class Namespace:
    """A network namespace that lives as long as a process of the test."""

    def __init__(self):
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        assert harness.wait_until(lambda: os.readlink(f"/proc/{self.holder.pid}/ns/net") != own, 10)
        self.prefix = ["nsenter", f"--target={self.holder.pid}", "--net"]
        self.servers = []
        self.command("ip", "link", "set", "lo", "up")

    def command(self, *words):
        return subprocess.run([*self.prefix, *words], check=True, capture_output=True, text=True).stdout

    def serve(self, address="127.0.0.1", port=0):
        """The port of an echo server."""
        server = subprocess.Popen([*self.prefix, sys.executable, "-c", SERVER, address, str(port)],
                                  stdout=subprocess.PIPE, text=True)
        self.servers.append(server)
        return int(server.stdout.readline())

    def fetch(self, port):
        code = f"import urllib.request as r; print(r.urlopen('http://127.0.0.1:{port}/', timeout=30).read().decode())"
        return self.command(sys.executable, "-c", code)

    def close(self):
        for process in [*self.servers, self.holder]:
            process.kill()
            process.wait()


@pytest.fixture
def machine():
    """A namespace with a loopback, and a way to another one with the address 192.0.2.2: the outside."""
    here, outside = Namespace(), Namespace()
    try:
        here.command("ip", "link", "add", "out0", "type", "veth", "peer", "name", "in0", "netns", str(outside.holder.pid))
        for space, name, address in ((here, "out0", "192.0.2.1/24"), (outside, "in0", "192.0.2.2/24")):
            space.command("ip", "address", "add", address, "dev", name)
            space.command("ip", "link", "set", name, "up")
        here.command("ip", "route", "add", "default", "via", "192.0.2.2")
        here.outside = outside
        yield here
    finally:
        here.close()
        outside.close()


def inside(host, run, script, check=True, timeout=harness.STEP_SECONDS):
    return host.command("exec", run.id, "--", "/bin/sh", "-c", script, check=check, timeout=timeout).stdout


def reaches(host, run, address, port):
    """Whether a connection from inside gets an answer."""
    return "reached" in inside(host, run, f"nc -w 5 {address} {port} </dev/null", check=False)


def start_dev(host, machine, *arguments):
    run = host.start(*arguments, image=harness.DEV_IMAGE, prefix=machine.prefix)
    run.wait_for("ready")
    inside(host, run, "until ip address show dev eth0 | grep -q 'inet '; do sleep 0.2; done")
    return run


def network_process(run):
    """The pid of the program that makes the run's network."""
    return next((pid for pid in children_of(run.process.pid) if name_of(pid) in ("user_network", "passt")), None)


def name_of(pid):
    with contextlib.suppress(OSError):
        return pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def children_of(pid):
    words = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(word) for word in words]


# The ways to the host's loopback that a guest with all rights over its own kernel has: the address that it is given, and
# packets for 127.0.0.1 itself, which its kernel sends out once it is told that they do not belong to it.
MARTIANS = ("for f in /proc/sys/net/ipv4/conf/*/route_localnet; do echo 1 > $f; done; ip address del 127.0.0.1/8 dev lo; "
            "ip route flush table local root 127.0.0.0/8; ip route add 127.0.0.0/8 via 10.0.2.2 dev eth0; ip route get 127.0.0.1")


def reaches_by_any_way(host, run, port):
    found = [address for address in ("10.0.2.2", "10.0.2.3", "192.0.2.1") if reaches(host, run, address, port)]
    assert "eth0" in inside(host, run, MARTIANS), "the guest's kernel does not send them"
    return found + [address for address in ("127.0.0.1", "127.0.0.2") if reaches(host, run, address, port)]


@needs_root
def test_a_guest_reaches_nothing_by_default(host, machine):
    port = machine.serve()
    run = start_dev(host, machine)
    assert network_process(run) is None
    assert reaches_by_any_way(host, run, port) == []
    assert not reaches(host, run, "192.0.2.2", machine.outside.serve("192.0.2.2"))
    assert host.json("inspect", run.id)["network"] == "qemu"


@needs_root
def test_with_egress_it_reaches_the_outside_and_not_the_hosts_loopback(host, machine):
    port = machine.serve()
    run = start_dev(host, machine, "--egress", "on", "--net", "user=slirp")
    assert network_process(run)
    assert reaches(host, run, "192.0.2.2", machine.outside.serve("192.0.2.2"))
    assert reaches_by_any_way(host, run, port) == []
    assert host.json("inspect", run.id)["network"] == "slirp"
    assert not [event for event in run.events if event["event"] == "warning" and "loopback" in event["text"]]


@needs_root
def test_qemus_own_network_with_egress_shows_the_loopback_and_says_so(host, machine):
    port = machine.serve()
    run = start_dev(host, machine, "--egress", "on", "--net", "user=qemu")
    assert "every service on this host's loopback" in run.wait_for("warning", text="loopback")["text"]
    assert reaches(host, run, "10.0.2.2", port)


@needs_root
@pytest.mark.parametrize("egress", ["off", "on"])
def test_a_named_service_of_the_host_is_reached_and_its_neighbour_is_not(host, machine, egress):
    port = machine.serve()
    neighbour = machine.serve()
    run = start_dev(host, machine, "--egress", egress, "--host-service", f"tcp:{port}")
    assert reaches(host, run, "10.0.2.2", port)
    assert not reaches(host, run, "10.0.2.2", neighbour)
    assert reaches(host, run, "192.0.2.2", machine.outside.serve("192.0.2.2")) == (egress == "on")
    # 50 connections side by side, 1 MiB each way on each.
    inside(host, run, "head -c 1048576 /dev/urandom > /tmp/blob; md5sum < /tmp/blob > /tmp/sum")
    script = (f"for i in $(seq 50); do (nc 10.0.2.2 {port} < /tmp/blob | md5sum | cmp -s - /tmp/sum && echo good) & done; wait")
    assert inside(host, run, script, timeout=300).split() == ["good"] * 50
    info = host.json("inspect", run.id)
    assert (info["network"], info["host_services"]) == ("slirp", [port])
    assert reaches_by_any_way(host, run, neighbour) == []
    assert run.signal(signal.SIGTERM) is None and run.wait() == 0


# Answers every question with 198.51.100.7 (RFC 1035, 4.1).
NAME_SERVER = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("127.0.0.53", 53))
print(53, flush=True)
while True:
    question, client = s.recvfrom(512)
    is_a = question[-4:-2] == b"\\0\\1"
    answer = b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + bytes([198, 51, 100, 7]) if is_a else b""
    s.sendto(question[:2] + b"\\x81\\x80\\0\\1\\0" + bytes([is_a]) + bytes(4) + question[12:] + answer, client)
"""


@needs_root
def test_names_are_found_by_the_hosts_resolver_on_its_loopback(host, machine):
    server = subprocess.Popen([*machine.prefix, sys.executable, "-c", NAME_SERVER], stdout=subprocess.PIPE, text=True)
    machine.servers.append(server)
    assert server.stdout.readline() == "53\n"
    resolv_conf = host.folder / "resolv.conf"
    resolv_conf.write_text("nameserver 127.0.0.53\n")
    own_file = ["unshare", "--mount", "sh", "-c", f"mount --bind {resolv_conf} /etc/resolv.conf && exec \"$@\"", "sh"]
    run = host.start("--egress", "on", "--net", "user=slirp", image=harness.DEV_IMAGE, prefix=[*machine.prefix, *own_file])
    run.wait_for("ready")
    inside(host, run, "until grep -q 10.0.2.3 /etc/resolv.conf; do sleep 0.2; done")
    assert "198.51.100.7" in inside(host, run, "nslookup host.test 10.0.2.3", check=False)


@needs_root
def test_ports_are_forwarded_as_before(host, machine):
    run = host.start("-c", harness.SOURCE / "configs/http.yaml", "-p", "tcp::0:8080", "--egress", "on", "--net", "user=slirp",
                     prefix=machine.prefix)
    run.wait_for("ready")
    assert "Hello from WebAssembly" in machine.fetch(run.port)


@needs_root
def test_a_port_that_is_taken_is_an_error_before_anything_starts(host, machine):
    port = machine.serve()
    run = host.start("-p", f"tcp::{port}:80", "--net", "user=slirp", prefix=machine.prefix)
    assert run.wait() != 0
    assert f"127.0.0.1:{port} is taken" in run.stderr
    assert not [event for event in run.events if event["event"] == "started"]


@needs_root
def test_its_end_is_told_and_the_vm_goes_on(host, machine):
    port = machine.serve()
    run = start_dev(host, machine, "--host-service", f"tcp:{port}")
    os.kill(network_process(run), signal.SIGKILL)
    assert "no network any more" in run.wait_for("warning", harness.STEP_SECONDS, text="network")["text"]
    assert not reaches(host, run, "10.0.2.2", port)
    run.signal(signal.SIGTERM)
    assert run.wait() == 0


@needs_root
def test_it_goes_with_its_runner(host, machine):
    run = start_dev(host, machine, "--host-service", "tcp:1")
    pid = network_process(run)
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"^Uid:\s+65534\s+65534\s+65534\s+65534$", status, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0{16}$", status, re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)
    run.signal(signal.SIGKILL)
    assert harness.wait_until(lambda: harness.is_gone(pid), 20)


@needs_root
def test_it_comes_again_with_its_vm(host, machine):
    port = machine.serve()
    run = start_dev(host, machine, "--host-service", f"tcp:{port}", "--restart", "on-failure:1")
    first = network_process(run)
    os.kill(run.qemu_pid, signal.SIGKILL)
    run.wait_for("restart", harness.STEP_SECONDS)
    run.events[:] = [event for event in run.events if event["event"] == "created"]
    run.wait_for("ready")
    assert network_process(run) not in (None, first)
    assert harness.is_gone(first)
    inside(host, run, "until ip address show dev eth0 | grep -q 'inet '; do sleep 0.2; done")
    assert reaches(host, run, "10.0.2.2", port)


@needs_root
@pytest.mark.skipif(shutil.which("passt") is None, reason="there is no passt")
def test_passt_is_taken_only_where_it_keeps_the_loopback_closed(host, machine):
    fit = "--map-host-loopback" in subprocess.run(["passt", "--help"], capture_output=True, text=True).stdout
    run = host.start("--egress", "on", "--net", "user=passt", prefix=machine.prefix, image=harness.DEV_IMAGE)
    if not fit:
        assert run.wait() != 0
        assert "lets a guest reach this host's loopback" in run.stderr
        return
    run.wait_for("ready")
    port = machine.serve()
    inside(host, run, "until ip address show dev eth0 | grep -q 'inet '; do sleep 0.2; done")
    assert reaches(host, run, "192.0.2.2", machine.outside.serve("192.0.2.2"))
    assert reaches_by_any_way(host, run, port) == []


@needs_root
def test_a_bridge_takes_the_guest_in(host, machine):
    for words in (["link", "add", "br0", "type", "bridge"], ["address", "add", "198.51.100.1/24", "dev", "br0"],
                  ["link", "set", "br0", "up"]):
        machine.command("ip", *words)
    port = machine.serve("198.51.100.1")
    loopback = machine.serve()
    run = host.start("--net", "bridge=br0", image=harness.DEV_IMAGE, prefix=machine.prefix)
    run.wait_for("ready")
    tap = f"hr-{run.id[:8]}"
    assert tap in machine.command("ip", "-oneline", "link", "show", "master", "br0")
    inside(host, run, "ip link set eth0 up; ip address add 198.51.100.2/24 dev eth0")
    assert harness.wait_until(lambda: reaches(host, run, "198.51.100.1", port), 30)
    assert not reaches(host, run, "198.51.100.1", loopback)
    assert host.json("inspect", run.id)["network"] == "bridge=br0"
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert tap not in machine.command("ip", "-oneline", "link")


@needs_root
@pytest.mark.parametrize("bridge, drop, words", [
    ("br9", [], ["There is no bridge br9"]),
    ("out0", [], ["out0 is not a bridge"]),
    ("br0", ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin"], ["CAP_NET_ADMIN", "br0"]),
])
def test_a_bridge_that_cannot_be_joined_is_said_before_anything_is_taken(host, machine, bridge, drop, words):
    machine.command("ip", "link", "add", "br0", "type", "bridge")
    run = host.start("--net", f"bridge={bridge}", prefix=[*machine.prefix, *drop])
    assert run.wait() != 0
    for word in words:
        assert word in run.stderr
    assert not [event for event in run.events if event["event"] == "created"]
