// SPDX-License-Identifier: Apache-2.0
#include "host_runner/config/option_table.hpp"

#include <algorithm>
#include <array>

namespace host_runner::config {

namespace {

constexpr std::string_view vm = "Virtual machine";
constexpr std::string_view confidential = "Confidential computing";
constexpr std::string_view network = "Network";
constexpr std::string_view host = "Host";
constexpr std::string_view life = "Life of the VM";
constexpr std::string_view general = "General";
constexpr std::string_view plain = "Options";

constexpr std::string_view instance_help =
    "The instance: its id, the beginning of its id, or its name";

constexpr auto table = std::to_array<Option>({
    {.verb = "",
     .name = "log-level",
     .short_name = 'l',
     .kind = ValueKind::choice,
     .value_name = "trace|debug|info|warn|error|off",
     .default_value = "info",
     .group = general,
     .help = "What is logged to stderr",
     .example = "debug"},

    {.verb = "run",
     .name = "image-path",
     .short_name = 'i',
     .value_name = "DIR",
     .group = vm,
     .help = "Image directory, with its metadata.json (required)",
     .example = "images/out/native",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "compose-path",
     .short_name = 'c',
     .value_name = "FILE",
     .default_value = "compose.yaml",
     .group = vm,
     .help = "Compose file with the services; without one in the current folder the VM starts none",
     .example = "configs/hello.yaml",
     .also = "doctor"},
    {.verb = "run",
     .name = "env-file",
     .value_name = "FILE",
     .group = vm,
     .help = "Environment for every service, as NAME=value lines. Not secret: it becomes a part of "
             "the measured app-compose.json",
     .example = "web.env",
     .also = "doctor"},
    {.verb = "run",
     .name = "cpus",
     .short_name = 'u',
     .value_name = "N",
     .default_value = "12",
     .group = vm,
     .help = "Virtual CPUs",
     .example = "4",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "memory",
     .short_name = 'm',
     .value_name = "SIZE",
     .default_value = "32G",
     .group = vm,
     .help = "Memory, with K, M, G or T; a bare number is MiB",
     .example = "32G",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "disk",
     .short_name = 'd',
     .value_name = "SIZE",
     .default_value = "500G",
     .group = vm,
     .help = "Size of the data disk, a sparse file",
     .example = "10G",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "name",
     .value_name = "NAME",
     .group = vm,
     .help = "A name makes the instance permanent: its disk and identity stay for the next run "
             "with that name",
     .example = "web-1"},
    {.verb = "run",
     .name = "append",
     .value_name = "TEXT",
     .group = vm,
     .help = "Added to the kernel command line. It is measured",
     .example = "loglevel=7",
     .also = "doctor"},
    {.verb = "run",
     .name = "firmware",
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = vm,
     .help = "With --tee none: boot through the image's firmware in place of SeaBIOS",
     .also = "doctor"},

    {.verb = "run",
     .name = "tee",
     .kind = ValueKind::choice,
     .value_name = "tdx|none",
     .default_value = "tdx",
     .group = confidential,
     .help = "Protection of the VM from its host. 'none' protects nothing and is never chosen by "
             "itself",
     .example = "none",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "qgs",
     .value_name = "ADDRESS",
     .group = confidential,
     .help = "Quote generation service, as vsock:CID:PORT or unix:PATH; without it vsock:2:4050 "
             "where the image takes quotes through QEMU",
     .example = "vsock:2:4050",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "local-key-provider",
     .kind = ValueKind::flag,
     .default_value = "true",
     .group = confidential,
     .help = "Let this runner be the VM's key provider; the same as --key-provider local",
     .also = "doctor"},
    {.verb = "run",
     .name = "key-provider",
     .value_name = "WHERE",
     .group = confidential,
     .help = "Who gives the VM its keys: local, none, relay=HOST:PORT or kms=URL[,URL]",
     .example = "local",
     .also = "doctor"},

    {.verb = "run",
     .name = "ports",
     .short_name = 'p',
     .kind = ValueKind::list,
     .value_name = "LIST",
     .group = network,
     .help = "Forwarded ports, as tcp|udp:HOST_IP:HOST_PORT:GUEST_PORT. An empty HOST_IP is "
             "127.0.0.1, HOST_PORT 0 a free port, which is printed",
     .example = "tcp::8080:80",
     .also = "doctor"},
    {.verb = "run",
     .name = "net",
     .value_name = "MODE",
     .default_value = "user",
     .group = network,
     .help = "Network card: user (behind the host, with port forwarding), none or bridge=NAME; "
             "user=slirp, user=passt and user=qemu choose who makes the user network",
     .example = "none",
     .also = "doctor"},
    {.verb = "run",
     .name = "egress",
     .kind = ValueKind::choice,
     .value_name = "on|off",
     .group = network,
     .help = "Whether the guest may open connections to the outside. Without it: as the compose "
             "file says, else off; on for dstack's images, which pull containers",
     .example = "on",
     .also = "doctor"},
    {.verb = "run",
     .name = "host-service",
     .kind = ValueKind::list,
     .value_name = "LIST",
     .group = network,
     .help = "Services on the host's loopback that the guest may reach, as tcp:PORT; it finds them "
             "at 10.0.2.2:PORT",
     .example = "tcp:5432",
     .also = "doctor"},

    {.verb = "run",
     .name = "accel",
     .kind = ValueKind::choice,
     .value_name = "auto|kvm|tcg",
     .default_value = "auto",
     .group = host,
     .help = "Accelerator. 'auto' takes KVM where the processor has hardware virtualisation and "
             "/dev/kvm opens, else software emulation, and says which",
     .example = "kvm",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "qemu",
     .value_name = "PATH",
     .default_value = "qemu-system-x86_64",
     .group = host,
     .help = "The QEMU program, a path or a name in PATH",
     .example = "/opt/qemu/bin/qemu-system-x86_64",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "user",
     .value_name = "NAME",
     .group = host,
     .help = "Account that QEMU runs as; only root can choose. Without it root's QEMUs run as "
             "host-runner where that account exists, else as root",
     .example = "host-runner",
     .also = "run-wasm|doctor"},
    {.verb = "run",
     .name = "backend",
     .value_name = "WHO",
     .default_value = "qemu",
     .group = host,
     .help = "Who starts QEMU: qemu (this program), or libvirt, at its URI where one is given with "
             "libvirt=URI; else at qemu:///system for root and qemu:///session for others",
     .example = "libvirt=qemu:///system",
     .also = "doctor"},
    {.verb = "run",
     .name = "gpus",
     .short_name = 'g',
     .kind = ValueKind::list,
     .value_name = "LIST",
     .group = host,
     .help = "NVIDIA GPUs and NVSwitches for the VM, by PCI address with or without the domain; or "
             "all of this machine",
     .example = "0000:b8:00.0",
     .also = "doctor"},
    {.verb = "run",
     .name = "pin-numa",
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = host,
     .help = "Bind the VM's processors and memory to the NUMA nodes of its GPUs; without any to "
             "the node "
             "with the most free memory",
     .also = "doctor"},
    {.verb = "run",
     .name = "numa-node",
     .value_name = "N",
     .group = host,
     .help = "With --pin-numa or --hugepage: take this node of the host",
     .example = "1",
     .also = "doctor"},
    {.verb = "run",
     .name = "hugepage",
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = host,
     .help = "Take the memory from the pages of 1 GiB or 2 MiB that are set aside",
     .also = "doctor"},
    {.verb = "run",
     .name = "hugepage-size",
     .kind = ValueKind::choice,
     .value_name = "auto|2M|1G",
     .default_value = "auto",
     .group = host,
     .help = "Size of these pages; 'auto' takes 1 GiB where there are enough, else 2 MiB, and says "
             "which",
     .example = "2M",
     .also = "doctor"},

    {.verb = "run",
     .name = "detach",
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = life,
     .help = "Leave the VM running in the background; print its id and ports"},
    {.verb = "run",
     .name = "wait",
     .kind = ValueKind::choice,
     .value_name = "ready|started",
     .default_value = "ready",
     .group = life,
     .help = "What --detach waits for: the guest's word that it is ready, or QEMU's start",
     .example = "started"},
    {.verb = "run",
     .name = "restart",
     .value_name = "RULE",
     .default_value = "no",
     .group = life,
     .help = "Start the VM again after a failure: no, on-failure or on-failure:N with at most N "
             "restarts in a row (5)",
     .example = "on-failure:3"},
    {.verb = "run",
     .name = "stop-timeout",
     .value_name = "TIME",
     .group = life,
     .help = "Kill QEMU at the latest this long after a stop began; without it the time grows "
             "with the VM's memory",
     .example = "90s"},
    {.verb = "run",
     .name = "dry-run",
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = life,
     .help = "Print QEMU's command line so that a shell runs it as it is; take and leave nothing"},
    {.verb = "run",
     .name = "format",
     .kind = ValueKind::choice,
     .value_name = "argv|libvirt-xml",
     .group = life,
     .help = "With --dry-run: QEMU's command line, or the same VM as libvirt's domain XML; without "
             "it what the backend would be given",
     .example = "libvirt-xml"},
    {.verb = "run",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "text|json",
     .default_value = "text",
     .group = life,
     .help = "How progress is printed; json gives one object per line",
     .example = "json"},

    {.verb = "list",
     .name = "all",
     .short_name = 'a',
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = plain,
     .help = "Also those that do not run"},
    {.verb = "list",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "table|json",
     .default_value = "table",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},

    {.verb = "stop",
     .name = "id",
     .short_name = 'i',
     .value_name = "ID",
     .group = plain,
     .help = instance_help,
     .example = "3f2a"},
    {.verb = "stop",
     .name = "all",
     .short_name = 'a',
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = plain,
     .help = "Stop every VM that runs, side by side"},
    {.verb = "stop",
     .name = "timeout",
     .value_name = "TIME",
     .group = plain,
     .help = "Kill QEMU at the latest after this time; without it the time grows with the VM's "
             "memory",
     .example = "90s"},
    {.verb = "stop",
     .name = "force",
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = plain,
     .help = "Kill QEMU at once; data in the guest may be lost"},

    {.verb = "logs",
     .name = "follow",
     .short_name = 'f',
     .kind = ValueKind::flag,
     .default_value = "false",
     .group = plain,
     .help = "Go on with what comes, until the VM ends"},
    {.verb = "logs",
     .name = "tail",
     .value_name = "N",
     .group = plain,
     .help = "Begin with the last N lines",
     .example = "50"},
    {.verb = "logs",
     .name = "service",
     .value_name = "NAME",
     .group = plain,
     .help =
         "What this service of the running VM printed, with all its replicas; asked from the guest",
     .example = "web"},

    {.verb = "invoke",
     .name = "data",
     .value_name = "TEXT|@FILE|@-",
     .group = plain,
     .help = "What the function reads on its stdin: this text, a file, or what comes on ours; "
             "nothing without it",
     .example = "@request.json"},
    {.verb = "invoke",
     .name = "env",
     .short_name = 'e',
     .kind = ValueKind::list,
     .value_name = "NAME=VALUE",
     .group = plain,
     .help = "A variable for this call; wins over the service's own",
     .example = "LANG=de"},
    {.verb = "invoke",
     .name = "timeout",
     .value_name = "TIME",
     .group = plain,
     .help = "End the call after this time, if the function's own limit does not end it before",
     .example = "2s"},
    {.verb = "invoke",
     .name = "max-output",
     .value_name = "SIZE",
     .group = plain,
     .help = "Keep so much of stdout and of stderr, if the function's own limit is not less",
     .example = "64KiB"},
    {.verb = "invoke",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "text|json",
     .default_value = "text",
     .group = plain,
     .help = "Pass its output on, or show all about the call when it has ended",
     .example = "json"},

    {.verb = "run-wasm",
     .name = "env",
     .short_name = 'e',
     .kind = ValueKind::list,
     .value_name = "NAME=VALUE",
     .group = plain,
     .help = "A variable of the module",
     .example = "LANG=de"},
    {.verb = "run-wasm",
     .name = "module-memory",
     .value_name = "SIZE",
     .default_value = "64M",
     .group = plain,
     .help = "Linear memory of the module, at most",
     .example = "16M"},

    {.verb = "inspect",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "text|json",
     .default_value = "text",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},

    {.verb = "stats",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "table|json",
     .default_value = "table",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},

    {.verb = "doctor",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "table|json",
     .default_value = "table",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},

    {.verb = "wait",
     .name = "for",
     .kind = ValueKind::choice,
     .value_name = "ready|exit",
     .default_value = "exit",
     .group = plain,
     .help = "What is waited for",
     .example = "ready"},
    {.verb = "wait",
     .name = "timeout",
     .value_name = "TIME",
     .group = plain,
     .help = "Give up after this time (exit code 8); without it wait for ever",
     .example = "5m"},

    {.verb = "prune",
     .name = "keep",
     .value_name = "N",
     .default_value = "0",
     .group = plain,
     .help = "Keep the newest N",
     .example = "20"},

    {.verb = "compose check",
     .name = "env-file",
     .value_name = "FILE",
     .group = plain,
     .help = "As for run: its variables become part of app-compose.json",
     .example = "public.env"},
    {.verb = "compose check",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "text|json",
     .default_value = "text",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},

    {.verb = "image verify",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "table|json",
     .default_value = "table",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},
    {.verb = "image inspect",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "text|json",
     .default_value = "text",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},
    {.verb = "image import",
     .name = "sha256",
     .value_name = "HEX",
     .group = plain,
     .help = "SHA-256 that the archive must have (required)",
     .example = "HASH"},
    {.verb = "image import",
     .name = "into",
     .value_name = "DIR",
     .default_value = ".",
     .group = plain,
     .help = "Folder that gets the image directory",
     .example = "images"},

    {.verb = "image import",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "text|json",
     .default_value = "text",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},
    {.verb = "gpu list",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "table|json",
     .default_value = "table",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},
    {.verb = "config show",
     .name = "output",
     .kind = ValueKind::choice,
     .value_name = "table|json",
     .default_value = "table",
     .group = plain,
     .help = "Form of the output",
     .example = "json"},
});

const Positional instance_argument{"ID", instance_help, true, false, "", true};

std::vector<Verb> make_verbs() {
    return {
        {"run",
         "Start a VM and stay until it ends",
         "Checks the image, starts QEMU and supervises it. Progress is printed; SIGINT or SIGTERM "
         "begins an orderly stop, a second one shortens it. The exit code says how the VM ended.",
         {},
         {{"host_runner run -i images/out/native -c configs/hello.yaml -p tcp::8080:8080",
           "a confidential VM whose port 8080 answers on 127.0.0.1:8080"},
          {"host_runner run -i images/out/native --tee none -u 2 -m 2G -d 10G --name web --detach",
           "a VM without protection, in the background, whose disk is kept"},
          {"host_runner run -i images/out/native --dry-run", "QEMU's command line only"}}},
        {"list",
         "Show the VMs",
         "One row per running VM, oldest first. In the table 'none!' marks a VM that the host can "
         "read.",
         {},
         {{"host_runner list", "the VMs that run"},
          {"host_runner list --all --output json", "all that there is, for programs"}}},
        {"stop",
         "Stop VMs: in order, then firmly",
         "Asks the guest to shut down, then presses the power button, then ends QEMU; each step "
         "and its time is shown. What a temporary instance leaves is removed; a named one keeps "
         "its disk and identity. An id needs only as many digits as make it unique.",
         {{"ID", instance_help, false, false, "", true}},
         {{"host_runner stop -i 3f2a", "the VM whose id begins so"},
          {"host_runner stop --all", "every VM, side by side"}}},
        {"logs",
         "Show what a VM printed",
         "serial is the guest's console, qemu what QEMU itself printed, events what the runner "
         "did (JSON lines). services asks the running guest for the output of its services, and a "
         "service's name for that one's; a service whose name is one of these words is named by "
         "--service.",
         {instance_argument,
          {"WHAT", "Which log (serial), or a service's name", false, false,
           "serial|qemu|events|services", false, true}},
         {{"host_runner logs -f web serial", "the console, and what comes"},
          {"host_runner logs -f 3f2a db", "what the service db prints, and what comes"},
          {"host_runner logs --tail 20 --service services 3f2a", "of a service of that name"}}},
        {"console",
         "Talk to the serial line",
         "Connects the terminal to the VM's serial line. Ctrl-] leaves it; the VM goes on.",
         {instance_argument},
         {{"host_runner console web", ""}}},
        {"exec",
         "Run a command in the guest",
         "Only images of the flavour dev allow it. The exit code is the command's, or 128 plus "
         "the signal that ended it.",
         {instance_argument, {"CMD", "The program and its arguments, after --", true, true}},
         {{"host_runner exec web -- /bin/ps", ""}}},
        {"invoke",
         "Call a function of a VM",
         "FUNCTION is a service of the world function. Each call runs in a fresh instance of its "
         "module. The exit code is the module's own; 123 when it passed a limit, 124 after its "
         "time-out, 125 when its worker failed, 134 when it trapped, 137 when it ran out of "
         "memory, 143 when it was cancelled, 7 when there are too many calls, 2 when there is no "
         "such function, 1 when it does not run or its VM ended.",
         {instance_argument,
          {"FUNCTION", "The function's service"},
          {"ARG", "Arguments for it, after --", false, true}},
         {{"host_runner invoke .host-runner-dev/app/functions.sock greet",
           "one of guest_agent --dev, by its socket"},
          {"host_runner invoke web greet --data '{\"name\":\"Ada\"}'", "text on its stdin"},
          {"host_runner invoke web resize --data @photo.png > small.png", "a file"}}},
        {"run-wasm",
         "Run one WebAssembly module in a VM of its own",
         "Boots a VM, runs the WASI program MODULE in it with our stdin, stdout and stderr, and "
         "removes the VM. With one processor, 512 MiB of memory and a 1 GiB disk where nothing "
         "else is said. The exit code is the module's own, or one as invoke has them; or, where "
         "the VM did not come so far, one as run has them.",
         {{"MODULE", "A .wasm file of the target wasm32-wasip1"},
          {"ARG", "Arguments for it, after --", false, true}},
         {{"echo hello | host_runner run-wasm -i images/out/native calls.wasm -- echo", ""}}},
        {"inspect",
         "Show everything about an instance",
         "What was asked for, how QEMU was started, what the guest says about itself, and how it "
         "ended.",
         {instance_argument},
         {{"host_runner inspect web --output json", ""}}},
        {"stats",
         "Show memory, CPU time and I/O of the VMs",
         "Of QEMU and its runner together, for one VM or all that run. CPU is the mean since the "
         "start in percent of one processor.",
         {{"ID", instance_help, false, false, "", true}},
         {{"host_runner stats", ""}}},
        {"doctor",
         "Check whether this host has what a VM needs",
         "A line for each requirement: pass, warn (the VM starts, but not as it should), fail (it "
         "cannot start) or not needed, with what was found and the remedy. Without an image it "
         "looks "
         "at the host for VMs in general; with the options of a run, at that run, also its image, "
         "its compose file and its ports. Nothing is taken or changed. The exit code is 1 where "
         "something fails. run looks at the same before it takes anything.",
         {},
         {{"host_runner doctor", ""},
          {"host_runner doctor --tee none", "for VMs that the host can read"},
          {"host_runner doctor -i images/out/native -c compose.yaml -m 64G", "for one run"}}},
        {"wait",
         "Wait until a VM is ready or has ended",
         "Waiting for the exit gives the exit code with which the VM's run ended.",
         {instance_argument},
         {{"host_runner wait web --for ready --timeout 5m", ""}}},
        {"rm",
         "Remove instances that do not run",
         "Removes record and logs, and of a named instance its disk and identity too: that "
         "cannot be undone.",
         {{"ID", instance_help, true, true, "", true}},
         {{"host_runner rm web", ""}}},
        {"prune",
         "Remove the records of temporary instances that have ended",
         "Named instances are left alone.",
         {},
         {{"host_runner prune --keep 20", ""}}},
        {"image verify",
         "Check an image directory completely",
         "Every file's SHA-256, the image's digest, the kernel command line, and each block of "
         "the root file system.",
         {{"DIR", "Image directory"}},
         {{"host_runner image verify images/out/native", ""}}},
        {"image inspect",
         "Show what an image directory holds",
         "Reads the metadata; hashes nothing.",
         {{"DIR", "Image directory"}},
         {{"host_runner image inspect images/out/native", ""}}},
        {"image import",
         "Unpack a release archive of an image",
         "Takes a .tar.gz, .tar.xz or .tar.zst file or its http(s) URL, checks its SHA-256 and "
         "unpacks it.",
         {{"SOURCE", "File or URL"}},
         {{"host_runner image import dstack-0.5.3.tar.gz --sha256 HASH", ""}}},
        {"gpu list",
         "Show the GPUs and NVSwitches of this machine, and who holds them",
         "Address, model, NUMA node, driver and IOMMU group. The mode (confidential computing) is "
         "not shown by anything on the host, only by NVIDIA's own tools. Processes of other users "
         "are seen by root only.",
         {},
         {{"host_runner gpu list", ""}}},
        {"gpu reclaim",
         "Give back the devices of VMs whose runner was killed",
         "Binds each device that the journal of a dead instance names to the driver it had, and "
         "prints what became of it. Repeating it is safe. The exit code is 0 when nothing is left "
         "to give back.",
         {},
         {{"host_runner gpu reclaim", ""}}},
        {"compose check",
         "Explain what a compose file gives a VM of our own image",
         "Services, modules and their worlds, mounts, ports, files with their SHA-256, and the "
         "hash "
         "of app-compose.json that the VM is measured with. Starts nothing.",
         {{"FILE", "The compose file"}},
         {{"host_runner compose check configs/wasm.yaml", ""}}},
        {"config show",
         "Show every setting and where it comes from",
         "Later places win: /etc/host-runner/config.toml, the user's "
         "$XDG_CONFIG_HOME/host-runner/config.toml, HOST_RUNNER_* variables, the command line.",
         {},
         {{"host_runner config show", ""}}},
        {"completion",
         "Print a completion script for a shell",
         "Source it, or put it where the shell looks for completions.",
         {{"SHELL", "Which shell", true, false, "bash|zsh|fish"}},
         {{"source <(host_runner completion bash)", "for this shell"}}},
    };
}

std::string replace(std::string_view text, char from, char to) {
    std::string result(text);
    std::replace(result.begin(), result.end(), from, to);
    return result;
}

/// The options of `run` stand without their verb, because they are what people set.
bool stands_alone(const Option& option) {
    return option.verb.empty() || option.verb == "run";
}

} // namespace

std::span<const Verb> verbs() {
    static const std::vector<Verb> all = make_verbs();
    return all;
}

const Verb* find_verb(std::string_view name) {
    const auto found = std::find_if(verbs().begin(), verbs().end(),
                                    [&](const Verb& verb) { return verb.name == name; });
    return found == verbs().end() ? nullptr : &*found;
}

std::span<const Option> options() {
    return table;
}

std::vector<const Option*> options_of(std::string_view verb) {
    std::vector<const Option*> found;
    for (const auto& option : table)
        if (option.verb.empty() == verb.empty() && belongs_to(option, verb))
            found.push_back(&option);
    return found;
}

const Option* find_option(std::string_view verb, std::string_view name) {
    const auto found = std::find_if(table.begin(), table.end(), [&](const Option& option) {
        return belongs_to(option, verb) && option.name == name;
    });
    return found == table.end() ? nullptr : &*found;
}

std::vector<std::string_view> choices(std::string_view words) {
    std::vector<std::string_view> found;
    while (!words.empty()) {
        const auto end = std::min(words.find('|'), words.size());
        found.push_back(words.substr(0, end));
        words.remove_prefix(std::min(end + 1, words.size()));
    }
    return found;
}

std::vector<std::string_view> verbs_of(const Option& option) {
    auto verbs = choices(option.also);
    if (!option.verb.empty())
        verbs.insert(verbs.begin(), option.verb);
    return verbs;
}

std::string environment_name(const Option& option) {
    std::string name = stands_alone(option)
                           ? std::string(option.name)
                           : std::string(option.verb) + "_" + std::string(option.name);
    for (char& c : name)
        c = c == '-' || c == ' ' ? '_' : (c >= 'a' && c <= 'z' ? static_cast<char>(c - 32) : c);
    return "HOST_RUNNER_" + name;
}

std::string config_key(const Option& option) {
    if (stands_alone(option))
        return std::string(option.name);
    return replace(option.verb, ' ', '.') + "." + std::string(option.name);
}

} // namespace host_runner::config
