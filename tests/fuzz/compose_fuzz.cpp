// SPDX-License-Identifier: Apache-2.0
// A compose file of any bytes gives an app that keeps our rules, or an error; never more.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>

#include "host_runner/spec/compose.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner;
    const auto compose =
        spec::parse_compose("compose.yaml", std::string(reinterpret_cast<const char*>(data), size));
    if (!compose)
        return 0;
    const auto resolved = spec::resolve_compose(*compose, {{"NAME", "value"}});
    if (!resolved)
        return 0;
    const auto decoded = protocol::decode_app_compose(protocol::encode_app_compose(resolved->app));
    if (!decoded) // the guest must take what the host makes
        std::abort();
    return 0;
}
