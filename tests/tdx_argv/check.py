#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Checks golden command lines for TDs on a machine without TDX. Started by scripts/test-tdx-argv.

Each command line is checked twice, each time against the plan in the case's options.txt:
1. as text: every JSON object, network and device has only members that QEMU describes, of its types; the tdx-guest
   object is the plan's, each of its digests 48 bytes long; the machine names it.
2. as a machine: a twin in which only what this machine lacks is replaced (see twin_of) is started with -S under
   software emulation, and asked for its PCI devices, disks, networks, memory, processors and channels.

Then wrong command lines are checked, each of which must be found out.
"""
import argparse
import base64
import json
import pathlib
import re
import sys
from collections.abc import Callable

import machine
from plan import Device, Plan
from schema import Schema

Argv = list[str]
FLAGS = {"-nographic", "-nodefaults", "-no-reboot", "-no-user-config"}
PCI_IDS = {  # QEMU docs/specs/pci-ids.rst; virtio devices are transitional on pcie.0
    "virtio-blk-pci": (0x1AF4, 0x1001), "virtio-net-pci": (0x1AF4, 0x1000), "virtio-9p-pci": (0x1AF4, 0x1009),
    "virtio-serial-pci": (0x1AF4, 0x1003), "virtio-rng-pci": (0x1AF4, 0x1005), "pcie-root-port": (0x1B36, 0x000C),
    "pxb-pcie": (0x1B36, 0x000B),
}
# Where the machine's own devices are not there. Each stand-in takes the same slot as what it replaces.
STAND_INS = {"vfio-pci": "pci-testdev", "vhost-vsock-pci": "virtio-rng-pci"}
CHIPSET = [(0, 0), (31, 0), (31, 2), (31, 3)]  # slot, function: host bridge, LPC, AHCI, SMBus of q35


class Options:
    """A command line as (option, value) pairs; values that are JSON are parsed."""

    def __init__(self, argv: Argv):
        self.program, self.pairs = argv[0], []
        words = iter(argv[1:])
        for word in words:
            value = None if word in FLAGS else next(words, "")
            self.pairs.append((word, json.loads(value) if value and value.startswith("{") else value))

    def values(self, option: str) -> list:
        return [value for name, value in self.pairs if name == option]

    def argv(self) -> Argv:
        words = [self.program]
        for option, value in self.pairs:
            words.append(option)
            if value is not None:
                words.append(json.dumps(value) if isinstance(value, dict) else value)
        return words


def keyval(text: str) -> dict[str, str]:
    """QEMU's option lists: commas separate, a doubled one is a comma."""
    members = re.findall(r"((?:[^,]|,,)+)", text)
    pairs = [member.replace(",,", ",").partition("=") for member in members]
    return {name: value for name, _, value in pairs}


def differences(what: str, expected, found) -> list[str]:
    if expected == found:
        return []
    if isinstance(expected, dict) and isinstance(found, dict):
        return differences(what, list(expected.items()), list(found.items()))
    if isinstance(expected, list) and isinstance(found, list):
        missing = [item for item in expected if item not in found]
        extra = [item for item in found if item not in expected]
        if missing or extra:
            return [f"{what}: missing {item}" for item in missing] + [f"{what}: unexpected {item}" for item in extra]
    return [f"{what}: expected {expected}, found {found}"]


# --- 1. as text ------------------------------------------------------------------------------------

class Qemu:
    """What QEMU says about itself."""

    def __init__(self):
        program = ["/usr/bin/qemu-system-x86_64", "-M", "none", "-nodefaults", "-display", "none"]
        with machine.Machine([*program, "-qmp", "unix:/probe.sock,server=on,wait=off"], "/probe.sock") as probe:
            version = probe.command("query-version")["qemu"]
            self.version = version["major"], version["minor"], version["micro"]
            self.schema = Schema(probe.command("query-qmp-schema"))
            self.tdx_members = {member["name"] for member in
                                probe.command("qom-list-properties", typename="tdx-guest")}
            self._members = {driver: {member["name"] for member in
                                      probe.command("device-list-properties", typename=driver)}
                             for driver in [*PCI_IDS, *STAND_INS, "virtserialport"]}

    def device_problems(self, device: dict) -> list[str]:
        driver = device.get("driver")
        if driver not in self._members:
            return [f"device {driver!r} is none that a plan asks for"]
        unknown = set(device) - {"driver", "id", "bus"} - self._members[driver]
        return [f"device {driver}: there is no member {name!r}" for name in sorted(unknown)]


def check_text(plan: Plan, options: Options, qemu: Qemu) -> list[str]:
    problems = []
    for option in ("-object", "-netdev", "-device"):
        problems += [f"{option} {value} is not JSON: QEMU would create it out of turn"
                     for value in options.values(option) if not isinstance(value, dict)]
    if problems:
        return problems
    for value in options.values("-object"):
        problems += qemu.schema.problems_of_command("object-add", value)
    for value in options.values("-netdev"):
        problems += qemu.schema.problems_of_command("netdev_add", value)
    for value in options.values("-device"):
        problems += qemu.device_problems(value)
    problems += check_tdx(plan, options, qemu)
    problems += differences("-accel", ["kvm" if plan.kvm else "tcg"], options.values("-accel"))
    problems += differences("-cpu", ["host" if plan.kvm else "max"], options.values("-cpu"))
    problems += check_host_facts(plan, options)
    return problems


def check_tdx(plan: Plan, options: Options, qemu: Qemu) -> list[str]:
    objects = [value for value in options.values("-object") if value.get("qom-type") == "tdx-guest"]
    named = [keyval(text).get("confidential-guest-support") for text in options.values("-machine")]
    if not plan.tdx:
        return differences("tdx-guest objects", [], objects) + differences("-machine", [None], named)
    if len(objects) != 1:
        return [f"one tdx-guest object is expected, not {len(objects)}"]
    tdx = dict(objects[0])
    problems = differences("the machine's confidential-guest-support", [tdx.pop("id", None)], named)
    unknown = set(tdx) - {"qom-type"} - qemu.tdx_members
    problems += [f"tdx-guest: there is no member {name!r}" for name in sorted(unknown)]
    for name in {"mrconfigid", "mrowner", "mrownerconfig"} & set(tdx):
        length = len(base64.b64decode(tdx[name]))
        if length != 48:
            problems.append(f"tdx-guest: {name} is {length} bytes long, not 48")
    return problems + differences("tdx-guest", plan.tdx_object(), tdx)


def check_host_facts(plan: Plan, options: Options) -> list[str]:
    """What the twin cannot show, because it is taken out there."""
    objects, devices = options.values("-object"), options.values("-device")
    backends = {value.get("id"): {name: member for name, member in value.items() if name not in ("id", "qom-type")}
                for value in objects if value.get("qom-type") == "memory-backend-file"}
    problems = differences("memory objects", plan.memory_backends(), backends)
    iommu = [value.get("id") for value in objects if value.get("qom-type") == "iommufd"]
    problems += differences("iommufd objects", ["iommufd0"] if plan.gpus else [], iommu)
    if plan.handed():
        iommu_files = [plan.handed().get(value.get("fd")) for value in objects if value.get("qom-type") == "iommufd"]
        problems += differences("the iommufd's file", ["/dev/iommu"] if plan.gpus else [], iommu_files)
    endpoints = [(plan.vfio_address(value), value.get("iommufd")) for value in devices if value["driver"] == "vfio-pci"]
    problems += differences("VFIO devices", [(address, "iommufd0") for address, _ in plan.endpoints()], endpoints)
    vsock = [(value.get("guest-cid"), value.get("vhostfd")) for value in devices
             if value["driver"] == "vhost-vsock-pci"]
    expected_vsock = [(int(plan.channel[1]), plan.channel[2])] if plan.channel[0] == "vsock" else []
    problems += differences("vsock", expected_vsock, vsock)
    shares = [keyval(text) for text in options.values("-fsdev")]
    expected = {"local": "", "id": "virtfs0", "path": plan.share_path, "security_model": "mapped",
                **({"readonly": "on"} if plan.share_read_only else {})}
    return problems + differences("9p shares", [expected] if plan.share_kind == "plan9" else [], shares)


# --- 2. as a machine -------------------------------------------------------------------------------

def twin_of(options: Options) -> Options:
    """The same command line for a machine without KVM, TDX, VFIO, vhost-vsock, hugepages and much memory: the
    accelerator, the processor, the tdx-guest and iommufd objects, the machine's reference to the former, VFIO end points
    and the vsock device are replaced; memory is neither reserved nor bound to a host's node."""
    twin = Options([options.program])
    for option, value in options.pairs:
        if option == "-accel":
            value = "tcg"
        elif option == "-cpu":
            value = "max,phys-bits=52"
        elif option == "-machine":
            value = value.replace(",confidential-guest-support=tdx", "")
            if "memory-backend=" not in value and not options.values("-numa"):
                size = int(options.values("-m")[0].removesuffix("M")) << 20
                backend = {"qom-type": "memory-backend-ram", "id": "twin-ram", "size": size, "reserve": False}
                twin.pairs.append(("-object", backend))
                value += ",memory-backend=twin-ram"
        elif option == "-object" and value["qom-type"] in ("tdx-guest", "iommufd"):
            continue
        elif option == "-object" and value["qom-type"] == "memory-backend-file":
            value = {name: member for name, member in value.items() if name not in ("host-nodes", "policy")}
            value["prealloc"] = False
        elif option == "-device" and value["driver"] in STAND_INS:
            place = {name: value[name] for name in ("bus", "addr") if name in value}
            value = {"driver": STAND_INS[value["driver"]], **place}
        twin.pairs.append((option, value))
    return twin


def by_name(plan: Plan, options: Options) -> Options:
    """The same command line for a QEMU that is handed nothing: with the paths of what the descriptors are."""
    files = plan.handed()
    if not files:
        return options
    named = Options([options.program])
    for option, value in options.pairs:
        if option in ("-add-fd", "-mon"):
            continue
        if isinstance(value, str):
            value = re.sub(r"/dev/fdset/(\d+)|/proc/self/fd/(\d+)", lambda found: files[found[1] or found[2]], value)
            value = re.sub(r",fd=(\d+),server=", lambda found: f",path={files[found[1]]},server=", value)
        if option == "-chardev" and value.startswith("socket,id=qmp,path="):
            option, value = "-qmp", value.replace("socket,id=qmp,path=", "unix:")
        named.pairs.append((option, value))
    return named


def make_files(plan: Plan) -> None:
    """Everything that the plan says is there, and nothing else."""
    machine.clear_root()

    def path(name: str) -> pathlib.Path:
        target = machine.ROOT / name.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        return target
    path(plan.directory).mkdir(parents=True, exist_ok=True)
    machine.write_kernel(path(plan["kernel"]))
    path(plan["initrd"]).write_bytes(bytes(4096))
    for name in filter(None, [plan.get("firmware"), plan.get("rootfs")]):
        path(name).write_bytes(bytes(1 << 20))
    machine.write_qcow2(path(plan["data_disk"]))
    if plan.share_kind == "plan9":
        path(plan.share_path).mkdir(exist_ok=True)
    else:
        path(plan.share_path).write_bytes(bytes(1 << 20))
    if plan.get("hugepages"):
        path(plan["hugepages"]).mkdir(exist_ok=True)
    for number, (_, address, _, _) in enumerate(plan.forwards()):
        if not address.startswith(("127.", "0.")):
            machine.add_address(address, number)


def found_devices(vm: machine.Machine) -> tuple[list[Device], list[tuple[int, str, str]]]:
    """The user's PCI devices, and the ports of a virtio-serial device, as the object tree has them."""
    devices, ports = [], []
    for folder in ("/machine/peripheral", "/machine/peripheral-anon"):
        for entry in vm.command("qom-list", path=folder):
            if not entry["type"].startswith("child<"):
                continue
            path, driver = f"{folder}/{entry['name']}", entry["type"][len("child<"):-1]

            def member(name: str):
                return vm.command("qom-get", path=path, property=name)
            if driver == "virtserialport":
                ports.append((member("nr"), member("chardev"), member("name")))
                continue
            of = {"virtio-blk-pci": lambda: member("drive"), "virtio-net-pci": lambda: member("netdev"),
                  "virtio-9p-pci": lambda: member("fsdev"),
                  "pcie-root-port": lambda: f"chassis {member('chassis')}",
                  "pxb-pcie": lambda: f"numa {member('numa_node')} bus {member('bus_nr')}"}.get(driver, str)()
            function = member("addr")
            bus = member("parent_bus").rsplit("/", 1)[1]
            devices.append(Device(driver, bus, function >> 3, of))
            if function & 7:
                devices.append(Device(f"{driver} in function {function & 7}", bus, function >> 3))
    return devices, sorted(ports)


def compare_devices(plan: Plan, vm: machine.Machine) -> list[str]:
    # A stand-in cannot say what it stands for; check_host_facts compared that.
    expected = [Device(STAND_INS[device.driver], device.bus, device.slot) if device.driver in STAND_INS else device
                for device in plan.devices()]
    found, ports = found_devices(vm)

    def place(device: Device):
        return device.bus, device.slot, device.driver
    problems = differences("devices", sorted(expected, key=place), sorted(found, key=place))
    problems += differences("ports of the channel", plan.serial_ports(), ports)
    # The firmware has not numbered the buses behind the root ports yet, so query-pci shows the root buses only.
    buses = {"pcie.0": 0} | {f"pcie.node{node.host_node}": plan.expander_bus(index)
                             for index, node in enumerate(plan.numa_nodes)}
    expected_pci = [(buses[device.bus], device.slot, *PCI_IDS[device.driver]) for device in expected
                    if device.bus in buses]
    found_pci = [(bus["bus"], device["slot"], device["id"]["vendor"], device["id"]["device"])
                 for bus in vm.command("query-pci") for device in bus["devices"]
                 if bus["bus"] != 0 or (device["slot"], device["function"]) not in CHIPSET]
    return problems + differences("query-pci (bus, slot, vendor, device)", sorted(expected_pci), sorted(found_pci))


def compare_disks(plan: Plan, vm: machine.Machine) -> list[str]:
    found = [{"device": entry["device"], "file": entry["inserted"]["file"], "ro": entry["inserted"]["ro"],
              "drv": entry["inserted"]["drv"]} for entry in vm.command("query-block") if "inserted" in entry]

    def name(node: dict):
        return node["device"]
    return differences("block nodes", sorted(plan.block_nodes(), key=name), sorted(found, key=name))


def compare_network(plan: Plan, vm: machine.Machine) -> list[str]:
    text = vm.monitor("info network")
    cards = re.findall(r"model=virtio-net-pci,macaddr=(\S+)", text)
    users = re.findall(r"type=user,net=([\d.]+),restrict=(\w+)", text)
    restrict = "off" if plan.get("egress") == "yes" else "on"
    problems = differences("user networks", [("10.0.2.0", restrict)] if plan.has_network else [], users)
    problems += differences("network cards", 1 if plan.has_network else 0, len(cards))
    table = re.findall(r"(TCP|UDP)\[HOST_FORWARD\] +\d+ +(\S+) +(\d+) +(\S+) +(\d+)", vm.monitor("info usernet"))
    forwards = sorted((protocol.lower(), "0.0.0.0" if host == "*" else host, int(port), int(guest_port))
                      for protocol, host, port, _, guest_port in table)
    return problems + differences("forwarded ports", plan.forwards(), forwards)


def compare_memory_and_processors(plan: Plan, vm: machine.Machine) -> list[str]:
    summary = vm.command("query-memory-size-summary")
    problems = differences("memory", (plan.memory, 0), (summary["base-memory"], summary["plugged-memory"]))
    problems += differences("memory devices", [], vm.command("query-memory-devices"))
    nodes = {f"mem{index}": node.memory for index, node in enumerate(plan.numa_nodes)}
    if plan.get("reserve_memory") == "no":
        nodes["ram0"] = plan.memory
    found = {entry["id"]: entry["size"] for entry in vm.command("query-memdev") if entry["id"] != "twin-ram"}
    problems += differences("memory back ends", nodes, found)
    node_of = {cpu: index for index, node in enumerate(plan.numa_nodes) for cpu in node.cpus}
    expected = [(cpu, node_of.get(cpu)) for cpu in range(plan.cpus)]
    found_cpus = sorted((cpu["cpu-index"], cpu["props"].get("node-id")) for cpu in vm.command("query-cpus-fast"))
    if not plan.numa_nodes:
        found_cpus = [(cpu, None) for cpu, _ in found_cpus]  # QEMU makes one node of its own
    return problems + differences("processors and their nodes", expected, found_cpus)


def compare_files(plan: Plan, vm: machine.Machine) -> list[str]:
    sockets = {entry["label"]: re.sub(r".*unix:(.*),server=on$", r"\1", entry["filename"])
               for entry in vm.command("query-chardev")}
    problems = differences("sockets", plan.sockets(), sockets)
    log = f"{plan.directory}/serial.log"
    if not (machine.ROOT / log.lstrip("/")).exists():
        problems.append(f"there is no {log}")
    expected = {"kernel": plan["kernel"], "initrd": plan["initrd"], "append": plan["append"],
                "firmware": plan.get("firmware") or "bios-256k.bin"}
    found = {name: vm.command("qom-get", path="/machine", property=name) for name in expected}
    return problems + differences("boot files", expected, found)


def check_twin(plan: Plan, options: Options) -> list[str]:
    make_files(plan)
    try:
        with machine.Machine(twin_of(by_name(plan, options)).argv(), plan.sockets()["compat_monitor0"]) as vm:
            return [problem for compare in (compare_devices, compare_disks, compare_network,
                                            compare_memory_and_processors, compare_files)
                    for problem in compare(plan, vm)]
    except machine.QemuFailed as failure:
        return [str(failure)]


def check(plan: Plan, argv: Argv, qemu: Qemu) -> list[str]:
    options = Options(argv)
    # Where the text is wrong the twin may not even be told apart from what it stands for.
    return check_text(plan, options, qemu) or check_twin(plan, options)


# --- 3. wrong command lines ------------------------------------------------------------------------

def replaced(old: str, new: str, count: int = 1) -> Callable[[Argv], Argv]:
    def change(argv: Argv) -> Argv:
        text = "\n".join(argv)
        assert old in text, f"{old!r} is not in the command line"
        return text.replace(old, new, count).split("\n")
    return change


def without(option: str, text: str) -> Callable[[Argv], Argv]:
    def change(argv: Argv) -> Argv:
        at = next(i for i, word in enumerate(argv) if word == option and text in argv[i + 1])
        return argv[:at] + argv[at + 2:]
    return change


def swapped(first: str, second: str) -> Callable[[Argv], Argv]:
    def change(argv: Argv) -> Argv:
        at = {word: argv.index(word) for word in (first, second)}
        argv = list(argv)
        argv[at[first]], argv[at[second]] = second, first
        return argv
    return change


BLOCK = '{"driver":"virtio-blk-pci","drive":"hd%d"}'
SPLIT_ELSEWHERE = (replaced("=0-47", "=0-46"), replaced("=48-95", "=47-95"))
# What is wrong; in which golden; the change; what must be said about it.
WRONG: list[tuple[str, str, Callable[[Argv], Argv], str]] = [
    ("device: root and data disk swapped", "layout_c_tdx", swapped(BLOCK % 0, BLOCK % 1), "slot=1, of='hd0'"),
    ("device: network card left out", "layout_a_tdx", without("-device", "virtio-net-pci"),
     "devices: missing Device(driver='virtio-net-pci'"),
    ("device: of another kind", "layout_b_tdx", replaced('"driver":"virtio-9p-pci"', '"driver":"virtio-9p-device"'),
     "'virtio-9p-device' is none"),
    ("device: one not in JSON, so created first", "layout_c_tdx", replaced(BLOCK % 2, "virtio-blk-pci,drive=hd2"),
     "is not JSON"),
    ("device: a member that there is not", "layout_c_tdx", replaced('"guest-cid"', '"guest_cid"'),
     "there is no member 'guest_cid'"),
    ("device: a channel port under another number", "own_image_tdx",
     replaced('"nr":2,"chardev":"ch2"', '"nr":12,"chardev":"ch2"'), "ports of the channel: missing (2, 'ch2'"),
    ("device: one more", "own_image_none_tcg", lambda argv: [*argv, "-device", '{"driver":"virtio-rng-pci"}'],
     "devices: unexpected Device(driver='virtio-rng-pci'"),
    ("bus: root port on another bus", "layout_c_tdx", replaced('"bus":"pcie.node1"', '"bus":"pcie.0"'),
     "devices: missing Device(driver='pcie-root-port', bus='pcie.node1'"),
    ("bus: two GPUs on one root port", "gpus_eight_and_switches", replaced('"bus":"pci.2"', '"bus":"pci.1"'),
     "devices: missing Device(driver='pci-testdev', bus='pci.2'"),
    ("bus: two root ports in one chassis", "gpus_eight_and_switches", replaced('"chassis":2}', '"chassis":1}'),
     "Can't add chassis slot"),
    ("bus: a slot in decimal", "layout_c_tdx", replaced('"addr":"0x10"', '"addr":"0xa"'), "slot=16"),
    ("bus: an expander bridge's number", "gpus_eight_and_switches", replaced('"bus_nr":10', '"bus_nr":9'),
     "of='numa 1 bus 10'"),
    ("port rule: another guest port", "own_image_tdx", replaced("8080-:8080", "8080-:8081"), "forwarded ports"),
    ("port rule: on all addresses", "own_image_tdx", replaced("tcp:127.0.0.1:", "tcp::"), "forwarded ports"),
    ("port rule: another protocol", "own_image_hugepages", replaced("udp:192.0.2.7", "tcp:192.0.2.7"),
     "forwarded ports"),
    ("port rule: one left out", "seed_complete_example", replaced(',{"str":"tcp:127.0.0.1:10024-:22"}', ""),
     "forwarded ports"),
    ("port rule: no rule at all", "own_image_tdx", replaced('"tcp:127.0.0.1:8080-:8080"', '"127.0.0.1:8080-8080"'),
     "forwarding rule"),
    ("network: not restricted", "own_image_tdx", replaced('"restrict":true', '"restrict":false'), "user networks"),
    ("path: the data disk's", "layout_b_tdx", replaced("/hda.img", "/hda.qcow2"), "Could not open"),
    ("path: another file that is there", "layout_c_none_kvm",
     replaced("/var/lib/host-runner/instances/demo/shared.img", "/srv/images/dstack-0.6.0/rootfs.img.parted.verity"),
     "block nodes: missing"),
    ("path: the kernel's", "layout_a_tdx", replaced("/bzImage", "/initramfs.cpio.gz"), "kernel"),
    ("path: the share's", "seed_complete_example", replaced("/app,", "/,"), "9p shares"),
    ("path: a comma not doubled", "paths_with_commas", replaced("/srv/a,,b", "/srv/a,b"), "/srv/a,b"),
    ("path: the serial log's", "layout_a_tdx", replaced("/serial.log", "/console.log"), "there is no"),
    ("path: a channel's socket", "own_image_tdx", replaced("/ch3.sock", "/ch4.sock"), "sockets: missing ('ch3'"),
    ("disk: can be written to", "layout_c_tdx", replaced(",readonly=on", ""), "block nodes"),
    ("TDX: mrconfigid one byte short", "layout_b_tdx", replaced('A"}', '="}'), "mrconfigid is 47 bytes long, not 48"),
    ("TDX: the hash of another compose file", "own_image_tdx", replaced('"mrconfigid":"AeOw', '"mrconfigid":"AeOx'),
     "tdx-guest: missing ('mrconfigid'"),
    ("TDX: a member that there is not", "layout_b_tdx", replaced('"mrconfigid"', '"mr-config-id"'),
     "there is no member 'mr-config-id'"),
    ("TDX: a number for the CID", "layout_c_tdx", replaced('"cid":"2"', '"cid":2'), "a string is expected, not 2"),
    ("TDX: no quote service", "layout_c_tdx",
     replaced(',"quote-generation-socket":{"type":"vsock","cid":"2","port":"4050"}', ""),
     "tdx-guest: missing ('quote-generation-socket'"),
    ("TDX: the machine does not name the object", "layout_a_tdx", replaced("confidential-guest-support=tdx,", ""),
     "the machine's confidential-guest-support"),
    ("TDX: an object without TDX", "layout_c_none_tcg",
     lambda argv: [*argv, "-object", '{"qom-type":"tdx-guest","id":"tdx"}'], "tdx-guest objects"),
    ("VFIO: another GPU", "layout_b_gpu", replaced("0000:b8:00.0", "0000:b9:00.0"), "VFIO devices"),
    ("handed: another file's descriptor for a disk", "own_image_other_user",
     replaced("file=/dev/fdset/33", "file=/dev/fdset/30"), "block nodes"),
    ("handed: a socket's descriptor for the device", "own_image_other_user", replaced('"fd":"35"', '"fd":"16"'),
     "VFIO devices"),
    ("VFIO: no iommufd", "layout_b_gpu", replaced(',"iommufd":"iommufd0"', ""), "VFIO devices"),
    ("memory: half of it", "own_image_tdx", replaced("32768M", "16384M"), "memory: expected"),
    ("memory: on another host node", "layout_c_tdx", replaced('"host-nodes":[1]', '"host-nodes":[0]'),
     "memory objects"),
    ("processors: one on another node", "gpus_eight_and_switches",
     lambda argv: SPLIT_ELSEWHERE[1](SPLIT_ELSEWHERE[0](argv)), "processors and their nodes: missing (47, 0)"),
    ("processors: one less", "layout_c_none_tcg", replaced("-smp\n4", "-smp\n3"), "processors and their nodes"),
    ("accelerator: emulation for a TD", "layout_a_tdx", replaced("-accel\nkvm", "-accel\ntcg"), "-accel"),
]


# --- all of it -------------------------------------------------------------------------------------

def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--qemu-root", type=pathlib.Path, required=True, help="folder with QEMU, its loader and libraries")
    parser.add_argument("--goldens", type=pathlib.Path, required=True, help="folder of the cases")
    parser.add_argument("cases", nargs="*", help="names of cases (default: all, then the wrong command lines)")
    arguments = parser.parse_args()

    machine.make_root(arguments.qemu_root)
    machine.raise_loopback()
    qemu = Qemu()
    print("QEMU {}.{}.{}".format(*qemu.version))
    if qemu.version < (10, 1, 0):
        print("QEMU 10.1 or newer is needed: older ones have no tdx-guest object", file=sys.stderr)
        return 1

    def load(name: str) -> tuple[Plan, Argv]:
        folder = arguments.goldens / name
        return Plan(folder / "options.txt"), (folder / "expected.argv").read_text().splitlines()

    failed = 0
    names = arguments.cases or sorted(folder.name for folder in arguments.goldens.iterdir())
    for name in names:
        problems = check(*load(name), qemu)
        failed += bool(problems)
        print(f"{'FAILED' if problems else 'ok':8}{name}", *problems, sep="\n          ", flush=True)
    wrong = [] if arguments.cases else WRONG
    for title, name, change, reason in wrong:
        plan, argv = load(name)
        problems = check(plan, change(argv), qemu)
        found = next((problem for problem in problems if reason in problem), None)
        failed += found is None
        detail = found.splitlines()[0][:150] if found else f"{reason!r} is not among what was found: {problems}"
        print(f"{'ok' if found else 'FAILED':8}wrong {title} ({name})", detail, sep="\n          ", flush=True)
    print(f"{len(names)} command lines, {len(wrong)} wrong ones: {failed} failed")
    return 1 if failed or not names else 0


if __name__ == "__main__":
    sys.exit(main())
