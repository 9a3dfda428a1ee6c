// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace host_runner::tests {

/// Whether this build is one of ASan or TSan.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool has_sanitizer = true;
#elif defined(__has_feature)
inline constexpr bool has_sanitizer =
    __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool has_sanitizer = false;
#endif

} // namespace host_runner::tests
