// SPDX-License-Identifier: Apache-2.0
#pragma once

/// A guest's file list as in Enarx 0.7: standard streams and sockets, by position.
///
///     std::vector<wasi::FileEntry> list{{.kind = FileKind::null}, {.kind =
///     FileKind::standard_output},
///         {.kind = FileKind::standard_error},
///         {.kind = FileKind::listen, .protocol = Protocol::tls, .name = "web", .port = 8443}};
///     HR_TRY(auto opened, wasi::open_file_list(list, std::move(means)));
///     options.files = std::move(opened.files);
///     options.environment = std::move(opened.environment);   // then the configured variables
///
/// Source: enarx/enarx 0.7.1, crates/enarx-config

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "host_runner/base/error.hpp"
#include "host_runner/wasm/call_deadline.hpp"
#include "host_runner/wasm/wasi/files.hpp"
#include "host_runner/wasm/wasi/tls.hpp"

namespace host_runner::wasm::wasi {

enum class FileKind : std::uint8_t {
    null,
    standard_input,
    standard_output,
    standard_error,
    listen,
    connect,
};

enum class Protocol : std::uint8_t { tcp, tls };

struct FileEntry {
    FileKind kind = FileKind::null;
    /// Default: "null", "stdin", "stdout", "stderr"; the host of a connect. A listen must have one.
    std::string name = {};
    Protocol protocol = Protocol::tls; ///< Of a listen or connect.
    /// listen: where to listen, default "::"; connect: where to connect to, default `host`.
    /// A literal IPv4 or IPv6 address: names are not resolved.
    std::string address = {};
    std::string host = {}; ///< connect: the peer, whom its certificate must name.
    /// Default 443 (tls) or 80 (tcp). A listen on 0 takes a free port.
    std::optional<std::uint16_t> port = {};
    /// listen: other processes of this user that say so too listen there as well, and the kernel
    /// spreads the connections over them.
    bool shared = false;
};

/// What the entries of a list need.
struct FileListMeans {
    File standard_input = NullFile{}; ///< Each of the three can stand in a list once.
    File standard_output = NullFile{};
    File standard_error = NullFile{};
    std::shared_ptr<const TlsServer> tls_server = {}; ///< For listens with tls.
    std::shared_ptr<const TlsClient> tls_client = {}; ///< For connects with tls.
    CallDeadline deadline = {};                       ///< Of connecting, with its handshakes.
};

struct OpenedFileList {
    std::vector<File> files;
    /// FD_COUNT and FD_NAMES (joined with ':').
    std::vector<std::pair<std::string, std::string>> environment;
    std::vector<std::uint16_t> ports; ///< By position: of a listen the port it has, else 0.
};

/// Checks the whole list, then binds and connects in its order. Blocks up to the deadline; ends
/// with what failed first, and nothing stays open then.
/// @errors invalid_argument: a name that is missing, used twice or holds ':' or a NUL, an address
///         that is not literal, TLS without means for it, over 256 entries; already_exists: the
///         address is in use; permission_denied; unavailable: the peer refuses or its certificate
///         is not accepted; timeout: the deadline passed or the call was cancelled; io_error
[[nodiscard]] Result<OpenedFileList> open_file_list(std::span<const FileEntry> entries,
                                                    FileListMeans means);

} // namespace host_runner::wasm::wasi
