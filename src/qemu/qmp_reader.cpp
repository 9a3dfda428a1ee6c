// SPDX-License-Identifier: Apache-2.0
#include "host_runner/qemu/qmp_reader.hpp"

#include <fmt/format.h>

#include "qmp_json.hpp"

namespace host_runner::qemu {

namespace {

tl::unexpected<Error> not_qmp(std::string_view why) {
    return fail(ErrorCode::corrupt_data, fmt::format("What QEMU sent is not QMP: {}", why),
                "check that --qemu names a QEMU, and report the message if it does");
}

/// The member as JSON text; "{}" when there is none.
std::string member_text(const Json& object, const char* name) {
    const auto found = object.find(name);
    return found == object.end() ? "{}" : dump(*found);
}

Result<QmpMessage> to_message(const Json& json) {
    QmpMessage message;
    message.json = "{}";
    if (const auto id = json.find("id"); id != json.end() && id->is_number_unsigned())
        message.id = id->get<std::uint64_t>();
    if (json.contains("return")) {
        message.kind = QmpMessage::Kind::reply;
        message.json = member_text(json, "return");
    } else if (json.contains("error")) {
        message.kind = QmpMessage::Kind::error;
        message.name = string_member(json["error"], "desc");
    } else if (json.contains("event")) {
        message.kind = QmpMessage::Kind::event;
        message.name = string_member(json, "event");
        message.json = member_text(json, "data");
    } else if (!json.contains("QMP")) {
        return not_qmp("an object without QMP, return, error or event");
    }
    return message;
}

} // namespace

Result<std::vector<QmpMessage>> QmpReader::feed(std::string_view bytes) {
    std::vector<QmpMessage> messages;
    while (true) {
        const auto end = bytes.find('\n');
        const auto part = bytes.substr(0, end);
        if (line_.size() + part.size() > max_message_bytes)
            return not_qmp(fmt::format("a message above {} MiB", max_message_bytes >> 20));
        line_ += part;
        if (end == std::string_view::npos)
            return messages;
        bytes.remove_prefix(end + 1);
        // QEMU ends its lines with CR LF; an empty one is nothing.
        if (line_.find_first_not_of(" \t\r") != std::string::npos) {
            const auto json = parse_json(line_, max_depth);
            if (!json)
                return not_qmp(json.error().message);
            if (!json->is_object())
                return not_qmp("a line that is no JSON object");
            HR_TRY(auto message, to_message(*json));
            messages.push_back(std::move(message));
        }
        line_.clear();
    }
}

} // namespace host_runner::qemu
