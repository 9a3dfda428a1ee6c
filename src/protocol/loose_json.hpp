// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Reads the members that we know from JSON of another version or project: unknown members are
/// ignored, missing ones keep their default, wrong types are errors.

#include <concepts>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "host_runner/base/error.hpp"
#include "strict_json.hpp"

namespace host_runner::protocol {

class LooseObject {
public:
    /// An empty text and `null` are an object without members (void requests of dstack's guests).
    [[nodiscard]] static Result<LooseObject> parse(std::string_view text, std::size_t max_bytes) {
        if (text.find_first_not_of(" \t\r\n") == std::string_view::npos)
            return LooseObject(nlohmann::json::object());
        HR_TRY(auto json, parse_strict(text, {.max_bytes = max_bytes, .max_depth = 8}));
        if (json.is_null())
            json = nlohmann::json::object();
        if (!json.is_object())
            return fail(ErrorCode::invalid_argument, "The JSON value is not an object");
        return LooseObject(std::move(json));
    }
    explicit LooseObject(nlohmann::json object) : object_(std::move(object)) {}

    Result<void> read(const char* name, std::string& value) const {
        const auto* member = find(name);
        if (member == nullptr)
            return {};
        if (!member->is_string())
            return wrong(name, "text");
        value = member->get<std::string>();
        return {};
    }
    Result<void> read(const char* name, bool& value) const {
        const auto* member = find(name);
        if (member == nullptr)
            return {};
        if (!member->is_boolean())
            return wrong(name, "true or false");
        value = member->get<bool>();
        return {};
    }
    template <std::integral T>
    Result<void> read(const char* name, T& value) const {
        const auto* member = find(name);
        if (member == nullptr)
            return {};
        if (!member->is_number_integer())
            return wrong(name, "a whole number");
        const bool fits =
            member->is_number_unsigned()
                ? std::cmp_less_equal(member->get<std::uint64_t>(), std::numeric_limits<T>::max())
                : std::cmp_greater_equal(member->get<std::int64_t>(),
                                         std::numeric_limits<T>::min()) &&
                      std::cmp_less_equal(member->get<std::int64_t>(),
                                          std::numeric_limits<T>::max());
        if (!fits)
            return wrong(name, "a number in range");
        value = member->get<T>();
        return {};
    }
    /// nullptr: absent or null.
    [[nodiscard]] const nlohmann::json* find(const char* name) const {
        const auto member = object_.find(name);
        return member == object_.end() || member->is_null() ? nullptr : &*member;
    }
    [[nodiscard]] static tl::unexpected<Error> wrong(const char* name, std::string_view expected) {
        return fail(ErrorCode::invalid_argument, fmt::format("'{}' is not {}", name, expected));
    }

private:
    nlohmann::json object_;
};

/// Text that may hold bytes which are not UTF-8 gets them replaced.
[[nodiscard]] inline std::string dump(const nlohmann::ordered_json& json) {
    return json.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

} // namespace host_runner::protocol
