// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Members of JSON objects that another process of ours wrote. Missing ones keep their default and
/// unknown ones are ignored, so that versions can be mixed; a wrong type throws json::exception.

#include <concepts>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "host_runner/base/error.hpp"

namespace host_runner::instance {

inline void read_field(const nlohmann::json& object, const char* key, std::string& out) {
    if (const auto found = object.find(key); found != object.end())
        out = found->get<std::string>();
}

inline void read_field(const nlohmann::json& object, const char* key, bool& out) {
    if (const auto found = object.find(key); found != object.end())
        out = found->get<bool>();
}

inline void read_field(const nlohmann::json& object, const char* key,
                       std::vector<std::string>& out) {
    if (const auto found = object.find(key); found != object.end())
        out = found->get<std::vector<std::string>>();
}

/// get<T>() alone would cut numbers that do not fit.
template <std::integral T>
T whole_number(const nlohmann::json& value, const char* key) {
    const bool is_whole = value.is_number_integer();
    const bool fits =
        is_whole && (value.is_number_unsigned() ? std::in_range<T>(value.get<std::uint64_t>())
                                                : std::in_range<T>(value.get<std::int64_t>()));
    if (!fits)
        throw nlohmann::json::out_of_range::create(
            410, std::string("no whole number in range: ") + key, &value);
    return value.get<T>();
}

template <std::integral T>
void read_field(const nlohmann::json& object, const char* key, T& out) {
    if (const auto found = object.find(key); found != object.end())
        out = whole_number<T>(*found, key);
}

template <std::integral T>
void read_field(const nlohmann::json& object, const char* key, std::vector<T>& out) {
    const auto found = object.find(key);
    if (found == object.end())
        return;
    out.clear();
    for (const auto& value : *found)
        out.push_back(whole_number<T>(value, key));
}

/// Runs `decode` on the parsed object. @errors `code`: too large, no JSON object, a wrong type
template <class T, class Decode>
Result<T> decode_object(std::string_view text, std::size_t max_bytes, ErrorCode code,
                        const std::string& what, const Decode& decode) {
    if (text.size() > max_bytes)
        return fail(code, what + " is larger than " + std::to_string(max_bytes) + " bytes");
    try {
        // Neither the parser nor the destructor of this library recurses, and nothing else is done
        // with members that are not asked for: depth needs no cap of its own.
        const auto object = nlohmann::json::parse(text);
        if (!object.is_object())
            return fail(code, what + " is not a JSON object");
        return decode(object);
    } catch (const nlohmann::json::exception& problem) {
        return fail(code, what + " cannot be read: " + problem.what());
    }
}

/// One line of JSON. What is not UTF-8 (QEMU's or a guest's words) is replaced by U+FFFD.
inline std::string to_line(const nlohmann::ordered_json& value) {
    return value.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

} // namespace host_runner::instance
