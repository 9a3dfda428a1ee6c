// SPDX-License-Identifier: Apache-2.0
#pragma once

/// The input of a golden case: options.txt in tests/golden/argv/<case>/, one `name = value` a line.
/// tests/tdx_argv reads the same files.

#include <string>

#include "host_runner/base/error.hpp"
#include "host_runner/qemu/capabilities.hpp"
#include "host_runner/qemu/launch_plan.hpp"

namespace host_runner::tests {

struct ArgvCase {
    qemu::LaunchPlan plan;
    qemu::Capabilities capabilities;
};

/// Names not in the list and values of another form are errors: a typing mistake must not make a
/// case that tests less.
[[nodiscard]] Result<ArgvCase> load_argv_case(const std::string& path);

} // namespace host_runner::tests
