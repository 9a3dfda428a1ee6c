// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Records what would be mounted.

#include <string>
#include <vector>

#include "host_runner/agent/mounts.hpp"

namespace host_runner::tests {

class FakeMounter final : public agent::Mounter {
public:
    [[nodiscard]] Result<void> mount(const agent::MountRequest& request) override {
        if (request.target == failing_target)
            return fail(ErrorCode::io_error, "Cannot mount on " + request.target);
        mounted.push_back(request);
        return {};
    }
    [[nodiscard]] Result<void> unmount(const std::string& target) override {
        if (target == failing_target)
            return fail(ErrorCode::io_error, "Cannot unmount " + target);
        unmounted.push_back(target);
        return {};
    }

    std::string failing_target;
    std::vector<agent::MountRequest> mounted;
    std::vector<std::string> unmounted;
};

} // namespace host_runner::tests
