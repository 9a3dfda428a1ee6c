// SPDX-License-Identifier: Apache-2.0
#include "strict_json.hpp"

#include <vector>

#include <fmt/format.h>

namespace host_runner::protocol {

using nlohmann::json;

Result<json> parse_strict(std::string_view text, const JsonLimits& limits) {
    if (text.size() > limits.max_bytes)
        return fail(
            ErrorCode::invalid_argument,
            fmt::format("The JSON text has {} bytes, more than {}", text.size(), limits.max_bytes));
    // Thrown through the parser, which has no other way to stop early.
    struct Refused {
        std::string why;
    };
    std::vector<std::set<std::string>> keys;
    const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
        if (depth > limits.max_depth)
            throw Refused{fmt::format("nested deeper than {}", limits.max_depth)};
        if (event == json::parse_event_t::object_start)
            keys.emplace_back();
        else if (event == json::parse_event_t::object_end)
            keys.pop_back();
        else if (event == json::parse_event_t::key &&
                 !keys.back().insert(parsed.get_ref<const std::string&>()).second)
            throw Refused{
                fmt::format("member '{}' is there twice", parsed.get_ref<const std::string&>())};
        return true;
    };
    try {
        return json::parse(text, watch);
    } catch (const Refused& refused) {
        return fail(ErrorCode::invalid_argument, "The JSON text is refused: " + refused.why);
    } catch (const json::exception& problem) {
        return fail(ErrorCode::invalid_argument,
                    fmt::format("The text is not valid JSON: {}", problem.what()));
    }
}

Result<Members> Members::of(const json& value, std::string where) {
    if (!value.is_object())
        return fail(ErrorCode::invalid_argument, fmt::format("{} is not a JSON object", where));
    return Members(value, std::move(where));
}

tl::unexpected<Error> Members::wrong(const std::string& key, std::string_view expected) const {
    return fail(ErrorCode::invalid_argument,
                fmt::format("Member '{}' of {} must be {}", key, where_, expected));
}

Result<const json*> Members::take(const std::string& key) {
    const auto found = value_->find(key);
    if (found == value_->end())
        return fail(ErrorCode::invalid_argument,
                    fmt::format("Member '{}' of {} is missing", key, where_));
    taken_.insert(key);
    return &*found;
}

bool Members::has(const std::string& key) const {
    return value_->contains(key);
}

Result<std::string> Members::text(const std::string& key, std::size_t max_bytes) {
    HR_TRY(const json* value, take(key));
    if (!value->is_string() || value->get_ref<const std::string&>().size() > max_bytes)
        return wrong(key, fmt::format("a string of at most {} bytes", max_bytes));
    return value->get_ref<const std::string&>();
}

Result<std::uint64_t> Members::number(const std::string& key, std::uint64_t max) {
    HR_TRY(const json* value, take(key));
    if (!value->is_number_unsigned() || value->get<std::uint64_t>() > max)
        return wrong(key, fmt::format("a whole number from 0 to {}", max));
    return value->get<std::uint64_t>();
}

Result<bool> Members::flag(const std::string& key) {
    HR_TRY(const json* value, take(key));
    if (!value->is_boolean())
        return wrong(key, "true or false");
    return value->get<bool>();
}

Result<const json*> Members::array(const std::string& key, std::size_t max_items) {
    HR_TRY(const json* value, take(key));
    if (!value->is_array() || value->size() > max_items)
        return wrong(key, fmt::format("an array of at most {} items", max_items));
    return value;
}

Result<const json*> Members::object(const std::string& key, std::size_t max_items) {
    HR_TRY(const json* value, take(key));
    if (!value->is_object() || value->size() > max_items)
        return wrong(key, fmt::format("an object of at most {} members", max_items));
    return value;
}

Result<void> Members::finish() const {
    for (const auto& [key, value] : value_->items())
        if (!taken_.contains(key))
            return fail(ErrorCode::invalid_argument,
                        fmt::format("Member '{}' of {} is unknown", key, where_));
    return {};
}

} // namespace host_runner::protocol
