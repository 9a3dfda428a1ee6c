// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Compiled modules, kept between calls and restarts.
///
///     CompileCache cache(launcher, {"/proc/self/exe", "compile"}, "/run/host-runner/modules");
///     HR_TRY(auto artifact, cache.artifact(module));   // compiles the first time

#include <cstddef>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/wasm/compile.hpp"

namespace host_runner::wasm {

/// What must be equal for an artifact to be used again: the module, the engine's full version, the
/// settings that shape code, and the CPU's features. The engine's own check takes any release of
/// one major version, a faulty one too.
/// @return 64 hexadecimal digits
[[nodiscard]] std::string compile_key(std::string_view module);

/// An entry is a file KEY.cwasm: 8 bytes of name, the artifact's SHA-256 (32 bytes), the artifact.
/// The digest finds damage; against those who can write the folder it is no protection: it must be
/// ours alone (mode 0700) and on a disk the guest trusts.
class CompileCache {
public:
    /// @param command as for compile_in_child()
    /// @param folder made with mode 0700 when missing
    CompileCache(ProcessLauncher& launcher, std::vector<std::string> command, std::string folder,
                 CompileLimits limits = {});

    /// The artifact for `module`: from the folder, else compiled in a child and put there. A
    /// damaged entry is made anew, with a warning in the log. Processes that want the same module
    /// at once wait for the one that compiles it.
    /// @errors as compile_in_child(); permission_denied: the folder is not ours alone
    [[nodiscard]] Result<std::string> artifact(std::string_view module);

private:
    /// @return nullopt: it is not there, or damaged
    [[nodiscard]] std::optional<std::string> find(const std::string& path) const;
    [[nodiscard]] Result<std::string> compile_and_keep(std::string_view module,
                                                       const std::string& path);

    ProcessLauncher& launcher_;
    std::vector<std::string> command_;
    std::string folder_;
    CompileLimits limits_;
};

} // namespace host_runner::wasm
