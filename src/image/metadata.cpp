// SPDX-License-Identifier: Apache-2.0
#include "host_runner/image/metadata.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace host_runner::image {

namespace {

constexpr int max_json_depth = 16;

bool is_printable(char c) noexcept {
    return c >= ' ' && c <= '~';
}

bool is_hex_digit(char c) noexcept {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
}

std::string to_lower(std::string_view hex) {
    std::string lower(hex);
    std::transform(lower.begin(), lower.end(), lower.begin(),
                   [](char c) { return c >= 'A' && c <= 'F' ? static_cast<char>(c + 32) : c; });
    return lower;
}

template <class T>
std::optional<T> parse_number(std::string_view text) noexcept {
    T value = 0;
    const auto* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || stop != end)
        return std::nullopt;
    return value;
}

/// Typed access to the members; each error names its field.
class Fields {
public:
    explicit Fields(const nlohmann::json& object) : object_(object) {}

    /// A member that is absent or null is nullopt.
    [[nodiscard]] Result<std::optional<std::string>> text(const char* name) const {
        const auto member = object_.find(name);
        if (member == object_.end() || member->is_null())
            return std::nullopt;
        if (!member->is_string())
            return fail(ErrorCode::corrupt_data, fmt::format("Field '{}' must be a string, not {}",
                                                             name, member->type_name()));
        return member->get_ref<const std::string&>();
    }

    [[nodiscard]] Result<bool> flag(const char* name) const {
        const auto member = object_.find(name);
        if (member == object_.end() || member->is_null())
            return false;
        if (!member->is_boolean())
            return fail(
                ErrorCode::corrupt_data,
                fmt::format("Field '{}' must be true or false, not {}", name, member->type_name()));
        return member->get<bool>();
    }

    [[nodiscard]] Result<std::optional<std::string>> file_name(const char* name) const {
        HR_TRY(auto value, text(name));
        if (value && !is_safe_file_name(*value))
            return fail(ErrorCode::corrupt_data,
                        fmt::format("Field '{}' names \"{}\", which is not the name of a file in "
                                    "the image directory",
                                    name, value->substr(0, 200)),
                        "it must be a plain name without '/', such as \"bzImage\"");
        return value;
    }

    [[nodiscard]] Result<std::string> required_file_name(const char* name) const {
        HR_TRY(auto value, file_name(name));
        if (!value)
            return fail(ErrorCode::corrupt_data, fmt::format("Field '{}' is missing", name));
        return std::move(*value);
    }

private:
    const nlohmann::json& object_;
};

Result<nlohmann::json> parse_object(std::string_view text) {
    if (text.size() > max_metadata_bytes)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("It has {} bytes, more than the {} allowed", text.size(),
                                max_metadata_bytes));
    bool too_deep = false;
    const auto watch_depth = [&](int depth, nlohmann::json::parse_event_t event, nlohmann::json&) {
        using Event = nlohmann::json::parse_event_t;
        if ((event == Event::object_start || event == Event::array_start) &&
            depth >= max_json_depth)
            too_deep = true;
        return !too_deep; // what is nested too deeply is not even built
    };
    auto json = nlohmann::json::parse(text.begin(), text.end(), watch_depth, false);
    if (too_deep)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("It is nested more than {} levels deep", max_json_depth));
    if (!json.is_object())
        return fail(ErrorCode::corrupt_data, "It is not a JSON object");
    return json;
}

Result<Guest> parse_guest(const std::optional<std::string>& text) {
    if (!text || *text == "dstack")
        return Guest::dstack;
    if (*text == "host-runner")
        return Guest::host_runner;
    return fail(ErrorCode::unsupported,
                fmt::format("Field 'guest' is \"{}\"; this host_runner starts \"host-runner\" and "
                            "\"dstack\" (the default)",
                            text->substr(0, 200)),
                "a newer host_runner may know it");
}

} // namespace

bool is_safe_file_name(std::string_view name) noexcept {
    return !name.empty() && name.size() <= 255 && name != "." && name != ".." &&
           std::all_of(name.begin(), name.end(),
                       [](char c) { return is_printable(c) && c != '/'; });
}

bool is_sha256_hex(std::string_view text) noexcept {
    return text.size() == 64 && std::all_of(text.begin(), text.end(), is_hex_digit);
}

std::optional<std::uint64_t> parse_bytes(std::string_view text) noexcept {
    return parse_number<std::uint64_t>(text);
}

std::optional<Version> parse_version(std::string_view text) {
    std::array<std::uint16_t, 3> parts{};
    for (std::size_t i = 0; i < parts.size(); ++i) {
        const auto dot = text.find('.');
        if (dot == std::string_view::npos && i + 1 < parts.size())
            return std::nullopt;
        const auto part = parse_number<std::uint16_t>(text.substr(0, dot));
        if (!part)
            return std::nullopt;
        parts[i] = *part;
        text.remove_prefix(dot == std::string_view::npos ? text.size() : dot + 1);
    }
    return Version{parts[0], parts[1], parts[2]};
}

Result<Metadata> parse_metadata(std::string_view text) {
    HR_TRY(const auto json, parse_object(text));
    const Fields fields(json);
    Metadata metadata;
    HR_TRY(metadata.kernel, fields.required_file_name("kernel"));
    HR_TRY(metadata.initrd, fields.required_file_name("initrd"));
    HR_TRY(metadata.bios, fields.file_name("bios"));
    HR_TRY(metadata.rootfs, fields.file_name("rootfs"));
    HR_TRY(metadata.hda, fields.file_name("hda"));
    HR_TRY(auto cmdline, fields.text("cmdline"));
    HR_TRY(auto rootfs_hash, fields.text("rootfs_hash"));
    HR_TRY(auto version, fields.text("version"));
    HR_TRY(metadata.shared_ro, fields.flag("shared_ro"));
    HR_TRY(metadata.is_dev, fields.flag("is_dev"));
    HR_TRY(const auto guest, fields.text("guest"));
    HR_TRY(metadata.guest, parse_guest(guest));
    metadata.cmdline = std::move(cmdline).value_or("");
    metadata.rootfs_hash = std::move(rootfs_hash).value_or("");
    metadata.version = std::move(version).value_or("");
    if (metadata.cmdline.size() > max_command_line_length)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("Field 'cmdline' has {} characters; the kernel would drop all "
                                "after {}",
                                metadata.cmdline.size(), max_command_line_length));
    if (!std::all_of(metadata.cmdline.begin(), metadata.cmdline.end(), is_printable))
        return fail(ErrorCode::corrupt_data,
                    "Field 'cmdline' holds a character that is not printable ASCII");
    if (!metadata.rootfs_hash.empty() && !is_sha256_hex(metadata.rootfs_hash))
        return fail(ErrorCode::corrupt_data, "Field 'rootfs_hash' is not 64 hex digits");
    return metadata;
}

Result<std::vector<FileSum>> parse_sha256sums(std::string_view text) {
    if (text.size() > max_sums_bytes)
        return fail(ErrorCode::corrupt_data,
                    fmt::format("sha256sum.txt has {} bytes, more than the {} allowed", text.size(),
                                max_sums_bytes));
    std::vector<FileSum> sums;
    for (std::size_t number = 1; !text.empty(); ++number) {
        const auto end = std::min(text.find('\n'), text.size());
        const auto line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        constexpr std::size_t name_at = 66; // 64 digits, a space, the mode (' ' text, '*' binary)
        const auto form_error = [&] {
            return fail(
                ErrorCode::corrupt_data,
                fmt::format("Line {} of sha256sum.txt is not '<64 hex digits>  <file name>'",
                            number));
        };
        if (line.size() <= name_at || !is_sha256_hex(line.substr(0, 64)) || line[64] != ' ' ||
            (line[65] != ' ' && line[65] != '*'))
            return form_error();
        auto name = line.substr(name_at);
        if (name.starts_with(
                "./")) // dstack up to 0.4 writes `find .` names (meta-dstack mkimage.sh)
            name.remove_prefix(2);
        if (!is_safe_file_name(name))
            return form_error();
        const bool repeated = std::any_of(sums.begin(), sums.end(),
                                          [&](const FileSum& sum) { return sum.name == name; });
        if (repeated)
            return fail(
                ErrorCode::corrupt_data,
                fmt::format("Line {} of sha256sum.txt names {} a second time", number, name));
        if (sums.size() == max_sums)
            return fail(ErrorCode::corrupt_data,
                        fmt::format("sha256sum.txt has more than {} lines", max_sums));
        sums.push_back({std::string(name), to_lower(line.substr(0, 64))});
    }
    return sums;
}

Result<std::string> parse_digest(std::string_view text) {
    if (text.ends_with('\n'))
        text.remove_suffix(1);
    if (!is_sha256_hex(text))
        return fail(ErrorCode::corrupt_data, "digest.txt does not hold a SHA-256 of 64 hex digits");
    return to_lower(text);
}

RootfsBinding find_rootfs_binding(std::string_view command_line) {
    RootfsBinding binding;
    constexpr std::string_view hash_key = "dstack.rootfs_hash=";
    constexpr std::string_view size_key = "dstack.rootfs_size=";
    while (!command_line.empty()) {
        const auto end = std::min(command_line.find(' '), command_line.size());
        const auto word = command_line.substr(0, end);
        command_line.remove_prefix(std::min(end + 1, command_line.size()));
        if (word.starts_with(hash_key))
            binding.hashes.emplace_back(word.substr(hash_key.size()));
        else if (word.starts_with(size_key))
            binding.sizes.emplace_back(word.substr(size_key.size()));
    }
    return binding;
}

} // namespace host_runner::image
