// SPDX-License-Identifier: Apache-2.0
#pragma once

/// QMP's bytes as messages. What QEMU sends is outside data: a guest may have taken it over.
///
///     QmpReader reader;
///     HR_TRY(const auto messages, reader.feed(bytes));

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "host_runner/base/error.hpp"

namespace host_runner::qemu {

/// Source: QEMU docs/interop/qmp-spec.rst
struct QmpMessage {
    enum class Kind { greeting, reply, error, event };
    Kind kind = Kind::greeting;
    std::optional<std::uint64_t> id; ///< Of the command that a reply or an error answers.
    std::string name;                ///< event: its name; error: QEMU's own words.
    std::string json;                ///< reply: the return value; event: its data; else "{}".
};

class QmpReader {
public:
    static constexpr std::size_t max_message_bytes = std::size_t{16} << 20;
    static constexpr int max_depth = 64;

    /// The messages that `bytes` complete, in their order. After an error the stream is lost.
    /// @errors corrupt_data: not JSON, too deep, no QMP message, or above max_message_bytes
    [[nodiscard]] Result<std::vector<QmpMessage>> feed(std::string_view bytes);

private:
    std::string line_; ///< What came after the last newline.
};

} // namespace host_runner::qemu
