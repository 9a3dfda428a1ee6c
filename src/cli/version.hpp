// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace host_runner::cli {

/// `--version`: ours on the first line, then the libraries', one per line.
[[nodiscard]] std::string format_versions();

} // namespace host_runner::cli
