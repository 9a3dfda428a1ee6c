// SPDX-License-Identifier: Apache-2.0
#include "host_runner/wasm/wasi/files.hpp"

#include <cerrno>

#include <fcntl.h>

namespace host_runner::wasm::wasi {

Result<Directory> open_directory(const std::string& path, std::string name, Access access) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd)
        return fail_errno("Cannot open the directory " + path, errno);
    return Directory{std::move(fd), std::move(name), access};
}

} // namespace host_runner::wasm::wasi
