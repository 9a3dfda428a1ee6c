// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/claims.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/crypto/digest.hpp"
#include "state_folder.hpp"

namespace host_runner::instance {

namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds wait_for_others{10'000};
constexpr std::chrono::milliseconds look_again_after{2};

std::string label(const Record& record) {
    return record.name.empty() ? record.id : fmt::format("{} ({})", record.name, record.id);
}

Result<UniqueFd> lock_claims(const std::string& path) {
    const auto deadline = Clock::now() + wait_for_others;
    for (;;) {
        auto lock = try_lock_file(path);
        if (lock || lock.error().code != ErrorCode::already_exists)
            return lock;
        if (Clock::now() >= deadline)
            return fail(ErrorCode::timeout,
                        fmt::format("Another host_runner command has held {} for {} ms", path,
                                    wait_for_others.count()),
                        "find it with: fuser " + path);
        std::this_thread::sleep_for(look_again_after);
    }
}

/// Makes the folder of a new instance with lock and record, and only then gives it its name.
Result<UniqueFd> make_folder(const Registry& registry, const Record& record) {
    const InstancePaths staged(
        join_path(registry.instances_directory(), std::string(staging_prefix) + record.id));
    HR_CHECK(make_directories(staged.directory, 0700));
    // The record is also the marker that makes the folder ours to remove. Nobody reads it under
    // this name, so it needs no rename of its own.
    const UniqueFd file(
        ::open(staged.record().c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!file)
        return fail_errno(fmt::format("Cannot create {}", staged.record()), errno);
    HR_TRY(auto lock, try_lock_file(staged.lock()));
    HR_CHECK(write_all(file.get(), encode_record(record)));
    if (::fsync(file.get()) != 0)
        return fail_errno(fmt::format("Cannot sync {}", staged.record()), errno);
    const std::string directory = registry.paths(record.id).directory;
    if (::rename(staged.directory.c_str(), directory.c_str()) != 0)
        return fail_errno(fmt::format("Cannot make the instance folder {}", directory), errno);
    return lock;
}

} // namespace

Result<Claims> Claims::begin(const Registry& registry) {
    HR_CHECK(make_directories(registry.instances_directory(), 0700));
    HR_TRY(auto lock,
           lock_claims(join_path(parent_path(registry.instances_directory()), "claims.lock")));
    Claims claims(registry, std::move(lock));
    HR_CHECK(remove_leftovers(registry));
    HR_TRY(const auto ids, instance_ids(registry));
    for (const auto& id : ids) {
        const InstancePaths paths = registry.paths(id);
        HR_TRY(const bool is_locked, is_file_locked(paths.lock()));
        if (!is_locked)
            continue;
        if (auto record = read_record(paths))
            claims.live_.push_back(std::move(*record));
        else
            log::warn("{}, so its ports are not known", record.error().describe());
    }
    return claims;
}

Result<Claim> Claims::open(const std::string& name) {
    Claim claim;
    if (!name.empty()) {
        HR_TRY(const auto ids, instance_ids(registry_));
        for (const auto& id : ids) {
            // An unreadable record may be the one with this name: better no start than a second
            // instance of the name.
            HR_TRY(auto record, read_record(registry_.paths(id)));
            if (record.name != name)
                continue;
            HR_TRY(
                claim.lock, try_lock_file(registry_.paths(id).lock()).map_error([&](Error error) {
                    if (error.code != ErrorCode::already_exists)
                        return error;
                    return Error{
                        ErrorCode::already_exists,
                        fmt::format("An instance with the name {} runs already: {}", name, id),
                        fmt::format("host_runner stop --id {}, or choose another --name", name), 0};
                }));
            claim.id = id;
            claim.previous = std::move(record);
            return claim;
        }
    }
    do
        claim.id = crypto::random_hex(6);
    while (path_exists(registry_.paths(claim.id).directory));
    return claim;
}

std::optional<std::string> Claims::port_owner(const spec::PortMapping& mapping,
                                              const std::string& except_id) const {
    for (const auto& record : live_)
        if (record.id != except_id)
            for (const auto& taken : record.ports)
                if (spec::conflicts(taken, mapping))
                    return label(record);
    return std::nullopt;
}

std::optional<std::string> Claims::gpu_owner(const spec::PciAddress& address,
                                             const std::string& except_id) const {
    for (const auto& record : live_)
        if (record.id != except_id &&
            std::find(record.gpus.begin(), record.gpus.end(), address) != record.gpus.end())
            return label(record);
    return std::nullopt;
}

Result<void> Claims::publish(Claim& claim, const Record& record) {
    HR_ASSERT(record.id == claim.id);
    for (std::size_t i = 0; i < record.ports.size(); ++i) {
        const auto& mapping = record.ports[i];
        if (const auto owner = port_owner(mapping, record.id))
            return fail(ErrorCode::already_exists,
                        fmt::format("Port {} is taken by instance {}",
                                    spec::format_port_mapping(mapping), *owner),
                        "choose another host port, or 0 for any free one");
        for (std::size_t j = 0; j < i; ++j)
            if (spec::conflicts(record.ports[j], mapping))
                return fail(ErrorCode::invalid_argument,
                            fmt::format("Ports {} and {} cannot both be forwarded",
                                        spec::format_port_mapping(record.ports[j]),
                                        spec::format_port_mapping(mapping)),
                            "choose another host port for one of them");
    }
    for (const auto& address : record.gpus)
        if (const auto owner = gpu_owner(address, record.id))
            return fail(ErrorCode::already_exists,
                        fmt::format("GPU {} is taken by instance {}",
                                    spec::format_pci_address(address), *owner),
                        "choose another; host_runner gpu list shows who holds which");
    for (const auto& other : live_)
        if (other.id != record.id && record.vsock_cid != 0 && other.vsock_cid == record.vsock_cid)
            return fail(ErrorCode::already_exists,
                        fmt::format("vsock CID {} is taken by instance {}", record.vsock_cid,
                                    label(other)));
    if (claim.lock)
        return write_file_atomic(registry_.paths(record.id).record(), encode_record(record));
    auto lock = make_folder(registry_, record);
    if (!lock) {
        // The first error is the one to tell; what cannot be removed now is, by the next begin().
        static_cast<void>(remove_leftovers(registry_));
        return tl::unexpected<Error>(std::move(lock).error());
    }
    claim.lock = std::move(*lock);
    return {};
}

// By value: the lock goes at the end.
Result<void> Claims::withdraw(Claim claim) { // NOLINT(performance-unnecessary-value-param)
    HR_ASSERT(claim.lock);
    if (claim.previous)
        return write_file_atomic(registry_.paths(claim.id).record(),
                                 encode_record(*claim.previous));
    return remove_held(registry_, claim.id);
}

} // namespace host_runner::instance
