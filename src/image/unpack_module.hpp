// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Between the image module and lib/host-runner/unpack.so, which alone is linked with libarchive:
/// libarchive and the libraries behind it would cost every `run` memory and start time.

#include <cstdint>

extern "C" {

enum HostRunnerUnpackStatus {
    host_runner_unpack_done = 0,
    host_runner_unpack_refused = 1, ///< The archive is damaged or breaks a rule.
    host_runner_unpack_failed = 2,  ///< The system failed; `error_number` says how.
};

struct HostRunnerUnpackRequest {
    int archive_fd;     ///< At the archive's start.
    const char* folder; ///< Canonical and empty.
    std::uint64_t max_bytes;
    std::uint32_t max_entries;
    void (*progress)(void* context, std::uint64_t archive_bytes_read);
    void* context;
    int error_number;   ///< Out.
    char message[1024]; ///< Out: the cause of a failure, ended by a zero.
};

/// HostRunnerUnpackStatus host_runner_unpack(HostRunnerUnpackRequest*)
using HostRunnerUnpack = int (*)(HostRunnerUnpackRequest*);
}

inline constexpr const char* host_runner_unpack_symbol = "host_runner_unpack";
