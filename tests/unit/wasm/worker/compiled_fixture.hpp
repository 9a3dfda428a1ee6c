// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Native code of the fixtures, for workers that a test starts.

#include <map>
#include <string>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <gtest/gtest.h>

#include "host_runner/base/files.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/wasm/compile.hpp"

namespace host_runner::tests {

inline UniqueFd memory_file() {
    return UniqueFd(::memfd_create("test", MFD_CLOEXEC));
}

/// Compiled once for each file of tests/fixtures/wasm: the native code, at its start.
inline UniqueFd compiled(const std::string& name) {
    static std::map<std::string, std::string> artifacts;
    auto& artifact = artifacts[name];
    ForkExecLauncher launcher;
    if (artifact.empty()) {
        const auto path = HOST_RUNNER_SOURCE_DIR "/tests/fixtures/wasm/" + name;
        const UniqueFd module(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        const auto file = memory_file();
        const auto done =
            wasm::compile_in_child(launcher, {GUEST_AGENT, "compile"}, module.get(), file.get());
        EXPECT_TRUE(done) << done.error().describe();
        ::lseek(file.get(), 0, SEEK_SET);
        artifact = read_all(file.get(), std::size_t{64} << 20U).value_or("");
    }
    auto file = memory_file();
    EXPECT_TRUE(write_all(file.get(), artifact));
    ::lseek(file.get(), 0, SEEK_SET);
    return file;
}

} // namespace host_runner::tests
