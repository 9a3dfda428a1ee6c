// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/capabilities.hpp"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <optional>
#include <string_view>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/crypto/digest.hpp"
#include "host_runner/qemu/diagnose.hpp"
#include "host_runner/qemu/qmp_reader.hpp"
#include "qmp_json.hpp"

namespace host_runner::qemu {

namespace {

/// To be raised when the members of Capabilities or what they mean change.
constexpr int cache_format = 1;
constexpr std::size_t max_cache_bytes = std::size_t{64} * 1024;
constexpr auto probe_timeout = std::chrono::seconds(20);

// --- the program --------------------------------------------------------------------------------

Result<std::string> absolute_path(const std::string& path) {
    if (path.starts_with('/'))
        return path;
    HR_TRY(const auto here, canonical_path("."));
    return join_path(here, path);
}

tl::unexpected<Error> no_program(const std::string& program, std::string_view where) {
    return fail(ErrorCode::not_found, fmt::format("There is no QEMU {} {}", program, where),
                "install it (apt install qemu-system-x86), or name another with --qemu PATH");
}

Result<std::string> find_qemu(const std::string& program) {
    if (program.find('/') != std::string::npos) {
        if (!path_exists(program))
            return no_program(program, "at that path");
        return absolute_path(program);
    }
    const auto found = find_program(program);
    return found ? absolute_path(*found) : no_program(program, "in PATH");
}

/// What tells one binary from a later one at the same path.
Result<Json> fingerprint(const std::string& path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at {}", path), errno);
    return Json{{"path", path},
                {"device", status.st_dev},
                {"inode", status.st_ino},
                {"size", status.st_size},
                {"mtime_s", status.st_mtim.tv_sec},
                {"mtime_ns", status.st_mtim.tv_nsec}};
}

// --- asking -------------------------------------------------------------------------------------

enum class Question : std::uint64_t {
    negotiate = 1,
    version,
    tdx_guest,
    iommufd,
    vhost_vsock,
    virtio_9p,
    run_with,
    quit,
};

std::string ask(Question question, const char* command, const Json& arguments = Json::object()) {
    return dump({{"execute", command},
                 {"arguments", arguments},
                 {"id", static_cast<std::uint64_t>(question)}}) +
           "\n";
}

/// A type exists when its properties can be listed. `-object tdx-guest,help` lists nothing, and
/// device-list-properties knows no objects.
std::string ask_type(Question question, const char* name) {
    return ask(question, "qom-list-properties", {{"typename", name}});
}

std::string questions() {
    return ask(Question::negotiate, "qmp_capabilities") + ask(Question::version, "query-version") +
           ask_type(Question::tdx_guest, "tdx-guest") + ask_type(Question::iommufd, "iommufd") +
           ask_type(Question::vhost_vsock, "vhost-vsock-pci") +
           ask_type(Question::virtio_9p, "virtio-9p-pci") +
           ask(Question::run_with, "query-command-line-options", {{"option", "run-with"}}) +
           ask(Question::quit, "quit");
}

/// All questions at once: QEMU answers them one after the other.
Result<CapturedOutput> run_probe(ProcessLauncher& launcher, const std::string& path) {
    int ends[2] = {-1, -1};
    if (::pipe2(ends, O_CLOEXEC) != 0)
        return fail_errno("Cannot make a pipe", errno);
    const UniqueFd read_end(ends[0]);
    UniqueFd write_end(ends[1]);
    HR_CHECK(write_all(write_end.get(), questions())); // far below a pipe's capacity
    write_end.reset();
    ProcessSpec spec;
    spec.argv = {path,       "-M",   "none", "-S",   "-nodefaults", "-no-user-config",
                 "-display", "none", "-qmp", "stdio"};
    spec.stdin_fd = read_end.get();
    return run_captured(launcher, std::move(spec), probe_timeout);
}

using Answers = std::map<Question, QmpMessage>;

Result<Answers> read_answers(const std::string& path, const CapturedOutput& output) {
    const auto no_sense = [&](const std::string& why) {
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{} does not answer as QEMU does: {}", path, why),
                    "check that --qemu names a qemu-system-x86_64");
    };
    QmpReader reader;
    const auto messages = reader.feed(output.out);
    if (!messages)
        return no_sense(messages.error().message);
    Answers answers;
    for (const auto& message : *messages)
        if (message.id)
            answers.emplace(static_cast<Question>(*message.id), message);
    for (const auto question : {Question::version, Question::tdx_guest, Question::iommufd,
                                Question::vhost_vsock, Question::virtio_9p, Question::run_with})
        if (answers.count(question) == 0) {
            const auto line = last_relevant_line(output.err);
            return no_sense(line.empty() ? "it ended with " + output.status.describe() : line);
        }
    return answers;
}

/// True when the answer is a list with a member of that name.
bool lists(const QmpMessage& answer, const char* name) {
    const auto json = parse_json(answer.json, QmpReader::max_depth);
    if (answer.kind != QmpMessage::Kind::reply || !json || !json->is_array())
        return false;
    return std::any_of(json->begin(), json->end(),
                       [&](const Json& member) { return string_member(member, "name") == name; });
}

/// query-command-line-options: [{"option": "run-with", "parameters": [{"name": ...}]}]
bool has_parameter(const QmpMessage& answer, const char* name) {
    const auto json = parse_json(answer.json, QmpReader::max_depth);
    if (answer.kind != QmpMessage::Kind::reply || !json || !json->is_array() || json->empty() ||
        !json->front().is_object() || !json->front().contains("parameters"))
        return false;
    QmpMessage parameters = answer;
    parameters.json = dump(json->front()["parameters"]);
    return lists(parameters, name);
}

Result<void> read_version(const QmpMessage& answer, Capabilities& result) {
    const auto json = parse_json(answer.json, QmpReader::max_depth);
    const auto number = [&](const char* name) {
        const auto pointer = Json::json_pointer(std::string("/qemu/") + name);
        return json && json->contains(pointer) && (*json)[pointer].is_number_integer()
                   ? (*json)[pointer].get<int>()
                   : -1;
    };
    result.major = number("major");
    result.minor = number("minor");
    result.micro = number("micro");
    if (result.major < 0 || result.minor < 0 || result.micro < 0)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{} names no version of QEMU", result.path),
                    "check that --qemu names a qemu-system-x86_64");
    result.version = fmt::format("{}.{}.{}", result.major, result.minor, result.micro);
    result.package = string_member(*json, "package");
    return {};
}

Result<Capabilities> probe(ProcessLauncher& launcher, const std::string& path) {
    HR_TRY(const auto output, run_probe(launcher, path));
    HR_TRY(const auto answers, read_answers(path, output));
    const auto exists = [&](Question question) {
        return answers.at(question).kind == QmpMessage::Kind::reply;
    };
    Capabilities result;
    result.path = path;
    HR_CHECK(read_version(answers.at(Question::version), result));
    result.tdx_guest = exists(Question::tdx_guest);
    result.tdx_quote_socket = lists(answers.at(Question::tdx_guest), "quote-generation-socket");
    result.iommufd = exists(Question::iommufd);
    result.vhost_vsock = exists(Question::vhost_vsock);
    result.virtio_9p = exists(Question::virtio_9p);
    result.run_with_exit_with_parent =
        has_parameter(answers.at(Question::run_with), "exit-with-parent");
    result.json_netdev = result.at_least(7, 2); // no command tells
    return result;
}

// --- remembering --------------------------------------------------------------------------------

std::string cache_path(const std::string& cache_directory, const std::string& path) {
    return join_path(cache_directory,
                     fmt::format("qemu-probe-{}.json", crypto::sha256_hex(path).substr(0, 16)));
}

/// The flags by name, for both directions.
template <class Owner, class Visit>
void for_each_flag(Owner& owner, Visit visit) {
    visit("tdx_guest", owner.tdx_guest);
    visit("tdx_quote_socket", owner.tdx_quote_socket);
    visit("run_with_exit_with_parent", owner.run_with_exit_with_parent);
    visit("json_netdev", owner.json_netdev);
    visit("iommufd", owner.iommufd);
    visit("vhost_vsock", owner.vhost_vsock);
    visit("virtio_9p", owner.virtio_9p);
}

Json encode(const Capabilities& capabilities, const Json& binary) {
    Json flags = Json::object();
    for_each_flag(capabilities, [&](const char* name, bool value) { flags[name] = value; });
    return {{"format", cache_format},
            {"binary", binary},
            {"version", {capabilities.major, capabilities.minor, capabilities.micro}},
            {"package", capabilities.package},
            {"flags", flags}};
}

/// Throws what nlohmann throws for members that are missing or of another type.
Capabilities decode(const Json& json) {
    Capabilities result;
    result.path = json.at("binary").at("path").get<std::string>();
    result.major = json.at("version").at(0).get<int>();
    result.minor = json.at("version").at(1).get<int>();
    result.micro = json.at("version").at(2).get<int>();
    result.version = fmt::format("{}.{}.{}", result.major, result.minor, result.micro);
    result.package = json.at("package").get<std::string>();
    for_each_flag(result, [&](const char* name, bool& value) {
        value = json.at("flags").at(name).template get<bool>();
    });
    return result;
}

/// The remembered answer; nullopt when there is none for this binary.
std::optional<Capabilities> recall(const std::string& file, const Json& binary) {
    const auto text = read_file(file, max_cache_bytes);
    if (!text)
        return std::nullopt;
    const auto json = parse_json(*text, QmpReader::max_depth);
    try {
        if (json && json->at("format") == cache_format && json->at("binary") == binary)
            return decode(*json);
    } catch (const Json::exception& problem) {
        log::debug("Ignoring {}: {}", file, problem.what());
    }
    return std::nullopt;
}

void remember(const std::string& file, const Json& entry) {
    auto written = make_directories(parent_path(file));
    if (written)
        written = write_file_atomic(file, dump(entry));
    if (!written)
        log::debug("Cannot remember what QEMU can do: {}", written.error().describe());
}

} // namespace

Result<Capabilities> probe_capabilities(ProcessLauncher& launcher, const std::string& program,
                                        const std::string& cache_directory) {
    HR_TRY(const auto path, find_qemu(program));
    HR_TRY(const auto binary, fingerprint(path));
    const auto file = cache_directory.empty() ? std::string() : cache_path(cache_directory, path);
    auto known = file.empty() ? std::nullopt : recall(file, binary);
    if (!known) {
        HR_TRY(known, probe(launcher, path));
        if (!file.empty())
            remember(file, encode(*known, binary));
    }
    if (!known->at_least(7, 2))
        return fail(
            ErrorCode::unsupported,
            fmt::format("{} is version {}, QEMU 7.2 or newer is needed", path, known->version),
            "install a newer one, or name another with --qemu PATH");
    return *known;
}

} // namespace host_runner::qemu
