// SPDX-License-Identifier: Apache-2.0
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "host_runner/image/metadata.hpp"

/// metadata.json: whatever is accepted names only files inside the directory.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace host_runner::image;
    const auto metadata = parse_metadata({reinterpret_cast<const char*>(data), size});
    if (!metadata)
        return 0;
    for (const auto& name : {std::optional(metadata->kernel), std::optional(metadata->initrd),
                             metadata->bios, metadata->rootfs, metadata->hda})
        if (name && (!is_safe_file_name(*name) || name->find('/') != std::string::npos))
            std::abort();
    if (metadata->cmdline.size() > max_command_line_length)
        std::abort();
    static_cast<void>(parse_version(metadata->version));
    static_cast<void>(find_rootfs_binding(metadata->cmdline));
    return 0;
}
