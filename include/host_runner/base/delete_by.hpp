// SPDX-License-Identifier: Apache-2.0
#pragma once

/// Lets std::unique_ptr own what a C library hands out.
///
///     using Key = std::unique_ptr<EVP_PKEY, DeleteBy<EVP_PKEY_free>>;

namespace host_runner {

template <auto Delete>
struct DeleteBy {
    template <class T>
    void operator()(T* object) const noexcept {
        Delete(object);
    }
};

} // namespace host_runner
