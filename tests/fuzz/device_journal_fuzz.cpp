// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>

#include "host_runner/host/device_binder.hpp"

using namespace host_runner::host;

/// What is taken must come back the same from its own text.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto journal = decode_device_journal({reinterpret_cast<const char*>(data), size});
    if (!journal)
        return 0;
    HR_ASSERT(decode_device_journal(encode_device_journal(*journal)).value() == *journal);
    return 0;
}
