// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a guest's file descriptor can be when the guest starts.
///
///     std::vector<wasi::File> files;
///     files.emplace_back(wasi::NullFile{});                                        // 0: stdin
///     files.emplace_back(wasi::CaptureOut{output, OutputStream::standard_output}); // 1: stdout
///     files.emplace_back(wasi::CaptureOut{output, OutputStream::standard_error});  // 2: stderr
///     HR_TRY(auto data, wasi::open_directory("/var/data", "/data", Access::read_write));
///     files.emplace_back(std::move(data));                                         // 3
///
/// A guest's C library looks for directories from 3 on and stops at the first number that is not
/// open: directories come before sockets.

#include <cstdint>
#include <memory>
#include <string>
#include <variant>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/wasm/wasi/output.hpp"
#include "host_runner/wasm/wasi/tls.hpp"

namespace host_runner::wasm::wasi {

enum class Access : std::uint8_t { read_only, read_write };

/// Reads are at the end, writes go nowhere.
struct NullFile {};

/// Bytes to read, e.g. the body of a request as stdin.
struct BytesIn {
    std::string bytes;
};

/// Writes go to an Output; several descriptors may share one.
struct CaptureOut {
    std::shared_ptr<Output> output;
    OutputStream stream = OutputStream::standard_output;
};

/// A pipe, terminal or socket of the host. Its open file description becomes non-blocking.
struct HostStream {
    UniqueFd fd;
};

/// A directory of the host under a name of the guest. Regular files and directories beneath it can
/// be opened, nothing outside of it, and no device, FIFO or socket. It should be on a local disk:
/// reading a file cannot be interrupted.
struct Directory {
    UniqueFd fd;      ///< Of a directory, open for reading (not O_PATH).
    std::string name; ///< As the guest sees it, e.g. "/data".
    Access access = Access::read_only;
};

/// A listening stream socket. With `tls` its connections speak TLS.
struct Listener {
    UniqueFd fd;
    std::shared_ptr<const TlsServer> tls;
};

/// A connected stream socket, perhaps with TLS on it (whose session borrows `fd`).
struct Stream {
    UniqueFd fd;
    std::unique_ptr<TlsSession> tls;
};

using File = std::variant<NullFile, BytesIn, CaptureOut, HostStream, Directory, Listener, Stream>;

/// Opens `path` of the host as a directory for a guest.
/// @errors not_found, permission_denied, io_error
[[nodiscard]] Result<Directory> open_directory(const std::string& path, std::string name,
                                               Access access);

} // namespace host_runner::wasm::wasi
