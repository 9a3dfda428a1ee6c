// SPDX-License-Identifier: Apache-2.0
#include "yaml_value.hpp"

#include <algorithm>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/eventhandler.h>

#include "text.hpp"

namespace host_runner::spec {

namespace {

constexpr int max_depth = 32;
/// With aliases followed each time they are used.
constexpr std::size_t max_nodes = 20'000;

/// Positions of yaml-cpp count from 0, editors from 1.
std::string at(const std::string& path, const YAML::Mark& mark, std::string_view message) {
    if (mark.is_null())
        return fmt::format("{}: {}", path, message);
    return fmt::format("{}:{}:{}: {}", path, mark.line + 1, mark.column + 1, message);
}

tl::unexpected<Error> fail_at(const std::string& path, const YAML::Mark& mark,
                              std::string_view message, std::string hint = {}) {
    return fail(ErrorCode::invalid_argument, at(path, mark, message), std::move(hint));
}

class IgnoredEvents final : public YAML::EventHandler {
    using Mark = YAML::Mark;
    using Text = std::string;
    using Style = YAML::EmitterStyle::value;
    void OnDocumentStart(const Mark&) override {}
    void OnDocumentEnd() override {}
    void OnNull(const Mark&, YAML::anchor_t) override {}
    void OnAlias(const Mark&, YAML::anchor_t) override {}
    void OnScalar(const Mark&, const Text&, YAML::anchor_t, const Text&) override {}
    void OnSequenceStart(const Mark&, const Text&, YAML::anchor_t, Style) override {}
    void OnSequenceEnd() override {}
    void OnMapStart(const Mark&, const Text&, YAML::anchor_t, Style) override {}
    void OnMapEnd() override {}
};

/// 0, 1, or 2 for more. Not by YAML::LoadAll(), which on the text "," adds empty documents until
/// the memory is gone (yaml-cpp 0.7).
int count_documents(const std::string& bytes) {
    std::istringstream stream(bytes);
    YAML::Parser parser(stream);
    IgnoredEvents ignored;
    int count = 0;
    while (count < 2 && parser.HandleNextDocument(ignored))
        ++count;
    return count;
}

Result<void> check_tree(const std::string& path, const YAML::Node& node, int depth,
                        std::size_t& budget) {
    if (depth > max_depth)
        return fail_at(path, node.Mark(), fmt::format("Nested deeper than {} levels", max_depth));
    if (budget-- == 0)
        return fail_at(path, node.Mark(),
                       fmt::format("More than {} values, aliases followed", max_nodes));
    if (node.IsSequence())
        for (const auto& item : node)
            HR_CHECK(check_tree(path, item, depth + 1, budget));
    if (!node.IsMap())
        return {};
    std::set<std::string> keys;
    for (const auto& entry : node) {
        if (!entry.first.IsScalar())
            return fail_at(path, entry.first.Mark(), "A key must be a plain text");
        if (!keys.insert(entry.first.Scalar()).second)
            return fail_at(path, entry.first.Mark(),
                           fmt::format("The key '{}' is there twice", entry.first.Scalar()));
        HR_CHECK(check_tree(path, entry.first, depth + 1, budget));
        HR_CHECK(check_tree(path, entry.second, depth + 1, budget));
    }
    return {};
}

} // namespace

tl::unexpected<Error> YamlValue::fail(std::string_view message, std::string hint,
                                      ErrorCode code) const {
    return host_runner::fail(code, at(path_, mark_, message), std::move(hint));
}

Error YamlValue::locate(Error error) const {
    error.message = at(path_, mark_, error.message);
    return error;
}

Result<void> YamlValue::check_tag() const {
    const auto& tag = node_.Tag();
    if (tag.empty() || tag == "?" || tag == "!" || tag.starts_with("tag:yaml.org,2002:"))
        return {};
    return fail(fmt::format("The tag {} is not known", tag));
}

Result<std::string> YamlValue::raw_text() const {
    HR_CHECK(check_tag());
    if (!node_.IsScalar())
        return fail(is_null() ? "A value is missing here" : "One text is expected here");
    return node_.Scalar();
}

Result<std::string> YamlValue::text() const {
    HR_TRY(const auto raw, raw_text());
    std::string result;
    for (std::size_t i = 0; i < raw.size(); ++i) {
        if (raw[i] == '$' && raw.compare(i, 2, "$$") != 0)
            return fail(
                "'$' would be filled in from the environment of the host, which is not "
                "measured and not supported",
                "write $$ for a dollar sign, and pass values by environment: or --env-file");
        if (raw[i] == '$')
            ++i;
        result += raw[i];
    }
    return result;
}

Result<bool> YamlValue::flag() const {
    HR_TRY(const auto value, text());
    if (value != "true" && value != "false")
        return fail(fmt::format("'{}' is neither true nor false", value));
    return value == "true";
}

Result<std::uint64_t> YamlValue::number(std::uint64_t min, std::uint64_t max) const {
    HR_TRY(const auto value, text());
    const auto parsed_number = parse_number<std::uint64_t>(value);
    if (!parsed_number || *parsed_number < min || *parsed_number > max)
        return fail(fmt::format("'{}' is not a whole number from {} to {}", value, min, max));
    return *parsed_number;
}

Result<std::vector<YamlValue>> YamlValue::items() const {
    HR_CHECK(check_tag());
    if (!node_.IsSequence())
        return fail("A list is expected here");
    std::vector<YamlValue> result;
    for (const auto& item : node_)
        result.emplace_back(path_, item, item.Mark());
    return result;
}

Result<std::vector<std::string>> YamlValue::texts() const {
    HR_TRY(const auto values, items());
    std::vector<std::string> result;
    for (const auto& value : values) {
        HR_TRY(auto item, value.text());
        result.push_back(std::move(item));
    }
    return result;
}

Result<std::vector<YamlValue::Entry>> YamlValue::entries() const {
    HR_CHECK(check_tag());
    if (!node_.IsMap())
        return fail("Keys with values are expected here");
    std::vector<Entry> result;
    for (const auto& entry : node_)
        // An empty value has no place of its own.
        result.push_back(
            {entry.first.Scalar(), YamlValue(path_, entry.first, entry.first.Mark()),
             YamlValue(path_, entry.second,
                       entry.second.IsNull() ? entry.first.Mark() : entry.second.Mark())});
    return result;
}

Result<YamlValue::Fields> YamlValue::fields(std::initializer_list<std::string_view> known) const {
    HR_TRY(auto all, entries());
    std::map<std::string, YamlValue> values;
    for (auto& entry : all) {
        const bool is_known = std::find(known.begin(), known.end(), entry.key) != known.end();
        if (entry.key == "<<")
            return entry.at_key.fail("Merge keys (<<) are not supported",
                                     "write the keys out, or use an alias (*name) as a value");
        if (!is_known && !entry.key.starts_with("x-"))
            return entry.at_key.fail(fmt::format("The key '{}' is not known here", entry.key),
                                     fmt::format("known are: {}, and x-*", fmt::join(known, ", ")));
        values.emplace(std::move(entry.key), std::move(entry.value));
    }
    return Fields(std::move(values));
}

const YamlValue* YamlValue::Fields::find(const std::string& key) const {
    const auto found = values_.find(key);
    return found == values_.end() ? nullptr : &found->second;
}

Result<YamlValue> parse_yaml(const std::string& path, const std::string& bytes) {
    try {
        if (const auto count = count_documents(bytes); count != 1)
            return fail_at(path, YAML::Mark::null_mark(),
                           count == 0 ? "The file is empty"
                                      : "The file holds more than one YAML document");
        const auto root = YAML::Load(bytes);
        std::size_t budget = max_nodes;
        HR_CHECK(check_tree(path, root, 0, budget));
        return YamlValue(path, root, root.Mark());
    } catch (const YAML::Exception& problem) {
        return fail_at(path, problem.mark, fmt::format("This is not valid YAML: {}", problem.msg));
    }
}

} // namespace host_runner::spec
