// SPDX-License-Identifier: Apache-2.0
#include "log_follower.hpp"

#include <algorithm>
#include <array>
#include <cerrno>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

namespace host_runner::cli {

namespace {

constexpr std::size_t block_bytes = 64UL * 1024;

Result<std::size_t> read_at(int fd, std::uint64_t offset, char* buffer, std::size_t size,
                            const std::string& path) {
    for (;;) {
        const auto count = ::pread(fd, buffer, size, static_cast<off_t>(offset));
        if (count >= 0)
            return static_cast<std::size_t>(count);
        if (errno != EINTR)
            return fail_errno(fmt::format("Cannot read {}", path), errno);
    }
}

} // namespace

Result<LogFollower> LogFollower::open(const std::string& path, std::optional<std::uint32_t> tail) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!fd)
        return fail_errno(fmt::format("Cannot open the log {}", path), errno);
    LogFollower follower(path, std::move(fd));
    if (tail) {
        HR_TRY(follower.offset_, follower.offset_of_tail(*tail));
    }
    return follower;
}

Result<std::uint64_t> LogFollower::size() const {
    struct stat status {};
    if (::fstat(fd_.get(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at {}", path_), errno);
    return static_cast<std::uint64_t>(status.st_size);
}

Result<std::uint64_t> LogFollower::offset_of_tail(std::uint32_t lines) const {
    HR_TRY(const auto end, size());
    std::array<char, block_bytes> block{};
    std::uint64_t found = 0;
    auto block_end = end;
    while (block_end > 0) {
        const auto length = std::min<std::uint64_t>(block_end, block.size());
        const auto begin = block_end - length;
        HR_TRY(const auto count, read_at(fd_.get(), begin, block.data(), length, path_));
        for (auto i = std::min<std::uint64_t>(count, length); i > 0; --i) {
            // The last line's own end is not the border to another one.
            if (block.at(i - 1) != '\n' || begin + i == end)
                continue;
            if (++found >= lines)
                return lines == 0 ? end : begin + i;
        }
        block_end = begin;
    }
    return lines == 0 ? end : 0;
}

Result<void> LogFollower::read_new(const Sink& sink) {
    std::array<char, block_bytes> block{};
    for (;;) {
        HR_TRY(const auto end, size());
        if (end < offset_)
            offset_ = 0;
        HR_TRY(const auto count, read_at(fd_.get(), offset_, block.data(), block.size(), path_));
        if (count == 0)
            return {};
        offset_ += count;
        HR_CHECK(sink({block.data(), count}));
    }
}

} // namespace host_runner::cli
