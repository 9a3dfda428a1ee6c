// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A machine as a folder of small files: /proc, /sys and /dev of a test's choice.

#include <filesystem>
#include <fstream>
#include <string>

#include "fakes/temporary_directory.hpp"
#include "host_runner/host/host_root.hpp"

namespace host_runner::tests {

class HostFixture {
public:
    /// `absolute` as on the real machine: "/proc/meminfo".
    HostFixture& write(const std::string& absolute, const std::string& bytes) {
        const std::filesystem::path path = folder_.path() + absolute;
        std::filesystem::create_directories(path.parent_path());
        std::ofstream(path, std::ios::binary) << bytes;
        return *this;
    }
    HostFixture& link(const std::string& absolute, const std::string& target) {
        const std::filesystem::path path = folder_.path() + absolute;
        std::filesystem::create_directories(path.parent_path());
        std::filesystem::create_symlink(target, path);
        return *this;
    }
    HostFixture& remove(const std::string& absolute) {
        std::filesystem::remove_all(folder_.path() + absolute);
        return *this;
    }
    HostFixture& cpu_flags(const std::string& flags) {
        return write("/proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: " +
                                          flags + "\nvmx flags\t: vnmi ept\n\n");
    }
    [[nodiscard]] host::HostRoot root() const {
        return {folder_.path()};
    }

private:
    TemporaryDirectory folder_;
};

} // namespace host_runner::tests
