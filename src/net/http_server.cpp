// SPDX-License-Identifier: Apache-2.0
#include "host_runner/net/http_server.hpp"

#include <algorithm>
#include <cctype>
#include <exception>
#include <map>
#include <optional>
#include <utility>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fd_stream.hpp"
#include "host_runner/base/log.hpp"

namespace host_runner::net {

namespace {

std::string lower(std::string text) {
    std::transform(text.begin(), text.end(), text.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

/// An id that may go back into a header: httplib has undone percent-encoding in it.
std::string usable_id(const httplib::Request& request) {
    constexpr std::size_t max_id_bytes = 64;
    auto id = request.get_header_value("x-request-id");
    const bool good = id.size() <= max_id_bytes &&
                      std::all_of(id.begin(), id.end(),
                                  [](unsigned char c) { return std::isalnum(c) != 0 || c == '-'; });
    return good ? id : std::string();
}

/// What httplib must not act upon is taken out of the request before it looks.
struct Hidden {
    std::string path;
    std::string content_type;

    void take_from(httplib::Request& request) {
        // It matches paths with std::regex, which recurses by their length: it sees one path only.
        path = std::exchange(request.path, "/");
        // It would take forms apart; a handler gets every body as it is.
        content_type = request.get_header_value("Content-Type");
        request.headers.erase("Content-Type");
        request.ranges.clear();
        // It would read such a body up to the end of the stream; but there is none (RFC 9112, 6.3).
        if (!request.has_header("Content-Length") && !request.has_header("Transfer-Encoding"))
            request.set_header("Content-Length", "0");
    }
};

HttpRequest to_request(const httplib::Request& from, const Hidden& hidden) {
    HttpRequest request;
    request.method = from.method;
    request.path = hidden.path;
    if (const auto mark = from.target.find('?'); mark != std::string::npos)
        request.query = from.target.substr(mark + 1);
    for (const auto& [name, value] : from.headers)
        request.headers[lower(name)] = value;
    if (!hidden.content_type.empty())
        request.headers["content-type"] = hidden.content_type;
    request.body = from.body;
    return request;
}

/// The answer to a request that httplib never got whole.
std::string_view refusal(FdStream::Broken broken) {
    switch (broken) {
    case FdStream::Broken::headers_too_large:
        return "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n"
               "Connection: close\r\n\r\n";
    case FdStream::Broken::timeout:
        return "HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    default:
        return {};
    }
}

/// Reaches httplib's protected process_request().
class StreamServer final : public httplib::Server {
public:
    using httplib::Server::process_request;
    /// httplib takes a server without a socket for one that is shutting down, and then writes no
    /// chunked answers. It neither reads nor closes this one.
    explicit StreamServer(int fd) {
        svr_sock_ = fd;
    }
};

} // namespace

struct HttpServer::Impl {
    HttpHandler handler;
    HttpLimits limits;
    std::map<std::string, StreamingHandler> streaming;
    UniqueFd wakeup;

    void start_writing(FdStream& stream) const {
        stream.set_deadline(FdStream::Clock::now() + limits.response_timeout);
    }

    void answer(const HttpRequest& request, httplib::Response& to, FdStream& stream) const {
        if (const auto found = streaming.find(request.path); found != streaming.end()) {
            to.set_chunked_content_provider(
                "application/jsonl", [this, &stream, request,
                                      run = found->second](std::size_t, httplib::DataSink& sink) {
                    run(request, [&](std::string_view bytes) {
                        start_writing(stream); // each piece has its own deadline
                        if (stream.is_asked_anew())
                            return false;
                        return bytes.empty() || sink.write(bytes.data(), bytes.size());
                    });
                    start_writing(stream);
                    sink.done();
                    return true;
                });
            start_writing(stream);
            return;
        }
        auto response = handler(request);
        start_writing(stream);
        to.status = response.status;
        to.set_content(std::move(response.body), response.content_type);
    }
};

HttpServer::HttpServer(HttpHandler handler, HttpLimits limits) : impl_(std::make_unique<Impl>()) {
    impl_->handler = std::move(handler);
    impl_->limits = limits;
    impl_->wakeup.reset(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    HR_ASSERT(impl_->wakeup);
}

HttpServer::~HttpServer() = default;

void HttpServer::set_streaming(std::string path, StreamingHandler handler) {
    impl_->streaming[std::move(path)] = std::move(handler);
}

void HttpServer::interrupt() noexcept {
    // Never read: every wait of every serve() sees it.
    const std::uint64_t one = 1;
    static_cast<void>(!::write(impl_->wakeup.get(), &one, sizeof one));
}

void HttpServer::serve(int fd) {
    // Reads and writes are waited for by poll(), so none may block on its own.
    ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
    const auto& limits = impl_->limits;
    FdStream stream(fd, impl_->wakeup.get());
    Hidden hidden;
    std::string request_id;
    bool handled = false;
    StreamServer server(fd);
    server.set_payload_max_length(limits.max_body_bytes);
    // Every answer, errors too, carries the request's id back. httplib would promise its own
    // idle time.
    server.set_header_writer([&](httplib::Stream& out, httplib::Headers& headers) {
        headers.erase("Keep-Alive");
        if (!request_id.empty())
            headers.emplace("x-request-id", request_id);
        return httplib::detail::write_headers(out, headers);
    });
    const auto on_request = [&](const httplib::Request& request, httplib::Response& response) {
        impl_->answer(to_request(request, hidden), response, stream);
        handled = true;
    };
    server.Get("/", on_request);
    server.Post("/", on_request);
    for (;;) {
        stream.set_deadline(limits.idle_timeout.count() > 0
                                ? std::optional(FdStream::Clock::now() + limits.idle_timeout)
                                : std::nullopt);
        if (!stream.wait_for_input())
            return;
        stream.set_deadline(FdStream::Clock::now() + limits.request_timeout);
        stream.start_message(limits.max_header_bytes, limits.max_header_bytes);
        request_id.clear();
        handled = false;
        bool closed = false;
        bool good = false;
        try {
            good = server.process_request(stream, "", 0, "", 0, false, closed,
                                          [&](httplib::Request& request) {
                                              request_id = usable_id(request);
                                              hidden.take_from(request);
                                          });
        } catch (const std::exception& problem) {
            log::debug("HTTP request failed: {}", problem.what());
        }
        if (const auto text = refusal(stream.broken()); !handled && !text.empty()) {
            FdStream last(fd, impl_->wakeup.get());
            last.set_deadline(FdStream::Clock::now() + std::chrono::seconds(1));
            last.httplib::Stream::write(std::string(text));
        }
        // After a request that httplib refused, the rest of it may still be on its way.
        if (!good || !handled || closed || stream.broken() != FdStream::Broken::none)
            return;
    }
}

} // namespace host_runner::net
