// SPDX-License-Identifier: Apache-2.0
#include "host_runner/net/http_client.hpp"

#include <cerrno>
#include <exception>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include <fmt/format.h>

#include "fd_stream.hpp"
#include "host_runner/base/unix_socket.hpp"
#include "host_runner/crypto/digest.hpp"

namespace host_runner::net {

namespace {

/// Leftovers of one earlier answer; more means the peer is not ours.
constexpr std::size_t max_skipped_bytes = 4 << 20;
constexpr std::size_t max_answer_header_bytes = 16UL * 1024;
/// httplib matches status lines with std::regex, which recurses for each character: 4000 of them
/// used up a stack of 8 MiB under the address sanitizer.
constexpr std::size_t max_answer_line_bytes = 1024;

/// Streams that outlive a request: QEMU's end of a virtio-serial port (a unix socket) and the
/// guest's (a character device). Their servers are ours and send the request's id back.
bool outlives_requests(int fd) {
    struct stat status {};
    if (::fstat(fd, &status) == 0 && S_ISCHR(status.st_mode))
        return true;
    int domain = 0;
    socklen_t size = sizeof domain;
    return ::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_UNIX;
}

/// httplib's client on a stream that is already connected.
class StreamClient final : public httplib::ClientImpl {
public:
    StreamClient(UniqueFd fd, FdStream& stream)
        : httplib::ClientImpl("localhost"), fd_(std::move(fd)), stream_(stream) {
        set_keep_alive(true);
        set_decompress(false);
        set_url_encode(false);
    }

private:
    bool create_and_connect_socket(Socket& socket, httplib::Error&) override {
        socket.sock = fd_.release(); // closed by ClientImpl
        return socket.sock >= 0;
    }
    bool process_socket(const Socket&, std::function<bool(httplib::Stream&)> callback) override {
        return callback(stream_);
    }

    UniqueFd fd_;
    FdStream& stream_;
};

Result<UniqueFd> connect_nonblocking(int family, const sockaddr* address, socklen_t size,
                                     const std::string& name, std::chrono::milliseconds timeout) {
    UniqueFd fd(::socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!fd)
        return fail_errno(fmt::format("Cannot make a socket for {}", name), errno);
    if (::connect(fd.get(), address, size) == 0)
        return fd;
    if (errno == EINPROGRESS) {
        pollfd waiting{fd.get(), POLLOUT, 0};
        int ready = 0;
        do
            ready = ::poll(&waiting, 1, static_cast<int>(timeout.count()));
        while (ready < 0 && errno == EINTR);
        if (ready == 0)
            return fail(ErrorCode::timeout,
                        fmt::format("{} does not answer within {} ms", name, timeout.count()));
        int problem = 0;
        socklen_t problem_size = sizeof problem;
        ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &problem, &problem_size);
        errno = problem;
        if (problem == 0)
            return fd;
    }
    if (errno == ENOENT || errno == ECONNREFUSED || errno == ECONNRESET || errno == EAGAIN)
        return fail(ErrorCode::unavailable, fmt::format("Nobody listens on {}", name));
    return fail_errno(fmt::format("Cannot connect to {}", name), errno);
}

Error explain(const FdStream& stream, httplib::Error error, bool over_cap, bool stopped,
              const RequestOptions& options) {
    if (over_cap)
        return {ErrorCode::corrupt_data,
                fmt::format("The answer has more than {} bytes", options.max_body_bytes), "", 0};
    if (stopped)
        return {ErrorCode::unavailable, "The answer was no longer wanted", "", 0};
    switch (stream.broken()) {
    case FdStream::Broken::timeout:
        return {ErrorCode::timeout,
                fmt::format("No whole answer came within {} ms", options.timeout.count()), "", 0};
    case FdStream::Broken::headers_too_large:
        return {ErrorCode::corrupt_data,
                "The answer does not begin as one, or its header is too long", "", 0};
    case FdStream::Broken::closed:
    case FdStream::Broken::interrupted:
        return {ErrorCode::unavailable, "The peer closed the connection before its answer ended",
                "", 0};
    case FdStream::Broken::none:
        break;
    }
    return {ErrorCode::corrupt_data,
            fmt::format("The answer is no HTTP: {}", httplib::to_string(error)), "", 0};
}

} // namespace

Connector connect_unix(std::string path) {
    return [path = std::move(path)]() -> Result<UniqueFd> {
        HR_TRY(const auto address, unix_address(path));
        return connect_nonblocking(AF_UNIX, reinterpret_cast<const sockaddr*>(&address),
                                   sizeof address, path, std::chrono::milliseconds(0));
    };
}

Connector open_device(std::string path) {
    return [path = std::move(path)]() -> Result<UniqueFd> {
        UniqueFd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
        if (!fd)
            return fail_errno(fmt::format("Cannot open {}", path), errno);
        return fd;
    };
}

Connector connect_tcp(std::string host, std::uint16_t port, std::chrono::milliseconds timeout) {
    return [host = std::move(host), port, timeout]() -> Result<UniqueFd> {
        sockaddr_in address{};
        address.sin_family = AF_INET;
        address.sin_port = htons(port);
        if (::inet_pton(AF_INET, host.c_str(), &address.sin_addr) != 1)
            return fail(ErrorCode::invalid_argument,
                        fmt::format("'{}' is not a literal IPv4 address", host));
        return connect_nonblocking(AF_INET, reinterpret_cast<const sockaddr*>(&address),
                                   sizeof address, fmt::format("{}:{}", host, port), timeout);
    };
}

Connector connect_vsock(std::uint32_t cid, std::uint32_t port) {
    return [cid, port]() -> Result<UniqueFd> {
        sockaddr_vm address{};
        address.svm_family = AF_VSOCK;
        address.svm_cid = cid;
        address.svm_port = port;
        return connect_nonblocking(AF_VSOCK, reinterpret_cast<const sockaddr*>(&address),
                                   sizeof address, fmt::format("vsock {}:{}", cid, port),
                                   std::chrono::seconds(2));
    };
}

Result<HttpResponse> send_request(const Connector& connector, const HttpRequest& request,
                                  const RequestOptions& options) {
    const auto deadline = FdStream::Clock::now() + options.timeout;
    HR_TRY(auto fd, connector());
    ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
    FdStream stream(fd.get(), -1);
    stream.set_deadline(deadline);
    stream.start_message(max_answer_header_bytes, max_answer_line_bytes);
    const auto id = crypto::random_hex(8);
    if (outlives_requests(fd.get()))
        stream.expect_answer(id, max_skipped_bytes);

    httplib::Request raw;
    raw.method = request.method;
    raw.path = request.query.empty() ? request.path : request.path + "?" + request.query;
    for (const auto& [name, value] : request.headers)
        raw.headers.emplace(name, value);
    raw.headers.emplace("x-request-id", id);
    raw.body = request.body;
    HttpResponse response;
    bool over_cap = false;
    bool stopped = false;
    raw.content_receiver = [&](const char* data, std::size_t size, std::uint64_t, std::uint64_t) {
        if (options.on_body) {
            stopped = !options.on_body({data, size});
            return !stopped;
        }
        over_cap = response.body.size() + size > options.max_body_bytes;
        if (!over_cap)
            response.body.append(data, size);
        return !over_cap;
    };
    try {
        StreamClient client(std::move(fd), stream);
        httplib::Response got;
        auto error = httplib::Error::Success;
        if (!client.send(raw, got, error))
            return tl::unexpected<Error>(explain(stream, error, over_cap, stopped, options));
        response.status = got.status;
        response.content_type = got.get_header_value("Content-Type");
    } catch (const std::exception& problem) {
        return fail(ErrorCode::internal, fmt::format("HTTP request failed: {}", problem.what()));
    }
    return response;
}

} // namespace host_runner::net
