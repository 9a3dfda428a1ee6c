// SPDX-License-Identifier: Apache-2.0
#include "host_runner/usernet/program/frame_stream.hpp"

namespace host_runner::usernet::program {

void FrameQueue::push(std::string_view frame) {
    if (front().size() + frame_length_bytes + frame.size() > max_bytes)
        return;
    // Moved only when at least half of it is gone, so that each byte is moved once.
    if (sent_ > 0 && sent_ >= bytes_.size() - sent_) {
        bytes_.erase(0, sent_);
        sent_ = 0;
    }
    for (std::size_t i = frame_length_bytes; i-- > 0;)
        bytes_ += static_cast<char>(frame.size() >> (8 * i) & 0xffU);
    bytes_ += frame;
}

void FrameQueue::pop(std::size_t count) noexcept {
    sent_ += count;
    if (sent_ == bytes_.size()) {
        bytes_.clear();
        sent_ = 0;
    }
}

} // namespace host_runner::usernet::program
