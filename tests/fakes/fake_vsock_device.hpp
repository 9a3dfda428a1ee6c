// SPDX-License-Identifier: Apache-2.0
#pragma once

/// vhost-vsock with a table of taken CIDs instead of a kernel.

#include <cerrno>
#include <cstdint>
#include <set>
#include <vector>

#include <fcntl.h>

#include "host_runner/host/vsock.hpp"

namespace host_runner::tests {

class FakeVsockDevice final : public host::VsockDevice {
public:
    std::set<std::uint32_t> taken;
    int error = 0; ///< Answer to every claim, unless 0.
    bool missing = false;
    std::vector<std::uint32_t> asked;

    Result<UniqueFd> open() override {
        if (missing)
            return fail(ErrorCode::unsupported, "No vsock", "modprobe");
        return UniqueFd(::open("/dev/null", O_RDWR | O_CLOEXEC));
    }
    int set_guest_cid(int, std::uint32_t cid) override {
        asked.push_back(cid);
        if (error != 0)
            return error;
        return taken.insert(cid).second ? 0 : EADDRINUSE;
    }
};

} // namespace host_runner::tests
