// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The last steps before a service's program runs, done by `guest_agent launch JSON` in the child:
/// joining its cgroup, its own mounts, its user, and the hash of the program file. A fresh process
/// of its own may allocate, which the child of a fork may not.
///
/// A WebAssembly service becomes `guest_agent worker` instead: its module is checked and compiled
/// first, and its root folder holds its mounts and nothing else.
///
/// It tells the agent on a pipe: "sha256 HEX\n" before the exec, with TLS "certificate HEX\n",
/// "error TEXT\n" when a step failed. The pipe's end without an error means that the program runs,
/// or that the module is about to run and its ports are open.

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/base/process.hpp"
#include "host_runner/wasm/worker/request.hpp"

namespace host_runner::agent {

struct LaunchRequest {
    std::vector<std::string> command; ///< command[0] is looked up in PATH when it has no '/'.
    struct Module {
        std::string path;
        std::string sha256;       ///< What the manifest says of the file.
        std::string cache_folder; ///< Of compiled code; see wasm::CompileCache.
        /// An empty folder, for the mount of the worker's root; empty: it keeps the root that is
        /// there, which only suits one without mounts.
        std::string root_folder;
        /// What the worker does; arguments, descriptors and `has_files` are filled in.
        wasm::worker::Request worker;
        struct Tls {
            std::string certificate_path; ///< PEM; empty: self-signed, kept in `store`.
            std::string key_path;
            std::string store; ///< PEM of both, made when it is missing.
            std::string name;  ///< For which it is made.
        };
        std::optional<Tls> tls;
    };
    std::optional<Module> module; ///< Run this; `command` is its argv.
    std::string cgroup;           ///< Folder of the cgroup to join; empty: stay.
    std::string working_directory;
    std::optional<ProcessSpec::User> user; ///< nullopt: stay who we are, the compiler too.
    struct BindMount {
        std::string source;
        std::string target;
        bool read_only = false;
        bool is_file = false;
    };
    std::vector<BindMount> mounts; ///< In a mount namespace of the service's own.
    std::string terminal;          ///< Becomes stdin, stdout, stderr and the controlling terminal.
    int report_fd = -1;            ///< -1: nobody listens.
};

[[nodiscard]] std::string encode_launch_request(const LaunchRequest& request);
[[nodiscard]] Result<LaunchRequest> decode_launch_request(std::string_view json);

/// Becomes the program. Returns only on failure (reported on the pipe, and on stderr without one),
/// with the exit code for it: 127 when the program is missing, else 126, as shells do.
[[nodiscard]] int launch_service(const LaunchRequest& request);

struct LaunchReport {
    std::string program_sha256;
    std::string certificate_sha256; ///< Empty: no TLS.
    std::string error;              ///< Empty: the program runs.
};
/// Reads what launch_service() wrote.
[[nodiscard]] LaunchReport parse_launch_report(std::string_view text);

} // namespace host_runner::agent
