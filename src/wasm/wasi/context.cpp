// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/wasi/context.hpp"

#include <cerrno>
#include <type_traits>

#include <fcntl.h>

#include "state.hpp"
#include "stream_io.hpp"

namespace host_runner::wasm::wasi {

namespace {

constexpr std::size_t max_strings_bytes = std::size_t{1} << 20U;
constexpr std::size_t most_open_files = 4096;
constexpr std::chrono::seconds close_patience{1};

Result<void> check_text(const std::string& what, const std::string& text) {
    if (text.find('\0') != std::string::npos || !is_utf8(text))
        return fail(ErrorCode::invalid_argument, what + " holds a NUL or is not UTF-8");
    return {};
}

Result<void> check_strings(const ContextOptions& options) {
    std::size_t sum = 0;
    for (const auto& argument : options.arguments) {
        HR_CHECK(check_text("An argument of the guest", argument));
        sum += argument.size() + 1;
    }
    for (const auto& [name, value] : options.environment) {
        if (name.empty() || name.find('=') != std::string::npos)
            return fail(ErrorCode::invalid_argument,
                        "\"" + name + "\" cannot be the name of an environment variable");
        HR_CHECK(check_text("The environment variable " + name, name + value));
        sum += name.size() + value.size() + 2;
    }
    if (sum > max_strings_bytes)
        return fail(ErrorCode::invalid_argument, "Arguments and environment of the guest have " +
                                                     std::to_string(sum) +
                                                     " bytes, over the limit of 1 MiB");
    return {};
}

/// Nothing of ours may wait in a read or write: the deadline would not end it.
Result<void> make_nonblocking(const UniqueFd& fd) {
    if (!fd)
        return fail(ErrorCode::invalid_argument, "A file of the guest has no descriptor");
    const int flags = ::fcntl(fd.get(), F_GETFL);
    if (flags < 0 || ::fcntl(fd.get(), F_SETFL, flags | O_NONBLOCK) < 0)
        return fail_errno("Cannot make a stream of the guest non-blocking", errno);
    return {};
}

struct ToObject {
    Result<Object> operator()(NullFile file) const {
        return Object{file};
    }
    Result<Object> operator()(BytesIn file) const {
        return Object{InputBytes{std::move(file.bytes)}};
    }
    Result<Object> operator()(CaptureOut file) const {
        if (!file.output)
            return fail(ErrorCode::invalid_argument, "A captured output of the guest goes nowhere");
        return Object{std::move(file)};
    }
    Result<Object> operator()(Directory file) const {
        if (!file.fd)
            return fail(ErrorCode::invalid_argument, "A directory of the guest has no descriptor");
        HR_CHECK(check_text("The name of a directory of the guest", file.name));
        return Object{Folder{std::move(file.fd), std::move(file.name), file.access}};
    }
    template <class OnHostFd>
    Result<Object> operator()(OnHostFd file) const {
        HR_CHECK(make_nonblocking(file.fd));
        return Object{std::move(file)};
    }
};

} // namespace

Context::Context(std::unique_ptr<State> state) noexcept : state_(std::move(state)) {}
Context::~Context() = default;

Result<std::unique_ptr<Context>> Context::create(ContextOptions options) {
    if (options.max_open_files == 0 || options.max_open_files > most_open_files ||
        options.files.size() > options.max_open_files)
        return fail(ErrorCode::invalid_argument,
                    "The guest cannot have " + std::to_string(options.files.size()) + " of " +
                        std::to_string(options.max_open_files) + " files open",
                    "Between 1 and 4096 may be open");
    HR_CHECK(check_strings(options));
    auto state = std::make_unique<State>(options.max_open_files);
    state->arguments = std::move(options.arguments);
    for (const auto& [name, value] : options.environment)
        state->environment.emplace_back(name).append("=").append(value);
    for (auto& file : options.files) {
        HR_TRY(auto object, std::visit(ToObject{}, std::move(file)));
        if (!state->files.insert(Entry{std::move(object)}))
            return fail(ErrorCode::internal, "The guest's files do not fit into its table");
    }
    return std::make_unique<Context>(std::move(state));
}

void Context::set_deadline(const CallDeadline& deadline) noexcept {
    state_->deadline = deadline;
}

void Context::close_files() noexcept {
    const auto limit = std::chrono::steady_clock::now() + close_patience;
    for (const auto& entry : state_->files.take_all())
        close_orderly(state_->deadline, *entry, limit);
}

std::optional<std::uint32_t> Context::exit_code() const noexcept {
    return state_->exit_code;
}

Context::State& Context::state() noexcept {
    return *state_;
}

} // namespace host_runner::wasm::wasi
