// SPDX-License-Identifier: Apache-2.0
#include "host_runner/agent/users.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <vector>

#include <fmt/format.h>

#include "host_runner/crypto/digest.hpp"

namespace host_runner::agent {

namespace {

using Fields = std::vector<std::string_view>;

Fields split(std::string_view text, char separator) {
    Fields fields;
    for (;;) {
        const auto end = std::min(text.find(separator), text.size());
        fields.push_back(text.substr(0, end));
        if (end == text.size())
            return fields;
        text.remove_prefix(end + 1);
    }
}

std::optional<std::uint32_t> number(std::string_view text) {
    std::uint32_t value = 0;
    const auto* end = text.data() + text.size();
    const auto [parsed, problem] = std::from_chars(text.data(), end, value);
    // The highest value means "unchanged" to setresuid(2).
    if (problem != std::errc{} || parsed != end || value == UINT32_MAX)
        return std::nullopt;
    return value;
}

/// The line whose field `column` is `key`, with at least `width` fields.
std::optional<Fields> find_line(std::string_view text, std::size_t column, std::string_view key,
                                std::size_t width) {
    for (const auto line : split(text, '\n')) {
        auto fields = split(line, ':');
        if (fields.size() >= width && fields[column] == key)
            return fields;
    }
    return std::nullopt;
}

constexpr std::size_t passwd_width = 7; // name:password:uid:gid:comment:home:shell
constexpr std::size_t group_width = 4;  // name:password:gid:members

} // namespace

Result<UserAccount> resolve_user(std::string_view passwd_text, std::string_view group_text,
                                 std::string_view user) {
    const auto default_user = fmt::format("{}", default_service_uid);
    if (user.empty())
        user = default_user;
    const auto colon = user.find(':');
    const auto name = user.substr(0, colon);

    UserAccount account;
    account.home = "/";
    auto entry = find_line(passwd_text, 0, name, passwd_width);
    const auto uid = number(name);
    if (!entry && uid)
        entry = find_line(passwd_text, 2, fmt::format("{}", *uid), passwd_width);
    if (entry) {
        const auto entry_uid = number((*entry)[2]);
        const auto entry_gid = number((*entry)[3]);
        if (!entry_uid || !entry_gid)
            return fail(ErrorCode::corrupt_data,
                        fmt::format("/etc/passwd has no numbers for user '{}'", name));
        account.ids.uid = *entry_uid;
        account.ids.gid = *entry_gid;
        if (!(*entry)[5].empty())
            account.home = (*entry)[5];
    } else if (uid) {
        account.ids.uid = *uid;
        account.ids.gid = *uid;
    } else {
        return fail(ErrorCode::not_found, fmt::format("The image has no user '{}'", name),
                    "use a number, or a name from the image's /etc/passwd");
    }

    if (colon != std::string_view::npos) {
        const auto group = user.substr(colon + 1);
        const auto line = find_line(group_text, 0, group, group_width);
        const auto gid = line ? number((*line)[2]) : number(group);
        if (!gid)
            return fail(ErrorCode::not_found, fmt::format("The image has no group '{}'", group),
                        "use a number, or a name from the image's /etc/group");
        account.ids.gid = *gid;
        return account;
    }
    for (const auto line : split(group_text, '\n')) {
        const auto fields = split(line, ':');
        if (!entry || fields.size() < group_width)
            continue;
        const auto members = split(fields[3], ',');
        const auto gid = number(fields[2]);
        if (gid && *gid != account.ids.gid &&
            std::find(members.begin(), members.end(), (*entry)[0]) != members.end())
            account.ids.groups.push_back(*gid);
    }
    return account;
}

ProcessSpec::User worker_user(std::string_view service) {
    // 30 bits keep the number in the range that every file system and tool takes.
    constexpr std::uint32_t range = (1U << 30U);
    std::uint32_t number = 0;
    const auto digest = crypto::sha256(service);
    for (std::size_t i = 0; i < sizeof number; ++i)
        number = number << 8U | digest[i];
    const uid_t uid = first_worker_uid + number % range;
    return {uid, uid, {}};
}

} // namespace host_runner::agent
