# SPDX-License-Identifier: Apache-2.0
"""NUMA nodes and hugepages of this machine, which the tests set aside themselves and give back."""
import contextlib
import mmap
import os
import pathlib
import signal
import subprocess

import pytest

from harness import HELLO, IMAGE, STEP_SECONDS, wait_until

POOL = pathlib.Path("/sys/devices/system/node/node0/hugepages/hugepages-2048kB")
NODE = pathlib.Path("/sys/devices/system/node/node0")
PAGES = 144  # of 2 MiB: a VM of 256 MiB and some


def free_pages():
    return int((POOL / "free_hugepages").read_text())


@pytest.fixture
def pages(tmp_path):
    """A hugetlbfs with PAGES free pages on node 0."""
    if os.geteuid() != 0 or not POOL.exists():
        pytest.skip("hugepages can only be set aside by root, on a kernel that has them")
    before = (POOL / "nr_hugepages").read_text()
    folder = tmp_path / "pages"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "hugetlbfs", "-o", "pagesize=2M", "none", folder], check=False).returncode != 0:
        pytest.skip("this machine lets nobody mount a hugetlbfs")
    try:
        try:
            (POOL / "nr_hugepages").write_text(str(int(before) + PAGES))
        except OSError as problem:
            pytest.skip(f"this machine lets nobody set hugepages aside: {problem}")
        if free_pages() < PAGES:
            pytest.skip(f"this machine has no {PAGES} hugepages to set aside")
        yield folder
    finally:
        with contextlib.suppress(OSError):
            (POOL / "nr_hugepages").write_text(before)
        subprocess.run(["umount", folder], check=True)


def allowed_cpus(pid):
    """The lists of processors of all threads."""
    tasks = pathlib.Path(f"/proc/{pid}/task").iterdir()
    return {line.split()[1] for task in tasks for line in (task / "status").read_text().splitlines()
            if line.startswith("Cpus_allowed_list")}


def test_a_vm_is_placed_on_a_node_and_in_its_pages_and_gives_them_back(host, pages):
    node_cpus = (NODE / "cpulist").read_text().strip()
    one = str(max(os.sched_getaffinity(0)))
    before = free_pages()
    run = host.start("-c", HELLO, "-p", "tcp::0:8080", "--pin-numa", "--hugepage", "--numa-node", "0",
                     prefix=("taskset", "-c", one))
    run.wait_for("ready")
    assert free_pages() == before - 128
    # The runner stays on the one processor that it was given, QEMU has those of the node.
    assert allowed_cpus(run.qemu_pid) == {node_cpus}
    assert allowed_cpus(run.process.pid) == {one}
    policies = pathlib.Path(f"/proc/{run.qemu_pid}/numa_maps").read_text()
    assert "huge" in policies and " default " not in policies and "bind:0" in policies
    inspected = host.json("inspect", run.id)
    assert (inspected["numa_nodes"], inspected["hugepage_bytes"]) == ([0], 2 << 20)
    notice = run.wait_for("notice", text="Memory on NUMA node 0")["text"]
    assert "pages of 2M" in notice and node_cpus in notice
    run.signal(signal.SIGTERM)
    assert run.wait() == 0
    assert free_pages() == before and not list(pages.iterdir())


def test_too_few_pages_are_an_error_with_both_numbers_and_nothing_is_taken(host, pages):
    refused = host.command("run", "-i", IMAGE, "--tee", "none", "-m", "512M", "-d", "1G", "--hugepage", check=False)
    assert refused.returncode == 7
    assert f"node 0 has {free_pages()} free pages of 2M, and the VM needs 256" in refused.stderr
    assert not list(pages.iterdir())
    checked = host.command("doctor", "-i", IMAGE, "--tee", "none", "-m", "512M", "-d", "1G", "--hugepage", check=False)
    assert checked.returncode == 1 and "and the VM needs 256" in checked.stdout


def test_pages_of_a_killed_run_are_found_and_freed_by_the_next(host, pages):
    before = free_pages()
    run = host.start("-c", HELLO, "-p", "tcp::0:8080", "--hugepage")
    run.wait_for("started")
    folder = pages / f"host-runner-{run.id}"
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait(STEP_SECONDS)
    assert wait_until(lambda: free_pages() == before, STEP_SECONDS), "QEMU's pages are free with its end"
    # What QEMU leaves when it is killed between making its file and removing the name.
    left = folder / "qemu_back_mem"
    with open(left, "w+b") as file:
        os.ftruncate(file.fileno(), 4 << 20)
        with mmap.mmap(file.fileno(), 4 << 20) as memory:
            memory[0] = memory[2 << 20] = 1
    assert free_pages() == before - 2
    after = host.start("-c", HELLO, "-p", "tcp::0:8080")
    assert after.wait_for("notice", text=run.id)["text"].endswith("with 1 files, is removed")
    assert not folder.exists() and free_pages() == before
    after.signal(signal.SIGTERM)
    assert after.wait() == 0
