// SPDX-License-Identifier: Apache-2.0
#include "image_files.hpp"

#include <cerrno>

#include <sys/stat.h>

#include <fmt/format.h>

#include "host_runner/base/files.hpp"

namespace host_runner::image {

Result<std::string> find_image_file(const std::string& directory, std::string_view name) {
    auto path = canonical_path(join_path(directory, name));
    if (!path) {
        if (path.error().code != ErrorCode::not_found)
            return tl::unexpected(std::move(path).error());
        return fail(ErrorCode::not_found, fmt::format("Image {} has no file {}", directory, name),
                    "get the image again: it is not complete");
    }
    if (!path->starts_with(directory + "/"))
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{} of image {} is a link to {}, outside the image directory", name,
                                directory, *path),
                    "copy the file into the directory");
    struct stat status {};
    if (::stat(path->c_str(), &status) != 0)
        return fail_errno(fmt::format("Cannot look at {}", *path), errno);
    if (!S_ISREG(status.st_mode))
        return fail(ErrorCode::corrupt_data,
                    fmt::format("{} of image {} is not a regular file", name, directory));
    return path;
}

} // namespace host_runner::image
