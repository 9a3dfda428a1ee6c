// SPDX-License-Identifier: Apache-2.0
#pragma once

/// JSON from a peer that may be hostile: bounded, no member twice, none unknown, none of the wrong
/// type.
///
///     HR_TRY(const auto json, parse_strict(text, {.max_bytes = 4096}));
///     HR_TRY(auto members, Members::of(json, "request"));
///     HR_TRY(request.name, members.text("name", 64));
///     HR_CHECK(members.finish());   // nothing else was there

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "host_runner/base/error.hpp"

namespace host_runner::protocol {

struct JsonLimits {
    std::size_t max_bytes = 64UL * 1024;
    int max_depth = 16;
};

/// @errors invalid_argument: too large, too deep, no JSON, not UTF-8, a member twice
[[nodiscard]] Result<nlohmann::json> parse_strict(std::string_view text, const JsonLimits& limits);

/// Takes the members of one object, one by one; finish() refuses what nobody took.
/// The JSON value must outlive the reader. @errors of all members: invalid_argument
class Members {
public:
    /// `where` names the object in messages, e.g. "service web".
    [[nodiscard]] static Result<Members> of(const nlohmann::json& value, std::string where);

    [[nodiscard]] Result<std::string> text(const std::string& key, std::size_t max_bytes);
    [[nodiscard]] Result<std::uint64_t> number(const std::string& key, std::uint64_t max);
    [[nodiscard]] Result<bool> flag(const std::string& key);
    /// Arrays and objects of at most `max_items`.
    [[nodiscard]] Result<const nlohmann::json*> array(const std::string& key,
                                                      std::size_t max_items);
    [[nodiscard]] Result<const nlohmann::json*> object(const std::string& key,
                                                       std::size_t max_items);
    [[nodiscard]] bool has(const std::string& key) const;
    [[nodiscard]] Result<void> finish() const;

private:
    Members(const nlohmann::json& value, std::string where)
        : value_(&value), where_(std::move(where)) {}
    [[nodiscard]] Result<const nlohmann::json*> take(const std::string& key);
    [[nodiscard]] tl::unexpected<Error> wrong(const std::string& key,
                                              std::string_view expected) const;

    const nlohmann::json* value_;
    std::string where_;
    std::set<std::string> taken_;
};

} // namespace host_runner::protocol
