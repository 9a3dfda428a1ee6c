// SPDX-License-Identifier: Apache-2.0
#pragma once

/// YAML values that know where they stand, so that every error says "FILE:LINE:COLUMN: ".
///
///     HR_TRY(const auto root, parse_yaml("compose.yaml", bytes));
///     HR_TRY(const auto fields, root.fields({"services", "volumes"}));
///     if (const auto* services = fields.find("services")) ...

#include <cstdint>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <yaml-cpp/yaml.h>

#include "host_runner/base/error.hpp"

namespace host_runner::spec {

class YamlValue {
public:
    struct Entry;
    class Fields;

    YamlValue(std::string path, const YAML::Node& node, YAML::Mark mark)
        : path_(std::move(path)), node_(node), mark_(mark) {}

    /// An error at this place.
    [[nodiscard]] tl::unexpected<Error> fail(std::string_view message, std::string hint = {},
                                             ErrorCode code = ErrorCode::invalid_argument) const;
    /// The same error with this place in front of its message.
    [[nodiscard]] Error locate(Error error) const;

    [[nodiscard]] bool is_null() const {
        return node_.IsNull();
    }
    [[nodiscard]] bool is_text() const {
        return node_.IsScalar();
    }
    [[nodiscard]] bool is_list() const {
        return node_.IsSequence();
    }
    [[nodiscard]] bool is_map() const {
        return node_.IsMap();
    }

    /// A scalar as it is written ("8080", "no", "1e3" stay text). "$$" becomes "$"; "$" alone is an
    /// error, because Compose would put a variable of the host there.
    [[nodiscard]] Result<std::string> text() const;
    /// A scalar as it is written, "$" included.
    [[nodiscard]] Result<std::string> raw_text() const;
    /// "true" or "false".
    [[nodiscard]] Result<bool> flag() const;
    [[nodiscard]] Result<std::uint64_t> number(std::uint64_t min, std::uint64_t max) const;
    /// A text that `parse` understands; its error gets this place.
    template <class Parse>
    [[nodiscard]] auto parsed(const Parse& parse) const -> decltype(parse(std::string())) {
        HR_TRY(const auto value, text());
        return parse(value).map_error([this](Error error) { return locate(std::move(error)); });
    }

    [[nodiscard]] Result<std::vector<YamlValue>> items() const;
    /// Of a list: each one a text.
    [[nodiscard]] Result<std::vector<std::string>> texts() const;
    [[nodiscard]] Result<std::vector<Entry>> entries() const;
    /// A map with these keys only, but any that begin with x-.
    [[nodiscard]] Result<Fields> fields(std::initializer_list<std::string_view> known) const;

private:
    /// Tags of a user's own would change what a value means.
    [[nodiscard]] Result<void> check_tag() const;

    std::string path_;
    YAML::Node node_;
    YAML::Mark mark_;
};

struct YamlValue::Entry {
    std::string key;
    YamlValue at_key; ///< For errors about the key.
    YamlValue value;
};

class YamlValue::Fields {
public:
    explicit Fields(std::map<std::string, YamlValue> values) : values_(std::move(values)) {}
    /// nullptr: not there.
    [[nodiscard]] const YamlValue* find(const std::string& key) const;

private:
    std::map<std::string, YamlValue> values_;
};

/// One YAML document. yaml-cpp's Node shares aliased nodes; this has checked that following all of
/// them ends soon and that no map has a key twice.
/// @errors invalid_argument: "PATH:LINE:COLUMN: "
[[nodiscard]] Result<YamlValue> parse_yaml(const std::string& path, const std::string& bytes);

} // namespace host_runner::spec
