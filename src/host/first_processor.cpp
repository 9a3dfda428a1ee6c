// SPDX-License-Identifier: Apache-2.0
#include "first_processor.hpp"

#include <array>
#include <cerrno>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/unique_fd.hpp"

namespace host_runner::host {

namespace {

/// More than one processor's part of /proc/cpuinfo ever had.
constexpr std::size_t max_start_bytes = 64 << 10;

} // namespace

Result<std::string> read_first_processor(const HostRoot& root) {
    const auto path = root.path("/proc/cpuinfo");
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    std::string text;
    while (text.size() < max_start_bytes) {
        std::array<char, 4096> block{};
        const auto count = ::read(fd.get(), block.data(), block.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(fmt::format("Cannot read {}", path), errno);
        if (count == 0)
            break;
        text.append(block.data(), static_cast<std::size_t>(count));
        if (text.find("\n\n") != std::string::npos) // the end of one processor
            break;
    }
    return text;
}

} // namespace host_runner::host
