// SPDX-License-Identifier: Apache-2.0
#include "guest_stream.hpp"

#include <chrono>
#include <utility>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "host_runner/instance/logs.hpp"
#include "host_runner/net/http_client.hpp"
#include "host_runner/protocol/channel.hpp"
#include "host_runner/protocol/host_api.hpp"

namespace host_runner::cli {

namespace {

constexpr std::size_t max_line_bytes = 1 << 20;
/// A command or a followed log may go on for as long as the VM does; the guest's keep-alive lines
/// and the end of QEMU's socket tell when nobody is there any more.
constexpr std::chrono::hours no_limit{24 * 365};
constexpr int http_ok = 200;
constexpr int http_forbidden = 403;

Error refusal(const net::HttpResponse& response, const std::string& method,
              const std::string& body) {
    return {response.status == http_forbidden ? ErrorCode::permission_denied
                                              : ErrorCode::unsupported,
            fmt::format("The guest refuses {} with status {}: {}", method, response.status,
                        instance::printable(body)),
            response.status == http_forbidden ? "only images of the flavour dev allow it" : "", 0};
}

} // namespace

bool LineSplitter::feed(std::string_view bytes,
                        const std::function<bool(std::string_view)>& on_line) {
    while (!bytes.empty()) {
        const auto end = bytes.find('\n');
        rest_.append(bytes.substr(0, end));
        if (rest_.size() > max_line_bytes)
            return false;
        if (end == std::string_view::npos)
            return true;
        bytes.remove_prefix(end + 1);
        const std::string line = std::exchange(rest_, {});
        if (!on_line(line))
            return false;
    }
    return true;
}

Result<void> stream_from_guest(const instance::InstancePaths& paths, const std::string& method,
                               const std::string& body,
                               const std::function<bool(const protocol::StreamItem&)>& on_item) {
    const auto socket = paths.channel_socket(protocol::guest_stream_port);
    if (!path_exists(socket))
        return fail(ErrorCode::unsupported,
                    "The guest of this VM has no channel on which it could be asked",
                    "images that are not ours have none");
    const auto lock = try_lock_file(socket + ".lock");
    if (!lock && lock.error().code == ErrorCode::already_exists)
        return fail(ErrorCode::already_exists,
                    "Another exec or logs of this VM's services is running",
                    "wait for its end; the guest serves one at a time");
    if (!lock)
        return tl::unexpected<Error>(lock.error());

    net::HttpRequest request;
    request.method = "POST";
    request.path = std::string(protocol::api_prefix) + method;
    request.query = "json";
    request.headers["content-type"] = "application/json";
    request.body = body;

    LineSplitter lines;
    std::string no_item; // a line in another form: an error's body, as the status tells later
    bool stopped = false;
    net::RequestOptions options;
    options.timeout = no_limit;
    options.on_body = [&](std::string_view bytes) {
        return lines.feed(bytes, [&](std::string_view line) {
            const auto item = protocol::decode_stream_item(line);
            if (!item) {
                no_item = line;
                return true;
            }
            if (item->kind == protocol::StreamItem::Kind::keep_alive)
                return true;
            stopped = !on_item(*item);
            return !stopped;
        });
    };
    const auto response = net::send_request(net::connect_unix(socket), request, options);
    if (stopped)
        return {};
    HR_CHECK(response);
    if (no_item.empty())
        no_item = lines.rest();
    if (response->status != http_ok)
        return tl::unexpected<Error>(refusal(*response, method, no_item));
    if (!no_item.empty())
        return fail(ErrorCode::corrupt_data,
                    fmt::format("The guest's answer to {} is not of the guest API: {}", method,
                                instance::printable(no_item)),
                    "the image's agent may be of another version");
    return {};
}

} // namespace host_runner::cli
