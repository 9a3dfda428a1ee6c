// SPDX-License-Identifier: Apache-2.0
#include "host_runner/instance/delivery.hpp"

#include <array>
#include <cerrno>
#include <chrono>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/crypto/digest.hpp"
#include "json_fields.hpp"

namespace host_runner::instance {

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr std::chrono::milliseconds tool_deadline{30'000};

constexpr std::string_view app_compose_name = "app-compose.json";
/// Guests before 0.4.0 expect a folder for a KMS's certificates, even an empty one.
/// Source: dstack v0.3.6 tdxctl, host-shared files.
constexpr image::Version without_certs_folder{0, 4, 0};

/// Source: dstack 0.6 vmm, creation of shared.img; the label is what its guests look for.
constexpr std::uint64_t share_bytes = 128 * mib;
constexpr const char* share_label = "DSTACKSHR";
/// Any fixed number: mformat would take a random one.
constexpr const char* share_serial = "48525348";

constexpr std::size_t max_instance_info_bytes = 10 * kib;
/// Of an empty qcow2: 200 KiB for 500 GiB.
constexpr std::size_t max_empty_disk_bytes = 64 * mib;

// ---- app-compose.json
// ----------------------------------------------------------------------------

Result<GuestFiles> files_for_our_guest(const spec::VmSpec& spec) {
    GuestFiles files;
    protocol::AppCompose app;
    app.name = "none";
    if (spec.compose_path) {
        HR_TRY(const auto compose, spec::load_compose(*spec.compose_path));
        std::map<std::string, std::string> environment;
        if (!spec.env_file.empty()) {
            HR_TRY(environment, spec::load_env_file(spec.env_file));
            files.notices.push_back(
                fmt::format("The variables of {} become part of app-compose.json, which the host "
                            "can read and everybody may see: no secrets there",
                            spec.env_file));
        }
        HR_TRY(auto resolved, spec::resolve_compose(compose, environment));
        app = std::move(resolved.app);
        files.files = std::move(resolved.files);
        files.ports = std::move(resolved.ports);
    } else {
        files.notices.emplace_back("No compose file: the VM boots with no services");
    }
    app.local_key_provider = spec.key_provider.kind == spec::KeyProviderKind::local ||
                             spec.key_provider.kind == spec::KeyProviderKind::relay;
    files.app_compose = protocol::encode_app_compose(app);
    return files;
}

/// The compose file as it is: the guest's container engine reads it.
/// Source of the members: dstack-types, AppCompose; secure_time would wait for NTP servers.
Result<GuestFiles> files_for_dstack(const spec::VmSpec& spec, const image::Image& image) {
    if (!spec.env_file.empty())
        return fail(ErrorCode::unsupported,
                    fmt::format("--env-file {} cannot be handed to the dstack image {}: its guest "
                                "takes variables only encrypted, by a key management service",
                                spec.env_file, image.name),
                    "write the variables into the compose file");
    GuestFiles files;
    ordered_json object{{"manifest_version", 2}};
    if (spec.compose_path) {
        HR_TRY(const auto compose, spec::load_compose(*spec.compose_path));
        object["name"] = compose.name;
        object["runner"] = "docker-compose";
        object["docker_compose_file"] = compose.text;
    } else {
        // An empty compose file is an error for the engine, a script that does nothing is not.
        object["name"] = "none";
        object["runner"] = "bash";
        object["bash_script"] = "true\n";
        files.notices.emplace_back("No compose file: the VM boots with no services");
    }
    const auto kind = spec.key_provider.kind;
    object["kms_enabled"] = kind == spec::KeyProviderKind::kms;
    object["gateway_enabled"] = false;
    object["local_key_provider_enabled"] =
        kind == spec::KeyProviderKind::local || kind == spec::KeyProviderKind::relay;
    object["public_logs"] = false;
    object["public_sysinfo"] = false;
    object["secure_time"] = false;
    object["no_instance_id"] = false;
    files.app_compose = to_line(object);
    return files;
}

// ---- files
// -----------------------------------------------------------------------------------------

Result<UniqueFd> create_file(const std::string& path) {
    UniqueFd fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    if (!fd)
        return fail_errno(fmt::format("Cannot create {}", path), errno);
    return fd;
}

/// Not synced: these files are made anew for each start.
Result<void> write_new_file(const std::string& path, std::string_view bytes) {
    HR_TRY(const auto fd, create_file(path));
    return write_all(fd.get(), bytes).map_error([&](Error error) {
        error.message = fmt::format("{}: {}", path, error.message);
        return error;
    });
}

/// Copies and hashes the same bytes, so that what travels is what app-compose.json names.
Result<void> copy_checked(const spec::LocalFile& file, const std::string& destination) {
    const UniqueFd in(::open(file.path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!in)
        return fail_errno(fmt::format("Cannot open {}", file.path), errno);
    HR_TRY(const auto out, create_file(destination));
    crypto::Sha256 hash;
    std::array<char, 65536> buffer{};
    for (;;) {
        const ssize_t count = ::read(in.get(), buffer.data(), buffer.size());
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return fail_errno(fmt::format("Cannot read {}", file.path), errno);
        if (count == 0)
            break;
        const std::string_view part(buffer.data(), static_cast<std::size_t>(count));
        hash.update(part);
        HR_CHECK(write_all(out.get(), part));
    }
    if (crypto::to_hex(hash.finish()) != file.entry.sha256)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{} has changed since it was hashed", file.path),
                    "run again when nothing writes to it");
    return {};
}

Result<void> make_folder(const std::string& path) {
    if (::mkdir(path.c_str(), 0700) != 0)
        return fail_errno(fmt::format("Cannot make folder {}", path), errno);
    return {};
}

Result<void> run_tool(ProcessLauncher& launcher, const std::string& directory,
                      std::vector<std::string> argv, const char* package) {
    const std::string name = argv.front();
    ProcessSpec spec;
    spec.argv = std::move(argv);
    spec.working_directory = directory;
    // No settings of the user's: mtools reads ~/.mtoolsrc, and the locale decides about names.
    spec.environment = {"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                        "LC_ALL=C", "MTOOLSRC=/dev/null"};
    HR_TRY(const auto output,
           run_captured(launcher, std::move(spec), tool_deadline).map_error([&](Error error) {
               if (error.code == ErrorCode::not_found)
                   error.hint = fmt::format("install the package {}", package);
               return error;
           }));
    if (output.status.exited && output.status.code == 0)
        return {};
    auto words = output.err.empty() ? output.out : output.err;
    while (!words.empty() && words.back() == '\n')
        words.pop_back();
    return fail(ErrorCode::unavailable,
                fmt::format("{} failed with {}: {}", name, output.status.describe(), words),
                "look at the free space of the file system");
}

// ---- the data disk
// -------------------------------------------------------------------------------

constexpr std::string_view qcow2_magic{"QFI\xfb", 4};

Result<std::string> read_start(const std::string& path, std::size_t count) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd)
        return fail_errno(fmt::format("Cannot open {}", path), errno);
    std::string bytes(count, '\0');
    const ssize_t got = ::pread(fd.get(), bytes.data(), bytes.size(), 0);
    if (got < 0)
        return fail_errno(fmt::format("Cannot read {}", path), errno);
    bytes.resize(static_cast<std::size_t>(got));
    return bytes;
}

/// The size that the guest sees. Source: QEMU docs/interop/qcow2.txt, header bytes 24 to 31.
Result<std::uint64_t> qcow2_size(const std::string& path) {
    constexpr std::size_t size_at = 24;
    HR_TRY(const auto header, read_start(path, size_at + 8));
    if (header.size() != size_at + 8 || !header.starts_with(qcow2_magic))
        return fail(ErrorCode::corrupt_data, fmt::format("{} is not a qcow2 disk", path),
                    "remove the instance, which loses the disk's data");
    std::uint64_t size = 0;
    for (std::size_t i = 0; i < 8; ++i)
        size = size << 8U | static_cast<unsigned char>(header[size_at + i]);
    return size;
}

Result<void> sync_file(const std::string& path) {
    const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!fd || ::fsync(fd.get()) != 0)
        return fail_errno(fmt::format("Cannot sync {}", path), errno);
    return {};
}

Result<void> rename_file(const std::string& from, const std::string& to) {
    if (::rename(from.c_str(), to.c_str()) != 0)
        return fail_errno(fmt::format("Cannot rename {} to {}", from, to), errno);
    return {};
}

Result<void> create_disk(ProcessLauncher& launcher, const std::string& directory,
                         const std::string& name, std::uint64_t bytes,
                         const std::optional<std::string>& backing_file) {
    std::vector<std::string> argv{"qemu-img", "create", "-q", "-f", "qcow2"};
    if (backing_file) {
        HR_TRY(const auto start, read_start(*backing_file, qcow2_magic.size()));
        argv.insert(argv.end(),
                    {"-b", *backing_file, "-F", start == qcow2_magic ? "qcow2" : "raw"});
    }
    argv.insert(argv.end(), {name, std::to_string(bytes)});
    return run_tool(launcher, directory, std::move(argv), "qemu-utils");
}

/// The bytes of an empty disk, from the cache or new into it.
Result<std::string> empty_disk(ProcessLauncher& launcher, const std::string& cache_directory,
                               std::uint64_t bytes) {
    const std::string path = join_path(cache_directory, fmt::format("empty-{}.qcow2", bytes));
    if (const auto size = qcow2_size(path); !size || *size != bytes) {
        HR_CHECK(make_directories(cache_directory, 0700));
        // Several runs may be here at once: each with a file of its own, the last rename stays.
        const std::string temporary = fmt::format(".empty-{}.{}.tmp", bytes, ::getpid());
        const std::string temporary_path = join_path(cache_directory, temporary);
        const auto make = [&]() -> Result<void> {
            HR_CHECK(create_disk(launcher, cache_directory, temporary, bytes, std::nullopt));
            HR_CHECK(sync_file(temporary_path));
            return rename_file(temporary_path, path);
        };
        if (auto made = make(); !made) {
            ::unlink(temporary_path.c_str());
            return tl::unexpected<Error>(std::move(made).error());
        }
    }
    return read_file(path, max_empty_disk_bytes);
}

/// Beside a disk whose guest has not yet reported an identity.
std::string new_disk_marker(const InstancePaths& paths) {
    return join_path(paths.directory, "disk.new");
}

Result<void> make_disk(ProcessLauncher& launcher, const InstancePaths& paths,
                       const std::string& cache_directory, std::uint64_t bytes,
                       const std::optional<std::string>& backing_file) {
    const std::string temporary = paths.data_disk() + ".tmp";
    HR_CHECK(remove_file(temporary));
    // The marker first: a disk without it and without an identity is one that has lost it.
    HR_CHECK(remove_file(new_disk_marker(paths)));
    HR_CHECK(write_new_file(new_disk_marker(paths), ""));
    if (backing_file || cache_directory.empty()) {
        HR_CHECK(create_disk(launcher, paths.directory, base_name(temporary), bytes, backing_file));
    } else {
        HR_TRY(const auto disk, empty_disk(launcher, cache_directory, bytes));
        HR_CHECK(write_new_file(temporary, disk));
    }
    return rename_file(temporary, paths.data_disk());
}

} // namespace

Result<GuestFiles> make_guest_files(const spec::VmSpec& spec, const image::Image& image) {
    HR_TRY(auto files, image.guest == image::Guest::host_runner ? files_for_our_guest(spec)
                                                                : files_for_dstack(spec, image));
    if (files.app_compose.size() > protocol::max_app_compose_json_bytes)
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The compose file makes an app-compose.json of {} bytes, but the "
                                "guest reads at most {}",
                                files.app_compose.size(), protocol::max_app_compose_json_bytes),
                    "move long texts into files: volumes: [\"./FILE:/path\"]");
    files.compose_hash = crypto::sha256(files.app_compose);
    return files;
}

Result<void> write_app_folder(const InstancePaths& paths, const GuestFiles& files,
                              const NamedFile& sys_config, const image::Image& image) {
    const std::string folder = paths.app();
    // app-compose.json is written first and so marks the folder as ours.
    if (path_exists(join_path(folder, app_compose_name)))
        HR_CHECK(remove_tree(folder, std::string(app_compose_name)));
    else if (::rmdir(folder.c_str()) != 0 && errno != ENOENT)
        return fail_errno(fmt::format("Cannot remove folder {}", folder), errno);
    HR_CHECK(make_folder(folder));
    HR_CHECK(write_new_file(join_path(folder, app_compose_name), files.app_compose));
    HR_CHECK(write_new_file(join_path(folder, sys_config.name), sys_config.bytes));
    if (path_exists(paths.instance_info())) {
        HR_TRY(const auto info, read_file(paths.instance_info(), max_instance_info_bytes));
        HR_CHECK(write_new_file(join_path(folder, ".instance_info"), info));
    }
    if (image.guest == image::Guest::dstack && image.version < without_certs_folder)
        HR_CHECK(make_folder(join_path(folder, "certs")));
    if (files.files.empty())
        return {};
    const std::string files_folder = join_path(folder, "files");
    HR_CHECK(make_folder(files_folder));
    for (const auto& file : files.files) {
        const std::string destination = join_path(files_folder, file.entry.sha256);
        if (!path_exists(destination)) // two names may have the same bytes
            HR_CHECK(copy_checked(file, destination));
    }
    return {};
}

Result<void> build_share_image(ProcessLauncher& launcher, const InstancePaths& paths) {
    const std::string name = base_name(paths.share_image()) + ".tmp";
    const std::string path = join_path(paths.directory, name);
    const auto build = [&]() -> Result<void> {
        HR_CHECK(remove_file(path));
        HR_TRY(auto fd, create_file(path));
        if (::ftruncate(fd.get(), static_cast<off_t>(share_bytes)) != 0)
            return fail_errno(fmt::format("Cannot set the size of {}", path), errno);
        fd.reset();
        // Names relative to the folder: in a path, mtools would take "@@" for an offset.
        HR_CHECK(run_tool(
            launcher, paths.directory,
            {"mformat", "-i", name, "-F", "-v", share_label, "-N", share_serial, "::"}, "mtools"));
        // Without -b (batch mode): mtools 4.0.32 then fails on an image of this size.
        std::vector<std::string> copy{"mcopy", "-i", name, "-s", "-Q"};
        HR_TRY(const auto entries, list_directory(paths.app()));
        for (const auto& entry : entries)
            copy.push_back(join_path(base_name(paths.app()), entry));
        copy.emplace_back("::/");
        HR_CHECK(run_tool(launcher, paths.directory, std::move(copy), "mtools"));
        return rename_file(path, paths.share_image());
    };
    return build().map_error([&](Error error) {
        ::unlink(path.c_str());
        return error;
    });
}

Result<void> prepare_data_disk(ProcessLauncher& launcher, const InstancePaths& paths,
                               const std::string& cache_directory, std::uint64_t bytes,
                               const std::optional<std::string>& backing_file) {
    const std::string disk = paths.data_disk();
    const bool has_identity = path_exists(paths.instance_info());
    if (!path_exists(disk)) {
        if (has_identity)
            return fail(ErrorCode::wrong_state,
                        fmt::format("The disk {} is gone, but {} is there: the guest would look "
                                    "for its data on a new disk and fail",
                                    disk, paths.instance_info()),
                        "bring the disk back, or start anew under another --name");
        return make_disk(launcher, paths, cache_directory, bytes, backing_file);
    }
    const bool is_new = path_exists(new_disk_marker(paths));
    if (!has_identity && is_new)
        // The last run ended before the guest had put anything on it.
        return make_disk(launcher, paths, cache_directory, bytes, backing_file);
    if (!has_identity)
        return fail(ErrorCode::wrong_state,
                    fmt::format("The disk {} is there, but its identity {} is gone: the guest "
                                "would encrypt the disk anew and lose all data",
                                disk, paths.instance_info()),
                    "bring the file back, or start anew under another --name");
    HR_CHECK(remove_file(new_disk_marker(paths)));
    HR_TRY(const auto size, qcow2_size(disk));
    if (size != bytes)
        return fail(
            ErrorCode::wrong_state,
            fmt::format("The disk {} has {}, not {}", disk, format_size(size), format_size(bytes)),
            fmt::format("give --disk {}: the size is fixed when a disk is made",
                        format_size(size)));
    return {};
}

Result<void> store_instance_info(const InstancePaths& paths, std::string_view text) {
    HR_CHECK(decode_object<bool>(text, max_instance_info_bytes, ErrorCode::invalid_argument,
                                 "The guest's instance.info",
                                 [](const json&) -> Result<bool> { return true; }));
    HR_CHECK(write_file_atomic(paths.instance_info(), text));
    return remove_file(new_disk_marker(paths));
}

} // namespace host_runner::instance
