// SPDX-License-Identifier: Apache-2.0
#include <array>
#include <cerrno>
#include <optional>

#include <poll.h>
#include <unistd.h>

#include <fmt/format.h>

#include "call.hpp"
#include "host_runner/base/units.hpp"
#include "host_runner/wasm/http_server.hpp"

namespace host_runner::wasm::worker {

namespace {

using protocol::CallStatus;

/// A component gets its request's body whole.
constexpr std::size_t max_body_bytes = 8 * mib;

CallStatus status_of(HttpKind kind) {
    switch (kind) {
    case HttpKind::timed_out:
        return CallStatus::timeout;
    case HttpKind::out_of_memory:
        return CallStatus::oom;
    case HttpKind::client_gone:
        return CallStatus::cancelled;
    case HttpKind::rejected:
        return CallStatus::overloaded;
    case HttpKind::bad_request:
        return CallStatus::bad_request;
    default: // trapped, or it gave no answer
        return CallStatus::trap;
    }
}

class ComponentExecutor final : public Executor {
public:
    explicit ComponentExecutor(HttpServer server) : server_(std::move(server)) {}

    void run(Call& call, CallOutput& output, const std::function<void()>& on_start,
             protocol::InvokeResult& result) override {
        const auto conclude = [&](CallStatus status, std::string message = {}) {
            result.status = status;
            result.message = std::move(message);
        };
        const auto& arguments = call.request.arguments;
        if (arguments.size() > 1 || (!arguments.empty() && !arguments.front().starts_with('/')))
            return conclude(
                CallStatus::bad_request,
                "A component takes one argument at most: the path, which begins with /");
        const UniqueFd input = std::move(call.input_reader);
        const auto body = read_body(input.get(), call.limits());
        if (!body)
            return conclude(CallStatus::failed, body.error().describe());
        if (!*body)
            return conclude(std::chrono::steady_clock::now() < call.deadline ? CallStatus::cancelled
                                                                             : CallStatus::timeout);
        if ((*body)->size() > max_body_bytes)
            return conclude(CallStatus::limit,
                            fmt::format("The input has more than {}", format_size(max_body_bytes)));
        HttpCall request;
        if (!arguments.empty())
            request.path = arguments.front();
        request.body = **body;
        for (const auto& [name, value] : call.request.environment)
            request.environment.push_back(fmt::format("{}={}", name, value));
        request.timeout = std::chrono::ceil<std::chrono::milliseconds>(
            call.deadline - std::chrono::steady_clock::now());
        request.cancel_fd = call.cancel.get();
        request.on_output = [&output](std::string_view bytes) {
            return output.write(protocol::FrameKind::output, bytes);
        };
        on_start();
        const auto end = server_.call(request);
        if (end.failure)
            return conclude(status_of(*end.failure), end.message);
        constexpr std::uint32_t first_good = 200;
        constexpr std::uint32_t first_not_good = 300;
        const bool is_good = end.status >= first_good && end.status < first_not_good;
        result.code = is_good ? 0 : 1;
        conclude(CallStatus::exit,
                 is_good ? "" : fmt::format("The component answered with status {}", end.status));
    }

private:
    /// @return nullopt: the call is over. One byte too many stands for all that are
    static Result<std::optional<std::string>> read_body(int fd, const CallDeadline& deadline) {
        std::string body;
        std::array<char, 16384> buffer{};
        while (body.size() <= max_body_bytes) {
            const ssize_t count = ::read(fd, buffer.data(), buffer.size());
            if (count == 0)
                break;
            if (count > 0)
                body.append(buffer.data(), static_cast<std::size_t>(count));
            else if (errno != EAGAIN && errno != EINTR)
                return fail_errno("Cannot read the call's input", errno);
            else if (!wait_for(fd, POLLIN, deadline))
                return std::nullopt;
        }
        return body;
    }

    HttpServer server_;
};

} // namespace

Result<std::unique_ptr<Executor>> make_component_executor(Start& start) {
    const auto& request = start.request;
    auto settings = http_settings(start);
    settings.places = request.calls.calls;
    HR_TRY(auto server, HttpServer::start(start.artifact, UniqueFd(), settings));
    std::string().swap(start.artifact);
    return std::make_unique<ComponentExecutor>(std::move(server));
}

} // namespace host_runner::wasm::worker
