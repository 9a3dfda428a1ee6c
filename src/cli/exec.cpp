// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <fmt/format.h>

#include "guest_stream.hpp"
#include "host_runner/base/files.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

VerbResult run_verb_exec(const Context& context) {
    using Kind = protocol::StreamItem::Kind;
    HR_TRY(const auto registry, open_registry());
    HR_TRY(const auto one, find_running(registry, context.argument(0)));

    protocol::ExecRequest request;
    request.argv = context.invocation.arguments.at(1);
    std::optional<int> exit_code;
    Result<void> trouble;
    HR_CHECK(stream_from_guest(
        registry.paths(one.record.id), "Exec", protocol::encode_exec_request(request),
        [&](const protocol::StreamItem& item) {
            switch (item.kind) {
            case Kind::out:
                trouble = print_out(item.bytes);
                break;
            case Kind::err:
                trouble = write_all(STDERR_FILENO, item.bytes);
                break;
            case Kind::exit:
                exit_code = item.exit_code;
                break;
            case Kind::error:
                trouble =
                    fail(ErrorCode::unavailable, fmt::format("The guest could not run {}: {}",
                                                             request.argv.front(), item.bytes));
                break;
            case Kind::keep_alive:
                break;
            }
            return trouble.has_value();
        }));
    HR_CHECK(trouble);
    if (!exit_code)
        return fail(ErrorCode::unavailable,
                    fmt::format("The guest ended the command's output without its exit code ({})",
                                label(one.record)),
                    "the VM may be shutting down");
    return *exit_code;
}

} // namespace host_runner::cli
