// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Words for an image's kind, the same in every output form.

#include <string>
#include <string_view>

#include <fmt/format.h>

#include "host_runner/image/image.hpp"

namespace host_runner::cli {

[[nodiscard]] inline std::string_view layout_name(image::Layout layout) noexcept {
    switch (layout) {
    case image::Layout::a:
        return "A";
    case image::Layout::b:
        return "B";
    case image::Layout::c:
        return "C";
    }
    return "?";
}

[[nodiscard]] inline std::string_view guest_name(image::Guest guest) noexcept {
    return guest == image::Guest::host_runner ? "host-runner" : "dstack";
}

[[nodiscard]] inline std::string version_text(const image::Version& version) {
    return fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
}

} // namespace host_runner::cli
