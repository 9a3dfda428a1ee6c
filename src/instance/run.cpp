// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/run.hpp"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <functional>
#include <optional>
#include <thread>
#include <utility>

#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/event_loop.hpp"
#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/base/version.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/host/accelerator.hpp"
#include "host_runner/host/cgroup.hpp"
#include "host_runner/host/device_binder.hpp"
#include "host_runner/host/disk_space.hpp"
#include "host_runner/host/gpu.hpp"
#include "host_runner/host/hugepages.hpp"
#include "host_runner/host/memory.hpp"
#include "host_runner/host/pci_hole.hpp"
#include "host_runner/host/ports.hpp"
#include "host_runner/host/tap.hpp"
#include "host_runner/host/tdx.hpp"
#include "host_runner/host/vsock.hpp"
#include "host_runner/hostapi/host_api.hpp"
#include "host_runner/image/image.hpp"
#include "host_runner/instance/claims.hpp"
#include "host_runner/instance/control_server.hpp"
#include "host_runner/instance/delivery.hpp"
#include "host_runner/instance/doctor.hpp"
#include "host_runner/instance/held_devices.hpp"
#include "host_runner/instance/logs.hpp"
#include "host_runner/instance/plan.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/instance/supervisor.hpp"
#include "host_runner/instance/vm_network.hpp"
#include "host_runner/protocol/channel.hpp"
#include "host_runner/qemu/capabilities.hpp"
#include "host_runner/qemu/launch_plan.hpp"
#include "host_runner/usernet/passt.hpp"
#include "qemu_account.hpp"
#include "state_folder.hpp"

namespace host_runner::instance {

namespace {

using std::chrono::milliseconds;
using Clock = EventLoop::Clock;

/// Records and logs of ended temporary instances that stay.
constexpr std::size_t kept_records = 20;
/// Of the guest API when a dstack guest has vsock (dstack v0.5.11 guest-agent, default port).
constexpr std::uint32_t dstack_guest_api_port = 8000;
/// For records, logs, the share disk's own structures and the data disk's first clusters.
constexpr std::uint64_t needed_free_bytes = 64 * mib;
/// Above those that QEMU is given for other reasons.
constexpr int first_handed_fd = 16;
/// Stands for an instance's id where none is taken.
constexpr std::string_view placeholder_id = "000000000000";

bool is_ours(const image::Image& image) {
    return image.guest == image::Guest::host_runner;
}

/// Everything that can be known, and fail, before anything is taken.
struct Survey {
    image::Image image;
    qemu::Capabilities capabilities;
    GuestFiles files;
    HostFacts host;
};

std::string current_directory() {
    std::error_code problem;
    const auto path = std::filesystem::current_path(problem);
    return problem ? std::string() : path.string();
}

/// Without a data disk of its own key the guest of a dstack image makes a random one at each boot,
/// and cannot open what the last boot encrypted.
bool needs_fresh_disk(const spec::VmSpec& spec, const image::Image& image) {
    return !is_ours(image) && spec.key_provider.kind == spec::KeyProviderKind::none;
}

qemu::Accelerator accelerator_of(host::AcceleratorKind kind) {
    return kind == host::AcceleratorKind::kvm ? qemu::Accelerator::kvm : qemu::Accelerator::tcg;
}

Result<HostFacts> look_at_host(const spec::VmSpec& spec, const image::Image& image) {
    HostFacts facts;
    if (spec.tee == spec::Tee::tdx) {
        facts.accelerator = qemu::Accelerator::kvm;
        facts.accelerator_reason = "KVM: a TD runs on nothing else";
    } else {
        HR_TRY(auto decision, host::choose_accelerator(spec.accelerator));
        facts.accelerator = accelerator_of(decision.kind);
        facts.accelerator_reason = std::move(decision.reason);
    }
    HR_TRY(facts.memory, host::read_memory());
    facts.online_cpus = std::max(1U, std::thread::hardware_concurrency());
    HR_TRY(facts.numa, read_host_numa(spec));
    if (!is_ours(image))
        facts.has_vhost_vsock = host::VhostVsock().open().has_value();
    return facts;
}

/// Only what the choice depends on is looked for.
Result<usernet::Programs> look_at_network_programs(const spec::VmSpec& spec,
                                                   const image::Image& image,
                                                   const GuestFiles& files,
                                                   ProcessLauncher& launcher,
                                                   const std::string& cache_directory) {
    usernet::Programs programs;
    HR_TRY(const bool egress, wants_egress(spec, image, files));
    const auto asked = spec.network.user;
    if (spec.network.mode != spec::NetworkMode::user || asked == spec::UserNetwork::qemu)
        return programs;
    programs.user_network = usernet::find_user_network();
    if (asked == spec::UserNetwork::passt ||
        (asked == spec::UserNetwork::automatic && egress && spec.host_services.empty())) {
        auto passt = usernet::find_passt(launcher, cache_directory);
        programs.passt = std::move(passt.path);
        programs.passt_problem = std::move(passt.problem);
    }
    return programs;
}

bool wants_gpus(const spec::VmSpec& spec) {
    return spec.all_gpus || !spec.gpus.empty();
}

Result<void> look_at_gpus(const spec::VmSpec& spec, const host::HostRoot& root, HostFacts& facts) {
    if (!wants_gpus(spec))
        return {};
    facts.physical_address_bits = host::emulated_physical_address_bits;
    if (facts.accelerator == qemu::Accelerator::kvm) {
        HR_TRY(facts.physical_address_bits, host::read_physical_address_bits(root));
    }
    HR_TRY(facts.gpus,
           spec.all_gpus ? host::select_all_gpus(root) : host::select_gpus(spec.gpus, root));
    // A machine whose firmware names no node has one.
    for (const auto& gpu : facts.gpus.gpus)
        facts.numa.gpu_nodes.push_back(gpu.numa_node.value_or(0));
    return {};
}

/// A dead instance's devices seem free, but belong to the host's drivers.
/// @param except_id  of the run that asks; it gives its own back by itself
Result<void> check_not_held(const Registry& registry, const host::HostRoot& root,
                            const host::GpuSelection& selection, const std::string& except_id) {
    if (selection.empty())
        return {};
    HR_TRY(const auto all, find_held_devices(registry, root, [](const Error& problem) {
               log::warn("{}", problem.describe());
           }));
    for (const auto& address : selection.addresses())
        for (const auto& held : all)
            if (held.id != except_id &&
                std::find(held.devices.begin(), held.devices.end(), address) != held.devices.end())
                return fail(ErrorCode::wrong_state,
                            fmt::format("Device {} was not given back by instance {}, which was "
                                        "killed",
                                        spec::format_pci_address(address), held.label()),
                            "host_runner gpu reclaim gives it back to the host");
    return {};
}

std::string list_of(const std::vector<spec::PciAddress>& addresses) {
    std::string text;
    for (const auto& address : addresses)
        text += (text.empty() ? "" : ", ") + spec::format_pci_address(address);
    return text;
}

/// An empty `cache_directory` remembers nothing.
Result<Survey> survey(const spec::VmSpec& spec, ProcessLauncher& launcher,
                      const std::string& cache_directory) {
    Survey result;
    HR_TRY(result.image, image::load_image(spec.image_path));
    HR_TRY(result.files, make_guest_files(spec, result.image));
    HR_TRY(result.host, look_at_host(spec, result.image));
    HR_TRY(result.host.network_programs,
           look_at_network_programs(spec, result.image, result.files, launcher, cache_directory));
    HR_CHECK(image::require_verified(result.image, cache_directory));
    HR_TRY(result.capabilities,
           qemu::probe_capabilities(launcher, spec.qemu_path, cache_directory));
    return result;
}

enum class Keep {
    disk,    ///< And the identity: of a named instance.
    records, ///< And logs only.
};

/// Removes what only a running VM needs.
Result<void> remove_run_files(const InstancePaths& paths, Keep keep) {
    std::vector<std::string> files{paths.share_image(),        paths.share_image() + ".tmp",
                                   paths.data_disk() + ".tmp", paths.qmp_socket(),
                                   paths.control_socket(),     paths.console_socket()};
    for (const auto& port : protocol::channel_ports)
        files.push_back(paths.channel_socket(port.number));
    if (keep == Keep::records) // the disk first: without its identity it is worth nothing
        files.insert(files.end(), {paths.data_disk(), paths.instance_info(),
                                   join_path(paths.directory, "disk.new")});
    for (const auto& file : files)
        HR_CHECK(remove_file(file));
    constexpr std::string_view app_marker = "app-compose.json";
    if (path_exists(join_path(paths.app(), app_marker)))
        return remove_tree(paths.app(), std::string(app_marker));
    return {};
}

/// The folder for the VM's memory, which is of one instance alone. QEMU removes its files as soon
/// as it has opened them, so that their pages are free with its end; one that is killed in between
/// leaves them.
/// @return how many files there were
Result<std::size_t> remove_hugepage_directory(const Record& record) {
    const auto& directory = record.hugepage_directory;
    if (directory.empty() || !path_exists(directory))
        return 0U;
    if (!directory.ends_with(hugepage_folder(record.id)))
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The record of {} names {} as its folder for hugepages", record.id,
                                directory));
    HR_CHECK(host::check_hugetlbfs(directory));
    HR_TRY(const auto files, list_directory(directory));
    for (const auto& file : files)
        HR_CHECK(remove_file(join_path(directory, file)));
    if (::rmdir(directory.c_str()) != 0)
        return fail_errno(fmt::format("Cannot remove {}", directory), errno);
    return files.size();
}

std::string cgroup_name(const std::string& id) {
    return "vm-" + id;
}

/// A runner that was killed could not remove the disk of its temporary instance, nor give hugepages
/// back; its record and logs stay. To be called with the claims held.
/// @param say gets a line for what the user should know
Result<void> clear_up_after_dead_runners(const Registry& registry,
                                         const std::function<void(std::string)>& say) {
    HR_TRY(const auto ids, instance_ids(registry));
    for (const auto& id : ids) {
        const auto paths = registry.paths(id);
        const auto record = read_record(paths);
        const bool has_pages = record && !record->hugepage_directory.empty() &&
                               path_exists(record->hugepage_directory);
        const bool has_cgroup = record && record->cgroup.ends_with("/" + cgroup_name(id)) &&
                                path_exists(record->cgroup);
        if (!has_pages && !has_cgroup && !path_exists(paths.data_disk()))
            continue;
        const auto lock = try_lock_file(paths.lock());
        if (!lock || !record)
            continue;
        if (has_pages) {
            HR_TRY(const auto files, remove_hugepage_directory(*record));
            say(fmt::format("Instance {} was killed: its folder for hugepages, with {} files, is "
                            "removed",
                            id, files));
        }
        if (has_cgroup)
            HR_CHECK(host::remove_cgroup(record->cgroup));
        if (record->name.empty())
            HR_CHECK(remove_run_files(paths, Keep::records));
    }
    return {};
}

std::uint64_t delivered_bytes(const GuestFiles& files) {
    std::uint64_t sum = files.app_compose.size();
    for (const auto& file : files.files)
        sum += file.entry.size;
    return 2 * sum; // in the app folder and in the share disk
}

} // namespace

std::string_view to_string(RunEvent::Kind kind) noexcept {
    switch (kind) {
    case RunEvent::Kind::warning:
        return "warning";
    case RunEvent::Kind::notice:
        return "notice";
    case RunEvent::Kind::created:
        return "created";
    case RunEvent::Kind::port:
        return "port";
    case RunEvent::Kind::started:
        return "started";
    case RunEvent::Kind::progress:
        return "progress";
    case RunEvent::Kind::boot_error:
        return "boot_error";
    case RunEvent::Kind::ready:
        return "ready";
    case RunEvent::Kind::stop_step:
        return "stop_step";
    case RunEvent::Kind::restart:
        return "restart";
    case RunEvent::Kind::ended:
        return "ended";
    }
    return "?";
}

namespace {

/// One call of run_instance().
class Run {
public:
    Run(const spec::VmSpec& spec, const RunObserver& observer, const DeviceEdge& devices,
        Backend* backend, Registry registry)
        : spec_(spec), observer_(observer), device_root_(devices.root), backend_(backend),
          kernel_(devices.kernel != nullptr ? *devices.kernel : real_kernel_),
          registry_(std::move(registry)) {}
    Run(const Run&) = delete;
    Run& operator=(const Run&) = delete;

    Result<RunOutcome> execute() {
        if (backend_ != nullptr) {
            HR_TRY(backend_words_, backend_->connect(spec_.tee));
        }
        if (spec_.tee == spec::Tee::tdx)
            HR_CHECK(host::check_tdx());
        HR_CHECK(require_space(needed_free_bytes));
        HR_TRY(survey_, survey(spec_, launcher_, registry_.cache_directory()));
        HR_CHECK(look_at_gpus(spec_, device_root_, survey_.host));
        if (backend_ == nullptr) // libvirt says itself as whom it runs QEMU
            HR_CHECK(choose_account());
        // With a stand-in for the id: what fails does so before anything is taken.
        HR_CHECK(make_plan(std::string(placeholder_id)));
        HR_CHECK(qemu::build_argv(plan_.launch, survey_.capabilities));
        if (backend_ != nullptr)
            HR_CHECK(backend_->describe(plan_.launch, plan_.placement, survey_.capabilities));
        HR_CHECK(require_host());
        HR_CHECK(require_space(needed_free_bytes + delivered_bytes(survey_.files)));
        HR_CHECK(say_what_is_known());
        HR_CHECK(watch_signals());
        HR_CHECK(claim());
        auto ran = supervise();
        release();
        if (!ran) {
            undo(ran.error());
            return tl::unexpected<Error>(std::move(ran).error());
        }
        HR_ASSERT(end_.has_value());
        leave_record();
        return RunOutcome{record_.id, *end_};
    }

private:
    // --- before anything is taken --------------------------------------------------------------

    Result<void> make_plan(const std::string& id) {
        HR_TRY(plan_, plan_launch({spec_, survey_.image, survey_.files, survey_.host, id,
                                   registry_.paths(id).directory}));
        return {};
    }

    Result<void> choose_account() {
        HR_TRY(account_,
               choose_qemu_account(spec_.user, survey_.host.accelerator == qemu::Accelerator::kvm,
                                   spec_.qgs, device_root_));
        return {};
    }

    /// What `doctor` looks at.
    Result<void> require_host() {
        auto edges = real_host(launcher_);
        edges.root = device_root_;
        edges.probe_qemu = [this](const std::string& /*program*/) -> Result<qemu::Capabilities> {
            return survey_.capabilities;
        };
        edges.qemu_account = [this](const Needs& /*needs*/) {
            return Result<std::optional<host::Account>>(account_);
        };
        if (backend_ != nullptr)
            edges.ask_libvirt = [this]() -> Result<std::string> {
                return backend_words_;
            };
        return require(
            needs_of(spec_, &survey_.image, plan_.launch.egress, registry_.instances_directory()),
            edges);
    }

    [[nodiscard]] Result<void> require_space(std::uint64_t bytes) const {
        return host::require_disk_space(registry_.instances_directory(), bytes, "a start")
            .map_error([](Error error) {
                if (error.hint.empty())
                    error.hint = "free some space (host_runner prune removes old records), or set "
                                 "HOST_RUNNER_HOME to a folder on a larger disk";
                return error;
            });
    }

    Result<void> say_what_is_known() {
        for (const auto& warning : plan_.warnings)
            emit(RunEvent::Kind::warning, warning);
        HR_TRY(const auto disk_warning, host::warn_disk_space(registry_.instances_directory(),
                                                              spec_.disk_bytes, "the data disk"));
        if (disk_warning)
            emit(RunEvent::Kind::warning, *disk_warning);
        emit(RunEvent::Kind::notice, survey_.host.accelerator_reason);
        if (!plan_.network.notice.empty())
            emit(RunEvent::Kind::notice, plan_.network.notice);
        if (backend_ != nullptr)
            emit(RunEvent::Kind::notice, fmt::format("QEMU is started by {}", backend_words_));
        if (const auto& placement = plan_.placement; !placement.host_nodes.empty())
            emit(RunEvent::Kind::notice, describe(placement));
        for (const auto& notice : survey_.files.notices)
            emit(RunEvent::Kind::notice, notice);
        return {};
    }

    Result<void> watch_signals() {
        HR_TRY(loop_, EventLoop::create());
        // A reader of our output that goes away must not take the VM with it, and a parent that
        // ignores its children must not make ours unwaitable.
        ::signal(SIGPIPE, SIG_IGN);
        ::signal(SIGCHLD, SIG_DFL);
        const auto on_signal = [this](int signal) {
            log::info("SIG{}: stopping", ::sigabbrev_np(signal));
            supervisor_->hurry_stop();
        };
        struct sigaction hangup {};
        ::sigaction(SIGHUP, nullptr, &hangup);
        if (hangup.sa_handler == SIG_IGN) // nohup: a closed terminal is no reason to stop
            return loop_->watch_signals({SIGINT, SIGTERM}, on_signal);
        return loop_->watch_signals({SIGINT, SIGTERM, SIGHUP}, on_signal);
    }

    // --- what others must not take at the same time --------------------------------------------

    Result<void> claim() {
        HR_TRY(auto claims, Claims::begin(registry_));
        report(clear_up_after_dead_runners(registry_, [this](std::string line) {
            emit(RunEvent::Kind::notice, std::move(line));
        }));
        HR_TRY(claim_, claims.open(spec_.name));
        HR_CHECK(make_plan(claim_.id));
        asked_ports_ = plan_.launch.ports;
        HR_CHECK(settle_ports(claims));
        if (plan_.launch.channel == qemu::ChannelMode::vsock) {
            host::VhostVsock device;
            HR_TRY(auto claimed, host::claim_cid(device));
            plan_.launch.vsock_cid = claimed.cid;
            vsock_fd_ = std::move(claimed.fd);
        }
        HR_CHECK(check_not_held(registry_, device_root_, survey_.host.gpus, claim_.id));
        fill_record();
        HR_CHECK(claims.publish(claim_, record_));
        paths_ = registry_.paths(claim_.id);
        return {};
    }

    /// The ports as they were asked for, each with a host port that is free now.
    Result<void> settle_ports(const Claims& claims) {
        std::vector<spec::PortMapping> settled;
        for (const auto& asked : asked_ports_) {
            if (asked.host_port != 0)
                if (const auto owner = claims.port_owner(asked, claim_.id))
                    return fail(ErrorCode::already_exists,
                                fmt::format("Port {} is taken by instance {}",
                                            spec::format_port_mapping(asked), *owner),
                                "choose another host port, or 0 for a free one");
            const auto taken = [&](const spec::PortMapping& candidate) {
                const auto clashes = [&](const auto& other) {
                    return spec::conflicts(candidate, other);
                };
                return claims.port_owner(candidate, claim_.id).has_value() ||
                       std::any_of(settled.begin(), settled.end(), clashes) ||
                       std::any_of(asked_ports_.begin(), asked_ports_.end(), clashes);
            };
            HR_TRY(auto mapping, host::settle_host_port(asked, taken));
            settled.push_back(std::move(mapping));
        }
        plan_.launch.ports = std::move(settled);
        return {};
    }

    void fill_record() {
        const auto& image = survey_.image;
        const auto& launch = plan_.launch;
        record_.id = claim_.id;
        record_.name = spec_.name;
        record_.started_ms = unix_time_ms();
        record_.created_ms = claim_.previous ? claim_.previous->created_ms : record_.started_ms;
        record_.image_directory = image.directory;
        record_.image_name = image.name;
        record_.os_image_hash = image.os_image_hash;
        record_.tee = spec::to_string(spec_.tee);
        record_.accelerator = accelerator_name(launch.accelerator);
        record_.cpus = launch.cpus;
        record_.memory_bytes = launch.memory_bytes;
        record_.disk_bytes = spec_.disk_bytes;
        record_.ports = launch.ports;
        record_.gpus = survey_.host.gpus.for_vm();
        record_.vsock_cid = launch.vsock_cid;
        record_.compose_path = spec_.compose_path.value_or("");
        record_.compose_hash = crypto::to_hex(survey_.files.compose_hash);
        record_.kernel_command_line = launch.command_line;
        record_.qemu_path = survey_.capabilities.path;
        record_.qemu_version = survey_.capabilities.version;
        record_.qemu_user = account_ ? account_->name : "";
        record_.working_directory = current_directory();
        record_.numa_nodes = plan_.placement.host_nodes;
        record_.hugepage_bytes = plan_.placement.page_bytes;
        if (backend_ == nullptr) {
            record_.hugepage_directory = launch.hugepage_path;
        } else {
            record_.backend = backend_->name();
            record_.backend_address = backend_->address();
            record_.backend_machine = backend_->machine_name(claim_.id);
        }
        record_.network = usernet::to_string(plan_.network.backend);
        if (!launch.network.bridge.empty())
            record_.network += "=" + launch.network.bridge;
        record_.host_services = spec_.host_services;
        if (const auto self = identify_process(::getpid()))
            record_.runner = *self;
    }

    static std::string accelerator_name(qemu::Accelerator accelerator) {
        return accelerator == qemu::Accelerator::kvm ? "kvm" : "tcg";
    }

    // --- files and servers ---------------------------------------------------------------------

    Result<void> supervise() {
        HR_CHECK(prepare());
        HR_CHECK(supervisor_->start());
        HR_CHECK(write_record()); // with the command line
        return loop_->run();
    }

    Result<void> prepare() {
        HR_TRY(events_, EventsLog::open(paths_.events_log()));
        emit(RunEvent::Kind::created, claim_.id);
        for (const auto& mapping : plan_.launch.ports)
            emit(RunEvent::Kind::port, spec::format_port_mapping(mapping));
        HR_TRY(auto logs, open_qemu_logs(record_.working_directory, paths_.directory, claim_.id));
        for (const auto& warning : logs.warnings)
            emit(RunEvent::Kind::warning, warning);
        record_.stdout_log = logs.stdout_path;
        record_.stderr_log = logs.stderr_path;
        HR_CHECK(take_devices());
        if (backend_ == nullptr) // libvirt has its own
            make_cgroup();
        HR_CHECK(make_supervisor(std::move(logs)));
        HR_CHECK(serve_host_api());
        network_.emplace(*loop_, launcher_, taps_, [this](std::string line) {
            emit(RunEvent::Kind::warning, std::move(line));
        });
        HR_CHECK(begin_network());
        HR_CHECK(make_hugepage_directory());
        HR_CHECK(write_guest_files());
        HR_CHECK(prepare_disk());
        HR_TRY(control_,
               ControlServer::listen(
                   *loop_, paths_.control_socket(),
                   {.status = [this] { return supervisor_->status(); },
                    .services = [this](auto done) { supervisor_->ask_services(std::move(done)); },
                    .stop =
                        [this](const StopRequest& request, auto on_step) {
                            supervisor_->request_stop(request, std::move(on_step));
                        }}));
        return {};
    }

    /// The VM starts without one, too: what gives cgroups is not everywhere.
    void make_cgroup() {
        const auto parent = host::find_delegated_cgroup(device_root_);
        if (!parent) {
            wants_scope_ = host::is_systemd_running(device_root_);
            return log::debug("{}", parent.error().message);
        }
        auto made =
            host::VmCgroup::make(*parent, cgroup_name(claim_.id), cgroup_limits(), real_kernel_);
        if (!made)
            return report(tl::unexpected<Error>(std::move(made).error()));
        if (!made->problem().empty()) // doctor says so as well, and once is enough
            log::info("QEMU has no limits of memory and tasks: {}", made->problem());
        record_.cgroup = made->directory();
        cgroup_ = std::move(*made);
    }

    /// Of QEMU itself a good part grows with the guest's memory; under TCG translated code takes up
    /// to 1 GiB. Its worker threads come and go, at most 64 for each of several pools.
    [[nodiscard]] host::CgroupLimits cgroup_limits() const {
        const auto guest = plan_.launch.memory_bytes;
        return {guest + guest / 16 + 2 * gib, plan_.launch.cpus + 512U};
    }

    /// Once QEMU runs: systemd takes only processes that are there.
    void enter_scope(const std::string& pid) {
        if (!wants_scope_)
            return;
        const auto name = fmt::format("host_runner-{}.scope", claim_.id);
        const auto moved =
            host::move_to_systemd_scope(launcher_, std::stoi(pid), name, cgroup_limits());
        if (!moved)
            return log::debug("{}", moved.error().message);
        record_.cgroup = name;
        report(write_record());
    }

    /// Goes on by itself while the guest's files are made.
    Result<void> begin_network() {
        if (backend_ != nullptr)
            return {}; // it has QEMU make its own, or opens the tap itself
        auto services = spec_.host_services;
        if (host_api_->loopback_port() != 0)
            services.push_back(host_api_->loopback_port());
        return network_->begin(plan_.launch, plan_.network.backend, survey_.host.network_programs,
                               services);
    }

    /// The descriptor for QEMU. A port that was lost meanwhile is replaced where any would do.
    Result<UniqueFd> finish_network() {
        constexpr unsigned max_tries = 3;
        for (unsigned tries = 1;; ++tries) {
            auto fd = network_->finish();
            if (fd || fd.error().code != ErrorCode::already_exists || tries == max_tries ||
                !take_other_ports())
                return fd;
            HR_CHECK(begin_network());
        }
    }

    [[nodiscard]] Result<void> make_hugepage_directory() const {
        const auto& directory = record_.hugepage_directory;
        if (directory.empty())
            return {};
        return make_directories(directory, 0700).map_error([&](Error error) {
            error.hint = fmt::format("this user needs write access to {}: mount it with -o uid=N",
                                     parent_path(directory));
            return error;
        });
    }

    Result<void> make_supervisor(QemuLogs logs) {
        SupervisorConfig config;
        config.id = claim_.id;
        config.paths = paths_;
        config.memory_bytes = plan_.launch.memory_bytes;
        config.has_services = is_ours(survey_.image);
        config.reports_progress = is_ours(survey_.image) || survey_.image.reports_progress;
        config.restart = spec_.restart;
        config.pinning = plan_.placement.pinning;
        config.starter = backend_;
        config.stop_timeout = spec_.stop_timeout;
        config.logs = std::move(logs);
        config.began = began_;
        switch (plan_.launch.channel) {
        case qemu::ChannelMode::virtio_serial:
            config.guest_api = net::connect_unix(paths_.channel_socket(protocol::guest_api_port));
            break;
        case qemu::ChannelMode::vsock:
            config.guest_api = net::connect_vsock(plan_.launch.vsock_cid, dstack_guest_api_port);
            break;
        case qemu::ChannelMode::tcp:
            break; // nothing leads into the guest
        }
        SupervisorHooks hooks;
        hooks.next_launch = [this](LaunchCause cause) {
            return next_launch(cause);
        };
        hooks.on_event = [this](const RunEvent& event) {
            if (event.kind == RunEvent::Kind::started)
                enter_scope(event.text);
            show(event);
        };
        hooks.on_end = [this](const End& end) {
            end_ = end;
            loop_->stop();
        };
        supervisor_.emplace(*loop_, launcher_, std::move(config), std::move(hooks));
        return {};
    }

    Result<void> serve_host_api() {
        hostapi::Callbacks callbacks;
        callbacks.on_event = [this](const protocol::Event& event) {
            supervisor_->on_guest_event(event);
        };
        callbacks.get_sealing_key = [](const std::string&) -> Result<std::string> {
            return fail(ErrorCode::unsupported, "This release of host_runner releases no keys yet",
                        "use --key-provider none");
        };
        const protocol::HostInfo info{spec_.name.empty() ? claim_.id : spec_.name,
                                      std::string(version)};
        switch (plan_.launch.channel) {
        case qemu::ChannelMode::virtio_serial: {
            HR_TRY(host_api_, hostapi::HostApi::serve_virtio_serial(
                                  *loop_, paths_.channel_socket(protocol::host_api_port), info,
                                  std::move(callbacks)));
            return {};
        }
        case qemu::ChannelMode::vsock: {
            HR_TRY(host_api_, hostapi::HostApi::serve_vsock(*loop_, plan_.launch.vsock_cid, info,
                                                            std::move(callbacks)));
            return {};
        }
        case qemu::ChannelMode::tcp: {
            HR_TRY(host_api_, hostapi::HostApi::serve_loopback(*loop_, info, std::move(callbacks)));
            return {};
        }
        }
        return {};
    }

    /// Anew for each start: the guest's identity may have come in since the last one.
    Result<void> write_guest_files() {
        SysConfigInput input;
        input.host_api_url = host_api_->url();
        input.cpus = plan_.launch.cpus;
        input.memory_bytes = plan_.launch.memory_bytes;
        input.qemu_version = survey_.capabilities.version;
        for (const auto& gpu : plan_.launch.gpus)
            ++(gpu.is_nvswitch ? input.num_nvswitches : input.num_gpus);
        input.kms_urls = spec_.key_provider.kms_urls;
        HR_TRY(const auto sys_config, make_sys_config(survey_.image, input));
        HR_CHECK(write_app_folder(paths_, survey_.files, sys_config, survey_.image));
        if (plan_.launch.share == qemu::ShareMode::disk)
            HR_CHECK(build_share_image(launcher_, paths_));
        return {};
    }

    Result<void> prepare_disk() {
        if (needs_fresh_disk(spec_, survey_.image)) {
            HR_CHECK(remove_file(paths_.data_disk()));
            HR_CHECK(remove_file(paths_.instance_info()));
            emit(RunEvent::Kind::notice,
                 "Without a key provider the guest encrypts its disk with a key that it forgets: "
                 "the data disk is new at each start");
        }
        return prepare_data_disk(launcher_, paths_, registry_.cache_directory(), spec_.disk_bytes,
                                 survey_.image.disk_backing);
    }

    // --- devices of the host -------------------------------------------------------------------

    Result<void> take_devices() {
        if (path_exists(paths_.device_journal())) {
            emit(RunEvent::Kind::notice,
                 "The last run of this instance was killed: giving its devices back first");
            give_back_devices();
        }
        const auto& planned = survey_.host.gpus;
        if (planned.empty())
            return {};
        // Some time has passed since the first look, and only now are the devices ours to take.
        HR_TRY(const auto selection, host::select_gpus(planned.for_vm(), device_root_));
        if (backend_ != nullptr)
            return {}; // it binds them itself, and gives them back
        HR_CHECK(binder().take(selection.addresses()));
        emit(RunEvent::Kind::notice,
             fmt::format("Bound to vfio-pci: {}", list_of(selection.addresses())));
        return host::check_gpus_open(selection, device_root_);
    }

    void give_back_devices() {
        if (!path_exists(paths_.device_journal()))
            return;
        const auto returned = binder().give_back();
        if (!returned)
            return report(tl::unexpected<Error>(returned.error()));
        std::vector<spec::PciAddress> good;
        for (const auto& device : *returned)
            if (device.problem)
                emit(RunEvent::Kind::warning, device.problem->describe());
            else if (!device.note.empty())
                emit(RunEvent::Kind::notice,
                     fmt::format("{}: {}", spec::format_pci_address(device.address), device.note));
            else
                good.push_back(device.address);
        if (!good.empty())
            emit(RunEvent::Kind::notice, fmt::format("Given back to the host: {}", list_of(good)));
    }

    host::DeviceBinder binder() {
        return {kernel_, paths_.device_journal(), device_root_};
    }

    // --- QEMU ----------------------------------------------------------------------------------

    Result<void> write_record() {
        return write_file_atomic(paths_.record(), encode_record(record_));
    }

    Result<Launch> next_launch(LaunchCause cause) {
        switch (cause) {
        case LaunchCause::first:
            break;
        case LaunchCause::port_lost:
            HR_CHECK(take_other_ports());
            [[fallthrough]]; // what the first QEMU had is closed
        case LaunchCause::restart:
            HR_CHECK(begin_network());
            if (cause == LaunchCause::restart) {
                ++record_.restarts;
                HR_CHECK(require_space(needed_free_bytes));
                if (needs_fresh_disk(spec_, survey_.image))
                    HR_CHECK(prepare_disk());
                HR_CHECK(write_guest_files());
            }
            if (plan_.launch.channel == qemu::ChannelMode::vsock)
                HR_CHECK(claim_vsock_again());
            break;
        }
        Launch launch;
        if (backend_ == nullptr) {
            if (account_)
                HR_CHECK(hand_over(launch));
            HR_TRY(auto network_fd, finish_network());
            if (network_fd)
                launch.pass_fds.emplace(qemu_network_fd, std::move(network_fd));
            HR_TRY(launch.argv, qemu::build_argv(plan_.launch, survey_.capabilities));
            if (vsock_fd_)
                launch.pass_fds.emplace(qemu_vsock_fd, std::move(vsock_fd_));
            launch.cgroup_fd = cgroup_ ? cgroup_->procs() : -1;
            record_.argv = launch.argv;
            log::debug("{}", qemu::shell_quote(launch.argv));
        } else {
            HR_TRY(launch.description,
                   backend_->describe(plan_.launch, plan_.placement, survey_.capabilities));
            vsock_fd_.reset(); // the backend opens the device, and claims the CID anew
            record_.description = launch.description;
        }
        if (cause != LaunchCause::first) // then supervise() writes it once QEMU runs
            HR_CHECK(write_record());
        return launch;
    }

    /// QEMU as another account, with open what it needs and else nothing of ours.
    Result<void> hand_over(Launch& launch) {
        for (auto& gpu : plan_.launch.gpus) {
            HR_TRY(const auto device, host::read_pci_device(gpu.address, device_root_));
            gpu.vfio_file =
                device_root_.path(fmt::format("/dev/vfio/devices/{}", device.vfio_cdev));
        }
        HR_TRY(launch.pass_fds,
               open_handed_files(plan_.launch, *account_, first_handed_fd, device_root_));
        launch.user = ProcessSpec::User{account_->uid, account_->gid, account_->groups};
        launch.unlimited_locked_memory = !plan_.launch.gpus.empty();
        return {};
    }

    Result<void> take_other_ports() {
        const bool all_fixed =
            std::none_of(asked_ports_.begin(), asked_ports_.end(),
                         [](const spec::PortMapping& asked) { return asked.host_port == 0; });
        if (all_fixed)
            return fail(ErrorCode::already_exists, "Every host port was given by the user");
        HR_TRY(auto claims, Claims::begin(registry_));
        HR_CHECK(settle_ports(claims));
        record_.ports = plan_.launch.ports;
        HR_CHECK(claims.publish(claim_, record_));
        for (const auto& mapping : plan_.launch.ports)
            emit(RunEvent::Kind::port, spec::format_port_mapping(mapping));
        return {};
    }

    /// The last QEMU's descriptor has an owner for ever (VHOST_SET_OWNER): a new one, same CID.
    Result<void> claim_vsock_again() {
        host::VhostVsock device;
        const auto is_another = [this](std::uint32_t cid) {
            return cid != plan_.launch.vsock_cid;
        };
        HR_TRY(auto claimed, host::claim_cid(device, is_another));
        vsock_fd_ = std::move(claimed.fd);
        return {};
    }

    // --- the end -------------------------------------------------------------------------------

    /// QEMU first, then what serves it, then the devices that only QEMU had open.
    void release() {
        supervisor_.reset();
        network_.reset();
        control_.reset();
        host_api_.reset();
        vsock_fd_.reset();
        if (std::exchange(cgroup_, std::nullopt))
            report(host::remove_cgroup(record_.cgroup));
        give_back_devices();
        // A second Ctrl-C must not end us between here and the record.
        const timespec at_once{};
        sigset_t stops;
        sigemptyset(&stops);
        for (const int signal : {SIGINT, SIGTERM, SIGHUP})
            sigaddset(&stops, signal);
        while (::sigtimedwait(&stops, nullptr, &at_once) > 0) {
        }
    }

    /// Nothing was started: nothing stays, but what was there before.
    void undo(const Error& error) {
        events_.reset();
        give_pages_back();
        if (!claim_.previous && holds_devices(paths_)) {
            // Its folder knows where the devices belong.
            end_ = End{unix_time_ms(), EndReason::start_failed, exit_code_for(error.code),
                       error.message};
            return leave_record();
        }
        if (claim_.previous)
            report(remove_run_files(paths_, Keep::disk));
        auto claims = Claims::begin(registry_);
        if (!claims)
            return report(tl::unexpected<Error>(std::move(claims).error()));
        report(claims->withdraw(std::move(claim_)));
    }

    void give_pages_back() {
        if (const auto removed = remove_hugepage_directory(record_); !removed)
            report(tl::unexpected<Error>(removed.error()));
    }

    void leave_record() {
        record_.end = end_;
        give_pages_back();
        report(remove_run_files(paths_, spec_.name.empty() ? Keep::records : Keep::disk));
        report(write_record());
        events_.reset();
        claim_.lock.reset();
        if (const auto pruned = registry_.prune(kept_records); !pruned)
            report(tl::unexpected<Error>(pruned.error()));
    }

    void report(const Result<void>& result) {
        if (!result)
            emit(RunEvent::Kind::warning, result.error().describe());
    }

    // --- events --------------------------------------------------------------------------------

    void emit(RunEvent::Kind kind, std::string text) {
        show({kind, std::move(text),
              std::chrono::duration_cast<milliseconds>(Clock::now() - began_), milliseconds(0)});
    }

    void show(const RunEvent& event) {
        if (events_) {
            const auto written = events_->append({unix_time_ms(), to_string(event.kind), event.text,
                                                  event.elapsed.count(), event.limit.count()});
            if (!written && !std::exchange(warned_events_, true))
                log::warn("{}", written.error().describe());
        }
        observer_(event);
    }

    const spec::VmSpec& spec_;
    const RunObserver& observer_;
    const host::HostRoot device_root_;
    Backend* const backend_; ///< nullptr: this process starts QEMU.
    std::string backend_words_;
    host::KernelSysfs real_kernel_;
    host::SysfsWriter& kernel_;
    Registry registry_;
    Clock::time_point began_ = Clock::now();
    ForkExecLauncher launcher_;
    Survey survey_;
    std::optional<host::Account> account_; ///< nullopt: QEMU runs as we do.
    Plan plan_;
    std::unique_ptr<EventLoop> loop_;
    Claim claim_;
    InstancePaths paths_{std::string()};
    Record record_;
    std::vector<spec::PortMapping> asked_ports_; ///< Host port 0: any.
    UniqueFd vsock_fd_;                          ///< Claimed for the next start.
    host::KernelTaps taps_;
    std::optional<VmNetwork> network_;
    std::optional<EventsLog> events_;
    bool warned_events_ = false;
    std::optional<Supervisor> supervisor_;
    std::unique_ptr<hostapi::HostApi> host_api_;
    std::unique_ptr<ControlServer> control_;
    std::optional<host::VmCgroup> cgroup_; ///< Of QEMU.
    bool wants_scope_ = false;             ///< systemd may give one in its place.
    std::optional<End> end_;
};

} // namespace

Result<RunOutcome> run_instance(const spec::VmSpec& spec, const RunObserver& observer,
                                const DeviceEdge& devices, Backend* backend) {
    HR_CHECK(spec::check_vm_spec(spec));
    HR_TRY(auto state, state_directory());
    HR_ASSERT(spec.backend.libvirt == (backend != nullptr));
    Run run(spec, observer, devices, backend, Registry(std::move(state)));
    return run.execute();
}

Result<DryRun> dry_run(const spec::VmSpec& spec, const DeviceEdge& devices) {
    HR_CHECK(spec::check_vm_spec(spec));
    HR_TRY(const auto state, state_directory());
    const Registry registry(state);
    ForkExecLauncher launcher;
    HR_TRY(auto known, survey(spec, launcher, {}));
    // The command line is worth seeing on a machine that cannot run it.
    std::vector<std::string> refusals;
    const auto refuse = [&](const Error& error) {
        refusals.push_back(fmt::format("run would refuse this here: {}", error.describe()));
    };
    if (const auto fits = host::assess_memory(spec.memory_bytes, known.host.memory, spec.tee);
        !fits) {
        refuse(fits.error());
        known.host.memory = {spec.memory_bytes, spec.memory_bytes};
    }
    if (const auto seen = look_at_gpus(spec, devices.root, known.host); !seen) {
        refuse(seen.error());
        for (const auto& address : spec.gpus) // what they are is not known, but their order is
            known.host.gpus.gpus.emplace_back().address = address;
    } else if (const auto free = check_not_held(registry, devices.root, known.host.gpus, {});
               !free) {
        refuse(free.error());
    }
    if (const auto hole = host::size_pci_hole64(known.host.gpus.devices_for_vm(), spec.memory_bytes,
                                                known.host.physical_address_bits);
        !hole) {
        refuse(hole.error());
        known.host.physical_address_bits.reset();
    }
    const std::string id(placeholder_id);
    HR_TRY(auto plan, plan_launch({spec, known.image, known.files, known.host, id,
                                   registry.paths(id).directory}));
    if (plan.launch.channel == qemu::ChannelMode::vsock) {
        plan.launch.vsock_cid = host::first_guest_cid;
        plan.launch.vsock_fd = -1; // no shell holds the claimed descriptor: QEMU opens its own
    }
    if (plan.network.backend == usernet::Backend::slirp ||
        plan.network.backend == usernet::Backend::passt) {
        plan.launch.network_fd = -1; // nor the end of a socket whose other end is another program's
        plan.warnings.push_back(
            fmt::format("This command line has QEMU's own user network; run has {} make it, which "
                        "keeps the guest from this host's loopback{}",
                        plan.network.backend == usernet::Backend::passt ? "passt" : "user_network",
                        spec.host_services.empty() ? "" : " but for the host services"));
    }
    if (spec.tee == spec::Tee::tdx) {
        if (const auto usable = host::check_tdx(); !usable)
            refuse(usable.error());
        if (const auto argv = qemu::build_argv(plan.launch, known.capabilities); !argv) {
            refuse(argv.error());
            known.capabilities.tdx_guest = true;
            known.capabilities.tdx_quote_socket = true;
        }
    }
    if (!plan.launch.gpus.empty() && !known.capabilities.iommufd) {
        if (const auto argv = qemu::build_argv(plan.launch, known.capabilities); !argv)
            refuse(argv.error());
        known.capabilities.iommufd = true;
    }
    plan.warnings.insert(plan.warnings.end(), refusals.begin(), refusals.end());
    DryRun result;
    HR_TRY(result.argv, qemu::build_argv(plan.launch, known.capabilities));
    result.plan_json = encode_plan(plan, result.argv, known.files);
    result.warnings = plan.warnings;
    result.plan = std::move(plan.launch);
    result.placement = std::move(plan.placement);
    result.qemu_path = known.capabilities.path;
    return result;
}

} // namespace host_runner::instance
