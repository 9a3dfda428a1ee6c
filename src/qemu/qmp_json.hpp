// SPDX-License-Identifier: Apache-2.0
#pragma once

/// nlohmann::json without its exceptions, for what QEMU sends.

#include <string>
#include <string_view>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/error.hpp"

namespace host_runner::qemu {

using Json = nlohmann::json;

/// @errors corrupt_data: not JSON, or nested deeper than `max_depth`
[[nodiscard]] inline Result<Json> parse_json(std::string_view text, int max_depth) {
    bool too_deep = false;
    auto json = Json::parse(
        text,
        [&](int depth, Json::parse_event_t, Json&) {
            too_deep = too_deep || depth > max_depth;
            return !too_deep; // what is too deep is not even built
        },
        /*allow_exceptions=*/false);
    if (too_deep)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("JSON nested deeper than {} levels", max_depth));
    if (json.is_discarded())
        return fail(ErrorCode::corrupt_data, "not JSON");
    return json;
}

/// Never throws: bytes that are not UTF-8 become U+FFFD.
[[nodiscard]] inline std::string dump(const Json& json) {
    return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// The string member, empty when it is missing or of another type.
[[nodiscard]] inline std::string string_member(const Json& object, const char* name) {
    if (!object.is_object())
        return {};
    const auto found = object.find(name);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

} // namespace host_runner::qemu
