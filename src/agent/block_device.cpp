// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/block_device.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"

namespace host_runner::agent {

namespace {

/// The first `count` bytes, or all of a shorter one.
Result<std::string> read_start(const std::string& device, std::size_t count) {
    const UniqueFd fd(::open(device.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", device), errno);
    std::string bytes(count, '\0');
    std::size_t filled = 0;
    while (filled < count) {
        const ssize_t got = ::read(fd.get(), bytes.data() + filled, count - filled);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fail_errno(fmt::format("Cannot read {}", device), errno);
        if (got == 0)
            break;
        filled += static_cast<std::size_t>(got);
    }
    bytes.resize(filled);
    return bytes;
}

} // namespace

std::optional<std::string> fat_label(std::string_view sector) {
    constexpr std::size_t sector_bytes = 512;
    constexpr std::size_t label_bytes = 11;
    if (sector.size() < sector_bytes || sector.substr(510, 2) != "\x55\xAA")
        return std::nullopt;
    // Each of the two places has its boot signature 5 bytes and its type text 11 bytes around it.
    struct Place {
        std::size_t signature, label, type;
        std::string_view type_text;
    };
    for (const auto& place : {Place{66, 71, 82, "FAT32"}, Place{38, 43, 54, "FAT1"}}) {
        if (sector[place.signature] != '\x29' ||
            !sector.substr(place.type).starts_with(place.type_text))
            continue;
        auto label = sector.substr(place.label, label_bytes);
        while (!label.empty() && label.back() == ' ')
            label.remove_suffix(1);
        return std::string(label);
    }
    return std::nullopt;
}

Result<std::vector<std::string>> virtio_disks(const std::string& device_directory) {
    HR_TRY(const auto names, list_directory(device_directory));
    std::vector<std::string> disks;
    for (const auto& name : names)
        if (name.size() == 3 && name.starts_with("vd") && name[2] >= 'a' && name[2] <= 'z')
            disks.push_back(join_path(device_directory, name));
    return disks;
}

Result<std::string> find_fat_disk(const std::string& device_directory, std::string_view label) {
    HR_TRY(const auto disks, virtio_disks(device_directory));
    for (const auto& disk : disks) {
        HR_TRY(const auto sector, read_start(disk, 512));
        if (fat_label(sector) == label)
            return disk;
    }
    return fail(ErrorCode::not_found,
                fmt::format("No disk of {} has the label {}", disks.size(), label),
                "the runner must attach the host share as a FAT disk with this label");
}

Result<bool> is_blank(const std::string& device) {
    HR_TRY(const auto bytes, read_start(device, mib));
    return bytes.find_first_not_of('\0') == std::string::npos;
}

} // namespace host_runner::agent
