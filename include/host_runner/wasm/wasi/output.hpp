// SPDX-License-Identifier: Apache-2.0
#pragma once

/// What a guest writes to stdout and stderr: kept up to a cap, and handed on as it comes.
///
///     auto output = std::make_shared<wasi::Output>(wasi::OutputOptions{.keep_combined = true});
///     options.files.emplace_back(wasi::CaptureOut{output, wasi::OutputStream::standard_output});
///     ... run ...
///     answer(output->bytes(wasi::OutputStream::standard_output));

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace host_runner::wasm::wasi {

enum class OutputStream : std::uint8_t { standard_output, standard_error };

/// What happens to bytes for which there is no room.
enum class WhenFull : std::uint8_t {
    refuse, ///< The guest learns it: its write takes what fits, then answers NOSPC.
    drop,   ///< The guest does not notice; the bytes go to the sink only, and are counted.
};

struct OutputOptions {
    std::size_t max_output_bytes = std::size_t{1} << 20U; ///< Kept of stdout.
    std::size_t max_error_bytes = std::size_t{1} << 20U;  ///< Kept of stderr.
    WhenFull when_full = WhenFull::refuse;
    bool keep_combined = false; ///< Also keep both in order of arrival; needs the memory twice.
    /// Gets every accepted piece at once, on the thread that runs the guest: it should be quick.
    /// When it throws, the write of the guest fails with IO.
    std::function<void(OutputStream, std::string_view)> sink = {};
};

/// Not thread-safe: belongs to the thread that runs the guest, and to its owner after the run.
class Output {
public:
    explicit Output(OutputOptions options);

    /// @return how many of `bytes` were taken, from the first on
    /// Throws what the sink throws; `bytes` are then not kept.
    std::size_t write(OutputStream stream, std::string_view bytes);

    /// How much a write may take now; SIZE_MAX with WhenFull::drop.
    [[nodiscard]] std::size_t room(OutputStream stream) const noexcept;

    /// Valid until the next write.
    [[nodiscard]] std::string_view bytes(OutputStream stream) const noexcept;
    /// stdout and stderr in the order of the guest's writes; empty unless asked for.
    [[nodiscard]] std::string_view combined() const noexcept;
    /// Bytes that were not kept: those dropped, or those refused (a guest that repeats a refused
    /// write is counted again).
    [[nodiscard]] std::uint64_t lost_bytes(OutputStream stream) const noexcept;

private:
    struct Kept {
        std::string bytes;
        std::size_t max_bytes = 0;
        std::uint64_t lost = 0;
    };
    [[nodiscard]] const Kept& kept(OutputStream stream) const noexcept;

    OutputOptions options_;
    std::array<Kept, 2> kept_;
    std::string combined_;
};

} // namespace host_runner::wasm::wasi
