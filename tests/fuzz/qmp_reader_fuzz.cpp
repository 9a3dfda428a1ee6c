// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/qemu/diagnose.hpp"
#include "host_runner/qemu/qmp_client.hpp"
#include "host_runner/qemu/qmp_reader.hpp"

namespace {

using host_runner::qemu::QmpMessage;
using host_runner::qemu::QmpReader;

/// The number of messages, or -1 where the stream is lost, with the bytes given in parts of `step`.
long count_messages(std::string_view bytes, std::size_t step) {
    QmpReader reader;
    long count = 0;
    for (; !bytes.empty(); bytes.remove_prefix(std::min(step, bytes.size()))) {
        const auto messages = reader.feed(bytes.substr(0, step));
        if (!messages)
            return -1;
        count += static_cast<long>(messages->size());
        for (const auto& message : *messages)
            if (message.kind == QmpMessage::Kind::reply) {
                static_cast<void>(host_runner::qemu::vcpu_threads(message.json));
            } else if (message.kind == QmpMessage::Kind::event) {
                static_cast<void>(host_runner::qemu::shutdown_reason(message.json));
                const auto text = host_runner::qemu::panic_message(message.json);
                if (std::any_of(text.begin(), text.end(),
                                [](char c) { return c < ' ' || c > '~'; }))
                    std::abort();
            }
    }
    return count;
}

} // namespace

/// How the bytes are cut must not matter; what a guest says must not reach a terminal raw.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::string_view bytes(reinterpret_cast<const char*>(data), size);
    if (count_messages(bytes, 1) != count_messages(bytes, std::max<std::size_t>(size, 1)))
        std::abort();
    static_cast<void>(host_runner::qemu::diagnose(bytes));
    static_cast<void>(host_runner::qemu::last_relevant_line(bytes));
    return 0;
}
