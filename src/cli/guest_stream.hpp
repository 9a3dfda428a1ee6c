// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The streamed answers of the guest API (Exec, Logs with follow) on the channel's third port.

#include <functional>
#include <string>
#include <string_view>

#include "host_runner/base/error.hpp"
#include "host_runner/base/unique_fd.hpp"
#include "host_runner/instance/registry.hpp"
#include "host_runner/protocol/guest_api.hpp"

namespace host_runner::cli {

/// Cuts a stream into lines, at most 1 MiB long each.
class LineSplitter {
public:
    /// Calls `on_line` for each line that is whole now, without its end.
    /// @return false when `on_line` did, or when a line is too long
    [[nodiscard]] bool feed(std::string_view bytes,
                            const std::function<bool(std::string_view)>& on_line);
    /// What has come after the last line's end.
    [[nodiscard]] const std::string& rest() const noexcept {
        return rest_;
    }

private:
    std::string rest_;
};

/// Locks the port for one use (QEMU serves one client per port; a second one would hang unseen),
/// posts the request, and gives each item but keep_alive to `on_item`; that returns false to stop.
/// @errors already_exists: another command uses the port; permission_denied: the guest refuses
///         (403); unavailable: no channel, or it was cut; corrupt_data: not the form of the API
[[nodiscard]] Result<void>
stream_from_guest(const instance::InstancePaths& paths, const std::string& method,
                  const std::string& body,
                  const std::function<bool(const protocol::StreamItem&)>& on_item);

} // namespace host_runner::cli
