// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/passt.hpp"

#include <algorithm>
#include <chrono>
#include <optional>
#include <string_view>

#include <sys/stat.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::usernet {

namespace {

constexpr std::chrono::seconds help_timeout{5};
constexpr std::size_t max_cache_bytes = 4096;

/// What names one build of a program, on one line.
std::optional<std::string> fingerprint(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
        return std::nullopt;
    return fmt::format("1 {} {} {} {}.{} {}", status.st_dev, status.st_ino, status.st_size,
                       status.st_mtim.tv_sec, status.st_mtim.tv_nsec, path);
}

/// The remembered problem: the file's second line.
std::optional<std::string> recall(const std::string& file, const std::string& known_as) {
    const auto text = read_file(file, max_cache_bytes);
    if (!text || !text->starts_with(known_as + "\n") || !text->ends_with('\n'))
        return std::nullopt;
    auto problem = text->substr(known_as.size() + 1);
    problem.pop_back();
    return problem;
}

void remember(const std::string& file, const std::string& known_as, const std::string& problem) {
    auto written = make_directories(parent_path(file));
    if (written)
        written = write_file_atomic(file, fmt::format("{}\n{}\n", known_as, problem));
    if (!written)
        log::debug("Cannot remember what passt can do: {}", written.error().describe());
}

bool is_number(std::string_view text) {
    return !text.empty() &&
           std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

} // namespace

std::string passt_problem(const std::string& help) {
    // As a whole word: one option's name may begin another's.
    const auto has = [&](std::string_view option) {
        for (auto at = help.find(option); at != std::string::npos; at = help.find(option, at + 1))
            if (const auto end = at + option.size();
                end == help.size() ||
                std::string_view(" \t\n,").find(help[end]) != std::string_view::npos)
                return true;
        return false;
    };
    for (const std::string_view option : {"--fd", "--no-map-gw", "--dns-forward", "--pid"})
        if (!has(option))
            return fmt::format("it has no option {}", option);
    if (!has("--map-host-loopback"))
        return "it is from before August 2024 and lets a guest reach this host's loopback";
    return {};
}

Passt find_passt(ProcessLauncher& launcher, const std::string& cache_directory) {
    Passt passt;
    const auto path = find_program("passt");
    if (!path)
        return passt;
    passt.path = *path;
    const auto known_as = fingerprint(passt.path);
    const auto file =
        cache_directory.empty() || !known_as
            ? std::string()
            : join_path(cache_directory, fmt::format("passt-probe-{}",
                                                     crypto::sha256_hex(passt.path).substr(0, 16)));
    if (!file.empty())
        if (auto problem = recall(file, *known_as)) {
            passt.problem = std::move(*problem);
            return passt;
        }
    ProcessSpec spec;
    spec.argv = {passt.path, "--help"};
    const auto help = run_captured(launcher, std::move(spec), help_timeout);
    if (!help) {
        passt.problem = help.error().message;
        return passt; // not remembered: it may have been this once only
    }
    passt.problem = passt_problem(help->out + help->err);
    if (!file.empty())
        remember(file, *known_as, passt.problem);
    return passt;
}

NetworkCommand passt_command(const std::string& path, const std::vector<spec::PortMapping>& ports) {
    // The pid is written once the ports are bound: the sign that it is ready.
    NetworkCommand command{{path,
                            "--foreground",
                            "--quiet",
                            "--pid",
                            "/dev/fd/1",
                            "--fd",
                            std::to_string(frames_fd),
                            "--ipv4-only",
                            "--no-map-gw",
                            "--map-host-loopback",
                            "none",
                            "--address",
                            "10.0.2.10",
                            "--netmask",
                            "24",
                            "--gateway",
                            "10.0.2.2",
                            "--dns",
                            "10.0.2.3",
                            "--dns-forward",
                            "10.0.2.3"},
                           parse_passt_status};
    for (const auto& mapping : ports) {
        command.argv.emplace_back(mapping.protocol == spec::Protocol::tcp ? "--tcp-ports"
                                                                          : "--udp-ports");
        command.argv.push_back(
            fmt::format("{}/{}:{}", mapping.host_address, mapping.host_port, mapping.guest_port));
    }
    return command;
}

std::optional<Status> parse_passt_status(std::string_view text, bool ended) {
    std::string_view last;
    for (auto rest = text; rest.find('\n') != std::string_view::npos;) {
        last = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(last.size() + 1);
        if (is_number(last))
            return Status{Status::Kind::ready, {}};
    }
    if (!ended)
        return std::nullopt;
    constexpr std::string_view bind_failed = "Failed to bind";
    if (const auto at = text.find(bind_failed); at != std::string_view::npos) {
        const auto quote = text.find('\'', at);
        const auto end = quote == std::string_view::npos ? quote : text.find('\'', quote + 1);
        const auto option = end == std::string_view::npos ? std::string_view("(not named)")
                                                          : text.substr(quote + 1, end - quote - 1);
        return Status{Status::Kind::port_taken, std::string(option)};
    }
    return Status{Status::Kind::failed,
                  last.empty() ? "it ended without a word" : std::string(last)};
}

} // namespace host_runner::usernet
