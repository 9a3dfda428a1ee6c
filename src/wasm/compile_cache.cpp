// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/compile_cache.hpp"

#include <cerrno>

#include <cpuid.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/log.hpp"
#include "host_runner/crypto/digest.hpp"
#include "settings.hpp"

namespace host_runner::wasm {

namespace {

constexpr std::string_view magic = "HRCWASM1";

/// The words of CPUID that name instruction sets, and what the system enables of them (XCR0). None
/// that differs between the processors of one machine: leaf 1's EBX holds a processor's own number.
/// Source: Intel SDM volume 2A, CPUID; AMD APM volume 3, appendix E
std::string cpu_features() {
    std::string text;
    unsigned a = 0;
    unsigned b = 0;
    unsigned c = 0;
    unsigned d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) != 0) {
        text += fmt::format("1:{:x},{:x} ", c, d);
        constexpr unsigned osxsave = 1U << 27U;
        if ((c & osxsave) != 0) {
            unsigned low = 0;
            unsigned high = 0;
            asm volatile("xgetbv"
                         : "=a"(low), "=d"(high)
                         : "c"(0)); // NOLINT(hicpp-no-assembler): no function without -mxsave
            text += fmt::format("xcr0:{:x},{:x} ", low, high);
        }
    }
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) != 0)
        text += fmt::format("7:{:x},{:x},{:x} ", b, c, d);
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) != 0)
        text += fmt::format("7.1:{:x} ", a);
    if (__get_cpuid(0x80000001, &a, &b, &c, &d) != 0)
        text += fmt::format("80000001:{:x},{:x}", c, d);
    return text;
}

std::string_view as_text(const crypto::Sha256Digest& digest) {
    return {reinterpret_cast<const char*>(digest.data()), digest.size()}; // NOLINT: bytes
}

/// The artifact in an entry. @errors corrupt_data
Result<std::string> unwrap(std::string entry, const std::string& path) {
    constexpr std::size_t header = magic.size() + std::tuple_size_v<crypto::Sha256Digest>;
    const std::string_view all(entry);
    if (all.size() < header || all.substr(0, magic.size()) != magic ||
        all.substr(magic.size(), header - magic.size()) !=
            as_text(crypto::sha256(all.substr(header))))
        return fail(ErrorCode::corrupt_data, fmt::format("{} is damaged", path));
    entry.erase(0, header);
    return entry;
}

/// Only we may have put files there: they are executed.
Result<void> make_private_folder(const std::string& path) {
    HR_CHECK(make_directories(path, 0700));
    struct stat status {};
    if (::lstat(path.c_str(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at folder {}", path), errno);
    constexpr mode_t others = S_IRWXG | S_IRWXO;
    if (!S_ISDIR(status.st_mode) || status.st_uid != ::geteuid() || (status.st_mode & others) != 0)
        return fail(
            ErrorCode::permission_denied, fmt::format("{} is not a folder of ours alone", path),
            "its code would be executed: give it mode 0700 and this user, or name another one");
    return {};
}

Result<UniqueFd> memory_file(const char* name, std::string_view bytes) {
    UniqueFd fd(::memfd_create(name, MFD_CLOEXEC));
    if (!fd)
        return fail_errno("Cannot make a file in memory", errno);
    HR_CHECK(write_all(fd.get(), bytes));
    if (::lseek(fd.get(), 0, SEEK_SET) != 0)
        return fail_errno("Cannot rewind a file in memory", errno);
    return fd;
}

} // namespace

std::string compile_key(std::string_view module) {
    crypto::Sha256 hash;
    hash.update(
        fmt::format("{}\n{}\n{}\n{}\n", magic, engine_version(), settings_text(), cpu_features()));
    hash.update(as_text(crypto::sha256(module)));
    return crypto::to_hex(hash.finish());
}

CompileCache::CompileCache(ProcessLauncher& launcher, std::vector<std::string> command,
                           std::string folder, CompileLimits limits)
    : launcher_(launcher), command_(std::move(command)), folder_(std::move(folder)),
      limits_(std::move(limits)) {}

Result<std::string> CompileCache::artifact(std::string_view module) {
    if (module.size() > limits_.module_bytes)
        return fail(ErrorCode::resource_exhausted,
                    fmt::format("The module has {} bytes, more than {}", module.size(),
                                limits_.module_bytes));
    HR_CHECK(make_private_folder(folder_));
    const auto path = join_path(folder_, compile_key(module) + ".cwasm");
    if (auto found = find(path))
        return std::move(*found);
    // Whoever comes while it is compiled waits, and finds it then.
    const auto lock_path = path + ".lock";
    const UniqueFd lock(::open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock || ::flock(lock.get(), LOCK_EX) != 0)
        return fail_errno(fmt::format("Cannot lock {}", lock_path), errno);
    if (auto found = find(path))
        return std::move(*found);
    auto artifact = compile_and_keep(module, path);
    // One that was waiting holds the removed file then, and a new one another: both look again.
    ::unlink(lock_path.c_str());
    return artifact;
}

std::optional<std::string> CompileCache::find(const std::string& path) const {
    auto entry = read_file(path, limits_.artifact_bytes + 4096);
    if (entry) {
        auto artifact = unwrap(std::move(*entry), path);
        if (artifact)
            return std::move(*artifact);
        log::warn("{}; compiling the module again", artifact.error().message);
    } else if (entry.error().code != ErrorCode::not_found) {
        log::warn("{}; compiling the module again", entry.error().message);
    }
    return std::nullopt;
}

Result<std::string> CompileCache::compile_and_keep(std::string_view module,
                                                   const std::string& path) {
    HR_TRY(const auto source, memory_file("module", module));
    HR_TRY(const auto target, memory_file("artifact", {}));
    HR_CHECK(compile_in_child(launcher_, command_, source.get(), target.get(), limits_));
    if (::lseek(target.get(), 0, SEEK_SET) != 0)
        return fail_errno("Cannot rewind a file in memory", errno);
    HR_TRY(auto artifact, read_all(target.get(), limits_.artifact_bytes));
    std::string fresh(magic);
    fresh += as_text(crypto::sha256(artifact));
    fresh += artifact;
    HR_CHECK(write_file_atomic(path, fresh, 0600));
    return artifact;
}

} // namespace host_runner::wasm
