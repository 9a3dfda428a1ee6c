# SPDX-License-Identifier: Apache-2.0
"""One place that knows how a test drives host_runner: a state folder of its own, runs whose events can be waited for,
and a check that nothing is left when the test ends. Tests wait for events, never for time to pass."""
import contextlib
import json
import os
import pathlib
import queue
import shutil
import signal
import subprocess
import threading
import time
import urllib.request

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("HOST_RUNNER_BIN", SOURCE / "build/ci/bin/host_runner"))
IMAGE = pathlib.Path(os.environ.get("HOST_RUNNER_IMAGE", SOURCE / "images/out/native"))
DEV_IMAGE = pathlib.Path(os.environ.get("HOST_RUNNER_DEV_IMAGE", SOURCE / "images/out/native-dev"))
HELLO = SOURCE / "configs/hello.yaml"

# A boot takes 4 to 10 s under software emulation on an idle machine; a deadline is for a hang, not a measurement.
BOOT_SECONDS = 180
STEP_SECONDS = 60


class Failure(AssertionError):
    """A test's expectation about a run did not hold; carries what the run said."""


class Run:
    """A foreground `host_runner run --output json` and its events."""

    def __init__(self, host, arguments, cwd, prefix=()):
        self.host = host
        self.events = []
        self._queue = queue.Queue()
        self.stderr_path = host.folder / f"run-{len(host.runs)}.stderr"
        with open(self.stderr_path, "wb") as stderr:
            self.process = subprocess.Popen(
                [*prefix, str(PROGRAM), "run", "--output", "json", *map(str, arguments)],
                cwd=cwd, env=host.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr,
                start_new_session=True)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self._queue.put(json.loads(line))
        self._queue.put(None)

    @property
    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def story(self):
        lines = [f"exit code {self.process.poll()}", "events:"]
        lines += [f"  {json.dumps(event)}" for event in self.events]
        lines += ["stderr:", self.stderr]
        with contextlib.suppress(OSError, StopIteration):
            serial = next(self.host.folder.glob("state/instances/*/serial.log"))
            lines += [f"tail of {serial}:", serial.read_text(errors="replace")[-4000:]]
        return "\n".join(lines)

    def wait_for(self, kind, timeout=BOOT_SECONDS, text=None):
        """The first event of this kind (whose text holds `text`), already seen or to come."""
        def fits(event):
            return event["event"] == kind and (text is None or text in event.get("text", ""))
        for event in self.events:
            if fits(event):
                return event
        deadline = time.monotonic() + timeout
        while True:
            try:
                event = self._queue.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise Failure(f"no event {kind} within {timeout} s\n{self.story()}") from None
            if event is None:
                self._queue.put(None)
                raise Failure(f"the run ended before event {kind}\n{self.story()}")
            self.events.append(event)
            if fits(event):
                return event

    def wait(self, timeout=STEP_SECONDS):
        """The exit code; all events are then in `events`."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Failure(f"the run did not end within {timeout} s\n{self.story()}") from None
        self._reader.join(timeout)
        while True:
            event = self._queue.get_nowait()
            if event is None:
                self._queue.put(None)
                return code
            self.events.append(event)

    @property
    def id(self):
        return self.wait_for("created", STEP_SECONDS)["text"]

    @property
    def qemu_pid(self):
        return int(self.wait_for("started", STEP_SECONDS)["text"])

    @property
    def port(self):
        """The host port of the first mapping."""
        return int(self.wait_for("port", STEP_SECONDS)["text"].split(":")[2])

    def signal(self, number):
        self.process.send_signal(number)


class Host:
    """A user's machine as one test sees it: a state folder, a current folder, and what runs there."""

    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.state = self.folder / "state"
        self.cwd = self.folder / "cwd"
        self.cwd.mkdir()
        self.runs = []
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith("HOST_RUNNER_")
        } | {"HOST_RUNNER_HOME": str(self.state), "XDG_CONFIG_HOME": str(self.folder / "config")}

    def start(self, *arguments, image=IMAGE, cwd=None, prefix=()):
        """A small VM without TEE; later arguments win over these defaults."""
        defaults = ["-i", image, "--tee", "none", "-u", "1", "-m", "256M", "-d", "1G"]
        run = Run(self, [*defaults, *arguments], cwd or self.cwd, prefix)
        self.runs.append(run)
        return run

    def command(self, *arguments, check=True, timeout=STEP_SECONDS, cwd=None):
        result = subprocess.run([str(PROGRAM), *map(str, arguments)], cwd=cwd or self.cwd, env=self.environment,
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)
        if check and result.returncode != 0:
            raise Failure(f"{arguments} ended with {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    def json(self, *arguments):
        return json.loads(self.command(*arguments, "--output", "json").stdout)

    def list(self, *arguments):
        return self.json("list", *arguments)["instances"]

    def close(self):
        """Ends what still runs, then checks that no process of this test is left."""
        for run in self.runs:
            if run.process.poll() is None:
                run.signal(signal.SIGKILL)
                run.process.wait(STEP_SECONDS)
        left = wait_until(lambda: not processes_of(self.state) or None, 20)
        if left is None:
            raise Failure(f"processes left: {processes_of(self.state)}")


def processes_of(state):
    """(pid, command line) of all QEMU and host_runner processes that name this state folder."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            environment = (entry / "environ").read_bytes().decode(errors="replace")
            program = os.path.basename(os.readlink(entry / "exe"))
            if program.startswith(("qemu-system", "host_runner")) and (str(state) in command + environment):
                found.append((int(entry.name), command[:200]))
    return found


def wait_until(condition, timeout):
    """The condition's first true value. For states that no event announces (a process of another parent)."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if value or time.monotonic() > deadline:
            return value
        time.sleep(0.05)


def is_gone(pid):
    try:
        state = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state in "ZX"


def fetch(port, path="/", timeout=30):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
        return answer.read().decode()


def copy_image(image, target):
    """A copy that a test may damage."""
    shutil.copytree(image, target)
    return target
