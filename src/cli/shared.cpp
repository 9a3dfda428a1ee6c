// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"
#include "verbs.hpp"

namespace host_runner::cli {

Result<void> print_out(std::string_view text) {
    return write_all(STDOUT_FILENO, text);
}

void print_err(std::string_view text) noexcept {
    static_cast<void>(write_all(STDERR_FILENO, text));
}

void print_error(const Error& error) noexcept {
    print_err("host_runner: " + error.describe() + "\n");
}

Result<instance::Registry> open_registry() {
    HR_TRY(auto directory, instance::state_directory());
    return instance::Registry(std::move(directory));
}

Result<std::vector<instance::Instance>> list_instances(const instance::Registry& registry) {
    return registry.list([](const Error& problem) { print_error(problem); });
}

Result<instance::Instance> find_running(const instance::Registry& registry,
                                        const std::string& reference) {
    HR_TRY(auto found, registry.find(reference));
    if (found.end)
        return fail(
            ErrorCode::wrong_state, fmt::format("Instance {} does not run", label(found.record)),
            fmt::format("host_runner inspect {} says how it ended", short_reference(found.record)));
    return found;
}

std::string label(const instance::Record& record) {
    return record.name.empty() ? record.id : fmt::format("{} ({})", record.id, record.name);
}

const std::string& short_reference(const instance::Record& record) {
    return record.name.empty() ? record.id : record.name;
}

} // namespace host_runner::cli
