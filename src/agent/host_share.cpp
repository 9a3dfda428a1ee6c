// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/host_share.hpp"

#include <array>
#include <cerrno>
#include <optional>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/files.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::agent {

namespace {

constexpr std::size_t id_bytes = 20;

struct OpenedFile {
    UniqueFd fd;
    std::uint64_t size = 0;
};

Result<OpenedFile> open_regular(const std::string& path, std::uint64_t max_bytes) {
    // O_NONBLOCK: opening a FIFO must not wait.
    OpenedFile file{UniqueFd(::open(path.c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC))};
    if (!file.fd)
        return fail_errno(fmt::format("Cannot open {} of the host share", base_name(path)), errno);
    struct stat status {};
    if (::fstat(file.fd.get(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at {}", path), errno);
    if (!S_ISREG(status.st_mode))
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{} of the host share is no regular file", base_name(path)));
    file.size = static_cast<std::uint64_t>(status.st_size);
    if (file.size > max_bytes)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{} of the host share has {} bytes, at most {} are taken",
                                base_name(path), file.size, max_bytes));
    return file;
}

/// Copies a small file and returns its bytes; nullopt when there is none.
Result<std::optional<std::string>> take_file(const std::string& share,
                                             const std::string& destination,
                                             const std::string& name, std::size_t max_bytes) {
    auto file = open_regular(join_path(share, name), max_bytes);
    if (!file) {
        if (file.error().code == ErrorCode::not_found)
            return std::nullopt;
        return tl::unexpected<Error>(std::move(file).error());
    }
    HR_TRY(auto bytes, read_all(file->fd.get(), max_bytes));
    HR_CHECK(write_file_atomic(join_path(destination, name), bytes, 0444));
    return bytes;
}

Result<std::string> take_required_file(const std::string& share, const std::string& destination,
                                       const std::string& name, std::size_t max_bytes) {
    HR_TRY(auto bytes, take_file(share, destination, name, max_bytes));
    if (!bytes)
        return fail(ErrorCode::not_found, fmt::format("The host share has no {}", name));
    return std::move(*bytes);
}

/// Copies a delivered file in blocks and checks that it is the one that was named.
Result<void> take_delivered_file(const std::string& share, const std::string& destination,
                                 const protocol::AppFile& file) {
    const auto differs = [&file](std::string_view how) {
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The file '{}' on the host share is not the one that "
                                "app-compose.json names: {}",
                                file.name, how));
    };
    HR_TRY(const auto source, open_regular(join_path(share, "files/" + file.sha256), file.size));
    const auto path = join_path(destination, "files/" + file.sha256);
    // Readable and executable for the services; nobody may change it.
    const UniqueFd copy(
        ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0555));
    if (!copy)
        return fail_errno(fmt::format("Cannot create {}", path), errno);
    crypto::Sha256 hash;
    std::uint64_t copied = 0;
    std::array<char, 65536> buffer{};
    for (;;) {
        const ssize_t count = ::read(source.fd.get(), buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(fmt::format("Cannot read the file '{}'", file.name), errno);
        if (count == 0)
            break;
        const std::string_view block(buffer.data(), static_cast<std::size_t>(count));
        copied += block.size();
        if (copied > file.size)
            return differs("it is longer");
        hash.update(block);
        HR_CHECK(write_all(copy.get(), block).map_error([&](Error error) {
            error.message =
                fmt::format("Cannot copy the file '{}' to memory: {}", file.name, error.message);
            error.hint = "give the VM more memory";
            return error;
        }));
    }
    if (copied != file.size)
        return differs("its size differs");
    if (const auto found = crypto::to_hex(hash.finish()); found != file.sha256)
        return differs(fmt::format("its SHA-256 is {}, not {}", found, file.sha256));
    return {};
}

/// A member of .instance_info: empty when it is not there.
Result<std::string> id_member(const nlohmann::json& object, const char* name) {
    const auto found = object.find(name);
    if (found == object.end() ||
        (found->is_string() && found->get_ref<const std::string&>().empty()))
        return std::string();
    if (found->is_string()) {
        const auto bytes = crypto::from_hex(found->get_ref<const std::string&>());
        if (bytes && bytes->size() == id_bytes)
            return crypto::to_hex(*bytes);
    }
    return fail(ErrorCode::corrupt_data,
                fmt::format("{} of .instance_info is not {} bytes in hex", name, id_bytes));
}

} // namespace

std::string encode_instance_info(const InstanceInfo& info) {
    const nlohmann::ordered_json json{{"instance_id_seed", info.instance_id_seed},
                                      {"instance_id", info.instance_id},
                                      {"app_id", info.app_id}};
    return json.dump();
}

Result<InstanceInfo> make_instance_info(std::string_view json, std::string_view compose_hash) {
    InstanceInfo info;
    if (!json.empty()) {
        const auto object = nlohmann::json::parse(json, nullptr, false);
        if (!object.is_object())
            return fail(ErrorCode::corrupt_data, ".instance_info is no JSON object");
        HR_TRY(info.instance_id_seed, id_member(object, "instance_id_seed"));
        HR_TRY(info.app_id, id_member(object, "app_id"));
    }
    if (info.instance_id_seed.empty())
        info.instance_id_seed = crypto::random_hex(id_bytes);
    if (info.app_id.empty())
        info.app_id = compose_hash.substr(0, 2 * id_bytes);
    HR_TRY(const auto bytes, crypto::from_hex(info.instance_id_seed + info.app_id));
    info.instance_id =
        crypto::sha256_hex(std::string_view(reinterpret_cast<const char*>(bytes.data()), // NOLINT
                                            bytes.size()))
            .substr(0, 2 * id_bytes);
    return info;
}

Result<HostShare> copy_host_share(const std::string& share, const std::string& destination) {
    HR_CHECK(make_directories(join_path(destination, "files"), 0755));
    HostShare result;
    HR_TRY(const auto app_compose, take_required_file(share, destination, "app-compose.json",
                                                      protocol::max_app_compose_json_bytes));
    HR_CHECK(
        take_required_file(share, destination, ".sys-config.json", protocol::max_sys_config_bytes));
    HR_TRY(const auto instance_info,
           take_file(share, destination, ".instance_info", max_instance_info_bytes));

    result.compose_hash = crypto::sha256_hex(app_compose);
    HR_TRY(result.app, protocol::decode_app_compose(app_compose));
    HR_TRY(result.instance, make_instance_info(instance_info.value_or(""), result.compose_hash));
    for (const auto& file : result.app.files)
        if (!path_exists(join_path(destination, "files/" + file.sha256))) // two names, one content
            HR_CHECK(take_delivered_file(share, destination, file));
    return result;
}

} // namespace host_runner::agent
