// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/doctor.hpp"

#include <map>
#include <set>
#include <string>

#include <fcntl.h>
#include <gmock/gmock.h>
#include <linux/magic.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fakes/host_fixture.hpp"
#include "fakes/image_directory.hpp"
#include "fakes/pci_machine.hpp"
#include "fakes/tdvf_firmware.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::instance {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

Result<UniqueFd> nobody() {
    return fail(ErrorCode::unavailable, "Connection refused");
}
Result<UniqueFd> somebody() {
    return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
}

/// A host that has everything, and a VM that needs all of it; a test takes one thing away.
class DoctorTest : public testing::Test {
public:
    DoctorTest() {
        host.cpu_flags("vmx tdx_host_platform")
            .write("/dev/kvm", "")
            .write("/sys/module/kvm_intel/parameters/tdx", "Y\n")
            .write("/etc/sgx_default_qcnl.conf", R"({"pccs_url": "https://localhost:8081/"})")
            .write("/dev/vhost-vsock", "")
            .write("/sys/class/iommu/dmar0/x", "")
            .write("/dev/iommu", "")
            .write("/sys/bus/pci/drivers/vfio-pci/bind", "")
            .write("/sys/devices/system/node/online", "0\n")
            .write("/sys/devices/system/node/node0/cpulist", "0-3\n")
            .write("/sys/devices/system/node/node0/meminfo",
                   "Node 0 MemTotal: 67108864 kB\nNode 0 MemFree: 33554432 kB\n")
            .write("/proc/self/mounts", "none /dev/hugepages hugetlbfs rw,pagesize=1024M 0 0\n"
                                        "none /sys/fs/cgroup/unified cgroup2 rw 0 0\n")
            .write("/proc/self/cgroup", "0::/\n")
            .write("/run/systemd/system/x", "")
            .write("/proc/meminfo", "MemTotal: 67108864 kB\nMemAvailable: 50331648 kB\n")
            .write("/image/ovmf.fd", tests::TdvfFirmware().build());
        const std::string gpu = "/sys/bus/pci/devices/0000:18:00.0";
        host.write(gpu + "/class", "0x030200\n")
            .write(gpu + "/vendor", "0x10de\n")
            .write(gpu + "/device", "0x2901\n")
            .write(gpu + "/numa_node", "0\n")
            .write(gpu + "/driver_override", "(null)\n")
            .write(gpu + "/resource", "0x0 0x0 0x0\n")
            .write("/sys/kernel/iommu_groups/30/devices/0000:18:00.0", "")
            .link(gpu + "/iommu_group", "../../../../kernel/iommu_groups/30");
        const std::string pool = "/sys/devices/system/node/node0/hugepages/hugepages-1048576kB";
        host.write(pool + "/nr_hugepages", "8\n").write(pool + "/free_hugepages", "6\n");

        needs.dstack_guest = needs.enclave_key_provider = true;
        needs.gpus = needs.numa = needs.hugepages = needs.egress = true;
        needs.bridge = "br0";
        needs.firmware = host.root().path("/image/ovmf.fd");
        needs.memory_bytes = 4 * gib;
        needs.disk_bytes = mib;
        needs.directory = host.root().root;

        edges.root = host.root();
        edges.vm_types = [this](const std::string&) -> Result<unsigned> {
            return vm_types;
        };
        edges.file_system_type = [this](const std::string&) -> Result<long> {
            return file_system;
        };
        edges.limits = [this] {
            return limits;
        };
        edges.connect_unix = [this](const std::string& path) {
            return listening.contains(path.substr(host.root().root.size())) ? somebody() : nobody();
        };
        edges.connect_tcp = [this](const std::string& name, std::uint16_t port) {
            return listening.contains(name + ":" + std::to_string(port)) ? somebody() : nobody();
        };
        edges.connect_vsock = [this](std::uint32_t cid, std::uint32_t port) {
            return listening.contains(std::to_string(cid) + ":" + std::to_string(port)) ? somebody()
                                                                                        : nobody();
        };
        edges.probe_qemu = [this](const std::string&) {
            return qemu;
        };
        edges.find_user_network = [this] {
            return user_network;
        };
        edges.find_passt = [this] {
            return passt;
        };
        edges.check_bridge = [this](const std::string&) {
            return bridge;
        };
        edges.qemu_account = [this](const Needs&) {
            return Result<std::optional<host::Account>>(account);
        };
        qemu->path = "/usr/bin/qemu-system-x86_64";
        qemu->version = "10.1.0";
        qemu->tdx_guest = qemu->tdx_quote_socket = true;
    }

    [[nodiscard]] Finding finding(std::string_view requirement) const {
        for (auto& each : examine(needs, edges))
            if (each.requirement == requirement)
                return each;
        ADD_FAILURE() << "no finding " << requirement;
        return {};
    }

    tests::HostFixture host;
    unsigned vm_types = 1U << 5U;
    long file_system = HUGETLBFS_MAGIC;
    host::ProcessLimits limits;
    std::set<std::string> listening{"2:4050", "localhost:8081", "127.0.0.1:3443",
                                    "/run/libvirt/libvirt-sock"};
    Result<qemu::Capabilities> qemu;
    std::string user_network = "/usr/lib/host-runner/user_network";
    usernet::Passt passt{"/usr/bin/passt", {}};
    Result<void> bridge;
    std::optional<host::Account> account;
    Needs needs;
    HostEdges edges;
};

TEST_F(DoctorTest, finds_nothing_wrong_with_a_host_that_has_everything) {
    for (const auto& finding : examine(needs, edges)) {
        EXPECT_EQ(finding.verdict, Verdict::pass) << finding.requirement << ": " << finding.found;
        EXPECT_THAT(finding.found, testing::Not(IsEmpty())) << finding.requirement;
        EXPECT_THAT(finding.remedy, IsEmpty()) << finding.requirement;
    }
    EXPECT_TRUE(require(needs, edges));
}

TEST_F(DoctorTest, has_a_name_of_its_own_for_each_requirement) {
    std::set<std::string_view> names;
    for (const auto& finding : examine(needs, edges))
        EXPECT_TRUE(names.insert(finding.requirement).second) << finding.requirement;
}

/// How a host lacks one thing.
struct Lack {
    std::string requirement;
    Verdict verdict;
    std::string found;
    std::string remedy;
    void (*take_away)(DoctorTest&);
};

class DoctorFinds : public DoctorTest, public testing::WithParamInterface<Lack> {};

TEST_P(DoctorFinds, what_is_missing_and_says_what_to_do) {
    const auto& lack = GetParam();
    lack.take_away(*this);
    const auto seen = finding(lack.requirement);
    EXPECT_EQ(seen.verdict, lack.verdict);
    EXPECT_THAT(seen.found, HasSubstr(lack.found));
    EXPECT_THAT(seen.remedy, HasSubstr(lack.remedy));
    EXPECT_THAT(seen.remedy, testing::Not(IsEmpty()));
    const auto required = require(needs, edges);
    EXPECT_EQ(required.has_value(), lack.verdict != Verdict::fail);
    if (!required) {
        EXPECT_THAT(required.error().message, HasSubstr(lack.found));
        EXPECT_THAT(required.error().hint, HasSubstr(lack.remedy));
    }
}

INSTANTIATE_TEST_SUITE_P(OneLack, DoctorFinds,
                         testing::Values(
                             Lack{"virtualisation", Verdict::fail, "neither vmx nor svm", "BIOS",
                                  [](DoctorTest& test) {
                                      test.host.cpu_flags("tdx_host_platform");
                                  }},
                             Lack{"kvm", Verdict::fail, "/dev/kvm does not exist", "modprobe",
                                  [](DoctorTest& test) {
                                      test.host.remove("/dev/kvm");
                                  }},
                             Lack{"tdx-processor", Verdict::fail, "tdx_host_platform is not",
                                  "BIOS",
                                  [](DoctorTest& test) {
                                      test.host.cpu_flags("vmx");
                                  }},
                             Lack{"tdx-parameter", Verdict::fail, "is not Y", "kvm_intel.tdx=1",
                                  [](DoctorTest& test) {
                                      test.host.write("/sys/module/kvm_intel/parameters/tdx",
                                                      "N\n");
                                  }},
                             Lack{"tdx-vms", Verdict::fail, "offers no TDX VMs", "6.16",
                                  [](DoctorTest& test) {
                                      test.vm_types = 1;
                                  }},
                             Lack{"qemu", Verdict::fail, "no QEMU", "apt install",
                                  [](DoctorTest& test) {
                                      test.qemu = fail(ErrorCode::not_found, "There is no QEMU",
                                                       "apt install it");
                                  }},
                             Lack{"qemu-user", Verdict::warn, "QEMU runs as root",
                                  "make the account host-runner",
                                  [](DoctorTest& test) {
                                      test.edges.is_root = true;
                                  }},
                             Lack{"qemu-tdx", Verdict::fail, "QEMU 10.1.0 has no tdx-guest",
                                  "10.1 or newer",
                                  [](DoctorTest& test) {
                                      test.qemu->tdx_guest = false;
                                  }},
                             Lack{"qemu-tdx", Verdict::warn, "has tdx-guest", "no quotes",
                                  [](DoctorTest& test) {
                                      test.qemu->tdx_quote_socket = false;
                                  }},
                             Lack{"firmware", Verdict::fail, "ovmf.fd", "TDX",
                                  [](DoctorTest& test) {
                                      test.host.write("/image/ovmf.fd", "SeaBIOS");
                                  }},
                             Lack{"quote-service", Verdict::warn,
                                  "vsock:2:4050 does not answer: Connection refused", "start qgsd",
                                  [](DoctorTest& test) {
                                      test.listening.erase("2:4050");
                                  }},
                             Lack{"quote-service", Verdict::warn, "vsock:2:4050 does not answer",
                                  "--qgs unix:/var/run/tdx-qgs/qgs.socket",
                                  [](DoctorTest& test) {
                                      test.listening.erase("2:4050");
                                      test.host.write("/var/run/tdx-qgs/qgs.socket", "");
                                  }},
                             Lack{"quote-service", Verdict::warn, "unix:/run/qgs does not answer",
                                  "qgsd",
                                  [](DoctorTest& test) {
                                      test.needs.qgs = spec::QgsAddress{0, 0, "/run/qgs"};
                                  }},
                             Lack{"collateral", Verdict::warn, "does not exist",
                                  "libsgx-dcap-default-qpl",
                                  [](DoctorTest& test) {
                                      test.host.remove("/etc/sgx_default_qcnl.conf");
                                  }},
                             Lack{"collateral", Verdict::warn,
                                  "https://localhost:8081/ does not answer", "PCCS",
                                  [](DoctorTest& test) {
                                      test.listening.erase("localhost:8081");
                                  }},
                             Lack{"key-provider", Verdict::warn, "127.0.0.1:3443", "--key-provider",
                                  [](DoctorTest& test) {
                                      test.listening.erase("127.0.0.1:3443");
                                  }},
                             Lack{"vhost-vsock", Verdict::warn, "no vsock", "modprobe vhost_vsock",
                                  [](DoctorTest& test) {
                                      test.host.remove("/dev/vhost-vsock");
                                  }},
                             Lack{"iommu", Verdict::fail, "No IOMMU", "intel_iommu=on",
                                  [](DoctorTest& test) {
                                      test.host.remove("/sys/class/iommu");
                                  }},
                             Lack{"iommufd", Verdict::fail, "/dev/iommu", "CONFIG_IOMMUFD",
                                  [](DoctorTest& test) {
                                      test.host.remove("/dev/iommu");
                                  }},
                             Lack{"vfio-pci", Verdict::fail, "vfio-pci", "modprobe vfio-pci",
                                  [](DoctorTest& test) {
                                      test.host.remove("/sys/bus/pci/drivers");
                                  }},
                             Lack{"numa", Verdict::fail, "no NUMA support", "CONFIG_NUMA",
                                  [](DoctorTest& test) {
                                      test.host.remove("/sys/devices/system/node");
                                      test.needs.hugepages = false;
                                  }},
                             Lack{"hugepages", Verdict::fail, "No hugepages are set aside",
                                  "vm.nr_hugepages",
                                  [](DoctorTest& test) {
                                      test.host.remove("/sys/devices/system/node/node0/hugepages");
                                  }},
                             Lack{"hugetlbfs", Verdict::fail, "No hugetlbfs", "mount -t hugetlbfs",
                                  [](DoctorTest& test) {
                                      test.host.write("/proc/self/mounts", "");
                                  }},
                             Lack{"hugetlbfs", Verdict::fail, "is no hugetlbfs",
                                  "mount -t hugetlbfs",
                                  [](DoctorTest& test) {
                                      test.file_system = TMPFS_MAGIC;
                                  }},
                             Lack{"memory", Verdict::fail, "A TD of 128G does not fit", "--memory",
                                  [](DoctorTest& test) {
                                      test.needs.memory_bytes = 128 * gib;
                                  }},
                             Lack{"memory", Verdict::warn, "48.0 GiB available of 64.0 GiB",
                                  "may be killed",
                                  [](DoctorTest& test) {
                                      test.needs.memory_bytes = 60 * gib;
                                  }},
                             Lack{"locked-memory", Verdict::fail, "may lock 8.0 MiB",
                                  "LimitMEMLOCK",
                                  [](DoctorTest& test) {
                                      test.limits.locked_memory_bytes = 8 * mib;
                                  }},
                             Lack{"open-files", Verdict::warn, "up to 256", "ulimit -n",
                                  [](DoctorTest& test) {
                                      test.limits.open_files = 256;
                                  }},
                             Lack{"disk", Verdict::warn, "free in", "the data disk",
                                  [](DoctorTest& test) {
                                      test.needs.disk_bytes = std::uint64_t{1} << 60U;
                                  }},
                             Lack{"cgroup", Verdict::warn, "no cgroup of version 2",
                                  "Delegate=memory pids",
                                  [](DoctorTest& test) {
                                      test.host.write("/proc/self/cgroup", "3:memory:/\n");
                                      test.host.remove("/run/systemd");
                                  }},
                             Lack{"cgroup", Verdict::warn, "no controller pids", "cgroup v1",
                                  [](DoctorTest& test) {
                                      test.host.write("/sys/fs/cgroup/unified/cgroup.controllers",
                                                      "hugetlb memory\n");
                                      test.host.remove("/run/systemd");
                                  }},
                             Lack{"libvirt", Verdict::not_needed, "No libvirt daemon answers",
                                  "apt install",
                                  [](DoctorTest& test) {
                                      test.listening.erase("/run/libvirt/libvirt-sock");
                                  }},
                             Lack{"user-network", Verdict::warn, "user_network", "libslirp0",
                                  [](DoctorTest& test) {
                                      test.user_network.clear();
                                  }},
                             Lack{"user-network", Verdict::fail, "user_network", "libslirp0",
                                  [](DoctorTest& test) {
                                      test.needs.host_services = true;
                                      test.user_network.clear();
                                  }},
                             Lack{"passt", Verdict::not_needed, "no program passt",
                                  "apt install passt",
                                  [](DoctorTest& test) {
                                      test.passt.path.clear();
                                  }},
                             Lack{"passt", Verdict::fail, "passt is not used: too old", "newer",
                                  [](DoctorTest& test) {
                                      test.needs.user_network = spec::UserNetwork::passt;
                                      test.passt.problem = "too old";
                                  }},
                             Lack{"bridge", Verdict::fail, "no bridge br0", "ip link",
                                  [](DoctorTest& test) {
                                      test.bridge = fail(ErrorCode::not_found,
                                                         "There is no bridge br0", "ip link");
                                  }}),
                         [](const auto& lack) {
                             std::string name = lack.param.requirement + std::to_string(lack.index);
                             std::erase(name, '-');
                             return name;
                         });

TEST_F(DoctorTest, a_vm_by_libvirt_needs_the_libvirt_of_its_uri) {
    needs.libvirt = true;
    edges.ask_libvirt = [] {
        return Result<std::string>("libvirt 9.0.0 at qemu:///system");
    };
    const auto finding_of = [&] {
        for (auto& finding : examine(needs, edges))
            if (finding.requirement == "libvirt")
                return finding;
        return Finding{};
    };
    EXPECT_EQ(finding_of().verdict, Verdict::pass);
    EXPECT_EQ(finding_of().found, "libvirt 9.0.0 at qemu:///system");
    edges.ask_libvirt = []() -> Result<std::string> {
        return fail(ErrorCode::unavailable, "no daemon", "start it");
    };
    EXPECT_EQ(finding_of().verdict, Verdict::fail);
    EXPECT_EQ(finding_of().remedy, "start it");
}

TEST_F(DoctorTest, forgives_what_this_vm_does_without) {
    needs = Needs{};
    needs.tdx = false;
    needs.accelerator = spec::AcceleratorChoice::tcg;
    needs.directory = host.root().root;
    for (const auto* path : {"/dev", "/sys", "/etc"})
        host.remove(path);
    host.cpu_flags("").write("/proc/self/mounts", "");
    qemu->tdx_guest = false;
    vm_types = 1;
    listening.clear();
    user_network.clear();
    passt = {};
    EXPECT_TRUE(require(needs, edges));
    const auto findings = examine(needs, edges);
    EXPECT_FALSE(has_failed(findings));
    for (const auto& finding : findings) {
        const bool always = finding.requirement == "qemu" || finding.requirement == "qemu-user" ||
                            finding.requirement == "cgroup" || finding.requirement == "memory" ||
                            finding.requirement == "open-files" || finding.requirement == "disk";
        const bool no_limit = finding.requirement == "locked-memory";
        EXPECT_EQ(finding.verdict, always || no_limit ? Verdict::pass : Verdict::not_needed)
            << finding.requirement << ": " << finding.found;
        if (finding.verdict == Verdict::not_needed) {
            EXPECT_THAT(finding.found, HasSubstr("; needed only for ")) << finding.requirement;
        }
    }
}

/// As root: the kernel is asked what QEMU's account may do.
class DoctorAsRoot : public DoctorTest {
protected:
    void SetUp() override {
        if (::geteuid() != 0)
            GTEST_SKIP() << "only root can act as another account";
        account = host::Account{"somebody", 64000, 64000};
        ASSERT_EQ(::chmod(host.root().root.c_str(), 0755), 0);
        qemu->path = host.root().path("/qemu");
        host.write("/qemu", "").write("/image/kernel", "");
        ASSERT_EQ(::chmod(qemu->path.c_str(), 0755), 0);
    }
};

TEST_F(DoctorAsRoot, names_the_account_and_what_it_may_not_read) {
    needs.image_files = {host.root().path("/image/kernel")};
    ASSERT_EQ(::chmod(host.root().path("/image").c_str(), 0700), 0); // QEMU gets its files open
    EXPECT_EQ(finding("qemu-user").found, "QEMU runs as somebody");
    EXPECT_EQ(finding("qemu-user").verdict, Verdict::pass);
    ASSERT_EQ(::chmod(needs.image_files.front().c_str(), 0600), 0);
    const auto refused = finding("qemu-user");
    EXPECT_EQ(refused.verdict, Verdict::fail);
    EXPECT_THAT(refused.found, HasSubstr("cannot read " + needs.image_files.front()));
    EXPECT_THAT(refused.remedy, HasSubstr("chmod o+r"));
}

TEST_F(DoctorAsRoot, wants_a_qemu_that_the_account_may_execute) {
    ASSERT_EQ(::chmod(qemu->path.c_str(), 0700), 0);
    EXPECT_THAT(finding("qemu-user").found, HasSubstr("cannot execute " + qemu->path));
}

TEST_F(DoctorAsRoot, asks_the_quote_service_and_kvm_as_the_account) {
    edges.connect_unix = [](const std::string& path) -> Result<UniqueFd> {
        UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        if (!fd)
            return fail_errno("Cannot connect", errno);
        return fd;
    };
    needs.qgs = spec::QgsAddress{0, 0, "/run/qgs"};
    host.write("/run/qgs", "");
    for (const auto* path : {"/run/qgs", "/dev/kvm"})
        ASSERT_EQ(::chmod(host.root().path(path).c_str(), 0666), 0);
    EXPECT_EQ(finding("quote-service").verdict, Verdict::pass);
    EXPECT_EQ(finding("kvm").verdict, Verdict::pass);
    for (const auto* path : {"/run/qgs", "/dev/kvm"})
        ASSERT_EQ(::chmod(host.root().path(path).c_str(), 0600), 0);
    EXPECT_THAT(finding("quote-service").found, HasSubstr("Permission denied"));
    EXPECT_EQ(finding("kvm").verdict, Verdict::fail);
}

TEST_F(DoctorTest, shows_each_gpu_and_what_stands_in_its_way) {
    const auto machine = tests::PciMachine::with_eight_gpus();
    edges.root = machine.root();
    needs.gpus = true;
    std::map<std::string, Finding> gpus;
    for (auto& each : examine(needs, edges))
        if (each.requirement == "gpu")
            gpus.emplace(each.found.substr(0, 12), each);
    EXPECT_EQ(gpus.size(), 12U);
    EXPECT_EQ(gpus.at("0000:9a:00.0").verdict, Verdict::pass);
    EXPECT_THAT(gpus.at("0000:9a:00.0").found,
                HasSubstr("driver nvidia, IOMMU group 34, NUMA node 1, largest BAR 256G"));
    EXPECT_EQ(gpus.at("0000:3a:00.0").verdict, Verdict::warn);
    EXPECT_THAT(gpus.at("0000:3a:00.0").found, HasSubstr("train"));
    edges.root = host.root();
    EXPECT_EQ(finding("gpu").verdict, Verdict::pass);
    needs.gpus = false;
    host.remove("/sys/bus/pci/devices/0000:18:00.0");
    EXPECT_EQ(finding("gpu").verdict, Verdict::not_needed);
    EXPECT_EQ(finding("gpu").found, "This host has no GPU; needed only for VMs with GPUs (--gpus)");
}

TEST_F(DoctorTest, warns_that_a_vm_without_kvm_is_slow_and_refuses_where_kvm_was_asked_for) {
    needs.tdx = false;
    host.cpu_flags("");
    EXPECT_EQ(finding("virtualisation").verdict, Verdict::warn);
    needs.accelerator = spec::AcceleratorChoice::kvm;
    EXPECT_EQ(finding("virtualisation").verdict, Verdict::fail);
}

TEST_F(DoctorTest, looks_at_the_image_and_the_compose_file_and_the_ports_of_a_run) {
    tests::ImageDirectory image;
    image.seal();
    spec::VmSpec spec;
    spec.tee = spec::Tee::none;
    spec.image_path = image.path();
    spec.memory_bytes = gib;
    spec.disk_bytes = mib;
    spec.ports = spec::parse_port_mappings("tcp:127.0.0.1:0:80").value();
    const Registry registry(host.root().path("/state"));
    const auto named = [&] {
        std::map<std::string_view, Finding> findings;
        for (auto& each : examine_run(spec, registry, edges))
            findings.emplace(each.requirement, each);
        return findings;
    };
    auto findings = named();
    EXPECT_EQ(findings.at("image").verdict, Verdict::pass) << findings.at("image").found;
    EXPECT_THAT(findings.at("compose").found, HasSubstr("no services"));
    EXPECT_EQ(findings.at("port").verdict, Verdict::pass) << findings.at("port").found;
    EXPECT_EQ(findings.at("tdx-vms").verdict, Verdict::pass);

    spec.compose_path = host.root().path("/compose.yaml");
    EXPECT_EQ(named().at("compose").verdict, Verdict::fail);
    EXPECT_FALSE(named().contains("port"));

    image.write("bzImage", "another kernel");
    EXPECT_EQ(named().at("image").verdict, Verdict::fail);
    EXPECT_FALSE(named().contains("compose"));
    EXPECT_TRUE(named().contains("qemu"));
}

} // namespace
} // namespace host_runner::instance
