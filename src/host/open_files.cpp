// SPDX-License-Identifier: Apache-2.0
#include "host_runner/host/open_files.hpp"

#include <array>
#include <climits>
#include <string_view>

#include <unistd.h>

#include "host_runner/base/files.hpp"
#include "parse.hpp"

namespace host_runner::host {

namespace {

std::string program_of(const std::string& process_path) {
    auto program = read_file(process_path + "/comm", 256).value_or("?");
    while (program.ends_with('\n'))
        program.pop_back();
    return program;
}

} // namespace

std::map<std::string, ProcessHolder, std::less<>>
find_holders(const std::set<std::string, std::less<>>& targets, const HostRoot& root) {
    std::map<std::string, ProcessHolder, std::less<>> holders;
    const auto processes = list_directory(root.path("/proc"));
    if (targets.empty() || !processes)
        return holders;
    std::array<char, PATH_MAX> link{};
    for (const auto& name : *processes) {
        const auto pid = parse_number<pid_t>(name, 10);
        if (!pid)
            continue;
        const auto process_path = root.path("/proc/" + name);
        const auto descriptors = list_directory(process_path + "/fd");
        if (!descriptors)
            continue; // another user's, or it has just ended
        for (const auto& descriptor : *descriptors) {
            const auto path = process_path + "/fd/" + descriptor;
            const auto length = ::readlink(path.c_str(), link.data(), link.size());
            if (length <= 0)
                continue;
            const std::string_view target(link.data(), static_cast<std::size_t>(length));
            if (!targets.contains(target) || holders.contains(target))
                continue;
            holders.emplace(target, ProcessHolder{*pid, program_of(process_path)});
            if (holders.size() == targets.size())
                return holders;
        }
    }
    return holders;
}

} // namespace host_runner::host
