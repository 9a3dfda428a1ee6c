// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/wasi/output.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace host_runner::wasm::wasi {

Output::Output(OutputOptions options) : options_(std::move(options)) {
    kept_[0].max_bytes = options_.max_output_bytes;
    kept_[1].max_bytes = options_.max_error_bytes;
}

std::size_t Output::write(OutputStream stream, std::string_view bytes) {
    auto& kept = kept_[static_cast<std::size_t>(stream)];
    const auto kept_now = bytes.substr(0, kept.max_bytes - kept.bytes.size());
    const auto accepted = options_.when_full == WhenFull::drop ? bytes : kept_now;
    if (options_.sink && !accepted.empty())
        options_.sink(stream, accepted);
    kept.bytes += kept_now;
    if (options_.keep_combined)
        combined_ += kept_now;
    kept.lost += bytes.size() - kept_now.size();
    return accepted.size();
}

std::size_t Output::room(OutputStream stream) const noexcept {
    if (options_.when_full == WhenFull::drop)
        return SIZE_MAX;
    return kept(stream).max_bytes - kept(stream).bytes.size();
}

std::string_view Output::bytes(OutputStream stream) const noexcept {
    return kept(stream).bytes;
}

std::string_view Output::combined() const noexcept {
    return combined_;
}

std::uint64_t Output::lost_bytes(OutputStream stream) const noexcept {
    return kept(stream).lost;
}

const Output::Kept& Output::kept(OutputStream stream) const noexcept {
    return kept_[static_cast<std::size_t>(stream)];
}

} // namespace host_runner::wasm::wasi
