// SPDX-License-Identifier: Apache-2.0
#include "version.hpp"

#include <fmt/format.h>
#include <openssl/crypto.h>

#include "host_runner/base/version.hpp"

namespace host_runner::cli {

std::string format_versions() {
    // Header-only and static libraries are what they were at build time (CMake's find_package says
    // which); OpenSSL is what is loaded now.
    return fmt::format("host_runner {}\n"
                       "  CLI11          {}\n"
                       "  cpp-httplib    {}\n"
                       "  fmt            {}\n"
                       "  nlohmann/json  {}\n"
                       "  OpenSSL        {}\n"
                       "  spdlog         {}\n"
                       "  toml++         {}\n"
                       "  yaml-cpp       {}\n",
                       version, HOST_RUNNER_CLI11_VERSION, HOST_RUNNER_HTTPLIB_VERSION,
                       HOST_RUNNER_FMT_VERSION, HOST_RUNNER_JSON_VERSION,
                       OpenSSL_version(OPENSSL_VERSION_STRING), HOST_RUNNER_SPDLOG_VERSION,
                       HOST_RUNNER_TOMLPP_VERSION, HOST_RUNNER_YAML_CPP_VERSION);
}

} // namespace host_runner::cli
