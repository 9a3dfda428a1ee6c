# SPDX-License-Identifier: Apache-2.0
"""A libvirt daemon of a test's own: started here, without systemd, in folders that nobody else sees.

As root it is the system's daemon (libvirtd) in a mount namespace of its own, where /run/libvirt, /var/lib/libvirt and the
like are empty memory file systems; for other users their session's daemon below XDG folders of the test's.
"""
import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import time

FOLDERS = ("/run/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/etc/libvirt")
# The user as whom libvirt of Debian runs QEMU by default; its package libvirt-daemon-system makes it.
QEMU_USER = "libvirt-qemu"

DAEMON_CONFIG = """\
unix_sock_dir = "{folder}"
unix_sock_rw_perms = "0700"
unix_sock_ro_perms = "0700"
auth_unix_rw = "none"
auth_unix_ro = "none"
"""
# No cgroups, no namespaces and no virtlogd: nothing that a container or a build machine may lack.
QEMU_CONFIG = """\
security_driver = "none"
cgroup_controllers = []
namespaces = []
stdio_handler = "file"
remember_owner = 0
"""
# /dev without /dev/kvm: where the device is there but the processor cannot, libvirt 9.0 probes QEMU again and again.
SCRIPT = """\
set -eu
cd '{folder}'
for path in {folders}; do mount -t tmpfs none "$path"; done
cp qemu.conf /etc/libvirt/
for name in passwd group; do mount --bind "$name" "/etc/$name"; done
mkdir dev
mount -t tmpfs none dev
for name in null zero full random urandom tty ptmx vhost-vsock; do
    [ -e "/dev/$name" ] || continue
    touch "dev/$name"
    mount --bind "/dev/$name" "dev/$name"
done
mkdir dev/shm dev/pts
mount --bind /dev/pts dev/pts
mount --rbind dev /dev
exec libvirtd -f '{folder}/libvirtd.conf' -p '{folder}/pid'
"""


def missing():
    """Why no daemon can be started here; None: one can."""
    for program in ("libvirtd", "virsh"):
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            return f"{program} is not installed (apt install libvirt-daemon libvirt-clients)"
    return None


class LibvirtDaemon:
    def __init__(self, folder):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.made = []
        self.environment = dict(os.environ)
        self.socket = self.folder / "libvirt-sock"
        self.log = self.folder / "libvirtd.log"
        (self.folder / "libvirtd.conf").write_text(DAEMON_CONFIG.format(folder=self.folder))
        (self.folder / "qemu.conf").write_text(QEMU_CONFIG)
        self.process = None
        self.start()

    @property
    def uri(self):
        kind = "system" if os.geteuid() == 0 else "session"
        return f"qemu:///{kind}?socket={self.socket}"

    def start(self):
        self.process = self._start_system() if os.geteuid() == 0 else self._start_session()
        deadline = time.monotonic() + 60
        while self.virsh("version", check=False).returncode != 0:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"libvirtd did not start:\n{self.log.read_text()}")
            time.sleep(0.1)

    def _start_system(self):
        for path in map(pathlib.Path, FOLDERS):
            if not path.exists():
                path.mkdir(parents=True)
                self.made.append(path)
        for name, line in (("passwd", f"{QEMU_USER}:x:64055:64055::/nonexistent:/usr/sbin/nologin\n"),
                           ("group", f"{QEMU_USER}:x:64055:\n")):
            text = pathlib.Path("/etc", name).read_text()
            (self.folder / name).write_text(text if f"{QEMU_USER}:" in text else text + line)
        shutil.rmtree(self.folder / "dev", ignore_errors=True)
        script = SCRIPT.format(folder=self.folder, folders=" ".join(FOLDERS))
        return self._spawn("unshare", "--mount", "sh", "-c", script)

    def _start_session(self):
        for name in ("RUNTIME_DIR", "CONFIG_HOME", "CACHE_HOME", "DATA_HOME", "STATE_HOME"):
            path = self.folder / name.lower()
            path.mkdir(mode=0o700, exist_ok=True)
            self.environment[f"XDG_{name}"] = str(path)
        config = self.folder / "config_home/libvirt"
        config.mkdir(exist_ok=True)
        shutil.copy(self.folder / "qemu.conf", config)
        return self._spawn("libvirtd", "-f", self.folder / "libvirtd.conf", "-p", self.folder / "pid")

    def _spawn(self, *command):
        environment = self.environment | {"PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}
        with open(self.log, "ab") as log:
            return subprocess.Popen([str(word) for word in command], env=environment, stdin=subprocess.DEVNULL,
                                    stdout=log, stderr=log, start_new_session=True)

    def virsh(self, *arguments, check=True, timeout=60):
        return subprocess.run(["virsh", "--connect", self.uri, *arguments], env=self.environment, check=check,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout)

    @property
    def pid(self):
        return int((self.folder / "pid").read_text())

    @property
    def version(self):
        return self.virsh("version").stdout.split("Using library: libvirt ")[1].split()[0]

    def domains(self):
        return self.virsh("list", "--all", "--name").stdout.split()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
        for path in reversed(self.made):
            with contextlib.suppress(OSError):
                path.rmdir()
