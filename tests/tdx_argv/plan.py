# SPDX-License-Identifier: Apache-2.0
"""What a machine must have, told from options.txt of a golden case and never from its command line.

The unit tests read the same file (tests/unit/qemu/argv_case.hpp).
"""
import base64
import dataclasses
import pathlib
import re

MIB = 1024 * 1024
UNITS = {"M": MIB, "G": 1024 * MIB, "T": 1024 * 1024 * MIB}


def size(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


@dataclasses.dataclass(frozen=True)
class Device:
    """A PCI device: `bus` is the name of its bus, `slot` its place there, `of` what it stands for."""

    driver: str
    bus: str
    slot: int
    of: str = ""


@dataclasses.dataclass(frozen=True)
class NumaNode:
    host_node: int
    cpus: range
    memory: int


class Plan:
    def __init__(self, path: pathlib.Path):
        self._lists: dict[str, list[str]] = {}
        for line in path.read_text().splitlines():
            if line and not line.startswith("#"):
                name, value = line.split(" = ", 1)
                self._lists.setdefault(name, []).append(value)
        self.directory = self["directory"]
        self.tdx = self["tee"] == "tdx"
        self.kvm = self["accelerator"] == "kvm"
        self.cpus = int(self["cpus"])
        self.memory = size(self["memory"])
        self.channel = self["channel"].split()
        kind, rest = self["share"].split(" ", 1)
        self.share_kind = kind
        self.share_read_only = rest.endswith(" read-only")
        self.share_path = rest.removesuffix(" read-only")
        self.has_network = self.get("network") != "none"
        self.numa_nodes = [self._numa_node(text) for text in self.all("numa_node")]
        self.gpus = [self._gpu(text) for text in self.all("gpu")]
        self.switches = [self._address(text) for text in self.all("nvswitch")]
        self.capabilities = self["qemu"].split()[1:]

    def __getitem__(self, name: str) -> str:
        return self._lists[name][0]

    def get(self, name: str) -> str | None:
        return self._lists.get(name, [None])[0]

    def all(self, name: str) -> list[str]:
        return self._lists.get(name, [])

    @staticmethod
    def _address(text: str) -> str:
        return text if text.count(":") == 2 else f"0000:{text}"

    def _gpu(self, text: str) -> tuple[str, int]:
        address, node, _ = [*text.split(), "", ""][:3]
        return self._address(address), int(node or 0)

    def handed(self) -> dict[str, str]:
        """Descriptors that QEMU finds open, each with the path of what it is."""
        lines = [text.split() for text in self.all("handed")]
        return {fd: path for path, *fds in lines for fd in fds}

    def vfio_address(self, device: dict) -> str | None:
        """Of a vfio-pci device: by its name, or by the file that it was handed."""
        if "fd" not in device:
            return device.get("host")
        files = {text.split()[2]: self._address(text.split()[0]) for text in self.all("gpu") if text.count(" ") == 2}
        return files.get(self.handed().get(device["fd"]))

    @staticmethod
    def _numa_node(text: str) -> NumaNode:
        node, cpus, memory = text.split()
        first, last = cpus.split("-")
        return NumaNode(int(node), range(int(first), int(last) + 1), size(memory))

    # --- what must be there ------------------------------------------------------------------------

    def disks(self) -> list[dict]:
        """The virtio disks in the order of their device letters."""
        disks = []
        if self["layout"] != "a":
            disks.append({"file": self["rootfs"], "ro": True, "drv": "raw"})
        disks.append({"file": self["data_disk"], "ro": False, "drv": "qcow2"})
        if self.share_kind == "disk":
            disks.append({"file": self.share_path, "ro": self.share_read_only, "drv": "raw"})
        return [{"device": f"hd{index}", **disk} for index, disk in enumerate(disks)]

    def block_nodes(self) -> list[dict]:
        nodes = self.disks()
        if self["layout"] == "a":
            nodes.append({"device": "ide2-cd0", "file": self["rootfs"], "ro": True, "drv": "raw"})
        return nodes

    def devices(self) -> list[Device]:
        """All PCI devices but the chipset's own, by bus and slot."""
        channel = {"virtio-serial": [("virtio-serial-pci", "")], "vsock": [("vhost-vsock-pci", "")], "tcp": []}
        disks = [("virtio-blk-pci", disk["device"]) for disk in self.disks()]
        # Layouts A and B have the 9p share, C may have a disk instead; either comes after the channel.
        share = [disks.pop()] if self.share_kind == "disk" else [("virtio-9p-pci", "virtfs0")]
        network = [("virtio-net-pci", "net0")] if self.has_network else []
        devices = [Device(driver, "pcie.0", slot, of) for slot, (driver, of) in
                   enumerate(disks + network + channel[self.channel[0]] + share, start=1)]
        next_slot = {"pcie.0": len(devices) + 1}
        for index, node in enumerate(self.numa_nodes):
            # dstack's decimal 10 + i, read as hexadecimal.
            devices.append(Device("pxb-pcie", "pcie.0", 0x10 + index, f"numa {index} bus {self.expander_bus(index)}"))
            next_slot[f"pcie.node{node.host_node}"] = 0
        for number, (address, bus) in enumerate(self.endpoints(), start=1):
            devices.append(Device("pcie-root-port", bus, next_slot[bus], f"chassis {number}"))
            next_slot[bus] += 1
            devices.append(Device("vfio-pci", f"pci.{number}", 0, address))
        return devices

    def expander_bus(self, index: int) -> int:
        """Each expander bridge leaves numbers for the root ports of the nodes before it."""
        return 5 + sum(1 + sum(1 for _, gpu_node in self.gpus if gpu_node == node) for node in range(index))

    def endpoints(self) -> list[tuple[str, str]]:
        """GPUs, then switches, with the bus of their root port."""
        def bus(node: int) -> str:
            return f"pcie.node{self.numa_nodes[node].host_node}" if self.numa_nodes else "pcie.0"
        return [(address, bus(node)) for address, node in self.gpus] + [(address, "pcie.0") for address in self.switches]

    def serial_ports(self) -> list[tuple[int, str, str]]:
        """number, chardev and name of each port of the channel (include/host_runner/protocol/channel.hpp)."""
        if self.channel[0] != "virtio-serial":
            return []
        return [(number, f"ch{number}", f"host-runner.{number}") for number in range(1, 9)]

    def sockets(self) -> dict[str, str]:
        """Character devices and the sockets that they listen on."""
        names = {"com0": "console.sock", "compat_monitor0": "qmp.sock"}
        names.update({chardev: f"{chardev}.sock" for _, chardev, _ in self.serial_ports()})
        return {label: f"{self.directory}/{name}" for label, name in names.items()}

    def forwards(self) -> list[tuple[str, str, int, int]]:
        """protocol, host address, host port, guest port"""
        rules = []
        for text in filter(None, (self.get("ports") or "").split(",")):
            protocol, address, host_port, guest_port = re.fullmatch(r"(\w+):([\d.]*):(\d+):(\d+)", text).groups()
            rules.append((protocol, address or "127.0.0.1", int(host_port), int(guest_port)))
        return sorted(rules)

    def memory_backends(self) -> dict[str, dict]:
        return {f"mem{index}": {"size": node.memory, "mem-path": self["hugepages"], "share": True, "prealloc": True,
                                "host-nodes": [node.host_node], "policy": "bind"}
                for index, node in enumerate(self.numa_nodes)}

    def tdx_object(self) -> dict:
        """The object as its members must be, by the TDX reference: MRCONFIGID V1 is 0x01, the hash, 15 zeros."""
        members: dict = {"qom-type": "tdx-guest"}
        if self.get("compose_hash"):
            identity = b"\1" + bytes.fromhex(self["compose_hash"]) + bytes(15)
            members["mrconfigid"] = base64.b64encode(identity).decode()
        if self.get("qgs"):
            kind, rest = self["qgs"].split(":", 1)
            if kind == "unix":
                members["quote-generation-socket"] = {"type": "unix", "path": rest}
            else:
                cid, port = rest.split(":")
                members["quote-generation-socket"] = {"type": "vsock", "cid": cid, "port": port}
        return members
