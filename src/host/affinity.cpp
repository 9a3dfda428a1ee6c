// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/affinity.hpp"

#include <cerrno>

#include <numa.h>
#include <numaif.h>

#include <fmt/format.h>

#include "host_runner/base/delete_by.hpp"

namespace host_runner::host {

namespace {

using Mask = std::unique_ptr<bitmask, DeleteBy<numa_bitmask_free>>;

/// libnuma leaves out what is above its size without a word.
Result<void> set_all(bitmask& mask, const std::vector<std::uint32_t>& numbers,
                     std::string_view what) {
    for (const auto number : numbers) {
        if (number >= mask.size)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("This host has no {} {}", what, number));
        numa_bitmask_setbit(&mask, number);
    }
    return {};
}

/// get_mempolicy(2) wants the mask's bits and one more.
unsigned long bits_of(const bitmask& mask) {
    return mask.size + 1;
}

} // namespace

struct ScopedPlacement::Before {
    Mask cpus{numa_allocate_cpumask()};
    int policy = MPOL_DEFAULT;
    Mask nodes{numa_allocate_nodemask()};
    bool memory_changed = false;
};

Result<void> set_thread_cpus(pid_t tid, const std::vector<std::uint32_t>& cpus) {
    const Mask mask(numa_allocate_cpumask());
    HR_CHECK(set_all(*mask, cpus, "processor"));
    if (numa_sched_setaffinity(tid, mask.get()) >= 0)
        return {};
    if (errno == EINVAL)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("None of the processors for thread {} can be used: they are not "
                                "online, or a cpuset forbids them",
                                tid));
    return fail_errno(fmt::format("Cannot choose the processors of thread {}", tid), errno);
}

Result<std::vector<std::uint32_t>> thread_cpus(pid_t tid) {
    const Mask mask(numa_allocate_cpumask());
    if (numa_sched_getaffinity(tid, mask.get()) < 0)
        return fail_errno(fmt::format("Cannot ask for the processors of thread {}", tid), errno);
    std::vector<std::uint32_t> cpus;
    for (unsigned cpu = 0; cpu < mask->size; ++cpu)
        if (numa_bitmask_isbitset(mask.get(), cpu) != 0)
            cpus.push_back(cpu);
    return cpus;
}

Result<ScopedPlacement> ScopedPlacement::enter(const std::vector<std::uint32_t>& cpus,
                                               const std::vector<std::uint32_t>& nodes) {
    auto before = std::make_unique<Before>();
    if (numa_sched_getaffinity(0, before->cpus.get()) < 0 ||
        ::get_mempolicy(&before->policy, before->nodes->maskp, bits_of(*before->nodes), nullptr,
                        0) != 0)
        return fail_errno("Cannot ask where this thread may run", errno);
    const Mask mask(numa_allocate_nodemask());
    HR_CHECK(set_all(*mask, nodes, "NUMA node"));
    HR_CHECK(set_thread_cpus(0, cpus));
    ScopedPlacement placement(std::move(before)); // from here on it is undone
    if (!nodes.empty()) {
        if (::set_mempolicy(MPOL_BIND, mask->maskp, bits_of(*mask)) != 0)
            return fail_errno("Cannot choose the NUMA nodes of memory", errno);
        placement.before_->memory_changed = true;
    }
    return placement;
}

ScopedPlacement::ScopedPlacement(std::unique_ptr<Before> before) noexcept
    : before_(std::move(before)) {}
ScopedPlacement::ScopedPlacement(ScopedPlacement&&) noexcept = default;
ScopedPlacement& ScopedPlacement::operator=(ScopedPlacement&&) noexcept = default;

ScopedPlacement::~ScopedPlacement() {
    if (!before_)
        return;
    numa_sched_setaffinity(0, before_->cpus.get());
    if (!before_->memory_changed)
        return;
    const bool has_nodes = before_->policy != MPOL_DEFAULT;
    static_cast<void>(::set_mempolicy(before_->policy, has_nodes ? before_->nodes->maskp : nullptr,
                                      has_nodes ? bits_of(*before_->nodes) : 0));
}

} // namespace host_runner::host
