// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "host_runner/base/error.hpp"
#include "host_runner/config/settings.hpp"
#include "host_runner/spec/vm_spec.hpp"

namespace host_runner::cli {

enum class NeedsImage { yes, no };

/// The settings of `run` as a checked VmSpec (spec::check_vm_spec() included). The only file it
/// looks for is ./compose.yaml, whose absence means no services unless it was asked for.
/// @errors invalid_argument: names option, value, rule and an example; unsupported: of a later
///         version
[[nodiscard]] Result<spec::VmSpec> make_vm_spec(const config::Settings& settings,
                                                NeedsImage needs_image = NeedsImage::yes);

} // namespace host_runner::cli
