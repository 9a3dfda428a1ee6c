// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Ethernet frames on a stream, each behind its length as four bytes in network order.
///
///     FrameReader reader;
///     const bool good = reader.feed(bytes, [](std::string_view frame) { ... });
///
/// Source: qemu@7.2 net/net.c, net_fill_rstate()

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace host_runner::usernet::program {

/// NET_BUFSIZE of qemu@7.2 include/net/net.h: nothing longer comes from there.
inline constexpr std::size_t max_frame_bytes = 4096 + 65536;
inline constexpr std::size_t frame_length_bytes = 4;

/// Cuts the stream into frames.
class FrameReader {
public:
    /// Calls `on_frame` for each frame that is complete with these bytes.
    /// @return false: a length that no frame has; the stream is lost
    template <class OnFrame>
    [[nodiscard]] bool feed(std::string_view bytes, OnFrame on_frame) {
        if (!rest_.empty()) {
            rest_ += bytes;
            bytes = rest_;
        }
        while (const auto size = next_size(bytes)) {
            if (size > max_frame_bytes)
                return false;
            if (bytes.size() - frame_length_bytes < size)
                break;
            on_frame(bytes.substr(frame_length_bytes, size));
            bytes.remove_prefix(frame_length_bytes + size);
        }
        if (bytes.size() >= frame_length_bytes && next_size(bytes) == 0)
            return false;
        rest_ = std::string(bytes);
        return true;
    }

private:
    /// Of the frame that `bytes` begin with; 0: not known yet, or of no frame.
    [[nodiscard]] static std::size_t next_size(std::string_view bytes) noexcept {
        if (bytes.size() < frame_length_bytes)
            return 0;
        std::size_t size = 0;
        for (std::size_t i = 0; i < frame_length_bytes; ++i)
            size = size << 8U | static_cast<std::uint8_t>(bytes[i]);
        return size;
    }

    std::string rest_; ///< Less than a whole frame with its length.
};

/// Frames that wait to be written. Past `max_bytes` they are dropped, as on any full link: TCP
/// sends again.
class FrameQueue {
public:
    static constexpr std::size_t max_bytes = 8U << 20;

    void push(std::string_view frame);
    [[nodiscard]] bool empty() const noexcept {
        return sent_ == bytes_.size();
    }
    /// What is to be written next.
    [[nodiscard]] std::string_view front() const noexcept {
        return std::string_view(bytes_).substr(sent_);
    }
    void pop(std::size_t count) noexcept;

private:
    std::string bytes_;
    std::size_t sent_ = 0;
};

} // namespace host_runner::usernet::program
